"""The opening handshake of a WebSocket, by real clients and by raw bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect as client
from websockets.exceptions import InvalidStatus

from asgiserver.errors import MessageError, UnexpectedMessage

from ..conformance.peer import BINARY, TEXT, frame
from .live import Peer, Receive, Response, Send, answer, connect, in_loop, serve, until, url
from .websocket import ACCEPT, Echo, accepted, handshake, raw_websocket

Scope = dict[str, Any]


async def refused(peer: Peer, data: bytes) -> Response:
    """The answer to a handshake that must not be accepted."""
    await peer.send(data)
    response = await peer.response()
    assert response.status >= 400
    return response


class Attempts:
    """An application that tries messages one after the other and remembers what each of them raised."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = messages
        self.outcomes: list[type[BaseException] | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in self.messages:
            try:
                await send(message)
            except Exception as error:
                self.outcomes.append(type(error))
            else:
                self.outcomes.append(None)


def denial(status: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


def denial_body(body: bytes = b"", more_body: bool = False) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": body, "more_body": more_body}


# The scope.


@in_loop
async def test_scope_has_every_key_with_its_type() -> None:
    """T131, T132, T138, T140."""
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


@in_loop
async def test_root_path_is_in_the_scope_and_the_path_unchanged() -> None:
    application = Echo()
    async with serve(application, root_path="/prefix") as server:
        async with raw_websocket(server, target="/prefix/chat"):
            pass
        assert (application.scopes[0]["root_path"], application.scopes[0]["path"]) == ("/prefix", "/prefix/chat")


@in_loop
async def test_any_origin_reaches_the_application() -> None:
    """T193."""
    application = Echo()
    async with serve(application) as server:
        for origin in ("null", "https://elsewhere.example"):
            async with raw_websocket(server, f"Origin: {origin}"):
                assert (b"origin", origin.encode()) in application.scopes[-1]["headers"]


@in_loop
async def test_bytes_that_end_a_line_elsewhere_do_not_smuggle_a_field() -> None:
    """T139."""
    application = Echo()
    async with serve(application) as server:
        for octet in "\x0b\x0c\x1c\x1d\x1e\x85":
            async with connect(server) as peer:
                response = await refused(peer, handshake(f"X-A: a{octet}Sec-WebSocket-Protocol: evil"))
                assert response.status == 400
        assert not application.scopes


# Accepting.


@in_loop
async def test_accept_is_a_101_with_the_right_key() -> None:
    """T133, T195."""
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


@in_loop
async def test_server_field_can_be_turned_off() -> None:
    """T195."""
    async with serve(Echo(), server_name="") as server, raw_websocket(server) as websocket:
        assert websocket.response.value("server") is None


@pytest.mark.parametrize("chosen", ["chat", "superchat", None])
@in_loop
async def test_application_chooses_a_subprotocol(chosen: str | None) -> None:
    """T134."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send, subprotocol=chosen)
        await receive()

    async with serve(application) as server:
        async with client(url(server, "ws"), subprotocols=["chat", "superchat"]) as websocket:  # type: ignore[list-item]
            assert websocket.subprotocol == chosen


@in_loop
async def test_wrong_accepts_raise_in_the_application_and_a_right_one_may_follow() -> None:
    """T134, T137, T179."""
    wrong: list[dict[str, Any]] = [
        {"subprotocol": "not-offered"},
        {"headers": [(b"sec-websocket-accept", b"mine")]},
        {"headers": [(b"sec-websocket-protocol", b"chat")]},
        {"headers": [(b"x-a", b"b\r\nx-c: d")]},
        {"headers": [(b"x a", b"b")]},
        {"headers": [("x-a", "b")]},
    ]
    accept = {"type": "websocket.accept"}
    application = Attempts(*({**accept, **more} for more in wrong), accept, accept)
    async with serve(application) as server, raw_websocket(server, "Sec-WebSocket-Protocol: chat") as websocket:
        assert await websocket.close_frame() == (1000, "")
        assert websocket.response.value("x-c") is None
    assert application.outcomes == [*[MessageError] * len(wrong), None, UnexpectedMessage]


@in_loop
async def test_headers_of_the_accept_are_sent() -> None:
    """T137."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        cookies = [(b"Set-Cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2"), (b"server", b"mine")]
        await accepted(receive, send, headers=cookies)

    async with serve(application) as server, raw_websocket(server) as websocket:
        assert websocket.response.values("set-cookie") == ["a=1; Path=/", "b=2"]
        assert websocket.response.values("server") == ["mine"]


@in_loop
async def test_message_before_the_accept_raises_in_the_application() -> None:
    """T180."""
    application = Attempts({"type": "websocket.send", "text": "early"}, {"type": "websocket.accept"})
    async with serve(application) as server, raw_websocket(server) as websocket:
        assert await websocket.close_frame() == (1000, "")
    assert application.outcomes == [UnexpectedMessage, None]


@in_loop
async def test_frames_that_come_with_the_handshake_are_delivered() -> None:
    """T183."""
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


@in_loop
async def test_much_that_comes_before_the_accept_waits_and_is_not_lost() -> None:
    """T183: more than is read ahead, so that the client is stopped until the application accepts."""
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


@in_loop
async def test_pipelined_request_before_the_handshake_is_answered_first() -> None:
    """T197."""
    echo = Echo()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            return
        await asyncio.sleep(0.02)
        await answer(send, b"plain")

    async with serve(application) as server, connect(server) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + handshake() + frame(TEXT, b"hi"))
        assert (await peer.response()).body == b"plain"
        assert (await peer.response()).status == 101
        assert await peer.read(4) == b"\x81\x02hi"


@in_loop
async def test_aiohttp_talks_to_it() -> None:
    """T151."""
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
    (handshake(version="1.0"), 400),
    (handshake("Sec-WebSocket-Protocol: caf\xe9"), 400),
    (handshake("Sec-WebSocket-Protocol: a b"), 400),
    (handshake("Sec-WebSocket-Protocol: chat, chat"), 400),
    (handshake("Sec-WebSocket-Extensions: =;="), 400),
]


@pytest.mark.parametrize(("data", "status"), WRONG)
@in_loop
async def test_wrong_handshake_reaches_no_application_and_the_next_one_does(data: bytes, status: int) -> None:
    """T136, T187, T188, T189."""
    application = Echo()
    async with serve(application) as server:
        async with connect(server) as peer:
            response = await refused(peer, data)
        assert response.status == status
        assert response.value("sec-websocket-version") == ("13" if status == 426 else None)
        assert not application.scopes
        async with raw_websocket(server) as websocket:
            await websocket.send(frame(TEXT, b"a"))
            assert await websocket.frame() == (0x81, b"a")


@pytest.mark.parametrize(
    "fields",
    [
        {"upgrade": "WebSocket"},
        {"upgrade": "WEBSOCKET"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "keep-alive,upgrade"},
    ],
)
@in_loop
async def test_tokens_of_the_handshake_are_found_in_any_case_and_list(fields: dict[str, str]) -> None:
    """T190."""
    async with serve(Echo()) as server, connect(server) as peer:
        await peer.send(handshake(**fields))
        assert (await peer.response()).status == 101


@pytest.mark.parametrize(
    "fields", [{"upgrade": "foo"}, {"upgrade": "h2c"}, {"connection": "keep-alive"}, {"connection": None}]
)
@in_loop
async def test_another_upgrade_is_plain_http(fields: dict[str, str | None]) -> None:
    """T191, T192."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, scope["type"].encode())

    async with serve(application) as server, connect(server) as peer:
        await peer.send(handshake(**fields))
        response = await peer.response()
        assert (response.status, response.body) == (200, b"http")


# Denials.


@in_loop
async def test_close_before_the_accept_is_a_403_and_the_connection_goes_on() -> None:
    """T141, T195."""
    application = Attempts({"type": "websocket.close", "code": 4001})
    async with serve(application) as server, connect(server) as peer:
        for _ in range(2):
            response = await refused(peer, handshake())
            assert response.status == 403
            assert response.value("server") == "asgiserver"
            assert response.value("date")
    assert application.outcomes == [None, None]


@pytest.mark.parametrize(
    ("messages", "body"),
    [
        ([denial(401, (b"x-a", b"b"), (b"content-length", b"4")), denial_body(b"no!\n")], b"no!\n"),
        ([denial(401, (b"x-a", b"b")), denial_body(b"n", True), denial_body(b"o", True), denial_body()], b"no"),
        ([denial(401, (b"x-a", b"b")), denial_body(b"\xff\xfe\x00")], b"\xff\xfe\x00"),
        ([denial(401, (b"x-a", b"b")), denial_body()], b""),
    ],
)
@in_loop
async def test_application_denies_with_a_response_of_its_own(messages: list[dict[str, Any]], body: bytes) -> None:
    """T142, T143, T144."""
    application = Attempts(*messages)
    async with serve(application) as server:
        with pytest.raises(InvalidStatus) as caught:
            await client(url(server, "ws"))
        async with connect(server) as peer:
            for _ in range(2):
                response = await refused(peer, handshake())
                assert (response.status, response.value("x-a"), response.body) == (401, "b", body)
                assert response.value("upgrade") is None
    assert (caught.value.response.status_code, caught.value.response.body or b"") == (401, body)
    assert set(application.outcomes) == {None}


@pytest.mark.parametrize(
    ("messages", "outcomes", "status"),
    [
        ([denial(99)], [MessageError], 500),
        ([denial(101)], [MessageError], 500),
        ([denial_body(b"a")], [UnexpectedMessage], 500),
        ([denial(403)], [None], 500),
        ([denial(403), denial(404), denial_body()], [None, UnexpectedMessage, None], 403),
        ([denial(403), {"type": "websocket.accept"}], [None, UnexpectedMessage], 500),
        ([denial(403), {"type": "websocket.close"}], [None, UnexpectedMessage], 500),
        ([denial(403), denial_body(), denial_body()], [None, None, UnexpectedMessage], 403),
        ([{"type": "websocket.close"}, {"type": "websocket.accept"}], [None, UnexpectedMessage], 403),
        ([{"type": "http.response.start", "status": 200}], [MessageError], 500),
        ([denial(403, (b"content-length", b"1")), denial_body(b"ab"), denial_body(b"a")], [None, MessageError, None], 403),
    ],
)
@in_loop
async def test_wrong_denials_raise_and_leave_no_client_waiting(
    messages: list[dict[str, Any]], outcomes: list[type[BaseException] | None], status: int
) -> None:
    """T145, T146, T148."""
    application = Attempts(*messages)
    async with serve(application) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).status == status
        await until(lambda: len(application.outcomes) == len(outcomes))
    assert application.outcomes == outcomes


@pytest.mark.parametrize("messages", [[denial_body(b"abc", True)], [denial_body(b"abc", True), denial_body(b"d")]])
@in_loop
async def test_denial_that_falls_short_is_cut_off(messages: list[dict[str, Any]]) -> None:
    """T145."""
    application = Attempts(denial(401, (b"content-length", b"9")), *messages)
    async with serve(application) as server, connect(server) as peer:
        await peer.send(handshake())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await peer.response()


@in_loop
async def test_application_that_raises_before_the_accept_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """T147."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("broken on purpose")

    async with serve(application) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).status == 500
        assert (await refused(peer, handshake())).status == 500
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True, True]


@in_loop
async def test_application_that_returns_without_an_answer_is_a_500() -> None:
    """T148."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async with serve(application) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).status == 500


# Deadlines of the handshake.


@in_loop
async def test_application_that_does_not_accept_in_time_is_a_503() -> None:
    """T149."""
    events: list[dict[str, Any]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        events.extend([await receive(), await receive()])

    async with serve(application, websocket_connect_timeout=0.1) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).status == 503
        await until(lambda: len(events) == 2)
    assert events == [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@pytest.mark.parametrize("keyword", ["websocket_connect_timeout", "websocket_handshake_timeout"])
@in_loop
async def test_negative_deadline_never_passes(keyword: str) -> None:
    """T150: -1 once meant that every handshake was late already."""
    application = Echo()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.2)
        await application(scope, receive, send)

    async with serve(slow, websocket_timeout=-1, **{keyword: -1}) as server, raw_websocket(server) as websocket:
        await websocket.send(frame(TEXT, b"a"))
        assert await websocket.frame() == (0x81, b"a")


@in_loop
async def test_denial_may_take_longer_than_the_deadline_once_it_has_begun() -> None:
    """T143, T149: the application has answered in time."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(denial(401))
        await send(denial_body(b"slow", True))
        await asyncio.sleep(0.4)
        await send(denial_body(b"ly"))

    async with serve(application, websocket_connect_timeout=0.1) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).body == b"slowly"


@in_loop
async def test_client_that_leaves_before_the_accept_is_told_to_the_application() -> None:
    events: list[dict[str, Any]] = []
    raised: list[type[BaseException]] = []
    came = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        came.set()
        if scope["path"] == "/listens":
            events.append(await receive())
            await send({"type": "websocket.accept"})
            return
        await until(lambda: not server.connections)
        try:
            await send({"type": "websocket.accept"})
        except OSError as error:
            raised.append(type(error))

    async with serve(application) as server:
        for target in ("/listens", "/only-sends"):
            came.clear()
            async with connect(server) as peer:
                await peer.send(handshake(target=target))
                await came.wait()
        await until(lambda: raised)
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.disconnect", "websocket.connect"]
    assert [error.__name__ for error in raised] == ["ClientDisconnected"]
