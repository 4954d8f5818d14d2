"""The two ends of a connection, as its transport names them."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.interfaces import ISSLTransport

from ..asgi.scope import Addresses, unmapped
from ..transport.tls_details import details_of

__all__ = ["address_of", "addresses_of"]

#: Our own addresses, so that all connections to the same address share one object; and the most that are kept.
_SERVERS: dict[Any, Any] = {}
_MOST_SERVERS = 256


def addresses_of(transport: Any) -> Addresses:
    """The ends of a connection, those that a PROXY header has announced among them."""
    client, server = address_of(transport.getPeer()), address_of(transport.getHost())
    if client is not None and client[1] is None:
        client = None
    # Shared objects save memory on idle connections: the transport keeps the peer's address anyway, and few addresses
    # are listened on.
    kept = getattr(transport, "client", None)
    if isinstance(kept, tuple) and kept[:2] == client:
        client = kept[:2]
    if len(_SERVERS) >= _MOST_SERVERS:
        _SERVERS.clear()
    server = _SERVERS.setdefault(server, server)
    secure = ISSLTransport.providedBy(transport)
    tls = details_of(transport) if secure else None
    # An attribute that a wrapper lacks is looked up on the transport in it.
    header = getattr(transport, "proxy_header", None)
    if header is None or header.client is None:
        return Addresses(client, server, secure, tls=tls)  # type: ignore[arg-type]
    proxy = getattr(transport, "proxy", None)
    secure = secure or header.secure
    return Addresses(client, server, secure, announced=True, proxy=proxy, tls=tls)  # type: ignore[arg-type]


def address_of(address: Any) -> tuple[str, int | None] | None:
    """The host and port of a Twisted address; for a unix socket, its path and None, or None when it has no name."""
    host = getattr(address, "host", None)
    if host is not None:
        return unmapped(host), address.port
    name = getattr(address, "name", None)
    return (os.fsdecode(name), None) if name else None
