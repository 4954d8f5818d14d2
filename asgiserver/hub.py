"""The hub: where a wire's requests become applications' tasks, and applications' messages find their exchange."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Generator
from functools import partial
from types import MethodType, coroutine
from typing import Any

from .asgi.deadlines import Deadline
from .asgi.default_fields import DefaultFields
from .asgi.exchange import Exchange, State, logged_request
from .asgi.first_step import CAN_BEGIN, begin
from .asgi.http import HTTPExchange
from .asgi.interfaces import Application, Clock, Message, Stream
from .asgi.scope import Addresses, Request, ScopeBuilder
from .asgi.websocket import WebSocketExchange
from .errors import ClientDisconnected, RequestError
from .process.logs import AccessLog, ActionLogger
from .settings import Settings
from .wire.connection import HTTPConnection
from .wire.handshake import check, response_headers
from .wire.reader import Readers

__all__ = ["Hub"]

logger = logging.getLogger("asgiserver")

#: An enum's members take several times as long to look up.
_STREAMING, _COMPLETE, _GONE = State.STREAMING, State.COMPLETE, State.GONE

#: A task that waits costs more when it has begun at once; so after one, so many begin as usual. An application whose
#: every request waits loses nothing by it then, and one that hardly ever does keeps most of what it gains.
_USUAL_TURNS = 32

#: How much of a refused request's target is worth a place in the log; bytes.
_SHOWN = 200


class Hub:
    """Keeps the exchanges with their tasks, and the connections.

    :ivar application: the ASGI 3 application.
    :ivar action_logger: called as Daphne calls it, ``(protocol, action, details)``.
    :ivar connections: all that are open.
    :ivar stopping: no connection is used again after its current response.
    :ivar refusing: no request is begun any more.
    :ivar contained: what an application may raise without ending the loop, besides Exception.
    """

    clock: Clock
    reader: Readers

    def __init__(self, application: Application, settings: Settings, action_logger: ActionLogger | None) -> None:
        self.application = application
        self.settings = settings
        self.action_logger: ActionLogger = action_logger or AccessLog(settings.access_log_format)
        self.fields = DefaultFields(settings.server_name, settings.headers)
        self.connections: set[HTTPConnection] = set()
        self._turned_away: set[HTTPConnection] = set()
        self.stopping = False
        self.refusing = False
        #: In a process that the application has forked: its requests are the parent's.
        self.forked = False
        self.contained: tuple[type[BaseException], ...] = (SystemExit,)
        #: None while the first step of an application is under way.
        self._tasks: dict[Exchange, asyncio.Task[None] | None] = {}
        # How many applications are to begin in a turn of their own before the next may begin at once.
        self._usual_turns = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scopes = ScopeBuilder(settings.root_path, None, None)
        self._context = contextvars.copy_context()
        self._changed: asyncio.Event | None = None

    # What wires call.

    def connection_made(self, connection: HTTPConnection) -> bool:
        """Count a connection; False when it is one too many."""
        self.connections.add(connection)
        limit = self.settings.limit_connections
        if limit is None or len(self.connections) - len(self._turned_away) <= limit:
            return True
        # It lives on until it has its answer, and keeps nobody else out meanwhile.
        self._turned_away.add(connection)
        return False

    def connection_lost(self, connection: HTTPConnection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self._turned_away.discard(connection)
        self._notify()

    def open_exchange(self, request: Request, stream: Stream, addresses: Addresses) -> Exchange:
        """Begin an exchange; its application is begun by :meth:`create_application`, once the wire knows it.

        :raises RequestError: 503 when there are too many, 400 or 426 for a wrong WebSocket handshake.
        """
        if self.refusing:
            raise RequestError(503, "The server is stopping.")
        settings = self.settings
        limit = settings.limit_concurrency
        if limit is not None and len(self._tasks) >= limit:
            raise RequestError(503, "The server is busy.", ((b"retry-after", b"1"),))
        if request.upgrade:
            if self.stopping:
                raise RequestError(503, "The server is stopping.")
            return self._open_websocket(request, stream, addresses)
        scope = self._scopes.http(request, addresses)
        return HTTPExchange(scope, stream, self, settings, self.clock, self.fields)

    def _open_websocket(self, request: Request, stream: Stream, addresses: Addresses) -> Exchange:
        # The frame engine takes 45 ms and 6 MB to import: who serves no WebSocket need not spend them.
        from .wire.frames import WebSocketProtocol, negotiate_deflate

        settings = self.settings
        upgrade = check(request.method, request.http_version, request.headers, request.body_size != 0)
        extension, deflate = "", None
        if settings.websocket_compression and upgrade.extensions:
            negotiated = negotiate_deflate(upgrade.extensions, settings.websocket_max_message_size)
            extension, deflate = negotiated or ("", None)
        scope = self._scopes.websocket(request, addresses, upgrade.subprotocols)
        frames = partial(
            WebSocketProtocol,
            max_message_size=settings.websocket_max_message_size,
            max_frame_size=settings.websocket_max_frame_size,
            deflate=deflate,
            after_turn=asyncio.get_running_loop().call_soon,
        )
        answer = partial(response_headers, upgrade, extensions=extension)
        return WebSocketExchange(scope, stream, self, settings, self.clock, self.fields, answer, frames)

    def request_refused(self, request: Request | None, addresses: Addresses, error: RequestError) -> None:
        """Note the peer's mistake, which was answered already, and log it as any answered request."""
        client = "{}:{}".format(*addresses.client) if addresses.client else "a unix socket's peer"
        what = f"{request.method} {request.target[:_SHOWN]!r}" if request is not None else "a request"
        logger.info("Refused %s of %s with %d: %s", what, client, error.status, error.reason)
        if request is None or not self.logs_actions:
            return
        scopes = self._scopes
        scope = scopes.websocket(request, addresses, []) if request.upgrade else scopes.http(request, addresses)
        details = {**logged_request(scope), "status": error.status}
        if request.upgrade:
            self.log_action("websocket", "rejected", details)
        else:
            details |= {"method": request.method, "time_taken": 0.0, "size": len(error.reason) + 1, "request_size": 0}
            self.log_action("http", "complete", details)

    # Applications.

    def create_application(self, exchange: Exchange, *, at_once: bool = False) -> None:
        """Spawn the application for ``exchange``, in a copy of the server's own context.

        Without that, a pipelined request would inherit the context variables of the application before it.

        :param at_once: let it run up to where it first waits, unless another application is running now, or one of the
            last had to wait. Nothing may be left to do then for who has read the request.
        """
        loop, path, context = self._loop, exchange.scope["path"], self._context.copy()
        if loop is None:
            loop = asyncio.get_running_loop()
        self._tasks[exchange] = None
        if at_once and not self._usual_turns and CAN_BEGIN and asyncio.current_task(loop) is None:
            try:
                task = begin(self._run_application(exchange), loop, path, context)
            except asyncio.CancelledError:
                return
            if task is None:
                return
            self._usual_turns = _USUAL_TURNS
        else:
            self._usual_turns -= at_once and self._usual_turns > 0
            running = self._run_application(exchange, enter=True)
            running.send(None)
            # Not create_task: under an eager task factory the application would answer before the request is read.
            # Named by its path: a name of asyncio's own making takes longer, and says less.
            task = asyncio.Task(running, loop=loop, name=path, context=context)
        self._tasks[exchange] = task

    async def _run_application(self, exchange: Exchange, enter: bool = False) -> None:
        """Call the application, and see to its end: a callback for that would cost a tenth of a small request.

        :param enter: stop once, for who begins this by hand: what is thrown into a coroutine that was not entered, as
            by a cancel() before its turn, never reaches its code.
        """
        try:
            if enter:
                await _entered()
            # A method of the exchange, as far as calling it goes: that is what takes the least time.
            await self.application(exchange.scope, exchange.receive, MethodType(self.handle_reply, exchange))
        except self.contained as error:
            self.application_done(exchange, _contained(error))
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
            self.application_done(exchange, error)
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit) and self._loop_has_ended():
                raise
            self.application_done(exchange, error)
        else:
            self.application_done(exchange, None)

    def _loop_has_ended(self) -> bool:
        """Its tasks are thrown away then, and there is nothing that their end could be told to."""
        running = asyncio._get_running_loop()
        return running is None or self._loop not in (None, running)

    @staticmethod
    async def handle_reply(exchange: Exchange, message: Message) -> None:
        """Route a message of the application to the wire, and wait while the peer is slow: an ASGI ``send``.

        :raises ApplicationError: the message is malformed or does not fit; nothing of it was sent.
        :raises ClientDisconnected: the peer has left, and the application does not listen for that.
        """
        state = exchange.state
        if state is _GONE or exchange.stream.congested:
            await Hub._handle_late_reply(exchange, message)
            return
        # By far the most: nothing is to be waited for before.
        if state is _STREAMING:
            exchange.take(message)
        else:
            exchange.handle_reply(exchange.parse(message))
        stream = exchange.stream
        if stream.congested:
            await stream.drain()

    @staticmethod
    async def _handle_late_reply(exchange: Exchange, message: Message) -> None:
        reply = None if exchange.gone else exchange.parse(message)
        while exchange.stream.slow and not exchange.gone:
            # Several tasks may send, or one that gives up waiting: each adds nothing before there is room.
            await exchange.stream.drain()
        if not exchange.gone:
            exchange.handle_reply(reply)
            await exchange.stream.drain()
        else:
            # A loop that sends to nobody must not keep others from running: neither its own receive(), nor the deadline
            # that cancels it when it ignores the error too.
            await asyncio.sleep(0)
            if not exchange.listening:
                raise ClientDisconnected("the client has left")

    def application_done(self, exchange: Exchange, error: BaseException | None) -> None:
        """An application has ended: log its failure, and end what it left open. The only place that does.

        :param error: what it raised; CancelledError when it was cancelled.
        """
        del self._tasks[exchange]
        if exchange.state is _COMPLETE and error is None:
            # By far the most: there is nothing to log or to end.
            exchange.release()
        else:
            self._application_left(exchange, error)
        if self.stopping:
            self._notify()

    def _application_left(self, exchange: Exchange, error: BaseException | None) -> None:
        if self.forked:
            return
        if isinstance(error, asyncio.CancelledError):
            if not exchange.finished:
                self.application_failed("The application for %s was cancelled without a complete response", exchange)
        elif error is not None:
            if not (exchange.gone and _is_disconnect(error)):
                self.application_failed("Exception in the application for %s", exchange, error)
        elif not exchange.answered:
            self.application_failed("The application for %s returned without a complete response", exchange)
        exchange.application_done(failed=error is not None)
        exchange.release()

    def application_failed(self, message: str, exchange: Exchange, error: BaseException | None = None) -> None:
        """Log a failure of the application's, once; ``message`` has one ``%s``, for the exchange."""
        logger.error(message, exchange, exc_info=error)

    def exchange_gone(self, exchange: Exchange) -> None:
        """The peer has left: the application may run on for ``application_close_timeout``."""
        if exchange in self._tasks:
            exchange.deadlines.set(
                Deadline.APPLICATION, self.settings.application_close_timeout, partial(self._cancel, exchange)
            )

    def _cancel(self, exchange: Exchange) -> None:
        task = self._tasks.get(exchange)
        if task is not None:
            logger.warning(
                "The application for %s still ran %g seconds after its exchange had ended, and is cancelled",
                exchange,
                self.settings.application_close_timeout or 0,
            )
            task.cancel()

    # The access log.

    @property
    def logs_actions(self) -> bool:
        """False when nobody wants to know."""
        log = self.action_logger
        return type(log) is not AccessLog or log.logger.isEnabledFor(logging.INFO)

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Tell ``action_logger`` what has happened, as Daphne does; it can do no harm to the exchange."""
        try:
            self.action_logger(protocol, action, details)
        except Exception:
            logger.exception("Exception in the action logger")

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()


def _contained(error: BaseException) -> RuntimeError:
    """What stands for ``error``: out of a task that would end the loop, and with it everybody else's request."""
    failure = RuntimeError(f"the application raised {error!r}")
    failure.__cause__ = error
    return failure


@coroutine
def _entered() -> Generator[None, None, None]:
    yield


def _is_disconnect(error: BaseException | None) -> bool:
    """True when ``error`` is ClientDisconnected or only passes it on: no failure of the application's."""
    for _ in range(10):
        if error is None or isinstance(error, ClientDisconnected):
            break
        if isinstance(error, BaseExceptionGroup):
            return all(map(_is_disconnect, error.exceptions))
        # What failed while ClientDisconnected was handled is a failure, unless it is, as Starlette's ClientDisconnect,
        # the framework's own word for it.
        passes_on = isinstance(error, OSError) or type(error).__name__.startswith("ClientDisconnect")
        error = error.__cause__ or (error.__context__ if passes_on else None)
    return isinstance(error, ClientDisconnected)
