"""The per-connection Twisted protocol and its factory: bytes, time, and how a connection ends; no HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol, cast

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocolNegotiationFactory,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..asgi.deadlines import Deadline, Deadlines
from ..asgi.exchange import Exchange
from ..asgi.interfaces import Clock, Stream
from ..asgi.scope import Addresses, Request, shown_host
from ..errors import RequestError
from ..settings import Settings
from .addresses import address_of, addresses_of
from .default_fields import DefaultFields
from .http1 import HTTP1
from .output import Output
from .progress import Progress
from .response import refusal

__all__ = ["PREFACE", "HTTPConnection", "HTTPFactory", "Phase", "WireHub"]

logger = logging.getLogger("asgiserver.wire")

#: Steps that a connection may take in one turn of the loop with what it has read: few enough that the others hardly
#: wait even for the most expensive ones.
_STEPS = 128

#: What a client of HTTP/2 sends first (RFC 9113 §3.4); until it is whole, it may be a request of HTTP/1.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: How long a peer may go on sending to a connection that is closing, as nginx has it; seconds. Between two reads it is
#: ``close_timeout``.
_LINGERING = 30.0


class Phase(Enum):
    """How far the end of a connection has come."""

    OPEN = auto()  # requests are read
    CLOSING = auto()  # what was written is still sent, and input is thrown away
    CLOSING_UNREAD = auto()  # the same, but the peer is still sending, and has time to finish
    CLOSED = auto()  # whichever side ended it


#: Names of the module's own, as an enum's members are slower to look up.
_OPEN, _CLOSING, _CLOSING_UNREAD, _CLOSED = Phase


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

    def is_running(self, exchange: Exchange) -> bool:
        """The application of an exchange has begun and not ended."""

    def request_refused(self, request: Request | None, addresses: Addresses, error: RequestError) -> None:
        """The wire has answered a request that reached no application; it is None when its head could not be read."""


class Wire(Protocol):
    """The protocol that is spoken on a connection, as the connection sees it."""

    @property
    def ends_with_connection(self) -> bool:
        """Only the end of the connection tells where a response ends."""

    def data_received(self, data: bytes) -> None:
        """Take bytes of the peer."""

    def connection_lost(self) -> None:
        """The peer cannot be reached any more."""

    def writable(self) -> None:
        """The peer takes data again after the output was slow."""

    def server_stopping(self) -> None:
        """The server wants to stop."""

    def finish(self) -> bool:
        """Write what is still to be written; False while that has to wait for the peer, after which it closes."""


@implementer(IProtocolNegotiationFactory)
class HTTPFactory(Factory):
    """Builds the protocol of each connection.

    :param hub: the server.
    """

    noisy = False

    def __init__(self, hub: WireHub) -> None:
        self.hub = hub

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:  # noqa: N802 - Twisted's name
        return HTTPConnection(self.hub)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802 - Twisted's name
        """The protocols that ALPN may choose from (RFC 7301)."""
        return [*([b"h2"] if self.hub.settings.http2 == "auto" else []), b"http/1.1", b"http/1.0"]

    def redirecting(self, port: int) -> HTTPFactory:
        """A factory whose connections send each request on to the same host by https, to a ``port`` of this machine."""
        from .redirect import RedirectingHub

        return HTTPFactory(cast(WireHub, RedirectingHub(self.hub, port)))


@implementer(IHalfCloseableProtocol)
class HTTPConnection(TwistedProtocol):
    """One connection, and its own ``Turn``, as one read can hold tens of thousands of frames or chunks.

    :ivar output: the way out, which all streams share.
    :ivar deadlines: one for each thing that the peer still has to do.
    :ivar phase: how far its end has come.
    :ivar reading: False while the peer is made to wait.
    :ivar steps: see ``Turn``.
    """

    __slots__ = (
        "_addresses", "_heard", "_held", "_kept_back", "_lingers_until", "_opening", "_progress", "_stopped", "_wire",
        "deadlines", "hub", "output", "phase", "reading", "steps",
    )  # fmt: skip

    transport: Any
    output: Output

    def __init__(self, hub: WireHub) -> None:
        self.hub = hub
        self.deadlines = Deadlines(hub.clock)
        self.phase = _OPEN
        self.reading = True
        self.steps = 0
        self._wire: Wire | None = None
        # The first bytes, while they may be those of HTTP/2.
        self._opening = b""
        self._addresses: Addresses | None = None
        # Calls for the next turn; nothing is read before they have done all their work.
        self._kept_back: tuple[Callable[[], None], ...] = ()
        self._held = self._stopped = False
        # Of a peer that is slow, or that we close: how it takes what it is sent, whether it still sends, until when.
        self._progress: Progress | None = None
        self._heard = False
        self._lingers_until = 0.0

    @property
    def addresses(self) -> Addresses:
        """The two ends; looked up with the first request, as a PROXY header has been read by then."""
        if self._addresses is None:
            self._addresses = addresses_of(self.transport)
        return self._addresses

    # Called by Twisted.

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """The connection stands; TLS may still have to shake hands."""
        transport = self.transport
        self.output = Output(transport, self.hub.clock, self)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self.output, True)
        settings = self.hub.settings
        timeout: float | None = settings.first_byte_timeout
        if not self.hub.connection_made(self):
            # Imported here, as many servers never need it.
            from .refusing import RefusingHub

            self.hub = cast(WireHub, RefusingHub(self.hub))
            timeout = settings.close_timeout
        if self.phase is _OPEN:
            # The wire clears this deadline with the first byte of a head; empty lines do not count.
            self.deadlines.set(Deadline.FIRST_BYTE, timeout, self.close)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Bytes of the peer; they are thrown away once the connection is closing."""
        if self.phase is not _OPEN:
            self._heard = True
            return
        wire = self._wire
        if wire is None:
            self._opening += data
            wire = self._wire = self._chosen_wire()
            if wire is None:
                return
            data, self._opening = self._opening, b""
        # A read comes from the event loop, so the others have just had a turn.
        self.output.unyielded = 0
        if not self._held:
            self.steps = _STEPS
        wire.data_received(data)

    def _chosen_wire(self) -> Wire | None:
        """The wire that ALPN or the first bytes ask for (RFC 9113 §3.2, §3.3); None while they leave it open."""
        opening = self._opening
        if self.hub.settings.http2 == "auto":
            agreed = getattr(self.transport, "negotiatedProtocol", None)
            prior_knowledge = not ISSLTransport.providedBy(self.transport) and opening[:1] == PREFACE[:1]
            if agreed == b"h2" or prior_knowledge and opening.startswith(PREFACE):
                # Imported here, as many servers never meet it.
                from .http2 import HTTP2

                return HTTP2(self)
            if prior_knowledge and PREFACE.startswith(opening):
                self.deadlines.clear(Deadline.FIRST_BYTE)
                if not self.deadlines.pending(Deadline.HEAD):
                    self.deadlines.set(Deadline.HEAD, self.hub.settings.head_timeout, self._opening_late)
                return None
        return HTTP1(self)

    def _opening_late(self) -> None:
        wire = self._wire = HTTP1(self)
        wire.data_received(self._opening)
        wire.head_late()

    def plain_received(self) -> None:
        """Called by our TLS transport: the peer speaks HTTP without TLS, so it is answered without TLS."""
        error = RequestError(400, "This port speaks TLS: ask for an https address.")
        logger.info("Refused %s, which speaks plain HTTP to a port of TLS", self.addresses.peer)
        self.output.write(refusal(error, self.hub.fields))
        self.close(unread=True)

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """The peer has ended its direction. It counts as gone: a peer that closes both directions looks the same.

        So the application is told that its peer is gone, and can send no more. But the bytes and the file that it has
        handed over are still sent, as the peer may read on.
        """
        self.phase = _CLOSING
        self._forget_requests()
        self._peer_left()
        self.output.wake()
        if self.output.socket is None or self.output.busy:
            self.output.after_file(self._close_behind_all)
        else:
            self.transport.connectionLost(connectionDone)

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Our direction is closed after everything written; the peer now has ``close_timeout`` to close its own."""
        if self.deadlines.pending(Deadline.CLOSE):
            self.deadlines.set(Deadline.CLOSE, self.hub.settings.close_timeout, self._close_late)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The connection is gone, whichever side ended it."""
        if type(reason.value).__module__ == "OpenSSL.SSL":
            # Twisted's TLS reports its failures only here; ours logs its own. The socket's own address is gone by now.
            peer = shown_host(address_of(self.transport.getPeer()))
            logger.info("TLS connection with %s failed: %s", peer, reason.value)
        self.phase = _CLOSED
        self.deadlines.stop()
        self.output.lost()
        self._peer_left()
        self.hub.connection_lost(self)

    def _peer_left(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.connection_lost()

    # Reading, as the wire wants it.

    def pause_reading(self) -> None:
        """Read no more from the peer: TCP makes it wait."""
        self.reading = False
        self._regulate()

    def resume_reading(self) -> None:
        self.reading = True
        self._regulate()

    def wait_for_turn(self, go_on: Callable[[], None]) -> None:
        self._held = True
        self._regulate()
        if not self._kept_back:
            self.hub.clock.callLater(0, self._next_turn)
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
        if stopped is not self._stopped and self.phase is not _CLOSED:
            self._stopped = stopped
            if stopped:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # Called by the hub.

    def server_stopping(self) -> None:
        """Tell the exchange that is under way; without one, the hub's new ``keep_alive_timeout`` counts from now."""
        if self.phase is not _OPEN:
            return
        if self._wire is None and not self._opening:
            self.deadlines.set(Deadline.KEEP_ALIVE, self.hub.keep_alive_timeout, self.close)
        elif self._wire is not None:
            self._wire.server_stopping()

    def adopt(self, request: Request) -> Exchange | None:
        """Serve a request that another server has read from this connection, as its only one.

        :returns: its exchange, for which the caller creates the application; None when the request was refused.
        """
        if self.phase is not _OPEN:
            return None
        wire = self._wire = HTTP1(self)
        return wire.adopt(request)

    def drop(self) -> None:
        """Drop the peer at once; the kernel still sends what it has, unless a cut response could look complete."""
        if not self.output.direct or self._wire is None or self._wire.ends_with_connection:
            self.abort()
        else:
            self.transport.connectionLost(connectionDone)

    # The end: after what was written, without a reset, in bounded time; or at once.

    def close(self, *, unread: bool = False) -> None:
        """Close once everything written has been sent, except the rest of a file.

        A socket that is closed with unread input resets the connection, and the peer may lose what it was sent
        (RFC 9112 §9.6). So first only our direction is closed, and input is thrown away until the peer closes too,
        has sent nothing for ``close_timeout``, or has sent for too long. Twisted's TLS has its own closing handshake
        for that. While the transport's buffer is full, ``write_timeout`` and ``min_response_rate`` count first.

        :param unread: the peer is known to be still sending.
        """
        if self.phase is not _OPEN:
            return
        self.phase = _CLOSING_UNREAD if unread else _CLOSING
        self.output.give_file_up()
        self._forget_requests()
        # An application that waits for room to send more has nothing to wait for.
        self.output.wake()
        self.resume_reading()
        if not self.output.slow:
            self._linger()

    def finish(self) -> None:
        """Close as soon as everything written has been sent, without waiting for an idle peer to close too."""
        if self.phase is _CLOSING_UNREAD and self.deadlines.pending(Deadline.CLOSE):
            return
        if self.phase is _OPEN and self._wire is not None and not self._wire.finish():
            return
        self.phase = _CLOSING
        self._forget_requests()
        self.output.after_file(self._close_behind_all)

    def abort(self) -> None:
        """Drop the connection, and with it what was not sent yet."""
        self.phase = _CLOSED
        self.deadlines.stop()
        self.output.abort()

    def _linger(self) -> None:
        self._lingers_until = self.hub.clock.seconds() + _LINGERING
        self._watch(Deadline.CLOSE, self.hub.settings.close_timeout, self._close_late)
        self.output.close_write()

    def _close_behind_all(self) -> None:
        if not self.deadlines.pending(Deadline.CLOSE):
            self._watch(Deadline.CLOSE, self.hub.settings.close_timeout, self._close_late)
        self.output.close()

    def _forget_requests(self) -> None:
        self.deadlines.clear(
            Deadline.FIRST_BYTE, Deadline.HEAD, Deadline.BODY, Deadline.BODY_RATE, Deadline.KEEP_ALIVE
        )  # fmt: skip

    def _close_late(self) -> None:
        heard, self._heard = self._heard, False
        left = self._lingers_until - self.hub.clock.seconds()
        if self.output.busy:
            self._look(Deadline.CLOSE, self.hub.settings.close_timeout, self._close_late)
        elif heard and left > 0:
            self.deadlines.set(Deadline.CLOSE, min(left, self.hub.settings.close_timeout), self._close_late)
        else:
            # The kernel may still have megabytes to send to a slow peer; an abort would throw them away.
            self.finish()

    # Called by the output: a peer that takes what it is sent too slowly.

    def output_full(self) -> None:
        self._watch(Deadline.WRITE, self.hub.settings.write_timeout, self._write_late)

    def output_empty(self) -> None:
        self.deadlines.clear(Deadline.WRITE)
        if self.output.slow:
            return  # a file goes on
        if self.phase is not _OPEN:
            self._linger()
        elif self._wire is not None:
            self._wire.writable()

    def _write_late(self) -> None:
        self._look(Deadline.WRITE, self.hub.settings.write_timeout, self._write_late)

    def _watch(self, kind: Deadline, timeout: float | None, expired: Callable[[], None]) -> None:
        """Begin to watch how much the peer takes; ``expired`` must call :meth:`_look`."""
        now = self.hub.clock.seconds()
        self._progress = Progress(now, self.output.pending)
        self.deadlines.set(kind, self._progress.next_look(now, timeout, self.hub.settings.min_response_rate), expired)

    def _look(self, kind: Deadline, timeout: float | None, expired: Callable[[], None]) -> None:
        """Drop a peer that takes nothing, or too little of what it is sent."""
        assert self._progress is not None
        now, rate = self.hub.clock.seconds(), self.hub.settings.min_response_rate
        fault = self._progress.fault(now, self.output.pending, timeout, rate)
        if fault is None:
            self.deadlines.set(kind, self._progress.next_look(now, timeout, rate), expired)
        else:
            logger.info("Dropped %s, which %s", self.addresses.peer, fault)
            self.abort()
