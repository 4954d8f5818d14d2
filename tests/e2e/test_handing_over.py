"""What a server still does for its clients when another process takes over: Server.drain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from asgiserver import Server
from asgiserver.listen.bind import Bound
from tests.e2e.live import DEADLINE, answer, connect, in_loop, receive_body, until
from tests.e2e.websocket import Echo, RawWebSocket, handshake, raw_websocket

LONG = 60.0


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await Echo()(scope, receive, send)
    elif scope["path"] == "/events":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"end"})
    else:
        await answer(send, await receive_body(receive) or b"hello")


@asynccontextmanager
async def draining(timeout: float | None, spread: float = 0.0, **settings: Any) -> AsyncIterator[tuple[Server, Any]]:
    """A server on a socket that this test goes on to hold, and a function that begins to drain it."""
    with socket.create_server(("127.0.0.1", 0)) as shared:
        quick = {"lifespan": "off", "graceful_timeout": LONG, "graceful_idle": 0.0, "first_byte_timeout": None}
        server = Server(application, **{**quick, **settings})
        copy = shared.dup()
        copy.setblocking(False)
        server.bound = [Bound(copy)]
        task = asyncio.ensure_future(server.serve())
        await until(lambda: server.listeners)

        async def drain() -> asyncio.Task[None]:
            server.drain(timeout, spread)
            await until(lambda: server.stopping)
            return task

        try:
            yield server, drain
        finally:
            server.stop(wait=False)
            async with asyncio.timeout(DEADLINE):
                await task


class TestConnections:
    @in_loop
    async def test_stay_until_their_next_response(self) -> None:
        async with (
            draining(LONG) as (server, drain), connect(server) as used, connect(server) as fresh,
        ):  # fmt: skip
            assert (await used.request("GET", "/")).value("connection") is None
            task = await drain()
            for peer in (used, fresh):
                response = await peer.request("GET", "/")
                assert (response.body, response.value("connection")) == (b"hello", "close")
                assert await peer.closed()
                await peer.close()
            async with asyncio.timeout(DEADLINE):
                await task

    @in_loop
    async def test_that_stay_idle_are_closed_when_the_time_is_over(self) -> None:
        async with draining(0.2) as (server, drain), connect(server) as peer:
            await peer.request("GET", "/")
            began = asyncio.get_running_loop().time()
            await drain()
            assert await peer.closed()
            assert asyncio.get_running_loop().time() - began >= 0.2

    @in_loop
    async def test_in_the_queue_are_left_to_the_other_process(self) -> None:
        async with draining(LONG) as (server, drain):
            address = server.listening_addresses[0]
            async with asyncio.timeout(DEADLINE):
                await (await drain())
            _, writer = await asyncio.open_connection(*address)
            writer.close()

    @in_loop
    async def test_are_ended_by_a_stop(self) -> None:
        async with draining(None) as (server, drain), connect(server) as peer:
            await peer.request("GET", "/")
            task = await drain()
            server.stop()
            assert await peer.closed()
            async with asyncio.timeout(DEADLINE):
                await task


class TestWebSockets:
    @in_loop
    async def test_may_still_be_opened_on_a_connection_that_is_there(self) -> None:
        async with draining(LONG) as (server, drain), connect(server) as peer:
            await peer.request("GET", "/")
            await drain()
            await peer.send(handshake())
            websocket = RawWebSocket(peer, await peer.response())
            assert websocket.response.status == 101
            await peer.send(b"\x81\x82\0\0\0\0hi")
            assert await websocket.frame() == (0x81, b"hi")

    @in_loop
    async def test_are_refused_once_the_time_is_over(self) -> None:
        async with draining(0.0, LONG, graceful_idle=LONG) as (server, drain), AsyncExitStack() as stack:
            peer = await stack.enter_async_context(connect(server))
            for _ in range(2):
                await stack.enter_async_context(raw_websocket(server))
            await drain()
            await until(lambda: not server.draining)
            await peer.send(handshake())
            assert (await peer.response()).status == 503

    @pytest.mark.parametrize("count", [1, 8])
    @in_loop
    async def test_are_closed_one_after_the_other(self, count: int) -> None:
        times: list[float] = []
        now = asyncio.get_running_loop().time

        async def closed(websocket: RawWebSocket) -> None:
            assert await websocket.close_frame() == (1012, "service restart")
            times.append(now())

        async with draining(0.1, 0.8) as (server, drain), AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(raw_websocket(server)) for _ in range(count)]
            began = now()
            await drain()
            await asyncio.gather(*map(closed, sockets))
        # The k-th is closed when k/count of the spread is over, and no timer is early.
        for number, moment in enumerate(sorted(times)):
            assert moment - began >= 0.1 + 0.8 * number / count - 0.01


@in_loop
async def test_an_event_stream_is_asked_to_end_when_the_time_is_over() -> None:
    async with draining(0.2) as (server, drain), connect(server) as peer:
        await peer.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        await peer.read_until(b"one\r\n")
        began = asyncio.get_running_loop().time()
        task = await drain()
        assert (await peer.read_rest()).endswith(b"end\r\n0\r\n\r\n")
        assert asyncio.get_running_loop().time() - began >= 0.2
        async with asyncio.timeout(DEADLINE):
            await task
