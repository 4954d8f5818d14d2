"""Peers that mean harm, applications that go wrong, and an environment that is short of something."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asgiserver import Server

from ..conformance.peer import BINARY, close, frame
from .applications import hello
from .live import CHUNKED, DEADLINE, GET, Receive, Send, answer, connect, get, receive_body, serve, until
from .server import ROOT, ServerProcess, environment, reset, run_python, serving, wait_for
from .websocket import handshake

HELLO = "examples.hello:application"


async def is_well(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The server answers the next client at once, has let go of the others, and blames nobody but the peers."""
    await until(lambda: not server.connections)
    async with asyncio.timeout(2), connect(server) as peer:
        assert (await peer.request("GET", "/")).status == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class TestAnApplication:
    async def test_that_receives_for_ever_after_its_response_does_not_stop_the_others(self) -> None:
        async def restless(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await answer(send, b"done")
            while scope["path"] == "/restless":
                await receive()

        async with serve(restless, graceful_timeout=0.1) as server, connect(server) as peer, connect(server) as other:
            assert (await peer.request("GET", "/restless")).body == b"done"
            assert (await other.request("GET", "/")).body == b"done"

    @pytest.mark.parametrize("request_head", [GET, handshake()])
    async def test_that_receives_for_ever_after_its_client_has_left_is_cancelled(self, request_head: bytes) -> None:
        ended: list[str] = []

        async def restless(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            try:
                while True:
                    message = await receive()
                    if message["type"] == "websocket.connect":
                        await send({"type": "websocket.accept"})
            finally:
                ended.append(scope["type"])

        async with serve(restless, application_close_timeout=0.1) as server:
            async with connect(server) as peer:
                await peer.send(request_head)
                await until(lambda: server._tasks)
                peer.abort()
            await until(lambda: ended)


class TestAPeer:
    async def test_with_a_method_as_long_as_a_head_may_be_is_refused(self) -> None:
        async with serve(hello) as server:
            async with connect(server) as peer:
                await peer.send(b"A" * 30000 + GET[3:])
                assert (await peer.response()).status == 501
            async with connect(server) as peer:
                assert (await peer.request("A" * 64, "/")).status == 200

    @pytest.mark.parametrize("size", [1, 2, 100])
    async def test_that_sends_its_body_in_tiny_chunks_has_it_read_whole(self, size: int) -> None:
        async def length(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await answer(send, b"%d" % len(await receive_body(receive)))

        async with serve(length) as server, connect(server) as peer:
            await peer.send(CHUNKED + (b"%x\r\n" % size + b"x" * size + b"\r\n") * 20000 + b"0\r\n\r\n" + GET)
            assert (await peer.response()).body == b"%d" % (20000 * size)
            assert (await peer.response()).status == 200

    async def test_that_drips_line_ends_is_let_go_in_time(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Empty lines before a request mean nothing, and must not keep a connection for ever either (RFC 9112 §2.2).
        monkeypatch.setattr("asgiserver.wire.connection._LINGERING", 1.0)
        async with serve(hello, first_byte_timeout=0.3, head_timeout=0.3, close_timeout=0.5) as server:
            async with connect(server) as peer:
                began = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    while server.connections and time.monotonic() - began < DEADLINE:
                        await peer.send(b"\r\n")
                        await asyncio.sleep(0.02)
                        if peer.reader.at_eof():
                            break
                assert time.monotonic() - began < DEADLINE
            await is_well(server, caplog)

    async def test_that_resets_at_any_moment_leaves_nothing_behind(self, caplog: pytest.LogCaptureFixture) -> None:
        async def large(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                while (await receive())["type"] != "websocket.disconnect":
                    await send({"type": "websocket.send", "bytes": bytes(100_000)})
            else:
                with contextlib.suppress(OSError):
                    await receive_body(receive)
                    await answer(send, bytes(1_000_000) if scope["path"] == "/large" else b"")

        moments = [
            b"", b"GET", GET, GET * 50, get("/large"), CHUNKED, CHUNKED + b"5\r\nab",
            *(handshake() + frames for frames in (b"", frame(BINARY) * 50, frame(BINARY, fin=False), close())),
        ]  # fmt: skip
        async with serve(large, application_close_timeout=5) as server:
            for data in moments:
                for answered in (False, True):
                    sock = socket.create_connection(server.listening_addresses[0])
                    sock.sendall(data)
                    await asyncio.sleep(0.02 if answered else 0)
                    reset(sock)
            await until(lambda: not server._tasks)
            await is_well(server, caplog)


class TestTheEnvironment:
    def test_a_closed_standard_output_is_no_reason_to_fail(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.touch()
        command = f"exec {sys.executable} -m asgiserver -p 0 {HELLO} <&- >&- 2>{log}"
        with subprocess.Popen(["/bin/sh", "-c", command], cwd=ROOT, env=environment()) as process:
            try:
                wait_for(lambda: "Listening on" in log.read_text() or process.poll() is not None)
                port = int(log.read_text().rpartition("Listening on http://127.0.0.1:")[2].split()[0])
                assert exchange(port).startswith(b"HTTP/1.1 200")
                process.terminate()
                assert process.wait(DEADLINE) == 0, log.read_text()
            finally:
                process.kill()
        assert "Traceback" not in log.read_text()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
    def test_a_full_disk_costs_the_access_log_one_line_and_no_request(self) -> None:
        with ServerProcess(HELLO, "-p", "0", "--access-log", "/dev/full") as server:
            for _ in range(3):
                assert exchange(server.port).startswith(b"HTTP/1.1 200")
        assert server.returncode == 0
        assert server.output().count("Lines of the access log are lost: No space left on device") == 1
        assert "Traceback" not in server.output()

    def test_two_signals_at_once_are_one(self, tmp_path: Path) -> None:
        """They cut no request, and the lifespan has its shutdown."""
        text = (
            "import asyncio\n\nasync def application(scope, receive, send):\n"
            "    if scope['type'] == 'http':\n"
            "        print('begun', flush=True)\n"
            "        await asyncio.sleep(0.5)\n"
            "        await send({'type': 'http.response.start', 'status': 204, 'headers': []})\n"
            "        await send({'type': 'http.response.body'})\n"
            "    else:\n"
            "        await receive()\n"
            "        await send({'type': 'lifespan.startup.complete'})\n"
            "        await receive()\n"
            "        print('closing down', flush=True)\n"
            "        await send({'type': 'lifespan.shutdown.complete'})\n"
        )
        with serving(tmp_path, text) as server, server.connect() as sock:
            sock.sendall(GET)
            wait_for(lambda: "begun" in server.output())
            server.send_signal(signal.SIGINT)
            server.send_signal(signal.SIGTERM)
            assert b"".join(iter(lambda: sock.recv(65536), b"")).startswith(b"HTTP/1.1 204 ")
            assert server.wait() == 0
        assert "closing down" in server.output()

    def test_an_interrupt_that_is_not_the_servers_is_raised_by_run(self) -> None:
        code = (
            "import os, signal, threading\n"
            "from asgiserver import Server\n"
            "from examples.hello import application\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "interrupt = lambda: threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "Server(application, port=0, signal_handlers=False, ready_callable=interrupt).run()\n"
        )
        ended = run_python(code)
        assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"


def exchange(port: int) -> bytes:
    """One request and all that comes for it."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(get("/", "Connection: close"))
        return b"".join(iter(lambda: sock.recv(65536), b""))
