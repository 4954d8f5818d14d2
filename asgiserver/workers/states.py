"""The words of :mod:`.generations`: states, events, and what it can have done."""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

__all__ = [
    "Generation", "GenerationEvent", "GenerationState", "Hands", "Pauses", "ServiceState", "Worker", "WorkerEvent",
    "WorkerState",
]  # fmt: skip

#: Seconds before a worker is forked again: the first pause of a series of deaths, doubled each time, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
#: Failures after which the pauses grow no longer.
_MOST_FAILURES = 16


class WorkerState(Enum):
    """What a worker does."""

    STARTING = auto()
    SERVING = auto()
    LEAVING = auto()  # serves, until there is a successor
    DRAINING = auto()  # keeps its clients until they leave, and takes no new ones
    ENDING = auto()  # was told to end


class WorkerEvent(Enum):
    """What is heard of a worker."""

    READY = auto()
    FAILED = auto()  # it could not start
    LEAVING = auto()  # it asks for a successor
    SILENT = auto()  # its event loop is blocked
    LATE = auto()  # its deadline is over
    GONE = auto()  # its process has ended


class GenerationState(Enum):
    """How far a generation has come."""

    LOADING = auto()
    CANARY = auto()
    STARTING = auto()
    CURRENT = auto()
    ORPHANED = auto()
    RETIRED = auto()


class GenerationEvent(Enum):
    """What is heard of a nursery."""

    LOADED = auto()
    FAILED = auto()  # it could not import the application
    LATE = auto()
    GONE = auto()


class ServiceState(Enum):
    """How the service is, for those who ask the monitor."""

    STARTING = auto()
    SERVING = auto()
    RELOADING = auto()
    STOPPING = auto()


class Worker:
    """A worker, from before its fork until its process has ended.

    :ivar why: why it has ended or will: ``asked``, ``died``, ``failed`` at its start, ``late`` with something,
        ``replaced`` as it wished, or ``silent``.
    :ivar failure: why the worker before it could not start: this one serves a page that says so. Empty for the
        application.
    """

    def __init__(self, number: int, generation: Generation, deadline: float | None, failure: str = "") -> None:
        self.number = number
        self.failure = failure
        self.generation = generation
        self.state = WorkerState.STARTING
        self.deadline = deadline
        self.since = 0.0  # when it began to serve
        self.why = "asked"

    def __str__(self) -> str:
        return f"worker {self.number}"


class Pauses:
    """Between tries that fail one after the other: each pause is longer than the one before.

    :ivar not_before: when the next try may be made.
    """

    def __init__(self) -> None:
        self.not_before = 0.0
        self._failures = 0

    def add(self, now: float) -> None:
        """Another try has failed."""
        self.not_before = now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self._failures)
        self._failures = min(self._failures + 1, _MOST_FAILURES)

    def reset(self, now: float) -> None:
        """The next try is no longer one of a series."""
        self.not_before, self._failures = now, 0


class Generation:
    """A nursery and its workers.

    :ivar alive: the nursery's process runs.
    :ivar pauses: those before the next worker, or the next generation in place of an orphaned one, may be begun.
    """

    def __init__(self, number: int, deadline: float | None) -> None:
        self.number = number
        self.state = GenerationState.LOADING
        self.deadline = deadline
        self.alive = True
        self.workers: dict[int, Worker] = {}
        self.pauses = Pauses()

    def __str__(self) -> str:
        return f"generation {self.number}"

    @property
    def forks(self) -> bool:
        """The nursery is there, and has imported the application."""
        return self.alive and self.state in _FORK

    def those(self, *states: WorkerState) -> list[Worker]:
        """The workers in one of these states, oldest first."""
        return [worker for worker in self.workers.values() if worker.state in states]


_FORK = GenerationState.CANARY, GenerationState.STARTING, GenerationState.CURRENT


class Hands(Protocol):
    """What carries the decisions out."""

    def spawn(self, generation: Generation) -> None:
        """Start the nursery."""

    def fork(self, worker: Worker) -> None:
        """Have the nursery fork the worker."""

    def drain(self, worker: Worker) -> None:
        """Others serve: take no new clients, and end when the last one has left."""

    def stop(self, worker: Worker, quick: bool) -> None:
        """End; nobody else serves. ``quick``: without waiting for requests."""

    def dump(self, worker: Worker) -> None:
        """Have a blocked worker write the stacks of its threads."""

    def kill(self, worker: Worker) -> None:
        """End the process here and now."""

    def retire(self, generation: Generation, quick: bool) -> None:
        """The nursery forks nobody any more, and ends with its last worker, or if ``quick`` at once."""

    def began(self) -> None:
        """A reload has begun."""

    def done(self, failed: bool) -> None:
        """The code of now serves, at first or after a reload; ``failed``: that of before, or a page that says why."""

    def leaving(self, delay: float) -> None:
        """The service will end, in ``delay`` seconds; until then it goes on."""

    def stopping(self) -> None:
        """The service ends."""

    def end(self, status: int) -> None:
        """Nothing is left to do; ``status`` is the supervisor's own."""

    def explain(self, text: str) -> None:
        """Tell the user why the service could not start."""
