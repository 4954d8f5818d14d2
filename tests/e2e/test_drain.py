"""What a server that stops still does for connections that were not told that it will."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asgiserver import Server
from tests.e2e.applications import Recorder
from tests.e2e.certificate import Certificate
from tests.e2e.live import DEADLINE, GET, connect, post, serve, until
from tests.e2e.server import COMMANDS, command_on, connects, read_until, serving, wait_for
from tests.e2e.test_life_cycle import APPLICATION
from tests.e2e.websocket import handshake

#: A stop is quick when it waits neither for the graceful timeout nor for idle connections; seconds.
LONG, QUICK = 60.0, 10.0


@asynccontextmanager
async def stopping(server: Server) -> AsyncIterator[asyncio.Task[None]]:
    """The server has begun to stop, and has ended when the block is left, in less time than it might take."""
    began = time.monotonic()
    ending = asyncio.ensure_future(server.__aexit__(None, None, None))
    await until(lambda: server.stopping)
    yield ending
    async with asyncio.timeout(DEADLINE):
        await ending
    assert time.monotonic() - began < LONG


def patient(**settings: Any) -> Any:
    times = {"graceful_idle": LONG, "graceful_timeout": LONG, "first_byte_timeout": None}
    return serve(Recorder(), **{**times, **settings})


class TestIdleConnections:
    @pytest.mark.parametrize("loop", COMMANDS)
    def test_their_next_request_is_answered_and_the_last(self, tmp_path: Path, loop: str) -> None:
        """Also those that have not sent anything yet, or only the beginning of a head."""
        args = ("--graceful-idle", "60", "--graceful-timeout", "60")
        with (
            serving(tmp_path, APPLICATION, *args, command=command_on(loop)) as server,
            server.connect() as used, server.connect() as fresh, server.connect() as begun,
        ):  # fmt: skip
            used.sendall(GET)
            assert b"connection:" not in read_until(used, b"0\r\n\r\n").lower()
            begun.sendall(GET[:20])
            server.send_signal(signal.SIGTERM)
            wait_for(lambda: not connects(server.port))
            for peer, data in ((used, GET + GET), (fresh, GET), (begun, GET[20:])):
                peer.sendall(data)
                response = read_until(peer, b"0\r\n\r\n")
                assert response.startswith(b"HTTP/1.1 200 ")
                assert b"\r\nconnection: close\r\n" in response.lower()
                # Nothing behind it is answered, and the end is no reset.
                assert peer.recv(1) == b""
                peer.close()
            # All connections are gone, so there is nothing left to wait for.
            assert server.wait(QUICK) == 0
        assert server.output().count("done /") == 4

    async def test_they_are_closed_when_their_time_is_over(self) -> None:
        async with serve(Recorder(), graceful_idle=0.2, graceful_timeout=LONG) as server, connect(server) as peer:
            await peer.request("GET", "/")
            began = time.monotonic()
            async with stopping(server):
                assert await peer.read_rest() == b""
                assert time.monotonic() - began >= 0.2

    async def test_their_time_ends_with_the_graceful_timeout(self) -> None:
        async with patient(graceful_timeout=0.2) as server, connect(server) as peer:
            await peer.request("GET", "/")
            async with stopping(server):
                assert await peer.read_rest() == b""

    async def test_a_request_that_comes_late_has_all_of_the_graceful_timeout(self) -> None:
        async with serve(Recorder(), graceful_idle=0.5, graceful_timeout=LONG) as server, connect(server) as peer:
            await peer.request("GET", "/")
            async with stopping(server):
                await peer.send(post(2, b"1"))
                await asyncio.sleep(1.2)
                await peer.send(b"2")
                response = await peer.response()
                assert (response.body, response.value("connection")) == (b"12", "close")

    async def test_a_response_that_has_said_nothing_of_the_end_lets_one_request_follow(self) -> None:
        """It began before the stop."""
        go_on = asyncio.Event()

        async def two_pieces(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"two"})

        async with (
            serve(two_pieces, graceful_idle=LONG, graceful_timeout=LONG) as server,
            connect(server) as peer,
        ):
            await peer.send(GET)
            await peer.read_until(b"one\r\n")
            async with stopping(server):
                go_on.set()
                await peer.read_until(b"two\r\n0\r\n\r\n")
                response = await peer.request("GET", "/")
                assert (response.body, response.value("connection")) == (b"onetwo", "close")
                await peer.close()

    async def test_a_websocket_is_refused_in_their_time(self) -> None:
        async with patient() as server, connect(server) as peer:
            await peer.request("GET", "/")
            async with stopping(server):
                await peer.send(handshake())
                response = await peer.response()
                assert (response.status, response.value("connection")) == (503, "close")
                await peer.close()

    async def test_nobody_is_waited_for_who_is_not_there(self) -> None:
        async with patient() as server:
            async with connect(server) as peer:
                await peer.request("GET", "/")
            began = time.monotonic()
            await server.__aexit__(None, None, None)
            assert time.monotonic() - began < QUICK

    async def test_the_last_one_to_leave_ends_the_stop(self) -> None:
        async with patient() as server:
            async with connect(server):
                ending = asyncio.ensure_future(server.__aexit__(None, None, None))
                await until(lambda: server.stopping)
                assert not ending.done()
            async with asyncio.timeout(QUICK):
                await ending


async def test_a_tls_handshake_that_has_begun_is_completed_and_its_request_answered(certificate: Certificate) -> None:
    async with patient(**certificate.settings) as server, connect(server) as peer:
        await until(lambda: server.connections)
        async with stopping(server):
            await peer.writer.start_tls(certificate.client(), server_hostname="localhost")
            response = await peer.request("POST", "/", body=b"late")
            assert (response.body, response.value("connection")) == (b"late", "close")


class TestBacklog:
    """Connections that the kernel has completed and nobody has accepted yet when the server stops."""

    #: More than Twisted accepts at a time.
    COUNT = 150

    @staticmethod
    def clients(stack: ExitStack, address: Any, count: int) -> list[socket.socket]:
        """Connected while the server, on the loop that this blocks, cannot accept."""
        made = []
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
            client.settimeout(DEADLINE)
            client.connect(address)
            made.append(stack.enter_context(client))
        return made

    @pytest.mark.parametrize("kind", ["tcp", "endpoint", "unix", "tls"])
    async def test_they_are_accepted_first(self, kind: str, certificate: Certificate, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        settings: dict[str, dict[str, Any]] = {
            "tcp": {},
            "endpoint": {"port": None, "endpoints": ["tcp:0:interface=127.0.0.1"]},
            "unix": {"port": None, "unix_socket": path},
            "tls": certificate.settings,
        }
        context = certificate.client() if kind == "tls" else None
        async with patient(**settings[kind]) as server:
            address = path if kind == "unix" else server.listening_addresses[0]
            with ExitStack() as stack:
                clients = self.clients(stack, address, 20 if kind == "tls" else self.COUNT)
                # The server does this first of all when it stops. Here without a turn of the loop before.
                await server.listeners[0].close()
                assert len(server.connections) == len(clients)
                async with stopping(server):
                    for client in clients:
                        await asyncio.to_thread(self.ask, client, context)

    @staticmethod
    def ask(client: socket.socket, context: ssl.SSLContext | None) -> None:
        if context is not None:
            client = context.wrap_socket(client, server_hostname="localhost")
        with client:
            client.sendall(GET)
            data = b""
            while piece := client.recv(65536):
                data += piece
        assert data.startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize("family", ["tcp", "unix"])
    async def test_they_are_left_to_the_others_that_share_the_socket(self, family: str, tmp_path: Path) -> None:
        with ExitStack() as stack:
            listening = stack.enter_context(socket.socket(socket.AF_INET if family == "tcp" else socket.AF_UNIX))
            listening.bind(("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "socket"))
            listening.listen(16)
            async with patient(port=None, file_descriptor=listening.fileno()) as server:
                self.clients(stack, listening.getsockname(), 3)
                await server.listeners[0].close()
                assert not server.connections
            async with patient(port=None, file_descriptor=listening.fileno()) as server:
                await until(lambda: len(server.connections) == 3)
                for client in list(server.connections):
                    client.abort()
