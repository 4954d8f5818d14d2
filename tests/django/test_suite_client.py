"""What Django's clients make of a handler's messages."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, StreamingHttpResponse

from tests.django.suite_client import Meeting, response_of, scope_of

START = {
    "type": "http.response.start", "status": 200,
    "headers": [(b"Content-Type", b"text/plain"), (b"Set-Cookie", b"a=b; Path=/"), (b"Set-Cookie", b"c=d; Path=/")],
}


def body(data: bytes, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def meeting(response: Any, method: str = "GET") -> Meeting:
    found = Meeting(False)
    found.request = ASGIRequest.__new__(ASGIRequest)
    found.request.method = method
    found.response = response
    response.set_cookie("a", "b")
    response.set_cookie("c", "d")
    return found


def plain() -> HttpResponse:
    return HttpResponse(b"body", content_type="text/plain")


def stream() -> StreamingHttpResponse:
    return StreamingHttpResponse([b"consumed"], content_type="text/plain")


class TestResponse:
    def test_it_is_the_chains_own(self) -> None:
        found = meeting(plain())
        response = response_of(found, [START, body(b"bo", True), body(b"dy")])
        assert response is found.response
        assert response.content == b"body"
        assert response.asgi_request is found.request

    def test_a_stream_has_the_pieces_that_were_sent(self) -> None:
        response = response_of(meeting(stream()), [START, body(b"a", True), body(b"b", True), body(b"")])
        assert list(response) == [b"a", b"b"]

    def test_one_without_content_has_none(self) -> None:
        assert response_of(meeting(plain(), "HEAD"), [START, body(b"body")]).content == b""

    @pytest.mark.parametrize(
        "messages",
        [
            [{**START, "status": 201}, body(b"body")],
            [{**START, "headers": START["headers"][:-1]}, body(b"body")],
            [{**START, "headers": [*START["headers"], (b"Vary", b"*")]}, body(b"body")],
            [START, body(b"bod")],
            [START, body(b"body", True)],
            [START, body(b"bo"), body(b"dy")],
            [START],
        ],
        ids=["status", "field lost", "field added", "content", "no end", "two ends", "no body"],
    )
    def test_other_messages_than_it_says_are_an_error(self, messages: list[dict[str, Any]]) -> None:
        with pytest.raises(AssertionError):
            response_of(meeting(plain()), messages)


class TestScope:
    ENVIRON = {
        "REQUEST_METHOD": "POST", "wsgi.url_scheme": "https", "PATH_INFO": "/caf\xc3\xa9", "SCRIPT_NAME": "/root",
        "QUERY_STRING": "a=b", "REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "testserver", "SERVER_PORT": "80",
        "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": 4, "HTTP_X_NAME": "value",
    }

    def test_it_says_what_the_environ_says(self) -> None:
        assert scope_of(self.ENVIRON) == {
            "type": "http", "http_version": "1.1", "method": "POST", "scheme": "https", "path": "/root/café",
            "root_path": "/root", "query_string": b"a=b", "client": ("127.0.0.1", 0), "server": ("testserver", "80"),
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"4"), (b"x-name", b"value")],
        }

    def test_a_request_without_a_body_has_no_fields_of_one(self) -> None:
        scope = scope_of({**self.ENVIRON, "CONTENT_TYPE": "", "CONTENT_LENGTH": None})
        assert scope["headers"] == [(b"x-name", b"value")]
