"""The lines of the server's log, as text and as JSON; each of a request has its id."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import datetime
from typing import Any

__all__ = ["JSONFormatter", "TextFormatter", "iso_time", "json_line", "request_id"]

#: The id of the request in whose context something runs, so that what its application logs has it too.
request_id: ContextVar[str | None] = ContextVar("asgiserver.request_id", default=None)


def iso_time(seconds: float) -> str:
    """Seconds since the epoch in local time (ISO 8601), with milliseconds and offset."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")


def json_line(values: dict[str, Any]) -> str:
    """``values`` as JSON on one line, in printable ASCII; bytes are read as UTF-8, and JSON has all else as text."""
    line = json.dumps(values, separators=(",", ":"), default=_text)
    # json.dumps() does not escape DEL.
    return line.replace("\x7f", "\\u007f")


def _text(value: object) -> str:
    return str(value, "utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _request_of(record: logging.LogRecord) -> str | None:
    """The id that the record was given, None among them, else that of the request that runs."""
    return vars(record).get("request_id", request_id.get())


class TextFormatter(logging.Formatter):
    """A line of text, with ``[request ID]`` at its end where there is an id and the pattern does not name it.

    :param pattern: a %-format of a record's attributes; ``%(request_id)s`` is one of them, ``-`` for none.
    """

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern)
        self._pattern = pattern
        self._names_request = "%(request_id)" in pattern

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        known = _request_of(record)
        if self._names_request:
            return self._pattern % {**vars(record), "request_id": known or "-"}
        line = super().formatMessage(record)
        return line if known is None else f"{line} [request {known}]"

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return iso_time(record.created)


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, process; where there is one, worker, request_id, exception.

    :cvar worker: the number of this process among the workers, None when it is none of them.
    """

    worker: int | None = None

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": iso_time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "worker": self.worker,
            "request_id": _request_of(record),
            "exception": self.formatException(record.exc_info) if record.exc_info else record.exc_text,
            "stack": record.stack_info,
        }
        return json_line({name: value for name, value in values.items() if value is not None})
