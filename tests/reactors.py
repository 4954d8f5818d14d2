"""A loop that does with its callbacks what uvloop does, and what a reactor on it reads from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from asgiserver.loop.direct import DirectReactor

__all__ = ["FakeLoop", "FakeReader", "PlainSocket", "WrappedSocket", "reactor_on"]

_Reactor = TypeVar("_Reactor", bound=DirectReactor)


class FakeLoop(asyncio.AbstractEventLoop):
    """Owns one callback for each descriptor and direction; a watch that has died says so to whoever adds to it."""

    def __init__(self) -> None:
        self.readers: dict[int, Any] = {}
        self.writers: dict[int, Any] = {}
        self.dead: set[int] = set()
        self.soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.closed = False

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        self.check(fd)
        self.readers[fd] = (callback, args)

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> None:
        self.check(fd)
        self.writers[fd] = (callback, args)

    def check(self, fd: int) -> None:
        if fd < 0:
            raise PermissionError(1, "not for epoll")
        if fd in self.dead:
            raise RuntimeError("the handler is closed")

    def remove_reader(self, fd: Any) -> bool:
        self.dead.discard(fd)
        return self.readers.pop(fd, None) is not None

    def remove_writer(self, fd: Any) -> bool:
        self.dead.discard(fd)
        return self.writers.pop(fd, None) is not None

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        self.soon.append((callback, args))

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        raise AssertionError("nothing is timed here")

    def is_closed(self) -> bool:
        return self.closed

    # What happens to it.

    def readable(self, fd: int) -> None:
        callback, args = self.readers[fd]
        callback(*args)

    def reset(self, fd: int) -> None:
        """The peer has sent a reset: whoever is there is called a last time."""
        for watched in (self.readers, self.writers):
            if fd in watched:
                callback, args = watched[fd]
                callback(*args)
                del callback
                watched.pop(fd, None)
        self.dead.add(fd)

    def turn(self) -> int:
        """One turn of the loop; how many callbacks it had."""
        due, self.soon = self.soon, []
        for callback, args in due:
            callback(*args)
        return len(due)


class FakeReader:
    """What a transport is to a reactor."""

    def __init__(self, fd: int = 7) -> None:
        self.fd = fd
        self.reads = 0
        self.writes = 0
        self.lost: list[Any] = []
        self.on_read: Callable[[], Any] = lambda: None

    def fileno(self) -> int:
        return self.fd

    def logPrefix(self) -> str:
        return "-"

    def doRead(self) -> Any:
        self.reads += 1
        return self.on_read()

    def doWrite(self) -> Any:
        self.writes += 1
        return None

    def connectionLost(self, reason: Any) -> None:
        self.fd = -1
        self.lost.append(reason)


class FakePolling:
    def __init__(self) -> None:
        self._readers: list[Any] = []
        self._writers: list[Any] = []

    def isReading(self, reader: Any) -> bool:
        return reader in self._readers

    def isWriting(self, writer: Any) -> bool:
        return writer in self._writers

    def addReader(self, reader: Any) -> None:
        self._readers.append(reader)


class PlainSocket(Connection):
    """Twisted's transport of a TCP socket, and the socket and the protocol as well."""

    def __init__(self, *reads: bytes | BaseException) -> None:
        self.reads = [*reads]
        self.socket = self  # type: ignore[assignment]
        self.protocol = self  # type: ignore[assignment]
        self.sizes: list[int] = []
        self.received: list[bytes] = []
        self.lost: list[type[BaseException]] = []
        self.failure: Exception | None = None

    def fileno(self) -> int:  # type: ignore[override]
        return 7

    def recv(self, size: int) -> bytes:
        self.sizes.append(size)
        read = self.reads.pop(0)
        if isinstance(read, BaseException):
            raise read
        return read

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        if self.failure is not None:
            raise self.failure

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        assert reason.type is not None
        self.lost.append(reason.type)

    readConnectionLost = connectionLost  # noqa: N815 - Twisted's name


class WrappedSocket(PlainSocket):
    """A transport with TLS between the socket and the protocol.

    :ivar asked: how often it had to read.
    :ivar result: what its ``doRead`` returns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.result: Exception | None = None

    def doRead(self) -> Exception | None:  # type: ignore[override]
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.result


def reactor_on(loop: asyncio.AbstractEventLoop, kind: type[_Reactor]) -> _Reactor:
    """A reactor without the part that has a pipe and a thread pool."""
    reactor = kind.__new__(kind)
    reactor._asyncioEventloop = loop
    reactor._readers = {}
    reactor._writers = {}
    reactor._continuousPolling = FakePolling()
    return reactor
