"""One stream of HTTP/2: a request and its response (RFC 9113 §5, §8.1).

=========  ===============================  =====================  =================================
state      the peer's half                  ours                   what ends it
=========  ===============================  =====================  =================================
OPEN       a body, which is the exchange's  the response           the end of both halves
ANSWERING  complete                         the response           the end of the response
DRAINING   thrown away                      complete               the end of the body, or a moment, if it is too long
SWITCHED   bytes of the exchange            bytes of the exchange  END_STREAM of either side
CLOSED     ignored                          –                      –
=========  ===============================  =====================  =================================

From each state, RST_STREAM of either side and the end of the connection lead to CLOSED.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from ..asgi.deadlines import Deadline, Deadlines
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Headers
from ..asgi.response import plain
from ..asgi.scope import Request
from ..errors import RequestError
from .default_fields import Defaults
from .hpack import encode
from .http2_fields import Fields, MalformedRequest, read_trailers, response_block
from .http2_frames import END_STREAM, ErrorCode, StreamFault, header_frames, window_update
from .http2_output import StreamOutput
from .progress import WINDOW

if TYPE_CHECKING:
    from .connection import HTTPConnection
    from .http2 import HTTP2

__all__ = ["HTTP2Stream", "State"]

logger = logging.getLogger("asgiserver.wire")

#: How long a complete response stands before its stream is reset, as curl 7.88 loses one that it reads together with
#: the reset; seconds.
_LINGERING = 0.5


class State(Enum):
    """Where a stream is."""

    OPEN = auto()  # the request's body is being read
    ANSWERING = auto()  # the request was read whole, its response is not complete
    DRAINING = auto()  # the response is complete, the rest of the body is thrown away
    SWITCHED = auto()  # the bytes are the exchange's own
    CLOSED = auto()  # neither side sends anything more


#: Names of the module's own, as an enum's members are slower to look up.
_OPEN, _ANSWERING, _DRAINING, _SWITCHED, _CLOSED = State


class HTTP2Stream:
    """The ``Stream`` of one exchange.

    :param window: bytes that the peer takes before it says more.
    :ivar exchange: None for a request that was refused, and once the exchange knows that it is over.
    :ivar head_size: bytes of the request's fields as its wire counts them.
    :ivar part: bytes that have come of a DATA frame which is not whole yet.
    """

    __slots__ = (
        "_allowed", "_begun", "_close", "_deadlines", "_due", "_early", "_excess", "_expects_continue", "_held",
        "_paused", "_pieces", "_received", "_remaining", "_request", "_state", "_taken", "_window", "_wire",
        "exchange", "head_size", "number", "output", "part",
    )  # fmt: skip

    def __init__(self, wire: HTTP2, number: int, window: int) -> None:
        self._wire = wire
        self.number = number
        self.head_size = 0
        self.output = StreamOutput(wire, self, window)
        self.exchange: Exchange | None = None
        self._state = _OPEN
        self._request: Request | None = None
        self._begun = self._close = self._paused = self._expects_continue = False
        #: What has come of the peer's half, and what is still to come by Content-Length; bytes.
        self._received = 0
        self._remaining: int | None = None
        #: What has come in this turn, and of a WebSocket before it was accepted.
        self._pieces: list[bytes] | None = None
        self._early: bytearray | None = None
        #: What the peer may send before it is told more; what was taken since it was told; what the exchange has no
        #: room for.
        self._allowed = self._window = wire.stream_window
        self._taken = self._held = 0
        #: What is still thrown away for the sake of an orderly end; below 0, the peer gets no more room.
        self._excess = wire.hub.settings.limit_unread_body
        # What had come when the rate of the body was last judged.
        self._due = self.part = 0
        self._deadlines: Deadlines | None = None

    @property
    def turn(self) -> HTTPConnection:
        return self._wire.connection

    @property
    def fields(self) -> Headers:
        """The request's."""
        return () if self._request is None else self._request.headers

    @property
    def deadlines(self) -> Deadlines:
        """Few streams ever make any."""
        if self._deadlines is None:
            self._deadlines = Deadlines(self._wire.hub.clock)
        return self._deadlines

    # The peer's half, as the wire reads it.

    def begin(self, request: Request, *, ended: bool) -> None:
        """Begin the exchange of a request.

        :param ended: nothing follows the head.
        :raises RequestError: the request is not for an application; :meth:`refuse` answers.
        """
        wire, size = self._wire, request.body_size
        hub, limit = wire.hub, wire.hub.settings.limit_body_size
        self._request = request
        self._expects_continue = request.expects_continue
        if ended:
            self._state = _ANSWERING
            if request.upgrade:
                raise RequestError(400, "The stream of a WebSocket must not end with its request.")
        elif size > 0:
            self._remaining = size
        if limit is not None and size > limit:
            raise RequestError(413, f"The request's body is larger than {limit} bytes.")
        self.exchange = hub.open_exchange(request, self, wire.connection.addresses)
        if ended:
            self.exchange.body_ended()

    def refuse(self, error: RequestError, *, ended: bool, has_body: bool) -> None:
        """Answer a request that reaches no application."""
        wire, start = self._wire, plain(error)
        if ended:
            self._state = _ANSWERING
        self._close = True
        wire.hub.request_refused(self._request, wire.connection.addresses, error)
        defaults = wire.hub.fields.lacking(start.names)
        self._send_head(start.status, start.headers, start.names, defaults, error.body if has_body else b"", last=True)

    def data_received(self, data: bytes, size: int, *, ended: bool) -> None:
        """A DATA frame of ``size`` bytes, its padding included.

        :raises StreamFault: the peer must not send it.
        """
        wire, length = self._wire, len(data)
        self.part = 0
        if self._state is _ANSWERING:
            wire.credit(size)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA behind the end of a request")
        self._allowed -= size
        self._held += length
        if size > length:
            self._credit(size - length)
        if self._allowed < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the window of its stream")
        self._received += length
        self._count(length, ended=ended)
        if self._pieces is not None:
            self._pieces.append(data)
        elif length:
            self._pieces = [data]
        if ended:
            self._ended()

    def trailers_received(self, fields: Fields | None, *, ended: bool) -> None:
        """A second head, which ASGI has no place for.

        :param fields: None when there are too many.
        :raises StreamFault: it is out of place or malformed.
        """
        if self._state is _ANSWERING:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS behind the end of a request")
        if not ended or self._state is _SWITCHED:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "HEADERS in the midst of a body")
        try:
            if fields is None:
                raise MalformedRequest("The trailers are too large.")
            read_trailers(fields)
        except MalformedRequest as error:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, str(error)) from None
        self._count(0, ended=True)
        self._ended()

    def _count(self, size: int, *, ended: bool) -> None:
        if self._remaining is not None:
            self._remaining -= size
            # A client that has its response may end its request early, as curl does: that is no fault.
            if self._state is not _DRAINING and (self._remaining < 0 or ended and self._remaining):
                # RFC 9113 §8.1.1: such a request is malformed.
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a body is not as long as its Content-Length")

    def deliver(self) -> None:
        """Hand on what has come in this turn, in one piece: a peer may send it in thousands of frames."""
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            self._take(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _take(self, data: bytes) -> None:
        exchange, limit = self.exchange, self._wire.hub.settings.limit_body_size
        if self._state is _DRAINING or exchange is None:
            wanted = self._excess >= 0
            self._excess -= len(data)
            self._give_held()
            if wanted and self._excess < 0 and self._state is _DRAINING:
                self._linger()
        elif self._state is _OPEN and self._upgrades:
            # The stream's window bounds it. One object, as a peer may send it byte by byte.
            self._early = self._early or bytearray()
            self._early += data
        elif self._state is _OPEN and limit is not None and self._received > limit:
            exchange.request_failed(RequestError(413, f"The request's body is larger than {limit} bytes."))
        else:
            self._expects_continue = False
            exchange.body_received(data)
            if not self._paused:
                # More has come than is ever kept for an application that takes nothing.
                self._give_held(keeps_up=self._received > self._wire.stream_window)

    def _ended(self) -> None:
        """The peer's half is complete."""
        self.deliver()
        self._stop_body_clock()
        if self._state is _OPEN and not self._upgrades:
            self._state = _ANSWERING
            if self.exchange is not None:
                self.exchange.body_ended()
        elif self._state is _OPEN:
            self._wire.reset(self, ErrorCode.CANCEL)
        elif self._state is _DRAINING:
            # curl 7.88 ends its request when it is answered early, and waits for any word that its stream is closed.
            self._wire.reset(self, ErrorCode.PROTOCOL_ERROR if self._remaining else ErrorCode.NO_ERROR)
        elif self._state is _SWITCHED:
            # RFC 8441 §5: as the end of a peer's direction of TCP, which counts as the end of the connection. A close
            # frame before it is answered first.
            self._state = _ANSWERING
            self._wire.hub.clock.callLater(0, self._hung_up, self.exchange)

    def _hung_up(self, exchange: Exchange | None) -> None:
        if exchange is not None:
            exchange.disconnected()
        if self._state is _ANSWERING:
            self._finish()

    @property
    def _upgrades(self) -> bool:
        """The request asks for a WebSocket."""
        return self._request is not None and self._request.upgrade

    def _give_held(self, *, keeps_up: bool = False) -> None:
        held, self._held = self._held, 0
        if held:
            self._credit(held, keeps_up=keeps_up)

    def _credit(self, size: int, *, keeps_up: bool = False) -> None:
        """The peer may send ``size`` bytes more, and is told so now and then (RFC 9113 §6.9).

        :param keeps_up: the application takes what comes, so the peer may send still more before it is told again.
        """
        wire = self._wire
        wire.credit(size)
        if self._excess < 0:
            return
        self._taken += size
        if self._taken * 2 >= self._window and self._state not in (_ANSWERING, _CLOSED):
            grown = wire.grow(self._window) if keeps_up else 0
            taken, self._taken = self._taken + grown, 0
            self._window += grown
            self._allowed += taken
            wire.writer.write(window_update(self.number, taken))

    def lost(self) -> None:
        """The wire has forgotten this stream: tell the exchange, and let go of everything."""
        self._state = _CLOSED
        self._pieces = None
        exchange, self.exchange = self.exchange, None
        if self._held:
            self._wire.credit(self._held)
            self._held = 0
        if self._window != self._wire.stream_window:
            self._wire.shrink(self._window - self._wire.stream_window)
        self.output.drop()
        if self._deadlines is not None:
            self._deadlines.stop()
        if exchange is not None:
            exchange.disconnected()

    # The body's deadlines.

    def wait_for_piece(self) -> None:
        """Set the deadlines for what the peer has to send next; called once for all that has come in one read."""
        idle = self._paused or self._expects_continue or self._upgrades or self._excess < 0
        if idle or self._state is not _OPEN and self._state is not _DRAINING:
            return
        settings, deadlines = self._wire.hub.settings, self.deadlines
        # Some clients that have their response send nothing more, and wait themselves.
        timeout = settings.close_timeout if self._state is _DRAINING else settings.body_timeout
        deadlines.set(Deadline.BODY, timeout, self._body_late)
        rate = settings.min_request_rate
        if rate is not None and not deadlines.pending(Deadline.BODY_RATE):
            self._due = self._received + self.part
            deadlines.set(Deadline.BODY_RATE, WINDOW, partial(self._judge_body_rate, rate))

    def _stop_body_clock(self) -> None:
        if self._deadlines is not None:
            self._deadlines.clear(Deadline.BODY, Deadline.BODY_RATE)

    def _body_late(self) -> None:
        self._body_failed(RequestError(408, "The request's body did not arrive in time."))

    def _judge_body_rate(self, rate: int) -> None:
        received = self._received + self.part
        if received - self._due < rate * WINDOW:
            self._body_failed(RequestError(408, f"The request's body arrived at less than {rate} bytes a second."))
        else:
            self._due = received
            self.deadlines.set(Deadline.BODY_RATE, WINDOW, partial(self._judge_body_rate, rate))

    def _body_failed(self, error: RequestError) -> None:
        if self._state is _OPEN and self.exchange is not None:
            logger.info("Ended %s with %d: %s", self.exchange, error.status, error.reason)
            self.exchange.request_failed(error)
        else:
            self._wire.reset(self, ErrorCode.NO_ERROR)

    # Called by the output.

    def all_sent(self, *, last: bool) -> None:
        """Nothing waits any more; with ``last``, our half is complete."""
        if last:
            self._last_sent()
        elif self.exchange is not None:
            self.exchange.writable()

    def file_failed(self) -> None:
        """The rest of a file cannot be read, so the response cannot be completed."""
        if self.exchange is None:
            self._wire.reset(self, ErrorCode.INTERNAL_ERROR)
        else:
            self.exchange.file_failed()

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
        self._close = close
        self._send_head(status, headers, names, self._wire.hub.fields.lacking(names), data, last=last)

    def _send_head(
        self, status: int, headers: Headers, names: list[bytes], defaults: Defaults, data: bytes, *, last: bool
    ) -> None:
        """Send the head with the first piece, by one write."""
        wire, number = self._wire, self.number
        if wire.hub.stopping and len(wire.streams) > 1:
            # A peer with several streams, such as Node, may begin one more while it reads this response.
            wire.leave()
        self._begun = True
        block = wire.resized(response_block(status, headers, names, defaults))
        if not data:
            wire.writer.write(header_frames(number, block, END_STREAM if last else 0))
        elif (piece := self.output.data_frame(data, last=last)) is not None:
            wire.writer.write(header_frames(number, block, 0) + piece)
        else:
            wire.writer.write(header_frames(number, block, 0))
            self.output.add(data, last=last)
            return
        if last:
            self._last_sent()

    def send_informational(self, status: int, headers: Headers, names: list[bytes]) -> None:
        if not self._begun and self._state is not _CLOSED:
            block = self._wire.resized(response_block(status, headers, names))
            self._wire.writer.write(header_frames(self.number, block, 0))

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        if self._state is _CLOSED:
            return
        piece = self.output.data_frame(data, last=last)
        if piece is None:
            self.output.add(data, last=last)
            return
        if data or last:
            self._wire.writer.write(piece)
        if last:
            self._last_sent()

    def send_parts(self, parts: list[bytes]) -> None:
        for part in parts:
            self.send_data(part)

    def send_trailers(self, headers: Headers, names: list[bytes]) -> None:
        if self._state is _CLOSED:
            return
        frames = b""
        if self._request is not None and self._request.trailers and headers:
            block = encode(zip(names, [value for _, value in headers], strict=True))
            frames = header_frames(self.number, self._wire.resized(block), END_STREAM)
        self._finish(frames)

    def _finish(self, frames: bytes = b"") -> None:
        """End our half behind everything that waits, by ``frames`` where there are any."""
        if self.output.waits:
            self.output.end_with(frames)
        elif frames:
            self._wire.writer.write(frames)
            self._last_sent()
        else:
            self.send_data(b"", last=True)

    def send_file(self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]) -> None:
        if self._state is _CLOSED:
            os.close(descriptor)
        else:
            self.output.add_file(descriptor, offset, count, sent, last=last)

    def _last_sent(self) -> None:
        """Our half is complete; the peer may stop sending its own if that is not worth reading (RFC 9113 §8.1)."""
        state = self._state
        if self._wire.hub.stopping:
            self._wire.leave()
        if state is _DRAINING:
            return  # a WebSocket, whose exchange still has to hear of the end
        exchange, self.exchange = self.exchange, None
        if state is _ANSWERING:
            self._wire.forget(self)
            return
        self._state = _DRAINING
        self._paused = False
        if self._close or self._is_too_long:
            self._wire.outlive(self, exchange)
            self._excess = -1
            self._linger()
        self._give_held()
        self.wait_for_piece()

    def _linger(self) -> None:
        """Nobody wants what is left of the request: ask the peer to stop (RFC 9113 §8.1) in a moment."""
        self._stop_body_clock()
        self.deadlines.set(Deadline.BODY, _LINGERING, self._body_late)

    @property
    def _is_too_long(self) -> bool:
        """What is left of this request's body is not worth reading."""
        # RFC 9110 §10.1.1: without a 100 (Continue) the peer may send the body or not.
        if self._expects_continue or self._upgrades:
            return True
        return self._excess == 0 if self._remaining is None else self._remaining > self._excess

    def switch(self, headers: Headers, names: list[bytes]) -> None:
        self._state = _SWITCHED
        self._send_head(200, headers, names, self._wire.hub.fields.lacking(names), b"", last=False)
        early, self._early = self._early, None
        if early and self.exchange is not None:
            self.exchange.body_received(bytes(early))
        if not self._paused:
            self._give_held()

    def abort(self) -> None:
        """Cut the response off; what waits to be sent is dropped."""
        self._wire.outlive(self, self.exchange)
        self.exchange = None
        self._wire.reset(self, ErrorCode.CANCEL if self._state is _SWITCHED else ErrorCode.INTERNAL_ERROR)

    def close(self) -> None:
        """End a switched stream; the peer has ``close_timeout`` to end its half."""
        if self._state is _ANSWERING:
            self._finish()
        if self._state is not _SWITCHED:
            return
        self._state = _DRAINING
        self._paused = False
        self._give_held()
        self._finish()
        self.deadlines.set(Deadline.BODY, self._wire.hub.settings.close_timeout, self._body_late)

    def pause_reading(self) -> None:
        if self._state is _OPEN or self._state is _SWITCHED:
            self._paused = True
            self._stop_body_clock()

    def resume_reading(self) -> None:
        if self._expects_continue and self._state is _OPEN:
            self._expects_continue = False
            self.send_informational(100, [], [])
            self.wait_for_piece()
        if self._paused:
            self._paused = False
            self._give_held()
            self.wait_for_piece()
