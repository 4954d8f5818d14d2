"""C3: our own TLS behind a PROXY header, as HAProxy sends it when it passes TLS through; with the real HAProxy."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trustme
from websockets.sync.client import connect as open_websocket

from asgiserver import Server
from tests.e2e.live import Peer, answer, connect, serve, until
from tests.e2e.server import ROOT, ServerProcess, connects, free_port, wait_for
from tests.programs import require

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
INET = b"\xcb\0\x71\7\xc6\x33\x64\1" + struct.pack("!HH", 4711, 443)
#: That the client has used no TLS to the proxy: TLS ends here, so that it does not matter.
V2_NO_TLS = V2 + struct.pack("!BBH", 0x21, 0x11, len(INET) + 8) + INET + b"\x20\0\5\0\0\0\0\0"
V2_LOCAL = V2 + b"\x20\0\0\0"
ANNOUNCED = [["203.0.113.7", 4711], ["198.51.100.1", 443]]

APPLICATION = '''
import json

def told(scope):
    return json.dumps([scope["client"], scope["server"], scope["scheme"], scope["http_version"]])

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": told(scope)})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": event["bytes"]})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-told", told(scope).encode())]})
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        await send({"type": "http.response.body", "body": event.get("body", b""), "more_body": more})
'''

HAPROXY = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 10s
    timeout server 10s
listen v1
    bind 127.0.0.1:{v1}
    server s 127.0.0.1:{server} send-proxy
listen v2
    bind 127.0.0.1:{v2}
    server s 127.0.0.1:{server} send-proxy-v2
"""


class Certificate(NamedTuple):
    authority: trustme.CA
    chain: Path
    key: Path
    root: Path

    @property
    def settings(self) -> dict[str, Any]:
        endpoints = ("haproxy:tcp:0:interface=127.0.0.1",)
        return {
            "port": None, "endpoints": endpoints, "ssl_certfile": str(self.chain), "ssl_keyfile": str(self.key),
        }  # fmt: skip

    @property
    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder, authority = tmp_path_factory.mktemp("certificate"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    chain, key, root = (folder / name for name in ("chain.pem", "key.pem", "root.pem"))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    root.write_bytes(authority.cert_pem.bytes())
    return Certificate(authority, chain, key, root)


@contextmanager
def behind_haproxy(certificate: Certificate, folder: Path, loop: str) -> Iterator[dict[str, int]]:
    """The command line behind a HAProxy that knows nothing of TLS; its ports by their names."""
    haproxy = require("haproxy")
    (folder / "telling.py").write_text(APPLICATION)
    args = (
        "-e", "haproxy:tcp:0:interface=127.0.0.1", "--ssl-certfile", str(certificate.chain),
        "--ssl-keyfile", str(certificate.key), "--app-dir", str(folder), "--loop", loop, "telling:application",
    )  # fmt: skip
    with ServerProcess(*args, cwd=ROOT) as server:
        assert server.url.startswith("https://127.0.0.1:")
        ports = {"v1": free_port(), "v2": free_port()}
        configuration = folder / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(**ports, server=server.port))
        command = [haproxy, "-db", "-f", str(configuration)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(lambda: all(map(connects, ports.values())), message="HAProxy does not listen")
                yield ports
            finally:
                process.kill()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_c3_haproxy_passes_tls_through(certificate: Certificate, tmp_path: Path, loop: str) -> None:
    """C3: httpx, websockets and curl through the program itself, with a header of either version."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    body = os.urandom(3 << 20)
    with behind_haproxy(certificate, tmp_path, loop) as ports:
        for port in ports.values():
            with httpx.Client(verify=certificate.client) as client:
                response = client.get(f"https://localhost:{port}/")
                own = response.extensions["network_stream"].get_extra_info("client_addr")
                assert json.loads(response.headers["x-told"]) == [list(own), ["127.0.0.1", port], "https", "1.1"]
                again = client.post(f"https://localhost:{port}/", content=body)
                assert (again.content, again.headers["x-told"]) == (body, response.headers["x-told"])
            with open_websocket(f"wss://localhost:{port}/", ssl=certificate.client) as peer:
                own = peer.socket.getsockname()
                assert json.loads(peer.recv()) == [list(own), ["127.0.0.1", port], "wss", "1.1"]
                peer.send(body[:100000])
                assert peer.recv() == body[:100000]
        plain = httpx.get(f"http://localhost:{ports['v2']}/")
        assert (plain.status_code, "https" in plain.text) == (400, True)
        for version in ("--http1.0", "--http1.1"):
            command = ["curl", "-sS", "-i", version, "--cacert", str(certificate.root)]
            curl = subprocess.run(
                [*command, f"https://localhost:{ports['v2']}/"], capture_output=True, text=True, timeout=20, check=True
            )
            assert curl.stdout.startswith("HTTP/1.1 200 ")
            assert f'"https", "{version[-3:]}"]' in curl.stdout


class Teller:
    """Tells what it has seen of a client."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen = [scope["client"], scope["server"], scope["scheme"]]
        await answer(send, b"body")


async def encrypted(peer: Peer, certificate: Certificate) -> None:
    await peer.writer.start_tls(certificate.client, server_hostname="localhost")


class TestOurTLSBehindAHeader:
    """C3."""

    async def test_the_announced_addresses_are_the_scopes(self, certificate: Certificate) -> None:
        application = Teller()
        async with serve(application, **certificate.settings) as server:
            host, port = server.listening_addresses[0]
            for head in (V1, V2_NO_TLS, V2_LOCAL):
                for cut in (1, len(head) - 1, len(head)):
                    async with connect(server) as peer:
                        await peer.send(head[:cut])
                        await until(lambda: len(server.connections) == 1)
                        await peer.send(head[cut:])
                        own = peer.writer.get_extra_info("sockname")
                        await encrypted(peer, certificate)
                        assert (await peer.request("GET", "/")).body == b"body"
                        assert (await peer.request("GET", "/")).body == b"body"
                    client, address, scheme = application.seen
                    expected = [list(own), [host, port]] if head is V2_LOCAL else ANNOUNCED
                    assert ([list(client), list(address)], scheme) == (expected, "https")
                    await until(lambda: not server.connections)

    @pytest.mark.parametrize("head", [V1, V2_NO_TLS])
    async def test_plain_http_behind_the_header_is_answered_400(self, certificate: Certificate, head: bytes) -> None:
        """C12: in plain text, as the client would read it."""
        application = Teller()
        async with serve(application, **certificate.settings) as server, connect(server) as peer:
            await peer.send(head + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            response = await peer.response()
            assert response.status == 400
            assert b"https" in response.body
            assert await peer.closed()
        assert application.seen == []

    @pytest.mark.parametrize(
        ("allowed", "data", "reason"),
        [
            (("10.0.0.0/8",), V1, "proxy_allow_ips does not name it"),
            (("*",), b"\x16\x03\x01\x02\x00\x01\x00", "it does not begin with a PROXY header"),
            (("*",), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "it does not begin with a PROXY header"),
            (("*",), b"PROXY TCP4 203.0.113.7 198.51.100.1 +1 1_1\r\n", "the line of its PROXY header is malformed"),
            (("*",), V2 + b"\x21\x11\xff\xff", "its PROXY header is too long"),
        ],
    )
    async def test_a_refused_header_is_one_line_in_the_log(
        self, certificate: Certificate, allowed: Any, data: bytes, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        async with serve(Teller(), proxy_allow_ips=allowed, **certificate.settings) as server:
            async with connect(server) as peer:
                try:
                    await peer.send(data)
                    assert await peer.read_rest() == b""
                except ConnectionError:
                    pass
            await until(lambda: not server.connections)
        lines = [record.getMessage() for record in caplog.records if record.name == "asgiserver.wire"]
        assert lines == [f"Refused a connection from 127.0.0.1: {reason}"]
        assert not [record for record in caplog.records if record.levelno > logging.INFO]

    @pytest.mark.parametrize("sent", [b"", V2_NO_TLS[:20], V1, V1 + b"\x16\x03\x01\x02\x00\x01"])
    async def test_header_and_handshake_have_the_time_of_a_first_byte(
        self, certificate: Certificate, sent: bytes
    ) -> None:
        async with serve(Teller(), first_byte_timeout=0.2, **certificate.settings) as server:
            async with connect(server) as peer:
                began = time.monotonic()
                await peer.send(sent)
                assert await peer.closed()
                assert 0.15 < time.monotonic() - began < 10
            await until(lambda: not server.connections)

    async def test_one_connection_too_many_is_told_so_within_tls(self, certificate: Certificate) -> None:
        settings = certificate.settings
        async with serve(Teller(), limit_connections=1, **settings) as server, connect(server), connect(server) as peer:
            await peer.send(V1)
            await encrypted(peer, certificate)
            assert (await peer.response()).status == 503
            assert await peer.closed()

    async def test_a_peer_that_leaves_within_the_header_is_forgotten(self, certificate: Certificate) -> None:
        async with serve(Teller(), **certificate.settings) as server:
            for sent in (b"", V1[:9], V1, V1 + b"\x16\x03\x01"):
                async with connect(server) as peer:
                    await peer.send(sent)
                    await until(lambda: len(server.connections) == 1)
                await until(lambda: not server.connections)

    async def test_the_certificate_is_for_host_and_port_and_for_tcp_behind_a_proxy(
        self, certificate: Certificate, tmp_path: Path
    ) -> None:
        """An endpoint without ``haproxy:`` stays plain, as one that is no port of TCP does."""
        path = str(tmp_path / "s")
        endpoints = ("haproxy:tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1", f"haproxy:unix:{path}")
        settings = {**certificate.settings, "port": 0, "endpoints": endpoints}
        application = Teller()
        async with serve(application, **settings) as server:
            schemes = [each.description.partition(":")[0] for each in server.listeners]
            assert schemes == ["https", "https", "http", "unix"]
            ports = [port for _, port in server.listening_addresses]
            for port, head, secure in ((ports[0], b"", True), (ports[1], V1, True), (ports[2], b"", False)):
                async with Peer(*await asyncio.open_connection("127.0.0.1", port)) as peer:
                    await peer.send(head)
                    if secure:
                        await encrypted(peer, certificate)
                    assert (await peer.request("GET", "/")).body == b"body"
                assert application.seen[2] == ("https" if secure else "http")
            async with Peer(*await asyncio.open_unix_connection(path)) as peer:
                await peer.send(V1)
                assert (await peer.request("GET", "/")).body == b"body"
            assert application.seen == [*ANNOUNCED, "http"]


class TestEveryKindOfPort:
    """C3: what stands behind the header is the connection that any other port has, with nothing in between."""

    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    async def test_a_file_is_sent_as_elsewhere(self, kind: str, tmp_path: Path) -> None:
        file, path = tmp_path / "file", str(tmp_path / "s")
        file.write_bytes(os.urandom(3 << 20))

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3145728")]})
            await send({"type": "http.response.pathsend", "path": str(file)})

        endpoint = f"haproxy:unix:{path}" if kind == "unix" else "haproxy:tcp:0:interface=127.0.0.1"
        async with (
            serve(application, port=None, endpoints=(endpoint,)) as server,
            Peer(*await self.open(server, path, kind)) as peer,
        ):
            for head in (V1, b""):
                await peer.send(head)
                assert (await peer.request("GET", "/")).body == file.read_bytes()

    async def open(self, server: Server, path: str, kind: str) -> Any:
        if kind == "unix":
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(*server.listening_addresses[0])

    async def test_a_connection_that_writes_has_its_socket(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            [connection] = server.connections
            assert connection._socket is connection.transport.getHandle()  # type: ignore[attr-defined]
            await answer(send, b"body")

        endpoints = ("haproxy:tcp:0:interface=127.0.0.1",)
        async with serve(application, port=None, endpoints=endpoints) as server, connect(server) as peer:
            await peer.send(V1)
            assert (await peer.request("GET", "/")).body == b"body"
