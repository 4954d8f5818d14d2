"""Gaps that Django's autoreloader leaves between its two processes.

The first process only starts the second and waits for it. At Ctrl-C, which both get, the first would kill the second a
quarter of a second later. When the first is killed itself, or is stopped while it starts the second, the second would
stay and keep the port.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from django.utils import autoreload

__all__ = ["enter_first", "in_second", "watch_first"]

#: The environment variable with the id of the first process.
_FIRST = "_ASGISERVER_RELOADER"

#: Seconds that the second process has after Ctrl-C before the first stops waiting for it.
_INTERRUPT_TIMEOUT = 0.6

#: Seconds between two checks that the first process still runs.
_INTERVAL = 0.5


def in_second() -> bool:
    """Whether this is the process that serves."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def enter_first() -> None:
    """Prepare the first process: tell the second its id, and give the second time at Ctrl-C."""
    os.environ[_FIRST] = str(os.getpid())
    # On Windows os.kill() would not interrupt this process but end it.
    if os.name == "posix" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, _: Any) -> None:
    """Let the second process, which has had the signal too, end by itself; another Ctrl-C acts as usual."""
    signal.signal(number, signal.default_int_handler)
    again = threading.Timer(_INTERRUPT_TIMEOUT, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def watch_first(gone: Callable[[], object]) -> None:
    """In the second process, call ``gone()`` in a thread once the first runs no more.

    On Windows nothing is watched: there a process keeps its parent's id after the parent's end.
    """
    if os.name == "posix":
        first = int(os.environ.pop(_FIRST, os.getppid()))
        threading.Thread(target=_watch, args=(first, gone), daemon=True).start()


def _watch(first: int, gone: Callable[[], object]) -> None:
    was_parent = False
    # The first may have ended before this loop begins, or may have started this process through another one.
    while os.getppid() == first or not was_parent and _runs(first):
        was_parent = was_parent or os.getppid() == first
        time.sleep(_INTERVAL)
    gone()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
