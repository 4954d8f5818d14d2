"""The one writer of HTTP/1.1 responses (RFC 9112); pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus

from ..asgi.interfaces import Headers
from ..asgi.response import plain
from ..errors import RequestError
from .default_fields import DefaultFields, Defaults

__all__ = ["CONTINUE", "Framing", "delimited", "framed", "head", "last_chunk", "refusal", "size_line"]

_CLOSE = b"connection: close"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}
#: Takes a field's name and value.
_field_line = b": ".join


class Framing(Enum):
    """How the body of the current response is delimited (RFC 9112 §6.3)."""

    UNKNOWN = auto()  # the response has not begun
    NONE = auto()  # no body, whatever the fields say
    PLAIN = auto()  # by Content-Length
    UNTIL_CLOSE = auto()  # by the connection's end
    CHUNKED = auto()


def delimited(
    http_version: str, status: int, content_length: int | None, *, has_body: bool, close: bool
) -> tuple[Framing, bool, tuple[bytes, ...]]:
    """How the body of a response is delimited (RFC 9112 §6.3), with the field lines that say so.

    :param has_body: False for HEAD too, whose response has the fields of a response to GET.
    :param close: the connection closes in any case.
    :returns: the framing, whether the connection closes behind the response, and the lines.
    """
    framing = Framing.PLAIN if has_body else Framing.NONE
    if content_length is not None and http_version == "1.1":
        return framing, close, (_CLOSE,) if close else ()
    if http_version == "1.0":
        if has_body and content_length is None:
            # RFC 9112 §6.1: a 1.0 client knows no chunks; its body ends with the connection.
            framing, close = Framing.UNTIL_CLOSE, True
        return framing, close, (_CLOSE if close else b"connection: keep-alive",)
    lines = () if status in (204, 304) else (b"transfer-encoding: chunked",)
    return Framing.CHUNKED if has_body else framing, close, (*lines, _CLOSE) if close else lines


def head(
    status: int, headers: Headers, lines: Iterable[bytes] = (), defaults: Defaults = (), body: bytes = b""
) -> bytes:
    """A response's head, from the status line to the empty line, and ``body`` behind it.

    :param status: 101 or 200 to 999.
    :param headers: checked: their names are tokens, their values have no control characters. They are written as they
        are, since names have no case here (RFC 9110 §5.1) but some clients wrongly expect one.
    :param lines: further field lines, of the connection and the framing.
    :param defaults: the server's own fields that the response lacks.
    """
    parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown" % status]
    parts += map(_field_line, headers)
    if defaults:
        parts.append(_default_lines(defaults))
    parts += (*lines, b"", body)
    return b"\r\n".join(parts)


@lru_cache(maxsize=8)
def _default_lines(defaults: Defaults) -> bytes:
    """The server's own fields, which are the same for all responses of a second."""
    return b"\r\n".join(map(_field_line, defaults))


@lru_cache(maxsize=64)
def size_line(size: int) -> bytes:
    """The line before a chunk of ``size`` bytes (RFC 9112 §7.1); most pieces of a body have the same size."""
    return b"%x\r\n" % size


def framed(data: bytes, framing: Framing, *, last: bool) -> list[bytes]:
    """A piece of a body as it goes over the wire (RFC 9112 §6, §7.1); an empty chunk would end the body."""
    if framing is not Framing.CHUNKED:
        return [] if framing is Framing.NONE else [data]
    parts = [size_line(len(data)), data, b"\r\n"] if data else []
    if last:
        parts.append(last_chunk())
    return parts


def last_chunk(trailers: Headers = ()) -> bytes:
    """The end of a chunked body, with its trailer section (RFC 9112 §7.1)."""
    return b"\r\n".join((b"0", *map(_field_line, trailers), b"", b""))


def refusal(error: RequestError, fields: DefaultFields, *, has_body: bool = True) -> bytes:
    """The whole response to a peer that is turned away before an application is asked; the connection closes after it.

    :param has_body: False when the request was HEAD.
    """
    start = plain(error)
    # RFC 9110 §7.8: a sender of Upgrade must name it in Connection.
    connection = b"connection: close, upgrade" if error.status == 426 else _CLOSE
    body = error.body if has_body else b""
    return head(error.status, start.headers, (connection,), fields.lacking(start.names), body)
