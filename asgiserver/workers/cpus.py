"""How many cores the process may use: those of its affinity, bounded by the quota of its control group."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["usable"]


def usable(root: Path = Path("/")) -> int:
    """The number of cores, at least 1; a quota of one and a half is one.

    :param root: where ``proc`` and ``sys`` are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """The quotas, in cores, of the process's control group and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    quotas: list[float] = []
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy != "0" and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if hierarchy == "0" else "cpu")
        group = mount / path.lstrip("/")
        # In a container the path may be the host's, and the own group stands at the top.
        for folder in {mount, group, *group.parents}:
            if folder.is_relative_to(mount):
                quotas += _quota_of(folder)
    return quotas


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
