"""Accepting connections while the process has no descriptor left for them.

Twisted's port accepts such a connection with a descriptor that it keeps in reserve, and closes it without a warning. If
another part of the process takes that descriptor first, the port is called again and again for a connection that it
cannot accept. Here the port is left alone for a while, as asyncio and nginx do it: clients wait in the backlog and are
served when there are descriptors again.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
from typing import Any

from twisted.internet import tcp

__all__ = ["ListeningSocket", "watch"]

logger = logging.getLogger("asgiserver")

#: What accept(2) says when the process, or the system, has nothing left for another connection.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

#: How long a port is left alone then, and how long a warning is not repeated; seconds.
_PAUSE = 1.0
_SILENCE = 60.0


class ListeningSocket(socket.socket):
    """The socket of a Twisted port; stands in for the one that the port has made.

    :ivar warned_at: when the last warning was given, whichever socket it was about, by the reactor's clock.
    """

    warned_at = -math.inf

    def __init__(self, port: Any) -> None:
        super().__init__(fileno=port.socket.detach())
        self.setblocking(False)
        self._port = port

    def accept(self) -> tuple[socket.socket, Any]:
        """As ``socket.accept``, but while the process has no descriptor left no connection is there to accept.

        :raises OSError: what accept(2) says of this one connection, or BlockingIOError when there is none.
        """
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(error)
        raise BlockingIOError(errno.EAGAIN, "nobody can be accepted for the moment")

    def _pause(self, error: OSError) -> None:
        reactor = self._port.reactor
        self._port.stopReading()
        reactor.callLater(_PAUSE, self._resume)
        now = reactor.seconds()
        if now - ListeningSocket.warned_at >= _SILENCE:
            ListeningSocket.warned_at = now
            logger.warning(
                "New connections have to wait: %s. Allow the process more (ulimit -n), or lower --limit-connections",
                error.strerror,
            )

    def _resume(self) -> None:
        # It may have been closed meanwhile.
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()


def watch(port: Any) -> None:
    """Have a port wait while nobody can be accepted; one that is no socket's of Twisted's goes on as it likes."""
    if isinstance(port, tcp.Port) and port.connected:
        port.socket = ListeningSocket(port)
        port.fileno = port.socket.fileno  # type: ignore[method-assign]
