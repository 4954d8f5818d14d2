"""Requests that end in every odd way: what is answered, and that their slot and lane come back."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import UserSettingsHolder, global_settings, settings
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from asgiserver.django import get_asgi_application
from asgiserver.django.handler import Handler, serving
from asgiserver.django.lanes import Lanes

#: What each exception comes out as; asyncio cannot take the first two, and a third would cancel the request.
RAISED = {
    StopIteration: RuntimeError,
    GeneratorExit: RuntimeError,
    asyncio.CancelledError: RuntimeError,
    ValueError: ValueError,
    MemoryError: MemoryError,
}


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


async def coroutine(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await sync_to_async(_raise)(request.GET["kind"]))


def _raise(kind: str) -> None:
    raise next(each for each in RAISED if each.__name__ == kind)


def stream(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(iter([b"one", b"two"]))


def empty_pieces(request: HttpRequest) -> HttpResponse:
    """A stream that waits for something, and asks from time to time whether anybody still wants it."""
    return StreamingHttpResponse(iter(bytes, None))


def on_the_loop(request: HttpRequest) -> HttpResponse:
    """A stream of the threads of the view and of what the iterator calls."""
    view = threading.get_ident()

    async def pieces() -> AsyncIterator[str]:
        yield str(await sync_to_async(threading.get_ident)() == view)

    return StreamingHttpResponse(pieces())


urlpatterns = [path(view.__name__, view) for view in (plain, coroutine, stream, empty_pieces, on_the_loop)]


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    """A project without middleware."""
    holder = UserSettingsHolder(global_settings)
    holder.ROOT_URLCONF, holder.ALLOWED_HOSTS, holder.SECRET_KEY = __name__, ["h"], "of no use"
    holder.MIDDLEWARE = []
    # Not by monkeypatch, which would load the settings that the environment names.
    before, settings._wrapped = settings._wrapped, holder
    yield
    settings._wrapped = before


class Client:
    """One request; ``sent`` is the bodies' text."""

    def __init__(self, target: str) -> None:
        self.path, _, query = target.partition("?")
        self.scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "path": f"/{self.path}", "root_path": "",
            "query_string": query.encode(), "headers": [(b"host", b"h")], "extensions": {},
        }  # fmt: skip
        self.status = 0
        self.sent = ""
        self.left = asyncio.Event()
        self._asked = False

    async def receive(self) -> Any:
        if self._asked:
            await self.left.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request"}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.sent += message.get("body", b"").decode()


def run(main: Callable[[Handler, Lanes], Awaitable[None]]) -> None:
    """Run ``main`` with one lane, which is free again at its end."""

    async def limited() -> None:
        loop = asyncio.get_running_loop()
        lanes = serving[loop] = Lanes(1)
        try:
            async with asyncio.timeout(20):
                await main(Handler(), lanes)
                while lanes._running or lanes._busy:  # noqa: ASYNC110 - threads set no asyncio.Event
                    await asyncio.sleep(0.001)
                await lanes.close()
        finally:
            del serving[loop]

    asyncio.run(limited())


@contextmanager
def receiver(signal: Signal, function: Callable[..., object]) -> Iterator[None]:
    signal.connect(function, weak=False)
    try:
        yield
    finally:
        signal.disconnect(function)


@pytest.mark.parametrize("target", ["plain", "stream", "on_the_loop"])
@pytest.mark.parametrize("signal", [request_started, request_finished], ids=["started", "finished"])
@pytest.mark.parametrize("kind", RAISED)
def test_what_receivers_raise_comes_out_and_loses_no_lane(target: str, signal: Signal, kind: type) -> None:
    def fail(**_: Any) -> None:
        raise kind

    async def main(handler: Handler, lanes: Lanes) -> None:
        client = Client(target)
        with receiver(signal, fail), pytest.raises(RAISED[kind]):
            await handler(client.scope, client.receive, client.send)
        assert client.status == (200 if signal is request_finished else 0)

    run(main)


@pytest.mark.parametrize("kind", [StopIteration, GeneratorExit])
def test_what_a_function_of_a_coroutine_raises_is_an_error(kind: type) -> None:
    async def main(handler: Handler, lanes: Lanes) -> None:
        client = Client(f"coroutine?kind={kind.__name__}")
        await handler(client.scope, client.receive, client.send)
        assert client.status == 500

    run(main)


def test_what_an_async_iterator_calls_runs_in_the_thread_of_its_view() -> None:
    async def main(handler: Handler, lanes: Lanes) -> None:
        client = Client("on_the_loop")
        await handler(client.scope, client.receive, client.send)
        assert client.sent == "True"

    run(main)


def test_a_stream_of_empty_pieces_begins_the_response_and_ends_with_its_client() -> None:
    async def main(handler: Handler, lanes: Lanes) -> None:
        client = Client("empty_pieces")
        request = asyncio.ensure_future(handler(client.scope, client.receive, client.send))
        while not client.status:  # noqa: ASYNC110 - threads set no asyncio.Event
            await asyncio.sleep(0.001)
        client.left.set()
        await request

    run(main)


def test_a_request_that_no_thread_can_be_had_for_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main(handler: Handler, lanes: Lanes) -> None:
        client = Client("plain")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="can't start"):
                await handler(client.scope, client.receive, client.send)
        client = Client("plain")
        await handler(client.scope, client.receive, client.send)
        assert client.sent == "plain"

    run(main)


class Coroutines:
    """A middleware that says nothing of it, but takes coroutines alone."""

    async_capable = True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        if not iscoroutinefunction(get_response):
            raise TypeError("only coroutines")


def test_a_handler_that_cannot_be_made_does_not_count() -> None:
    found = ASGIHandler()
    settings.MIDDLEWARE = [f"{__name__}.Coroutines"]
    before = set(Handler.made)
    with pytest.raises(TypeError) as caught:
        Handler(found)
    # The traceback holds the one that was being made.
    assert caught.traceback
    assert set(Handler.made) == before


def test_a_django_without_what_ours_imports_serves_by_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.LOGGING_CONFIG = None
    monkeypatch.setitem(sys.modules, "asgiserver.django.serving", None)
    assert type(get_asgi_application()) is ASGIHandler
    assert caplog.messages[0].startswith("Django's own handler serves the project: ")
