"""An ASGI application below a ``twisted.web`` site: what ``WSGIResource`` is for WSGI, with WebSockets.

``twisted.web`` reads the requests; what it has parsed becomes a scope, and nothing is parsed again. It hands a request
over when the whole body has come, in memory or in a temporary file, so uploads do not stream. Responses do, at the
client's pace. A WebSocket takes its connection over from the site, for good: from its handshake on it is one of this
server's own, with all its limits and deadlines. Those of other requests are the site's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from .asgi.exchange import Exchange
from .asgi.interfaces import Headers, Stream
from .asgi.response import Response, plain
from .asgi.scope import Request
from .errors import RequestError
from .log.access import ActionLogger
from .loop.reactor import install_reactor
from .server import Server
from .service import ASGIService
from .settings import Settings
from .wire import head
from .wire.addresses import addresses_of
from .wire.connection import HTTPConnection
from .wire.output import Output

__all__ = ["ASGIResource"]

#: How much of a body is read at once; bytes.
_PIECE = 65536

_VERSIONS = {b"HTTP/1.0": "1.0", b"HTTP/2": "2"}


@implementer(IResource)
class ASGIResource:
    """Serves an application below a site, on the process's reactor, which must be asyncio's.

    ::

        root = Resource()
        root.putChild(b"api", ASGIResource(app))
        endpoint.listen(Site(root))

    The scope's ``root_path`` is where the resource stands, here ``/api``. The application starts, with its lifespan, as
    soon as the reactor runs; requests that come earlier wait. When it cannot start, that is logged, and the reactor is
    stopped. The reactor's stop waits for running requests and the lifespan's end, within ``graceful_timeout``. The
    access log has the WebSockets alone; the site logs the requests.

    :param application: like all other parameters, as :class:`Server` takes it. Settings that are about listening, or
        about reading requests, have no effect.
    :raises ReactorError: Twisted's reactor is not asyncio's.
    :raises SettingsError: a setting is wrong or unknown.
    """

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, application: Any, settings: Settings | None = None, **keywords: Any) -> None:
        #: Requests that wait for the application's start; None when it has started.
        self._waiting: list[Any] | None = []
        self._service = ASGIService(application, settings, ready_callable=self._started, **keywords)
        self._server.bound = []
        if "action_logger" not in keywords:
            self._server.action_logger = _of_websockets(self._server.action_logger)
        self._service.startService()
        install_reactor().addSystemEventTrigger("before", "shutdown", self._service.stopService)

    @property
    def _server(self) -> Server:
        return self._service.server

    def getChildWithDefault(self, name: bytes, request: Any) -> IResource:  # noqa: N802 - Twisted's name
        """Never called, as this is a leaf."""
        raise RuntimeError("an ASGIResource has no children")

    def putChild(self, path: bytes, child: Any) -> None:  # noqa: N802 - Twisted's name
        """Never right: the application answers all paths below this one."""
        raise RuntimeError("an ASGIResource has no children")

    def render(self, request: Any) -> int:
        """Hand a request of ``twisted.web`` to the application."""
        if self._waiting is None:
            self._open(request)
        else:
            self._waiting.append(request)
        return NOT_DONE_YET

    def _started(self) -> None:
        waiting, self._waiting = self._waiting or (), None
        for request in waiting:
            # The channel of a client that has left is gone.
            if request.channel is not None:
                self._open(request)

    def _open(self, request: Any) -> None:
        # A stream of HTTP/2 has no transport, but knows the two ends as a transport does.
        addresses = addresses_of(request.transport or request.channel)._replace(secure=request.isSecure())
        read = None
        own = _Stream(request, self._server)
        stream = cast(Stream, own)
        try:
            read = _read(request)
            limit = self._server.settings.limit_body_size
            if limit is not None and read.body_size > limit:
                raise RequestError(413, f"The request's body is larger than {limit} bytes.")
            if read.upgrade:
                exchange = self._take_over(request, read)
            else:
                exchange = self._server.open_exchange(read, stream, addresses)
                own.begin(exchange, read.body_size)
        except RequestError as error:
            Response(stream, plain(error), request.method.decode("latin-1")).send(error.body, more_body=False)
            self._server.request_refused(read, addresses, error)
            return
        if exchange is not None:
            # The path of the scope has it already: twisted.web leaves the target as it was sent.
            below = b"".join(b"/" + name for name in request.prepath if name)
            exchange.scope["root_path"] += below.decode("utf-8", "replace")
            self._server.create_application(exchange)

    def _take_over(self, request: Any, read: Request) -> Exchange | None:
        """Put a connection of this server's in the place of the site's; None when the handshake was refused."""
        channel, transport = request.channel, request.channel.transport
        connection = HTTPConnection(self._server)
        transport.unregisterProducer()
        if isinstance(transport, ProtocolWrapper):
            # Twisted's TLS.
            transport.wrappedProtocol = connection  # type: ignore[assignment]
        else:
            transport.protocol = connection
        # For what the same read holds behind the handshake.
        channel.rawDataReceived = connection.dataReceived
        request.content.close()
        connection.makeConnection(transport)  # type: ignore[no-untyped-call]
        return connection.adopt(read)


def _of_websockets(log: ActionLogger) -> ActionLogger:
    """The access log without the requests, which the site logs."""

    def action_logger(protocol: str, action: str, details: dict[str, Any]) -> None:
        if protocol == "websocket":
            log(protocol, action, details)

    return action_logger


def _read(request: Any) -> Request:
    """What ``twisted.web`` has read of a request, checked as this server's own are.

    :raises RequestError: as :func:`.head.request` does.
    """
    if not request.uri.isascii():
        raise RequestError(400, "The request's target must be ASCII.")
    lines = [(name.lower(), value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]
    version = _VERSIONS.get(request.clientproto, "1.1")
    method, target, headers, *_ = found = head.request(request.method, request.uri, lines, version)
    size = request.content.seek(0, os.SEEK_END)
    request.content.seek(0)
    return Request(method, target, headers, version, size, upgrade=found.upgrade)


class _Stream:
    """The ``Stream`` of an exchange over a request of ``twisted.web``.

    It lacks what a WebSocket alone uses, which has a stream of its own: turn, switch, send_parts and close.
    """

    def __init__(self, request: Any, server: Server) -> None:
        self._request = request
        self._server = server
        self._exchange: Exchange | None = None
        self._remaining = 0
        self._paused = False
        self._visible_end = False
        self.output = Output(request, server.clock, self)

    def begin(self, exchange: Exchange, body_size: int) -> None:
        """Serve ``exchange``, for which ``body_size`` bytes are kept."""
        self._exchange = exchange
        self._remaining = body_size
        self._request.registerProducer(self.output, True)
        self._request.notifyFinish().addErrback(self._lost)
        if not body_size:
            exchange.body_ended()

    def _lost(self, reason: Failure) -> None:
        exchange, self._exchange = self._exchange, None
        self.output.lost()
        if exchange is not None:
            exchange.disconnected()

    # Called by the exchange: the body.

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        while self._remaining and not self._paused and self._exchange is not None:
            piece = self._request.content.read(_PIECE)
            self._remaining -= len(piece)
            self._exchange.body_received(piece)
            if not self._remaining:
                self._exchange.body_ended()

    # The response.

    def respond(
        self,
        status: int,
        headers: Headers,
        names: list[bytes],
        content_length: int | None,
        *,
        has_body: bool,
        close: bool,
        data: bytes,
        last: bool,
    ) -> None:
        # ``close`` is left to the site: the connection is always between two requests here.
        request = self._request
        request.setResponseCode(status)
        request.defaultContentType = None
        fields = [*headers, *self._server.fields.lacking(names)]
        for name, _ in fields:
            # Of those that the site has set.
            request.responseHeaders.removeHeader(name)
        for name, value in fields:
            request.responseHeaders.addRawHeader(name, value)
        # HTTP/1.0 has no other end than a length.
        self._visible_end = content_length is not None or request.clientproto != b"HTTP/1.0"
        self.send_data(data, last=last)

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        self.output.write(data)
        if last:
            self._finish()

    def send_informational(self, status: int, headers: Headers, names: list[bytes]) -> None:
        # twisted.web has no place for it; to write nothing would still begin the response.
        self.output.congested = True

    def send_trailers(self, headers: Headers, names: list[bytes]) -> None:
        # twisted.web writes the last chunk itself, without trailers.
        self._finish()

    def send_file(self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]) -> None:
        def all_sent() -> None:
            sent()
            if last and self._exchange is not None:
                self._finish()

        self.output.send_file(descriptor, offset, count, all_sent, self._file_failed)

    def _file_failed(self) -> None:
        if self._exchange is not None:
            self._exchange.file_failed()

    def _finish(self) -> None:
        self._exchange = None
        self._request.unregisterProducer()
        self._request.finish()
        # The pressure is the connection's, and no longer this request's.
        self.output.lost()

    def abort(self) -> None:
        self._exchange = None
        slow = self.output.slow
        self.output.lost()
        channel = self._request.channel
        if self._request.clientproto == b"HTTP/2":
            # Resets the stream alone; its other way to end would look complete.
            channel.abortConnection()
        elif self._visible_end and not slow:
            channel.loseConnection()
        else:
            # With a peer that takes nothing, the orderly end would never come.
            channel.transport.abortConnection()

    # Called by the output.

    def output_full(self) -> None:
        """The exchange asks the output."""

    def output_empty(self) -> None:
        """The exchange asks the output."""
