"""When a worker has had enough: after so many requests, so much memory, so long a life."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from ..errors import SettingsError
from ..settings import Settings

__all__ = ["Recycling", "memory_share"]

#: Seconds between two looks at the memory: each costs the kernel a walk through all of it.
_EVERY = 2.0
#: The share of a worker's longest life by which lives differ, so that workers do not all end together.
_LIFE_JITTER = 0.1


class Recycling:
    """Judges one worker.

    :param settings: ``max_requests``, ``max_requests_jitter``, ``max_memory`` and ``max_lifetime`` are used.
    :param now: when the worker has begun, in seconds.
    :param memory: gives the bytes that the worker has.
    :param between: gives a random number between two.
    :ivar counts: whether requests have to be counted in :attr:`requests`.
    """

    def __init__(
        self,
        settings: Settings,
        now: float,
        memory: Callable[[], int],
        between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.requests = 0
        self.counts = settings.max_requests is not None
        self._most_requests = (settings.max_requests or 0) + round(between(0, settings.max_requests_jitter))
        self._most_memory = settings.max_memory
        life = settings.max_lifetime
        self._until = None if life is None else now + life * between(1 - _LIFE_JITTER, 1 + _LIFE_JITTER)
        self._memory = memory
        self._look_at = now + _EVERY
        self._large = False

    def reason(self, now: float) -> str | None:
        """Why the worker is to be replaced; None while it is not."""
        if self.counts and self.requests >= self._most_requests:
            return f"it has answered {self.requests} requests"
        if self._until is not None and now >= self._until:
            return "its time is over"
        if self._most_memory is not None and now >= self._look_at:
            self._look_at = now + _EVERY
            size = self._memory()
            # One request may need much for a moment; two samples in a row are no moment.
            before, self._large = self._large, size > self._most_memory
            if before and self._large:
                return f"it has {size >> 20} MiB of memory"
        return None


def memory_share(path: Path = Path("/proc/self/smaps_rollup")) -> int:
    """The memory of this process in bytes, where memory that n processes share counts as an nth (PSS).

    :raises SettingsError: the system does not tell.
    """
    try:
        for line in path.read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # another system than Linux
    raise SettingsError("max_memory: this system does not tell how much memory a process has")
