"""uvloop is played by a loop that does with its callbacks what uvloop does; the real one is in tests/e2e."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost

from asgiserver.loop.uvloop import UvloopReactor
from tests.reactors import FakeLoop, FakeReader, WrappedSocket, reactor_on


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def reactor(loop: FakeLoop) -> Iterator[UvloopReactor]:
    yield reactor_on(loop, UvloopReactor)
    loop.closed = True


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

    def test_so_is_a_connection_that_reads_in_a_way_of_its_own(self, reactor: Any, loop: FakeLoop) -> None:
        reader = WrappedSocket()
        reactor.addReader(reader)
        loop.reset(7)
        assert loop.turn() == 1
        reader.result = ConnectionLost()
        loop.reset(7)
        assert (reader.asked, reader.lost, loop.turn()) == (2, [ConnectionLost], 0)

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
