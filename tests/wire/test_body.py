"""Bodies cut out of a buffer: by length, and in chunks with all that may be wrong with them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.errors import RequestError
from asgiserver.wire.body import Body, ChunkedBody, Event, LengthBody, _chunk_size


def chunked(limit_size: int = 200, limit_count: int = 5) -> ChunkedBody:
    return ChunkedBody(limit_size, limit_count)


def read(body: Body, *pieces: bytes) -> tuple[bytes, bool, bytes]:
    """What came, whether the end did, and what was left in the buffer then."""
    buffer = got = b""
    for piece in pieces:
        buffer += piece
        while True:
            event, at = body.take(buffer, 0)
            buffer = buffer[at:]
            if event is Event.NEED_DATA:
                break
            if event is Event.END:
                return got, True, buffer
            assert event, "an empty piece"
            assert isinstance(event, bytes)
            got += event
    return got, False, buffer


def status(data: bytes) -> int:
    """200 when ``data`` is fine as far as it goes, else the refusal's; the same whole and byte by byte."""
    outcomes = set()
    for pieces in ([data], [bytes([octet]) for octet in data]):
        try:
            read(chunked(), *pieces)
        except RequestError as error:
            outcomes.add(error.status)
        else:
            outcomes.add(200)
    (outcome,) = outcomes
    return outcome


class TestLength:
    def test_no_body_ends_at_once(self) -> None:
        assert read(LengthBody(0), b"GET") == (b"", True, b"GET")

    def test_exactly_so_much_is_taken(self) -> None:
        assert read(LengthBody(5), b"helloGET") == (b"hello", True, b"GET")

    def test_piece_is_given_before_the_rest_is_there(self) -> None:
        body = LengthBody(5)
        assert read(body, b"he") == (b"he", False, b"")
        assert body.remaining == 3
        assert read(body, b"l", b"lo") == (b"llo", True, b"")
        assert body.remaining == 0


class TestChunks:
    DATA = b"5\r\nhello\r\nA;a=\"b\"\r\n0123456789\r\n0\r\nx: y\r\n\r\n"

    def test_chunks_are_joined_and_extensions_and_trailers_are_dropped(self) -> None:
        assert read(chunked(), self.DATA + b"GET") == (b"hello0123456789", True, b"GET")

    def test_nothing_is_known_of_what_remains(self) -> None:
        assert chunked().remaining is None

    def test_any_cut_reads_the_same(self) -> None:
        for at in range(1, len(self.DATA)):
            assert read(chunked(), self.DATA[:at], self.DATA[at:])[:2] == (b"hello0123456789", True), at

    def test_byte_by_byte(self) -> None:
        pieces = [bytes([octet]) for octet in self.DATA]
        assert read(chunked(), *pieces) == (b"hello0123456789", True, b"")

    def test_part_of_a_chunk_is_given_at_once(self) -> None:
        assert read(chunked(), b"a\r\n0123") == (b"0123", False, b"")

    def test_small_chunks_are_joined_up_to_a_bound(self) -> None:
        chunk = b"400\r\n" + b"*" * 1024 + b"\r\n"
        piece, at = chunked().take(chunk * 200, 0)
        assert piece == b"*" * 65536
        assert 64 * len(chunk) <= at < 65 * len(chunk)

    @pytest.mark.parametrize("chunk", [b"1\r\n*\r\n", b"1;a\r\n*\r\n"])
    def test_a_piece_is_of_few_chunks(self, chunk: bytes) -> None:
        """One read may hold tens of thousands."""
        body = chunked()
        data = chunk * 40_000
        piece, at = body.take(data, 0)
        assert isinstance(piece, bytes)
        assert 1 <= len(piece) <= 64
        assert at <= 65 * len(chunk)

    def test_all_trailers_that_are_allowed_are_taken_at_once(self) -> None:
        assert chunked(10_000, 1000).take(b"0\r\n" + b"x: y\r\n" * 1000 + b"\r\n", 0)[0] is Event.END

    def test_empty_body(self) -> None:
        assert read(chunked(), b"0\r\n\r\nGET") == (b"", True, b"GET")

    @given(st.lists(st.binary(min_size=1, max_size=600), max_size=8), st.lists(st.floats(0, 1), max_size=6).map(sorted))
    def test_any_chunks_in_any_cuts(self, chunks: list[bytes], cuts: list[float]) -> None:
        data = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        bounds = [0, *(round(cut * len(data)) for cut in cuts), len(data)]
        pieces = [data[start:end] for start, end in itertools.pairwise(bounds)]
        assert read(chunked(), *pieces) == (b"".join(chunks), True, b"")


class TestRefusals:
    @pytest.mark.parametrize("size", [
        b"", b" 5", b"-5", b"+5", b"0x5", b"5_0", b"g", b"5 5", b"5,", b"5;a\0b", b"5;a\x7f", b"5\r", b"\xb2",
        b"1" * 16, b"5;\x0b", b"5\0", b"5.0",
    ])  # fmt: skip
    def test_bad_sizes(self, size: bytes) -> None:
        assert status(size + b"\r\nhello\r\n") == 400

    @pytest.mark.parametrize("size", [
        b"5", b"05", b"0000000005", b"5;a", b"5 ;a=b", b"5\t; \ta \t=\t b", b"5;a;b;a=1", b"5;a=\"\"", b"5;a=b ;c",
        b'5;a="\\"; \t\xe9\\\xe9\\\\";b', b"5;chunk-signature=0123456789abcdef",
    ])  # fmt: skip
    def test_good_sizes(self, size: bytes) -> None:
        """Extensions as RFC 9112 §7.1.1 has them."""
        assert status(size + b"\r\nhello\r\n") == 200
        assert status(size.replace(b"5", b"0", 1) + b"\r\n\r\n") == 200

    @pytest.mark.parametrize("extension", [
        b";", b"; ", b";;", b";a;", b";a=", b";=b", b";bad[=x", b";a=b[", b";a=\xe9", b";a b", b";a=b c", b";a ",
        b";a=b\t", b' ;a="', b';a="b', b';a="b"c', b';a="\\"', b";a='b c'", b';"a"=b', b" ", b"\t", b",a", b";a,b",
        b";a==b", b';a="\\\x01"', b";a=b=c",
    ])  # fmt: skip
    def test_bad_extensions(self, extension: bytes) -> None:
        assert status(b"5" + extension + b"\r\nhello\r\n") == 400
        assert status(b"0" + extension + b"\r\n\r\n") == 400

    @pytest.mark.parametrize("part", [b" \t", b";a", b";a ", b";a=", b'";', b'\\"', b'a="', b"=;"])
    def test_time_for_extensions_is_linear(self, part: bytes) -> None:
        """A line may be so long that trying every way through it would never end."""
        for start in (b"5;a", b'5;a="', b"5"):
            assert _chunk_size(start + (part * 1024)[:1000] + b"\x7f") is None

    @pytest.mark.parametrize("end", [b"\n0", b"x\n", b"!\r\n", b"\rx", b"0\r\n", b"\n\n"])
    def test_chunk_that_is_not_followed_by_crlf(self, end: bytes) -> None:
        assert status(b"5\r\nhello" + end) == 400

    @pytest.mark.parametrize("data", [b"5\nhello\r\n", b"5\r\nhello\r\n0\n\n", b"0\r\nx: y\n\r\n", b"0\r\n\n"])
    def test_bare_line_feeds(self, data: bytes) -> None:
        assert status(data) == 400

    def test_size_line_has_a_bound(self) -> None:
        assert status(b"5;" + b"a" * 1022 + b"\r\nhello\r\n") == 200
        assert status(b"5;" + b"a" * 1023 + b"\r\nhello\r\n") == 400
        assert status(b"5;" + b"a" * 9999) == 400

    @pytest.mark.parametrize(
        "line", [b" x: y", b"\tx: y", b"x : y", b"x", b": y", b"x y: z", b"x: \0", b"x: a\rb", b"x: \x85", b"x\xe9: y"]
    )
    def test_bad_trailers(self, line: bytes) -> None:
        assert status(b"0\r\na: b\r\n" + line + b"\r\n\r\n") == 400

    @pytest.mark.parametrize(
        "chunk", [b"1\r\n*\r\n", b"1;a=b\r\n*\r\n", b"0001\r\n*\r\n", b"5;name=value\r\nhello\r\n"]
    )
    @pytest.mark.parametrize("whole", [True, False])
    def test_many_small_chunks_are_fine(self, chunk: bytes, whole: bool) -> None:
        count = 20_000
        pieces = [chunk * count] if whole else [chunk] * count
        got, ended, rest = read(chunked(), *pieces, b"0\r\n\r\n")
        assert (len(got), ended, rest) == (count * (5 if chunk.startswith(b"5") else 1), True, b"")

    def test_framing_without_end_around_tiny_chunks_is_refused(self) -> None:
        """CVE-2023-39326."""
        padded = b"1;" + b"a" * 1020 + b"\r\n*\r\n"
        assert status(padded * 16) == 200
        assert status(padded * 17) == 400
        assert status((b"1;" + b"a" * 13 + b"\r\n*\r\n") * 17_000) == 400

    def test_framing_is_paid_for_by_data(self) -> None:
        padded = b"200;" + b"a" * 1018 + b"\r\n" + b"*" * 512 + b"\r\n"
        assert status(padded * 50) == 200
        # What was saved by large chunks does not pay for what comes later.
        saved = b"4000\r\n" + b"*" * 16384 + b"\r\n"
        assert status(saved * 3 + (b"1;" + b"a" * 1020 + b"\r\n*\r\n") * 17) == 400

    def test_trailers_have_limits(self) -> None:
        assert status(b"0\r\n" + b"x: y\r\n" * 5 + b"\r\n") == 200
        assert status(b"0\r\n" + b"x: y\r\n" * 6 + b"\r\n") == 431
        assert status(b"0\r\nx: " + b"*" * 195 + b"\r\n\r\n") == 200
        assert status(b"0\r\nx: " + b"*" * 196 + b"\r\n\r\n") == 431
        assert status(b"0\r\nx: " + b"*" * 90 + b"\r\nx: " + b"*" * 120 + b"\r\n\r\n") == 431
        assert status(b"0\r\nx: " + b"*" * 9999) == 431
