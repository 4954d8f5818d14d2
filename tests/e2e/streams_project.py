"""Streams without end, as several frameworks make them; each line that it prints is one thing that a test looks for."""
# ruff: noqa: E402, T201 - Django is to be configured before Channels is imported; printing is how the test listens

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of no use to anybody",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()

from channels.generic.http import AsyncHttpConsumer
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

told = asyncio.Event()


def say(*words: object) -> None:
    print(*words, flush=True)


async def without_end(name: str) -> AsyncIterator[bytes]:
    try:
        yield b"data: first\n\n"
        await asyncio.Event().wait()
    finally:
        say(name, "ended")


async def polling(request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        while not await request.is_disconnected():  # noqa: ASYNC110 - Starlette offers nothing else
            await asyncio.sleep(0.02)
        yield b"data: bye\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def source(request: Request) -> Response:
    return EventSourceResponse(without_end("sse"))


async def polite_source(request: Request) -> Response:
    stop = anyio.Event()

    async def events() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await stop.wait()
        yield b"data: bye\n\n"

    return EventSourceResponse(events(), shutdown_event=stop, shutdown_grace_period=30)


async def view(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(without_end("django"), content_type="text/event-stream")


class Consumer(AsyncHttpConsumer):
    """Sends what happens, and goes on when ``handle`` has returned."""

    async def http_request(self, message: dict[str, Any]) -> None:
        await self.send_headers(headers=[(b"content-type", b"text/event-stream")])
        await self.send_body(b"data: first\n\n", more_body=True)

    async def disconnect(self) -> None:
        say("channels ended")


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    told.set()
    await send({"type": "http.response.body", "body": b"data: still\n\n", "more_body": True})
    await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"data: bye\n\n"})


async def finite(scope: Any, receive: Any, send: Any) -> None:
    """Listens as Django does, but has told how long it is, so it may end in its own time."""
    await receive()
    leaving = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await told.wait()
    await asyncio.sleep(0.1)
    assert not leaving.done()
    leaving.cancel()
    await send({"type": "http.response.body", "body": b"bye"})


urlpatterns = [path("django", view)]
starlette = Starlette(
    routes=[Route("/polling", polling), Route("/sse", source), Route("/polite-sse", polite_source)]
)
APPLICATIONS = {
    "/bare": bare, "/finite": finite, "/django": get_asgi_application(), "/channels": Consumer.as_asgi(),
}  # fmt: skip


async def application(scope: Any, receive: Any, send: Any) -> None:
    await APPLICATIONS.get(scope["path"], starlette)(scope, receive, send)
