"""The tests that pytest leaves out are those that the program runs."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.server import ROOT

FILE = "tests/workers/test_generations.py"


def collected(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--collect-only", "-q", FILE],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_each_test_is_in_one_of_the_two() -> None:
    slow, usual = collected("tests.slow"), collected("pytest", "-n0")
    assert ("test_the_same_for_long" in slow, "test_the_same_for_long" in usual) == (True, False)
    assert ("TestTables" in slow, "TestTables" in usual) == (False, True)
