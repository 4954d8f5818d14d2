"""What the operating system says of a process and all its children."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

__all__ = [
    "LEAD", "WARM_UP", "ProcessesChanged", "Usage", "clock_id", "cpu_seconds", "memory_bytes", "per_unit", "started",
    "tree",
]  # fmt: skip

#: Seconds of a load on a fresh server before the first slice.
WARM_UP = 0.3
#: Seconds of each slice before anything is counted: by then its connections are open, and the caches filled.
LEAD = 0.05
#: More than any server with one worker has; a bound for the walk.
MOST_PROCESSES = 64


class ProcessesChanged(RuntimeError):
    """A process of the server ended, or was started, while it was being measured: its costs would be lost."""


def tree(pid: int) -> list[int]:
    """The ids of ``pid`` and of all its descendants."""
    found = [pid]
    for parent in found:
        # Gone while we look: what is measured between two looks is compared by Usage.
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{thread}/children").read_text("ascii")
                found.extend(int(child) for child in children.split())
        if len(found) > MOST_PROCESSES:
            raise ProcessesChanged(f"more than {MOST_PROCESSES} processes")
    return found


def clock_id(pid: int) -> int:
    """The clock that Linux gives each process (clock_getcpuclockid(3)).

    Its id is made of the complement of the process's and, in the lowest three bits, 2 for what the scheduler counted.
    """
    return (~pid << 3) | 2


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of ``pid`` since its start, exact to less than a microsecond."""
    return time.clock_gettime(clock_id(pid))


def memory_bytes(pid: int) -> int:
    """Resident memory of ``pid`` and its descendants, with what several of them share counted once.

    For a single process that is its resident set. The kernel's proportional size would depend on what else runs on the
    machine, as every Python process shares the interpreter's pages.
    """
    private, shared = 0, 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text("ascii")
            sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.MULTILINE)}
            own = sizes["Private_Clean"] + sizes["Private_Dirty"]
            private += own
            shared = max(shared, sizes["Rss"] - own)
    return private + shared


def started(pid: int) -> str | None:
    """When ``pid`` was started, in the kernel's ticks; None when there is no such process.

    Together with its id it tells a process from a later one with the same id.
    """
    try:
        # proc(5): the name, in brackets, may hold anything; the start is field 22, the first after it is field 3.
        return Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[19]
    except OSError:
        return None


class Usage:
    """CPU time of ``pid`` and its descendants from now on.

    :ivar seconds: of CPU, once :meth:`stop` has been called.
    :ivar wall: seconds between the two.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.seconds = 0.0
        self.wall = 0.0
        self._before = {process: cpu_seconds(process) for process in tree(pid)}
        self._start = time.monotonic()

    @property
    def processes(self) -> list[int]:
        return list(self._before)

    def stop(self) -> None:
        """:raises ProcessesChanged: a process ended or was started in between."""
        self.wall = time.monotonic() - self._start
        after = tree(self.pid)
        if set(after) != set(self._before):
            raise ProcessesChanged(f"the server's processes were {sorted(self._before)} and are {sorted(after)}")
        self.seconds = sum(cpu_seconds(process) - self._before[process] for process in after)


def per_unit(units: float, usage: Usage, client: float) -> dict[str, float]:
    """What ``units`` of a load cost, by the names that records have: microseconds of CPU for each, of the server and of
    the client, and how many came in a second."""
    return {
        "cpu": usage.seconds / units * 1e6,
        "rate": units / usage.wall,
        "busy": usage.seconds / usage.wall,
        "client": client / units * 1e6,
    }
