"""Reading requests off a connection.

A reader only reads: :mod:`.response` writes. Its interface is six names: ``feed`` bytes (or ``take_piece`` of a body),
take the ``next_event``, see how much is ``buffered`` or ``remaining``, and ``take_rest`` when HTTP ends.

The reader cuts out a whole head and holds it to its limits; :mod:`.head` takes the head apart, and :mod:`.body` frames
the body. Nothing of a request is kept for the next one.
"""

from __future__ import annotations

from ..asgi.scope import CHUNKED, Request
from ..asgi.tokens import TCHAR
from ..errors import RequestError
from ..settings import Settings
from .body import Body, ChunkedBody, Event, LengthBody
from .head import check_target_size, parsed_request, plain_request

__all__ = ["Reader"]

#: Most empty lines before a request line. RFC 9112 §2.2 asks to ignore at least one.
_MOST_EMPTY_LINES = 8

#: The first byte of what a TLS client sends (RFC 8446 §5.1); no request begins with it.
_TLS_HANDSHAKE = 22


class Reader:
    """Reads the requests of one connection, one after the other.

    :param settings: for the limits of a head.
    """

    __slots__ = ("_at", "_body", "_data", "_empty_lines", "_least_limit", "_scanned", "_settings", "buffered")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A shorter head can break neither limit.
        self._least_limit = min(settings.limit_target_size, settings.limit_head_size)
        # The bytes that were fed, and how many were taken: a read that holds exactly one request is never copied.
        self._data = b""
        self._at = 0
        self._scanned = 0
        self._empty_lines = 0
        self._body: Body | None = None
        #: Bytes that were fed and not taken yet.
        self.buffered = 0

    @property
    def remaining(self) -> int | None:
        """Bytes of the current body that are still to come; None when chunked."""
        return 0 if self._body is None else self._body.remaining

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer; nothing is parsed yet."""
        if self.buffered:
            data = self._data[self._at :] + data
        self._data, self._at, self.buffered = data, 0, len(data)

    def take_piece(self, size: int) -> bool:
        """Take ``size`` bytes as body without feeding them; False unless the body goes on after all of them."""
        body = self._body
        if self.buffered or type(body) is not LengthBody:
            return False
        remaining = body.remaining
        if remaining is None or remaining <= size:
            return False
        body.remaining = remaining - size
        return True

    def next_event(self) -> Request | bytes | Event:
        """A request, a piece of its body, END after its last piece, or NEED_DATA.

        After END, or after a request whose ``body_size`` is 0, the next request is read. Nothing may be called after
        an error.

        :raises RequestError: the peer broke HTTP/1.1 or a limit.
        """
        body = self._body
        if body is None:
            return self._next_head()
        event, at = body.take(self._data, self._at)
        self._take(at)
        if event is Event.END:
            self._body = None
        return event

    def _take(self, at: int) -> None:
        """Mark all before ``at`` as taken; an idle connection must not keep its last read."""
        self.buffered = len(self._data) - at
        if self.buffered:
            self._at = at
        else:
            self._data, self._at = b"", 0

    def take_rest(self) -> bytes:
        """Return all bytes that were fed and not taken; the reader is fed no more."""
        rest = self._data[self._at :]
        self._data, self._at, self.buffered = b"", 0, 0
        return rest

    def _next_head(self) -> Request | Event:
        head = self._take_head()
        if head is None:
            return Event.NEED_DATA
        settings = self._settings
        limit = settings.limit_head_count
        read = plain_request(head, limit) or parsed_request(head, limit)
        size = read.body_size
        if size == CHUNKED:
            self._body = ChunkedBody(settings.limit_head_size, settings.limit_head_count)
        elif size:
            self._body = LengthBody(size)
        return read

    def _take_head(self) -> bytes | None:
        """Take the bytes up to and including the empty line, once they have all come; None before.

        :raises RequestError: 414 or 431 for a head that is too large, complete or not; 400 when its end can never come.
        """
        if not self._scanned and self._data.startswith(b"\r\n", self._at):
            self._skip_empty_lines()
        data, at = self._data, self._at
        end = data.find(b"\r\n\r\n", at + self._scanned)
        if end < 0:
            self._check_beginning(data, at)
            return None
        self._scanned = self._empty_lines = 0
        self._take(end + 4)
        head = data[at : end + 4]
        if len(head) > self._least_limit:
            self._check_size(head, len(head))
        return head

    def _skip_empty_lines(self) -> None:
        """Pass over the empty lines before a request line (RFC 9112 §2.2).

        :raises RequestError: 400 when there are too many.
        """
        data, at = self._data, self._at
        while data.startswith(b"\r\n", at):
            at += 2
            self._empty_lines += 1
            if self._empty_lines > _MOST_EMPTY_LINES:
                raise RequestError(400, f"There are more than {_MOST_EMPTY_LINES} empty lines before the request.")
        self._take(at)

    def _check_beginning(self, data: bytes, at: int) -> None:
        """Hold a head that is not complete to its limits; a bare LF may mean that the end will never come."""
        started = len(data) - at
        if not started or data.startswith(b"\r", at) and started == 1:
            return
        if data[at] == _TLS_HANDSHAKE:
            raise RequestError(400, "The client speaks TLS, and this port speaks plain HTTP.")
        if data[at] not in TCHAR:
            raise RequestError(400, "This is not an HTTP request.")
        beginning = data[at:]
        self._check_size(beginning, started)
        # CRLF is counted from one byte earlier, as the CR may be the last byte of the look before.
        seen = self._scanned
        if beginning.count(b"\n", seen) != beginning.count(b"\r\n", max(0, seen - 1)):
            raise RequestError(400, "The request's lines must end in CRLF.")
        self._scanned = max(0, started - 3)

    def _check_size(self, head: bytes, size: int) -> None:
        settings = self._settings
        line_end = head.find(b"\r\n")
        if line_end < 0:
            line_end = size - 1  # the last byte may be the CR
        space = head.find(b" ", 0, line_end)
        if space >= 0:
            check_target_size(line_end - space - 1 - len(" HTTP/1.1"), settings.limit_target_size)
        if size > settings.limit_head_size:
            raise RequestError(431, f"The request's head is larger than {settings.limit_head_size} bytes.")
