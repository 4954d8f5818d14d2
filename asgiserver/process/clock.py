"""Time from the loop itself, for thousands of calls that are nearly all cancelled.

A timer for each connection costs half a kilobyte of it, and Twisted keeps one that was cancelled until its time comes.
So all who wait share what they wait for: the times at which they are woken are rounded up, to a power of two that is a
32nd of their delay or less, and those with the same time are in one slot, with one timer of the loop's. A slot is a
ring that is linked through the sleepers themselves, so that to wait costs nobody any memory but two references, and to
stop waiting leaves nothing behind. A slot that has become empty cancels its timer.
"""

from __future__ import annotations

import contextvars
import time
from asyncio import AbstractEventLoop, Handle, TimerHandle
from collections.abc import Callable
from math import ceil, frexp

from ..asgi.deadlines import Sleeper

__all__ = ["LoopClock"]

#: The finest slots, seconds: uvloop counts in milliseconds.
_LEAST_GRAIN = 2.0**-10
#: What is shorter has the finest slots; seconds.
_SHORT = 2.0**-5
#: As many are woken before others have a turn: to close a connection takes some ten microseconds.
_AT_ONCE = 100


class _Slot(Sleeper):
    """The sleepers of one time, itself the end of their ring."""

    __slots__ = ("time", "timer")

    def __init__(self, when: float) -> None:
        self.before = self.after = self
        self.time = when
        self.timer: Handle | None = None

    @property
    def empty(self) -> bool:
        return self.after is self

    def append(self, sleeper: Sleeper) -> None:
        last = self.before
        assert last is not None
        sleeper.before, sleeper.after = last, self
        last.after = self.before = sleeper

    def pop(self) -> Sleeper | None:
        """The first that has come; None when there is none any more."""
        first = self.after
        if first is self or first is None:
            return None
        second = first.after
        assert second is not None
        self.after, second.before = second, self
        first.before = first.after = None
        return first

    def end(self) -> None:
        """It is empty, and must not be a cycle for the garbage collector."""
        if self.timer is not None:
            self.timer.cancel()
        self.before = self.after = self.timer = None


class LoopClock:
    """Implements ``asgi.interfaces.Clock``.

    :param loop: makes the calls.
    """

    __slots__ = ("_context", "_loop", "_slots")

    #: Not Twisted's, which is the time of day and jumps when that is set; nor uvloop's, which knows only milliseconds.
    seconds = staticmethod(time.monotonic)

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()
        self._slots: dict[float, _Slot] = {}

    def callLater(self, delay: float, function: Callable[..., object], /, *args: object) -> TimerHandle:  # noqa: N802
        """Call ``function(*args)`` after ``delay`` seconds, in the context in which this clock was made."""
        return self._loop.call_later(delay, function, *args, context=self._context)

    def wake_later(self, sleeper: Sleeper, delay: float) -> None:
        """Call ``sleeper.wake()`` once, in that context, in ``delay`` seconds or up to a 32nd of that later, or 2 ms.

        Not before, whatever the loop's own clock says. What it raises is for the loop's exception handler.
        """
        now = self.seconds()
        # A power of two, so that the multiple of it is exact.
        grain = 2.0 ** (frexp(delay)[1] - 6) if delay > _SHORT else _LEAST_GRAIN
        when = ceil((now + delay) / grain) * grain
        slot = self._slots.get(when)
        if slot is None:
            slot = self._slots[when] = _Slot(when)
            self._arm(slot, when - now)
        slot.append(sleeper)

    def let_sleep(self, sleeper: Sleeper) -> None:
        """Do not wake it; nothing happens to one that was woken already."""
        before, after = sleeper.before, sleeper.after
        if before is None or after is None:
            return
        before.after, after.before = after, before
        sleeper.before = sleeper.after = None
        if before is after and isinstance(before, _Slot):
            before.end()
            self._forget(before)

    def _arm(self, slot: _Slot, delay: float) -> None:
        # uvloop rounds to milliseconds, and counts from when its turn began.
        slot.timer = self._loop.call_later(delay + _LEAST_GRAIN, self._ring, slot, context=self._context)

    def _forget(self, slot: _Slot) -> None:
        # While one rings a new one may have got its time.
        if self._slots.get(slot.time) is slot:
            del self._slots[slot.time]

    def _ring(self, slot: _Slot) -> None:
        early = slot.time - self.seconds()
        if early > 0:
            self._arm(slot, early)
            return
        self._forget(slot)
        try:
            for _ in range(_AT_ONCE):
                sleeper = slot.pop()
                if sleeper is None:
                    return
                try:
                    sleeper.wake()
                except Exception as error:  # noqa: BLE001 - theirs; the others are still to be woken
                    message = f"Exception in {sleeper.wake!r}"
                    self._loop.call_exception_handler({"message": message, "exception": error})
        finally:
            if slot.empty:
                slot.end()
            elif slot.after is not None:
                slot.timer = self._loop.call_soon(self._ring, slot, context=self._context)
