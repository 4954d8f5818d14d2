"""Several deadlines on one timer.

A deadline that moves with each request must cost an attribute and no timer, so a :class:`Deadlines` keeps when each
kind is due and at most one delayed call. When that call fires too early it is armed again for what is due next.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto

from .interfaces import Clock, DelayedCall

__all__ = ["Deadline", "Deadlines"]


class Deadline(IntEnum):
    """What is waited for, each at most once at a time per owner. A number, since that is hashed four times as fast."""

    HEAD = auto()
    BODY = auto()
    KEEP_ALIVE = auto()
    WRITE = auto()
    CLOSE = auto()
    REQUEST = auto()
    ACCEPT = auto()
    PING = auto()
    PONG = auto()
    LIFETIME = auto()
    APPLICATION = auto()


class Deadlines:
    """The deadlines of one connection or exchange.

    :param clock: where time comes from; seconds.
    :ivar due: when each that is set is due, and what is called then; only to be looked into.
    """

    __slots__ = ("_call", "_clock", "_wake", "due")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.due: dict[Deadline, tuple[float, Callable[[], object]]] = {}
        self._call: DelayedCall | None = None
        self._wake = 0.0

    def set(self, kind: Deadline, seconds: float | None, expired: Callable[[], object]) -> None:
        """Call ``expired`` in ``seconds``, instead of what was set for ``kind`` before; None clears it."""
        if seconds is None:
            self.due.pop(kind, None)
            return
        due = self._clock.seconds() + seconds
        self.due[kind] = (due, expired)
        if self._call is None or due < self._wake:
            self._arm(due)

    def pending(self, kind: Deadline) -> bool:
        """True while ``kind`` is set."""
        return kind in self.due

    def clear(self, kind: Deadline) -> None:
        """Forget ``kind``; nothing happens when it was not set."""
        self.due.pop(kind, None)

    def settle(self) -> None:
        """Cancel the timer when nothing is due any more, so that it keeps nobody alive."""
        if not self.due:
            self.stop()

    def stop(self) -> None:
        """Forget all and cancel the timer. The owner is gone; nothing is called any more."""
        self.due.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _fired(self) -> None:
        self._call = None
        now = self._clock.seconds()
        try:
            for kind, (due, expired) in list(self.due.items()):
                # An earlier callback of this very loop may have cleared or moved the deadline.
                if due <= now and self.due.get(kind) == (due, expired):
                    del self.due[kind]
                    expired()
        finally:
            # A callback that fails must not take the other deadlines with it.
            if self.due:
                self._arm(min(due for due, _ in self.due.values()))

    def _arm(self, due: float) -> None:
        if self._call is not None:
            if due >= self._wake:
                return
            self._call.cancel()
        self._call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._fired)
        self._wake = due
