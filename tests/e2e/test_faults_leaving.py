"""Clients that leave: an application that did not get to hear it, and one whose answer was whole already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgiserver.errors import ClientDisconnected

from .live import GET, Receive, Send, connect, serve, until
from .websocket import raw_websocket

OK = {"type": "http.response.start", "status": 200}
MORE = {"type": "http.response.body", "body": b"hello", "more_body": True}


async def test_stream_under_middleware_that_asks_for_its_client_ends_when_the_client_leaves() -> None:
    """The middleware takes the event and loses it, as is_disconnected() asks within a cancelled scope."""
    clients = 6
    ended = 0

    async def view(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            nonlocal ended
            try:
                while not await request.is_disconnected():
                    yield b"x"
                    await asyncio.sleep(0.001)
            finally:
                ended += 1

        return StreamingResponse(pieces())

    async def through(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    application = Starlette(routes=[Route("/", view)])
    for _ in range(2):
        application.add_middleware(BaseHTTPMiddleware, dispatch=through)
    async with serve(application, application_close_timeout=100) as server:
        for _ in range(clients):
            async with connect(server) as peer:
                await peer.send(GET)
                await peer.read_until(b"x\r\n")
        await until(lambda: ended == clients)


@pytest.mark.parametrize("waits", [True, False])
async def test_only_an_application_that_waited_for_the_end_may_send_on_in_silence(waits: bool) -> None:
    """One that merely asked may never have got the answer."""
    outcome: list[str] = []

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(OK)
        await send(MORE)
        if not waits:
            await until(lambda: not server.connections)
        assert (await receive())["type"] == "http.disconnect"
        for number in range(20):
            try:
                await send(MORE)
            except ClientDisconnected:
                outcome.append(f"raised after {number}")
                return
        outcome.append("silent")

    async with serve(application) as server:
        async with connect(server) as peer:
            await peer.send(GET)
            await peer.read_until(b"hello")
        await until(lambda: outcome)
    assert outcome == ["silent" if waits else "raised after 3"]


@pytest.mark.parametrize(
    ("method", "length", "whole"), [("GET", b"5", True), ("HEAD", b"9", True), ("GET", b"9", False)]
)
async def test_client_that_leaves_with_the_whole_response_is_no_failure_of_what_follows(
    method: str, length: bytes, whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette sends an empty last message, and runs background tasks after it."""
    caplog.set_level(logging.INFO, "asgiserver")
    outcome: list[str] = []

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await send({**OK, "headers": [(b"content-length", length)]})
        await send(MORE)
        await until(lambda: not server.connections)
        try:
            await send({"type": "http.response.body"})
        except ClientDisconnected:
            outcome.append("raised")
        else:
            outcome.append("background")
        assert not whole or (await receive())["type"] == "http.disconnect"

    async with serve(application) as server:
        async with connect(server) as peer:
            await peer.send(GET.replace(b"GET", method.encode()))
            await peer.read_until(b"\r\n\r\n")
        await until(lambda: outcome and not server.exchanges)
    assert outcome == ["background" if whole else "raised"]
    assert not [each for each in caplog.records if each.levelno > logging.INFO]


async def test_stream_in_answer_to_head_ends_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    """The head is all that its client waits for, but only the client's leave can end the stream."""
    caplog.set_level(logging.INFO, "asgiserver")

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await send(OK)
        while True:
            await send(MORE)

    async with serve(application, application_close_timeout=None) as server:
        async with connect(server) as peer:
            await peer.send(GET.replace(b"GET", b"HEAD"))
            await peer.read_until(b"\r\n\r\n")
        await until(lambda: not server._tasks)
    assert "The client of HEAD '/' left, which ended its application: ClientDisconnected" in caplog.messages
    assert not [each for each in caplog.records if each.levelno > logging.INFO]


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("way", ["receives", "sends"])
async def test_websocket_view_that_its_client_ends_is_one_line(
    way: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """E4, as C13: Starlette raises WebSocketDisconnect out of a view that does not expect it."""
    caplog.set_level(logging.INFO, "asgiserver")

    async def view(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            if way == "receives":
                await websocket.receive_text()
            else:
                await websocket.send_text("x")
                await asyncio.sleep(0.005)

    async with serve(Starlette(routes=[WebSocketRoute("/", view)])) as server:
        async with raw_websocket(server) as websocket:
            if end == "close":
                await websocket.send(b"\x88\x82\0\0\0\0\x03\xe8")
            else:
                websocket.peer.abort()
        await until(lambda: not server.exchanges)
    assert not [each for each in caplog.records if each.levelno > logging.INFO]
    assert sum("left, which ended its application: WebSocketDisconnect" in each for each in caplog.messages) == 1
