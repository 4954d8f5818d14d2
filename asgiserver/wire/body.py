"""The body of a request, cut out of a connection's bytes (RFC 9112 §6, §7.1).

h11 reads heads; bodies are framed here, because h11 takes a bare LF in trailers, a CR in a chunk extension, and
copies each piece twice. Both framings take what they need from the front of the reader's buffer.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

from ..errors import RequestError
from .head import check_fields

__all__ = ["Body", "ChunkedBody", "Event", "LengthBody"]

#: Most bytes of a chunk's size line; extensions are allowed and ignored (RFC 9112 §7.1.1).
_SIZE_LINE = 1024
#: Most bytes of framing beyond what chunks of a sensible size need; extensions could hold a connection for ever, with a
#: body that stays below its limit (CVE-2023-39326). The figures are those of Go's net/http.
_EXCESS = 16384
_CHUNK_FRAMING = 16
#: Most bytes that small chunks are joined to before they are handed on.
_PIECE = 65536

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,4})\r\n")
_TRAILER = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+:")


class Event(Enum):
    """What a reader has besides requests and pieces of bodies."""

    NEED_DATA = auto()
    END = auto()


class Body(Protocol):
    """One body, as far as it has been read."""

    remaining: int | None

    def take(self, buffer: bytearray) -> bytes | Event:
        """A piece of the body, removed from the front of ``buffer``; END once, NEED_DATA when there is none.

        :raises RequestError: the framing is broken.
        """


class LengthBody:
    """A body of known size.

    :ivar remaining: bytes that are still to come.
    """

    __slots__ = ("remaining",)

    def __init__(self, size: int) -> None:
        self.remaining: int | None = size

    def take(self, buffer: bytearray) -> bytes | Event:
        """See :class:`Body`."""
        remaining = self.remaining or 0
        if not remaining:
            return Event.END
        if not buffer:
            return Event.NEED_DATA
        piece = bytes(buffer) if len(buffer) <= remaining else bytes(buffer[:remaining])
        del buffer[: len(piece)]
        self.remaining = remaining - len(piece)
        return piece


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedBody:
    """A chunked body; its trailers are checked and dropped.

    :ivar remaining: None, since only the end will tell.
    :param limit_size: bytes of all trailers.
    :param limit_count: lines of all trailers.
    """

    __slots__ = ("_chunk", "_excess", "_limit_count", "_limit_size", "_part", "remaining")

    def __init__(self, limit_size: int, limit_count: int) -> None:
        self.remaining: int | None = None
        self._limit_size = limit_size
        self._limit_count = limit_count
        self._part = _Part.SIZE
        self._chunk = 0
        self._excess = 0

    def take(self, buffer: bytearray) -> bytes | Event:
        """See :class:`Body`; small chunks are joined."""
        pieces: list[bytes] = []
        size = 0
        while size < _PIECE and self._part is not _Part.DONE:
            before = len(buffer)
            if self._part is _Part.DATA:
                piece = bytes(buffer[: self._chunk])
                del buffer[: len(piece)]
                self._chunk -= len(piece)
                size += len(piece)
                pieces.append(piece)
                if not self._chunk:
                    self._part = _Part.DATA_END
            elif self._part is _Part.SIZE:
                size += self._take_whole(buffer, pieces)
                self._take_size(buffer)
            elif self._part is _Part.DATA_END:
                self._take_data_end(buffer)
            else:
                self._take_trailer(buffer)
            if len(buffer) == before:
                break
        if pieces and size:
            return b"".join(pieces)
        return Event.END if self._part is _Part.DONE else Event.NEED_DATA

    @staticmethod
    def _take_whole(buffer: bytearray, pieces: list[bytes]) -> int:
        """Take the plain small chunks that are there to their end, at a fifth of what the steps cost for each.

        :returns: bytes that were added to ``pieces``.
        """
        at = size = 0
        while size < _PIECE and (match := _PLAIN_SIZE.match(buffer, at)):
            start = match.end()
            end = start + int(match[1], 16)
            # The last chunk, and what is not complete or not right, is for the steps.
            if end == start or buffer[end : end + 2] != b"\r\n":
                break
            pieces.append(bytes(buffer[start:end]))
            size += end - start
            at = end + 2
        del buffer[:at]
        return size

    def _take_size(self, buffer: bytearray) -> None:
        line = self._take_line(buffer, _SIZE_LINE, 400)
        if line is None:
            return
        match = _CHUNK_SIZE.match(line)
        if match is None:
            raise RequestError(400, "The request's body has a chunk whose size is not valid.")
        self._chunk = int(match[1], 16)
        self._excess = max(0, self._excess + len(line) + 4 - _CHUNK_FRAMING - 2 * self._chunk)
        if self._excess > _EXCESS:
            raise RequestError(400, "The request's body has more framing than data.")
        self._part = _Part.DATA if self._chunk else _Part.TRAILERS

    def _take_data_end(self, buffer: bytearray) -> None:
        if buffer[:2] != b"\r\n"[: len(buffer)]:
            raise RequestError(400, "The request's body has a chunk that is longer than its size.")
        if len(buffer) >= 2:
            del buffer[:2]
            self._part = _Part.SIZE

    def _take_trailer(self, buffer: bytearray) -> None:
        line = self._take_line(buffer, self._limit_size, 431)
        if line is None:
            return
        if not line:
            self._part = _Part.DONE
            return
        self._limit_size -= len(line) + 2
        self._limit_count -= 1
        if self._limit_size < 0 or self._limit_count < 0:
            raise RequestError(431, "The request's trailers are too large.")
        # Put a line end before it, so that a line that begins with a space is seen to be folded.
        check_fields(b"\r\n" + line + b"\r\n")
        if not _TRAILER.match(line):
            raise RequestError(400, "The request has a malformed trailer.")

    @staticmethod
    def _take_line(buffer: bytearray, limit: int, status: int) -> bytes | None:
        end = buffer.find(b"\r\n", 0, limit + 2)
        if end < 0:
            if buffer.find(b"\n", 0, limit + 2) >= 0:
                raise RequestError(400, "The request's lines must end in CRLF.")
            if len(buffer) > limit + 1:
                raise RequestError(status, "A line of the request's body framing is too long.")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return line
