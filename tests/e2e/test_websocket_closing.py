"""How a WebSocket ends: by the client, the application, the server, or a lost connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed

from asgiserver.errors import ClientDisconnected, MessageError, UnexpectedMessage

from ..conformance.peer import PING, PONG, TEXT, close, frame
from .applications import Hearing, Waiting, sending
from .live import Receive, Send, connect, serve, until, url
from .websocket import Attempts, Echo, accept, accepted, handshake, raw_websocket, text

Scope = dict[str, Any]


def closing(**more: Any) -> Attempts:
    """Accepts, closes, and sends what comes too late."""
    close = {"type": "websocket.close", **more}
    return Attempts(accept(), close, close, text("late"), then_receive=True)


async def closes(websocket: Any) -> tuple[int, str]:
    """Code and reason of the server's close frame as a real client got it."""
    with pytest.raises(ConnectionClosed) as caught:
        await websocket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


# The client closes.


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1000, "bye"), (1001, "leaving"), (3000, ""), (4005, "grüße"), (4999, "x" * 123)]
)
async def test_application_gets_code_and_reason_of_the_client(code: int, reason: str) -> None:
    application = Echo()
    async with serve(application) as server, client(url(server, "ws")) as websocket:
        await websocket.close(code, reason)
        assert (websocket.close_code, websocket.close_reason) == (code, reason)
        await until(lambda: application.closed)
    assert application.closed == (code, reason)


async def test_close_without_a_code_is_a_1005_and_a_lost_connection_a_1006() -> None:
    application = Echo()
    async with serve(application) as server:
        async with raw_websocket(server) as websocket:
            await websocket.send(close())
            assert await websocket.frame() == (0x88, b"")
            assert await websocket.peer.read_rest() == b""
        await until(lambda: application.closed)
        assert application.closed == (1005, "")
        for leave in ("abort", "close"):
            application.events.clear()
            async with raw_websocket(server) as websocket:
                await websocket.send(frame(TEXT, b"a"))
                await websocket.frame()
                if leave == "abort":
                    websocket.peer.abort()
            await until(lambda: application.closed)
            assert application.closed == (1006, "")


async def test_server_closes_the_connection_soon_after_the_closing_handshake() -> None:
    """RFC 6455 §7.1.1, the server closes first."""
    async with serve(Echo()) as server, raw_websocket(server) as websocket:
        await websocket.send(close(1000))
        assert await websocket.close_frame() == (1000, "")
        assert await websocket.peer.read_rest() == b""


# The application closes.


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 4001, 4999])
async def test_client_sees_code_and_reason_of_the_application(code: int) -> None:
    """What the application sends afterwards is its mistake, and the disconnect still comes."""
    application = closing(code=code, reason="wärum")
    async with serve(application) as server, client(url(server, "ws")) as websocket:
        assert await closes(websocket) == (code, "wärum")
        await until(lambda: application.events)
    assert application.outcomes == [None, None, UnexpectedMessage, UnexpectedMessage]
    assert application.events == [{"type": "websocket.disconnect", "code": code, "reason": "wärum"}]


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": None, "reason": None}, 1000, ""),
        ({"reason": "\U0001f600" * 99}, 1000, "\U0001f600" * 30),
    ],
)
async def test_code_and_reason_may_be_left_out_and_a_long_reason_is_cut(
    more: dict[str, Any], code: int, reason: str
) -> None:
    """At a character's border."""
    async with serve(closing(**more)) as server, client(url(server, "ws")) as websocket:
        assert await closes(websocket) == (code, reason)


@pytest.mark.parametrize("code", [0, 99, 999, 1004, 1005, 1006, 1015, 2999, 5000, "1000", 1000.0, True])
async def test_code_that_must_not_be_sent_raises_in_the_application(code: Any) -> None:
    application = Attempts(accept(), {"type": "websocket.close", "code": code}, text("still open"))
    async with serve(application) as server, client(url(server, "ws")) as websocket:
        assert await websocket.recv() == "still open"
    assert application.outcomes == [None, MessageError, None]


@pytest.mark.parametrize(("raised", "code"), [([], 1000), ([LookupError("broken on purpose")], 1011)])
async def test_application_that_returns_closes_with_1000_and_one_that_raises_with_1011(
    raised: list[Exception], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With one traceback."""
    application = sending(accept(), text("last"), *raised, after_receive=True)
    async with serve(application) as server, client(url(server, "ws")) as websocket:
        assert await websocket.recv() == "last"
        assert (await closes(websocket))[0] == code
    errors = [record.exc_info for record in caplog.records if record.levelname == "ERROR"]
    assert [error and error[1] for error in errors] == raised


async def test_peer_that_never_answers_the_close_is_dropped_in_time() -> None:
    """Pings and messages while closing are no trouble, and reach nobody."""
    application = closing(code=4000)
    async with serve(application, websocket_close_timeout=0.3) as server, raw_websocket(server) as websocket:
        assert await websocket.close_frame() == (4000, "")
        began = asyncio.get_running_loop().time()
        await websocket.send(frame(PING, b"?") + frame(TEXT, b"late") + frame(PONG))
        assert await websocket.peer.closed()
        assert 0.1 < asyncio.get_running_loop().time() - began < 5
        await until(lambda: application.events)
    assert application.events == [{"type": "websocket.disconnect", "code": 4000, "reason": ""}]


async def test_close_is_answered_although_the_application_left_messages_unread() -> None:
    """More of them than are kept, so that reading had stopped when the application closed."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await until(lambda: any(not connection.reading for connection in server.connections))
        await send({"type": "websocket.close", "code": 4000})

    async with serve(application, request_buffer_size=1024) as server, raw_websocket(server) as websocket:
        await websocket.send(frame(TEXT, b"*" * 1000) * 500)
        assert await websocket.close_frame() == (4000, "")
        await websocket.send(close(4000))
        assert await websocket.peer.read_rest() == b""


# The client is gone (what send() does then: ASGI 2.4, and why not always).


async def test_application_that_only_sends_is_told_by_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    """And its ending by it is nobody's error."""
    raised: list[BaseException] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        try:
            while True:
                await send(text("tick"))
                await asyncio.sleep(0.005)
        except OSError as error:
            raised.append(error)
            raise

    async with serve(application) as server:
        async with raw_websocket(server) as websocket:
            await websocket.frame()
            websocket.peer.abort()
        await until(lambda: raised)
    assert isinstance(raised[0], ClientDisconnected)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]


@pytest.mark.parametrize("how", ["close frame", "reset"])
async def test_application_that_listens_is_told_by_the_event_alone(how: str) -> None:
    """Its messages to a client that has left vanish."""
    events: list[dict[str, Any]] = []
    sent = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await accepted(receive, send)
        assert (await receive())["text"] == "hi"
        await until(lambda: not server.connections)
        for message in (text("a"), {"type": "websocket.close", "code": 4000}):
            await send(message)
            sent += 1
        events.extend([await receive(), await receive()])

    async with serve(application) as server:
        async with raw_websocket(server) as websocket:
            await websocket.send(frame(TEXT, b"hi") + (close(4001, b"bye") if how == "close frame" else b""))
            if how == "reset":
                websocket.peer.abort()
        await until(lambda: events)
    assert sent == 2
    code, reason = (4001, "bye") if how == "close frame" else (1006, "")
    assert events == [{"type": "websocket.disconnect", "code": code, "reason": reason}] * 2


async def test_waiting_receive_and_a_sending_task_beside_it_are_no_trouble() -> None:
    """The usual shape of a chat."""
    events: list[dict[str, Any]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)

        async def tick() -> None:
            while True:
                await send(text("tick"))
                await asyncio.sleep(0.002)

        task = asyncio.ensure_future(tick())
        events.append(await receive())
        await asyncio.sleep(0.02)
        assert not task.done()
        task.cancel()

    async with serve(application) as server:
        async with raw_websocket(server) as websocket:
            await websocket.frame()
        await until(lambda: events)
    assert events == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_application_that_stays_is_cancelled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    application = Waiting(accept())
    async with serve(application, application_close_timeout=0.1) as server:
        async with raw_websocket(server, target="/stays"):
            pass
        await until(application.ended.is_set, 5)
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "'/stays'" in record.getMessage()


# The server closes.


async def test_server_that_stops_closes_with_1012_and_gives_the_application_time() -> None:
    application = Echo()
    ended = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope, receive, send)
        await asyncio.sleep(0.1)
        ended.set()

    async with serve(slow, graceful_timeout=5) as server:
        websocket = await client(url(server, "ws"))
        await websocket.send("a")
        assert await websocket.recv() == "a"
    assert ended.is_set()
    assert await closes(websocket) == (1012, "service restart")
    assert application.closed == (1012, "service restart")


async def test_server_that_stops_refuses_a_websocket_that_is_not_accepted_yet() -> None:
    """Accepted now it would only be cut off; the client is told to come back."""
    application = Hearing()
    async with serve(application, graceful_timeout=60) as server, connect(server) as peer:
        await peer.send(handshake())
        await application.began.wait()
        async with asyncio.timeout(5):
            await server.__aexit__()
        response = await peer.response()
        assert (response.status, response.value("connection")) == (503, "close")
    assert application.events[1:] == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_longest_life_ends_with_1001() -> None:
    """However busy it is."""
    application = Echo()
    async with serve(application, websocket_timeout=0.3) as server, client(url(server, "ws")) as websocket:
        try:
            while True:
                await websocket.send("busy")
                await websocket.recv()
        except ConnectionClosed as error:
            closed = error.rcvd
        await until(lambda: application.closed)
    assert closed is not None
    assert (closed.code, closed.reason) == (1001, "time limit")
    assert application.closed == (1001, "time limit")


async def test_close_deadline_takes_nothing_from_a_slow_reader() -> None:
    """What was sent before the close frame arrives, though its answer does not come in time."""
    size = 6_000_000
    application = sending(
        accept(), {"type": "websocket.send", "bytes": bytes(size)}, {"type": "websocket.close"}, after_receive=True
    )
    settings = {"websocket_close_timeout": 0.3, "graceful_timeout": 5}
    async with serve(application, **settings) as server, connect(server, receive_buffer=65536) as peer:
        await peer.send(handshake())
        await peer.read_until(b"\r\n\r\n")
        received = 0
        while received < size + 10 + 4:
            received += len(await peer.read(min(250_000, size + 14 - received)))
            await asyncio.sleep(0.05)
        assert await peer.read_rest() == b""
