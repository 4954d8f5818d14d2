"""WebSocket frames and handshakes of the measuring client, made once and before anything is measured (RFC 6455)."""

from __future__ import annotations

import socket
import struct
import zlib

from .wrk import ClientFailed

__all__ = ["client_frame", "deflated", "exactly", "expect", "head", "open_websocket", "payload_of", "server_frame"]

_MASK = b"\x12\x34\x56\x78"
#: Seconds that a blocking step may take.
DEADLINE = 20.0
#: The greatest head of a response that is waited for, bytes.
MOST_OF_A_HEAD = 65536


def _header(first: int, length: int, mask: int) -> bytes:
    if length < 126:
        return bytes((first, mask | length))
    if length < 65536:
        return struct.pack("!BBH", first, mask | 126, length)
    return struct.pack("!BBQ", first, mask | 127, length)


def server_frame(payload: bytes) -> bytes:
    """A whole text message as a server sends it: not masked, not compressed."""
    return _header(0x81, len(payload), 0) + payload


def client_frame(payload: bytes, *, compressed: bool = False) -> bytes:
    """A whole text message as a client sends it.

    :param compressed: sets RSV1; ``payload`` is from :func:`deflated` then.
    """
    repeated = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
    return _header(0xC1 if compressed else 0x81, len(payload), 0x80) + _MASK + masked


def deflated(payload: bytes) -> bytes:
    """``payload`` compressed for permessage-deflate with nothing taken over from earlier messages.

    It can be sent again and again: a peer that keeps its window finds no reference into it (RFC 7692 §7.2.1).
    """
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def payload_of(data: bytes | bytearray) -> tuple[int, int] | None:
    """Start and end of the payload of the server's frame at the beginning of ``data``; None while that is too short."""
    if len(data) < 2:
        return None
    length, start = data[1] & 0x7F, 2
    if length == 126:
        start = 4
        length = int.from_bytes(data[2:4], "big")
    elif length == 127:
        start = 10
        length = int.from_bytes(data[2:10], "big")
    return (start, start + length) if len(data) >= start + length else None


def exactly(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes from a blocking socket."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ClientFailed(f"the server closed the connection after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def head(sock: socket.socket) -> bytes:
    """A response's head; byte for byte, so that nothing after it is read."""
    data = bytearray()
    while not data.endswith(b"\r\n\r\n"):
        if len(data) > MOST_OF_A_HEAD:
            raise ClientFailed("a response's head has no end")
        data += exactly(sock, 1)
    return bytes(data)


def expect(answer: bytes, status: int) -> None:
    """:raises ClientFailed: the response with the head ``answer`` has another status."""
    line = answer.split(b"\r\n", 1)[0].decode("latin-1")
    if line.split(" ")[1:2] != [str(status)]:
        raise ClientFailed(f"expected {status}, got {line}")


def open_websocket(port: int, *, compressed: bool = False) -> socket.socket:
    """A blocking socket after a WebSocket's handshake.

    :raises ClientFailed: it was refused, or compression was asked for and not agreed on.
    """
    sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if compressed else ""
        sock.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Origin: http://127.0.0.1:{port}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{offer}\r\n".encode("ascii")
        )
        answer = head(sock)
        expect(answer, 101)
        if compressed and b"permessage-deflate" not in answer.lower():
            raise ClientFailed("it does not offer permessage-deflate")
    except BaseException:
        sock.close()
        raise
    return sock
