"""A port of Twisted's on a unix socket that listens already. Imported when there is one."""

from __future__ import annotations

import os
import socket
from typing import Any, cast

from twisted.internet import tcp, unix

__all__ = ["UNIXPort"]


class UNIXPort(unix.Port):
    """A port on a unix socket that listens already.

    Twisted's own changes the mode of the socket's file when it starts, listens again with a backlog of 50, and unlinks
    the path when it ends, whosever file is there by then. This one leaves the file system alone.
    """

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
