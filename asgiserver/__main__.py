"""``python -m asgiserver`` and the ``asgiserver`` command."""

from __future__ import annotations

import gc
from typing import NoReturn

__all__ = ["script"]


def script() -> NoReturn:
    """Run :func:`asgiserver.cli.script`, imported without the garbage collector's help, and without what is not used.

    Next to nothing of this ever becomes garbage, so the collector would look through it in vain, at the start and in
    every full collection afterwards. Objects that the application loads are collected as always.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        # Before anything that takes a while: PID 1 of a container loses the signals that it has no handler for.
        from .signals import hold

        hold()
        from .lazy_imports import postponed, unused_by_servers

        with postponed(unused_by_servers()):
            from .cli import script as run
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
    run()


if __name__ == "__main__":
    script()
