"""A client that ends its own direction once it has asked, and still reads: nc -N, socat, and some health checks."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from .certificate import Certificate
from .live import DEADLINE, serve
from .proxies import HAPROXY_ENDPOINT, V1

#: More than two kernels keep for a connection.
SIZE = 16_000_000


class Application:
    """Hands its response over in one message, in the way that the request's path says, and listens meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = path.read_bytes()
        self.told = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        listening = asyncio.ensure_future(self.listen(receive))
        headers = [(b"content-length", b"%d" % SIZE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/bytes":
            await send({"type": "http.response.body", "body": self.content})
        elif scope["path"] == "/path":
            await send({"type": "http.response.pathsend", "path": str(self.path)})
        else:
            with self.path.open("rb") as file:
                await send({"type": "http.response.zerocopysend", "file": file})
        await listening

    async def listen(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.told.set()


@pytest.fixture
def application(tmp_path: Path) -> Application:
    made = tmp_path / "content"
    made.write_bytes(os.urandom(SIZE))
    return Application(made)


def ask(sock: socket.socket, way: str, told: threading.Event, before: bytes = b"") -> bytes:
    """Ask, end our direction, read once the server knows it; the body of what comes until the end."""
    bare = socket.socket(fileno=os.dup(sock.fileno()))
    with bare:
        sock.sendall(before + b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % way.encode())
        read = sock.recv(1000)
        bare.shutdown(socket.SHUT_WR)
    assert told.wait(DEADLINE)
    while piece := sock.recv(1 << 20):
        read += piece
    return read.partition(b"\r\n\r\n")[2]


def opened(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family)
    sock.settimeout(DEADLINE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(address)
    return sock


@pytest.mark.parametrize("way", ["bytes", "path", "file"])
@pytest.mark.parametrize("where", ["tcp", "behind a proxy that tells its client", "unix", "tls"])
async def test_all_of_the_response_arrives(
    application: Application, certificate: Certificate, tmp_path: Path, where: str, way: str
) -> None:
    path = str(tmp_path / "s")
    settings: dict[str, Any] = {
        "behind a proxy that tells its client": HAPROXY_ENDPOINT,
        "unix": {"port": None, "unix_socket": path},
        "tls": certificate.settings,
    }.get(where, {})
    before = V1 if where.startswith("behind") else b""

    def body(family: int, address: Any) -> bytes:
        with opened(family, address) as sock:
            if where != "tls":
                return ask(sock, way, application.told, before)
            with certificate.client().wrap_socket(sock, server_hostname="127.0.0.1") as encrypted:
                return ask(encrypted, way, application.told)

    async with serve(application, **settings) as server:
        to = (socket.AF_UNIX, path) if where == "unix" else (socket.AF_INET, server.listening_addresses[0])
        found = await asyncio.to_thread(body, *to)
    assert len(found) == SIZE
    assert found == application.content
