"""What a burst of connections leaves of a server's memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .live import GET
from .server import ServerProcess, read_until, serving, wait_for
from .websocket import handshake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WAVE = 1000
#: A wave's sockets, and a process's other files.
FILES = WAVE + 200

TEXT = b"\x81\x85\0\0\0\0hello"

ECHO = """
async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
"""


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    """Let this process and the server open a wave of sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"a process may open only {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path, ECHO, "--access-log", "/dev/null", "--lifespan", "off") as server:
        yield server


def wave(server: ServerProcess, count: int, *, websockets: bool) -> None:
    """Open connections, let each be answered and idle while all are open, and close them."""
    idle = server.descriptors()
    peers = []
    try:
        for _ in range(count):
            peers.append(server.connect())
        for peer in peers:
            peer.sendall(handshake() if websockets else GET)
        for peer in peers:
            read_until(peer, b"\r\n\r\n" if websockets else b"hello")
            if websockets:
                peer.sendall(TEXT)
        if websockets:
            for peer in peers:
                read_until(peer, b"hello")
        assert server.descriptors() >= idle + count
    finally:
        for peer in peers:
            peer.close()
    wait_for(lambda: server.descriptors() <= idle)


class TestAfterABurst:
    def test_of_10000_connections_the_process_is_as_small_as_before(self, server: ServerProcess) -> None:
        wave(server, 200, websockets=False)
        before = server.memory()
        for _ in range(10):
            wave(server, WAVE, websockets=False)
        # The first wave leaves some of the allocator's pages in use, by chance more or fewer of them.
        wait_for(lambda: server.memory() < before * 1.2, 2.0, f"{before} bytes have become {server.memory()}")

    def test_of_3000_websockets_the_process_is_as_small_as_before(self, server: ServerProcess) -> None:
        # An open one is three times as large, so a wave is smaller: pages that were in use stay with the allocator.
        wave(server, 200, websockets=True)
        before = server.memory()
        for _ in range(6):
            wave(server, WAVE // 2, websockets=True)
        wait_for(lambda: server.memory() < before * 1.15, 2.0, f"{before} bytes have become {server.memory()}")
