"""Several deadlines on one timer.

A deadline that moves with each request must cost an attribute and no timer, so a :class:`Deadlines` keeps when each
kind is due and is woken at most once. When that is too early it is to be woken again for what is due next.

There is one for each connection, which mostly has one deadline: so that one needs nothing but attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto

from .interfaces import Clock

__all__ = ["Deadline", "Deadlines", "Sleeper"]


class Deadline(IntEnum):
    """What is waited for, each at most once at a time per owner. A number, since that is hashed four times as fast."""

    HEAD = auto()
    BODY = auto()
    BODY_RATE = auto()
    KEEP_ALIVE = auto()
    WRITE = auto()
    CLOSE = auto()
    REQUEST = auto()
    ACCEPT = auto()
    PING = auto()
    PONG = auto()
    LIFETIME = auto()
    APPLICATION = auto()


class Sleeper:
    """Who waits to be woken by a :class:`.Clock`.

    :ivar before: whom the clock wakes before it, None while it does not wait; the clock's own, as is the next.
    :ivar after: whom the clock wakes after it.
    """

    __slots__ = ("after", "before")
    before: Sleeper | None
    after: Sleeper | None

    def wake(self) -> None:
        """The time has come."""
        raise NotImplementedError


class Deadlines(Sleeper):
    """The deadlines of one connection or exchange.

    :param clock: where time comes from; seconds.
    :ivar first: one that is set; None when there is none. Only to be looked at.
    """

    __slots__ = ("_clock", "_due", "_expired", "_others", "_wake_at", "first")

    def __init__(self, clock: Clock) -> None:
        self.before = self.after = None
        self.first: Deadline | None = None
        self._clock = clock
        # When the first is due, and what is called then.
        self._due = 0.0
        self._expired: Callable[[], object] | None = None
        # The same of the others, of which there are none without a first.
        self._others: dict[Deadline, tuple[float, Callable[[], object]]] | None = None
        # When it is woken; None while it need not be.
        self._wake_at: float | None = None

    def set(self, kind: Deadline, seconds: float | None, expired: Callable[[], object]) -> None:
        """Call ``expired`` in ``seconds``, instead of what was set for ``kind`` before; None clears it."""
        if seconds is None:
            self.clear(kind)
            return
        due = self._clock.seconds() + seconds
        if self.first is kind or self.first is None:
            self.first, self._due, self._expired = kind, due, expired
        elif self._others is None:
            self._others = {kind: (due, expired)}
        else:
            self._others[kind] = due, expired
        wake_at = self._wake_at
        if wake_at is None or due < wake_at:
            self._arm(due, seconds)

    def pending(self, kind: Deadline) -> bool:
        """True while ``kind`` is set."""
        return self.first is kind or (self._others is not None and kind in self._others)

    def clear(self, kind: Deadline) -> None:
        """Forget ``kind``; nothing happens when it was not set."""
        others = self._others
        if self.first is kind:
            if others is None:
                self.first = self._expired = None
                return
            self.first = next(iter(others))
            self._due, self._expired = others.pop(self.first)
        elif others is None or others.pop(kind, None) is None:
            return
        if not others:
            self._others = None

    def settle(self) -> None:
        """Have nothing left that waits when nothing is due any more, so that nobody is kept alive."""
        if self.first is None:
            self.stop()

    def stop(self) -> None:
        """Forget all. The owner is gone; nothing is called any more."""
        self.first = self._expired = self._others = None
        if self._wake_at is not None:
            self._wake_at = None
            self._clock.let_sleep(self)

    def wake(self) -> None:
        """Call what is due. A callback that fails takes no other deadline with it."""
        self._wake_at = None
        now = self._clock.seconds()
        try:
            for kind, due, expired in self._all():
                # An earlier callback of this very loop may have cleared or moved the deadline.
                if due <= now and self._is_set(kind, due, expired):
                    self.clear(kind)
                    expired()
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """Be woken again for what is left, unless a callback has seen to that."""
        if self.first is not None:
            due = min(due for _, due, _ in self._all())
            if self._wake_at is None or due < self._wake_at:
                self._arm(due, max(0.0, due - self._clock.seconds()))

    def _all(self) -> list[tuple[Deadline, float, Callable[[], object]]]:
        found = [(kind, *others) for kind, others in (self._others or {}).items()]
        if self.first is not None and self._expired is not None:
            found.insert(0, (self.first, self._due, self._expired))
        return found

    def _is_set(self, kind: Deadline, due: float, expired: Callable[[], object]) -> bool:
        if self.first is kind:
            return self._due == due and self._expired == expired
        return self._others is not None and self._others.get(kind) == (due, expired)

    def _arm(self, due: float, seconds: float) -> None:
        if self._wake_at is not None:
            self._clock.let_sleep(self)
        self._wake_at = due
        self._clock.wake_later(self, seconds)
