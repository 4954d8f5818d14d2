"""WebSockets whose two ends differ in speed, or of which one is silent: pings, pauses, and bounded memory."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect as client

from asgiserver.errors import ClientDisconnected
from asgiserver.transport.buffer import unsent

from ..conformance.peer import BINARY, PING, PONG, TEXT, close, frame
from .live import Receive, Send, serve, stalls, until, url
from .websocket import Echo, accepted, raw_websocket

Scope = dict[str, Any]

#: What a side that is stopped may still take in; a hundred times less than what is sent.
BOUND = 1_000_000


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Memory that is asked for meanwhile; what is called gives what is kept and the most that ever was, in bytes."""
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


# Pings.


async def test_silent_peer_is_pinged_and_a_live_one_stays() -> None:
    """By a real client that answers, and by raw bytes."""
    async with serve(Echo(), ping_interval=0.05, ping_timeout=0.3) as server:
        async with client(url(server, "ws"), ping_interval=None) as websocket:
            await asyncio.sleep(0.6)
            await websocket.send("alive")
            assert await websocket.recv() == "alive"
        async with raw_websocket(server) as raw:
            payloads = set()
            for _ in range(4):
                first, payload = await raw.frame()
                assert first == 0x89
                payloads.add(payload)
                await raw.send(frame(PONG, payload))
        assert len(payloads) == 4


async def test_peer_that_does_not_answer_pings_is_dropped() -> None:
    application = Echo()
    async with serve(application, ping_interval=0.05, ping_timeout=0.1) as server, raw_websocket(server) as websocket:
        first, _ = await websocket.frame()
        assert first == 0x89
        assert await websocket.peer.closed()
        await until(lambda: application.closed)
    assert application.closed == (1006, "ping timeout")


async def test_no_pings_when_they_are_off() -> None:
    async with serve(Echo(), ping_interval=0, ping_timeout=0.05) as server, raw_websocket(server) as websocket:
        await asyncio.sleep(0.3)
        await websocket.send(frame(TEXT, b"still here"))
        assert await websocket.frame() == (0x81, b"still here")


async def test_peer_is_not_dropped_because_the_application_does_not_read_its_pong() -> None:
    """The pong waits behind messages that nobody takes."""
    ready = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await ready.wait()
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})

    settings = {"ping_interval": 0.05, "ping_timeout": 0.1, "request_buffer_size": 1024}
    async with serve(application, **settings) as server, client(url(server, "ws"), ping_interval=None) as websocket:
        for _ in range(3):
            await websocket.send(b"*" * 1000)
        await asyncio.sleep(0.5)
        ready.set()
        assert [await websocket.recv() for _ in range(3)] == [b"*" * 1000] * 3


# The application is slow.


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_slow_application_stops_the_client_and_loses_nothing(compression: str | None) -> None:
    ready, received = asyncio.Event(), asyncio.Queue[dict[str, Any]]()
    total, sent = 400, 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await ready.wait()
        while True:
            event = await receive()
            received.put_nowait({**event, "bytes": event.get("bytes", b"")[:4]})
            if event["type"] == "websocket.disconnect":
                break

    async def flood() -> None:
        nonlocal sent
        for at in range(total):
            await websocket.send(at.to_bytes(4) + noise[at : at + 65_000])
            sent += 1

    noise = os.urandom(70_000)
    async with (
        serve(application) as server,
        client(url(server, "ws"), compression=compression, ping_interval=None) as websocket,
    ):
        with traced() as memory:
            flooding = asyncio.ensure_future(flood())
            stopped_at = await stalls(lambda: sent)
            _, peak = memory()
        assert stopped_at < total
        assert peak < BOUND
        ready.set()
        await flooding
        await websocket.close(4001, "done")
        events = [await received.get() for _ in range(total + 1)]
    assert [int.from_bytes(event["bytes"]) for event in events[:-1]] == list(range(total))
    assert (events[-1]["code"], events[-1]["reason"]) == (4001, "done")


async def test_small_and_empty_messages_are_bounded_too() -> None:
    """A message costs more than its bytes."""
    ready, received = asyncio.Event(), 0
    total = 200_000

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        await accepted(receive, send)
        await ready.wait()
        while (await receive())["type"] == "websocket.receive":
            received += 1

    async with serve(application) as server, raw_websocket(server) as websocket:
        messages = frame(BINARY) * (total // 100)
        with traced() as memory:
            sending = asyncio.ensure_future(websocket.send(messages * 100 + close(1000)))
            await until(lambda: any(not connection.reading for connection in server.connections))
            size, _ = memory()
        # What the client itself keeps is all that it sends.
        assert size < 3 * len(messages) * 100 + BOUND
        ready.set()
        await sending
        assert await websocket.close_frame() == (1000, "")
        await until(lambda: received == total)


# The client is slow.


async def test_slow_client_makes_send_wait_and_loses_nothing() -> None:
    total, sent = 1000, 0
    payload = bytes(65_000)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await accepted(receive, send)
        for at in range(total):
            await send({"type": "websocket.send", "bytes": at.to_bytes(4) + payload})
            sent += 1

    async with serve(application, ping_interval=0) as server, raw_websocket(server, receive_buffer=4096) as websocket:
        with traced() as memory:
            stopped_at = await stalls(lambda: sent)
            _, peak = memory()
        assert stopped_at < total
        assert peak < BOUND
        for at in range(total):
            assert (await websocket.frame())[1][:4] == at.to_bytes(4)
        assert await websocket.close_frame() == (1000, "")


async def test_application_that_gives_up_waiting_for_a_slow_client_fills_no_memory() -> None:
    """What a send() has given up is not sent later, and what is sent is whole."""
    payload, attempts, sent = bytes(65_532), 200, 0
    tried = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await accepted(receive, send)
        for at in range(attempts):
            try:
                await asyncio.wait_for(send({"type": "websocket.send", "bytes": at.to_bytes(4) + payload}), 0.005)
                sent += 1
            except TimeoutError:
                pass
        tried.set()

    settings = {"ping_interval": 0, "websocket_compression": False, "write_timeout": None}
    async with serve(application, **settings) as server, raw_websocket(server, receive_buffer=4096) as websocket:
        await until(tried.is_set)
        (connection,) = server.connections
        assert sent < attempts
        assert unsent(connection.transport) < BOUND
        came: list[int] = []
        while (answer := await websocket.frame())[0] == 0x82:
            assert len(answer[1]) == 65_536
            came.append(int.from_bytes(answer[1][:4]))
        assert answer[0] == 0x88
    # The one that filled the buffer was sent, though its send() was given up while it waited for the client.
    assert came == list(range(len(came)))
    assert sent <= len(came) <= sent + 1


async def test_several_tasks_that_send_to_a_slow_client_fill_no_memory() -> None:
    payload, tasks, each, sent = bytes(65_534), 40, 5, 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def flood(number: int) -> None:
            nonlocal sent
            for at in range(each):
                await send({"type": "websocket.send", "bytes": bytes((number, at)) + payload})
                sent += 1

        await accepted(receive, send)
        await asyncio.gather(*map(flood, range(tasks)))

    settings = {"ping_interval": 0, "websocket_compression": False, "write_timeout": None}
    async with serve(application, **settings) as server, raw_websocket(server, receive_buffer=4096) as websocket:
        assert await stalls(lambda: sent) < tasks * each
        (connection,) = server.connections
        assert unsent(connection.transport) < BOUND
        came: list[tuple[int, int]] = []
        while (answer := await websocket.frame())[0] == 0x82:
            came.append((answer[1][0], answer[1][1]))
    assert sorted(came) == [(number, at) for number in range(tasks) for at in range(each)]
    assert [at for number, at in came if number == 7] == list(range(each))


@pytest.mark.parametrize("how", ["reset", "write timeout", "life time", "stop"])
async def test_send_that_waits_is_released_when_the_client_is_given_up(how: str) -> None:
    sent = 0
    raised: list[type[BaseException]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await accepted(receive, send)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65_000)})
                sent += 1
        except BaseException as error:
            raised.append(type(error))
            raise

    settings: dict[str, Any] = {
        "write timeout": {"write_timeout": 0.5},
        "life time": {"websocket_timeout": 0.5, "websocket_close_timeout": 0.2},
        "stop": {"websocket_close_timeout": 0.2},
    }.get(how, {})
    async with serve(application, **settings) as server, raw_websocket(server, receive_buffer=4096) as websocket:
        await stalls(lambda: sent)
        if how == "reset":
            websocket.peer.abort()
        elif how == "stop":
            await server.__aexit__()
        await until(lambda: raised)
    assert raised == [ClientDisconnected]


async def test_pings_of_a_client_that_does_not_read_pile_up_nowhere() -> None:
    """Only the last of them is answered once it reads (RFC 6455 §5.5.3)."""
    async with serve(Echo(), write_timeout=None) as server, raw_websocket(server, receive_buffer=4096) as websocket:
        pings = b"".join(frame(PING, b"%0125d" % at) for at in range(500))
        with traced() as memory:
            for _ in range(100):
                await websocket.send(pings)
            size, _ = memory()
        assert size < BOUND
        await websocket.send(frame(PING, b"last") + frame(TEXT, b"end"))
        last = b""
        while (answer := await websocket.frame()) != (0x81, b"end"):
            assert answer[0] == 0x8A
            last = answer[1]
        if last != b"last":
            assert await websocket.frame() == (0x8A, b"last")
