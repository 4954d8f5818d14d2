"""The fields that every response gets unless the application sends its own."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..asgi.fields import CONNECTION_SPECIFIC
from ..asgi.tokens import TCHAR
from ..errors import SettingsError

__all__ = ["DefaultFields", "Defaults"]

#: Fields that a response gets besides its own. Callers must not keep them, as ``Date`` changes. A tuple has a hash, so
#: a wire can cache how it writes them.
Defaults = tuple[tuple[bytes, bytes], ...]

_DAYS = b"Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class DefaultFields:
    """``Date``, ``Server`` and those of ``--header`` (RFC 9110 §6.6.1, §10.2.4).

    :param server_name: value of the Server field; empty for none.
    :param lines: ``NAME:VALUE`` texts.
    :param now: the time in seconds since the epoch.
    :raises SettingsError: a line is no field line.
    """

    __slots__ = ("_all", "_fixed", "_names", "_now", "_second")

    def __init__(self, server_name: str, lines: tuple[str, ...] = (), now: Callable[[], float] = time.time) -> None:
        self._fixed = [(b"server", encoded("server_name", server_name))] if server_name else []
        for line in lines:
            name, _, value = line.partition(":")
            field = encoded("headers", name.strip()).lower(), encoded("headers", value.strip())
            if not field[0] or field[0].translate(None, TCHAR):
                raise SettingsError(f"headers: {name.strip()!r} is no field name")
            if field[0] in CONNECTION_SPECIFIC | {b"content-length"} or field[0].startswith(b"sec-websocket-"):
                raise SettingsError(f"headers: {name.strip()!r} is set by the server")
            self._fixed.append(field)
        self._names = frozenset(name for name, _ in self._fixed) | {b"date"}
        self._now = now
        self._second = -1
        self._all: Defaults = ()

    def lacking(self, names: list[bytes]) -> Defaults:
        """The default fields whose names are not among ``names``, those of the response's own fields in lower case."""
        if not 0 <= self._now() - self._second < 1:
            self._second = int(self._now())
            self._all = (b"date", _date(self._second)), *self._fixed
        if self._names.isdisjoint(names):
            return self._all
        return tuple(field for field in self._all if field[0] not in names)


def _date(seconds: int) -> bytes:
    """The IMF-fixdate of RFC 9110 §5.6.7; ``strftime`` would use the language of the locale."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(seconds)
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        _DAYS[weekday], day, _MONTHS[month - 1], year, hour, minute, second
    )  # fmt: skip


def encoded(setting: str, text: str) -> bytes:
    """``text`` as a field's bytes; SettingsError when it has control characters or is not Latin-1."""
    if any(ord(character) < 32 and character != "\t" or character == "\x7f" for character in text):
        raise SettingsError(f"{setting}: control characters are not allowed, got {text!r}")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise SettingsError(f"{setting}: only Latin-1 characters are allowed, got {text!r}") from None
