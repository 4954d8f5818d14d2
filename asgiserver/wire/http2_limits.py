"""How often an HTTP/2 peer may do what costs it nothing and the server something (RFC 9113 §10.5); pure."""

from __future__ import annotations

from enum import Enum

__all__ = ["Budget", "Kind"]


class Kind(Enum):
    """What is counted: the most at once, and how many of them are forgiven each second.

    A connection may live for days, so no count is for its whole life.
    """

    #: A stream is reset or refused, by either side (CVE-2023-44487, CVE-2025-8671). A browser that leaves a page resets
    #: all that the page still loads.
    RESET = (200, 33.0)
    #: A frame does nothing: it is empty, unknown, for a closed stream, a PRIORITY, PING or SETTINGS, or opens a window
    #: by a few bytes.
    IDLE = (1000, 330.0)


class Budget:
    """What one connection may still spend: a token bucket for each :class:`Kind`."""

    __slots__ = ("_full_at",)

    def __init__(self) -> None:
        #: When each bucket will be full again; one that is not there is full.
        self._full_at: dict[Kind, float] = {}

    def spend(self, kind: Kind, now: float) -> bool:
        """Take one from the bucket of ``kind``; False when there is none: answer with ENHANCE_YOUR_CALM.

        :param now: seconds of a clock that never goes back.
        """
        most, rate = kind.value
        full_at = max(self._full_at.get(kind, now), now) + 1 / rate
        if full_at - now > most / rate:
            return False
        self._full_at[kind] = full_at
        return True
