"""HTTP/1.1 on one connection: which exchange its bytes belong to, and when the next one may begin (RFC 9112).

One exchange at a time: a pipelined request is not read before the response to the one before it is complete, so
answers are in order by construction (RFC 9112 §9.3.2). What was received of it waits in the reader, up to
``pipeline_buffer_size``; then the peer waits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from ..asgi.deadlines import Deadline
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Headers
from ..asgi.scope import Request
from ..errors import RequestError
from .body import Event
from .response import CONTINUE, Framing, framed, head, refusal

if TYPE_CHECKING:
    from .connection import HTTPConnection

__all__ = ["HTTP1"]

logger = logging.getLogger("asgiserver.wire")


#: Data up to this size is joined with its head by a copy; bytes.
_SHORT = 16384

#: A file up to this size is read whole rather than sent by the kernel; bytes.
_SMALL_FILE = 32768


class _State(Enum):
    IDLE = auto()  # between requests
    BODY = auto()  # a request's body is being read
    ANSWERING = auto()  # the request was read whole, its response is not complete
    DRAINING = auto()  # the response is complete, the rest of the body is thrown away
    SWITCHED = auto()  # the bytes are the exchange's own
    CLOSED = auto()  # nothing is read any more


#: An enum's members take several times as long to look up.
_IDLE, _BODY, _ANSWERING, _DRAINING = _State.IDLE, _State.BODY, _State.ANSWERING, _State.DRAINING
_SWITCHED, _CLOSED = _State.SWITCHED, _State.CLOSED
_UNKNOWN, _NONE, _PLAIN, _CHUNKED = Framing.UNKNOWN, Framing.NONE, Framing.PLAIN, Framing.CHUNKED


class HTTP1:
    """The HTTP/1.1 wire of a connection, and the ``Stream`` of its current exchange."""

    __slots__ = (
        "_body_read", "_close", "_connection", "_drained", "_exchange", "_expects_continue", "_framing", "_head",
        "_paused", "_reader", "_request", "_state",
    )

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._reader = connection.hub.reader()
        self._state = _State.IDLE
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._head: bytes | None = None
        self._framing = Framing.UNKNOWN
        self._close = False
        self._paused = False
        self._expects_continue = False
        self._body_read = 0
        self._drained = 0

    # What the connection calls.

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        state = self._state
        if state is _IDLE and not self._connection.slow:
            request = self._reader.take_whole(data)
            if request is not None:
                # Nothing more can be wanted before the answer is complete.
                try:
                    self._begin(request)
                except RequestError as error:
                    self._fail(error)
                return
        elif state is _SWITCHED:
            assert self._exchange is not None
            self._exchange.body_received(data)
            return
        if state is not _CLOSED:
            self._reader.feed(data)
            self._read()

    def connection_lost(self) -> None:
        """The connection is no more."""
        self._state = _State.CLOSED
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnected()

    def writable(self) -> None:
        """The peer takes data again."""
        if self._exchange is not None:
            self._exchange.writable()
        elif self._state is _State.IDLE:
            self._next_request()
            self._read()

    def server_stopping(self) -> bool:
        """True when nothing is under way here, so that the connection can be closed at once."""
        if self._exchange is not None:
            self._exchange.server_stopping()
            return False
        if self._state is _State.DRAINING:
            # The response is sent; the peer gets the time that any closed connection gives it to take it.
            self.close()
        return self._state is _State.IDLE and not self._reader.buffered

    # Reading.

    def _read(self) -> None:
        reader = self._reader
        try:
            while self._wanted():
                event = reader.next_event()
                if type(event) is Request:
                    self._begin(event)
                    if not event.body_size:
                        # Nothing can be wanted before the answer is complete.
                        break
                elif event is Event.NEED_DATA:
                    break
                elif event is Event.END:
                    self._end_body()
                else:
                    assert type(event) is bytes
                    self._take_body(event)
        except RequestError as error:
            self._fail(error)
        if self._state is not _ANSWERING or reader.buffered:
            self._wait_for_more()

    def _wanted(self) -> bool:
        """True when what the reader has next may be taken."""
        state = self._state
        if state is _IDLE:
            # Responses to a peer that takes none must not pile up, however many requests it pipelines.
            return not self._connection.slow
        return (state is _BODY or state is _DRAINING) and not self._paused

    def _end_body(self) -> None:
        self._connection.deadlines.clear(Deadline.BODY)
        if self._state is _DRAINING:
            self._next_request()
        else:
            self._state = _ANSWERING
            if self._exchange is not None:
                self._exchange.body_ended()

    def _begin(self, request: Request) -> None:
        connection = self._connection
        hub = connection.hub
        self._request = request
        size = request.body_size
        self._state = _BODY if size else _ANSWERING
        self._close = not request.keep_alive
        self._framing = _UNKNOWN
        self._expects_continue = request.expects_continue
        self._body_read = 0
        # The keep-alive deadline stays: to let it ring in vain costs less than to clear it for each request.
        connection.deadlines.clear(Deadline.HEAD)
        limit = hub.settings.limit_body_size
        if limit is not None and size > limit:
            raise RequestError(413, f"The request's body is larger than {limit} bytes.")
        self._exchange = exchange = hub.open_exchange(request, self, connection.addresses)
        if not size:
            exchange.body_ended()

    def _take_body(self, piece: bytes) -> None:
        self._expects_continue = False
        settings = self._connection.hub.settings
        self._connection.deadlines.set(Deadline.BODY, settings.body_timeout, self._body_late)
        if self._state is _State.DRAINING:
            self._drained += len(piece)
            if self._drained > settings.limit_unread_body:
                self.close()
            return
        self._body_read += len(piece)
        if settings.limit_body_size is not None and self._body_read > settings.limit_body_size:
            raise RequestError(413, f"The request's body is larger than {settings.limit_body_size} bytes.")
        assert self._exchange is not None
        self._exchange.body_received(piece)

    def _wait_for_more(self) -> None:
        """Set the deadline of what the peer owes us, and stop a peer that pipelines too far ahead."""
        connection, settings = self._connection, self._connection.hub.settings
        match self._state:
            case _State.BODY | _State.DRAINING if not (self._paused or self._expects_continue):
                # Moved by pieces of the body, not by whatever bytes of its framing.
                if not connection.deadlines.pending(Deadline.BODY):
                    connection.deadlines.set(Deadline.BODY, settings.body_timeout, self._body_late)
            case _State.IDLE if not connection.slow:
                if not self._reader.buffered:
                    # What there was were only empty lines.
                    if not connection.deadlines.pending(Deadline.KEEP_ALIVE):
                        self._set_keep_alive()
                elif not connection.deadlines.pending(Deadline.HEAD):
                    # Counted from the head's first byte; later bytes do not move it.
                    connection.deadlines.clear(Deadline.KEEP_ALIVE)
                    connection.deadlines.set(Deadline.HEAD, settings.head_timeout, self._head_late)
            case _State.ANSWERING | _State.IDLE if self._reader.buffered > settings.pipeline_buffer_size:
                connection.pause_reading()

    def _fail(self, error: RequestError) -> None:
        """The peer's mistake: answer it, or have its exchange do so, and close."""
        exchange, state = self._exchange, self._state
        self._close = True
        if state in (_State.DRAINING, _State.CLOSED):
            self.close()
        elif exchange is not None:
            logger.info("Ended %s with %d: %s", exchange, error.status, error.reason)
            exchange.request_failed(error)
        else:
            self._refuse(error)

    def _refuse(self, error: RequestError) -> None:
        has_body = self._request is None or self._request.method != "HEAD"
        self._connection.write(refusal(error, self._connection.hub.fields, has_body=has_body))
        self._connection.hub.request_refused(self._request, self._connection.addresses, error)
        self.close()

    def _set_keep_alive(self) -> None:
        connection = self._connection
        connection.deadlines.set(Deadline.KEEP_ALIVE, connection.hub.settings.keep_alive_timeout, self.idle_too_long)

    def idle_too_long(self) -> None:
        """The keep-alive deadline has passed, if a request has not made it void."""
        if self._state is _IDLE:
            self.close()

    def _head_late(self) -> None:
        self._fail(RequestError(408, "The request's head did not arrive in time."))

    def _body_late(self) -> None:
        self._fail(RequestError(408, "The request's body did not arrive in time."))

    # The stream of the current exchange.

    @property
    def slow(self) -> bool:
        """See ``Stream``."""
        return self._connection.slow

    @property
    def congested(self) -> bool:
        """See ``Stream``."""
        return self._connection.congested

    def send_headers(
        self, status: int, headers: Headers, *, content_length: int | None, has_body: bool, close: bool
    ) -> None:
        """See ``Stream``; held back until the first data, to be one write with it."""
        request = self._request
        assert request is not None
        if close or self._connection.hub.stopping or self._state is _BODY and self._must_close():
            self._close = True
        version_1_0 = request.http_version == "1.0"
        # RFC 9112 §6.1: a 1.0 client knows no chunks; its body ends with the connection.
        chunked = content_length is None and status not in (204, 304) and not version_1_0
        if not has_body:
            self._framing = _NONE
        else:
            self._framing = _CHUNKED if chunked else _PLAIN
            if not chunked and content_length is None:
                self._close = True
        option = b"close" if self._close else b"keep-alive" if version_1_0 else b""
        self._head = head(status, headers, chunked=chunked, connection=option)

    def _must_close(self) -> bool:
        """The connection cannot be used again, because of what is left of this request's body."""
        # RFC 9110 §10.1.1: without a 100 nobody knows whether the body will come.
        if self._expects_continue:
            return True
        remaining = self._reader.remaining
        return remaining is not None and remaining > self._connection.hub.settings.limit_unread_body

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        """See ``Stream``."""
        if self._state is _State.CLOSED:
            return
        start = self._head
        self._head = None
        if self._framing is _PLAIN or self._state is _State.SWITCHED:
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

    def send_file(
        self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]
    ) -> None:
        """See ``Stream``; a small file is read, to be one write with the head."""
        if self._state is _State.CLOSED:
            return
        if count <= _SMALL_FILE:
            data = os.pread(descriptor, count, offset)
            if len(data) < count:
                # It has become shorter since it was looked at, and its length may have been told.
                self._connection.abort()
                return
            self.send_data(data, last=last)
            sent()
            return
        parts = [] if self._head is None else [self._head]
        self._head = None
        end = b""
        if self._framing is _CHUNKED:
            parts.append(b"%x\r\n" % count)
            end = b"\r\n0\r\n\r\n" if last else b"\r\n"
        if parts:
            self._connection.write(b"".join(parts))
        self._connection.send_file(descriptor, offset, count, partial(self._file_sent, end, last, sent))

    def _file_sent(self, end: bytes, last: bool, sent: Callable[[], None]) -> None:
        if end:
            self._connection.write(end)
        sent()
        if last and self._state is not _State.CLOSED:
            self._complete()

    def end(self) -> None:
        """See ``Stream``."""
        self.send_data(b"", last=True)

    def switch(self, headers: Headers) -> None:
        """See ``Stream``; bytes that came with the handshake go to the exchange (RFC 6455 §4.2.2)."""
        self._state = _State.SWITCHED
        self._connection.write(head(101, headers))
        rest = self._reader.take_rest()
        self._connection.resume_reading()
        if rest and self._exchange is not None:
            self._exchange.body_received(rest)

    def abort(self) -> None:
        """See ``Stream``."""
        self._state = _State.CLOSED
        self._exchange = None
        self._connection.abort()

    def close(self) -> None:
        """See ``Stream``; what the peer still sends is thrown away."""
        if self._state is not _State.CLOSED:
            unread = self._state in (_State.BODY, _State.DRAINING)
            self._state = _State.CLOSED
            self._connection.close(unread=unread)

    def pause_reading(self) -> None:
        """See ``Stream``."""
        self._paused = True
        self._connection.deadlines.clear(Deadline.BODY)
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        """See ``Stream``."""
        if self._state is _State.CLOSED:
            return
        if self._expects_continue:
            self._expects_continue = False
            # RFC 9110 §15.2: nothing informational once the final response has begun.
            if self._framing is Framing.UNKNOWN:
                self._connection.write(CONTINUE)
            self._wait_for_more()
        if self._paused:
            self._paused = False
            self._connection.resume_reading()
            if self._state is _State.BODY:
                self._read()

    async def drain(self) -> None:
        """See ``Stream``."""
        await self._connection.drain()

    # From one exchange to the next.

    def _complete(self) -> None:
        """The response is complete: what becomes of the connection?"""
        if self._close:
            self.close()
            return
        self._exchange = None
        if self._paused:
            self._paused = False
            self._connection.resume_reading()
        if self._state is _BODY:
            self._state = _DRAINING
            self._drained = 0
            self._read()
        else:
            self._next_request()
            if self._reader.buffered:
                self._read()

    def _next_request(self) -> None:
        self._state = _IDLE
        self._request = None
        self._exchange = None
        connection = self._connection
        connection.resume_reading()
        if self._reader.buffered or connection.slow:
            # A peer that still takes the last response is not idle, nor is one that has begun its next request.
            connection.deadlines.clear(Deadline.KEEP_ALIVE)
            if connection.hub.stopping and not self._reader.buffered:
                self.close()
        elif connection.hub.stopping:
            self.close()
        else:
            self._set_keep_alive()
