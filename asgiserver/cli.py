"""The command line: from arguments to a server that runs, or one clear line for a user's mistake.

:mod:`.flags` has the flags, :mod:`.config` says what else the settings come from. The exit status is 0 after a
stop signal, even one that comes before the server runs; 1 when the application could not be imported or an address not
be listened on; 2 for wrong usage; 3 when the lifespan's start-up failed; 128 plus the signal's number after a later
stop signal.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from . import config, flags, loading
from .asgi.interfaces import Application
from .errors import ASGIServerError, LifespanError, SettingsError
from .listen.accept import check
from .log import setup as logs
from .loop.reactor import install_reactor
from .running import limit_exit
from .server import Server
from .settings import Settings, thread_count
from .signals import held, hold
from .workers.pid_file import pid_file

__all__ = ["CommandLineInterface", "exit_status", "main", "script"]

logger = logging.getLogger("asgiserver")

class CommandLineInterface:
    """The program behind ``asgiserver`` and ``python -m asgiserver``; made to be subclassed, with Daphne's names.

    A subclass may replace ``description`` and ``server_class``, extend ``parser`` in its ``__init__`` (arguments that
    are no settings are left alone), and override :meth:`load_asgi_app`. :meth:`run` sets ``settings`` and ``server``.
    """

    description = "Serves an ASGI application over HTTP and WebSocket."
    server_class: Callable[..., Server] = Server

    def __init__(self) -> None:
        self.parser = flags.parser(self.description)
        self.settings = Settings()
        self.configuration = config.Configuration(self.settings, None, {}, {}, "")
        self.server: Server | None = None
        self._only_checks = False

    @classmethod
    def entrypoint(cls) -> None:
        """Run with the process's own arguments; raises as :meth:`run` does."""
        cls().run(sys.argv[1:])

    @property
    def _supervised(self) -> bool:
        return self.settings.workers is not None or self.settings.reload

    def load_asgi_app(self, asgi_app_path: str) -> Application:
        """Give the application that ``asgi_app_path`` names; ``self.settings`` is complete when this is called.

        :raises SettingsError: printed as one line; an exception that is not ours is printed with its traceback.
        """
        return loading.load_application(asgi_app_path, self.settings)

    def run(self, args: Sequence[str]) -> None:
        """Serve until a stop signal; ``args`` are the arguments without the program's name.

        :raises SystemExit: with a status other than 0, after the reason went to standard error; also, with status 0,
            for ``--help`` and ``--version``.
        """
        with held(), self.reporting():
            path = self.parse(args)
            if self._supervised and not self._only_checks:
                # Not imported without need, like all that is for workers.
                from .workers.launch import supervise

                supervise(self, args)
            logs.configure(self.settings)
            logs.bridge_twisted()
            config.warn_of_unknown_variables(os.environ)
            # Before the application, which may import twisted.internet.reactor and would get another one.
            install_reactor(self.settings.loop)
            self.server = self.server_class(self.load(path), settings=self.settings)
            self.server.configuration = self.configuration
            with pid_file(self.settings.pid_file):
                self.server.run()

    def parse(self, args: Sequence[str]) -> str:
        """Set ``settings`` from all sources, and return what names the application.

        :raises SettingsError: a source or a setting is wrong, or settings do not go together.
        :raises SystemExit: with status 2 for arguments that argparse refuses, 0 for ``--help`` and the like.
        """
        namespace, written = self.parser.read(args)
        names = {config.APPLICATION, *Settings.__dataclass_fields__}
        given = {name: value for name, value in vars(namespace).items() if name in names}
        file, env_file = getattr(namespace, "config", None), getattr(namespace, "env_file", None)
        configuration = self.configuration = config.collect(given, file, env_file, os.environ, written)
        self.settings = configuration.settings
        self._only_checks = hasattr(namespace, "check")
        if hasattr(namespace, "show_settings"):
            sys.stdout.write(config.shown(configuration))
            self.parser.exit()
        if configuration.application is None:
            self.parser.error(flags.no_application(given))
        if self.settings.reload:
            from .workers.watch import quick

            self.settings = quick(self.settings)
        return configuration.application

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Print an ``ASGIServerError`` that the block raises as one line, and exit with its status."""
        try:
            yield
        except ASGIServerError as error:
            self.parser.exit(*explanation(self.parser.prog, error, self.configuration.labels))

    def load(self, path: str) -> Application:
        """The application that :meth:`load_asgi_app` gives; with ``--check``, check all else too, and end.

        :raises SystemExit: after an exception that is not ours, which is printed; with status 0 after a check.
        """
        application = self._loaded(path)
        if self._only_checks:
            self.server_class(application, settings=self.settings)
            thread_count()
            check(self.settings, install_reactor(self.settings.loop), inheritable=self._supervised)
            if self.settings.metrics:
                from .metrics.endpoints import monitor_settings, of_metrics

                with of_metrics():
                    check(monitor_settings(self.settings), install_reactor(self.settings.loop), inheritable=True)
            sys.stdout.write(f"{self.parser.prog}: {path} can be served with these settings\n")
            self.parser.exit()
        return application

    def _loaded(self, path: str) -> Application:
        try:
            application = self.load_asgi_app(path)
            logs.enable()
            return application
        except ASGIServerError:
            raise
        except KeyboardInterrupt:
            # 128 + SIGINT, as a shell reports it: nothing runs yet that could be shut down.
            raise SystemExit(130) from None
        except Exception as error:  # noqa: BLE001 - the application's own fault: its traceback says more than any line
            traceback.print_exception(type(error), error, _outside_import(error.__traceback__))
            raise SystemExit(1) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as ``argv`` says, by default as the process's arguments say.

    :returns: 0 after a stop signal.
    :raises SystemExit: as :meth:`CommandLineInterface.run` does.
    """
    _hold_standard_descriptors()
    CommandLineInterface().run(sys.argv[1:] if argv is None else argv)
    return 0


def script() -> NoReturn:
    """The console script: do as :func:`main` does, then end the process within the limits of ``exit_timeout``."""
    signals = hold()
    # Python calls exit handlers in reverse order: registered first, this one is called last.
    atexit.register(signals.finalize)
    interface = CommandLineInterface()
    status: Any = 1
    try:
        _hold_standard_descriptors()
        interface.run(sys.argv[1:])
        status = 0
    except SystemExit as error:
        status = error.code
        raise
    finally:
        signals.end()
        limit_exit(status, interface.settings.exit_timeout)
    sys.exit(status)


def _hold_standard_descriptors() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed.

    Otherwise a socket could get one of these numbers: output would go to it, and libuv aborts when it closes one.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def exit_status(error: BaseException) -> int:
    """The exit status of a process whose server could not start because of ``error``."""
    if isinstance(error, SettingsError):
        return 2
    return 3 if isinstance(error, LifespanError) else 1


def explanation(prog: str, error: BaseException, labels: Mapping[str, str]) -> tuple[int, str]:
    """The exit status of a process that could not start because of ``error``, and what its user is told.

    :param labels: see :class:`.config.Configuration`.
    """
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        return status, f"{_formatted(error)}{prog}: error: the import ended by {error!r}\n"
    if not isinstance(error, ASGIServerError):
        return 1, _formatted(error)
    if isinstance(error, SettingsError):
        error = error.labelled(partial(config.label, labels))
    cause = error.__cause__ if isinstance(error, LifespanError) else None
    lines = [] if cause is None else traceback.format_exception(cause)
    return exit_status(error), "".join([*lines, f"{prog}: error: {error}\n"])


def _formatted(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _outside_import(error.__traceback__)))


def _outside_import(frames: TracebackType | None) -> TracebackType | None:
    """The traceback without the leading frames of this package and of Python's import machinery."""
    ours = *(os.path.join(os.path.dirname(file), "") for file in (__file__, importlib.__file__)), "<frozen importlib"
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(ours):
        frames = frames.tb_next
    # None for a SyntaxError of the named module itself, which says file and line without any frame.
    return frames
