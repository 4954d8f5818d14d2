"""Where a request for an async view begins and ends: in no thread, or as Django has it."""

from __future__ import annotations

import asyncio
import io
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import django
import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core import signals
from django.core.cache import cache, caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.handlers import asgi
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.db import connections
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.urls import path
from django.utils.datastructures import MultiValueDict

from asgiserver.django import ends
from asgiserver.django.handler import Handler, serving
from asgiserver.django.lanes import Lanes, Lease

from .configured import configured

log: list[Any] = []


def where() -> str:
    """``loop``, or the name of a thread."""
    thread = threading.current_thread()
    return "loop" if thread is threading.main_thread() else thread.name


async def nothing(request: HttpRequest) -> HttpResponse:
    log.append(("view", where()))
    return HttpResponse("seen")


async def threaded(request: HttpRequest) -> HttpResponse:
    await sync_to_async(lambda: log.append(("view", where())))()
    return HttpResponse("seen")


async def closing(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("seen")
    response._resource_closers.append(lambda: log.append(("closed", where())))
    return response


async def waiting(request: HttpRequest) -> HttpResponse:
    log.append(("view", where()))
    request.scope["arrived"].set()
    await asyncio.Event().wait()
    raise AssertionError


urlpatterns = [path(view.__name__, view) for view in (nothing, threaded, closing, waiting)]


@pytest.fixture(scope="module", autouse=True)
def _project() -> Iterator[None]:
    with configured(__name__):
        yield


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    yield
    log.clear()


def request(target: str = "/nothing", body: Any = None) -> ASGIRequest:
    return ASGIRequest(scope_of(target), io.BytesIO() if body is None else body)


def scope_of(target: str) -> dict[str, Any]:
    headers = [(b"host", b"h")]
    return {"type": "http", "method": "GET", "path": target, "query_string": b"", "headers": headers}


def serve(target: str, handler: ASGIHandler | None = None) -> int:
    """Serve one request as the server does; how many threads there are then.

    The client leaves when the view says that the request has arrived.
    """

    async def main() -> int:
        loop = asyncio.get_running_loop()
        lanes = serving[loop] = Lanes(4)
        arrived = asyncio.Event()
        messages = [{"type": "http.request"}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await arrived.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                log.append(message["status"])

        try:
            async with asyncio.timeout(20):
                await (handler or Handler())({**scope_of(target), "arrived": arrived}, receive, send)
            return lanes.threads
        finally:
            await serving.pop(loop).close()

    return asyncio.run(main())


@contextmanager
def connected(signal: Signal, receiver: Callable[..., Any]) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@contextmanager
def listening(*, own: bool) -> Iterator[None]:
    """Somebody listens to both signals, and is one of Django's own receivers, or not."""

    def started(**_: Any) -> None:
        log.append(("started", where()))

    def finished(**_: Any) -> None:
        log.append(("finished", where()))

    with (
        connected(signals.request_started, started),
        connected(signals.request_finished, finished),
        pytest.MonkeyPatch.context() as patch,
    ):
        if own:
            patch.setattr(ends, "_STARTED", {*ends._STARTED, started})
            patch.setattr(ends, "_FINISHED", {*ends._FINISHED, finished})
        yield


class TestWithoutAThread:
    """Django's own receivers have nothing to do."""

    def test_there_is_none(self) -> None:
        assert serve("/nothing") == 0
        assert log == [("view", "loop"), 200]

    def test_the_end_is_on_the_loop(self) -> None:
        with listening(own=True):
            assert serve("/nothing") == 0
        assert log == [("view", "loop"), 200, ("finished", "loop")]

    def test_so_it_is_when_the_client_leaves(self) -> None:
        with listening(own=True):
            assert serve("/waiting") == 0
        assert log == [("view", "loop"), ("finished", "loop")]

    def test_so_it_is_when_there_is_no_request_for_a_view(self) -> None:
        handler = Handler()
        handler.found.create_request = lambda *_: (None, HttpResponseBadRequest())
        assert serve("/nothing", handler) == 0
        assert log == [400]

    def test_somebody_who_listens_on_the_loop_is_told_there(self) -> None:
        async def started(**_: Any) -> None:
            log.append(("started", where()))

        # With receivers of the other kind Django gathers both, in a thread of the request's and on the loop.
        with connected(signals.request_started, started):
            assert serve("/nothing") == 1
        assert log == [("started", "loop"), ("view", "loop"), 200]


class TestInItsThread:
    def thread(self) -> str:
        """The one thread in which all was done that names one."""
        [name] = {each[1] for each in log if isinstance(each, tuple)}
        assert name != "loop"
        return str(name)

    def test_the_receivers_stand_around_what_the_view_does_there(self) -> None:
        with listening(own=True):
            assert serve("/threaded") == 1
        assert log == [("started", self.thread()), ("view", self.thread()), 200, ("finished", self.thread())]

    def test_receivers_of_others_get_each_request(self) -> None:
        with listening(own=False):
            assert serve("/nothing") == 1
        view = log.pop(1)
        assert view == ("view", "loop")
        assert log == [("started", self.thread()), 200, ("finished", self.thread())]

    def test_what_a_response_has_to_close_is_closed_there(self) -> None:
        with listening(own=True):
            assert serve("/closing") == 1
        assert log == [200, ("started", self.thread()), ("closed", self.thread()), ("finished", self.thread())]

    def test_an_async_receiver_of_the_end_is_called_from_there(self) -> None:
        async def finished(**_: Any) -> None:
            log.append("finished")

        with connected(signals.request_finished, finished):
            assert serve("/nothing") == 1
        assert log == [("view", "loop"), 200, "finished"]

    def test_the_receivers_are_those_of_the_beginning(self) -> None:
        def late(**_: Any) -> None:
            raise AssertionError

        async def view(request: HttpRequest) -> HttpResponse:
            signals.request_started.connect(late)
            return await threaded(request)

        urlpatterns.insert(0, path("late", view))
        try:
            assert serve("/late") == 1
        finally:
            urlpatterns.pop(0)
            signals.request_started.disconnect(late)

    def test_a_receiver_that_fails_fails_what_needs_the_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(**_: Any) -> None:
            raise OSError

        monkeypatch.setattr(ends, "_STARTED", {*ends._STARTED, fail})
        with connected(signals.request_started, fail):
            assert serve("/threaded") == 1
        assert log == [500]


def on_lease(check: Callable[[Lease], Awaitable[None] | None]) -> None:
    """Call ``check`` as a part of a request."""

    async def main() -> None:
        lanes = Lanes(1)
        lease = Lease(lanes, "GET '/'")
        async with ThreadSensitiveContext() as context:
            ends.SyncToAsync.context_to_thread_executor[context] = lease
            if (waited := check(lease)) is not None:
                await waited
            ends.SyncToAsync.context_to_thread_executor.pop(context)
        lease.end()
        await lanes.close()

    asyncio.run(main())


class TestNeeds:
    def test_none_until_the_thread_is_used(self) -> None:
        async def check(lease: Lease) -> None:
            assert ends._needs_no_thread(ASGIHandler)
            await sync_to_async(where)()
            assert not ends._needs_no_thread(ASGIHandler)

        on_lease(check)

    def test_a_connection_that_the_loop_has_opened(self) -> None:
        def check(_: Lease) -> None:
            connections["default"] = connection = SimpleNamespace(connection=None)
            assert ends._needs_no_thread(ASGIHandler)
            connection.connection = object()
            assert not ends._needs_no_thread(ASGIHandler)

        on_lease(check)

    def test_a_cache_that_is_told_of_the_end(self) -> None:
        class Closing(LocMemCache):  # type: ignore[misc]
            def close(self, **_: Any) -> None: ...

        def check(_: Lease) -> None:
            assert cache.get("nothing") is None
            assert ends._needs_no_thread(ASGIHandler)
            caches["default"] = Closing("", {})
            assert not ends._needs_no_thread(ASGIHandler)

        on_lease(check)

    def test_for_a_receiver_of_this_sender_alone(self) -> None:
        def receiver(**_: Any) -> None: ...

        def check(_: Lease) -> None:
            signals.request_finished.connect(receiver, sender=Handler)
            assert ends._needs_no_thread(ASGIHandler)
            assert not ends._needs_no_thread(Handler)
            signals.request_finished.disconnect(receiver, sender=Handler)

        on_lease(check)


def response_of(request: Any) -> HttpResponse:
    response = HttpResponse()
    response._resource_closers.append(request.close)
    return response


class TestCloses:
    def test_nothing_with_a_request_in_memory(self) -> None:
        with tempfile.SpooledTemporaryFile(max_size=10) as body:
            body.write(b"12345")
            assert ends._closes_nothing(response_of(request(body=body)))
            body.write(b"1234567890")
            assert not ends._closes_nothing(response_of(request(body=body)))

    def test_nothing_after_the_body_was_read(self) -> None:
        with tempfile.SpooledTemporaryFile() as body:
            asked = request(body=body)
            assert asked.body == b""
            assert ends._closes_nothing(response_of(asked))

    def test_uploaded_files(self) -> None:
        asked = request()
        asked._files = MultiValueDict()
        assert ends._closes_nothing(response_of(asked))
        asked._files = MultiValueDict({"one": [SimpleUploadedFile("one", b"")]})
        assert not ends._closes_nothing(response_of(asked))

    def test_whatever_a_class_of_ones_own_has(self) -> None:
        class Request(ASGIRequest):  # type: ignore[misc]
            pass

        class Response(HttpResponse):  # type: ignore[misc]
            def close(self) -> None: ...

        assert not ends._closes_nothing(response_of(Request(scope_of("/"), io.BytesIO())))
        assert not ends._closes_nothing(Response())
        assert not ends._closes_nothing(object())

    def test_whatever_stands_in_the_place_of_close(self) -> None:
        response = HttpResponse()
        response.close = lambda: None
        assert not ends._closes_nothing(response)

    def test_whatever_else_is_to_be_closed(self) -> None:
        response = HttpResponse()
        response._resource_closers.append(io.BytesIO().close)
        assert not ends._closes_nothing(response)


class TestHandle:
    def is_djangos(self) -> bool:
        found = ASGIHandler()
        return bool(ends.handle_of(found) == found.handle)

    def test_is_djangos_code_with_other_names(self) -> None:
        function = ends.handle_of(ASGIHandler()).func  # type: ignore[attr-defined]
        assert function.__code__ is ASGIHandler.handle.__code__
        assert {"signals", "sync_to_async"} <= {*function.__code__.co_names}
        different = {name for name, value in function.__globals__.items() if vars(asgi).get(name) is not value}
        assert different == {"signals", "sync_to_async"}

    def test_is_djangos_in_a_release_that_nobody_has_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not self.is_djangos()
        monkeypatch.setattr(django, "VERSION", (99, 0, 0, "final", 0))
        assert self.is_djangos()

    def test_is_that_of_who_has_patched_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def handle(*_: Any) -> None: ...

        found = ASGIHandler()
        found.handle = handle
        assert ends.handle_of(found) is handle
        monkeypatch.setattr(ASGIHandler, "handle", handle)
        assert self.is_djangos()

    @pytest.mark.parametrize("signal", ["request_started", "request_finished"])
    def test_the_signals_that_it_sends_are_there(self, signal: str) -> None:
        assert hasattr(getattr(ends._SIGNALS, signal), "asend")
        assert signal in ASGIHandler.handle.__code__.co_names
