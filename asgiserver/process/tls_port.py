"""A port whose connections are TLS, with the memory that all of them work in."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Self

from twisted.internet import tcp
from twisted.internet.interfaces import IProtocolNegotiationFactory

from .tls import READ_SIZE, TLSTransport

__all__ = ["TLSPort"]


class TLSPort(tcp.Port):
    """A listening TCP socket whose connections are TLS.

    :ivar protocols: what may be spoken, as ALPN names it; empty for a factory that does not say.
    :ivar received: what was read from a socket.
    :ivar incoming: OpenSSL's input.
    :ivar outgoing: OpenSSL's output.
    """

    transport = TLSTransport  # type: ignore[assignment]
    _type = "TLS"

    context: ssl.SSLContext
    protocols: frozenset[bytes] = frozenset()
    received: memoryview
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    @classmethod
    def adopt(cls, sock: socket.socket, factory: Any, reactor: Any, context: ssl.SSLContext) -> Self:
        """Accept on a copy of a socket that listens already.

        :param factory: an ``IProtocolFactory``; an ``IProtocolNegotiationFactory`` is asked for the protocols of ALPN.
        """
        port = cls._fromListeningDescriptor(reactor, sock.fileno(), sock.family, factory)  # type: ignore[no-untyped-call]
        assert isinstance(port, cls)
        port.secure(context)
        port.startListening()
        return port

    def secure(self, context: ssl.SSLContext) -> None:
        """Prepare for connections."""
        factory: Any = self.factory
        if IProtocolNegotiationFactory.providedBy(factory):
            names = factory.acceptableProtocols()
            context.set_alpn_protocols([name.decode("ascii") for name in names])
            self.protocols = frozenset(names)
        self.context = context
        self.received = memoryview(bytearray(READ_SIZE))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
