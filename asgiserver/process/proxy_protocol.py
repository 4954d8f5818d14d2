"""The PROXY protocol of HAProxy, versions 1 and 2: the client's address in front of a connection's first byte.

Twisted parses it; what is done here is what Twisted 26.10 leaves open:

- a header that comes in several segments is put together before it is looked at;
- the short form ``PROXY UNKNOWN\\r\\n``, which HAProxy itself sends for its health checks, keeps the socket's address;
- a header with an impossible address, port or family closes the connection instead of raising, or of being believed.

``connectionMade`` of the wrapped protocol comes *before* the header: its transport tells the client's address from the
first ``dataReceived`` on. A peer that sends no header is the wrapped protocol's to wait for, and to drop.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from zope.interface import implementer

__all__ = ["ProxiedConnection", "ProxiedFactory", "header_size"]

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
#: The longest header of version 1, its CRLF included (PROXY protocol §2.1).
_V1_LIMIT = 107
_V2_FIXED = 16


def header_size(data: bytes) -> int | None:
    """How many bytes of ``data`` are the header, None while more is needed to tell; at most 65,551.

    :raises ValueError: when ``data`` does not begin with a header.
    """
    if data.startswith(_V1[: len(data)]):
        end = data.find(b"\r\n", 0, _V1_LIMIT)
        if end < 0 and len(data) >= _V1_LIMIT:
            raise ValueError("the PROXY line is too long")
        return end + 2 if end >= 0 else None
    if data.startswith(_V2[: len(data)]):
        if len(data) < _V2_FIXED:
            return None
        size = _V2_FIXED + int.from_bytes(data[14:16], "big")
        return size if len(data) >= size else None
    raise ValueError("no PROXY header")


@implementer(IHalfCloseableProtocol)
class ProxiedConnection(HAProxyProtocolWrapper):
    """A connection that is closed unless it begins with a PROXY header, which its peer's address is taken from."""

    wrappedProtocol: Any  # noqa: N815
    _head = b""

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """The peer has ended its direction."""
        self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Our direction is closed."""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        if self._proxyInfo is None:
            data = self._after_header(data)
        if data:
            self.wrappedProtocol.dataReceived(data)

    def _after_header(self, data: bytes) -> bytes:
        """What follows the header; empty while it is not complete, and when it is refused."""
        self._head += data
        try:
            size = header_size(self._head)
            if size is None:
                return b""
            self._read_header(self._head[:size])
        except (ValueError, LookupError):
            # LookupError: Twisted's table of address families has gaps.
            self._proxyInfo = None
            self.loseConnection()  # type: ignore[no-untyped-call]
            return b""
        rest, self._head = self._head[size:], b""
        return rest

    def _read_header(self, header: bytes) -> None:
        # Twisted wants something after UNKNOWN; §2.1 says that the sender may leave it out.
        super().dataReceived(b"PROXY UNKNOWN \r\n" if header == b"PROXY UNKNOWN\r\n" else header)
        if self._proxyInfo is None:
            raise ValueError("Twisted refused the header")
        _check(self._proxyInfo.source)
        _check(self._proxyInfo.destination)


class ProxiedFactory(HAProxyWrappingFactory):
    """Wraps a factory whose connections come through a proxy that speaks the PROXY protocol."""

    noisy = False
    protocol = ProxiedConnection  # type: ignore[assignment] # Twisted's base is an invariant generic


def _check(address: object) -> None:
    """:raises ValueError: when a TCP address is not one."""
    if isinstance(address, IPv4Address):
        ipaddress.IPv4Address(address.host)
    elif isinstance(address, IPv6Address):
        ipaddress.IPv6Address(address.host)
    else:
        return
    if not 0 <= address.port <= 65535:
        raise ValueError("a port out of range")
