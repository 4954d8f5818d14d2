"""``python -m tests.fuzz``: any bytes, for all that reads a peer's."""

from __future__ import annotations

import argparse
import secrets
import sys
import traceback
from collections.abc import Sequence

from .engine import Failure, fuzz, load
from .targets import TARGETS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when something does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Feeds what reads a peer's bytes with changed copies of a corpus.",
        epilog=f"Targets: {', '.join(TARGETS)}.",
    )  # fmt: skip
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="only these")
    parser.add_argument("--seconds", type=float, default=20, metavar="N", help="CPU time for each target, 20")
    parser.add_argument("--seed", type=int, metavar="N", help="the same inputs again; any by default")
    args = parser.parse_args(arguments)
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    seed = secrets.randbits(32) if args.seed is None else args.seed
    status = 0
    for name in args.targets or TARGETS:
        try:
            number = fuzz(TARGETS[name], load(name), seed, seconds=args.seconds)
        except (Failure, MemoryError) as error:
            traceback.print_exception(error)
            sys.stdout.write(f"{name}: failed, with --seed {seed}\n")
            status = 1
        else:
            sys.stdout.write(f"{name}: {number:,} inputs, with --seed {seed}\n")
        sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
