"""The readers of requests: whole heads out of any cut of the bytes, their limits, and what is refused; all by both."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import re
import sys
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from types import FunctionType, ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.scope import CHUNKED, Request
from asgiserver.errors import RequestError
from asgiserver.settings import Settings
from asgiserver.wire import reader
from asgiserver.wire.body import Event
from asgiserver.wire.reader import Reader

GET = b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nX-Note:  caf\xe9 \t\r\nX-note: 2\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
CHUNKS = b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nx: y\r\n\r\n"
READ = Request("GET", b"/a?b", [(b"host", b"example.com"), (b"x-note", b"caf\xe9"), (b"x-note", b"2")])

Read = Request | bytes | Event


class H11Reader(Reader):
    """Gives every head to h11, also a plain one."""

    __slots__ = ()

    def next_event(self) -> Read:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "plain_request", lambda *_: None)
            return super().next_event()


READERS = [Reader, H11Reader]


@pytest.fixture(params=READERS)
def made(request: pytest.FixtureRequest) -> Reader:
    made: Reader = request.param(Settings())
    return made


def both(**settings: int) -> list[Reader]:
    return [kind(Settings(**settings)) for kind in READERS]


def drained(made: Reader) -> list[Read]:
    """All events that are there, adjacent pieces of a body joined."""
    events: list[Read] = []
    while (event := made.next_event()) is not Event.NEED_DATA:
        if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
            events[-1] += event
        else:
            events.append(event)
    return events


def read(*pieces: bytes, **settings: int) -> list[Read]:
    """What comes of ``pieces``, looked at after each; of every reader the same."""
    one, *others = [read_by(made, pieces) for made in both(**settings)]
    assert all(other == one for other in others)
    if isinstance(one, RequestError):
        raise one
    return one


class Refused(RequestError):
    """The same as another with its status."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RequestError) and self.status == other.status

    __hash__ = RequestError.__hash__


def read_by(made: Reader, pieces: Iterable[bytes]) -> list[Read] | Refused:
    events: list[Read] = []
    try:
        for piece in pieces:
            made.feed(piece)
            for event in drained(made):
                if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
                    events[-1] += event
                else:
                    events.append(event)
    except RequestError as error:
        return Refused(error.status, error.reason, error.headers)
    return events


def status(data: bytes, **settings: int) -> int:
    """200 when ``data`` reads well, else the status of the refusal; the same however the bytes are cut."""
    outcomes = set()
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        try:
            read(*pieces, **settings)
        except RequestError as error:
            outcomes.add(error.status)
        else:
            outcomes.add(200)
    (outcome,) = outcomes
    return outcome


class TestReading:
    def test_head_is_a_request_with_lower_case_names_and_stripped_values(self) -> None:
        assert read(GET) == [READ]

    @pytest.mark.parametrize("data", [GET, POST, CHUNKS, GET + POST + CHUNKS + GET])
    def test_any_single_cut_reads_the_same(self, data: bytes) -> None:
        whole = read(data)
        for at in range(1, len(data)):
            assert read(data[:at], data[at:]) == whole, at

    @pytest.mark.parametrize("data", [GET, POST, CHUNKS, GET + POST + CHUNKS + GET])
    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_small_pieces_read_the_same(self, data: bytes, size: int) -> None:
        assert read(*(data[at : at + size] for at in range(0, len(data), size))) == read(data)

    def test_line_by_line_reads_the_same(self) -> None:
        assert read(*GET.splitlines(keepends=True)) == [READ]

    def test_two_cuts_anywhere_read_the_same(self) -> None:
        data = b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n\r\n"
        whole = read(data)
        for first in range(1, len(data)):
            for second in range(first + 1, len(data)):
                assert read(data[:first], data[first:second], data[second:]) == whole, (first, second)

    @given(st.lists(st.integers(1, len(GET + POST + CHUNKS)), max_size=8).map(sorted))
    def test_any_cuts_read_the_same(self, cuts: list[int]) -> None:
        data = GET + POST + CHUNKS
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert read(*pieces) == read(data)

    def test_one_by_one(self, made: Reader) -> None:
        made.feed(POST + GET)
        request = made.next_event()
        assert isinstance(request, Request)
        assert request.body_size == made.remaining == 5
        assert made.next_event() == b"hello"
        assert made.remaining == 0
        assert made.next_event() is Event.END
        assert made.buffered == len(GET)
        assert made.next_event() == READ
        assert made.next_event() is Event.NEED_DATA

    def test_piece_of_a_body_is_there_before_the_rest(self, made: Reader) -> None:
        made.feed(POST[:-3])
        made.next_event()
        assert made.next_event() == b"he"
        assert made.next_event() is Event.NEED_DATA
        assert made.remaining == 3

    def test_chunked_body(self) -> None:
        (request, body, end) = read(CHUNKS)
        assert isinstance(request, Request)
        assert (request.body_size, body, end) == (CHUNKED, b"hello", Event.END)

    def test_how_much_of_a_chunked_body_is_left_is_not_known(self, made: Reader) -> None:
        made.feed(CHUNKS[:-5])
        made.next_event()
        assert made.remaining is None

    @pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n"])
    def test_empty_lines_before_a_request_are_ignored(self, empty: bytes) -> None:
        assert read(empty + GET + empty + GET) == [READ] * 2
        assert status(empty + GET) == 200

    def test_rest_can_be_taken_once(self, made: Reader) -> None:
        made.feed(GET + b"\x81\x00")
        made.next_event()
        assert made.buffered == 2
        assert made.take_rest() == b"\x81\x00"
        assert (made.buffered, made.take_rest()) == (0, b"")

    def test_1_0(self) -> None:
        (request,) = read(b"GET / HTTP/1.0\r\n\r\n")
        assert isinstance(request, Request)
        assert (request.http_version, request.keep_alive, request.headers) == ("1.0", False, [])

    @given(
        st.lists(
            st.tuples(
                st.from_regex(rb"[!#$%&'*+.^`|~0-9A-Za-z-]{1,20}", fullmatch=True).map(lambda name: b"x" + name),
                st.from_regex(rb"([!-~\xa0-\xff]([ !-~\xa0-\xff]{0,20}[!-~\xa0-\xff])?)?", fullmatch=True),
            ),
            max_size=20,
        ),
        st.from_regex(rb"/[!\"$-~]{0,60}", fullmatch=True),
        st.binary(max_size=300),
    )
    def test_any_fields_target_and_body_come_through(
        self, fields: list[tuple[bytes, bytes]], target: bytes, body: bytes
    ) -> None:
        lines = b"".join(b"%b: %b\r\n" % line for line in fields)
        data = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n%b" % (target, len(body), lines, body)
        request, *rest = read(data)
        assert isinstance(request, Request)
        assert request.target == target
        assert request.headers[2:] == [(name.lower(), value) for name, value in fields]
        assert rest == ([body, Event.END] if body else [])


    def test_a_piece_in_the_middle_of_a_body_need_not_be_fed(self, made: Reader) -> None:
        made.feed(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        assert not made.take_piece(3)
        made.next_event()
        assert made.take_piece(3)
        assert made.remaining == 7
        # What may be its last has its end looked for.
        assert not made.take_piece(7)
        assert not made.take_piece(8)
        made.feed(b"34567")
        assert not made.take_piece(1)
        assert drained(made) == [b"34567"]
        assert made.take_piece(1)
        made.feed(b"9" + GET)
        assert drained(made) == [b"9", Event.END, READ]

    def test_every_piece_of_a_chunked_body_is_fed(self, made: Reader) -> None:
        made.feed(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n")
        made.next_event()
        assert not made.take_piece(3)


class TestRefusals:
    """Every one whole and byte by byte."""

    def test_the_table_has_a_good_neighbour(self) -> None:
        assert status(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == 200

    @pytest.mark.parametrize("line", [
        b"x y: z", b"x : z", b"x\t: z", b" x: z", b": z", b"x", b"x\0: z", b"x: \0", b"(x): z", b"x\xe9: z",
        b"x: a\x0bb", b"x: a\x0cb", b"x: a\x1cb", b"x: a\x1eb", b"x: a\x7fb", b"x: a\x85b", b"x: a\r\n b",
        b"x: a\r\n\tb", b"x: a\rb", b"x: a\nb: c", b"host: y", b"host: y, z",
    ])  # fmt: skip
    def test_field_lines(self, line: bytes) -> None:
        assert status(b"GET / HTTP/1.1\r\nhost: x\r\n" + line + b"\r\n\r\n") == 400

    @pytest.mark.parametrize(("line", "expected"), [
        (b"\x16\x03\x01", 400),  # a TLS handshake
        (b"\0", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /?\xc3\xa9 HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET / HTTP/1.x", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET /# HTTP/1.1", 400),
        (b"get / HTTP/1.1", 400),
        (b"G(T / HTTP/1.1", 400),
        (b"CONNECT x:1 HTTP/1.1", 501),
        (b"hello", 400),
    ])  # fmt: skip
    def test_request_lines(self, line: bytes, expected: int) -> None:
        assert status(line + b"\r\nhost: x\r\n\r\n") == expected

    @pytest.mark.parametrize(("lines", "expected"), [
        (b"content-length: 5\r\ntransfer-encoding: chunked", 400),
        (b"transfer-encoding: chunked\r\ncontent-length: 5", 400),
        (b"content-length: 5\r\ncontent-length: 6", 400),
        (b"content-length: 5\r\ncontent-length: 5", 400),
        (b"content-length: 5, 5", 400),
        (b"content-length: +5", 400),
        (b"content-length: -1", 400),
        (b"content-length: 5 5", 400),
        (b"content-length:", 400),
        (b"content-length: 0x5", 400),
        (b"content-length: 5_0", 400),
        (b"transfer-encoding: gzip, chunked", 501),
        (b"transfer-encoding: identity, chunked", 501),
        (b"transfer-encoding: xchunked", 501),
        (b"transfer-encoding: chunked, chunked", 400),
        (b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", 400),
        (b"transfer-encoding: chunked, gzip", 400),
        (b"transfer-encoding : chunked", 400),
        (b"transfer-encoding: \x0bchunked", 400),
        (b"transfer-encoding: chun\r\n ked", 400),
    ])  # fmt: skip
    def test_framings(self, lines: bytes, expected: int) -> None:
        assert status(b"POST / HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\n\r\n") == expected

    def test_missing_host(self) -> None:
        assert status(b"GET / HTTP/1.1\r\n\r\n") == 400

    @pytest.mark.parametrize("body", [b"-1\r\n", b"0x1\r\na\r\n", b"zz\r\n", b"1\r\nab\r\n", b"1\na\r\n"])
    def test_chunks(self, body: bytes) -> None:
        assert status(CHUNKS[: CHUNKS.index(b"\r\n\r\n") + 4] + body) == 400

    def test_bare_line_feeds_are_refused_before_the_head_is_complete(self) -> None:
        """With them the empty line may never be found."""
        assert status(b"GET / HTTP/1.1\nhost: x\n\n") == 400
        assert status(b"GET / HTTP/1.1\r\nhost: x\n") == 400


class TestLimits:
    def test_head_at_the_limit_passes_and_one_byte_more_does_not(self) -> None:
        head = b"GET / HTTP/1.1\r\nhost: x\r\nx: %b\r\n\r\n"
        room = 1000 - len(head % b"")
        assert status(head % (b"*" * room), limit_head_size=1000) == 200
        assert status(head % (b"*" * (room + 1)), limit_head_size=1000) == 431

    def test_head_without_an_end_is_refused_at_the_limit(self) -> None:
        for made in both(limit_head_size=1000):
            made.feed(b"GET / HTTP/1.1\r\nx: " + b"*" * 980)
            assert made.next_event() is Event.NEED_DATA
            made.feed(b"**")
            with pytest.raises(RequestError) as caught:
                made.next_event()
            assert caught.value.status == 431

    def test_number_of_field_lines(self) -> None:
        for count, expected in ((10, 200), (11, 431)):
            lines = b"".join(b"x: %d\r\n" % at for at in range(count - 1))
            assert status(b"GET / HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\n", limit_head_count=10) == expected

    @pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"VERSION-CONTROL"])
    def test_target_at_the_limit_passes_and_one_byte_more_does_not(self, method: bytes) -> None:
        for size, expected in ((100, 200), (101, 414), (1000, 414)):
            head = method + b" /" + b"*" * (size - 1) + b" HTTP/1.1\r\nhost: x\r\n\r\n"
            assert status(head, limit_target_size=100) == expected

    def test_request_line_without_an_end_is_refused(self) -> None:
        assert status(b"GET /" + b"*" * 300, limit_target_size=100) == 414

    @pytest.mark.parametrize("rest", [b" ", b"\r\n", b"\r\n: x", b" /\r\n"])
    def test_a_long_word_is_no_target_whether_its_line_has_ended_or_not(self, rest: bytes) -> None:
        whole = b"a" * 130 + rest
        reader = Reader(dataclasses.replace(Settings(), limit_target_size=100))
        for at in range(len(whole)):
            reader.feed(whole[at : at + 1])
            assert reader.next_event() is Event.NEED_DATA

    def test_limits_hold_for_each_request(self) -> None:
        assert read(*[GET] * 20, limit_head_size=256) == [READ] * 20

    def test_body_is_no_part_of_the_head(self) -> None:
        data = POST.replace(b": 5", b": 5000")[:-5] + b"*" * 5000
        assert status(data, limit_head_size=256) == 200

    def test_trailers_have_the_heads_limits(self) -> None:
        line = b"x: " + b"*" * 100 + b"\r\n"
        assert status(CHUNKS[:-2] + line + b"\r\n", limit_head_size=256) == 200
        assert status(CHUNKS[:-2] + line * 3 + b"\r\n", limit_head_size=256) == 431
        assert status(CHUNKS[:-2] + b"a:b\r\n" * 10 + b"\r\n", limit_head_count=10) == 431


class TestEmptyLines:
    """RFC 9112 §2.2."""

    def test_before_a_request(self) -> None:
        assert read(b"\r\n" * 8 + GET) == [READ]
        for count in (9, 50_000):
            with pytest.raises(RequestError) as caught:
                read(b"\r\n" * count + GET)
            assert caught.value.status == 400

    def test_in_many_reads(self) -> None:
        assert status(b"\r\n" * 8 + GET) == 200
        assert status(b"\r\n" * 9) == 400

    def test_each_request_may_have_some(self) -> None:
        assert read(*[b"\r\n" * 8 + GET, b"\r\n" * 8 + POST] * 3, b"\r\n" * 8).count(READ) == 3
        assert status(GET + b"\r\n" * 9 + GET) == 400
        assert status(POST + b"\r\n" * 9) == 400


class TestMemory:
    """Nothing of a request is kept beyond it."""

    SECRET = b"GET /?token=5ec2e7 HTTP/1.1\r\nhost: 5ec2e7.example\r\n%b: 5ec2e7\r\n\r\n"

    @pytest.mark.parametrize("kind", READERS)
    def test_no_secret_is_left(self, kind: type[Reader]) -> None:
        # All are read before the search, which takes long.
        readers = []
        fields = [b"cookie", b"authorization", b"proxy-authorization", b"x-api-key"]
        for field, method in itertools.product(fields, [b"GET", b"POST", b"OPTIONS http://5ec2e7:1", b"PURGE"]):
            made = kind(Settings())
            head = (self.SECRET % field).replace(b"GET ", method + (b"" if b" " in method else b" "))
            if method == b"POST":
                head = head.replace(b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\nx")
            made.feed(head)
            assert isinstance(made.next_event(), Request)
            while made.next_event() is not Event.NEED_DATA:
                pass
            readers.append(made)
        del head
        gc.collect()
        assert not [place for place in [*readers, *memories()] if holds(place, b"5ec2e7")]

    def test_nothing_of_a_read_is_kept_that_was_taken(self, made: Reader) -> None:
        made.feed(POST)
        while made.next_event() is not Event.END:
            pass
        assert made.buffered == 0
        assert made._data == b""


def memories() -> list[object]:
    """What the modules that see requests could keep something in: their containers and caches."""
    rooms = re.compile(r"asgiserver\.(asgi|wire|hub)\b")
    modules = [module for name, module in sys.modules.items() if rooms.match(name)]
    found = [value for module in modules for name, value in vars(module).items() if not name.startswith("__")]
    return [value for value in found if isinstance(value, dict | list | set | deque) or hasattr(value, "cache_info")]


def holds(place: object, secret: bytes, depth: int = 4) -> bool:
    """True when bytes or text with ``secret`` can be reached from ``place``."""
    if isinstance(place, bytes | bytearray):
        return secret in place
    if isinstance(place, str):
        return secret.decode() in place
    if depth == 0 or isinstance(place, type | ModuleType | FunctionType):
        return False
    return any(holds(inner, secret, depth - 1) for inner in gc.get_referents(place))


def test_a_secret_that_is_kept_is_found() -> None:
    """Else the test above could not fail."""

    @lru_cache
    def cached(_: bytes) -> int:
        return 1

    cached(b"with 5ec2e7 in it")
    for place in ({"a": [(b"5ec2e7", 1)]}, deque([{b"5ec2e7 "}]), cached):
        assert holds(place, b"5ec2e7")
    assert memories()
