"""Channels' consumers behind the real command line, without a channel layer outside the process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from .live import in_loop, until
from .server import ServerProcess

APPLICATION = "tests.e2e.channels_project:application"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(APPLICATION, "-p", "0") as process:
        yield process
    assert "Traceback" not in process.output(), process.output()


def address(server: ServerProcess, path: str) -> str:
    return f"ws://127.0.0.1:{server.port}/{path}"


async def said(server: ServerProcess, words: str, times: int) -> None:
    """Wait until consumers have said ``words`` so often in all."""
    await until(lambda: server.output().count(f"consumer {words}\n") >= times)
    assert server.output().count(f"consumer {words}\n") == times


@in_loop
async def test_sync_consumer_echoes(server: ServerProcess) -> None:
    async with client(address(server, "sync")) as websocket:
        for message in ("a", b"b", "\U0001f600" * 1000):
            await websocket.send(message)
            assert await websocket.recv() == message
        await websocket.close(4242)
    await said(server, "sync disconnect 4242", 1)


@in_loop
async def test_consumer_closes_with_code_and_reason(server: ServerProcess) -> None:
    async with client(address(server, "sync")) as websocket:
        await websocket.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "you asked for it")
    await said(server, "sync disconnect 4001", 1)


@in_loop
async def test_group_of_json_consumers(server: ServerProcess) -> None:
    async with client(address(server, "chat"), subprotocols=[Subprotocol("json")]) as one:
        async with client(address(server, "chat")) as two:
            assert (one.subprotocol, two.subprotocol) == ("json", None)
            await one.send(json.dumps({"hello": "wörld"}))
            assert [json.loads(await each.recv()) for each in (one, two)] == [{"hello": "wörld"}] * 2
        await said(server, "chat disconnect 1000", 1)
        await one.send(json.dumps("alone"))
        assert json.loads(await one.recv()) == "alone"
    await said(server, "chat disconnect 1000", 2)


@pytest.mark.parametrize("how", ["close", "abort"])
@in_loop
async def test_disconnect_runs_although_the_consumer_sends_all_the_time(server: ServerProcess, how: str) -> None:
    """An exception from its send() would keep it from running."""
    code = 4300 if how == "close" else 1006
    for _ in range(10):
        # One at a time: a client that does not read what it is sent does not see the answer to its close either.
        websocket: Any = await client(address(server, "ticker"))
        assert await websocket.recv() == "tick"
        if how == "close":
            await websocket.close(code)
        else:
            websocket.transport.abort()
    await said(server, f"ticker disconnect {code}", 10)


@in_loop
async def test_disconnect_runs_when_the_client_leaves_before_it_is_accepted(server: ServerProcess) -> None:
    """It is there that a consumer leaves the groups that it joined before it accepted."""
    fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    handshake = f"GET /slow HTTP/1.1\r\nHost: h\r\n{fields}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(handshake.encode())
        await until(lambda: said_last(server) == "consumer slow connect")
        writer.transport.abort()
        await until(lambda: said_last(server) == "consumer slow disconnect 1006")


def said_last(server: ServerProcess) -> str:
    """The last line that a consumer has said."""
    return next((line for line in reversed(server.output().splitlines()) if line.startswith("consumer ")), "")


@in_loop
async def test_consumer_that_refuses_is_a_403(server: ServerProcess) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await client(address(server, "refusing"))
    assert caught.value.response.status_code == 403


@in_loop
async def test_consumer_that_refuses_with_what_no_close_frame_may_have_is_a_403_too(server: ServerProcess) -> None:
    """The fixture looks for tracebacks."""
    with pytest.raises(InvalidStatus) as caught:
        await client(address(server, "forbidding"))
    assert caught.value.response.status_code == 403
    await said(server, "forbidding disconnect 1006", 1)


@in_loop
async def test_session_of_the_handshakes_cookie(server: ServerProcess) -> None:
    async with httpx.AsyncClient() as browser:
        response = await browser.get(f"{server.url}/login")
    cookie = f"sessionid={response.cookies['sessionid']}"
    async with client(address(server, "session"), additional_headers={"Cookie": cookie}) as websocket:
        assert await websocket.recv() == "Åsa"
    async with client(address(server, "session")) as websocket:
        assert await websocket.recv() == "None"


def test_disconnect_runs_when_the_server_stops() -> None:
    async def visit(server: ServerProcess) -> list[tuple[int | None, str | None]]:
        websockets = [await client(address(server, name)) for name in ("sync", "chat", "ticker")]
        stopping = asyncio.get_running_loop().run_in_executor(None, server.stop)
        codes = []
        for websocket in websockets:
            try:
                while True:
                    await websocket.recv()
            except ConnectionClosed:
                pass
            codes.append((websocket.close_code, websocket.close_reason))
        assert await stopping == 0
        return codes

    with ServerProcess(APPLICATION, "-p", "0") as server:
        assert asyncio.run(visit(server)) == [(1012, "service restart")] * 3
    for name in ("sync", "chat", "ticker"):
        assert server.output().count(f"consumer {name} disconnect 1012\n") == 1
    assert "Traceback" not in server.output()
