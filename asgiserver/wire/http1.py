"""HTTP/1.1 on one connection: which exchange its bytes belong to, and when the next one may begin (RFC 9112).

One exchange at a time: a pipelined request is not read before the response to the request before it is complete, so
responses are in order by construction (RFC 9112 §9.3.2). The bytes of a pipelined request wait in the reader, up to
``pipeline_buffer_size``; then the socket is not read any more.

=========  ==========================================  ====================================  =====================
state      bytes of the peer                           its response is complete              its response is cut off
=========  ==========================================  ====================================  =====================
IDLE       a whole head is a request: BODY, or         –                                     –
           ANSWERING where it has no body
BODY       pieces of the body; its end: ANSWERING      DRAINING, or CLOSED where the rest    CLOSED
                                                       is not worth reading
ANSWERING  kept for the next request                   IDLE, or CLOSED after the last        CLOSED
DRAINING   thrown away; the end of the body: IDLE      –                                     –
SWITCHED   the exchange's own                          CLOSED                                CLOSED
CLOSED     thrown away                                 –                                     –
=========  ==========================================  ====================================  =====================

In each state, a peer that breaks HTTP or is late leads to CLOSED, with an error response where no response has begun.
The end of the connection leads to CLOSED too.
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
from .progress import WINDOW
from .reader import Reader
from .response import CONTINUE, Framing, delimited, framed, head, last_chunk, refusal, size_line

if TYPE_CHECKING:
    from .connection import HTTPConnection

__all__ = ["HTTP1", "State"]

logger = logging.getLogger("asgiserver.wire")

#: Steps that a piece of a body takes, as it may be joined from 64 chunks. A request takes one step, as its application
#: has a turn of the loop before the next request is read.
_STEPS_OF_PIECE = 16

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


#: Names of the module's own, as an enum's members are slower to look up.
_IDLE, _BODY, _ANSWERING, _DRAINING, _SWITCHED, _CLOSED = State
_UNKNOWN, _NONE, _PLAIN, _UNTIL_CLOSE, _CHUNKED = Framing
_FIRST_BYTE, _HEAD, _KEEP_ALIVE = Deadline.FIRST_BYTE, Deadline.HEAD, Deadline.KEEP_ALIVE


class HTTP1:
    """The HTTP/1.1 wire of a connection, and the ``Stream`` of its current exchange.

    :ivar output: the connection's.
    """

    __slots__ = (
        "_body_due", "_body_read", "_close", "_connection", "_drained", "_exchange", "_expects_continue", "_framing",
        "_paused", "_reader", "_request", "_state", "output",
    )  # fmt: skip

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._reader = Reader(connection.hub.settings)
        self._state = _IDLE
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._framing = _UNKNOWN
        self._close = False
        self._paused = False
        self._expects_continue = False
        self._body_read = 0
        self._drained = 0
        #: Bytes of the body that the least rate required at the last look.
        self._body_due = 0
        self.output = connection.output

    @property
    def turn(self) -> HTTPConnection:
        return self._connection

    # Called by the connection.

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is _SWITCHED:
            assert self._exchange is not None
            self._exchange.body_received(data)
            return
        # When the peer sends without a 100 (Continue), _read takes the first piece, as it begins to judge the rate.
        calm = not (self._paused or self._expects_continue)
        if state is _BODY and calm and self._reader.take_piece(len(data)):
            self._wait_for_piece()
            self._take_body(data)
        elif state is not _CLOSED:
            self._reader.feed(data)
            self._read()

    def adopt(self, request: Request) -> Exchange | None:
        """Begin with a request that was read elsewhere, and take no other behind it; None when it is refused."""
        try:
            return self._begin(request._replace(keep_alive=False))
        except RequestError as error:
            self._fail(error)
            return None

    def connection_lost(self) -> None:
        self._state = _CLOSED
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnected()

    def writable(self) -> None:
        if self._exchange is not None:
            self._exchange.writable()
        elif self._state is _IDLE:
            self._next_request()
            self._read()

    def finish(self) -> bool:
        """Nothing waits here: a response is with the output."""
        return True

    def server_stopping(self) -> None:
        """Tell the exchange. Without one, the peer may still send a request for the hub's ``keep_alive_timeout``.

        The peer was not told that the connection closes, so its next request may be on the way (RFC 9112 §9.6).
        """
        if self._exchange is not None:
            self._exchange.server_stopping()
        elif self._state is _DRAINING or not self._reader.buffered:
            self._wait_for_next()

    # Reading.

    def _read(self) -> None:
        reader, connection = self._reader, self._connection
        begun: Exchange | None = None
        moved = False
        try:
            while self._wanted():
                if connection.steps <= 0 and reader.buffered:
                    connection.wait_for_turn(self._read)
                    break
                connection.steps -= 1
                event = reader.next_event()
                if type(event) is Request:
                    begun = self._begin(event)
                    if not event.body_size:
                        # Nothing more is read before the response is complete.
                        break
                elif event is Event.NEED_DATA:
                    break
                elif event is Event.END:
                    self._end_body()
                else:
                    assert type(event) is bytes
                    connection.steps -= _STEPS_OF_PIECE
                    self._take_body(event)
                    moved = True
        except RequestError as error:
            self._fail(error)
        if self._state is not _ANSWERING or reader.buffered:
            self._wait_for_more(moved=moved)
        if begun is not None and not begun.finished:
            self._connection.hub.create_application(begun)

    def _wanted(self) -> bool:
        """True when the next event of the reader may be taken."""
        state = self._state
        if state is _IDLE:
            # Responses to a peer that takes none must not pile up, however many requests it pipelines.
            return not self.output.slow
        return (state is _BODY or state is _DRAINING) and not self._paused

    def _end_body(self) -> None:
        self._stop_body_clock()
        if self._state is _DRAINING:
            self._next_request()
        else:
            self._state = _ANSWERING
            if self._exchange is not None:
                self._exchange.body_ended()

    def _begin(self, request: Request) -> Exchange:
        connection, size = self._connection, request.body_size
        connection.deadlines.clear(_FIRST_BYTE, _HEAD, _KEEP_ALIVE)
        self._request = request
        self._close = not request.keep_alive
        self._framing = _UNKNOWN
        self._state = _BODY if size else _ANSWERING
        self._expects_continue = request.expects_continue
        if size:
            self._body_read = self._drained = self._body_due = 0
            limit = connection.hub.settings.limit_body_size
            if limit is not None and size > limit:
                raise RequestError(413, f"The request's body is larger than {limit} bytes.")
        self._exchange = exchange = connection.hub.open_exchange(request, self, connection.addresses)
        if not size:
            exchange.body_ended()
        return exchange

    def _take_body(self, piece: bytes) -> None:
        self._expects_continue = False
        settings = self._connection.hub.settings
        if self._state is _DRAINING:
            self._drained += len(piece)
            if self._drained > settings.limit_unread_body:
                self.close()
            return
        self._body_read += len(piece)
        if settings.limit_body_size is not None and self._body_read > settings.limit_body_size:
            raise RequestError(413, f"The request's body is larger than {settings.limit_body_size} bytes.")
        assert self._exchange is not None
        self._exchange.body_received(piece)

    def _wait_for_piece(self) -> None:
        connection = self._connection
        connection.deadlines.set(Deadline.BODY, connection.hub.settings.body_timeout, self._body_late)

    def _wait_for_more(self, *, moved: bool) -> None:
        """Set the deadline for what the peer has to send next, and pause a peer that pipelines too far ahead.

        :param moved: a piece of a body has come.
        """
        connection, settings = self._connection, self._connection.hub.settings
        match self._state:
            case State.BODY | State.DRAINING if not (self._paused or self._expects_continue):
                # Pieces of the body move this deadline, bytes of its framing do not.
                if moved or not connection.deadlines.pending(Deadline.BODY):
                    self._wait_for_piece()
                if settings.min_request_rate is not None and not connection.deadlines.pending(Deadline.BODY_RATE):
                    connection.deadlines.set(Deadline.BODY_RATE, WINDOW, self._judge_body_rate)
            case State.IDLE if not self.output.slow:
                if not self._reader.buffered:
                    # Only empty lines have come.
                    connection.deadlines.clear(_HEAD)
                    if not (connection.deadlines.pending(_KEEP_ALIVE) or connection.deadlines.pending(_FIRST_BYTE)):
                        self._wait_for_next()
                elif not connection.deadlines.pending(_HEAD):
                    # Counted from the head's first byte; later bytes do not move it.
                    connection.deadlines.clear(_FIRST_BYTE, _KEEP_ALIVE)
                    connection.deadlines.set(_HEAD, settings.head_timeout, self.head_late)
            case State.ANSWERING | State.IDLE if self._reader.buffered > settings.pipeline_buffer_size:
                connection.pause_reading()

    def _fail(self, error: RequestError) -> None:
        """Answer the peer's mistake, or let its exchange answer, and close."""
        exchange, state = self._exchange, self._state
        self._close = True
        if state in (State.DRAINING, State.CLOSED):
            logger.info("Closed the connection of %s: %s", self._connection.addresses.peer, error.reason)
            self.close()
        elif exchange is not None:
            logger.info("Ended %s with %d: %s", exchange, error.status, error.reason, extra=exchange.logged)
            exchange.request_failed(error)
        else:
            self._refuse(error)

    def _refuse(self, error: RequestError) -> None:
        has_body = self._request is None or self._request.method != "HEAD"
        self.output.write(refusal(error, self._connection.hub.fields, has_body=has_body))
        self._connection.hub.request_refused(self._request, self._connection.addresses, error)
        self.close()

    def head_late(self) -> None:
        """The head has not come whole in its time."""
        self._fail(RequestError(408, "The request's head did not arrive in time."))

    def _body_late(self) -> None:
        self._fail(RequestError(408, "The request's body did not arrive in time."))

    def _judge_body_rate(self) -> None:
        """Judge the rate after a window of reading. A body that was faster before may be slower for a while."""
        rate = self._connection.hub.settings.min_request_rate
        assert rate is not None
        self._body_due += int(rate * WINDOW)
        if self._body_read + self._drained < self._body_due:
            self._fail(RequestError(408, f"The request's body arrived at less than {rate} bytes a second."))
        else:
            self._connection.deadlines.set(Deadline.BODY_RATE, WINDOW, self._judge_body_rate)

    # From one exchange to the next.

    def _complete(self) -> None:
        """The response is complete: close the connection, drain the request's body, or take the next request."""
        if self._close:
            self.close()
            return
        if self._paused:
            self._paused = False
            self._connection.resume_reading()
        if self._state is _BODY:
            self._exchange = None
            self._state = _DRAINING
            if self._connection.hub.stopping:
                self._wait_for_next()
            self._read()
        else:
            self._next_request()
            if self._reader.buffered:
                self._read()

    def _next_request(self) -> None:
        self._state = _IDLE
        self._request = self._exchange = None
        connection = self._connection
        if not connection.reading:
            connection.resume_reading()
        if not self._reader.buffered and not self.output.slow:
            # A peer that still takes the last response, or has begun its next request, is not idle.
            self._wait_for_next()

    def _wait_for_next(self) -> None:
        self._connection.deadlines.set(_KEEP_ALIVE, self._connection.hub.keep_alive_timeout, self.close)

    # Called by the exchange, as its Stream.

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
        # The head and the first piece are one write.
        request, output = self._request, self.output
        assert request is not None
        hub = self._connection.hub
        if close or hub.stopping or self._state is _BODY and self._must_close():
            self._close = True
        framing, self._close, lines = delimited(
            request.http_version, status, content_length, has_body=has_body, close=self._close
        )  # fmt: skip
        self._framing = framing
        defaults = hub.fields.lacking(names)
        if framing is _CHUNKED:
            output.write_all([head(status, headers, lines, defaults), *framed(data, framing, last=last)])
        elif framing is _NONE:
            output.write(head(status, headers, lines, defaults))
        elif len(data) <= _SHORT:
            output.write(head(status, headers, lines, defaults, data))
        else:
            output.write_all([head(status, headers, lines, defaults), data])
        if last:
            self._complete()

    def _must_close(self) -> bool:
        """The connection cannot be used again, because of what is left of this request's body."""
        # RFC 9110 §10.1.1: without a 100 (Continue) the peer may send the body or not.
        if self._expects_continue:
            return True
        remaining, limit = self._reader.remaining, self._connection.hub.settings.limit_unread_body
        # How much of a chunked body is left is unknown; but where nothing may be drained, any rest is too long.
        return limit == 0 if remaining is None else remaining > limit

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        state = self._state
        if state is _SWITCHED:
            # A switched stream ends by close(), not by a last piece.
            self.output.write(data)
            return
        if state is _CLOSED:
            return
        size = len(data)
        if size > _SHORT and not last and self._framing is _CHUNKED:
            line = size_line(size)
            self.output.write_large([line, data, b"\r\n"], size + len(line) + 2)
            return
        if self._framing is _PLAIN:
            self.output.write(data)
        else:
            self.output.write_all(framed(data, self._framing, last=last))
        if last:
            self._complete()

    def send_informational(self, status: int, headers: Headers, names: list[bytes]) -> None:
        # RFC 8297 §3: some clients of HTTP/1.1 take any response for the final one.
        self.output.write(b"")

    def send_trailers(self, headers: Headers, names: list[bytes]) -> None:
        if self._state is _CLOSED:
            return
        if self._framing is _CHUNKED:
            assert self._request is not None
            self.output.write(last_chunk(headers if self._request.trailers else ()))
        self._complete()

    def send_parts(self, parts: list[bytes]) -> None:
        if self._state is _SWITCHED:
            self.output.write_all(parts)

    def send_file(self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]) -> None:
        if self._state is _CLOSED:
            os.close(descriptor)
            return
        end = b""
        if self._framing is _CHUNKED:
            self.output.write(size_line(count))
            end = b"\r\n" + last_chunk() if last else b"\r\n"
        sent = partial(self._file_sent, end, last, sent)
        self.output.send_file(descriptor, offset, count, sent, self._file_failed)

    def _file_sent(self, end: bytes, last: bool, sent: Callable[[], None]) -> None:
        if end:
            self.output.write(end)
        sent()
        if last and self._state is not _CLOSED:
            self._complete()

    def _file_failed(self) -> None:
        """The rest of a file cannot be read, so the response cannot be completed."""
        if self._exchange is None:
            # The peer has ended its direction meanwhile, which ended the exchange.
            self._connection.abort()
        else:
            self._exchange.file_failed()

    def switch(self, headers: Headers, names: list[bytes]) -> None:
        # Bytes that came with the handshake go to the exchange (RFC 6455 §4.2.2).
        self._state = _SWITCHED
        self.output.write(head(101, headers, (), self._connection.hub.fields.lacking(names)))
        rest = self._reader.take_rest()
        self._connection.resume_reading()
        if rest and self._exchange is not None:
            self._exchange.body_received(rest)

    @property
    def ends_with_connection(self) -> bool:
        """True when only the end of the connection tells where the response ends (RFC 9112 §6.3)."""
        return self._framing is _UNTIL_CLOSE

    def abort(self) -> None:
        """Cut the response off.

        A length that is not reached, a missing last chunk, or a WebSocket without a close frame shows that the response
        is not complete (RFC 9112 §8, RFC 6455 §7.1.5), so the bytes sent before may still arrive. A reset would throw
        them away, and is used only for a body that ends with the connection.
        """
        self._exchange = None
        if self.ends_with_connection:
            self._state = _CLOSED
            self._connection.abort()
        else:
            self.close()

    def close(self) -> None:
        if self._state is not _CLOSED:
            unread = self._state in (_BODY, _DRAINING)
            self._state = _CLOSED
            self._connection.close(unread=unread)

    def pause_reading(self) -> None:
        if self._state is _BODY and self._reader.remaining == 0:
            return  # the body has come whole
        self._paused = True
        self._stop_body_clock()
        self._connection.pause_reading()

    def _stop_body_clock(self) -> None:
        """Stop the deadlines of the body, which is over, or not wanted for now."""
        self._connection.deadlines.clear(Deadline.BODY, Deadline.BODY_RATE)

    def resume_reading(self) -> None:
        if self._state is _CLOSED:
            return
        if self._expects_continue:
            self._expects_continue = False
            # RFC 9110 §15.2: no informational response once the final one has begun.
            if self._framing is _UNKNOWN:
                self.output.write(CONTINUE)
            self._wait_for_more(moved=False)
        if self._paused:
            self._paused = False
            self._connection.resume_reading()
            if self._state is _BODY:
                self._read()
