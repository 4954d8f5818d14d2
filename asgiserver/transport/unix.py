"""A Twisted port on a unix socket that listens already. Imported only when there is such a socket."""

from __future__ import annotations

import os
import socket
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress

from .tcp import TCPTransport

__all__ = ["UNIXPort", "UNIXTransport"]


class UNIXTransport(TCPTransport):
    """A connection over a unix socket: as one over TCP, except for the addresses.

    Twisted's own can pass file descriptors, and reads and writes in another way for that, which nothing here needs.
    """

    def __init__(
        self, skt: socket.socket, protocol: Any, client: bytes | str, server: UNIXPort, sessionno: int, reactor: Any
    ) -> None:
        self._name = client or None
        super().__init__(skt, protocol, ("", 0), server, sessionno, reactor)

    def getHost(self) -> UNIXAddress:  # type: ignore[override]  # noqa: N802 - Twisted's name
        """The path that the client connected to."""
        return UNIXAddress(self.socket.getsockname())

    def getPeer(self) -> UNIXAddress:  # noqa: N802 - Twisted's name
        """The client's path; few clients have one."""
        return UNIXAddress(self._name)

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802 - Twisted's name
        """Do nothing: a unix socket has no such delay."""


class UNIXPort(unix.Port):
    """A port on a unix socket that listens already.

    Twisted's own changes the mode of the socket's file when it starts, listens again with a backlog of 50, and unlinks
    the path when it ends, even if the file there is another server's by then. This one leaves the file system alone.
    """

    transport: Any = UNIXTransport
    recent_host: object = None
    # Closing this copy must not end the listening of other copies, as a shutdown would.
    _shouldShutdown = False  # noqa: N815

    def __init__(self, sock: socket.socket, factory: Any, reactor: Any) -> None:
        super().__init__(os.fsencode(sock.getsockname()), factory, reactor=reactor)
        self._listening = sock

    def startListening(self) -> None:  # noqa: N802
        cast(Any, self.factory).doStart()
        self.socket = self._listening
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        tcp.Port.connectionLost(self, reason)  # type: ignore[no-untyped-call]
