"""What the next signal means. No signal is sent here; ``tests/e2e/test_signals.py`` sends them all."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from asgiserver import signals as module
from asgiserver.signals import Asked, Signals, held, hold

TERM, INT, QUIT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP


class Left(Exception):
    """The process would have ended at once."""


class Process:
    """Signals of a process that serves, with a clock that is set, and without handlers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.acts: list[tuple[Asked, int]] = []
        self.threads: list[tuple[Any, tuple[Any, ...]]] = []
        self.takes_up = True
        self.signals = Signals(lambda: self.now)
        monkeypatch.setattr(self.signals, "_leave", self.leave)
        monkeypatch.setattr(module.signal, "signal", lambda number, handler: None)
        monkeypatch.setattr(module.signal, "set_wakeup_fd", lambda descriptor: -1)
        monkeypatch.setattr(module._thread, "start_new_thread", lambda *call: self.threads.append(call))
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)

    def serve(self) -> None:
        self.signals.serve(self.act, lambda: None)

    def act(self, asked: Asked, number: int) -> None:
        self.acts.append((asked, number))
        if self.takes_up and asked:
            self.signals.taken_up = asked

    def leave(self, number: int, frame: Any) -> None:
        raise Left(number)

    def signal(self, number: int, at: float) -> None:
        self.now = at
        self.signals.handle(number, None)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


class TestServing:
    @pytest.mark.parametrize(("sent", "acts"), [
        ([(TERM, 0)], [(Asked.STOP, TERM)]),
        ([(INT, 0), (TERM, 0.01)], [(Asked.STOP, INT)]),
        ([(INT, 0), (TERM, 0.5), (TERM, 0.99)], [(Asked.STOP, INT)]),
        ([(TERM, 0), (TERM, 1)], [(Asked.STOP, TERM), (Asked.END, TERM)]),
        ([(TERM, 0), (INT, 9)], [(Asked.STOP, TERM), (Asked.END, INT)]),
        ([(TERM, 0), (INT, 9), (TERM, 9.9)], [(Asked.STOP, TERM), (Asked.END, INT)]),
        ([(QUIT, 0)], [(Asked.QUICK_STOP, QUIT)]),
        ([(QUIT, 0), (QUIT, 0.9), (TERM, 0.9)], [(Asked.QUICK_STOP, QUIT)]),
        ([(QUIT, 0), (TERM, 1)], [(Asked.QUICK_STOP, QUIT), (Asked.END, TERM)]),
        ([(TERM, 0), (QUIT, 0.1)], [(Asked.STOP, TERM), (Asked.QUICK_STOP, QUIT)]),
        ([(TERM, 0), (QUIT, 5)], [(Asked.STOP, TERM), (Asked.QUICK_STOP, QUIT)]),
        ([(TERM, 0), (QUIT, 5), (TERM, 5.5)], [(Asked.STOP, TERM), (Asked.QUICK_STOP, QUIT)]),
        ([(HUP, 0), (TERM, 5)], [(Asked.NOTHING, HUP), (Asked.STOP, TERM)]),
        ([(TERM, 0), (HUP, 5)], [(Asked.STOP, TERM), (Asked.NOTHING, HUP)]),
    ])  # fmt: skip
    def test_what_is_asked_for(
        self, process: Process, sent: list[tuple[int, float]], acts: list[tuple[Asked, int]]
    ) -> None:
        process.serve()
        for number, at in sent:
            process.signal(number, at)
        assert process.acts == acts

    @pytest.mark.parametrize("number", [TERM, INT, QUIT])
    def test_a_loop_that_has_not_begun_the_first_is_not_asked_again(self, process: Process, number: int) -> None:
        process.takes_up = False
        process.serve()
        process.signal(TERM, 0)
        process.signal(TERM, 0.9)
        with pytest.raises(Left):
            process.signal(number, 1.0)

    def test_a_loop_that_does_not_begin_the_end_has_a_second(self, process: Process) -> None:
        """It was blocked between the two."""
        process.serve()
        process.signal(TERM, 0)
        process.takes_up = False
        process.signal(INT, 2)
        (function, arguments), = process.threads
        with pytest.raises(Left) as left:
            function(*arguments)
        assert left.value.args == (INT,)
        process.signals.taken_up = Asked.END
        function(*arguments)

    def test_an_end_that_hangs_is_ended(self, process: Process) -> None:
        process.serve()
        for at in (0, 2, 2.5):
            process.signal(TERM, at)
        with pytest.raises(Left):
            process.signal(TERM, 3)


class TestOtherMoments:
    def test_the_import_is_left(self, process: Process) -> None:
        with pytest.raises(SystemExit) as ended:
            process.signal(TERM, 0)
        assert ended.value.code == 0
        process.signal(TERM, 0.5)
        with pytest.raises(Left):
            process.signal(TERM, 1)

    def test_what_came_during_the_import_is_done_when_something_has_swallowed_it(self, process: Process) -> None:
        process.signal(HUP, 0)
        with pytest.raises(SystemExit):
            process.signal(INT, 0)
        process.serve()
        assert process.acts == [(Asked.NOTHING, HUP), (Asked.STOP, INT)]

    @pytest.mark.parametrize("before", [True, False])
    def test_at_exit_the_first_is_obeyed_already(self, process: Process, before: bool) -> None:
        process.serve()
        if before:
            process.signal(TERM, 0)
        process.signals.end()
        process.signal(HUP, 0.1)
        process.signal(TERM, 0.1)
        process.signal(INT, 0.9)
        with pytest.raises(Left):
            process.signal(TERM, 1.1)
        assert len(process.acts) == before


class TestHandlers:
    @pytest.fixture
    def handlers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Any]]:
        """Those of the process, as far as the module sees; SIGHUP is ignored, as under nohup."""
        handlers: dict[int, Any] = dict.fromkeys(signal.valid_signals(), signal.SIG_DFL)
        handlers |= {INT: signal.default_int_handler, HUP: signal.SIG_IGN}
        monkeypatch.setattr(module.signal, "signal", handlers.__setitem__)
        monkeypatch.setattr(module.signal, "getsignal", handlers.__getitem__)
        monkeypatch.setattr(module.signal, "set_wakeup_fd", lambda descriptor: handlers.update(wakeup=descriptor))
        yield handlers
        module._held = None

    def test_what_nobody_handles_is_taken_and_given_back(self, handlers: dict[int, Any]) -> None:
        before = dict(handlers)
        with held() as signals:
            assert signals is not None
            taken = {number for number, handler in handlers.items() if handler == signals.handle}
            assert taken == {TERM, INT, QUIT, signal.SIGUSR1, signal.SIGUSR2}
            with held() as again:
                assert again is signals
            assert handlers[TERM] == signals.handle
        assert handlers == before

    def test_stop_signals_are_taken_again_from_the_application_and_others_are_not(
        self, handlers: dict[int, Any]
    ) -> None:
        with held() as signals:
            assert signals is not None
            handlers |= {TERM: "theirs", signal.SIGUSR1: "theirs"}
            signals.serve(lambda *_: None, lambda: None)
            assert handlers[TERM] == signals.handle
        assert (handlers[TERM], handlers[signal.SIGUSR1]) == (signal.SIG_DFL, "theirs")

    def test_a_handler_that_was_not_pythons_becomes_the_default(self, handlers: dict[int, Any]) -> None:
        handlers[TERM] = None
        with held():
            pass
        assert handlers[TERM] is signal.SIG_DFL

    def test_a_child_has_none_of_it(self, handlers: dict[int, Any]) -> None:
        before = dict(handlers)
        hold().let_go()
        assert handlers == before | {"wakeup": -1}
        with held() as signals:
            assert signals is not None
