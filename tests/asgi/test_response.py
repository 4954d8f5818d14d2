"""The response of an exchange: its length, and what method and status make of it."""

from __future__ import annotations

import pytest

from asgiserver.asgi.messages import ResponseStart
from asgiserver.asgi.response import CLIENT_CLOSED_REQUEST, Response, plain
from asgiserver.errors import MessageError, RequestError
from tests.fakes import FakeStream


def response(
    status: int = 200, length: int | None = None, close: bool = False, method: str = "GET"
) -> tuple[Response, FakeStream]:
    stream = FakeStream()
    headers = [(b"X", b"1")] + ([] if length is None else [(b"Content-Length", str(length).encode())])
    start = ResponseStart(status, headers, length, close, False, [name.lower() for name, _ in headers])
    return Response(stream, start, method), stream


def answer(error: RequestError, method: str = "GET", *, close: bool = False) -> FakeStream:
    stream = FakeStream()
    Response(stream, plain(error), method, close=close).send(error.body, more_body=False)
    return stream


class TestHead:
    def test_start_is_held_until_the_first_body(self) -> None:
        made, stream = response(201)
        assert stream.calls == []
        assert made.status == CLIENT_CLOSED_REQUEST
        made.send(b"abc", more_body=True)
        assert stream.calls == ["respond"]
        assert made.status == stream.status == 201
        made.send(b"def", more_body=False)
        assert stream.calls == ["respond", "data", "end"]
        assert (stream.data, made.sent) == (b"abcdef", 6)

    @pytest.mark.parametrize("close", [True, False])
    @pytest.mark.parametrize("length", [None, 3])
    def test_framing_is_told_to_the_wire(self, close: bool, length: int | None) -> None:
        made, stream = response(length=length, close=close)
        made.send(b"abc", more_body=False)
        assert stream.framing == {"content_length": length, "has_body": True, "close": close}


class TestNoBody:
    @pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("HEAD", 304), ("POST", 304)])
    @pytest.mark.parametrize("body", [b"", b"abc", b"abcdefgh"])
    def test_head_and_304_send_the_length_but_not_the_body(self, method: str, status: int, body: bytes) -> None:
        made, stream = response(status, length=5, method=method)
        made.send(body, more_body=True)
        made.send(body, more_body=False)
        assert (stream.data, made.sent) == (b"", 0)
        assert stream.framing == {"content_length": 5, "has_body": False, "close": False}
        assert (b"Content-Length", b"5") in stream.headers

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_204_has_no_length_either(self, method: str) -> None:
        """RFC 9110 §8.6."""
        made, stream = response(204, length=3, method=method)
        made.send(b"abc", more_body=False)
        assert stream.framing == {"content_length": None, "has_body": False, "close": False}
        assert [name for name, _ in stream.headers] == [b"X"]
        assert stream.data == b""

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
    @pytest.mark.parametrize("length", [None, 0, 3])
    def test_205_says_that_there_is_nothing(self, method: str, length: int | None) -> None:
        """RFC 9110 §15.3.6."""
        made, stream = response(205, length=length, method=method)
        made.send(b"ab", more_body=True)
        made.send(b"c", more_body=False)
        assert stream.framing == {"content_length": 0, "has_body": False, "close": False}
        assert [value for name, value in stream.headers if name.lower() == b"content-length"] == [b"0"]
        assert (stream.data, made.sent, stream.calls[-1]) == (b"", 0, "end")


class TestLength:
    @pytest.mark.parametrize("pieces", [[b"abcde"], [b"ab", b"cde"], [b"", b"abcde", b""], [b"a"] * 5])
    def test_right_length_passes(self, pieces: list[bytes]) -> None:
        made, stream = response(length=5)
        for at, piece in enumerate(pieces, 1):
            made.send(piece, more_body=at < len(pieces))
        assert len(stream.data) == 5

    @pytest.mark.parametrize("more_body", [True, False])
    def test_longer_first_piece_sends_nothing_at_all(self, more_body: bool) -> None:
        made, stream = response(length=2)
        with pytest.raises(MessageError, match='"body" is 3 bytes longer'):
            made.send(b"abcde", more_body=more_body)
        assert stream.calls == []
        assert made.status == CLIENT_CLOSED_REQUEST

    def test_later_piece_that_is_too_long_is_left_out_wholly(self) -> None:
        made, stream = response(length=4)
        made.send(b"abc", more_body=True)
        with pytest.raises(MessageError, match='"body" is 1 bytes longer'):
            made.send(b"de", more_body=False)
        assert stream.data == b"abc"
        made.send(b"d", more_body=False)
        assert stream.data == b"abcd"

    def test_body_that_ends_short_is_refused(self) -> None:
        made, stream = response(length=4)
        made.send(b"a", more_body=True)
        with pytest.raises(MessageError, match='"body" ends 2 bytes short'):
            made.send(b"b", more_body=False)
        assert "end" not in stream.calls

    def test_length_of_0_allows_an_empty_body_only(self) -> None:
        made, stream = response(length=0)
        with pytest.raises(MessageError, match="1 bytes longer"):
            made.send(b"a", more_body=True)
        made.send(b"", more_body=False)
        assert stream.calls == ["respond", "end"]


class TestAnswer:
    def test_reason_becomes_a_text_of_known_length(self) -> None:
        stream = answer(RequestError(503, "Bitte warten: \xe4.", ((b"retry-after", b"1"),)), close=True)
        assert stream.status == 503
        assert stream.data == "Bitte warten: \xe4.\n".encode()
        assert stream.framing == {"content_length": len(stream.data), "has_body": True, "close": True}
        assert stream.headers[:3] == [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(stream.data)).encode()),
            (b"retry-after", b"1"),
        ]
        assert stream.calls[-1] == "end"

    def test_head_gets_no_text(self) -> None:
        stream = answer(RequestError(500, "Internal Server Error"), "HEAD")
        assert stream.data == b""
        assert stream.framing["content_length"] == 22
