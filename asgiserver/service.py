"""Serving inside Twisted's own programs: a service for a ``.tac`` file, and the options and service of ``twist asgi``.

The reactor and its signals belong to the host, which must have chosen asyncio's reactor::

    twistd --reactor=asyncio -ny web.tac
    twist --reactor=asyncio asgi -p 8000 mysite.asgi:application

So does the log: where Twisted's has taken standard output over, as in both of these programs, the server's lines and
the access log go there, unless the application has configured :mod:`logging`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LoggingFile, LogLevel
from twisted.python import usage

from .cli import CommandLineInterface, exit_status
from .errors import ASGIServerError, ReactorError
from .log import setup as logs
from .loop.reactor import Reactor, install_reactor, loop_of
from .server import Server
from .settings import Settings

__all__ = ["ASGIService", "Options", "makeService"]

logger = logging.getLogger("asgiserver")


class _ProgramError(SystemExit, ReactorError):
    """The wrong reactor in a program of Twisted's: the interpreter shows it without a traceback.

    It is also an Exception, as ``twistd`` waits for the daemon for ever when the daemon fails in another way.
    """


class ASGIService(service.Service):
    """Serves an application from the start of the service to its end.

    ::

        application = service.Application("web")
        ASGIService(app, endpoints=["tcp:8000"]).setServiceParent(application)

    The ports are opened when the application has started, after ``twistd`` has given up its privileges: let systemd
    open a port below 1024.

    :param application: like all other parameters, as :class:`Server` takes it.
    :raises SettingsError: a setting is wrong or unknown.

    :ivar server: the server that runs or will run; a service that is started again has a new one.
    """

    server: Server

    def __init__(self, application: Any, settings: Settings | None = None, **keywords: Any) -> None:
        self._make_server: Callable[[], Server] = partial(Server, application, settings, **keywords)
        self.server = self._make_server()
        self._starting: Any = None
        self._task: asyncio.Task[None] | None = None

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Begin to serve as soon as the reactor runs.

        A server that cannot start is logged, and stops the reactor.

        :raises ReactorError: Twisted's reactor is not asyncio's.
        """
        try:
            reactor = install_reactor()
        except ReactorError as error:
            if _twisted_logs():
                raise _ProgramError(str(error)) from None
            raise
        super().startService()  # type: ignore[no-untyped-call]
        if self._task is not None:
            self.server, self._task = self._make_server(), None
        # The callbacks of callWhenRunning run before the loop does.
        self._starting = reactor.callLater(0, self._serve, reactor)

    def stopService(self) -> Deferred[None] | None:  # noqa: N802 - Twisted's name
        """Stop gracefully; the Deferred fires when the last response is sent and the application has shut down."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self._task is None or self._task.done():
            return None
        self.server.stop()
        stopped: Deferred[None] = Deferred()
        self._task.add_done_callback(lambda _: stopped.callback(None))
        return stopped

    def _serve(self, reactor: Reactor) -> None:
        self._starting = None
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(partial(self._ended, reactor))

    async def _run(self) -> None:
        # By now the program has begun its log.
        if _twisted_logs() and not logging.getLogger().handlers:
            _log_to_twisted(self.server.settings)
        await self.server.serve()

    def _ended(self, reactor: Reactor, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if isinstance(error, ASGIServerError):
            # The message says it all, without a traceback.
            logger.error("%s", error)
        else:
            logger.error("The server failed", exc_info=error)
        if reactor.running:
            _end_reactor(reactor, exit_status(error))


def _end_reactor(reactor: Reactor, status: int) -> None:
    """Stop the reactor with its shutdown triggers, and if possible have its ``run()`` raise SystemExit.

    ``run()`` of a stopped reactor returns, for whatever reason it was stopped, and ``twist`` then exits with 0. Only a
    callback on the loop itself may raise SystemExit, once the shutdown is done. Firing ``last`` completes the shutdown,
    unless another service still needs time; the status is 0 then.
    """
    last: Deferred[None] = Deferred()

    def leave() -> None:
        last.callback(None)
        if not reactor.running:
            raise SystemExit(status)

    def shutdown() -> Deferred[None]:
        loop_of(reactor).call_soon(leave)
        return last

    reactor.addSystemEventTrigger("before", "shutdown", shutdown)
    reactor.stop()


class Options(usage.Options):
    """The options of ``twist asgi``: those of the ``asgiserver`` command, with the same messages and exit statuses."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.interface = CommandLineInterface()
        self.interface.parser.prog = "twist asgi"
        self.path = ""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802 - Twisted's name
        """Read the arguments that follow ``asgi``."""
        with self.interface.reporting():
            self.path = self.interface.parse(options or [])


def makeService(options: Options) -> ASGIService:  # noqa: N802 - Twisted's name
    """The service of ``twist asgi``.

    The log goes where Twisted's does, unless ``--log-config`` or ``--access-log`` says otherwise.

    :raises SystemExit: the reactor or the application is wrong; the reason was printed.
    """
    interface = options.interface
    with interface.reporting():
        install_reactor()
        _log_to_twisted(interface.settings)
        return ASGIService(interface.load(options.path), interface.settings)
    raise AssertionError("an error is reported by exiting")


class _TwistedLog(logging.Handler):
    """Hands records on to Twisted's log, which a daemon keeps in a file."""

    def emit(self, record: logging.LogRecord) -> None:
        level = LogLevel.levelWithName(_LEVELS.get(record.levelname, "info"))
        Logger(namespace=record.name).emit(cast(Any, level), "{text}", text=self.format(record))


_LEVELS = {"DEBUG": "debug", "WARNING": "warn", "ERROR": "error", "CRITICAL": "critical"}


def _twisted_logs() -> bool:
    """Whether Twisted's log has begun, and has taken standard output over."""
    return isinstance(sys.stdout, LoggingFile)


def _log_to_twisted(settings: Settings) -> None:
    """Set logging up as the command line does, but into Twisted's log.

    :raises SettingsError: as of :func:`.configure`.
    """
    root, access = logging.getLogger(), logging.getLogger(logs.ACCESS)
    if not root.handlers:
        root.addHandler(_TwistedLog())
        if settings.access_log is None and settings.log_config is None and not access.handlers:
            access.addHandler(_TwistedLog())
            access.propagate = False
    logs.configure(settings)
