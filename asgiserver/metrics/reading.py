"""What the board tells: the service as it is at one moment."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .. import __version__
from ..config import Configuration, listed
from ..errors import SettingsError
from ..workers.recycling import memory_share
from ..workers.states import ServiceState, WorkerState
from .counts import CLASSES, COUNTERS, DURATIONS, IN_FLIGHT, LOOP_DELAY, METHODS, WEBSOCKETS, durations, place

if TYPE_CHECKING:
    from ..workers.board import Board, Slot

__all__ = ["WORKER_STATES", "Facts", "Reading", "WorkerReading", "facts"]

#: By the numbers on the board.
_SERVICE_STATES: Final = {state.value: state.name.lower() for state in ServiceState}
WORKER_STATES: Final = {state.value: state.name.lower() for state in WorkerState}
_SERVE: Final = frozenset(("serving", "leaving"))

#: Seconds without a beat after which a worker is shown as silent: several times what is between two.
_SILENT = 2.5
#: Seconds without a beat after which a supervisor is not alive.
_DEAD = 10.0
#: Seconds for which the size of a process is kept, and for which sizes are found out at a time: each takes the kernel
#: half a millisecond or more.
_MEMORY_EVERY, _MEMORY_TIME = 10.0, 0.02
_SLOWEST = 10
#: Seconds without a beat after which a worker is not alive, where it may be silent for ever.
_SILENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What does not change while a monitor runs.

    :ivar started: when the service did, in seconds since the epoch.
    :ivar addresses: what the service listens on, in the order of the listening sockets on the board.
    :ivar silence: seconds without a beat after which a worker does not count as alive.
    :ivar settings: each with its name, its value as TOML writes it, and its origin.
    """

    version: str
    python: str
    loop: str
    application: str
    started: float
    addresses: list[str]
    silence: float
    settings: list[dict[str, str]] = field(default_factory=list)


def facts(
    configuration: Configuration, started: float, addresses: list[str], loop: asyncio.AbstractEventLoop
) -> Facts:
    """What a monitor tells of a service with this configuration.

    :param started: when the service was, in seconds since the epoch.
    :param loop: one of the kind that serves.
    """
    return Facts(
        version=__version__,
        python=sys.version.partition(" ")[0],
        loop="uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio",
        application=configuration.application or "",
        started=started,
        addresses=addresses,
        silence=configuration.settings.worker_timeout or _SILENCE,
        settings=listed(configuration),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReading:
    """A worker.

    :ivar silence: seconds since its event loop has last come round.
    :ivar memory: None when it is not known.
    :ivar slowest: its oldest requests under way.
    """

    slot: int
    worker: int
    pid: int
    generation: int
    state: str
    age: float
    silence: float
    connections: int
    websockets: int
    requests: int
    memory: int | None
    loop_delay: float
    slowest: list[dict[str, Any]]


class Reading:
    """Reads the board.

    :param refresh: called before anything is read.
    :param clock: that of ``time.monotonic``, on which processes agree.
    """

    def __init__(
        self,
        board: Board,
        facts: Facts,
        refresh: Callable[[], object] = int,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[Path], int] = memory_share,
    ) -> None:
        self.board = board
        self.facts = facts
        self._refresh = refresh
        self._clock = clock
        self._memory = memory
        self._sizes: dict[int, tuple[float, int | None]] = {}  # by process, each with when it was found out

    @property
    def state(self) -> str:
        """How the service is: a ``ServiceState``, in lower case."""
        self._refresh()
        return _SERVICE_STATES.get(self.board.description[0], "starting")

    @property
    def generation(self) -> int:
        """The number of the code's generation that serves; 0 before the first."""
        return self.board.description[1]

    def alive(self) -> bool:
        """The supervisor and at least one worker that serves have given a sign of life."""
        self._refresh()
        now = self._clock()
        limit = self.facts.silence
        serve = any(_state(slot) in _SERVE and slot.silence(now) <= limit for _, slot in self.board.used())
        return serve and self.board.supervisor_silence(now) <= _DEAD

    def ready(self) -> bool:
        """A worker serves, and nobody has asked the service to stop."""
        return self.state != "stopping" and any(_state(slot) in _SERVE for _, slot in self.board.used())

    def workers(self) -> list[WorkerReading]:
        """All workers that run."""
        self._refresh()
        now = self._clock()
        slots = list(self.board.used())
        self._look_at_memory({slot.process for _, slot in slots if slot.process}, now)
        return [self._worker(number, slot, now) for number, slot in slots]

    def _worker(self, number: int, slot: Slot, now: float) -> WorkerReading:
        state, silence = _state(slot), slot.silence(now)
        return WorkerReading(
            slot=number,
            worker=slot.number,
            pid=slot.process,
            generation=slot.generation,
            state="silent" if state in (*_SERVE, "draining") and silence > _SILENT else state,
            age=slot.age(now),
            silence=silence,
            connections=slot.connections,
            websockets=int(slot.gauges[WEBSOCKETS]),
            requests=int(slot.gauges[IN_FLIGHT]),
            memory=self._sizes.get(slot.process, (0.0, None))[1],
            loop_delay=slot.gauges[LOOP_DELAY],
            slowest=list(_slowest(slot, now)),
        )

    def _look_at_memory(self, processes: set[int], now: float) -> None:
        self._sizes = {process: size for process, size in self._sizes.items() if process in processes}
        for process in sorted(processes, key=lambda process: self._sizes.get(process, (0.0, None))[0]):
            when, _ = self._sizes.get(process, (now - _MEMORY_EVERY, None))
            if now - when < _MEMORY_EVERY or self._clock() - now > _MEMORY_TIME:
                break
            try:
                size: int | None = self._memory(Path(f"/proc/{process}/smaps_rollup"))
            except SettingsError:
                size = None  # it has ended, or another system than Linux
            self._sizes[process] = now, size

    def live(self) -> dict[str, Any]:
        """What the page shows; everything in ``totals`` and ``latency`` only ever grows."""
        # First the workers, as that brings the board up to date where nobody else does.
        facts, workers, totals = self.facts, self.workers(), self.board.totals()
        names = [name for name in WorkerReading.__slots__ if name not in ("slot", "silence", "slowest")]
        shown = [{name: getattr(each, name) for name in names} for each in workers]
        slow = [{"worker": each.worker, **request} for each in workers for request in each.slowest]
        return {
            "time": time.time(),
            "version": facts.version,
            "python": facts.python,
            "loop": facts.loop,
            "application": facts.application,
            "started": facts.started,
            "generation": self.generation,
            "state": self.state,
            "addresses": list(facts.addresses),
            "workers": shown,
            "totals": _totals(totals),
            "latency": {"bounds": list(DURATIONS), "counts": _latency(totals)},
            "slowest": sorted(slow, key=lambda request: -request["age"])[:_SLOWEST],
        }


def _state(slot: Slot) -> str:
    return WORKER_STATES.get(slot.state, "starting")


def _slowest(slot: Slot, now: float) -> Iterator[dict[str, Any]]:
    try:
        found = json.loads(slot.text or b"[]")
        for each in found:
            # That was its age when the worker wrote; a request may have ended since then, unless the loop is blocked.
            age = each["age"] + slot.silence(now)
            yield {"method": each["method"], "path": each["path"], "age": age, "id": each["id"]}
    except (ValueError, TypeError, KeyError):
        return  # it was being written


def _totals(totals: Sequence[float]) -> dict[str, Any]:
    def counted(name: str) -> int:
        at = place(name, COUNTERS[name].values[0])
        return int(sum(totals[at : at + len(COUNTERS[name].values)]))

    by_class = {kind: int(sum(sum(totals[durations(each, kind)][:-1]) for each in METHODS)) for kind in CLASSES}
    return {
        "requests": by_class,
        "request_bytes": counted("http_request_bytes"),
        "response_bytes": counted("http_response_bytes"),
        "websockets": int(totals[place("websockets", "accepted")]),
        "messages_in": int(totals[place("websocket_messages", "in")]),
        "messages_out": int(totals[place("websocket_messages", "out")]),
        "exceptions": counted("application_exceptions"),
        "rejected": counted("rejected"),
    }


def _latency(totals: Sequence[float]) -> list[int]:
    rows = [totals[durations(method, kind)][:-1] for method in METHODS for kind in CLASSES]
    return [int(sum(bucket)) for bucket in zip(*rows, strict=True)]
