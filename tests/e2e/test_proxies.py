"""Who the client is, behind proxies: through the whole server, for HTTP and WebSocket alike."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from asgiserver import Server
from asgiserver.errors import SettingsError
from tests.e2e.applications import Recorder
from tests.e2e.live import GET, Peer, connect, post, serve, until
from tests.e2e.proxies import CLIENT, HAPROXY_ENDPOINT, SERVER, V1, V2, V2_LOCAL, V2_SIGNATURE
from tests.e2e.server import run_command
from tests.e2e.websocket import handshake, refused

PROXY = ("127.0.0.1", "::1")
#: A proxy of the machine's, and one before it.
CHAIN = (*PROXY, "10.0.0.0/8")
#: The host of a request itself.
OWN = b"example.org"


class Site(Recorder):
    """Keeps the scopes, answers requests and denies WebSockets; and what the action logger was told."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[tuple[str, str, dict[str, Any]]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await super().__call__(scope, receive, send)
        else:
            self.scopes.append(scope)
            await receive()
            await send({"type": "websocket.close"})

    def log(self, *action: Any) -> None:
        self.actions.append(action)

    @property
    def client(self) -> Any:
        return self.seen[0]

    @property
    def secure(self) -> bool:
        assert self.scope["scheme"] in {"http": ("http", "https"), "websocket": ("ws", "wss")}[self.scope["type"]]
        return self.scope["scheme"] in ("https", "wss")

    @property
    def hosts(self) -> list[bytes]:
        return [value for name, value in self.scope["headers"] if name == b"host"]


@pytest.fixture
def site() -> Site:
    return Site()


async def ask(peer: Peer, kind: str, *fields: str) -> None:
    if kind == "http":
        assert (await peer.request("GET", "/path", *fields)).status == 200
    else:
        assert (await refused(peer, handshake(*fields, target="/path"))).status == 403


async def asked(site: Site, kind: str, *fields: str, **settings: Any) -> tuple[str, int]:
    """Ask once; the real address of the peer."""
    async with serve(site, action_logger=site.log, **settings) as server, connect(server) as peer:
        address: tuple[str, int] = peer.writer.get_extra_info("sockname")[:2]
        await ask(peer, kind, *fields)
    return address


both = pytest.mark.parametrize("kind", ["http", "websocket"])


ON, CHAINED = {"proxy_headers": True}, {"proxy_headers": True, "forwarded_allow_ips": CHAIN}
FOR, PROTO = "X-Forwarded-For: ", "X-Forwarded-Proto: "
ONE = ("203.0.113.7", 0)
WITH_PORT = ("203.0.113.7", 4711)


def row(*fields: str, settings: Any = CHAINED, client: Any = None, secure: bool = False, host: bytes = OWN) -> Any:
    """Fields of a request and settings; the client in the scope (the peer itself: None), and what else is seen."""
    return pytest.param(fields, settings, client, secure, host, id=" ".join([*fields, *map(str, settings.values())]))


ROWS = [
    # nobody is believed by default
    row(FOR + "203.0.113.7", PROTO + "https", "Forwarded: for=203.0.113.7;proto=https", settings={}),
    # nor is a peer that is not on the list
    row(FOR + "203.0.113.7", PROTO + "https", "X-Forwarded-Host: other.example",
        settings={**ON, "forwarded_allow_ips": ("10.0.0.0/8",)}),
    # by address, network and everybody
    *(row(FOR + "203.0.113.7:4711", settings={**ON, "forwarded_allow_ips": trusted}, client=WITH_PORT)
      for trusted in (("127.0.0.1",), ("127.0.0.0/8",), ("*",), ("::ffff:127.0.0.1",), "10.1.1.1, 127.0.0.1")),
    row(FOR + "203.0.113.7", "X-Forwarded-Port: 4711", client=WITH_PORT),
    row(FOR + "203.0.113.7:4711", client=WITH_PORT),
    row(FOR + "203.0.113.7", client=ONE),
    row(FOR + "2001:db8::7", client=("2001:db8::7", 0)),
    row(FOR + "[2001:db8::7]", client=("2001:db8::7", 0)),
    row(FOR + "[2001:db8::7]:4711", client=("2001:db8::7", 4711)),
    # what stands left of the first that is not trusted was written by the client
    row(FOR + "198.51.100.1, 203.0.113.7, 10.1.1.1", client=ONE),
    row(FOR + "10.2.2.2, 10.1.1.1", client=("10.2.2.2", 0)),
    row(FOR + "198.51.100.1, 203.0.113.7", client=ONE),
    row(FOR + "198.51.100.1", FOR + "203.0.113.7", FOR + "10.1.1.1", client=ONE),
    row(FOR), row(FOR + ","), row(FOR + "unknown"), row(FOR + "203.0.113.7, rubbish"), row(FOR + "203.0.113.7:99999"),
    row(FOR + "203.0.113.7, rubbish, 10.1.1.1", client=("10.1.1.1", 0)),
    row("Forwarded: for=203.0.113.7", client=ONE),
    row('Forwarded: for="[2001:db8::7]:4711";proto=https', client=("2001:db8::7", 4711), secure=True),
    row("Forwarded: for=198.51.100.1, for=203.0.113.7, for=10.1.1.1", client=ONE),
    row("Forwarded: for=_hidden"),
    # the fields that the settings name
    row("X-Real-IP: 203.0.113.7", "X-Real-Port: 4711", FOR + "198.51.100.1", client=WITH_PORT,
        settings={**CHAINED, "proxy_headers_host": "X-Real-IP", "proxy_headers_port": "X-Real-Port"}),
    # As Daphne's server is told
    row("X-Real-IP: 203.0.113.7", "X-Scheme: https", client=ONE, secure=True,
        settings={"proxy_forwarded_address_header": "X-Real-IP", "proxy_forwarded_proto_header": "X-Scheme"}),
    # the last scheme counts if it is one
    *(row(PROTO + value, settings=ON, secure=secure) for value, secure in [
        ("https", True), ("http", False), ("HTTPS", True), ("wss", True), ("ws", False), ("http, https", True),
        ("https, http", False), ("ftp", False), ("", False), ("https://", False),
    ]),
    # the last host counts if it is one
    *(row(f"X-Forwarded-Host: {value}", settings=ON, host=host) for value, host in [
        ("site.example:8443", b"site.example:8443"), ("evil.example, site.example", b"site.example"),
        ("[2001:db8::7]:80", b"[2001:db8::7]:80"), ("two words", OWN), ("a/b", OWN),
    ]),
    row("Forwarded: for=203.0.113.7;host=site.example", settings=ON, client=ONE, host=b"site.example"),
]  # fmt: skip


@both
@pytest.mark.parametrize(("fields", "settings", "client", "secure", "host"), ROWS)
async def test_whom_the_application_sees(
    site: Site, kind: str, fields: Any, settings: Any, client: Any, secure: bool, host: bytes
) -> None:
    """The first client from the right that is not trusted, with the last scheme and the last host."""
    peer = await asked(site, kind, *fields, **settings)
    assert (site.client, site.secure, site.hosts) == (client or peer, secure, [host])


@both
class TestTrust:
    @pytest.mark.parametrize(("trusted", "client"), [(("unix",), ("203.0.113.7", 0)), (PROXY, None)])
    async def test_of_peers_on_a_unix_socket(
        self, site: Site, kind: str, trusted: Any, client: Any, tmp_path: Path
    ) -> None:
        path = str(tmp_path / "s")
        settings = {"port": None, "unix_socket": path, "proxy_headers": True, "forwarded_allow_ips": trusted}
        async with serve(site, **settings), connect(path) as peer:
            await ask(peer, kind, "X-Forwarded-For: 203.0.113.7")
        assert site.client == client

    async def test_is_given_anew_for_each_request_of_a_connection(self, site: Site, kind: str) -> None:
        async with serve(site, proxy_headers=True) as server, connect(server) as peer:
            for number in (1, 2, 3):
                await ask(peer, kind, f"X-Forwarded-For: 203.0.113.{number}")
            await ask(peer, kind)
            own = peer.writer.get_extra_info("sockname")
        clients = [tuple(scope["client"]) for scope in site.scopes]
        assert clients == [("203.0.113.1", 0), ("203.0.113.2", 0), ("203.0.113.3", 0), own]


def test_a_list_that_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match="10\\.0\\.0\\.1/8"):
        Server(Site(), port=0, proxy_headers=True, forwarded_allow_ips=("10.0.0.1/8",))
    # Also before it is needed: a mistake is to be found on the day it is made.
    with pytest.raises(SettingsError, match=r"300\.1\.1\.1"):
        Server(Site(), port=0, forwarded_allow_ips=("300.1.1.1",))
    result = run_command("-p", "0", "--proxy-headers", "--forwarded-allow-ips", "localhost", "examples.hello")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "'localhost'" in result.stderr


@both
class TestAccessLog:
    async def test_shows_the_client_and_not_the_proxy(self, site: Site, kind: str) -> None:
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


V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"


@both
class TestProxyProtocol:
    @pytest.mark.parametrize(
        ("head", "client", "server_address"),
        [
            (V1, CLIENT, SERVER),
            (V1_IPV6, ("2001:db8::7", 4711), ("2001:db8::1", 443)),
            (V2, CLIENT, SERVER),
        ],
    )
    async def test_gives_both_addresses_for_all_requests_of_a_connection(
        self, site: Site, kind: str, head: bytes, client: Any, server_address: Any
    ) -> None:
        async with serve(site, action_logger=site.log, **HAPROXY_ENDPOINT) as server, connect(server) as peer:
            await peer.send(head)
            await ask(peer, kind)
            await ask(peer, kind)
        for scope in site.scopes:
            assert (tuple(scope["client"]), tuple(scope["server"])) == (client, server_address)
        assert {details["client"] for _, _, details in site.actions} == {"{}:{}".format(*client)}

    @pytest.mark.parametrize("head", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 1 2 3 4\r\n", V2_LOCAL])
    async def test_keeps_the_sockets_address_when_it_gives_none(self, site: Site, kind: str, head: bytes) -> None:
        async with serve(site, **HAPROXY_ENDPOINT) as server, connect(server) as peer:
            await peer.send(head)
            await ask(peer, kind)
            assert site.client == peer.writer.get_extra_info("sockname")

    async def test_in_small_pieces_is_the_same(self, site: Site, kind: str) -> None:
        async with serve(site, **HAPROXY_ENDPOINT) as server, connect(server) as peer:
            for byte in V2:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.001)
            await ask(peer, kind)
        assert site.client == ("203.0.113.7", 4711)

    async def test_its_client_is_who_must_be_trusted_with_forwarding_fields(self, site: Site, kind: str) -> None:
        async with serve(site, proxy_headers=True, **HAPROXY_ENDPOINT) as server, connect(server) as peer:
            await peer.send(V1)
            await ask(peer, kind, "X-Forwarded-For: 192.0.2.1")
        assert site.client == ("203.0.113.7", 4711)


class TestProxyProtocolRefusals:
    @pytest.mark.parametrize(
        "data",
        [
            GET,
            b"PROXY TCP4 203.0.113.7\r\n",
            b"PROXY TCP4 999.0.113.7 198.51.100.1 4711 443\r\n",
            b"PROXY " + b"x" * 200,
            V2_SIGNATURE + b"\x31\x11\x00\x00",
        ],
    )
    async def test_what_is_no_header_closes_the_connection_and_disturbs_nobody(self, site: Site, data: bytes) -> None:
        async with serve(site, **HAPROXY_ENDPOINT) as server:
            async with connect(server) as peer:
                await peer.send(data)
                assert await peer.closed()
            async with connect(server) as peer:
                await peer.send(V1)
                await ask(peer, "http")
        assert len(site.scopes) == 1

    @pytest.mark.parametrize("sent", [b"", b"PROXY TCP4 203", V1])
    async def test_a_proxy_that_says_no_more_is_dropped_at_the_deadline(self, site: Site, sent: bytes) -> None:
        settings = {**HAPROXY_ENDPOINT, "first_byte_timeout": 0.2, "close_timeout": 0.2}
        async with serve(site, **settings) as server, connect(server) as peer:
            await peer.send(sent)
            assert await peer.closed()
            await until(lambda: not server.connections)

    async def test_a_client_behind_it_that_still_sends_gets_the_early_answer(self, site: Site) -> None:
        """Behind a wrapping transport too."""
        async with serve(site, limit_body_size=1000, **HAPROXY_ENDPOINT) as server:
            for _ in range(3):
                async with connect(server) as peer:
                    await peer.send(V1 + post(4_000_000))
                    await peer.send(bytes(4000000))
                    assert (await peer.response()).status == 413
