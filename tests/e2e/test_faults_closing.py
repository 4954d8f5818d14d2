"""What clients see of the end of a connection, and what slow ones and too many of them meet."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from asgiserver import hub
from asgiserver.wire import connection, http1, progress
from tests.e2e.applications import answering, hello
from tests.e2e.certificate import Certificate
from tests.e2e.live import DEADLINE, GET, Receive, Send, connect, get, post, receive_body, serve, until
from tests.e2e.server import COMMANDS, ServerProcess, command_on, serving, wait_for
from tests.e2e.websocket import handshake
from tests.programs import require

APPLICATION = """
import asyncio
async def application(scope, receive, send):
    kind = scope["path"].strip("/")
    fields = [(b"content-length", b"600000")] if kind == "length" else []
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": fields})
        kind_of_body = "websocket.http.response.body"
    else:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        kind_of_body = "http.response.body"
    for _ in range(50):
        await send({"type": kind_of_body, "body": b"*" * 10000, "more_body": True})
    while kind == "flood":
        await send({"type": kind_of_body, "body": b"*" * 60000, "more_body": True})
    if kind == "endless":
        print("all is sent", flush=True)
        await asyncio.Event().wait()
    if kind == "returns":
        return
    raise ValueError("after 500,000 bytes")
"""

SENT = 500_000
ENDPOINT = "tcp:0:interface=127.0.0.1"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Has a short name, for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="asgi") as name:
        yield Path(name)


def cutting_server(folder: Path, *args: str, **options: Any) -> ServerProcess:
    return serving(folder, APPLICATION, "--lifespan", "off", *args, **options)


@pytest.fixture(scope="module", params=COMMANDS)
def cutting(request: pytest.FixtureRequest, folder: Path, certificate: Certificate) -> Iterator[ServerProcess]:
    """A server over TLS, on a unix socket, and over TCP, on each loop."""
    where = ("-b", "127.0.0.1", "-p", "0", *certificate.args, "-u", str(folder / "s"), "-e", ENDPOINT)
    with cutting_server(folder, *where, command=command_on(request.param), listeners=3) as server:
        yield server


class TestCutOff:
    """All that send() took arrives, and the client sees that there should be more."""

    #: curl's words for a body that ended early, and for a reset.
    PARTIAL, RESET = 18, 56

    def curl(self, cutting: ServerProcess, where: str, path: str, *args: str) -> tuple[int, bytes]:
        if where == "unix":
            args = (*args, "--unix-socket", cutting.urls[1].removeprefix("unix:"), f"http://x/{path}")
        else:
            url = next(url for url in cutting.urls if url.startswith(f"{where}:"))
            args = (*args, "-k", f"{url.rstrip('/')}/{path}")
        command = [require("curl"), "-s", "--http1.1", "--max-time", str(DEADLINE), *args]
        done = subprocess.run(command, capture_output=True, timeout=2 * DEADLINE, check=False)
        return done.returncode, done.stdout

    @pytest.mark.parametrize("path", ["raises", "returns", "length"])
    @pytest.mark.parametrize("where", ["http", "https", "unix"])
    def test_what_was_sent_arrives(self, cutting: ServerProcess, where: str, path: str) -> None:
        status, body = self.curl(cutting, where, path)
        assert (status, len(body)) == (self.PARTIAL, SENT)

    @pytest.mark.parametrize("where", ["http", "https"])
    def test_a_body_that_would_look_whole_is_reset(self, cutting: ServerProcess, where: str) -> None:
        """A unix socket knows no reset."""
        assert self.curl(cutting, where, "raises", "--http1.0", "--no-alpn")[0] == self.RESET

    def test_a_denial_arrives_too(self, cutting: ServerProcess) -> None:
        fields = handshake().decode().split("\r\n")[2:-2]
        args = [part for field in fields for part in ("-H", field)]
        status, body = self.curl(cutting, "http", "raises", *args)
        assert (status, len(body)) == (self.PARTIAL, SENT)

    def test_at_the_end_of_the_graceful_timeout(self, folder: Path) -> None:
        with cutting_server(folder, "--graceful-timeout", "0.3") as server:
            with server.connect() as peer:
                peer.sendall(get("/endless"))
                received = bytearray()
                while received.count(b"*") < SENT - 20_000:
                    received += peer.recv(10_000)
                wait_for(lambda: "all is sent" in server.output())
                server.send_signal(signal.SIGTERM)
                while data := peer.recv(10_000):
                    received += data
            assert received.count(b"*") == SENT
            assert not received.endswith(b"0\r\n\r\n")
            assert server.wait() == 0

    @pytest.mark.parametrize("version", ["1.1", "1.0"])
    def test_a_client_that_reads_only_after_the_end_gets_what_the_kernel_has(self, folder: Path, version: str) -> None:
        """But not of a body that would look whole."""
        with cutting_server(folder, "--graceful-timeout", "0.3") as server, server.connect(16_384) as peer:
            peer.sendall(b"GET /flood HTTP/%s\r\nHost: a\r\n\r\n" % version.encode())
            assert peer.recv(100)
            assert server.stop() == 0
            received = 0
            try:
                while data := peer.recv(100_000):
                    received += len(data)
            except ConnectionResetError:
                assert version == "1.0"
            else:
                assert version == "1.1"
                assert received > 100_000


refusing = answering(b"too much", 413)


class TestLingering:
    def upload(self, address: tuple[str, int], context: ssl.SSLContext | None, seconds: float) -> tuple[int, bytes]:
        """Send a body for so long, as http.client does: without a look at what comes back."""
        client = http.client.HTTPConnection(*address, timeout=DEADLINE)
        if context is not None:
            client = http.client.HTTPSConnection(*address, timeout=DEADLINE, context=context)
        end = time.monotonic() + seconds

        def body() -> Iterator[bytes]:
            while time.monotonic() < end:
                time.sleep(0.02)
                yield bytes(20_000)

        client.request("POST", "/", body(), {"Content-Length": "8000000"})
        response = client.getresponse()
        try:
            return response.status, response.read()
        finally:
            client.close()

    @pytest.mark.parametrize("tls", [False, True])
    @pytest.mark.parametrize("early", ["limit", "application"])
    async def test_an_upload_that_was_answered_early_is_not_cut(
        self, certificate: Certificate, tls: bool, early: str
    ) -> None:
        settings: dict[str, Any] = dict(certificate.settings) if tls else {}
        if early == "limit":
            settings["limit_body_size"] = 1000
        async with serve(refusing, close_timeout=0.3, **settings) as server:
            context = certificate.client() if tls else None
            address = server.listening_addresses[0]
            status, body = await asyncio.to_thread(self.upload, address, context, 1.5)
            assert status == 413
            assert body
            await until(lambda: not server.connections)

    async def test_one_without_end_is_cut_in_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "_LINGERING", 0.6)
        async with serve(refusing, limit_body_size=1000, close_timeout=0.2) as server, connect(server) as peer:
            await peer.send(post(9_999_999_999))
            began = time.monotonic()

            async def flood() -> None:
                while time.monotonic() - began < DEADLINE:
                    await peer.send(bytes(10_000))
                    await asyncio.sleep(0.01)

            with pytest.raises(ConnectionError):
                await flood()
            assert time.monotonic() - began >= 0.6


async def large(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8000000")]})
    for at in range(80):
        await send({"type": "http.response.body", "body": bytes(100_000), "more_body": at < 79})


@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_a_client_that_reads_slowly_but_steadily_is_kept(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it takes is for most of the time only what the kernel keeps for it."""
    caplog.set_level(logging.INFO, "asgiserver.wire")
    settings: dict[str, Any] = {"unix_socket": str(tmp_path / "s"), "port": None} if where == "unix" else {}
    async with serve(large, write_timeout=1.2, **settings) as server:
        with socket.socket(socket.AF_UNIX if where == "unix" else socket.AF_INET) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            peer.settimeout(DEADLINE)
            peer.connect(str(tmp_path / "s") if where == "unix" else server.listening_addresses[0])
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            received = 0
            end = time.monotonic() + 3
            while time.monotonic() < end:
                received += len(await asyncio.to_thread(peer.recv, 5000))
                await asyncio.sleep(0.05)
            while data := await asyncio.to_thread(peer.recv, 500_000):
                received += len(data)
            assert received > 8_000_000
    assert [each for each in caplog.messages if "Dropped" in each] == []


class TestPlainOnTLS:
    @pytest.mark.parametrize("size", [0, 10, 300_000])
    async def test_a_request_without_tls_is_told(
        self, certificate: Certificate, size: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")

        def ask(address: tuple[str, int]) -> tuple[int, str | None, bytes]:
            client = http.client.HTTPConnection(*address, timeout=DEADLINE)
            client.request("POST" if size else "GET", "/", bytes(size) or None)
            response = client.getresponse()
            found = response.status, response.getheader("connection"), response.read()
            client.close()
            return found

        async with serve(refusing, close_timeout=0.3, **certificate.settings) as server:
            status, connection, body = await asyncio.to_thread(ask, server.listening_addresses[0])
            assert (status, connection) == (400, "close")
            assert b"https" in body
            await until(lambda: not server.connections)
        assert len([each for each in caplog.messages if "speaks plain HTTP to a port of TLS" in each]) == 1

    async def test_its_method_may_come_in_pieces_or_never(self, certificate: Certificate) -> None:
        async with serve(refusing, first_byte_timeout=0.5, **certificate.settings) as server:
            async with connect(server) as peer:
                for part in (b"G", b"E", b"T / HTTP/1.1\r\n"):
                    await peer.send(part)
                    await asyncio.sleep(0.01)
                assert (await peer.read_until(b"\r\n")).startswith(b"HTTP/1.1 400 ")
            async with connect(server) as peer:
                await peer.send(b"GE")
                assert await peer.closed()

    async def test_tls_to_a_plain_port_has_a_line_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver")

        def shake_hands(address: tuple[str, int]) -> None:
            with socket.create_connection(address, timeout=DEADLINE) as sock, pytest.raises(ssl.SSLError):
                ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")

        async with serve(refusing) as server:
            await asyncio.to_thread(shake_hands, server.listening_addresses[0])
        assert [each for each in caplog.messages if each.endswith("speaks TLS, and this port speaks plain HTTP.")]


async def test_of_too_many_connections_few_are_kept_for_their_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_MOST_TURNED_AWAY", 2)
    async with serve(refusing, limit_connections=1) as server, connect(server):
        await until(lambda: len(server.connections) == 1)
        async with connect(server) as second, connect(server) as third:
            for peer in (second, third):
                assert (await peer.request("GET", "/")).status == 503
            for _ in range(5):
                async with connect(server) as other:
                    assert await other.closed()
            await until(lambda: len(server.connections) == 3)


#: Runs the command line with few descriptors.
SCARCE = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)); {before}"
    "from asgiserver.cli import main; main()"
)


class TestOutOfDescriptors:
    def processor_time(self, server: ServerProcess) -> float:
        fields = Path(f"/proc/{server.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @pytest.mark.parametrize(
        ("loop", "where"), [("uvloop", "tcp"), ("asyncio", "tcp"), ("uvloop", "unix"), ("uvloop", "tls"),
                            ("asyncio", "endpoint")],
    )  # fmt: skip
    def test_it_is_said_once_and_the_server_goes_on(
        self, folder: Path, certificate: Certificate, loop: str, where: str
    ) -> None:
        args = {
            "tcp": (),
            "unix": ("-u", str(folder / "scarce")),
            "tls": certificate.args,
            "endpoint": ("-e", ENDPOINT),
        }[where]
        script = SCARCE.format(before="sys.modules['uvloop'] = None; " if loop == "asyncio" else "")
        pytest.importorskip(loop)
        with cutting_server(folder, *args, command=(sys.executable, "-c", script)) as server, ExitStack() as stack:
            family = socket.AF_UNIX if where == "unix" else socket.AF_INET
            address: Any = args[1] if where == "unix" else ("127.0.0.1", server.port)
            for _ in range(60):
                peer = stack.enter_context(socket.socket(family))
                peer.settimeout(DEADLINE)
                peer.connect(address)
            warning = "New connections have to wait: Too many open files"
            wait_for(lambda: warning in server.output())
            before, began = self.processor_time(server), time.monotonic()
            time.sleep(1.5)
            assert self.processor_time(server) - before < (time.monotonic() - began) / 3
            stack.close()
            with socket.socket(family) as last:
                last.settimeout(DEADLINE)
                last.connect(address)
                last.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert last.recv(100).startswith(b"HTTP/1.1 ")
            assert server.output().count(warning) == 1
            assert f"WARNING  {warning}" in server.output()


class TestRates:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http1, "WINDOW", 0.5)
        monkeypatch.setattr(progress, "WINDOW", 0.5)

    @pytest.mark.parametrize("tls", [False, True])
    async def test_an_upload_that_drips_is_answered_408(
        self, certificate: Certificate, tls: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")

        settings = certificate.settings if tls else {}
        context = certificate.client() if tls else None
        async with serve(hello, **settings) as server, connect(server, tls=context) as peer:
            await peer.send(post(100_000))
            answered = asyncio.ensure_future(peer.response())
            for _ in range(100):
                if not answered.done():
                    await peer.send(b"*" * 5)
                    await asyncio.sleep(0.05)
            assert answered.done()
            assert (await answered).status == 408
        assert [each for each in caplog.messages if "less than 240 bytes a second" in each]

    async def test_a_reader_that_drips_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        settings = {"min_response_rate": 5_000_000}
        async with serve(large, **settings) as server, connect(server, receive_buffer=16_384) as peer:
            await peer.send(GET)

            async def drip() -> None:
                for _ in range(300):
                    await peer.read(5000)
                    await asyncio.sleep(0.02)

            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await drip()
        assert [each for each in caplog.messages if "took less than 5000000 bytes a second" in each]

    async def test_who_waits_for_the_application_is_not(self) -> None:
        async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.7)
            body = await receive_body(receive)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for piece in (body[:1], body[1:2]):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0.7)
            await send({"type": "http.response.body", "body": b"end"})

        async with serve(slow, request_buffer_size=1024) as server, connect(server) as peer:
            for body in (b"ab", b"ab" * 500_000):
                response = await peer.request("POST", "/", body=body)
                assert response.body == b"abend"
