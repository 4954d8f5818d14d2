"""``python -m tests.slow``: what takes long and seldom fails, in full size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pytest

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; pytest's status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.slow", allow_abbrev=False, usage="%(prog)s [-h] [PYTEST'S ARGUMENTS]",
        description="Runs the tests that are marked as slow, which pytest leaves out otherwise: dozens of restarts "
        "under load, a thousand WebSockets, a minute of kills, repetitions on further kinds of sockets. They run one "
        "after the other, as some look at latency.",
        epilog="All other arguments are pytest's, such as -k NAME or a file.",
    )
    _, given = parser.parse_known_args(arguments)
    return pytest.main(["-n0", "-m", "slow", *given])


if __name__ == "__main__":
    sys.exit(main())
