"""Whether a slow peer takes what it is sent."""

from __future__ import annotations

import pytest

from asgiserver.wire.progress import WINDOW, Progress

NOTHING = "took nothing for 60 seconds"
TOO_LITTLE = "took less than 240 bytes a second"


def faults(
    *taken: int, every: float = 10, timeout: float | None = 60, rate: int | None = 240, pending: int = 10_000_000
) -> list[str | None]:
    """What is said of a peer that takes so many bytes before each look."""
    progress = Progress(100.0, pending)
    said = []
    for at, size in enumerate(taken, 1):
        pending -= size
        said.append(progress.fault(100.0 + at * every, pending, timeout, rate))
    return said


@pytest.mark.parametrize(("taken", "last"), [
    ((2400,), None),
    ((2399,), TOO_LITTLE),
    ((64,), TOO_LITTLE),
    ((10_000, 10_000), None),
    # On the average: what was taken before counts.
    ((100_000, 1, 1, 1), None),
    # A peer with large buffers tells of room in steps that are longer than a window.
    ((0, 0, 0, 0, 375_000), None),
    ((0, 0, 0, 0, 11_999), TOO_LITTLE),
    ((0, 0, 0, 0, 0), None),
    ((0, 0, 0, 0, 0, 0), NOTHING),
    ((100_000, 0, 0, 0, 0, 0, 0), NOTHING),
    # What was added meanwhile is no fault of the peer's.
    ((5000, -60_000, 5000), None),
])  # fmt: skip
def test_a_peer_has_to_take_something_and_enough(taken: tuple[int, ...], last: str | None) -> None:
    assert faults(*taken) == [None] * (len(taken) - 1) + [last]


def test_a_rate_is_not_judged_before_its_window_is_over() -> None:
    assert faults(1, 1, every=4.9) == [None, None]
    assert faults(1, 1, every=5) == [None, TOO_LITTLE]


def test_either_can_be_off() -> None:
    assert faults(0, 0, timeout=None, every=1000) == [None, None]
    assert faults(1, 1, rate=None, every=59) == [None, None]
    assert faults(0, timeout=2.5, rate=None) == ["took nothing for 2.5 seconds"]


@pytest.mark.parametrize(
    ("timeout", "rate", "seconds"),
    [(60, 240, WINDOW), (3, 240, 1.0), (60, None, 58.0), (None, 240, WINDOW), (None, None, None), (1, 1, 0.0)],
)
def test_it_is_looked_at_when_something_may_be_due(
    timeout: float | None, rate: int | None, seconds: float | None
) -> None:
    assert Progress(100.0, 5).next_look(102.0, timeout, rate) == seconds
