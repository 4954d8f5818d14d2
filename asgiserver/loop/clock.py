"""Time from the loop itself, for thousands of sleepers: nearly all are woken for nothing or not at all.

A timer for each connection would cost half a kilobyte, and Twisted keeps a cancelled timer until its time comes. So
times are rounded up, to a multiple of a power of two that is a 32nd of the delay or less, and sleepers with the same
time share a slot, which has one timer of the loop. When the last sleeper leaves a slot, the slot and its timer go.
"""

from __future__ import annotations

import contextvars
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from math import ceil, frexp

from ..asgi.deadlines import LATENESS
from ..asgi.interfaces import Sleeper

__all__ = ["LoopClock"]

#: The finest slots, seconds: uvloop counts in milliseconds.
_LEAST_GRAIN = 2.0**-10
#: Most sleepers woken in one turn of the loop, since each may have a connection to close.
_AT_ONCE = 100


class LoopClock:
    """Implements ``asgi.interfaces.Clock``.

    :param loop: makes the calls.
    """

    __slots__ = ("_context", "_loop", "_slots", "_timers")

    #: Not Twisted's clock, the time of day, which jumps when it is set; nor uvloop's, which counts in milliseconds.
    seconds = staticmethod(time.monotonic)

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()
        # Dictionaries without values: a set takes twice their memory.
        self._slots: dict[float, dict[Sleeper, None]] = {}
        # A slot whose sleepers are being woken has no timer any more.
        self._timers: dict[float, TimerHandle] = {}

    def callLater(self, delay: float, function: Callable[..., object], /, *args: object) -> TimerHandle:  # noqa: N802
        """Call ``function(*args)`` after ``delay`` seconds, in the context in which this clock was made."""
        return self._loop.call_later(delay, function, *args, context=self._context)

    def wake_at(self, due: float, sleeper: Sleeper) -> float:
        """Call ``sleeper.wake()`` once, in that context, when ``due`` has come, and return the time chosen for it.

        This time is later than ``due`` by at most a 32nd of the delay, or 1 ms if that is more. The loop's exception
        handler gets what ``wake()`` raises.
        """
        now = self.seconds()
        lateness = (due - now) * LATENESS
        # The greatest power of two that is not above ``lateness``: multiples of it are exact.
        grain = 2.0 ** (frexp(lateness)[1] - 1) if lateness > _LEAST_GRAIN else _LEAST_GRAIN
        when = ceil(due / grain) * grain
        slot = self._slots.get(when)
        if slot is None:
            slot = self._slots[when] = {}
            self._arm(when, when - now)
        slot[sleeper] = None
        return when

    def let_sleep(self, sleeper: Sleeper, when: float) -> None:
        """Do not wake ``sleeper`` at ``when``; a sleeper that was woken already is left alone."""
        slot = self._slots.get(when)
        if slot is None:
            return
        slot.pop(sleeper, None)
        if not slot and when in self._timers:
            self._timers.pop(when).cancel()
            del self._slots[when]

    def _arm(self, when: float, delay: float) -> None:
        # uvloop rounds to milliseconds, and counts from the beginning of its turn.
        self._timers[when] = self._loop.call_later(delay + _LEAST_GRAIN, self._ring, when, context=self._context)

    def _ring(self, when: float) -> None:
        early = when - self.seconds()
        if early > 0:
            self._arm(when, early)
            return
        self._timers.pop(when, None)
        slot = self._slots[when]
        try:
            for _ in range(_AT_ONCE):
                if not slot:
                    return
                self._wake(slot)
        finally:
            if slot:
                self._loop.call_soon(self._ring, when, context=self._context)
            else:
                del self._slots[when]

    def _wake(self, slot: dict[Sleeper, None]) -> None:
        sleeper, _ = slot.popitem()
        try:
            sleeper.wake()
        except Exception as error:  # noqa: BLE001 - the sleeper's; the others are still to be woken
            message = f"Exception in {sleeper.wake!r}"
            self._loop.call_exception_handler({"message": message, "exception": error})
