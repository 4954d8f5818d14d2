"""The way out of one stream of HTTP/2: its window, what waits for it, and the pressure (RFC 9113 §5.2; RFC 9218)."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..asgi.deadlines import Deadline
from .http2_frames import DATA, END_STREAM, MAX_FRAME, ErrorCode, frame_head
from .http2_order import UNASKED, Priority, read_priority
from .output import File, Waiters
from .progress import Progress

if TYPE_CHECKING:
    from .http2 import HTTP2
    from .http2_stream import HTTP2Stream

__all__ = ["StreamOutput"]

logger = logging.getLogger("asgiserver.wire")

#: How much of a file is read at once; bytes.
_FILE_PIECE = 65536


class StreamOutput:
    """The data of one stream, and its ``asgi.interfaces.Output``.

    A stream is slow while anything waits: for its own window, the connection's, or the socket. So an application has
    one message waiting, as it waits before it sends the next one.

    :ivar window: bytes that the peer takes on this stream; below 0 when it has made its windows smaller.
    :ivar last: our half ends behind what waits.
    """

    __slots__ = (
        "_end", "_file", "_parts", "_priority", "_progress", "_shared", "_size", "_stream", "_waiters", "_wire",
        "_writer", "last", "window",
    )  # fmt: skip

    def __init__(self, wire: HTTP2, stream: HTTP2Stream, window: int) -> None:
        self._wire = wire
        self._writer = wire.writer
        self._stream: HTTP2Stream | None = stream
        self.window = window
        self.last = False
        self._parts: deque[memoryview] | None = None
        self._size = 0
        self._file: File | None = None
        self._end = b""
        self._priority: Priority | None = None
        self._waiters: Waiters | None = None
        self._progress: Progress | None = None
        self._shared = False

    # The pressure.

    @property
    def _owner(self) -> HTTP2Stream:
        assert self._stream is not None
        return self._stream

    @property
    def waits(self) -> bool:
        """Something waits to be sent."""
        return self._size > 0 or self._file is not None

    @property
    def slow(self) -> bool:
        return self._size > 0 or self._file is not None or self._writer.output.slow

    @property
    def congested(self) -> bool:
        return self._writer.output.congested or self._size > 0 or self._file is not None

    @property
    def pending(self) -> int:
        return self._size + self._writer.output.pending

    async def drain(self) -> None:
        if not self.waits:
            await self._writer.output.drain()
            return
        if self._waiters is None:
            self._waiters = Waiters()
        await self._waiters.wait()

    def _wake(self) -> None:
        if self._waiters is not None:
            self._waiters.wake()

    # Called by the stream.

    def data_frame(self, data: bytes, *, last: bool) -> bytes | None:
        """The one frame of ``data``, for the stream to send; None when it is too large for that, or has to wait."""
        writer, size = self._writer, len(data)
        if size:
            # Something that waits has used up a window, or is larger than what may overtake it.
            if size > MAX_FRAME or size > self.window or size > writer.window or writer.output.slow or self.waits:
                return None
            self.window -= size
            writer.window -= size
            writer.sent += size
        elif self.waits:
            return None
        return frame_head(size, DATA, END_STREAM if last else 0, self._owner.number) + data

    def add(self, data: bytes, *, last: bool) -> None:
        """Send ``data`` as far as the peer takes it now, and the rest when it takes more."""
        self.last = last
        if data:
            self._keep(data)
        self._begin()

    def add_file(self, descriptor: int, offset: int, count: int, sent: Callable[[], None], *, last: bool) -> None:
        """Send part of a file in the same way: see :meth:`.Stream.send_file`."""
        self._file = File(descriptor, offset, count, sent, self._owner.file_failed)
        self.last = last
        self._begin()

    def end_with(self, frames: bytes) -> None:
        """End our half behind what waits, by ``frames`` where there are any."""
        self.last = True
        self._end = frames

    def drop(self) -> None:
        """The stream is gone: nothing is sent any more, and nobody waits."""
        # Else the two would be a cycle, which only the garbage collector finds.
        self._stream = None
        if not self.waits:
            return
        self._writer.order.discard(self)
        self._writer.waiting -= self._size
        self._size = 0
        self._parts = self._progress = None
        self._drop_file()
        self._wake()

    def _keep(self, data: bytes) -> None:
        if self._parts is None:
            self._parts = deque()
        # A view, which is cut without copies.
        self._parts.append(memoryview(data))
        self._size += len(data)
        self._writer.waiting += len(data)

    def _begin(self) -> None:
        if self.window > 0:
            self._writer.order.add(self)
            self._writer.push()
        if self.waits and self._progress is None:
            self._watch()

    # Called by the wire.

    @property
    def priority(self) -> Priority:
        """What the peer has asked for; its field is looked for when something has to wait."""
        if self._priority is None:
            value = b",".join([value for name, value in self._owner.fields if name == b"priority"])
            self._priority = read_priority(value) if value else UNASKED
        return self._priority

    def prioritize(self, priority: Priority) -> None:
        """The peer asks for another priority."""
        self._priority = priority
        self.opened(0)

    def opened(self, size: int) -> None:
        """The peer takes ``size`` bytes more; fewer, when it has made its windows smaller."""
        self.window += size
        if self.waits and self.window > 0:
            self._writer.order.add(self)
        elif self.waits:
            self._writer.order.discard(self)

    def push(self, most: int) -> int:
        """Send up to ``most`` bytes of what waits; return how much was sent.

        The stream leaves the wire's order when it has nothing more to send, or may not send.
        """
        writer, number = self._writer, self._owner.number
        most = min(most, self.window)
        done = 0
        while done < most and (self._size or self._read_file()):
            piece = self._take(min(most - done, MAX_FRAME))
            size = len(piece)
            done += size
            over = self.last and not self._size and not self._unread and not self._end
            writer.gather(frame_head(size, DATA, END_STREAM if over else 0, number), piece)
        self.window -= done
        writer.window -= done
        writer.sent += done
        if self._stream is None:
            pass  # the file has failed
        elif not self._size and not self._unread:
            writer.order.discard(self)
            self._all_sent()
        elif self.window <= 0:
            writer.order.discard(self)
        return done

    @property
    def _unread(self) -> int:
        """Bytes of the file that were not read yet."""
        return 0 if self._file is None else self._file.remaining

    def _take(self, most: int) -> memoryview:
        assert self._parts is not None
        piece = self._parts.popleft()
        if len(piece) > most:
            self._parts.appendleft(piece[most:])
            piece = piece[:most]
        self._size -= len(piece)
        self._writer.waiting -= len(piece)
        return piece

    def _all_sent(self) -> None:
        """Nothing waits any more."""
        if self._progress is not None:
            self._progress = None
            self._owner.deadlines.clear(Deadline.WRITE)
        file = self._file
        self._drop_file()
        if file is not None:
            file.sent()
        if self.last and self._end:
            self._writer.write(self._end)
        self._owner.all_sent(last=self.last)
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
            file.fail(reason)
            return False
        file.offset += len(data)
        file.remaining -= len(data)
        self._keep(data)
        return True

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file.descriptor)

    # A peer that takes nothing, or too little.

    def _watch(self) -> None:
        """Begin to watch how much the peer takes, as :class:`.HTTPConnection` does where the socket is full."""
        settings, now = self._wire.hub.settings, self._wire.hub.clock.seconds()
        # While the stream's own window is open, others use up the connection's, or go first: then all count together.
        self._shared = self.window > 0
        self._progress = Progress(now, self._untaken)
        next_look = self._progress.next_look(now, settings.write_timeout, settings.min_response_rate)
        self._owner.deadlines.set(Deadline.WRITE, next_look, self._look)

    @property
    def _untaken(self) -> int:
        return -self._writer.sent if self._shared else self._size + self._unread

    def _look(self) -> None:
        """Reset the stream of a peer that takes nothing, or too little of what it is sent."""
        wire, progress = self._wire, self._progress
        if progress is None:
            return
        if self._writer.output.slow or self._shared is not (self.window > 0):
            self._watch()
            return
        settings, now = wire.hub.settings, wire.hub.clock.seconds()
        timeout, rate = settings.write_timeout, settings.min_response_rate
        fault = progress.fault(now, self._untaken, timeout, rate)
        if fault is None:
            self._owner.deadlines.set(Deadline.WRITE, progress.next_look(now, timeout, rate), self._look)
        else:
            logger.info("Reset a stream of %s, which %s", wire.connection.addresses.peer, fault)
            wire.reset(self._owner, ErrorCode.CANCEL)
