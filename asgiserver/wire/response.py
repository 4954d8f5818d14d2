"""The one writer of HTTP/1.1 responses (RFC 9112); pure."""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus

from ..asgi.default_fields import NO_DEFAULTS, DefaultFields, Defaults
from ..asgi.interfaces import Headers
from ..asgi.response import plain
from ..asgi.response_fields import KnownFields
from ..errors import RequestError

__all__ = ["CONTINUE", "Framing", "framed", "head", "refusal", "size_line", "whole"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}
#: Given a field's name and value.
_field_line = b": ".join


class Framing(Enum):
    """How the body of the current response is delimited (RFC 9112 §6.3)."""

    UNKNOWN = auto()  # the response has not begun
    NONE = auto()  # no body, whatever the fields say
    PLAIN = auto()  # by Content-Length
    UNTIL_CLOSE = auto()  # by the connection's end
    CHUNKED = auto()


def head(
    status: int, headers: Headers, chunked: bool = False, connection: bytes = b"", defaults: Defaults = NO_DEFAULTS
) -> bytes:
    """A response's head, from the status line to the empty line.

    :param status: 101 or 200 to 999.
    :param headers: checked: no CR, LF or NUL anywhere in them.
    :param chunked: say that the body is chunked.
    :param connection: value of the Connection field; none when empty.
    :param defaults: further fields, behind the others.
    """
    # Formatting and joining cost least when they are few: this is done for each response.
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown" % status]
    if type(headers) is KnownFields:
        lines.append(headers.lines)
    else:
        lines += map(_field_line, headers)
    if defaults.lines:
        lines.append(defaults.lines)
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    if connection:
        lines.append(b"connection: %b" % connection)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def whole(status: int, headers: Headers, defaults: Defaults, body: bytes) -> bytes:
    """A whole response whose Content-Length is among ``headers``; else as :func:`head`."""
    if type(headers) is KnownFields and status in _STATUS_LINES and defaults.lines:
        return b"\r\n".join((_STATUS_LINES[status], headers.lines, defaults.lines, b"", body))
    return head(status, headers, defaults=defaults) + body


@lru_cache(maxsize=64)
def size_line(size: int) -> bytes:
    """The line before a chunk of ``size`` bytes (RFC 9112 §7.1); most pieces of a body have the same size."""
    return b"%x\r\n" % size


def framed(data: bytes, framing: Framing, *, last: bool) -> list[bytes]:
    """A piece of a body as it goes over the wire (RFC 9112 §6, §7.1); without data a chunk would end the body."""
    if framing is not Framing.CHUNKED:
        return [] if framing is Framing.NONE else [data]
    parts = [size_line(len(data)), data, b"\r\n"] if data else []
    if last:
        parts.append(b"0\r\n\r\n")
    return parts


def refusal(error: RequestError, fields: DefaultFields, *, has_body: bool = True) -> bytes:
    """The whole response to a peer that is turned away before an application is asked; the connection closes after it.

    :param has_body: False when the request was HEAD.
    """
    headers, body = plain(error)
    # RFC 9110 §7.8: whoever sends Upgrade names it in Connection.
    connection = b"close, upgrade" if error.status == 426 else b"close"
    return head(error.status, fields.complete(headers), connection=connection) + (body if has_body else b"")
