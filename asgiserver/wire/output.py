"""How a connection writes: at once, without copies of large data, with files sent by the kernel, at the peer's pace.

``transport.write`` does not send; it arms the reactor's writer, which costs two system calls and another turn of the
loop. So while nothing is buffered, data goes to the socket first, and only the rest goes to ``write``. Our own TLS
sends at once too. Other transports, such as those that wrap another, get all data by ``write``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from zope.interface import implementer

from ..asgi.interfaces import Clock
from ..transport.buffer import bottom_of, call_when_empty, is_idle, unsent

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["File", "Output", "Waiters"]

logger = logging.getLogger("asgiserver")

#: An application that sends without ever waiting lets the others run after this many bytes.
_BURST = 524288
#: Bytes that each call counts for besides its data, so that small and empty messages use up the burst too.
_CALL = 1024
#: Parts of up to so many bytes are joined, to spare a system call for each; the second bound is for transports other
#: than a plain socket.
_JOIN = 16384
_JOIN_WRAPPED = 131072
#: How much of a file is sent before other connections have a turn; bytes.
_FILE_BURST = 1048576
#: How much of a file is read at once where the kernel cannot send it by itself; bytes.
_FILE_PIECE = 65536


class File:
    """A file that is being sent.

    :param sent: called when all of it was written.
    :param failed: called when the rest of it cannot be read.
    """

    __slots__ = ("descriptor", "failed", "offset", "remaining", "sent")

    def __init__(
        self, descriptor: int, offset: int, count: int, sent: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.remaining = count
        self.sent = sent
        self.failed = failed

    def fail(self, reason: object) -> None:
        """The rest of it cannot be read."""
        logger.error("A file that is being sent cannot be read to its end: %s", reason)
        self.failed()


class Waiters(list["asyncio.Future[None]"]):
    """The tasks that wait for room to send more."""

    async def wait(self) -> None:
        """Return when :meth:`wake` is called."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.append(waiter)
        try:
            await waiter
        finally:
            self.remove(waiter)

    def wake(self) -> None:
        """Have all of them look again."""
        for waiter in self:
            if not waiter.done():
                waiter.set_result(None)


class _Sender(Protocol):
    """A socket, or a transport that sends without waiting as a socket does."""

    def send(self, data: bytes, /) -> int:
        """Send as much as is taken now, and return its size; OSError when nothing is taken."""


class _Owner(Protocol):
    """The connection: what it does about the pressure is its own affair."""

    def output_full(self) -> None:
        """The peer takes less than is written; called once until :meth:`output_empty`."""

    def output_empty(self) -> None:
        """The peer has taken all that was written; a file may still go on."""


class _Nobody:
    """The owner of an output whose transport is gone."""

    def output_full(self) -> None:
        """See ``_Owner``."""

    def output_empty(self) -> None:
        """See ``_Owner``."""


_NOBODY = _Nobody()


@implementer(IPushProducer)
class Output:
    """The way out of one connection, for the connection and all its streams; the transport's producer.

    ``slow``, ``congested``, :meth:`drain` and :attr:`pending` are explained in :mod:`asgiserver.asgi.interfaces`.

    :param owner: is told when the peer becomes slow, and when it has caught up.
    :ivar direct: the transport is the socket's own, with nothing in between.
    :ivar socket: the plain socket, TCP or unix; None where its bytes are encrypted, or the transport wraps another.
    :ivar slow: the transport's buffer is full, or a file is being sent.
    :ivar unyielded: about how many bytes were written since the others had a turn.
    """

    __slots__ = (
        "_clock", "_file", "_owner", "_paused", "_sender", "_transport", "_waiters", "congested", "direct", "slow",
        "socket", "unyielded",
    )  # fmt: skip

    def __init__(self, transport: Any, clock: Clock, owner: _Owner) -> None:
        self._transport = transport
        self._clock = clock
        self._owner: _Owner = owner
        self.slow = self.congested = False
        self.unyielded = 0
        self._waiters: Waiters | None = None
        self._file: File | None = None
        self._paused = False
        self.direct = isinstance(transport, FileDescriptor)
        plain = getattr(type(transport), "writeSomeData", None) is tcp.Connection.writeSomeData
        self.socket: socket.socket | None = transport.getHandle() if plain else None
        # Sends at once; None while new data may have to wait for earlier data.
        self._sender = self._find_sender()

    def _find_sender(self) -> _Sender | None:
        """The socket, or our TLS on a socket."""
        if self.socket is not None:
            return self.socket
        return self._transport if self.direct and hasattr(self._transport, "send") else None

    # Bytes.

    def write(self, data: bytes) -> None:
        """Send as much of ``data`` as the peer takes now, and the rest when it takes more."""
        self.unyielded += len(data) + _CALL
        if self.unyielded > _BURST:
            self.congested = True
        sender = self._sender
        if sender is None and (sender := self._sender_again()) is None:
            self._transport.write(data)
            return
        try:
            # Looked up each time: a bound method that is kept would cost each connection memory, and gain nothing.
            sent = sender.send(data)
        except OSError:
            sent = 0  # the socket is full, or broken: then the reactor's own attempt will meet the error again
        if sent < len(data):
            self._sender = None
            self._transport.write(data[sent:])

    def _sender_again(self) -> _Sender | None:
        """The sender, once all earlier data is sent; None while there is none."""
        if self.direct and is_idle(self._transport):
            self._sender = self._find_sender()
        return self._sender

    def write_all(self, parts: list[bytes]) -> None:
        """Like :meth:`write` of all ``parts`` joined, in one system call, but large parts are not copied."""
        size = sum(map(len, parts))
        if size <= _JOIN:
            self.write(b"".join(parts))
        else:
            self.write_large(parts, size)

    def write_large(self, parts: Sequence[bytes | memoryview], size: int) -> None:
        """Like :meth:`write_all`, for parts whose ``size`` together is too large to copy.

        :param parts: bytes alone where ``size`` is above 131072.
        """
        if self.socket is None or (self._sender or self._sender_again()) is None:
            # TLS makes at least a record of each write, and a transport that wraps another has its own overhead.
            for part in _joined(parts, size):
                self.write(part)
            return
        self.unyielded += size
        if self.unyielded > _BURST:
            self.congested = True
        try:
            sent = self.socket.sendmsg(parts)
        except OSError:
            sent = 0  # as in write
        if sent < size:
            self._sender = None
            for part in _joined(_rest(parts, sent), size - sent):
                self._transport.write(part)

    # Files.

    def send_file(
        self, descriptor: int, offset: int, count: int, sent: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        """Send part of a regular file; until ``sent`` is called nothing else may be written.

        :param descriptor: closed when it is not needed any more.
        :param count: at least 1 byte.
        :param failed: called instead of ``sent`` when the file turns out to be shorter, or cannot be read.
        """
        self._file = File(descriptor, offset, count, sent, failed)
        self.slow = self.congested = True
        self._push_file()

    def _push_file(self) -> None:
        """Send as much of the file as the peer takes, within a turn's bounds."""
        file = self._file
        budget = _FILE_BURST
        while file is not None and file.remaining and budget > 0 and not self._is_full():
            size = min(file.remaining, budget)
            taken = self._push_piece(file, size)
            if taken < 0:
                break
            file.offset += taken
            file.remaining -= taken
            budget -= taken
        if file is None or file is not self._file:
            return
        if not file.remaining:
            self._drop_file()
            # Not _is_full: no resumeProducing would follow for unsent bytes that are too few to have paused us. And
            # an application that sends one file after another lets the others have a turn, however fast the peer is.
            self.slow, self.congested = self._paused, True
            file.sent()
            if not self.slow:
                self.wake()
        elif self.direct:
            self.pauseProducing()
            call_when_empty(self._transport)
        elif not self._is_full():
            self._clock.callLater(0, self._push_file)

    def _push_piece(self, file: File, size: int) -> int:
        """Send a piece; return its size, or -1 when the peer takes none, or the connection or the file fails."""
        reason: object = "it has become shorter"
        try:
            if self.socket is not None:
                taken = os.sendfile(self.socket.fileno(), file.descriptor, file.offset, size)
            else:
                data = os.pread(file.descriptor, min(size, _FILE_PIECE), file.offset)
                taken = len(data)
                self.write(data)
        except (BlockingIOError, ConnectionError):
            # The socket is full, or broken: then the reactor's own attempt will meet the error and end the connection.
            return -1
        except OSError as error:
            # The reactor would not meet an error of the file, so waiting for the peer would repeat it for ever.
            reason, taken = error, 0
        if not taken:
            self.give_file_up()
            file.fail(reason)
            return -1
        return taken

    def _is_full(self) -> bool:
        """True when the transport has unsent bytes or, where its buffer is hidden, has said that it is full."""
        return unsent(self._transport) > 0 if self.direct else self._paused

    def give_file_up(self) -> None:
        """Send nothing more of a file."""
        if self._file is not None:
            self._drop_file()
            # From now on only the transport's own buffer counts.
            self.slow = self.congested = self._paused

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file.descriptor)

    # Pressure.

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport's buffer is full; Twisted says so again with each write."""
        self.slow = self.congested = True
        if not self._paused:
            self._paused = True
            self._owner.output_full()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport's buffer is empty again."""
        self._paused = False
        going_on = self._file is not None
        if not going_on:
            self.slow = self.congested = False
            self.wake()
        self._owner.output_empty()
        if going_on:
            self._push_file()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport is gone; the connection says so by :meth:`lost`."""

    async def drain(self) -> None:
        if self.slow:
            if self._waiters is None:
                self._waiters = Waiters()
            await self._waiters.wait()
        elif self.congested:
            self.congested = False
            self.unyielded = 0
            await asyncio.sleep(0)

    def wake(self) -> None:
        """Have the tasks that wait in :meth:`drain` look again."""
        if self._waiters is not None:
            self._waiters.wake()

    @property
    def busy(self) -> bool:
        """True while data or a file waits to be sent, as far as is known."""
        bottom = bottom_of(self._transport)
        return self._file is not None or bottom is not None and unsent(bottom) > 0

    @property
    def pending(self) -> int:
        bottom = bottom_of(self._transport)
        return 0 if bottom is None else unsent(bottom) + _kept_by_kernel(bottom.fileno())

    # The end.

    def after_file(self, call: Callable[[], None]) -> None:
        """Call ``call`` as soon as all of the file that is being sent was written; at once when there is no file."""
        file = self._file
        if file is None:
            call()
            return
        sent = file.sent

        def both() -> None:
            sent()
            call()

        file.sent = both

    def close_write(self) -> None:
        """Close our direction once all that was written has been sent; TLS closes both, by a handshake of its own."""
        self._sender = None
        self._transport.unregisterProducer()
        bottom = bottom_of(self._transport)
        # A plugin's wrapper may not know half-close but, unlike TLS, has nothing of its own to send.
        if bottom is None or (bottom is not self._transport and ISSLTransport.providedBy(self._transport)):
            self._transport.loseConnection()
        else:
            bottom.loseWriteConnection()

    def close(self) -> None:
        """Close both directions once all that was written has been sent; no file may be among it."""
        self._sender = None
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        bottom = bottom_of(self._transport)
        if bottom is not None:
            bottom.loseConnection()

    def abort(self) -> None:
        """Close both directions at once, and drop what was not sent yet."""
        self._sender = None
        self._drop_file()
        self._transport.abortConnection()

    def lost(self) -> None:
        """The transport is gone: drop the file, and wake the tasks that wait in :meth:`drain`."""
        # Else the two would be a cycle, which only the garbage collector finds.
        self._owner = _NOBODY
        self.slow = self.congested = False
        self.socket = self._sender = None
        self._drop_file()
        self.wake()


def _joined(parts: Sequence[bytes | memoryview], size: int) -> Sequence[bytes]:
    """``parts`` as one, unless they are too large to copy."""
    return [b"".join(parts)] if size <= _JOIN_WRAPPED else cast(Sequence[bytes], parts)


def _rest(parts: Sequence[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """The rest of ``parts`` after the first ``sent`` bytes."""
    rest: list[bytes | memoryview] = []
    for part in parts:
        if sent < len(part):
            rest.append(part[sent:])
        sent = max(0, sent - len(part))
    return rest


def _kept_by_kernel(descriptor: int) -> int:
    """Bytes that the kernel keeps for the peer of a socket (SIOCOUTQ of tcp(7) and unix(7)); 0 if it does not tell."""
    if sys.platform == "win32" or descriptor < 0:
        return 0
    try:
        kept = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(kept, sys.byteorder)
