"""How a connection ends: after what was written, without a reset, in bounded time; or at once."""

from __future__ import annotations

import logging
import sys
from abc import abstractmethod
from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import connectionDone

from ..asgi.deadlines import Deadline, Deadlines
from ..asgi.interfaces import Clock
from ..asgi.scope import Addresses
from ..settings import Settings
from ..transport.buffer import bottom_of, unsent
from .output import WritingProtocol
from .progress import Progress

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["ClosingProtocol", "Phase"]

logger = logging.getLogger("asgiserver.wire")

#: How long a peer may go on sending to a connection that is closing, as nginx has it; seconds. Between two reads it is
#: ``close_timeout``.
_LINGERING = 30.0


class Phase(Enum):
    """How far the end of a connection has come."""

    OPEN = auto()  # requests are read
    CLOSING = auto()  # what was written is still sent, and input is thrown away
    CLOSING_UNREAD = auto()  # the same, but the peer is still sending, and has time to finish
    CLOSED = auto()  # whichever side ended it


#: Names of the module's own, as an enum's members are slower to look up.
_OPEN, _CLOSING, _CLOSING_UNREAD, _CLOSED = Phase.OPEN, Phase.CLOSING, Phase.CLOSING_UNREAD, Phase.CLOSED


class ClosingProtocol(WritingProtocol):
    """The end of a connection.

    :ivar phase: how far it has come.
    :ivar deadlines: one for each thing that the peer still has to do.
    """

    # Class attributes, as most connections never set their own.
    _progress: Progress | None = None
    _lingers_until = 0.0
    _heard = False

    def __init__(self, clock: Clock, settings: Settings) -> None:
        super().__init__(clock)
        self.deadlines = Deadlines(clock)
        self.phase = _OPEN
        self._settings = settings

    @property
    @abstractmethod
    def addresses(self) -> Addresses:
        """The two ends."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Read from the peer again."""

    # Our end.

    def close(self, *, unread: bool = False) -> None:
        """Close once everything written has been sent, except the rest of a file.

        A socket that is closed with unread input resets the connection, and the peer may lose what it was sent
        (RFC 9112 §9.6). So first only our direction is closed, and input is thrown away until the peer closes too,
        has sent nothing for ``close_timeout``, or has sent for too long. Twisted's TLS has its own closing handshake
        for that. While the transport's buffer is full, ``write_timeout`` and ``min_response_rate`` count first.

        :param unread: the peer is known to be still sending.
        """
        if self.phase is not _OPEN:
            return
        self.phase = _CLOSING_UNREAD if unread else _CLOSING
        self._give_file_up()
        self._forget_requests()
        # An application that waits for room to send more has nothing to wait for.
        self._wake()
        self.resume_reading()
        if not self.slow:
            self._linger()

    def finish(self) -> None:
        """Close as soon as everything written has been sent, without waiting for an idle peer to close too."""
        if self.phase is _CLOSING_UNREAD and self.deadlines.pending(Deadline.CLOSE):
            return
        self.phase = _CLOSING
        self._forget_requests()
        self._close_behind_all()

    def abort(self) -> None:
        """Drop the connection, and with it what was not sent yet."""
        self.phase = _CLOSED
        self.deadlines.stop()
        self._sender = None
        self._drop_file()
        self.transport.abortConnection()

    def _linger(self) -> None:
        self._lingers_until = self._clock.seconds() + _LINGERING
        self._watch(Deadline.CLOSE, self._settings.close_timeout, self._close_late)
        self._sender = None
        self.transport.unregisterProducer()
        bottom = bottom_of(self.transport)
        # A plugin's wrapper may not know half-close but, unlike TLS, has nothing of its own to send.
        if bottom is None or (bottom is not self.transport and ISSLTransport.providedBy(self.transport)):
            self.transport.loseConnection()
        else:
            bottom.loseWriteConnection()

    def _close_behind_all(self) -> None:
        file = self._file
        if file is not None:
            file.sent = partial(self._close_behind_file, file.sent)
            return
        if not self.deadlines.pending(Deadline.CLOSE):
            self._watch(Deadline.CLOSE, self._settings.close_timeout, self._close_late)
        self._sender = None
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        bottom = bottom_of(self.transport)
        if bottom is not None:
            bottom.loseConnection()

    def _close_behind_file(self, sent: Callable[[], None]) -> None:
        sent()
        self._close_behind_all()

    def _forget_requests(self) -> None:
        self.deadlines.clear(
            Deadline.FIRST_BYTE, Deadline.HEAD, Deadline.BODY, Deadline.BODY_RATE, Deadline.KEEP_ALIVE
        )  # fmt: skip

    # The peer's end.

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """The peer has ended its direction. It counts as gone: a peer that closes both directions looks the same.

        So the application is told that its peer is gone, and can send no more. But the bytes and the file that it has
        handed over are still sent, as the peer may read on.
        """
        self.phase = _CLOSING
        self._forget_requests()
        self._peer_left()
        self._wake()
        if self._socket is None or self._file is not None or self._buffered():
            self._close_behind_all()
        else:
            self.transport.connectionLost(connectionDone)

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Our direction is closed after everything written; the peer now has ``close_timeout`` to close its own."""
        if self.deadlines.pending(Deadline.CLOSE):
            self.deadlines.set(Deadline.CLOSE, self._settings.close_timeout, self._close_late)

    @abstractmethod
    def _peer_left(self) -> None:
        """Tell the wire that the peer is gone."""

    # Time.

    def _buffered(self) -> int:
        """Bytes that wait in the transport at the bottom."""
        bottom = bottom_of(self.transport)
        return 0 if bottom is None else unsent(bottom)

    @property
    def pending(self) -> int:
        """Bytes that the peer has not taken yet, as far as is known: also those that the kernel keeps for it."""
        bottom = bottom_of(self.transport)
        return 0 if bottom is None else unsent(bottom) + _kept_by_kernel(bottom.fileno())

    def _watch(self, kind: Deadline, timeout: float | None, expired: Callable[[], None]) -> None:
        """Begin to watch how much the peer takes; ``expired`` must call :meth:`_look`."""
        now = self._clock.seconds()
        self._progress = Progress(now, self.pending)
        self.deadlines.set(kind, self._progress.next_look(now, timeout, self._settings.min_response_rate), expired)

    def _look(self, kind: Deadline, timeout: float | None, expired: Callable[[], None]) -> None:
        """Drop a peer that takes nothing, or too little of what it is sent."""
        assert self._progress is not None
        now, rate = self._clock.seconds(), self._settings.min_response_rate
        fault = self._progress.fault(now, self.pending, timeout, rate)
        if fault is None:
            self.deadlines.set(kind, self._progress.next_look(now, timeout, rate), expired)
        else:
            logger.info("Dropped %s, which %s", self.addresses.peer, fault)
            self.abort()

    def _write_late(self) -> None:
        self._look(Deadline.WRITE, self._settings.write_timeout, self._write_late)

    def _close_late(self) -> None:
        heard, self._heard = self._heard, False
        left = self._lingers_until - self._clock.seconds()
        if self._buffered():
            self._look(Deadline.CLOSE, self._settings.close_timeout, self._close_late)
        elif heard and left > 0:
            self.deadlines.set(Deadline.CLOSE, min(left, self._settings.close_timeout), self._close_late)
        else:
            # The kernel may still have megabytes to send to a slow peer; an abort would throw them away.
            self.finish()


def _kept_by_kernel(descriptor: int) -> int:
    """Bytes that the kernel keeps for the peer of a socket (SIOCOUTQ of tcp(7) and unix(7)); 0 if it does not tell."""
    if sys.platform == "win32" or descriptor < 0:
        return 0
    try:
        kept = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(kept, sys.byteorder)
