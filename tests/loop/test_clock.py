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

from asgiserver.asgi.deadlines import Deadline, Deadlines
from asgiserver.loop.clock import LoopClock

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


class Woken:
    """Notes when it is woken."""

    def __init__(self, clock: TimedClock, name: object = "", then: Callable[[], object] = lambda: None) -> None:
        self.clock = clock
        self.name = name
        self.then = then
        self.when = 0.0
        self.times: list[float] = []

    def wake(self) -> None:
        self.times.append(self.clock.loop.now)
        self.clock.order.append(self.name)
        self.then()

    def sleep(self, seconds: float = 1.0) -> None:
        self.when = self.clock.wake_at(self.clock.loop.now + seconds, self)

    def stop(self) -> None:
        self.clock.let_sleep(self, self.when)


class TimedClock(LoopClock):
    """A clock of a loop whose time is made up."""

    def __init__(self, lag: float = 0.0) -> None:
        self.loop = FakeLoop(lag)
        self.order: list[object] = []
        super().__init__(self.loop)  # type: ignore[arg-type]

    def seconds(self) -> float:  # type: ignore[override]
        return self.loop.now

    def sleepers(self, *names: object) -> list[Woken]:
        """Sleepers that are all to be woken in a second."""
        made = [Woken(self, name) for name in names]
        for sleeper in made:
            sleeper.sleep()
        return made

    def wait(self) -> None:
        """Let all of them be woken; nothing of them is left then."""
        self.loop.advance(2.0)
        assert self.loop.timers == []
        assert self._slots == self._timers == {}


class TestSlots:
    @given(
        st.floats(-1000, 100_000),
        st.lists(st.tuples(st.sampled_from(list(Deadline)), st.floats(0, 10_000), st.floats(0, 100)), max_size=5),
        st.sampled_from([0.0, -0.002, 0.003]),
    )
    def test_no_deadline_is_early_nor_later_than_by_a_32nd(
        self, began: float, steps: list[tuple[Deadline, float, float]], lag: float
    ) -> None:
        """Among others of the same owner too, that are set and moved before and after it."""
        clock = TimedClock(lag)
        clock.loop.now = began
        deadlines = Deadlines(clock)
        due: dict[Deadline, tuple[float, float]] = {}
        expired: dict[Deadline, float] = {}
        for kind, seconds, wait in steps:
            due[kind] = (clock.loop.now + seconds, seconds)
            deadlines.set(kind, seconds, lambda kind=kind: expired.setdefault(kind, clock.loop.now))  # type: ignore[misc]
            expired.pop(kind, None)
            clock.loop.advance(wait)
        clock.loop.advance(20_000)
        assert expired.keys() == due.keys()
        for kind, (when, seconds) in due.items():
            assert when <= expired[kind] <= when + seconds / 32 + 0.002 + max(lag, 0)
        assert clock._slots == clock._timers == {}

    def test_those_of_about_the_same_time_share_a_timer(self) -> None:
        clock = TimedClock()
        sleepers = [Woken(clock) for _ in range(5000)]
        for sleeper in sleepers:
            sleeper.sleep(60.0)
            clock.loop.now += 0.01
            # Twice 32 times a 32nd, and one that has begun.
            assert len(clock.loop.timers) <= 65
        clock.loop.advance(100.0)
        assert all(len(sleeper.times) == 1 for sleeper in sleepers)
        assert clock.loop.timers == []

    def test_the_one_that_is_due_first_is_woken_first(self) -> None:
        clock = TimedClock()
        for seconds in (30, 1, 7, 3600, 0):
            Woken(clock, seconds).sleep(float(seconds))
        clock.loop.advance(4000.0)
        assert clock.order == [0, 1, 7, 30, 3600]

    @pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [2, 1], [0, 2], [1, 0, 2]])
    def test_one_that_is_let_sleep_is_not_woken_and_the_others_are(self, gone: list[int]) -> None:
        clock = TimedClock()
        sleepers = clock.sleepers(0, 1, 2)
        for number in gone:
            sleepers[number].stop()
            sleepers[number].stop()
        assert len(clock.loop.timers) == (len(gone) < 3)
        clock.wait()
        assert set(clock.order) == {0, 1, 2} - set(gone)

    def test_one_that_was_woken_can_be_let_sleep_and_woken_again(self) -> None:
        clock = TimedClock()
        sleeper = Woken(clock)
        for _ in range(3):
            sleeper.sleep()
            clock.wait()
            sleeper.stop()
        assert len(sleeper.times) == 3

    def test_thousands_that_came_and_went_leave_nothing(self) -> None:
        clock = TimedClock()
        for seconds in range(5000):
            sleeper = Woken(clock)
            sleeper.sleep(seconds / 10)
            sleeper.stop()
        assert clock.loop.timers == []
        assert clock._slots == clock._timers == {}

    @pytest.mark.parametrize("error", [ValueError, SystemExit])
    def test_one_that_fails_leaves_the_others_to_be_woken(self, error: type[BaseException]) -> None:
        clock = TimedClock()
        sleepers = clock.sleepers("before", "bug", "after")

        def fail() -> None:
            raise error

        sleepers[1].then = fail
        if error is SystemExit:
            with pytest.raises(SystemExit):
                clock.wait()
        clock.wait()
        assert sorted(map(str, clock.order)) == ["after", "before", "bug"]
        reported = [type(failure["exception"]) for failure in clock.loop.failures]
        assert reported == ([] if error is SystemExit else [ValueError])
        assert all("Woken.wake" in failure["message"] for failure in clock.loop.failures)

    def test_very_many_of_one_time_let_the_others_have_a_turn(self) -> None:
        clock = TimedClock()
        clock.sleepers(*range(1000))
        clock.loop.now += 1.1
        turns = 0
        while len(clock.order) < 1000:
            before = len(clock.order)
            assert clock.loop.turn()
            assert len(clock.order) - before <= 100
            turns += 1
        assert turns >= 10
        assert set(clock.order) == set(range(1000))
        clock.wait()

    @pytest.mark.parametrize("count", [3, 300])
    def test_one_may_let_others_of_its_time_sleep(self, count: int) -> None:
        """Also those that are left for a later turn."""
        clock = TimedClock()
        sleepers = clock.sleepers(*range(count))

        def stop() -> None:
            for each in sleepers:
                each.stop()

        for sleeper in sleepers:
            sleeper.then = stop
        clock.wait()
        assert len(clock.order) == 1

    def test_all_that_are_left_for_a_later_turn_may_be_let_sleep(self) -> None:
        clock = TimedClock()
        sleepers = clock.sleepers(*range(300))
        clock.loop.now += 1.1
        clock.loop.turn()
        for sleeper in sleepers:
            sleeper.stop()
        clock.wait()
        assert len(clock.order) == 100

    @pytest.mark.parametrize("exactly", [False, True])
    def test_one_may_wait_again_at_once(self, exactly: bool) -> None:
        """Even until the very time that has just come, which real clocks hardly ever show twice."""
        clock = TimedClock()
        [sleeper, other] = clock.sleepers("again", "other")

        def again() -> None:
            if exactly:
                clock.loop.now = 1001.0
            other.stop()
            if len(sleeper.times) < 500:
                sleeper.sleep(0.0)

        sleeper.then = other.then = again
        other.stop()
        clock.loop.advance(2.0)
        clock.wait()
        assert len(sleeper.times) == 500

    @pytest.mark.parametrize("ends", ["is woken", "is let sleep"])
    def test_one_that_sleeps_no_more_is_kept_by_nobody(self, ends: str) -> None:
        clock = TimedClock()
        [sleeper, _] = clock.sleepers("one", "other")
        if ends == "is let sleep":
            sleeper.stop()
        else:
            clock.wait()
        reference = weakref.ref(sleeper)
        gc.disable()
        try:
            del sleeper
            assert reference() is None
        finally:
            gc.enable()


def test_a_sleeper_is_woken_by_a_loop_and_not_before(loop: asyncio.AbstractEventLoop) -> None:
    clock = LoopClock(loop)

    class Done:
        def __init__(self, done: asyncio.Future[None]) -> None:
            self.done = done

        def wake(self) -> None:
            self.done.set_result(None)
            seen.append(variable.get())

    seen: list[str] = []

    def begin(done: asyncio.Future[None]) -> None:
        variable.set("inside")
        clock.wake_at(clock.seconds() + 0.05, Done(done))

    for _ in range(3):
        before = clock.seconds()
        run(loop, begin)
        assert clock.seconds() - before >= 0.05
    assert seen == ["outside"] * 3
