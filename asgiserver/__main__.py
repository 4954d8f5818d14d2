"""``python -m asgiserver`` and the ``asgiserver`` command."""

from __future__ import annotations

import gc
from typing import NoReturn

__all__ = ["script"]


def script() -> NoReturn:
    """Run :func:`asgiserver.cli.script`, imported with the garbage collector off and without modules that are not used.

    Hardly any object of these imports ever becomes garbage, so the collector would search them in vain, at the start
    and in every full collection afterwards. Objects that the application loads are collected as always.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        # Before the slow imports: the kernel drops signals that PID 1 of a container has no handler for.
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
