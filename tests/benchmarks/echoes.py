"""WebSockets that are kept busy: opened one by one with blocking sockets, then driven by one event loop."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from .applications import DELIVERED
from .frames import DEADLINE, client_frame, deflated, exactly, open_websocket, payload_of, server_frame
from .processes import LEAD, Usage
from .wrk import ClientFailed

__all__ = ["Deliveries", "Echoes", "Play", "varied_texts"]

#: Units, seconds that each took, what the server used, and the CPU seconds of this process.
Measured = tuple[float, list[float], Usage, float]

# One buffer for all connections: what arrives is counted, not kept.
_BUFFER = memoryview(bytearray(1 << 18))


class Play(Protocol):
    def run(self, pid: int, seconds: float) -> Measured: ...


def text_of(size: int) -> bytes:
    """``size`` bytes of text that compresses about as well as JSON does."""
    numbers = [(n, n * 7919 % 1000, n * n * 31 % 99991) for n in range(size // 30 + 1)]
    return b"".join(b'{"id": %d, "name": "user %d", "value": %d},' % each for each in numbers)[:size]


#: The number of messages that are made before a slice; a slice of a few seconds begins anew with the first.
MOST_TEXTS = 10_000
#: Letters of one to four bytes in UTF-8, as people write.
_LETTERS = "Grüße aus Zürich, señora – привет, как дела? こんにちは、元気ですか 👋🏽 "


def varied_texts(number: int) -> list[bytes]:
    """Texts in UTF-8 of 20 to 400 bytes, with letters beyond ASCII, of which no two are alike."""
    found = []
    first = random.randrange(1 << 31)
    for place in range(first, first + number):
        size = random.randint(20, 400)
        # A letter that is cut in two is left out, and full stops take its room.
        text = f"é{place:x} {_LETTERS * 8}".encode()[:size].decode("utf-8", "ignore")
        found.append(text.encode().ljust(size, b"."))
    return found


class Counting(asyncio.BufferedProtocol):
    """A connection of which only the number of bytes is looked at.

    :param arrived: called with how many have come.
    """

    transport: asyncio.Transport

    def __init__(self, arrived: Callable[[Counting, int], None], lost: Callable[[], None]) -> None:
        self.arrived = arrived
        self.lost = lost
        self.missing = 0
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.arrived(self, nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()


class Parsing(asyncio.Protocol):
    """A connection with answers of different lengths, as compression makes them: their headers are read."""

    transport: asyncio.Transport

    def __init__(self, answered: Callable[[Parsing], None], lost: Callable[[], None]) -> None:
        self.answered = answered
        self.lost = lost
        self.data = bytearray()
        self.missing = 0
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.data += data
        if (found := payload_of(self.data)) is not None:
            del self.data[: found[1]]
            self.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()


class _Driven:
    """What both plays share: the loop, the lead, and the end."""

    def __init__(self) -> None:
        self.units = 0.0
        self.times: list[float] = []
        self.failure = ""
        self.over = False

    def sockets(self) -> list[socket.socket]:
        raise NotImplementedError

    def protocol(self) -> asyncio.BaseProtocol:
        raise NotImplementedError

    def begin(self, protocols: list[Any]) -> None:
        raise NotImplementedError

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        if not self.over:
            self.over = True
            self.done.set()

    def lost(self) -> None:
        if not self.over:
            self.fail("the server closed a connection")

    def run(self, pid: int, seconds: float) -> Measured:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(self._run(pid, seconds))

    async def _run(self, pid: int, seconds: float) -> Measured:
        loop = asyncio.get_running_loop()
        self.done = asyncio.Event()
        protocols = []
        for sock in self.sockets():
            sock.setblocking(False)
            _, protocol = await loop.create_connection(self.protocol, sock=sock)
            protocols.append(protocol)
        self.begin(protocols)
        await self._pass(LEAD)
        usage, client = Usage(pid), time.process_time()
        self.units, self.times = 0.0, []
        await self._pass(seconds)
        # The machine may stand still for longer than a slice.
        end = time.monotonic() + DEADLINE
        while not self.units and time.monotonic() < end:
            await self._pass(LEAD)
        # Read before anything else happens: the connections go on until they are closed.
        units, times, spent = self.units, self.times, time.process_time() - client
        usage.stop()
        self.over = True
        for protocol in protocols:
            protocol.transport.abort()
        await asyncio.sleep(0)
        return units, times, usage, spent

    async def _pass(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.done.wait()
        except TimeoutError:
            return
        raise ClientFailed(self.failure)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop  # type: ignore[no-any-return]


class Echoes(_Driven):
    """Each connection sends a message of ``size`` bytes again when it has come back.

    :param compressed: with permessage-deflate.
    :param varied: another message each time, of 20 to 400 bytes.
    """

    def __init__(
        self, port: int, size: int = 32, connections: int = 32, compressed: bool = False, varied: bool = False
    ) -> None:
        super().__init__()
        self.port = port
        self.connections = connections
        self.compressed = compressed
        self.payloads = varied_texts(MOST_TEXTS) if varied else [text_of(size)]
        frames = (client_frame(deflated(p) if compressed else p, compressed=compressed) for p in self.payloads)
        # Each frame with the length of its answer.
        self.turns = itertools.cycle([(f, len(server_frame(p))) for f, p in zip(frames, self.payloads, strict=True)])

    def sockets(self) -> list[socket.socket]:
        opened = [open_websocket(self.port, compressed=self.compressed) for _ in range(self.connections)]
        for sock, payload in zip(opened, itertools.cycle(self.payloads)):
            sock.sendall(next(self.turns)[0])
            self._check(sock, payload)
        return opened

    def _check(self, sock: socket.socket, sent: bytes) -> None:
        """The first answer, byte for byte."""
        if not self.compressed:
            expected = server_frame(sent)
            if (answer := exactly(sock, len(expected))) != expected:
                raise ClientFailed(f"a wrong echo that begins with {answer[:16]!r}")
            return
        data = bytearray()
        while (found := payload_of(data)) is None:
            data += exactly(sock, 1)
        payload = bytes(data[found[0] : found[1]])
        if not data[0] & 0x40:
            raise ClientFailed("the echo is not compressed")
        if zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff") != sent:
            raise ClientFailed("a wrong echo")

    def protocol(self) -> asyncio.BaseProtocol:
        return Parsing(self._next, self.lost) if self.compressed else Counting(self._arrived, self.lost)

    def begin(self, protocols: list[Any]) -> None:
        for protocol in protocols:
            protocol.sent = time.perf_counter()
            self._say(protocol)

    def _say(self, connection: Counting | Parsing) -> None:
        frame, connection.missing = next(self.turns)
        connection.transport.write(frame)

    def _arrived(self, connection: Counting, size: int) -> None:
        connection.missing -= size
        if connection.missing <= 0:
            if connection.missing:
                return self.fail("more bytes came back than were sent")
            self._next(connection)
        return None

    def _next(self, connection: Counting | Parsing) -> None:
        now = time.perf_counter()
        self.units += 1
        self.times.append(now - connection.sent)
        connection.sent = now
        if not self.over:
            self._say(connection)


class Deliveries(_Driven):
    """One of ``connections`` says a word when all of them have got the last message."""

    def __init__(self, port: int, connections: int = 1000) -> None:
        super().__init__()
        self.port = port
        self.connections = connections
        self.frame = client_frame(b"go")
        self.answer = server_frame(DELIVERED.encode("ascii"))
        self.missing = 0
        self.sent = 0.0

    def sockets(self) -> list[socket.socket]:
        opened = [open_websocket(self.port) for _ in range(self.connections)]
        opened[0].sendall(self.frame)
        for sock in opened:
            if (answer := exactly(sock, len(self.answer))) != self.answer:
                raise ClientFailed(f"a wrong message that begins with {answer[:16]!r}")
        return opened

    def protocol(self) -> asyncio.BaseProtocol:
        return Counting(self._arrived, self.lost)

    def begin(self, protocols: list[Any]) -> None:
        self.sender = protocols[0].transport
        self._say()

    def _say(self) -> None:
        self.missing = len(self.answer) * self.connections
        self.sent = time.perf_counter()
        self.sender.write(self.frame)

    def _arrived(self, connection: Counting, size: int) -> None:
        self.missing -= size
        # A message that has not reached all of them yet counts for those that it has reached.
        self.units += size / len(self.answer)
        if self.missing <= 0:
            if self.missing:
                return self.fail("more was delivered than was said")
            self.times.append(time.perf_counter() - self.sent)
            if not self.over:
                self._say()
        return None
