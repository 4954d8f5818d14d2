"""The memory of a real server process, when one side sends and the other does not read."""

from __future__ import annotations

import asyncio
import gc
import json
import select
import socket
import struct
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from twisted.internet.base import DelayedCall

from .applications import answering
from .live import connect, get, post, serve, until
from .server import DEADLINE, ServerProcess, reset, serving, wait_for
from .websocket import handshake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 1024 * 1024
SIZE = 200 * MIB
PIECE = 65536
#: How much the process may grow while 200 MiB are on their way.
BOUND = 8 * MIB
#: So long without progress, a sender is taken for stopped; seconds.
STALL = 0.4

APPLICATION = """
import asyncio, gc, json

GO = None
PIECE = bytes(65536)

async def application(scope, receive, send):
    global GO
    GO = GO or asyncio.Event()
    await {"http": http, "websocket": websocket}[scope["type"]](scope, receive, send)

async def read(receive):
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return size
        size += len(event["body"])
        if not event["more_body"]:
            return size

async def reply(send, body):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

async def http(scope, receive, send):
    path = scope["path"]
    if path == "/go":
        GO.set()
        await reply(send, b"")
    elif path == "/upload":
        await GO.wait()
        await reply(send, b"%d" % await read(receive))
    elif path == "/download":
        headers = [(b"content-length", b"%d" % (200 << 20))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(3200):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/census":
        gc.collect()
        await reply(send, json.dumps(len(asyncio.all_tasks())).encode())
    else:
        await reply(send, b"%d" % await read(receive))

async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/upload":
        await GO.wait()
        size = 0
        for _ in range(3200):
            size += len((await receive())["bytes"])
        await send({"type": "websocket.send", "text": str(size)})
    else:
        for _ in range(3200):
            await send({"type": "websocket.send", "bytes": PIECE})
    await receive()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path, APPLICATION, "--lifespan", "off", "--graceful-timeout", "0.2") as server:
        # What the first exchange of each kind loads and allocates is not what is measured.
        assert httpx.post(f"{server.url}/warm", content=bytes(4 * MIB)).text == str(4 * MIB)
        peer = websocket(server, "/warm")
        assert len(read(peer, MIB)) == MIB
        peer.close()
        yield server


def websocket(server: ServerProcess, path: str) -> socket.socket:
    # The buffer is small, so that it is the server that has to hold back.
    peer = server.connect(PIECE)
    peer.sendall(handshake(target=path))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return peer


def send_while_taken(peer: socket.socket, unit: bytes, size: int) -> int:
    """Send ``unit`` again and again until ``size`` bytes are sent or the server takes no more; what was sent."""
    peer.setblocking(False)
    sent = 0
    while sent < size:
        _, writable, _ = select.select([], [peer], [], STALL)
        if not writable:
            break
        at = sent % len(unit)
        sent += peer.send(memoryview(unit)[at : at + min(len(unit) - at, size - sent)])
    peer.settimeout(DEADLINE)
    return sent


def read(peer: socket.socket, size: int) -> bytearray:
    """The next ``size`` bytes; all but the last MiB of them are forgotten at once."""
    kept = bytearray()
    received = 0
    while received < size:
        data = peer.recv(min(MIB, size - received))
        assert data, "the server has closed too early"
        received += len(data)
        kept += data
        del kept[:-MIB]
    return kept


def wait_until_sleeping(server: ServerProcess) -> None:
    """Return when the process has stopped working, which is when it has sent all that it can."""

    def used() -> int:
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def idle() -> bool:
        before = used()
        time.sleep(STALL)
        return used() - before <= 1

    wait_for(idle)


class TestAnApplicationThatDoesNotRead:
    def test_holds_an_upload_back(self, server: ServerProcess) -> None:
        before = server.memory()
        with server.connect(PIECE) as peer:
            peer.sendall(post(SIZE, target="/upload"))
            sent = send_while_taken(peer, bytes(MIB), SIZE)
            assert sent < SIZE // 4
            assert server.memory("VmHWM") - before < BOUND
            httpx.get(f"{server.url}/go")
            sent += send_while_taken(peer, bytes(MIB), SIZE - sent)
            assert sent == SIZE
            assert b"\r\n\r\n%d" % SIZE in peer.recv(PIECE)
        assert server.memory("VmHWM") - before < BOUND

    def test_holds_the_messages_of_a_websocket_back(self, server: ServerProcess) -> None:
        before = server.memory()
        # A masking key of zeros leaves the payload as it is.
        frame = b"\x82" + struct.pack("!BQ4x", 0xFF, PIECE) + bytes(PIECE)
        with websocket(server, "/upload") as peer:
            total = len(frame) * (SIZE // PIECE)
            sent = send_while_taken(peer, frame, total)
            assert sent < total // 4
            assert server.memory("VmHWM") - before < BOUND
            httpx.get(f"{server.url}/go")
            rest = frame[sent % len(frame) :]
            peer.sendall(rest)
            sent += len(rest)
            assert send_while_taken(peer, frame, total - sent) == total - sent
            assert read(peer, 2 + len(str(SIZE))).endswith(str(SIZE).encode())
        assert server.memory("VmHWM") - before < BOUND


class TestAClientThatDoesNotRead:
    def test_holds_a_response_back_and_gets_it_whole(self, server: ServerProcess) -> None:
        before = server.memory()
        with server.connect(PIECE) as peer:
            peer.sendall(get("/download"))
            wait_until_sleeping(server)
            assert server.memory("VmHWM") - before < BOUND
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += peer.recv(1)
            read(peer, SIZE)
            # The connection is as it should be after that.
            peer.sendall(get("/warm"))
            assert peer.recv(PIECE).startswith(b"HTTP/1.1 200 ")
        assert server.memory("VmHWM") - before < BOUND

    def test_holds_the_messages_of_a_websocket_back_and_gets_them_all(self, server: ServerProcess) -> None:
        before = server.memory()
        with websocket(server, "/download") as peer:
            wait_until_sleeping(server)
            assert server.memory("VmHWM") - before < BOUND
            read(peer, (10 + PIECE) * (SIZE // PIECE))
        assert server.memory("VmHWM") - before < BOUND

    def test_of_many_pipelined_responses_holds_them_back(self, server: ServerProcess) -> None:
        before = server.memory()
        with server.connect(PIECE) as peer:
            sent = send_while_taken(peer, get("/download") * 1000, 100 * MIB)
            assert sent < 50 * MIB
            wait_until_sleeping(server)
            assert server.memory("VmHWM") - before < BOUND


class TestAbortedConnections:
    #: What a peer sends before it goes: nothing, a part of a head, a part of a body, requests with large answers.
    BEGINNINGS = (
        b"",
        b"GET / HTTP/1.1\r\nHo",
        post(1_000_000, bytes(1000), "/warm"),
        b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + bytes(1000),
        get("/download") * 3,
        handshake(target="/download"),
    )

    def abort_many(self, server: ServerProcess, count: int) -> None:
        for number in range(count):
            peer = server.connect(PIECE)
            peer.sendall(self.BEGINNINGS[number % len(self.BEGINNINGS)])
            reset(peer) if number % 2 else peer.close()

    def test_leave_no_task_file_or_memory_behind(self, server: ServerProcess) -> None:
        # with fewer of them
        with httpx.Client(base_url=server.url) as client:
            client.get("/go")

            def census() -> tuple[int, int]:
                """Running tasks and open files, this client's own among them."""
                return json.loads(client.get("/census").text), server.descriptors()

            before = census()
            self.abort_many(server, 400)
            wait_for(lambda: census() == before)
            warm = server.memory()
            for _ in range(4):
                self.abort_many(server, 400)
                wait_for(lambda: census() == before)
            assert server.memory() - warm < 2 * MIB
        assert "Traceback" not in server.output()


def on_uvloop(test: Any) -> Any:
    return pytest.importorskip("uvloop").run(test)


@pytest.mark.alone
@pytest.mark.parametrize("run", [asyncio.run, on_uvloop])
def test_connections_that_came_and_went_leave_no_delayed_calls(run: Any) -> None:
    """Twisted's asyncio reactor keeps those that are cancelled until the next one is due, in 20 seconds here."""

    async def test() -> None:
        async with serve(answering()) as server:
            for _ in range(300):
                async with connect(server) as peer:
                    await peer.request("GET", "/")
            await until(lambda: not server.connections)
            kept = [each for each in gc.get_objects() if issubclass(type(each), asyncio.TimerHandle | DelayedCall)]
            # asyncio lets a hundred cancelled calls lie.
            assert len(kept) <= 110

    run(test())


def ours() -> int:
    """Bytes that asgiserver and Twisted have asked for, of this process's, the clients among it."""
    snapshot = tracemalloc.take_snapshot()
    kept = [tracemalloc.Filter(True, f"*/{package}/*") for package in ("asgiserver", "twisted")]
    return sum(trace.size for trace in snapshot.filter_traces(kept).traces)


#: asyncio's own part, which is 400 bytes, cannot be told from the client's.
@pytest.mark.alone
@pytest.mark.parametrize(("run", "most"), [(asyncio.run, 1_400), (on_uvloop, 2_000)])
def test_an_idle_connection_takes_no_more_than_it_has_to(run: Any, most: int) -> None:
    async def test() -> None:
        async with serve(answering()) as server, AsyncExitStack() as stack:

            async def open_more(count: int) -> int:
                for _ in range(count):
                    peer = await stack.enter_async_context(connect(server))
                    await peer.request("GET", "/")
                gc.collect()
                return ours()

            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            before = await open_more(20)
            each = (await open_more(100) - before) / 100
            assert len(server.connections) == 120
            assert each < most

    run(test())
