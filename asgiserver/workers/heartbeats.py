"""Workers whose event loop is blocked: no heartbeat of theirs comes, which the log tells, and in the end they go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from weakref import WeakSet

from .board import Slot
from .states import Worker, WorkerState

__all__ = ["Heartbeats"]

logger = logging.getLogger("asgiserver")

#: Seconds between two looks, unless the limit is shorter.
_LOOK = 1.0
#: The part of the limit after which a warning says where a worker is, and its least length in seconds.
_WARNING_PART, _LEAST_WARNING = 0.1, 2.0


class Heartbeats:
    """Looks for workers that are silent.

    :param limit: ``worker_timeout``
    :param dump: has a worker write the stacks of its threads.
    :param silent: called with a worker whose time is over, and how long it has been silent, for the log.
    :ivar every: seconds between two looks.
    """

    def __init__(
        self,
        limit: float | None,
        now: float,
        dump: Callable[[Worker], object],
        silent: Callable[[Worker, str], object],
    ) -> None:
        self.every = _LOOK if limit is None else min(_LOOK, limit / 4)
        self._limit = limit
        self._dump = dump
        self._silent = silent
        self._looked = self._awake_since = now
        self._warned = WeakSet[Worker]()

    @property
    def due(self) -> float:
        """When the next look is."""
        return self._looked + self.every

    def look(self, workers: Iterable[tuple[Worker, Slot]], now: float) -> None:
        """Look at all workers; each comes with its part of the board."""
        if now - self.due > _LOOK:
            # This process was stopped too: nobody is to blame for a silence.
            self._awake_since = now
        self._looked = now
        if self._limit is None:
            return
        for worker, slot in workers:
            silence = min(slot.silence(now), now - self._awake_since)
            if worker.state in (WorkerState.STARTING, WorkerState.ENDING):
                continue
            if silence >= self._limit:
                self._silent(worker, f"{silence:.1f} s")
            elif silence < max(_LEAST_WARNING, self._limit * _WARNING_PART):
                self._warned.discard(worker)
            elif worker not in self._warned:
                self._warned.add(worker)
                logger.warning("The event loop of %s is blocked for %.1f s", worker, silence)
                self._dump(worker)
