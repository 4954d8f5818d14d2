"""The writing half of a WebSocket: messages, pings, pongs and the close frame as frames (RFC 6455 §5.2, RFC 7692)."""

from __future__ import annotations

import struct

from ...asgi.interfaces import Channel
from ...asgi.tokens import MOST_OF_A_REASON
from .deflate import Deflate

__all__ = ["BINARY", "COMPRESSED", "NO_STATUS", "PING", "PONG", "TEXT", "FrameWriter"]

#: The first bytes of whole frames.
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
#: The first reserved bit in them: the message is compressed (RFC 7692 §7.2.3.1).
COMPRESSED = 0x40

#: The code that stands for a close frame without one (RFC 6455 §7.4.1).
NO_STATUS = 1005

#: Messages below this size are sent uncompressed, since their packets would hardly shrink; bytes. The smallest
#: compressed messages of the Autobahn suite have 16.
_MIN_COMPRESSED = 16

#: Payloads from this size on are not copied behind their heads; bytes.
_LARGE = 16384

#: The heads of short messages, by size.
_TEXT_HEADS = [bytes((TEXT, size)) for size in range(126)]
_BINARY_HEADS = [bytes((BINARY, size)) for size in range(126)]


class FrameWriter:
    """Writes a WebSocket's frames to ``channel``, none after a close frame."""

    def __init__(self, channel: Channel, deflate: Deflate | None) -> None:
        self._channel = channel
        self._deflate = deflate
        self._close_sent = False
        #: The answers to the frames of one read, sent by one write; None while no read is parsed.
        self._gathered: list[bytes] | None = None

    def send_message(self, payload: bytes, *, text: bool) -> None:
        """Send a message in one frame; ``payload`` is UTF-8 when it is ``text``. Nothing is sent after a close."""
        if self._close_sent:
            return
        size, deflate = len(payload), self._deflate
        if deflate is not None and size >= _MIN_COMPRESSED:
            self._send_frame((TEXT if text else BINARY) | COMPRESSED, deflate.deflated(payload))
        elif size < 126 and self._gathered is None:
            self._channel.write((_TEXT_HEADS if text else _BINARY_HEADS)[size] + payload)
        else:
            self._send_frame(TEXT if text else BINARY, payload)

    def _send_close(self, code: int, reason: str) -> None:
        if not self._close_sent:
            self._close_sent = True
            encoded = reason.encode()
            assert len(encoded) <= MOST_OF_A_REASON, reason
            self._send_frame(CLOSE, b"" if code == NO_STATUS else struct.pack("!H", code) + encoded)

    def _send_frame(self, first: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((first, size))
        elif size < 65536:
            head = struct.pack("!BBH", first, 126, size)
        else:
            head = struct.pack("!BBQ", first, 127, size)
        if self._gathered is None:
            if size < _LARGE:
                self._channel.write(head + payload)
            else:
                self._channel.write_large(head, payload)
        else:
            # Thousands of pings in one read must not cost as many system calls.
            self._gathered.append(head + payload)

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered:
            self._channel.write(b"".join(gathered))
