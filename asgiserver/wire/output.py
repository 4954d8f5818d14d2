"""How a connection writes: at once, without copies of large data, with files sent by the kernel, at the peer's pace.

``transport.write`` does not send; it arms the reactor's writer, which costs two system calls and another turn of the
loop. So while nothing is buffered, data goes to the socket first, and only the rest goes to ``write``. Our own TLS
sends at once too. A transport that wraps another, such as Twisted's TLS, gets all data by ``write``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import Protocol as TwistedProtocol

from ..asgi.interfaces import Clock
from ..transport.buffer import call_when_empty, is_idle, unsent

__all__ = ["WritingProtocol"]

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


class _File:
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


class _Sender(Protocol):
    """A socket, or a transport that sends without waiting as a socket does."""

    def send(self, data: bytes, /) -> int:
        """Send as much as is taken now, and return its size; OSError when nothing is taken."""


class WritingProtocol(TwistedProtocol, ABC):
    """The writing half of a connection.

    :ivar slow: True while the transport's buffer is full, or a file is being sent.
    :ivar congested: True when the sender has to await :meth:`drain` next.
    """

    transport: Any

    def __init__(self, clock: Clock) -> None:
        self.slow = False
        self.congested = False
        self._clock = clock
        self._waiters: list[asyncio.Future[None]] | None = None
        self._direct = False
        self._socket: socket.socket | None = None
        # Sends at once; None while new data may have to wait for earlier data.
        self._sender: _Sender | None = None
        self._file: _File | None = None
        self._paused = False
        self._unyielded = 0

    @abstractmethod
    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport's buffer is full."""

    def _begin_writing(self) -> None:
        """The transport is there."""
        transport = self.transport
        self._direct = isinstance(transport, FileDescriptor)
        if getattr(type(transport), "writeSomeData", None) is tcp.Connection.writeSomeData:
            # A plain socket, TCP or unix, with nothing in between.
            self._socket = transport.getHandle()
        self._sender = self._find_sender()

    def _find_sender(self) -> _Sender | None:
        """The socket, or our TLS on a socket."""
        if self._socket is not None:
            return self._socket
        return self.transport if self._direct and hasattr(self.transport, "send") else None

    def _end_writing(self) -> None:
        """The transport is gone: drop the file, and wake the tasks that wait in :meth:`drain`."""
        self.slow = self.congested = False
        self._socket = self._sender = None
        self._drop_file()
        self._wake()

    def write(self, data: bytes) -> None:
        """Send as much of ``data`` as the peer takes now, and the rest when it takes more."""
        self._unyielded += len(data) + _CALL
        if self._unyielded > _BURST:
            self.congested = True
        sender = self._sender
        if sender is None:
            self._write_after_others(data)
            return
        try:
            # Looked up each time: a bound method that is kept would cost each connection memory, and gain nothing.
            sent = sender.send(data)
        except OSError:
            sent = 0  # the socket is full, or broken: then the reactor's own attempt will meet the error again
        if sent < len(data):
            self._sender = None
            self.transport.write(data[sent:])

    def _write_after_others(self, data: bytes) -> None:
        """Send ``data`` after the data that waits in the transport, or at once when none waits any more."""
        if self._can_send():
            self._unyielded -= len(data) + _CALL
            self.write(data)
            return
        transport = self.transport
        if self._direct and is_idle(transport):
            data = self._write_now(data)
        if data:
            transport.write(data)

    def write_all(self, parts: list[bytes]) -> None:
        """Like :meth:`write` of all ``parts`` joined, in one system call, but large parts are not copied."""
        size = sum(map(len, parts))
        if size <= _JOIN:
            self.write(b"".join(parts))
        else:
            self.write_large(parts, size)

    def write_large(self, parts: list[bytes], size: int) -> None:
        """Like :meth:`write_all`, for parts whose ``size`` together is too large to copy."""
        if self._socket is None or (self._sender is None and not self._can_send()):
            # TLS makes at least a record of each write, and a transport that wraps another has its own overhead.
            for part in [b"".join(parts)] if self._socket is None and size <= _JOIN_WRAPPED else parts:
                self.write(part)
            return
        self._unyielded += size
        if self._unyielded > _BURST:
            self.congested = True
        try:
            sent = self._socket.sendmsg(parts)
        except OSError:
            sent = 0  # as in write
        if sent < size:
            self._sender = None
            for part in _rest(parts, sent):
                self.transport.write(part)

    def _can_send(self) -> bool:
        """Look for a sender once all earlier data is sent; False while there is none."""
        if not self._direct or not is_idle(self.transport):
            return False
        self._sender = self._find_sender()
        return self._sender is not None

    def _write_now(self, data: bytes) -> bytes:
        """Send to the socket without the reactor; return what the socket did not take."""
        offset, size = 0, len(data)
        while offset < size and self.transport.connected:
            sent = self.transport.writeSomeData(memoryview(data)[offset:] if offset else data)
            # Twisted returns errors as exceptions; the reactor's own attempt will meet it again and end the connection.
            if isinstance(sent, BaseException) or sent <= 0:
                break
            offset += sent
        return data[offset:] if offset else data

    def send_file(
        self, descriptor: int, offset: int, count: int, sent: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        """Send part of a regular file; until ``sent`` is called nothing else may be written.

        :param descriptor: closed when it is not needed any more.
        :param count: at least 1 byte.
        :param failed: called instead of ``sent`` when the file turns out to be shorter, or cannot be read.
        """
        self._file = _File(descriptor, offset, count, sent, failed)
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
                self._wake()
        elif self._direct:
            self.pauseProducing()
            call_when_empty(self.transport)
        elif not self._is_full():
            self._clock.callLater(0, self._push_file)

    def _push_piece(self, file: _File, size: int) -> int:
        """Send a piece; return its size, or -1 when the peer takes none, or the connection or the file fails."""
        reason: object = "it has become shorter"
        try:
            if self._socket is not None:
                taken = os.sendfile(self._socket.fileno(), file.descriptor, file.offset, size)
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
            logger.error("A file that is being sent cannot be read to its end: %s", reason)
            self._give_file_up()
            file.failed()
            return -1
        return taken

    def _is_full(self) -> bool:
        """True when the transport has unsent bytes or, where its buffer is hidden, has said that it is full."""
        return unsent(self.transport) > 0 if self._direct else self._paused

    def _give_file_up(self) -> None:
        """Send nothing more of a file."""
        if self._file is not None:
            self._drop_file()
            # From now on only the transport's own buffer counts.
            self.slow = self.congested = self._paused

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file.descriptor)

    async def drain(self) -> None:
        """Return when the peer takes more or is gone, or the others have had a turn."""
        if self.slow:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        elif self.congested:
            self.congested = False
            self._unyielded = 0
            await asyncio.sleep(0)

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)


def _rest(parts: list[bytes], sent: int) -> list[bytes]:
    """The rest of ``parts`` after the first ``sent`` bytes."""
    rest: list[bytes] = []
    for part in parts:
        if sent < len(part):
            rest.append(part[sent:])
        sent = max(0, sent - len(part))
    return rest
