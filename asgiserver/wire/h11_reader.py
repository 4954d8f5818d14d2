"""Requests read by h11: the reader that is always there.

A reader only reads: :mod:`asgiserver.wire.response` writes for all of them. Its interface is four names: ``feed``
bytes, take the ``next_event``, see how much is ``buffered``, and ``take_rest`` when the connection stops being HTTP.
"""

from __future__ import annotations

import h11

from ..asgi.interfaces import TCHAR
from ..asgi.scope import CHUNKED, Request
from ..errors import RequestError
from ..settings import Settings
from .body import Body, ChunkedBody, Event, LengthBody
from .head import check_bytes, request

__all__ = ["H11Reader"]


class H11Reader:
    """Reads the requests of one connection, one after the other.

    :param settings: for the limits of a head.
    """

    __slots__ = ("_body", "_buffer", "_scanned", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._buffer = bytearray()
        self._scanned = 0
        self._body: Body | None = None

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not taken yet."""
        return len(self._buffer)

    @property
    def remaining(self) -> int | None:
        """Bytes of the current body that are still to come; None when chunked."""
        return 0 if self._body is None else self._body.remaining

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer; nothing is parsed yet."""
        self._buffer += data

    def next_event(self) -> Request | bytes | Event:
        """A request, a piece of its body, END after its last piece, or NEED_DATA.

        After END the next request is read. Nothing may be called after an error.

        :raises RequestError: the peer broke HTTP/1.1 or a limit.
        """
        if self._body is None:
            return self._next_request()
        event = self._body.take(self._buffer)
        if event is Event.END:
            self._body = None
        return event

    def take_rest(self) -> bytes:
        """All bytes that were fed and not taken; the reader is done."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _next_request(self) -> Request | Event:
        head = self._take_head()
        if head is None:
            return Event.NEED_DATA
        check_bytes(head)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
        connection.receive_data(head)
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            reason = "The request must have one Host." if "Host" in str(error) else "The request's head is malformed."
            raise RequestError(error.error_status_hint, reason) from error
        assert isinstance(event, h11.Request)
        version = "1.0" if event.http_version == b"1.0" else "1.1"
        read = request(event.method, event.target, list(event.headers), version)
        self._begin_body(read)
        return read

    def _begin_body(self, read: Request) -> None:
        if read.body_size == CHUNKED:
            self._body = ChunkedBody(self._settings.limit_head_size, self._settings.limit_head_count)
        else:
            self._body = LengthBody(read.body_size)

    def _take_head(self) -> bytes | None:
        """The bytes up to and with the empty line, once they are all there."""
        buffer = self._buffer
        # RFC 9112 §2.2: empty lines before the request line are ignored.
        while not self._scanned and buffer.startswith(b"\r\n"):
            del buffer[:2]
        if not buffer or buffer == b"\r":
            return None
        if buffer[0] not in TCHAR:
            raise RequestError(400, "This is not an HTTP request.")
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        self._check_limits(end)
        if end < 0:
            self._scanned = len(buffer)
            return None
        self._scanned = 0
        head = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        return head

    def _check_limits(self, end: int) -> None:
        """Hold the head, complete (at ``end``) or not (-1), to its limits.

        :raises RequestError: 414 or 431, or 400 for a bare LF, which may mean that the end will never come.
        """
        settings, buffer = self._settings, self._buffer
        line_end = buffer.find(b"\r\n")
        if line_end < 0:
            line_end = len(buffer) - 1  # the last byte may be the CR
        target_size = line_end - buffer.find(b" ") - 1 - len(" HTTP/1.1")
        if target_size > settings.limit_target_size:
            raise RequestError(414, f"The request's target is longer than {settings.limit_target_size} bytes.")
        size = len(buffer) if end < 0 else end + 4
        if size > settings.limit_head_size:
            raise RequestError(431, f"The request's head is larger than {settings.limit_head_size} bytes.")
        if end < 0:
            # One byte more for the pairs, as the CR may be the last byte of the look before.
            if buffer.count(b"\n", self._scanned) != buffer.count(b"\r\n", max(0, self._scanned - 1)):
                raise RequestError(400, "The request's lines must end in CRLF.")
        elif buffer.count(b"\r\n", 0, end) > settings.limit_head_count:
            raise RequestError(431, f"The request has more than {settings.limit_head_count} field lines.")
