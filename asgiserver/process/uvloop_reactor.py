"""Twisted's asyncio reactor on uvloop, without losing connections that their peers have reset.

When epoll reports an error for a descriptor, as it does once a TCP peer has sent a reset, libuv stops watching it, and
uvloop calls the reader one last time and drops it without a word (libuv's ``UV_EBADF``; uvloop 0.23). One read is not
enough when data came before the reset: the data is delivered, the reset is never met, and the protocol waits for its
``connectionLost`` for ever. What is more, uvloop keeps the dead watch, so that the next ``add_writer`` raises in
whoever happens to write.

So a reader that was dropped is added again, until its own ``doRead`` meets the error. That it was dropped shows when
uvloop lets go of the callback, which therefore must have no other owner.

That callback reads a plain TCP socket by itself, as Twisted's ``doRead`` does, in four calls less.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection

__all__ = ["UvloopReactor"]

#: Most bytes of a read: a body or a frame of 64 KiB and its head are one, and it is below the size from which on malloc
#: asks the kernel for each buffer.
_MOST = 98304
_PLAIN = Connection.doRead, Connection._dataReceived
_FAILED = "A connection's protocol has failed"


class _Watch:
    """The callback of a reader, owned by uvloop alone."""

    __slots__ = ("reactor", "reader", "receive")

    def __init__(self, reactor: UvloopReactor, reader: Any) -> None:
        self.reactor = reactor
        self.reader = reader
        kind = type(reader)
        plain = isinstance(reader, Connection) and (kind.doRead, kind._dataReceived) == _PLAIN
        #: Reads from a TCP socket with nothing in between; None for whatever else there may be to read.
        self.receive = reader.socket.recv if plain else None

    def __call__(self) -> None:
        # Without Twisted's logging context, which takes longer than many a read, and which nothing here asks for.
        if self.receive is None:
            self.reactor._readOrWrite(self.reader, True)  # type: ignore[no-untyped-call]
            return
        reader = self.reader
        why: Exception
        try:
            data = self.receive(_MOST)
        except BlockingIOError:
            return
        except OSError:
            why = CONNECTION_LOST
        else:
            if data:
                try:
                    reader.protocol.dataReceived(data)
                    return
                except Exception as error:  # noqa: BLE001 - whatever it is, as Twisted has it
                    why = error
                    self.reactor._log.failure(_FAILED)
            else:
                why = CONNECTION_DONE
        self.reactor._disconnectSelectable(reader, why, True)  # type: ignore[no-untyped-call]

    def __del__(self) -> None:
        self.reactor._dropped(self.reader)


class UvloopReactor(AsyncioSelectorReactor):
    """For loops of uvloop only: it relies on when they let go of a callback.

    :ivar _readers: Twisted's own: the readers that are to be called, with their descriptors.
    """

    _asyncioEventloop: AbstractEventLoop  # noqa: N815
    _readers: dict[Any, int]

    def addReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's name
        """Call ``reader.doRead`` when there is something to read, or an error to meet."""
        if reader in self._readers:
            return
        try:
            self._watch(reader, reader.fileno())
        except OSError:
            # What epoll does not take, such as a file, Twisted reads without asking.
            super().addReader(reader)  # type: ignore[no-untyped-call]

    def addWriter(self, writer: Any) -> None:  # noqa: N802 - Twisted's name
        """Call ``writer.doWrite`` when there is room, or an error to meet."""
        try:
            super().addWriter(writer)  # type: ignore[no-untyped-call]
        except RuntimeError:
            # The reader has just been dropped, and is not added again yet.
            self._forget(writer.fileno())
            super().addWriter(writer)  # type: ignore[no-untyped-call]

    def _watch(self, reader: Any, descriptor: int) -> None:
        try:
            self._asyncioEventloop.add_reader(descriptor, _Watch(self, reader))
        except RuntimeError:
            self._forget(descriptor)
            self._asyncioEventloop.add_reader(descriptor, _Watch(self, reader))
        self._readers[reader] = descriptor

    def _forget(self, descriptor: int) -> None:
        """Rid uvloop of a dead watch. It had a writer too, perhaps: that was called then, and has met the error."""
        self._asyncioEventloop.remove_reader(descriptor)

    def _dropped(self, reader: Any) -> None:
        """A callback is gone: because the reader was removed, which is in order, or because uvloop dropped it."""
        loop = self._asyncioEventloop
        if reader in self._readers and not loop.is_closed():
            # Not now: uvloop is in the middle of it.
            loop.call_soon(self._again, reader)

    def _again(self, reader: Any) -> None:
        descriptor = reader.fileno()
        if reader in self._readers and descriptor >= 0:
            # The watch may live after all, when its reader was removed and added by its own doRead.
            del self._readers[reader]
            self._forget(descriptor)
            self._watch(reader, descriptor)
