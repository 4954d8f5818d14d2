"""Twisted's TCP port and its connections, with less memory for each: an idle connection has little else."""

from __future__ import annotations

import socket
from typing import Any, Self

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.python.failure import Failure

from ..asgi.scope import unmapped

__all__ = ["TCPPort", "TCPTransport"]


class TCPTransport(tcp.Server):
    """Twisted's TCP connection; texts for a log or a ``repr`` are made on demand."""

    protocol: Any
    server: TCPPort

    def __init__(
        self, skt: socket.socket, protocol: Any, client: tuple[object, ...], server: Any, sessionno: int, reactor: Any
    ) -> None:
        host = unmapped(str(client[0]))
        if host != client[0]:
            # An IPv4 client on an IPv6 socket; Twisted takes an address of two items for IPv4.
            client = (host, client[1])
        # Connections share one object per address: behind a proxy all clients have the same.
        if client[0] == server.recent_host:
            client = (server.recent_host, *client[1:])
        server.recent_host = client[0]
        super().__init__(skt, protocol, client, server, sessionno, reactor)
        # Methods of this class save the memory of these attributes.
        del self.logstr, self.repstr, self.fileno

    def getHost(self) -> IPv4Address | IPv6Address:  # noqa: N802 - Twisted's name
        """Our end, of the same family as the client's."""
        if len(self.client) == 2:
            host, port = self.socket.getsockname()[:2]
            return IPv4Address("TCP", unmapped(host), port)
        address: IPv6Address = super().getHost()  # type: ignore[no-untyped-call]
        return address

    def fileno(self) -> int:
        """The socket's descriptor; -1 when there is none any more."""
        skt: socket.socket | None = self.__dict__.get("socket")
        return -1 if skt is None else skt.fileno()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """The prefix of Twisted's log lines about this connection."""
        return f"{self._kind},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        return f"<{self._kind} #{self.sessionno} on {self.server._realPortNumber}>"

    @property
    def _kind(self) -> str:
        return type(self.__dict__.get("protocol", self)).__name__

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Close the socket, and tell the protocol."""
        if "socket" in self.__dict__:
            # Twisted's method deletes this attribute.
            self.fileno = self.socket.fileno  # type: ignore[method-assign]
        super().connectionLost(reason)


class TCPPort(tcp.Port):
    """A listening TCP socket.

    :ivar recent_host: the address of the latest peer, without its port.
    """

    transport: Any = TCPTransport
    recent_host: object = None

    @classmethod
    def adopt(cls, sock: socket.socket, factory: Any, reactor: Any) -> Self:
        """A port that accepts on a copy of a socket that listens already, once ``startListening`` is called.

        :param factory: an ``IProtocolFactory``.
        """
        port = cls._fromListeningDescriptor(reactor, sock.fileno(), sock.family, factory)  # type: ignore[no-untyped-call]
        assert isinstance(port, cls)
        return port
