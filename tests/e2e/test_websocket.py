"""The opening handshake of a WebSocket, by real clients and by raw bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect as client
from websockets.typing import Subprotocol

from asgiserver.errors import MessageError, UnexpectedMessage

from ..conformance.peer import BINARY, TEXT, frame
from .applications import Recorder, sending
from .live import GET, Receive, Send, answer, connect, serve, until, url
from .websocket import ACCEPT, Attempts, Echo, accept, accepted, handshake, raw_websocket, refused, text

Scope = dict[str, Any]


# The scope.


async def test_scope_has_every_key_with_its_type() -> None:
    application = Echo()
    async with serve(application) as server:
        target = "/chat/caf%C3%A9%2Fbar?room=%20a&x"
        fields = ("X-Two: 1", "Cookie: a=1", "X-Two: 2", "Sec-WebSocket-Protocol: b , c", "Sec-WebSocket-Protocol:d")
        async with raw_websocket(server, *fields, target=target) as websocket:
            name = websocket.peer.writer.get_extra_info("sockname")
        await until(lambda: application.closed)
        scope = application.scopes[0]
        headers = scope.pop("headers")
        assert {key: scope[key] for key in sorted(scope) if key not in ("extensions", "state")} == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/chat/café/bar",
            "raw_path": b"/chat/caf%C3%A9%2Fbar",
            "query_string": b"room=%20a&x",
            "root_path": "",
            "client": list(name),
            "server": list(server.listening_addresses[0]),
            "subprotocols": ["b", "c", "d"],
        }
        assert "websocket.http.response" in scope["extensions"]
        assert [value for field, value in headers if field == b"x-two"] == [b"1", b"2"]
        assert (b"cookie", b"a=1") in headers
        assert application.events[0] == {"type": "websocket.connect"}


async def test_root_path_is_in_the_scope_and_the_path_unchanged() -> None:
    application = Echo()
    async with serve(application, root_path="/prefix") as server:
        async with raw_websocket(server, target="/prefix/chat"):
            pass
        assert (application.scopes[0]["root_path"], application.scopes[0]["path"]) == ("/prefix", "/prefix/chat")


async def test_any_origin_reaches_the_application() -> None:
    application = Echo()
    async with serve(application) as server:
        for origin in ("null", "https://elsewhere.example"):
            async with raw_websocket(server, f"Origin: {origin}"):
                assert (b"origin", origin.encode()) in application.scopes[-1]["headers"]


async def test_bytes_that_end_a_line_elsewhere_do_not_smuggle_a_field() -> None:
    application = Echo()
    async with serve(application) as server:
        for octet in "\x0b\x0c\x1c\x1d\x1e\x85":
            async with connect(server) as peer:
                response = await refused(peer, handshake(f"X-A: a{octet}Sec-WebSocket-Protocol: evil"))
                assert response.status == 400
        assert not application.scopes


# Accepting.


async def test_accept_is_a_101_with_the_right_key() -> None:
    async with serve(Echo(), headers=("X-Extra: yes",)) as server, raw_websocket(server) as websocket:
        response = websocket.response
        assert response.reason == "Switching Protocols"
        assert response.values("sec-websocket-accept") == [ACCEPT]
        assert (response.value("upgrade") or "").lower() == "websocket"
        assert (response.value("connection") or "").lower() == "upgrade"
        assert [response.value(name) for name in ("server", "x-extra")] == ["asgiserver", "yes"]
        assert response.value("date")
        for name in ("content-length", "transfer-encoding", "sec-websocket-protocol", "sec-websocket-extensions"):
            assert response.value(name) is None


async def test_server_field_can_be_turned_off() -> None:
    async with serve(Echo(), server_name="") as server, raw_websocket(server) as websocket:
        assert websocket.response.value("server") is None


@pytest.mark.parametrize("chosen", ["chat", "superchat", None])
async def test_application_chooses_a_subprotocol(chosen: str | None) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send, subprotocol=chosen)
        await receive()

    offered = [Subprotocol("chat"), Subprotocol("superchat")]
    async with serve(application) as server, client(url(server, "ws"), subprotocols=offered) as websocket:
        assert websocket.subprotocol == chosen


async def test_wrong_accepts_raise_in_the_application_and_a_right_one_may_follow() -> None:
    wrong: list[dict[str, Any]] = [
        {"subprotocol": "not-offered"},
        {"headers": [(b"sec-websocket-accept", b"mine")]},
        {"headers": [(b"sec-websocket-protocol", b"chat")]},
        {"headers": [(b"x-a", b"b\r\nx-c: d")]},
        {"headers": [(b"x a", b"b")]},
        {"headers": [("x-a", "b")]},
    ]
    application = Attempts(*(accept(**more) for more in wrong), accept(), accept())
    async with serve(application) as server, raw_websocket(server, "Sec-WebSocket-Protocol: chat") as websocket:
        assert await websocket.close_frame() == (1000, "")
        assert websocket.response.value("x-c") is None
    assert application.outcomes == [*[MessageError] * len(wrong), None, UnexpectedMessage]


async def test_headers_of_the_accept_are_sent() -> None:
    fields = [(b"Set-Cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2"), (b"server", b"mine")]
    application = sending(accept(headers=fields), after_receive=True)
    async with serve(application) as server, raw_websocket(server) as websocket:
        assert websocket.response.values("set-cookie") == ["a=1; Path=/", "b=2"]
        assert websocket.response.values("server") == ["mine"]


async def test_message_before_the_accept_raises_in_the_application() -> None:
    application = Attempts(text("early"), accept())
    async with serve(application) as server, raw_websocket(server) as websocket:
        assert await websocket.close_frame() == (1000, "")
    assert application.outcomes == [UnexpectedMessage, None]


async def test_frames_that_come_with_the_handshake_are_delivered() -> None:
    ready = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await ready.wait()
        await Echo()(scope, receive, send)

    async with serve(application) as server, connect(server) as peer:
        await peer.send(handshake() + frame(TEXT, b"first") + frame(BINARY, b"second")[:5])
        await peer.send(frame(BINARY, b"second")[5:])
        ready.set()
        assert (await peer.response()).status == 101
        assert await peer.read(7) == b"\x81\x05first"
        assert await peer.read(8) == b"\x82\x06second"


async def test_much_that_comes_before_the_accept_waits_and_is_not_lost() -> None:
    """More than is read ahead, so that the client is stopped until the application accepts."""
    ready, received = asyncio.Event(), asyncio.Queue[bytes]()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await ready.wait()
        await accepted(receive, send)
        while (event := await receive())["type"] == "websocket.receive":
            received.put_nowait(event["bytes"])

    async with serve(application, pipeline_buffer_size=1024) as server, connect(server) as peer:
        await peer.send(handshake())
        sending = asyncio.ensure_future(peer.send(b"".join(frame(BINARY, b"%d" % at * 20_000) for at in range(10))))
        await asyncio.sleep(0.05)  # not for luck: the frames shall come before the accept, though all is well if not
        ready.set()
        await sending
        assert [await received.get() for _ in range(10)] == [b"%d" % at * 20_000 for at in range(10)]


async def test_pipelined_request_before_the_handshake_is_answered_first() -> None:
    echo = Echo()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            return
        await asyncio.sleep(0.02)
        await answer(send, b"plain")

    async with serve(application) as server, connect(server) as peer:
        await peer.send(GET + handshake() + frame(TEXT, b"hi"))
        assert (await peer.response()).body == b"plain"
        assert (await peer.response()).status == 101
        assert await peer.read(4) == b"\x81\x02hi"


async def test_aiohttp_talks_to_it() -> None:
    async with serve(Echo()) as server, aiohttp.ClientSession() as session:
        async with session.ws_connect(url(server), compress=15, heartbeat=5) as websocket:
            await websocket.send_str("grüße")
            assert await websocket.receive_str() == "grüße"
            await websocket.send_bytes(b"\x00\xff" * 5000)
            assert await websocket.receive_bytes() == b"\x00\xff" * 5000
            assert await websocket.close()
        assert websocket.close_code == 1000


# Handshakes that are wrong.

WRONG = [
    (handshake(sec_websocket_version="8"), 426),
    (handshake(sec_websocket_version=None), 426),
    (handshake("Sec-WebSocket-Version: 13"), 426),
    (handshake(sec_websocket_key=None), 400),
    (handshake(sec_websocket_key="c2hvcnQ="), 400),
    (handshake(sec_websocket_key="not base64 of any kind!!"), 400),
    (handshake(f"Sec-WebSocket-Key: {'A' * 22}=="), 400),
    (handshake(method="POST"), 400),
    (handshake("Content-Length: 5") + b"12345", 400),
    (handshake("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    (handshake("Sec-WebSocket-Protocol: caf\xe9"), 400),
    (handshake("Sec-WebSocket-Protocol: a b"), 400),
    (handshake("Sec-WebSocket-Protocol: chat, chat"), 400),
    (handshake("Sec-WebSocket-Extensions: =;="), 400),
]


@pytest.mark.parametrize(("data", "status"), WRONG)
async def test_wrong_handshake_reaches_no_application_and_the_next_one_does(data: bytes, status: int) -> None:
    application = Echo()
    async with serve(application) as server:
        async with connect(server) as peer:
            response = await refused(peer, data)
        assert response.status == status
        assert response.value("sec-websocket-version") == ("13" if status == 426 else None)
        # RFC 9110 §15.5.22 and §7.8.
        assert response.value("upgrade") == ("websocket" if status == 426 else None)
        assert response.values("connection") == ["close, upgrade" if status == 426 else "close"]
        assert not application.scopes
        async with raw_websocket(server) as websocket:
            await websocket.send(frame(TEXT, b"a"))
            assert await websocket.frame() == (0x81, b"a")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        # the tokens are found in any case and list
        *(({"upgrade": value}, 101) for value in ("WebSocket", "WEBSOCKET")),
        *(({"connection": value}, 101) for value in ("keep-alive, Upgrade", "keep-alive,upgrade")),
        # another upgrade is plain HTTP
        *(({"upgrade": value}, 200) for value in ("foo", "h2c")),
        *(({"connection": value}, 200) for value in ("keep-alive", None)),
    ],
)
async def test_a_handshake_is_known_by_its_tokens(fields: dict[str, Any], status: int) -> None:
    application = Recorder()
    async with serve(application) as server, connect(server) as peer:
        await peer.send(handshake(**fields))
        assert (await peer.response()).status == status
    assert application.scope["type"] == ("websocket" if status == 101 else "http")
