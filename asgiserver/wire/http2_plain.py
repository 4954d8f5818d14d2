"""The usual request of HTTP/2, read in one pass: no body, each field once, nothing in it that has to be judged.

All others take the way of :func:`.http2_fields.careful_request`, which would read these alike.
"""

from __future__ import annotations

import re

from ..asgi.fields import CONNECTION_SPECIFIC
from ..asgi.scope import Request
from ..asgi.tokens import TCHAR
from .head import METHODS, TEXT, is_authority

__all__ = ["FORBIDDEN", "NAME", "Fields", "plain_request"]

#: As the decoder gives them.
Fields = list[tuple[bytes, bytes]]

#: The bytes of a name (RFC 9113 §8.2.1): none of them is a capital, nor the colon of a pseudo-header.
NAME = bytes(set(TCHAR) - set(range(ord("A"), ord("Z") + 1)))
#: RFC 9113 §8.2.2; ``te`` is judged by its value.
FORBIDDEN = CONNECTION_SPECIFIC - {b"te"}
#: The bytes of a name without an underscore: :func:`.head.request` drops a field that has one.
_PLAIN_NAME = bytes(set(NAME) - {ord("_")})
#: The fields that say what a server has to do with a request, or that no request of HTTP/2 may have.
_JUDGED = FORBIDDEN | {b"content-length", b"expect", b"host", b"te"}
_is_plain_path = re.compile(rb'/[!"$-~]*').fullmatch
#: Makes a named tuple without the ``__new__`` that ``NamedTuple`` generates, which is slower.
_tuple = tuple.__new__


def plain_request(fields: Fields, limit_target: int) -> Request | None:
    """Make a request without a body, in one pass; None when there is anything in it that has to be judged.

    :param fields: as the decoder gave them.
    :param limit_target: most bytes of the target.
    """
    known = dict(fields)
    method = METHODS.get(known.get(b":method", b""))
    path, authority = known.get(b":path"), known.get(b":authority")
    if method is None or path is None or authority is None or known.get(b":scheme") not in (b"https", b"http"):
        return None
    if len(known) != len(fields) or b"" in known or not _JUDGED.isdisjoint(known):
        return None
    # All names differ and none of these has a colon, so the four before them are all the pseudo-headers.
    headers = fields[4:]
    values = [value for _, value in headers]
    if b"".join([name for name, _ in headers]).translate(None, _PLAIN_NAME) or b"".join(values).translate(None, TEXT):
        return None
    if [value.strip() for value in values] != values:
        return None
    if not _is_plain_path(path) or len(path) > limit_target or not authority or not is_authority(authority):
        return None
    headers.insert(0, (b"host", authority))
    return _tuple(Request, (method, path, headers, "2", 0, True, False, False, False, True))
