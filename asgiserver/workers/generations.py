"""What the supervisor decides: which generation of the code serves, and what each worker is told. No process, no clock.

A *generation* is a nursery, which has imported the code as it was at one moment, and its workers. At most one is
*coming* and one is *current*; the others only end. The tables at the end have all pairs of a state and an event; any
other pair is an error.

===========  ==============================================================================================
LOADING      the nursery imports the application
CANARY       one worker starts; if it cannot, nothing has changed for anybody
STARTING     it serves, and the others start
CURRENT      all serve; those that die are replaced, those that want to leave too, one at a time
ORPHANED     as CURRENT, but the nursery has died, so nobody can be replaced; another generation is begun
RETIRED      its workers end, in their own time if another generation serves
===========  ==============================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from ..settings import Settings
from ..signals import ONE_SIGNAL
from .states import Generation, GenerationEvent, GenerationState, Hands, Worker, WorkerEvent, WorkerState

__all__ = ["Generations"]

logger = logging.getLogger("asgiserver")

#: Seconds of serving after which the death of a worker counts as an accident, and not as one of a series.
_SETTLED = 1.0
#: Seconds without a single worker that serves, after which the service gives up and its manager should act.
_HOPELESS = 60.0
#: Seconds for a blocked worker to write where it is before it is killed, and for one that is late with its end.
_LAST_WORDS, _OVERTIME = 1.0, 5.0


class Generations:
    """The supervisor's decisions.

    :param hands: carries them out; what comes of it is told by the methods of this class, never meanwhile.
    :param size: how many workers are to serve.
    """

    def __init__(self, hands: Hands, settings: Settings, size: int) -> None:
        self.size = size
        self.current: Generation | None = None
        self.coming: Generation | None = None
        self.retired: list[Generation] = []
        self.reloading = False  # nobody serves the code as it was when the last reload was asked for
        self._hands = hands
        self._settings = settings
        self._status: int | None = None  # the supervisor's own, once it ends
        self._quick = False
        self._stopped_at = 0.0
        self._ends_at: float | None = None  # when the delay of a stop is over
        self._generations = self._workers = 0  # how many there have been
        self._unserved_since: float | None = None

    @property
    def all(self) -> list[Generation]:
        """All generations that have a process left."""
        return [each for each in (self.coming, self.current, *self.retired) if each is not None]

    @property
    def workers(self) -> Iterator[Worker]:
        """All workers that have a process, or are to get one."""
        return (worker for generation in self.all for worker in generation.workers.values())

    @property
    def serving(self) -> int:
        """How many workers take new clients."""
        return sum(len(each.those(*_SERVE)) for each in self.all)

    @property
    def stopping(self) -> bool:
        """The service ends, or will after the delay that was asked for."""
        return self._status is not None or self._ends_at is not None

    # What happens.

    def reload(self, now: float) -> None:
        """Begin a generation with the code as it is now; one that is still coming is given up for it.

        With ``reload`` there is one generation, whose nursery has not imported the application: its worker is replaced.
        """
        if self.stopping:
            return
        if self.current is not None and not self.reloading:
            self.reloading = True
            self._hands.began()
        latest = self.coming or self.current
        if self._settings.reload and latest is not None and latest.state is not GenerationState.ORPHANED:
            self._replace(latest, now)
            return
        if self.coming is not None:
            self._retire(self.coming, now)
        self._begin(now)

    def resize(self, by: int, now: float) -> None:
        """Let there be more workers, or fewer, but never none."""
        self.size = max(1, self.size + by)
        logger.info("There are to be %d workers", self.size)
        self._proceed(now)

    def stop(self, number: int, now: float, *, quick: bool = False) -> None:
        """A stop signal; a later one ends everything at once, unless it only asks for more haste."""
        delay = self._settings.shutdown_delay
        if not self.stopping and delay and not quick and self.current is not None:
            self._stopped_at, self._ends_at = now, now + delay
            self._hands.leaving(delay)
        elif not self.stopping or self._status is None and quick:
            self._end(0, now, quick)
        elif quick and not self._quick:
            self._quick = True
            for worker in self.workers:
                self._hands.stop(worker, True)
        elif now - self._stopped_at >= ONE_SIGNAL:
            for generation in self.all:
                if generation.alive:
                    self._hands.retire(generation, True)
            for worker in self.workers:
                self._hands.kill(worker)
            self._hands.end(128 + number)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self._ends_at is not None and now >= self._ends_at:
            self._end(0, now, False)
        for generation in self.all:
            if generation.deadline is not None and now >= generation.deadline:
                generation.deadline = None
                self.nursery(GenerationEvent.LATE, generation, now)
        for worker in list(self.workers):
            if worker.deadline is not None and now >= worker.deadline:
                worker.deadline = None
                self.worker(WorkerEvent.LATE, worker, now)
        self._proceed(now)

    def due(self, now: float) -> float | None:
        """When :meth:`tick` has something to do; None when it has not."""
        times = [self._ends_at, *(each.deadline for each in self.all), *(worker.deadline for worker in self.workers)]
        if self.current is not None and self.current.pauses.not_before > now:
            times.append(self.current.pauses.not_before)
        if self._unserved_since is not None:
            times.append(self._unserved_since + _HOPELESS)
        return min((time for time in times if time is not None), default=None)

    def worker(self, event: WorkerEvent, worker: Worker, now: float, text: str = "", status: int = 1) -> None:
        """Something is heard of a worker.

        :param text: why it could not start or has ended, for the log.
        :param status: the exit status that a server without workers would have for this; of one that has ended its own,
            or 0 when nobody knows it.
        """
        if event is WorkerEvent.GONE:
            del worker.generation.workers[worker.number]
        _WORKER[worker.state, event](self, worker, now, text, status)
        self._proceed(now)

    def nursery(
        self, event: GenerationEvent, generation: Generation, now: float, text: str = "", status: int = 1
    ) -> None:
        """Something is heard of a nursery; the parameters are as with :meth:`worker`."""
        if event is GenerationEvent.GONE:
            generation.alive = False
        _GENERATION[generation.state, event](self, generation, now, text, status)
        self._proceed(now)

    # What follows.

    def _proceed(self, now: float) -> None:
        """Do what is due after any event."""
        self.retired = [each for each in self.retired if each.alive or each.workers]
        if self._status is not None:
            if not self.all:
                self._hands.end(self._status)
            return
        coming, current = self.coming, self.current
        if coming is not None and coming.state is GenerationState.STARTING:
            if len(coming.those(WorkerState.SERVING)) >= self.size:
                self._take_over(coming, now)
                current = coming
            else:
                self._fill(coming, now)
        if current is not None and current.state is GenerationState.CURRENT:
            self._let_leave(current, now)
            self._fill(current, now)
        elif current is not None and self.coming is None and now >= current.pauses.not_before:
            self._begin(now)
        self._look_for_service(now)

    def _look_for_service(self, now: float) -> None:
        if self.current is None or self.serving or self._settings.reload:
            self._unserved_since = None
        elif self._unserved_since is None:
            self._unserved_since = now
        elif now - self._unserved_since >= _HOPELESS:
            logger.critical("No worker has served for %g seconds: the service gives up", _HOPELESS)
            self._end(1, now, True)

    def _begin(self, now: float) -> None:
        self._generations += 1
        self.coming = Generation(self._generations, self._later(now, self._settings.worker_start_timeout))
        self._hands.spawn(self.coming)

    def _fork(self, generation: Generation, now: float, failure: str = "") -> None:
        self._workers += 1
        worker = Worker(self._workers, generation, self._later(now, self._settings.worker_start_timeout), failure)
        generation.workers[worker.number] = worker
        self._hands.fork(worker)

    def _fill(self, generation: Generation, now: float) -> None:
        """Fork who is missing; of those that want to leave, one at a time gets a successor."""
        while now >= generation.pauses.not_before:
            stay = len(generation.those(WorkerState.STARTING, WorkerState.SERVING))
            if stay >= self.size or stay + len(generation.those(WorkerState.LEAVING)) > self.size:
                return
            self._fork(generation, now)

    def _let_leave(self, generation: Generation, now: float) -> None:
        """Drain who is more than needed: first those that want to leave, then the youngest."""
        surplus = len(generation.those(*_SERVE)) - self.size
        leaving, serving = generation.those(WorkerState.LEAVING), generation.those(WorkerState.SERVING)
        for worker in [*leaving, *reversed(serving)][: max(0, surplus)]:
            self._drain(worker, now)

    def _take_over(self, generation: Generation, now: float) -> None:
        old, self.current, self.coming = self.current, generation, None
        generation.state = GenerationState.CURRENT
        plural = "" if self.size == 1 else "s"
        logger.info("%s serves with %d worker%s", str(generation).capitalize(), self.size, plural)
        if old is not None:
            self._retire(old, now)
        self.reloading = False
        self._hands.done(False)

    def _retire(self, generation: Generation, now: float) -> None:
        """Let a generation end."""
        if generation.alive:
            self._hands.retire(generation, generation.state is GenerationState.LOADING)
        generation.state = GenerationState.RETIRED
        generation.deadline = None
        self.retired.append(generation)
        if self.coming is generation:
            self.coming = None
        self._send_away(generation, now)

    def _replace(self, generation: Generation, now: float) -> None:
        """Let the successor import the code while the old worker ends: clients wait for it in the sockets' queues."""
        self._send_away(generation, now)
        generation.pauses.reset(now)
        if generation.state is not GenerationState.LOADING:
            self._fill(generation, now)

    def _send_away(self, generation: Generation, now: float) -> None:
        """Let all workers of a generation end, as others serve or will."""
        for worker in generation.those(*_SERVE):
            self._drain(worker, now)
        for worker in generation.those(WorkerState.STARTING):
            self._stop(worker, now, True)

    def _drain(self, worker: Worker, now: float) -> None:
        settings = self._settings
        worker.state = WorkerState.DRAINING
        worker.deadline = self._later(now, settings.drain_timeout, settings.drain_spread, *self._ending())
        self._hands.drain(worker)

    def _stop(self, worker: Worker, now: float, quick: bool) -> None:
        if self._settings.reload and worker.state is WorkerState.STARTING:
            # It hears nothing before its import has ended, which nobody waits for.
            self._hands.kill(worker)
        worker.state = WorkerState.ENDING
        worker.deadline = self._later(now, *self._ending())
        self._hands.stop(worker, quick)

    def _end(self, status: int, now: float, quick: bool) -> None:
        self._status, self._quick, self._stopped_at = status, quick, now
        self._hands.stopping()
        for generation in self.all:
            if generation.alive:
                self._hands.retire(generation, generation.state is GenerationState.LOADING)
            generation.deadline = None
            if generation.state is not GenerationState.RETIRED:
                self.retired.append(generation)
                generation.state = GenerationState.RETIRED
        self.current = self.coming = self._unserved_since = self._ends_at = None
        for worker in self.workers:
            self._stop(worker, now, quick)
        self._proceed(now)

    def _fail(self, generation: Generation, now: float, text: str, status: int) -> None:
        """A generation that was coming does not come."""
        self._retire(generation, now)
        if self.current is None:
            self._hands.explain(text)
            self._end(status, now, True)
            return
        logger.error("The code as it is now cannot serve; that of %s goes on\n%s", self.current, text.rstrip())
        if self.current.state is GenerationState.ORPHANED:
            self.current.pauses.add(now)
        self.reloading = False
        self._hands.done(True)

    def _ending(self) -> tuple[float | None, ...]:
        """The times that a worker may take for its end."""
        settings = self._settings
        return settings.graceful_timeout, settings.lifespan_shutdown_timeout, settings.exit_timeout, _OVERTIME

    @staticmethod
    def _later(now: float, *times: float | None) -> float | None:
        given = [time for time in times if time is not None]
        return now + sum(given) if len(given) == len(times) else None

    # Workers.

    def _ready(self, worker: Worker, now: float, text: str, status: int) -> None:
        worker.state = WorkerState.SERVING
        worker.since, worker.deadline = now, None
        if worker.generation.state is GenerationState.CANARY:
            worker.generation.state = GenerationState.STARTING
        elif self._settings.reload and self.reloading and worker.generation is self.current:
            self.reloading = False
            self._hands.done(bool(worker.failure))

    def _not_started(self, worker: Worker, now: float, text: str, status: int) -> None:
        worker.why = "failed"
        generation = worker.generation
        if self._settings.reload and generation.alive and not worker.failure:
            logger.error("The application cannot start; a page says so until the next change\n%s", text.rstrip())
            self._fork(generation, now, text)
        elif generation is self.coming:
            self._fail(generation, now, text, status)
        else:
            logger.error("%s could not start\n%s", str(worker).capitalize(), text.rstrip())
            generation.pauses.add(now)

    def _start_failed(self, worker: Worker, now: float, text: str, status: int) -> None:
        worker.state = WorkerState.ENDING
        worker.deadline = self._later(now, *self._ending())
        self._not_started(worker, now, text, status)

    def _start_late(self, worker: Worker, now: float, text: str, status: int) -> None:
        worker.state = WorkerState.ENDING
        self._hands.kill(worker)
        limit = self._settings.worker_start_timeout or 0
        self._not_started(worker, now, f"{worker} did not start within {limit:g} s (worker_start_timeout)", 1)

    def _start_lost(self, worker: Worker, now: float, text: str, status: int) -> None:
        self._not_started(worker, now, text, 1)

    def _leave(self, worker: Worker, now: float, text: str, status: int) -> None:
        logger.info("%s is to be replaced: %s", str(worker).capitalize(), text)
        worker.state = WorkerState.LEAVING
        worker.why = "replaced"

    def _silent(self, worker: Worker, now: float, text: str, status: int) -> None:
        logger.error("%s is killed: its event loop has been blocked for %s", str(worker).capitalize(), text)
        worker.state = WorkerState.ENDING
        worker.why = "silent"
        worker.deadline = now + _LAST_WORDS
        self._hands.dump(worker)

    def _overdue(self, worker: Worker, now: float, text: str, status: int) -> None:
        logger.error("%s did not end in time and is killed", str(worker).capitalize())
        worker.state = WorkerState.ENDING
        worker.why = "late"
        self._hands.kill(worker)

    def _kill(self, worker: Worker, now: float, text: str, status: int) -> None:
        if worker.why == "asked":
            worker.why = "late"
        self._hands.kill(worker)

    def _lost(self, worker: Worker, now: float, text: str, status: int) -> None:
        generation = worker.generation
        worker.why = "died"
        logger.error("%s has died: %s", str(worker).capitalize(), text)
        if generation is self.coming:
            self._fail(generation, now, f"{worker} has died: {text}", 1)
        elif now - worker.since >= _SETTLED:
            generation.pauses.reset(now)
        else:
            generation.pauses.add(now)

    def _drained(self, worker: Worker, now: float, text: str, status: int) -> None:
        if status:
            worker.why = "died"
            logger.error("%s has died before its clients had left: %s", str(worker).capitalize(), text)

    # Nurseries.

    def _loaded(self, generation: Generation, now: float, text: str, status: int) -> None:
        generation.state = GenerationState.CANARY
        generation.deadline = None
        self._fork(generation, now)

    def _load_late(self, generation: Generation, now: float, text: str, status: int) -> None:
        limit = self._settings.worker_start_timeout or 0
        self._fail(generation, now, f"the import took longer than {limit:g} s (worker_start_timeout)", 1)

    def _orphaned(self, generation: Generation, now: float, text: str, status: int) -> None:
        logger.error("The nursery of %s has died: %s; its workers serve on", generation, text)
        generation.state = GenerationState.ORPHANED

    def _ignored(self, each: Worker | Generation, now: float, text: str, status: int) -> None:
        """It was said before the other side was heard, and changes nothing any more."""


_SERVE = WorkerState.SERVING, WorkerState.LEAVING

_Step = Callable[[Generations, Any, float, str, int], None]

#: What is not here: a worker speaks once of its start and once of leaving, and has no deadline while it serves.
_WORKER: dict[tuple[WorkerState, WorkerEvent], _Step] = {
    (WorkerState.STARTING, WorkerEvent.READY): Generations._ready,
    (WorkerState.STARTING, WorkerEvent.FAILED): Generations._start_failed,
    (WorkerState.STARTING, WorkerEvent.LATE): Generations._start_late,
    (WorkerState.STARTING, WorkerEvent.GONE): Generations._start_lost,
    (WorkerState.SERVING, WorkerEvent.LEAVING): Generations._leave,
    (WorkerState.SERVING, WorkerEvent.SILENT): Generations._silent,
    (WorkerState.SERVING, WorkerEvent.GONE): Generations._lost,
    (WorkerState.LEAVING, WorkerEvent.SILENT): Generations._silent,
    (WorkerState.LEAVING, WorkerEvent.GONE): Generations._lost,
    (WorkerState.DRAINING, WorkerEvent.LEAVING): Generations._ignored,
    (WorkerState.DRAINING, WorkerEvent.SILENT): Generations._silent,
    (WorkerState.DRAINING, WorkerEvent.LATE): Generations._overdue,
    (WorkerState.DRAINING, WorkerEvent.GONE): Generations._drained,
    (WorkerState.ENDING, WorkerEvent.READY): Generations._ignored,
    (WorkerState.ENDING, WorkerEvent.FAILED): Generations._ignored,
    (WorkerState.ENDING, WorkerEvent.LEAVING): Generations._ignored,
    (WorkerState.ENDING, WorkerEvent.LATE): Generations._kill,
    (WorkerState.ENDING, WorkerEvent.GONE): Generations._ignored,
}

#: What is not here: a nursery speaks once of its import, and has no deadline after that.
_GENERATION: dict[tuple[GenerationState, GenerationEvent], _Step] = {
    (GenerationState.LOADING, GenerationEvent.LOADED): Generations._loaded,
    (GenerationState.LOADING, GenerationEvent.FAILED): Generations._fail,
    (GenerationState.LOADING, GenerationEvent.LATE): Generations._load_late,
    (GenerationState.LOADING, GenerationEvent.GONE): Generations._fail,
    (GenerationState.CANARY, GenerationEvent.GONE): Generations._fail,
    (GenerationState.STARTING, GenerationEvent.GONE): Generations._fail,
    (GenerationState.CURRENT, GenerationEvent.GONE): Generations._orphaned,
    (GenerationState.RETIRED, GenerationEvent.LOADED): Generations._ignored,
    (GenerationState.RETIRED, GenerationEvent.FAILED): Generations._ignored,
    (GenerationState.RETIRED, GenerationEvent.GONE): Generations._ignored,
}
