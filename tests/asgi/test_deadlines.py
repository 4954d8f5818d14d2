"""Deadlines: several of them, one wake-up, and nothing called too early, twice, or after the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.deadlines import LATENESS, Deadline, Deadlines
from tests.fakes import Clock

HEAD, BODY, CLOSE, PING = Deadline.HEAD, Deadline.BODY, Deadline.CLOSE, Deadline.PING


class Made:
    """Deadlines whose time is made up, and the names of those that have expired, in order."""

    def __init__(self, began: float = 0.0) -> None:
        self.clock = Clock()
        self.clock.rightNow = began
        self.deadlines = Deadlines(self.clock)
        self.expired: list[str] = []

    def set(
        self, kind: Deadline, seconds: float | None, name: str = "", then: Callable[[], Any] = lambda: None
    ) -> None:
        def expired() -> None:
            self.expired.append(name or kind.name)
            then()

        self.deadlines.set(kind, seconds, expired)

    @property
    def timers(self) -> list[Any]:
        return list(self.clock.getDelayedCalls())


@pytest.fixture
def made() -> Made:
    return Made()


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Deadline)), st.one_of(st.none(), st.integers(0, 5)), st.integers(0, 3)),
        max_size=20,
    ),
    st.sampled_from([0, 10**6, -(10**6)]),
)
def test_any_order_of_sets_and_waits_behaves_as_a_table_of_due_times(
    steps: list[tuple[Deadline, int | None, int]], now: int
) -> None:
    """Also where the zero of time is in the future."""
    made = Made(float(now))
    expired: list[tuple[Deadline, float]] = []
    due: dict[Deadline, int] = {}
    expected: list[tuple[Deadline, float]] = []
    for kind, seconds, wait in [*steps, (HEAD, None, 10)]:
        made.deadlines.set(kind, seconds, lambda kind=kind: expired.append((kind, made.clock.seconds())))  # type: ignore[misc]
        due.pop(kind, None)
        if seconds is not None:
            due[kind] = now + seconds
        made.clock.advance(0)
        for tick in range(wait + 1):
            made.clock.advance(1 if tick else 0)
            now += 1 if tick else 0
            expected += [(kind, float(now)) for kind, when in due.items() if when <= now]
            due = {kind: when for kind, when in due.items() if when > now}
        assert sorted(expired, key=repr) == sorted(expected, key=repr)
        assert {kind for kind in Deadline if made.deadlines.pending(kind)} == set(due)
    assert made.timers == []


def test_all_kinds_share_one_timer(made: Made) -> None:
    assert made.timers == []
    for seconds, kind in enumerate(Deadline, start=1):
        made.set(kind, float(seconds))
        assert len(made.timers) == 1
    made.clock.pump([1.0] * len(Deadline))
    assert made.expired == [kind.name for kind in Deadline]
    assert made.timers == []


def test_to_move_or_clear_a_deadline_touches_no_timer(made: Made) -> None:
    """As a connection does with each of its requests."""
    made.set(Deadline.KEEP_ALIVE, 10.0)
    [call] = made.timers
    for _ in range(100):
        made.clock.advance(0.01)
        made.deadlines.clear(HEAD, Deadline.KEEP_ALIVE)
        made.set(BODY, 20.0)
        made.deadlines.clear(BODY)
        made.set(Deadline.KEEP_ALIVE, 10.0)
        assert made.timers == [call]
        assert call.getTime() == 10.0
    assert len(list(made.deadlines._entries())) == 1
    made.clock.advance(9.5)
    assert made.expired == [], "the timer has woken it, and nothing was due"
    made.clock.advance(0.5)
    assert made.expired == ["KEEP_ALIVE"]


def test_a_clock_that_rounds_up_is_not_asked_again_for_less_than_it_rounds(made: Made) -> None:
    """Else each request in the first second after a wake-up would ask it."""
    rounded = made.clock.wake_at
    made.clock.wake_at = lambda due, sleeper: rounded(due + LATENESS * 10.0, sleeper)  # type: ignore[method-assign]
    made.set(HEAD, 10.0)
    [call] = made.timers
    made.clock.advance(0.1)
    made.deadlines.clear(HEAD)
    made.set(BODY, 10.0)
    assert made.timers == [call]
    made.set(PING, 5.0)
    assert made.timers != [call]


@pytest.mark.parametrize(("sets", "waits", "expired"), [
    pytest.param([(HEAD, 2.0, "")], [1.9], [], id="not before"),
    pytest.param([(HEAD, 2.0, "")], [1.9, 0.1, 9.0], ["HEAD"], id="once"),
    pytest.param([(HEAD, 0.0, "")], [0.0], ["HEAD"], id="zero"),
    pytest.param([(HEAD, None, "")], [10.0], [], id="none"),
    pytest.param([(HEAD, 1.0, ""), (HEAD, None, "")], [10.0], [], id="none clears"),
    pytest.param([(HEAD, 100.0, ""), (PING, 1.0, "")], [1.0, 99.0], ["PING", "HEAD"], id="nearer one"),
    pytest.param([(HEAD, 10.0, "far"), (HEAD, 1.0, "near")], [1.0, 100.0], ["near"], id="nearer again"),
    pytest.param([(PING, 9.0, ""), (BODY, 2.0, ""), (HEAD, 1.0, "")], [5.0, 4.0], ["HEAD", "BODY", "PING"],
                 id="several at once in the order of being due"),
])  # fmt: skip
def test_what_expires_and_when(
    made: Made, sets: list[tuple[Deadline, float | None, str]], waits: list[float], expired: list[str]
) -> None:
    for kind, seconds, name in sets:
        made.set(kind, seconds, name)
    assert made.expired == []
    made.clock.pump(waits)
    assert made.expired == expired


@pytest.mark.parametrize(("then", "waits", "expired", "left"), [
    pytest.param(lambda made: made.set(HEAD, 1.0), [1.0], ["HEAD", "BODY", "HEAD"], 1, id="set itself"),
    pytest.param(lambda made: made.set(HEAD, 0.0), [], ["HEAD", "BODY", "HEAD"], 1, id="set itself at once"),
    pytest.param(lambda made: made.set(CLOSE, 2.0), [2.0], ["HEAD", "BODY", "CLOSE"], 1, id="set a nearer"),
    pytest.param(lambda made: made.deadlines.clear(BODY), [], ["HEAD"], 1, id="clear one that is due"),
    pytest.param(lambda made: made.set(BODY, 1.0), [1.0], ["HEAD", "BODY"], 1, id="move one that is due"),
    pytest.param(lambda made: made.deadlines.stop(), [100.0], ["HEAD"], 0, id="stop them all"),
    pytest.param(lambda made: (made.deadlines.stop(), made.set(HEAD, 1.0)), [1.0], ["HEAD"] * 2, 0, id="stop, set"),
])  # fmt: skip
def test_what_an_expired_deadline_may_do(
    made: Made, then: Callable[[Made], object], waits: list[float], expired: list[str], left: int
) -> None:
    once = [then]
    made.set(HEAD, 1.0, then=lambda: once and once.pop()(made))
    made.set(BODY, 1.5)
    made.set(PING, 50.0)
    made.clock.pump([1.5, *waits])
    assert made.expired == expired
    assert sum(made.deadlines.pending(kind) for kind in Deadline) == left
    assert len(made.timers) == (left > 0)


def test_stopping_and_settling_leave_no_timer(made: Made) -> None:
    for _ in range(2):
        made.set(HEAD, 1.0)
        made.deadlines.settle()
        assert len(made.timers) == 1
        made.deadlines.clear(HEAD)
        assert len(made.timers) == 1
        made.deadlines.settle()
        assert made.timers == []
        made.set(HEAD, 1.0)
        made.deadlines.stop()
        made.deadlines.stop()
        assert made.timers == []
    made.clock.advance(10.0)
    assert made.expired == []
    made.set(HEAD, 1.0)
    made.clock.advance(1.0)
    assert made.expired == ["HEAD"]


def test_it_is_known_of_each_whether_it_is_set(made: Made) -> None:
    kinds = [Deadline.KEEP_ALIVE, Deadline.WRITE, Deadline.CLOSE]
    for kind in kinds:
        made.set(kind, 1.0)
    for number, kind in enumerate(kinds):
        assert [made.deadlines.pending(each) for each in kinds] == [False] * number + [True] * (3 - number)
        made.deadlines.clear(kind, HEAD)
    assert not any(map(made.deadlines.pending, kinds))


def test_a_callback_that_fails_takes_no_other_deadline_with_it(made: Made) -> None:
    made.set(HEAD, 1.0, then=lambda: 1 / 0)
    made.set(BODY, 1.5)
    made.set(PING, 2.5)
    with pytest.raises(ZeroDivisionError):
        made.clock.advance(1.5)
    made.clock.pump([0.0, 1.0])
    assert made.expired == ["HEAD", "BODY", "PING"]
