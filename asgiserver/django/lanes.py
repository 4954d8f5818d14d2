"""Lanes: the threads that run Django's synchronous code, each one request's at a time, and how requests wait for them.

A lane is an executor of one thread that stays, so that the database connections that Django keeps for the thread stay
too. A *slot* is the right to run: there are as many as ``django_threads`` says, and requests wait for one in order. A
thread that only waits for a coroutine or for a slow client gives its slot to another request and keeps its lane, so
lanes may outnumber slots. All bookkeeping happens on the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Self

from asgiref.sync import SyncToAsync, _restore_context
from django.db import connections

__all__ = ["Call", "Lane", "Lanes", "Lease", "Slot"]

logger = logging.getLogger("asgiserver")

#: An idle lane ends after so many seconds, together with its database connections.
_IDLE = 60.0

#: How often threads are looked at while requests wait for a slot, in seconds; the least wait that is worth a warning,
#: and the least time between two warnings.
_LOOK, _LONG, _WARNING = 0.1, 1.0, 60.0

#: How long the end of the lanes waits for their database connections to close; seconds.
_LAST_WAIT = 1.0


class Call:
    """A call of a function in a thread, as ``sync_to_async`` makes it; made on the loop.

    :ivar done: the function has ended.
    :ivar failure: what it has raised.
    """

    __slots__ = ("_context", "_coroutines", "_ended", "_function", "_loop", "done", "failure")

    def __init__(self, function: Callable[[], None], ended: Callable[[], None]) -> None:
        self.done = False
        self.failure: BaseException | None = None
        self._function = function
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._coroutines: list[asyncio.Task[Any]] = []

    def run(self) -> None:
        """In the thread: call the function."""
        bridge = SyncToAsync.threadlocal
        # Where async_to_sync finds the loop, and where it notes what it waits for.
        bridge.main_event_loop, bridge.main_event_loop_pid = self._loop, os.getpid()
        bridge.task_context = self._coroutines
        try:
            self._context.run(self._within)
        except BaseException as error:  # noqa: BLE001 - raised on the loop
            self.failure = error
        self.done = True
        self._ended()

    def _within(self) -> None:
        # asgiref's Locals belong to a thread; this moves them to the thread that the context has come to.
        _restore_context(self._context)
        self._function()

    def take_context(self) -> None:
        """On the loop: take over the context variables as the function has set them until now."""
        _restore_context(self._context)

    def cancel(self) -> None:
        """On the loop: cancel the coroutines that the function waits for in ``async_to_sync``; it runs on itself."""
        for coroutine in self._coroutines:
            coroutine.cancel()


class Lane:
    """One thread.

    :param executor: runs one call at a time.
    :ivar serving: the request that the lane belongs to now, for the log.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.serving = ""
        self.idle_since = 0.0
        self._bridge: dict[str, Any] = {}

    @classmethod
    def of_its_own(cls, number: int) -> Self:
        """A lane with a new thread."""

        def look() -> None:
            # The thread's own part of what asgiref keeps for ``async_to_sync``.
            lane._bridge = SyncToAsync.threadlocal.__dict__

        lane = cls(ThreadPoolExecutor(1, f"django-{number}", initializer=look))
        return lane

    @property
    def coroutine(self) -> asyncio.Task[Any] | None:
        """What the thread waits for in ``async_to_sync``."""
        coroutines = self._bridge.get("task_context")
        return coroutines[-1] if coroutines else None

    def start(self, function: Callable[[], None], ended: Callable[[], None]) -> Call:
        """Run ``function`` in the thread; ``ended`` is called there behind it."""
        call = Call(function, ended)
        # Not run_in_executor, whose futures and callbacks cost as much as a small view.
        self.executor.submit(call.run)
        return call

    def end(self, function: Callable[[], None], ended: Callable[[], None]) -> None:
        """Run ``function`` behind all that the thread has still to do, then call ``ended`` on the loop."""
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        self.executor.submit(context.run, function).add_done_callback(lambda _: _tell(loop, ended))


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function on the loop, from a thread that may outlive it."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        logger.debug("The loop ended before a thread of Django's")


class Slot:
    """The right of one request to run; :meth:`leave` gives it back, any number of times.

    :ivar lane: where the request runs, once that is known.
    :ivar seen: what the lane's thread waited for at the last look.
    """

    __slots__ = ("_lanes", "lane", "seen")

    def __init__(self, lanes: Lanes) -> None:
        self._lanes: Lanes | None = lanes
        self.lane: Lane | None = None
        self.seen: asyncio.Task[Any] | None = None

    def leave(self) -> None:
        """Let another request run."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.left(self)


class Lanes:
    """All lanes of a loop; made on it.

    :param limit: how many requests may run synchronous code at a time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._loop = asyncio.get_running_loop()
        self._running: set[Slot] = set()
        self._waiting: deque[tuple[float, Callable[[Slot], None]]] = deque()
        self._idle: list[Lane] = []
        self._busy: set[Lane] = set()
        self._made = 0
        self._closed = False
        self._warned = float("-inf")
        self._looking: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return len(self._idle) + len(self._busy)

    # Slots.

    async def enter(self) -> Slot:
        """Wait for a slot; first come, first served. A caller that is cancelled has none."""
        granted: asyncio.Future[Slot] = self._loop.create_future()
        request = self.ask(granted.set_result)
        if request is None:
            return granted.result()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                granted.result().leave()
            else:
                self._waiting.remove(request)
            raise

    def ask(self, grant: Callable[[Slot], None]) -> tuple[float, Callable[[Slot], None]] | None:
        """Call ``grant`` with a slot, at once if there is one; else return the entry of those that wait."""
        if len(self._running) < self.limit and not self._waiting:
            self._grant(grant)
            return None
        request = (self._loop.time(), grant)
        self._waiting.append(request)
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK, self._look)
        return request

    def _grant(self, grant: Callable[[Slot], None]) -> None:
        slot = Slot(self)
        self._running.add(slot)
        grant(slot)

    def left(self, slot: Slot) -> None:
        """A slot is free."""
        self._running.discard(slot)
        while self._waiting and len(self._running) < self.limit:
            self._grant(self._waiting.popleft()[1])

    def _look(self) -> None:
        """Take the slots of threads that wait long for a coroutine, which may wait for a request without one; or warn.

        Only of those that wait for the same one as at the look before: each slot that is taken may need one lane more.
        """
        self._looking = None
        for slot in list(self._running):
            waits_for = None if slot.lane is None else slot.lane.coroutine
            if waits_for is not None and waits_for is slot.seen:
                slot.leave()
            slot.seen = waits_for
        if not self._waiting:
            return
        self._looking = self._loop.call_later(_LOOK, self._look)
        now = self._loop.time()
        waited = now - self._waiting[0][0]
        if waited >= _LONG and now - self._warned >= _WARNING:
            self._warned = now
            logger.warning(
                "All %d threads of Django's are busy: %d requests wait for one, the first for %.1f seconds; "
                "see --django-threads",
                self.limit,
                len(self._waiting),
                waited,
            )

    # Lanes.

    def take(self, serving: str) -> Lane:
        """A lane for one request; :meth:`give` takes it back."""
        if self._idle:
            lane = self._idle.pop()
        else:
            self._made += 1
            lane = Lane.of_its_own(self._made)
        lane.serving = serving
        self._busy.add(lane)
        return lane

    def give(self, lane: Lane) -> None:
        """Keep a lane for the next request, unless enough are kept."""
        self._busy.discard(lane)
        lane.serving = ""
        if self._closed or self.threads >= self.limit:
            _retire(lane)
            return
        lane.idle_since = self._loop.time()
        self._idle.append(lane)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_IDLE, self._sweep)

    def _sweep(self) -> None:
        """Retire the lanes that nobody needed for a while; the one that was used last is last in the list."""
        self._sweeping = None
        now = self._loop.time()
        while self._idle and now - self._idle[0].idle_since >= _IDLE:
            _retire(self._idle.pop(0))
        if self._idle:
            self._sweeping = self._loop.call_at(self._idle[0].idle_since + _IDLE, self._sweep)

    async def close(self) -> None:
        """End all lanes with their database connections; a busy one is named, and ends when it can."""
        self._closed = True
        for timer in (self._looking, self._sweeping):
            if timer is not None:
                timer.cancel()
        for lane in self._busy:
            logger.warning("A thread of Django's still runs %s, and is left behind", lane.serving)
        closing = [asyncio.wrap_future(_retire(lane)) for lane in self._idle]
        self._idle.clear()
        if closing:
            await asyncio.wait(closing, timeout=_LAST_WAIT)


def _retire(lane: Lane) -> Future[None]:
    closed = lane.executor.submit(connections.close_all)
    lane.executor.shutdown(wait=False)
    return closed


class Lease(Executor):
    """One request's executor for the synchronous parts of asynchronous code: a lane from the first call on.

    Each call needs a slot; between two calls the lane waits without one. All calls of a request run in one thread,
    because its database connections belong to that.

    :ivar used: something has been submitted.
    :ivar before_first: runs in the thread before what was submitted first.
    """

    def __init__(self, lanes: Lanes, serving: str) -> None:
        self._lanes = lanes
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lane: Lane | None = None
        self._calls = 0
        self._ended = False
        self.used = False
        self.before_first: Callable[[], None] | None = None

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """See ``Executor``; from any thread."""
        result: Future[Any] = Future()
        self.used = True

        def work() -> None:
            if not result.set_running_or_notify_cancel():
                return
            before, self.before_first = self.before_first, None
            try:
                if before is not None:
                    before()
                value = function(*arguments, **keywords)
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the result
                result.set_exception(error)
            else:
                result.set_result(value)

        if threading.get_ident() == self._thread:
            self._ask(work)
        else:
            self._loop.call_soon_threadsafe(self._ask, work)
        return result

    def _ask(self, work: Callable[[], None]) -> None:
        self._calls += 1

        def run(slot: Slot) -> None:
            slot.lane = lane = self._lane = self._lane or self._lanes.take(self._serving)

            def ended() -> None:
                slot.leave()
                self._calls -= 1
                self._give()

            lane.end(work, ended)

        self._lanes.ask(run)

    def end(self) -> None:
        """The request has ended: give the lane back when its last call is done."""
        self._ended = True
        self._give()

    def _give(self) -> None:
        if self._ended and not self._calls and self._lane is not None:
            lane, self._lane = self._lane, None
            self._lanes.give(lane)
