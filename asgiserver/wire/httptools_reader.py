"""Requests whose heads are read by llhttp, the parser of Node.js, through httptools.

It reads the same requests as h11, and faster. Methods outside llhttp's list, and versions such as HTTP/1.7, are left to
h11, and :mod:`.head` checks what either of the two is lax about.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ..asgi.scope import CHUNKED, Request
from ..errors import RequestError
from .head import check_framing, check_head, check_lines, request
from .reader import Reader

__all__ = ["HttptoolsReader"]

#: The methods of IANA's registry that every llhttp knows (RFC 9110 §16.1.1) and takes with HTTP/1.0 and HTTP/1.1.
_METHODS = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE OPTIONS PATCH POST "
    b"PROPFIND PROPPATCH PUT REBIND REPORT SEARCH TRACE UNBIND UNLINK UNLOCK".split()
)
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}


class _Head:
    """What llhttp calls back with."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        """The request's target; whole, since the head is fed whole."""
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field line; llhttp leaves the white space behind a value to us."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))


class HttptoolsReader(Reader):
    """See :class:`.Reader`.

    Each head has a parser of its own, as one that is kept would keep the last head that it has read.
    """

    __slots__ = ()

    def _parse(self, head: bytes) -> Request:
        method, version = check_head(head, self._settings.limit_head_count)
        check_framing(head)
        known = _VERSIONS.get(version)
        if known is None or method not in _METHODS:
            from .h11_reader import parse

            return parse(head)
        into = _Head()
        try:
            HttpRequestParser(into).feed_data(head)
        except HttpParserUpgrade:
            pass  # it says that what follows is not HTTP, which is not its business
        except HttpParserError as error:
            raise RequestError(400, "The request's head is malformed.") from error
        check_lines(head, into.headers)
        read = request(method, into.target, into.headers, known)
        if read.body_size == CHUNKED:
            # As h11 gives it; case means nothing here (RFC 9112 §7).
            headers = read.headers
            headers[:] = [field if field[0] != b"transfer-encoding" else (field[0], b"chunked") for field in headers]
        return read
