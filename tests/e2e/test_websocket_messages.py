"""Messages both ways over an accepted WebSocket: kinds, fragments, limits, compression, and wrong frames."""

from __future__ import annotations

import asyncio
import os
import random
import tracemalloc
from typing import Any

import pytest
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosedError

from asgiserver.errors import MessageError

from ..conformance.cases import deflated
from ..conformance.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, fragments, frame
from .live import Receive, Send, serve, until, url
from .websocket import Attempts, Echo, accept, accepted, raw_websocket

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"

Scope = dict[str, Any]


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_text_and_binary_go_both_ways_with_their_type(compression: str | None) -> None:
    """Empty messages among them."""
    application = Echo()
    sent: list[str | bytes] = ["", b"", "a", b"b", "grüße \U0001f600 " * 999, os.urandom(70_000), "x" * 125, b"y" * 126]
    async with serve(application) as server, client(url(server, "ws"), compression=compression) as websocket:
        for message in sent:
            await websocket.send(message)
        assert [await websocket.recv() for _ in sent] == sent
        await websocket.close()
        await until(lambda: application.closed)
    events = [{"type": "websocket.receive", "text" if isinstance(each, str) else "bytes": each} for each in sent]
    assert application.events[1:-1] == events


async def test_other_key_of_a_message_may_be_none_but_not_both() -> None:
    messages: list[dict[str, Any]] = [
        {"text": "a", "bytes": None}, {"text": None, "bytes": b"b"}, {"text": "", "bytes": None},
        {"text": None, "bytes": None}, {}, {"text": "a", "bytes": b"b"}, {"text": b"a"}, {"bytes": "b"},
        {"text": "\ud800"},
    ]  # fmt: skip
    application = Attempts(accept(), *({"type": "websocket.send", **more} for more in messages))
    async with serve(application) as server, client(url(server, "ws")) as websocket:
        assert [message async for message in websocket] == ["a", b"b", ""]
    assert application.outcomes == [None] * 4 + [MessageError] * 6


async def test_fragments_are_joined_and_pings_between_them_answered() -> None:
    async with serve(Echo()) as server, raw_websocket(server) as websocket:
        await websocket.send(frame(TEXT, "grü".encode()[:3], fin=False) + frame(PING, b"between") + frame(PONG))
        assert await websocket.frame() == (0x8A, b"between")
        await websocket.send(frame(CONTINUATION, "grü".encode()[3:], fin=False) + frame(CONTINUATION, "ße".encode()))
        assert await websocket.frame() == (0x81, "grüße".encode())


@pytest.mark.parametrize(
    ("settings", "good", "wrong"),
    [
        ({"websocket_max_message_size": 1000}, frame(BINARY, b"*" * 1000), frame(BINARY, b"*" * 1001)),
        ({"websocket_max_message_size": 1000}, frame(TEXT, b"*" * 1000), frame(TEXT, b"*" * 1001)),
        (
            {"websocket_max_message_size": 1000},
            fragments(BINARY, b"*" * 500, b"*" * 500),
            fragments(BINARY, b"*" * 500, b"*" * 501),
        ),
        (
            {"websocket_max_message_size": 1000},
            frame(BINARY, deflated(b"*" * 1000), rsv=4),
            frame(BINARY, deflated(b"*" * 1001), rsv=4),
        ),
        (
            {"websocket_max_frame_size": 600},
            fragments(BINARY, b"*" * 600, b"*" * 400),
            fragments(BINARY, b"*" * 100, b"*" * 601),
        ),
    ],
)
async def test_message_at_the_limit_passes_and_a_byte_more_is_a_1009(
    settings: dict[str, int], good: bytes, wrong: bytes
) -> None:
    application = Echo()
    async with serve(application, **settings) as server, raw_websocket(server, DEFLATE) as websocket:
        await websocket.send(good)
        first, _ = await websocket.frame()
        assert first & 0x8F in (0x81, 0x82)
        await websocket.send(wrong)
        code, reason = await websocket.close_frame()
        assert code == 1009
        assert reason
        assert await websocket.peer.read_rest() == b""
        await until(lambda: application.closed)
        assert application.closed == (1009, reason)
        assert [event["type"] for event in application.events].count("websocket.receive") == 1


async def test_message_at_the_limit_passes_although_compression_makes_it_larger() -> None:
    """A picture as large as a message may be, with the limits that a server has by default."""
    async with serve(Echo()) as server, client(url(server, "ws"), max_size=None) as websocket:
        assert [each.name for each in websocket.protocol.extensions] == ["permessage-deflate"]
        picture = random.Random(1).randbytes(1_048_576)
        await websocket.send(picture)
        assert await websocket.recv() == picture


async def test_limits_can_be_turned_off() -> None:
    application = Echo()
    async with (
        serve(application, websocket_max_message_size=0, websocket_max_frame_size=0) as server,
        client(url(server, "ws"), max_size=None) as websocket,
    ):
        message = bytes(3_000_000)
        await websocket.send(message)
        assert await websocket.recv() == message


async def test_bomb_is_not_inflated_far_beyond_the_limit() -> None:
    application = Echo()
    bomb = frame(BINARY, deflated(bytes(100_000_000)), rsv=4)
    assert len(bomb) < 1_000_000
    async with serve(application) as server, raw_websocket(server, DEFLATE) as websocket:
        tracemalloc.start()
        try:
            await websocket.send(bomb)
            assert (await websocket.close_frame())[0] == 1009
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8_000_000


PLAIN = [
    (frame(TEXT, b"\xff"), 1007),
    (frame(TEXT, b"a", masked=False), 1002),
]
OTHER = [
    (fragments(TEXT, b"a", b"\xce"), 1007),
    (frame(TEXT, b"\xc0\xaf", fin=False), 1007),
    (frame(TEXT, b"a", rsv=1), 1002),
    (frame(TEXT, b"a", rsv=4), 1002),
    (frame(3, b"a"), 1002),
    (frame(11), 1002),
    (frame(PING, b"*" * 126), 1002),
    (frame(PING, fin=False), 1002),
    (frame(CONTINUATION, b"a"), 1002),
    (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    (frame(CLOSE, b"\x03"), 1002),
    (close(1005), 1002),
    (close(1006), 1002),
    (close(999), 1002),
    (close(1000, b"\xff"), 1007),
]


@pytest.mark.parametrize(("wrong", "code"), PLAIN + OTHER)
async def test_wrong_frame_is_answered_by_a_close_frame_and_what_follows_is_thrown_away(
    wrong: bytes, code: int
) -> None:
    application = Echo()
    async with serve(application) as server, raw_websocket(server) as websocket:
        await websocket.send(frame(TEXT, b"right"))
        assert await websocket.frame() == (0x81, b"right")
        await websocket.send(wrong + frame(TEXT, b"late") + frame(PING))
        assert (await websocket.close_frame())[0] == code
        assert await websocket.peer.read_rest() == b""
        await until(lambda: application.closed)
        assert (application.closed or (0,))[0] == code
        assert application.events[1:-1] == [{"type": "websocket.receive", "text": "right"}]


@pytest.mark.parametrize(("wrong", "code"), [*OTHER, (close(1000), 1000)])
async def test_messages_are_answered_before_the_end_that_came_with_them(wrong: bytes, code: int) -> None:
    """As the Autobahn test suite wants it, where one segment has a message and a violation."""
    async with serve(Echo()) as server, raw_websocket(server) as websocket:
        await websocket.send(frame(TEXT, b"first") + frame(TEXT, b"second") + wrong)
        assert [await websocket.frame() for _ in range(2)] == [(0x81, b"first"), (0x81, b"second")]
        assert (await websocket.close_frame())[0] == code


async def test_real_client_hears_of_its_mistake() -> None:
    async with serve(Echo()) as server, client(url(server, "ws")) as websocket:
        websocket.protocol.send_text(b"\xff")
        for data in websocket.protocol.data_to_send():
            websocket.transport.write(data)
        with pytest.raises(ConnectionClosedError) as caught:
            await websocket.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1007


async def test_messages_and_a_close_in_one_segment_come_in_order() -> None:
    application = Echo()
    async with serve(application) as server, raw_websocket(server) as websocket:
        await websocket.send(frame(TEXT, b"a") + frame(BINARY, b"b") + close(4005, b"bye"))
        await until(lambda: application.closed)
    assert application.events == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "a"},
        {"type": "websocket.receive", "bytes": b"b"},
        {"type": "websocket.disconnect", "code": 4005, "reason": "bye"},
    ]


async def test_messages_that_came_before_the_end_can_still_be_read() -> None:
    """Also after a connection that was lost."""
    application = Echo()
    lost = asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await lost.wait()
        while (event := await receive())["type"] == "websocket.receive":
            application.events.append(event)
        application.events.append(event)

    async with serve(late) as server:
        async with raw_websocket(server) as websocket:
            await websocket.send(b"".join(frame(TEXT, b"%d" % at) for at in range(100)))
        await until(lambda: not server.connections)
        lost.set()
        await until(lambda: application.closed)
    assert [event.get("text") for event in application.events] == [*map(str, range(100)), None]
    assert application.closed == (1006, "")


# permessage-deflate.


@pytest.mark.parametrize(
    ("on", "offer", "answer"),
    [
        (True, DEFLATE, "permessage-deflate"),
        (True, DEFLATE + "; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"),
        (True, DEFLATE + "; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        (True, DEFLATE + "; unknown, permessage-deflate", "permessage-deflate"),
        (True, "Sec-WebSocket-Extensions: x-webkit-deflate-frame", None),
        (True, "X-Nothing: offered", None),
        (False, DEFLATE, None),
    ],
)
async def test_compression_is_negotiated_when_it_is_on(on: bool, offer: str, answer: str | None) -> None:
    async with serve(Echo(), websocket_compression=on) as server, raw_websocket(server, offer) as websocket:
        assert websocket.response.value("sec-websocket-extensions") == answer
        await websocket.send(frame(TEXT, b"hello " * 99))
        first, payload = await websocket.frame()
        assert first == (0xC1 if answer else 0x81)
        assert (len(payload) < 99) is bool(answer)


async def test_compressed_messages_of_a_real_client_share_their_context() -> None:
    async with serve(Echo()) as server, client(url(server, "ws"), compression="deflate") as websocket:
        noise = os.urandom(3000).hex()
        for _ in range(5):
            await websocket.send(noise)
            assert await websocket.recv() == noise
        assert [type(each).__name__ for each in websocket.protocol.extensions] == ["PerMessageDeflate"]
