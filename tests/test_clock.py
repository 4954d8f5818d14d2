"""Time from the loop: on each kind of loop, and on one whose time is made up."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.deadlines import Deadline, Deadlines, Sleeper
from asgiserver.process.clock import LoopClock, _Slot

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    if request.param == "uvloop":
        if importlib.util.find_spec("uvloop") is None:
            pytest.skip("uvloop is not installed")
        import uvloop

        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        made = asyncio.SelectorEventLoop()
    yield made
    made.close()


def run(loop: asyncio.AbstractEventLoop, began: Callable[[asyncio.Future[None]], object]) -> None:
    async def main() -> None:
        done: asyncio.Future[None] = loop.create_future()
        began(done)
        async with asyncio.timeout(10):
            await done

    loop.run_until_complete(main())


class Owner:
    def expired(self) -> None:
        raise AssertionError("it was cancelled")


def test_a_call_is_made_when_its_time_has_come(loop: asyncio.AbstractEventLoop) -> None:
    clock = LoopClock(loop)
    before = clock.seconds()
    run(loop, lambda done: clock.callLater(0.05, done.set_result, None))
    # uvloop counts in milliseconds.
    assert clock.seconds() - before > 0.048


def test_a_cancelled_call_is_not_made_and_keeps_nobody(loop: asyncio.AbstractEventLoop) -> None:
    clock, owner = LoopClock(loop), Owner()
    reference = weakref.ref(owner)
    call = clock.callLater(0.01, owner.expired)
    call.cancel()
    call.cancel()
    gc.disable()
    try:
        del owner
        assert reference() is None
    finally:
        gc.enable()
    run(loop, lambda done: clock.callLater(0.03, done.set_result, None))


def test_a_cancelled_call_does_not_stay_in_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    clock = LoopClock(loop)
    calls = [weakref.ref(clock.callLater(3600, print)) for _ in range(1000)]
    for call in calls:
        found = call()
        assert found is not None
        found.cancel()
    del found
    run(loop, lambda done: clock.callLater(0.01, done.set_result, None))
    # asyncio puts up with some hundred.
    assert sum(call() is not None for call in calls) <= 200


def test_a_call_sees_no_variable_of_whoever_asked_for_it(loop: asyncio.AbstractEventLoop) -> None:
    clock, seen = LoopClock(loop), []

    def begin(done: asyncio.Future[None]) -> None:
        variable.set("inside")
        clock.callLater(0, lambda: seen.append(variable.get()))
        clock.callLater(0.01, done.set_result, None)

    run(loop, begin)
    assert seen == ["outside"]


def test_setting_the_time_of_day_moves_no_deadline(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(loop)
    deadlines = Deadlines(clock)
    expired: list[str] = []
    deadlines.set(Deadline.CLOSE, 3600.0, lambda: expired.append("far"))
    tomorrow = time.time() + 86400
    monkeypatch.setattr(time, "time", lambda: tomorrow)

    def begin(done: asyncio.Future[None]) -> None:
        deadlines.set(Deadline.HEAD, 0.01, lambda: done.set_result(None))

    run(loop, begin)
    assert expired == []
    deadlines.stop()


class FakeLoop:
    """Time that only goes on when it is told to, and late by ``lag`` or, as uvloop may be, early."""

    def __init__(self, lag: float = 0.0) -> None:
        self.now = 1000.0
        self.lag = lag
        self.timers: list[FakeTimer] = []
        self.failures: list[dict[str, Any]] = []

    def call_later(self, delay: float, function: Callable[..., object], *args: object, context: object) -> FakeTimer:
        timer = FakeTimer(self, self.now + max(delay + self.lag, delay / 2), function, args)
        self.timers.append(timer)
        return timer

    def call_soon(self, function: Callable[..., object], *args: object, context: object) -> FakeTimer:
        timer = FakeTimer(self, self.now, function, args)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    def turn(self) -> bool:
        """Make the calls that are due now; True when there were any."""
        due = [timer for timer in self.timers if timer.when <= self.now]
        for timer in due:
            if timer in self.timers:
                self.timers.remove(timer)
                timer.function(*timer.args)
        return bool(due)

    def advance(self, seconds: float) -> None:
        """Let time pass from timer to timer."""
        end = self.now + seconds
        while True:
            while self.turn():
                pass
            following = min((timer.when for timer in self.timers), default=end)
            if following >= end:
                break
            self.now = following
        self.now = end
        while self.turn():
            pass


class FakeTimer:
    def __init__(self, loop: FakeLoop, when: float, function: Callable[..., object], args: tuple[object, ...]) -> None:
        self.loop = loop
        self.when = when
        self.function = function
        self.args = args

    def cancel(self) -> None:
        if self in self.loop.timers:
            self.loop.timers.remove(self)


class Woken(Sleeper):
    """Notes when it is woken."""

    def __init__(self, clock: TimedClock, name: object = "", then: Callable[[], object] = lambda: None) -> None:
        self.before = self.after = None
        self.clock = clock
        self.name = name
        self.then = then
        self.times: list[float] = []

    def wake(self) -> None:
        self.times.append(self.clock.loop.now)
        self.clock.order.append(self.name)
        self.then()


class TimedClock(LoopClock):
    """A clock of a loop whose time is made up."""

    def __init__(self, lag: float = 0.0) -> None:
        self.loop = FakeLoop(lag)
        self.order: list[object] = []
        super().__init__(self.loop)  # type: ignore[arg-type]

    def seconds(self) -> float:  # type: ignore[override]
        return self.loop.now


class TestSlots:
    @given(st.floats(0, 100_000), st.floats(0, 10_000), st.sampled_from([0.0, -0.002, 0.003]))
    def test_nobody_is_woken_early_nor_later_than_by_a_32nd(self, began: float, delay: float, lag: float) -> None:
        clock = TimedClock(lag)
        clock.loop.now = began
        sleeper = Woken(clock)
        clock.wake_later(sleeper, delay)
        clock.loop.advance(delay * 2 + 1)
        [woken] = sleeper.times
        assert began + delay <= woken <= began + delay * (1 + 1 / 32) + 0.002 + max(lag, 0)

    def test_those_of_about_the_same_time_share_a_timer(self) -> None:
        clock = TimedClock()
        sleepers = [Woken(clock) for _ in range(5000)]
        for sleeper in sleepers:
            clock.wake_later(sleeper, 60.0)
            clock.loop.now += 0.01
            # Twice 32 times a 32nd, and one that has begun.
            assert len(clock.loop.timers) <= 65
        clock.loop.advance(100.0)
        assert all(len(sleeper.times) == 1 for sleeper in sleepers)
        assert clock.loop.timers == []

    def test_who_comes_first_is_woken_first(self) -> None:
        clock = TimedClock()
        for number in range(10):
            clock.wake_later(Woken(clock, number), 1.0)
        clock.loop.advance(2.0)
        assert clock.order == list(range(10))

    def test_who_is_due_first_is_woken_first(self) -> None:
        clock = TimedClock()
        for seconds in (30, 1, 7, 3600, 0):
            clock.wake_later(Woken(clock, seconds), float(seconds))
        clock.loop.advance(4000.0)
        assert clock.order == [0, 1, 7, 30, 3600]

    @pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [2, 1], [0, 2], [1, 0, 2]])
    def test_who_is_let_sleep_is_not_woken_and_the_others_are(self, gone: list[int]) -> None:
        clock = TimedClock()
        sleepers = [Woken(clock, number) for number in range(3)]
        for sleeper in sleepers:
            clock.wake_later(sleeper, 1.0)
        for number in gone:
            clock.let_sleep(sleepers[number])
            clock.let_sleep(sleepers[number])
        assert len(clock.loop.timers) == (len(gone) < 3)
        clock.loop.advance(2.0)
        assert clock.order == [number for number in range(3) if number not in gone]

    def test_who_was_woken_can_be_let_sleep_and_woken_again(self) -> None:
        clock = TimedClock()
        sleeper = Woken(clock)
        for _ in range(3):
            clock.wake_later(sleeper, 1.0)
            clock.loop.advance(2.0)
            clock.let_sleep(sleeper)
        assert len(sleeper.times) == 3

    def test_thousands_that_came_and_went_leave_nothing(self) -> None:
        clock = TimedClock()
        for seconds in range(5000):
            sleeper = Woken(clock)
            clock.wake_later(sleeper, seconds / 10)
            clock.let_sleep(sleeper)
            assert sleeper.before is sleeper.after is None
        assert clock.loop.timers == []
        assert clock._slots == {}

    def test_one_that_fails_is_reported_and_the_others_are_woken(self) -> None:
        clock = TimedClock()

        def fail() -> None:
            raise ValueError("a bug")

        for name, then in (("before", list), ("bug", fail), ("after", list)):
            clock.wake_later(Woken(clock, name, then), 1.0)
        clock.loop.advance(2.0)
        assert clock.order == ["before", "bug", "after"]
        [failure] = clock.loop.failures
        assert isinstance(failure["exception"], ValueError)
        assert "Woken.wake" in failure["message"]

    def test_one_that_ends_the_process_leaves_the_others_to_be_woken(self) -> None:
        clock = TimedClock()

        def leave() -> None:
            raise SystemExit

        for name, then in (("leaves", leave), ("after", list)):
            clock.wake_later(Woken(clock, name, then), 1.0)
        with pytest.raises(SystemExit):
            clock.loop.advance(2.0)
        clock.loop.advance(2.0)
        assert clock.order == ["leaves", "after"]

    def test_very_many_of_one_time_let_the_others_have_a_turn(self) -> None:
        clock = TimedClock()
        for number in range(1000):
            clock.wake_later(Woken(clock, number), 1.0)
        clock.loop.now += 1.1
        turns = 0
        while len(clock.order) < 1000:
            before = len(clock.order)
            assert clock.loop.turn()
            assert len(clock.order) - before <= 100
            turns += 1
        assert turns >= 10
        assert clock.order == list(range(1000))
        clock.loop.turn()
        assert clock.loop.timers == []

    def test_one_may_let_others_of_its_time_sleep(self) -> None:
        clock = TimedClock()
        others = [Woken(clock, number) for number in range(3)]

        def stop() -> None:
            for each in others:
                clock.let_sleep(each)

        clock.wake_later(Woken(clock, "first", stop), 1.0)
        for other in others:
            clock.wake_later(other, 1.0)
        clock.loop.advance(2.0)
        assert clock.order == ["first"]
        assert clock.loop.timers == []

    def test_one_may_wait_again_at_once(self) -> None:
        clock = TimedClock()
        sleeper = Woken(clock)
        sleeper.then = lambda: clock.wake_later(sleeper, 0.0) if len(sleeper.times) < 5 else None
        clock.wake_later(sleeper, 1.0)
        clock.loop.advance(2.0)
        assert len(sleeper.times) == 5
        assert clock._slots == {}

    def test_a_slot_that_is_made_while_its_time_rings_is_another(self) -> None:
        clock = TimedClock()
        late, later = Woken(clock, "late"), Woken(clock, "later")

        def again() -> None:
            # Exactly the time that rings.
            clock.loop.now = 1001.0
            clock.wake_later(late, 0.0)
            clock.let_sleep(later)
            assert list(clock._slots) == [1001.0]

        clock.wake_later(Woken(clock, "first", again), 1.0)
        clock.wake_later(later, 1.0)
        clock.loop.advance(2.0)
        assert clock.order == ["first", "late"]
        assert clock._slots == {}

    @pytest.mark.parametrize("ends", ["rings", "is left", "is left while it rings"])
    def test_a_slot_is_no_cycle_for_the_garbage_collector(self, ends: str) -> None:
        clock = TimedClock()
        last = Woken(clock)
        first = Woken(clock, then=lambda: clock.let_sleep(last) if ends == "is left while it rings" else None)
        gc.collect()
        gc.disable()
        try:
            clock.wake_later(first, 1.0)
            clock.wake_later(last, 1.0)
            if ends == "is left":
                clock.let_sleep(first)
                clock.let_sleep(last)
            clock.loop.advance(2.0)
            assert not [each for each in gc.get_objects() if type(each) is _Slot]
        finally:
            gc.enable()

    def test_one_that_is_woken_is_kept_by_nobody(self) -> None:
        clock = TimedClock()
        kept = Woken(clock)
        clock.wake_later(kept, 1.0)
        clock.wake_later(Woken(clock), 1.0)
        clock.loop.advance(2.0)
        assert kept.before is kept.after is None


def test_a_sleeper_is_woken_by_a_loop_and_not_before(loop: asyncio.AbstractEventLoop) -> None:
    clock = LoopClock(loop)

    class Done(Sleeper):
        def __init__(self, done: asyncio.Future[None]) -> None:
            self.before = self.after = None
            self.done = done

        def wake(self) -> None:
            self.done.set_result(None)
            seen.append(variable.get())

    seen: list[str] = []

    def begin(done: asyncio.Future[None]) -> None:
        variable.set("inside")
        clock.wake_later(Done(done), 0.05)

    for _ in range(3):
        before = clock.seconds()
        run(loop, begin)
        assert clock.seconds() - before >= 0.05
    assert seen == ["outside"] * 3
