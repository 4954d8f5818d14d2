"""What Django's autoreloader leaves open between its two processes.

The first only starts the second and waits for it. At Ctrl-C, which both get, it would kill the second a quarter of a
second later; and when it is killed itself, or stopped while it starts the second, the second would stay and keep the
port.
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

#: The environment's variable with the number of the first process.
_FIRST = "_ASGISERVER_RELOADER"

#: Seconds that the second has at Ctrl-C before the first interrupts what it waits for.
_INTERRUPT_TIMEOUT = 0.6

#: Seconds between two looks at whether the first is still there.
_INTERVAL = 0.5


def in_second() -> bool:
    """Whether this is the process that serves."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def enter_first() -> None:
    """Prepare the first process: the second is to know it, and to have time at Ctrl-C."""
    os.environ[_FIRST] = str(os.getpid())
    # On Windows os.kill() would not interrupt this process but end it.
    if os.name == "posix" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, _: Any) -> None:
    """Let the second process, which has had the signal too, end by itself; another Ctrl-C is as ever."""
    signal.signal(number, signal.default_int_handler)
    again = threading.Timer(_INTERRUPT_TIMEOUT, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def watch_first(gone: Callable[[], object]) -> None:
    """In the second process, call ``gone()`` in a thread once the first is there no more.

    Windows has no parent that could be asked for; there nothing is watched.
    """
    if os.name == "posix":
        first = int(os.environ.pop(_FIRST, os.getppid()))
        threading.Thread(target=_watch, args=(first, gone), daemon=True).start()


def _watch(first: int, gone: Callable[[], object]) -> None:
    was_parent = False
    # It may have been gone from the beginning; but it also may have started this process by another.
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
