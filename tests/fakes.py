"""What the unit tests put in the places of a wire, a hub, a frame engine and a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet import task
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from asgiserver.asgi.exchange import Exchange
from asgiserver.asgi.http import HTTPExchange
from asgiserver.asgi.interfaces import Headers, Sleeper, Stream
from asgiserver.asgi.scope import Addresses, Request, ScopeBuilder
from asgiserver.asgi.websocket import WebSocketExchange
from asgiserver.errors import RequestError
from asgiserver.metrics.counts import Counts
from asgiserver.settings import Settings
from asgiserver.wire.connection import HTTPConnection
from asgiserver.wire.default_fields import DefaultFields

from .conformance.peer import Turns

T = TypeVar("T")

#: 1994-11-15 08:12:31 UTC, the date of RFC 9110 §6.6.1.
THEN = 784887151
DATE = b"Tue, 15 Nov 1994 08:12:31 GMT"
CLIENT = ("192.0.2.7", 4711)
SERVER = ("198.51.100.1", 8000)


def at_once(awaitable: Awaitable[T]) -> T:
    """The result of a coroutine that must not have to wait for anything; there is no loop that it could wait on."""
    coroutine = awaitable
    assert isinstance(coroutine, Coroutine)
    try:
        # None is a turn left to others, as sleep(0) does; anything else is a future.
        while coroutine.send(None) is None:
            pass
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise AssertionError("it waits")


async def settle() -> None:
    """Let everything run that can run now."""
    for _ in range(10):
        await asyncio.sleep(0)


def would_wait(receive: Callable[[], Awaitable[Any]]) -> bool:
    """True when ``receive()`` has nothing to give."""

    async def look() -> bool:
        task = asyncio.ensure_future(receive())
        await settle()
        if task.done():
            task.result()
            return False
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return True

    return asyncio.run(look())


def fields(server_name: str = "", *lines: str) -> DefaultFields:
    return DefaultFields(server_name, lines, now=lambda: THEN + 0.5)


class Clock(task.Clock):
    """Twisted's; a sleeper is woken by a delayed call, at the very time."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: dict[Sleeper, IDelayedCall] = {}

    def wake_at(self, due: float, sleeper: Sleeper) -> float:
        assert sleeper not in self._sleepers
        call = self._sleepers[sleeper] = self.callLater(max(0.0, due - self.seconds()), self._wake, sleeper)
        return call.getTime()

    def let_sleep(self, sleeper: Sleeper, when: float) -> None:
        call = self._sleepers.pop(sleeper, None)
        if call is not None:
            assert call.getTime() == when
            call.cancel()

    def _wake(self, sleeper: Sleeper) -> None:
        del self._sleepers[sleeper]
        sleeper.wake()


class FakeStream:
    """Records what an exchange writes, and fails the test when it writes after the end."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.slow = False
        self.pending = 0
        # So that drain() is awaited after each message, which lets the others have a turn.
        self.congested = True
        self.reading = True
        self.lost = False
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.framing: dict[str, Any] = {}
        self.trailers: list[tuple[bytes, bytes]] | None = None
        self.hints: list[tuple[bytes, bytes]] = []
        self.data = b""
        self.on_resume: Callable[[], object] | None = None
        self.turn = Turns()

    @property
    def output(self) -> FakeStream:
        """Itself; a wire's belongs to the connection."""
        return self

    @property
    def over(self) -> bool:
        return self.lost or bool({"end", "abort", "close"} & set(self.calls))

    def _call(self, name: str) -> None:
        assert not self.over, f"{name} after {self.calls}"
        self.calls.append(name)

    def respond(
        self,
        status: int,
        headers: Headers,
        names: list[bytes],
        content_length: int | None,
        *,
        has_body: bool,
        close: bool,
        data: bytes,
        last: bool,
    ) -> None:
        self._call("respond")
        assert names == [name.lower() for name, _ in headers]
        self.status = status
        self.headers = list(headers)
        self.framing = {"content_length": content_length, "has_body": has_body, "close": close}
        self._add(data, last)

    def send_informational(self, status: int, headers: Headers, names: list[bytes]) -> None:
        self._call(f"{status}")
        assert names == [name.lower() for name, _ in headers]
        self.hints += headers

    def send_trailers(self, headers: Headers, names: list[bytes]) -> None:
        self._call("trailers")
        assert names == [name.lower() for name, _ in headers]
        self.trailers = list(headers)
        self.calls.append("end")

    def send_parts(self, parts: list[bytes]) -> None:
        self.send_data(b"".join(parts))

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        self._call("data")
        self._add(data, last)

    def _add(self, data: bytes, last: bool) -> None:
        self.data += data
        if last:
            self.calls.append("end")

    def switch(self, headers: Headers, names: list[bytes]) -> None:
        self._call("switch")
        self.status = 101
        self.headers = list(headers)

    def abort(self) -> None:
        self._call("abort")

    def close(self) -> None:
        self._call("close")

    def pause_reading(self) -> None:
        self._call("pause")
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.over, f"resume after {self.calls}"
        self.reading = True
        if self.on_resume is not None:
            self.on_resume()

    async def drain(self) -> None:
        """Only lets the others have a turn."""
        await asyncio.sleep(0)


class FakeHub:
    """What an exchange needs of the server."""

    def __init__(self, *, logs_actions: bool = True) -> None:
        self.counts: Counts | None = None
        self.logs_actions = logs_actions
        self.actions: list[tuple[str, str, dict[str, Any]]] = []
        self.gone: list[Exchange] = []
        self.stopping = False
        self.ending = False

    def exchange_gone(self, exchange: Exchange) -> None:
        self.gone.append(exchange)

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        self.actions.append((protocol, action, details))


class FakeFrames:
    """A frame engine whose messages the test makes up itself."""

    def __init__(self, exchange: WebSocketExchange) -> None:
        self.exchange = exchange
        self.received = b""
        self.sent: list[tuple[Any, ...]] = []
        self.resumed = 0
        self.abandoned = False

    def receive(self, data: bytes) -> None:
        self.received += data

    def resume(self) -> None:
        self.resumed += 1

    def send_message(self, payload: bytes, *, text: bool) -> None:
        self.sent.append(("text" if text else "binary", payload))
        self.exchange.write(b"<%b>" % payload)

    def send_ping(self, payload: bytes) -> None:
        self.sent.append(("ping", payload))
        self.exchange.write(b"<ping>")

    def send_close(self, code: int, reason: str) -> None:
        self.sent.append(("close", code, reason))
        self.exchange.write(b"<close>")

    def abandon(self) -> None:
        self.abandoned = True


class WireHub:
    """The server as a wire sees it; makes exchanges, but no applications: the test replies itself."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.clock = Clock()
        self.fields = fields()
        self.keep_alive_timeout = self.settings.keep_alive_timeout
        self.stopping = False
        self.accepting = True
        self.refusal: RequestError | None = None
        self.connections: set[HTTPConnection] = set()
        self.requests: list[Request] = []
        self.exchanges: list[Any] = []
        self.begun: list[Exchange] = []
        self.refused: list[tuple[Request | None, int]] = []
        self.scopes = ScopeBuilder("", None, None)
        self.log = FakeHub(logs_actions=False)

    @property
    def exchange(self) -> Any:
        """The latest one."""
        return self.exchanges[-1]

    def connection_made(self, connection: HTTPConnection) -> bool:
        self.connections.add(connection)
        return self.accepting

    def connection_lost(self, connection: HTTPConnection) -> None:
        self.connections.remove(connection)

    def open_exchange(self, request: Request, stream: Stream, addresses: Addresses) -> Exchange:
        if self.refusal is not None:
            raise self.refusal
        exchange: Exchange
        rest = (stream, self.log, self.settings, self.clock)
        if request.upgrade:
            scope = self.scopes.websocket(request, addresses, [])
            exchange = WebSocketExchange(scope, *rest, lambda _: [(b"upgrade", b"websocket")], FakeFrames)
        else:
            exchange = HTTPExchange(self.scopes.http(request, addresses), *rest)
        self.requests.append(request)
        self.exchanges.append(exchange)
        return exchange

    def create_application(self, exchange: Exchange) -> None:
        self.begun.append(exchange)

    def is_running(self, exchange: Exchange) -> bool:
        return exchange in self.begun

    def request_refused(self, request: Request | None, addresses: Addresses, error: RequestError) -> None:
        self.refused.append((request, error.status))

    def connect(self, transport: Any = None) -> tuple[HTTPConnection, Any]:
        """A new connection and its transport."""
        transport = FakeTransport() if transport is None else transport
        connection = HTTPConnection(self)
        transport.protocol = connection
        connection.makeConnection(transport)
        return connection, transport


class FakeTransport(StringTransport):
    """A transport that is no socket's, as those that wrap another one: everything goes through ``write``."""

    def __init__(self, peer: IAddress | None = None, host: IAddress | None = None) -> None:
        super().__init__(host or IPv4Address("TCP", *SERVER), peer or IPv4Address("TCP", *CLIENT))

    @property
    def reading(self) -> bool:
        return self.producerState == "producing"

    def setTcpNoDelay(self, enabled: bool) -> None:
        """For those that say they are TCP or TLS."""

    def unregisterProducer(self) -> None:
        """As often as one likes, as Twisted's real transports have it."""
        self.producer = None

    def take(self) -> bytes:
        """What was written since the last look."""
        data: bytes = self.value()
        self.clear()
        return data


class FakeSocket(FileDescriptor):
    """A socket's transport without its socket.

    :ivar room: bytes that the peer takes before it stops.
    :ivar broken: the next attempt to send meets a reset connection.
    """

    def __init__(self, room: int = 1 << 30) -> None:
        super().__init__(reactor=self)  # type: ignore[arg-type]
        self.connected = 1
        self.room = room
        self.broken = False
        self.sent = b""
        self.sealed = b""
        self.writes: list[int] = []
        self.half_closed = False
        self.aborted = False
        self.writing = False
        self.reading = True

    def writeSomeData(self, data: bytes | memoryview) -> int | BaseException:
        if self.broken:
            return CONNECTION_LOST  # type: ignore[no-any-return]
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        self.writes.append(len(taken))
        return len(taken)

    def send(self, data: bytes) -> int:
        """As our TLS does, which sends by itself."""
        sent = self.writeSomeData(data)
        if isinstance(sent, BaseException):
            raise BrokenPipeError
        return sent

    def readable(self, room: int) -> None:
        """The peer takes ``room`` bytes more, and the reactor tells so."""
        self.room += room
        self.doWrite()

    def lose(self) -> None:
        self.connected = 0
        self.protocol.connectionLost(Failure(ConnectionDone()))

    # What a FileDescriptor asks of its reactor, and of the class of its socket.

    def addWriter(self, _: object) -> None:
        self.writing = True

    def removeWriter(self, _: object) -> None:
        self.writing = False

    def addReader(self, _: object) -> None:
        self.reading = True

    def removeReader(self, _: object) -> None:
        self.reading = False

    def callLater(self, *_: object) -> None:
        """Nothing happens later; the test calls ``lose``."""

    def loseWriteConnection(self) -> None:
        self.half_closed = True
        super().loseWriteConnection()

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    def getPeer(self) -> IAddress:
        return IPv4Address("TCP", *CLIENT)

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", *SERVER)
