"""The two processes of Django's autoreloader, one of them made of fakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from django.utils import autoreload

from asgiserver.django import reloader


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(reloader, "_INTERVAL", 0)
    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
    os.environ.pop(reloader._FIRST, None)


class TestFirst:
    def test_tells_the_second_its_number(self) -> None:
        reloader.enter_first()
        assert os.environ[reloader._FIRST] == str(os.getpid())

    def test_gives_the_second_time_at_ctrl_c(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reloader, "_INTERRUPT_TIMEOUT", 0.01)
        reloader.enter_first()
        # Nothing happens at once, but whoever still waits then is interrupted.
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(20)

    def test_is_interrupted_at_once_by_the_second_ctrl_c(self) -> None:
        """The timer that the first has started rings for nobody by then."""
        program = (
            "import os, signal\nfrom asgiserver.django import reloader\n"
            "reloader._INTERRUPT_TIMEOUT = 60\nreloader.enter_first()\nsignal.raise_signal(signal.SIGINT)\n"
            "try:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stdout) == (0, "interrupted\n")

    def test_leaves_a_signal_that_is_ignored_ignored(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        reloader.enter_first()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


class TestSecond:
    def test_knows_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(autoreload.DJANGO_AUTORELOAD_ENV, raising=False)
        assert not reloader.in_second()
        monkeypatch.setenv(autoreload.DJANGO_AUTORELOAD_ENV, "true")
        assert reloader.in_second()

    def test_learns_that_the_first_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        os.environ[reloader._FIRST] = "7"
        parents = iter([7, 7, 7, 7, 1])
        monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))
        # It may be a zombie.
        monkeypatch.setattr(reloader, "_runs", lambda process: True)
        gone = threading.Event()
        reloader.watch_first(gone.set)
        assert gone.wait(20)
        assert next(parents, None) is None
        assert reloader._FIRST not in os.environ

    def test_learns_that_the_first_was_gone_before_it_came(self, monkeypatch: pytest.MonkeyPatch) -> None:
        finished = subprocess.Popen([sys.executable, "-c", ""])
        finished.wait()
        os.environ[reloader._FIRST] = str(finished.pid)
        gone = threading.Event()
        reloader.watch_first(gone.set)
        assert gone.wait(20)

    def test_does_not_mind_a_process_between_the_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        os.environ[reloader._FIRST] = "7"
        running = iter([True, True, False])
        monkeypatch.setattr(os, "getppid", lambda: 5)
        monkeypatch.setattr(reloader, "_runs", lambda process: next(running))
        gone = threading.Event()
        reloader.watch_first(gone.set)
        assert gone.wait(20)
        assert next(running, None) is None

    def test_finds_this_very_process_running(self) -> None:
        assert reloader._runs(os.getpid())
