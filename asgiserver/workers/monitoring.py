"""The supervisor's part of ``--metrics``: it keeps a monitor running, and writes on the board what it alone knows."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..listen.bind import Bound
from ..metrics.counts import place
from ..metrics.queues import write_queues
from .board import Board, Slot
from .channel import Channel, Message
from .generations import Generations
from .states import Generation, Pauses, ServiceState, Worker

__all__ = ["Monitoring"]

logger = logging.getLogger("asgiserver")

#: Seconds of life after which a death is no longer one of a series.
_SETTLED = 10.0
#: Seconds for a monitor to end before it is killed.
_END = 3.0


class _Monitor:
    """A monitor's process.

    :ivar process: its number; None until its nursery has told it, and once it has ended.
    :ivar kill_at: when it is killed; None until it was told to end.
    """

    def __init__(self, number: int, generation: Generation, channel: Channel, now: float) -> None:
        self.number = number
        self.generation = generation
        self.channel = channel
        self.began = now
        self.process: int | None = None
        self.kill_at: float | None = None


class Monitoring:
    """At most one monitor runs besides those that end: that of the generation that serves, or of the first one.

    :param bound: the sockets of the service.
    :param monitor: those of the monitor.
    :param watch: has a function called when a channel can be read.
    :param forget: ends that, and closes the channel.
    """

    def __init__(
        self,
        board: Board,
        bound: Sequence[Bound],
        monitor: Sequence[Bound],
        watch: Callable[[Channel, Callable[[], object]], object],
        forget: Callable[[Channel], object],
    ) -> None:
        self.sockets = monitor
        self._board = board
        self._bound = bound
        self._watch = watch
        self._forget = forget
        self._started = time.time()
        self._addresses = [each.description for each in bound]
        self._monitors: dict[int, _Monitor] = {}
        self._count = 0
        self._pauses = Pauses()

    @property
    def facts(self) -> Message:
        """What a nursery is told for its monitor."""
        return {"started": self._started, "addresses": self._addresses}

    # The board.

    def describe(self, generations: Generations) -> None:
        """Write how the service is."""
        current = generations.current
        if generations.stopping:
            state = ServiceState.STOPPING
        elif current is None:
            state = ServiceState.STARTING
        else:
            state = ServiceState.RELOADING if generations.reloading else ServiceState.SERVING
        number = self._board.description[1] if current is None else current.number
        self._board.describe(state.value, number)

    def look_at_queues(self) -> None:
        """Write how many clients wait."""
        write_queues(self._board.own.gauges, [each.sock for each in self._bound])

    @staticmethod
    def describe_worker(slot: Slot, worker: Worker, process: int | None) -> None:
        """Write how a worker is."""
        slot.describe(worker.number, process or 0, worker.generation.number, worker.state.value)

    def ended(self, slot: Slot) -> None:
        """A worker writes no more: keep its counts."""
        self._board.inherit(slot)

    def count_exit(self, worker: Worker) -> None:
        """A worker is gone."""
        self._board.own.counts[place("worker_exits", worker.why)] += 1

    def count_reload(self, failed: bool) -> None:
        """A reload is over."""
        self._board.own.counts[place("reloads", "failure" if failed else "success")] += 1

    # The process.

    def tick(self, generations: Generations, nurseries: dict[Generation, Any], now: float) -> None:
        """Begin and end monitors.

        :param nurseries: those that run, each with its ``channel``.
        """
        for monitor in list(self._monitors.values()):
            if monitor.kill_at is not None and now >= monitor.kill_at:
                self._kill(monitor)
                if monitor.channel.fileno() < 0:
                    # Its nursery is gone too, and tells nothing.
                    del self._monitors[monitor.number]
        if generations.stopping and not any(generations.workers):
            self._end_all(now)
            return
        wanted = generations.current or generations.coming
        newest = max(self._monitors, default=0)
        runs = newest and self._monitors[newest].kill_at is None and self._monitors[newest].generation is wanted
        if wanted in nurseries and wanted.forks and not runs and now >= self._pauses.not_before:
            self._fork(wanted, nurseries[wanted].channel, now)

    def _fork(self, generation: Generation, nursery: Channel, now: float) -> None:
        self._count += 1
        channel, there = Channel.pair()
        monitor = self._monitors[self._count] = _Monitor(self._count, generation, channel, now)
        self._watch(channel, lambda: self._hear(monitor))
        with there:
            # A worker has a number above 0, and a slot.
            nursery.send({"do": "fork", "number": -monitor.number, "slot": None}, there.fileno())

    def _hear(self, monitor: _Monitor) -> None:
        now = time.monotonic()
        for message in monitor.channel.receive():
            if message["is"] == "failed":
                logger.error("The monitor has failed\n%s", message["text"].rstrip())
                continue
            # It serves, so those before it may go.
            for other in self._monitors.values():
                if other.number < monitor.number:
                    self._end(other, now)
        if not monitor.channel.open:
            self._forget(monitor.channel)
            if monitor.kill_at is None:
                logger.error("The monitor has died, and is forked again")
                if now - monitor.began >= _SETTLED:
                    self._pauses.reset(now)
                self._pauses.add(now)
                monitor.kill_at = now + _END
            if monitor.process is None:
                self._monitors.pop(monitor.number, None)

    def hear_nursery(self, message: Message) -> None:
        """A nursery has told of a monitor."""
        monitor = self._monitors.get(-message["number"])
        if monitor is None:
            return
        if message["is"] == "forked":
            monitor.process = message["process"]
        else:
            monitor.process = None
            if monitor.channel.fileno() < 0:
                del self._monitors[monitor.number]

    def _end(self, monitor: _Monitor, now: float) -> None:
        if monitor.kill_at is None:
            monitor.kill_at = now + _END
            monitor.channel.send({"do": "stop"})

    def _end_all(self, now: float) -> None:
        for monitor in self._monitors.values():
            self._end(monitor, now)

    def reopen(self) -> None:
        """Have the files of logs opened anew."""
        for monitor in self._monitors.values():
            monitor.channel.send({"do": "reopen"})

    def _kill(self, monitor: _Monitor) -> None:
        if monitor.process is not None:
            try:
                os.kill(monitor.process, signal.SIGKILL)
            except ProcessLookupError:
                pass  # its nursery is about to tell
            monitor.process = None

    def close(self) -> None:
        """The supervisor ends."""
        for monitor in self._monitors.values():
            self._kill(monitor)
        for each in self.sockets:
            each.close()
