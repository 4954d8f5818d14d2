"""The per-connection Twisted protocol and its factory: bytes, time, and pressure; no HTTP."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocolNegotiationFactory,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..asgi.deadlines import Deadline
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Clock, Stream
from ..asgi.scope import Addresses, Request, shown_host, unmapped
from ..errors import RequestError
from ..settings import Settings
from .closing import ClosingProtocol, Phase
from .default_fields import DefaultFields
from .http1 import HTTP1
from .response import refusal

__all__ = ["HTTPConnection", "HTTPFactory", "WireHub"]

logger = logging.getLogger("asgiserver.wire")

#: Names of the module's own, as an enum's members are slower to look up.
_OPEN = Phase.OPEN

#: Steps that a connection may take in one turn of the loop with what it has read: few enough that the others hardly
#: wait even for the most expensive ones.
_STEPS = 128

#: Our own addresses, so that all connections to the same address share one object; and the most that are kept.
_SERVERS: dict[Any, Any] = {}
_MOST_SERVERS = 256


class WireHub(Protocol):
    """The part of the server that the wires need."""

    settings: Settings
    clock: Clock
    fields: DefaultFields
    keep_alive_timeout: float | None
    stopping: bool

    def connection_made(self, connection: HTTPConnection) -> bool:
        """Count a connection; False when there are too many, and then this one may be aborted already."""

    def connection_lost(self, connection: HTTPConnection) -> None:
        """Forget a connection."""

    def open_exchange(self, request: Request, stream: Stream, addresses: Addresses) -> Exchange:
        """Begin an exchange.

        :raises RequestError: the request is not for an application; the wire answers and closes.
        """

    def create_application(self, exchange: Exchange) -> None:
        """Begin the application of an exchange, in a turn of the loop to come."""

    def request_refused(self, request: Request | None, addresses: Addresses, error: RequestError) -> None:
        """The wire has answered a request that reached no application; it is None when its head could not be read."""


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
        """The protocols that ALPN may choose from (RFC 7301)."""
        return [b"http/1.1", b"http/1.0"]

    def redirecting(self, port: int) -> HTTPFactory:
        """A factory whose connections send each request on to the same host by https, to a ``port`` of this machine."""
        from .redirect import RedirectingHub

        return HTTPFactory(cast(WireHub, RedirectingHub(self.hub, port)))


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTPConnection(ClosingProtocol):
    """One connection, and its own ``Turn``, as one read can hold tens of thousands of frames or chunks.

    :ivar reading: False while the peer is made to wait.
    :ivar steps: see ``Turn``.
    """

    def __init__(self, hub: WireHub) -> None:
        super().__init__(hub.clock, hub.settings)
        self.hub = hub
        self._wire: HTTP1 | None = None
        self._addresses: Addresses | None = None
        self.reading = True
        self.steps = 0
        # Calls for the next turn; nothing is read before they have done all their work.
        self._kept_back: tuple[Callable[[], None], ...] = ()
        self._held = self._stopped = False

    @property
    def addresses(self) -> Addresses:
        """The two ends; looked up with the first request, as a PROXY header has been read by then."""
        if self._addresses is None:
            transport = self.transport
            client, server = _address(transport.getPeer()), _address(transport.getHost())
            if client is not None and client[1] is None:
                client = None
            # Shared objects save memory on idle connections: the transport keeps the peer's address anyway, and few
            # addresses are listened on.
            kept = getattr(transport, "client", None)
            if isinstance(kept, tuple) and kept[:2] == client:
                client = kept[:2]
            if len(_SERVERS) >= _MOST_SERVERS:
                _SERVERS.clear()
            server = _SERVERS.setdefault(server, server)
            secure = ISSLTransport.providedBy(transport)
            # An attribute that a wrapper lacks is looked up on the transport in it.
            header = getattr(transport, "proxy_header", None)
            self._addresses = Addresses(client, server, secure)  # type: ignore[arg-type]
            if header is not None and header.client is not None:
                self._addresses = self._addresses._replace(
                    secure=secure or header.secure, announced=True, proxy=getattr(transport, "proxy", None)
                )
        return self._addresses

    # Called by Twisted.

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """The connection stands; TLS may still have to shake hands."""
        transport = self.transport
        self._begin_writing()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        if self.hub.connection_made(self):
            # The wire clears this deadline with the first byte of a head; empty lines do not count.
            self.deadlines.set(Deadline.FIRST_BYTE, self.hub.settings.first_byte_timeout, self.close)
        elif self.phase is _OPEN:
            self._refuse()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Bytes of the peer; they are thrown away once the connection is closing."""
        if self.phase is not _OPEN:
            self._heard = True
            return
        wire = self._wire
        if wire is None:
            wire = self._wire = HTTP1(self)
        # A read comes from the event loop, so the others have just had a turn.
        self._unyielded = 0
        if not self._held:
            self.steps = _STEPS
        wire.data_received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The connection is gone, whichever side ended it."""
        if type(reason.value).__module__ == "OpenSSL.SSL":
            # Twisted's TLS reports its failures only here; ours logs its own. The socket's own address is gone by now.
            peer = shown_host(_address(self.transport.getPeer()))
            logger.info("TLS connection with %s failed: %s", peer, reason.value)
        self.phase = Phase.CLOSED
        self.deadlines.stop()
        self._end_writing()
        self._peer_left()
        self.hub.connection_lost(self)

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport's buffer is full."""
        self._paused = True
        self.slow = self.congested = True
        # Twisted calls this again with each write, which must not move the deadline.
        if not self.deadlines.pending(Deadline.WRITE):
            self._watch(Deadline.WRITE, self.hub.settings.write_timeout, self._write_late)

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport's buffer is empty again."""
        self._paused = False
        self.deadlines.clear(Deadline.WRITE)
        if self._file is not None:
            self._push_file()
            return
        self.slow = self.congested = False
        self._wake()
        if self.phase is not _OPEN:
            self._linger()
        elif self._wire is not None:
            self._wire.writable()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport is gone; connectionLost says so too."""

    def plain_received(self) -> None:
        """Called by our TLS transport: the peer speaks HTTP without TLS, so it is answered without TLS."""
        error = RequestError(400, "This port speaks TLS: ask for an https address.")
        logger.info("Refused %s, which speaks plain HTTP to a port of TLS", self.addresses.peer)
        self.write(refusal(error, self.hub.fields))
        self.close(unread=True)

    # Called by the wire.

    def pause_reading(self) -> None:
        """Read no more from the peer: TCP makes it wait."""
        self.reading = False
        self._regulate()

    def resume_reading(self) -> None:
        """Read from the peer again."""
        self.reading = True
        self._regulate()

    def wait_for_turn(self, go_on: Callable[[], None]) -> None:
        """See ``Turn``."""
        self._held = True
        self._regulate()
        if not self._kept_back:
            self._clock.callLater(0, self._next_turn)
        if go_on not in self._kept_back:
            self._kept_back += (go_on,)

    def _next_turn(self) -> None:
        kept_back, self._kept_back = self._kept_back, ()
        if self.phase is not _OPEN:
            return
        self.steps = _STEPS
        for go_on in kept_back:
            go_on()
        self._held = bool(self._kept_back)
        self._regulate()

    def _regulate(self) -> None:
        """Read while the wire wants input and keeps no work for a later turn; a closing connection always reads."""
        stopped = not self.reading or self._held and self.phase is _OPEN
        if stopped is not self._stopped and self.phase is not Phase.CLOSED:
            self._stopped = stopped
            if stopped:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # Called by the server.

    def server_stopping(self) -> None:
        """Tell the exchange that is under way; without one, the hub's new ``keep_alive_timeout`` counts from now."""
        if self.phase is not _OPEN:
            return
        if self._wire is None:
            self.deadlines.set(Deadline.KEEP_ALIVE, self.hub.keep_alive_timeout, self.close)
        else:
            self._wire.server_stopping()

    def drop(self) -> None:
        """Drop the peer at once; the kernel still sends what it has, unless a cut response could look complete."""
        if not self._direct or self._wire is None or self._wire.ends_with_connection:
            self.abort()
        else:
            self.transport.connectionLost(connectionDone)

    # Time and pressure.

    def _peer_left(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.connection_lost()

    def _refuse(self) -> None:
        """Turn away a connection above the limit."""
        error = RequestError(503, "There are too many connections.", ((b"retry-after", b"1"),))
        self.write(refusal(error, self.hub.fields))
        logger.debug("Turned %s away: %s", self.addresses.peer, error.reason)
        self.close()


def _address(address: Any) -> tuple[str, int | None] | None:
    """The host and port of a Twisted address; for a unix socket, its path and None, or None when it has no name."""
    host = getattr(address, "host", None)
    if host is not None:
        return unmapped(host), address.port
    name = getattr(address, "name", None)
    return (os.fsdecode(name), None) if name else None
