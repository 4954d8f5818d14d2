"""``run`` and ``Server.run``: a reactor that belongs to the server, its signals, and its end.

The effect of a signal depends on the moment at which it comes. A stop signal within one second of another counts as
the same one, unless it asks for more.

==================  ==========  ==========  ==========  ==========  ==========  ==========  ============
signal              import      start-up    serving     draining    shutdown    exit        loop blocked
==================  ==========  ==========  ==========  ==========  ==========  ==========  ============
INT, TERM           ends        ends        drain       goes on     goes on     goes on     when free
QUIT                ends        ends        shutdown    shutdown    goes on     goes on     when free
a later stop        at once     at once                 at once     at once     at once     at once
HUP, USR1, USR2     log line    log line    log line    log line    log line    nothing     when free
==================  ==========  ==========  ==========  ==========  ==========  ==========  ============

The drain begins after ``shutdown_delay``, unless a later signal comes before that.

HUP has changed certificates read again instead, where the server has any.

*Import* is everything before :func:`run_server`, *start-up* and *shutdown* are the lifespan's, at *exit* the server
has ended and Python waits for threads and calls exit handlers. The *loop* is *blocked* while the application does not
give it back, at any of these moments; the signal then has its effect *when* the loop is *free*. All this ends with
status 0.

*At once* means without drain and shutdown, and the status is 128 plus the signal's number. A blocked loop has one
second to take up a later stop, and none when it has not taken up the first one; then the process ends without exit
handlers. Only C code that does not come back to the interpreter can delay this: Python calls no handler meanwhile. QUIT
during a drain is a later stop only after another QUIT. No unix socket's file stays behind in any of these cases.

A process that the application forks has the handlers that were there before the server's. It ends when it comes back to
the loop, or raises SystemExit to it, also from a pool's thread: everything that the loop knows belongs to the parent.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from .errors import ReactorError, SettingsError
from .forks import let_go_in_children
from .log import setup as logs
from .loop.reactor import install_reactor, loop_of
from .settings import Settings, thread_count
from .signals import Asked, Signals, held

if TYPE_CHECKING:
    from .server import Server

__all__ = ["limit_exit", "run", "run_server", "tear_down"]

logger = logging.getLogger("asgiserver")


def run(application: Any, settings: Settings | None = None, **keywords: Any) -> None:
    """Serve an application until a signal; for a script of one's own.

    :param application: an application, or the name of one as on the command line, ``"module:app"``.
    :param settings: as all others, of :class:`Server`.
    :raises SettingsError: a setting is wrong, or is one that the command line alone has.
    :raises ASGIServerError: as ``Server.run``.
    """
    from .server import Server

    if isinstance(application, str):
        # Before the application, which may import twisted.internet.reactor and would get another one.
        install_reactor(keywords.get("loop", "auto" if settings is None else settings.loop))
    server = Server(application, settings, **keywords)
    for name in ("workers", "reload"):
        if getattr(server.settings, name):
            raise SettingsError(f"{name}: only the command line starts processes: asgiserver --{name}", name)
    server.run()


def run_server(server: Server) -> None:
    """Run a reactor until ``server`` has served.

    :raises ReactorError: called from a running loop, or the reactor is running elsewhere.
    :raises SettingsError: ``ASGI_THREADS`` is not a number.
    :raises SystemExit: a later stop signal came before the server had ended; the status is 128 plus its number.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ReactorError("Server.run() was called where a loop is running: await Server.serve() instead")
    if isinstance(server.action_logger, logs.AccessLog):
        logs.configure_for_script(server.settings)
    reactor = install_reactor(server.settings.loop)
    loop = loop_of(reactor)
    executor = _set_up(loop, server.settings.verbosity)
    takes_signals = server.signal_handlers and threading.current_thread() is threading.main_thread()
    holding: AbstractContextManager[Signals | None] = held() if takes_signals else nullcontext()
    with holding as signals:
        main = _Main(server, reactor, signals)
        # callLater, not callWhenRunning, whose callbacks run before the loop does.
        reactor.callLater(0, main.start)
        try:
            if signals is not None:
                signals.serve(main.signalled, main.remove_files)
                # No handler raises KeyboardInterrupt now, so only the application can raise it, like SystemExit.
                server.contained = (SystemExit, KeyboardInterrupt)
                server.ends_by_ctrl_c = server.bound is None and logs.on_terminal()
            _run_reactor(reactor, signals, main)
        finally:
            main.reactor_left = True
            if signals is not None:
                signals.end()
            tear_down(loop, executor)
    if main.error is not None:
        raise main.error


def _contained(takes_signals: bool) -> tuple[type[BaseException], ...]:
    """The exceptions that come out of the loop only if the application has raised them, not a signal handler."""
    if takes_signals:
        return SystemExit, KeyboardInterrupt
    return () if threading.current_thread() is threading.main_thread() else (SystemExit,)


def _run_reactor(reactor: Any, signals: Signals | None, main: _Main) -> None:
    """Run ``reactor`` to its end, even if a task of the application's own, such as one of a Django view, raises.

    asyncio lets a task's SystemExit end the loop, besides raising it where the task is awaited. One view that calls
    ``sys.exit()`` would cut off all other requests.
    """
    if signals is not None:
        # Twisted sets handlers too. Its own for SIGCHLD is wanted; for the others it sets the server's, without a gap.
        reactor.sigInt = reactor.sigTerm = signals.handle
    contained = _contained(signals is not None)
    run_loop: Callable[[], object] = partial(reactor.run, installSignalHandlers=signals is not None)
    while True:
        try:
            run_loop()
            return
        except contained as error:
            if main.forked or not reactor.running:
                raise
            logger.error("The application raised %r, which does not end the server", error)
            # The reactor itself still runs; callbacks that are left of this turn of the loop are called in the next.
            run_loop = loop_of(reactor).run_forever
        finally:
            if main.forked:
                _end_child(sys.exc_info()[1])


def _end_child(error: BaseException | None) -> NoReturn:
    """End a process that the application has forked on the loop; ``error`` is what came out of the loop there.

    Exit handlers are not called: they are the parent's, as in a child of multiprocessing.
    """
    status = 0
    try:
        if isinstance(error, SystemExit) and isinstance(error.code, int | None):
            status = error.code or 0
        elif error is not None:
            status = 130 if isinstance(error, KeyboardInterrupt) else 1
            if isinstance(error, SystemExit):
                print(error.code, file=sys.stderr)  # noqa: T201 - as sys.exit does
            else:
                sys.excepthook(type(error), error, error.__traceback__)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status & 255)


def _come_back(process: object, _: object, *arguments: object, **__: object) -> None:
    """Replaces ``call_soon_threadsafe`` of the parent's loop in a child that was forked in another thread.

    A child of multiprocessing ends by itself; it is known by its process object, which is not ``process`` any more.
    """
    if _process() is process:
        # asyncio passes the thread's future, and anyio the exception that the thread has raised.
        errors = (each.exception() if isinstance(each, Future) else each for each in arguments)
        _end_child(next((each for each in errors if isinstance(each, BaseException)), None))


def _process() -> object:
    """The object by which multiprocessing knows this process; None as long as nobody has imported multiprocessing."""
    module = sys.modules.get("multiprocessing.process")
    return None if module is None else module.current_process()


class _Main:
    """The server's one task on its own reactor.

    :ivar forked: True in a process that the application has forked.
    """

    def __init__(self, server: Server, reactor: Any, signals: Signals | None) -> None:
        self.error: BaseException | None = None
        self.reactor_left = False
        self.forked = False
        self._server = server
        self._reactor = reactor
        self._signals = signals
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.get_ident()
        let_go_in_children(self)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def let_go(self) -> None:
        """In a forked child: have the process end when it comes back to the loop."""
        self.forked = True
        loop = loop_of(self._reactor)
        if not loop.is_closed():
            # The loop would log complaints about the parent's tasks.
            loop.set_exception_handler(lambda *_: None)
            loop.stop()
            if threading.get_ident() != self._thread:
                # A pool's thread would hand its result to the loop, and then wait for more work for ever.
                cast(Any, loop).call_soon_threadsafe = partial(_come_back, _process())

    async def _run(self) -> None:
        try:
            await self._server.serve()
        except asyncio.CancelledError:
            pass  # cancelled by a later stop signal, which has set the error
        except BaseException as error:  # noqa: BLE001 - raised again by run(), outside the reactor
            self.error = error
        finally:
            # After a KeyboardInterrupt the reactor still says that it runs; to stop it would stop the loop's tear-down.
            if self._reactor.running and not self.reactor_left:
                self._reactor.stop()

    def signalled(self, asked: Asked, number: int) -> None:
        """Hand the request over to the loop: a handler runs between any two instructions of the main thread."""
        # In a context of its own, or the log would name the request that was interrupted.
        loop_of(self._reactor).call_soon_threadsafe(self._take_up, asked, number, context=Context())

    def remove_files(self) -> None:
        """Leave no unix socket's file behind when the process ends at once."""
        for listener in self._server.listeners:
            listener.remove_file()

    def _take_up(self, asked: Asked, number: int) -> None:
        if asked is Asked.NOTHING:
            name = signal.Signals(number).name
            if name != "SIGHUP" or not self._server.read_certificates():
                logger.info("%s is ignored", name)
            return
        assert self._signals is not None
        self._signals.taken_up = asked
        if asked is not Asked.END:
            self._server.stop(wait=asked is Asked.STOP)
        elif self._task is not None and not self._task.done():
            self.error = SystemExit(128 + number)
            self._server.abandon()
            self._task.cancel()


def _set_up(loop: asyncio.AbstractEventLoop, verbosity: int) -> ThreadPoolExecutor:
    if verbosity >= 3:
        loop.set_debug(True)
    executor = ThreadPoolExecutor(max_workers=thread_count())
    loop.set_default_executor(executor)
    return executor


def tear_down(loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor) -> None:
    """Leave no task or generator behind, and close the loop: its reactor does not run twice.

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


def limit_exit(status: object, seconds: float | None, *, threads: float | None = None) -> None:
    """Make sure that a program that has nothing left to do ends, with ``status`` as ``sys.exit`` takes it.

    Python waits at its end for every thread of an executor, and then calls the exit handlers. A thread that is stuck in
    a query would keep the process alive until somebody kills it, and would keep the exit handlers from being called:
    after the limit they are called without waiting for the thread.

    :param seconds: for the exit handlers, from the start of the first one on; None for no limit.
    :param threads: seconds for the threads, from now on; by default as many as ``seconds``.
    """
    if seconds is None:
        return
    number = status if isinstance(status, int) else int(status is not None)
    begun = threading.Event()
    # Python calls exit handlers in reverse order: registered last, this one is called first.
    atexit.register(begun.set)
    arguments = (number, seconds, seconds if threads is None else threads, begun)
    threading.Thread(target=_limit_exit, args=arguments, daemon=True).start()


def _limit_exit(status: int, seconds: float, threads: float, begun: threading.Event) -> None:
    if not begun.wait(threads):
        main = threading.main_thread()
        names = [each.name for each in threading.enumerate() if not each.daemon and each is not main]
        logger.warning("Threads that did not end in %g seconds are abandoned: %s", threads, ", ".join(names))
        threading.Thread(target=_call_exit_handlers, args=(status,), daemon=True).start()
    time.sleep(seconds)
    logger.warning("The exit handlers did not end in %g seconds and are abandoned", seconds)
    _leave(status)


def _call_exit_handlers(status: int) -> None:
    atexit.register(_stay)
    atexit._run_exitfuncs()
    _leave(status)


def _stay() -> None:
    """Block the main thread, which would call the handlers a second time if the threads end after all."""
    if threading.current_thread() is threading.main_thread():
        threading.Event().wait()


def _leave(status: int) -> NoReturn:
    logging.shutdown()
    os._exit(status)
