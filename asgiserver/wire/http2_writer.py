"""What an HTTP/2 connection writes: small frames of a turn together, and large pieces in the streams' order."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING

from ..asgi.interfaces import Clock
from .http2_order import Order
from .output import Output

if TYPE_CHECKING:
    from .http2_output import StreamOutput

__all__ = ["FIRST_WINDOW", "Writer"]

#: A window of which both sides know before any SETTINGS (RFC 9113 §6.9.2); bytes.
FIRST_WINDOW = 65535
#: How many bytes a stream sends before another has its turn, and all together in a turn of the loop.
_SHARE = 32768
_BURST = 131072
#: So many bytes of small frames are kept for the end of the turn, and so many of large ones for one system call.
_SMALL, _LARGE = 16384, 98304
#: A system call takes so many parts; more are joined.
_MOST_PARTS = 128


class Writer:
    """The way to a connection's ``Output`` for all of its streams.

    :param streams: those that are open; while there is one alone, nothing else can come in the same turn.
    :ivar output: the connection's.
    :ivar order: the streams that have something to send and a window for it.
    :ivar window: bytes that the peer takes on all streams together.
    :ivar sent: bytes of all streams that were sent.
    :ivar unread: small frames that were written while the peer took nothing: answers, and heads without a body.
    :ivar waiting: bytes of all streams that wait.
    """

    __slots__ = (
        "_clock", "_gathered", "_holding", "_pushing", "_scheduled", "_size", "_streams", "order", "output", "sent",
        "unread", "waiting", "window",
    )  # fmt: skip

    def __init__(self, output: Output, clock: Clock, streams: Sized) -> None:
        self.output = output
        self._clock = clock
        self._streams = streams
        self.order: Order[StreamOutput] = Order()
        self.window = FIRST_WINDOW
        self.sent = self.unread = self.waiting = 0
        self._gathered: list[bytes | memoryview] = []
        self._size = 0
        self._holding = self._pushing = self._scheduled = False

    def hold(self) -> None:
        """Keep small frames until :meth:`release`, however few they are: a read may be answered many times."""
        self._holding = True

    def release(self) -> None:
        """Write what was kept."""
        self._holding = False
        self.flush()

    def write(self, data: bytes) -> None:
        """Write whole frames, together with others of this turn of the loop where there may be any."""
        if self.output.slow:
            self.unread += 1
        if not (self._holding or self._gathered or len(self._streams) > 1):
            self.output.write(data)
            return
        self._gathered.append(data)
        self._size += len(data)
        if self._size > _SMALL:
            self.flush()
        elif not self._holding:
            self._schedule()

    def gather(self, head: bytes, data: memoryview) -> None:
        """Add a frame of data to what :meth:`push` writes."""
        self._gathered += head, data
        self._size += len(head) + len(data)
        if self._size > _LARGE:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        parts = self._gathered
        if not parts:
            return
        self._gathered = []
        size, self._size = self._size, 0
        if size <= _SMALL or len(parts) > _MOST_PARTS:
            self.output.write(b"".join(parts))
        else:
            self.output.write_large(parts, size)

    def push(self) -> None:
        """Send what waits as far as the windows and the socket have room, in the streams' order."""
        if self._pushing:
            return  # a stream that was sent whole has sent more
        self._pushing = True
        budget = _BURST
        try:
            while budget > 0 and self.window > 0 and not self.output.slow:
                stream = self.order.next()
                if stream is None:
                    break
                share = _SHARE if len(self.order) > 1 else budget
                budget -= stream.push(min(share, self.window))
        finally:
            self._pushing = False
        if not self._holding:
            self.flush()
        if budget <= 0 and len(self.order):
            self._schedule()

    def stop(self) -> None:
        """The connection is closed: write nothing more."""
        self._gathered = []
        self._size = 0

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._scheduled = False
        self.flush()
        if len(self.order):
            self.push()
