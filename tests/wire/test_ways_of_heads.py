"""That heads are read alike with and without h11: a table, and what Hypothesis makes of requests by changing them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiserver.asgi.scope import Request
from asgiserver.errors import RequestError
from asgiserver.settings import Settings
from asgiserver.wire.body import Event
from asgiserver.wire.head import plain_request
from asgiserver.wire.reader import Reader
from tests.wire.test_reader import H11Reader

Outcome = list[object]


LIMITS = Settings(limit_head_size=4096, limit_head_count=20, limit_target_size=512)


def outcome(made: Reader, data: bytes) -> Outcome:
    """Every request and body in ``data`` and where each ends, and at last NEED_DATA or the status of a refusal."""
    made.feed(data)
    found: Outcome = []
    while True:
        try:
            event = made.next_event()
        except RequestError as error:
            return [*found, error.status]
        found += [event, made.buffered]
        if event is Event.NEED_DATA:
            return found


def same(data: bytes) -> Outcome:
    """What is made of ``data`` when plain heads are taken apart, which is what h11 makes of all heads."""
    expected = outcome(Reader(LIMITS), data)
    assert outcome(H11Reader(LIMITS), data) == expected
    return expected


HOST = b"Host: example.com\r\n"
GET = b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"Accept: */*\r\nCookie: a=b; c=d\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n"
    b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nx: y\r\n\r\n"
)
UPGRADE = (
    b"GET /chat HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
OLD = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

#: What comes before the target, between two fields, and so on; each is tried alone.
LINES = [
    b"GET /a?b=c HTTP/1.1", b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET http://h/x?y HTTP/1.1",
    b"GET HTTP://u@h:1/ HTTP/1.1", b"GET https://[::1]:8/ HTTP/1.1", b"GET ftp://h/ HTTP/1.1", b"GET a HTTP/1.1",
    b"GET //h/p HTTP/1.1", b"GET /# HTTP/1.1", b"GET /?# HTTP/1.1", b"GET /a\\b|c^d`e{f}g\"h<i> HTTP/1.1",
    b"GET /%00%zz%f HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\t HTTP/1.1",
    b"GET / HTTP/1.0", b"GET / HTTP/1.2", b"GET / HTTP/1.9", b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"GET / HTTP/3",
    b"GET / HTTP/1.", b"GET / HTTP/1.10", b"GET / HTTP/1.a", b"GET / http/1.1", b"GET / RTSP/1.0", b"GET / ICE/1.0",
    b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /",
    b"GET", b"", b"get / HTTP/1.1", b"Get / HTTP/1.1", b"FOO / HTTP/1.1", b"X-Y!#$%&'*+.^_`|~9 / HTTP/1.1",
    b"G(T / HTTP/1.1", b"CONNECT h:1 HTTP/1.1", b"CONNECT / HTTP/1.1", b"PRI * HTTP/2.0", b"PRI / HTTP/1.1",
    b"SOURCE / HTTP/1.1", b"DESCRIBE / HTTP/1.1", b"PLAY / HTTP/1.1", b"M-SEARCH * HTTP/1.1", b"QUERY / HTTP/1.1",
    b"MSEARCH / HTTP/1.1", b"PROPFIND / HTTP/1.1", b"MKCOL / HTTP/1.1", b"PURGE / HTTP/1.1", b"NOTIFY / HTTP/1.1",
    b"A" * 65 + b" / HTTP/1.1", b"GET /" + b"a" * 600 + b" HTTP/1.1", b"HTTP/1.1 200 OK",
]  # fmt: skip
FIELDS = [
    b"x: y", b"x:y", b"x:", b"x: ", b"x:  y \t ", b"x: a\tb", b"x: \xe9\xff", b"x: a\x85b", b"x: a\x80b", b"x : y",
    b"x\t: y", b" x: y", b"\tx: y", b"x", b":y", b": y", b"(x): y", b"x\xe9: y", b"x_y: z", b"x: a\0b", b"x: a\x01b",
    b"x: a\x7fb", b"x: a\rb", b"x: a\nb", b"x: a\r\n b", b"x: a\r\n\tb", b"x: a\r\n \r\n b", b"x: a\r\r\nb: c",
    b"TE: trailers", b"te: gzip;q=0.5, Trailers", b"TE: trailers;q=0",
    b"Host: y", b"HOST: example.com", b"host : y", b"Content-Length: 0", b"content-length: 3", b"Content-Length: 03",
    b"Content-Length:3", b"Content-Length: 3 ", b"Content-Length: +3", b"Content-Length: -1", b"Content-Length: 3 3",
    b"Content-Length: 3,3", b"Content-Length: 3\r\nContent-Length: 3", b"Content-Length: 3\r\nContent-Length: 4",
    b"Content-Length: 0x3", b"Content-Length:", b"Content-Length: 99999999999999999999", b"Content-Length: 3a",
    b"Content-Length: 18446744073709551615", b"Content-Length: 18446744073709551616", b"Content_Length: 3",
    b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding:",
    b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: chun ked",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Close, x", b"Connection: upgrade", b"Connection:",
    b"Connection: upgrade\r\nUpgrade: h2c", b"Upgrade: websocket", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3", b"Proxy-Connection: close", b"Keep-Alive: 5",
    b"Connection: close\r\nConnection: keep-alive", b"Expect: 100-continue", b"Expect: magic", b"Trailer: x",
    b"Expect: 100-continue\r\nContent-Length: 3", b"x: " + b"y" * 5000, b"\r\n".join([b"x: y"] * 25),
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("host", [HOST, b""])
def test_request_lines(line: bytes, host: bytes) -> None:
    same(line + b"\r\n" + host + b"\r\nabc")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST / HTTP/1.0", b"FOO / HTTP/1.1"])
def test_field_lines(line: bytes, field: bytes) -> None:
    same(line + b"\r\n" + HOST + field + b"\r\n\r\n" + b"3\r\nabc\r\n0\r\n\r\n" + GET)


@pytest.mark.parametrize("line", [b"POST / HTTP/1.1\r\nx_y: z", b"POST http://h/ HTTP/1.1"])
def test_a_coding_in_capitals_beside_fields_that_are_changed(line: bytes) -> None:
    same(line + b"\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("first", [GET, POST, CHUNKED, UPGRADE, OLD])
@pytest.mark.parametrize("second", [GET, POST, CHUNKED, UPGRADE, OLD])
def test_one_request_leaves_nothing_to_the_next(first: bytes, second: bytes) -> None:
    found = same(first + second + first)
    assert sum(isinstance(event, Request) for event in found) == 3
    assert found[-2:] == [Event.NEED_DATA, 0]


@pytest.mark.parametrize("head", [GET, POST.partition(b"hello")[0], UPGRADE, OLD])
def test_usual_heads_need_no_parser(head: bytes) -> None:
    assert plain_request(head, 20) is not None


TOKEN = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
VALUE = st.from_regex(rb"[\t -~\x80-\xff]{0,30}", fullmatch=True)
FIELD = st.one_of(
    st.sampled_from(FIELDS),
    st.builds(lambda *parts: b"".join(parts), TOKEN, st.sampled_from([b":", b": ", b":\t "]), VALUE),
)


@given(st.sampled_from(LINES), st.lists(FIELD, max_size=6), st.booleans(), st.binary(max_size=40))
@settings(max_examples=400, deadline=None)
def test_generated_requests(line: bytes, fields: list[bytes], host: bool, rest: bytes) -> None:
    same(b"\r\n".join([line, *([HOST[:-2]] if host else []), *fields, b"", b""]) + rest + GET)


def replaced(data: bytes, at: int, length: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + length :]


def swapped(data: bytes, at: int, length: int, new: bytes) -> bytes:
    """Put a piece of the request itself there."""
    return data[:at] + data[len(new) : len(new) + length] + data[at:]


HOSTILE = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b",", b"\x85", b"\x0b", b"\x1c", b"HTTP/1.1"]),
)
CHANGE = st.tuples(st.sampled_from([replaced, swapped]), st.integers(0, 200), st.integers(0, 4), HOSTILE)
Change = tuple[Callable[[bytes, int, int, bytes], bytes], int, int, bytes]


#: White space, signs and lists about the values of fields that say how a request is meant, each with its meaning or the
#: status of its refusal.
VALUES = [
    (b"transfer-encoding", [(b" chunked", -1), (b"chunked ", -1), (b"CHUNKED", -1), (b" chunked\t", 400),
                            (b"\tchunked", 400), (b"chunked \t ", 400), (b"chunked,", 400), (b"chun\tked", 400),
                            (b"gzip\t,chunked", 400), (b"gzip,\tchunked", 400), (b"chunked\t, chunked", 400),
                            (b"\t", 400), (b"chunked\x0b", 400), (b"chunked\x0c", 400), (b"chunked\xa0", 501)]),
    (b"content-length", [(b" 1", 1), (b"1\t", 1), (b"\t1 ", 1), (b"01", 1), (b"+1", 400), (b"-1", 400), (b"1,1", 400),
                         (b"1, 1", 400), (b"1 1", 400), (b"1\t1", 400), (b"", 400), (b"\t", 400), (b"1\x0b", 400),
                         (b"1_0", 400), (b"1.", 400), (b"0x1", 400), (b"\xb2", 400), (b"1;", 400)]),
    (b"expect", [(b"100-continue\t", True), (b"\t100-Continue", True), (b"100-continue,", 417), (b"", 417)]),
    (b"connection", [(b"close\t", False), (b"\tclose", False), (b"x\t,\tclose", False), (b",close,", False),
                     (b"clo\tse", True), (b"", True)]),
    (b"host", [(b"x\t", b"x"), (b"\tx", b"x"), (b"x\ty", 400), (b"x y", 400), (b"x:\t80", 400), (b"x\x0b", 400)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "expected"), [(name, *case) for name, cases in VALUES for case in cases]
)
def test_white_space_and_lists_in_values(name: bytes, value: bytes, expected: object) -> None:
    """Both ways refuse a tab in a Transfer-Encoding, and agree about all others."""
    host = b"" if name == b"host" else HOST
    length = b"content-length: 1\r\n" if name == b"expect" else b""
    first, *_ = same(b"POST / HTTP/1.1\r\n" + host + length + name + b":" + value + b"\r\n\r\n")
    if not isinstance(first, Request):
        assert first == expected
        return
    told = {
        b"transfer-encoding": first.body_size, b"content-length": first.body_size, b"expect": first.expects_continue,
        b"connection": first.keep_alive, b"host": first.headers[0][1],
    }  # fmt: skip
    assert told[name] == expected


REQUEST = st.sampled_from([GET, POST, CHUNKED, UPGRADE, OLD])


@given(st.lists(REQUEST, min_size=1, max_size=3), st.lists(CHANGE, max_size=4))
@settings(max_examples=1500, deadline=None)
def test_mutated_requests(requests: list[bytes], changes: list[Change]) -> None:
    data = b"".join(requests)
    for change, at, length, new in changes:
        data = change(data, at % (len(data) + 1), length, new)
    same(data)
