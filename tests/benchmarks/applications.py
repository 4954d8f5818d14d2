"""The applications that every server serves: one for each thing that is measured, and as little in it as can be.

Each is served on its own, so that no router stands between the server and what is measured.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

__all__ = [
    "BODY", "DELIVERED", "FILE_SIZE", "PIECE", "PIECES",
    "broadcast", "echo", "file", "hello", "measured", "stream", "wait",
]  # fmt: skip

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY = b"Hello, world!"
#: The streamed response: 160 pieces of 64 KiB, 10 MiB in all, without a length.
PIECE = b"x" * 65536
PIECES = 160
FILE_SIZE = 1 << 20
#: What one sender says to all.
DELIVERED = "x" * 128

_START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(BODY))],
}
_END: dict[str, Any] = {"type": "http.response.body", "body": BODY}


async def lifespan(receive: Receive, send: Send) -> None:
    """Start and stop with nothing to do: some servers complain about applications without it."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Thirteen bytes."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send(_START)
    await send(_END)


async def wait(scope: Scope, receive: Receive, send: Send) -> None:
    """Thirteen bytes after 10 ms, as if a database had been asked."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await asyncio.sleep(0.010)
    await send(_START)
    await send(_END)


async def measured(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body and answers its length in bytes."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    length = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        length += len(event.get("body", b""))
        if not event.get("more_body", False):
            break
    answer = b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """10 MiB in pieces."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def path_of_file() -> Path:
    """The file that is served; made when it is not there."""
    path = Path(os.environ.get("BENCHMARK_FOLDER", tempfile.gettempdir())) / "asgiserver-benchmark.bin"
    if not path.exists() or path.stat().st_size != FILE_SIZE:
        path.write_bytes(b"x" * FILE_SIZE)
    return path


async def file(scope: Scope, receive: Receive, send: Send) -> None:
    """A file of 1 MiB in the best way that the server announces, else by reading it as frameworks do."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    path = path_of_file()
    length = b"%d" % path.stat().st_size
    extensions = scope.get("extensions") or {}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    if "http.response.pathsend" in extensions:
        return await send({"type": "http.response.pathsend", "path": str(path)})
    with path.open("rb") as content:
        if "http.response.zerocopysend" in extensions:
            return await send({"type": "http.response.zerocopysend", "file": content.fileno()})
        more = True
        while more:
            piece = content.read(65536)
            more = len(piece) == 65536
            await send({"type": "http.response.body", "body": piece, "more_body": more})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that says what it hears; over HTTP thirteen bytes."""
    if scope["type"] != "websocket":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        text = event.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


_members: set[Send] = set()


async def broadcast(scope: Scope, receive: Receive, send: Send) -> None:
    """Whoever says something has it delivered to all WebSockets."""
    if scope["type"] != "websocket":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    _members.add(send)
    try:
        while (await receive())["type"] == "websocket.receive":
            message = {"type": "websocket.send", "text": DELIVERED}
            for member in tuple(_members):
                await member(message)
    finally:
        _members.discard(send)
