"""The time of a server: that of its event loop, without the reactor between them.

Twisted's asyncio reactor throws cancelled calls away when the next call is due. Each connection sets a deadline or two
and cancels them when it is lost, so the reactor would keep all that came and went within the shortest deadline.
asyncio throws them away as soon as they are the greater part, uvloop at once.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable

__all__ = ["LoopClock"]


class _Call:
    """A call that is still to be made: the part of Twisted's ``IDelayedCall`` that is used."""

    __slots__ = ("_function", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, function: Callable[[], object]) -> None:
        self._loop = loop
        self._function = function
        self._handle = loop.call_later(delay, function)

    def cancel(self) -> None:
        """Do not make the call; nothing happens when it was made or cancelled already."""
        self._handle.cancel()

    def reset(self, secondsFromNow: float) -> None:  # noqa: N803 - Twisted's IDelayedCall
        """Make the call this many seconds from now instead."""
        self._handle.cancel()
        self._handle = self._loop.call_later(secondsFromNow, self._function)


class LoopClock:
    """Implements ``asgi.interfaces.Clock`` on an event loop.

    A call may be made a moment too early by :meth:`seconds`: a loop reckons from the beginning of its turn, and
    uvloop in whole milliseconds.
    """

    #: Not the loop's, which stands still during a turn of uvloop: what an application took is measured by it.
    seconds = staticmethod(time.monotonic)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def callLater(self, delay: float, function: Callable[..., object], /, *args: object) -> _Call:  # noqa: N802
        """Call ``function(*args)`` in ``delay`` seconds, on the loop."""
        return _Call(self._loop, delay, functools.partial(function, *args) if args else function)
