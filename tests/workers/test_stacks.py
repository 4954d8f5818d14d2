"""What a worker says of itself."""

from __future__ import annotations

import asyncio
import threading

from asgiserver.workers.stacks import report
from tests.e2e.live import in_loop


async def waits(event: asyncio.Event) -> None:
    await innermost(event)


async def innermost(event: asyncio.Event) -> None:
    async for _ in generated(event):
        pass


async def generated(event: asyncio.Event):  # type: ignore[no-untyped-def]
    await event.wait()
    yield 1


@in_loop
async def test_each_request_task_and_thread_is_named_with_where_it_is() -> None:
    event, end = asyncio.Event(), threading.Event()
    task = asyncio.create_task(waits(event), name="/path")
    thread = threading.Thread(target=end.wait, name="pool-1")
    thread.start()
    await asyncio.sleep(0)
    try:
        text = report(["GET /path of 127.0.0.1:1"])
    finally:
        end.set()
        thread.join()
        event.set()
        await task
    assert "Under way: GET /path of 127.0.0.1:1" in text
    # From the task's own frame to the one that waits.
    of_task = text.partition("Task '/path':")[2]
    order = [of_task.index(f"in {name}") for name in ("waits", "innermost", "generated", "wait\n")]
    assert order == sorted(order)
    assert "Thread 'pool-1':" in text
