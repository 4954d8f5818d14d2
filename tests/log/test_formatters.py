from __future__ import annotations

import contextvars
import json
import logging
import sys
import uuid
from typing import Any

import pytest

from asgiserver.log.formatters import JSONFormatter, TextFormatter, iso_time, request_id

pytestmark = pytest.mark.usefixtures("berlin")

NOON = 1_751_371_200.25  # 2025-07-01 12:00:00.25 UTC


def record(message: str = "%s failed", *args: object, failed: bool = False, **extra: Any) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise ValueError("a\nb")
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("shop.cart", logging.ERROR, "cart.py", 7, message, args or ("It",), error)
    vars(made).update({"created": NOON, "process": 4711, **extra})
    return made


def text(made: logging.LogRecord, pattern: str = "%(asctime)-15s %(levelname)-8s %(message)s") -> str:
    return TextFormatter(pattern).format(made)


def values(made: logging.LogRecord) -> dict[str, Any]:
    line = JSONFormatter().format(made)
    assert line.isascii()
    assert line.isprintable()
    found: dict[str, Any] = json.loads(line)
    return found


def within(identity: str, function: Any, *args: Any) -> Any:
    """What ``function`` returns in the context of a request."""
    context = contextvars.copy_context()
    context.run(request_id.set, identity)
    return context.run(function, *args)


class TestText:
    def test_time_is_local_with_milliseconds_and_offset(self) -> None:
        assert iso_time(NOON) == "2025-07-01T14:00:00.250+02:00"
        assert text(record()) == "2025-07-01T14:00:00.250+02:00 ERROR    It failed"

    def test_the_id_of_a_request_stands_at_the_end_of_the_line_before_a_traceback(self) -> None:
        lines = text(record(request_id="9f-1", failed=True), "%(message)s").splitlines()
        assert lines[:2] == ["It failed [request 9f-1]", "Traceback (most recent call last):"]

    @pytest.mark.parametrize(("extra", "line"), [
        ({}, "It failed [request outer-1]"),
        ({"request_id": "9f-1"}, "It failed [request 9f-1]"),
        # The record of another request, of which no id is known.
        ({"request_id": None}, "It failed"),
    ])  # fmt: skip
    def test_what_the_record_says_wins_over_the_context(self, extra: dict[str, Any], line: str) -> None:
        assert within("outer-1", text, record(**extra), "%(message)s") == line

    @pytest.mark.parametrize(("extra", "line"), [({}, "It failed|-"), ({"request_id": "9f-1"}, "It failed|9f-1")])
    def test_a_pattern_may_name_it(self, extra: dict[str, Any], line: str) -> None:
        assert text(record(**extra), "%(message)s|%(request_id)s") == line


class TestJSON:
    PLAIN = {
        "time": "2025-07-01T14:00:00.250+02:00", "level": "ERROR", "logger": "shop.cart", "message": "It failed",
        "process": 4711,
    }

    def test_a_plain_record_has_no_empty_values(self) -> None:
        assert values(record()) == self.PLAIN

    def test_exception_and_stack_are_texts_in_the_same_line(self) -> None:
        found = values(record(failed=True, stack_info="Stack:\n  x"))
        assert found["exception"].startswith("Traceback (most recent call last):\n")
        assert found["exception"].endswith("ValueError: a\nb")
        assert found["stack"] == "Stack:\n  x"

    def test_the_request_of_the_record_or_of_the_context_is_named(self) -> None:
        assert values(record(request_id="9f-1"))["request_id"] == "9f-1"
        assert within("outer-1", values, record())["request_id"] == "outer-1"
        assert "request_id" not in within("outer-1", values, record(request_id=None))

    def test_an_id_of_the_applications_own_may_be_anything(self) -> None:
        assert values(record(request_id=uuid.UUID(int=5)))["request_id"] == "00000000-0000-0000-0000-000000000005"
        assert values(record(request_id=b"\xff1"))["request_id"] == "\\xff1"

    def test_a_worker_says_its_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(JSONFormatter, "worker", 0)
        assert values(record()) == {**self.PLAIN, "worker": 0}

    @pytest.mark.parametrize("message", ["a\nb", "\x1b[31m", "\x7f\x9b", '"\\', "\u2028\u202e", "\udc80"])
    def test_whatever_the_message_it_is_one_line_of_printable_ascii(self, message: str) -> None:
        assert values(record("%s", message))["message"] == message
