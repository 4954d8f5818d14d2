"""Requests whose heads are read by llhttp, the parser of Node.js, through httptools.

It reads in a tenth of h11's time, and the same requests: what llhttp does not know, which is methods outside its list
and versions such as HTTP/1.7, is left to h11, and what either of the two is lax about is checked in :mod:`.head`.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ..asgi.scope import CHUNKED, Request
from ..errors import RequestError
from ..settings import Settings
from .head import check_framing, check_head, check_lines, request
from .reader import Fields, Reader

__all__ = ["HttptoolsReader"]

#: The methods of IANA's registry that every llhttp knows (RFC 9110 §16.1.1) and takes with HTTP/1.0 and HTTP/1.1.
_METHODS = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE OPTIONS PATCH POST "
    b"PROPFIND PROPPATCH PUT REBIND REPORT SEARCH TRACE UNBIND UNLINK UNLOCK".split()
)
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}


class _Head:
    """What llhttp calls back with. The parser owns this and not the reader, which would own it in turn."""

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
    """See :class:`.Reader`."""

    __slots__ = ("_head", "_parser")

    def __init__(self, settings: Settings, fields: Fields | None = None) -> None:
        super().__init__(settings, fields)
        self._head = _Head()
        self._parser = HttpRequestParser(self._head)

    def _parse(self, head: bytes) -> Request:
        method, version = check_head(head, self._settings.limit_head_count)
        known = _VERSIONS.get(version)
        if known is None or method not in _METHODS:
            from .h11_reader import parse

            return parse(head)
        target, headers = self._feed(head)
        check_lines(head, headers)
        read = request(method, target, headers, known)
        if read.body_size == CHUNKED:
            # As h11 gives it; case means nothing here (RFC 9112 §7).
            headers = read.headers
            headers[:] = [field if field[0] != b"transfer-encoding" else (field[0], b"chunked") for field in headers]
        if read.body_size:
            # The parser waits for the body, which it will not see.
            self._parser = HttpRequestParser(self._head)
        return read

    def _feed(self, head: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Let llhttp read a head; its target and its field lines, which are not kept while the connection is idle.

        :raises RequestError: it is malformed.
        """
        into = self._head
        try:
            self._parser.feed_data(head)
        except HttpParserUpgrade:
            self._parser = HttpRequestParser(into)
        except HttpParserError:
            # Perhaps only because of the request before, after which llhttp has seen no reason for another one.
            self._parser = HttpRequestParser(into)
            into.headers = []
            try:
                self._parser.feed_data(head)
            except HttpParserUpgrade:
                self._parser = HttpRequestParser(into)
            except HttpParserError as error:
                check_framing(head)
                raise RequestError(400, "The request's head is malformed.") from error
        read = into.target, into.headers
        into.target, into.headers = b"", []
        return read
