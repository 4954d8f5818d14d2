"""What other clients see while some send a lot of little, and of what is neither a request nor a chunk."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import websockets

from .flood import application
from .live import CHUNKED, GET, answer, connect, receive_body, serve, until, url
from .server import ROOT, ServerProcess, environment

APPLICATION = "tests.e2e.flood:application"


@contextmanager
def flood(url: str, kind: str, peers: int = 8) -> Iterator[None]:
    """So many peers of a kind of :mod:`.flood`, in a process of their own."""
    command = [sys.executable, "-m", "tests.e2e.flood", url, kind, str(peers)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def seconds_of_a_get(port: int) -> float:
    begun = time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("GET", "/")
        assert client.getresponse().read() == b"ok"
    finally:
        client.close()
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("kind", "loop"),
    [
        ("fragments", "asyncio"),
        ("fragments", "uvloop"),
        ("texts", "asyncio"),
        ("chunks", "asyncio"),
        ("chunks", "uvloop"),
    ],
)
def test_others_are_served_and_the_server_stops(kind: str, loop: str) -> None:
    pytest.importorskip("uvloop")
    options = "-p", "0", "--loop", loop, "--graceful-timeout", "1"
    with ServerProcess(APPLICATION, *options) as server, flood(server.url, kind):
        waits = [seconds_of_a_get(server.port) for _ in range(7)]
        begun = time.monotonic()
        # 1 s for requests, and what a close handshake and a busy machine take.
        server.stop()
        stopped = time.monotonic() - begun
    assert statistics.median(waits) < 0.25, waits
    assert stopped < 8
    assert server.returncode == 0


async def test_empty_lines_without_end() -> None:
    """Before the first request, and between two."""
    async with serve(application) as server:
        for before in (b"", GET):
            async with connect(server) as peer:
                await peer.send(before + b"\r\n" * 8 + GET)
                for _ in range(2 if before else 1):
                    assert (await peer.response()).status == 200
                await peer.send(b"\r\n" * 9)
                refused = await peer.response()
                assert (refused.status, refused.value("connection")) == (400, "close")
                assert await peer.read_rest() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        # C16: a tab beside the coding
        *((CHUNKED.replace(b" chunked", value) + b"0\r\n\r\n" + GET, 400) for value in (b"chunked\t", b"\tchunked")),
        # C19: extensions of a chunk
        *((CHUNKED + b"5" + extension + b"\r\nhello\r\n0\r\n\r\n", status) for extension, status in (
            (b";a=b;c", 200), (b';a="b;"', 200), (b";", 400), (b";bad[=x", 400))),
    ],
)  # fmt: skip
async def test_chunks_are_read_as_the_rfc_has_it(data: bytes, status: int) -> None:
    async with serve(application) as server, connect(server) as peer:
        await peer.send(data)
        assert (await peer.response()).status == status
        assert status == 200 or await peer.read_rest() == b""


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_buffer_of_one_byte(size: int) -> None:
    """Daphne takes it. Every byte of a body and every message arrives, in order."""
    got: list[Any] = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            got.append(await receive_body(receive))
            await answer(send, b"ok")
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            got.append(event["text"])
        assert event["code"] == 1000

    data = bytes(range(256)) * 2000
    async with serve(reading, request_buffer_size=size) as server, connect(server) as peer:
        assert (await peer.request("POST", "/", body=data)).body == b"ok"
        await peer.send(CHUNKED + b"".join(b"1\r\n%c\r\n" % octet for octet in data[:3000]) + b"0\r\n\r\n")
        assert (await peer.response()).body == b"ok"
        async with websockets.connect(url(server, "ws")) as client:
            for number in range(300):
                await client.send(str(number))
        await until(lambda: len(got) == 302)
    assert got[:2] == [data, data[:3000]]
    assert got[2:] == [str(number) for number in range(300)]
