"""The two ends that the tests of WebSockets need: a raw client, and an application that remembers."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiserver import Server

from .live import Peer, Receive, Response, Send, connect

__all__ = [
    "ACCEPT", "KEY", "Attempts", "Echo", "RawWebSocket", "accept", "accepted", "handshake", "raw_websocket", "refused",
    "text",
]  # fmt: skip

# The example of RFC 6455 §1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def handshake(
    *fields: str, target: str = "/", method: str = "GET", version: str = "1.1", **changed: str | None
) -> bytes:
    """An opening handshake; keywords change or (None) leave out a field, ``sec_websocket_key=…`` for example."""
    own: dict[str, str | None] = {
        "Host": "example.org",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    for name in own:
        own[name] = changed.pop(name.lower().replace("-", "_"), own[name])
    assert not changed
    lines = [f"{name}: {value}" for name, value in own.items() if value is not None]
    return "\r\n".join([f"{method} {target} HTTP/{version}", *lines, *fields, "", ""]).encode("latin-1")


class RawWebSocket:
    """The client's side of an accepted WebSocket, byte by byte.

    :param peer: the connection.
    :param response: the server's 101.
    """

    def __init__(self, peer: Peer, response: Response) -> None:
        self.peer = peer
        self.response = response

    async def send(self, data: bytes) -> None:
        await self.peer.send(data)

    async def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the server's next frame, which must not be masked (RFC 6455 §5.1)."""
        first, size = await self.peer.read(2)
        if size > 125:
            width = {126: 2, 127: 8}[size]
            size = int.from_bytes(await self.peer.read(width))
        return first, await self.peer.read(size)

    async def close_frame(self) -> tuple[int, str]:
        """Code and reason of the next frame, which must be a close frame; 1005 without a code."""
        first, payload = await self.frame()
        assert first == 0x88, (first, payload)
        return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (1005, "")


@asynccontextmanager
async def raw_websocket(
    server: Server, *fields: str, target: str = "/", receive_buffer: int | None = None
) -> AsyncIterator[RawWebSocket]:
    """An accepted WebSocket to the first address of ``server``."""
    async with connect(server, receive_buffer=receive_buffer) as peer:
        await peer.send(handshake(*fields, target=target))
        response = await peer.response()
        assert response.status == 101, response
        yield RawWebSocket(peer, response)


class Echo:
    """Accepts, sends back every message, returns after the disconnect; remembers its scopes and events."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.events.append(await receive())
        await send(accept())
        while True:
            event = await receive()
            self.events.append(event)
            if event["type"] == "websocket.disconnect":
                break
            await send({**event, "type": "websocket.send"})

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the disconnect, None before it."""
        last = self.events[-1] if self.events else {}
        return (last["code"], last["reason"]) if last.get("type") == "websocket.disconnect" else None


def accept(**more: Any) -> dict[str, Any]:
    return {"type": "websocket.accept", **more}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}


async def accepted(receive: Receive, send: Send, **more: Any) -> None:
    """Take the connect event and accept, with ``more`` in the message."""
    assert (await receive())["type"] == "websocket.connect"
    await send(accept(**more))


async def refused(peer: Peer, data: bytes) -> Response:
    """The answer to a handshake that must not be accepted."""
    await peer.send(data)
    response = await peer.response()
    assert response.status >= 400
    return response


class Attempts:
    """An application that tries messages one after the other, and remembers what each raised and the last event.

    :param then_receive: take one event more before it returns.
    """

    def __init__(self, *messages: dict[str, Any], then_receive: bool = False) -> None:
        self.messages = messages
        self.then_receive = then_receive
        self.outcomes: list[type[BaseException] | None] = []
        self.events: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        for message in self.messages:
            try:
                await send(message)
            except Exception as error:
                self.outcomes.append(type(error))
            else:
                self.outcomes.append(None)
        if self.then_receive:
            self.events.append(await receive())
