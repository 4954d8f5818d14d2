"""WebSockets that the application does not accept, or not in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import connect as client
from websockets.exceptions import InvalidStatus

from asgiserver.errors import MessageError, UnexpectedMessage

from ..conformance.peer import TEXT, frame
from .applications import Hearing, sending
from .live import Receive, Send, connect, serve, until, url
from .websocket import Attempts, Echo, handshake, raw_websocket, refused

Scope = dict[str, Any]

LENGTH_1 = (b"content-length", b"1")


def denial(status: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


def denial_body(body: bytes = b"", more_body: bool = False) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": body, "more_body": more_body}


async def test_close_before_the_accept_is_a_403_and_the_connection_goes_on() -> None:
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
async def test_application_denies_with_a_response_of_its_own(messages: list[dict[str, Any]], body: bytes) -> None:
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
        ([denial(403), denial_body(), denial_body()], [None, None, None], 403),
        ([{"type": "websocket.close"}, {"type": "websocket.accept"}], [None, None], 403),
        ([{"type": "http.response.start", "status": 200}], [MessageError], 500),
        ([denial(403, LENGTH_1), denial_body(b"ab"), denial_body(b"a")], [None, MessageError, None], 403),
    ],
)
async def test_wrong_denials_raise_and_leave_no_client_waiting(
    messages: list[dict[str, Any]], outcomes: list[type[BaseException] | None], status: int
) -> None:
    application = Attempts(*messages)
    async with serve(application) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).status == status
        await until(lambda: len(application.outcomes) == len(outcomes))
    assert application.outcomes == outcomes


@pytest.mark.parametrize("messages", [[denial_body(b"abc", True)], [denial_body(b"abc", True), denial_body(b"d")]])
async def test_denial_that_falls_short_is_cut_off(messages: list[dict[str, Any]]) -> None:
    application = Attempts(denial(401, (b"content-length", b"9")), *messages)
    async with serve(application) as server, connect(server) as peer:
        await peer.send(handshake())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await peer.response()


@pytest.mark.parametrize("raises", [True, False])
async def test_application_that_raises_or_returns_before_the_accept_is_a_500(
    raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    application = sending(*([LookupError("broken on purpose")] if raises else []), after_receive=True)
    async with serve(application) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).status == 500
        assert (await refused(peer, handshake())).status == 500
    errors = [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [raises, raises]


# Deadlines of the handshake.


async def test_application_that_does_not_accept_in_time_is_a_503() -> None:
    application = Hearing()
    async with serve(application, websocket_connect_timeout=0.1) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).status == 503
        await until(application.has_ended)
    assert application.events[0] == {"type": "websocket.connect"}
    assert application.events[1:] == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@pytest.mark.parametrize("keyword", ["websocket_connect_timeout", "websocket_handshake_timeout"])
async def test_negative_deadline_never_passes(keyword: str) -> None:
    """-1 once meant that every handshake was late already."""
    application = Echo()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.2)
        await application(scope, receive, send)

    async with serve(slow, websocket_timeout=-1, **{keyword: -1}) as server, raw_websocket(server) as websocket:
        await websocket.send(frame(TEXT, b"a"))
        assert await websocket.frame() == (0x81, b"a")


async def test_denial_may_take_longer_than_the_deadline_once_it_has_begun() -> None:
    """The application has answered in time."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(denial(401))
        await send(denial_body(b"slow", True))
        await asyncio.sleep(0.4)
        await send(denial_body(b"ly"))

    async with serve(application, websocket_connect_timeout=0.1) as server, connect(server) as peer:
        assert (await refused(peer, handshake())).body == b"slowly"


async def test_client_that_leaves_before_the_accept_is_told_to_the_application() -> None:
    events: list[dict[str, Any]] = []
    came = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        came.set()
        if scope["path"] == "/listens":
            events.append(await receive())
            await send({"type": "websocket.accept"})
            return
        await until(lambda: not server.connections)
        await send({"type": "websocket.accept"})
        events.append(await receive())

    async with serve(application) as server:
        for target in ("/listens", "/accepts"):
            came.clear()
            async with connect(server) as peer:
                await peer.send(handshake(target=target))
                await came.wait()
        await until(lambda: len(events) == 4)
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.disconnect"] * 2
