"""A supervised server with its workers, and clients that notice everything that is lost."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from .server import DEADLINE, ServerProcess, wait_for

__all__ = [
    "Load", "Supervised", "WebSocketClient", "ask", "can_bind", "children", "descendants", "get", "gone", "upgrade",
]  # fmt: skip

APPLICATION = """
import asyncio, os, time

VERSION = "one"

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"{VERSION} {os.getpid()}"})
        while (event := await receive())["type"] == "websocket.receive":
            if event.get("text") == "block":
                the_place_where_it_blocks()
            await send({**event, "type": "websocket.send"})
        return
    path, _, argument = scope["path"][1:].partition("/")
    if path == "sleep":
        await asyncio.sleep(float(argument))
    elif path == "block":
        the_place_where_it_blocks()
    elif path == "exit":
        os._exit(7)
    body = f"{VERSION} {os.getpid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

async def lifespan(scope, receive, send):
    await receive()
    await started()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

async def started():
    pass

def the_place_where_it_blocks():
    print("it blocks from now on", flush=True)
    time.sleep(600)
"""

_SERVES = re.compile(r"Worker (\d+) \(process (\d+)\) serves")


class Supervised(ServerProcess):
    """``asgiserver --workers N app``, with an application in a folder that the test may change.

    :param folder: the application is written there, unless it is there already.
    :param workers: how many; 0 for ``--reload`` instead.
    """

    def __init__(self, folder: Path, workers: int, *args: str, port: bool = True, **more: Any) -> None:
        self.folder = folder
        self.size = workers or 1
        self._written = 0
        if not (folder / "app.py").exists():
            self.write()
        where = ("-p", "0") if port else ()
        kind = ("--workers", str(workers)) if workers else ("--reload", "--reload-dir", str(folder))
        own = (*kind, *where, "--app-dir", str(folder), "--access-log", os.devnull)
        super().__init__(*own, *args, "app", **more)

    def __enter__(self) -> Self:
        super().__enter__()
        self.first = self.workers()
        return self

    def write(self, text: str = "", **replaced: str) -> None:
        """Write the application anew, with more code behind it, and with names of constants replaced by values."""
        source = APPLICATION
        for name, value in replaced.items():
            source, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", source, flags=re.MULTILINE)
            assert count == 1
        # Python takes compiled code for that of a file of the same size and the same second.
        self._written += 1
        new = self.folder / "new"
        new.write_text(f"{source}{text}\n{'#' * self._written}\n", "utf-8")
        # Who polls compares times in whole seconds.
        os.utime(new, times=(later := time.time() + self._written, later))
        # In one step, as editors do: nobody reads the half of it.
        new.replace(self.folder / "app.py")

    def workers(self) -> list[int]:
        """The processes of the workers that serve or have served."""
        return [int(process) for _, process in _SERVES.findall(self.output())]

    def nursery(self) -> int:
        """The process that forks the workers; only one runs unless a reload is under way."""
        (process,) = children(self.pid)
        return process

    def processes(self) -> list[int]:
        """All that run."""
        return descendants(self.pid)

    def reload(self, generation: int) -> None:
        """HUP, until the generation with this number serves, and the one before takes no clients any more."""
        drained = self.output().count("Draining")
        self.send_signal(signal.SIGHUP)
        self.wait_for_line(f"Generation {generation} serves")
        self.wait_for_line("Draining", drained + self.size)

    def kill(self) -> None:
        """End all processes without a word, where a test has blocked some of them."""
        for process in (*self.processes(), self.pid):
            os.kill(process, signal.SIGKILL)

    def end_at_once(self) -> None:
        """By a second signal, which is another one only after a second."""
        self.send_signal(signal.SIGTERM)
        self.wait_for_line("Stopping")
        time.sleep(1.1)
        self.send_signal(signal.SIGTERM)
        assert self.wait() == 128 + signal.SIGTERM

    def wait_for_line(self, text: str, count: int = 1) -> None:
        wait_for(lambda: self.output().count(text) >= count, message=f"no line with {text!r}")

    def lines(self, level: str) -> list[str]:
        return [line for line in self.output().splitlines() if f" {level} " in line]


def children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text("ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def descendants(process: int) -> list[int]:
    return [found for child in children(process) for found in (child, *descendants(child))]


def gone(processes: Sequence[int]) -> bool:
    """Whether none of them runs; one that has ended, and whose parent has not asked for its status, does not."""

    def runs(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    return not any(map(runs, processes))


async def ask(port: int, path: str = "/") -> str:
    """The body of the answer to one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await get(reader, writer, path)
    finally:
        writer.close()


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/") -> str:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200 "), head
        found = re.search(r"content-length: (\d+)", head)
        assert found
        body = (await reader.readexactly(int(found[1]))).decode()
    if "connection: close" in head:
        writer.close()
    return body


class WebSocketClient:
    """A client that sees each frame, over any pair of streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.greeting = ""

    @classmethod
    async def connect(cls, port: int) -> Self:
        return await cls.over(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def over(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Self:
        made = cls(reader, writer)
        try:
            writer.write(upgrade())
            async with asyncio.timeout(DEADLINE):
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            made.greeting = (await made.frame())[1].decode()
        except BaseException:
            writer.close()
            raise
        return made

    @property
    def process(self) -> int:
        return int(self.greeting.split()[1])

    async def frame(self, seconds: float = DEADLINE) -> tuple[int, bytes]:
        async with asyncio.timeout(seconds):
            first, size = await self.reader.readexactly(2)
            return first, await self.reader.readexactly(size)

    def write(self, text: bytes) -> None:
        """Send a short message."""
        self.writer.write(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)

    async def talk(self, text: bytes = b"hi") -> bool:
        """Send a message and get it back; False when the server has closed with 1012 instead."""
        self.write(text)
        first, payload = await self.frame()
        if first == 0x88:
            assert struct.unpack("!H", payload[:2]) == (1012,), payload
            # The handshake of the end, or the server waits for it.
            self.writer.write(b"\x88\x82\0\0\0\0" + payload[:2])
            self.writer.close()
            return False
        assert (first, payload) == (0x81, text)
        return True

    async def closed(self, seconds: float = DEADLINE) -> int:
        """Wait for the close frame, answer it, and give its code."""
        first, payload = await self.frame(seconds)
        assert first == 0x88, (first, payload)
        self.writer.write(b"\x88\x82\0\0\0\0" + payload[:2])
        self.writer.close()
        code: int = struct.unpack("!H", payload[:2])[0]
        return code


def upgrade() -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


class Load:
    """Clients that go on until the block is left; any answer that is missing raises there.

    :param websockets: how many of them talk, and come back when they are closed.
    :param spare: raise nothing for what these exceptions have cut off.
    """

    def __init__(
        self, port: int, *, kept: int = 4, fresh: int = 2, slow: int = 2, websockets: int = 10,
        spare: tuple[type[BaseException], ...] = (),
    ) -> None:  # fmt: skip
        self.port = port
        self.spare = spare
        self.done: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._over = False
        self._loops = {self._keep: kept, self._fresh: fresh, self._slow: slow, self._talk: websockets}

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._go(each)) for each, count in self._loops.items() for _ in range(count)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over = True
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        failed = [each for each in done if each is not None]
        if kind is None and failed:
            assert isinstance(failed[0], BaseException)
            raise AssertionError(f"{len(failed)} clients lost something, after {self.done}") from failed[0]

    async def _go(self, loop: Callable[[], Any]) -> None:
        while not self._over:
            try:
                await loop()
            except self.spare:
                self.lost[loop.__name__] += 1

    async def _keep(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while not self._over and not writer.is_closing():
                self.answers[(await get(reader, writer)).split()[0]] += 1
                self.done["kept"] += 1
                await asyncio.sleep(0.01)
        finally:
            writer.close()

    async def _fresh(self) -> None:
        await ask(self.port)
        self.done["fresh"] += 1
        await asyncio.sleep(0.01)

    async def _slow(self) -> None:
        await ask(self.port, "/sleep/0.5")
        self.done["slow"] += 1

    async def _talk(self) -> None:
        client = await WebSocketClient.connect(self.port)
        try:
            while not self._over:
                if not await client.talk():
                    self.done["closed"] += 1
                    return
                self.done["messages"] += 1
                await asyncio.sleep(0.1)
        finally:
            client.writer.close()


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True
