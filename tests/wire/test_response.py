"""The bytes of a response's head and chunks."""

from __future__ import annotations

from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.errors import RequestError
from asgiserver.wire.default_fields import Defaults
from asgiserver.wire.response import CONTINUE, Framing, delimited, framed, head, last_chunk, refusal
from tests.fakes import DATE, fields


def test_status_line_fields_and_empty_line() -> None:
    made = head(404, [(b"a", b"1"), (b"set-cookie", b"x"), (b"set-cookie", b"y")])
    assert made == b"HTTP/1.1 404 Not Found\r\na: 1\r\nset-cookie: x\r\nset-cookie: y\r\n\r\n"


def test_framing_lines_follow_the_others() -> None:
    made = head(200, [(b"a", b"")], (b"transfer-encoding: chunked", b"connection: close"))
    assert made == b"HTTP/1.1 200 OK\r\na: \r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"


PLAIN, CHUNKED, NONE = Framing.PLAIN, Framing.CHUNKED, Framing.NONE
CODING, CLOSE, KEEP = b"transfer-encoding: chunked", b"connection: close", b"connection: keep-alive"


@pytest.mark.parametrize(("version", "status", "length", "has_body", "close", "expected"), [
    ("1.1", 200, 5, True, False, (PLAIN, False, ())),
    ("1.1", 200, 5, True, True, (PLAIN, True, (CLOSE,))),
    ("1.1", 200, 5, False, False, (NONE, False, ())),
    ("1.1", 200, None, True, False, (CHUNKED, False, (CODING,))),
    ("1.1", 200, None, True, True, (CHUNKED, True, (CODING, CLOSE))),
    # HEAD has the fields that GET would have; 204 and 304 have no body that a coding could be of.
    ("1.1", 200, None, False, False, (NONE, False, (CODING,))),
    ("1.1", 204, None, False, False, (NONE, False, ())),
    ("1.1", 304, None, False, True, (NONE, True, (CLOSE,))),
    ("1.0", 200, 5, True, False, (PLAIN, False, (KEEP,))),
    ("1.0", 200, 5, True, True, (PLAIN, True, (CLOSE,))),
    ("1.0", 200, None, True, False, (Framing.UNTIL_CLOSE, True, (CLOSE,))),
    ("1.0", 200, None, False, False, (NONE, False, (KEEP,))),
    ("1.0", 304, None, False, False, (NONE, False, (KEEP,))),
])  # fmt: skip
def test_how_a_body_is_delimited(
    version: str, status: int, length: int | None, has_body: bool, close: bool, expected: object
) -> None:
    """RFC 9112 §6.3, §9.3."""
    assert delimited(version, status, length, has_body=has_body, close=close) == expected


@pytest.mark.parametrize("status", [101, 200, 204, 304, 418, 431, 503])
def test_known_status_has_its_phrase(status: int) -> None:
    assert head(status, []) == f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n\r\n".encode()


@pytest.mark.parametrize("status", [299, 799, 999])
def test_unknown_status_has_a_phrase_too(status: int) -> None:
    assert head(status, []) == b"HTTP/1.1 %d Unknown\r\n\r\n" % status


@pytest.mark.parametrize(("size", "line"), [(1, b"1\r\n"), (10, b"a\r\n"), (65536, b"10000\r\n")])
def test_chunks_size_is_hexadecimal(size: int, line: bytes) -> None:
    data = b"*" * size
    assert framed(data, Framing.CHUNKED, last=False) == [line, data, b"\r\n"]
    assert framed(data, Framing.CHUNKED, last=True) == [line, data, b"\r\n", b"0\r\n\r\n"]


def test_piece_of_nothing_ends_a_chunked_body_only_when_it_is_the_last() -> None:
    assert framed(b"", Framing.CHUNKED, last=False) == []
    assert framed(b"", Framing.CHUNKED, last=True) == [b"0\r\n\r\n"]


@pytest.mark.parametrize("last", [True, False])
def test_other_bodies_go_as_they_are_or_not_at_all(last: bool) -> None:
    assert framed(b"abc", Framing.PLAIN, last=last) == [b"abc"]
    assert framed(b"abc", Framing.NONE, last=last) == []


def test_trailers_stand_behind_the_last_chunk() -> None:
    assert last_chunk([(b"X-Sum", b"1"), (b"b", b"")]) == b"0\r\nX-Sum: 1\r\nb: \r\n\r\n"


def test_continue_is_a_whole_informational_response() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="PUT", target="/", headers=[("host", "x"), ("expect", "100-continue")]))
    client.receive_data(CONTINUE)
    event = client.next_event()
    assert isinstance(event, h11.InformationalResponse)
    assert (event.status_code, client.next_event()) == (100, h11.NEED_DATA)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_client_reads_back_what_was_written(pieces: list[bytes]) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(head(200, [(b"x", b"\xe9")], (CODING,)))
    for piece in pieces:
        client.receive_data(b"".join(framed(piece, Framing.CHUNKED, last=False)))
    client.receive_data(b"".join(framed(b"", Framing.CHUNKED, last=True)))
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert (b"x", b"\xe9") in list(response.headers)
    read = b""
    while isinstance(event := client.next_event(), h11.Data):
        read += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert read == b"".join(pieces)


@pytest.mark.parametrize("has_body", [True, False])
def test_refusal_is_a_whole_response_that_closes(has_body: bool) -> None:
    made = refusal(RequestError(426, "Upgrade.", ((b"x", b"1"),)), fields("asgiserver"), has_body=has_body)
    assert made == b"".join(
        (
            b"HTTP/1.1 426 Upgrade Required\r\n",
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: 9\r\nx: 1\r\n",
            b"date: " + DATE + b"\r\nserver: asgiserver\r\nconnection: close, upgrade\r\n\r\n",
            b"Upgrade.\n" if has_body else b"",
        )
    )


@pytest.mark.parametrize("status", [200, 404, 299])
@pytest.mark.parametrize("defaults", [fields("asgiserver").lacking([]), fields().lacking([]), ()])
@pytest.mark.parametrize("body", [b"", b"ab"])
def test_default_fields_and_a_body_follow_the_applications(status: int, defaults: Defaults, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    assert head(status, headers, defaults=defaults, body=body) == head(status, [*headers, *defaults]) + body


def test_names_are_written_as_they_were_given() -> None:
    made = head(200, [(b"ETag", b"1"), (b"X-REQUEST-ID", b"2"), (b"vary", b"*")])
    assert made == b"HTTP/1.1 200 OK\r\nETag: 1\r\nX-REQUEST-ID: 2\r\nvary: *\r\n\r\n"
