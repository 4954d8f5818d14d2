"""Messages that wait for an application, and applications that wait for messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgiserver.asgi.websocket import MESSAGE_OVERHEAD
from tests.asgi.test_websocket import ACCEPT, OPENED, Made, disconnect, event, inbox, message, traces
from tests.asgi.traces import Step, is_told, listens, lost, reading, receives


def opened(**settings: Any) -> Made:
    made = Made(**settings)
    made.receive()
    made.send(ACCEPT)
    return made


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(main(), 10)

    asyncio.run(limited())


async def receiving(made: Made) -> asyncio.Task[Any]:
    """A task that waits in receive()."""
    task = asyncio.ensure_future(made.exchange.receive())
    await asyncio.sleep(0)
    assert not task.done()
    return task


def cancels(made: Made) -> None:
    """The receive() that waits, of which it hears in its next turn."""
    assert made.waiting is not None
    made.waiting.cancel()


async def is_cancelled(made: Made) -> None:
    assert made.waiting is not None
    with pytest.raises(asyncio.CancelledError):
        await made.waiting
    made.waiting = None


def buffered(messages: int) -> Step:
    """So many, of one character each."""

    def look(made: Made) -> None:
        assert made.exchange._buffered == messages * (1 + MESSAGE_OVERHEAD)

    return look


def no_inbox(made: Made) -> None:
    assert made.exchange._inbox is None


class TestWhoWaits:
    test_for_a_message = traces({
        **{
            f"gets {payload!r}": ({}, *OPENED, listens, message(payload), is_told(event(payload)), no_inbox)
            for payload in ("text", b"bytes", "", b"")
        },
        "those behind it in one read keep their order": (
            {}, *OPENED, listens, message("1"), message("2"), message("3"), is_told(event("1")),
            receives(event("2"), event("3")),
        ),
        "the peer's leave in the same read comes behind it": (
            {}, *OPENED, listens, message("last words"), lost, is_told(event("last words")), receives(disconnect(1006)),
        ),
        **{
            f"is given up in the turn of {count} and loses none": (
                {}, *OPENED, listens, *[message(str(at)) for at in range(count)], cancels, is_cancelled,
                buffered(count), receives(*[event(str(at)) for at in range(count)]), buffered(0),
            )
            for count in (1, 2, 3)
        },
        "is given up before a message and takes none": (
            {}, *OPENED, listens, cancels, message("1"), is_cancelled, receives(event("1")),
        ),
        # The peer is stopped by what waits, whether it was on its way to the application or not.
        "what is given back counts": (
            {"request_buffer_size": 1024}, *OPENED, listens, message(b"x" * 2000), inbox(full=False, resumed=0),
            cancels, is_cancelled, message(b"y"), inbox(full=True, resumed=0), receives(event(b"x" * 2000)), reading,
            receives(event(b"y")),
        ),
    })  # fmt: skip


def test_timeout_again_and_again_loses_none() -> None:
    async def main() -> None:
        made, got = opened(), list[str]()
        loop = asyncio.get_running_loop()
        for number in range(200):
            loop.call_later(number * 0.0005, made.exchange.message_received, str(number))
        while len(got) < 200:
            try:
                got.append((await asyncio.wait_for(made.exchange.receive(), 0.0004))["text"])
            except TimeoutError:
                pass
        assert got == [str(number) for number in range(200)]

    run(main)


def test_of_two_that_wait_both_get_one() -> None:
    async def main() -> None:
        made = opened()
        tasks = [await receiving(made), await receiving(made)]
        made.exchange.message_received("1")
        made.exchange.message_received("2")
        assert [await task for task in tasks] == [event("1"), event("2")]

    run(main)


def test_of_two_that_wait_one_is_given_up() -> None:
    async def main() -> None:
        made = opened()
        tasks = [await receiving(made), await receiving(made)]
        made.exchange.message_received("1")
        tasks[0].cancel()
        assert await tasks[1] == event("1")
        made.exchange.message_received("2")
        assert made.receive() == event("2")

    run(main)


def test_what_is_given_back_goes_to_who_has_begun_to_wait_meanwhile() -> None:
    async def main() -> None:
        made = opened()
        given_up = await receiving(made)
        # It begins to wait before the first one hears of its message, and that it is given up.
        task = asyncio.ensure_future(made.exchange.receive())
        made.exchange.message_received("1")
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await asyncio.wait_for(task, 1) == event("1")

    run(main)
