"""The process that holds the sockets and watches the others; what it does is decided by :mod:`.generations`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING, Any, NoReturn

from ..config import label, warn_of_unknown_variables
from ..errors import ASGIServerError, SettingsError
from ..listen.bind import Bound, bind
from ..log import setup as logs
from ..settings import Settings
from .board import SLOTS, Board, Slot
from .channel import Channel
from .control_group import oom_kills
from .cpus import usable
from .generations import Generations
from .heartbeats import Heartbeats
from .launch import HANDLED, command
from .pid_file import pid_file
from .states import Generation, GenerationEvent, Worker, WorkerEvent
from .systemd import Notifier
from .watch import watching

if TYPE_CHECKING:
    from .monitoring import Monitoring

__all__ = ["Supervisor", "main"]

logger = logging.getLogger("asgiserver")


def main() -> NoReturn:
    """Run the supervisor; the arguments are the descriptor of the settings and the specification."""
    with open(int(sys.argv[1]), encoding="ascii") as file:
        settings = Settings(**json.load(file))
    specification = json.loads(sys.argv[2])
    status = 1
    try:
        logs.configure(settings)
        warn_of_unknown_variables(os.environ)
        if settings.reload and "workers" in specification["origins"]:
            logger.warning("workers is ignored with --reload (%s)", specification["origins"]["workers"])
        with pid_file(settings.pid_file):
            bound = asyncio.run(_bind(settings))
            supervisor = Supervisor(settings, specification, *bound)
            try:
                status = supervisor.run()
            except Exception:
                logger.critical("The supervisor has failed: the service ends", exc_info=True)
                supervisor.abandon()
            finally:
                for each in (*bound[0], *bound[1]):
                    each.close()
    except ASGIServerError as error:
        status = 2 if isinstance(error, SettingsError) else 1
        if isinstance(error, SettingsError):
            error = error.labelled(partial(label, specification["labels"]))
        print(f"{specification['prog']}: error: {error}", file=sys.stderr)  # noqa: T201 - as the command line does
    sys.exit(status)


async def _bind(settings: Settings) -> tuple[list[Bound], list[Bound]]:
    """The sockets of the service, and those of the monitor."""
    bound = [each for each in await bind(settings, inheritable=True) if isinstance(each, Bound)]
    if not settings.metrics:
        return bound, []
    from ..metrics.endpoints import announce, bind_monitor

    try:
        monitor = await bind_monitor(settings)
    except BaseException:
        for each in bound:
            each.close()
        raise
    announce(monitor)
    return bound, monitor


class _Nursery:
    """The process of a generation, or why the system has not started it."""

    def __init__(self, process: subprocess.Popen[bytes] | OSError, channel: Channel) -> None:
        self.process = process
        self.channel = channel

    def kill(self) -> None:
        if not isinstance(self.process, OSError):
            self.process.kill()

    def end(self) -> str:
        """End what is left of it; how it has ended."""
        if isinstance(self.process, OSError):
            return f"the nursery could not be started: {self.process}"
        self.process.kill()
        return f"the nursery has ended with status {self.process.wait()}"


class _Process:
    """The process of a worker.

    :ivar number: the process's; None until the nursery, or the worker itself, has told it.
    :ivar gone: it has ended, as its nursery has told.
    """

    def __init__(self, worker: Worker, channel: Channel, place: int, slot: Slot) -> None:
        self.worker = worker
        self.channel = channel
        self.place = place
        self.slot = slot
        self.number: int | None = None
        self.gone = False


class Supervisor:
    """Carries out what :class:`Generations` decides, and tells it what happens.

    :param specification: see :func:`.launch.supervise`.
    """

    def __init__(
        self, settings: Settings, specification: Mapping[str, Any], bound: Sequence[Bound], monitor: Sequence[Bound]
    ) -> None:
        self._settings = settings
        self._specification = specification
        self._bound = bound
        self._board, self._memory = Board.create()
        self._selector = DefaultSelector()
        self._nurseries: dict[Generation, _Nursery] = {}
        self._processes: dict[int, _Process] = {}
        self._signals: list[int] = []
        self._notifier = Notifier()
        self._told = ""
        self._oom_kills = oom_kills()
        self._listens = False
        self._surroundings = ""
        self._status: int | None = None
        self._alive_at = time.monotonic()
        self._heartbeats = Heartbeats(settings.worker_timeout, self._alive_at, self.dump, self._silent)
        self._generations = Generations(self, settings, 1 if settings.reload else settings.workers or usable())
        self._monitoring: Monitoring | None = None
        if monitor:
            # Imported only where it is used, to keep this process small.
            from .monitoring import Monitoring

            self._monitoring = Monitoring(self._board, bound, monitor, self._watch, self._forget)

    def run(self) -> int:
        """Watch until nothing is left; returns the exit status."""
        wakes, wake = socket.socketpair()
        with self._selector, wakes, wake, watching(self._settings, self._specification["config"]) as changes:
            for end in (wakes, wake):
                end.setblocking(False)
            signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
            self._watch(wakes, lambda: wakes.recv(4096))
            if changes is not None:
                self._watch(changes, partial(self._hear_changes, changes))
            self._take_signals()
            self._generations.reload(time.monotonic())
            while self._status is None:
                self._board.supervisor_beat()
                for key, _ in self._selector.select(self._pause()):
                    if self._selector.get_map().get(key.fd) is key:
                        # What was heard of others may have ended this one.
                        key.data()
                while self._signals:
                    self._signalled(self._signals.pop(0))
                now = time.monotonic()
                self._look(now)
                self._generations.tick(now)
                self._tell(now)
                if self._monitoring is not None:
                    self._monitor(self._monitoring, now)
            signal.set_wakeup_fd(-1)
            if self._monitoring is not None:
                self._monitoring.close()
        return self._status

    def abandon(self) -> None:
        """Tell the workers to stop: nobody will watch them, and they end when they have answered."""
        self._notifier.stopping()
        for process in self._processes.values():
            process.channel.send({"do": "stop", "quick": False})

    def _monitor(self, monitoring: Monitoring, now: float) -> None:
        for process in self._processes.values():
            if process.channel.fileno() >= 0:
                monitoring.describe_worker(process.slot, process.worker, process.number)
        monitoring.describe(self._generations)
        monitoring.tick(self._generations, self._nurseries, now)

    def _take_signals(self) -> None:
        for number in HANDLED:
            if signal.getsignal(number) != signal.SIG_IGN:
                # One that is ignored, as under nohup, stays so.
                signal.signal(number, lambda number, _: self._signals.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def _watch(self, file: Any, call: Callable[[], object]) -> None:
        self._selector.register(file, EVENT_READ, call)

    def _pause(self) -> float:
        now = time.monotonic()
        due = self._generations.due(now)
        times = [self._heartbeats.due, *([] if due is None else [due])]
        if self._notifier.watchdog is not None:
            times.append(self._alive_at + self._notifier.watchdog)
        return max(0.0, min(times) - now)

    def _signalled(self, number: int) -> None:
        now, generations = time.monotonic(), self._generations
        match signal.Signals(number):
            case signal.SIGINT | signal.SIGTERM:
                generations.stop(number, now)
            case signal.SIGQUIT:
                generations.stop(number, now, quick=True)
            case signal.SIGHUP:
                generations.reload(now)
            case signal.SIGTTIN:
                generations.resize(1, now)
            case signal.SIGTTOU:
                generations.resize(-1, now)
            case signal.SIGUSR1:
                logs.reopen()
                for nursery in self._nurseries.values():
                    nursery.channel.send({"do": "reopen"})
                for process in self._processes.values():
                    process.channel.send({"do": "reopen"})
                if self._monitoring is not None:
                    self._monitoring.reopen()
            case signal.SIGUSR2:
                for process in self._processes.values():
                    process.channel.send({"do": "report"})
                    if process.slot.silence(now) > self._heartbeats.every:
                        # The event loop, which would obey, is blocked.
                        self.dump(process.worker)

    # What the processes say.

    def _hear_changes(self, changes: Channel) -> None:
        for message in changes.receive():
            logger.info("Reloading: %s", message["text"])
            self._generations.reload(time.monotonic())

    def _hear_nursery(self, generation: Generation) -> None:
        nursery = self._nurseries[generation]
        tell = partial(self._generations.nursery, generation=generation)
        for message in nursery.channel.receive():
            now = time.monotonic()
            match message["is"]:
                case "loaded":
                    logger.debug("%s was imported in %.2f s", str(generation).capitalize(), message["seconds"])
                    tell(GenerationEvent.LOADED, now=now)
                case "failed":
                    tell(GenerationEvent.FAILED, now=now, text=message["text"], status=message["status"])
                case "unsafe":
                    logger.warning(
                        "The import leaves %s: it is not forked, and each worker imports for itself (--preload)",
                        ", ".join(message["found"]),
                    )
                case "forked" | "exited" if message["number"] < 0:
                    assert self._monitoring is not None
                    self._monitoring.hear_nursery(message)
                case "forked":
                    self._processes[message["number"]].number = message["process"]
                case "exited":
                    self._ended(self._processes[message["number"]], message["text"], message["status"])
        if not nursery.channel.open:
            del self._nurseries[generation]
            self._forget(nursery.channel)
            tell(GenerationEvent.GONE, now=time.monotonic(), text=nursery.end())
            for process in list(self._processes.values()):
                if process.worker.generation is generation and not process.channel.open:
                    self._ended(process, "nobody knows why")

    def _hear_worker(self, process: _Process) -> None:
        tell = partial(self._generations.worker, worker=process.worker)
        for message in process.channel.receive():
            now = time.monotonic()
            match message["is"]:
                case "ready":
                    # Its nursery may not have had the time to tell.
                    process.number = message["process"]
                    name = str(process.worker).capitalize()
                    logger.info("%s (process %s) serves", name, process.number)
                    self._surroundings = message["text"]
                    tell(WorkerEvent.READY, now=now)
                case "leaving":
                    tell(WorkerEvent.LEAVING, now=now, text=message["text"])
                case "failed":
                    tell(WorkerEvent.FAILED, now=now, text=message["text"], status=message["status"])
        if not process.channel.open or process.gone:
            self._forget(process.channel)
            process.slot.clear()
            # Why, its nursery is about to tell, unless that is gone.
            if not process.gone and process.worker.generation not in self._nurseries:
                self._ended(process, "nobody knows why, as its nursery is gone")

    def _ended(self, process: _Process, text: str, status: int = 0) -> None:
        if process.channel.fileno() >= 0:
            # What it has said at the very end.
            process.gone = True
            self._hear_worker(process)
        kills, before = oom_kills(), self._oom_kills
        self._oom_kills = kills
        if kills > before and status == -signal.SIGKILL:
            text = f"{text}, as its control group was out of memory"
        if self._monitoring is not None:
            # Before its slot is another worker's.
            self._monitoring.ended(process.slot)
        del self._processes[process.worker.number]
        self._generations.worker(WorkerEvent.GONE, process.worker, time.monotonic(), text, status)
        if self._monitoring is not None:
            self._monitoring.count_exit(process.worker)

    def _forget(self, channel: Channel) -> None:
        self._selector.unregister(channel)
        channel.close()

    def _look(self, now: float) -> None:
        if now >= self._heartbeats.due:
            self._heartbeats.look([(each.worker, each.slot) for each in self._processes.values()], now)
            if self._monitoring is not None:
                self._monitoring.look_at_queues()

    def _silent(self, worker: Worker, text: str) -> None:
        self._generations.worker(WorkerEvent.SILENT, worker, time.monotonic(), text)

    def _tell(self, now: float) -> None:
        """Tell systemd how it is."""
        generations, watchdog = self._generations, self._notifier.watchdog
        serving = generations.serving
        text = f"{serving} workers serve, {sum(1 for _ in generations.workers) - serving} start or end"
        if text != self._told:
            self._told = text
            self._notifier.status(text)
        if watchdog is not None and now - self._alive_at >= watchdog:
            self._alive_at = now
            if serving:
                self._notifier.alive()

    # What Generations says: see Hands.

    def spawn(self, generation: Generation) -> None:
        """See ``Hands``."""
        channel, there = Channel.pair()
        monitor = [] if self._monitoring is None else self._monitoring.sockets
        specification = {
            **self._specification,
            "preload": self._settings.preload,
            "reload": self._settings.reload,
            "supervisor": os.getpid(),
            "board": self._memory,
            "sockets": [_described(each) for each in self._bound],
            # This process keeps them open, so a monitor that ends leaves who waits to its successor.
            "monitor": [{**_described(each), "shared": True} for each in monitor],
            **({} if self._monitoring is None else self._monitoring.facts),
        }
        descriptors = [there.fileno(), self._memory, *(each.sock.fileno() for each in (*self._bound, *monitor))]
        line = command("nursery", str(there.fileno()), json.dumps(specification))
        process: subprocess.Popen[bytes] | OSError
        with there:
            try:
                process = subprocess.Popen(line, pass_fds=descriptors)
            except OSError as error:
                # Heard of as the end of any nursery, by the end of its channel.
                process = error
        self._nurseries[generation] = _Nursery(process, channel)
        self._watch(channel, partial(self._hear_nursery, generation))

    def fork(self, worker: Worker) -> None:
        """See ``Hands``."""
        channel, there = Channel.pair()
        taken = {process.place for process in self._processes.values()}
        place = next(place for place in range(SLOTS) if place not in taken)
        process = self._processes[worker.number] = _Process(worker, channel, place, self._board.use(place))
        self._watch(channel, partial(self._hear_worker, process))
        with there:
            message = {"do": "fork", "number": worker.number, "slot": place, "failure": None}
            if worker.failure:
                message["failure"] = {"text": worker.failure, "settings": asdict(self._settings)}
            self._nurseries[worker.generation].channel.send(message, there.fileno())

    def drain(self, worker: Worker) -> None:
        """See ``Hands``."""
        self._processes[worker.number].channel.send({"do": "drain"})

    def stop(self, worker: Worker, quick: bool) -> None:
        """See ``Hands``."""
        self._processes[worker.number].channel.send({"do": "stop", "quick": quick})

    def dump(self, worker: Worker) -> None:
        """See ``Hands``."""
        self._send_signal(worker, signal.SIGUSR2)

    def kill(self, worker: Worker) -> None:
        """See ``Hands``."""
        self._send_signal(worker, signal.SIGKILL)

    def _send_signal(self, worker: Worker, number: int) -> None:
        process = self._processes[worker.number]
        if process.number is not None:
            try:
                os.kill(process.number, number)
            except ProcessLookupError:
                pass  # its end is about to be heard

    def retire(self, generation: Generation, quick: bool) -> None:
        """See ``Hands``."""
        nursery = self._nurseries[generation]
        nursery.channel.send({"do": "retire"})
        if quick:
            nursery.kill()

    def began(self) -> None:
        """See ``Hands``."""
        self._notifier.reloading()

    def done(self, failed: bool) -> None:
        """See ``Hands``."""
        if not self._listens:
            self._listens = True
            size = self._generations.size
            logger.info("%s, %d worker%s", self._surroundings, size, "s" * (size != 1))
            for each in self._bound:
                logger.info("Listening on %s", each.description)
            if logs.on_terminal():
                logger.info("Ctrl-C stops it")
        elif self._monitoring is not None:
            self._monitoring.count_reload(failed)
        self._notifier.ready()

    def leaving(self, delay: float) -> None:
        """See ``Hands``."""
        logger.info("Stopping in %g s", delay)
        self._notifier.stopping()

    def stopping(self) -> None:
        """See ``Hands``."""
        if self._listens:
            logger.info("Stopping%s", "; Ctrl-C again ends it at once" if logs.on_terminal() else "")
        self._notifier.stopping()
        for each in self._bound:
            # The last copies are the workers', which accept who waits in the queue before they close them.
            each.close()

    def end(self, status: int) -> None:
        """See ``Hands``."""
        if self._listens and self._status is None:
            logger.info("Stopped")
        self._status = status

    def explain(self, text: str) -> None:
        """See ``Hands``."""
        sys.stderr.write(f"{text.rstrip()}\n")
        sys.stderr.flush()


def _described(each: Bound) -> dict[str, Any]:
    """A socket, for the process that is to accept on it."""
    return {
        "descriptor": each.sock.fileno(),
        "secure": each.secure,
        "redirects_to": each.redirects_to,
        "proxied": each.proxies is not None,
        "shared": each.inherited is not None,
    }
