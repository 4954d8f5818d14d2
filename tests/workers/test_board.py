"""The shared memory of the workers."""

from __future__ import annotations

import os

import pytest

from asgiserver.workers.board import SLOTS, Board


@pytest.fixture
def boards() -> tuple[Board, Board]:
    """Two mappings of one memory, as two processes have them."""
    board, descriptor = Board.create()
    other = Board(descriptor)
    os.close(descriptor)
    return board, other


def serve(board: Board, number: int, connections: int, *, accepting: bool = True) -> None:
    slot = board.use(number)
    slot.connections, slot.accepting = connections, accepting
    slot.beat()


def test_what_one_writes_the_other_reads(boards: tuple[Board, Board]) -> None:
    serve(boards[0], 3, 17)
    slot = boards[1].slot(3)
    assert (slot.connections, slot.accepting) == (17, True)
    assert not boards[1].slot(2).accepting


def test_the_least_is_that_of_the_others_that_accept(boards: tuple[Board, Board]) -> None:
    board = boards[1]
    assert board.least_connections(0) is None
    serve(boards[0], 0, 1)
    assert board.least_connections(0) is None
    serve(boards[0], 1, 9)
    serve(boards[0], SLOTS - 1, 7)
    serve(boards[0], 2, 2, accepting=False)
    assert (board.least_connections(0), board.least_connections(SLOTS - 1)) == (7, 1)


def test_one_that_is_blocked_is_not_counted_on(boards: tuple[Board, Board], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5_000_000_000]
    monkeypatch.setattr("time.monotonic_ns", lambda: now[0])
    serve(boards[0], 1, 3)
    now[0] += 2_000_000_000
    assert boards[1].least_connections(0) == 3
    now[0] += 1
    assert boards[1].least_connections(0) is None


def test_a_number_that_cannot_be_counts_as_none(boards: tuple[Board, Board]) -> None:
    serve(boards[0], 1, 2**63)
    assert boards[1].least_connections(0) == 0


def test_a_slot_is_empty_when_it_is_used_again(boards: tuple[Board, Board]) -> None:
    serve(boards[0], 1, 5)
    boards[0].slot(1).beat()
    slot = boards[0].use(1)
    assert (slot.connections, slot.accepting, slot.silence(1e9)) == (0, False, 0.0)


def test_silence_is_counted_from_the_last_beat(boards: tuple[Board, Board], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 5_000_000_000)
    boards[0].use(1).beat()
    slot = boards[1].slot(1)
    assert slot.silence(7.5) == pytest.approx(2.5)
    # Two processes read the clock at two moments.
    assert slot.silence(4.9) == 0.0
