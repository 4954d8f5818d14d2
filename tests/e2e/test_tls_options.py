"""Certificates by name, changed while serving, of clients; by real clients."""

from __future__ import annotations

import asyncio
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

from tests.e2e.live import DEADLINE, Peer, answer, in_loop, serve
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
