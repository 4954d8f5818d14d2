"""Ten thousand WebSockets come to a Channels consumer and go again: the server's memory stays where it was."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.asyncio.client import connect as client

from .live import DEADLINE
from .server import ServerProcess, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

APPLICATION = "tests.e2e.echo_project:application"

VISITS = 10_000
#: Visitors at a time.
CROWD = 50
#: How much more memory than after the first half of the visits the process may have after the second.
GROWTH = 1.04
#: So many more objects: one for each tenth visitor would be a leak.
MORE_OBJECTS = VISITS // 2 // 10

MIB = 1024 * 1024
_TEXT, _BINARY, _CLOSE = 0x81, 0x82, 0x88
_KEY = b"\x12\x34\x56\x78"

HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Echo(NamedTuple):
    """A message, its frame as a client masks it, and the frame that comes back."""

    message: str | bytes
    frame: bytes
    answer: bytes


def head(first: int, size: int, mask: int) -> bytes:
    if size < 126:
        return struct.pack("!BB", first, mask | size)
    if size < 65536:
        return struct.pack("!BBH", first, mask | 126, size)
    return struct.pack("!BBQ", first, mask | 127, size)


def echo(first: int, message: str | bytes) -> Echo:
    payload = message.encode() if isinstance(message, str) else message
    size = len(payload)
    key = (_KEY * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)
    return Echo(message, head(first, size, 0x80) + _KEY + masked, head(first, size, 0) + payload)


def texts_and_bytes(*sizes: int) -> list[Echo]:
    texts = [echo(_TEXT, "".join(random.choices("aäß€😀 ", k=size))[: size // 4]) for size in sizes]
    return [*texts, *(echo(_BINARY, random.randbytes(size)) for size in sizes)]


SMALL = texts_and_bytes(16, 125, 126, 1000, 5000)
MIDDLING = texts_and_bytes(65536, 100_000)
#: The most that the server takes by default.
LARGE = [echo(_TEXT, "z" * MIB), echo(_BINARY, random.randbytes(MIB))]
CLOSE = echo(_CLOSE, struct.pack("!H", 1000))


def messages(number: int) -> list[Echo]:
    """What visitor ``number`` says: two words, each twentieth more, each hundredth as much as one may."""
    said = [SMALL[number % len(SMALL)], SMALL[number * 7 % len(SMALL)]]
    if number % 20 == 0:
        said.append(MIDDLING[number // 20 % len(MIDDLING)])
    if number % 100 == 50:
        said.append(LARGE[number // 100 % len(LARGE)])
    return said


async def visit(port: int, number: int) -> None:
    """Connect, have each message echoed, and leave.

    Each tenth visitor leaves by a reset, some of them within a frame, or before they are accepted.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HANDSHAKE)
    if number % 100 == 57:
        reset(writer)
        return
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    for each in messages(number):
        writer.write(each.frame)
        await writer.drain()
        assert await reader.readexactly(len(each.answer)) == each.answer
    if number % 10 == 7:
        if number % 100 == 7:
            writer.write(MIDDLING[0].frame[:-1])
        reset(writer)
        return
    writer.write(CLOSE.frame)
    assert await reader.read() == CLOSE.answer
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def visit_with_library(port: int, number: int) -> None:
    """The same by the websockets library, with compression."""
    websocket: Any = await client(f"ws://127.0.0.1:{port}/echo", max_size=MIB)
    assert [each.name for each in websocket.protocol.extensions] == ["permessage-deflate"]
    for each in messages(number):
        await websocket.send(each.message)
        assert await websocket.recv() == each.message
    if number % 10 == 7:
        websocket.transport.abort()
    await websocket.close()


async def visits(port: int, numbers: Iterable[int]) -> None:
    """All of them, ``CROWD`` at a time; each tenth is the library's."""
    waiting: Iterator[int] = iter(numbers)

    async def visitor() -> None:
        for number in waiting:
            async with asyncio.timeout(DEADLINE):
                await (visit_with_library if number // 10 % 10 == 3 else visit)(port, number)

    async with asyncio.TaskGroup() as crowd:
        for _ in range(CROWD):
            crowd.create_task(visitor())


class Census(NamedTuple):
    """What a server has when all visitors are gone; ``memory`` in KiB."""

    memory: int
    descriptors: int
    tasks: int
    objects: int


def census(server: ServerProcess) -> Census:
    found: dict[str, int] = {}

    def nobody_is_there() -> bool:
        found.update(httpx.get(f"{server.url}/census").json())
        return not (found["consumers"] or found["groups"] or found["channels"])

    wait_for(nobody_is_there)
    status = Path(f"/proc/{server.pid}/status").read_text()
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return Census(memory, len(os.listdir(f"/proc/{server.pid}/fd")), found["tasks"], found["objects"])


@pytest.mark.slow
def test_memory_after_all_visits_is_as_after_half_of_them() -> None:
    """Visitors come and go, with messages up to 1 MiB, each of them for a while in two groups."""
    with ServerProcess(APPLICATION, "-p", "0", "--access-log", os.devnull) as server:
        half = VISITS // 2
        asyncio.run(visits(server.port, range(half)))
        first = census(server)
        asyncio.run(visits(server.port, range(half, VISITS)))
        second = census(server)
    assert second.memory <= first.memory * GROWTH, (first, second)
    assert second.objects <= first.objects + MORE_OBJECTS, (first, second)
    # A census may see the connection of the one before it.
    assert second.descriptors <= first.descriptors + 5, (first, second)
    assert second.tasks <= first.tasks + 5, (first, second)
    assert "Traceback" not in server.output(), server.output()
    assert "WARNING" not in server.output(), server.output()
