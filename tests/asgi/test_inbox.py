"""Messages that wait for an application, and applications that wait for messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgiserver.asgi.websocket import MESSAGE_OVERHEAD
from tests.asgi.test_websocket import ACCEPT, Made, disconnect, event


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


@pytest.mark.parametrize("payload", ["text", b"bytes", "", b""])
def test_who_waits_gets_it(payload: str | bytes) -> None:
    async def main() -> None:
        made = opened()
        task = await receiving(made)
        made.exchange.message_received(payload)
        assert await task == event(payload)
        assert made.exchange._inbox is None

    run(main)


def test_those_behind_it_in_one_read_keep_their_order() -> None:
    async def main() -> None:
        made = opened()
        task = await receiving(made)
        for payload in ("1", "2", "3"):
            made.exchange.message_received(payload)
        assert [await task, made.receive(), made.receive()] == [event("1"), event("2"), event("3")]

    run(main)


def test_the_peers_leave_in_the_same_read_comes_behind_it() -> None:
    async def main() -> None:
        made = opened()
        task = await receiving(made)
        made.exchange.message_received("last words")
        made.lose()
        assert await task == event("last words")
        assert made.receive() == disconnect(1006)

    run(main)


@pytest.mark.parametrize("further", [0, 1, 2])
def test_receive_that_is_given_up_in_the_turn_of_a_message_loses_none(further: int) -> None:
    async def main() -> None:
        made = opened()
        task = await receiving(made)
        made.exchange.message_received("0")
        for number in range(further):
            made.exchange.message_received(str(number + 1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert made.exchange._buffered == (1 + further) * (1 + MESSAGE_OVERHEAD)
        assert [made.receive() for _ in range(1 + further)] == [event(str(at)) for at in range(1 + further)]
        assert made.exchange._buffered == 0

    run(main)


def test_receive_that_is_given_up_before_a_message_takes_none() -> None:
    async def main() -> None:
        made = opened()
        task = await receiving(made)
        task.cancel()
        made.exchange.message_received("1")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert made.receive() == event("1")

    run(main)


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


def test_what_is_given_back_counts() -> None:
    """The peer is stopped by what waits, whether it was on its way to the application or not."""

    async def main() -> None:
        made = opened(request_buffer_size=1024)
        task = await receiving(made)
        made.exchange.message_received(b"x" * 2000)
        assert not made.exchange.full
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        made.exchange.message_received(b"y")
        assert made.exchange.full
        assert not made.stream.reading
        assert made.receive() == event(b"x" * 2000)
        assert made.stream.reading
        assert made.receive() == event(b"y")

    run(main)
