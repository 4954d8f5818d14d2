"""The task that an application runs in is one of asyncio's own, and whole from the application's first line on."""

from __future__ import annotations

import asyncio
from typing import Any

from .live import GET, answer, connect, serve


async def first_answer(application: Any) -> bytes:
    async with serve(application) as server, connect(server) as peer:
        await peer.send(GET)
        return (await peer.response()).body


async def test_what_a_request_awaits_first_others_may_await_too() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def work() -> str:
            await asyncio.sleep(0)
            return "done"

        async def watch(task: asyncio.Task[str]) -> str:
            return await task

        task = asyncio.create_task(work())
        watcher = asyncio.create_task(watch(task))
        assert await task == "done"
        await answer(send, (await watcher).encode())

    assert await first_answer(application) == b"done"


async def test_an_application_may_look_into_its_own_task() -> None:
    """Before it has waited for anything."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task in asyncio.all_tasks()
        assert asyncio.iscoroutine(asyncio.Task.get_coro(task))
        task._log_destroy_pending = True  # type: ignore[attr-defined]
        assert not task.done()
        assert task.get_stack()
        assert task.get_loop() is asyncio.get_running_loop()
        await answer(send, type(task).__name__.encode())

    assert await first_answer(application) == b"Task"
