"""The fields of HTTP/2 (RFC 9113 §8): what a request's mean, and the block of a response; pure.

A request that RFC 9113 calls malformed is none to answer, so its stream is reset. Whatever else is wrong with a request
is judged by the functions of :mod:`.head` and answered as in HTTP/1.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..asgi.interfaces import Headers
from ..asgi.scope import CHUNKED, Request
from ..asgi.tokens import TCHAR
from ..errors import RequestError
from .default_fields import Defaults
from .head import TEXT, check_target_size, request
from .hpack import encode
from .http2_plain import FORBIDDEN, NAME, Fields, plain_request

__all__ = ["Fields", "MalformedRequest", "careful_request", "read_request", "read_trailers", "response_block"]

_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority", b":protocol"))
_is_path = re.compile(rb"/[!-~]*|\*").fullmatch


class MalformedRequest(Exception):
    """A request is malformed: a stream error of type PROTOCOL_ERROR (RFC 9113 §8.1.1). The text says why."""


def read_request(fields: Fields, limit_target: int, *, ended: bool) -> Request:
    """Make a request of the fields of its HEADERS frame.

    An extended CONNECT (RFC 8441) has the method CONNECT and ``upgrade``; its target is the one of the WebSocket.

    :param fields: as the decoder gave them.
    :param limit_target: most bytes of the target.
    :param ended: END_STREAM stands on the frame, so there is no body. Else a body without Content-Length has the size
        :data:`~asgiserver.asgi.scope.CHUNKED`.
    :raises MalformedRequest: the stream is to be reset.
    :raises RequestError: 400, 414, 417, 501: the request is to be answered so.
    """
    return (ended and plain_request(fields, limit_target)) or careful_request(fields, limit_target, ended=ended)


def careful_request(fields: Fields, limit_target: int, *, ended: bool) -> Request:
    """Make any request: see :func:`read_request`."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        pseudo[name] = value
    # Of a duplicate the last is left among the fields, where no name may begin with a colon.
    headers = fields[len(pseudo) :]
    known = dict(headers)
    _check(fields, known)
    if not _PSEUDO.issuperset(pseudo):
        raise MalformedRequest("An unknown pseudo-header.")
    if b"cookie" in known and len(known) != len(headers):
        headers = _with_one_cookie(headers)
    headers = _with_host(pseudo.get(b":authority"), headers, known)
    if pseudo.get(b":method") == b"CONNECT":
        return _connect(pseudo, headers, limit_target)
    method, target = _request_line(pseudo, limit_target)
    if b":protocol" in pseudo:
        raise MalformedRequest("A :protocol without CONNECT.")
    read = request(method, target, headers, "2", 0 if ended else CHUNKED)
    if ended and read.body_size:
        raise MalformedRequest("A Content-Length without a body.")
    return read


def read_trailers(fields: Fields) -> None:
    """Check the fields behind a request's body, of which ASGI makes no use (RFC 9113 §8.1).

    :raises MalformedRequest: they have a pseudo-header, or what no request may have.
    """
    _check(fields, dict(fields))


def _check(fields: Fields, known: dict[bytes, bytes]) -> None:
    """Check names and values (RFC 9113 §8.2.1, §8.2.2).

    :param known: the fields that are no pseudo-headers; of those that have the same name, the last.
    """
    if b"" in known or b"".join(known).translate(None, NAME):
        raise MalformedRequest("A field's name is no token in lower case, or a pseudo-header is out of place.")
    values = [value for _, value in fields]
    # All values are checked at once, since hardly any is ever wrong.
    if b"".join(values).translate(None, TEXT):
        raise MalformedRequest("A field's value has a control character.")
    if [value.strip() for value in values] != values:
        raise MalformedRequest("A field's value begins or ends with a space.")
    if not FORBIDDEN.isdisjoint(known):
        raise MalformedRequest("A field that controls an HTTP/1 connection.")
    if b"te" in known and any(name == b"te" and value.lower() != b"trailers" for name, value in fields):
        raise MalformedRequest("A TE other than trailers.")


def _with_host(authority: bytes | None, headers: Fields, known: dict[bytes, bytes]) -> Fields:
    """``headers`` with the Host that :authority makes, where there is one (RFC 9113 §8.3.1)."""
    hosts = [value for name, value in headers if name == b"host"] if b"host" in known else []
    if authority == b"" or b"" in hosts or authority is None and not hosts:
        raise MalformedRequest("Neither :authority nor Host, or an empty one.")
    if authority is None:
        return headers
    # The HTTP & WebSocket spec of ASGI puts it first.
    if not hosts:
        return [(b"host", authority), *headers]
    if any(host.lower() != authority.lower() for host in hosts):
        raise MalformedRequest("A Host that differs from :authority.")
    return [(b"host", authority), *(field for field in headers if field[0] != b"host")]


def _request_line(pseudo: dict[bytes, bytes], limit_target: int) -> tuple[bytes, bytes]:
    """The method and the target (RFC 9113 §8.3.1)."""
    method, scheme, path = pseudo.get(b":method"), pseudo.get(b":scheme"), pseudo.get(b":path")
    if method is None or scheme is None or path is None:
        raise MalformedRequest("No :method, :scheme or :path.")
    if not method or method.translate(None, TCHAR):
        raise MalformedRequest("A :method that is no token.")
    if not _is_path(path):
        raise MalformedRequest("A :path that is no path.")
    if scheme.lower() not in (b"https", b"http"):
        raise RequestError(400, "The request's scheme must be http or https.")
    check_target_size(len(path), limit_target)
    return method, path


def _connect(pseudo: dict[bytes, bytes], headers: Fields, limit_target: int) -> Request:
    """A WebSocket's CONNECT (RFC 8441 §4, §5); one without :protocol asks for a proxy (RFC 9113 §8.5)."""
    protocol = pseudo.get(b":protocol")
    if b":authority" not in pseudo:
        raise MalformedRequest("A CONNECT without :authority.")
    if protocol is None:
        if len(pseudo) != 2:
            raise MalformedRequest("A CONNECT with :scheme or :path.")
        return request(b"CONNECT", pseudo[b":authority"], headers, "2")
    _, target = _request_line(pseudo, limit_target)
    if protocol.lower() != b"websocket":
        raise RequestError(501, "The only protocol that is supported is websocket.")
    # RFC 8441 §5: the target is read as that of the GET in HTTP/1.
    return request(b"GET", target, headers, "2")._replace(method="CONNECT", upgrade=True)


def _with_one_cookie(headers: Fields) -> Fields:
    """``headers`` with all Cookie lines joined in the place of the first (RFC 9113 §8.2.3)."""
    cookies = [field for field in headers if field[0] == b"cookie"]
    at = headers.index(cookies[0])
    others = [field for field in headers if field[0] != b"cookie"]
    others.insert(at, (b"cookie", b"; ".join([value for _, value in cookies])))
    return others


def response_block(status: int, headers: Headers, names: list[bytes], defaults: Defaults = ()) -> bytes:
    """The block of a response's head.

    :param status: 100, 103, or 200 to 999.
    :param headers: checked, as :func:`~asgiserver.asgi.fields.parse_fields` gives them.
    :param names: theirs in lower case (RFC 9113 §8.2.1).
    :param defaults: the server's own fields that the response lacks.
    """
    fields = zip(names, [value for _, value in headers], strict=True)
    return _status_block(status) + encode(fields) + _default_block(defaults)


@lru_cache(maxsize=64)
def _status_block(status: int) -> bytes:
    return encode([(b":status", b"%d" % status)], compress=True)


@lru_cache(maxsize=8)
def _default_block(defaults: Defaults) -> bytes:
    """The server's own fields, which are the same for all responses of a second."""
    return encode(defaults, compress=True)
