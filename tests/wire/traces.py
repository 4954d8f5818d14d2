"""Traces of a connection: what the peer sends, what the application does, and what is seen of both in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from asgiserver.asgi.messages import EarlyHint, ResponseBody, ResponseStart, Trailers
from tests.fakes import DATE, WireHub, at_once, would_wait

GET = b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n"
GET_TE = b"GET /%d HTTP/1.1\r\nhost: x\r\nte: Trailers\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\n\r\n"
KEEP_1_0 = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
POST_2000 = POST.replace(b"10", b"2000")
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
EXPECT = b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
DISCONNECT = {"type": "http.disconnect"}
LARGE = b"*" * 100_000


def response(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"".join(line + b"\r\n" for line in (b"HTTP/1.1 " + status, b"date: " + DATE, *lines, b""))


OK = response() + b"ok"
CHUNKS = response(b"transfer-encoding: chunked")
CLOSE = response(b"connection: close") + b"ok"


class Wire:
    """A connection without a socket, whose applications are played by the test."""

    def __init__(self, data: bytes = b"", transport: Any = None, **settings: Any) -> None:
        self.hub = WireHub(**settings)
        self.connection, self.transport = self.hub.connect(transport)
        if data:
            self.feed(data)

    def feed(self, data: bytes) -> None:
        self.connection.dataReceived(data)

    def start(
        self, status: int = 200, length: int | None = None, close: bool = False, trailers: bool = False
    ) -> None:
        self.hub.exchange.take_reply(ResponseStart(status, [], length, close, trailers, []))

    def body(self, data: bytes = b"", more: bool = False) -> None:
        self.hub.exchange.take_reply(ResponseBody(data, more))

    def answer(self, data: bytes = b"ok", status: int = 200, length: int | None = None, close: bool = False) -> None:
        self.start(status, length, close)
        self.body(data)

    def receive(self) -> dict[str, Any]:
        return dict(at_once(self.hub.exchange.receive()))

    def advance(self, seconds: float) -> None:
        self.hub.clock.advance(seconds)

    def stop(self) -> None:
        """The server begins to stop, and gives idle connections half a second."""
        self.hub.stopping, self.hub.keep_alive_timeout = True, 0.5
        for connection in list(self.hub.connections):
            connection.server_stopping()

    @property
    def targets(self) -> list[bytes]:
        return [request.target for request in self.hub.requests]

    @property
    def closed(self) -> bool:
        return bool(self.transport.disconnecting)

    @property
    def aborted(self) -> bool:
        return bool(self.transport.disconnected)


# The steps of a trace: bytes are what the peer sends, all others do something to the wire or look at it.

Step: TypeAlias = bytes | Callable[[Wire], object]


def play(wire: Wire, *steps: Step) -> Wire:
    for number, step in enumerate(steps):
        try:
            wire.feed(step) if isinstance(step, bytes) else step(wire)
        except AssertionError as error:
            error.add_note(f"in step {number} of the trace")
            raise
    return wire


def traces(rows: dict[str, tuple[Any, ...]], make: Callable[..., Wire] = Wire) -> Callable[..., None]:
    """A test that plays each row: what its wire is made with, then its steps."""

    @pytest.mark.parametrize("trace", rows.values(), ids=list(rows))
    def test(self: object, trace: Any) -> None:
        made_with, *steps = trace
        play(make(**made_with), *steps)

    return test


def answer(data: bytes = b"ok", status: int = 200, length: int | None = None, close: bool = False) -> Step:
    return lambda wire: wire.answer(data, status, length, close)


def start(status: int = 200, length: int | None = None, trailers: bool = False) -> Step:
    return lambda wire: wire.start(status, length, trailers=trailers)


def trailers(*fields: tuple[bytes, bytes]) -> Step:
    reply = Trailers([*fields], [name.lower() for name, _ in fields], False)
    return lambda wire: wire.hub.exchange.take_reply(reply)


def hint(wire: Wire) -> None:
    wire.hub.exchange.take_reply(EarlyHint([(b"link", b"</a>")], [b"link"]))


def body(data: bytes = b"", more: bool = False) -> Step:
    return lambda wire: wire.body(data, more)


def after(seconds: float) -> Step:
    return lambda wire: wire.advance(seconds)


def stop(wire: Wire) -> None:
    wire.stop()


def lost(wire: Wire) -> None:
    wire.connection.connectionLost()


def sent(expected: bytes) -> Step:
    """What was sent since the last look."""

    def look(wire: Wire) -> None:
        assert wire.transport.take() == expected

    return look


def sent_status(status: int) -> Step:
    """What was sent since the last look begins a response of HTTP/1.1."""

    def look(wire: Wire) -> None:
        assert wire.transport.take().startswith(b"HTTP/1.1 %d " % status)

    return look


def taken(wire: Wire) -> None:
    """What was sent until now does not matter."""
    wire.transport.take()


def received(data: bytes, more: bool | None = None) -> Step:
    """The application receives a piece of the body."""

    def look(wire: Wire) -> None:
        event = wire.receive()
        assert event["body"] == data
        assert more is None or event == {"type": "http.request", "body": data, "more_body": more}

    return look


def disconnect(wire: Wire) -> None:
    """The application receives the disconnect."""
    assert wire.receive() == DISCONNECT


def waits(wire: Wire) -> None:
    """The application would have to wait for the body."""
    assert would_wait(wire.hub.exchange.receive)


def requests(*targets: bytes) -> Step:
    """These have reached the server on the connection."""

    def look(wire: Wire) -> None:
        assert wire.targets == list(targets)

    return look


def reading(wire: Wire) -> None:
    assert wire.transport.reading


def stopped(wire: Wire) -> None:
    """The peer is stopped."""
    assert not wire.transport.reading


def still_open(wire: Wire) -> None:
    assert not wire.closed


def closed(wire: Wire) -> None:
    assert wire.closed
