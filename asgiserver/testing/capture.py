"""The log of one server under test, kept apart from the rest of the process.

The server's loggers belong to the whole process, and several servers may be tested in it at once. A record belongs to
the server in whose :mod:`contextvars` context it is made: the server's callbacks and the applications' tasks all run in
copies of it. While a capture is open, the server's loggers log from INFO on; a record that would not have been made
without the capture reaches no handler, so that the host's log stays as it was.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context

from ..log.access import ACCESS

__all__ = ["Capture"]

#: Lines kept for each server; beyond that the oldest go.
_MOST_LINES = 10_000

#: Exceptions kept for each server; later ones are only logged.
_MOST_EXCEPTIONS = 100

_LOGGERS = ("asgiserver", ACCESS, "asgiserver.wire")

_here: ContextVar[Capture | None] = ContextVar("asgiserver_capture", default=None)


class Capture:
    """The log and the failures of one server.

    :ivar exceptions: what the application raised, oldest first, at most a hundred.
    """

    def __init__(self) -> None:
        self.exceptions: list[BaseException] = []
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._formatter = logging.Formatter("%(levelname)s %(name)s: %(message)s")

    @property
    def text(self) -> str:
        """The log so far, a line or a traceback after another; its beginning is lost when it gets too long."""
        return "".join([line + "\n" for line in list(self._lines)])

    def context(self, parent: Context | None = None) -> Context:
        """A copy of ``parent``, by default of the current context, in which all that is logged is captured."""
        copied = copy_context() if parent is None else parent.copy()
        copied.run(_here.set, self)
        return copied

    def is_here(self) -> bool:
        """Whether the caller runs in this server's context: the server itself, or its application."""
        return _here.get() is self

    def keep(self, record: logging.LogRecord) -> None:
        """Add a record to the log."""
        try:
            self._lines.append(self._formatter.format(record))
        except Exception as error:  # noqa: BLE001 - the handlers, if there are any, report a wrong format
            self._lines.append(f"{record.levelname} {record.name}: {record.msg!r} ({error})")

    def failed(self, error: BaseException) -> None:
        """Add an exception of the application, once."""
        known = any(each is error for each in self.exceptions)
        if not known and len(self.exceptions) < _MOST_EXCEPTIONS:
            self.exceptions.append(error)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have the server's loggers hand over their records during the block."""
        _tap.open()
        try:
            yield
        finally:
            _tap.close()


class _Tap(logging.Filter):
    """Sits on the server's loggers as long as any capture is open."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._open = 0
        self._levels: dict[str, int] = {}

    def open(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._each(self._attach)

    def close(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._each(self._detach)

    def filter(self, record: logging.LogRecord) -> bool:
        capture = _here.get()
        if capture is not None:
            capture.keep(record)
        # The level from which on the record would have been made without a capture.
        levels = self._levels
        return record.levelno >= (levels.get(record.name) or levels.get("asgiserver") or logging.getLogger().level)

    def _each(self, change: Callable[[logging.Logger], None]) -> None:
        for name in _LOGGERS:
            change(logging.getLogger(name))

    def _attach(self, logger: logging.Logger) -> None:
        self._levels[logger.name] = logger.level
        if logger.level > logging.INFO or logger.name == "asgiserver" and not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)
        logger.addFilter(self)

    def _detach(self, logger: logging.Logger) -> None:
        logger.removeFilter(self)
        level = self._levels.pop(logger.name)
        # Unless another level was set meanwhile.
        if logger.level == logging.INFO:
            logger.setLevel(level)


_tap = _Tap()
