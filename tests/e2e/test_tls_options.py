"""Certificates by name, changed while serving, of clients, and the port that sends on to https; by real clients."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from asgiserver import Settings
from asgiserver.errors import ListenError, SettingsError
from tests.e2e.live import DEADLINE, Peer, answer, in_loop, serve, until
from tests.e2e.server import ServerProcess, wait_for
from tests.programs import require

CA = trustme.CA()


def issue(path: Path, *names: str) -> str:
    CA.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def names(port: int, asked: str) -> list[str]:
    """The names in the certificate that a client which asks for ``asked`` is shown."""
    context = trusting()
    context.check_hostname = False
    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    with context.wrap_socket(plain, server_hostname=asked) as sock:
        found: Any = sock.getpeercert()
        return [name for _, name in found["subjectAltName"]]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"Hello")


def serving(*args: str) -> ServerProcess:
    return ServerProcess("-b", "127.0.0.1", "-p", "0", *args, "examples.hello:application")


class TestCertificates:
    def test_are_chosen_by_name(self, tmp_path: Path) -> None:
        first, second = issue(tmp_path / "1", "one.example"), issue(tmp_path / "2", "*.two.example")
        args = ("--ssl-certfile", first, "--ssl-keyfile", first, "--ssl-certfile", second, "--ssl-keyfile", second)
        with serving(*args) as server:
            assert names(server.port, "www.two.example") == ["*.two.example"]
            assert names(server.port, "one.example") == ["one.example"]
            assert names(server.port, "else.example") == ["one.example"]

    def test_that_change_are_read_again_at_hup_and_no_connection_is_dropped(self, tmp_path: Path) -> None:
        path = issue(tmp_path / "pem", "127.0.0.1", "old.example")
        with serving("--ssl-certfile", path) as server, httpx.Client(verify=trusting()) as client:
            stream = client.build_request("GET", server.url)
            before = client.send(stream).extensions["network_stream"]
            assert names(server.port, "x") == ["127.0.0.1", "old.example"]
            issue(tmp_path / "pem", "127.0.0.1", "new.example")
            server.send_signal(signal.SIGHUP)
            wait_for(lambda: "The certificates were read again" in server.output())
            assert names(server.port, "x") == ["127.0.0.1", "new.example"]
            assert client.get(server.url).extensions["network_stream"] is before
            for _ in range(2):
                (tmp_path / "pem").write_text("junk")
                server.send_signal(signal.SIGHUP)
            wait_for(lambda: "The certificates stay as they are" in server.output())
            assert names(server.port, "x") == ["127.0.0.1", "new.example"]
            assert client.get(server.url).text == "Hello, world!\n"
        assert "SIGHUP is ignored" not in server.output()
        assert "Traceback" not in server.output()

    def test_of_an_encrypted_key(self, tmp_path: Path) -> None:
        path, key = issue(tmp_path / "pem", "127.0.0.1"), tmp_path / "key"
        command = [require("openssl"), "pkey", "-in", path, "-aes256", "-passout", "pass:secret", "-out", str(key)]
        subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE)
        (tmp_path / "password").write_text("secret\n")
        password = ("--ssl-keyfile-password-file", str(tmp_path / "password"))
        with serving("--ssl-certfile", path, "--ssl-keyfile", str(key), *password) as server:
            assert httpx.get(server.url, verify=trusting()).text == "Hello, world!\n"

    @in_loop
    async def test_of_clients_are_required(self, tmp_path: Path) -> None:
        asked = 0

        async def application(scope: Any, receive: Any, send: Any) -> None:
            nonlocal asked
            asked += scope["type"] == "http"
            await hello(scope, receive, send)

        CA.cert_pem.write_to_path(tmp_path / "ca")
        settings = {"ssl_certfile": issue(tmp_path / "pem", "127.0.0.1"), "ssl_ca_certs": str(tmp_path / "ca")}
        known = trusting()
        CA.issue_cert("client@example.org").configure_cert(known)
        async with serve(application, lifespan="off", **settings) as server:
            url = f"https://127.0.0.1:{server.listening_addresses[0][1]}"
            async with httpx.AsyncClient(verify=known) as client:
                assert (await client.get(url)).text == "Hello"
            async with httpx.AsyncClient(verify=trusting()) as client:
                # With TLS 1.3 the alert comes after what the client takes for the end of the handshake.
                with pytest.raises((httpx.TransportError, ssl.SSLError)):
                    await client.get(url)
            assert asked == 1

    @in_loop
    async def test_a_handshake_has_its_time(self, tmp_path: Path) -> None:
        settings = {"ssl_certfile": issue(tmp_path / "pem", "127.0.0.1"), "ssl_handshake_timeout": 0.3}
        async with serve(hello, **settings) as server:
            address = server.listening_addresses[0]
            shaken = await asyncio.open_connection(*address, ssl=trusting())
            stalled = await asyncio.open_connection(*address)
            async with Peer(*shaken) as peer, Peer(*stalled) as late:
                began = time.monotonic()
                with pytest.raises(ConnectionResetError):
                    await late.read_rest()
                assert time.monotonic() - began > 0.2
                assert (await peer.request("GET", "/")).body == b"Hello"


class TestDefaults:
    """What a scanner of TLS looks for."""

    @pytest.mark.parametrize(
        ("options", "refused"),
        [
            (["-tls1"], True), (["-tls1_1"], True), (["-tls1_2"], False), (["-tls1_3"], False),
            (["-tls1_2", "-cipher", "AES128-GCM-SHA256"], True),
            (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA"], True),
            (["-tls1_2", "-cipher", "DHE:aNULL:eNULL:PSK:CAMELLIA:ARIA"], True),
            (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], False),
            (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], False),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )  # fmt: skip
    def test_versions_and_ciphers(self, options: list[str], refused: bool, server: ServerProcess) -> None:
        if "-cipher" not in options:
            options = [*options, "-cipher", "ALL:@SECLEVEL=0"]
        done = self.client(server, *options)
        assert ("Cipher is (NONE)" in done) == refused, done

    def test_neither_compression_nor_old_renegotiation_and_one_ticket(self, server: ServerProcess) -> None:
        done = self.client(server, "-tls1_2", "-comp")
        assert "Compression: NONE" in done
        assert "Secure Renegotiation IS supported" in done
        assert done.count("TLS session ticket lifetime hint") == 1
        assert int(done.partition("lifetime hint: ")[2].split()[0]) <= 86400

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Any:
        with serving("--ssl-certfile", issue(tmp_path_factory.mktemp("pem") / "pem", "127.0.0.1")) as server:
            yield server

    def client(self, server: ServerProcess, *options: str) -> str:
        command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", *options]
        done = subprocess.run(
            command, input=b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE, check=False
        )
        return done.stdout.decode(errors="replace")


class TestRedirect:
    def test_by_the_command_line(self, tmp_path: Path) -> None:
        args = ("--ssl-certfile", issue(tmp_path / "pem", "127.0.0.1"), "--redirect-to-https", "0")
        command = ("-b", "127.0.0.1", "-p", "0", *args, "examples.hello:application")
        with ServerProcess(*command, listeners=2) as server:
            secure, plain = server.urls
            with httpx.Client(verify=trusting()) as client:
                first = client.get(f"{plain}/a%20b?c=%2F")
                assert (first.status_code, first.text) == (308, "Ask for the https address.\n")
                assert first.headers["location"] == f"{secure}/a%20b?c=%2F"
                assert "strict-transport-security" not in first.headers
                head = client.head(plain)
                assert (head.status_code, head.headers["location"]) == (308, f"{secure}/")
                followed = client.post(f"{plain}/", content=b"x" * 100000, follow_redirects=True)
                assert (followed.status_code, str(followed.url)) == (200, f"{secure}/")
            if curl := shutil.which("curl"):
                pem = tmp_path / "ca"
                CA.cert_pem.write_to_path(pem)
                done = subprocess.run(
                    [curl, "-sSL", "--cacert", str(pem), plain], capture_output=True, timeout=DEADLINE, check=False
                )
                assert done.stdout == b"Hello, world!\n"
        assert '"GET /a%20b?c=%2F" 308' in server.output()
        assert "Refused" not in server.output()

    @in_loop
    async def test_no_request_reaches_the_application(self, tmp_path: Path) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("asked")

        failures: list[BaseException] = []
        settings = {"ssl_certfile": issue(tmp_path / "pem", "127.0.0.1"), "redirect_to_https": 0, "lifespan": "off"}
        async with serve(application, on_failure=failures.append, **settings) as server:
            port = server.listening_addresses[0][1]
            plain = server.listening_addresses[1]
            for request, status, where in [
                (b"GET http://a.example:1/x HTTP/1.1\r\nHost: b.example\r\n\r\n", 308, "https://a.example/x"),
                (b"GET /x HTTP/1.0\r\n\r\n", 400, None),
                (b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", 400, None),
                (
                    b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % plain[1],
                    308, f"https://127.0.0.1:{port}/chat",
                ),
            ]:  # fmt: skip
                async with Peer(*await asyncio.open_connection(*plain)) as peer:
                    await peer.send(request)
                    response = await peer.response()
                    assert response.status == status
                    assert dict(response.headers).get("location") == where
                    assert await peer.closed()
            await until(lambda: not server.connections)
        assert not failures

    @in_loop
    async def test_a_port_that_is_taken_leaves_nothing_open(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings = {"ssl_certfile": issue(tmp_path / "pem", "127.0.0.1")}
            with pytest.raises(ListenError, match="in use"):
                async with serve(hello, redirect_to_https=taken.getsockname()[1], **settings):
                    pass

    @pytest.mark.parametrize(
        "settings", [{}, {"ssl_certfile": ("x",), "endpoints": ("haproxy:tcp:0",)}, {"unix_socket": "x"}]
    )
    @in_loop
    async def test_it_needs_a_port_of_tls(self, settings: dict[str, Any]) -> None:
        from asgiserver.listen.bind import bind

        with pytest.raises(SettingsError, match="redirect_to_https needs ssl_certfile, and a host and port"):
            await bind(Settings(redirect_to_https=0, **settings))
