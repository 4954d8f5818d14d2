"""The data that a transport has not sent yet. Twisted keeps it in private attributes, and offers no other access."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor

__all__ = ["bottom_of", "call_when_empty", "is_idle", "unsent"]


def bottom_of(transport: Any) -> Any:
    """The socket's transport under those that wrap it, such as Twisted's TLS; None where there is no socket."""
    while transport is not None and not isinstance(transport, FileDescriptor):
        transport = getattr(transport, "transport", None)
    return transport


def is_idle(transport: Any) -> bool:
    """Whether an open socket's transport has nothing to send and is not closing: new data would overtake nothing."""
    waiting = transport.dataBuffer or transport._tempDataBuffer
    return bool(transport.connected and not (waiting or transport.disconnecting))


def unsent(transport: Any) -> int:
    """Bytes that a socket's transport has still to send."""
    # Our TLS takes data off Twisted's buffer only when all its encrypted bytes are sent; ``sealed`` shows progress.
    sealed = len(getattr(transport, "sealed", b""))
    size: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen + sealed
    return size


def call_when_empty(transport: Any) -> None:
    """Have a socket's transport call its producer's ``resumeProducing`` when there is room, even if it has no bytes."""
    transport.producerPaused = True
    transport.startWriting()
