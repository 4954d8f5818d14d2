"""A server in a child process, by :mod:`multiprocessing`: for Channels' tests, and for ``LiveServer(process=True)``."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from ..errors import StartupError
from ..log import setup as logs
from ..loop.reactor import forget_reactor
from ..server import Server
from ..settings import Settings
from . import failures
from .capture import Capture
from .places import LAST_WAIT, QUICK_STOP, Place, loaded

__all__ = ["InProcess", "ServerProcess"]

#: What the error calls an attribute that cannot be pickled, if not by its name.
_CALLED = {"get_application": "the application, or get_application,"}


class ServerProcess(multiprocessing.Process):
    """Serves an application in a process of its own, until :meth:`terminate`.

    It is what ``channels.testing.ChannelsLiveServerTestCase`` expects as its ``ProtocolServerProcess``.

    :param host: the host to listen on.
    :param get_application: called in the child; returns the application.
    :param kwargs: keywords of :class:`asgiserver.Server`; unless given, ``graceful_timeout`` is 1 s and
        ``graceful_idle`` 0.
    :param setup: called in the child after ``get_application`` and before serving.
    :param teardown: called in the child after serving, when ``setup`` has returned.
    :param port: TCP port, None or 0 for any free one.

    :ivar port: a ``multiprocessing.Value`` with the real port, once ``ready`` is set.
    :ivar ready: a ``multiprocessing.Event``, set once the server listens.
    :ivar server: the server, in the child only.

    The start method is multiprocessing's default; a subclass may set ``start_method``. With ``spawn`` and
    ``forkserver`` the callables have to be functions of modules, or partials of these. The process is a daemon: it does
    not outlive its parent. :meth:`terminate` ends it as a stop signal does, with the lifespan's shutdown and
    ``teardown``.
    """

    start_method: str | None = None

    def __init__(
        self,
        host: str,
        get_application: Callable[[], Any],
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], object] | None = None,
        teardown: Callable[[], object] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(daemon=True)
        context: Any = multiprocessing.get_context(self.start_method)
        self.host = host
        self.get_application = get_application
        self.kwargs = dict(kwargs or {})
        self.setup = setup
        self.teardown = teardown
        self.port = context.Value("i", port or 0)
        self.ready = context.Event()
        self.folder = Path(tempfile.mkdtemp(prefix="asgiserver-"))
        # Only the process that has made the folder removes it, and not before the daemons have ended.
        Finalize(self, shutil.rmtree, (self.folder, True), exitpriority=-100)
        self._failures = self.folder / "failures"
        self._told = False

    # In the parent.

    @property
    def errors(self) -> list[tuple[BaseException, str]]:
        """Exceptions of the application so far, and the one that ended the child, oldest first, with their tracebacks.

        They are copies; in place of one that cannot be copied there is a ``RuntimeError`` with its text.
        """
        return failures.read(self._failures)

    def is_alive(self) -> bool:
        """Whether the process runs.

        :raises StartupError: once, when the process has ended by itself before it was ready; says why.
        """
        alive = super().is_alive()
        if self.failed_to_start and not self._told:
            self._told = True
            raise StartupError(f"the server did not start: {self.failure()}")
        return alive

    @property
    def failed_to_start(self) -> bool:
        """Whether the process has ended before it was ready."""
        return self.exitcode is not None and not self.ready.is_set()

    def failure(self) -> str:
        """Why the process has ended before it was ready: the traceback, or else the exit status."""
        errors = self.errors
        if not errors:
            return f"its process ended with exit code {self.exitcode}; see what it has printed"
        return errors[-1][1].strip()

    def terminate(self) -> None:
        """Ask the process to end gracefully (SIGTERM); returns at once."""
        self._told = True
        super().terminate()

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        self._told = True
        super().kill()

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - multiprocessing's hook for the start method
        context: Any = multiprocessing.get_context(process.start_method)
        if context.get_start_method() != "fork":
            args = (_allowed_hosts(), process._failures, _Pickled(process))
            process = context.Process(target=_run_pickled, args=args, name=process.name, daemon=True)
        return context.Process._Popen(process)

    # In the child.

    def run(self) -> None:
        """Serve; called by :mod:`multiprocessing` in the child. Exits with status 1 after an error."""
        with _reporting(self._failures, self.ready):
            self._serve()

    def set_up_logging(self) -> None:
        """Write warnings and errors to standard error when the inherited handlers, like pytest's, only fill memory."""
        root = logging.getLogger()
        if not any(map(_is_seen, [*root.handlers, *logging.getLogger("asgiserver").handlers])):
            root.addHandler(logging.StreamHandler(sys.stderr))

    def listening(self) -> None:
        """Called on the loop once the server listens."""
        addresses = self.server.listening_addresses
        self.port.value = addresses[0][1] if addresses else 0
        self.ready.set()

    def _serve(self) -> None:
        _leave_parent()
        keywords: dict[str, Any] = {"host": self.host, "port": self.port.value, **QUICK_STOP}
        keywords |= {"on_failure": partial(failures.append, self._failures), **self.kwargs}
        application = self.get_application()
        logs.enable()
        self.set_up_logging()
        self.server = Server(application, ready_callable=self.listening, **keywords)
        if self.setup is not None:
            self.setup()
        threading.Thread(target=_stop_with_parent, args=(self.server, self.folder), daemon=True).start()
        try:
            self.server.run()
        finally:
            if self.teardown is not None:
                self.teardown()


class InProcess(Place):
    """The place of a ``LiveServer`` in a process of its own, with its output in a file.

    :param start_method: one of multiprocessing's, None for its default.
    """

    def __init__(self, application: Any, settings: Settings, capture: Capture, start_method: str | None) -> None:
        super().__init__(application, settings, capture)
        self._process = _LoggedProcess(application, settings, start_method)
        self._taken = 0

    def start(self, timeout: float) -> None:
        """Start the server; blocks. On any error it has been stopped again.

        :raises StartupError: it did not start, or not within ``timeout`` seconds.
        :raises TypeError: the application cannot be pickled, and the start method needs that.
        """
        self._process.start()
        try:
            self._wait_until_ready(time.monotonic() + timeout, timeout)
        except BaseException:
            self._end()
            raise
        self.address = (self.settings.host or "127.0.0.1", self._process.port.value)

    def stop(self) -> None:
        """Stop the server and wait for its end; blocks.

        :raises RuntimeError: the process had to be killed, or ended before it was asked to.
        """
        early = self._process.exitcode
        in_time = self._end()
        self._take_failures()
        if early is not None:
            raise RuntimeError(f"the server's process ended by itself with exit code {early}\n{self.log()}")
        if not in_time:
            raise RuntimeError(f"the server's process did not end and was killed\n{self.log()}")

    def log(self) -> str:
        output = self._process.output
        return output.read_text("utf-8", "replace") if output.exists() else ""

    def collect(self) -> None:
        self._process.settle(LAST_WAIT)
        self._take_failures()

    def _take_failures(self) -> None:
        new = self._process.errors[self._taken :]
        self._taken += len(new)
        for error, text in new:
            error.add_note(f"raised in the server's process:\n{text}")
            self.capture.failed(error)

    def _wait_until_ready(self, deadline: float, timeout: float) -> None:
        process = self._process
        while not process.ready.wait(0.05):
            if process.failed_to_start:
                cause = next((error for error, _ in reversed(process.errors)), None)
                raise self.not_started(process.failure() if cause is None else cause) from cause
            if time.monotonic() > deadline:
                raise self.not_started(f"it took longer than {timeout:g} s")

    def _end(self) -> bool:
        """End the process; False when it had to be killed."""
        process = self._process
        process.terminate()
        process.join(self.stop_timeout)
        in_time = process.exitcode is not None
        if not in_time:
            process.kill()
            process.join()
        process.close()
        return in_time


class _LoggedProcess(ServerProcess):
    """Writes its output into the file ``output``."""

    def __init__(self, application: Any, settings: Settings, start_method: str | None) -> None:
        self.start_method = start_method
        names = ("host", "port", *QUICK_STOP)
        keywords = {"settings": settings, **{name: getattr(settings, name) for name in names}}
        super().__init__(settings.host or "", partial(loaded, application, settings), keywords)
        self.output = self.folder / "output"
        self._question, self._answer = multiprocessing.get_context(start_method).Pipe()

    def settle(self, timeout: float) -> None:
        """In the parent: wait for the end of the turn of the child's loop, ``timeout`` seconds at most.

        The child answers a request first, then reports its exception.
        """
        while self._question.poll():
            self._question.recv_bytes()
        self._question.send_bytes(b"?")
        wait([self._question, self.sentinel], timeout)

    def listening(self) -> None:
        # The child keeps the other end open too, so that this end never sees the end of the stream.
        answer = self._answer
        asyncio.get_running_loop().add_reader(answer.fileno(), lambda: answer.send_bytes(answer.recv_bytes()))
        super().listening()

    def run(self) -> None:
        descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(descriptor, number)
        os.close(descriptor)
        # After a fork these may be objects that capture the test's output.
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
        super().run()

    def set_up_logging(self) -> None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        kept = [each for each in logging.getLogger().handlers if _is_file(each)]
        logging.getLogger().handlers[:] = [*kept, handler]
        logging.getLogger("asgiserver").setLevel(logging.INFO)


class _Pickled:
    """Is pickled as the bytes of the pickled ``process``, which :func:`_run_pickled` unpickles."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return bytes, (bytes(ForkingPickler.dumps(self.process)),)
        except Exception as error:
            method = self.process.start_method or multiprocessing.get_start_method()
            raise TypeError(
                f"{_not_picklable(self.process)} cannot be pickled, as the start method {method!r} of multiprocessing "
                f"needs it: give a function of a module, or a functools.partial of one ({error})"
            ) from error


def _not_picklable(process: ServerProcess) -> str:
    for name, value in vars(process).items():
        try:
            ForkingPickler.dumps(value)
        except Exception:  # noqa: BLE001 - the attribute's own class may raise anything
            return _CALLED.get(name, name)
    return f"the class {type(process).__qualname__}"


def _run_pickled(allowed_hosts: list[str] | None, file: Path, pickled: bytes) -> None:
    """In a child that is no fork: unpickle the process, its class too, and report a failure as any other error.

    :param allowed_hosts: Django's ``ALLOWED_HOSTS``, with those of the test; None where Django is not set up.
    """
    with _reporting(file):
        if allowed_hosts is not None:
            import django
            from django.conf import settings

            # The class may be in a test module, and such modules import models.
            django.setup()
            settings.ALLOWED_HOSTS = allowed_hosts
        process = pickle.loads(pickled)
    process.run()


@contextmanager
def _reporting(file: Path, ready: Any = None) -> Iterator[None]:
    """Hand the exception that ends the child to the parent, but no SystemExit after ``ready``, by a second signal."""
    try:
        yield
    except KeyboardInterrupt:
        # The terminal has interrupted the parent too, and the parent reports it.
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        if isinstance(error, SystemExit) and ready is not None and ready.is_set():
            raise
        traceback.print_exception(error)
        failures.append(file, error)
        sys.exit(1)


def _allowed_hosts() -> list[str] | None:
    """Django's ``ALLOWED_HOSTS``, if it is set up by settings that a new process finds too; else None."""
    registry = sys.modules.get("django.apps")
    if "DJANGO_SETTINGS_MODULE" not in os.environ or registry is None or not registry.apps.ready:
        return None
    from django.conf import settings

    return [*settings.ALLOWED_HOSTS]


def _leave_parent() -> None:
    """After a fork: let go of the parent's reactor and signal handlers."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forget_reactor()


def _is_file(handler: logging.Handler) -> bool:
    """Whether ``handler`` writes into a real file; pytest has one that writes into the null device."""
    return isinstance(handler, logging.FileHandler) and handler.baseFilename != os.devnull


def _is_seen(handler: logging.Handler) -> bool:
    stream = getattr(handler, "stream", None)
    return _is_file(handler) or stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


def _stop_with_parent(server: Server, folder: Path) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # A parent that was killed has not removed the folder.
        shutil.rmtree(folder, ignore_errors=True)
        server.stop()
