"""Requests without TLS, sent on to the same host and target by https (RFC 9110 §15.4.9)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn

from ..asgi.interfaces import Stream
from ..asgi.scope import Addresses, Request
from ..errors import RequestError

if TYPE_CHECKING:
    from .connection import WireHub

__all__ = ["RedirectingHub", "location"]

#: A host, which may be an IPv6 address in brackets, and a port (RFC 9110 §7.2); the reader has checked the characters.
_HOST = re.compile(rb"(\[.*\]|[^:]+)(?::([0-9]{0,5}))?")


class RedirectingHub:
    """The hub of a port without TLS: no request reaches the application, all else is the server's own.

    :param hub: the server.
    :param port: the port of TLS on this machine.
    """

    def __init__(self, hub: WireHub, port: int) -> None:
        self._hub = hub
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def open_exchange(self, request: Request, stream: Stream, addresses: Addresses) -> NoReturn:
        """Refuse ``request``.

        :raises RequestError: 308 with the https address; 400 when the request names no host.
        """
        own = addresses.server[1] if addresses.server is not None else None
        host = next((value for name, value in request.headers if name == b"host"), b"")
        there = location(host, request.target, own, self._port)
        if there is None:
            raise RequestError(400, "This port sends requests on to https: name the host.")
        raise RequestError(308, "Ask for the https address.", ((b"location", there),))


def location(host: bytes, target: bytes, plain: int | None, secure: int) -> bytes | None:
    """The https address of what a client has asked for; None when it has named no host.

    A client that names the plain port, or no port where that is 80, has connected to this machine as it is, and is sent
    to the port of TLS. Any other port tells of a mapping in between, as a container's, whose port of TLS is not known
    here: then it is the usual one.

    :param host: the value of the field Host.
    :param target: the origin-form of the target, or ``*``.
    :param plain: the port that the client has connected to.
    :param secure: the port of TLS on this machine.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return None
    port = secure if int(found[2] or 80) == plain else 443
    return b"https://%b%b%b" % (found[1], b"" if port == 443 else b":%d" % port, b"/" if target == b"*" else target)
