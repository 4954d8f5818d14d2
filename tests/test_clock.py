"""The time of a loop: its calls are made, moved and cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asgiserver.process.clock import LoopClock
from tests.e2e.live import DEADLINE, until


def on_asyncio(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    pytest.importorskip("uvloop").run(test())


on_each_loop = pytest.mark.parametrize("run", [on_asyncio, on_uvloop])


def clock() -> LoopClock:
    return LoopClock(asyncio.get_running_loop())


@on_each_loop
def test_a_call_is_made_with_its_arguments(run: Any) -> None:
    async def test() -> None:
        called: asyncio.Future[tuple[object, ...]] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        clock().callLater(0.02, lambda *args: called.set_result(args), 1, "two")
        async with asyncio.timeout(DEADLINE):
            assert await called == (1, "two")
        assert time.monotonic() - began > 0.01

    run(test)


@on_each_loop
def test_a_call_can_be_moved_to_either_side(run: Any) -> None:
    async def test() -> None:
        called: list[str] = []
        later = clock().callLater(0.01, called.append, "later")
        sooner = clock().callLater(1000, called.append, "sooner")
        later.reset(0.05)
        sooner.reset(0)
        await until(lambda: len(called) == 2)
        assert called == ["sooner", "later"]

    run(test)


@on_each_loop
def test_a_cancelled_call_is_not_made(run: Any) -> None:
    async def test() -> None:
        called: list[str] = []
        moved = clock().callLater(1000, called.append, "moved")
        moved.reset(0)
        for call in (clock().callLater(0, called.append, "cancelled"), moved):
            call.cancel()
            call.cancel()
        last = clock().callLater(0.01, called.append, "last")
        await until(lambda: called)
        last.cancel()
        assert called == ["last"]

    run(test)


@on_each_loop
def test_its_seconds_go_on_during_a_turn(run: Any) -> None:
    async def test() -> None:
        before = clock().seconds()
        time.sleep(0.01)  # noqa: ASYNC251 - the loop is not to turn
        assert clock().seconds() - before >= 0.01

    run(test)
