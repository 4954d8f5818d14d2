"""What workers share: sockets of every kind, and the connections on them, evenly."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.certificate import Certificate
from tests.e2e.live import in_loop, until
from tests.e2e.server import run_command
from tests.e2e.workers import Supervised, WebSocketClient, ask, get

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")

#: WebSockets over all workers, and how many times the mean a worker may have of them. Where other tests run beside, a
#: worker has to wait for a processor while others accept; left to themselves they would differ more.
FEW, MANY = (400, 1.35), (1000, 1.15)
KINDS = ["tcp", "unix", "tls"]

Connect = Callable[[], Awaitable[WebSocketClient]]
Clients = Awaitable[list[WebSocketClient]]


def spread(clients: list[WebSocketClient], workers: int) -> float:
    """The most that a worker has, as a multiple of the mean."""
    counts = Counter(client.process for client in clients)
    return max(counts.values()) / (len(clients) / workers)


async def burst(connect: Connect, count: int) -> list[WebSocketClient]:
    return await asyncio.gather(*(connect() for _ in range(count)))


async def at_rate(connect: Connect, count: int, rate: float = 300) -> list[WebSocketClient]:
    tasks = []
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(connect()))
    return await asyncio.gather(*tasks)


@contextmanager
def serving(kind: str, folder: Path, certificate: Certificate, workers: int) -> Iterator[tuple[Supervised, Connect]]:
    """A server on a socket of one of the :data:`KINDS`, and what connects to it."""
    path = folder / "s"
    # A thousand clients in one process need more than the usual time for their handshakes.
    args = {
        "tcp": (), "unix": ("-u", str(path)), "tls": (*certificate.args, "--ssl-handshake-timeout", "60"),
    }[kind]  # fmt: skip
    client = certificate.client() if kind == "tls" else None
    with Supervised(folder, workers, *args, port=kind != "unix") as server:

        async def connect() -> WebSocketClient:
            if kind == "unix":
                return await WebSocketClient.over(*await asyncio.open_unix_connection(str(path)))
            return await WebSocketClient.over(*await asyncio.open_connection("127.0.0.1", server.port, ssl=client))

        yield server, connect


class TestBalance:
    @pytest.mark.parametrize(
        ("kind", "how", "size"),
        [
            ("tls", burst, FEW), ("unix", at_rate, FEW),
            *(pytest.param(kind, how, MANY, marks=pytest.mark.slow)
              for kind in KINDS for how in (burst, at_rate)),
        ],
    )
    @in_loop
    async def test_websockets_are_spread_evenly_also_after_a_worker_was_replaced(
        self, tmp_path: Path, certificate: Certificate, kind: str, how: Callable[[Connect, int], Clients],
        size: tuple[int, float],
    ) -> None:
        count, most = size
        with serving(kind, tmp_path, certificate, 4) as (server, connect):
            clients = await how(connect, count)
            assert spread(clients, 4) <= most
            killed = server.first[0]
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(server.workers()) == 5)
            back = await how(connect, sum(each.process == killed for each in clients))
            stay = [each for each in clients if each.process != killed]
            assert spread([*stay, *back], 4) <= most
            for each in [*clients, *back]:
                each.writer.close()

    @pytest.mark.parametrize(
        ("kind", "count", "seconds"),
        [("tcp", 100, 0.25), *(pytest.param(kind, 300, 0.05, marks=pytest.mark.slow) for kind in KINDS)],
    )
    @in_loop
    async def test_a_blocked_worker_delays_nobody(
        self, tmp_path: Path, certificate: Certificate, kind: str, count: int, seconds: float
    ) -> None:
        with serving(kind, tmp_path, certificate, 2) as (_, connect):
            # Until the other worker has more, and would leave the next ones to the blocked one.
            blocked = await connect()
            blocked.write(b"block")
            await asyncio.sleep(0.2)
            times, clients = [], []
            for _ in range(count):
                began = time.monotonic()
                clients.append(await connect())
                times.append(time.monotonic() - began)
            assert statistics.quantiles(times, n=100)[-1] <= seconds
            os.kill(blocked.process, signal.SIGKILL)
            for each in (blocked, *clients):
                each.writer.close()


@in_loop
async def test_a_session_of_tls_is_resumed_by_each_worker(tmp_path: Path, certificate: Certificate) -> None:
    with Supervised(tmp_path, 3, *certificate.args) as server:
        context, host, session, answered = certificate.client(), "localhost", None, set[str]()
        while len(answered) < 3:
            with server.connect() as raw, context.wrap_socket(raw, server_hostname=host, session=session) as peer:
                assert peer.session_reused == (session is not None)
                peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: peer.recv(65536), b""))
                answered.add(answer.decode().split()[-1])
                session = peer.session


class TestEndpoints:
    @in_loop
    async def test_of_every_kind_at_once(self, tmp_path: Path, certificate: Certificate) -> None:
        path, other = tmp_path / "s", tmp_path / "o"
        with ExitStack() as stack:
            inherited = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stale = stack.enter_context(socket.socket(socket.AF_UNIX))
            stale.bind(str(path))
            stale.close()
            args = (
                "-b", "127.0.0.1", "--ssl-certfile", str(certificate.chain), "--ssl-keyfile", str(certificate.key),
                "-u", str(path), "--unix-socket-mode", "640", "--fd", str(inherited.fileno()),
                "-e", "tcp:0:interface=127.0.0.1", "-e", r"tcp6:0:interface=\:\:1", "-e", f"unix:{other}:mode=600",
                "-e", "haproxy:tcp:0:interface=127.0.0.1", "-e", f"haproxy:unix:{other}.proxied",
            )  # fmt: skip
            server = stack.enter_context(Supervised(tmp_path, 2, *args, listeners=8, pass_fds=[inherited.fileno()]))
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            assert stat.S_IMODE(other.stat().st_mode) == 0o600
            tls, unix, fd, tcp, tcp6, second, proxied, proxied_unix = server.urls
            header = b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 443\r\n"
            context = certificate.client()
            for url, announced, secure in (
                (tls, b"", context), (fd, b"", None), (tcp, b"", None), (tcp6, b"", None), (unix, b"", None),
                (second, b"", None), (proxied_unix, header, None),
            ):  # fmt: skip
                assert await asked(url, announced, secure) == "one"
            # TLS behind the header.
            assert await asked(proxied, header, context) == "one"
            # A worker leaves the files alone, only the service removes them.
            os.kill(server.first[0], signal.SIGTERM)
            await until(lambda: len(server.workers()) == 3)
            assert await asked(unix, b"", None) == "one"
            assert server.stop() == 0
            assert not path.exists()
            assert not other.exists()
            # The socket that was handed over is still there.
            assert inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)

    @in_loop
    async def test_of_systemd(self, tmp_path: Path) -> None:
        """By its name and by its index, which are two endpoints on one socket."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            # As systemd does it: the socket is descriptor 3, and the variable names the process itself.
            number = sock.fileno()
            program = (
                f"import os, sys; os.dup2({number}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
                "os.execv(sys.executable, [sys.executable, '-m', 'asgiserver', *sys.argv[1:]])"
            )
            with Supervised(
                tmp_path, 2, "-e", "systemd:name=web", "-e", "systemd:index=0", port=False, pass_fds=[number],
                env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}, command=[sys.executable, "-c", program], listeners=2,
            ) as server:  # fmt: skip
                assert await ask(server.port)
                await asyncio.to_thread(server.reload, 2)
                assert await ask(server.port)

    @pytest.mark.parametrize("text", ["ssl:8443:privateKey=x", "tls:8443:x", "haproxy:ssl:8443", "onion:80", "stdio:"])
    def test_that_cannot_be_shared_are_named(self, text: str) -> None:
        done = run_command("--workers", "2", "-e", text, "examples.hello:application")
        assert done.returncode == 2
        assert f"-e: {text!r}: workers cannot share it" in done.stderr


async def asked(url: str, header: bytes, context: ssl.SSLContext | None) -> str:
    """The first word of the answer at ``url``, asked behind a PROXY header if there is one."""
    if url.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"))
    else:
        host, _, port = url.partition("://")[2].rpartition(":")
        early = None if header else context
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=early)
    writer.write(header)
    if header and context is not None:
        await writer.start_tls(context, server_hostname="localhost")
    try:
        return (await get(reader, writer)).split()[0]
    finally:
        writer.close()
