"""HPACK: the RFC's examples, what breaks its rules, its bounds, and whether others read and write the same."""

from __future__ import annotations

import itertools
import tracemalloc

import hpack
import pytest
from hpack.table import HeaderTable
from hypothesis import example, given
from hypothesis import strategies as st

from asgiserver.wire.hpack import Decoder, FieldsTooLarge, HPACKError, encode

Fields = list[tuple[bytes, bytes]]

REQUESTS: list[Fields] = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]  # fmt: skip
LOCATION = (b"location", b"https://www.example.com")
DATE = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
RESPONSES: list[Fields] = [
    [(b":status", b"302"), (b"cache-control", b"private"), DATE, LOCATION],
    [(b":status", b"307"), (b"cache-control", b"private"), DATE, LOCATION],
    [
        (b":status", b"200"), (b"cache-control", b"private"), (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"), LOCATION,
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]  # fmt: skip


def decoded(decoder: Decoder, block: bytes) -> Fields:
    return decoder.decode(block, 65536, 1000)


def of_hex(text: str) -> bytes:
    return bytes.fromhex(text)


class TestExamples:
    """RFC 7541 Appendix C."""

    @pytest.mark.parametrize(("block", "field", "size"), [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), 55),  # C.2.1
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),  # C.2.2
        ("100870617373776f726406736563726574", (b"password", b"secret"), 0),  # C.2.3
        ("82", (b":method", b"GET"), 0),  # C.2.4
    ])  # fmt: skip
    def test_representations(self, block: str, field: tuple[bytes, bytes], size: int) -> None:
        decoder = Decoder()
        assert decoded(decoder, of_hex(block)) == [field]
        # An entry that is in the table is read again by its index; without one, there is nothing at 62.
        if size:
            assert decoded(decoder, b"\xbe") == [field]
        else:
            with pytest.raises(HPACKError):
                decoded(decoder, b"\xbe")

    @pytest.mark.parametrize("blocks", [
        # C.3, without Huffman code, and C.4, with it.
        ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
         "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"],
        ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf",
         "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"],
    ])  # fmt: skip
    def test_requests(self, blocks: list[str]) -> None:
        decoder = Decoder()
        assert [decoded(decoder, of_hex(block)) for block in blocks] == REQUESTS
        table = [(b"custom-key", b"custom-value"), (b"cache-control", b"no-cache"), (b":authority", b"www.example.com")]
        assert decoded(decoder, b"\xbe\xbf\xc0") == table

    @pytest.mark.parametrize("blocks", [
        # C.5, without Huffman code, and C.6, with it; entries are evicted from a table of 256 bytes.
        [("4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a"
         "2f2f7777772e6578616d706c652e636f6d"),
         "4803333037c1c0bf",
         ("88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b"
         "425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31")],
        ["488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
         "4883640effc1c0bf",
         ("88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af2708"
         "7f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007")],
    ])  # fmt: skip
    def test_responses(self, blocks: list[str]) -> None:
        decoder = Decoder(256)
        assert [decoded(decoder, of_hex(block)) for block in blocks] == RESPONSES
        assert decoded(decoder, b"\xbe\xbf\xc0") == [RESPONSES[2][5], RESPONSES[2][4], RESPONSES[2][2]]
        with pytest.raises(HPACKError):
            decoded(decoder, b"\xc1")

    def test_static_table_is_that_of_appendix_a(self) -> None:
        entries = [decoded(Decoder(), bytes([0x80 | index]))[0] for index in range(1, 62)]
        assert entries == list(HeaderTable.STATIC_TABLE)

    @pytest.mark.parametrize("number", [0, 30, 31, 1337, 4096, 2**20])
    def test_numbers_of_any_length_are_read(self, number: int) -> None:
        """C.1, as the length of a string."""
        value = b"v" * number
        assert Decoder().decode(encode([(b"x", value)]), 2**21, 1) == [(b"x", value)]


class TestRules:
    @pytest.mark.parametrize("block", [
        # Index 0, and indices behind the static table while the dynamic one is empty.
        "80", "be", "ff00", "ff8001", "7f0001", "0f2f01",
        # Cut off: in a number, in a string's length, in a string, between name and value.
        "ff", "ff80", "40", "0000", "0001", "000161", "7f", "0f", "3f", "007f", "0002610161",
        # A string that is longer than its block, and numbers that are too large or too long.
        "000161036162", "ffffffffffff7f", "ff8080808080808000", "007fffffffffff7f", "3fffffffffffff7f",
        # Huffman code: padding of zeros, of eight bits, and EOS.
        "000081 06", "000082 07ff", "000081 ff", "0081 06 00", "000084 ffffffff",
    ])  # fmt: skip
    def test_malformed_blocks_are_refused(self, block: str) -> None:
        with pytest.raises(HPACKError):
            decoded(Decoder(), of_hex(block))

    def test_table_changes_its_size_at_the_beginning_of_a_block_only(self) -> None:
        """RFC 7541 §4.2, §6.3."""
        decoder = Decoder(100)
        assert decoded(decoder, of_hex("20 3f45 82")) == [(b":method", b"GET")]
        for block in ("82 20", "40 0161 0162 20", "3f46"):
            with pytest.raises(HPACKError):
                decoded(Decoder(100), of_hex(block))

    def test_smaller_table_loses_its_oldest_entries(self) -> None:
        decoder = Decoder()
        decoded(decoder, of_hex("40 0161 0131 40 0162 0132 40 0163 0133"))
        assert decoded(decoder, of_hex("3f25 be bf")) == [(b"c", b"3"), (b"b", b"2")]  # 68 = 2 entries of 34
        with pytest.raises(HPACKError):
            decoded(decoder, of_hex("c0"))
        decoder = Decoder()
        decoded(decoder, of_hex("40 0161 0131"))
        # To 0 and back empties it.
        with pytest.raises(HPACKError):
            decoded(decoder, of_hex("20 3fe11f be"))

    def test_entry_larger_than_the_table_empties_it(self) -> None:
        """RFC 7541 §4.4: this is no error; nor is a name from the entry that makes room (its last paragraph)."""
        decoder = Decoder(70)
        decoded(decoder, of_hex("40 0161 0131"))
        large = of_hex("7e 28") + b"v" * 40  # its name is that of index 62
        assert decoded(decoder, large) == [(b"a", b"v" * 40)]
        with pytest.raises(HPACKError):
            decoded(decoder, b"\xbe")

    def test_connections_share_no_table(self) -> None:
        first, second = Decoder(), Decoder()
        decoded(first, of_hex("40 0161 0131"))
        with pytest.raises(HPACKError):
            decoded(second, b"\xbe")


class TestBounds:
    def test_references_are_counted(self) -> None:
        """CVE-2026-49975: a byte each, but each is a field."""
        decoder = Decoder()
        assert len(decoder.decode(b"\x82" * 100, 10**6, 100)) == 100
        with pytest.raises(FieldsTooLarge):
            decoder.decode(b"\x82" * 101, 10**6, 100)

    def test_bytes_are_those_of_the_fields_and_not_of_the_block(self) -> None:
        """CVE-2016-6581: many references to one large entry."""
        decoder = Decoder()
        entry = (b"x", b"v" * 4000)
        decoder.decode(b"\x40\x01x\x7f\xa1\x1e" + entry[1], 10**6, 100)
        assert decoder.decode(b"\xbe" * 10, 40330, 100) == [entry] * 10
        with pytest.raises(FieldsTooLarge):
            decoder.decode(b"\xbe" * 10, 40329, 100)

    @pytest.mark.parametrize("limits", [(10**6, 1), (70, 100)])
    def test_table_is_right_after_too_many_fields(self, limits: tuple[int, int]) -> None:
        decoder = Decoder()
        with pytest.raises(FieldsTooLarge):
            decoder.decode(of_hex("82 40 0161 0131 40 0162 0132"), *limits)
        assert decoded(decoder, b"\xbe\xbf") == [(b"b", b"2"), (b"a", b"1")]

    def test_decoder_is_small(self) -> None:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            decoder = Decoder()
            assert tracemalloc.get_traced_memory()[0] - before < 300
            for number in range(5000):
                # The smallest entries that differ from each other.
                decoded(decoder, b"\x40\x01a\x02" + number.to_bytes(2, "big"))
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert after - before < 32768

    def test_huge_lengths_cost_nothing(self) -> None:
        with pytest.raises(HPACKError):
            decoded(Decoder(), b"\x00\x7f" + b"\xff" * 60000)


class TestEncoder:
    def test_only_the_static_table_is_used(self) -> None:
        assert encode([(b":status", b"200"), (b"accept-encoding", b"gzip, deflate")]) == b"\x88\x90"
        assert encode([(b":status", b"201"), (b"etag", b'"a"')]) == b'\x08\x03201\x0f\x13\x03"a"'

    def test_secrets_are_never_indexed(self) -> None:
        for name in (b"set-cookie", b"cookie", b"authorization", b"proxy-authorization"):
            assert encode([(name, b"s")])[0] & 0xF0 == 0x10
        (field,) = hpack.Decoder().decode(encode([(b"set-cookie", b"s")]), raw=True)
        assert type(field) is hpack.NeverIndexedHeaderTuple

    def test_names_are_compressed_and_values_on_demand(self) -> None:
        block = encode([(b"x-frame-options", b"SAMEORIGIN")])
        assert b"SAMEORIGIN" in block
        assert b"x-frame-options" not in block
        shorter = encode([(b"x-frame-options", b"SAMEORIGIN")], compress=True)
        assert len(shorter) < len(block)
        assert decoded(Decoder(), shorter) == decoded(Decoder(), block)
        # What would be longer in the Huffman code stays as it is.
        assert b"\xff\xfe" in encode([(b"x", b"\xff\xfe")], compress=True)


names = st.sampled_from([b":method", b":path", b"cookie", b"set-cookie", b"accept", b"x"]) | st.binary(max_size=20)
values = st.sampled_from([b"GET", b"/", b"", b"v" * 126, b"v" * 127, b"v" * 128]) | st.binary(max_size=200)
lists = st.lists(st.tuples(names, values), max_size=12)


class TestOthers:
    """Against hpack, with the blocks of a connection, each of which leaves its traces in the table."""

    @given(st.lists(lists, max_size=5), st.booleans())
    def test_they_read_what_we_write(self, blocks: list[Fields], compress: bool) -> None:
        theirs, ours = hpack.Decoder(), Decoder()
        for fields in blocks:
            block = encode(fields, compress=compress)
            assert theirs.decode(block, raw=True) == fields
            assert decoded(ours, block) == fields

    @given(st.lists(st.tuples(lists, st.booleans(), st.sampled_from([None, 0, 40, 100, 1000, 4096])), max_size=6))
    def test_we_read_what_they_write(self, blocks: list[tuple[Fields, bool, int | None]]) -> None:
        theirs, ours = hpack.Encoder(), Decoder()
        for fields, huffman, size in blocks:
            if size is not None:
                theirs.header_table_size = size
            assert decoded(ours, theirs.encode(fields, huffman=huffman)) == fields

    @given(st.lists(st.binary(max_size=60), max_size=4))
    @example([b"\x3f\xe2\x1f"])
    def test_we_agree_about_any_bytes(self, blocks: list[bytes]) -> None:
        self.compare(blocks)

    @given(
        st.lists(lists.filter(bool), min_size=1, max_size=3),
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 200), st.integers(0, 255)), max_size=3),
    )
    def test_we_agree_about_damaged_blocks(self, blocks: list[Fields], damage: list[tuple[int, int, int]]) -> None:
        encoder = hpack.Encoder()
        made = [bytearray(encoder.encode(fields)) for fields in blocks]
        for number, at, byte in damage:
            block = made[number % len(made)]
            block[at % len(block)] = byte
        self.compare([bytes(block) for block in made])

    def compare(self, blocks: list[bytes]) -> None:
        theirs, ours = hpack.Decoder(), Decoder()
        for block in blocks:
            expected = self.verdict(theirs, block)
            try:
                made: Fields | None = decoded(ours, block)
            except HPACKError:
                made = None
            assert made == expected
            if made is None:
                return
            # The tables are the same too.
            indexed = [bytes([0x80 | 62 + number]) for number in range(len(theirs.header_table.dynamic_entries))]
            assert decoded(ours, b"".join(indexed)) == list(theirs.header_table.dynamic_entries)

    @staticmethod
    def verdict(decoder: hpack.Decoder, block: bytes) -> Fields | None:
        try:
            return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
        except hpack.HPACKError:
            return None


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 500), st.integers(0, 20))
def test_any_bytes_are_fields_or_one_of_two_errors(blocks: list[bytes], most_bytes: int, most_fields: int) -> None:
    decoder = Decoder()
    for block in blocks:
        try:
            fields = decoder.decode(block, most_bytes, most_fields)
        except FieldsTooLarge:
            continue
        except HPACKError:
            return
        assert len(fields) <= most_fields
        assert sum(len(part) for part in itertools.chain.from_iterable(fields)) + 32 * len(fields) <= most_bytes
