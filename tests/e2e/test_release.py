"""A connection that has ended is freed by reference counts alone: no cycle is left for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import CoroutineType
from typing import Any

import pytest

from asgiserver import Server

from .live import DEADLINE, Peer, Receive, Send, answer, connect, get, post, receive_body, serve, until
from .websocket import handshake

ROUNDS = 5

#: A close frame with the code 1000, and a text message, with a mask of zeros.
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
TEXT = b"\x81\x82\0\0\0\0hi"
#: The first fragment of a message, and half a frame.
FRAGMENT = b"\x01\x82\0\0\0\0hi"
HALF = b"\x82\xfe\x10\0\0\0\0\0half"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await {"http": http, "websocket": websocket}[scope["type"]](scope["path"], receive, send)


async def http(path: str, receive: Receive, send: Send) -> None:
    if path == "/raise":
        raise ValueError("as asked")
    if path == "/wait":
        await asyncio.Event().wait()
    if path == "/listen":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    await answer(send, b"%d" % len(await receive_body(receive)))


async def websocket(path: str, receive: Receive, send: Send) -> None:
    await receive()
    if path == "/deny":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    if path == "/raise":
        raise ValueError("as asked")
    if path == "/close":
        await send({"type": "websocket.close", "code": 1001, "reason": "bye"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


CODES = {application.__code__, http.__code__, websocket.__code__}


async def keep_alive(peer: Peer) -> None:
    for _ in range(3):
        assert (await peer.request("GET", "/")).status == 200
        assert (await peer.request("POST", "/", body=b"body")).body == b"4"


async def idle(peer: Peer) -> None:
    await peer.send(b"")


async def last_request(peer: Peer) -> None:
    assert (await peer.request("GET", "/", "Connection: close")).status == 200
    assert await peer.closed()


async def failing(peer: Peer) -> None:
    assert (await peer.request("GET", "/raise")).status == 500


async def malformed(peer: Peer) -> None:
    await peer.send(b"nonsense\r\n\r\n")
    assert (await peer.response()).status == 400
    assert await peer.closed()


async def half_a_head(peer: Peer) -> None:
    await peer.send(b"GET / HTTP/1.1\r\nHo")


async def half_a_body(peer: Peer) -> None:
    await peer.send(post(1000, b"body"))


async def waiting(peer: Peer) -> None:
    await peer.send(get("/wait"))


async def pipelined(peer: Peer) -> None:
    await peer.send(get("/listen") * 3)


async def streaming(peer: Peer) -> None:
    await peer.send(get("/stream"))
    await peer.read(100000)


async def opened(peer: Peer, path: str = "/", *fields: str) -> None:
    await peer.send(handshake(*fields, target=path))
    assert (await peer.response()).status == 101


async def closed_by_peer(peer: Peer) -> None:
    await opened(peer, "/", DEFLATE)
    await peer.send(TEXT)
    assert await peer.read(4) == b"\x81\x02hi"
    await peer.send(CLOSE)
    assert await peer.read_rest() == b"\x88\x02\x03\xe8"


async def closed_by_application(peer: Peer) -> None:
    await opened(peer, "/close")
    assert await peer.read(7) == b"\x88\x05\x03\xe9bye"
    await peer.send(CLOSE)
    assert await peer.closed()


async def failing_websocket(peer: Peer) -> None:
    await opened(peer, "/raise")
    await peer.send(CLOSE)
    assert (await peer.read_rest()).startswith(b"\x88")


async def denied(peer: Peer) -> None:
    await peer.send(handshake(target="/deny"))
    assert (await peer.response()).status == 403


async def breaking_the_protocol(peer: Peer) -> None:
    await opened(peer)
    await peer.send(b"\x83\x80\0\0\0\0")
    assert (await peer.read_rest()).startswith(b"\x88")


async def left_open(peer: Peer) -> None:
    await opened(peer, "/", DEFLATE)
    await peer.send(TEXT + FRAGMENT + CLOSE[:1])
    await peer.read(4)


async def half_a_frame(peer: Peer) -> None:
    await opened(peer)
    await peer.send(HALF)


SCENES: list[Callable[[Peer], Awaitable[None]]] = [
    idle, keep_alive, last_request, failing, malformed, half_a_head, half_a_body, waiting, pipelined, streaming,
    closed_by_peer, closed_by_application, failing_websocket, denied, breaking_the_protocol, left_open, half_a_frame,
]  # fmt: skip


@contextmanager
def forgetful_log() -> Iterator[None]:
    """Logging that formats tracebacks, and does not keep the records as pytest's does; no fixture, lest it joins in."""
    logger = logging.getLogger("asgiserver")
    handlers, logger.handlers = logger.handlers, [logging.StreamHandler(io.StringIO())]
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.handlers = handlers


@contextmanager
def without_collector() -> Iterator[None]:
    """No collection; and what exists by now is not seen by ``gc.get_objects()``."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def alive() -> Counter[str]:
    """How many there are of whatever may belong to a connection."""
    counted: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind is CoroutineType and each.cr_code in CODES:
            counted[each.cr_code.co_name] += 1
        # Delayed calls that were cancelled wait in Twisted's heap, without what they would have called.
        elif name.startswith(("asgiserver.", "autobahn.", "twisted.internet.")) and not name.endswith(".DelayedCall"):
            counted[name] += 1
    return counted


async def act(server: Server, scene: Callable[[Peer], Awaitable[None]], *, abort: bool) -> None:
    async with connect(server) as peer:
        await scene(peer)
        if abort:
            peer.abort()


async def leaves_nothing(scene: Callable[[Peer], Awaitable[None]], *, abort: bool) -> None:
    async with asyncio.timeout(DEADLINE), serve(application, application_close_timeout=0.01) as server:

        def idle() -> bool:
            return not server.connections and not server._tasks

        # What the first one makes for all that follow.
        await act(server, scene, abort=abort)
        await until(idle)
        with without_collector():
            for _ in range(ROUNDS):
                await act(server, scene, abort=abort)
            await until(idle)
            # Callbacks that are on their way hold on to what they were given.
            for _ in range(10):
                await asyncio.sleep(0)
            assert alive() == Counter()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("abort", [False, True], ids=["closed", "aborted"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_ended_connection_leaves_nothing(scene: Callable[[Peer], Awaitable[None]], abort: bool, loop: str) -> None:
    factory = None if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with forgetful_log(), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(leaves_nothing(scene, abort=abort))
