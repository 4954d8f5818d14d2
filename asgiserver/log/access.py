"""The access log: one line for each request, and for each event of a WebSocket."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from ..errors import SettingsError
from ..settings import Settings
from .formatters import iso_time, json_line

__all__ = ["ACCESS", "FORMATS", "AccessLog", "ActionLogger", "chosen_format"]

ACCESS: Final = "asgiserver.access"

#: Called with protocol, action and details, as Daphne's: ``("http", "complete", {...})`` with path (and query),
#: status, method, client (``"host:port"`` or None), time_taken (seconds), size (bytes sent); ``("websocket",
#: "connecting" | "connected" | "disconnected" | "rejected", {...})`` with path and client. Daphne does not give:
#: http_version, scheme, headers, request_id; request_size (bytes received); waited (seconds for a thread, if at all);
#: code of a disconnected WebSocket, which has time_taken and size as well; status of a rejected one.
ActionLogger = Callable[[str, str, dict[str, Any]], None]

_DAPHNE = '%(client)s - - [%(time)s] "%(method)s %(path)s" '
_COMMON = '%(client_host)s - - [%(time)s] "%(method)s %(path)s %(protocol)s" %(status)s %(size)s'
FORMATS = {
    "daphne": _DAPHNE + "%(status)s %(size)s",
    "common": _COMMON,
    "combined": _COMMON + ' "%(referer)s" "%(user_agent)s"',
    "terminal": '%(iso_time)s %(client)s "%(method)s %(path)s" %(status)s %(size)s',
}
_WEBSOCKET_METHODS = {
    "connecting": "WSCONNECTING", "connected": "WSCONNECT", "disconnected": "WSDISCONNECT", "rejected": "WSREJECT",
}  # fmt: skip


def chosen_format(settings: Settings) -> str:
    """The format that ``access_log_format`` means.

    ``auto`` is JSON where the server's log is; on a terminal, lines that begin with the time as those of the server's
    log do; else Daphne's, which programs read.
    """
    if settings.access_log_format != "auto":
        return settings.access_log_format
    if settings.log_format == "json":
        return "json"
    on_terminal = settings.access_log in (None, "-") and sys.stdout is not None and sys.stdout.isatty()
    return "terminal" if on_terminal else "daphne"


class Entry:
    """The values of one line, each computed only when the line's format asks for it; None for one that is not known.

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
        """The value of ``name`` for a line of text, ``-`` when it is not known; escaped, to forge no line."""
        match self.value(name):
            case None:
                return "-"
            case bytes(value):
                return _escaped(str(value, "latin-1"))
            case float(value):
                return f"{value:.6f}".rstrip("0").rstrip(".")
            case value:
                return _escaped(str(value))

    def field(self, name: bytes) -> bytes | None:
        """The request's first header field ``name``."""
        headers: Sequence[tuple[bytes, bytes]] = self.details.get("headers", ())
        return next((value for field, value in headers if field == name), None)

    def method(self) -> str | None:
        """The request's method or, for a WebSocket, Daphne's word for the event."""
        if self.protocol == "websocket":
            return _WEBSOCKET_METHODS.get(self.action, self.action)
        return self.details.get("method")

    def traceparent(self) -> str | None:
        """The trace of which the client says that the request is a part (W3C Trace Context §3.2)."""
        value = self.field(b"traceparent")
        return str(value, "ascii") if value is not None and _TRACEPARENT.fullmatch(value) else None

    def version(self) -> str | None:
        """``HTTP/1.1``."""
        version = self.details.get("http_version")
        return None if version is None else f"HTTP/{version}"

    def client_host(self) -> str | None:
        """The client's address without port and brackets."""
        client: str | None = self.details.get("client")
        return None if client is None else (client.rpartition(":")[0] or client).strip("[]")

    def duration(self, factor: int) -> float | None:
        """The seconds that the action took, times ``factor``, to the microsecond."""
        seconds: float | None = self.details.get("time_taken")
        return None if seconds is None else round(seconds * factor, 6 if factor == 1 else 3)


def _detail(name: str) -> Callable[[Entry], Any]:
    return lambda entry: entry.details.get(name)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# Many requests fall into the same second.
@lru_cache(maxsize=2)
def _ncsa_time(second: int) -> str:
    local = time.localtime(second)
    # Not %b: the month is English whatever the locale.
    return time.strftime(f"%d/{_MONTHS[local.tm_mon - 1]}/%Y:%H:%M:%S %z", local)


_VALUES: dict[str, Callable[[Entry], Any]] = {
    "client": _detail("client"),
    "client_host": Entry.client_host,
    "time": lambda entry: _ncsa_time(int(entry.now)),
    "iso_time": lambda entry: iso_time(entry.now),
    "method": Entry.method,
    "path": _detail("path"),
    "protocol": Entry.version,
    "status": _detail("status"),
    "size": _detail("size"),
    "request_size": _detail("request_size"),
    "waited": lambda entry: None if (seconds := entry.details.get("waited")) is None else round(seconds, 6),
    "duration": lambda entry: entry.duration(1),
    "duration_ms": lambda entry: entry.duration(1000),
    "user_agent": lambda entry: entry.field(b"user-agent"),
    "referer": lambda entry: entry.field(b"referer"),
    "scheme": _detail("scheme"),
    "event": lambda entry: entry.action,
    "code": _detail("code"),
    "request_id": _detail("request_id"),
    "traceparent": Entry.traceparent,
}

# Neither the version ff nor an id of zeros is valid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")


def _escaped(text: str) -> str:
    """``text`` in printable ASCII without bare quotation marks: a peer chose it (CVE-2020-7694)."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class AccessLog:
    """An :data:`ActionLogger` that writes a line for each action, at level INFO.

    :param format: ``daphne``, ``common``, ``combined``, ``terminal``, ``json``, or a %-format such as
        ``"%(client)s %(path)s"``. Its names: client, client_host, time, iso_time, method, path, protocol, status, size,
        request_size, waited (seconds for a thread), duration (seconds), duration_ms, user_agent, referer, scheme,
        event, code, request_id, traceparent. An unknown value is ``-``, in JSON null.
    :param logger: where the lines go; its records have as attributes ``event`` and, each maybe None, ``status`` and
        ``request_id``.
    :param now: the time in seconds since the epoch.
    :raises SettingsError: the format has an unknown name, none at all, or something else behind a percent sign.
    """

    def __init__(
        self,
        format: str,  # noqa: A002 - the settings' word for it
        logger: logging.Logger | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.logger = logging.getLogger(ACCESS) if logger is None else logger
        self._now = now
        self._json = format == "json"
        self._http = ("", ()) if self._json else _line(FORMATS.get(format, format))
        # Daphne gives no status and no size for a WebSocket.
        self._websocket = _line(_DAPHNE + "- -") if format == "daphne" else self._http

    @property
    def enabled(self) -> bool:
        """False when a line would go nowhere."""
        return self.logger.isEnabledFor(logging.INFO)

    def __call__(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        if not self.enabled:
            return
        entry = Entry(protocol, action, details, self._now())
        if self._json:
            line = _json_line(entry)
        else:
            pattern, names = self._websocket if protocol == "websocket" else self._http
            line = pattern % {name: entry.text(name) for name in names}
        extra = {"status": entry.value("status"), "event": action, "request_id": entry.value("request_id")}
        self.logger.info(line, extra=extra)


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
    if not names:
        message = f"access_log_format: expected {', '.join(FORMATS)}, json or a format with %(name)s, got {pattern!r}"
        raise SettingsError(message)
    return pattern, tuple(names)


_JSON_NAMES = {"time": "iso_time"} | {
    name: name for name in _VALUES if name not in ("time", "iso_time", "client_host", "duration_ms")
}


def _json_line(entry: Entry) -> str:
    return json_line({key: entry.value(name) for key, name in _JSON_NAMES.items()})
