"""The control groups of this process, as Linux shows them: where their limits stand, and what has happened in them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["folders", "oom_kills"]


def folders(controller: str, root: Path) -> list[Path]:
    """The folders of the process's control group and of those around it, nearest first; empty where there are none.

    :param controller: such as ``cpu``, which has folders of its own in the first version of control groups.
    :param root: where ``proc`` and ``sys`` are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found: list[Path] = []
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy != "0" and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if hierarchy == "0" else controller)
        group = mount / path.lstrip("/")
        # In a container the path may be the host's, and the own group stands at the top.
        found += [folder for folder in (group, *group.parents) if folder.is_relative_to(mount)]
    return found


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes of the control group the kernel has killed for want of memory; 0 where it does not tell.

    :param root: where ``proc`` and ``sys`` are.
    """
    for folder in folders("memory", root):
        for name in ("memory.events", "memory.oom_control"):
            try:
                text = (folder / name).read_text("ascii")
            except OSError:
                continue  # another version of control groups, or the group of a host
            counts = dict(line.split() for line in text.splitlines())
            return int(counts.get("oom_kill", 0))
    return 0
