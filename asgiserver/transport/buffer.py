"""What a transport has not sent yet. Twisted keeps it in attributes of its own, and tells of it by no other way."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor

__all__ = ["bottom_of", "call_when_empty", "is_idle", "unsent"]


def bottom_of(transport: Any) -> Any:
    """The socket's transport under those that wrap it, as Twisted's TLS does; None where there is no socket."""
    while transport is not None and not isinstance(transport, FileDescriptor):
        transport = getattr(transport, "transport", None)
    return transport


def is_idle(transport: Any) -> bool:
    """Whether a socket's transport has nothing to send, so that what comes next may overtake nothing."""
    return not (transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting)


def unsent(transport: Any) -> int:
    """How much a socket's transport has to send; bytes."""
    # TLS tells of what it has encrypted only when all of it is sent.
    sealed = len(getattr(transport, "sealed", b""))
    size: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen + sealed
    return size


def call_when_empty(transport: Any) -> None:
    """Have a socket's transport call its producer's ``resumeProducing`` when there is room, even if it has no bytes."""
    transport.producerPaused = True
    transport.startWriting()
