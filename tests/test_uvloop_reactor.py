"""uvloop is played by a loop that does with its callbacks what uvloop does; the real one is in tests/e2e."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.tcp import Connection
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from asgiserver.process.uvloop_reactor import UvloopReactor


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


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def reactor(loop: FakeLoop) -> Iterator[UvloopReactor]:
    # Without the part of a reactor that has a pipe and a thread pool.
    reactor = UvloopReactor.__new__(UvloopReactor)
    reactor._asyncioEventloop = loop
    reactor._readers = {}
    reactor._writers = {}
    reactor._continuousPolling = FakePolling()
    yield reactor
    loop.closed = True


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


class TestReading:
    def test_a_reader_is_called_when_there_is_something_to_read(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        loop.readable(7)
        loop.readable(7)
        assert (reader.reads, loop.turn()) == (2, 0)

    def test_adding_twice_is_adding_once(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        watch = loop.readers[7]
        reactor.addReader(reader)
        assert loop.readers[7] is watch

    def test_a_reader_that_was_removed_stays_so(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        reactor.removeReader(reader)
        assert (loop.readers, loop.turn()) == ({}, 0)

    def test_what_epoll_does_not_take_is_read_without_asking(self, reactor: Any) -> None:
        reader = FakeReader(-1)
        reactor.addReader(reader)
        assert reactor._continuousPolling._readers == [reader]

    def test_what_a_reader_fails_with_loses_its_connection(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reader.on_read = lambda: ConnectionResetError()
        reactor.addReader(reader)
        loop.readable(7)
        assert len(reader.lost) == 1
        assert (loop.readers, loop.turn()) == ({}, 0)


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


class TestPlainSocket:
    """What is read without Twisted's doRead, and ends as there."""

    def read(self, reactor: Any, loop: FakeLoop, *reads: bytes | BaseException) -> PlainSocket:
        reader = PlainSocket(*reads)
        reactor.addReader(reader)
        for _ in reads:
            loop.readable(7)
        return reader

    def test_data_goes_to_the_protocol(self, reactor: Any, loop: FakeLoop) -> None:
        reader = self.read(reactor, loop, b"a", b"bc")
        assert (reader.received, reader.lost) == ([b"a", b"bc"], [])
        # More than 64 KiB and the head of what has as many.
        assert reader.sizes == [98304] * 2

    def test_nothing_to_read_is_no_error(self, reactor: Any, loop: FakeLoop) -> None:
        reader = self.read(reactor, loop, BlockingIOError(11, "try again"), b"a")
        assert (reader.received, reader.lost) == ([b"a"], [])

    @pytest.mark.parametrize(
        ("read", "lost"), [(b"", ConnectionDone), (ConnectionResetError(104, "reset"), ConnectionLost)]
    )
    def test_the_end_is_told_as_twisted_tells_it(
        self, reactor: Any, loop: FakeLoop, read: bytes | OSError, lost: type[Exception]
    ) -> None:
        reader = self.read(reactor, loop, b"a", read)
        assert (reader.received, reader.lost) == ([b"a"], [lost])
        assert (loop.readers, loop.turn()) == ({}, 0)

    def test_a_protocol_that_fails_loses_its_connection_and_is_logged(self, reactor: Any, loop: FakeLoop) -> None:
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        try:
            reader = PlainSocket(b"a")
            reader.failure = ValueError("oh")
            reactor.addReader(reader)
            loop.readable(7)
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert reader.lost == [ValueError]
        assert [event["log_failure"].type for event in events] == [ValueError]
        assert loop.readers == {}

    def test_whoever_reads_in_another_way_is_asked_to(self, reactor: Any, loop: FakeLoop) -> None:
        class Other(PlainSocket):
            asked = 0

            def doRead(self) -> None:  # type: ignore[override]
                self.asked += 1

        reader = Other()
        reactor.addReader(reader)
        loop.readable(7)
        assert (reader.asked, reader.sizes) == (1, [])


class TestReset:
    def test_a_reader_is_called_until_it_meets_the_error(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        for number in range(1, 4):
            loop.reset(7)
            assert loop.turn() == 1
            assert 7 in loop.readers
            assert reader.reads == number
        reader.on_read = lambda: ConnectionResetError()
        loop.reset(7)
        assert loop.turn() == 0
        assert len(reader.lost) == 1

    def test_a_writer_can_be_added_before_the_reader_is_back(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        loop.reset(7)
        reactor.addWriter(reader)
        assert 7 in loop.writers
        loop.turn()
        assert 7 in loop.readers
        assert 7 in loop.writers

    def test_a_reader_that_was_stopped_can_be_added_to_the_dead_watch(self, reactor: Any, loop: FakeLoop) -> None:
        loop.dead.add(7)
        reactor.addReader(FakeReader())
        assert 7 in loop.readers

    def test_a_reader_that_was_removed_meanwhile_is_not_added(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        loop.reset(7)
        reactor.removeReader(reader)
        loop.turn()
        assert loop.readers == {}

    def test_a_descriptor_that_was_closed_meanwhile_is_left_alone(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        loop.reset(7)
        reader.fd = -1
        loop.turn()
        assert loop.readers == {}

    def test_a_reader_that_stops_and_goes_on_within_its_read_comes_to_rest(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()

        def stop_and_go() -> None:
            reactor.removeReader(reader)
            reactor.addReader(reader)

        reader.on_read = stop_and_go
        reactor.addReader(reader)
        loop.readable(7)
        loop.turn()
        assert loop.turn() == 0
        assert 7 in loop.readers

    def test_a_loop_that_is_closed_is_not_asked_for_more(self, reactor: Any, loop: FakeLoop) -> None:
        reactor.addReader(FakeReader())
        loop.closed = True
        loop.readers.clear()
        assert loop.soon == []
