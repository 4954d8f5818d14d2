"""``python -m tests.soak``: minutes of mixed load on real servers, and whether anything of it stays behind.

One server is a single process, the other has two workers, which are reloaded and killed meanwhile. Clients leave in
every way. After each half all clients leave, and what the servers hold then is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Self

from tests.e2e.server import ServerProcess, serving, wait_for
from tests.e2e.workers import WebSocketClient, ask, descendants, upgrade

__all__ = ["Sample", "grown", "main"]

APPLICATION = """
import asyncio, gc, json, os

PIECE = bytes(16384)

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"pid {os.getpid()}"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
        return
    path, body = scope["path"], b"ok"
    if path == "/census":
        gc.collect()
        body = json.dumps([os.getpid(), len(asyncio.all_tasks())]).encode()
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1048576")]})
        for _ in range(64):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        return await send({"type": "http.response.body"})
    else:
        size, event = 0, {"more_body": True}
        while event.get("more_body"):
            event = await receive()
            size += len(event.get("body", b""))
        body = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

#: Clients of each server, a task for each way times so many.
EACH = 2
#: Seconds between two things that a client does: the load is to last, not to be heavy.
PAUSE = 0.1
STEPS = 10
#: Bytes that a server may hold more after the second half than after the first, for each of its processes: allocators
#: keep what is free, and pages are shared by more or fewer processes, which moves up to 1.5 MiB in runs without a leak.
#: In ten minutes a server has some 25,000 connections in a half, so 100 bytes that stay of each are found. Of files and
#: tasks none may stay.
MOST_MEMORY = 2 * 1024 * 1024

STREAM = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_RESET = struct.pack("ii", 1, 0)
#: A worker that is killed takes its connections with it.
_LOST = (ConnectionError, asyncio.IncompleteReadError)


class Sample(NamedTuple):
    """What all processes of a server hold.

    :param memory: bytes, each page counted for its share (Pss).
    :param descriptors: files that are open.
    :param processes: how many.
    :param tasks: of asyncio, in one of the processes that serve; None under load.
    """

    memory: int
    descriptors: int
    processes: int
    tasks: int | None = None


def grown(half: Sample, end: Sample) -> list[str]:
    """What has grown in the second half beyond its bound."""
    found = []
    if end.memory > half.memory + MOST_MEMORY * end.processes:
        found.append(f"memory by {(end.memory - half.memory) / 2**20:.1f} MiB")
    if end.descriptors > half.descriptors:
        found.append(f"descriptors by {end.descriptors - half.descriptors}")
    if (end.tasks or 0) > (half.tasks or 0):
        found.append(f"tasks by {(end.tasks or 0) - (half.tasks or 0)}")
    return found


class Client:
    """The ways to use a server and to leave it; each method is one connection or a few."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.done: Counter[str] = Counter()
        self.over = False

    async def run(self, way: Callable[[Client], Awaitable[None]]) -> None:
        while not self.over:
            try:
                async with asyncio.timeout(30):
                    await way(self)
                self.done[way.__name__] += 1
            except _LOST:
                self.done["lost"] += 1
            await asyncio.sleep(PAUSE)

    @asynccontextmanager
    async def _peer(self, data: bytes, *, buffer: int = 0) -> AsyncIterator[Streams]:
        """A connection on which ``data`` was sent; closed at the end, unless it was left in another way before."""
        peer = socket.socket()
        peer.setblocking(False)
        if buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", self.port))
            reader, writer = await asyncio.open_connection(sock=peer)
        except BaseException:
            peer.close()
            raise
        try:
            writer.write(data)
            yield reader, writer
        finally:
            writer.close()

    @asynccontextmanager
    async def _websocket(self) -> AsyncIterator[WebSocketClient]:
        client = await WebSocketClient.connect(self.port)
        try:
            yield client
        finally:
            client.writer.close()

    async def asks(self) -> None:
        assert await ask(self.port) == "0"

    async def uploads(self) -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
        async with self._peer(head + bytes(300_000)) as (reader, _):
            assert (await reader.readuntil(b"300000")).startswith(b"HTTP/1.1 200 ")

    async def streams(self) -> None:
        async with self._peer(STREAM) as (reader, _):
            await reader.readuntil(b"\r\n\r\n")
            assert len(await reader.readexactly(1048576)) == 1048576

    async def talks(self) -> None:
        async with self._websocket() as client:
            for _ in range(10):
                if not await client.talk():
                    return
                await asyncio.sleep(PAUSE)
            client.writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
            await client.reader.read()

    async def leaves_a_websocket(self) -> None:
        async with self._websocket() as client:
            await client.talk()

    async def resets_a_websocket(self) -> None:
        async with self._peer(upgrade() + b"\x81\x85\0\0\0\0hel") as (_, writer):
            await asyncio.sleep(PAUSE)
            _reset(writer)

    async def leaves_in_the_head(self) -> None:
        async with self._peer(b"GET / HTTP/1.1\r\nHo"):
            await asyncio.sleep(PAUSE)

    async def resets_in_the_body(self) -> None:
        data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nabc"
        async with self._peer(data) as (_, writer):
            await asyncio.sleep(PAUSE)
            _reset(writer)

    async def resets_in_the_response(self) -> None:
        async with self._peer(STREAM * 3) as (reader, writer):
            await reader.readexactly(1000)
            _reset(writer)

    async def half_closes(self) -> None:
        async with self._peer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") as (reader, writer):
            writer.write_eof()
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")

    async def reads_slowly(self) -> None:
        async with self._peer(STREAM, buffer=8192) as (reader, writer):
            for _ in range(20):
                await reader.read(4096)
                await asyncio.sleep(PAUSE)
            writer.transport.abort()


WAYS = [
    Client.asks, Client.uploads, Client.streams, Client.talks, Client.leaves_a_websocket, Client.resets_a_websocket,
    Client.leaves_in_the_head, Client.resets_in_the_body, Client.resets_in_the_response, Client.half_closes,
    Client.reads_slowly,
]  # fmt: skip


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Soaked:
    """A server, its clients, and what it holds."""

    def __init__(self, name: str, server: ServerProcess, workers: int) -> None:
        self.name = name
        self.server = server
        self.workers = workers
        self.clients = Client(server.port)
        wait_for(lambda: len(self._serving()) >= workers)
        self.count = len(self.processes())
        self._tasks: list[asyncio.Task[None]] = []

    def _serving(self) -> list[int]:
        """The processes of the workers that have served so far."""
        return [int(found) for found in re.findall(r"Worker \d+ \(process (\d+)\) serves", self.server.output())]

    def processes(self) -> list[int]:
        return [self.server.pid, *descendants(self.server.pid)]

    async def __aenter__(self) -> Self:
        self.clients.over = False
        self._tasks = [asyncio.create_task(self.clients.run(way)) for way in WAYS for _ in range(EACH)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.clients.over = True
        await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Raise what a client has met."""
        for task in self._tasks:
            if task.done():
                task.result()

    def disturb(self, step: int) -> None:
        """Reload twice in a half, and kill a worker between."""
        if self.workers and step in (2, 6):
            self.server.send_signal(signal.SIGHUP)
        elif self.workers and step == 4:
            os.kill(self._serving()[-1], signal.SIGKILL)

    def sample(self) -> Sample:
        """Of now; processes that end meanwhile count nothing."""
        memory = descriptors = 0
        processes = self.processes()
        for process in processes:
            try:
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text("ascii")
                descriptors += len(os.listdir(f"/proc/{process}/fd"))
            except OSError:
                continue
            memory += sum(int(kibibytes) * 1024 for kibibytes in re.findall(r"^Pss: +(\d+)", rollup, re.MULTILINE))
        return Sample(memory, descriptors, len(processes))

    async def quiet(self) -> Sample:
        """When all clients have left and as many processes as at first run, what changes no more."""
        end = time.monotonic() + 30
        before = self.sample()
        while True:
            await asyncio.sleep(0.5)
            process, tasks = json.loads(await ask(self.clients.port, "/census"))
            now = self.sample()
            if now[1:] == before[1:] and now.processes == self.count and process in self.processes():
                return now._replace(tasks=tasks)
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: still changes 30 s after all clients left")
            before = now


def _write(minutes: float, soaked: Soaked, sample: Sample, load: str) -> None:
    columns = [sample.memory / 2**20, sample.descriptors, "" if sample.tasks is None else sample.tasks]
    _row(f"{minutes:.1f}", soaked.name, load, *columns, soaked.clients.done.total())


def _row(*columns: object) -> None:
    shown = [f"{each:.1f}" if isinstance(each, float) else f"{each}" for each in columns]
    sys.stdout.write("".join(each.ljust(13) for each in shown).rstrip() + "\n")
    sys.stdout.flush()


async def _soak(servers: list[Soaked], seconds: float) -> list[str]:
    begin = time.monotonic()
    _row("minutes", "server", "load", "memory, MiB", "files", "tasks", "connections")
    after: list[list[Sample]] = []
    # The first part is to fill caches and pools alone.
    for share, disturbed in ((0.2, False), (0.4, True), (0.4, True)):
        async with AsyncExitStack() as stack:
            for soaked in servers:
                await stack.enter_async_context(soaked)
            for step in range(STEPS):
                await asyncio.sleep(seconds * share / STEPS)
                for soaked in servers:
                    soaked.check()
                    if disturbed:
                        soaked.disturb(step)
                    if step % 3 == 0:
                        _write((time.monotonic() - begin) / 60, soaked, soaked.sample(), "mixed")
        after.append([await soaked.quiet() for soaked in servers])
        for soaked, sample in zip(servers, after[-1], strict=True):
            _write((time.monotonic() - begin) / 60, soaked, sample, "none")
    _, half, end = after
    return [
        f"{soaked.name}: {text}"
        for soaked, first, second in zip(servers, half, end, strict=True)
        for text in grown(first, second)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when something has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--seconds", type=float, default=600, metavar="N", help="of load, 600")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = []
        for name, workers in (("one process", 0), ("two workers", 2)):
            place = Path(folder, str(workers))
            place.mkdir()
            more = ("--workers", str(workers)) if workers else ()
            options = ("--lifespan", "off", "--graceful-timeout", "2", "--access-log", os.devnull)
            server = stack.enter_context(serving(place, APPLICATION, *options, *more))
            servers.append(Soaked(name, server, workers))
        faults = asyncio.run(_soak(servers, args.seconds))
        for soaked in servers:
            sys.stdout.write(f"{soaked.name}: {dict(soaked.clients.done)}\n")
            faults += [f"{soaked.name}: {line}" for line in soaked.server.output().splitlines() if "Traceback" in line]
    sys.stdout.write("".join(f"grown: {fault}\n" for fault in faults) or "nothing has grown\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
