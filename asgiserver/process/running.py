"""``Server.run``: a reactor that belongs to the server, its signals, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ReactorError, SettingsError
from .reactor import Reactor, install_reactor, loop_of

if TYPE_CHECKING:
    from ..server import Server

__all__ = ["abandon_threads", "run", "tear_down"]

logger = logging.getLogger("asgiserver")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(server: Server) -> None:
    """Run a reactor until ``server`` has served.

    :raises ReactorError: called from a running loop, or the reactor is running elsewhere.
    :raises SettingsError: ``ASGI_THREADS`` is not a number.
    :raises SystemExit: a second signal came before the server had ended; the status is 128 and the signal's number.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ReactorError("Server.run() was called where a loop is running: await Server.serve() instead")
    reactor = install_reactor(server.settings.loop)
    loop = loop_of(reactor)
    executor = _set_up(loop, server.settings.verbosity)
    main = _Main(server, reactor)
    # callLater, not callWhenRunning: those callbacks run before the loop does.
    reactor.callLater(0, main.start)
    takes_signals = server.signal_handlers and threading.current_thread() is threading.main_thread()
    try:
        if takes_signals:
            # Twisted's own handlers too, for the sake of SIGCHLD; ours then take the place of its SIGINT and SIGTERM.
            main.keep_signals()
            # So no KeyboardInterrupt is the user's: it is the application's, like its SystemExit.
            server.contained = (SystemExit, KeyboardInterrupt)
        _run_reactor(reactor, takes_signals, _contained(takes_signals))
    finally:
        main.restore_signals()
        main.reactor_left = True
        tear_down(loop, executor)
    if main.error is not None:
        raise main.error


def _contained(takes_signals: bool) -> tuple[type[BaseException], ...]:
    """What may come out of the loop only because of the application: nobody's signal handler has raised it."""
    if takes_signals:
        return SystemExit, KeyboardInterrupt
    return () if threading.current_thread() is threading.main_thread() else (SystemExit,)


def _run_reactor(reactor: Reactor, takes_signals: bool, contained: tuple[type[BaseException], ...]) -> None:
    """Run ``reactor`` to its end, whatever tasks of the application's own raise, such as those of a Django view.

    asyncio lets a task's SystemExit end the loop, besides giving it to who awaits the task. One view that calls
    ``sys.exit()`` would cut off everybody else's requests.
    """
    run_loop: Callable[[], object] = partial(reactor.run, installSignalHandlers=takes_signals)
    while True:
        try:
            run_loop()
            return
        except contained as error:
            if not reactor.running:
                raise
            logger.error("The application raised %r, which does not end the server", error)
            # The reactor itself still runs; what the loop has not done yet of this turn is done in the next.
            run_loop = loop_of(reactor).run_forever


class _Main:
    """The server's one task on its own reactor."""

    def __init__(self, server: Server, reactor: Any) -> None:
        self.error: BaseException | None = None
        self.reactor_left = False
        self._server = server
        self._reactor = reactor
        self._task: asyncio.Task[None] | None = None
        self._previous: dict[int, Any] = {}

    @property
    def should_exit(self) -> bool:
        """True once the server is asked to stop: sse-starlette looks for this at the owner of SIGTERM's handler."""
        return self._server.stop_requested

    def keep_signals(self) -> None:
        """Remember whose the signals are, before Twisted takes them, which gives none back."""
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def start(self) -> None:
        for number in self._previous:
            signal.signal(number, self._signalled)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._server.serve()
        except asyncio.CancelledError:
            pass  # by the second signal, which has set the error
        except BaseException as error:  # noqa: BLE001 - raised again by run(), outside the reactor
            self.error = error
        finally:
            # A KeyboardInterrupt leaves a reactor that says it runs; to stop it would stop the loop's tear-down.
            if self._reactor.running and not self.reactor_left:
                self._reactor.stop()

    def _signalled(self, number: int, _: Any) -> None:
        # A handler runs between any two instructions of the main thread: leave the work to the loop.
        loop_of(self._reactor).call_soon_threadsafe(self._stop, number)

    def _stop(self, number: int) -> None:
        if not self._server.stop_requested:
            self._server.stop()
        elif self._task is not None and not self._task.done():
            self.error = SystemExit(128 + number)
            self._server.abandon()
            self._task.cancel()

    def restore_signals(self) -> None:
        for number, handler in self._previous.items():
            # None: it was not Python that set it, and so Python cannot set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _set_up(loop: asyncio.AbstractEventLoop, verbosity: int) -> ThreadPoolExecutor:
    if verbosity >= 3:
        loop.set_debug(True)
    threads = os.environ.get("ASGI_THREADS")
    if threads is not None and (not threads.isdecimal() or int(threads) < 1):
        raise SettingsError(f"ASGI_THREADS: expected a whole number of at least 1, got {threads!r}")
    executor = ThreadPoolExecutor(max_workers=None if threads is None else int(threads))
    loop.set_default_executor(executor)
    return executor


def tear_down(loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor) -> None:
    """Leave no task or generator behind; a reactor does not run twice, so its loop is done with.

    A thread that still works for the application cannot be ended; it is not waited for here.
    """
    executor.shutdown(wait=False, cancel_futures=True)
    if loop.is_closed() or loop.is_running():
        return
    with _as_current(loop):
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@contextmanager
def _as_current(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)


def abandon_threads(status: object, seconds: float) -> None:
    """See to it that the process ends, with ``status`` as ``sys.exit`` takes it, within ``seconds`` from now.

    For the very end of a program of its own: Python then waits for every thread of an executor, and one that is stuck
    in a query would keep the process after a stop signal until somebody kills it.
    """
    number = status if isinstance(status, int) else int(status is not None)
    threading.Thread(target=_abandon_threads, args=(number, seconds), daemon=True).start()


def _abandon_threads(status: int, seconds: float) -> None:
    time.sleep(seconds)
    logger.warning("Threads of the application did not end in %g seconds and are abandoned", seconds)
    logging.shutdown()
    os._exit(status)
