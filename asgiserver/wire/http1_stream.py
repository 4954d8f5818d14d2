"""The writing half of HTTP/1.1 on one connection: the ``Stream`` of its current exchange."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from ..asgi.deadlines import Deadline
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Headers
from ..asgi.scope import Addresses, Request
from ..errors import RequestError
from .response import CONTINUE, Framing, delimited, framed, head, size_line

if TYPE_CHECKING:
    from .connection import HTTPConnection

__all__ = ["HTTP1Stream", "State"]

#: Data up to this size is joined with its head by a copy; bytes.
_SHORT = 16384


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

    :ivar output: the connection.
    """

    __slots__ = (
        "_addresses", "_body_due", "_body_read", "_close", "_connection", "_drained", "_exchange", "_expects_continue",
        "_framing", "_paused", "_reader", "_request", "_state", "output",
    )  # fmt: skip

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._reader = connection.hub.reader()
        self._state = _IDLE
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._addresses: Addresses | None = None
        self._framing = _UNKNOWN
        self._close = False
        self._paused = False
        self._expects_continue = False
        self._body_read = 0
        self._drained = 0
        #: Bytes of the body that had to be there, by the least rate, when it was last looked at.
        self._body_due = 0
        self.output = connection

    @property
    def turn(self) -> HTTPConnection:
        """See ``Stream``."""
        return self._connection

    def _complete(self) -> None:
        """The response is complete: what becomes of the connection?"""
        raise NotImplementedError

    def _read(self) -> None:
        """Take what the reader has, as far as it is wanted."""
        raise NotImplementedError

    def _wait_for_more(self) -> None:
        """Set the deadline of what the peer owes us."""
        raise NotImplementedError

    def respond(
        self,
        status: int,
        headers: Headers,
        names: list[bytes],
        content_length: int | None,
        *,
        has_body: bool,
        close: bool,
        data: bytes,
        last: bool,
    ) -> None:
        """See ``Stream``; the head and the first piece are one write."""
        request, connection = self._request, self._connection
        assert request is not None
        hub = connection.hub
        if close or hub.stopping or self._state is _BODY and self._must_close():
            self._close = True
        framing, self._close, lines = delimited(
            request.http_version, status, content_length, has_body=has_body, close=self._close
        )  # fmt: skip
        self._framing = framing
        defaults = hub.fields.lacking(names)
        if framing is _CHUNKED:
            connection.write_all([head(status, headers, lines, defaults), *framed(data, framing, last=last)])
        elif framing is _NONE:
            connection.write(head(status, headers, lines, defaults))
        elif len(data) <= _SHORT:
            connection.write(head(status, headers, lines, defaults, data))
        else:
            connection.write_all([head(status, headers, lines, defaults), data])
        if last:
            self._complete()

    def _must_close(self) -> bool:
        """The connection cannot be used again, because of what is left of this request's body."""
        # RFC 9110 §10.1.1: without a 100 nobody knows whether the body will come.
        if self._expects_continue:
            return True
        remaining, limit = self._reader.remaining, self._connection.hub.settings.limit_unread_body
        # Of a chunked body nobody knows how much is left, but where nothing may be drained any of it is too much.
        return limit == 0 if remaining is None else remaining > limit

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        """See ``Stream``."""
        state = self._state
        if state is _SWITCHED:
            # Its end is close(), not a last piece.
            self._connection.write(data)
            return
        if state is _CLOSED:
            return
        if not last and self._framing is _CHUNKED:
            size = len(data)
            if size > _SHORT:
                line = size_line(size)
                self._connection.write_large([line, data, b"\r\n"], size + len(line) + 2)
                return
        if self._framing is _PLAIN:
            self._connection.write(data)
        else:
            self._connection.write_all(framed(data, self._framing, last=last))
        if last:
            self._complete()

    def send_parts(self, parts: list[bytes]) -> None:
        """See ``Stream``."""
        if self._state is _SWITCHED:
            self._connection.write_all(parts)

    def send_file(
        self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]
    ) -> None:
        """See ``Stream``."""
        if self._state is _CLOSED:
            os.close(descriptor)
            return
        end = b""
        if self._framing is _CHUNKED:
            self._connection.write(size_line(count))
            end = b"\r\n0\r\n\r\n" if last else b"\r\n"
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

    def switch(self, headers: Headers, names: list[bytes]) -> None:
        """See ``Stream``; bytes that came with the handshake go to the exchange (RFC 6455 §4.2.2)."""
        self._state = _SWITCHED
        self._connection.write(head(101, headers, (), self._connection.hub.fields.lacking(names)))
        rest = self._reader.take_rest()
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
