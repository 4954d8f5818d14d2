"""The per-connection Twisted protocol and its factory: bytes, time, and pressure; no HTTP."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import (
    IAddress,
    IProtocolNegotiationFactory,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..asgi.deadlines import Deadline, Deadlines
from ..asgi.default_fields import DefaultFields
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Clock, Stream
from ..asgi.scope import Addresses, Request
from ..errors import RequestError
from ..settings import Settings
from .http1 import HTTP1
from .reader import Reader
from .response import refusal
from .writing import WritingProtocol

__all__ = ["HTTPConnection", "HTTPFactory", "WireHub"]

logger = logging.getLogger("asgiserver.wire")


class WireHub(Protocol):
    """What the wires need of the server."""

    settings: Settings
    clock: Clock
    fields: DefaultFields
    stopping: bool
    #: Makes the reader of requests of a connection.
    reader: Callable[[], Reader]

    def connection_made(self, connection: HTTPConnection) -> bool:
        """Count a connection; False when it is one too many."""

    def connection_lost(self, connection: HTTPConnection) -> None:
        """Forget a connection."""

    def open_exchange(self, request: Request, stream: Stream, addresses: Addresses) -> Exchange:
        """Begin an exchange.

        :raises RequestError: the request is not for an application; the wire answers and closes.
        """

    def create_application(self, exchange: Exchange, *, at_once: bool) -> None:
        """Begin the application of an exchange; with ``at_once`` it may answer before this returns."""

    def request_refused(self, request: Request | None, addresses: Addresses, error: RequestError) -> None:
        """The wire has answered a request that reached no application; None when not even its head was read."""


@implementer(IProtocolNegotiationFactory)
class HTTPFactory(Factory):
    """Builds the protocol of each connection.

    :param hub: the server.
    """

    noisy = False

    def __init__(self, hub: WireHub) -> None:
        self.hub = hub

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:  # noqa: N802 - Twisted's name
        """A protocol for a new connection."""
        return HTTPConnection(self.hub)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802 - Twisted's name
        """What to choose from by ALPN (RFC 7301)."""
        return [b"http/1.1"]


@implementer(IPushProducer)
class HTTPConnection(WritingProtocol):
    """One connection.

    :ivar deadlines: what is awaited of the peer.
    :ivar reading: False while the peer is made to wait.
    """

    def __init__(self, hub: WireHub) -> None:
        super().__init__(hub.clock)
        self.hub = hub
        self.deadlines = Deadlines(hub.clock)
        self._wire: HTTP1 | None = None
        self._addresses: Addresses | None = None
        self.reading = True
        self._closing = False
        self._unread = False
        self._buffered_before = 0

    @property
    def addresses(self) -> Addresses:
        """The two ends; asked for with the first request, when a PROXY header has been read."""
        if self._addresses is None:
            client, server = _address(self.transport.getPeer()), _address(self.transport.getHost())
            if client is not None and client[1] is None:
                client = None
            secure = ISSLTransport.providedBy(self.transport)
            self._addresses = Addresses(client, server, secure)  # type: ignore[arg-type]
        return self._addresses

    # What Twisted calls.

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """The connection stands; TLS may still have to shake hands."""
        transport = self.transport
        self._begin_writing()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        if self.hub.connection_made(self):
            # The connection is idle, as between requests, but for how long it may be.
            self.deadlines.set(Deadline.KEEP_ALIVE, self.hub.settings.first_byte_timeout, self._silent_too_long)
        else:
            self._refuse()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Bytes of the peer; they are thrown away once the connection is closing."""
        if self._closing:
            return
        wire = self._wire
        if wire is None:
            wire = self._wire = HTTP1(self)
            self._press(self.slow, self.congested)
        wire.data_received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The connection is no more, by whosever doing."""
        self._closing = True
        self.deadlines.stop()
        self._end_writing()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.connection_lost()
        self.hub.connection_lost(self)

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport's buffer is full."""
        self._paused = True
        self._press(True, True)
        self._buffered_before = self._buffered()
        self.deadlines.set(Deadline.WRITE, self.hub.settings.write_timeout, self._write_late)

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport's buffer is empty again."""
        self._paused = False
        self.deadlines.clear(Deadline.WRITE)
        if self._file is not None:
            self._push_file()
            return
        self._press(False, False)
        self._wake()
        if self._closing:
            self._linger()
        elif self._wire is not None:
            self._wire.writable()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport is gone; connectionLost says so too."""

    # What the wire calls.

    def pause_reading(self) -> None:
        """Read no more from the peer: TCP makes it wait."""
        if self.reading:
            self.reading = False
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read from the peer again."""
        if not self.reading:
            self.reading = True
            self.transport.resumeProducing()

    def close(self, *, unread: bool = False) -> None:
        """Close once everything written has been sent.

        A socket that is closed with unread input resets the connection, and the peer may lose what it was sent
        (RFC 9112 §9.6). So first only our direction is closed, and input is thrown away until the peer closes too
        or ``close_timeout`` has passed. Twisted's TLS has its own closing handshake for that. While much is still to be
        sent, ``write_timeout`` says how long that may take.

        :param unread: the peer is known to be still sending.
        """
        if self._closing:
            return
        self._closing = True
        self._unread = unread
        self._forget_requests()
        # Whoever waits for room to send more has nothing to wait for.
        self._wake()
        self.resume_reading()
        if not self.slow:
            self._linger()

    def _linger(self) -> None:
        self._buffered_before = self._buffered()
        self.deadlines.set(Deadline.CLOSE, self.hub.settings.close_timeout, self._close_late)
        self._send = None
        self.transport.unregisterProducer()
        bottom = self._bottom()
        # The PROXY protocol's wrapper knows no half-close, but there is nothing of its own that it would send.
        if bottom is None or (bottom is not self.transport and ISSLTransport.providedBy(self.transport)):
            self.transport.loseConnection()
        else:
            bottom.loseWriteConnection()

    def abort(self) -> None:
        """Drop the connection, and with it what was not sent yet."""
        self._closing = True
        self.deadlines.stop()
        self._send = None
        self._drop_file()
        self.transport.abortConnection()

    # What the server calls.

    def server_stopping(self) -> None:
        """Close when nothing is under way."""
        if self._wire is None or self._wire.server_stopping():
            self.close()

    def finish(self) -> None:
        """Close as soon as everything written has been sent, without waiting for an idle peer to close too."""
        if self._unread and self.deadlines.pending(Deadline.CLOSE):
            return
        self._closing = True
        self._forget_requests()
        if not self.deadlines.pending(Deadline.CLOSE):
            self._buffered_before = self._buffered()
            self.deadlines.set(Deadline.CLOSE, self.hub.settings.close_timeout, self._close_late)
        self._send = None
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        bottom = self._bottom()
        if bottom is not None:
            bottom.loseConnection()

    def _forget_requests(self) -> None:
        for kind in (Deadline.HEAD, Deadline.BODY, Deadline.KEEP_ALIVE):
            self.deadlines.clear(kind)

    # Time and pressure.

    def _bottom(self) -> Any:
        """The socket's transport under those that wrap it; None in a test without one."""
        transport = self.transport
        while transport is not None and not isinstance(transport, FileDescriptor):
            transport = getattr(transport, "transport", None)
        return transport

    def _buffered(self) -> int:
        """Bytes that wait in the transport at the bottom."""
        bottom = self._bottom()
        # TLS tells of what it has encrypted only when all of it is sent.
        sealed = len(getattr(bottom, "sealed", b""))
        return 0 if bottom is None else len(bottom.dataBuffer) - bottom.offset + bottom._tempDataLen + sealed

    def _late(self, kind: Deadline, seconds: float | None, expired: Callable[[], None]) -> None:
        """Drop a peer that has taken nothing since the last look."""
        buffered = self._buffered()
        if buffered < self._buffered_before:
            self._buffered_before = buffered
            self.deadlines.set(kind, seconds, expired)
        else:
            logger.info("Dropped %s, which took nothing for %g seconds", self.addresses.client, seconds)
            self.abort()

    def _press(self, slow: bool, congested: bool) -> None:
        """The wire keeps what it is asked for after each message at hand."""
        self.slow, self.congested = slow, congested
        if self._wire is not None:
            self._wire.slow, self._wire.congested = slow, congested

    def _silent_too_long(self) -> None:
        if self._wire is None:
            self.close()
        else:
            self._wire.idle_too_long()

    def _write_late(self) -> None:
        self._late(Deadline.WRITE, self.hub.settings.write_timeout, self._write_late)

    def _close_late(self) -> None:
        if self._buffered_before == self._buffered() == 0:
            # The kernel may still have megabytes to send to a slow peer; an abort would throw them away.
            self.finish()
            return
        self._late(Deadline.CLOSE, self.hub.settings.close_timeout, self._close_late)

    def _refuse(self) -> None:
        """Turn a connection away that is one too many."""
        error = RequestError(503, "There are too many connections.", ((b"retry-after", b"1"),))
        self.write(refusal(error, self.hub.fields))
        logger.debug("Turned %s away: %s", self.addresses.client, error.reason)
        self.close()


def _address(address: Any) -> tuple[str, int | None] | None:
    """Host and port of a Twisted address, path and None of a unix socket's, None when it has no name."""
    host = getattr(address, "host", None)
    if host is not None:
        return host, address.port
    name = getattr(address, "name", None)
    return (os.fsdecode(name), None) if name else None
