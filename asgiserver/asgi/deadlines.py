"""Several deadlines on one wake-up.

To set, move or clear a deadline is to write attributes: the clock is asked for a wake-up only when none comes early
enough. So a deadline that each request or message moves costs no timer; the owner is woken once, finds that nothing is
due yet, and is woken again for the deadline that is due next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum, auto
from operator import attrgetter

from .interfaces import Clock

__all__ = ["LATENESS", "Deadline", "Deadlines"]

#: How late a deadline may be called, as a share of its time.
LATENESS = 1 / 32

_due = attrgetter("due")


class Deadline(IntEnum):
    """The kinds of deadlines; an owner has at most one of each kind at a time."""

    FIRST_BYTE = auto()
    HEAD = auto()
    BODY = auto()
    BODY_RATE = auto()
    KEEP_ALIVE = auto()
    WRITE = auto()
    CLOSE = auto()
    REQUEST = auto()
    ACCEPT = auto()
    PING = auto()
    LIFETIME = auto()
    APPLICATION = auto()


class _Entry:
    """A deadline, in a short list that is linked by ``next``, which takes the least memory.

    A cleared entry has neither ``kind`` nor ``expired``, and stays for the next deadline that is set.
    """

    __slots__ = ("due", "expired", "kind", "next")

    def __init__(self, kind: Deadline, due: float, expired: Callable[[], object], following: _Entry | None) -> None:
        self.kind: Deadline | None = kind
        self.due = due
        self.expired: Callable[[], object] | None = expired
        self.next = following


class Deadlines:
    """The deadlines of one connection or exchange.

    :param clock: where time comes from; seconds.
    """

    __slots__ = ("_clock", "_first", "_wake_at")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: _Entry | None = None
        # When the clock wakes this object; None while it does not.
        self._wake_at: float | None = None

    def set(self, kind: Deadline, seconds: float | None, expired: Callable[[], object]) -> None:
        """Call ``expired`` once, in ``seconds`` or up to a 32nd of that later; replaces what was set for ``kind``.

        :param seconds: None clears ``kind``.
        """
        if seconds is None:
            self.clear(kind)
            return
        due = self._clock.seconds() + seconds
        entry = self._find(kind) or self._find(None)
        if entry is None:
            self._first = _Entry(kind, due, expired, self._first)
        else:
            entry.kind, entry.due, entry.expired = kind, due, expired
        if self._wake_at is None or self._wake_at - due > seconds * LATENESS:
            self._sleep()

    def pending(self, kind: Deadline) -> bool:
        """True while ``kind`` is set."""
        return self._find(kind) is not None

    def clear(self, *kinds: Deadline) -> None:
        """Forget ``kinds``; nothing happens for those that are not set."""
        entry = self._first
        while entry is not None:
            if entry.kind in kinds:
                entry.kind = entry.expired = None
            entry = entry.next

    def settle(self) -> None:
        """When no deadline is set, have the clock forget this object, which it would keep alive until the wake-up."""
        if not any(entry.kind for entry in self._entries()):
            self._sleep()

    def stop(self) -> None:
        """Forget all deadlines, and have the clock forget this object: its owner is gone."""
        for entry in self._entries():
            entry.kind = entry.expired = None
        self._sleep()

    def wake(self) -> None:
        """Call the callbacks that are due, earliest first. When one of them raises, the other deadlines stay set."""
        now = self._clock.seconds()
        try:
            for entry in sorted(self._entries(), key=_due):
                # A callback may have cleared or moved what comes after it.
                expired = entry.expired
                if expired is not None and entry.due <= now:
                    entry.kind = entry.expired = None
                    expired()
        finally:
            self._sleep()

    def _sleep(self) -> None:
        """Have the clock wake this object when the next deadline is due, and not otherwise."""
        if self._wake_at is not None:
            self._clock.let_sleep(self, self._wake_at)
        first = min((entry for entry in self._entries() if entry.kind), key=_due, default=None)
        self._wake_at = None if first is None else self._clock.wake_at(first.due, self)

    def _find(self, kind: Deadline | None) -> _Entry | None:
        """The entry of ``kind``, for None a free one; None when there is none."""
        entry = self._first
        while entry is not None and entry.kind is not kind:
            entry = entry.next
        return entry

    def _entries(self) -> Iterator[_Entry]:
        entry = self._first
        while entry is not None:
            yield entry
            entry = entry.next
