"""Every state of the HTTP/1.1 wire against everything that can happen to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from asgiserver.asgi.exchange import State as ExchangeState
from asgiserver.asgi.messages import Accept, ResponseBody, ResponseStart
from asgiserver.wire.connection import Phase
from asgiserver.wire.http1 import State
from tests.wire.traces import Wire

IDLE, BODY, ANSWERING, DRAINING = State.IDLE, State.BODY, State.ANSWERING, State.DRAINING
SWITCHED, CLOSED = State.SWITCHED, State.CLOSED

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
#: Too much of a body for the rest to be read only to keep the connection.
LARGE = 1 << 22
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n01234"
UPGRADE = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


def started(wire: Wire, length: int | None = None, close: bool = False) -> None:
    wire.hub.exchange.take_reply(ResponseStart(200, [], length, close, False, []))


def piece(wire: Wire, last: bool, length: int | None = None, close: bool = False) -> None:
    if wire.hub.exchange.state is ExchangeState.WAITING:
        started(wire, length, close)
    wire.hub.exchange.take_reply(ResponseBody(b"ok", not last))


def draining(wire: Wire) -> None:
    wire.feed(POST % 10)
    piece(wire, last=True)


REACHED: dict[State, Callable[[Wire], object]] = {
    IDLE: lambda wire: wire.feed(b"\r\n"),
    BODY: lambda wire: wire.feed(POST % 10),
    ANSWERING: lambda wire: wire.feed(GET),
    DRAINING: draining,
    SWITCHED: lambda wire: (wire.feed(UPGRADE), wire.hub.exchange.take_reply(Accept(None, [], []))),
    CLOSED: lambda wire: wire.feed(b"\0"),
}

#: What happens, and which state that leads to. A state that is not named stays as it is.
EVENTS: dict[str, tuple[Callable[[Wire], object], dict[State, State]]] = {
    "nothing": (lambda wire: wire.feed(b""), {}),
    "the rest of the body": (
        lambda wire: wire.feed(b"56789"), {BODY: ANSWERING, DRAINING: IDLE, IDLE: IDLE},
    ),
    "the rest, and a request": (
        lambda wire: wire.feed(b"56789" + GET if wire.state in (BODY, DRAINING) else GET),
        {BODY: ANSWERING, DRAINING: ANSWERING, IDLE: ANSWERING},
    ),
    "rubbish behind the body": (
        lambda wire: wire.feed(b"56789\0"), {BODY: ANSWERING, DRAINING: CLOSED},
    ),
    "a piece of the response": (lambda wire: wire.answers(lambda: piece(wire, last=False)), {}),
    "a whole response": (
        lambda wire: wire.answers(lambda: piece(wire, last=True)), {BODY: DRAINING, ANSWERING: IDLE},
    ),
    "a response that closes": (
        lambda wire: wire.answers(lambda: piece(wire, last=True, close=True)), {BODY: CLOSED, ANSWERING: CLOSED},
    ),
    "a response that is cut off": (
        lambda wire: wire.answers(lambda: (piece(wire, last=False), wire.hub.exchange.application_done(failed=True))),
        {BODY: CLOSED, ANSWERING: CLOSED},
    ),
    "the application fails": (
        lambda wire: wire.answers(lambda: wire.hub.exchange.application_done(failed=True)),
        {BODY: DRAINING, ANSWERING: IDLE},
    ),
    "all deadlines pass": (
        lambda wire: [wire.advance(10_000) for _ in range(10)],
        {IDLE: CLOSED, BODY: CLOSED, DRAINING: CLOSED, SWITCHED: CLOSED},
    ),
    "the server stops": (
        lambda wire: wire.stop(), {IDLE: CLOSED, DRAINING: CLOSED},
    ),
    "the peer has ended its direction": (
        lambda wire: wire.connection.readConnectionLost(), dict.fromkeys(State, CLOSED),
    ),
    "the connection is lost": (lambda wire: wire.connection.connectionLost(), dict.fromkeys(State, CLOSED)),
    "the wire closes": (lambda wire: wire.wire.close(), dict.fromkeys(State, CLOSED)),
    "the wire aborts": (lambda wire: wire.wire.abort(), dict.fromkeys(State, CLOSED)),
}  # fmt: skip


class Watched(Wire):
    """Looks into the wire of a connection."""

    def __init__(self) -> None:
        super().__init__(keep_alive_timeout=60, http_timeout=0, websocket_timeout=50_000, ping_interval=0)
        self.feed(b"\r\n")
        self.wire: Any = self.connection._wire

    @property
    def state(self) -> State:
        state: State = self.wire._state
        # A connection that closes reads no more, whatever its wire was about.
        return state if self.connection.phase is Phase.OPEN else CLOSED

    @property
    def sent(self) -> bytes:
        sent: bytes = self.transport.value()
        return sent

    def answers(self, reply: Callable[[], object]) -> None:
        """Let the application reply, where there is one whose response is not complete."""
        if self.state in (BODY, ANSWERING):
            reply()

    def stop(self) -> None:
        super().stop()
        self.advance(1)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", State)
def test_every_pair(state: State, event: str) -> None:
    wire = Watched()
    REACHED[state](wire)
    assert wire.state is state
    happens, leads_to = EVENTS[event]
    happens(wire)
    assert wire.state is leads_to.get(state, state)
    # A second response is never begun, whatever happens behind the first.
    heads = wire.sent.count(b"HTTP/1.1 ")
    assert heads <= len(wire.hub.exchanges) + len(wire.hub.refused)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("first", EVENTS)
@pytest.mark.parametrize("state", [BODY, ANSWERING, DRAINING])
def test_two_events_in_a_row_leave_a_state_of_the_table(state: State, first: str, event: str) -> None:
    wire = Watched()
    REACHED[state](wire)
    EVENTS[first][0](wire)
    if first != "the connection is lost" or event != first:
        EVENTS[event][0](wire)
    if first.startswith(("the wire", "the connection", "the peer")):
        assert wire.state is CLOSED
    assert wire.sent.count(b"HTTP/1.1 ") <= len(wire.hub.exchanges) + len(wire.hub.refused)
