from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from asgiserver import resource, server, service
from asgiserver.asgi.interfaces import Stream
from asgiserver.errors import ReactorError
from asgiserver.resource import ASGIResource
from tests.test_service import FakeReactor, refuse, turns

KEY = base64.b64encode(b"0123456789abcdef").decode()
UPGRADE = (
    "GET /api/ws HTTP/1.1\r\nHost: example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
)
#: A masked text frame, "hi", and a masked close frame.
HI, CLOSE = b"\x81\x82\0\0\0\0hi", b"\x88\x80\0\0\0\0"


class App:
    """Keeps scopes and events, and answers by the function of each test."""

    def __init__(self, answer: Callable[..., Coroutine[Any, Any, None]] | None = None) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.life: list[str] = []
        self.answer = answer

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                self.life.append(kind)
                await send({"type": f"lifespan.{kind}.complete"})
            return
        self.scopes.append(scope)
        if self.answer is not None:
            await self.answer(self, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def body(self, receive: Any) -> bytes:
        """The whole body of a request, or what came before its client left."""
        while True:
            self.events.append(await receive())
            if not self.events[-1].get("more_body"):
                return b"".join(event.get("body", b"") for event in self.events)


class Transport(StringTransport):
    """Keeps its protocol, as a socket's transport does, and says so when it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class Other(Resource):
    """A page of the site itself."""

    def render_GET(self, request: Any) -> bytes:
        return b"the site's"


class Peer:
    """A connection to a site with the application at ``/api``."""

    def __init__(self, served: ASGIResource, *, wrapped: bool = False) -> None:
        root = Resource()
        root.putChild(b"api", served)
        root.putChild(b"other", Other())
        address = IPv4Address("TCP", "192.0.2.7", 4711)
        self.transport = Transport(hostAddress=IPv4Address("TCP", "192.0.2.1", 80), peerAddress=address)
        site = Site(root, reactor=Clock())
        self.transport.protocol = (WrappingFactory(site) if wrapped else site).buildProtocol(address)
        self.transport.protocol.makeConnection(self.transport)

    def send(self, data: str | bytes) -> None:
        self.transport.protocol.dataReceived(data.encode("latin-1") if isinstance(data, str) else data)

    async def read(self, end: bytes = b"") -> bytes:
        """What was written by the time that it ends so, or a few turns later."""
        for _ in range(50):
            await asyncio.sleep(0)
            if end and self.transport.value().endswith(end):
                break
        value: bytes = self.transport.value()
        self.transport.clear()
        return value

    def leave(self) -> None:
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> FakeReactor:
    reactor = FakeReactor()
    for module in (resource, service, server):
        monkeypatch.setattr(module, "install_reactor", lambda: reactor)
    monkeypatch.setattr(server, "loop_of", lambda _: asyncio.get_running_loop())
    return reactor


@asynccontextmanager
async def serving(
    reactor: FakeReactor, app: App, *, wrapped: bool = False, **settings: Any
) -> AsyncIterator[Peer]:
    """A connection to an application that has started; at the end the reactor stops."""
    peer = Peer(ASGIResource(app, **settings), wrapped=wrapped)
    reactor.advance(0)
    await turns(10)
    yield peer
    ((_, _, stop),) = reactor.triggers
    await stop().asFuture(asyncio.get_running_loop())


class TestRequests:
    async def test_the_scope_is_what_the_site_has_read(self, reactor: FakeReactor) -> None:
        app = App()
        async with serving(reactor, app) as peer:
            peer.send("GET /api/caf%C3%A9/x?a=1&a=%20 HTTP/1.1\r\nHost: example\r\n")
            peer.send("X-A: 1\r\nx-b: 2\r\nX-a: 3\r\nx_a: 4\r\n\r\n")
            answer = await peer.read(b"ok")
        (scope,) = app.scopes
        assert (scope["method"], scope["http_version"], scope["scheme"]) == ("GET", "1.1", "http")
        assert (scope["path"], scope["raw_path"]) == ("/api/café/x", b"/api/caf%C3%A9/x")
        assert (scope["root_path"], scope["query_string"]) == ("/api", b"a=1&a=%20")
        assert (scope["client"], scope["server"]) == (["192.0.2.7", 4711], ["192.0.2.1", 80])
        assert scope["headers"] == [(b"host", b"example"), (b"x-a", b"1"), (b"x-a", b"3"), (b"x-b", b"2")]
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.lower().count(b"\r\nserver: ") == answer.lower().count(b"\r\ndate: ") == 1
        assert b"content-type" not in answer.lower()

    async def test_the_root_path_of_the_settings_comes_first(self, reactor: FakeReactor) -> None:
        app = App()
        async with serving(reactor, app, root_path="/outer") as peer:
            peer.send("GET /api/x HTTP/1.1\r\nHost: example\r\n\r\n")
            await peer.read(b"ok")
        assert (app.scopes[0]["root_path"], app.scopes[0]["path"]) == ("/outer/api", "/outer/api/x")

    async def test_a_connection_is_used_again(self, reactor: FakeReactor) -> None:
        async with serving(reactor, App()) as peer:
            for _ in range(3):
                peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
                assert (await peer.read(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
            peer.send("GET /other HTTP/1.1\r\nHost: example\r\n\r\n")
            assert (await peer.read()).endswith(b"\r\n\r\nthe site's")

    @pytest.mark.parametrize("size", [0, 1, 65536, 300_000])
    async def test_the_body_comes_in_pieces(self, reactor: FakeReactor, size: int) -> None:
        content = os.urandom(size)

        async def echo(app: App, receive: Any, send: Any) -> None:
            body = await app.body(receive)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})

        app = App(echo)
        async with serving(reactor, app) as peer:
            peer.send(f"POST /api HTTP/1.1\r\nHost: example\r\nContent-Length: {size}\r\n\r\n")
            peer.send(content)
            answer = await peer.read(b"0\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in answer
        assert content in answer
        assert max(len(event["body"]) for event in app.events) <= 65536
        assert len(app.events) == max(1, -(-size // 65536))

    async def test_no_more_of_a_body_is_read_than_is_wanted(self, reactor: FakeReactor) -> None:
        async def never(app: App, receive: Any, send: Any) -> None:
            await receive()
            await asyncio.sleep(10)

        app = App(never)
        async with serving(reactor, app, graceful_timeout=0, request_buffer_size=100_000) as peer:
            peer.send("POST /api HTTP/1.1\r\nHost: example\r\nContent-Length: 1000000\r\n\r\n" + "x" * 1_000_000)
            await peer.read()
            content = peer.transport.protocol._channel.requests[0].content
            assert content.tell() <= 200_000

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            ("GET /api HTTP/1.1\r\n\r\n", 400),
            ("GET /api/\xe9 HTTP/1.1\r\nHost: example\r\n\r\n", 400),
            ("get /api HTTP/1.1\r\nHost: example\r\n\r\n", 400),
            (UPGRADE.replace("13", "12"), 426),
        ],
    )
    async def test_what_the_server_refuses_is_refused(self, reactor: FakeReactor, request_: str, status: int) -> None:
        app = App()
        async with serving(reactor, app) as peer:
            peer.send(request_)
            assert (await peer.read()).startswith(b"HTTP/1.1 %d " % status)
        assert app.scopes == []

    async def test_a_body_above_the_limit_is_refused(self, reactor: FakeReactor) -> None:
        async with serving(reactor, App(), limit_body_size=3) as peer:
            peer.send("POST /api HTTP/1.1\r\nHost: example\r\nContent-Length: 4\r\n\r\nabcd")
            assert (await peer.read()).startswith(b"HTTP/1.1 413 ")


class TestResponses:
    @pytest.mark.parametrize(
        ("method", "version", "status", "end"),
        [
            ("GET", "1.1", 200, b"\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            ("GET", "1.0", 200, b"\r\n\r\nok"),
            ("HEAD", "1.1", 200, b"\r\n\r\n"),
            ("GET", "1.1", 204, b"\r\n\r\n"),
            ("GET", "1.1", 304, b"\r\n\r\n"),
            ("GET", "1.1", 299, b"\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ],
    )
    async def test_the_site_frames_them(
        self, reactor: FakeReactor, method: str, version: str, status: int, end: bytes
    ) -> None:
        async def answer(app: App, receive: Any, send: Any) -> None:
            headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"server", b"mine")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok", "more_body": True})
            await send({"type": "http.response.body"})

        async with serving(reactor, App(answer)) as peer:
            peer.send(f"{method} /api HTTP/{version}\r\nHost: example\r\n\r\n")
            sent = await peer.read()
        fields, _, body = sent.partition(b"\r\n\r\n")
        assert sent.startswith(b"HTTP/%s %d " % (version.encode(), status))
        own = sorted(re.findall(rb"(?:Set-Cookie|Server): \S+", fields))
        assert own == [b"Server: mine", b"Set-Cookie: a=1", b"Set-Cookie: b=2"]
        assert b"\r\n\r\n" + body == end

    async def test_a_slow_client_makes_send_wait(self, reactor: FakeReactor) -> None:
        sent = []

        async def stream(app: App, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            for number in range(3):
                await send({"type": "http.response.body", "body": b"piece", "more_body": True})
                sent.append(number)
            await send({"type": "http.response.body", "body": b"last"})

        async with serving(reactor, App(stream)) as peer:
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            peer.transport.producer.pauseProducing()
            await turns(10)
            assert len(sent) < 3
            peer.transport.producer.resumeProducing()
            assert (await peer.read(b"0\r\n\r\n")).count(b"piece") == 3

    async def test_one_that_ends_while_the_client_is_slow_lets_the_application_go(self, reactor: FakeReactor) -> None:
        done = asyncio.Event()

        async def answer(app: App, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200})
            app.peer.transport.producer.pauseProducing()  # type: ignore[attr-defined]
            await send({"type": "http.response.body", "body": b"all"})
            done.set()

        app = App(answer)
        async with serving(reactor, app) as peer:
            app.peer = peer  # type: ignore[attr-defined]
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            await peer.read(b"0\r\n\r\n")
            peer.transport.producer.resumeProducing()
            await asyncio.wait_for(done.wait(), 5)

    async def test_files_are_sent(self, reactor: FakeReactor, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(content := os.urandom(200_000))

        async def answer(app: App, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

        async with serving(reactor, App(answer)) as peer:
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            answered = b""
            while len(answered) < len(content):
                answered += await peer.read()
                await asyncio.sleep(0.001)
        fields, _, body = answered.partition(b"\r\n\r\n")
        assert b"Content-Length: 200000" in fields
        assert body == content

    async def test_trailers_end_it_and_early_hints_are_dropped(self, reactor: FakeReactor) -> None:
        async def answer(app: App, receive: Any, send: Any) -> None:
            exchange_stream.append(stream_of(send))
            stream: Any = exchange_stream[0]
            stream.send_informational(103, [(b"link", b"</x>")], [b"link"])
            assert stream.output.congested
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"ok", "more_body": True})
            stream.send_trailers([(b"x-sum", b"1")], [b"x-sum"])

        exchange_stream: list[Stream] = []
        async with serving(reactor, App(answer)) as peer:
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            answered = await peer.read(b"0\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert answered.endswith(b"2\r\nok\r\n0\r\n\r\n")

    @pytest.mark.parametrize(("version", "aborted"), [("1.1", False), ("1.0", True)])
    async def test_one_that_fails_is_cut_off(self, reactor: FakeReactor, version: str, aborted: bool) -> None:
        async def fail(app: App, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ValueError("the rest is missing")

        async with serving(reactor, App(fail)) as peer:
            peer.send(f"GET /api HTTP/{version}\r\nHost: example\r\n\r\n")
            answered = await peer.read()
            assert answered.rstrip(b"\r\n").endswith(b"half")
            assert peer.transport.disconnecting
            assert peer.transport.aborted == aborted
            peer.leave()

    async def test_of_http_2_only_the_stream_is_reset(self, reactor: FakeReactor) -> None:
        reset: list[str] = []

        async def fail(app: App, receive: Any, send: Any) -> None:
            request = app.peer.transport.protocol._channel.requests[0]  # type: ignore[attr-defined]
            request.clientproto, request.channel.abortConnection = b"HTTP/2", lambda: reset.append("stream")
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ValueError("the rest is missing")

        app = App(fail)
        async with serving(reactor, app) as peer:
            app.peer = peer  # type: ignore[attr-defined]
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            await peer.read()
            assert reset == ["stream"]
            assert not peer.transport.disconnecting
            peer.leave()

    async def test_one_that_fails_before_it_begins_is_500(self, reactor: FakeReactor) -> None:
        async def fail(app: App, receive: Any, send: Any) -> None:
            raise ValueError("nothing at all")

        async with serving(reactor, App(fail)) as peer:
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            assert (await peer.read()).startswith(b"HTTP/1.1 500 ")

    async def test_a_client_that_leaves_is_told_to_the_application(self, reactor: FakeReactor) -> None:
        async def wait(app: App, receive: Any, send: Any) -> None:
            app.events += [await receive(), await receive()]

        app = App(wait)
        async with serving(reactor, app) as peer:
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            await turns(5)
            peer.leave()
            await turns(5)
        assert [event["type"] for event in app.events] == ["http.request", "http.disconnect"]


def stream_of(send: Any) -> Stream:
    """The stream behind an application's ``send``."""
    return send.__self__.stream  # type: ignore[no-any-return]


class TestWebSockets:
    async def shout(self, app: App, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "headers": [(b"x-a", b"1")]})
        while (event := await receive())["type"] == "websocket.receive":
            app.events.append(event)
            await send({"type": "websocket.send", "text": event["text"].upper()})
        app.events.append(event)

    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.parametrize("wrapped", [True, False])
    async def test_they_take_the_connection_over(self, reactor: FakeReactor, together: bool, wrapped: bool) -> None:
        """Also one that is wrapped, as by TLS. Frames that come in the same read as the handshake are not lost."""
        app = App(self.shout)
        async with serving(reactor, app, wrapped=wrapped) as peer:
            if together:
                peer.send(UPGRADE.encode() + HI)
                answered = await peer.read(b"HI")
            else:
                peer.send(UPGRADE)
                answered = await peer.read()
                peer.send(HI)
                answered += await peer.read(b"HI")
            assert answered.startswith(b"HTTP/1.1 101 ")
            assert answered.endswith(b"\x81\x02HI")
            peer.send(CLOSE)
            assert b"\x88" in await peer.read()
            peer.leave()
            await turns(5)
        assert [event["type"] for event in app.events] == ["websocket.receive", "websocket.disconnect"]
        scope = app.scopes[0]
        assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "ws", "/api/ws")
        assert (scope["root_path"], scope["client"]) == ("/api", ["192.0.2.7", 4711])

    async def test_one_that_is_refused_ends_the_connection(self, reactor: FakeReactor) -> None:
        """What follows would be the application's, wherever the site has it."""
        async with serving(reactor, App()) as peer:
            peer.send(UPGRADE)
            answered = await peer.read()
            assert answered.startswith(b"HTTP/1.1 403 ")
            assert b"\r\nconnection: close\r\n" in answered
            peer.leave()

    async def test_the_stop_closes_them(self, reactor: FakeReactor) -> None:
        app = App(self.shout)
        async with serving(reactor, app) as peer:
            peer.send(UPGRADE)
            await peer.read()
            asyncio.get_running_loop().call_later(0.01, peer.leave)
        assert peer.transport.value().startswith(b"\x88\x11\x03\xf4service restart")
        assert app.events[-1]["code"] == 1012


class TestLifeCycle:
    async def test_requests_wait_for_the_start(self, reactor: FakeReactor) -> None:
        app = App()
        served = ASGIResource(app)
        waits, leaves = Peer(served), Peer(served)
        for peer in (waits, leaves):
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
        leaves.leave()
        await turns(10)
        assert app.life == app.scopes == []
        reactor.advance(0)
        assert (await waits.read(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert (app.life, len(app.scopes)) == (["startup"], 1)
        ((phase, event, stop),) = reactor.triggers
        assert (phase, event) == ("before", "shutdown")
        await stop().asFuture(asyncio.get_running_loop())
        assert app.life == ["startup", "shutdown"]
        waits.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
        assert (await waits.read()).startswith(b"HTTP/1.1 503 ")

    def test_another_reactor_is_an_error_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (resource, service):
            monkeypatch.setattr(module, "install_reactor", refuse)
        with pytest.raises(ReactorError):
            ASGIResource(App())

    def test_it_is_a_leaf(self, reactor: FakeReactor) -> None:
        served = ASGIResource(App())
        assert served.isLeaf
        with pytest.raises(RuntimeError):
            served.putChild(b"x", Resource())
        with pytest.raises(RuntimeError):
            served.getChildWithDefault(b"x", None)

    async def test_the_access_log_has_only_what_the_site_does_not_log(
        self, reactor: FakeReactor, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver.access")
        async with serving(reactor, App()) as peer:
            peer.send("GET /api HTTP/1.1\r\nHost: example\r\n\r\n")
            await peer.read(b"ok")
            peer.send(UPGRADE)
            await peer.read()
            peer.leave()
        words = re.findall(r'"(\S+) /api', caplog.text)
        assert words == ["WSCONNECTING", "WSREJECT"]
