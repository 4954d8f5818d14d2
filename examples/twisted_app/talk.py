"""One room, in which people talk over WebSockets and over plain lines of TCP.

Both live on one loop, so they share the room without locks: Twisted calls the protocol, asyncio runs the application.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

#: Most bytes of a line, and most lines that are remembered.
MAX_LINE, MAX_LINES = 500, 100


class Room:
    """Tells each line to all who listen, and remembers the last ones."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self.listeners: set[Callable[[str], object]] = set()

    def say(self, line: str) -> None:
        self.lines.append(line)
        for tell in list(self.listeners):
            tell(line)


class LineProtocol(LineOnlyReceiver):
    """Somebody with ``nc`` or ``telnet``."""

    delimiter, MAX_LENGTH = b"\n", MAX_LINE

    def __init__(self, room: Room) -> None:
        self.room = room

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        self.room.listeners.add(self.tell)

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802 - Twisted's name
        self.room.listeners.discard(self.tell)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        self.room.say(line.decode("utf-8", "replace").strip())

    def tell(self, line: str) -> None:
        self.sendLine(line.encode())


class LineFactory(Factory):
    def __init__(self, room: Room) -> None:
        self.room = room

    def buildProtocol(self, addr: Any) -> LineProtocol:  # noqa: N802 - Twisted's name
        return LineProtocol(self.room)


class Application:
    """The ASGI application: the lines so far on ``/lines``, and a WebSocket on ``/ws``."""

    def __init__(self, room: Room) -> None:
        self.room = room

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        path = scope["path"].removeprefix(scope["root_path"])
        match scope["type"], path:
            case "http", "/lines":
                await respond(send, 200, {"lines": list(self.room.lines)})
            case "http", _:
                await respond(send, 404, {"error": "not found"})
            case "websocket", "/ws":
                await self.talk(receive, send)
            case _:
                await receive()
                await send({"type": "websocket.close"})

    async def lifespan(self, receive: Any, send: Any) -> None:
        await receive()  # lifespan.startup
        self.room.say("The room is open.")
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        self.room.say("The room closes.")
        await send({"type": "lifespan.shutdown.complete"})

    async def talk(self, receive: Any, send: Any) -> None:
        """Tell a client what is said, and the room what it says, until it leaves."""
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        told: asyncio.Queue[str] = asyncio.Queue()
        self.room.listeners.add(told.put_nowait)
        teller = asyncio.create_task(self.tell(told, send))
        try:
            while (message := await receive())["type"] == "websocket.receive":
                self.room.say((message.get("text") or "")[:MAX_LINE])
        finally:
            self.room.listeners.discard(told.put_nowait)
            teller.cancel()

    async def tell(self, told: asyncio.Queue[str], send: Any) -> None:
        while True:
            await send({"type": "websocket.send", "text": await told.get()})


async def respond(send: Any, status: int, content: Any) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
