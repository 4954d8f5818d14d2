"""Twisted's asyncio reactor on uvloop, without losing connections that their peers have reset.

When epoll reports an error for a descriptor, as it does once a TCP peer has sent a reset, libuv stops watching the
descriptor, and uvloop calls the reader one last time and drops it silently (libuv's ``UV_EBADF``; uvloop 0.23). One
read is not enough when data came before the reset: the data is delivered, the reset is never met, and the protocol
waits for its ``connectionLost`` for ever. Moreover, uvloop keeps the dead watch, so that the next ``add_writer`` raises
in the code that happens to write.

So this reactor adds a dropped reader again, until the reader's own ``doRead`` meets the error. It notices the drop when
uvloop releases the callback, which therefore must have no other owner.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection

from .direct import DirectReactor, OwnWatch, Watch, is_plain

__all__ = ["UvloopReactor"]


class _Owned:
    """A callback that uvloop alone owns; tells the reactor when uvloop releases it."""

    __slots__ = ()
    reactor: Any
    reader: Any

    def __del__(self) -> None:
        self.reactor._dropped(self.reader)


class _PlainWatch(_Owned, Watch):
    """For a plain TCP socket."""

    __slots__ = ()


class _OwnWatch(_Owned, OwnWatch):
    """For a connection that reads in a way of its own."""

    __slots__ = ()


class _Watch(_OwnWatch):
    """For any other reader, in Twisted's way."""

    __slots__ = ()

    def __call__(self) -> None:
        self.reactor._readOrWrite(self.reader, True)


class UvloopReactor(DirectReactor):
    """For loops of uvloop only: it relies on the moment when they release a callback."""

    def addReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's name
        """Call ``reader.doRead`` when there is something to read, or an error to meet."""
        if reader in self._readers:
            return
        try:
            self._watch(reader, reader.fileno())
        except OSError:
            # epoll does not take a file, for example; Twisted reads that without waiting for it.
            super().addReader(reader)

    def addWriter(self, writer: Any) -> None:  # noqa: N802 - Twisted's name
        """Call ``writer.doWrite`` when there is room, or an error to meet."""
        try:
            super().addWriter(writer)  # type: ignore[no-untyped-call]
        except RuntimeError:
            # uvloop has just dropped the reader, which is not added again yet.
            self._forget(writer.fileno())
            super().addWriter(writer)  # type: ignore[no-untyped-call]

    def _watch(self, reader: Any, descriptor: int) -> None:
        kind: Any = _PlainWatch if is_plain(reader) else _OwnWatch if isinstance(reader, Connection) else _Watch
        try:
            self._asyncioEventloop.add_reader(descriptor, kind(self, reader))
        except RuntimeError:
            self._forget(descriptor)
            self._asyncioEventloop.add_reader(descriptor, kind(self, reader))
        self._readers[reader] = descriptor

    def _forget(self, descriptor: int) -> None:
        """Remove a dead watch from uvloop. If it had a writer too, that was called and has met the error."""
        self._asyncioEventloop.remove_reader(descriptor)

    def _dropped(self, reader: Any) -> None:
        """A callback was released, because its reader was removed, which is in order, or because uvloop dropped it."""
        loop = self._asyncioEventloop
        if reader in self._readers and not loop.is_closed():
            # Not now: uvloop is in the middle of dropping it.
            loop.call_soon(self._again, reader)

    def _again(self, reader: Any) -> None:
        descriptor = reader.fileno()
        if reader in self._readers and descriptor >= 0:
            # The watch may be alive after all, when the reader's own doRead removed and added the reader.
            del self._readers[reader]
            self._forget(descriptor)
            self._watch(reader, descriptor)
