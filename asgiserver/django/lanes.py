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
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import SyncToAsync, _restore_context
from django.db import connections

from ..pipe import NOT_FOR_TASKS, for_a_future

__all__ = ["Call", "Lane", "Lanes", "Lease", "Slot"]

logger = logging.getLogger("asgiserver")

#: An idle lane ends after so many seconds, together with its database connections.
_IDLE = 60.0

#: How often threads are looked at while requests wait for a slot, in seconds; the least wait that is worth a warning,
#: and the least time between two warnings.
_LOOK, _LONG, _WARNING = 0.1, 1.0, 60.0

#: The modules in whose functions a thread waits.
_WAITING = ("threading", "queue")

#: How long the end of the lanes waits for their database connections to close; seconds.
_LAST_WAIT = 1.0


class Call:
    """A call of a function in a thread, as ``sync_to_async`` makes it; made on the loop.

    :ivar done: the function has ended.
    :ivar failure: what it has raised, or RuntimeError for what no future can hold, or what would cancel a task.
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
        # A name of its own, by which slow_request_log finds the thread of a request.
        context = self._context
        try:
            context.run(self._within)
        except BaseException as error:  # noqa: BLE001 - raised on the loop
            self.failure = for_a_future(error)
        self.done = True
        self._ended()

    def _within(self) -> None:
        # asgiref's Locals belong to a thread; this moves them to the thread that the context has come to.
        _restore_context(self._context)
        self._function()

    # On the loop.

    def take_context(self) -> None:
        """Take over the context variables as the function has set them until now."""
        _restore_context(self._context)

    def cancel(self) -> None:
        """Cancel the coroutines that the function waits for in ``async_to_sync``; the function itself runs on."""
        for coroutine in self._coroutines:
            # async_to_sync may run it on a loop of its own.
            _tell(coroutine.get_loop(), coroutine.cancel)


class Lane:
    """One thread.

    :param executor: runs one call at a time.
    :ivar serving: the request that the lane belongs to now, for the log.
    """

    def __init__(self, executor: Executor, serving: str = "") -> None:
        self.executor = executor
        self.serving = serving
        self.idle_since = 0.0
        self._thread = 0

    @classmethod
    def of_its_own(cls, number: int) -> Self:
        """A lane with a new thread.

        :raises RuntimeError: the process may have no more threads.
        """

        def begin() -> None:
            lane._thread = threading.get_ident()

        lane = cls(ThreadPoolExecutor(1, f"django-{number}", initializer=begin))
        # A thread is started by the first call. Where none can be, that is to be known before a request counts on it.
        lane.executor.submit(int)
        return lane

    def waits_for(self, frames: dict[int, types.FrameType]) -> object | None:
        """The call of ``async_to_sync`` that the thread waits for, unless it runs something else meanwhile.

        :param frames: where each thread is. What asgiref notes of these calls it forgets with the first function that
            the coroutine calls in the thread.
        """
        frame = frames.get(self._thread)
        while frame is not None and frame.f_globals.get("__name__") in _WAITING:
            frame = frame.f_back
        if frame is None or frame.f_code is not CurrentThreadExecutor.run_until_future.__code__:
            return None
        waited: object | None = frame.f_locals.get("future")
        return waited

    def start(self, function: Callable[[], None], ended: Callable[[], None]) -> Call:
        """Run ``function`` in the thread; ``ended`` is called there behind it."""
        call = Call(function, ended)
        # Not run_in_executor: ``ended`` tells the loop, so nobody would wait for its future.
        self.executor.submit(call.run)
        return call

    def end(self, function: Callable[[], None], ended: Callable[[BaseException | None], None]) -> None:
        """Run ``function`` behind all that the thread has still to do, then call ``ended`` on the loop.

        ``ended`` is given what ``function`` raised.
        """
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def tell(done: Future[None]) -> None:
            failure = done.exception()
            _tell(loop, ended, None if failure is None else for_a_future(failure))

        self.executor.submit(context.run, function).add_done_callback(tell)

    def settle(self, done: asyncio.Future[None], failure: BaseException | None) -> None:
        """End a future, with ``failure`` if there is one; log it if the future was cancelled."""
        if done.cancelled():
            self.log(failure)
        elif failure is None:
            done.set_result(None)
        else:
            done.set_exception(failure)

    def log(self, failure: BaseException | None) -> None:
        """Log an exception that nobody waits for, unless it is only the end of what was cancelled."""
        if failure is not None and not isinstance(failure.__cause__, asyncio.CancelledError):
            logger.error("Exception in %s, whose end nobody waits for any more", self.serving, exc_info=failure)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: Any) -> None:
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
        self.seen: object | None = None

    def leave(self) -> None:
        """Let another request run."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.left(self)


class Lanes:
    """All lanes of a loop; made on it.

    :param limit: how many requests may run synchronous code at a time.
    :ivar users: how many servers use them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.users = 0
        self._loop = asyncio.get_running_loop()
        self._running: set[Slot] = set()
        #: The slots that are wanted, in order, and since when.
        self._waiting: OrderedDict[asyncio.Future[Slot], float] = OrderedDict()
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
        granted = self.ask()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._waiting.pop(granted, None)
            else:
                granted.result().leave()
            raise

    def ask(self) -> asyncio.Future[Slot]:
        """A slot, now or later; if it is cancelled, the next in order has it."""
        granted: asyncio.Future[Slot] = self._loop.create_future()
        self._waiting[granted] = self._loop.time()
        self._grant()
        if self._waiting and self._looking is None:
            self._looking = self._loop.call_later(_LOOK, self._look)
        return granted

    def left(self, slot: Slot) -> None:
        """A slot is free."""
        self._running.discard(slot)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and len(self._running) < self.limit:
            granted, _ = self._waiting.popitem(last=False)
            # One that was cancelled in this turn of the loop has not yet been withdrawn.
            if not granted.cancelled():
                slot = Slot(self)
                self._running.add(slot)
                granted.set_result(slot)

    def _look(self) -> None:
        """Take the slots of threads that wait long for a coroutine, which may wait for a request without one; or warn.

        Only of those that wait for the same one as at the look before: each slot that is taken may need one lane more.
        """
        self._looking = None
        frames = sys._current_frames()
        for slot in list(self._running):
            waits_for = None if slot.lane is None else slot.lane.waits_for(frames)
            if waits_for is not None and waits_for is slot.seen:
                slot.leave()
            slot.seen = waits_for
        if not self._waiting:
            return
        self._looking = self._loop.call_later(_LOOK, self._look)
        now = self._loop.time()
        waited = now - next(iter(self._waiting.values()))
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
        """A lane for one request; :meth:`give` takes it back.

        :raises RuntimeError: the process may have no more threads.
        """
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
        # Those that wait for slow clients do not count: without them, each request would begin and end a thread.
        if self._closed or len(self._idle) >= self.limit:
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
    closed = lane.executor.submit(_close_connections)
    lane.executor.shutdown(wait=False)
    return closed


def _close_connections() -> None:
    try:
        connections.close_all()
    except Exception:
        logger.exception("A thread of Django's could not close its database connections")


class Lease(Executor):
    """One request's executor for the synchronous parts of asynchronous code: a lane from the first call on.

    Each call needs a slot; between two calls the lane waits without one. All calls of a request run in one thread,
    because its database connections belong to that.

    :param lane: the lane that the request has already.
    :ivar used: something has been submitted.
    :ivar before_first: runs in the thread before what was submitted first.
    """

    def __init__(self, lanes: Lanes, serving: str, lane: Lane | None = None) -> None:
        self._lanes = lanes
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lane = lane
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
            except NOT_FOR_TASKS as error:
                # A cancellation stays one: asgiref waits for the result, and may have asked for it.
                result.set_exception(for_a_future(error))
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the result
                result.set_exception(error)
            else:
                result.set_result(value)

        if threading.get_ident() == self._thread:
            self._ask(work, result)
        else:
            self._loop.call_soon_threadsafe(self._ask, work, result)
        return result

    def _ask(self, work: Callable[[], None], result: Future[Any]) -> None:
        self._calls += 1
        granted = self._lanes.ask()
        if granted.done():
            self._run(work, result, granted)
        else:
            granted.add_done_callback(partial(self._run, work, result))

    def _run(self, work: Callable[[], None], result: Future[Any], granted: asyncio.Future[Slot]) -> None:
        slot = granted.result()
        if result.cancelled():
            self._call_ended(slot)
            return
        try:
            slot.lane = lane = self._lane = self._lane or self._lanes.take(self._serving)
        except RuntimeError as error:
            if result.set_running_or_notify_cancel():
                result.set_exception(error)
            self._call_ended(slot)
        else:
            lane.end(work, partial(self._call_ended, slot))

    def _call_ended(self, slot: Slot, _: BaseException | None = None) -> None:
        slot.leave()
        self._calls -= 1
        self._give()

    def end(self) -> None:
        """The request has ended: give the lane back when its last call is done."""
        self._ended = True
        self._give()

    def _give(self) -> None:
        if self._ended and not self._calls and self._lane is not None:
            lane, self._lane = self._lane, None
            self._lanes.give(lane)
