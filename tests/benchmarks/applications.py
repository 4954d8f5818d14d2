"""The applications that every server serves: one for each thing that is measured, and as little in it as can be.

Each is served on its own, so that no router stands between the server and what is measured.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Not when servers import this: what starting takes is measured.
    from .varied import Asked

__all__ = [
    "BODY", "DELIVERED", "FILE_SIZE", "PIECE", "PIECES",
    "broadcast", "echo", "file", "hello", "json", "json_of", "measured", "page", "page_of", "proxied", "proxied_of",
    "stream", "varied", "varied_of", "wait",
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


#: Answers to requests that differ end with so much of it as a checksum of the target says.
_FILLING = b"Words that fill an answer, as many of them as its checksum says. " * 100
_VARY = (b"Cookie", b"Accept-Encoding", b"Accept-Encoding, Cookie", b"Accept-Language, Cookie")


def _checksum(path: str, query: bytes) -> int:
    return zlib.crc32(query, zlib.crc32(path.encode()))


async def _answer(send: Send, checksum: int, body: bytes) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"etag", b'"%08x"' % checksum),
        (b"set-cookie", b"seen=%08x; Path=/; HttpOnly; SameSite=Lax" % checksum),
        (b"vary", _VARY[checksum & 3]),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _body(path: str, query: bytes, checksum: int) -> bytes:
    return b"%s?%s %s" % (path.encode(), query, _FILLING[: checksum % 211])


async def varied(scope: Scope, receive: Receive, send: Send) -> None:
    """The target and up to 210 bytes; length, etag, cookie and vary differ with the target."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    checksum = _checksum(scope["path"], scope["query_string"])
    await _answer(send, checksum, _body(scope["path"], scope["query_string"], checksum))


async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
    """As :func:`varied`, after the scheme and the client that the proxy has told."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    checksum = _checksum(scope["path"], scope["query_string"])
    told = f"{scope['scheme']} {scope['client'][0]} ".encode()
    await _answer(send, checksum, told + _body(scope["path"], scope["query_string"], checksum))


_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>%s</title></head>
<body><p>%08x</p><p>%s</p></body></html>
"""


def _page(path: str, checksum: int) -> bytes:
    return _PAGE % (path.encode(), checksum, _FILLING[: 4900 + checksum % 211])


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """5 KiB of HTML, with seven fields as Django sends them, in its spelling."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    checksum = _checksum(scope["path"], scope["query_string"])
    body = _page(scope["path"], checksum)
    token = b"%08x%08x%08x%08x" % ((checksum,) * 4)
    headers = [
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"X-Frame-Options", b"DENY"),
        (b"Vary", b"Cookie"),
        (b"Content-Length", b"%d" % len(body)),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Referrer-Policy", b"same-origin"),
        (b"Set-Cookie", b"csrftoken=%s; Max-Age=31449600; Path=/; SameSite=Lax" % token),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def json(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads JSON, and answers the same."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    body = b""
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event.get("body", b"")
        more = event.get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def varied_of(asked: Asked) -> bytes:
    """The body that :func:`varied` has to answer."""
    return _body(asked.path, asked.query, _checksum(asked.path, asked.query))


def proxied_of(asked: Asked) -> bytes:
    """The body that :func:`proxied` has to answer behind a proxy that says https."""
    return f"https {asked.client} ".encode() + varied_of(asked)


def page_of(asked: Asked) -> bytes:
    """The body that :func:`page` has to answer."""
    return _page(asked.path, _checksum(asked.path, asked.query))


def json_of(asked: Asked) -> bytes:
    """The body that :func:`json` has to answer."""
    return asked.body


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
