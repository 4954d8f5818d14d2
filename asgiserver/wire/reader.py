"""Reading requests off a connection: what both readers share, which is everything but the parser of heads.

A reader only reads: :mod:`asgiserver.wire.response` writes for all of them. Its interface is four names: ``feed``
bytes, take the ``next_event``, see how much is ``buffered``, and ``take_rest`` when the connection stops being HTTP.

A head is cut out whole and held to its limits here, so that a parser gets all of it at once and nothing else. Bodies
are framed by :mod:`.body` whichever parser has read the head.
"""

from __future__ import annotations

import re
from typing import Any

from ..asgi.interfaces import TCHAR
from ..asgi.scope import CHUNKED, Request
from ..errors import RequestError, SettingsError
from ..settings import Settings
from .body import Body, ChunkedBody, Event, LengthBody
from .head import METHODS

__all__ = ["BodyFields", "Fields", "Reader", "Readers", "reader_class"]

#: A request line but for its version, which then is one without any question; the target has no fragment.
_is_plain_line = re.compile(rb'([A-Z]{1,20}) (/[!"$-~]*)').fullmatch
#: Between such a line and the fields, to which the rest of the version belongs: it says how they are meant.
_VERSION = b" HTTP/1."

#: Most bytes of fields that are remembered, and most of such.
_MOST_BYTES, _MOST = 2048, 256

#: Most bytes of a request line that is remembered, and most of such.
_MOST_OF_LINE, _MOST_LINES = 256, 256

#: Request lines without their version, and what was read there.
_LINES: dict[bytes, tuple[str, bytes]] = {}

#: The first byte of what a TLS client sends (RFC 8446 §5.1); no request begins with it.
_TLS_HANDSHAKE = 22

#: Makes a named tuple without the function that ``NamedTuple`` writes for it, which takes three times as long.
_tuple = tuple.__new__

#: The fields of heads as they were sent, behind the last digit of the version, and what was read there: the field
#: lines, the version, and whether the connection can be used again.
Fields = dict[bytes, tuple[list[tuple[bytes, bytes]], str, bool]]

#: The same of heads before a body, with its size. Apart from the others: each size has fields of its own, so there may
#: be many of them, and where these fields end the request does not.
BodyFields = dict[bytes, tuple[list[tuple[bytes, bytes]], str, bool, int]]


class Readers:
    """Makes the readers of a server's connections, which share what they have read.

    :param settings: for the kind of reader, and the limits of a head.
    :ivar unfed: what all connections use that have sent nothing but requests which :meth:`Reader.take_whole` knows;
        it must not be fed.
    :raises SettingsError: as of :func:`reader_class`.
    """

    def __init__(self, settings: Settings) -> None:
        self._kind = reader_class(settings.http)
        self._settings = settings
        self._fields: Fields = {}
        self._body_fields: BodyFields = {}
        self.unfed = self()

    def __call__(self) -> Reader:
        """One for a connection of its own."""
        return self._kind(self._settings, self._fields, self._body_fields)


def reader_class(name: str) -> type[Reader]:
    """The reader that the setting ``http`` names; ``auto`` is httptools where it is installed.

    :raises SettingsError: httptools was asked for and is not installed.
    """
    if name != "h11":
        try:
            from .httptools_reader import HttptoolsReader

            return HttptoolsReader
        except ImportError:
            if name == "httptools":
                raise SettingsError("http: httptools is not installed: install asgiserver[standard]") from None
    from .h11_reader import H11Reader

    return H11Reader


class Reader:
    """Reads the requests of one connection, one after the other.

    A client that keeps its connection sends the same fields with one target after the other. So those of a request
    that asks for nothing special are remembered, and the parser is not asked about these bytes again.

    :param settings: for the limits of a head.
    :param fields: what was read by others, and may be read by them next.
    :param body_fields: the same of requests with a body.
    """

    __slots__ = (
        "_at", "_body", "_body_fields", "_data", "_fields", "_least_limit", "_scanned", "_settings", "buffered",
    )  # fmt: skip

    def __init__(
        self, settings: Settings, fields: Fields | None = None, body_fields: BodyFields | None = None
    ) -> None:
        self._settings = settings
        self._fields: Fields = {} if fields is None else fields
        self._body_fields: BodyFields = {} if body_fields is None else body_fields
        # What is shorter can break neither limit.
        self._least_limit = min(settings.limit_target_size, settings.limit_head_size)
        # What was fed, and how much of it was taken: a read that holds exactly one request is never copied.
        self._data = b""
        self._at = 0
        self._scanned = 0
        self._body: Body | None = None
        #: Bytes that were fed and not taken yet.
        self.buffered = 0

    @property
    def remaining(self) -> int | None:
        """Bytes of the current body that are still to come; None when chunked."""
        return 0 if self._body is None else self._body.remaining

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer; nothing is parsed yet."""
        if self.buffered:
            data = self._data[self._at :] + data
        self._data, self._at, self.buffered = data, 0, len(data)

    def take_whole(self, data: bytes) -> Request | None:
        """The request that all of ``data`` is, when its like was read before; otherwise :meth:`feed` it.

        The usual read, and the short way for it: nothing is looked for twice, and nothing is kept.
        """
        # First, as it takes long to look for what follows the line of a large read, and for nothing.
        if len(data) > self._least_limit or self.buffered or self._body is not None:
            return None
        line, _, fields = data.partition(_VERSION)
        known = self._fields.get(fields)
        # These end with the only empty line, as they did when they were remembered, so nothing follows the request.
        if known is None:
            return None
        read = _LINES.get(line) or _plain_line(line)
        if read is None:
            return None
        headers, version, keep_alive = known
        return _tuple(Request, (read[0], read[1], headers.copy(), version, 0, keep_alive, False, False))

    def take_piece(self, size: int) -> bool:
        """True when bytes of this ``size``, which need not be fed then, all are of a body that goes on behind them."""
        body = self._body
        if self.buffered or type(body) is not LengthBody:
            return False
        remaining = body.remaining
        if remaining is None or remaining <= size:
            return False
        body.remaining = remaining - size
        return True

    def next_event(self) -> Request | bytes | Event:
        """A request, a piece of its body, END after its last piece, or NEED_DATA.

        After END, or after a request whose ``body_size`` is 0, the next request is read. Nothing may be called after
        an error.

        :raises RequestError: the peer broke HTTP/1.1 or a limit.
        """
        body = self._body
        if body is None:
            return self._next_request()
        event, at = body.take(self._data, self._at)
        self._take(at)
        if event is Event.END:
            self._body = None
        return event

    def _take(self, at: int) -> None:
        """All before ``at`` is taken; an idle connection is not to keep what it has read last."""
        self.buffered = len(self._data) - at
        if self.buffered:
            self._at = at
        else:
            self._data, self._at = b"", 0

    def take_rest(self) -> bytes:
        """All bytes that were fed and not taken; the reader is done."""
        rest = self._data[self._at :]
        self._data, self._at, self.buffered = b"", 0, 0
        return rest

    def _parse(self, head: bytes) -> Request:
        """Read a whole head, from its first byte to the empty line, and no more.

        :raises RequestError: the head is malformed, or asks for what is not supported.
        """
        raise NotImplementedError

    def _next_request(self) -> Request | Event:
        data, at = self._data, self._at
        end = data.find(b"\r\n\r\n", at + self._scanned) + 4
        if end < 4 or data.startswith(b"\r\n", at):
            return self._next_head()
        behind = data.find(_VERSION, at, end)
        read = None if behind < 0 or end - at > self._least_limit else _plain_line(data[at:behind])
        if read is None:
            return self._next_head()
        fields = data[behind + len(_VERSION) : end]
        known = self._fields.get(fields)
        if known is None:
            return self._next_with_body(read, fields, end)
        self._scanned = 0
        self._take(end)
        headers, version, keep_alive = known
        return _tuple(Request, (*read, headers.copy(), version, 0, keep_alive, False, False))

    def _next_with_body(self, read: tuple[str, bytes], fields: bytes, end: int) -> Request | Event:
        known = self._body_fields.get(fields)
        if known is None:
            return self._remember(fields, self._next_head())
        self._scanned = 0
        self._take(end)
        headers, version, keep_alive, size = known
        self._begin_body(size)
        return _tuple(Request, (*read, headers.copy(), version, size, keep_alive, False, False))

    def _remember(self, fields: bytes, read: Request | Event) -> Request | Event:
        """Remember what was read in ``fields`` behind a plain line, unless they ask for something special."""
        if not isinstance(read, Request) or read.upgrade or read.expects_continue or len(fields) > _MOST_BYTES:
            return read
        known: dict[bytes, Any] = self._body_fields if read.body_size else self._fields
        if len(known) >= _MOST:
            del known[next(iter(known))]
        kept = read.headers.copy(), read.http_version, read.keep_alive
        known[fields] = (*kept, read.body_size) if read.body_size else kept
        return read

    def _next_head(self) -> Request | Event:
        head = self._take_head()
        if head is None:
            return Event.NEED_DATA
        read = self._parse(head)
        if read.body_size:
            self._begin_body(read.body_size)
        return read

    def _begin_body(self, size: int) -> None:
        if size == CHUNKED:
            self._body = ChunkedBody(self._settings.limit_head_size, self._settings.limit_head_count)
        else:
            self._body = LengthBody(size)

    def _take_head(self) -> bytes | None:
        """The bytes up to and with the empty line, once they are all there.

        :raises RequestError: 414 or 431 for one that is too large, complete or not; 400 when its end can never come.
        """
        data, at = self._data, self._at
        if not self._scanned:
            # RFC 9112 §2.2: empty lines before the request line are ignored.
            while data.startswith(b"\r\n", at):
                at += 2
            self._at = at
            self.buffered = len(data) - at
        end = data.find(b"\r\n\r\n", at + self._scanned)
        if end < 0:
            self._check_beginning(data, at)
            return None
        self._scanned = 0
        self._take(end + 4)
        head = data[at : end + 4]
        if len(head) > self._least_limit:
            self._check_size(head, len(head))
        return head

    def _check_beginning(self, data: bytes, at: int) -> None:
        """Hold a head that is not complete to its limits; a bare LF may mean that the end will never come."""
        started = len(data) - at
        if not started or data.startswith(b"\r", at) and started == 1:
            return
        if data[at] == _TLS_HANDSHAKE:
            raise RequestError(400, "The client speaks TLS, and this port speaks plain HTTP.")
        if data[at] not in TCHAR:
            raise RequestError(400, "This is not an HTTP request.")
        beginning = data[at:]
        self._check_size(beginning, started)
        # One byte more for the pairs, as the CR may be the last byte of the look before.
        seen = self._scanned
        if beginning.count(b"\n", seen) != beginning.count(b"\r\n", max(0, seen - 1)):
            raise RequestError(400, "The request's lines must end in CRLF.")
        self._scanned = max(0, started - 3)

    def _check_size(self, head: bytes, size: int) -> None:
        settings = self._settings
        line_end = head.find(b"\r\n")
        if line_end < 0:
            line_end = size - 1  # the last byte may be the CR
        if line_end - head.find(b" ") - 1 - len(" HTTP/1.1") > settings.limit_target_size:
            raise RequestError(414, f"The request's target is longer than {settings.limit_target_size} bytes.")
        if size > settings.limit_head_size:
            raise RequestError(431, f"The request's head is larger than {settings.limit_head_size} bytes.")


def _plain_line(line: bytes) -> tuple[str, bytes] | None:
    """The method and the target of a request line without its version; None when it is not a plain one."""
    match = _is_plain_line(line)
    if match is None or match[1] not in METHODS:
        return None
    read = METHODS[match[1]], match[2]
    if len(line) <= _MOST_OF_LINE:
        if len(_LINES) >= _MOST_LINES:
            _LINES.clear()
        _LINES[line] = read
    return read
