"""The line about a request that is slow while it is under way."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from asgiserver.asgi.interfaces import Receive, Scope, Send
from asgiserver.slow import SlowRequests
from tests.e2e.live import in_loop

from .fakes import settle
from .test_hub import GET, LAST, START, UPGRADE, Served

Way = Callable[[Callable[[], object]], Awaitable[object]]


class Slow(Served):
    """A hub whose applications wait until they are released, with what is set for slow requests."""

    def __init__(self, limit: float = 8, wait: Callable[[], Awaitable[object]] | None = None) -> None:
        super().__init__(self.application, slow_request_log=limit)
        self.released = asyncio.Event()
        self._wait = wait or self.released.wait
        self.slow = SlowRequests(self.hub._tasks, limit, self.clock)

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/answered":
            await send(START)
            await send(LAST)
        await self._wait()

    async def end(self) -> None:
        self.released.set()
        await asyncio.gather(*self.hub._tasks.values())
        await settle()

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [record for record in caplog.records if "is under way" in record.getMessage()]
    return [(record.getMessage().partition(", at ")[0], vars(record)["request_id"]) for record in found]


@in_loop
async def test_each_is_told_of_once_as_soon_as_it_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    made = Slow()
    first, _ = await made.open()
    made.advance(4)
    second, _ = await made.open()
    made.advance(3)
    assert told(caplog) == []
    made.advance(1)
    assert told(caplog) == [("GET '/page' is under way for 8.0 seconds", first.request_id)]
    made.advance(10)
    assert [identity for _, identity in told(caplog)] == [first.request_id, second.request_id]
    await made.end()
    third, _ = await made.open()
    made.advance(9)
    assert len(told(caplog)) == 2, "one that has ended is forgotten"
    assert third.finished


@in_loop
async def test_neither_a_websocket_nor_what_runs_on_behind_its_response_is_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = Slow()
    await made.open(UPGRADE)
    await made.open(GET._replace(target=b"/answered"))
    page, _ = await made.open()
    made.advance(3)
    made.advance(6)
    assert [identity for _, identity in told(caplog)] == [page.request_id]
    await made.end()


@in_loop
async def test_nobody_looks_any_more_once_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    made = Slow()
    await made.open()
    made.slow.stop()
    made.advance(20)
    assert told(caplog) == []
    assert made.clock.getDelayedCalls() == []
    await made.end()


async def outer_part(event: asyncio.Event) -> None:
    await innermost_part(event)


async def innermost_part(event: asyncio.Event) -> None:
    await event.wait()


@in_loop
async def test_the_innermost_places_of_the_task_are_named(caplog: pytest.LogCaptureFixture) -> None:
    event = asyncio.Event()
    made = Slow(wait=lambda: outer_part(event))
    await made.open()
    made.advance(8)
    event.set()
    await made.end()
    places = caplog.records[0].getMessage().partition(", at ")[2].split(" < ")
    assert [place.rpartition(" ")[2] for place in places] == [
        "Event.wait", "innermost_part", "outer_part", "Slow.application",
    ]  # fmt: skip
    assert places[1].startswith(f"{__file__}:{innermost_part.__code__.co_firstlineno + 1} ")


def blocking_part(started: threading.Event, end: threading.Event) -> None:
    started.set()
    end.wait()


async def by_executor(function: Callable[[], object]) -> None:
    """As the bridge to WSGI does."""
    context = contextvars.copy_context()
    await asyncio.get_running_loop().run_in_executor(None, context.run, function)


async def by_anyio(function: Callable[[], object]) -> None:
    """As Starlette does."""
    anyio = pytest.importorskip("anyio")
    await anyio.to_thread.run_sync(function)


async def by_lane(function: Callable[[], object]) -> None:
    """As a Django view is served."""
    from asgiserver.django.lanes import Lane

    lane, done = Lane.of_its_own(1), asyncio.Event()
    loop = asyncio.get_running_loop()
    lane.start(lambda: function() and None, partial(loop.call_soon_threadsafe, done.set))
    await done.wait()
    lane.executor.shutdown()


async def by_asgiref(function: Callable[[], object]) -> None:
    await sync_to_async(function, thread_sensitive=False)()


@in_loop
async def test_the_threads_are_looked_at_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many requests are slow at once, the loop must not be blocked for each of them."""
    looks: list[None] = []
    frames = sys._current_frames
    monkeypatch.setattr(sys, "_current_frames", lambda: looks.append(None) or frames())
    made = Slow()
    for _ in range(20):
        await made.open()
    made.advance(9)
    assert len(looks) == 1
    await made.end()


@pytest.mark.parametrize("way", [asyncio.to_thread, by_executor, by_anyio, by_lane, by_asgiref])
@in_loop
async def test_the_thread_that_a_request_waits_for_is_named_instead(
    caplog: pytest.LogCaptureFixture, way: Way
) -> None:
    started, end = threading.Event(), threading.Event()
    made = Slow(wait=lambda: way(partial(blocking_part, started, end)))
    await made.open()
    assert await asyncio.to_thread(started.wait, 30)
    made.advance(8)
    end.set()
    await made.end()
    places: Any = caplog.records[0].getMessage().partition(", at ")[2].split(" < ")
    assert "blocking_part" in [place.rpartition(" ")[2] for place in places]
    assert "Event.wait" in places[0] or "Condition.wait" in places[0]
