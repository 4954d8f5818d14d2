"""Lets a process that the application forks, by :mod:`multiprocessing` or ``os.fork()``, give up the server's things.

The child of a fork has copies of the server's descriptors and signal handlers. With these it would hold the listening
port after its parent has ended, keep the parent's clients from seeing the end of their connections, and take a stop
signal for one to the server.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from typing import Protocol

__all__ = ["Holder", "let_go_in_children"]


class Holder(Protocol):
    """An object that holds something of this process alone, such as a socket or a signal handler."""

    def let_go(self) -> None:
        """Close or give back the child's copies; called in the child, and must not change anything for the parent."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()
_registered = False
_mask = threading.local()


def let_go_in_children(holder: Holder) -> None:
    """Call ``holder.let_go()`` in every process that is forked from now on, for as long as ``holder`` lives."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        # Once and for ever: Python has no way to unregister.
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_let_go)
        _registered = True
    _holders.add(holder)


def _block() -> None:
    # The child must get no signal while it has the parent's handlers, such as one from terminate() right after start().
    # The signal would be lost: after a fork Python forgets which handlers it was going to call.
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _let_go() -> None:
    try:
        for holder in list(_holders):
            holder.let_go()
        _holders.clear()
    finally:
        _unblock()
