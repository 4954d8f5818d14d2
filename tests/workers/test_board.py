"""The shared memory of the workers."""

from __future__ import annotations

import os

import pytest

from asgiserver.workers.board import _MOVES, SLOTS, Board


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


def test_the_supervisor_beats_too(boards: tuple[Board, Board], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 5_000_000_000)
    assert boards[1].supervisor_silence(7.5) == 0.0
    boards[0].supervisor_beat()
    assert boards[1].supervisor_silence(7.5) == pytest.approx(2.5)
    assert boards[1].supervisor_silence(4.9) == 0.0


def test_a_worker_is_described(boards: tuple[Board, Board], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 5_000_000_000)
    boards[0].use(0)
    boards[0].use(2).describe(7, 0, 3, 1)
    monkeypatch.setattr("time.monotonic_ns", lambda: 6_000_000_000)
    boards[0].slot(2).describe(7, 4711, 3, 2)
    ((place, slot),) = boards[1].used()
    assert place == 2
    assert (slot.number, slot.process, slot.generation, slot.state) == (7, 4711, 3, 2)
    assert slot.age(7.0) == pytest.approx(2.0)
    boards[0].describe(2, 9)
    assert boards[1].description == (2, 9)


def test_no_count_falls_when_a_worker_ends(boards: tuple[Board, Board]) -> None:
    board, other = boards
    for number, count in enumerate((1.0, 2.0, 4.0)):
        board.use(number).write([count, 10 * count], [count])
    assert other.totals()[:3] == [7.0, 70.0, 0.0]
    board.inherit(board.slot(1))
    assert other.totals()[:3] == [7.0, 70.0, 0.0]
    assert (other.slot(1).counts[0], other.slot(1).gauges[0]) == (0.0, 0.0)
    board.use(1).write([3.0], [])
    board.inherit(board.slot(1))
    assert other.totals()[:3] == [10.0, 70.0, 0.0]


def test_a_reader_of_a_supervisor_that_has_died_within_a_move_does_not_wait(boards: tuple[Board, Board]) -> None:
    boards[0].use(0).write([5.0], [])
    boards[0]._cells[_MOVES] = 1
    assert boards[1].totals()[0] == 5.0


def test_a_text_is_read_as_it_was_written(boards: tuple[Board, Board]) -> None:
    slot, other = boards[0].slot(5), boards[1].slot(5)
    assert other.text == b""
    for text in (b"x" * 2046, b"short"):
        slot.text = text
        assert other.text == text
    slot.text = b"x" * 2047
    assert other.text == b""
