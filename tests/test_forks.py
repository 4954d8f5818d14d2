"""What is let go of in a forked process; ``tests/e2e/test_forks.py`` forks some."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from asgiserver import forks


class Holder:
    def __init__(self, done: list[Any], failure: Exception | None = None) -> None:
        self.done = done
        self.failure = failure

    def let_go(self) -> None:
        self.done.append(self)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was registered, as a child that has nothing yet to let go of."""
    registered: dict[str, Any] = {}
    monkeypatch.setattr(forks, "_registered", False)
    monkeypatch.setattr(forks, "_holders", type(forks._holders)())
    monkeypatch.setattr(os, "register_at_fork", registered.update)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda how, mask: registered.setdefault("masks", []).append(how))
    return registered


def test_holders_let_go_once_with_signals_blocked(hooks: dict[str, Any]) -> None:
    done: list[Any] = []
    one, two = Holder(done), Holder(done)
    for each in (one, two, one):
        forks.let_go_in_children(each)
    hooks["before"]()
    assert hooks["masks"] == [signal.SIG_BLOCK]
    hooks["after_in_child"]()
    assert set(done) == {one, two}
    assert hooks["masks"] == [signal.SIG_BLOCK, signal.SIG_SETMASK]
    hooks["after_in_child"]()
    assert len(done) == 2


def test_the_parent_lets_go_of_nothing(hooks: dict[str, Any]) -> None:
    done: list[Any] = []
    holder = Holder(done)
    forks.let_go_in_children(holder)
    hooks["before"]()
    hooks["after_in_parent"]()
    assert (done, hooks["masks"]) == ([], [signal.SIG_BLOCK, signal.SIG_SETMASK])


def test_a_holder_that_is_gone_is_not_asked(hooks: dict[str, Any]) -> None:
    done: list[Any] = []
    forks.let_go_in_children(Holder(done))
    hooks["before"]()
    hooks["after_in_child"]()
    assert done == []


def test_signals_come_again_when_a_holder_fails(hooks: dict[str, Any]) -> None:
    holder = Holder([], OSError())
    forks.let_go_in_children(holder)
    hooks["before"]()
    with pytest.raises(OSError):
        hooks["after_in_child"]()
    assert hooks["masks"][-1] == signal.SIG_SETMASK
