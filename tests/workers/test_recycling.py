"""When a worker is replaced, on a clock and a memory of the tests' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgiserver.errors import SettingsError
from asgiserver.settings import Settings
from asgiserver.workers.recycling import Recycling, memory_share

MIB = 1 << 20


def judged(memory: Any = lambda: 0, at: float = 1.0, **values: Any) -> Recycling:
    """The random numbers are all at the same place between their two bounds."""
    return Recycling(Settings(**values), 100.0, memory, lambda low, high: low + (high - low) * at)


def test_without_limits_never() -> None:
    found = judged(lambda: 1 << 50)
    found.requests = 10**9
    assert (found.reason(1e9), found.counts) == (None, False)


@pytest.mark.parametrize(("at", "last"), [(0.0, 100), (1.0, 120)])
def test_after_so_many_requests(at: float, last: int) -> None:
    found = judged(at=at, max_requests=100, max_requests_jitter=20)
    assert found.counts
    found.requests = last - 1
    assert found.reason(0) is None
    found.requests = last
    assert found.reason(0) == f"it has answered {last} requests"


@pytest.mark.parametrize(("at", "end"), [(0.0, 109.0), (1.0, 111.0)])
def test_after_so_long_a_life(at: float, end: float) -> None:
    found = judged(at=at, max_lifetime=10)
    assert found.reason(end - 0.01) is None
    assert found.reason(end + 0.01) == "its time is over"


def test_with_too_much_memory_twice_in_a_row() -> None:
    sizes = iter([9 * MIB, 11 * MIB, 9 * MIB, 12 * MIB, 13 * MIB])
    found = judged(lambda: next(sizes), max_memory=10 * MIB)
    reasons = [found.reason(100 + second) for second in range(11)]
    assert reasons == [None] * 10 + ["it has 13 MiB of memory"]


def test_the_share_is_read_from_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "smaps_rollup"
    path.write_text("00400000-7fff [rollup]\nRss:  9000 kB\nPss:  1234 kB\nPss_Dirty: 5 kB\n", "ascii")
    assert memory_share(path) == 1234 * 1024


def test_a_system_that_does_not_tell_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="max_memory"):
        memory_share(tmp_path / "nothing")
