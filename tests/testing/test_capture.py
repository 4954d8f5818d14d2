from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextvars import Context

import pytest

from asgiserver.testing.capture import Capture

SERVER = logging.getLogger("asgiserver")
ACCESS = logging.getLogger("asgiserver.access")


class Kept(logging.Handler):
    """The host's own handler."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def host() -> Iterator[list[str]]:
    """What the host's handler gets of the server's log."""
    handler = Kept()
    SERVER.addHandler(handler)
    yield handler.lines
    SERVER.removeHandler(handler)


class TestCapture:
    def test_it_keeps_what_is_logged_in_its_context(self, host: list[str]) -> None:
        capture = Capture()
        with capture.open():
            capture.context().run(SERVER.info, "Listening on %s", "here")
            SERVER.info("somebody else's")
        assert capture.text == "INFO asgiserver: Listening on here\n"

    def test_two_are_kept_apart(self) -> None:
        one, two = Capture(), Capture()
        with one.open(), two.open():
            one.context().run(ACCESS.info, "one")
            two.context(Context()).run(ACCESS.info, "two")
        assert one.text == "INFO asgiserver.access: one\n"
        assert two.text == "INFO asgiserver.access: two\n"

    def test_a_traceback_is_part_of_it(self) -> None:
        capture = Capture()
        with capture.open():
            capture.context().run(SERVER.error, "failed", exc_info=ZeroDivisionError("why"))
        assert capture.text.endswith("ZeroDivisionError: why\n")

    def test_the_host_hears_what_it_heard_before_and_no_more(self, host: list[str]) -> None:
        capture = Capture()
        with capture.open():
            for logger in (SERVER, ACCESS):
                capture.context().run(logger.info, "quiet")
                capture.context().run(logger.warning, "loud")
        assert host == ["loud", "loud"]
        assert capture.text.count("quiet") == 2

    @pytest.mark.parametrize("logger", [logging.getLogger(), SERVER, ACCESS], ids=lambda logger: logger.name)
    def test_a_level_that_the_host_has_set_counts(self, host: list[str], logger: logging.Logger) -> None:
        capture, level = Capture(), logger.level
        logger.setLevel(logging.INFO)
        try:
            with capture.open():
                ACCESS.info("a request")
        finally:
            logger.setLevel(level)
        assert host == ["a request"]

    def test_a_higher_level_of_the_hosts_counts_for_the_host_alone(self, host: list[str]) -> None:
        ACCESS.setLevel(logging.ERROR)
        capture = Capture()
        try:
            with capture.open():
                capture.context().run(ACCESS.warning, "a request")
            assert ACCESS.level == logging.ERROR
        finally:
            ACCESS.setLevel(logging.NOTSET)
        assert (host, capture.text) == ([], "WARNING asgiserver.access: a request\n")

    def test_the_last_to_close_leaves_the_loggers_as_they_were(self) -> None:
        before = [(logger.level, logger.filters[:]) for logger in (SERVER, ACCESS)]
        with Capture().open():
            with Capture().open():
                pass
            assert SERVER.isEnabledFor(logging.INFO)
        assert [(logger.level, logger.filters) for logger in (SERVER, ACCESS)] == before

    def test_a_level_set_meanwhile_stays(self) -> None:
        with Capture().open():
            SERVER.setLevel(logging.ERROR)
        try:
            assert SERVER.level == logging.ERROR
        finally:
            SERVER.setLevel(logging.NOTSET)

    def test_a_record_that_cannot_be_formatted_is_kept_as_it_is(self) -> None:
        capture = Capture()
        with capture.open():
            capture.context().run(SERVER.info, "%d", "x")
        assert capture.text.startswith("INFO asgiserver: '%d' (")

    def test_its_beginning_is_lost_when_it_gets_too_long(self) -> None:
        capture = Capture()
        for number in range(10_001):
            capture.keep(logging.LogRecord("asgiserver", logging.INFO, "", 0, f"line {number}", None, None))
        lines = capture.text.splitlines()
        assert (len(lines), lines[0]) == (10_000, "INFO asgiserver: line 1")

    def test_an_exception_is_kept_once_and_not_too_many(self) -> None:
        capture, error = Capture(), ValueError()
        for each in (error, error, *(ValueError() for _ in range(200))):
            capture.failed(each)
        assert capture.exceptions[0] is error
        assert len(capture.exceptions) == len(set(map(id, capture.exceptions))) == 100

    def test_it_knows_whether_it_is_called_by_its_server(self) -> None:
        one, two = Capture(), Capture()
        assert one.context().run(one.is_here)
        assert not two.context().run(one.is_here)
        assert not one.is_here()

    def test_its_context_takes_no_part_of_another_thread(self) -> None:
        capture, seen = Capture(), list[bool]()
        thread = threading.Thread(target=lambda: seen.append(capture.is_here()))
        capture.context().run(thread.start)
        thread.join()
        assert seen == [False]
