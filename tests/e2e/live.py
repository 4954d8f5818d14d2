"""Servers inside the test's own loop, and a peer that writes and reads raw bytes."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import pytest

from asgiserver import Server

__all__ = [
    "CHUNKED", "DEADLINE", "GET", "POST", "Peer", "Response", "answer", "connect", "get", "in_loop", "post",
    "receive_body", "serve", "stalls", "until", "url",
]  # fmt: skip

#: Seconds that a step of a test may take on a busy machine before it counts as failed.
DEADLINE = 20.0


#: A request, the beginning of one, and a head behind which chunks have to follow.
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def get(target: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: example.org", *fields, "", ""]).encode("latin-1")


def post(length: int, body: bytes = b"", target: str = "/") -> bytes:
    """A request with a body of ``length``, of which ``body`` is the part that is there."""
    return get(target, f"Content-Length: {length}", method="POST") + body


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let pytest call an ``async def`` test, on a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def serve(application: Any, **settings: Any) -> AsyncIterator[Server]:
    """A server of ``application`` on a free port of 127.0.0.1; without lifespan, and quick to stop.

    What the application asserts in vain fails the test, also where no peer can see that, behind a complete response.
    """
    failed: list[BaseException] = []

    def failure(error: BaseException) -> None:
        if isinstance(error, AssertionError | pytest.fail.Exception):
            failed.append(error)

    quick = {"port": 0, "lifespan": "off", "graceful_timeout": 0.5, "graceful_idle": 0, "on_failure": failure}
    async with Server(application, **{**quick, **settings}) as server:
        yield server
    for error in failed:
        raise error


def url(server: Server, scheme: str = "http") -> str:
    """The server's address, without a slash at its end."""
    host, port = server.listening_addresses[0]
    return f"{scheme}://{host}:{port}"


async def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Return once ``condition()`` is true; AssertionError when that takes longer than ``seconds``."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def stalls(progress: Callable[[], int]) -> int:
    """Wait until ``progress()`` has begun and does not change any more; what it is then."""
    await until(progress)
    last, still = -1, 0
    while still < 10:
        still = still + 1 if progress() == last else 0
        last = progress()
        await asyncio.sleep(0.03)
    return last


class Response(NamedTuple):
    """What a raw peer has read: one HTTP/1.x response."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for other, value in self.headers if other == name]

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)


class Peer:
    """A raw connection; every step of it has a deadline.

    Reading is strict: a response that is not well framed, or ends early, is an ``AssertionError`` or an
    ``asyncio.IncompleteReadError``.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(DEADLINE):
            await self.writer.drain()

    async def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readexactly(size)

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readuntil(end)

    async def read_rest(self) -> bytes:
        """All bytes until the server closes; ConnectionResetError when it resets."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read()

    async def closed(self) -> bool:
        """Wait until the server closes or resets; True when nothing came before that."""
        try:
            return await self.read_rest() == b""
        except ConnectionError:
            return True

    async def response(self, method: str = "GET") -> Response:
        """The next final or informational response, with its whole body (RFC 9112 §6.3)."""
        lines = (await self.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        version, status, reason = lines[0].split(" ", 2)
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        found = Response(version, int(status), reason, headers, b"")
        if method == "HEAD" or found.status < 200 or found.status in (204, 304):
            return found
        return found._replace(body=await self._body(found))

    async def _body(self, found: Response) -> bytes:
        assert not (found.value("content-length") and found.value("transfer-encoding"))
        if found.value("transfer-encoding"):
            assert found.values("transfer-encoding") == ["chunked"]
            return await self._chunks()
        if (length := found.value("content-length")) is not None:
            assert len(found.values("content-length")) == 1
            return await self.read(int(length))
        assert found.value("connection") == "close"
        return await self.read_rest()

    async def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while size := int(await self.read_until(b"\r\n"), 16):
            parts.append(await self.read(size))
            assert await self.read(2) == b"\r\n"
        assert await self.read(2) == b"\r\n"
        return b"".join(parts)

    async def request(self, method: str, target: str, *fields: str, body: bytes = b"") -> Response:
        """Send one request with a Host and ``fields``, and read its response."""
        lines = [f"{method} {target} HTTP/1.1", "Host: example.org", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return await self.response(method)

    def abort(self) -> None:
        """Leave with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(DEADLINE):
                await self.writer.wait_closed()
        except ConnectionError:
            pass


@asynccontextmanager
async def connect(
    to: Server | tuple[str, int] | str, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> AsyncIterator[Peer]:
    """A raw connection.

    :param to: a server, which means its first address, or an address, or the path of a unix socket.
    :param receive_buffer: size of the kernel's buffer for what the server sends, bytes; also stops asyncio's reading
        ahead, so that a peer that does not read stops the server soon.
    """
    address = to.listening_addresses[0] if isinstance(to, Server) else to
    unix = isinstance(address, str)
    sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    limit = 65536 if receive_buffer is None else receive_buffer
    async with asyncio.timeout(DEADLINE):
        await asyncio.get_running_loop().sock_connect(sock, address)
        names = {} if tls is None else {"ssl": tls, "server_hostname": "localhost"}
        streams = await asyncio.open_connection(sock=sock, limit=limit, **names)
    async with Peer(*streams) as peer:
        yield peer


Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def answer(send: Send, body: bytes = b"", status: int = 200, headers: Any = None) -> None:
    """A whole response with its length."""
    fields = [(b"content-length", str(len(body)).encode())] if headers is None else headers
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def receive_body(receive: Receive) -> bytes:
    """The whole body; ConnectionError when the peer leaves before its end."""
    parts: list[bytes] = []
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionError("the client has left")
        parts.append(event["body"])
        if not event["more_body"]:
            return b"".join(parts)
