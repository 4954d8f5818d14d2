"""The server: the hub's life, from the application's start-up to the last byte of the last response."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from . import __version__
from .asgi.lifespan import Lifespan
from .asgi.scope import ScopeBuilder
from .asgi.websocket import WebSocketExchange
from .errors import LifespanError, ReactorError, RequestError
from .forks import let_go_in_children
from .hub import Hub
from .listen.accept import Listener
from .listen.bind import Bound
from .listen.endpoints import listen
from .loading import as_asgi3, load_application
from .log.setup import ActionLogger
from .loop.clock import LoopClock
from .loop.reactor import Reactor, install_reactor, loop_of, separate_epoll
from .settings import PROXY_PEERS, TRUSTED_PEERS, Settings, thread_count
from .wire.connection import HTTPFactory

if TYPE_CHECKING:
    from .asgi.forwarded import Forwarding
    from .config import Configuration
    from .metrics.beside import Beside
    from .slow import SlowRequests

__all__ = ["Server", "preload"]

logger = logging.getLogger("asgiserver")

#: How long the server waits, at the very end, for cancelled applications and for peers that owe a close frame; seconds.
_LAST_WAIT = 0.5

#: How long applications, once told that their client is gone, have to end before they are cancelled; seconds.
_TOLD_WAIT = 0.1

#: Threads for Django's sync views where nobody says how many: as many as anyio has.
_DJANGO_THREADS = 40


class Server(Hub):
    """Serves one application on any number of endpoints.

    :param application: an ASGI 3 application; ASGI 2 is wrapped, see ``interface``. A text names one to import, as on
        the command line: ``"module:app"``.
    :param settings: all settings at once.
    :param endpoints: Twisted endpoint descriptions to listen on, as ``settings.endpoints``.
    :param action_logger: called with ``(protocol, action, details)``; by default the logger ``asgiserver.access``.
    :param ready_callable: called without arguments once everything listens.
    :param signal_handlers: let :meth:`run` take SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1 and SIGUSR2.
    :param reactor: a Twisted reactor on the loop that serves, by default the process's; :meth:`run` takes no other.
    :param on_failure: called on the loop with each exception of the application, for tests and error trackers: with an
        :class:`~asgiserver.errors.ApplicationError` for a missing answer, and at the end with the lifespan's
        exception. An exception that ``on_failure`` itself raises is logged.
    :param keywords: single settings, Daphne's names among them; they win over ``settings``.
    :raises SettingsError: a setting is wrong or unknown.

    A server serves once. Importing and making one has no side effect: no loop, reactor or socket is touched before
    :meth:`run`, :meth:`serve` or ``async with``.
    """

    def __init__(
        self,
        application: Any,
        settings: Settings | None = None,
        *,
        endpoints: Iterable[str] | None = None,
        action_logger: ActionLogger | None = None,
        ready_callable: Callable[[], object] | None = None,
        signal_handlers: bool = True,
        reactor: Reactor | None = None,
        on_failure: Callable[[BaseException], object] | None = None,
        **keywords: Any,
    ) -> None:
        if endpoints is not None:
            keywords["endpoints"] = tuple(endpoints)
        if settings is None:
            settings = Settings.from_keywords(**keywords)
        elif keywords:
            settings = dataclasses.replace(settings, **Settings.named(keywords))
        if isinstance(application, str):
            application = load_application(application, settings)
        super().__init__(as_asgi3(application, settings.interface), settings, action_logger, on_failure)
        self.listeners: list[Listener] = []
        #: Sockets that another process has bound, to accept on in place of those of the settings.
        self.bound: list[Bound] | None = None
        self.ready_callable = ready_callable
        self.signal_handlers = signal_handlers
        self.reactor = reactor
        #: Somebody at a terminal can stop the server, and is told how.
        self.ends_by_ctrl_c = False
        #: True from the first :meth:`stop` on.
        self.stop_requested = False
        #: Where the settings come from, for ``--metrics``.
        self.configuration: Configuration | None = None
        self._forwarding = _forwarding(settings)
        self._slow_requests: SlowRequests | None = None
        self._stopped = asyncio.Event()
        self._lifespan: Lifespan | None = None
        self._beside: Beside | None = None
        self._django_threads = 0
        self._end_django: Callable[[], Awaitable[None]] | None = None
        self._abandoned = False
        self._waits = True
        #: Time and spread of :meth:`drain`; None when nobody else serves.
        self._handover: tuple[float | None, float] | None = None
        self._patience: asyncio.Timeout | None = None
        self._serving: asyncio.Future[None] | None = None

    @property
    def listening_addresses(self) -> list[tuple[str, int]]:
        """Host and real port of every TCP port that is listened on."""
        return [listener.address for listener in self.listeners if listener.address is not None]

    @property
    def surroundings(self) -> str:
        """For the log: the version, Python's, the event loop, and the threads of Django's sync views."""
        loop = type(self._loop).__module__.partition(".")[0]
        python = sys.version.partition(" ")[0]
        django = f", {self._django_threads} threads for Django's sync views" if self._end_django is not None else ""
        return f"asgiserver {__version__}, Python {python}, {loop}{django}"

    # Ways to run.

    def run(self) -> None:
        """Serve until a signal or :meth:`stop`, on a reactor of its own; blocks.

        :raises LifespanError: the application did not start.
        :raises ListenError: an address could not be listened on.
        :raises ReactorError: another reactor is in the way.
        """
        from .running import run_server

        run_server(self)

    async def serve(self) -> None:
        """Serve on the running loop until :meth:`stop` or cancellation; raises as :meth:`run` does."""
        self._prepare()
        if self.stop_requested:
            return
        starting = asyncio.ensure_future(self._start())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopped
        finally:
            starting.cancel()
            stopped.cancel()
            await asyncio.gather(starting, stopped, return_exceptions=True)
            await self._close()

    async def __aenter__(self) -> Self:
        """Serve while the body of an ``async with`` runs; raises as :meth:`run` does."""
        self._prepare()
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        self._serving = asyncio.ensure_future(self._close_when_stopped())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        if self.forked:
            return
        self.stop()
        await self._serving

    async def _close_when_stopped(self) -> None:
        await self._stopped.wait()
        await self._close()

    def stop(self, *, wait: bool = True) -> None:
        """Ask a running server to end gracefully; from any thread, any number of times. Returns at once.

        :param wait: False to cancel running requests instead of waiting for their end, even if that wait has begun. The
            lifespan's shutdown runs all the same.
        """
        self._waits = self._waits and wait
        self._handover = None
        self.stop_requested = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._take_up_stop)

    def drain(self, timeout: float | None, spread: float) -> None:
        """Ask a running server to end because another process serves on the same sockets. Returns at once.

        Nobody is cut off: a connection ends with its next response or when it has been idle for too long, and requests
        on it are answered until then, handshakes of WebSockets too. :meth:`stop` ends this at any time.

        :param timeout: seconds until clients that are left are asked to leave: WebSockets by a close frame, streams
            without end by the application. Then ``graceful_timeout`` counts. None for no limit.
        :param spread: seconds over which the WebSockets are closed, so that their clients do not all come back at once.
        """
        if not self.stop_requested:
            self.stop()
            self._handover = timeout, spread

    def _take_up_stop(self) -> None:
        self._stopped.set()
        self._changed.set()
        if not self._waits and self._patience is not None and self._patience.when() is None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    def read_certificates(self) -> bool:
        """Read changed certificates at once, without waiting for a handshake; False when the server has none."""
        read = [listener.read_certificates() for listener in self.listeners]
        return any(read)

    def abandon(self) -> None:
        """Do not run the lifespan's shutdown when the end comes; for a second signal."""
        self._abandoned = True

    def let_go(self) -> None:
        """In a forked child: leave the clients and their requests to the parent."""
        self.forked = True
        self.contained = ()
        for connection in list(self.connections):
            sock = getattr(connection.transport, "socket", None)
            if sock is not None:
                # A copy left open would keep the peer from seeing the end.
                sock.close()
        if self._loop is not None:
            separate_epoll(self._loop)

    # The life cycle.

    def _prepare(self) -> None:
        if self._loop is not None:
            raise RuntimeError("a Server serves only once: make another one")
        self._loop = asyncio.get_running_loop()
        let_go_in_children(self)
        if self.stop_requested:
            self._stopped.set()

    async def _start(self) -> None:
        reactor = install_reactor() if self.reactor is None else self.reactor
        if loop_of(reactor) is not self._loop:
            raise ReactorError("the reactor that Server was given is on another event loop than the one that serves")
        self.clock = LoopClock(asyncio.get_running_loop())
        if self.settings.slow_request_log is not None:
            from .slow import SlowRequests

            self._slow_requests = SlowRequests(self._tasks, self.settings.slow_request_log, self.clock)
        if self.settings.metrics and self.bound is None:
            from .metrics.beside import Beside

            self._beside = Beside(self)
            await self._beside.start()
        self._begin_django()
        self._lifespan = Lifespan(self.application, self.settings, self._context)
        await self._lifespan.startup()
        state = self._lifespan.state if self._lifespan.supported else None
        self._scopes = ScopeBuilder(self.settings.root_path, self._forwarding, state)
        self.listeners = await listen(self.settings, HTTPFactory(self), reactor, self.bound)
        if self.bound is None:
            # Not before, so that a mistake is one line.
            logger.info("%s, 1 process", self.surroundings)
            for listener in self.listeners:
                logger.info("Listening on %s", listener.description)
        if self.ends_by_ctrl_c:
            logger.info("Ctrl-C stops it")
        self._warn_of_untrusted_proxy()
        if self.ready_callable is not None:
            self.ready_callable()

    def _begin_django(self) -> None:
        """Serve a Django project the short way."""
        serving = _django(self.settings)
        if serving is None:
            return
        self._django_threads = self.settings.django_threads or thread_count() or _DJANGO_THREADS
        self.application, self._end_django = serving.begin(self.application, self._django_threads)

    def _warn_of_untrusted_proxy(self) -> None:
        """Daphne trusts every peer of its unix socket; here ``forwarded_allow_ips`` has to name them."""
        trusted = {"unix", "*"}.intersection(self.settings.forwarded_allow_ips)
        if self.settings.proxy_headers and not trusted and any(each.address is None for each in self.listeners):
            logger.warning(
                "proxy_headers is on, but forwarded_allow_ips trusts no peer of a unix socket: add 'unix' to it"
            )

    async def _close(self) -> None:
        """Stop listening, drain, and run the lifespan's shutdown; when this is cancelled, drop connections at once."""
        if self.forked:
            return
        try:
            try:
                await self._delay()
            finally:
                await self._close_listeners()
            # A later stop signal may have come before the drain began.
            if not self._abandoned:
                await self._end_requests()
        finally:
            if self._slow_requests is not None:
                self._slow_requests.stop()
            for connection in list(self.connections):
                connection.drop()
            if self._end_django is not None:
                await self._end_django()
            if self._lifespan is not None and not self._abandoned:
                await self._lifespan.shutdown()
            if self._lifespan is not None and self._lifespan.failed:
                if self.counts is not None:
                    self.counts.add("application_exceptions", "lifespan")
                self.report(self._lifespan.error or LifespanError("the application failed to shut down, see the log"))
            if self._beside is not None:
                await self._beside.close(quick=self._abandoned)
            if self.listeners and self.bound is None:
                logger.info("Stopped")

    async def _delay(self) -> None:
        """Serve on for ``shutdown_delay``, unless nobody serves yet, or others do; a supervisor has waited already."""
        delay = self.settings.shutdown_delay
        if delay and self.bound is None and self.listeners and self._waits and self._handover is None:
            logger.info("Stopping in %g s", delay)
            deadline = asyncio.get_running_loop().time() + delay
            await self._wait_until(lambda: not self._waits or self._abandoned, deadline)

    async def _close_listeners(self) -> None:
        if self.listeners:
            logger.info("%s%s", "Stopping" if self._handover is None else "Draining", self._waited_for())
        for listener in self.listeners:
            listener.shared = listener.shared or self._handover is not None
            await listener.close()

    def _waited_for(self) -> str:
        """The end of the line that says that the server stops."""
        websockets = sum(isinstance(exchange, WebSocketExchange) for exchange in self._tasks)
        counts = ((len(self._tasks) - websockets, "request"), (websockets, "WebSocket"))
        what = " and ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts if count)
        if not what or self._handover is not None:
            return ""
        if not self._waits:
            return f": cancels {what}"
        timeout = self.settings.graceful_timeout
        limit = "without limit" if timeout is None else f"up to {timeout:g} s"
        return f": waits {limit} for {what}{'; Ctrl-C again ends it at once' if self.ends_by_ctrl_c else ''}"

    async def _end_requests(self) -> None:
        """Drain; cancel the requests at once when :meth:`stop` is told not to wait, before or meanwhile."""
        try:
            async with asyncio.timeout(None if self._waits else 0) as self._patience:
                await self._hand_over()
                await self._drain()
        except TimeoutError:
            self.draining = False
            self.refusing = True
            if self._tasks:
                await self._cancel_applications()
        finally:
            self._patience = None

    async def _hand_over(self) -> None:
        """Wait until the clients have left for the process that serves now, then ask those that stay to leave."""
        if self._handover is None:
            return
        timeout, spread = self._handover
        self.stopping = self.draining = True
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        await self._wait_until(self._is_handed_over, deadline)
        self.draining = False
        self.ending = True
        for exchange in list(self._tasks):
            if not isinstance(exchange, WebSocketExchange):
                exchange.server_stopping()
        await self._close_websockets(spread)

    async def _close_websockets(self, spread: float) -> None:
        """Close them one by one, in random order, as clients of one kind often have come one after the other."""
        websockets = [exchange for exchange in self._tasks if isinstance(exchange, WebSocketExchange)]
        random.shuffle(websockets)
        began = asyncio.get_running_loop().time()
        for number, exchange in enumerate(websockets):
            if await self._wait_until(self._is_handed_over, began + number * spread / len(websockets)):
                return
            exchange.server_stopping()

    def _is_handed_over(self) -> bool:
        """Whether nobody is left, or nobody else serves any more."""
        return self._handover is None or not self.connections

    async def _drain(self) -> None:
        """Let running requests finish within ``graceful_timeout``, then end them.

        Connections between two requests go on for ``graceful_idle``, and close after their next response: a peer that
        was not told that its connection closes may have sent a request already, and would lose it.
        """
        timeout, now = self.settings.graceful_timeout, asyncio.get_running_loop().time
        deadline = None if timeout is None else now() + timeout
        limits = self.settings.graceful_idle, timeout, self.keep_alive_timeout
        self.keep_alive_timeout = idle = min(limit for limit in limits if limit is not None)
        self.stopping = True
        for connection in list(self.connections):
            connection.server_stopping()
        in_time = await self._wait_for_applications(deadline)
        if in_time:
            # Peers may still owe a close frame, a request, or the rest of one; a request is answered like any other.
            await self._wait_until(lambda: not self.connections, now() + idle + _LAST_WAIT)
            in_time = await self._wait_for_applications(deadline)
        self.refusing = True
        if not in_time:
            await self._cancel_applications()
        for connection in list(self.connections):
            connection.finish()
        # Now bytes that were written have only to be sent.
        until = None if deadline is None else max(deadline, now() + _LAST_WAIT)
        await self._wait_until(lambda: not self.connections, until)

    async def _wait_for_applications(self, deadline: float | None) -> bool:
        """True once all have ended, False at the ``deadline``; halfway to it, those that still run are told to end."""
        timeout = self.settings.graceful_timeout
        if deadline is not None and timeout is not None and not self.ending:
            if await self._wait_until(lambda: not self._tasks, deadline - timeout / 2):
                return True
            self.ending = True
            for exchange in list(self._tasks):
                exchange.server_stopping()
        return await self._wait_until(lambda: not self._tasks, deadline)

    async def _cancel_applications(self) -> None:
        timeout = (self.settings.graceful_timeout or 0) if self._waits else 0
        logger.warning("%d applications did not end in %g seconds and are cancelled", len(self._tasks), timeout)
        now = asyncio.get_running_loop().time
        for exchange in list(self._tasks):
            exchange.request_failed(RequestError(503, "The server is stopping."))
        # A framework that listens then ends its view in order. Django, when it is cancelled itself, leaves the task
        # behind in which it listens, and asyncio logs that task's exception as never retrieved.
        await self._wait_until(lambda: not self._tasks, now() + _TOLD_WAIT)
        for task in list(self._tasks.values()):
            task.cancel()
        # A graceful_timeout that is shorter than this wait asks for a shorter wait here too.
        await self._wait_until(lambda: not self._tasks, now() + min(_LAST_WAIT, max(timeout, _TOLD_WAIT)))
        for exchange in self._tasks:
            logger.error("The application for %s did not end when it was cancelled", exchange, extra=exchange.logged)

    async def _wait_until(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until ``condition`` holds, looking again whenever a task or connection has ended."""
        try:
            async with asyncio.timeout_at(deadline):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True


def preload(settings: Settings) -> None:
    """Import the views of a Django project, as its first request would; raises what that raises.

    For several processes of one application: they share what was imported before their fork, and code with a mistake in
    a view must not take the place of code that works.
    """
    serving = _django(settings)
    if serving is not None:
        serving.import_urls()


def _django(settings: Settings) -> Any:
    """The module that serves Django the short way; None without Django, or when that way is not wanted or cannot be."""
    # A project that uses Django's handler has imported it.
    if settings.django == "off" or "django.core.handlers.asgi" not in sys.modules:
        return None
    try:
        from .django import serving
    except ImportError as error:
        logger.warning("Django's own handler serves the project: %s", error)
        return None
    return serving


def _forwarding(settings: Settings) -> Forwarding | None:
    lists = settings.forwarded_allow_ips, settings.proxy_allow_ips
    if not settings.proxy_headers and lists == (TRUSTED_PEERS, PROXY_PEERS):
        # Not imported without need: its regular expressions take long to compile.
        return None
    from .asgi.forwarded import Forwarding, TrustedPeers

    # Made in any case, so that a wrong entry of a trust list is reported at once.
    forwarding = Forwarding(settings)
    TrustedPeers(settings.proxy_allow_ips, "proxy_allow_ips")
    return forwarding if settings.proxy_headers else None
