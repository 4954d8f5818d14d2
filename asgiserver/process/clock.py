"""Time from the loop itself, for calls that are nearly all cancelled.

Twisted keeps a cancelled call among those that are due until its time comes, or a later call happens to be made: of a
burst of connections, each with a deadline of a minute, some hundred bytes each would stay for that minute, and with
them the pages of memory on which they lie. The loop's own timers are gone when they are cancelled, or soon after.
"""

from __future__ import annotations

import contextvars
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable

__all__ = ["LoopClock"]


class LoopClock:
    """Implements ``asgi.interfaces.Clock``.

    :param loop: makes the calls.
    """

    __slots__ = ("_context", "_loop")

    #: Not Twisted's, which is the time of day and jumps when that is set; nor uvloop's, which knows only milliseconds.
    seconds = staticmethod(time.monotonic)

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()

    def callLater(self, delay: float, function: Callable[..., object], /, *args: object) -> TimerHandle:  # noqa: N802
        """Call ``function(*args)`` after ``delay`` seconds, in the context in which this clock was made."""
        return self._loop.call_later(delay, function, *args, context=self._context)
