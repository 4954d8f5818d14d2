"""Applications that send too much, too late and from several tasks, and clients that end in every way.

What each side does is drawn from the number of the conversation, so that one that fails can be told again. A watch on
the CPU time of the process ends whatever keeps the loop busy for a second. ``ASGISERVER_CONVERSATIONS`` in the
environment sets how many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest
import uvloop

from asgiserver import Server
from asgiserver.errors import ApplicationError

from .applications import piece, start
from .certificate import Certificate
from .live import answer, connect, serve, until
from .websocket import handshake

CONVERSATIONS = int(os.environ.get("ASGISERVER_CONVERSATIONS", "6000"))
#: Conversations at a time.
AT_A_TIME = 200

PIECE = b"x" * 1000
#: More than the kernel keeps for a unix socket, and for a TCP client with a small buffer.
LARGE = b"x" * 400_000
HUGE = b"x" * 8_000_000

HANDSHAKE = handshake(target="/%d")
#: A text, a ping, a fragment, a close frame, and a frame that breaks the protocol; all with a mask of zeros.
FRAMES = [
    b"\x81\x82\0\0\0\0hi", b"\x89\x80\0\0\0\0", b"\x01\x81\0\0\0\0a", b"\x88\x82\0\0\0\0\x03\xe8", b"\xff\x80\0\0\0\0",
]  # fmt: skip


class BusyLoop(BaseException):
    """Not an Exception, so that no application takes it for its own."""


class Watch:
    """Raises out of whatever has kept the loop from its turns for a second of CPU time.

    :ivar found: where that was.
    """

    SECONDS = 1.0

    def __init__(self) -> None:
        self.found: list[str] = []

    def _rings(self, _: int, frame: FrameType | None) -> None:
        self.found.append("".join(traceback.format_stack(frame)))
        raise BusyLoop

    async def _beat(self) -> None:
        while True:
            # Again and again, since an application that is thrown out of one such place may go on to the next.
            signal.setitimer(signal.ITIMER_PROF, self.SECONDS, self.SECONDS)
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        previous = signal.signal(signal.SIGPROF, self._rings)
        beating = asyncio.ensure_future(self._beat())
        try:
            yield
        finally:
            beating.cancel()
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, previous)


# The application's side.

START = start()
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close", "code": 4000}


HTTP = [
    START, START, piece(PIECE, True), piece(PIECE, True), piece(LARGE, True), piece(LARGE, True), piece(HUGE, False),
    piece(b"", False), piece(PIECE, False), {"type": "nonsense"},
]  # fmt: skip
WEBSOCKET = [
    ACCEPT, ACCEPT, {"type": "websocket.send", "text": "hi"}, {"type": "websocket.send", "bytes": LARGE},
    {"type": "websocket.send", "bytes": LARGE[:100_000]}, CLOSE,
    {"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.http.response.body", "body": LARGE},
    {"type": "nonsense"},
]  # fmt: skip


async def act(random: Random, messages: list[dict[str, Any]], receive: Any, send: Any) -> None:
    """One task of an application: up to a dozen steps, whatever comes of each."""
    for _ in range(random.randrange(1, 12)):
        step = random.randrange(12)
        try:
            if step < 7:
                # In the usual order as often as not, so that most conversations get somewhere.
                message = random.choice(messages)
                for _ in range(random.choice([1, 1, 1, 1, 30])):
                    await send(message)
            elif step < 9:
                async with asyncio.timeout(random.choice([0, 0.005, 0.05])):
                    for _ in range(random.choice([1, 2, 300])):
                        await receive()
            elif step == 9:
                await asyncio.sleep(random.choice([0, 0, 0.002, 0.02]))
            elif step == 10 and random.random() < 0.2:
                raise ValueError("of the application")
        except (ApplicationError, TimeoutError):
            pass
        except OSError:
            if random.random() < 0.5:
                raise


async def application(scope: Any, receive: Any, send: Any) -> None:
    random = Random(f"application {scope['path']}")
    http = scope["type"] == "http"
    messages = HTTP if http else WEBSOCKET
    if random.random() < 0.8:
        with contextlib.suppress(OSError, ApplicationError):
            await send(START if http else ACCEPT)
    tasks = [act(Random(random.random()), messages, receive, send) for _ in range(random.choice([1, 1, 2, 3]))]
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, BaseException) and random.random() < 0.3:
            raise error


# The client's side.


class Client:
    """A plain socket, so that each of its ends can be had."""

    def __init__(self, random: Random, sock: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.random = random
        self.sock = sock

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def receive(self) -> bytes:
        return await self.loop.sock_recv(self.sock, 65536)

    async def read(self, most: int) -> None:
        """Up to ``most`` bytes, for as long as they come at once."""
        while most > 0:
            async with asyncio.timeout(self.random.choice([0.001, 0.02])):
                data = await self.receive()
            if not data:
                return
            most -= len(data)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class SecureClient(Client):
    """The same over TLS, which has no half-close."""

    def __init__(self, random: Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.random = random
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> bytes:
        return await self.reader.read(65536)

    def half_close(self) -> None:
        """There is none."""

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.writer.transport.abort()
        else:
            self.writer.close()
            # A client whose buffer is full reads no more, and so would not learn that the server has closed too.
            asyncio.get_running_loop().call_later(1, self.writer.transport.abort)


class Ways:
    """How the server can be reached."""

    def __init__(self, server: Server, path: str, context: ssl.SSLContext) -> None:
        self.secure, self.plain = server.listening_addresses
        self.path = path
        self.context = context

    async def connect(self, random: Random) -> Client:
        way = random.random()
        if way < 0.05:
            host, port = self.secure
            return SecureClient(random, *await asyncio.open_connection(host, port, ssl=self.context))
        loop = asyncio.get_running_loop()
        unix = way < 0.55
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        sock.setblocking(False)
        if not unix:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(sock, self.path if unix else self.plain)
        return Client(random, sock)


async def converse(number: int, ways: Ways) -> None:
    random = Random(f"client {number}")
    client = await ways.connect(random)
    try:
        await ask(random, number, client)
        ending = random.randrange(5)
        if ending == 0:
            client.half_close()
        for _ in range(random.randrange(3)):
            await client.read(random.choice([1000, 500_000, 9_000_000]))
        if ending == 1:
            client.half_close()
            await client.read(9_000_000)
        elif ending == 2:
            # Silence, until the server has had enough of it.
            await asyncio.sleep(random.choice([0.05, 0.4]))
    except (OSError, TimeoutError):
        pass
    finally:
        client.close(reset=random.random() < 0.3)


async def ask(random: Random, number: int, client: Client) -> None:
    kind = random.randrange(8)
    if kind == 0:
        await client.send(b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123" % number)
    elif kind == 1:
        await client.send(b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 400000\r\n\r\n" % number + LARGE)
    elif kind == 2:
        await client.send(b"GET /%d HTTP/1.0\r\n\r\n" % number)
    elif kind < 5:
        await client.send(HANDSHAKE % number)
        for _ in range(random.randrange(4)):
            await client.send(random.choice(FRAMES) * random.choice([1, 1, 100]))
    else:
        await client.send(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number * random.choice([1, 1, 2]))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What the applications do wrong is not worth its lines here."""
    loggers = [logging.getLogger("asgiserver"), logging.getLogger("asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
@pytest.mark.parametrize("new_loop", [
    pytest.param(asyncio.new_event_loop, id="asyncio", marks=pytest.mark.slow),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
])  # fmt: skip
def test_end_with_nothing_left(
    tmp_path: Path, certificate: Certificate, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    path = str(tmp_path / "s")
    watch = Watch()

    async def main() -> None:
        server = Server(
            application, port=0, unix_socket=path, endpoints=["tcp:0:interface=127.0.0.1"], **certificate.settings,
            lifespan="off", keep_alive_timeout=0.3, write_timeout=0.5, body_timeout=0.3, close_timeout=0.3,
            websocket_close_timeout=0.3, application_close_timeout=0.3, graceful_timeout=5,
        )  # fmt: skip
        async with server, watch.watching():
            ways = Ways(server, path, certificate.client())
            # The first conversations load what stays.
            await asyncio.gather(*(converse(-number, ways) for number in range(1, 50)))
            await until(lambda: not server.connections and not server._tasks)
            before, tasks = descriptors(), len(asyncio.all_tasks())
            numbers = iter(range(CONVERSATIONS // 2))

            async def some() -> None:
                for number in numbers:
                    assert not watch.found
                    await converse(number, ways)

            await asyncio.gather(*(some() for _ in range(AT_A_TIME)))
            await until(lambda: not server.connections and not server._tasks)
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            await until(lambda: descriptors() <= before)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert watch.found == []


@pytest.mark.parametrize("more", [1, 3])
async def test_late_message_to_a_peer_that_has_ended_its_direction(more: int) -> None:
    """A message behind a response that the peer does not take, from one task and from several."""
    done = asyncio.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.gather(send(piece(HUGE, False)), *(send(piece(b"late", False)) for _ in range(more)))
        done.set()

    watch = Watch()
    async with watch.watching(), serve(late) as server, connect(server, receive_buffer=4096) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: any(connection.output.slow for connection in server.connections))
        peer.writer.write_eof()
        await until(done.is_set)
        peer.abort()
        await until(lambda: not server.connections)
    assert watch.found == []


async def head(send: Any) -> None:
    await send(START)
    while True:
        await send(piece(PIECE, True))


async def empty(send: Any) -> None:
    await send(START)
    while True:
        await send(piece(b"", True))


async def tiny(send: Any) -> None:
    await send(ACCEPT)
    while True:
        await send({"type": "websocket.send", "text": ""})


async def mistaken(send: Any) -> None:
    while True:
        with contextlib.suppress(ApplicationError):
            await send({"type": "nonsense"})


async def test_endless_mistakes_beside_a_task_that_waits_for_the_peer() -> None:
    """Others have their turns too while one task waits for room, and another one makes mistakes for ever."""

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/other":
            await answer(send, b"served")
            return
        await send(START)
        await asyncio.gather(send(piece(HUGE, True)), mistaken(send))

    watch = Watch()
    async with watch.watching(), serve(endless, application_close_timeout=0.1) as server:
        async with connect(server, receive_buffer=4096) as peer, connect(server) as other:
            await peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await until(lambda: server._tasks)
            for _ in range(20):
                assert (await other.request("GET", "/other")).body == b"served"
            peer.abort()
        await until(lambda: not server._tasks)
    assert watch.found == []


@pytest.mark.parametrize("sends", [head, empty, tiny, mistaken])
async def test_endless_messages_that_no_peer_can_slow_down(sends: Callable[[Any], Any]) -> None:
    """Those of which nothing is written, or next to nothing, give others their turns too."""

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/other":
            await answer(send, b"served")
        else:
            await sends(send)

    watch = Watch()
    async with watch.watching(), serve(endless, application_close_timeout=0.1) as server:
        async with connect(server) as peer, connect(server) as other:
            method = b"HEAD" if sends is head else b"GET"
            await peer.send(HANDSHAKE % 1 if sends is tiny else method + b" / HTTP/1.1\r\nHost: h\r\n\r\n")
            reading = asyncio.ensure_future(peer.read_rest())
            await until(lambda: server._tasks)
            for _ in range(20):
                assert (await other.request("GET", "/other")).body == b"served"
            reading.cancel()
            await asyncio.wait({reading})
            peer.abort()
        await until(lambda: not server._tasks)
    assert watch.found == []
