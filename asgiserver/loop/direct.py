"""Twisted's asyncio reactor, with a shorter way from the loop to a connection's read.

Twisted calls a reader in a logging context, which often costs more than the read and which nothing here uses. It also
reads 64 KiB at most: too little for a body of 64 KiB with its head, and needlessly often for a large body. So this
module reads plain TCP sockets itself, and calls the ``doRead`` of other transports, such as TLS, directly.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection

__all__ = ["DirectReactor", "OwnWatch", "Watch", "is_plain"]

#: Most bytes of a read: a body or a frame of 64 KiB and its head fit into one, and malloc does not yet ask the kernel
#: for each buffer of this size.
_MOST = 98304
#: Most bytes of a read after one that was full: a peer that sends so much will send more. Malloc keeps such a buffer
#: for the next read.
_MOST_OF_MUCH = 262144
_PLAIN = Connection.doRead, Connection._dataReceived
_FAILED = "A connection's protocol has failed"


def is_plain(reader: Any) -> bool:
    """True for a connection that reads its socket as Twisted's ``Connection`` does, without TLS or the like."""
    kind = type(reader)
    return isinstance(reader, Connection) and (kind.doRead, kind._dataReceived) == _PLAIN


class Watch:
    """The callback of a plain reader: does what Twisted's ``doRead`` does."""

    __slots__ = ("most", "reactor", "reader", "socket")

    def __init__(self, reactor: DirectReactor, reader: Any) -> None:
        self.reactor = reactor
        self.reader = reader
        #: Not its bound ``recv``, which would cost each connection 72 bytes and gain nothing.
        self.socket = reader.socket
        self.most = _MOST

    def __call__(self) -> None:
        reader = self.reader
        most = self.most
        why: Exception
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        except OSError:
            why = CONNECTION_LOST
        else:
            if data:
                size = len(data)
                if size == most:
                    self.most = _MOST_OF_MUCH
                elif size < _MOST:
                    self.most = _MOST
                try:
                    reader.protocol.dataReceived(data)
                    return
                except Exception as error:  # noqa: BLE001 - any error, as in Twisted
                    why = error
                    self.reactor._log.failure(_FAILED)
            else:
                why = CONNECTION_DONE
        self.reactor._disconnectSelectable(reader, why, True)  # type: ignore[no-untyped-call]


class OwnWatch:
    """The callback of a connection that reads in a way of its own."""

    __slots__ = ("reactor", "reader")

    def __init__(self, reactor: DirectReactor, reader: Any) -> None:
        self.reactor = reactor
        self.reader = reader

    def __call__(self) -> None:
        reader = self.reader
        try:
            # Looked up each time, because Twisted gives an aborted connection another ``doRead``.
            why: Any = reader.doRead()
        except Exception as error:  # noqa: BLE001 - any error, as in Twisted
            why = error
            self.reactor._log.failure(_FAILED)
        if why is not None:
            self.reactor._disconnectSelectable(reader, why, True)  # type: ignore[no-untyped-call]


class DirectReactor(AsyncioSelectorReactor):
    """For any loop that an asyncio reactor can be on.

    :ivar _readers: Twisted's own attribute: the readers that are watched, with their descriptors.
    """

    _asyncioEventloop: AbstractEventLoop  # noqa: N815
    _readers: dict[Any, int]

    def addReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's name
        """Call ``reader.doRead``, or its equivalent, when there is something to read or an error to meet."""
        if not isinstance(reader, Connection):
            super().addReader(reader)  # type: ignore[no-untyped-call]
        elif reader not in self._readers:
            descriptor = reader.fileno()
            kind = Watch if is_plain(reader) else OwnWatch
            self._asyncioEventloop.add_reader(descriptor, kind(self, reader))
            self._readers[reader] = descriptor
