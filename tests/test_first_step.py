"""Tasks that make their first step at once; whatever an application does there has to be as in any other task."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from asgiserver.asgi.first_step import CAN_BEGIN, Work, begin

ours = pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio's own task is used")


class Begun:
    """A coroutine that was begun outside of any task, as the reading of a socket is."""

    def __init__(self, coroutine: Work) -> None:
        self.coroutine = coroutine
        self.context = copy_context()
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self.returned = asyncio.Event()

    def __call__(self) -> None:
        try:
            self.task = begin(self.coroutine, asyncio.get_running_loop(), "its name", self.context)
        except BaseException as error:
            # Its traceback would keep this object, and that the error.
            self.error = error.with_traceback(None)
        self.returned.set()


async def begun(coroutine: Work) -> Begun:
    made = Begun(coroutine)
    asyncio.get_running_loop().call_soon(made)
    await made.returned.wait()
    return made


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(main(), 10)

    asyncio.run(limited())


class TestFirstStep:
    def test_what_never_waits_has_ended_when_it_returns(self) -> None:
        async def work() -> None:
            done.append(asyncio.current_task())

        async def main() -> None:
            made = await begun(work())
            assert (made.task, made.error) == (None, None)
            assert isinstance(done[0], asyncio.Task)
            assert asyncio.current_task() is not done[0]

        done: list[Any] = []
        run(main)

    @pytest.mark.parametrize("error", [KeyError("x"), asyncio.CancelledError(), SystemExit(3)], ids=repr)
    def test_what_is_raised_there_is_raised_here(self, error: BaseException) -> None:
        async def work() -> None:
            raise error

        async def main() -> None:
            made = await begun(work())
            assert type(made.error) is type(error)
            assert made.task is None
            assert asyncio.current_task() is not None

        run(main)

    def test_it_waits_as_any_task(self) -> None:
        async def work() -> None:
            nonlocal value
            steps.append(asyncio.current_task())
            value = await future
            steps.append(asyncio.current_task())
            await asyncio.sleep(0)
            steps.append(asyncio.current_task())

        async def main() -> None:
            nonlocal future
            future = asyncio.get_running_loop().create_future()
            made = await begun(work())
            assert made.task is not None
            assert made.task.get_name() == "its name"
            assert made.task in asyncio.all_tasks()
            await asyncio.sleep(0)
            assert not made.task.done()
            future.set_result("the value")
            await made.task
            assert value == "the value"
            # To asyncio.timeout(), anyio and others it is one task from its beginning to its end.
            assert steps == [made.task] * 3

        value, steps = "", list[Any]()
        future: asyncio.Future[str]
        run(main)

    def test_a_turn_of_the_loop_is_one(self) -> None:
        async def work() -> None:
            seen.append("first")
            await asyncio.sleep(0)
            seen.append("second")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            made = Begun(work())
            loop.call_soon(made)
            loop.call_soon(seen.append, "another")
            await made.returned.wait()
            assert made.task is not None
            await made.task

        seen: list[str] = []
        run(main)
        assert seen == ["first", "another", "second"]

    @ours
    def test_none_can_begin_where_tasks_are_written_in_python(self) -> None:
        """As with PyPy, or with nest_asyncio."""
        code = "import asyncio; asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask; "
        code += "from asgiserver.asgi.first_step import CAN_BEGIN; assert not CAN_BEGIN"
        subprocess.run([sys.executable, "-c", code], timeout=30, check=True)
        assert CAN_BEGIN

    def test_context_is_its_own_in_every_step(self) -> None:
        variable: ContextVar[str] = ContextVar("variable")

        async def work() -> None:
            variable.set("mine")
            await asyncio.sleep(0)
            seen.append(variable.get())

        async def main() -> None:
            made = await begun(work())
            assert made.task is not None
            await made.task
            assert seen == ["mine"]
            assert made.context[variable] == "mine"
            assert variable.get(None) is None

        seen: list[str] = []
        run(main)

    def test_what_is_raised_later_is_the_tasks(self) -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise KeyError("late")

        async def main() -> None:
            made = await begun(work())
            assert made.error is None
            assert made.task is not None
            with pytest.raises(KeyError, match="late"):
                await made.task

        run(main)


class TestCancelling:
    @pytest.mark.parametrize("turns", [0, 1, 2])
    def test_code_that_waits_is_told(self, turns: int) -> None:
        """Also before the turn in which the task begins to wait for what its first step awaits."""

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                await asyncio.sleep(0)
                told.append("ended")
                raise

        async def main() -> None:
            made = await begun(work())
            assert made.task is not None
            for _ in range(turns):
                await asyncio.sleep(0)
            made.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await made.task
            assert made.task.cancelled()
            assert told == ["cancelled", "ended"]

        told: list[str] = []
        run(main)

    @pytest.mark.parametrize("turns", [0, 1, 2])
    def test_code_may_go_on(self, turns: int) -> None:
        async def work() -> None:
            for _ in range(3):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    told.append("cancelled")

        async def main() -> None:
            made = await begun(work())
            assert made.task is not None
            for _ in range(3):
                for _ in range(turns):
                    await asyncio.sleep(0)
                made.task.cancel()
                await asyncio.sleep(0)
            await made.task
            assert told == ["cancelled"] * 3

        told: list[str] = []
        run(main)

    def test_code_may_raise_something_else(self) -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise KeyError("instead") from None

        async def main() -> None:
            made = await begun(work())
            assert made.task is not None
            made.task.cancel()
            with pytest.raises(KeyError, match="instead"):
                await made.task

        run(main)

    def test_one_that_cancels_itself_in_its_first_step(self) -> None:
        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                await asyncio.sleep(10)
            finally:
                told.append("ended")

        async def main() -> None:
            made = await begun(work())
            assert made.task is not None
            with pytest.raises(asyncio.CancelledError):
                await made.task
            assert told == ["ended"]

        told: list[str] = []
        run(main)

    @pytest.mark.parametrize("by", ["itself", "another"])
    def test_what_it_waits_for_is_cancelled_too(self, by: str) -> None:
        """Also before its turn: else its children would run on without it."""

        async def work() -> None:
            children.extend(asyncio.ensure_future(asyncio.sleep(0.1)) for _ in range(2))
            if by == "itself":
                task = asyncio.current_task()
                assert task is not None
                task.cancel("why")
            try:
                await asyncio.gather(*children)
            except asyncio.CancelledError as error:
                told.extend(error.args)
                raise

        async def main() -> None:
            loop, made = asyncio.get_running_loop(), Begun(work())
            loop.call_soon(made)
            if by == "another":
                loop.call_soon(lambda: made.task is not None and made.task.cancel("why"))
            await made.returned.wait()
            assert made.task is not None
            with pytest.raises(asyncio.CancelledError):
                await made.task
            assert [child.cancelled() for child in children] == [True, True]
            assert told == ["why"]

        children: list[asyncio.Future[None]] = []
        told: list[str] = []
        run(main)

    def test_timeouts_and_groups_begin_in_the_first_step(self) -> None:
        async def work() -> None:
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.sleep(10), 0.01)
            done.append("timeouts")

        async def grouped() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(work())
            done.append("group")

        async def main() -> None:
            for coroutine in (work(), grouped()):
                made = await begun(coroutine)
                assert made.task is not None
                await made.task
            assert done == ["timeouts", "timeouts", "group"]

        done: list[str] = []
        run(main)

    def test_anyio_scopes_begin_in_the_first_step(self) -> None:
        import anyio

        async def work() -> None:
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep(10)
            assert scope.cancelled_caught
            assert anyio.get_current_task().name == "its name"
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0)
                group.cancel_scope.cancel()
            done.append(True)

        async def told_first() -> None:
            assert anyio.get_current_task().name == "its name"
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep(10)
            await work()

        async def main() -> None:
            for coroutine in (work(), told_first()):
                made = await begun(coroutine)
                assert made.task is not None
                await made.task
            assert done == [True, True]

        done: list[bool] = []
        run(main)


class TestAskedInItsFirstStep:
    """A task may be asked for anything as soon as it is the current one."""

    @pytest.mark.parametrize(
        ("ask", "answer"),
        [
            (lambda task: task.get_name(), "its name"),
            (lambda task: task.done(), False),
            (lambda task: task.cancelled(), False),
            (lambda task: task.cancelling(), 0),
            (lambda task: task.uncancel(), 0),
            (lambda task: task.get_loop() is asyncio.get_running_loop(), True),
            (lambda task: inspect.iscoroutine(task.get_coro()), True),
            (lambda task: "Task" in repr(task), True),
            (lambda task: isinstance(task.get_stack(), list), True),
            (lambda task: task.set_name("another"), None),
            (lambda task: task.remove_done_callback(print), 0),
            (lambda task: hash(task) == hash(task), True),
            (lambda task: weakref.ref(task)() is task, True),
        ],
    )
    @pytest.mark.parametrize("waits", [False, True])
    def test_it_answers(self, ask: Callable[[Any], Any], answer: Any, waits: bool) -> None:
        async def work() -> None:
            answers.append(ask(asyncio.current_task()))
            if waits:
                await asyncio.sleep(0)
            answers.append("end")

        async def main() -> None:
            made = await begun(work())
            if waits:
                assert made.task is not None
                await made.task
            assert made.error is None
            # One that was asked, and so was made, but did not wait: it has its turn, and ends.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) <= 2

        answers: list[Any] = []
        run(main)
        assert answers == [answer, "end"]

    def test_callbacks_are_called_at_its_end(self) -> None:
        async def work(waits: bool) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(ended.append)
            if waits:
                await asyncio.sleep(0)

        async def main() -> None:
            for waits in (False, True):
                await begun(work(waits))
                for _ in range(5):
                    await asyncio.sleep(0)
            assert [task.done() for task in ended] == [True, True]

        ended: list[asyncio.Task[None]] = []
        run(main)

    @pytest.mark.parametrize("error", [None, KeyError("x")], ids=repr)
    def test_one_that_was_kept_has_ended_when_it_is_asked_later(self, error: Exception | None) -> None:
        async def work() -> None:
            kept.append(asyncio.current_task())
            if error is not None:
                raise error

        async def main() -> None:
            await begun(work())
            await asyncio.sleep(0)
            (task,) = kept
            assert task.done()
            assert not task.cancel()
            assert not task.cancelled()
            await asyncio.wait([task])
            task.exception()

        kept: list[Any] = []
        run(main)

    @ours
    def test_nothing_is_made_of_one_that_nobody_keeps(self) -> None:
        from asgiserver.asgi import first_step

        async def work() -> None:
            seen.append(type(asyncio.current_task()))

        def watch(task: Any) -> None:
            # The collector may ask for the name of a task that another test has left.
            if task.began is not None:
                made.append(task)
            make(task)

        task_type: Any = vars(first_step)["_Task"]
        make = task_type.make
        seen, made = list[object](), list[object]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(task_type, "make", watch)

            async def main() -> None:
                await begun(work())

            run(main)
        assert (seen, made) == ([task_type], [])

    @ours
    def test_nothing_reaches_a_task_that_was_not_made(self) -> None:
        """get_coro() of one would crash the interpreter."""
        from asgiserver.asgi import first_step

        task_type: Any = vars(first_step)["_Task"]
        methods = {
            name
            for kind in (asyncio.Task, asyncio.Future)
            for name, value in vars(kind).items()
            if callable(value) and (not name.startswith("_") or name in ("__await__", "__iter__", "__repr__"))
        }
        assert methods <= set(vars(task_type))


def run_without_collector(main: Callable[[], Awaitable[None]]) -> None:
    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


class TestMemory:
    @pytest.mark.parametrize("how", ["ends", "raises", "waits", "raises late", "is cancelled", "is asked"])
    def test_nothing_is_left_without_the_garbage_collector(self, how: str) -> None:
        class Thing:
            pass

        async def work(thing: Thing) -> None:
            if how == "is asked":
                assert repr(asyncio.current_task())
            if how == "raises":
                raise KeyError(how)
            if how in ("waits", "raises late"):
                await asyncio.sleep(0)
            if how == "raises late":
                raise KeyError(how)
            if how == "is cancelled":
                await asyncio.Event().wait()

        async def main() -> None:
            thing = Thing()
            gone = weakref.ref(thing)
            made = await begun(work(thing))
            del thing
            if made.task is not None:
                if how == "is cancelled":
                    made.task.cancel()
                await asyncio.wait([made.task])
                if not made.task.cancelled():
                    made.task.exception()
            del made
            for _ in range(3):
                await asyncio.sleep(0)
            assert gone() is None

        run_without_collector(main)

    def test_error_keeps_nothing_that_keeps_it(self) -> None:
        class Failure(Exception):
            pass

        async def work() -> None:
            raise Failure

        def call() -> None:
            try:
                begin(work(), asyncio.get_running_loop(), "its name", copy_context())
            except Failure as error:
                gone.append(weakref.ref(error))

        async def main() -> None:
            asyncio.get_running_loop().call_soon(call)
            await asyncio.sleep(0)
            assert [error() for error in gone] == [None]

        gone: list[weakref.ref[Failure]] = []
        run_without_collector(main)
