"""A response on its way: of an HTTP request, or of a WebSocket handshake that is denied."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from ..errors import MessageError, RequestError
from .files import FilePart, read
from .interfaces import Stream
from .messages import ResponseStart, Trailers

__all__ = ["CLIENT_CLOSED_REQUEST", "Response", "plain"]

#: Logged as the status when the peer left before the response began; no such status is ever sent.
CLIENT_CLOSED_REQUEST = 499

#: A part of a file up to this size is not sent by the kernel, but read and written together with the head; bytes.
_SMALL_FILE = 32768

#: Most bytes of a response's trailers, which are kept until the last have come; and those that each field and each
#: message counts for besides its text.
_MOST_TRAILERS, _TRAILER = 65536, 32

#: Statuses of responses that have no body (RFC 9110 §15.3.5, §15.3.6, §15.4.5).
_BODILESS = frozenset((204, 205, 304))


def plain(error: RequestError) -> ResponseStart:
    """The head of the answer to ``error``, whose body is ``error.body``."""
    length = len(error.body)
    fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % length), *error.headers]
    return ResponseStart(error.status, fields, length, False, False, [name for name, _ in fields])


class Response:
    """Checks a body against its Content-Length; sends none where method or status forbid it (RFC 9110 §8.6, §9.3.2).

    The head is kept until the first piece of the body, as ASGI asks, and goes out with it.

    :param start: the head as the application wants it.
    :param method: the request's; HEAD has no body in its response.
    :param close: the connection is not to be used again.
    :ivar trailers: the last piece of the body does not end the response, but :meth:`send_trailers`.
    :ivar begun: the head was given to ``stream``.
    :ivar status: the status that was sent, :data:`CLIENT_CLOSED_REQUEST` before.
    :ivar sent: bytes of the body that were sent.
    """

    __slots__ = (
        "_close", "_has_body", "_in_file", "_remaining", "_room", "_start", "_stream", "_trailers", "begun", "sent",
        "status", "trailers",
    )  # fmt: skip

    def __init__(self, stream: Stream, start: ResponseStart, method: str, *, close: bool = False) -> None:
        status, _, content_length, closes, self.trailers, _ = start
        self._stream = stream
        self._start = start
        self._close = close or closes
        self._remaining = content_length
        self._has_body = method != "HEAD" and status not in _BODILESS
        self._in_file = False
        self._trailers: Trailers | None = None
        self._room = _MOST_TRAILERS
        self.begun = False
        self.sent = 0
        self.status = CLIENT_CLOSED_REQUEST

    @property
    def endless(self) -> bool:
        """The length of the body is not known before its end."""
        return self._remaining is None

    @property
    def whole(self) -> bool:
        """The peer has the whole response, as far as is known, though the last message may not have come yet."""
        taken = not self._has_body or self._remaining == 0 and not self._in_file
        return self.begun and taken and not self._stream.output.slow

    def send(self, body: bytes, more_body: bool) -> None:
        """Send a piece of the body, and the head before the first one.

        :raises MessageError: the body is longer or shorter than its Content-Length; nothing of the piece was sent.
        """
        size = len(body)
        if not self._has_body:
            body, size = b"", 0
        elif self._remaining is not None and (more_body or size != self._remaining):
            self._count(size, more_body, self._remaining)
        self.sent += size
        last = not (more_body or self.trailers)
        if self.begun:
            self._stream.send_data(body, last=last)
        else:
            self._begin(body, last=last)

    def send_file(self, part: FilePart, more_body: bool, sent: Callable[[bool], None]) -> None:
        """Send a part of a file as :meth:`send` sends bytes; ``sent(more_body)`` is called when it was written.

        The part's descriptor is closed then.

        :raises MessageError: as :meth:`send` does; the caller still has to close the descriptor.
        """
        short = not self._has_body or part.size <= _SMALL_FILE
        # The file is read first: if that fails, the head must be as it was.
        data = read(part) if short and self._has_body else b""
        if not self.begun and self._remaining is None and not (more_body or self.trailers) and part.size:
            # The file is the whole body, so the head can say its length; but trailers need chunks in HTTP/1.1.
            start, self._remaining = self._start, part.size
            headers = [*start.headers, (b"content-length", b"%d" % part.size)]
            names = [*start.names, b"content-length"]
            self._start = start._replace(headers=headers, content_length=part.size, names=names)
        if short:
            self.send(data, more_body)
            os.close(part.descriptor)
            sent(more_body)
            return
        if self._remaining is not None:
            self._count(part.size, more_body, self._remaining)
        if not self.begun:
            self._begin(b"", last=False)
        self.sent += part.size
        self._in_file = True
        last = not (more_body or self.trailers)
        self._stream.send_file(*part, last=last, sent=partial(self._file_sent, sent, more_body))

    def _file_sent(self, sent: Callable[[bool], None], more_body: bool) -> None:
        self._in_file = False
        sent(more_body)

    def send_trailers(self, reply: Trailers) -> None:
        """Keep trailers until the last have come, and end the response with all of them.

        :raises MessageError: they are too large; none of ``reply`` is kept.
        """
        headers, names, more_trailers = reply
        room = self._room - _TRAILER - sum(_TRAILER + len(name) + len(value) for name, value in headers)
        if room < 0:
            raise MessageError(f"the response's trailers are larger than {_MOST_TRAILERS} bytes")
        self._room = room
        if self._trailers is None:
            self._trailers = reply
        else:
            self._trailers.headers.extend(headers)
            self._trailers.names.extend(names)
        if not more_trailers:
            self._stream.send_trailers(self._trailers.headers, self._trailers.names)

    def _begin(self, data: bytes, *, last: bool) -> None:
        self.begun = True
        status, headers, length, _, _, names = self._start
        self.status = status
        if status == 204 or status == 205:
            # RFC 9110 §8.6: a server MUST NOT send Content-Length in a 204; §15.3.6: a 205 says that there is nothing.
            headers = [field for field, name in zip(headers, names, strict=True) if name != b"content-length"]
            names = [name for name in names if name != b"content-length"]
            length = None
            if status == 205:
                headers, names, length = [*headers, (b"content-length", b"0")], [*names, b"content-length"], 0
        self._stream.respond(
            status, headers, names, length, has_body=self._has_body, close=self._close, data=data, last=last
        )  # fmt: skip

    def _count(self, size: int, more_body: bool, remaining: int) -> None:
        if size > remaining:
            raise MessageError(f'"body" is {size - remaining} bytes longer than the response\'s content-length')
        if not more_body and size < remaining:
            raise MessageError(f'"body" ends {remaining - size} bytes short of the response\'s content-length')
        self._remaining = remaining - size
