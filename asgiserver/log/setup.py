"""Logging: where the server's lines and the access log go, and Twisted's log bridged to :mod:`logging`.

The loggers are ``asgiserver`` (life cycle, failures), ``asgiserver.access`` and ``asgiserver.wire`` (debugging). Only
:func:`configure` and :func:`bridge_twisted` touch anything global; the command line calls them, a host that embeds the
server has its own logging and calls neither.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import sys
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast
from weakref import WeakSet

from ..errors import SettingsError
from ..settings import Settings
from .access import ACCESS, FORMATS, AccessLog, ActionLogger, chosen_format
from .formatters import JSONFormatter, TextFormatter

if TYPE_CHECKING:
    # A process that has a log need not have Twisted.
    from twisted.logger import ILogObserver, LogBeginner, LogEvent

__all__ = [
    "ACCESS", "AccessHandler", "AccessLog", "ActionLogger", "bridge_twisted", "configure", "configure_for_script",
    "enable", "on_terminal", "reopen",
]  # fmt: skip


class _ServerLog(logging.StreamHandler[IO[str]]):
    """The handler of the root logger."""

    def alone(self, record: logging.LogRecord) -> bool:
        """A filter: whether no handler below the root writes the record to the same stream.

        Django's own configuration has such a handler while ``DEBUG`` is set, and each traceback would be seen twice.
        """
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None and logger.parent is not None:
            for other in logger.handlers:
                writes_there = isinstance(other, logging.StreamHandler) and other.stream is self.stream
                if writes_there and record.levelno >= other.level and other.filter(record):
                    return False
            logger = logger.parent
        return True


class AccessHandler(logging.Handler):
    """Reports a full disk, or a reader that has left, by a line a minute instead of a traceback for each request."""

    _complained_at = -60.0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif time.monotonic() - self._complained_at >= 60:
            self._complained_at = time.monotonic()
            logging.getLogger("asgiserver").error("Lines of the access log are lost: %s", error.strerror or error)


class _AccessStream(AccessHandler, logging.StreamHandler[IO[str]]):
    """The access log on standard output."""


class _LevelFormatter(TextFormatter):
    """Shows the level in its colour."""

    COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}

    def __init__(self, pattern: str) -> None:
        # Around the field, as codes within it would count for its width.
        super().__init__(re.sub(r"%\(levelname\)-?\d*s", r"%(colour)s\g<0>%(uncolour)s", pattern))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        colour = self.COLOURS.get(record.levelno, "")
        coloured = copy.copy(record)
        vars(coloured).update(colour=colour, uncolour=colour and "\x1b[0m")
        return super().formatMessage(coloured)


class _ColourFormatter(logging.Formatter):
    """Shows a line in the colour of its status; what went well has none."""

    COLOURS = {3: "36", 4: "33", 5: "31"}

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        colour = self.COLOURS.get((getattr(record, "status", None) or 0) // 100)
        return line if colour is None else f"\x1b[{colour}m{line}\x1b[0m"


def configure(settings: Settings) -> None:
    """Set logging up as the command line's settings say. May be called again: then its handlers are replaced.

    With ``log_config``, that file decides all, and only an ``access_log`` that was given is added. Otherwise the
    root logger gets the level of ``verbosity`` and writes ``log_fmt``, or JSON and then Python's warnings too, to
    standard error, unless it has handlers already (the application's own configuration), and ``asgiserver.access``
    writes plain lines to ``access_log``, or from verbosity 1 on to standard output, unless it has handlers already.

    :raises SettingsError: an unreadable or wrong ``log_config``, a wrong ``log_fmt``, an ``access_log`` that cannot be
        opened.
    """
    _undo(logging.getLogger())
    _undo(logging.getLogger(ACCESS))
    logging.captureWarnings(settings.log_format == "json")
    if settings.log_config is not None:
        _load(settings.log_config)
    else:
        _configure_server(settings)
    if settings.access_log is not None or settings.log_config is None:
        _configure_access(settings)


def configure_for_script(settings: Settings) -> None:
    """Do as the command line for a program of somebody's own that runs on a terminal and has no logging."""
    loggers = logging.getLogger(), logging.getLogger("asgiserver"), logging.getLogger(ACCESS)
    if not any(logger.handlers for logger in loggers) and on_terminal():
        configure(settings)


def on_terminal() -> bool:
    """Whether somebody reads the server's log as it is written."""
    return sys.stderr is not None and sys.stderr.isatty()


def enable() -> None:
    """Let the server's loggers speak again after an application has configured logging.

    ``dictConfig`` disables every logger it does not name unless it is told not to, and then not even the traceback of
    a 500 would be seen.
    """
    for name in [*logging.Logger.manager.loggerDict]:
        if name == "asgiserver" or name.startswith("asgiserver."):
            logging.getLogger(name).disabled = False


def reopen() -> None:
    """Open the files of all handlers anew, after another program has moved them away."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in [*logging.Logger.manager.loggerDict])]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    for handler in handlers:
        if isinstance(handler, logging.FileHandler):
            # A handler with a delay has not opened its file yet.
            handler.acquire()
            try:
                if handler.stream is not None:
                    stream, handler.stream = handler.stream, handler._open()
                    stream.close()
            finally:
                handler.release()


def _undo(logger: logging.Logger) -> None:
    for handler in logger.handlers[:]:
        if isinstance(handler, _ServerLog | AccessHandler):
            logger.removeHandler(handler)
            handler.close()
            logger.propagate = True


def _configure_server(settings: Settings) -> None:
    level = _VERBOSITIES.get(settings.verbosity, logging.DEBUG)
    logging.getLogger("asgiserver").setLevel(level)
    root = logging.getLogger()
    if not root.handlers:
        handler = _ServerLog(sys.stderr)
        if settings.log_format == "json":
            handler.setFormatter(JSONFormatter())
        else:
            kind = _LevelFormatter if _shows_colours(sys.stderr) else TextFormatter
            handler.setFormatter(_formatter(settings.log_fmt, kind))
            handler.addFilter(handler.alone)
        root.addHandler(handler)
        root.setLevel(level)


_VERBOSITIES = {-2: logging.CRITICAL, -1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}


def _formatter(pattern: str, kind: type[TextFormatter]) -> logging.Formatter:
    try:
        formatter = kind(pattern)
        # A wrong name or conversion would be noticed only at the first line.
        formatter.format(logging.makeLogRecord({"msg": "", "name": "asgiserver", "levelno": 20, "levelname": "INFO"}))
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(f"log_fmt: {pattern!r}: {error}") from None
    return formatter


def _configure_access(settings: Settings) -> None:
    logger = logging.getLogger(ACCESS)
    # There is no sys.stdout in a process that was started with it closed.
    nowhere = settings.access_log in (None, "-") and sys.stdout is None
    if nowhere or settings.access_log == "" or (settings.access_log is None and settings.verbosity < 1):
        logger.setLevel(logging.WARNING)
        return
    logger.setLevel(logging.INFO)
    if settings.access_log is None and logger.handlers:
        return
    logger.addHandler(_access_handler(settings))
    logger.propagate = False


def _access_handler(settings: Settings) -> logging.Handler:
    path = settings.access_log
    handler: logging.Handler
    if path is None or path == "-":
        handler = _AccessStream(sys.stdout)
        if chosen_format(settings) in FORMATS and _shows_colours(sys.stdout):
            handler.setFormatter(_ColourFormatter())
        return handler
    from .access_file import AccessFile

    try:
        # Each record is flushed, so a line is never seen in part.
        return AccessFile(path, "a", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"access_log: cannot write to {path!r}: {error.strerror}") from None


def _shows_colours(stream: IO[str]) -> bool:
    """True for a terminal, unless the environment asks for no colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _load(path: str) -> None:
    """Apply a dictConfig; ``version`` and ``disable_existing_loggers`` may be left out and are then 1 and false."""
    import configparser
    import logging.config

    try:
        config = _parse(Path(path))
        if isinstance(config, configparser.RawConfigParser):
            logging.config.fileConfig(config, disable_existing_loggers=False)
            return
        if not isinstance(config, dict):
            raise ValueError("expected an object of settings")
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **config})
    except OSError as error:
        raise SettingsError(f"log_config: cannot read {path!r}: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError, ImportError, KeyError, configparser.Error, RuntimeError) as error:
        # dictConfig names the part that is wrong, and keeps the reason in the cause.
        reason = f"{error}: {error.__cause__}" if error.__cause__ else f"{error}"
        if isinstance(error, KeyError):
            reason = f"expected {error} in it"
        raise SettingsError(f"log_config: {path!r}: {' '.join(reason.split())}") from None


def _parse(path: Path) -> Any:
    import tomllib

    text, suffix = path.read_text("utf-8"), path.suffix.lower()
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix == ".ini":
        return _parse_ini(text)
    if suffix in (".yaml", ".yml"):
        return _parse_yaml(text)
    try:
        return json.loads(text)
    except ValueError:
        if suffix == ".json":
            raise
    # These are the sections of a fileConfig.
    if "[formatters]" in text and "[handlers]" in text:
        return _parse_ini(text)
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"expected JSON, TOML, INI or YAML, as its name ends: {error}") from None


def _parse_ini(text: str) -> Any:
    import configparser

    # fileConfig's formats have signs of percent of their own.
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


def _parse_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ValueError("YAML needs PyYAML: pip install pyyaml; JSON, TOML and INI need nothing") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_bridged: WeakSet[LogBeginner] = WeakSet()


def bridge_twisted(beginner: LogBeginner | None = None) -> None:
    """Send Twisted's log to :mod:`logging`, first the events that it has kept so far. A second call does nothing.

    Failures are logged at ERROR with their traceback. Twisted's and Autobahn's own events of level "info", such as the
    start of a factory, are only logged at DEBUG. A logger's name is its events' namespace; events of the legacy
    ``twisted.python.log`` go to ``twisted``. Standard output and error and :mod:`warnings` stay as they are.

    :param beginner: of the process's log when None.
    """
    from twisted.logger import globalLogBeginner

    beginner = globalLogBeginner if beginner is None else beginner
    if beginner in _bridged:
        return
    _bridged.add(beginner)
    show = warnings.showwarning
    beginner.beginLoggingTo([cast("ILogObserver", _forward)], redirectStandardIO=False)
    # The beginner takes over warnings even when it leaves standard error alone.
    warnings.showwarning = show


def _forward(event: LogEvent) -> None:
    from twisted.logger import formatEvent

    namespace = str(event.get("log_namespace", "twisted"))
    if namespace == "log_legacy":
        namespace = "twisted"
    level = _LEVELS.get(getattr(event.get("log_level"), "name", "info"), logging.INFO)
    failure = event.get("log_failure")
    if failure is not None:
        level = logging.ERROR
    elif level == logging.INFO and namespace.partition(".")[0] in ("twisted", "autobahn"):
        level = logging.DEBUG
    logger = logging.getLogger(namespace)
    if logger.isEnabledFor(level):
        logger.log(level, "%s", formatEvent(event), exc_info=None if failure is None else _exception(failure))


def _exception(failure: Any) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    return failure.type, failure.value, failure.getTracebackObject()
