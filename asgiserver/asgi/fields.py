"""Checks the fields of a response that an application sends, and raises the errors for malformed messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ..errors import MessageError
from .tokens import TCHAR

__all__ = [
    "CONNECTION_SPECIFIC", "LOWER", "Fields", "check_value", "fail", "iterable", "kind_of", "parse_fields", "shown",
    "wrong",
]  # fmt: skip

Fields = list[tuple[bytes, bytes]]

_NOT_TOKEN = bytes(set(range(256)) - set(TCHAR))
LOWER = bytes(range(256)).lower()

#: The bytes of a value (RFC 9110 §5.5): HTAB, SP, visible characters and obs-text. Clients refuse anything else.
_TEXT = bytes(set(range(256)) - set(range(32)) - {0x7F} | set(b"\t"))

#: RFC 9110 §7.6.1: these fields control one connection, which is the wire's business.
CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
)

_PAIRS = "an iterable of pairs of bytes"

_SPECIAL = CONNECTION_SPECIFIC | {b"content-length"}

#: Names that were checked, with their lower case: an application sends the same few again and again. No value is ever
#: remembered, as it may be a secret.
_NAMES: dict[bytes, bytes] = {}
_MOST_NAMES, _LONGEST_NAME = 500, 64

#: Enough for any length of 64 bits; ``int()`` of thousands of digits is slow, and an error beyond 4300 of them.
_LENGTH_DIGITS = 20


def parse_fields(message: Mapping[str, Any]) -> tuple[Fields, list[bytes], int | None, bool]:
    """The headers, their names in lower case, the content-length, and whether the connection is to be closed."""
    headers = message.get("headers")
    fields: Fields = []
    names: list[bytes] = []
    values: list[bytes] = []
    length: int | None = None
    close = False
    for item in headers if type(headers) is list else () if headers is None else iterable(message, "headers", _PAIRS):
        try:
            name, value = item
        except (TypeError, ValueError):
            fail(message, f'each of "headers" must be a pair of name and value, got {shown(item)}')
        if type(name) is not bytes or type(value) is not bytes:
            name, value = _plain_bytes(message, name, value)
        value = value.strip(b" \t")
        lowered = _NAMES.get(name) or _lowered(message, name)
        if lowered in _SPECIAL:
            if lowered != b"content-length":
                check_value(message, name, value)
                if lowered == b"connection":
                    close = close or b"close" in (option.strip(b" \t") for option in value.lower().split(b","))
                continue
            previous, length = length, _content_length(message, value)
            if previous is not None:
                if previous != length:
                    fail(message, f"more than one content-length: {previous} and {length}")
                continue
        fields.append((name, value))
        names.append(lowered)
        values.append(value)
    # All values are checked at once, since hardly any is ever wrong.
    if b"".join(values).translate(None, _TEXT):
        for name, value in fields:
            check_value(message, name, value)
    return fields, names, length, close


def _plain_bytes(message: Mapping[str, Any], name: Any, value: Any) -> tuple[bytes, bytes]:
    """The name and value of a field as plain ``bytes``, from classes derived from it; else raises MessageError."""
    if not isinstance(name, bytes):
        fail(message, f"the name of header {shown(name)} must be bytes, got {kind_of(name)}")
    if not isinstance(value, bytes):
        fail(message, f"the value of header {shown(name)} must be bytes, got {kind_of(value)}")
    return bytes(name), bytes(value)


def _lowered(message: Mapping[str, Any], name: bytes) -> bytes:
    """A field's name in lower case."""
    lowered = name.translate(LOWER, _NOT_TOKEN)
    if not name or len(lowered) != len(name):
        # A pseudo-header's colon is no token character either (RFC 9113 §8.3).
        fail(message, f"the name of a header must be a token (RFC 9110 §5.1), got {shown(name)}")
    if len(_NAMES) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
        _NAMES[name] = lowered
    return lowered


def iterable(message: Mapping[str, Any], key: str, expected: str) -> Iterable[Any]:
    """The value of ``key``, which is iterable but no text."""
    value = message.get(key)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        wrong(message, key, expected, value)
    return value


def check_value(message: Mapping[str, Any], name: bytes, value: bytes) -> None:
    controls = value.translate(None, _TEXT)
    if controls:
        # The message does not show the value itself, which may be a secret.
        fail(
            message,
            f"the value of header {shown(name)} must not hold control characters other than HTAB (RFC 9110 §5.5), "
            f"got {shown(controls)}",
        )


def _content_length(message: Mapping[str, Any], value: bytes) -> int:
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        fail(message, f"the value of header b'content-length' must be a decimal number, got {shown(value)}")
    return int(value)


def wrong(message: Mapping[str, Any], key: str, expected: str, value: Any) -> NoReturn:
    if key not in message:
        fail(message, f'"{key}" is missing, {expected} is needed')
    fail(message, f'"{key}" must be {expected}, got {kind_of(value)}')


def fail(message: Mapping[str, Any], text: str) -> NoReturn:
    # The cause, where there is one, says nothing that the text does not.
    raise MessageError(f"{message['type']}: {text}") from None


def kind_of(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def shown(value: Any) -> str:
    """``value`` for an error message: its beginning only, as an application's values may be large or private."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
