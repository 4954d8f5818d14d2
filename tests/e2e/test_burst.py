"""What a burst of connections leaves of a server's memory."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .server import DEADLINE, ServerProcess, wait_for
from .websocket import handshake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WAVE = 1000
#: A wave's sockets, and a process's other files.
FILES = WAVE + 200

GET = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
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
    (tmp_path / "echo.py").write_text(ECHO, "utf-8")
    args = ("--app-dir", str(tmp_path), "-p", "0", "--access-log", "/dev/null", "--lifespan", "off", "echo")
    with ServerProcess(*args) as server:
        yield server


def memory(server: ServerProcess) -> int:
    """Resident size in bytes."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def open_files(server: ServerProcess) -> int:
    return sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir())


def read_until(peer: socket.socket, end: bytes) -> None:
    data = b""
    while not data.endswith(end):
        piece = peer.recv(65536)
        assert piece, data
        data += piece


def wave(server: ServerProcess, count: int, *, websockets: bool) -> None:
    """Open connections, let each be answered and idle while all are open, and close them."""
    idle = open_files(server)
    peers = []
    try:
        for _ in range(count):
            peers.append(socket.create_connection(("127.0.0.1", server.port), DEADLINE))
        for peer in peers:
            peer.sendall(handshake() if websockets else GET)
        for peer in peers:
            read_until(peer, b"\r\n\r\n" if websockets else b"hello")
            if websockets:
                peer.sendall(TEXT)
        if websockets:
            for peer in peers:
                read_until(peer, b"hello")
        assert open_files(server) >= idle + count
    finally:
        for peer in peers:
            peer.close()
    wait_for(lambda: open_files(server) <= idle)


class TestAfterABurst:
    def test_of_10000_connections_the_process_is_as_small_as_before(self, server: ServerProcess) -> None:
        wave(server, 200, websockets=False)
        before = memory(server)
        for _ in range(10):
            wave(server, WAVE, websockets=False)
        wait_for(lambda: memory(server) < before * 1.15, 2.0, f"{before} bytes have become {memory(server)}")

    def test_of_3000_websockets_the_process_is_as_small_as_before(self, server: ServerProcess) -> None:
        # An open one is three times as large, so a wave is smaller: pages that were in use stay with the allocator.
        wave(server, 200, websockets=True)
        before = memory(server)
        for _ in range(6):
            wave(server, WAVE // 2, websockets=True)
        wait_for(lambda: memory(server) < before * 1.15, 2.0, f"{before} bytes have become {memory(server)}")
