"""Accepting by count, on a port and a clock of the tests' own."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.task import Clock

from asgiserver.workers.balance import balance
from asgiserver.workers.board import Board


@pytest.fixture(autouse=True)
def time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is blocked, however long a test takes."""
    monkeypatch.setattr("time.monotonic_ns", lambda: 10**10)


@pytest.fixture(autouse=True)
def queues_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgiserver.workers.balance._waits", lambda port: bool(port.queue))


class FakePort:
    """A port of Twisted's with a queue that it may share."""

    def __init__(self, clock: Clock, queue: list[int]) -> None:
        self.reactor = clock
        self.queue = queue
        self.numberAccepts = 100
        self.connected = self.reading = True
        self.disconnecting = False
        self.connections = 0

    def doRead(self) -> None:
        for _ in range(self.numberAccepts):
            if self.queue:
                self.queue.pop()
                self.connections += 1

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class Workers:
    """Several that accept on one queue; those that read are woken in turn, as long as there is anybody in the queue."""

    def __init__(self, *connections: int) -> None:
        self.board, descriptor = Board.create()
        os.close(descriptor)
        self.clock = Clock()
        self.queue: list[int] = []
        self.ports = [FakePort(self.clock, self.queue) for _ in connections]
        for number, (port, count) in enumerate(zip(self.ports, connections, strict=True)):
            slot = self.board.use(number)
            slot.connections = port.connections = count
            slot.accepting = True
            slot.beat()
            balance(port, self.board, number, lambda port=port: port.connections)  # type: ignore[misc]

    def arrive(self, count: int, blocked: Any = None) -> list[int]:
        """So many clients come; how many connections each has when all are accepted."""
        self.queue.extend(range(count))
        while self.queue:
            woken = [port for port in self.ports if port.reading and port is not blocked]
            for port in woken:
                if self.queue:
                    port.doRead()
            if not woken:
                self.clock.advance(0.001)
        return [port.connections for port in self.ports]


def test_a_burst_is_shared_out() -> None:
    counts = Workers(0, 0, 0, 0).arrive(1000)
    assert max(counts) - min(counts) <= 16


def test_one_by_one_too() -> None:
    workers = Workers(0, 0, 0, 0)
    for _ in range(400):
        counts = workers.arrive(1)
    # A sixteenth of a hundred, and one.
    assert max(counts) - min(counts) <= 7


def test_a_new_worker_gets_what_the_others_have_more() -> None:
    assert Workers(100, 100, 0).arrive(60) == [100, 100, 60]


def test_with_many_connections_a_few_more_do_not_matter() -> None:
    workers = Workers(1000, 1060)
    workers.queue.append(1)
    workers.ports[1].doRead()
    assert workers.ports[1].connections == 1061


def test_a_worker_that_is_blocked_delays_nobody_for_long() -> None:
    workers = Workers(50, 0)
    workers.queue.extend(range(6))
    for left in (2, 0):
        for _ in range(4):
            workers.ports[0].doRead()
            assert not workers.ports[0].reading
            workers.clock.advance(0.002)
            assert workers.ports[0].reading
        workers.ports[0].doRead()
        assert len(workers.queue) == left
    assert workers.ports[0].connections == 56


def test_pauses_for_clients_that_others_have_taken_do_not_count() -> None:
    workers = Workers(50, 0)
    for _ in range(9):
        workers.queue.append(1)
        workers.ports[0].doRead()
        workers.ports[1].doRead()
        workers.clock.advance(0.002)
    assert [port.connections for port in workers.ports] == [50, 9]


def test_alone_it_takes_all() -> None:
    workers = Workers(7)
    workers.queue.extend(range(60))
    workers.ports[0].doRead()
    assert workers.ports[0].connections == 67


@pytest.mark.parametrize("state", [{"connected": False}, {"disconnecting": True}])
def test_a_port_that_was_closed_meanwhile_is_left_alone(state: dict[str, bool]) -> None:
    workers = Workers(50, 0)
    port = workers.ports[0]
    workers.queue.append(1)
    port.doRead()
    vars(port).update(state)
    workers.clock.advance(1)
    assert (port.connections, port.reading) == (50, False)


def test_the_board_knows_what_was_accepted() -> None:
    workers = Workers(0, 0)
    counts = workers.arrive(10)
    assert [workers.board.slot(number).connections for number in (0, 1)] == counts
