"""Our own TLS behind a PROXY header, as HAProxy sends it when it passes TLS through; with the real HAProxy."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect as open_websocket

from tests.e2e.applications import Recorder, sending, start
from tests.e2e.certificate import Certificate
from tests.e2e.live import GET, Peer, answer, connect, serve, until
from tests.e2e.proxies import CLIENT, HAPROXY_ENDPOINT, SERVER, V1, V2_LOCAL, V2_SIGNATURE, Listen, haproxy, v2
from tests.e2e.server import serving

#: That the client has used no TLS to the proxy: TLS ends here, so that it does not matter.
V2_NO_TLS = v2(b"\x20\0\5\0\0\0\0\0")
ANNOUNCED = (CLIENT, SERVER, "https")

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

@pytest.fixture
def settings(certificate: Certificate) -> dict[str, Any]:
    return {**HAPROXY_ENDPOINT, **certificate.settings}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_haproxy_passes_tls_through(certificate: Certificate, tmp_path: Path, loop: str) -> None:
    """Httpx, websockets and curl through the program itself, with a header of either version."""
    pytest.importorskip(loop)
    body = os.urandom(3 << 20)
    where = ("-e", "haproxy:tcp:0:interface=127.0.0.1", *certificate.args)
    with (
        serving(tmp_path, APPLICATION, *where, "--loop", loop) as server,
        haproxy(tmp_path, v1=Listen(server.port, "send-proxy"), v2=Listen(server.port, "send-proxy-v2")) as ports,
    ):
        assert server.url.startswith("https://127.0.0.1:")
        for port in ports.values():
            with httpx.Client(verify=certificate.client()) as client:
                response = client.get(f"https://localhost:{port}/")
                own = response.extensions["network_stream"].get_extra_info("client_addr")
                assert json.loads(response.headers["x-told"]) == [list(own), ["127.0.0.1", port], "https", "1.1"]
                again = client.post(f"https://localhost:{port}/", content=body)
                assert (again.content, again.headers["x-told"]) == (body, response.headers["x-told"])
            with open_websocket(f"wss://localhost:{port}/", ssl=certificate.client()) as peer:
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


async def encrypted(peer: Peer, certificate: Certificate) -> None:
    await peer.writer.start_tls(certificate.client(), server_hostname="localhost")


async def posts(peer: Peer) -> bool:
    """A request's body comes back."""
    return (await peer.request("POST", "/", body=b"body")).body == b"body"


class TestOurTLSBehindAHeader:
    async def test_the_announced_addresses_are_the_scopes(
        self, certificate: Certificate, settings: dict[str, Any]
    ) -> None:
        application = Recorder()
        async with serve(application, **settings) as server:
            host, port = server.listening_addresses[0]
            for head in (V1, V2_NO_TLS, V2_LOCAL):
                for cut in (1, len(head) - 1, len(head)):
                    async with connect(server) as peer:
                        await peer.send(head[:cut])
                        await until(lambda: len(server.connections) == 1)
                        await peer.send(head[cut:])
                        own = peer.writer.get_extra_info("sockname")
                        await encrypted(peer, certificate)
                        assert await posts(peer)
                        assert await posts(peer)
                    assert application.seen == ((own, (host, port), "https") if head is V2_LOCAL else ANNOUNCED)
                    await until(lambda: not server.connections)

    @pytest.mark.parametrize("head", [V1, V2_NO_TLS])
    async def test_plain_http_behind_the_header_is_answered_400(self, settings: dict[str, Any], head: bytes) -> None:
        """In plain text, as the client would read it."""
        application = Recorder()
        async with serve(application, **settings) as server, connect(server) as peer:
            await peer.send(head + GET)
            response = await peer.response()
            assert response.status == 400
            assert b"https" in response.body
            assert await peer.closed()
        assert application.scopes == []

    @pytest.mark.parametrize(
        ("allowed", "data", "reason"),
        [
            (("10.0.0.0/8",), V1, "proxy_allow_ips does not name it"),
            (("*",), b"\x16\x03\x01\x02\x00\x01\x00", "it does not begin with a PROXY header"),
            (("*",), GET, "it does not begin with a PROXY header"),
            (("*",), b"PROXY TCP4 203.0.113.7 198.51.100.1 +1 1_1\r\n", "the line of its PROXY header is malformed"),
            (("*",), V2_SIGNATURE + b"\x21\x11\xff\xff", "its PROXY header is too long"),
        ],
    )
    async def test_a_refused_header_is_one_line_in_the_log(
        self, settings: dict[str, Any], allowed: Any, data: bytes, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        async with serve(Recorder(), proxy_allow_ips=allowed, **settings) as server:
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
        self, settings: dict[str, Any], sent: bytes
    ) -> None:
        async with serve(Recorder(), first_byte_timeout=0.2, **settings) as server:
            async with connect(server) as peer:
                began = time.monotonic()
                await peer.send(sent)
                assert await peer.closed()
                assert 0.15 < time.monotonic() - began < 10
            await until(lambda: not server.connections)

    async def test_one_connection_too_many_is_told_so_within_tls(
        self, certificate: Certificate, settings: dict[str, Any]
    ) -> None:
        settings["limit_connections"] = 1
        async with serve(Recorder(), **settings) as server, connect(server), connect(server) as peer:
            await peer.send(V1)
            await encrypted(peer, certificate)
            assert (await peer.request("GET", "/")).status == 503
            assert await peer.closed()

    async def test_a_peer_that_leaves_within_the_header_is_forgotten(self, settings: dict[str, Any]) -> None:
        async with serve(Recorder(), **settings) as server:
            for sent in (b"", V1[:9], V1, V1 + b"\x16\x03\x01"):
                async with connect(server) as peer:
                    await peer.send(sent)
                    await until(lambda: len(server.connections) == 1)
                await until(lambda: not server.connections)

    async def test_the_certificate_is_for_host_and_port_and_for_tcp_behind_a_proxy(
        self, certificate: Certificate, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        """An endpoint without ``haproxy:`` stays plain, as one that is no port of TCP does."""
        path = str(tmp_path / "s")
        endpoints = ("haproxy:tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1", f"haproxy:unix:{path}")
        settings |= {"port": 0, "endpoints": endpoints}
        application = Recorder()
        async with serve(application, **settings) as server:
            schemes = [each.description.partition(":")[0] for each in server.listeners]
            assert schemes == ["https", "https", "http", "unix"]
            ports = [port for _, port in server.listening_addresses]
            for port, head, secure in ((ports[0], b"", True), (ports[1], V1, True), (ports[2], b"", False)):
                async with connect(("127.0.0.1", port)) as peer:
                    await peer.send(head)
                    if secure:
                        await encrypted(peer, certificate)
                    assert await posts(peer)
                assert application.seen[2] == ("https" if secure else "http")
            async with connect(path) as peer:
                await peer.send(V1)
                assert await posts(peer)
            assert application.seen == (CLIENT, SERVER, "http")


class TestEveryKindOfPort:
    """What stands behind the header is the connection that any other port has, with nothing in between."""

    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    async def test_a_file_is_sent_as_elsewhere(self, kind: str, tmp_path: Path) -> None:
        file, path = tmp_path / "file", str(tmp_path / "s")
        file.write_bytes(os.urandom(3 << 20))
        application = sending(
            start(200, (b"content-length", b"3145728")), {"type": "http.response.pathsend", "path": str(file)}
        )
        settings = {**HAPROXY_ENDPOINT, **({"endpoints": (f"haproxy:unix:{path}",)} if kind == "unix" else {})}
        async with serve(application, **settings) as server, connect(path if kind == "unix" else server) as peer:
            for head in (V1, b""):
                await peer.send(head)
                assert (await peer.request("GET", "/")).body == file.read_bytes()

    async def test_a_connection_that_writes_has_its_socket(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            [connection] = server.connections
            assert connection.output.socket is connection.transport.getHandle()  # type: ignore[attr-defined]
            await answer(send, b"body")

        async with serve(application, **HAPROXY_ENDPOINT) as server, connect(server) as peer:
            await peer.send(V1)
            assert (await peer.request("GET", "/")).body == b"body"
