"""One stream of HTTP/2: a request and its response, with windows and a pressure of their own (RFC 9113 §5, §8.1).

=========  ====================================  ===========================  ==============================
state      the peer's half                       ours                         what ends it
=========  ====================================  ===========================  ==============================
OPEN       a body that is the exchange's         the response                 its end, or the body's
ANSWERING  complete                              the response                 its end
DRAINING   a body that is thrown away            complete                     the body's end, or its excess
SWITCHED   bytes that are the exchange's own     bytes of the exchange        either side's END_STREAM
CLOSED     ignored                               –                            –
=========  ====================================  ===========================  ==============================

RST_STREAM of either side and the end of the connection lead to CLOSED from each state.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from ..asgi.deadlines import Deadline, Deadlines
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Headers
from ..asgi.response import plain
from ..asgi.scope import CHUNKED, Request
from ..errors import RequestError
from .default_fields import Defaults
from .http2_fields import response_block, trailer_block
from .http2_frames import (
    DATA,
    END_STREAM,
    MAX_FRAME,
    ErrorCode,
    StreamFault,
    frame_head,
    header_frames,
    window_update,
)
from .http2_order import UNASKED, Priority, read_priority
from .progress import WINDOW, Progress

if TYPE_CHECKING:
    from .connection import HTTPConnection
    from .http2 import HTTP2

__all__ = ["HTTP2Stream", "State"]

logger = logging.getLogger("asgiserver.wire")

#: How much of a file is read at once; bytes.
_FILE_PIECE = 65536


class State(Enum):
    """Where a stream is."""

    OPEN = auto()  # the request's body is being read
    ANSWERING = auto()  # the request was read whole, its response is not complete
    DRAINING = auto()  # the response is complete, the rest of the body is thrown away
    SWITCHED = auto()  # the bytes are the exchange's own
    CLOSED = auto()  # neither side sends anything more


#: Names of the module's own, as an enum's members are slower to look up.
_OPEN, _ANSWERING, _DRAINING, _SWITCHED, _CLOSED = State


class _File:
    """A file that is being sent: see :meth:`.Stream.send_file`."""

    __slots__ = ("descriptor", "offset", "remaining", "sent")

    def __init__(self, descriptor: int, offset: int, remaining: int, sent: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.remaining = remaining
        self.sent = sent


class HTTP2Stream:
    """A stream, as ``Stream`` of its exchange, and its own ``Output``: the exchange asks it for the pressure.

    :ivar exchange: None for a request that was refused.
    :ivar window: bytes that the peer takes on this stream; below 0 when it has made its windows smaller.
    """

    __slots__ = (
        "_allowed", "_asked", "_begun", "_close", "_deadlines", "_due", "_end", "_excess", "_expects_continue", "_file",
        "_held", "_last", "_parts", "_paused", "_progress", "_received", "_remaining", "_request", "_shared", "_size",
        "_state", "_taken", "_waiters", "_wire", "exchange", "number", "window",
    )  # fmt: skip

    def __init__(self, wire: HTTP2, number: int, window: int) -> None:
        self._wire = wire
        self.number = number
        self.window = window
        self.exchange: Exchange | None = None
        self._state = _OPEN
        self._request: Request | None = None
        self._begun = self._close = self._paused = self._expects_continue = False
        self._asked: Priority | None = None
        #: The peer's half: bytes that have come, and that are still to come by Content-Length; bytes that the peer may
        #: send, that were taken and not credited yet, and that are not taken as the exchange is full.
        self._received = self._taken = self._held = 0
        self._remaining: int | None = None
        self._allowed = wire.stream_window
        self._excess = wire.hub.settings.limit_unread_body
        #: Bytes that had come when the rate of the body was last judged.
        self._due = 0
        #: Our half: what waits to be sent, its size, what follows it, and whether that is all.
        self._parts: deque[bytes | memoryview] | None = None
        self._size = 0
        self._file: _File | None = None
        self._end = b""
        self._last = False
        self._waiters: list[asyncio.Future[None]] | None = None
        self._deadlines: Deadlines | None = None
        self._progress: Progress | None = None
        self._shared = False

    # The pressure, as an ``Output``.

    @property
    def output(self) -> HTTP2Stream:
        return self

    @property
    def turn(self) -> HTTPConnection:
        return self._wire.connection

    @property
    def slow(self) -> bool:
        return self._waits or self._wire.output.slow

    @property
    def congested(self) -> bool:
        return self._waits or self._wire.output.congested

    @property
    def _waits(self) -> bool:
        """Something waits to be sent."""
        return self._size > 0 or self._file is not None

    @property
    def pending(self) -> int:
        return self._size + self._wire.output.pending

    async def drain(self) -> None:
        if not self._waits:
            await self._wire.output.drain()
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # The request, as the wire reads it.

    def begin(self, request: Request) -> Exchange | None:
        """Begin the exchange of a request, or answer what is wrong with it."""
        wire, size = self._wire, request.body_size
        hub, limit = wire.hub, wire.hub.settings.limit_body_size
        self._request = request
        if not size:
            self._state = _ANSWERING
        elif size != CHUNKED:
            self._remaining = size
        self._expects_continue = request.expects_continue
        try:
            if request.upgrade and not size:
                raise RequestError(400, "The stream of a WebSocket must not end with its request.")
            if limit is not None and size > limit:
                raise RequestError(413, f"The request's body is larger than {limit} bytes.")
            self.exchange = exchange = hub.open_exchange(request, self, wire.connection.addresses)
        except RequestError as error:
            self.refuse(error)
            return None
        if not size:
            exchange.body_ended()
        return exchange

    def refuse(self, error: RequestError) -> None:
        """Answer a request that reaches no application."""
        wire, start = self._wire, plain(error)
        has_body = self._request is None or self._request.method != "HEAD"
        self._close = True
        defaults = wire.hub.fields.lacking(start.names)
        self._send_head(start.status, start.headers, start.names, defaults, error.body if has_body else b"", last=True)
        wire.hub.request_refused(self._request, wire.connection.addresses, error)

    def data_received(self, data: bytes, size: int, *, ended: bool) -> None:
        """A DATA frame of ``size`` bytes, its padding included.

        :raises StreamFault: the peer must not send it.
        """
        wire, state = self._wire, self._state
        if state is _ANSWERING:
            wire.credit(size)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA behind the end of a request")
        self._allowed -= size
        if self._allowed < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the window of its stream")
        self._received += len(data)
        self._check_length(len(data), ended=ended)
        # Padding is taken at once.
        self._credit(size - len(data))
        if state is _DRAINING:
            self._drain(len(data))
        elif data:
            self._expects_continue = False
            self._take_piece(data)
        if ended and self._state is not _CLOSED:
            self.ended()

    def _check_length(self, size: int, *, ended: bool) -> None:
        if self._remaining is None:
            return
        self._remaining -= size
        if self._remaining < 0 or ended and self._remaining:
            # RFC 9113 §8.1.1: such a request is malformed.
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a body is not as long as its Content-Length")

    def _take_piece(self, data: bytes) -> None:
        exchange, size = self.exchange, len(data)
        assert exchange is not None
        assert self._request is not None
        limit = self._wire.hub.settings.limit_body_size
        if self._request.upgrade and self._state is _OPEN:
            # Bytes before the answer to the handshake; the window bounds them.
            self._early().append(data)
            self._held += size
            return
        if limit is not None and self._received > limit and self._state is _OPEN:
            self._credit(size)
            exchange.request_failed(RequestError(413, f"The request's body is larger than {limit} bytes."))
            return
        self._held += size
        exchange.body_received(data)
        if not self._paused:
            self._give_held()

    def _early(self) -> deque[bytes | memoryview]:
        """What has come before the answer; as nothing of ours can wait yet, the place is free."""
        if self._parts is None:
            self._parts = deque()
        return self._parts

    def _give_held(self) -> None:
        held, self._held = self._held, 0
        self._credit(held)

    def _credit(self, size: int) -> None:
        """The peer may send ``size`` bytes more; it is told so now and then."""
        if not size:
            return
        wire = self._wire
        wire.credit(size)
        self._taken += size
        if self._taken * 2 >= wire.stream_window and self._receiving:
            taken, self._taken = self._taken, 0
            self._allowed += taken
            wire.write(window_update(self.number, taken))

    @property
    def _receiving(self) -> bool:
        return self._state is not _ANSWERING and self._state is not _CLOSED

    def _drain(self, size: int) -> None:
        self._credit(size)
        self._excess -= size
        if self._excess < 0:
            self._wire.reset(self, ErrorCode.NO_ERROR)

    def ended(self) -> None:
        """The peer's half is complete.

        :raises StreamFault: it is shorter than its Content-Length, or has ended before.
        """
        self._check_length(0, ended=True)
        self._stop_body_clock()
        state = self._state
        if state is _OPEN:
            self._state = _ANSWERING
            if self._upgrades:
                self._wire.reset(self, ErrorCode.CANCEL)
            elif self.exchange is not None:
                self.exchange.body_ended()
        elif state is _ANSWERING:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "a request ends a second time")
        elif state is _DRAINING:
            self._wire.forget(self)
        elif state is _SWITCHED:
            # RFC 8441 §5: as the end of a TCP connection, both directions of which we take for ended.
            self._state = _ANSWERING
            if self.exchange is not None:
                self.exchange.disconnected()
            self._finish()

    def lost(self) -> None:
        """The stream or its connection is gone: tell the exchange, and let go of everything.

        Called by the wire alone, when it has forgotten the stream.
        """
        self._state = _CLOSED
        exchange, self.exchange = self.exchange, None
        self._wire.credit(self._held)
        self._wire.waiting -= self._size
        self._held = self._size = 0
        self._parts = None
        self._drop_file()
        if self._deadlines is not None:
            self._deadlines.stop()
        if exchange is not None:
            exchange.disconnected()
        self._wake()

    @property
    def _upgrades(self) -> bool:
        """The request asks for a WebSocket."""
        return self._request is not None and self._request.upgrade

    # Deadlines.

    @property
    def deadlines(self) -> Deadlines:
        if self._deadlines is None:
            self._deadlines = Deadlines(self._wire.hub.clock)
        return self._deadlines

    def wait_for_piece(self) -> None:
        """Set the deadlines for what the peer has to send next; called once for all that has come in one read."""
        idle = self._paused or self._expects_continue or self._upgrades
        if idle or self._state is not _OPEN and self._state is not _DRAINING:
            return
        settings, deadlines = self._wire.hub.settings, self.deadlines
        deadlines.set(Deadline.BODY, settings.body_timeout, self._body_late)
        if settings.min_request_rate is not None and not deadlines.pending(Deadline.BODY_RATE):
            self._due = self._received
            deadlines.set(Deadline.BODY_RATE, WINDOW, partial(self._judge_body_rate, settings.min_request_rate))

    def _stop_body_clock(self) -> None:
        if self._deadlines is not None:
            self._deadlines.clear(Deadline.BODY, Deadline.BODY_RATE)

    def _body_late(self) -> None:
        self._body_failed(RequestError(408, "The request's body did not arrive in time."))

    def _judge_body_rate(self, rate: int) -> None:
        if self._received - self._due < rate * WINDOW:
            self._body_failed(RequestError(408, f"The request's body arrived at less than {rate} bytes a second."))
        else:
            self._due = self._received
            self.deadlines.set(Deadline.BODY_RATE, WINDOW, partial(self._judge_body_rate, rate))

    def _body_failed(self, error: RequestError) -> None:
        if self._state is _OPEN and self.exchange is not None:
            logger.info("Ended %s with %d: %s", self.exchange, error.status, error.reason)
            self.exchange.request_failed(error)
        else:
            self._wire.reset(self, ErrorCode.CANCEL)

    def _watch(self) -> None:
        """Begin to watch how much a peer takes that has closed a window."""
        wire, settings = self._wire, self._wire.hub.settings
        now = wire.hub.clock.seconds()
        # A window of its own is the stream's affair; that of the connection, and the turns that others have, are not.
        self._shared = self.window > 0
        self._progress = Progress(now, self._untaken)
        next_look = self._progress.next_look(now, settings.write_timeout, settings.min_response_rate)
        self.deadlines.set(Deadline.WRITE, next_look, self._write_late)

    @property
    def _untaken(self) -> int:
        left = 0 if self._file is None else self._file.remaining
        return -self._wire.sent if self._shared else self._size + left

    def _write_late(self) -> None:
        progress, wire, settings = self._progress, self._wire, self._wire.hub.settings
        if progress is None:
            return
        if self._shared is not (self.window > 0) or wire.output.slow:
            self._watch()
            return
        now, limits = wire.hub.clock.seconds(), (settings.write_timeout, settings.min_response_rate)
        fault = progress.fault(now, self._untaken, *limits)
        if fault is None:
            self.deadlines.set(Deadline.WRITE, progress.next_look(now, *limits), self._write_late)
        else:
            logger.info("Reset a stream of %s, which %s", wire.connection.addresses.peer, fault)
            wire.reset(self, ErrorCode.CANCEL)

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
        wire = self._wire
        if wire.hub.stopping:
            wire.leave()
        self._close = close
        self._send_head(status, headers, names, wire.hub.fields.lacking(names), data, last=last)

    def _send_head(
        self, status: int, headers: Headers, names: list[bytes], defaults: Defaults, data: bytes, *, last: bool
    ) -> None:
        """Send the head with the first piece, by one write."""
        wire, size = self._wire, len(data)
        self._begun = True
        block = wire.block(response_block(status, headers, names, defaults))
        if not size:
            wire.write(header_frames(self.number, block, END_STREAM if last else 0))
            if last:
                self._last_sent()
        elif size <= MAX_FRAME and size <= self.window and wire.may_send(size):
            wire.window -= size
            wire.sent += size
            self.window -= size
            flags = END_STREAM if last else 0
            wire.write(header_frames(self.number, block, 0) + frame_head(size, DATA, flags, self.number) + data)
            if last:
                self._last_sent()
        else:
            wire.write(header_frames(self.number, block, 0))
            self._queue(data, last)

    def _last_sent(self) -> None:
        """Our half is complete; the peer may stop sending its own if that is not worth reading (RFC 9113 §8.1)."""
        state = self._state
        if state is _DRAINING:
            return  # a WebSocket, whose exchange still has to hear of the end
        self.exchange = None
        if state is _ANSWERING:
            self._wire.forget(self)
        elif self._close or self._is_too_long:
            self._wire.reset(self, ErrorCode.NO_ERROR)
        else:
            self._state = _DRAINING
            self._paused = False
            self._give_held()
            self.wait_for_piece()

    @property
    def _is_too_long(self) -> bool:
        """What is left of this request's body is not worth reading."""
        # RFC 9110 §10.1.1: without a 100 (Continue) the peer may send the body or not.
        if self._expects_continue or self._upgrades:
            return True
        return self._excess == 0 if self._remaining is None else self._remaining > self._excess

    def send_informational(self, status: int, headers: Headers, names: list[bytes]) -> None:
        if not self._begun and self._state is not _CLOSED:
            block = self._wire.block(response_block(status, headers, names, ()))
            self._wire.write(header_frames(self.number, block, 0))

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        if self._state is _CLOSED:
            return
        wire, size = self._wire, len(data)
        if self._waits or size and (size > MAX_FRAME or size > self.window or not wire.may_send(size)):
            self._queue(data, last)
            return
        wire.window -= size
        wire.sent += size
        self.window -= size
        if size or last:
            wire.write(frame_head(size, DATA, END_STREAM if last else 0, self.number) + data)
        if last:
            self._last_sent()

    def send_parts(self, parts: list[bytes]) -> None:
        for part in parts:
            self.send_data(part)

    def send_trailers(self, headers: Headers, names: list[bytes]) -> None:
        if self._state is _CLOSED:
            return
        if self._request is not None and self._request.trailers and headers:
            self._end = header_frames(self.number, self._wire.block(trailer_block(headers, names)), END_STREAM)
        self._finish()

    def _finish(self) -> None:
        """End our half behind everything that waits."""
        if self._waits:
            self._last = True
        elif self._end:
            self._wire.write(self._end)
            self._last_sent()
        else:
            self.send_data(b"", last=True)

    def send_file(self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]) -> None:
        if self._state is _CLOSED:
            os.close(descriptor)
            return
        self._file = _File(descriptor, offset, count, sent)
        self._last = last
        self._wait()

    def switch(self, headers: Headers, names: list[bytes]) -> None:
        self._state = _SWITCHED
        early, self._parts = self._parts, None
        self._stop_body_clock()
        defaults = self._wire.hub.fields.lacking(names)
        self._send_head(200, headers, names, defaults, b"", last=False)
        exchange = self.exchange
        for data in early or ():
            if exchange is not None:
                exchange.body_received(bytes(data))
        if not self._paused:
            self._give_held()

    def abort(self) -> None:
        """Cut the response off; what waits to be sent is dropped."""
        code = ErrorCode.CANCEL if self._state is _SWITCHED else ErrorCode.INTERNAL_ERROR
        self.exchange = None
        self._wire.reset(self, code)

    def close(self) -> None:
        """End a switched stream; the peer has ``close_timeout`` to end its half."""
        if self._state is not _SWITCHED:
            return
        self._paused = False
        self._give_held()
        self._state = _DRAINING
        self._finish()
        self.deadlines.set(Deadline.BODY, self._wire.hub.settings.close_timeout, self._body_late)

    def pause_reading(self) -> None:
        if self._receiving:
            self._paused = True
            self._stop_body_clock()

    def resume_reading(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            # RFC 9110 §15.2: no informational response once the final one has begun.
            self.send_informational(100, [], [])
            self.wait_for_piece()
        if self._paused:
            self._paused = False
            self._give_held()
            self.wait_for_piece()

    # What waits to be sent.

    @property
    def priority(self) -> Priority:
        """What the peer has asked for."""
        if self._asked is None:
            fields = () if self._request is None else self._request.headers
            value = b",".join(value for name, value in fields if name == b"priority")
            self._asked = read_priority(value) if value else UNASKED
        return self._asked

    def prioritize(self, priority: Priority) -> None:
        self._asked = priority

    def _queue(self, data: bytes, last: bool) -> None:
        """Send ``data`` as far as the peer takes it now, and the rest when it takes more."""
        self._last = last
        if data:
            self._add(memoryview(data))
        self._wait()

    def _add(self, data: memoryview) -> None:
        """Add to what waits; a view, which is cut without copies."""
        if self._parts is None:
            self._parts = deque()
        self._parts.append(data)
        self._size += len(data)
        self._wire.waiting += len(data)

    def _wait(self) -> None:
        wire = self._wire
        if self.window > 0:
            wire.order.add(self)
            wire.push()
        if self._waits and self._progress is None:
            self._watch()

    def opened(self, size: int) -> None:
        """The peer takes ``size`` bytes more; fewer, when it has made its windows smaller."""
        self.window += size
        if self._waits:
            if self.window > 0:
                self._wire.order.add(self)
            else:
                self._wire.order.discard(self)

    def push(self, most: int) -> int:
        """Send up to ``most`` bytes of what waits; return how much was sent.

        The stream leaves the wire's order when it has nothing more to send, or may not send.
        """
        wire, number = self._wire, self.number
        most = min(most, self.window)
        done = 0
        while done < most and (self._size or self._read_file()):
            piece = self._take(min(most - done, MAX_FRAME))
            size = len(piece)
            done += size
            over = self._last and not self._size and not self._left and not self._end
            wire.add(frame_head(size, DATA, END_STREAM if over else 0, number), piece)
        self.window -= done
        if self._state is _CLOSED:
            return done  # the file has failed
        if not self._size and not self._left:
            wire.order.discard(self)
            self._all_sent()
        elif self.window <= 0:
            wire.order.discard(self)
        return done

    @property
    def _left(self) -> int:
        """Bytes of the file that were not read yet."""
        return 0 if self._file is None else self._file.remaining

    def _take(self, most: int) -> bytes | memoryview:
        assert self._parts is not None
        piece = self._parts.popleft()
        if len(piece) > most:
            self._parts.appendleft(piece[most:])
            piece = piece[:most]
        self._size -= len(piece)
        self._wire.waiting -= len(piece)
        return piece

    def _all_sent(self) -> None:
        """Nothing waits any more."""
        self._progress = None
        if self._deadlines is not None:
            self._deadlines.clear(Deadline.WRITE)
        file = self._file
        self._drop_file()
        if file is not None:
            file.sent()
        if self._last and self._end:
            self._wire.write(self._end)
        if self._last:
            self._last_sent()
        elif self.exchange is not None:
            self.exchange.writable()
        self._wake()

    def _read_file(self) -> bool:
        """Read the next piece of the file; False when there is none, or it cannot be read."""
        file = self._file
        if file is None or not file.remaining:
            return False
        reason: object = "it has become shorter"
        try:
            data = os.pread(file.descriptor, min(file.remaining, _FILE_PIECE), file.offset)
        except OSError as error:
            data, reason = b"", error
        if not data:
            logger.error("A file that is being sent cannot be read to its end: %s", reason)
            self._drop_file()
            if self.exchange is not None:
                self.exchange.request_failed(RequestError(500, "A file could not be sent to its end."))
            return False
        file.offset += len(data)
        file.remaining -= len(data)
        self._add(memoryview(data))
        return True

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file.descriptor)
