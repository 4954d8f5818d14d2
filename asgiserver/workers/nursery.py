"""The parent of a generation's workers: imports the application once, freezes it, forks; serves nothing itself.

Workers that are forked share the memory of the imported application, and are ready at once. But a fork has one thread,
and shares every connection and file with its parent: an application whose import starts or opens such things is
imported by each worker for itself, in a fresh interpreter.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any, NamedTuple, NoReturn

from .channel import Channel
from .launch import HANDLED, command, inheritable, replace

__all__ = ["Application", "Nursery", "fail", "left_behind", "load", "main", "opened"]

#: Bytes of a text that goes through a channel; the end of a traceback says most.
_MOST_TEXT = 32768
#: Seconds that workers have to end by themselves, with ``reload``, once nobody watches them; and between two looks.
_LAST_WAIT, _PAUSE = 2.0, 0.05


def main() -> NoReturn:
    """Run a nursery, or a worker that was not forked; the arguments are its channel's descriptor and specification."""
    # Hardly anything that an import makes becomes garbage, and memory that is not touched stays shared.
    gc.disable()
    for number in HANDLED:
        # The supervisor says what is to be done. Not ignored, which programs that the application starts would inherit.
        signal.signal(number, _pass)
    channel, specification = Channel(socket.socket(fileno=int(sys.argv[1]))), json.loads(sys.argv[2])
    nursery = Nursery(channel, specification)
    if "slot" not in specification:
        nursery.begin()
        descriptor = nursery.run()
        if descriptor is None:
            # Not the exit handlers of the application, which are the workers'.
            os._exit(0)
        channel, specification = Channel(socket.socket(fileno=descriptor)), nursery.specification
        nursery = Nursery(channel, specification, nursery.application)
    if specification["slot"] is None:
        from . import monitor

        monitor.serve(channel, specification, nursery.application and nursery.application.interface)
    from .worker import serve

    serve(channel, specification, nursery.application or nursery.load())


def _pass(*_: object) -> None:
    """Do nothing."""


def import_server(specification: Mapping[str, Any]) -> None:
    """Import all that a worker needs besides the application."""
    from ..lazy_imports import postponed, unused_by_servers

    sys.path.extend(part for part in specification["path"] if part not in sys.path)
    with postponed(unused_by_servers()):
        from .. import cli  # noqa: F401
        from ..loop import reactor  # noqa: F401
        from ..wire.websocket import frames  # noqa: F401
        from . import worker  # noqa: F401


class Application(NamedTuple):
    """What a worker serves.

    :ivar interface: the command line that has loaded it.
    :ivar before: the descriptors that there were before its import, see :func:`opened`.
    :ivar certificates: for TLS, or None; workers that are forked have the keys of its sessions in common.
    """

    interface: Any
    application: Any
    before: dict[int, str]
    certificates: Any = None


def prepare(specification: Mapping[str, Any]) -> tuple[Any, str]:
    """Set this process up as the command line does; gives the command line, and what names the application."""
    import_server(specification)
    from .. import cli
    from ..log import setup as logs
    from ..loop.reactor import install_reactor

    name, _, kind = specification["interface"].partition(":")
    interface: cli.CommandLineInterface = attrgetter(kind)(import_module(name))()
    path = interface.parse(specification["args"])
    logs.configure(interface.settings)
    logs.bridge_twisted()
    # Before the application, which may import twisted.internet.reactor and would get another one.
    install_reactor(interface.settings.loop)
    return interface, path


def load(specification: Mapping[str, Any]) -> Application:
    """Import the application as the command line does; raises whatever its import raises."""
    interface, path = prepare(specification)
    from ..log import setup as logs

    before = opened()
    from ..listen.accept import certificates_of
    from ..server import preload

    application = interface.load_asgi_app(path)
    preload(interface.settings)
    logs.enable()
    certificates = certificates_of(interface.settings) if interface.settings.ssl_certfile else None
    return Application(interface, application, before, certificates)


def fail(channel: Channel, specification: Mapping[str, Any], error: BaseException) -> NoReturn:
    """Tell the supervisor why nothing can be served, as the command line would tell the user, and end."""
    from ..cli import explanation

    status, text = explanation(specification["prog"], error, specification["labels"])
    channel.send({"is": "failed", "status": status, "text": text[-_MOST_TEXT:]})
    os._exit(status)


class Nursery:
    """One generation.

    :ivar specification: what the workers are to serve, on which sockets; and ``preload``. In a worker also its slot,
        which is None in a monitor.
    :ivar application: None when each worker imports it.
    :ivar forks: workers are forked, and share what the nursery has imported; else each is a fresh interpreter.
    """

    def __init__(
        self, channel: Channel, specification: Mapping[str, Any], application: Application | None = None
    ) -> None:
        self.application = application
        self.forks = False
        self._channel = channel
        self.specification = specification
        self._sockets = [each["descriptor"] for each in (*specification["sockets"], *specification["monitor"])]
        self._descriptors = [specification["board"], *self._sockets]
        self._workers: dict[int, int] = {}  # their numbers by their processes
        self._retired = False
        for descriptor in (channel.fileno(), *self._descriptors):
            os.set_inheritable(descriptor, False)

    def load(self) -> Application:
        """Import the application; ends the process when that fails."""
        failure = self.specification.get("failure")
        if failure is not None:
            from . import failure_page

            return failure_page.load(failure["text"], failure["settings"])
        try:
            application = load(self.specification)
        except BaseException as error:  # noqa: BLE001 - whatever the import raises, the supervisor is told
            fail(self._channel, self.specification, error)
        # No collection before: it would leave holes in the memory that every worker fills for itself.
        gc.freeze()
        return application

    def begin(self) -> None:
        """Import the application, unless each worker does; that is also decided here, once the import has been seen."""
        began, preload = time.monotonic(), self.specification["preload"]
        if self.specification["reload"]:
            import_server(self.specification)
            gc.freeze()
            self.forks = True
        elif preload == "on" or preload == "auto" and sys.platform == "linux":
            self.application, self.forks = self.load(), True
            found = left_behind(self.application.before) if preload == "auto" else []
            if found:
                self._channel.send({"is": "unsafe", "found": found})
                changed = json.dumps({**self.specification, "preload": "off"})
                channel = self._channel.fileno()
                replace("nursery", [str(channel), changed], [channel, *self._descriptors])
        self._channel.send({"is": "loaded", "seconds": time.monotonic() - began})

    def run(self) -> int | None:
        """Fork workers as the supervisor says.

        :returns: in a worker, the descriptor of its channel; None when the last worker or the supervisor has ended.
        """
        wakes, wake = socket.socketpair()
        with DefaultSelector() as selector, wakes, wake:
            wake.setblocking(False)
            wakes.setblocking(False)
            signal.signal(signal.SIGCHLD, _pass)
            signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
            selector.register(wakes, EVENT_READ)
            selector.register(self._channel, EVENT_READ)
            while self._channel.open and not (self._retired and not self._workers):
                for key, _ in selector.select():
                    if key.fileobj is wakes:
                        wakes.recv(4096)
                self._wait_for_workers()
                for message in self._channel.receive():
                    if message["do"] == "retire":
                        self._retire()
                    elif message["do"] == "reopen":
                        self._reopen()
                    elif (descriptor := self._begin_worker(message)) is not None:
                        return descriptor
        if self.specification["reload"]:
            self._end_workers()
        return None

    def _end_workers(self) -> None:
        """The supervisor was killed: let no worker that imports, or blocks its event loop, keep the port."""
        late = time.monotonic() + _LAST_WAIT
        while self._workers and time.monotonic() < late:
            time.sleep(_PAUSE)
            self._wait_for_workers()
        for process in self._workers:
            os.kill(process, signal.SIGKILL)

    def _begin_worker(self, message: Mapping[str, Any]) -> int | None:
        """Begin a worker; the forked process alone gets a value."""
        descriptor = self._channel.take_descriptor()
        number, given = message["number"], {name: message.get(name) for name in ("number", "slot", "failure")}
        specification = {**self.specification, **given}
        try:
            if not self.forks:
                line = command("nursery", str(descriptor), json.dumps(specification))
                with inheritable([descriptor, *self._descriptors]):
                    process = os.posix_spawn(line[0], line, os.environ)
            else:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                process = os.fork()
                if process == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    self._channel.close()
                    self.specification = specification
                    return descriptor
        except OSError as error:
            text = f"it could not be forked: {error.strerror}"
            self._channel.send({"is": "exited", "number": number, "status": 1, "text": text})
        else:
            self._workers[process] = number
            self._channel.send({"is": "forked", "number": number, "process": process})
        os.close(descriptor)
        return None

    def _reopen(self) -> None:
        if self.application is not None:
            from ..log import setup as logs

            logs.reopen()

    def _wait_for_workers(self) -> None:
        for process, number in list(self._workers.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del self._workers[process]
                code = os.waitstatus_to_exitcode(status)
                self._channel.send({"is": "exited", "number": number, "status": code, "text": _told(code)})

    def _retire(self) -> None:
        if not self._retired:
            self._retired = True
            # A copy that is left open would keep clients waiting in the queue of a socket that nobody accepts on.
            for descriptor in self._sockets:
                os.close(descriptor)


def _told(status: int) -> str:
    if status >= 0:
        return f"its exit status was {status}"
    return f"it was ended by {signal.Signals(-status).name}"


def opened() -> dict[int, str]:
    """The descriptors of this process, each with what it is open for, as Linux tells it; empty on other systems."""
    found: dict[int, str] = {}
    try:
        for name in os.listdir("/proc/self/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                continue  # the one that the listing itself has used
    except OSError:
        pass
    return found


def left_behind(before: Mapping[int, str]) -> list[str]:
    """What an import has left that a forked process must not share: threads, sockets, files that are written.

    :param before: the descriptors before the import.
    """
    found = [f"thread {thread.name!r}" for thread in threading.enumerate() if thread is not threading.main_thread()]
    foreign = len(list(Path("/proc/self/task").iterdir())) - 1 - len(found)
    if foreign > 0:
        found.append(f"{foreign} threads of C code")
    for descriptor, target in opened().items():
        if before.get(descriptor) != target:
            found += _described(descriptor, target)
    return found


def _described(descriptor: int, target: str) -> list[str]:
    """What is dangerous about a descriptor; nothing about pipes, files that are only read, and logs."""
    import fcntl
    import logging

    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        return [_described_socket(descriptor)]
    writes = fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR)
    names = ["", *logging.root.manager.loggerDict]
    handlers = [handler for name in names for handler in logging.getLogger(name or None).handlers]
    logs = {handler.baseFilename for handler in handlers if isinstance(handler, logging.FileHandler)}
    return [f"file {target!r}"] if stat.S_ISREG(mode) and writes and target not in logs else []


def _described_socket(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        try:
            return f"socket to {sock.getpeername()}"
        except OSError:
            return f"socket of {sock.family.name}"
