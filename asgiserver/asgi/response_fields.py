"""The fields of a response as an application sends them, checked; and how a message is found fault with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ..errors import MessageError
from .interfaces import TCHAR

__all__ = [
    "CONNECTION_SPECIFIC", "LOWER", "Fields", "KnownFields", "fail", "kind_of", "known_fields", "parse_fields", "shown",
    "wrong",
]  # fmt: skip

Fields = list[tuple[bytes, bytes]]


class KnownFields(Fields):
    """Fields that are sent again and again, with what is made of them each time; not to be changed.

    :ivar lines: as they stand in the head of an HTTP/1 message, without the last line's end; not empty.
    :ivar names: their names.
    """

    __slots__ = ("lines", "names")

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.lines = b"\r\n".join(map(b": ".join, fields))
        self.names = frozenset(name for name, _ in fields)


_NOT_TOKEN = bytes(set(range(256)) - set(TCHAR))
LOWER = bytes(range(256)).lower()

#: As numbers, which are looked for in bytes eight times as fast as bytes are.
_CR, _LF, _NUL = b"\r\n\0"

#: RFC 9110 §7.6.1: these speak of one connection, which is the wire's.
CONNECTION_SPECIFIC = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))

_SPECIAL = CONNECTION_SPECIFIC | {b"content-length"}

#: Names that were checked, with what they are in lower case: an application sends the same few again and again.
_NAMES: dict[bytes, bytes] = {}
_MOST_NAMES = 500

#: Fields that were checked, with what they are then, and the length that a content-length says. Of those that have few
#: values, none of them a secret, and of short lengths.
_PAIRS: dict[tuple[bytes, bytes], tuple[tuple[bytes, bytes], int | None]] = {}
_MOST_PAIRS, _MOST_OF_VALUE, _MOST_DIGITS = 1500, 128, 3
#: Most fields of a response that are remembered together.
_MOST_FIELDS = 32
_REPEATED = frozenset(
    b"accept-ranges access-control-allow-credentials access-control-allow-headers access-control-allow-methods "
    b"access-control-allow-origin allow cache-control content-encoding content-language content-security-policy "
    b"content-length content-type cross-origin-opener-policy permissions-policy referrer-policy "
    b"strict-transport-security vary x-content-type-options x-frame-options".split()
)

#: Enough for any length of 64 bits; ``int()`` of thousands of digits is slow, and an error beyond 4300 of them.
_LENGTH_DIGITS = 20


def parse_fields(message: Mapping[str, Any]) -> tuple[Fields, int | None, bool]:
    """The headers in lower case, the content-length, and whether the connection is to be closed."""
    headers = message.get("headers")
    fields: Fields = []
    length: int | None = None
    close = False
    for item in headers if isinstance(headers, (list, tuple)) else _iterable(message, headers):
        try:
            known = _PAIRS.get(item)
        except (TypeError, ValueError):
            known = None  # a list, or something wrong, such as a memoryview
        if known is not None:
            pair, size = known
            if size is None:
                fields.append(pair)
                continue
            if length is None:
                fields.append(pair)
                length = size
                continue
        pair = lowered, value = _checked(message, item)
        if lowered in _SPECIAL:
            if lowered != b"content-length":
                close = close or lowered == b"connection" and _has_close(value)
                continue
            previous, length = length, _content_length(message, value)
            if previous is not None:
                if previous != length:
                    fail(message, f"more than one content-length: {previous} and {length}")
                continue
        fields.append(pair)
        if lowered in _REPEATED:
            _remember(item, pair, length if lowered == b"content-length" else None)
    return fields, length, close


def known_fields(headers: list[Any], fields: Fields) -> KnownFields | None:
    """``fields``, which are what :func:`parse_fields` made of ``headers``, if all of them may be remembered."""
    if 0 < len(headers) <= _MOST_FIELDS and len(headers) == len(fields) and all(map(_PAIRS.__contains__, headers)):
        return KnownFields(fields)
    return None


def _checked(message: Mapping[str, Any], item: Any) -> tuple[bytes, bytes]:
    """A field with its name in lower case, checked to be one line of a head."""
    try:
        name, value = item
    except (TypeError, ValueError):
        fail(message, f'each of "headers" must be a pair of name and value, got {shown(item)}')
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        _wrong_field(message, name, value)
    lowered = _NAMES.get(name) or _lowered(name)
    if not lowered or _CR in value or _LF in value or _NUL in value:
        _wrong_field(message, name, value)
    return lowered, value.strip(b" \t")


def _remember(item: Any, pair: tuple[bytes, bytes], length: int | None) -> None:
    plain = type(item) is tuple and type(item[0]) is bytes and type(item[1]) is bytes
    most = _MOST_OF_VALUE if length is None else _MOST_DIGITS
    if plain and len(item[1]) <= most:
        if len(_PAIRS) >= _MOST_PAIRS:
            # Whatever never comes again, such as a policy with a nonce, makes room for what does.
            del _PAIRS[next(iter(_PAIRS))]
        _PAIRS[item] = pair, length


def _lowered(name: bytes) -> bytes:
    """A field's name in lower case; empty when it is no token."""
    lowered = name.translate(LOWER, _NOT_TOKEN)
    if len(lowered) != len(name):
        return b""
    if len(_NAMES) < _MOST_NAMES and type(name) is bytes:
        _NAMES[name] = lowered
    return lowered


def _iterable(message: Mapping[str, Any], headers: Any) -> Iterable[Any]:
    if headers is None:
        return ()
    if isinstance(headers, (str, bytes, Mapping)) or not isinstance(headers, Iterable):
        wrong(message, "headers", "an iterable of pairs of bytes", headers)
    return headers


def _wrong_field(message: Mapping[str, Any], name: Any, value: Any) -> NoReturn:
    what = shown(name)
    if not isinstance(name, bytes):
        fail(message, f"the name of header {what} must be bytes, got {kind_of(name)}")
    if not name or name.translate(None, TCHAR):
        # A pseudo-header's colon is no token character either (RFC 9113 §8.3).
        fail(message, f"the name of a header must be a token (RFC 9110 §5.1), got {what}")
    if not isinstance(value, bytes):
        fail(message, f"the value of header {what} must be bytes, got {kind_of(value)}")
    fail(message, f"the value of header {what} must not hold CR, LF or NUL (RFC 9110 §5.5), got {shown(value)}")


def _content_length(message: Mapping[str, Any], value: bytes) -> int:
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        fail(message, f"the value of header b'content-length' must be a decimal number, got {shown(value)}")
    return int(value)


def _has_close(value: bytes) -> bool:
    return b"close" in (option.strip(b" \t") for option in value.lower().split(b","))


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
