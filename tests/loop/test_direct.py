"""What a reactor does by itself for a plain socket has to be what Twisted's would do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import LogEvent, globalLogPublisher

from asgiserver.loop.direct import DirectReactor
from asgiserver.loop.uvloop import UvloopReactor
from tests.reactors import FakeLoop, FakeReader, PlainSocket, WrappedSocket, reactor_on


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture(params=[DirectReactor, UvloopReactor])
def reactor(request: pytest.FixtureRequest, loop: FakeLoop) -> Iterator[DirectReactor]:
    yield reactor_on(loop, request.param)
    loop.closed = True


def failing_loses_its_connection_and_is_logged(reader: Any, reactor: Any, loop: FakeLoop) -> None:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        reader.failure = ValueError("oh")
        reactor.addReader(reader)
        loop.readable(7)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert reader.lost == [ValueError]
    assert [event["log_failure"].type for event in events] == [ValueError]
    assert loop.readers == {}


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

    def test_who_sends_much_is_read_from_in_large_pieces(self, reactor: Any, loop: FakeLoop) -> None:
        """Until it sends less: malloc asks the kernel for each buffer of that size, before it has got one back."""
        reader = self.read(reactor, loop, b"*" * 98304, b"*" * 100_000, b"*" * 98304, b"*" * 98303, b"a")
        assert reader.sizes == [98304, 262144, 262144, 262144, 98304]

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
        failing_loses_its_connection_and_is_logged(PlainSocket(b"a"), reactor, loop)


class TestWrappedSocket:
    """What reads in a way of its own, and is asked to without Twisted's way to it."""

    def test_it_is_called_directly(self, reactor: Any, loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reactor, "_readOrWrite", None)
        reader = WrappedSocket()
        reactor.addReader(reader)
        loop.readable(7)
        loop.readable(7)
        assert (reader.asked, reader.sizes, reader.lost, loop.turn()) == (2, [], [], 0)

    def test_a_doread_that_was_replaced_is_called_no_more(self, reactor: Any, loop: FakeLoop) -> None:
        """As Twisted does when a connection is aborted."""
        reader = WrappedSocket()
        reactor.addReader(reader)
        reader.doRead = lambda: None  # type: ignore[method-assign]
        loop.readable(7)
        assert reader.asked == 0

    @pytest.mark.parametrize("lost", [ConnectionDone, ConnectionLost])
    def test_the_end_is_told_as_twisted_tells_it(self, reactor: Any, loop: FakeLoop, lost: type[Exception]) -> None:
        reader = WrappedSocket()
        reader.result = lost()
        reactor.addReader(reader)
        loop.readable(7)
        assert reader.lost == [lost]
        assert (loop.readers, loop.turn()) == ({}, 0)

    def test_one_that_fails_loses_its_connection_and_is_logged(self, reactor: Any, loop: FakeLoop) -> None:
        failing_loses_its_connection_and_is_logged(WrappedSocket(), reactor, loop)


class TestOthers:
    """What a reactor has to read besides: listening sockets, pipes, files."""

    def test_they_read_by_themselves(self, reactor: Any, loop: FakeLoop) -> None:
        reader = FakeReader()
        reactor.addReader(reader)
        loop.readable(7)
        assert reader.reads == 1

    def test_what_epoll_does_not_take_is_read_without_asking(self, reactor: Any) -> None:
        reader = FakeReader(-1)
        reactor.addReader(reader)
        assert reactor._continuousPolling._readers == [reader]

    def test_adding_twice_is_adding_once(self, reactor: Any, loop: FakeLoop) -> None:
        for reader in (FakeReader(), PlainSocket(), WrappedSocket()):
            reactor.addReader(reader)
            watch = loop.readers[7]
            reactor.addReader(reader)
            assert loop.readers[7] is watch
            reactor.removeReader(reader)
            assert loop.readers == {}
