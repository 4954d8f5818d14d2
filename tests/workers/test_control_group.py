"""What the kernel has done to a control group, from files of the tests' own."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgiserver.workers.control_group import oom_kills
from tests.workers.test_cpus import write


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({}, 0),
        ({"proc/self/cgroup": "0::/\n"}, 0),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.events": "low 0\noom 4\noom_kill 3\n"}, 3),
        # That of the own group, not of those around it.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.events": "oom_kill 1\n",
                "sys/fs/cgroup/a/memory.events": "oom_kill 9\n",
            },
            1,
        ),
        ({"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/memory.events": "oom_kill 2\n"}, 2),
        (
            {
                "proc/self/cgroup": "4:memory:/c\n0::/\n",
                "sys/fs/cgroup/memory/c/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
            },
            5,
        ),
        # An old kernel does not count.
        ({"proc/self/cgroup": "4:memory:/c\n", "sys/fs/cgroup/memory/c/memory.oom_control": "under_oom 0\n"}, 0),
    ],
)
def test_processes_that_were_killed_for_want_of_memory_are_counted(
    files: dict[str, str], kills: int, tmp_path: Path
) -> None:
    assert oom_kills(write(tmp_path, files)) == kills
