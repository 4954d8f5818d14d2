"""Logging: the access log's lines, where they go, and Twisted's log bridged to :mod:`logging`.

The loggers are ``asgiserver`` (life cycle, failures), ``asgiserver.access`` and ``asgiserver.wire`` (debugging). Only
:func:`configure` and :func:`bridge_twisted` touch anything global; the command line calls them, a host that embeds the
server has its own logging and calls neither.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import sys
import time
import tomllib
import warnings
from collections.abc import Callable
from datetime import datetime
from logging.handlers import WatchedFileHandler
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final
from weakref import WeakSet

from twisted.logger import LogBeginner, LogEvent, LogLevel, formatEvent, globalLogBeginner

from ..errors import SettingsError
from ..settings import Settings

__all__ = ["ACCESS", "AccessLog", "ActionLogger", "bridge_twisted", "configure"]

ACCESS: Final = "asgiserver.access"

#: Called with protocol, action and details, as Daphne's: ``("http", "complete", {...})`` with path (and query),
#: status, method, client (``"host:port"`` or None), time_taken (seconds), size (bytes sent); ``("websocket",
#: "connecting" | "connected" | "disconnected" | "rejected", {...})`` with path and client. More than Daphne gives:
#: http_version, scheme, headers and request_size (bytes received), code of a disconnected WebSocket, status of a rejected one.
ActionLogger = Callable[[str, str, dict[str, Any]], None]

_DAPHNE = '%(client)s - - [%(time)s] "%(method)s %(path)s" '
_COMMON = '%(client_host)s - - [%(time)s] "%(method)s %(path)s %(protocol)s" %(status)s %(size)s'
_FORMATS = {
    "daphne": _DAPHNE + "%(status)s %(size)s",
    "common": _COMMON,
    "combined": _COMMON + ' "%(referer)s" "%(user_agent)s"',
}
_WEBSOCKET_METHODS = {
    "connecting": "WSCONNECTING",
    "connected": "WSCONNECT",
    "disconnected": "WSDISCONNECT",
    "rejected": "WSREJECT",
}


class Entry:
    """What one line tells, computed only where the line's format asks for it; None for what is not known.

    :param details: as an :data:`ActionLogger` gets them; Daphne's alone are enough.
    :param now: seconds since the epoch.
    """

    __slots__ = ("action", "details", "now", "protocol")

    def __init__(self, protocol: str, action: str, details: dict[str, Any], now: float) -> None:
        self.protocol = protocol
        self.action = action
        self.details = details
        self.now = now

    def value(self, name: str) -> Any:
        """The value of ``name``, one of :data:`_VALUES`, in its own type."""
        return _VALUES[name](self)

    def text(self, name: str) -> str:
        """The value of ``name`` for a line of text: ``-`` when it is not known, and nothing that could forge a line."""
        value = self.value(name)
        return "-" if value is None else _escaped(value if type(value) is str else _number(value))

    def field(self, name: bytes) -> str | None:
        """The request's first header field ``name``, its bytes as Latin-1."""
        for field, value in self.details.get("headers", ()):
            if field == name:
                return str(value, "latin-1")
        return None

    def method(self) -> str | None:
        """The request's method or, of a WebSocket, Daphne's word for what happened to it."""
        if self.protocol == "websocket":
            return _WEBSOCKET_METHODS.get(self.action, self.action)
        return self.details.get("method")

    def version(self) -> str | None:
        """``HTTP/1.1``."""
        version = self.details.get("http_version")
        return None if version is None else f"HTTP/{version}"

    def client_host(self) -> str | None:
        """The client's address without port and brackets."""
        client: str | None = self.details.get("client")
        return None if client is None else client.rpartition(":")[0].strip("[]")

    def duration(self, factor: int) -> float | None:
        """The seconds that it took, times ``factor``, to the microsecond."""
        seconds: float | None = self.details.get("time_taken")
        return None if seconds is None else round(seconds * factor, 6 if factor == 1 else 3)


def _detail(name: str) -> Callable[[Entry], Any]:
    # 0 is what an exchange without a response has for a status.
    return lambda entry: entry.details.get(name) or (None if name == "status" else entry.details.get(name))


_VALUES: dict[str, Callable[[Entry], Any]] = {
    "client": _detail("client"),
    "client_host": Entry.client_host,
    "time": lambda entry: _ncsa_time(entry.now),
    "iso_time": lambda entry: datetime.fromtimestamp(entry.now).astimezone().isoformat(timespec="milliseconds"),
    "method": Entry.method,
    "path": _detail("path"),
    "protocol": Entry.version,
    "status": _detail("status"),
    "size": _detail("size"),
    "request_size": _detail("request_size"),
    "duration": lambda entry: entry.duration(1),
    "duration_ms": lambda entry: entry.duration(1000),
    "user_agent": lambda entry: entry.field(b"user-agent"),
    "referer": lambda entry: entry.field(b"referer"),
    "scheme": _detail("scheme"),
    "event": lambda entry: entry.action,
    "code": _detail("code"),
}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _ncsa_time(now: float) -> str:
    local = time.localtime(now)
    # Not %b: the month is English whatever the locale.
    return time.strftime(f"%d/{_MONTHS[local.tm_mon - 1]}/%Y:%H:%M:%S %z", local)


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") if type(value) is float else str(value)


_UNSAFE = re.compile(r'[^ !#-\[\]-~]')


def _escaped(text: str) -> str:
    """``text`` in printable ASCII without bare quotation marks; the peer chose it (CVE-2020-7694)."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class AccessLog:
    """An :data:`ActionLogger` that writes a line for each action, at level INFO.

    :param format: ``daphne``, ``common``, ``combined``, ``json``, or a %-format such as ``"%(client)s %(duration_ms)s"``.
        Its names: client, client_host, time, iso_time, method, path, protocol, status, size, request_size, duration
        (seconds), duration_ms, user_agent, referer, scheme, event, code. What is not known is ``-``, in JSON null.
    :param logger: where the lines go; its records have ``status`` (or None) and ``event`` as attributes.
    :param now: the time in seconds since the epoch.
    :raises SettingsError: the format has an unknown name, or something else behind a percent sign.
    """

    def __init__(
        self, format: str, logger: logging.Logger | None = None, now: Callable[[], float] = time.time  # noqa: A002
    ) -> None:
        self._logger = logging.getLogger(ACCESS) if logger is None else logger
        self._now = now
        self._json = format == "json"
        self._http = _line("" if self._json else _FORMATS.get(format, format))
        # Daphne gives no status and no size for a WebSocket.
        self._websocket = _line(_DAPHNE + "- -") if format == "daphne" else self._http

    @property
    def enabled(self) -> bool:
        """False when a line would go nowhere."""
        return self._logger.isEnabledFor(logging.INFO)

    def __call__(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(logging.INFO):
            return
        entry = Entry(protocol, action, details, self._now())
        if self._json:
            line = _json_line(entry)
        else:
            pattern, names = self._websocket if protocol == "websocket" else self._http
            line = pattern % {name: entry.text(name) for name in names}
        self._logger.info(line, extra={"status": entry.value("status"), "event": action})


_NAME = re.compile(r"%(?:%|\((\w+)\)[-#0 +]*\d*(?:\.\d+)?s)")


def _line(pattern: str) -> tuple[str, tuple[str, ...]]:
    """``pattern`` and the names in it.

    Only ``s`` is allowed as conversion: any value may be unknown, and ``-`` is no number.
    """
    names = {match[1] for match in _NAME.finditer(pattern)} - {None}
    rest = _NAME.sub("", pattern)
    if "%" in rest:
        raise SettingsError(f"access_log_format: expected %(name)s or %%, got {rest[rest.index('%') :]!r}")
    if unknown := sorted(names - _VALUES.keys()):
        raise SettingsError(f"access_log_format: unknown name {unknown[0]!r}; known are {', '.join(_VALUES)}")
    if pattern and not names:
        message = f"access_log_format: expected {', '.join(_FORMATS)}, json or a format with %(name)s, got {pattern!r}"
        raise SettingsError(message)
    return pattern, tuple(names)


_JSON_NAMES = {"time": "iso_time"} | {
    name: name for name in _VALUES if name not in ("time", "iso_time", "client_host", "duration_ms")
}


def _json_line(entry: Entry) -> str:
    line = {key: entry.value(name) for key, name in _JSON_NAMES.items()}
    # JSON lets DEL through as it is.
    return json.dumps(line, separators=(",", ":")).replace("\x7f", "\\u007f")


class _ServerLog(logging.StreamHandler[IO[str]]):
    """The handler of the root logger."""


class _AccessStream(logging.StreamHandler[IO[str]]):
    """The access log on standard output."""


class _AccessFile(WatchedFileHandler):
    """The access log in a file; opened anew when it was moved away, as logrotate does."""


class _ColourFormatter(logging.Formatter):
    """The line in a colour of its status."""

    COLOURS = {2: "32", 3: "36", 4: "33", 5: "31"}

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        colour = self.COLOURS.get((getattr(record, "status", None) or 0) // 100)
        return line if colour is None else f"\x1b[{colour}m{line}\x1b[0m"


def configure(settings: Settings) -> None:
    """Set logging up as the command line's settings say. May be called again; then what it did before is undone.

    With ``log_config``, that file says all, and only an ``access_log`` that was given is added to it. Otherwise the
    root logger gets the level of ``verbosity`` and writes ``log_fmt`` to standard error, unless it has handlers
    already (the application's own configuration), and ``asgiserver.access`` writes plain lines to ``access_log``, or
    from verbosity 1 on to standard output, unless it has handlers already.

    :raises SettingsError: an unreadable or wrong ``log_config``, a wrong ``log_fmt``, an ``access_log`` that cannot be
        opened.
    """
    _undo(logging.getLogger())
    _undo(logging.getLogger(ACCESS))
    if settings.log_config is not None:
        _load(settings.log_config)
    else:
        _configure_server(settings)
    if settings.access_log is not None or settings.log_config is None:
        _configure_access(settings)


def _undo(logger: logging.Logger) -> None:
    for handler in logger.handlers[:]:
        if isinstance(handler, _ServerLog | _AccessStream | _AccessFile):
            logger.removeHandler(handler)
            handler.close()
            logger.propagate = True


def _configure_server(settings: Settings) -> None:
    level = {0: logging.WARNING, 1: logging.INFO}.get(settings.verbosity, logging.DEBUG)
    logging.getLogger("asgiserver").setLevel(level)
    root = logging.getLogger()
    if not root.handlers:
        handler = _ServerLog(sys.stderr)
        handler.setFormatter(_formatter(settings.log_fmt))
        root.addHandler(handler)
        root.setLevel(level)


def _formatter(pattern: str) -> logging.Formatter:
    try:
        formatter = logging.Formatter(pattern)
        # A wrong name or conversion would be noticed only at the first line.
        formatter.format(logging.makeLogRecord({"msg": "", "name": "asgiserver", "levelno": 20, "levelname": "INFO"}))
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(f"log_fmt: {pattern!r}: {error}") from None
    return formatter


def _configure_access(settings: Settings) -> None:
    logger = logging.getLogger(ACCESS)
    if settings.access_log is None and settings.verbosity == 0:
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
        if settings.access_log_format in _FORMATS and _shows_colours(sys.stdout):
            handler.setFormatter(_ColourFormatter())
        return handler
    try:
        # Each record is flushed, so a line is never seen in part.
        return _AccessFile(path, "a", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"access_log: cannot write to {path!r}: {error.strerror}") from None


def _shows_colours(stream: IO[str]) -> bool:
    """A terminal, and nobody has asked for no colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _load(path: str) -> None:
    """Apply a dictConfig; ``version`` and ``disable_existing_loggers`` may be left out and are then 1 and false."""
    try:
        config = _parse(Path(path))
        if not isinstance(config, dict):
            raise ValueError("expected an object of settings")
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **config})
    except OSError as error:
        raise SettingsError(f"log_config: cannot read {path!r}: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError, ImportError, KeyError) as error:
        # dictConfig names the part that is wrong, and keeps the reason in the cause.
        reason = f"{error}: {error.__cause__}" if error.__cause__ else f"{error}"
        raise SettingsError(f"log_config: {path!r}: {' '.join(reason.split())}") from None


def _parse(path: Path) -> Any:
    text = path.read_text("utf-8")
    if path.suffix.lower() == ".toml":
        return tomllib.loads(text)
    try:
        return json.loads(text)
    except ValueError:
        if path.suffix.lower() == ".json":
            raise
        return tomllib.loads(text)


_LEVELS = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}
_bridged: WeakSet[LogBeginner] = WeakSet()


def bridge_twisted(beginner: LogBeginner = globalLogBeginner) -> None:
    """Send Twisted's log to :mod:`logging`, what it has kept so far first. A second call does nothing.

    Failures are logged at ERROR with their traceback. What Twisted itself says at its level "info", such as which
    factory starts, is only logged at DEBUG. The loggers are named by the events' namespaces; events of the legacy
    ``twisted.python.log`` go to ``twisted``. Standard output and error and :mod:`warnings` stay as they are.
    """
    if beginner in _bridged:
        return
    _bridged.add(beginner)
    show = warnings.showwarning
    beginner.beginLoggingTo([_forward], redirectStandardIO=False)
    # The beginner takes warnings for itself, whatever it is told about standard error.
    warnings.showwarning = show


def _forward(event: LogEvent) -> None:
    namespace = str(event.get("log_namespace", "twisted"))
    if namespace == "log_legacy":
        namespace = "twisted"
    level = _LEVELS.get(event.get("log_level", LogLevel.info), logging.INFO)
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
