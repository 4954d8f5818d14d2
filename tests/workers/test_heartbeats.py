"""Which workers are found to be silent, at a time of the tests' own."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgiserver.workers.heartbeats import Heartbeats
from asgiserver.workers.states import Generation, Worker, WorkerState


class Watched:
    """One worker, which beats when a test says so."""

    def __init__(self, limit: float | None = 40.0) -> None:
        self.now = self.beat = 1000.0
        self.said: list[str] = []
        self.worker = Worker(7, Generation(1, None), None)
        self.worker.state = WorkerState.SERVING
        self.heartbeats = Heartbeats(
            limit, self.now, lambda _: self.said.append("dump"), lambda _, text: self.said.append(text)
        )

    def silence(self, now: float) -> float:
        """As a slot's."""
        return now - self.beat

    def wait(self, seconds: float) -> list[str]:
        """Look whenever it is time to, and give what was said."""
        end, self.said = self.now + seconds, []
        while self.heartbeats.due <= end:
            self.now = self.heartbeats.due
            self.look()
        return self.said

    def look(self) -> None:
        slot: Any = self
        self.heartbeats.look([(self.worker, slot)], self.now)


@pytest.mark.parametrize(("limit", "every"), [(None, 1.0), (60.0, 1.0), (2.0, 0.5)])
def test_a_short_limit_needs_more_looks(limit: float | None, every: float) -> None:
    watched = Watched(limit)
    assert (watched.heartbeats.every, watched.heartbeats.due) == (every, 1000.0 + every)


def test_one_that_is_blocked_is_told_of_once_and_ended_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with caplog.at_level(logging.WARNING):
        assert watched.wait(3) == []
        assert watched.wait(36) == ["dump"]
    assert caplog.messages == ["The event loop of worker 7 is blocked for 4.0 s"]
    assert watched.wait(1) == ["40.0 s"]


def test_one_that_comes_round_and_is_blocked_again_is_told_of_again() -> None:
    watched = Watched()
    assert watched.wait(5) == ["dump"]
    watched.beat = watched.now
    assert watched.wait(3) == []
    assert watched.wait(3) == ["dump"]


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.ENDING])
def test_one_that_starts_or_ends_may_be_silent(state: WorkerState) -> None:
    watched = Watched()
    watched.worker.state = state
    assert watched.wait(100) == []


def test_without_a_limit_all_may() -> None:
    assert Watched(None).wait(100) == []


def test_nobody_is_to_blame_when_this_process_was_stopped_too() -> None:
    watched = Watched()
    watched.now += 1000
    watched.look()
    assert watched.wait(3) == []
    # It is, once it stays silent.
    assert watched.wait(40) == ["dump", "40.0 s", *(f"{more}.0 s" for more in (41, 42, 43))]
