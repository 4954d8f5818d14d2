"""Peers that send tiny frames or chunks as fast as they are taken: ``python -m tests.e2e.flood URL KIND PEERS``.

It says ``ready`` when every peer has sent more than one read, and ends after so many bytes or seconds, or when the
server has closed all of them. It reads what it is sent, and answers nothing.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
import time
from typing import Any
from urllib.parse import urlsplit

__all__ = ["KINDS", "application"]

_MOST_BYTES, _MOST_SECONDS = 256 << 20, 30.0
_MANY = 40_000

_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_UPLOAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

#: What a peer begins with, what it sends once, and what it repeats.
KINDS = {
    "fragments": (_HANDSHAKE, b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"),
    "texts": (_HANDSHAKE, b"", b"\x81\x81\0\0\0\0x"),
    "pings": (_HANDSHAKE, b"", b"\x89\x80\0\0\0\0"),
    "chunks": (_UPLOAD, b"", b"1;a\r\n*\r\n"),
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads all that it is sent."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    else:
        raise NotImplementedError("no lifespan")


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(parts.path)
        return peer
    assert parts.hostname is not None
    peer = socket.create_connection((parts.hostname, parts.port or 80))
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(peer)
    return peer


def main(url: str, kind: str, peers: int) -> None:
    start, once, small = KINDS[kind]
    data = small * _MANY
    selector = selectors.DefaultSelector()
    sent: dict[socket.socket, int] = {}
    for _ in range(peers):
        peer = connected(url)
        peer.sendall(start)
        if start is _HANDSHAKE:
            assert peer.recv(4096).startswith(b"HTTP/1.1 101 ")
        peer.sendall(once)
        peer.setblocking(False)
        selector.register(peer, selectors.EVENT_READ | selectors.EVENT_WRITE)
        sent[peer] = 0
    end, told = time.monotonic() + _MOST_SECONDS, False
    while selector.get_map() and time.monotonic() < end and sum(sent.values()) < _MOST_BYTES:
        for key, events in selector.select(0.1):
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            try:
                if events & selectors.EVENT_READ and not peer.recv(65536):
                    selector.unregister(peer)
                elif events & selectors.EVENT_WRITE:
                    sent[peer] += peer.send(data[sent[peer] % len(data) :])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError:
                selector.unregister(peer)
        if not told and min(sent.values()) > 262_144:
            told = True
            print("ready", flush=True)  # noqa: T201 - it is waited for


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
