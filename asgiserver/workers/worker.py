"""A process that serves: the server of one process, with the supervisor's orders in place of most signals."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from ..asgi.forwarded import TrustedPeers
from ..listen.bind import Bound
from ..log import setup as logs
from ..log.formatters import JSONFormatter
from ..loop.reactor import install_reactor, loop_of, rebase
from ..running import limit_exit
from ..settings import Settings
from ..signals import Asked, Signals, hold
from .balance import balance
from .board import Board
from .channel import Channel, Message
from .nursery import Application, fail
from .recycling import Recycling, memory_share
from .stacks import report

if TYPE_CHECKING:
    from ..metrics.recorder import Recorder
    from ..server import Server

__all__ = ["Worker", "WorkerSignals", "bound_of", "look_for", "serve"]

logger = logging.getLogger("asgiserver")

#: Most seconds between two beats.
_BEAT = 0.5


def serve(channel: Channel, specification: Mapping[str, Any], application: Application) -> NoReturn:
    """Serve until the supervisor says otherwise, then end the process."""
    settings: Settings = application.interface.settings
    JSONFormatter.worker = specification["number"]
    signals = WorkerSignals()
    hold(signals)
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    # Registered first, so called last: the supervisor takes the end of the channel for the end of the process.
    atexit.register(channel.close)
    atexit.register(signals.finalize)
    worker: Worker | None = None
    gc.enable()
    try:
        rebase(settings.loop)
        worker = Worker(channel, specification, settings, signals, application.certificates)
        worker.run(application.interface.server_class(application.application, settings=settings))
    except BaseException as error:
        if worker is None or not worker.started:
            fail(channel, specification, error)
        raise
    finally:
        signals.end()
        if worker is not None:
            worker.finish()
    limit_exit(0, settings.exit_timeout)
    sys.exit(0)


class WorkerSignals(Signals):
    """A worker's signals: SIGTERM asks for a successor, faulthandler has SIGUSR2, all others are the supervisor's.

    A terminal sends its signals to all processes, and the supervisor then tells the workers.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Called between any two instructions of the main thread.
        self.terminated: Callable[[], object] = _pass

    def take(self) -> None:
        """Become the handler; what the nursery has set is not restored in processes that the application forks."""
        super().take()
        self._previous = dict.fromkeys(self._previous, signal.SIG_DFL)
        self._previous[signal.SIGINT] = signal.default_int_handler

    def serve(self, act: Callable[[Asked, int], object], clean: Callable[[], object]) -> None:
        """As in a process of its own, but orders come by the channel."""
        super().serve(_pass, clean)

    def end(self) -> None:
        """As in a process of its own."""
        self.terminated = _pass
        super().end()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if number == signal.SIGTERM:
            self.terminated()


def _pass(*_: object) -> None:
    """Do nothing."""


class Worker:
    """Does what the supervisor says, and tells it what happens.

    :param specification: as the nursery's, with ``slot`` and ``number``.
    :ivar started: the application has started, and the sockets are accepted on.
    """

    def __init__(
        self,
        channel: Channel,
        specification: Mapping[str, Any],
        settings: Settings,
        signals: WorkerSignals,
        certificates: Any,
    ) -> None:
        self._channel = channel
        self._supervised = look_for(specification["supervisor"])
        self._number: int = specification["slot"]
        self._board = Board(specification["board"])
        self._slot = self._board.slot(self._number)
        self._settings = settings
        self._signals = signals
        self._bound = [bound_of(each, settings, certificates) for each in specification["sockets"]]
        for each in specification["monitor"]:
            os.close(each["descriptor"])
        self._recorder: Recorder | None = None
        self._recycling = Recycling(settings, time.monotonic(), memory_share)
        self._began = time.monotonic()
        # A quarter of the limit, or the supervisor would take a worker that works for one that is blocked.
        self._beat_every = min(_BEAT, (settings.worker_timeout or _BEAT) / 4)
        self.started = self._serves = False

    def run(self, server: Server) -> None:
        """Serve; raises as ``Server.run`` does."""
        self._server = server
        server.bound = self._bound
        self._told = server.ready_callable
        server.ready_callable = self._ready
        if self._recycling.counts:
            self._create_application = server.create_application
            server.create_application = self._count  # type: ignore[method-assign]
        if self._settings.max_memory is not None:
            memory_share()
        if self._settings.metrics:
            from ..metrics.recorder import Recorder

            self._recorder = Recorder(server, self._slot)
        self._loop = loop_of(install_reactor(self._settings.loop))
        self._loop.call_soon(self._attach)
        server.run()

    def _attach(self) -> None:
        self._loop.add_reader(self._channel.fileno(), self._read)
        if self._recorder is not None:
            self._recorder.start(self._loop)
        self._signals.terminated = lambda: self._loop.call_soon_threadsafe(self._leave, "it got SIGTERM")
        self._beat()
        self._read()

    def _ready(self) -> None:
        self.started = self._serves = True
        for listener in self._server.listeners:
            balance(listener.port, self._board, self._number, self._server.connections.__len__, self._deferred)
        self._slot.accepting = True
        self._channel.send({
            "is": "ready", "process": os.getpid(), "seconds": time.monotonic() - self._began,
            "text": self._server.surroundings,
        })  # fmt: skip
        if self._told is not None:
            self._told()

    def _beat(self) -> None:
        """The loop has come round; also the time to look at what changes without an event."""
        self._slot.beat()
        self._slot.connections = len(self._server.connections)
        self._leave_if_due()
        if not self._supervised():
            # The end of the channel says so too, as long as no other process has a copy of the supervisor's end.
            self._stop(quick=False)
        self._loop.call_later(self._beat_every, self._beat)

    def _deferred(self) -> None:
        if self._server.counts is not None:
            self._server.counts.add("connections_deferred")

    def finish(self) -> None:
        """Write for the last time what was counted."""
        if self._recorder is not None:
            self._recorder.stop()

    def _count(self, exchange: Any) -> None:
        self._recycling.requests += 1
        self._create_application(exchange)
        self._leave_if_due()

    def _leave_if_due(self) -> None:
        reason = self._recycling.reason(time.monotonic()) if self._serves else None
        if reason is not None:
            self._leave(reason)

    def _leave(self, reason: str) -> None:
        """Ask for a successor, once."""
        if self._serves:
            self._serves = False
            self._channel.send({"is": "leaving", "text": reason})

    # Orders.

    def _read(self) -> None:
        for message in self._channel.receive():
            self._obey(message)
        if not self._channel.open:
            self._loop.remove_reader(self._channel.fileno())
            self._stop(quick=False)

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "drain":
                self._end_service()
                self._server.drain(self._settings.drain_timeout, self._settings.drain_spread)
            case "stop":
                self._stop(quick=message["quick"])
            case "reopen":
                logs.reopen()
            case "report":
                logger.warning("What this worker does:\n%s", report(self._server.exchanges))

    def _stop(self, *, quick: bool) -> None:
        self._end_service()
        # sse-starlette ends its streams when the owner of SIGTERM's handler says so.
        self._signals.asked = Asked.STOP
        self._server.stop(wait=not quick)

    def _end_service(self) -> None:
        self._serves = False
        self._slot.accepting = False


def look_for(process: int) -> Callable[[], bool]:
    """What tells whether a process runs; on Linux not misled by a later one that has got the same number."""
    try:
        signalling: Callable[[int], object] = partial(signal.pidfd_send_signal, os.pidfd_open(process))
    except (AttributeError, OSError):
        # Another system, an old kernel, or a sandbox that forbids it; or the process has ended already.
        signalling = partial(os.kill, process)

    def runs() -> bool:
        try:
            signalling(0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # this process has become another user's
        return True

    return runs


def bound_of(each: Mapping[str, Any], settings: Settings, certificates: Any = None) -> Bound:
    """A socket of a specification, as :mod:`asgiserver.listen` takes it."""
    proxies = TrustedPeers(settings.proxy_allow_ips, "proxy_allow_ips") if each["proxied"] else None
    sock = socket.socket(fileno=each["descriptor"])
    return Bound(
        sock, secure=each["secure"], proxies=proxies, redirects_to=each["redirects_to"], shared=each["shared"],
        certificates=certificates,
    )  # fmt: skip
