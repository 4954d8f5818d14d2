"""The body of a request, cut out of a connection's bytes (RFC 9112 §6, §7.1).

h11 reads heads; bodies are framed here, because h11 accepts a bare LF in trailers and a CR in a chunk extension, and
copies each piece twice. Both framings take their bytes from the reader's data, and return where they stopped.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

from ..asgi.tokens import TOKEN
from ..errors import RequestError
from .head import check_fields

__all__ = ["Body", "ChunkedBody", "Event", "LengthBody"]

#: Most bytes of a chunk's size line; extensions are allowed and ignored (RFC 9112 §7.1.1).
_SIZE_LINE = 1024
#: Most bytes of framing beyond what chunks of a sensible size need. Without this bound, chunk extensions could hold a
#: connection for ever with a body below its limit (CVE-2023-39326). The figures are those of Go's net/http.
_EXCESS = 16384
_CHUNK_FRAMING = 16
#: Small chunks are joined until a piece has so many bytes, or so many chunks; the second bounds the cost of a piece.
_PIECE = 65536
_MOST_JOINED = 64

# RFC 9110 §5.6.4.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
# RFC 9112 §7.1.1; no two parts can match the same byte, so a match takes time in proportion to the line.
_EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + _QUOTED + rb"))?"
_chunk_size = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*").fullmatch
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,4})\r\n")
_TRAILER = re.compile(TOKEN + rb":")


class Event(Enum):
    """The events of a reader besides requests and pieces of bodies."""

    NEED_DATA = auto()
    END = auto()


class Body(Protocol):
    """One body, as far as it has been read."""

    remaining: int | None

    def take(self, data: bytes, at: int) -> tuple[bytes | Event, int]:
        """Take a piece of the body from ``data[at:]``: bytes, END once, or NEED_DATA; and return where the next one is.

        :raises RequestError: the framing is broken.
        """


class LengthBody:
    """A body of known size.

    :ivar remaining: bytes that are still to come.
    """

    __slots__ = ("remaining",)

    def __init__(self, size: int) -> None:
        self.remaining: int | None = size

    def take(self, data: bytes, at: int) -> tuple[bytes | Event, int]:
        """See :class:`Body`; a read that belongs to the body as a whole is not copied."""
        remaining = self.remaining
        if not remaining:
            return Event.END, at
        end = min(len(data), at + remaining)
        if end == at:
            return Event.NEED_DATA, at
        self.remaining = remaining - (end - at)
        return data[at:end], end


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedBody:
    """A chunked body; its trailers are checked and dropped.

    :ivar remaining: None, since the size is not known before the end.
    :param limit_size: most bytes of all trailers together.
    :param limit_count: most lines of all trailers.
    """

    __slots__ = ("_chunk", "_excess", "_limit_count", "_limit_size", "_part", "remaining")

    def __init__(self, limit_size: int, limit_count: int) -> None:
        self.remaining: int | None = None
        self._limit_size = limit_size
        self._limit_count = limit_count
        self._part = _Part.SIZE
        self._chunk = 0
        self._excess = 0

    def take(self, data: bytes, at: int) -> tuple[bytes | Event, int]:
        """See :class:`Body`; small chunks are joined."""
        pieces: list[bytes] = []
        size = 0
        while size < _PIECE and len(pieces) < _MOST_JOINED and self._part is not _Part.DONE:
            before = at
            if self._part is _Part.DATA:
                at = min(len(data), at + self._chunk)
                if at > before:
                    pieces.append(data[before:at])
                size += at - before
                self._chunk -= at - before
                if not self._chunk:
                    self._part = _Part.DATA_END
            elif self._part is _Part.SIZE:
                at, taken = self._take_whole(data, at, pieces)
                size += taken
                at = self._take_size(data, at)
            elif self._part is _Part.DATA_END:
                at = self._take_data_end(data, at)
            else:
                at = self._take_trailer(data, at)
            if at == before:
                break
        if size:
            return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), at
        return (Event.END if self._part is _Part.DONE else Event.NEED_DATA), at

    @staticmethod
    def _take_whole(data: bytes, at: int, pieces: list[bytes]) -> tuple[int, int]:
        """Take the small chunks that have come whole and have no extension, without a step for each of their parts.

        :returns: where the next chunk is, and how many bytes were added to ``pieces``.
        """
        size = 0
        while size < _PIECE and len(pieces) < _MOST_JOINED and (match := _PLAIN_SIZE.match(data, at)):
            start = match.end()
            end = start + int(match[1], 16)
            # The steps of take() read the last chunk, and a chunk that is incomplete or malformed.
            if end == start or not data.startswith(b"\r\n", end):
                break
            pieces.append(data[start:end])
            size += end - start
            at = end + 2
        return at, size

    def _take_size(self, data: bytes, at: int) -> int:
        line, at = self._take_line(data, at, _SIZE_LINE, 400)
        if line is None:
            return at
        match = _chunk_size(line)
        if match is None:
            raise RequestError(400, "The request's body has a chunk whose size or extension is not valid.")
        self._chunk = int(match[1], 16)
        self._excess = max(0, self._excess + len(line) + 4 - _CHUNK_FRAMING - 2 * self._chunk)
        if self._excess > _EXCESS:
            raise RequestError(400, "The request's body has more framing than data.")
        self._part = _Part.DATA if self._chunk else _Part.TRAILERS
        return at

    def _take_data_end(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if end != b"\r\n"[: len(end)]:
            raise RequestError(400, "The request's body has a chunk that is longer than its size.")
        if len(end) < 2:
            return at
        self._part = _Part.SIZE
        return at + 2

    def _take_trailer(self, data: bytes, at: int) -> int:
        line, at = self._take_line(data, at, self._limit_size, 431)
        if line is None:
            return at
        if not line:
            self._part = _Part.DONE
            return at
        self._limit_size -= len(line) + 2
        self._limit_count -= 1
        if self._limit_size < 0 or self._limit_count < 0:
            raise RequestError(431, "The request's trailers are too large.")
        # With a line end in front, a line that begins with a space is recognised as folded.
        check_fields(b"\r\n" + line + b"\r\n")
        if not _TRAILER.match(line):
            raise RequestError(400, "The request has a malformed trailer.")
        return at

    @staticmethod
    def _take_line(data: bytes, at: int, limit: int, status: int) -> tuple[bytes | None, int]:
        end = data.find(b"\r\n", at, at + limit + 2)
        if end < 0:
            if data.find(b"\n", at, at + limit + 2) >= 0:
                raise RequestError(400, "The request's lines must end in CRLF.")
            if len(data) - at > limit + 1:
                raise RequestError(status, "A line of the request's body framing is too long.")
            return None, at
        return data[at:end], end + 2
