"""Faults behind proxies by letter and number: prefixes, PROXY headers, dual-stack sockets; with real nginx, HAProxy."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.sync.client import connect as websocket

from asgiserver import Server
from tests.e2e.applications import Recorder
from tests.e2e.certificate import Certificate
from tests.e2e.live import GET, connect, serve, until, url
from tests.e2e.proxies import CLIENT, HAPROXY_ENDPOINT, SERVER, V1, V2_SIGNATURE, Listen, haproxy, nginx, v2
from tests.e2e.server import DEADLINE, ServerProcess, free_ports, run_command, wait_for

FRAMEWORKS = '''
import os
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, FORCE_SCRIPT_NAME=os.environ.get("SCRIPT_NAME"),
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"], LOGGING_CONFIG=None,
)
django.setup()
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path, reverse
from fastapi import FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute

class Consumer(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json({"number": self.scope["url_route"]["kwargs"]["number"], "path": self.scope["path"]})

def item(request, number):
    return JsonResponse({"number": number, "path": request.path, "url": reverse("item", args=[number])})

urlpatterns = [path("sub/item/<int:number>/", item, name="item")]
django_ = ProtocolTypeRouter({
    "http": get_asgi_application(),
    "websocket": URLRouter([path("sub/chat/<int:number>/", Consumer.as_asgi())]),
})

async def get_item(request: Request):
    url = request.url_for("item", number=request.path_params["number"]).path
    return {"number": int(request.path_params["number"]), "path": request.url.path, "url": url}

async def chat(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_json({"number": int(websocket.path_params["number"]), "path": websocket.url.path})
    await websocket.close()

async def respond(request):
    return JSONResponse(await get_item(request))

inner = FastAPI()
inner.get("/item/{number}/", name="item")(get_item)
inner.websocket("/chat/{number}/")(chat)
fastapi_ = FastAPI()
fastapi_.mount("/sub", inner)

starlette_ = Starlette(routes=[Mount("/sub", routes=[
    Route("/item/{number}/", respond, name="item"), WebSocketRoute("/chat/{number}/", chat),
])])
'''

NGINX = """
proxy_http_version 1.1;
proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $http_connection;
server {{ listen 127.0.0.1:{strips}; {stripping} }}
server {{ listen 127.0.0.1:{keeps}; {keeping} }}
"""

#: What each application is served with.
APPLICATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "django": ("frameworks:django_", {}),
    "forced": ("frameworks:django_", {"SCRIPT_NAME": "/forced"}),
    "fastapi": ("frameworks:fastapi_", {}),
    "starlette": ("frameworks:starlette_", {}),
}


class Site(NamedTuple):
    """The ports of an nginx that strips the prefix and of one that keeps it, and the servers behind both."""

    strips: int
    keeps: int
    servers: dict[str, ServerProcess]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "frameworks.py").write_text(FRAMEWORKS)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                ServerProcess("-p", "0", "--root-path", f"/{name}", "--app-dir", str(folder), application, env=env)
            )
            for name, (application, env) in APPLICATIONS.items()
        }
        ports = free_ports(2)
        locations = {end: "".join(f"location /{name}/ {{ proxy_pass {server.url}{end}; }}\n"
                                  for name, server in servers.items()) for end in ("/", "")}  # fmt: skip
        http = NGINX.format(strips=ports[0], keeps=ports[1], stripping=locations["/"], keeping=locations[""])
        stack.enter_context(nginx(folder, http, *ports))
        yield Site(*ports, servers)


@pytest.mark.parametrize("proxy", ["strips", "keeps"])
@pytest.mark.parametrize("name", APPLICATIONS)
class TestPrefix:
    """A proxy before the server may strip the prefix or keep it."""

    def test_mounts_are_found_and_urls_have_it(self, site: Site, proxy: str, name: str) -> None:
        port, path = getattr(site, proxy), f"/{name}/sub/item/7/"
        found = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE)
        assert found.json() == {"number": 7, "path": path, "url": path}

    def test_websockets_are_found(self, site: Site, proxy: str, name: str) -> None:
        path = f"/{name}/sub/chat/7/"
        with websocket(f"ws://127.0.0.1:{getattr(site, proxy)}{path}", open_timeout=DEADLINE) as peer:
            received = re.sub(r"\s", "", str(peer.recv(DEADLINE)))
        assert received == f'{{"number":7,"path":"{path}"}}'

    def test_redirects_have_it(self, site: Site, proxy: str, name: str) -> None:
        origin = f"http://127.0.0.1:{getattr(site, proxy)}"
        found = httpx.get(f"{origin}/{name}/sub/item/7", timeout=DEADLINE)
        assert found.is_redirect
        assert found.headers["location"].removeprefix(origin) == f"/{name}/sub/item/7/"

    def test_the_access_log_has_what_the_client_asked_for(self, site: Site, proxy: str, name: str) -> None:
        target = f"/{name}/sub/{proxy}%20nothing?a=b"
        assert httpx.get(f"http://127.0.0.1:{getattr(site, proxy)}{target}", timeout=DEADLINE).status_code == 404
        server = site.servers[name]
        wait_for(lambda: f'"GET {target}" ' in server.output())

    def test_what_is_not_there_is_answered_404(self, site: Site, proxy: str, name: str) -> None:
        for path in (f"/{name}/", f"/{name}/sub{name}/item/7/", f"/{name}/sub/item/7/x/"):
            assert httpx.get(f"http://127.0.0.1:{getattr(site, proxy)}{path}", timeout=DEADLINE).status_code == 404


def test_the_documentation_of_fastapi_finds_its_description(site: Site) -> None:
    for port in (site.strips, site.keeps):
        page = httpx.get(f"http://127.0.0.1:{port}/fastapi/docs", timeout=DEADLINE).text
        assert "'/fastapi/openapi.json'" in page
        assert httpx.get(f"http://127.0.0.1:{port}/fastapi/openapi.json", timeout=DEADLINE).status_code == 200


def test_a_root_path_that_is_encoded_is_refused_in_one_line() -> None:
    result = run_command("-p", "0", "--root-path", "/caf%C3%A9", "examples.hello")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "--root-path: expected a decoded path" in result.stderr


class TestOptions:
    async def test_of_the_whole_server_have_no_path_that_a_prefix_belongs_to(self) -> None:
        """``OPTIONS *``."""
        application = Recorder()
        async with serve(application, root_path="/shop") as server, connect(server) as peer:
            for target in ("*", "/x", "/shop/x"):
                assert (await peer.request("OPTIONS", target)).status == 200
        assert [(scope["path"], scope["raw_path"]) for scope in application.scopes] == [
            ("*", b"*"), ("/shop/x", b"/shop/x"), ("/shop/x", b"/shop/x"),
        ]  # fmt: skip


class TestExtensions:
    @pytest.mark.parametrize("kind", ["http", "websocket"])
    async def test_what_one_request_writes_into_them_no_other_sees(self, kind: str) -> None:
        seen: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            values = [*scope["extensions"].values(), scope["asgi"]]
            # The id is another one for each request.
            seen.append([{key: text for key, text in value.items() if key != "request_id"} for value in values])
            for value in values:
                value["user"] = "grace"
            await Recorder()(scope, receive, send)

        async with serve(application) as server:
            for _ in range(2):
                if kind == "websocket":
                    async with open_websocket(url(server, "ws")):
                        pass
                else:
                    async with connect(server) as raw:
                        await raw.request("GET", "/")
                        await raw.request("GET", "/")
        assert len(seen) >= 2
        assert all(each == seen[0] for each in seen)
        assert "grace" not in str(seen)


# Twisted's own way of reading a key has changed in pyOpenSSL.
twisteds_tls = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@asynccontextmanager
async def behind_haproxy(application: Any, certificate: Certificate, folder: Path) -> AsyncIterator[dict[str, int]]:
    """A server with a plain port and one of TLS, behind a real HAProxy; the ports of HAProxy by their names."""
    endpoints = ("haproxy:tcp:0:interface=127.0.0.1", certificate.endpoint("haproxy:ssl"))
    async with serve(application, port=None, endpoints=endpoints, proxy_headers=True) as server:
        plain, tls = (port for _, port in server.listening_addresses)
        secure = "mode http\n    http-request set-header X-Forwarded-Proto https"
        context = haproxy(
            folder,
            v1=Listen(plain, "send-proxy"),
            v2_ssl=Listen(plain, "send-proxy-v2-ssl", bind=f"ssl crt {certificate.both}"),
            v2_plain=Listen(plain, "send-proxy-v2-ssl"),
            through=Listen(tls, "send-proxy-v2"),
            fields=Listen(plain, "send-proxy-v2", more=secure),
        )
        ports = await asyncio.to_thread(context.__enter__)
        try:
            yield ports
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


class TestHAProxy:
    """The program itself."""

    @twisteds_tls
    async def test_its_headers_are_understood(self, certificate: Certificate, tmp_path: Path) -> None:
        application = Recorder()
        async with behind_haproxy(application, certificate, tmp_path) as ports:
            for name, tls, scheme in (
                ("v1", False, "http"),
                ("v2_ssl", True, "https"),
                ("v2_plain", False, "http"),
                ("through", True, "https"),
                ("fields", False, "https"),
            ):
                context = certificate.client() if tls else None
                async with connect(("127.0.0.1", ports[name]), tls=context) as peer:
                    assert (await peer.request("GET", "/")).status == 200, name
                    own = peer.writer.get_extra_info("sockname")
                assert application.seen == (own, ("127.0.0.1", ports[name]), scheme), name
            async with open_websocket(f"wss://localhost:{ports['v2_ssl']}/", ssl=certificate.client()):
                pass
            assert application.scopes[-1]["scheme"] == "wss"


V2_TLS = v2(b"\x20\0\5\1\0\0\0\0")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asgiserver.wire"]


class TestPROXYHeader:
    async def test_fields_of_the_machine_that_has_connected_are_read(self) -> None:
        application = Recorder()
        async with serve(application, proxy_headers=True, **HAPROXY_ENDPOINT) as server:
            for head, field, seen in (
                (V1, "X-Forwarded-Proto: https", (CLIENT, SERVER, "https")),
                (V1, "Forwarded: proto=https", (CLIENT, SERVER, "https")),
                (V2_TLS, "A: b", (CLIENT, SERVER, "https")),
                (V2_TLS, "X-Forwarded-Proto: http", (CLIENT, SERVER, "http")),
                (V1, "X-Forwarded-For: 192.0.2.1", (CLIENT, SERVER, "http")),
            ):
                async with connect(server) as peer:
                    await peer.send(head)
                    assert (await peer.request("GET", "/", field)).status == 200
                assert application.seen == seen

    async def test_of_another_machine_they_are_not(self) -> None:
        application = Recorder()
        settings = {"proxy_headers": True, "forwarded_allow_ips": ("203.0.113.7",), **HAPROXY_ENDPOINT}
        async with serve(application, **settings) as server, connect(server) as peer:
            await peer.send(V1)
            await peer.request("GET", "/", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1")
        assert application.seen == (CLIENT, SERVER, "http")

    async def test_of_a_unix_socket_makes_no_client_a_unix_peer(self) -> None:
        application = Recorder()
        settings = {"proxy_headers": True, "forwarded_allow_ips": ("127.0.0.1", "unix"), **HAPROXY_ENDPOINT}
        head = V2_SIGNATURE + b"\x21\x31\0\xd8" + b"/client".ljust(108, b"\0") + b"/run/web".ljust(108, b"\0")
        async with serve(application, **settings) as server, connect(server) as peer:
            await peer.send(head)
            await peer.request("GET", "/", "X-Forwarded-For: 192.0.2.1")
        assert application.seen == (None, ("/run/web", None), "http")

    @pytest.mark.parametrize(
        ("allowed", "data", "reason"),
        [
            (("10.0.0.0/8", "unix"), V1, "proxy_allow_ips does not name it"),
            ((), V1, "proxy_allow_ips does not name it"),
            (("*",), GET, "it does not begin with a PROXY header"),
            (("*",), b'PROXY TCP6 fe80::1%x"y ::1 1 2\r\n', "the line of its PROXY header is malformed"),
            (("*",), b"PROXY TCP4 203.0.113.7 198.51.100.1 +1 1_1\r\n", "the line of its PROXY header is malformed"),
            (("*",), V2_SIGNATURE + b"\x21\x11\0\x04" + bytes(4), "the addresses in its PROXY header are cut off"),
        ],
    )
    async def test_that_is_refused_is_one_line_in_the_log(
        self, allowed: Any, data: bytes, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        application = Recorder()
        async with serve(application, proxy_allow_ips=allowed, **HAPROXY_ENDPOINT) as server, connect(server) as peer:
            try:
                await peer.send(data)
            except ConnectionError:
                pass
            assert await peer.closed()
        assert lines(caplog) == [f"Refused a connection from 127.0.0.1: {reason}"]
        assert not [record for record in caplog.records if record.levelno > logging.INFO]
        assert not application.scopes

    @pytest.mark.parametrize(("allowed", "closed"), [(("unix",), False), (("127.0.0.1",), True)])
    async def test_of_a_proxy_on_a_unix_socket(self, allowed: Any, closed: bool, tmp_path: Path) -> None:
        path, application = str(tmp_path / "s"), Recorder()
        settings = {"port": None, "endpoints": (f"haproxy:unix:{path}",), "proxy_allow_ips": allowed}
        async with serve(application, **settings), connect(path) as peer:
            if closed:
                assert await peer.closed()
                return
            await peer.send(V1)
            assert (await peer.request("GET", "/")).status == 200
        assert application.seen == (CLIENT, SERVER, "http")

    @twisteds_tls
    async def test_comes_before_tls(self, certificate: Certificate) -> None:
        application = Recorder()
        endpoint = certificate.endpoint("haproxy:ssl")
        async with serve(application, port=None, endpoints=(endpoint,)) as server:
            [description] = [each.description for each in server.listeners]
            assert description.startswith("https://127.0.0.1:")
            for cut in (None, 5, len(V2_TLS) - 1):
                async with connect(server) as peer:
                    for piece in (V2_TLS[:cut], V2_TLS[cut:] if cut else b""):
                        await peer.send(piece)
                    await peer.writer.start_tls(certificate.client(), server_hostname="localhost")
                    assert (await peer.request("GET", "/")).status == 200
                assert application.seen == (CLIENT, SERVER, "https")

    @twisteds_tls
    async def test_within_tls_is_none(self, certificate: Certificate, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        endpoint = certificate.endpoint("haproxy:ssl")
        async with serve(Recorder(), port=None, endpoints=(endpoint,)) as server, connect(server) as peer:
            await peer.send(b"\x16\x03\x01\x02\0\1")
            assert await peer.closed()
        assert lines(caplog) == ["Refused a connection from 127.0.0.1: it does not begin with a PROXY header"]

    @pytest.mark.parametrize("kind", ["ssl", "haproxy:ssl"])
    @twisteds_tls
    async def test_without_tls_behind_it_has_a_line_in_the_log(
        self, kind: str, certificate: Certificate, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As by a proxy that takes the TLS off. C12 is that of our own TLS."""
        caplog.set_level(logging.INFO)
        endpoint = certificate.endpoint(kind)
        async with serve(Recorder(), port=None, endpoints=(endpoint,)) as server, connect(server) as peer:
            await peer.send((V1 if kind != "ssl" else b"") + GET)
            assert await peer.closed()
            await until(lambda: not server.connections)
        [line] = lines(caplog)
        client = "127.0.0.1" if kind == "ssl" else CLIENT[0]
        assert line.startswith(f"TLS connection with {client} failed: ")
        assert "http request" in line


@contextmanager
def dual_stack() -> Iterator[socket.socket]:
    """A listening socket of IPv6 that takes IPv4, on the loopback address alone."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::ffff:127.0.0.1", 0))
        sock.listen()
        yield sock


MAPPED = r"\:\:ffff\:127.0.0.1"


class TestDualStack:
    """An IPv4-mapped address is one of IPv4."""

    async def ask(self, server: Server, head: bytes, field: str, context: ssl.SSLContext | None) -> tuple[str, int]:
        async with connect(("127.0.0.1", server.listening_addresses[0][1])) as peer:
            own: tuple[str, int] = peer.writer.get_extra_info("sockname")
            await peer.send(head)
            if context is not None:
                await peer.writer.start_tls(context, server_hostname="localhost")
            assert (await peer.request("GET", "/", field)).status == 200
        return own

    @pytest.mark.parametrize("kind", ["fd", "tcp6", "ssl", "haproxy"])
    @twisteds_tls
    async def test_in_scope_and_log_and_for_trust(
        self, kind: str, certificate: Certificate, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        application, context = Recorder(), certificate.client() if kind == "ssl" else None
        head = b"PROXY UNKNOWN\r\n" if kind == "haproxy" else b""
        with dual_stack() as sock:
            endpoint = {
                "fd": f"fd:fileno={sock.fileno()}",
                "haproxy": f"haproxy:fd:fileno={sock.fileno()}",
                "tcp6": f"tcp6:0:interface={MAPPED}",
                "ssl": certificate.endpoint(interface=MAPPED),
            }[kind]
            async with serve(application, port=None, endpoints=(endpoint,), proxy_headers=True) as server:
                port = server.listening_addresses[0][1]
                own = await self.ask(server, head, "A: b", context)
                scheme = "https" if kind == "ssl" else "http"
                assert application.seen == (own, ("127.0.0.1", port), scheme)
                await self.ask(server, head, "X-Forwarded-For: 192.0.2.1", context)
                assert application.seen[0] == ("192.0.2.1", 0)
        assert any(message.startswith(f"127.0.0.1:{own[1]} - - ") for message in caplog.messages)

    async def test_in_a_proxys_header_too(self) -> None:
        application = Recorder()
        head = b"PROXY TCP6 ::ffff:203.0.113.7 ::FFFF:C633:6401 4711 443\r\n"
        async with serve(application, **HAPROXY_ENDPOINT) as server:
            await self.ask(server, head, "A: b", None)
        assert application.seen == (CLIENT, SERVER, "http")
