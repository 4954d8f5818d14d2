"""Files sent by path and by descriptor, to clients of every kind of pace, plain and over TLS."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route

from .certificate import Certificate
from .live import GET, connect, get, serve, until, url

SIZE = 20_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files") / "large.bin"
    made.write_bytes(os.urandom(SIZE))
    return made


class Application:
    """Sends the file in the way that the request's path says, and keeps what became of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended: list[BaseException | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert {"http.response.pathsend", "http.response.zerocopysend"} <= scope["extensions"].keys()
        try:
            await self.answer(scope, send)
        except BaseException as error:
            self.ended.append(error)
            raise
        self.ended.append(None)

    async def answer(self, scope: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % SIZE)] if scope["path"] == "/length" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/parts":
            with self.path.open("rb") as file:
                await send({"type": "http.response.body", "body": b"<", "more_body": True})
                for count in (1000, 7_000_000):
                    await send({"type": "http.response.zerocopysend", "file": file, "count": count, "more_body": True})
                await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})
            await send({"type": "http.response.body", "body": b">"})
        else:
            await send({"type": "http.response.pathsend", "path": str(self.path)})


def whole(path: Path) -> bytes:
    return path.read_bytes()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("path", ["/path", "/length", "/parts"])
async def test_the_whole_file_arrives(large: Path, certificate: Certificate, secure: bool, path: str) -> None:
    settings, verify = (certificate.settings, certificate.client()) if secure else ({}, True)
    application = Application(large)
    async with (
        serve(application, **settings) as server,
        httpx.AsyncClient(verify=verify, base_url=url(server, "https" if secure else "http")) as client,
    ):
        for _ in range(2):
            response = await client.get(path)
            body = response.content[1:-1] if path == "/parts" else response.content
            assert hashlib.sha256(body).digest() == hashlib.sha256(whole(large)).digest()
            assert response.headers.get("content-length") == (None if path == "/parts" else str(SIZE))
        assert application.ended == [None, None]


async def test_others_are_served_and_memory_stays_while_one_reads_slowly(large: Path) -> None:
    async with (
        serve(Application(large)) as server,
        httpx.AsyncClient(base_url=url(server)) as client,
        connect(server) as slow,
    ):
        await slow.send(get("/path"))
        head = await slow.read_until(b"\r\n\r\n")
        for _ in range(5):
            response = await client.get("/path")
            assert len(response.content) == SIZE
        (connection,) = [each for each in server.connections if each.output.slow]
        assert len(connection.transport.dataBuffer) == 0
        assert b"content-length: %d\r\n" % SIZE in head
        assert await slow.read(SIZE) == whole(large)


async def test_pipelined_files_come_in_order(large: Path) -> None:
    async with serve(Application(large)) as server, connect(server) as peer:
        await peer.send(get("/path") + get("/parts"))
        assert (await peer.response()).body == whole(large)
        assert (await peer.response()).body == b"<" + whole(large) + b">"


@pytest.mark.parametrize("path", ["/path", "/parts"])
async def test_a_client_that_leaves_takes_the_file_with_it(large: Path, path: str) -> None:
    application = Application(large)
    async with serve(application) as server:
        await until(lambda: not server.connections)
        before = descriptors()
        for _ in range(20):
            async with connect(server) as peer:
                await peer.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                await peer.read_until(b"\r\n\r\n")
                peer.abort()
        await until(lambda: len(application.ended) == 20 and not server.connections)
        await until(lambda: descriptors() == before)


async def test_a_send_that_is_given_up_ends_in_a_cut(large: Path) -> None:
    """No end may be seen where the application has given up."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            async with asyncio.timeout(0.05):
                await send({"type": "http.response.pathsend", "path": str(large)})
        except TimeoutError:
            return

    async with serve(application, write_timeout=0.5) as server, connect(server) as peer:
        await peer.send(GET)
        await until(lambda: not server.connections)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await peer.response()


async def test_starlettes_files_go_by_path(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask for the extension; without it Starlette would open the file itself."""
    sent: list[str] = []
    sendfile = os.sendfile

    def seen(*args: Any) -> int:
        sent.append("sendfile")
        return sendfile(*args)

    monkeypatch.setattr(os, "sendfile", seen)
    application = Starlette(routes=[Route("/", lambda request: FileResponse(large, filename="a.bin"))])
    async with serve(application) as server, httpx.AsyncClient(base_url=url(server)) as client:
        response = await client.get("/")
        assert response.content == whole(large)
        assert response.headers["content-disposition"] == 'attachment; filename="a.bin"'
        assert (await client.head("/")).headers["content-length"] == str(SIZE)
        assert (await client.get("/", headers={"Range": "bytes=10-19"})).content == whole(large)[10:20]
        assert sent
