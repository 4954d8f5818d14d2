"""Accepting by count: a new connection is for the worker that has the fewest.

All workers accept on the same sockets, and the kernel wakes all of them. Left to themselves, those that run first take
whole handfuls, and WebSockets then stay where they are for hours. So a worker that has more connections than another
one leaves what is in the queue for a moment, in which the others may run, and looks again. After a few moments it takes
some of what is still there: a worker that is blocked delays nobody for long.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from .board import Board

__all__ = ["balance"]

#: Seconds for which the queue is left to the others, and how often in a row: they may have to wait for a processor.
_PAUSE, _PAUSES = 0.002, 4
#: Most connections to accept at a time, and after these pauses.
_MOST, _MOST_AFTER_PAUSES = 64, 4
#: How many more connections than the least a worker may have: this many, or this part of them, a power of two.
_SLACK, _PART = 2, 4


def balance(
    port: Any, board: Board, number: int, connections: Callable[[], int], deferred: Callable[[], object] = int
) -> None:
    """Have a listening port of Twisted's accept by count.

    :param port: a ``tcp.Port`` that listens.
    :param number: the slot of this worker.
    :param connections: tells how many connections this worker has.
    :param deferred: called when connections are left to others.
    """
    _Balance(port, board, number, connections, deferred)


class _Balance:
    """Stands before the ``doRead`` of a port."""

    def __init__(
        self, port: Any, board: Board, number: int, connections: Callable[[], int], deferred: Callable[[], object]
    ) -> None:
        self._port = port
        self._board = board
        self._number = number
        self._slot = board.slot(number)
        self._connections = connections
        self._deferred = deferred
        self._accept = port.doRead
        self._pauses = 0
        port.doRead = self._read

    def _read(self) -> Any:
        """Called by the reactor when there are connections in the queue."""
        mine = self._slot.connections = self._connections()
        least = self._board.least_connections(self._number)
        most = mine + _MOST if least is None else least + max(_SLACK, least >> _PART)
        if mine <= most:
            return self._take(min(_MOST, most + 1 - mine))
        self._pauses += 1
        if self._pauses > _PAUSES:
            return self._take(_MOST_AFTER_PAUSES)
        self._port.stopReading()
        self._deferred()
        self._port.reactor.callLater(_PAUSE, self._resume)
        return None

    def _take(self, count: int) -> Any:
        self._pauses = 0
        self._port.numberAccepts = count
        result = self._accept()
        self._slot.connections = self._connections()
        return result

    def _resume(self) -> None:
        # The port may have been closed meanwhile.
        if self._port.connected and not self._port.disconnecting:
            if not _waits(self._port):
                # Who comes next is another client, and the others are to have their time for it too.
                self._pauses = 0
            self._port.startReading()


def _waits(port: Any) -> bool:
    """Whether somebody is in the queue of a port that listens."""
    queue = select.poll()
    queue.register(port.fileno(), select.POLLIN)
    return bool(queue.poll(0))
