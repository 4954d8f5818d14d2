"""A client that ends its own direction once it has asked, and still reads: nc -N, socat, and some health checks."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from .live import DEADLINE, serve

#: More than two kernels keep for a connection.
SIZE = 16_000_000

WAYS = ["bytes", "path", "file"]


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


@pytest.mark.parametrize("way", WAYS)
async def test_tcp(application: Application, way: str) -> None:
    async with serve(application) as server:
        with opened(socket.AF_INET, server.listening_addresses[0]) as sock:
            body = await asyncio.to_thread(ask, sock, way, application.told)
        assert len(body) == SIZE
        assert body == application.content


@pytest.mark.parametrize("way", WAYS)
async def test_behind_a_proxy_that_tells_its_client(application: Application, way: str) -> None:
    async with serve(application, port=None, endpoints=["haproxy:tcp:0:interface=127.0.0.1"]) as server:
        with opened(socket.AF_INET, server.listening_addresses[0]) as sock:
            before = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
            body = await asyncio.to_thread(ask, sock, way, application.told, before)
        assert len(body) == SIZE
        assert body == application.content


@pytest.mark.parametrize("way", WAYS)
async def test_unix(application: Application, tmp_path: Path, way: str) -> None:
    path = str(tmp_path / "s")
    async with serve(application, port=None, unix_socket=path):
        with opened(socket.AF_UNIX, path) as sock:
            body = await asyncio.to_thread(ask, sock, way, application.told)
        assert len(body) == SIZE
        assert body == application.content


@pytest.mark.parametrize("way", WAYS)
async def test_tls(application: Application, tmp_path: Path, way: str) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def secured(address: Any) -> bytes:
        with (
            opened(socket.AF_INET, address) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1") as encrypted,
        ):
            return ask(encrypted, way, application.told)

    async with serve(application, ssl_certfile=str(tmp_path / "pem")) as server:
        body = await asyncio.to_thread(secured, server.listening_addresses[0])
        assert len(body) == SIZE
        assert body == application.content
