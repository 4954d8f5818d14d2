"""Deadlines: several of them, one timer, and nothing called too early, twice, or after the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.deadlines import Deadline, Deadlines

from .fakes import Clock


class Expired(list[str]):
    """What has expired, in order."""

    def __call__(self, name: str) -> Callable[[], None]:
        return lambda: self.append(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deadlines(clock: Clock) -> Deadlines:
    return Deadlines(clock)


@pytest.fixture
def expired() -> Expired:
    return Expired()


def test_a_deadline_expires_when_it_is_due_and_not_before(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 2.0, expired("head"))
    clock.advance(1.9)
    assert expired == []
    clock.advance(0.1)
    assert expired == ["head"]


def test_a_deadline_expires_once(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 1.0, expired("head"))
    clock.pump([1.0, 1.0, 1.0])
    assert expired == ["head"]
    assert clock.getDelayedCalls() == []


def test_none_of_them_makes_a_timer() -> None:
    clock = Clock()
    Deadlines(clock)
    assert clock.getDelayedCalls() == []


def test_all_kinds_share_one_timer(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    for seconds, kind in enumerate(Deadline, start=1):
        deadlines.set(kind, float(seconds), expired(kind.name))
        assert len(clock.getDelayedCalls()) == 1
    clock.pump([1.0] * len(Deadline))
    assert expired == [kind.name for kind in Deadline]


def test_moving_a_deadline_away_costs_no_timer(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.BODY, 1.0, expired("early"))
    [call] = clock.getDelayedCalls()
    for _ in range(5):
        clock.advance(0.5 / 5)
        deadlines.set(Deadline.BODY, 1.0, expired("late"))
        assert clock.getDelayedCalls() == [call]
        assert call.getTime() == 1.0
    clock.advance(0.5)
    assert expired == [], "the timer fired, and found that nothing was due"
    clock.advance(0.5)
    assert expired == ["late"]


def test_a_nearer_deadline_moves_the_timer(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.LIFETIME, 100.0, expired("lifetime"))
    deadlines.set(Deadline.PING, 1.0, expired("ping"))
    clock.advance(1.0)
    assert expired == ["ping"]
    clock.advance(99.0)
    assert expired == ["ping", "lifetime"]


def test_setting_a_kind_again_nearer_moves_it(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.WRITE, 10.0, expired("far"))
    deadlines.set(Deadline.WRITE, 1.0, expired("near"))
    clock.advance(1.0)
    clock.advance(100.0)
    assert expired == ["near"]


def test_a_cleared_deadline_does_not_expire(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 1.0, expired("head"))
    deadlines.set(Deadline.BODY, 2.0, expired("body"))
    deadlines.clear(Deadline.HEAD)
    clock.pump([1.0, 1.0])
    assert expired == ["body"]


def test_clearing_what_was_not_set_changes_nothing(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.BODY, 1.0, expired("body"))
    deadlines.clear(Deadline.HEAD)
    clock.advance(1.0)
    assert expired == ["body"]


def test_setting_none_clears(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 1.0, expired("head"))
    deadlines.set(Deadline.HEAD, None, expired("never"))
    clock.advance(10.0)
    assert expired == []


def test_setting_none_first_makes_no_timer(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, None, expired("never"))
    assert clock.getDelayedCalls() == []


def test_zero_seconds_still_wait_for_the_loop(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.CLOSE, 0.0, expired("close"))
    assert expired == []
    clock.advance(0)
    assert expired == ["close"]


def test_all_that_are_due_expire_together(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 1.0, expired("head"))
    deadlines.set(Deadline.BODY, 2.0, expired("body"))
    deadlines.set(Deadline.PING, 9.0, expired("ping"))
    clock.advance(5.0)
    assert expired == ["head", "body"]
    clock.advance(4.0)
    assert expired == ["head", "body", "ping"]


def test_an_expired_deadline_may_set_itself_again(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    def ping() -> None:
        expired.append("ping")
        deadlines.set(Deadline.PING, 1.0, ping)

    deadlines.set(Deadline.PING, 1.0, ping)
    clock.pump([1.0, 1.0, 1.0])
    assert expired == ["ping"] * 3
    assert len(clock.getDelayedCalls()) == 1


def test_an_expired_deadline_may_set_a_nearer_one_than_what_is_left(
    clock: Clock, deadlines: Deadlines, expired: Expired
) -> None:
    deadlines.set(Deadline.LIFETIME, 50.0, expired("lifetime"))
    deadlines.set(Deadline.PING, 1.0, lambda: deadlines.set(Deadline.PONG, 2.0, expired("pong")))
    clock.pump([1.0, 2.0])
    assert expired == ["pong"]
    clock.advance(47.0)
    assert expired == ["pong", "lifetime"]


def test_an_expired_deadline_may_clear_one_that_is_due_too(
    clock: Clock, deadlines: Deadlines, expired: Expired
) -> None:
    deadlines.set(Deadline.HEAD, 1.0, lambda: deadlines.clear(Deadline.BODY))
    deadlines.set(Deadline.BODY, 1.0, expired("body"))
    clock.advance(1.0)
    assert expired == []


def test_an_expired_deadline_may_move_one_that_is_due_too(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 1.0, lambda: deadlines.set(Deadline.BODY, 1.0, expired("later")))
    deadlines.set(Deadline.BODY, 1.0, expired("body"))
    clock.advance(1.0)
    assert expired == []
    clock.advance(1.0)
    assert expired == ["later"]


def test_an_expired_deadline_may_stop_them_all(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 1.0, deadlines.stop)
    deadlines.set(Deadline.BODY, 1.0, expired("body"))
    deadlines.set(Deadline.PING, 5.0, expired("ping"))
    clock.pump([1.0, 10.0])
    assert expired == []
    assert clock.getDelayedCalls() == []


def test_stopping_leaves_no_timer(clock: Clock, deadlines: Deadlines, expired: Expired) -> None:
    deadlines.set(Deadline.HEAD, 1.0, expired("head"))
    deadlines.stop()
    deadlines.stop()
    assert clock.getDelayedCalls() == []
    clock.advance(10.0)
    assert expired == []


def test_it_is_known_of_each_whether_it_is_set(deadlines: Deadlines, expired: Expired) -> None:
    assert deadlines.first is None
    kinds = [Deadline.KEEP_ALIVE, Deadline.WRITE, Deadline.CLOSE]
    for kind in kinds:
        deadlines.set(kind, 1.0, expired(kind.name))
    assert deadlines.first is Deadline.KEEP_ALIVE
    for number, kind in enumerate(kinds):
        assert [deadlines.pending(each) for each in kinds] == [False] * number + [True] * (3 - number)
        deadlines.clear(kind)
    assert deadlines.first is None


def test_what_is_cleared_leaves_those_after_it_as_they_were(
    clock: Clock, deadlines: Deadlines, expired: Expired
) -> None:
    for seconds, kind in ((3.0, Deadline.KEEP_ALIVE), (1.0, Deadline.WRITE), (2.0, Deadline.CLOSE)):
        deadlines.set(kind, seconds, expired(kind.name))
    deadlines.clear(Deadline.KEEP_ALIVE)
    deadlines.set(Deadline.KEEP_ALIVE, 4.0, expired("again"))
    clock.pump([1.0] * 4)
    assert expired == ["WRITE", "CLOSE", "again"]


def test_settling_leaves_what_is_due_and_otherwise_nothing(
    clock: Clock, deadlines: Deadlines, expired: Expired
) -> None:
    deadlines.set(Deadline.HEAD, 1.0, expired("head"))
    deadlines.settle()
    assert len(clock.getDelayedCalls()) == 1
    deadlines.clear(Deadline.HEAD)
    assert len(clock.getDelayedCalls()) == 1
    deadlines.settle()
    assert clock.getDelayedCalls() == []
    deadlines.set(Deadline.HEAD, 1.0, expired("head"))
    clock.advance(1.0)
    assert expired == ["head"]


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Deadline)), st.one_of(st.none(), st.integers(0, 5)), st.integers(0, 3)),
        max_size=20,
    )
)
def test_any_order_of_sets_and_waits_behaves_as_a_table_of_due_times(
    steps: list[tuple[Deadline, int | None, int]],
) -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    expired: list[tuple[Deadline, float]] = []
    due: dict[Deadline, int] = {}
    expected: list[tuple[Deadline, float]] = []
    now = 0
    for kind, seconds, wait in [*steps, (Deadline.HEAD, None, 10)]:
        deadlines.set(kind, seconds, lambda kind=kind: expired.append((kind, clock.seconds())))  # type: ignore[misc]
        due.pop(kind, None)
        if seconds is not None:
            due[kind] = now + seconds
        clock.advance(0)
        for tick in range(wait + 1):
            clock.advance(1 if tick else 0)
            now += 1 if tick else 0
            expected += [(kind, float(now)) for kind, when in due.items() if when <= now]
            due = {kind: when for kind, when in due.items() if when > now}
        assert sorted(expired, key=repr) == sorted(expected, key=repr)
        assert {kind for kind in Deadline if deadlines.pending(kind)} == set(due)
    assert clock.getDelayedCalls() == []


def test_a_callback_that_fails_takes_no_other_deadline_with_it(
    clock: Clock, deadlines: Deadlines, expired: Expired
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    deadlines.set(Deadline.HEAD, 1.0, fail)
    deadlines.set(Deadline.BODY, 2.0, expired("body"))
    with pytest.raises(RuntimeError, match="a bug"):
        clock.advance(1.0)
    clock.advance(1.0)
    assert expired == ["body"]
