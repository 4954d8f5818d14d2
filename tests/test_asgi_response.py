"""The response of an exchange: its length, and what method and status make of it."""

from __future__ import annotations

import pytest

from asgiserver.asgi.messages import ResponseStart
from asgiserver.asgi.response import CLIENT_CLOSED_REQUEST, Response
from asgiserver.errors import MessageError, RequestError

from .fakes import DATE, FakeStream, fields


def response(method: str = "GET") -> tuple[Response, FakeStream]:
    stream = FakeStream()
    return Response(stream, fields("asgiserver"), method), stream


def start(status: int = 200, length: int | None = None, close: bool = False) -> ResponseStart:
    headers = [(b"X", b"1")] + ([] if length is None else [(b"Content-Length", str(length).encode())])
    return ResponseStart(status, headers, length, close, False, [name.lower() for name, _ in headers])


class TestHead:
    def test_start_is_held_until_the_first_body(self) -> None:
        made, stream = response()
        made.start(start(201))
        assert stream.calls == []
        assert made.status == CLIENT_CLOSED_REQUEST
        made.body(b"abc", more_body=True)
        assert stream.calls == ["headers", "data"]
        assert made.status == stream.status == 201
        made.body(b"def", more_body=False)
        assert stream.calls == ["headers", "data", "data", "end"]
        assert (stream.data, made.sent) == (b"abcdef", 6)

    def test_default_fields_are_added_once(self) -> None:
        """T050, T062."""
        made, stream = response()
        made.start(start())
        made.body(b"", more_body=False)
        assert stream.headers == [(b"X", b"1"), (b"date", DATE), (b"server", b"asgiserver")]

    @pytest.mark.parametrize("name", [b"Date", b"DATE", b"date"])
    @pytest.mark.parametrize("whole", [True, False])
    def test_default_field_is_left_out_however_the_application_spells_its_own(self, name: bytes, whole: bool) -> None:
        """C8."""
        made, stream = response()
        made.start(ResponseStart(200, [(name, b"today")], 0, False, False, [b"date"]))
        made.whole(b"") if whole else made.body(b"", more_body=False)
        assert stream.headers == [(name, b"today"), (b"server", b"asgiserver")]

    @pytest.mark.parametrize("close", [True, False])
    @pytest.mark.parametrize("length", [None, 3])
    def test_framing_is_told_to_the_wire(self, close: bool, length: int | None) -> None:
        """T065."""
        made, stream = response()
        made.start(start(length=length, close=close))
        made.body(b"abc", more_body=False)
        assert stream.framing == {"content_length": length, "has_body": True, "close": close}


class TestNoBody:
    @pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("HEAD", 304), ("POST", 304)])
    @pytest.mark.parametrize("body", [b"", b"abc", b"abcdefgh"])
    def test_head_and_304_send_the_length_but_not_the_body(self, method: str, status: int, body: bytes) -> None:
        """T060, T061."""
        made, stream = response(method)
        made.start(start(status, length=5))
        made.body(body, more_body=True)
        made.body(body, more_body=False)
        assert (stream.data, made.sent) == (b"", 0)
        assert stream.framing == {"content_length": 5, "has_body": False, "close": False}
        assert (b"Content-Length", b"5") in stream.headers

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_204_has_no_length_either(self, method: str) -> None:
        """T061, C8; RFC 9110 §8.6."""
        made, stream = response(method)
        made.start(start(204, length=3))
        made.body(b"abc", more_body=False)
        assert stream.framing == {"content_length": None, "has_body": False, "close": False}
        assert [name for name, _ in stream.headers] == [b"X", b"date", b"server"]
        assert stream.data == b""

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
    @pytest.mark.parametrize("length", [None, 0, 3])
    def test_205_says_that_there_is_nothing(self, method: str, length: int | None) -> None:
        """T061, C8; RFC 9110 §15.3.6."""
        made, stream = response(method)
        made.start(start(205, length=length))
        made.body(b"ab", more_body=True)
        made.body(b"c", more_body=False)
        assert stream.framing == {"content_length": 0, "has_body": False, "close": False}
        assert [value for name, value in stream.headers if name.lower() == b"content-length"] == [b"0"]
        assert (stream.data, made.sent, stream.calls[-1]) == (b"", 0, "end")


class TestLength:
    @pytest.mark.parametrize("pieces", [[b"abcde"], [b"ab", b"cde"], [b"", b"abcde", b""], [b"a"] * 5])
    def test_right_length_passes(self, pieces: list[bytes]) -> None:
        """T053."""
        made, stream = response()
        made.start(start(length=5))
        for at, piece in enumerate(pieces, 1):
            made.body(piece, more_body=at < len(pieces))
        assert len(stream.data) == 5

    @pytest.mark.parametrize("more_body", [True, False])
    def test_longer_first_piece_sends_nothing_at_all(self, more_body: bool) -> None:
        """T094."""
        made, stream = response()
        made.start(start(length=2))
        with pytest.raises(MessageError, match='"body" is 3 bytes longer'):
            made.body(b"abcde", more_body=more_body)
        assert stream.calls == []
        assert made.status == CLIENT_CLOSED_REQUEST

    def test_later_piece_that_is_too_long_is_left_out_wholly(self) -> None:
        """T094."""
        made, stream = response()
        made.start(start(length=4))
        made.body(b"abc", more_body=True)
        with pytest.raises(MessageError, match='"body" is 1 bytes longer'):
            made.body(b"de", more_body=False)
        assert stream.data == b"abc"
        made.body(b"d", more_body=False)
        assert stream.data == b"abcd"

    def test_body_that_ends_short_is_refused(self) -> None:
        """T095."""
        made, stream = response()
        made.start(start(length=4))
        made.body(b"a", more_body=True)
        with pytest.raises(MessageError, match='"body" ends 2 bytes short'):
            made.body(b"b", more_body=False)
        assert "end" not in stream.calls

    def test_length_of_0_allows_an_empty_body_only(self) -> None:
        made, stream = response()
        made.start(start(length=0))
        with pytest.raises(MessageError, match="1 bytes longer"):
            made.body(b"a", more_body=True)
        made.body(b"", more_body=False)
        assert stream.calls == ["headers", "data", "end"]


class TestAnswer:
    def test_reason_becomes_a_text_of_known_length(self) -> None:
        made, stream = response()
        made.answer(RequestError(503, "Bitte warten: \xe4.", ((b"retry-after", b"1"),)), close=True)
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
        made, stream = response("HEAD")
        made.answer(RequestError(500, "Internal Server Error"), close=False)
        assert stream.data == b""
        assert stream.framing["content_length"] == 22

    def test_it_replaces_what_the_application_has_only_started(self) -> None:
        made, stream = response()
        made.start(start(200, length=9))
        made.answer(RequestError(500, "Internal Server Error"), close=False)
        assert (stream.status, made.status) == (500, 500)
        assert b"X" not in dict(stream.headers)


class TestWhole:
    """The short way for what is a whole response: it does what body() does, or nothing."""

    @pytest.mark.parametrize("close", [True, False])
    @pytest.mark.parametrize("length", [0, 3])
    def test_body_of_the_told_length_is_sent(self, length: int, close: bool) -> None:
        body = b"abc"[:length]
        made, stream = response()
        made.start(start(201, length, close))
        assert made.whole(body)
        other, long_way = response()
        other.start(start(201, length, close))
        other.body(body, more_body=False)
        assert (made.status, made.sent) == (other.status, other.sent) == (201, length)
        for name in ("status", "headers", "framing", "data", "calls"):
            assert getattr(stream, name) == getattr(long_way, name)

    @pytest.mark.parametrize(
        ("method", "status", "length"),
        [
            ("GET", 200, None), ("GET", 200, 2), ("GET", 200, 4), ("HEAD", 200, 3), ("GET", 204, 3), ("GET", 205, 3),
            ("GET", 304, 3),
        ],
    )
    def test_anything_else_is_left_to_the_long_way(self, method: str, status: int, length: int | None) -> None:
        made, stream = response(method)
        made.start(start(status, length))
        assert not made.whole(b"abc")
        assert (stream.calls, made.status, made.sent) == ([], CLIENT_CLOSED_REQUEST, 0)
