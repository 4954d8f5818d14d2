"""Who the client is, behind proxies: through the whole server, for HTTP and WebSocket alike."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from asgiserver import Server
from asgiserver.errors import SettingsError
from tests.e2e.live import Peer, answer, connect, serve, until
from tests.e2e.server import run_command

PROXY = ("127.0.0.1", "::1")
#: A proxy of the machine's, and one before it.
CHAIN = (*PROXY, "10.0.0.0/8")


class Site:
    """Keeps the scopes, answers requests and denies WebSockets; and what the action logger was told."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.actions: list[tuple[str, str, dict[str, Any]]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await answer(send)
        else:
            await receive()
            await send({"type": "websocket.close"})

    def log(self, *action: Any) -> None:
        self.actions.append(action)

    @property
    def client(self) -> Any:
        found = self.scopes[-1]["client"]
        return None if found is None else tuple(found)

    @property
    def secure(self) -> bool:
        scope = self.scopes[-1]
        assert scope["scheme"] in {"http": ("http", "https"), "websocket": ("ws", "wss")}[scope["type"]]
        secure: bool = scope["scheme"] in ("https", "wss")
        return secure

    @property
    def hosts(self) -> list[bytes]:
        return [value for name, value in self.scopes[-1]["headers"] if name == b"host"]


@pytest.fixture
def site() -> Site:
    return Site()


async def ask(peer: Peer, kind: str, *fields: str) -> None:
    if kind == "http":
        assert (await peer.request("GET", "/path", *fields)).status == 200
        return
    handshake = (
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    assert (await peer.request("GET", "/path", *handshake, *fields)).status == 403


async def asked(site: Site, kind: str, *fields: str, **settings: Any) -> tuple[str, int]:
    """Ask once; the real address of the peer."""
    async with serve(site, action_logger=site.log, **settings) as server, connect(server) as peer:
        address: tuple[str, int] = peer.writer.get_extra_info("sockname")[:2]
        await ask(peer, kind, *fields)
    return address


both = pytest.mark.parametrize("kind", ["http", "websocket"])  # T266


@both
class TestTrust:
    async def test_nobody_is_believed_by_default(self, site: Site, kind: str) -> None:
        """T255."""
        fields = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "Forwarded: for=203.0.113.7;proto=https")
        assert await asked(site, kind, *fields) == site.client
        assert not site.secure

    async def test_a_peer_that_is_not_on_the_list_is_not_believed(self, site: Site, kind: str) -> None:
        """T262."""
        fields = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: other.example")
        peer = await asked(site, kind, *fields, proxy_headers=True, forwarded_allow_ips=("10.0.0.0/8",))
        assert (site.client, site.secure, site.hosts) == (peer, False, [b"example.org"])

    @pytest.mark.parametrize(
        "trusted", [("127.0.0.1",), ("127.0.0.0/8",), ("*",), ("::ffff:127.0.0.1",), "10.1.1.1, 127.0.0.1"]
    )
    async def test_by_address_network_and_everybody(self, site: Site, kind: str, trusted: Any) -> None:
        """T261, T256."""
        fields = ("X-Forwarded-For: 203.0.113.7:4711",)
        await asked(site, kind, *fields, proxy_headers=True, forwarded_allow_ips=trusted)
        assert site.client == ("203.0.113.7", 4711)

    @pytest.mark.parametrize(("trusted", "client"), [(("unix",), ("203.0.113.7", 0)), (PROXY, None)])
    async def test_of_peers_on_a_unix_socket(
        self, site: Site, kind: str, trusted: Any, client: Any, tmp_path: Path
    ) -> None:
        """T261."""
        path = str(tmp_path / "s")
        settings = {"port": None, "unix_socket": path, "proxy_headers": True, "forwarded_allow_ips": trusted}
        async with serve(site, **settings), Peer(*await asyncio.open_unix_connection(path)) as peer:
            await ask(peer, kind, "X-Forwarded-For: 203.0.113.7")
        assert site.client == client


def test_a_list_that_cannot_be_is_refused() -> None:
    """T261."""
    with pytest.raises(SettingsError, match="10\\.0\\.0\\.1/8"):
        Server(Site(), port=0, proxy_headers=True, forwarded_allow_ips=("10.0.0.1/8",))
    # Also before it is needed: a mistake is to be found on the day it is made.
    with pytest.raises(SettingsError, match=r"300\.1\.1\.1"):
        Server(Site(), port=0, forwarded_allow_ips=("300.1.1.1",))
    result = run_command("-p", "0", "--proxy-headers", "--forwarded-allow-ips", "localhost", "examples.hello")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "'localhost'" in result.stderr


@both
class TestClient:
    async def check(self, site: Site, kind: str, fields: Any, client: Any, **settings: Any) -> None:
        settings = {"proxy_headers": True, "forwarded_allow_ips": CHAIN, **settings}
        peer = await asked(site, kind, *fields, **settings)
        assert site.client == (peer if client is None else client)

    @pytest.mark.parametrize(
        ("fields", "client"),
        [
            # T256, T257
            (["X-Forwarded-For: 203.0.113.7", "X-Forwarded-Port: 4711"], ("203.0.113.7", 4711)),
            (["X-Forwarded-For: 203.0.113.7:4711"], ("203.0.113.7", 4711)),
            (["X-Forwarded-For: 203.0.113.7"], ("203.0.113.7", 0)),
            # T258
            (["X-Forwarded-For: 2001:db8::7"], ("2001:db8::7", 0)),
            (["X-Forwarded-For: [2001:db8::7]"], ("2001:db8::7", 0)),
            (["X-Forwarded-For: [2001:db8::7]:4711"], ("2001:db8::7", 4711)),
            # T259: what stands left of the first that is not trusted was written by the client
            (["X-Forwarded-For: 198.51.100.1, 203.0.113.7, 10.1.1.1"], ("203.0.113.7", 0)),
            (["X-Forwarded-For: 10.2.2.2, 10.1.1.1"], ("10.2.2.2", 0)),
            (["X-Forwarded-For: 198.51.100.1, 203.0.113.7"], ("203.0.113.7", 0)),
            # T260
            (["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 10.1.1.1"],
             ("203.0.113.7", 0)),
            # T263
            (["X-Forwarded-For:"], None),
            (["X-Forwarded-For: ,"], None),
            (["X-Forwarded-For: unknown"], None),
            (["X-Forwarded-For: 203.0.113.7, rubbish"], None),
            (["X-Forwarded-For: 203.0.113.7:99999"], None),
            (["X-Forwarded-For: 203.0.113.7, rubbish, 10.1.1.1"], ("10.1.1.1", 0)),
            # T265
            (["Forwarded: for=203.0.113.7"], ("203.0.113.7", 0)),
            (['Forwarded: for="[2001:db8::7]:4711";proto=https'], ("2001:db8::7", 4711)),
            (["Forwarded: for=198.51.100.1, for=203.0.113.7, for=10.1.1.1"], ("203.0.113.7", 0)),
            (["Forwarded: for=_hidden"], None),
        ],
    )  # fmt: skip
    async def test_is_the_first_from_the_right_that_is_not_trusted(
        self, site: Site, kind: str, fields: list[str], client: tuple[str, int] | None
    ) -> None:
        await self.check(site, kind, fields, client)

    async def test_is_taken_from_the_fields_that_the_settings_name(self, site: Site, kind: str) -> None:
        """T221, T222."""
        fields = ("X-Real-IP: 203.0.113.7", "X-Real-Port: 4711", "X-Forwarded-For: 198.51.100.1")
        names = {"proxy_headers_host": "X-Real-IP", "proxy_headers_port": "X-Real-Port"}
        await self.check(site, kind, fields, ("203.0.113.7", 4711), **names)

    async def test_is_taken_as_daphnes_server_is_told(self, site: Site, kind: str) -> None:
        names = {"proxy_forwarded_address_header": "X-Real-IP", "proxy_forwarded_proto_header": "X-Scheme"}
        await asked(site, kind, "X-Real-IP: 203.0.113.7", "X-Scheme: https", **names)
        assert (site.client, site.secure) == (("203.0.113.7", 0), True)

    async def test_is_new_for_each_request_of_a_connection(self, site: Site, kind: str) -> None:
        async with serve(site, proxy_headers=True) as server, connect(server) as peer:
            for number in (1, 2, 3):
                await ask(peer, kind, f"X-Forwarded-For: 203.0.113.{number}")
            await ask(peer, kind)
            own = peer.writer.get_extra_info("sockname")
        clients = [tuple(scope["client"]) for scope in site.scopes]
        assert clients == [("203.0.113.1", 0), ("203.0.113.2", 0), ("203.0.113.3", 0), own]


@both
class TestSchemeAndHost:
    @pytest.mark.parametrize(
        ("value", "secure"),
        [
            ("https", True), ("http", False), ("HTTPS", True), ("wss", True), ("ws", False), ("http, https", True),
            ("https, http", False), ("ftp", False), ("", False), ("https://", False),
        ],
    )  # fmt: skip
    async def test_the_last_scheme_counts_if_it_is_one(self, site: Site, kind: str, value: str, secure: bool) -> None:
        """T264."""
        await asked(site, kind, f"X-Forwarded-Proto: {value}", proxy_headers=True)
        assert site.secure is secure

    @pytest.mark.parametrize(
        ("field", "host"),
        [
            ("X-Forwarded-Host: site.example:8443", b"site.example:8443"),
            ("X-Forwarded-Host: evil.example, site.example", b"site.example"),
            ("X-Forwarded-Host: [2001:db8::7]:80", b"[2001:db8::7]:80"),
            ("X-Forwarded-Host: two words", b"example.org"),
            ("X-Forwarded-Host: a/b", b"example.org"),
            ("Forwarded: for=203.0.113.7;host=site.example", b"site.example"),
        ],
    )
    async def test_the_last_host_counts_if_it_is_one(self, site: Site, kind: str, field: str, host: bytes) -> None:
        """T265."""
        await asked(site, kind, field, proxy_headers=True)
        assert site.hosts == [host]


@both
class TestAccessLog:
    async def test_shows_the_client_and_not_the_proxy(self, site: Site, kind: str) -> None:
        """T268."""
        await asked(site, kind, "X-Forwarded-For: 203.0.113.7:4711", proxy_headers=True)
        assert site.actions
        assert {details["client"] for _, _, details in site.actions} == {"203.0.113.7:4711"}

    async def test_shows_it_in_daphnes_line(self, site: Site, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.access")
        async with serve(site, proxy_headers=True) as server, connect(server) as peer:
            await ask(peer, kind, "X-Forwarded-For: 203.0.113.7:4711")
        lines = [record.getMessage() for record in caplog.records if record.name == "asgiserver.access"]
        assert lines
        assert all(line.startswith("203.0.113.7:4711 - - [") for line in lines)


V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2 = V2_SIGNATURE + b"\x21\x11" + struct.pack(
    "!H4s4sHH", 12, socket.inet_aton("203.0.113.7"), socket.inet_aton("198.51.100.1"), 4711, 443
)  # fmt: skip
V2_LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"
HAPROXY = {"port": None, "endpoints": ("haproxy:tcp:0:interface=127.0.0.1",)}


@both
class TestProxyProtocol:
    """T267."""

    @pytest.mark.parametrize(
        ("head", "client", "server_address"),
        [
            (V1, ("203.0.113.7", 4711), ("198.51.100.1", 443)),
            (V1_IPV6, ("2001:db8::7", 4711), ("2001:db8::1", 443)),
            (V2, ("203.0.113.7", 4711), ("198.51.100.1", 443)),
        ],
    )
    async def test_gives_both_addresses_for_all_requests_of_a_connection(
        self, site: Site, kind: str, head: bytes, client: Any, server_address: Any
    ) -> None:
        async with serve(site, action_logger=site.log, **HAPROXY) as server, connect(server) as peer:
            await peer.send(head)
            await ask(peer, kind)
            await ask(peer, kind)
        for scope in site.scopes:
            assert (tuple(scope["client"]), tuple(scope["server"])) == (client, server_address)
        assert {details["client"] for _, _, details in site.actions} == {"{}:{}".format(*client)}

    @pytest.mark.parametrize("head", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 1 2 3 4\r\n", V2_LOCAL])
    async def test_keeps_the_sockets_address_when_it_gives_none(self, site: Site, kind: str, head: bytes) -> None:
        async with serve(site, **HAPROXY) as server, connect(server) as peer:
            await peer.send(head)
            await ask(peer, kind)
            assert site.client == peer.writer.get_extra_info("sockname")

    async def test_in_small_pieces_is_the_same(self, site: Site, kind: str) -> None:
        async with serve(site, **HAPROXY) as server, connect(server) as peer:
            for byte in V2:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.001)
            await ask(peer, kind)
        assert site.client == ("203.0.113.7", 4711)

    async def test_its_client_is_who_must_be_trusted_with_forwarding_fields(self, site: Site, kind: str) -> None:
        async with serve(site, proxy_headers=True, **HAPROXY) as server, connect(server) as peer:
            await peer.send(V1)
            await ask(peer, kind, "X-Forwarded-For: 192.0.2.1")
        assert site.client == ("203.0.113.7", 4711)


class TestProxyProtocolRefusals:
    """T267."""

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PROXY TCP4 203.0.113.7\r\n",
            b"PROXY TCP4 999.0.113.7 198.51.100.1 4711 443\r\n",
            b"PROXY " + b"x" * 200,
            V2_SIGNATURE + b"\x31\x11\x00\x00",
        ],
    )
    async def test_what_is_no_header_closes_the_connection_and_disturbs_nobody(self, site: Site, data: bytes) -> None:
        async with serve(site, **HAPROXY) as server:
            async with connect(server) as peer:
                await peer.send(data)
                assert await peer.closed()
            async with connect(server) as peer:
                await peer.send(V1)
                await ask(peer, "http")
        assert len(site.scopes) == 1

    @pytest.mark.parametrize("sent", [b"", b"PROXY TCP4 203", V1])
    async def test_a_proxy_that_says_no_more_is_dropped_at_the_deadline(self, site: Site, sent: bytes) -> None:
        async with serve(site, first_byte_timeout=0.2, close_timeout=0.2, **HAPROXY) as server, connect(server) as peer:
            await peer.send(sent)
            assert await peer.closed()
            await until(lambda: not server.connections)

    async def test_a_client_behind_it_that_still_sends_gets_the_early_answer(self, site: Site) -> None:
        """T069, behind a wrapping transport too."""
        async with serve(site, limit_body_size=1000, **HAPROXY) as server:
            for _ in range(3):
                async with connect(server) as peer:
                    await peer.send(V1 + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
                    await peer.send(bytes(4000000))
                    assert (await peer.response()).status == 413
