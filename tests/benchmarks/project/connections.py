"""How many connections to the database are opened, and how many are open at the same time.

Counted where they are opened: Django tells of no connection that ends, and looking from outside would miss short ones.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from typing import Any

__all__ = ["Counted", "counts"]

_lock = threading.Lock()
#: A connection that nobody holds any more is open until the collector finds it, as it has a cache that holds it.
_open: weakref.WeakSet[Counted] = weakref.WeakSet()
_counts = {"opened": 0, "peak": 0}


class Counted(sqlite3.Connection):
    """A connection that counts from its opening to :meth:`close`, or until it is collected."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        with _lock:
            _open.add(self)
            _counts["opened"] += 1
            _counts["peak"] = max(_counts["peak"], len(_open))

    def close(self) -> None:
        super().close()
        with _lock:
            _open.discard(self)


def counts() -> dict[str, int]:
    """Of this process, since its start: ``opened``, and at the same time ``peak``."""
    with _lock:
        return dict(_counts)
