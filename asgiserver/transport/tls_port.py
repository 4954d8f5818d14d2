"""A port whose connections are TLS, with the buffers that all of them share."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.interfaces import IProtocolNegotiationFactory

from .certificates import Certificates
from .tcp import TCPPort
from .tls import READ_SIZE, TLSTransport

__all__ = ["TLSPort"]


class TLSPort(TCPPort):
    """A listening TCP socket whose connections are TLS.

    :ivar certificates: they give each connection its context.
    :ivar handshake_timeout: the most seconds that a handshake may take; None for no limit.
    :ivar protocols: ALPN's names of the protocols that may be spoken; empty for a factory that names none.
    :ivar received: the bytes read from a socket.
    :ivar incoming: OpenSSL's input.
    :ivar outgoing: OpenSSL's output.
    """

    transport = TLSTransport
    _type = "TLS"

    certificates: Certificates
    handshake_timeout: float | None = None
    protocols: frozenset[bytes] = frozenset()
    received: memoryview
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    def secure(self, certificates: Certificates, handshake_timeout: float | None = None) -> None:
        """Prepare for connections; an ``IProtocolNegotiationFactory`` is asked for the protocols of ALPN."""
        factory: Any = self.factory
        if IProtocolNegotiationFactory.providedBy(factory):
            names = factory.acceptableProtocols()
            certificates.offer(name.decode("ascii") for name in names)
            self.protocols = frozenset(names)
        self.certificates, self.handshake_timeout = certificates, handshake_timeout
        self.received = memoryview(bytearray(READ_SIZE))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
