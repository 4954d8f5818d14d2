"""The process's signals: when the server handles them, and what the next one asks for.

``running`` has the table of their effects.

This module is imported before everything else, so that a signal finds its handler however early it comes: the kernel
drops a signal that PID 1 of a container has no handler for. Hence the module imports next to nothing.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

from .forks import let_go_in_children

__all__ = ["Asked", "Signals", "held", "hold"]

#: Seconds in which several signals are one: a process manager sends one to the group and one to the process.
ONE_SIGNAL = 1.0

#: Whole seconds for Python's finalization; SIGALRM ends one that hangs, as stop signals do nothing any more.
_FINALIZATION = 10

#: Signals that are taken in any case, and those that are taken only where nothing handles or ignores them.
_STOPS = ("SIGINT", "SIGTERM")
_OTHERS = ("SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Asked(IntEnum):
    """What the signals so far have asked for; it only ever rises."""

    NOTHING = 0
    #: To end once the running requests have ended.
    STOP = 1
    #: To end without waiting for requests.
    QUICK_STOP = 2
    #: To end at once.
    END = 3


#: What the first signal of each kind asks for; a kind that is not here asks for nothing.
_FIRST = {"SIGINT": Asked.STOP, "SIGTERM": Asked.STOP, "SIGQUIT": Asked.QUICK_STOP}


class Signals:
    """The process's signals, from :meth:`take` on until they are given back.

    The first moment is the import, which a stop signal ends by SystemExit with status 0; :meth:`serve` and :meth:`end`
    tell of the moments after that. A signal that came before :meth:`serve` is passed on then.

    :param clock: gives the seconds that tell two signals apart.
    :ivar asked: what the signals so far have asked for.
    :ivar taken_up: the part of it that was begun; a loop that is blocked begins nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.asked = Asked.NOTHING
        self.taken_up = Asked.NOTHING
        self._clock = clock
        self._since = 0.0
        self._number = 0
        self._act: Callable[[Asked, int], object] = _leave_import
        self._clean: Callable[[], object] = _nothing
        self._ignored: list[int] = []
        self._previous: dict[int, Any] = {}

    @property
    def should_exit(self) -> bool:
        """True once the process is asked to stop: sse-starlette looks for this at the owner of SIGTERM's handler."""
        return self.asked > Asked.NOTHING

    def take(self) -> None:
        """Become the handler of SIGINT and SIGTERM, and of each other signal that nobody handles or ignores."""
        for number in [*_numbers(_STOPS), *_numbers(_OTHERS)]:
            handler = signal.getsignal(number)
            if number in _numbers(_STOPS) or handler == signal.SIG_DFL:
                self._previous[number] = handler
                signal.signal(number, self.handle)
        let_go_in_children(self)

    def give_back(self) -> None:
        """Restore the handlers that were there before, except where other code has set its own meanwhile."""
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self.handle:
                # None: the handler was not set by Python, so Python cannot set it again.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def let_go(self) -> None:
        """In a forked child: have its signals do what they do without a server."""
        global _held
        # The parent's loop would wake up for the child's signals.
        signal.set_wakeup_fd(-1)
        self.give_back()
        _held = None

    def serve(self, act: Callable[[Asked, int], object], clean: Callable[[], object]) -> None:
        """From now on pass what signals ask for to ``act``, so that a loop takes it up.

        :param act: called with what is asked for and the signal's number, within the signal's handler, that is between
            any two instructions of the main thread; sets :attr:`taken_up` some time later.
            ``Asked.NOTHING`` stands for a signal that is ignored.
        :param clean: called before a process ends at once; must not wait.
        """
        for number in _numbers(_STOPS):
            # The application's module, or a library that it imports, may have set a handler of its own.
            signal.signal(number, self.handle)
        self._act, self._clean = act, clean
        for number in self._ignored:
            act(Asked.NOTHING, number)
        if self.asked:
            # The application's import has caught the SystemExit of a stop signal.
            act(self.asked, self._number)

    def end(self) -> None:
        """From now on the process ends by itself; a later stop signal ends it at once."""
        self._act, self._clean = _nothing, _nothing
        self.taken_up = Asked.NOTHING
        # Twisted and uvloop leave their wake-up descriptor behind: its number may be any file's by the next signal.
        signal.set_wakeup_fd(-1)

    def finalize(self) -> None:
        """Ignore signals from now on; for the last exit handler, after which Python gives up all handlers.

        A stop signal that is sent twice would end the process with its number, though everything has been done.
        """
        if threading.current_thread() is not threading.main_thread():
            # The main thread waits for others, and the process ends without Python's finalization.
            return
        for number in self._previous:
            if signal.getsignal(number) == self.handle:
                signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, "alarm"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_FINALIZATION)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; all signals that are taken have this handler."""
        asks = _FIRST.get(signal.Signals(number).name, Asked.NOTHING)
        if asks:
            self._stop(asks, number, frame)
        elif self._act is _leave_import:
            self._ignored.append(number)
        else:
            self._act(Asked.NOTHING, number)

    def _stop(self, asks: Asked, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        again = self.asked > Asked.NOTHING and now - self._since >= ONE_SIGNAL
        if again and (self.taken_up < self.asked or self.asked == Asked.END):
            self._leave(number, frame)
        elif asks <= self.asked:
            if not again:
                return
            asks = Asked.END
            # Not by threading, whose lock the interrupted code may hold.
            _thread.start_new_thread(self._leave_if_blocked, (number,))
        self.asked, self._since, self._number = asks, now, number
        self._act(asks, number)

    def _leave_if_blocked(self, number: int) -> None:
        time.sleep(ONE_SIGNAL)
        if self.taken_up < Asked.END:
            self._leave(number, sys._current_frames().get(threading.main_thread().ident or 0))

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """End the process here and now: the main thread does not come back from what it does."""
        try:
            self._clean()
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "unknown code"
            text = f"asgiserver: ended at once by {signal.Signals(number).name}, while in {where}\n"
            # Not by logging, whose locks the interrupted code may hold; and without waiting for a full pipe.
            if select.select((), (2,), (), 0)[1]:
                os.write(2, text.encode("utf-8", "replace"))
        finally:
            os._exit(128 + number)


_held: Signals | None = None


def hold(signals: Signals | None = None) -> Signals:
    """Take the process's signals, for good; call it in the main thread.

    :param signals: what takes them, unless they are held already.
    """
    global _held
    if _held is None:
        _held = signals or Signals()
        _held.take()
    return _held


@contextmanager
def held() -> Iterator[Signals | None]:
    """Take the process's signals for the length of the block, unless they are held already.

    No thread but the main one takes signals. The block gets None when no signals are held.
    """
    global _held
    if _held is not None or threading.current_thread() is not threading.main_thread():
        yield _held
        return
    signals = hold()
    try:
        yield signals
    finally:
        signals.give_back()
        _held = None


def _numbers(names: tuple[str, ...]) -> list[int]:
    """The numbers of these signals; Windows has few of them."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _leave_import(asked: Asked, number: int) -> None:
    # Nothing is served yet that could be drained; SystemExit lets the code that is being imported clean up.
    raise SystemExit(0)


def _nothing(*_: object) -> None:
    """Do nothing."""
