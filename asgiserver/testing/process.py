"""A server in a child process of the tests, by :mod:`multiprocessing`, used as Daphne's ``DaphneProcess`` is."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ..errors import StartupError
from ..process import logs
from ..process.reactor import forget_reactor
from ..server import Server

__all__ = ["ServerProcess", "is_file", "portable"]

#: How much of an error is handed to the parent, bytes. A queue that nobody reads takes 64 KiB before it blocks.
_MOST_OF_AN_ERROR = 16384

#: What the child is given by the test, and what cannot be pickled when the start method needs that.
_GIVEN = ("get_application", "kwargs", "setup", "teardown")
_CALLED = {"get_application": "the application, or get_application,"}

#: What else is not the test's, besides what multiprocessing.Process keeps itself.
_PLAIN = {"host", "port", "ready", "errors", "_failure", "_told", "_packed"}


@dataclass
class _Packed:
    """What a process that is started without a fork is to become.

    ``allowed_hosts`` are Django's, to which the test has added its own; None where Django is not set up.
    """

    allowed_hosts: list[str] | None
    further: bytes
    given: bytes


class ServerProcess(multiprocessing.Process):
    """Serves an application in a process of its own, until :meth:`terminate`.

    It is what ``channels.testing.ChannelsLiveServerTestCase`` expects as its ``ProtocolServerProcess``.

    :param host: what to listen on.
    :param get_application: called in the child, gives the application.
    :param kwargs: keywords of :class:`asgiserver.Server`; ``graceful_timeout`` is 1 s unless given.
    :param setup: called in the child after ``get_application`` and before serving.
    :param teardown: called in the child after serving, when ``setup`` has returned.
    :param port: TCP port, None or 0 for any free one.

    :ivar port: a ``multiprocessing.Value`` with the real port, once ``ready`` is set.
    :ivar ready: a ``multiprocessing.Event``, set once the server listens.
    :ivar errors: a ``multiprocessing.Queue`` of ``(exception, traceback)`` of what ended the child; the exception is a
        ``RuntimeError`` with the same words when it cannot be pickled.
    :ivar server: the server, in the child only.

    The start method is multiprocessing's own; a subclass may set ``start_method`` to another. With ``spawn`` and
    ``forkserver`` the callables have to be functions of modules, or partials of these. The process is a daemon: it does
    not outlive its parent. :meth:`terminate` lets it end as a stop signal does, with the lifespan's shutdown and
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
        self.errors = context.Queue()
        self._failure = context.RawArray("c", _MOST_OF_AN_ERROR)
        self._told = False
        self._packed: _Packed | None = None

    # In the parent.

    def is_alive(self) -> bool:
        """Whether the process runs.

        :raises StartupError: once, when the process has ended by itself before it was ready; says why.
        """
        alive = super().is_alive()
        if not alive and self.exitcode is not None and not self._told and not self.ready.is_set():
            self._told = True
            raise StartupError(f"the server did not start: {self.failure()}")
        return alive

    def failure(self) -> str:
        """Why the process has ended before it was ready: the traceback, or else the exit status."""
        text: str = self._failure.value.decode("utf-8", "replace")
        return text.strip() or f"its process ended with exit code {self.exitcode}; see what it has printed"

    def terminate(self) -> None:
        """Ask the process to end gracefully (SIGTERM); returns at once."""
        self._told = True
        super().terminate()

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        self._told = True
        super().kill()

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's hook for the start method
        context: Any = multiprocessing.get_context(process_obj.start_method)
        return context.Process._Popen(process_obj)

    def __reduce__(self) -> tuple[Any, ...]:
        # What belongs to the test is unpickled by run() only, where a module that cannot be imported is reported like
        # any other error. The class may be the test's too.
        state = dict(self.__dict__)
        given = _pickled({name: state.pop(name) for name in _GIVEN}, self)
        plain = vars(multiprocessing.Process()).keys() | _PLAIN
        further = {name: state.pop(name) for name in [*state] if name not in plain}
        state["_packed"] = _Packed(_allowed_hosts(), _pickled({"class": type(self), **further}, self), given)
        return _unpickled, (state,)

    # In the child.

    def run(self) -> None:
        """Serve; called by :mod:`multiprocessing` in the child. Exits with status 1 after an error."""
        packed = self._packed
        if packed is not None and packed.further:
            with self._reporting():
                self._unpack(packed)
            # That of a subclass, perhaps.
            self.run()
        else:
            with self._reporting():
                self._serve()

    def make_server(self, application: Any, **keywords: Any) -> Server:
        """The server that the child runs."""
        return Server(application, **keywords)

    def set_up_logging(self) -> None:
        """Let warnings and errors be seen when the handlers that were forked all write to the parent's memory."""
        root = logging.getLogger()
        if not any(map(_is_seen, [*root.handlers, *logging.getLogger("asgiserver").handlers])):
            root.addHandler(logging.StreamHandler(sys.stderr))

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            # The terminal has sent it to the parent too, which says what there is to say.
            sys.exit(128 + signal.SIGINT)
        except BaseException as error:
            if isinstance(error, SystemExit) and self.ready.is_set():
                raise
            self._report(error)
            sys.exit(1)

    def _unpack(self, packed: _Packed) -> None:
        """Become what the parent has made."""
        if packed.allowed_hosts is not None:
            import django
            from django.conf import settings

            # Test modules import models.
            django.setup()
            settings.ALLOWED_HOSTS = packed.allowed_hosts
        further = pickle.loads(packed.further)
        packed.further = b""
        self.__class__ = further.pop("class")
        self.__dict__.update(further)

    def _serve(self) -> None:
        _leave_parent()
        if self._packed is not None:
            self.__dict__.update(pickle.loads(self._packed.given))
        keywords = {"host": self.host, "port": self.port.value, "graceful_timeout": 1, **self.kwargs}
        application = self.get_application()
        logs.enable()
        self.set_up_logging()
        self.server = self.make_server(application, ready_callable=self._listening, **keywords)
        if self.setup is not None:
            self.setup()
        threading.Thread(target=_stop_with_parent, args=(self.server,), daemon=True).start()
        try:
            self.server.run()
        finally:
            if self.teardown is not None:
                self.teardown()

    def _listening(self) -> None:
        addresses = self.server.listening_addresses
        self.port.value = addresses[0][1] if addresses else 0
        self.ready.set()

    def _report(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        print(text, end="", file=sys.stderr, flush=True)  # noqa: T201 - the child's last words
        # The end of a traceback says most; a NUL would end it early.
        end = text.replace("\0", "").encode("utf-8", "replace")[1 - _MOST_OF_AN_ERROR :]
        if not self.ready.is_set():
            self._failure.value = end
        self.errors.put((portable(error), end.decode("utf-8", "replace")))


def portable(error: BaseException) -> BaseException:
    """``error``, or a RuntimeError that says the same when it does not survive pickling or is too long."""
    try:
        pickled = pickle.dumps(error)
        if len(pickled) <= _MOST_OF_AN_ERROR and type(pickle.loads(pickled)) is type(error):
            return error
    except Exception:  # noqa: BLE001 - whatever the error's own class does in there: it is not portable
        pass
    return RuntimeError(f"{type(error).__name__}: {error}"[: _MOST_OF_AN_ERROR // 4])


def _pickled(values: dict[str, Any], process: ServerProcess) -> bytes:
    for name, value in values.items():
        try:
            ForkingPickler.dumps(value)
        except Exception as error:
            method = process.start_method or multiprocessing.get_start_method()
            raise TypeError(
                f"{_CALLED.get(name, name)} cannot be pickled, as the start method {method!r} of multiprocessing "
                f"needs it: give a function of a module, or a functools.partial of one ({error})"
            ) from error
    return bytes(ForkingPickler.dumps(values))


def _unpickled(state: dict[str, Any]) -> ServerProcess:
    process = ServerProcess.__new__(ServerProcess)
    process.__dict__.update(state)
    return process


def _allowed_hosts() -> list[str] | None:
    """Django's, if it is set up by settings that a new process finds too."""
    registry = sys.modules.get("django.apps")
    if "DJANGO_SETTINGS_MODULE" not in os.environ or registry is None or not registry.apps.ready:
        return None
    from django.conf import settings

    return [*settings.ALLOWED_HOSTS]


def _leave_parent() -> None:
    """After a fork: have no part in the parent's reactor and signals."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forget_reactor()


def is_file(handler: logging.Handler) -> bool:
    """Whether it writes into a file; pytest has one that writes into none."""
    return isinstance(handler, logging.FileHandler) and handler.baseFilename != os.devnull


def _is_seen(handler: logging.Handler) -> bool:
    stream = getattr(handler, "stream", None)
    return is_file(handler) or stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


def _stop_with_parent(server: Server) -> None:
    parent: BaseProcess | None = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        server.stop()
