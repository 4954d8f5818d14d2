"""Whether a slow peer takes its data: something within a timeout, and enough on the average. Pure.

Progress shows in steps: TCP announces room only when there is much of it (RFC 9293 §3.8.6.2.2), and for a peer with
large buffers that may take longer than a window. So while the peer takes nothing, only the timeout counts; that time
enters the rate as soon as the peer takes something.
"""

from __future__ import annotations

__all__ = ["WINDOW", "Progress"]

#: How long a rate is given before it is judged, and how often it is looked at; seconds.
WINDOW = 10.0


class Progress:
    """The bytes that a peer has taken since it became slow.

    :param now: the time, in seconds of any clock.
    :param pending: bytes that it has not taken yet.
    """

    __slots__ = ("_began", "_moved", "_pending", "_taken")

    def __init__(self, now: float, pending: int) -> None:
        self._began = self._moved = now
        self._pending = pending
        self._taken = 0

    def fault(self, now: float, pending: int, timeout: float | None, rate: int | None) -> str | None:
        """Look at the peer again.

        :param timeout: seconds that it may take nothing; None for any time.
        :param rate: bytes a second that it has to take; None for any.
        :return: the peer's fault, as the end of a sentence; None when it may go on.
        """
        taken = self._pending - pending
        self._pending = pending
        if taken <= 0:
            late = timeout is not None and now - self._moved >= timeout
            return f"took nothing for {timeout:g} seconds" if late else None
        self._moved = now
        self._taken += taken
        age = now - self._began
        if rate is not None and age >= WINDOW and self._taken < rate * age:
            return f"took less than {rate} bytes a second"
        return None

    def next_look(self, now: float, timeout: float | None, rate: int | None) -> float | None:
        """Seconds until :meth:`fault` is to be called again; None when there is nothing to look for."""
        left = None if timeout is None else max(0.0, self._moved + timeout - now)
        if rate is None:
            return left
        return WINDOW if left is None else min(left, WINDOW)
