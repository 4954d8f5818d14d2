"""The opening handshake of a WebSocket, over HTTP/1.1 (RFC 6455 §4.2) and HTTP/2 (RFC 8441): its checks and its answer.

Pure functions over the field lines as the reader saw them. The frame engine has no part in the handshake: so a denial
is an ordinary HTTP response, the scope has the peer's own lines, and no byte is parsed twice.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from ..asgi.interfaces import Headers
from ..asgi.tokens import TOKEN
from ..errors import RequestError

__all__ = ["Extension", "Upgrade", "accept_key", "check", "is_upgrade", "parse_extensions", "response_headers"]

#: RFC 6455 §1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_SPACE = rb"[ \t]*"
_is_token = re.compile(TOKEN).fullmatch
# RFC 6455 §9.1: a quoted value must be a token once it is unquoted, so it has no escapes, commas or semicolons.
_PARAMETER = rb";" + _SPACE + rb"(" + TOKEN + rb")" + _SPACE + rb'(?:=' + _SPACE + rb'("?)(' + TOKEN + rb")\2)?"
_parameter = re.compile(_PARAMETER + _SPACE)
_extension = re.compile(_SPACE + rb"(" + TOKEN + rb")" + _SPACE)
#: Extensions and parameters that a client may offer together, empty ones among them; browsers offer one or two.
_MOST_OFFERED = 100


class Extension(NamedTuple):
    """One offer in ``Sec-WebSocket-Extensions``: a name and its parameters; a parameter without a value has None."""

    name: str
    parameters: list[tuple[str, str | None]]


class Upgrade(NamedTuple):
    """The content of a checked opening handshake.

    :param key: the value of ``Sec-WebSocket-Key`` as it was sent; None in an extended CONNECT, which needs none.
    :param subprotocols: those that the client offers, in its order of preference, without duplicates.
    :param extensions: the offers of all ``Sec-WebSocket-Extensions`` lines, in the client's order.
    """

    key: bytes | None
    subprotocols: list[str]
    extensions: list[Extension]


def is_upgrade(method: str, http_version: str, headers: Headers) -> bool:
    """True when the request asks to become a WebSocket (RFC 6455 §4.2.1); :func:`check` tells whether it is valid.

    An ``Upgrade`` to another protocol, or one that ``Connection`` does not name, is ignored, as RFC 9110 §7.8 allows.
    An ``Upgrade`` in HTTP/1.0 is ignored, as it demands.
    """
    if method == "CONNECT" or http_version != "1.1":
        return False
    return _has_token(headers, b"upgrade", b"websocket") and _has_token(headers, b"connection", b"upgrade")


def check(method: str, headers: Headers, has_body: bool) -> Upgrade:
    """Check the opening handshake of a request that asks for a WebSocket (``Request.upgrade``).

    :param method: ``"CONNECT"`` is an extended CONNECT whose ``:protocol`` the wire has read (RFC 8441 §4); a key, and
        fields of the connection, mean nothing there (§5).
    :param has_body: the request has a Content-Length above 0 or a Transfer-Encoding. Its bytes could not be told
        from frames. An extended CONNECT has always frames to follow, and must have no Content-Length instead.
    :raises RequestError: 426 (400 to an extended CONNECT) for another version of the protocol than 13, 400 for anything
        else.
    """
    extended = method == "CONNECT"
    if not extended and method != "GET":
        raise RequestError(400, "A WebSocket must be opened with GET.")
    if _values(headers, b"content-length") if extended else has_body:
        raise RequestError(400, "The opening handshake of a WebSocket must not have a body.")
    if _values(headers, b"sec-websocket-version") != [b"13"]:
        # RFC 6455 §4.4: the answer names the versions that the server understands. RFC 9110 §15.5.22: a 426 must have
        # Upgrade, which HTTP/2 has not.
        understood, upgrade = (b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")
        status, fields = (400, (understood,)) if extended else (426, (understood, upgrade))
        raise RequestError(status, "Only version 13 of WebSocket is spoken here.", fields)
    extensions = parse_extensions(b", ".join(_values(headers, b"sec-websocket-extensions")))
    return Upgrade(None if extended else _key(headers), _subprotocols(headers), extensions)


def accept_key(key: bytes) -> bytes:
    """The value of ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455 §4.2.2)."""
    import hashlib

    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def response_headers(upgrade: Upgrade, subprotocol: str | None, extensions: str) -> list[tuple[bytes, bytes]]:
    """The field lines of a 101 (RFC 6455 §4.2.2), or of the 200 to an extended CONNECT, that belong to the handshake.

    :param subprotocol: one of ``upgrade.subprotocols``, or None.
    :param extensions: the value of the negotiated extensions, or an empty string.
    """
    headers = []
    if upgrade.key is not None:
        headers += [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", accept_key(upgrade.key)),
        ]
    if subprotocol is not None:
        headers.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if extensions:
        headers.append((b"sec-websocket-extensions", extensions.encode("ascii")))
    return headers


def parse_extensions(value: bytes) -> list[Extension]:
    """Parse the joined value of ``Sec-WebSocket-Extensions`` lines; names and parameters come in lower case.

    :raises RequestError: 400 when the value does not follow RFC 6455 §9.1, or has more than a hundred separators.
    """
    # Neither separator may stand in a value.
    if value.count(b",") + value.count(b";") > _MOST_OFFERED:
        raise RequestError(400, "There are too many extensions in Sec-WebSocket-Extensions.")
    # RFC 9110 §5.6.1.2: a reasonable number of empty elements is to be ignored.
    return [_parse_extension(element) for element in value.split(b",") if element.strip(b" \t")]


def _parse_extension(element: bytes) -> Extension:
    name = match = _extension.match(element)
    parameters: list[tuple[str, str | None]] = []
    while match is not None:
        at = match.end()
        if at == len(element):
            assert name is not None
            return Extension(name[1].decode("ascii").lower(), parameters)
        match = _parameter.match(element, at)
        if match is not None:
            parameters.append((match[1].decode("ascii").lower(), match[3].decode("ascii") if match[3] else None))
    raise RequestError(400, "The Sec-WebSocket-Extensions field is malformed.")


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value.strip(b" \t") for field, value in headers if field == name]


def _elements(headers: Headers, name: bytes) -> list[bytes]:
    """The elements of a list field (RFC 9110 §5.6.1) from all its lines, without empty ones."""
    elements = (element.strip(b" \t") for value in _values(headers, name) for element in value.split(b","))
    return [element for element in elements if element]


def _has_token(headers: Headers, name: bytes, token: bytes) -> bool:
    return any(element.lower() == token for element in _elements(headers, name))


def _key(headers: Headers) -> bytes:
    keys = _values(headers, b"sec-websocket-key")
    if len(keys) != 1:
        raise RequestError(400, "There must be one Sec-WebSocket-Key field.")
    try:
        size = len(base64.b64decode(keys[0], validate=True))
    except binascii.Error:
        size = -1
    # The length check refuses characters after the padding, which Python's decoder lets pass.
    if size != 16 or len(keys[0]) != 24:
        raise RequestError(400, "The Sec-WebSocket-Key must be 16 bytes in base64.")
    return keys[0]


def _subprotocols(headers: Headers) -> list[str]:
    offered = _elements(headers, b"sec-websocket-protocol")
    if not all(map(_is_token, offered)):
        raise RequestError(400, "Each subprotocol in Sec-WebSocket-Protocol must be a token.")
    # RFC 6455 §4.1: they must all be unique.
    if len(set(offered)) != len(offered):
        raise RequestError(400, "The subprotocols in Sec-WebSocket-Protocol must differ from each other.")
    return [subprotocol.decode("ascii") for subprotocol in offered]
