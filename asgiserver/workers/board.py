"""The shared memory of all processes: a few numbers of each worker, which its neighbours and the supervisor read.

Each number is eight bytes that one process alone writes, so there is nothing to lock.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Self

__all__ = ["SLOTS", "Board", "Slot"]

#: Workers at a time, those of generations that end among them.
SLOTS = 1024

_CONNECTIONS, _ACCEPTING, _HEARTBEAT = range(3)
#: Numbers of a slot: a line of the processor's cache, so that neighbours do not slow each other down.
_WIDTH = 8
#: Nanoseconds without a beat after which a worker is not counted on to accept: several times what is between two.
_BLOCKED = 2_000_000_000
#: No worker has more connections; a number beyond this was written by mistake.
_MOST_CONNECTIONS = 1 << 24


class Board:
    """The memory, mapped into this process.

    :param descriptor: of the file that all processes map; it stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._cells = memoryview(mmap.mmap(descriptor, SLOTS * _WIDTH * 8)).cast("Q")

    @classmethod
    def create(cls) -> tuple[Self, int]:
        """A new board and the descriptor of its file, which has no name."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("asgiserver")
        else:
            import tempfile

            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, SLOTS * _WIDTH * 8)
        return cls(descriptor), descriptor

    def slot(self, number: int) -> Slot:
        """The numbers of one worker."""
        return Slot(self._cells[number * _WIDTH : (number + 1) * _WIDTH])

    def least_connections(self, besides: int) -> int | None:
        """The connections of the worker that has the fewest, of those that accept and are not blocked.

        :param besides: the slot of the worker that asks.
        :returns: None when there is no other one.
        """
        cells, least = self._cells, _MOST_CONNECTIONS
        own, beaten = besides * _WIDTH, time.monotonic_ns() - _BLOCKED
        for at in range(0, self._end(), _WIDTH):
            if cells[at + _ACCEPTING] == 1 and at != own and cells[at + _HEARTBEAT] >= beaten:
                count = cells[at]
                least = min(least, count if count < _MOST_CONNECTIONS else 0)
        return None if least == _MOST_CONNECTIONS else least

    def _end(self) -> int:
        """The end of the part that was ever used: slots are given out from the first on."""
        return self._cells[len(self._cells) - 1] * _WIDTH

    def use(self, number: int) -> Slot:
        """The numbers of a worker that begins now, all zero; for the supervisor, before the worker is there."""
        last = len(self._cells) - 1
        self._cells[last] = max(self._cells[last], number + 1)
        slot = self.slot(number)
        slot.clear()
        return slot


class Slot:
    """The numbers of one worker."""

    __slots__ = ("_cells",)

    def __init__(self, cells: memoryview[int]) -> None:
        self._cells = cells

    def clear(self) -> None:
        """Forget the worker that had the slot."""
        for at in range(3):
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
