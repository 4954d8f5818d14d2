"""How many cores the process may use: those of its affinity, bounded by the quota of its control group."""

from __future__ import annotations

import os
from pathlib import Path

from .control_group import folders

__all__ = ["usable"]


def usable(root: Path = Path("/")) -> int:
    """The number of cores, at least 1; a quota of one and a half is one.

    :param root: where ``proc`` and ``sys`` are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [int(quota) for folder in folders("cpu", root) for quota in _quota_of(folder)]
    return max(1, min([cores, *quotas]))


def _quota_of(folder: Path) -> list[float]:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text("ascii").strip() for name in names).split()
            if quota not in ("max", "-1"):
                return [int(quota) / int(period)]
        except (OSError, ValueError):
            # Another version of control groups, or none.
            continue
    return []
