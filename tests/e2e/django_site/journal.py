"""What the project says on its standard output for the tests, and what its views share."""
# ruff: noqa: T201 - printing is how the tests listen

from __future__ import annotations

import contextvars
import threading

__all__ = ["HELD", "NAME", "Served", "say", "served"]

#: Set by a middleware, from the request's field ``X-Name``.
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="-")
#: Views and streams that are held wait for it.
HELD = threading.Event()


class Served(threading.local):
    """How many requests the thread has served."""

    count = 0


served = Served()


def say(*words: object) -> None:
    # In one write: views in several threads speak at once.
    print(" ".join(("site", *map(str, words))) + "\n", end="", flush=True)
