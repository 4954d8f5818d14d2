"""Traces of an exchange: what the application sends and receives, what happens to it, and what is seen in between."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from asgiserver.asgi.exchange import State
from asgiserver.errors import RequestError
from tests.fakes import Clock, FakeHub, FakeStream, at_once, settle

#: A step: a message that the application sends, or what is done to an exchange and its surroundings.
Step = dict[str, Any] | Callable[..., Any]


class Made:
    """An exchange with what stands around it."""

    exchange: Any

    def __init__(self, *, logs_actions: bool = True) -> None:
        self.clock = Clock()
        self.stream = FakeStream()
        self.hub = FakeHub(logs_actions=logs_actions)
        self.waiting: asyncio.Task[Any] | None = None

    def send(self, message: dict[str, Any]) -> None:
        self.exchange.take_reply(self.exchange.parse(message))

    def receive(self) -> dict[str, Any]:
        return dict(at_once(self.exchange.receive()))

    def lose(self) -> None:
        self.stream.lost = True
        self.exchange.disconnected()


def play(made: Any, *steps: Step) -> Any:
    async def main() -> None:
        for number, step in enumerate(steps):
            try:
                result = step(made) if callable(step) else made.send(step)
                if inspect.isawaitable(result):
                    await result
            except AssertionError as error:
                error.add_note(f"in step {number} of the trace")
                raise
        if made.waiting is not None:
            made.waiting.cancel()

    asyncio.run(main())
    return made


def traces(make: Callable[..., Any], rows: dict[str, tuple[Any, ...]]) -> Callable[..., None]:
    """A test that plays each row: what its exchange is made with, then its steps."""

    @pytest.mark.parametrize("trace", rows.values(), ids=list(rows))
    def test(self: object, trace: Any) -> None:
        made_with, *steps = trace
        play(make(**made_with), *steps)

    return test


# What the application does.


def refused(error: type[Exception], message: dict[str, Any], match: str | None = None) -> Step:
    def step(made: Made) -> None:
        with pytest.raises(error, match=match):
            made.send(message)

    return step


def receives(*events: dict[str, Any]) -> Step:
    """These are there and come at once."""

    def step(made: Made) -> None:
        for event in events:
            assert made.receive() == event

    return step


async def waits(made: Made) -> None:
    """A receive() has nothing to give, and is given up."""
    task = asyncio.ensure_future(made.exchange.receive())
    await settle()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def listens(made: Made) -> None:
    """A receive() waits from now on."""
    made.waiting = asyncio.ensure_future(made.exchange.receive())
    await settle()
    assert not made.waiting.done()
    assert made.exchange.listening


def is_told(event: dict[str, Any]) -> Step:
    """The receive() that waits gets this."""

    async def step(made: Made) -> None:
        assert made.waiting is not None
        assert await made.waiting == event
        made.waiting = None

    return step


def done(*, failed: bool) -> Step:
    """The application has ended."""
    return lambda made: made.exchange.application_done(failed=failed)


# What happens to the exchange.


def lost(made: Made) -> None:
    made.lose()


def failed(status: int, reason: str = "") -> Step:
    """The wire cannot read the rest of the request."""
    return lambda made: made.exchange.request_failed(RequestError(status, reason))


def piece(data: bytes) -> Step:
    return lambda made: made.exchange.body_received(data)


def after(*seconds: float) -> Step:
    """The clock moves on, once or several times."""

    def step(made: Made) -> None:
        for each in seconds:
            made.clock.advance(each)

    return step


# What is seen.


def calls(*names: str) -> Step:
    """All calls of the stream until now."""

    def look(made: Made) -> None:
        assert made.stream.calls == list(names)

    return look


def last_call(name: str) -> Step:
    def look(made: Made) -> None:
        assert made.stream.calls[-1] == name

    return look


def no_call(name: str) -> Step:
    def look(made: Made) -> None:
        assert name not in made.stream.calls

    return look


def status(number: int) -> Step:
    def look(made: Made) -> None:
        assert made.stream.status == number

    return look


def data(expected: bytes) -> Step:
    """All that the stream was given."""

    def look(made: Made) -> None:
        assert made.stream.data == expected

    return look


def state(expected: State) -> Step:
    def look(made: Made) -> None:
        assert made.exchange.state is expected

    return look


def is_listening(expected: bool) -> Step:
    def look(made: Made) -> None:
        assert made.exchange.listening is expected

    return look


def reading(made: Made) -> None:
    assert made.stream.reading


def stopped(made: Made) -> None:
    """The peer is."""
    assert not made.stream.reading


def told_hub(made: Made) -> None:
    """The hub was told once that the exchange is gone."""
    assert made.hub.gone == [made.exchange]


def no_timers(made: Made) -> None:
    assert made.clock.getDelayedCalls() == []
