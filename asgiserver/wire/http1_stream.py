"""The writing half of HTTP/1.1 on one connection: the ``Stream`` of its current exchange."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from ..asgi.deadlines import Deadline
from ..asgi.default_fields import Defaults
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Headers
from ..asgi.scope import Addresses, Request
from ..errors import RequestError
from .response import CONTINUE, Framing, framed, head, size_line, whole

if TYPE_CHECKING:
    from .connection import HTTPConnection

__all__ = ["HTTP1Stream", "State"]

#: Data up to this size is joined with its head by a copy; bytes.
_SHORT = 16384

#: A file up to this size is read whole rather than sent by the kernel; bytes.
_SMALL_FILE = 32768


class State(Enum):
    """Where a connection is."""

    IDLE = auto()  # between requests
    BODY = auto()  # a request's body is being read
    ANSWERING = auto()  # the request was read whole, its response is not complete
    DRAINING = auto()  # the response is complete, the rest of the body is thrown away
    SWITCHED = auto()  # the bytes are the exchange's own
    CLOSED = auto()  # nothing is read any more


#: An enum's members take several times as long to look up.
_IDLE, _BODY, _ANSWERING, _DRAINING = State.IDLE, State.BODY, State.ANSWERING, State.DRAINING
_SWITCHED, _CLOSED = State.SWITCHED, State.CLOSED
_UNKNOWN, _NONE, _PLAIN, _CHUNKED = Framing.UNKNOWN, Framing.NONE, Framing.PLAIN, Framing.CHUNKED
_UNTIL_CLOSE = Framing.UNTIL_CLOSE


class HTTP1Stream:
    """What the current exchange of a connection writes to.

    :ivar slow: as the connection's, which sets it: it is asked for with each message.
    :ivar congested: as :attr:`slow`.
    """

    __slots__ = (
        "_addresses", "_body_due", "_body_read", "_close", "_connection", "_drained", "_exchange", "_expects_continue",
        "_framing", "_head", "_idle_since", "_paused", "_reader", "_request", "_state", "congested", "slow",
    )  # fmt: skip

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        # Until there is something to feed one with: an idle connection needs none of its own.
        self._reader = connection.hub.reader.unfed
        self._state = _IDLE
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._addresses: Addresses | None = None
        self._head: bytes | None = None
        self._framing = _UNKNOWN
        self._close = False
        self._paused = False
        self._expects_continue = False
        self._body_read = 0
        self._drained = 0
        #: Bytes of the body that had to be there, by the least rate, when it was last looked at.
        self._body_due = 0
        #: Since when nothing is under way; long before the first request.
        self._idle_since = -math.inf
        self.slow = connection.slow
        self.congested = connection.congested

    def _complete(self) -> None:
        """The response is complete: what becomes of the connection?"""
        raise NotImplementedError

    def _read(self, *, at_once: bool = False) -> None:
        """Take what the reader has, as far as it is wanted; with ``at_once`` an application may begin and answer."""
        raise NotImplementedError

    def _wait_for_more(self) -> None:
        """Set the deadline of what the peer owes us."""
        raise NotImplementedError

    def send_headers(
        self,
        status: int,
        headers: Headers,
        defaults: Defaults,
        *,
        content_length: int | None,
        has_body: bool,
        close: bool,
    ) -> None:
        """See ``Stream``; held back until the first data, to be one write with it."""
        request = self._request
        assert request is not None
        if close or self._connection.hub.stopping or self._state is _BODY and self._must_close():
            self._close = True
        version_1_0 = request.http_version == "1.0"
        # RFC 9112 §6.1: a 1.0 client knows no chunks; its body ends with the connection.
        chunked = content_length is None and not version_1_0 and status not in (204, 304)
        if not has_body:
            self._framing = _NONE
        elif chunked:
            self._framing = _CHUNKED
        elif content_length is not None:
            self._framing = _PLAIN
        else:
            self._framing = _UNTIL_CLOSE
            self._close = True
        option = b"close" if self._close else b"keep-alive" if version_1_0 else b""
        self._head = head(status, headers, chunked, option, defaults)

    def send_response(
        self, status: int, headers: Headers, defaults: Defaults, content_length: int, body: bytes, close: bool
    ) -> None:
        """See ``Stream``."""
        connection, request = self._connection, self._request
        assert request is not None
        if self._state is not _ANSWERING or self._close or close or request[3] != "1.1" or connection.hub.stopping:
            # Something is to be thought about.
            self.send_headers(
                status, headers, defaults, content_length=content_length, has_body=True, close=close
            )  # fmt: skip
            self.send_data(body, last=True)
            return
        self._framing = _PLAIN
        if content_length <= _SHORT:
            connection.write(whole(status, headers, defaults, body))
        else:
            connection.write_all([head(status, headers, defaults=defaults), body])
        self._complete()

    def _must_close(self) -> bool:
        """The connection cannot be used again, because of what is left of this request's body."""
        # RFC 9110 §10.1.1: without a 100 nobody knows whether the body will come.
        if self._expects_continue:
            return True
        remaining = self._reader.remaining
        return remaining is not None and remaining > self._connection.hub.settings.limit_unread_body

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        """See ``Stream``."""
        state = self._state
        if state is _SWITCHED:
            # Its end is close(), not a last piece.
            self._connection.write(data)
            return
        if state is _CLOSED:
            return
        start = self._head
        if start is None and not last and self._framing is _CHUNKED:
            size = len(data)
            if size > _SHORT:
                line = size_line(size)
                self._connection.write_large([line, data, b"\r\n"], size + len(line) + 2)
                return
        self._head = None
        if self._framing is _PLAIN:
            if start is None:
                self._connection.write(data)
            elif len(data) <= _SHORT:
                self._connection.write(start + data)
            else:
                self._connection.write_all([start, data])
        else:
            parts = framed(data, self._framing, last=last)
            self._connection.write_all(parts if start is None else [start, *parts])
        if last:
            self._complete()

    def send_parts(self, parts: list[bytes]) -> None:
        """See ``Stream``."""
        if self._state is _SWITCHED:
            self._connection.write_all(parts)

    def send_file(
        self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]
    ) -> None:
        """See ``Stream``; a small file is read, to be one write with the head."""
        if self._state is _CLOSED:
            os.close(descriptor)
            return
        if count <= _SMALL_FILE:
            try:
                data = os.pread(descriptor, count, offset)
            finally:
                os.close(descriptor)
            if len(data) < count:
                # It has become shorter since it was looked at, and its length may have been told.
                self.send_data(data)
                self._file_failed()
                return
            self.send_data(data, last=last)
            sent()
            return
        parts = [] if self._head is None else [self._head]
        self._head = None
        end = b""
        if self._framing is _CHUNKED:
            parts.append(size_line(count))
            end = b"\r\n0\r\n\r\n" if last else b"\r\n"
        if parts:
            self._connection.write(b"".join(parts))
        sent = partial(self._file_sent, end, last, sent)
        self._connection.send_file(descriptor, offset, count, sent, self._file_failed)

    def _file_sent(self, end: bytes, last: bool, sent: Callable[[], None]) -> None:
        if end:
            self._connection.write(end)
        sent()
        if last and self._state is not _CLOSED:
            self._complete()

    def _file_failed(self) -> None:
        """The rest of a file cannot be had, so the promised end of the response cannot come."""
        if self._exchange is None:
            # Its peer has ended its direction meanwhile, and the exchange with it.
            self._connection.abort()
        else:
            self._exchange.request_failed(RequestError(500, "A file could not be sent to its end."))

    def end(self) -> None:
        """See ``Stream``."""
        self.send_data(b"", last=True)

    def switch(self, headers: Headers) -> None:
        """See ``Stream``; bytes that came with the handshake go to the exchange (RFC 6455 §4.2.2)."""
        self._state = _SWITCHED
        self._connection.write(head(101, headers))
        rest = self._reader.take_rest()
        self._reader = self._connection.hub.reader.unfed
        self._connection.resume_reading()
        if rest and self._exchange is not None:
            self._exchange.body_received(rest)

    @property
    def ends_with_connection(self) -> bool:
        """The end of the response is told by the end of the connection alone (RFC 9112 §6.3)."""
        return self._framing is _UNTIL_CLOSE

    def abort(self) -> None:
        """See ``Stream``.

        A length that is not reached, a last chunk that is missing, or a WebSocket without a close frame says that this
        is not all (RFC 9112 §8, RFC 6455 §7.1.5), so what was sent before may still arrive. A reset would throw it
        away, and is for the body alone whose end is the connection's.
        """
        self._exchange = None
        if self.ends_with_connection:
            self._state = _CLOSED
            self._connection.abort()
        else:
            self.close()

    def close(self) -> None:
        """See ``Stream``; what the peer still sends is thrown away."""
        if self._state is not _CLOSED:
            unread = self._state in (_BODY, _DRAINING)
            self._state = _CLOSED
            self._connection.close(unread=unread)

    def pause_reading(self) -> None:
        """See ``Stream``; of a body that is here to its end nothing more can come, so nobody need be stopped."""
        if self._state is _BODY and self._reader.remaining == 0:
            return
        self._paused = True
        self._stop_body_clock()
        self._connection.pause_reading()

    def _stop_body_clock(self) -> None:
        """Nothing of a body is awaited of the peer, be it over or nobody ready for it."""
        self._connection.deadlines.clear(Deadline.BODY)
        self._connection.deadlines.clear(Deadline.BODY_RATE)

    def resume_reading(self) -> None:
        """See ``Stream``."""
        if self._state is _CLOSED:
            return
        if self._expects_continue:
            self._expects_continue = False
            # RFC 9110 §15.2: nothing informational once the final response has begun.
            if self._framing is _UNKNOWN:
                self._connection.write(CONTINUE)
            self._wait_for_more()
        if self._paused:
            self._paused = False
            self._connection.resume_reading()
            if self._state is _BODY:
                self._read()

    @property
    def pending(self) -> int:
        """See ``Stream``."""
        return self._connection.pending

    async def drain(self) -> None:
        """See ``Stream``."""
        await self._connection.drain()
