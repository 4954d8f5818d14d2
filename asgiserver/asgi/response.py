"""The response of an exchange: of an HTTP request, or of a WebSocket handshake that is denied."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from ..errors import MessageError, RequestError
from .default_fields import DefaultFields
from .files import FilePart
from .interfaces import Stream
from .messages import ResponseStart

__all__ = ["CLIENT_CLOSED_REQUEST", "Response", "plain"]

#: Logged as the status when the peer left before the response began; no such status is ever sent.
CLIENT_CLOSED_REQUEST = 499


#: Statuses of responses that have no body (RFC 9110 §15.3.5, §15.3.6, §15.4.5).
_BODILESS = frozenset((204, 205, 304))


def plain(error: RequestError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The fields and the body of the answer to ``error``, without the default fields: its reason in a line of text."""
    body = f"{error.reason}\n".encode()
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        *error.headers,
    ]
    return fields, body


class Response:
    """Holds a response to its own Content-Length and to what its method and status allow (RFC 9110 §8.6, §9.3.2).

    An exchange is its own response: one object less for each request.

    :param fields: the default fields.
    :param method: the request's; HEAD has no body in its response.
    :ivar status: what was sent, :data:`CLIENT_CLOSED_REQUEST` before.
    :ivar sent: bytes of the body that were sent.
    """

    __slots__ = ("_fields", "_has_body", "_method", "_remaining", "_start", "sent", "status", "stream")

    def __init__(self, stream: Stream, fields: DefaultFields, method: str) -> None:
        self.stream = stream
        self._fields = fields
        self._method = method
        self._start: ResponseStart | None = None
        self._remaining: int | None = None
        self._has_body = True
        self.status = CLIENT_CLOSED_REQUEST
        self.sent = 0

    def start(self, start: ResponseStart) -> None:
        """Hold the start until the first body message, as ASGI asks for."""
        self._start = start
        self._remaining = start.content_length

    def whole(self, body: bytes) -> bool:
        """Send the whole response, if ``body`` is all of it and of the length that was told; False if not.

        What most responses are, in few steps; :meth:`body` sends any.
        """
        start = self._start
        assert start is not None
        status, headers, length, close, _, names = start
        if length is None or length != len(body) or self._method == "HEAD" or status in _BODILESS:
            return False
        self.status = status
        self.sent = length
        self.stream.send_response(status, headers, self._fields.lacking(names), length, body, close)
        return True

    def body(self, body: bytes, more_body: bool) -> None:
        """Send a piece of the body, and the head before the first one.

        :raises MessageError: the body is longer or shorter than its Content-Length; nothing of the piece was sent.
        """
        start = self._start
        assert start is not None
        has_body = self._method != "HEAD" and start[0] not in _BODILESS
        if not has_body:
            body = b""
        elif self._remaining is not None and (more_body or len(body) != self._remaining):
            self._count(len(body), more_body, self._remaining)
        if self.status == CLIENT_CLOSED_REQUEST:
            self._send_head(start, has_body)
        self.sent += len(body)
        self.stream.send_data(body, last=not more_body)

    def file(self, part: FilePart, more_body: bool, sent: Callable[[bool], None]) -> None:
        """Send a part of a file as :meth:`body` sends bytes; ``sent(more_body)`` is called when it was written.

        Its descriptor is closed then.

        :raises MessageError: as of :meth:`body`; the descriptor is still open.
        """
        start = self._start
        assert start is not None
        if self._method == "HEAD" or start.status in _BODILESS or not part.size:
            if part.size and self._remaining is None and not more_body and self.status == CLIENT_CLOSED_REQUEST:
                self._start = _with_length(start, part.size)
            self.body(b"", more_body)
            os.close(part.descriptor)
            sent(more_body)
            return
        if self._remaining is not None:
            self._count(part.size, more_body, self._remaining)
        if self.status == CLIENT_CLOSED_REQUEST:
            if start.content_length is None and not more_body:
                # The file is the whole body, so its length can be told.
                start = _with_length(start, part.size)
            self._send_head(start, has_body=True)
        self.sent += part.size
        self.stream.send_file(*part, last=not more_body, sent=partial(sent, more_body))

    def answer(self, error: RequestError, *, close: bool) -> None:
        """Send a whole response in the application's place."""
        fields, body = plain(error)
        self.start(ResponseStart(error.status, fields, len(body), close, False, [name for name, _ in fields]))
        self.body(body, more_body=False)

    def _send_head(self, start: ResponseStart, has_body: bool) -> None:
        status, headers, length, close, _, names = start
        self.status = status
        self._has_body = has_body
        defaults = self._fields.lacking(names)
        if status == 204 or status == 205:
            # RFC 9110 §8.6: a server MUST NOT send Content-Length in a 204; §15.3.6: a 205 says that there is nothing.
            headers = [field for field, name in zip(headers, names, strict=True) if name != b"content-length"]
            length = None if status == 204 else 0
            headers += [(b"content-length", b"0")] if status == 205 else []
        self.stream.send_headers(status, headers, defaults, content_length=length, has_body=has_body, close=close)

    def _count(self, size: int, more_body: bool, remaining: int) -> None:
        if size > remaining:
            raise MessageError(f'"body" is {size - remaining} bytes longer than the response\'s content-length')
        if not more_body and size < remaining:
            raise MessageError(f'"body" ends {remaining - size} bytes short of the response\'s content-length')
        self._remaining = remaining - size


def _with_length(start: ResponseStart, length: int) -> ResponseStart:
    headers, names = [*start.headers, (b"content-length", b"%d" % length)], [*start.names, b"content-length"]
    return start._replace(headers=headers, content_length=length, names=names)
