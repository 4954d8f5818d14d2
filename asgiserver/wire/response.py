"""The one writer of HTTP/1.1 responses (RFC 9112); pure."""

from __future__ import annotations

from http import HTTPStatus

from ..asgi.default_fields import DefaultFields
from ..asgi.interfaces import Headers
from ..errors import RequestError

__all__ = ["CONTINUE", "LAST_CHUNK", "chunk", "head", "refusal"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def head(status: int, headers: Headers, *, chunked: bool = False, connection: bytes = b"") -> bytes:
    """A response's head, from the status line to the empty line.

    :param status: 101 or 200 to 999.
    :param headers: checked: no CR, LF or NUL anywhere in them.
    :param chunked: say that the body is chunked.
    :param connection: value of the Connection field; none when empty.
    """
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status]
    lines += [b"%b: %b\r\n" % field for field in headers]
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    if connection:
        lines.append(b"connection: %b\r\n" % connection)
    lines.append(b"\r\n")
    return b"".join(lines)


def chunk(data: bytes) -> bytes:
    """The size line before a chunk's data (RFC 9112 §7.1); a chunk of no data would end the body."""
    assert data
    return b"%x\r\n" % len(data)


def refusal(error: RequestError, fields: DefaultFields, *, has_body: bool = True) -> bytes:
    """The whole response to a peer that is turned away before an application is asked; the connection closes after it.

    :param has_body: False when the request was HEAD.
    """
    body = f"{error.reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        *error.headers,
    ]
    return head(error.status, fields.complete(headers), connection=b"close") + (body if has_body else b"")
