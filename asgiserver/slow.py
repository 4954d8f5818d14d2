"""``slow_request_log``: where a request is that takes longer; one timer for all of them.

:class:`~.asgi.http.HTTPExchange` itself logs, at its end, that it took longer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures.thread import _WorkItem
from contextvars import Context
from functools import partial
from threading import get_ident
from types import BuiltinMethodType, FrameType
from typing import Any

from .asgi.deadlines import Deadline, Deadlines
from .asgi.exchange import Exchange
from .asgi.http import HTTPExchange
from .asgi.interfaces import Clock
from .log.formatters import request_id
from .workers.stacks import awaited, outer

__all__ = ["SlowRequests"]

logger = logging.getLogger("asgiserver")

#: How many lines of code are named, from the innermost outwards.
_MOST_PLACES = 4
#: The most seconds between two looks, and the part of the limit.
_LOOK, _PART = 1.0, 4


class SlowRequests:
    """Looks at the requests under way, and logs once of each that is slow where its task, or its thread, is.

    :param tasks: the exchanges whose application runs, the oldest first.
    :param limit: seconds from which on a request is slow.
    """

    def __init__(self, tasks: Mapping[Exchange, asyncio.Task[None]], limit: float, clock: Clock) -> None:
        self._tasks = tasks
        self._limit = limit
        self._deadlines = Deadlines(clock)
        self._told: set[Exchange] = set()
        self._wait()

    def stop(self) -> None:
        """Look no more."""
        self._deadlines.stop()

    def _wait(self) -> None:
        self._deadlines.set(Deadline.REQUEST, min(_LOOK, self._limit / _PART), self._look)

    def _look(self) -> None:
        self._told.intersection_update(self._tasks)
        threads: dict[str, list[FrameType]] | None = None
        for exchange, task in self._tasks.items():
            if not isinstance(exchange, HTTPExchange) or exchange.finished or exchange in self._told:
                continue
            age = exchange.age
            if age is None or age < self._limit:
                # Those behind it are younger.
                break
            self._told.add(exchange)
            # Once for all of them: where many are slow, there is no time to look at each thread for each request.
            threads = _threads() if threads is None else threads
            # Where its thread is, if one runs for it, else its task; the innermost place first.
            frames = threads.get(exchange.request_id) or [*awaited(task.get_coro())][::-1]
            place = " < ".join(_named(frames))
            logger.warning("%s is under way for %.1f seconds, at %s", exchange, age, place, extra=exchange.logged)
        self._wait()


def _named(frames: list[FrameType]) -> list[str]:
    """The innermost frames of the application; with none of its own, of whatever runs."""
    ours = os.path.dirname(__file__) + os.sep
    found = [frame for frame in frames if not frame.f_code.co_filename.startswith(ours)] or frames
    return [f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}" for frame in found[:_MOST_PLACES]]


def _threads() -> dict[str, list[FrameType]]:
    """The frames, from the innermost, of each thread that runs a function in the context of a request, by its id."""
    found: dict[str, list[FrameType]] = {}
    for ident, frame in sys._current_frames().items():
        # The loop's own thread looks for them now.
        frames = [each for each, _ in outer(frame)] if ident != get_ident() else []
        for number, each in enumerate(frames):
            for context in _contexts(each):
                if (identity := context.get(request_id)) is not None:
                    found.setdefault(identity, frames[:number])
    return found


def _contexts(frame: FrameType) -> Iterable[Context]:
    """The contexts in which a frame calls a function, as far as its variables tell.

    Only of types that are known: to look into an object of the application could run code of it.
    """
    for value in [*frame.f_locals.values()]:
        found: Any = value
        if type(found) is _WorkItem:
            found = found.fn
        if type(found) is partial:
            found = found.func
        if type(found) is BuiltinMethodType:
            found = found.__self__
        if type(found) is Context:
            yield found
