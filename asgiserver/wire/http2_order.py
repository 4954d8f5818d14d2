"""Which of a connection's streams is sent next (RFC 9218); pure."""

from __future__ import annotations

import re
from typing import Generic, Protocol, TypeVar

__all__ = ["UNASKED", "Order", "Priority", "read_priority"]

#: Urgency, from 0 for the most urgent to 7, and whether pieces of the response are useful before the whole.
Priority = tuple[int, bool]

#: RFC 9218 §4: what a peer has asked for that uses the scheme, and says no more.
_DEFAULT: Priority = (3, False)
#: The streams of a peer that does not use the scheme share the connection: one long download stops no other.
UNASKED: Priority = (3, True)

#: A longer value is ignored; bytes. Two members are known, and each one costs time.
_MOST_BYTES = 256

_member = re.compile(rb"[ \t]*([a-z*][a-z0-9_.*-]*)(?:=([^;, \t]*))?(?:;[^,]*)?[ \t]*(?:,|\Z)").match


def read_priority(value: bytes) -> Priority:
    """The value of the field Priority, or of a PRIORITY_UPDATE (RFC 9218 §4); what is malformed is ignored."""
    if len(value) > _MOST_BYTES:
        return _DEFAULT
    urgency, incremental = _DEFAULT
    at = 0
    while at < len(value) and (member := _member(value, at)):
        at = member.end()
        name, item = member.groups()
        if name == b"u" and item is not None and len(item) == 1 and item in b"01234567":
            urgency = int(item)
        elif name == b"i" and item in (None, b"?0", b"?1"):
            incremental = item != b"?0"
    return urgency, incremental


class _Member(Protocol):
    @property
    def priority(self) -> Priority: ...


M = TypeVar("M", bound=_Member)


class Order(Generic[M]):
    """The streams that have something to send and may send it.

    The most urgent come first; of the same urgency, those that are useful only as a whole one after the other, and then
    the others in turns (RFC 9218 §10).
    """

    __slots__ = ("_places", "_queues")

    def __init__(self) -> None:
        # By urgency and incremental; dictionaries without values, which keep their order.
        self._queues: dict[Priority, dict[M, None]] = {}
        self._places: dict[M, Priority] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, stream: M) -> None:
        """Put a stream behind those of its priority; one that is there already keeps its place."""
        priority = stream.priority
        if stream in self._places:
            if self._places[stream] == priority:
                return
            self.discard(stream)
        self._places[stream] = priority
        self._queues.setdefault(priority, {})[stream] = None

    def discard(self, stream: M) -> None:
        """Take a stream out, if it is there."""
        priority = self._places.pop(stream, None)
        if priority is not None:
            queue = self._queues[priority]
            del queue[stream]
            if not queue:
                del self._queues[priority]

    def next(self) -> M | None:
        """The stream to be sent next; it stays, behind the others that share with it."""
        if not self._queues:
            return None
        priority = min(self._queues)
        queue = self._queues[priority]
        stream = next(iter(queue))
        if priority[1]:
            del queue[stream]
            queue[stream] = None
        return stream
