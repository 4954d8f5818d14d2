"""The hub: where a wire's requests become applications' tasks, and applications' messages find their exchange."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from .asgi.deadlines import Deadline
from .asgi.exchange import COMPLETE, Exchange, logged_request
from .asgi.http import HTTPExchange
from .asgi.interfaces import Application, Clock, Stream
from .asgi.scope import Addresses, Request, ScopeBuilder, for_application
from .asgi.websocket import WebSocketExchange
from .errors import ApplicationError, ClientDisconnected, RequestError
from .log.access import AccessLog, ActionLogger, chosen_format
from .log.formatters import request_id
from .settings import Settings
from .wire.connection import HTTPConnection
from .wire.default_fields import DefaultFields
from .wire.handshake import check, response_headers

if TYPE_CHECKING:
    from .metrics.counts import Counts

__all__ = ["Hub"]

logger = logging.getLogger("asgiserver")

#: How much of a refused request's target is logged; bytes.
_SHOWN = 200

#: The names of frameworks' exceptions for a peer that has left begin so: Starlette's, FastAPI's and Litestar's.
_OWN_WORDS = ("ClientDisconnect", "WebSocketDisconnect")

#: How many connections beyond the limit get their answer at a time. Each holds a descriptor until its peer has the
#: answer: these are enough for a busy moment, and few of the 1,024 descriptors that a process may usually open.
_MOST_TURNED_AWAY = 128


class Hub:
    """Keeps the exchanges with their tasks, and the connections.

    :ivar application: the ASGI 3 application.
    :ivar action_logger: called as Daphne calls it, ``(protocol, action, details)``.
    :ivar on_failure: called with each exception of the application, once it has been logged.
    :ivar counts: what is counted; None without ``--metrics``.
    :ivar connections: all open connections.
    :ivar keep_alive_timeout: how long a connection may be idle, in seconds; less while the server stops.
    :ivar stopping: no connection is used again after its next response.
    :ivar draining: the server stops because another process serves, and has time: WebSockets may still be opened.
    :ivar ending: half of ``graceful_timeout`` is over, so responses that stream without end are asked to end.
    :ivar refusing: no request is begun any more.
    :ivar forked: this process was forked by the application, so its requests are the parent's.
    :ivar contained: exceptions, besides Exception, that an application may raise without ending the loop.
    """

    clock: Clock

    def __init__(
        self,
        application: Application,
        settings: Settings,
        action_logger: ActionLogger | None,
        on_failure: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.application = application
        self.settings = settings
        self.action_logger: ActionLogger = action_logger or AccessLog(chosen_format(settings))
        self.on_failure = on_failure
        self.fields = DefaultFields(settings.server_name, settings.headers)
        self.counts: Counts | None = None
        self.connections: set[HTTPConnection] = set()
        self._turned_away: set[HTTPConnection] = set()
        self.keep_alive_timeout = settings.keep_alive_timeout
        self.stopping = False
        self.draining = False
        self.ending = False
        self.refusing = False
        self.forked = False
        self.contained: tuple[type[BaseException], ...] = (SystemExit,)
        self._tasks: dict[Exchange, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scopes = ScopeBuilder(settings.root_path, None, None)
        #: The lifespan's context; the application runs in a copy of it for each exchange.
        self._context = contextvars.copy_context()
        #: Set when a connection or, while the server stops, an application has ended.
        self._changed = asyncio.Event()

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges whose application runs now; any thread may ask for them."""
        return list(self._tasks)

    # What wires call, as their WireHub.

    def connection_made(self, connection: HTTPConnection) -> bool:
        self.connections.add(connection)
        if self.counts is not None:
            self.counts.connection()
        limit = self.settings.limit_connections
        if limit is None or len(self.connections) - len(self._turned_away) <= limit:
            return True
        # The connection stays open until its peer has the answer, and does not count against the limit meanwhile.
        self._turned_away.add(connection)
        if self.counts is not None:
            self.counts.add("rejected", "connections")
        if len(self._turned_away) > _MOST_TURNED_AWAY:
            connection.abort()
        return False

    def connection_lost(self, connection: HTTPConnection) -> None:
        self.connections.discard(connection)
        self._turned_away.discard(connection)
        self._changed.set()

    def open_exchange(self, request: Request, stream: Stream, addresses: Addresses) -> Exchange:
        """Begin an exchange.

        :raises RequestError: 503 when the server stops or has too many, 400 or 426 for a wrong WebSocket handshake.
        """
        if self.refusing:
            raise RequestError(503, "The server is stopping.")
        settings = self.settings
        limit = settings.limit_concurrency
        if limit is not None and len(self._tasks) >= limit:
            raise RequestError(503, "The server is busy.", ((b"retry-after", b"1"),))
        if request.upgrade:
            if self.stopping and not self.draining:
                raise RequestError(503, "The server is stopping.")
            return self._open_websocket(request, stream, addresses)
        scope = self._scopes.http(request, addresses)
        return HTTPExchange(scope, stream, self, settings, self.clock)

    def _open_websocket(self, request: Request, stream: Stream, addresses: Addresses) -> Exchange:
        # Imported with the first WebSocket: a server that has none need not load the frame engine.
        from .wire.websocket.frames import WebSocketProtocol, negotiate_deflate

        settings = self.settings
        upgrade = check(request.method, request.headers, request.body_size != 0)
        extension, deflate = "", None
        if settings.websocket_compression:
            negotiated = negotiate_deflate(upgrade.extensions, settings.websocket_max_message_size)
            extension, deflate = negotiated or ("", None)
        scope = self._scopes.websocket(request, addresses, upgrade.subprotocols)
        frames = partial(
            WebSocketProtocol,
            max_message_size=settings.websocket_max_message_size,
            max_frame_size=settings.websocket_max_frame_size,
            deflate=deflate,
            turn=stream.turn,
            after_turn=asyncio.get_running_loop().call_soon,
        )
        answer = partial(response_headers, upgrade, extensions=extension)
        return WebSocketExchange(scope, stream, self, settings, self.clock, answer, frames)

    def request_refused(self, request: Request | None, addresses: Addresses, error: RequestError) -> None:
        """Log a request that the wire has refused and answered: the mistake, and a line in the access log."""
        # A redirect is nobody's mistake.
        level = logging.INFO if error.status >= 400 else logging.DEBUG
        if self.counts is not None:
            self.counts.refused(error.status, stopping=self.stopping or self.refusing)
        if not (logger.isEnabledFor(level) or self.logs_actions):
            return
        what = "a request"
        details: dict[str, Any] = {"request_id": None}
        if request is not None:
            scopes, what = self._scopes, f"{request.method} {request.target[:_SHOWN]!r}"
            scope = scopes.websocket(request, addresses, []) if request.upgrade else scopes.http(request, addresses)
            details = logged_request(scope, scope["extensions"]["asgiserver"]["request_id"])
        # None says that there is no id: what is refused may come in the context of the request before it.
        extra = {"request_id": details["request_id"]}
        logger.log(level, "Refused %s of %s with %d: %s", what, addresses.peer, error.status, error.reason, extra=extra)
        if request is None or not self.logs_actions:
            return
        details["status"] = error.status
        if request.upgrade:
            self.log_action("websocket", "rejected", details)
        else:
            details |= {"method": request.method, "time_taken": 0.0, "size": len(error.body), "request_size": 0}
            self.log_action("http", "complete", details)

    # Applications.

    def create_application(self, exchange: Exchange) -> None:
        """Spawn the application for ``exchange``, in a copy of the lifespan's context.

        So it has the context variables that the application set at its start-up, and those of no other request.
        """
        loop = self._loop or asyncio.get_running_loop()
        # Not create_task: under an eager task factory the application would answer before the request is read.
        # Named by the raw path: a line break in the decoded path could forge a line of the log.
        name, context = exchange.scope["raw_path"].decode("ascii"), self._context.copy()
        task = asyncio.Task(self._run_application(exchange), loop=loop, name=name, context=context)
        self._tasks[exchange] = task
        task.add_done_callback(partial(self._task_done, exchange), context=context)

    def is_running(self, exchange: Exchange) -> bool:
        """The application of an exchange has begun and not ended."""
        return exchange in self._tasks

    async def _run_application(self, exchange: Exchange) -> None:
        request_id.set(exchange.request_id)
        try:
            send = MethodType(self.handle_reply, exchange)
            await self.application(for_application(exchange.scope), exchange.receive, send)
        except self.contained as error:
            # It would leave the task, and end the loop with all other requests.
            raise RuntimeError(f"the application raised {type(error).__name__}") from error

    def _task_done(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        self.application_done(exchange, asyncio.CancelledError() if task.cancelled() else task.exception())

    #: Daphne's name for the function that takes every message of an application; a subclass may override it.
    handle_reply = staticmethod(Exchange.handle_reply)

    def application_done(self, exchange: Exchange, error: BaseException | None) -> None:
        """An application has ended: end the response that it left open, then log its failure, here and nowhere else.

        :param error: the exception that it raised; CancelledError when it was cancelled.
        """
        del self._tasks[exchange]
        if self.forked:
            return
        if self.stopping:
            self._changed.set()
        if exchange.state is COMPLETE and error is None:
            # Fast path: there is nothing to end or to log.
            exchange.release()
            return
        finished, answered, cut_off = exchange.finished, exchange.answered, exchange.cut_off
        # The clean-up comes first: it must be done even if a look at the error fails.
        exchange.application_done(failed=error is not None)
        exchange.release()
        if isinstance(error, asyncio.CancelledError):
            if self.counts is not None:
                self.counts.add("application_cancelled")
            if not finished:
                self.application_failed("The application for %s was cancelled without a complete response", exchange)
        elif error is not None:
            if cut_off or finished and is_disconnect(error):
                # A client that leaves is no failure of the application, whichever exception its framework raises.
                what, name = "The client of %s left, which ended its application: %s", type(error).__name__
                logger.info(what, exchange, name, extra=exchange.logged)
            else:
                self.application_failed("Exception in the application for %s", exchange, error)
        elif not answered:
            self.application_failed("The application for %s returned without a complete response", exchange)

    def application_failed(self, message: str, exchange: Exchange, error: BaseException | None = None) -> None:
        """Log a failure of the application's, once; ``message`` has one ``%s``, for the exchange."""
        logger.error(message, exchange, exc_info=error, extra=exchange.logged)
        # An application that the stop has cut off has not failed.
        if error is not None or not self.stopping:
            if self.counts is not None:
                self.counts.add("application_exceptions", exchange.scope["type"])
            self.report(ApplicationError(message % exchange) if error is None else error)

    def report(self, error: BaseException) -> None:
        """Tell ``on_failure`` of an exception of the application; an error in ``on_failure`` itself is only logged."""
        if self.on_failure is None:
            return
        try:
            self.on_failure(error)
        except Exception:
            logger.exception("Exception in on_failure")

    def exchange_gone(self, exchange: Exchange) -> None:
        """The peer has left: the application may run on for ``application_close_timeout``."""
        if exchange in self._tasks:
            exchange.deadlines.set(
                Deadline.APPLICATION, self.settings.application_close_timeout, partial(self._cancel, exchange)
            )

    def _cancel(self, exchange: Exchange) -> None:
        if exchange in self._tasks:
            what = "The application for %s still ran %g seconds after its exchange had ended, and is cancelled"
            logger.warning(what, exchange, self.settings.application_close_timeout or 0, extra=exchange.logged)
            self._tasks[exchange].cancel()

    # The access log.

    @property
    def logs_actions(self) -> bool:
        log = self.action_logger
        return type(log) is not AccessLog or log.enabled

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Tell ``action_logger`` what has happened, as Daphne does; an error in the logger itself is only logged."""
        try:
            self.action_logger(protocol, action, details)
        except Exception:
            logger.exception("Exception in the action logger")


def is_disconnect(error: BaseException) -> bool:
    """True when ``error``, of an application whose peer has left, reports only that, and no failure of its own.

    Chains and groups of exceptions may be circular, and may be of any length.
    """
    found = False
    seen: set[int] = set()
    pending = [error]
    while pending:
        error = pending.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, ClientDisconnected):
            found = True
        elif isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            # An exception that came up while ClientDisconnected was handled (its __context__) is a failure, unless it
            # is an OSError or the framework's own exception for that, such as Starlette's ClientDisconnect. A framework
            # also raises its own without an origin, when receive() gives it the disconnect.
            own_word = type(error).__name__.startswith(_OWN_WORDS)
            origin = error.__cause__ or (error.__context__ if own_word or isinstance(error, OSError) else None)
            if origin is not None:
                pending.append(origin)
            elif own_word:
                found = True
            else:
                return False
    return found
