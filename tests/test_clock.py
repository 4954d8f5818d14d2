"""Time from the loop, on each kind of loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from asgiserver.asgi.deadlines import Deadline, Deadlines
from asgiserver.process.clock import LoopClock

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    if request.param == "uvloop":
        if importlib.util.find_spec("uvloop") is None:
            pytest.skip("uvloop is not installed")
        import uvloop

        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        made = asyncio.SelectorEventLoop()
    yield made
    made.close()


def run(loop: asyncio.AbstractEventLoop, began: Callable[[asyncio.Future[None]], object]) -> None:
    async def main() -> None:
        done: asyncio.Future[None] = loop.create_future()
        began(done)
        async with asyncio.timeout(10):
            await done

    loop.run_until_complete(main())


class Owner:
    def expired(self) -> None:
        raise AssertionError("it was cancelled")


def test_a_call_is_made_when_its_time_has_come(loop: asyncio.AbstractEventLoop) -> None:
    clock = LoopClock(loop)
    before = clock.seconds()
    run(loop, lambda done: clock.callLater(0.05, done.set_result, None))
    # uvloop counts in milliseconds.
    assert clock.seconds() - before > 0.048


def test_a_cancelled_call_is_not_made_and_keeps_nobody(loop: asyncio.AbstractEventLoop) -> None:
    clock, owner = LoopClock(loop), Owner()
    reference = weakref.ref(owner)
    call = clock.callLater(0.01, owner.expired)
    call.cancel()
    call.cancel()
    gc.disable()
    try:
        del owner
        assert reference() is None
    finally:
        gc.enable()
    run(loop, lambda done: clock.callLater(0.03, done.set_result, None))


def test_a_cancelled_call_does_not_stay_in_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    clock = LoopClock(loop)
    calls = [weakref.ref(clock.callLater(3600, print)) for _ in range(1000)]
    for call in calls:
        found = call()
        assert found is not None
        found.cancel()
    del found
    run(loop, lambda done: clock.callLater(0.01, done.set_result, None))
    # asyncio puts up with some hundred.
    assert sum(call() is not None for call in calls) <= 200


def test_a_call_sees_no_variable_of_whoever_asked_for_it(loop: asyncio.AbstractEventLoop) -> None:
    clock, seen = LoopClock(loop), []

    def begin(done: asyncio.Future[None]) -> None:
        variable.set("inside")
        clock.callLater(0, lambda: seen.append(variable.get()))
        clock.callLater(0.01, done.set_result, None)

    run(loop, begin)
    assert seen == ["outside"]


def test_setting_the_time_of_day_moves_no_deadline(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(loop)
    deadlines = Deadlines(clock)
    expired: list[str] = []
    deadlines.set(Deadline.CLOSE, 3600.0, lambda: expired.append("far"))
    tomorrow = time.time() + 86400
    monkeypatch.setattr(time, "time", lambda: tomorrow)

    def begin(done: asyncio.Future[None]) -> None:
        deadlines.set(Deadline.HEAD, 0.01, lambda: done.set_result(None))

    run(loop, begin)
    assert expired == []
    deadlines.stop()
