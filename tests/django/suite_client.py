"""The clients of Django's tests, ``Client`` and ``AsyncClient``, with their requests served by an ASGI handler.

By themselves they call a chain of middleware of their own, so that no handler sees what most of Django's tests ask for.
Here they give the handler a scope and messages, and check that it sends the response that its chain returned. With any
handler, tests fail that look at what WSGI alone has, at the set-up of middleware, or at when a stream begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import async_to_sync
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections
from django.test import client
from django.test.client import conditional_content_removal

__all__ = ["Meeting", "connect", "response_of", "scope_of"]

#: The key of the scope under which a request and what came of it meet again.
MEETING = "tests.django.suite_client"


class Meeting:
    """A request of a client, on its way through the handler."""

    def __init__(self, enforce_csrf_checks: bool) -> None:
        self.enforce_csrf_checks = enforce_csrf_checks
        self.request: Any = None
        self.response: Any = None


def connect(handler: Callable[[], Any]) -> None:
    """Let the clients have their requests served by what ``handler`` makes."""

    async def serve(self: Any, scope: dict[str, Any], body: Any) -> Any:
        # As late as the clients themselves: the middleware is that of the test's settings.
        if not hasattr(self, "application"):
            self.application = handler()
        meeting = Meeting(self.enforce_csrf_checks)
        with _connections_kept():
            messages = await _messages(self.application, {**scope, MEETING: meeting}, body.read() if body else b"")
        return response_of(meeting, messages)

    async def call_async(self: Any, scope: dict[str, Any]) -> Any:
        return await serve(self, scope, scope.pop("_body_file", None))

    def call(self: Any, environ: dict[str, Any]) -> Any:
        with _connections_shared():
            response = async_to_sync(serve)(self, scope_of(environ), environ["wsgi.input"])
        response.wsgi_request = response.asgi_request
        return response

    client.AsyncClientHandler.__call__ = call_async
    client.ClientHandler.__call__ = call
    _keep_responses()


def _keep_responses() -> None:
    """Let each chain of middleware say what it was given and what it returned."""
    get_response, get_response_async = BaseHandler.get_response, BaseHandler.get_response_async

    def begin(request: Any) -> Meeting | None:
        meeting: Meeting | None = getattr(request, "scope", {}).get(MEETING)
        if meeting is not None:
            meeting.request = request
            request._dont_enforce_csrf_checks = not meeting.enforce_csrf_checks
        return meeting

    def kept(self: Any, request: Any) -> Any:
        meeting = begin(request)
        response = get_response(self, request)
        if meeting is not None:
            meeting.response = response
        return response

    async def kept_async(self: Any, request: Any) -> Any:
        meeting = begin(request)
        response = await get_response_async(self, request)
        if meeting is not None:
            meeting.response = response
        return response

    BaseHandler.get_response, BaseHandler.get_response_async = kept, kept_async


@contextmanager
def _connections_kept() -> Iterator[None]:
    """Keep the test's connections to its databases, as the clients do."""
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    try:
        yield
    finally:
        request_started.connect(close_old_connections)
        request_finished.connect(close_old_connections)


@contextmanager
def _connections_shared() -> Iterator[None]:
    """Give the thread that serves a request the connections of the test, whose transaction no other one sees."""
    shared = connections.all(initialized_only=True)

    def share(**signal: Any) -> None:
        for connection in shared:
            connections[connection.alias] = connection

    for connection in shared:
        connection.inc_thread_sharing()
    request_started.connect(share, weak=False)
    try:
        yield
    finally:
        request_started.disconnect(share)
        for connection in shared:
            connection.dec_thread_sharing()


def scope_of(environ: dict[str, Any]) -> dict[str, Any]:
    """The scope of a request that came as WSGI's environ."""
    headers = {
        key.removeprefix("HTTP_").lower().replace("_", "-"): str(value)
        for key, value in environ.items()
        if key.startswith("HTTP_") or (key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value not in ("", None))
    }
    return {
        "type": "http",
        "http_version": "1.1",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "path": environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"].encode("latin1").decode(errors="replace"),
        "root_path": environ.get("SCRIPT_NAME", ""),
        "query_string": environ.get("QUERY_STRING", "").encode("latin1"),
        "headers": [(name.encode("latin1"), value.encode("latin1")) for name, value in headers.items()],
        "client": (environ.get("REMOTE_ADDR"), 0),
        "server": (environ["SERVER_NAME"], environ["SERVER_PORT"]),
    }


async def _messages(application: Any, scope: dict[str, Any], body: bytes) -> list[dict[str, Any]]:
    """What the application sends when it is given one request of a client that stays."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body})
    messages = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await application(scope, inbox.get, send)
    return messages


def response_of(meeting: Meeting, messages: list[dict[str, Any]]) -> Any:
    """The response that the chain of middleware returned, after a look whether the messages say the same."""
    response = meeting.response
    start, *rest = messages
    pieces = [message["body"] for message in rest if message.get("body")]
    fields = [*response.items(), *(("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values())]
    assert start["status"] == response.status_code
    assert sorted((name.lower(), value) for name, value in start["headers"]) == sorted(
        (name.lower().encode("latin1"), value.encode("latin1")) for name, value in fields
    )
    assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [False]
    if response.streaming:
        response.streaming_content = _pieces(pieces) if response.is_async else iter(pieces)
    else:
        assert b"".join(pieces) == response.content
    conditional_content_removal(meeting.request, response)
    response.asgi_request = meeting.request
    return response


async def _pieces(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
