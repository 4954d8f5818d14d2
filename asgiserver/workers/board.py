"""The shared memory of all processes: numbers and a text of each worker, which its neighbours and the supervisor read.

Each number is eight bytes that one process alone writes, so there is nothing to lock. Only where the supervisor moves
a dead worker's counts to its own does a reader need all of them at one moment, see :meth:`Board.totals`.

A worker has three parts: its cells, which are whole numbers and stand in one line of the processor's cache; its counts
and its text, which are there for :mod:`asgiserver.metrics` and take no memory without it.
"""

from __future__ import annotations

import mmap
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Self

__all__ = ["COUNTS", "GAUGES", "SLOTS", "Board", "Slot"]

#: Workers at a time, those of generations that end among them.
SLOTS = 1024
#: Numbers of a slot that only rise, and numbers that also fall.
COUNTS, GAUGES = 1000, 24

_CONNECTIONS, _ACCEPTING, _HEARTBEAT, _NUMBER, _PROCESS, _GENERATION, _STATE, _BEGAN = range(8)
#: Cells of a slot: a line of the processor's cache, so that neighbours do not slow each other down.
_WIDTH = 8
#: Bytes of a slot's text, behind two that hold its length.
_TEXT = 2046
#: The supervisor's own part stands behind the slots. Its cells: see the properties of :class:`Board`.
_OWN = SLOTS
_END, _BEAT, _MOVES, _SERVICE_STATE, _SERVICE_GENERATION = (_OWN * _WIDTH + at for at in range(5))
#: The three parts of the memory begin and end here; bytes.
_COUNTS_AT = (SLOTS + 1) * _WIDTH * 8
_TEXTS_AT = _COUNTS_AT + (SLOTS + 1) * (COUNTS + GAUGES) * 8
_SIZE = _TEXTS_AT + (SLOTS + 1) * (_TEXT + 2)
#: Nanoseconds without a beat after which a worker is not counted on to accept: several times what is between two.
_BLOCKED = 2_000_000_000
#: No worker has more connections; a number beyond this was written by mistake.
_MOST_CONNECTIONS = 1 << 24
#: How often a reader tries again to read all counts between two moves. A supervisor that has died within one moves on
#: no more.
_TRIES = 20


class Board:
    """The memory, mapped into this process.

    :param descriptor: of the file that all processes map; it stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        whole = memoryview(mmap.mmap(descriptor, _SIZE))
        self._cells = whole[:_COUNTS_AT].cast("Q")
        self._numbers = whole[_COUNTS_AT:_TEXTS_AT].cast("d")
        self._texts = whole[_TEXTS_AT:]

    @classmethod
    def create(cls) -> tuple[Self, int]:
        """A new board and the descriptor of its file, which has no name."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("asgiserver")
        else:
            import tempfile

            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor), descriptor

    def slot(self, number: int) -> Slot:
        """The part of one worker."""
        width, text = COUNTS + GAUGES, _TEXT + 2
        return Slot(
            self._cells[number * _WIDTH : (number + 1) * _WIDTH],
            self._numbers[number * width : (number + 1) * width],
            self._texts[number * text : (number + 1) * text],
        )

    @property
    def own(self) -> Slot:
        """The supervisor's part; its cells are not a worker's."""
        return self.slot(_OWN)

    def least_connections(self, besides: int) -> int | None:
        """The connections of the worker that has the fewest, of those that accept and are not blocked.

        :param besides: the slot of the worker that asks.
        :returns: None when there is no other one.
        """
        cells, least = self._cells, _MOST_CONNECTIONS
        own, beaten = besides * _WIDTH, time.monotonic_ns() - _BLOCKED
        for at in range(0, cells[_END] * _WIDTH, _WIDTH):
            if cells[at + _ACCEPTING] == 1 and at != own and cells[at + _HEARTBEAT] >= beaten:
                count = cells[at]
                least = min(least, count if count < _MOST_CONNECTIONS else 0)
        return None if least == _MOST_CONNECTIONS else least

    def use(self, number: int) -> Slot:
        """The part of a worker that begins now, empty; for the supervisor, before the worker is there."""
        # Slots are given out from the first on: nothing beyond the last one that was ever used is looked at.
        self._cells[_END] = max(self._cells[_END], number + 1)
        slot = self.slot(number)
        slot.clear()
        return slot

    def used(self) -> Iterator[tuple[int, Slot]]:
        """The parts of all workers that there are now, each behind its place."""
        slots = map(self.slot, range(min(self._cells[_END], SLOTS)))
        return ((place, slot) for place, slot in enumerate(slots) if slot.number)

    # What the supervisor says.

    def supervisor_beat(self) -> None:
        """The supervisor's loop has come round; at least once a second."""
        self._cells[_BEAT] = time.monotonic_ns()

    def supervisor_silence(self, now: float) -> float:
        """Seconds since the supervisor's last beat, by ``time.monotonic``; 0 before the first one."""
        last = self._cells[_BEAT]
        return max(0.0, now - last / 1e9) if last else 0.0

    def describe(self, state: int, generation: int) -> None:
        """Say how the service is, by a number that has its meaning elsewhere, and which generation is current."""
        self._cells[_SERVICE_STATE], self._cells[_SERVICE_GENERATION] = state, generation

    @property
    def description(self) -> tuple[int, int]:
        """What was said by :meth:`describe`."""
        return self._cells[_SERVICE_STATE], self._cells[_SERVICE_GENERATION]

    # Counts.

    def inherit(self, slot: Slot) -> None:
        """Add the counts of a worker that has ended to the supervisor's, and make the slot empty."""
        own = self.own.counts
        self._cells[_MOVES] += 1
        own[:] = array("d", map(float.__add__, own, slot.counts))
        slot.counts[:] = array("d", bytes(COUNTS * 8))
        slot.gauges[:] = array("d", bytes(GAUGES * 8))
        slot.text = b""
        self._cells[_MOVES] += 1

    def totals(self) -> list[float]:
        """The counts of all workers there are and have been; none is ever less than it was before."""
        for _ in range(_TRIES):
            moves = self._cells[_MOVES]
            slots = map(self.slot, range(min(self._cells[_END], SLOTS)))
            sums = [sum(each) for each in zip(self.own.counts, *(slot.counts for slot in slots), strict=True)]
            if moves % 2 == 0 and self._cells[_MOVES] == moves:
                break
        return sums


class Slot:
    """The part of one worker.

    :ivar counts: :data:`COUNTS` numbers that only rise.
    :ivar gauges: :data:`GAUGES` numbers.
    """

    __slots__ = ("_cells", "_text", "counts", "gauges")

    def __init__(self, cells: memoryview[int], numbers: memoryview[float], text: memoryview[int]) -> None:
        self._cells = cells
        self.counts = numbers[:COUNTS]
        self.gauges = numbers[COUNTS:]
        self._text = text

    def write(self, counts: Sequence[float], gauges: Sequence[float]) -> None:
        """Write the first of the slot's numbers."""
        self.counts[: len(counts)] = array("d", counts)
        self.gauges[: len(gauges)] = array("d", gauges)

    def clear(self) -> None:
        """Forget the worker that had the slot; its counts are kept."""
        for at in range(_WIDTH):
            self._cells[at] = 0

    @property
    def connections(self) -> int:
        """How many the worker has."""
        return self._cells[_CONNECTIONS]

    @connections.setter
    def connections(self, count: int) -> None:
        self._cells[_CONNECTIONS] = count

    @property
    def accepting(self) -> bool:
        """Whether the worker accepts connections."""
        return self._cells[_ACCEPTING] == 1

    @accepting.setter
    def accepting(self, accepting: bool) -> None:
        self._cells[_ACCEPTING] = int(accepting)

    def beat(self) -> None:
        """The worker's event loop has come round."""
        self._cells[_HEARTBEAT] = time.monotonic_ns()

    def silence(self, now: float) -> float:
        """Seconds since the last beat, by ``time.monotonic``; 0 before the first one."""
        last = self._cells[_HEARTBEAT]
        return max(0.0, now - last / 1e9) if last else 0.0

    def describe(self, number: int, process: int, generation: int, state: int) -> None:
        """Say who the worker is, and how it is by a number that has its meaning elsewhere; the supervisor does.

        :param number: of the worker, from 1 on.
        :param process: its process's, 0 as long as that is not known.
        """
        cells = self._cells
        if not cells[_BEGAN]:
            cells[_BEGAN] = time.monotonic_ns()
        cells[_PROCESS], cells[_GENERATION], cells[_STATE], cells[_NUMBER] = process, generation, state, number

    @property
    def number(self) -> int:
        """The worker's; 0 when there is none."""
        return self._cells[_NUMBER]

    @property
    def process(self) -> int:
        """The worker's process; 0 when it is not known."""
        return self._cells[_PROCESS]

    @property
    def generation(self) -> int:
        """The worker's generation."""
        return self._cells[_GENERATION]

    @property
    def state(self) -> int:
        """How the worker is."""
        return self._cells[_STATE]

    def age(self, now: float) -> float:
        """Seconds since the worker was first described, by ``time.monotonic``."""
        return max(0.0, now - self._cells[_BEGAN] / 1e9)

    @property
    def text(self) -> bytes:
        """What the worker has written last. One that is read while it is written may be mixed of two."""
        size = self._text[0] | self._text[1] << 8
        return bytes(self._text[2 : 2 + min(size, _TEXT)])

    @text.setter
    def text(self, text: bytes) -> None:
        """Write ``text``, or nothing when it is longer than 2046 bytes."""
        text = text if len(text) <= _TEXT else b""
        self._text[:2] = len(text).to_bytes(2, "little")
        self._text[2 : 2 + len(text)] = text
