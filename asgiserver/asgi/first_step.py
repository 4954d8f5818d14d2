"""Tasks that make their first step at once.

A task of asyncio begins a turn of the loop after it was made. Most applications answer without ever waiting, so that
this turn, and all that asyncio keeps of a task until it comes, is much of what a request costs. Python 3.12 has tasks
that begin at once (``eager_start``); for Python 3.11 they are made here, of what asyncio has for those who write tasks
of their own ("Extending" in its manual).
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from sys import getrefcount
from typing import Any

__all__ = ["CAN_BEGIN", "begin"]

Work = Coroutine[Any, Any, None]

#: False where a task is written in Python before 3.12, as PyPy's is: it complains of one that nothing was made of.
CAN_BEGIN = sys.version_info >= (3, 12) or asyncio.Task.__module__ == "_asyncio"


if sys.version_info >= (3, 12):

    def begin(coroutine: Work, loop: AbstractEventLoop, name: str, context: Context) -> asyncio.Task[None] | None:
        """Run ``coroutine`` as a task up to where it first waits; the task, or None when it has ended by then.

        Only where no other task is running, and where :data:`CAN_BEGIN` says so.

        :param loop: the running loop.
        :raises BaseException: what ``coroutine`` raised before it waited for anything.
        """
        task = asyncio.Task(coroutine, loop=loop, name=name, context=context, eager_start=True)
        if not task.done():
            return task
        try:
            task.result()
        finally:
            # Or the error, its traceback with this frame, and the task would keep each other.
            del task
        return None

else:
    from asyncio.tasks import _enter_task, _leave_task

    _ENDED = object()

    class _Task(asyncio.Task[None]):
        """What ``current_task()`` is during the first step, and a task like any other from then on.

        Nothing is made of it before its coroutine waits, or somebody calls one of its methods.
        """

        __slots__ = ("awaited", "began")

        #: The coroutine with its loop, name and context; None from when it is made.
        began: tuple[Work, AbstractEventLoop, str, Context] | None
        #: What the coroutine waits for after its first step: None for a turn of the loop, _ENDED for nothing.
        awaited: Any

        def make(self) -> None:
            """Be a whole task, whose coroutine goes on in a turn of the loop."""
            if self.began is not None:
                coroutine, loop, name, context = self.began
                self.began = None
                rest = _go_on(_Rest(self, coroutine))
                # What is thrown into a coroutine that was not entered, as by cancel(), never reaches its code.
                rest.send(None)
                asyncio.Task.__init__(self, rest, loop=loop, name=name, context=context)

    def _once_made(name: str) -> Callable[..., Any]:
        method = getattr(asyncio.Task, name)

        def call(task: _Task, *arguments: Any, **options: Any) -> Any:
            task.make()
            return method(task, *arguments, **options)

        return call

    # Without it most would only raise, but get_coro() would crash the interpreter.
    for _name in (
        "__await__", "__iter__", "__repr__", "add_done_callback", "cancel", "cancelled", "cancelling", "done",
        "exception", "get_coro", "get_loop", "get_name", "get_stack", "print_stack", "remove_done_callback", "result",
        "set_exception", "set_name", "set_result", "uncancel",
    ):  # fmt: skip
        setattr(_Task, _name, _once_made(_name))

    class _Rest:
        """Awaits what a coroutine has left to do after its first step."""

        __slots__ = ("coroutine", "task")

        def __init__(self, task: _Task, coroutine: Work) -> None:
            self.task: _Task | None = task
            self.coroutine = coroutine

        def __await__(self) -> Generator[Any, Any, None]:
            # Entered by hand up to here.
            error = yield from _caught(None)
            task, self.task = self.task, None
            if task is None or task.awaited is _ENDED:
                return
            awaited, task.awaited = task.awaited, None
            # Cancelled before its turn: as of any task, what it waits for is cancelled first, and tells it then.
            if awaited is not None and (error is None or _cancels(error, awaited)):
                error = yield from _caught(awaited)
            del awaited
            del task
            while error is not None:
                try:
                    awaited = self.coroutine.throw(error)
                except StopIteration:
                    return
                finally:
                    # Or the error, its traceback and this frame would keep each other.
                    error = None
                error = yield from _caught(awaited)
            yield from self.coroutine.__await__()

    def _caught(awaited: Any) -> Generator[Any, Any, BaseException | None]:
        """Yield ``awaited``; what is thrown in then."""
        try:
            yield awaited
        except BaseException as error:  # noqa: BLE001 - it is passed on
            return error
        return None

    def _cancels(error: BaseException, awaited: Any) -> bool:
        return isinstance(error, asyncio.CancelledError) and asyncio.isfuture(awaited) and awaited.cancel(*error.args)

    async def _go_on(rest: _Rest) -> None:
        await rest

    _new = asyncio.Task.__new__
    #: To a task that nobody else has: begin's own, and getrefcount's.
    _REFERENCES = 2

    def begin(coroutine: Work, loop: AbstractEventLoop, name: str, context: Context) -> asyncio.Task[None] | None:
        """See above."""
        task = _new(_Task)
        task.began = coroutine, loop, name, context
        _enter_task(loop, task)
        try:
            task.awaited = context.run(coroutine.send, None)
        except StopIteration:
            task.awaited = _ENDED
            return None
        except BaseException:
            task.awaited = _ENDED
            raise
        finally:
            _leave_task(loop, task)
            if task.awaited is _ENDED and getrefcount(task) > _REFERENCES:
                # Somebody has kept it, and may ask at any time, and from anywhere, whether it is done.
                task.make()
        task.make()
        return task
