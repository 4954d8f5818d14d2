"""Accepting connections while the process has no descriptor left for them.

Twisted's port keeps a descriptor in reserve, accepts such a connection with it, and closes the connection without a
warning. If another part of the process takes that descriptor first, the reactor calls the port again and again for a
connection that the port cannot accept. Here the port pauses for a while instead, as in asyncio and nginx: clients
wait in the backlog and are served when there are descriptors again.
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

#: The errors of accept(2) when the process or the system has no resources left for another connection.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

#: Seconds that a port pauses then, and seconds for which the warning is not repeated.
_PAUSE = 1.0
_SILENCE = 60.0


class ListeningSocket(socket.socket):
    """The socket of a Twisted port, in place of the one that the port has made.

    :ivar warned_at: when the last warning about any of these sockets was given, by the reactor's clock.
    """

    warned_at = -math.inf

    def __init__(self, port: Any) -> None:
        super().__init__(fileno=port.socket.detach())
        self.setblocking(False)
        self._port = port

    def accept(self) -> tuple[socket.socket, Any]:
        """As ``socket.accept``, but pause the port and report no connection while no descriptor is left.

        :raises OSError: accept(2)'s error about this one connection; BlockingIOError when there is none to accept.
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
        # The port may have been closed meanwhile.
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()


def watch(port: Any) -> None:
    """Have a listening port pause while it cannot accept; a port that is no ``tcp.Port`` is left as it is."""
    if isinstance(port, tcp.Port) and port.connected:
        port.socket = ListeningSocket(port)
        port.fileno = port.socket.fileno  # type: ignore[method-assign]
