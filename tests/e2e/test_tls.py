"""HTTP and WebSocket over TLS, with certificates made here."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from twisted.logger import LogEvent, globalLogPublisher
from websockets.asyncio.client import connect as connect_websocket

from asgiserver import Server
from tests.e2e.applications import Recorder, answering
from tests.e2e.certificate import Certificate
from tests.e2e.live import DEADLINE, GET, Peer, answer, connect, serve, until, url
from tests.e2e.server import ServerProcess, read_until, reset, run_python, serving, wait_for
from tests.programs import require

MEBIBYTE = 1 << 20


#: Twisted makes the certificate of an ``ssl:`` description with what pyOpenSSL no longer likes.
old_style = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@pytest.fixture(params=["settings", pytest.param("endpoint", marks=old_style)])
def settings(request: pytest.FixtureRequest, certificate: Certificate) -> dict[str, Any]:
    """Both ways to ask for TLS."""
    endpoint = {"port": None, "endpoints": (certificate.endpoint(),)}
    return certificate.settings if request.param == "settings" else endpoint


@contextmanager
def quiet_twisted() -> Iterator[None]:
    """Twisted logs no failure meanwhile."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert not [event for event in events if "log_failure" in event]


def shake_hands(server: Server | ServerProcess, context: ssl.SSLContext) -> ssl.SSLSocket:
    address = ("127.0.0.1", server.port) if isinstance(server, ServerProcess) else server.listening_addresses[0]
    plain = socket.create_connection(address, timeout=DEADLINE)
    return context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)


def read_to_the_end(sock: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


async def posts(peer: Peer) -> bool:
    """A request's body comes back."""
    return (await peer.request("POST", "/", body=b"body")).body == b"body"


class TestServing:
    async def test_http_and_websocket_know_that_they_are_secure(
        self, certificate: Certificate, settings: dict[str, Any]
    ) -> None:
        recorder, context = Recorder(), certificate.client()
        async with serve(recorder, **settings) as server:
            async with httpx.AsyncClient(verify=context) as client:
                for _ in range(2):
                    response = await client.post(url(server, "https"), content=b"x" * 300000)
                    assert response.content == b"x" * 300000
            async with connect_websocket(url(server, "wss"), ssl=context) as websocket:
                for message in ("text", b"y" * 300000):
                    await websocket.send(message)
                    assert await websocket.recv() == message
            port = server.listening_addresses[0][1]
        assert [scope["scheme"] for scope in recorder.scopes] == ["https", "https", "wss"]
        for scope in recorder.scopes:
            assert tuple(scope["server"]) == ("127.0.0.1", port)
            assert scope["client"][0] == "127.0.0.1"
            assert scope["http_version"] == "1.1"

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            (("h3", "http/1.1"), "http/1.1"),
            (("http/1.1",), "http/1.1"),
            (("http/1.0",), "http/1.0"),
            (("http/1.0", "http/1.1"), "http/1.1"),
            ((), None),
        ],
    )
    async def test_alpn_chooses_what_is_spoken(
        self, certificate: Certificate, settings: dict[str, Any], offered: tuple[str, ...], chosen: str | None
    ) -> None:
        async with serve(Recorder(), **settings) as server, connect(server, tls=certificate.client(*offered)) as peer:
            assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
            assert await posts(peer)

    async def test_a_client_that_speaks_nothing_of_it_is_refused(
        self, certificate: Certificate, settings: dict[str, Any]
    ) -> None:
        """RFC 7301 §3.2: by a fatal alert, not by speaking what it did not offer."""
        with quiet_twisted():
            async with serve(Recorder(), **settings) as server:
                with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                    async with connect(server, tls=certificate.client("h3")):
                        pass
                await until(lambda: not server.connections)

    async def test_old_versions_are_refused(self, certificate: Certificate, settings: dict[str, Any]) -> None:
        context = certificate.client()
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        async with serve(Recorder(), **settings) as server:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with connect(server, tls=context):
                    pass

    def test_the_command_line_serves_it_and_says_so(self, certificate: Certificate) -> None:
        """The chain is sent along, so that a client which knows the root is convinced."""
        with ServerProcess("-b", "127.0.0.1", "-p", "0", *certificate.args, "examples.hello:application") as server:
            assert server.url == f"https://127.0.0.1:{server.port}"
            assert httpx.get(server.url, verify=certificate.client()).text == "Hello, world!\n"

    async def test_a_pipelining_client_gets_its_answers_in_order(self, certificate: Certificate) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await answer(send, scope["raw_path"])

        async with (
            serve(application, **certificate.settings) as server,
            connect(server, tls=certificate.client()) as peer,
        ):
            await peer.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(20)))
            assert [(await peer.response()).body for _ in range(20)] == [b"/%d" % number for number in range(20)]


class TestPeersThatDoNotShakeHands:
    async def test_plain_http_is_turned_away_and_disturbs_nobody(
        self, certificate: Certificate, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Twisted's own TLS has no answer in plain text."""
        answered = b"HTTP/1.1 400 " if "ssl_certfile" in settings else b""
        with quiet_twisted():
            async with serve(Recorder(), **settings) as server:
                async with connect(server) as peer:
                    await peer.send(GET)
                    try:
                        assert (await peer.read_rest())[:13] == answered
                    except ConnectionResetError:
                        pass
                await until(lambda: not server.connections)
                async with connect(server, tls=certificate.client()) as peer:
                    assert await posts(peer)
        assert not [record for record in caplog.records if record.levelno > logging.INFO]

    @pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
    async def test_a_handshake_that_stalls_is_dropped_at_the_deadline(
        self, settings: dict[str, Any], sent: bytes
    ) -> None:
        async with serve(Recorder(), first_byte_timeout=0.2, **settings) as server:
            async with connect(server) as peer:
                began = time.monotonic()
                await peer.send(sent)
                assert await peer.closed()
                assert 0.15 < time.monotonic() - began < 4
            await until(lambda: not server.connections)

    async def test_a_client_that_shakes_hands_and_sends_nothing_is_dropped_too(self, certificate: Certificate) -> None:
        async with serve(Recorder(), first_byte_timeout=0.3, **certificate.settings) as server:
            async with connect(server, tls=certificate.client()) as peer:
                assert await peer.closed()
            await until(lambda: not server.connections)

    async def test_one_connection_too_many_is_told_so(self, certificate: Certificate) -> None:
        settings = certificate.settings
        async with (
            serve(Recorder(), limit_connections=1, **settings) as server,
            connect(server, tls=certificate.client()) as first,
        ):
            async with connect(server, tls=certificate.client()) as second:
                assert (await second.request("GET", "/")).status == 503
                assert await second.closed()
            assert await posts(first)


class TestLeaving:
    @pytest.mark.parametrize("by_reset", [False, True])
    async def test_without_close_notify_makes_no_noise(
        self, certificate: Certificate, settings: dict[str, Any], caplog: pytest.LogCaptureFixture, by_reset: bool
    ) -> None:
        """Neither between requests nor within one, whose application hears of it."""
        left, started = asyncio.Event(), asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/":
                await answer(send, b"Hello")
                return
            await receive()
            started.set()
            assert (await receive())["type"] == "http.disconnect"
            left.set()

        with quiet_twisted():
            async with serve(application, **settings) as server:
                for target in ("/", "/wait"):
                    sock = await asyncio.to_thread(shake_hands, server, certificate.client())
                    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    if target == "/":
                        assert (await asyncio.to_thread(sock.recv, 1000)).endswith(b"Hello")
                    else:
                        await started.wait()
                    # Below the TLS, as a process does that is killed.
                    reset(sock) if by_reset else sock.close()
                    await until(lambda: not server.connections)
                await until(left.is_set)
        assert not [record for record in caplog.records if record.levelno > logging.INFO]

    async def test_the_servers_end_comes_with_close_notify(self, certificate: Certificate) -> None:
        """A client can tell a complete body without a length from one that was cut off (RFC 9112 §9.8)."""

        async with serve(answering(b"x" * 500000, headers=[]), **certificate.settings) as server:
            with await asyncio.to_thread(shake_hands, server, certificate.client()) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                # SSLSocket raises SSLEOFError when the end comes without close_notify.
                data = await asyncio.to_thread(read_to_the_end, sock)
        assert data.partition(b"\r\n\r\n")[2] == b"x" * 500000


class TestClosing:
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_large_response_is_complete_before_the_connection_closes(
        self, certificate: Certificate, settings: dict[str, Any], chunked: bool
    ) -> None:
        body = bytes(range(256)) * (20 * MEBIBYTE // 256)
        application = answering(body, headers=[] if chunked else None)
        async with serve(application, **settings) as server, connect(server, tls=certificate.client()) as peer:
            response = await peer.request("GET", "/", "Connection: close")
            assert response.body == body
            assert await peer.read_rest() == b""

    async def test_a_client_that_still_sends_gets_the_early_answer(
        self, certificate: Certificate, settings: dict[str, Any]
    ) -> None:
        """Over TLS too a close with unread input would reset the connection and lose the answer."""

        def upload(server: Server) -> bytes:
            with shake_hands(server, certificate.client()) as sock:
                size = 8 * MEBIBYTE
                sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
                try:
                    for _ in range(size // 65536):
                        sock.sendall(b"x" * 65536)
                except (ssl.SSLError, ConnectionError):
                    # The server may stop listening, but what it said must be there to read.
                    pass
                return sock.recv(65536)

        async with serve(Recorder(), limit_body_size=1000, **settings) as server:
            for _ in range(5):
                assert (await asyncio.to_thread(upload, server)).startswith(b"HTTP/1.1 413 ")
            await until(lambda: not server.connections)

    async def test_a_peer_that_never_answers_the_close_is_dropped(self, certificate: Certificate) -> None:
        async with serve(Recorder(), close_timeout=0.2, **certificate.settings) as server:
            sock = await asyncio.to_thread(shake_hands, server, certificate.client())
            with sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                await until(lambda: not server.connections)

    async def test_stopping_ends_idle_connections_and_websockets(self, certificate: Certificate) -> None:
        context = certificate.client()
        async with serve(Recorder(), graceful_timeout=5, **certificate.settings) as server:
            opening = connect_websocket(url(server, "wss"), ssl=context)
            async with connect(server, tls=context) as idle, opening as websocket:
                await idle.request("POST", "/", body=b"body")
                began = time.monotonic()
                stopping = asyncio.create_task(server.__aexit__(None, None, None))
                assert await idle.read_rest() == b""
                await websocket.wait_closed()
                assert websocket.close_code == 1012
                await stopping
                assert time.monotonic() - began < 4


#: Speaks of every mebibyte that the server has taken from it.
DOWNLOAD = """
async def application(scope, receive, send):
    size = 200 * 1048576
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    for number in range(size // 65536):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        if number % 16 == 15:
            print("sent", number // 16 + 1, flush=True)
    await send({"type": "http.response.body"})
"""

SLEEPER = """
import asyncio
async def application(scope, receive, send):
    print("asleep", flush=True)
    await asyncio.sleep(1.5)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how large a process is")
class TestBackPressure:
    """Over TLS too, memory does not grow with what a peer leaves unread."""

    def test_a_client_that_does_not_read(self, certificate: Certificate, tmp_path: Path) -> None:
        with serving(tmp_path, DOWNLOAD, *certificate.args, "--lifespan", "off") as server:
            self.warm_up(certificate, server)
            before = server.memory()
            with shake_hands(server, certificate.client()) as sock:
                sock.sendall(GET)
                wait_until_still(server)
                assert server.memory() - before < 8 * MEBIBYTE
                assert server.output().count("sent ") < 50
                head = sock.recv(65536)
                received = len(head) - head.index(b"\r\n\r\n") - 4
                while received < 200 * MEBIBYTE:
                    piece = sock.recv(MEBIBYTE)
                    assert piece, f"cut off after {received} bytes"
                    received += len(piece)
                assert received == 200 * MEBIBYTE
            assert server.memory() - before < 8 * MEBIBYTE

    def warm_up(self, certificate: Certificate, server: ServerProcess) -> None:
        """The first connection loads what all others share."""
        with shake_hands(server, certificate.client()) as sock:
            sock.sendall(b"BREW\r\n\r\n")
            sock.recv(1000)

    def test_an_application_that_does_not_read(self, certificate: Certificate, tmp_path: Path) -> None:
        size = 200 * MEBIBYTE
        with serving(tmp_path, SLEEPER, *certificate.args, "--lifespan", "off") as server:
            self.warm_up(certificate, server)
            before = server.memory()
            with shake_hands(server, certificate.client()) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
                wait_for(lambda: "asleep" in server.output())
                sent = 0
                sock.settimeout(0.5)
                try:
                    while sent < size:
                        sent += sock.send(bytes(65536))
                except TimeoutError:
                    pass
                assert sent < size // 4, "the client was not stopped"
                assert server.memory() - before < 8 * MEBIBYTE


def wait_until_still(server: ServerProcess) -> None:
    """Wait until the application has sent something, and then nothing more for half a second."""
    wait_for(lambda: "sent " in server.output())
    seen, since = len(server.output()), time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        now = len(server.output())
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 0.5

    wait_for(still)


class TestClients:
    """Whoever speaks TLS 1.2 or later."""

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_resume_their_session(self, certificate: Certificate, version: ssl.TLSVersion) -> None:
        context = certificate.client()
        context.minimum_version = context.maximum_version = version

        def visit(server: Server, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
            plain = socket.create_connection(server.listening_addresses[0], timeout=DEADLINE)
            with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nHello")
                assert read_to_the_end(sock).endswith(b"\r\n\r\nHello")
                assert sock.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
                return sock.session, bool(sock.session_reused)

        async with serve(Recorder(), **certificate.settings) as server:
            session, reused = await asyncio.to_thread(visit, server, None)
            assert not reused
            _, reused = await asyncio.to_thread(visit, server, session)
            assert reused

    @pytest.mark.parametrize(("command", "option"), [("K", "-tls1_3"), ("k", "-tls1_3"), ("R", "-tls1_2")])
    def test_change_their_keys(self, certificate: Certificate, tmp_path: Path, command: str, option: str) -> None:
        """RFC 8446 §4.6.3: with K the server has to change its own too. To shake hands again (R) is refused."""
        request = GET
        with ServerProcess("-b", "127.0.0.1", "-p", "0", *certificate.args, "examples.hello:application") as server:
            program = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", option]
            log = tmp_path / "log"
            with (
                log.open("wb") as file,
                subprocess.Popen(
                    program, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, bufsize=0
                ) as client,
            ):
                try:
                    assert client.stdin is not None
                    for count in (1, 2, 3):
                        client.stdin.write(request)
                        wait_for(lambda count=count: log.read_bytes().count(b"Hello, world!") == count)
                        client.stdin.write(command.encode() + b"\n")
                        said = b"RENEGOTIATING" if command == "R" else b"KEYUPDATE"
                        wait_for(lambda count=count, said=said: log.read_bytes().count(said) == count)
                        if command == "R":
                            assert client.wait(DEADLINE) != 0
                            break
                finally:
                    client.kill()
            assert httpx.get(server.url, verify=certificate.client()).text == "Hello, world!\n"
        assert "Traceback" not in server.output()

    async def test_come_by_ipv6_too(self, certificate: Certificate) -> None:
        recorder = Recorder()

        def visit(server: Server) -> bytes:
            with shake_hands(server, certificate.client()) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return read_to_the_end(sock)

        async with serve(recorder, host="::1", **certificate.settings) as server:
            assert (await asyncio.to_thread(visit, server)).startswith(b"HTTP/1.1 200 ")
        assert recorder.scopes[0]["client"][0] == "::1"
        assert tuple(recorder.scopes[0]["server"]) == ("::1", server.listening_addresses[0][1])

    async def test_are_told_that_nothing_follows_and_say_so_too(self, certificate: Certificate) -> None:
        def visit(server: Server) -> socket.socket:
            sock = shake_hands(server, certificate.client())
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nHello")
            assert read_to_the_end(sock).endswith(b"Hello")
            return sock.unwrap()

        async with serve(Recorder(), **certificate.settings) as server:
            plain = await asyncio.to_thread(visit, server)
            # And below TLS the connection has ended as well, though this end of it is still open.
            assert await asyncio.to_thread(plain.recv, 1) == b""
            plain.close()
            await until(lambda: not server.connections)

    async def test_send_and_receive_much_at_the_same_time(self, certificate: Certificate) -> None:
        size = 50 * MEBIBYTE
        piece = bytes(range(256)) * 4096

        async def echo(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
            event = {"more_body": True}
            while event["more_body"]:
                event = await receive()
                await send({"type": "http.response.body", "body": event["body"], "more_body": event["more_body"]})

        async def upload(peer: Peer) -> None:
            await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(piece)):
                await peer.send(piece)

        async with (
            serve(echo, **certificate.settings) as server,
            connect(server, tls=certificate.client()) as peer,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(upload(peer))
            await peer.read_until(b"\r\n\r\n")
            for _ in range(size // len(piece)):
                assert await peer.read(len(piece)) == piece

    async def test_send_large_messages_over_a_websocket(self, certificate: Certificate) -> None:
        message = bytes(range(256)) * 4096
        settings = {**certificate.settings, "websocket_max_message_size": 2 * MEBIBYTE}
        async with (
            serve(Recorder(), **settings) as server,
            connect_websocket(url(server, "wss"), ssl=certificate.client(), max_size=None) as websocket,
        ):
            for _ in range(5):
                await websocket.send(message)
            for _ in range(5):
                assert await websocket.recv() == message

    async def test_that_shake_hands_slowly_keep_nobody_waiting(self, certificate: Certificate) -> None:
        context = certificate.client()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        async with serve(Recorder(), **certificate.settings) as server:
            slow = []
            for number in range(200):
                reader, writer = await asyncio.open_connection(*server.listening_addresses[0])
                # Some in the middle of the first message, some before the last.
                writer.write(hello[: len(hello) - number % 3])
                slow.append((reader, writer))
            await until(lambda: len(server.connections) == 200)
            for _ in range(10):
                async with connect(server, tls=context) as peer:
                    assert await posts(peer)
            for number, (reader, writer) in enumerate(slow):
                if number % 3 == 0:
                    assert (await reader.read(1)) == b"\x16"
                writer.transport.abort()
            await until(lambda: not server.connections)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how large a process is")
class TestWhatConnectionsLeaveBehind:
    @pytest.fixture
    def server(self, certificate: Certificate, tmp_path: Path) -> Iterator[ServerProcess]:
        with serving(tmp_path, BODY_SIZE, *certificate.args, "--lifespan", "off") as server:
            yield server
        assert "Traceback" not in server.output()

    def test_at_rest_they_keep_no_buffers(self, certificate: Certificate, server: ServerProcess) -> None:
        size = 256 * 1024
        upload = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)

        context = certificate.client()
        connections = []
        try:
            for number in range(120):
                if number == 20:
                    before = server.memory()
                connections.append(shake_hands(server, context))
                connections[-1].sendall(upload)
                read_until(connections[-1], b"." * size)
            # Either way 256 KiB went through each of a hundred connections.
            assert server.memory() - before < 100 * 64 * 1024
        finally:
            for sock in connections:
                sock.close()

    def test_aborted_ones_leave_nothing(self, certificate: Certificate, server: ServerProcess) -> None:
        def abort(number: int) -> None:
            sock = shake_hands(server, context) if number % 4 > 1 else server.connect()
            if number % 4 == 1:
                sock.sendall(b"\x16\x03\x01\x02\x00\x01")
            elif number % 4 > 1:
                length = 1000 if number % 4 == 2 else 1
                sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx" % length)
            reset(sock) if number % 3 else sock.close()

        context = certificate.client()
        before = server.descriptors()
        for round_number in range(3):
            for number in range(240):
                abort(number)
            wait_for(lambda: server.descriptors() == before)
            if round_number == 0:
                warm = server.memory()
        assert server.memory() - warm < 2 * MEBIBYTE


#: Answers with as many dots as the body had bytes.
BODY_SIZE = """
async def application(scope, receive, send):
    size, event = 0, {"more_body": True}
    while event.get("more_body"):
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size += len(event["body"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": b"." * size})
"""

WITHOUT_PYOPENSSL = """
import sys
# An import of what is None in sys.modules fails as that of a module that is not installed.
sys.modules["OpenSSL"] = sys.modules["cryptography"] = sys.modules["service_identity"] = None
from asgiserver.cli import main
main(sys.argv[1:])
"""


class TestWithoutPyOpenSSL:
    """The extra ``tls`` is for descriptions alone."""

    def test_a_certificate_is_enough(self, certificate: Certificate) -> None:
        command = (sys.executable, "-c", WITHOUT_PYOPENSSL)
        with ServerProcess("-p", "0", *certificate.args, "examples.hello:application", command=command) as server:
            assert httpx.get(server.url, verify=certificate.client()).text == "Hello, world!\n"

    def test_a_description_says_what_is_missing(self, certificate: Certificate) -> None:
        endpoint = f"ssl:0:privateKey={certificate.key}"
        result = run_python(WITHOUT_PYOPENSSL, "-e", endpoint, "examples.hello:application")
        assert result.returncode == 2
        assert result.stderr.endswith(": TLS needs pyOpenSSL: install asgiserver[tls]\n")
