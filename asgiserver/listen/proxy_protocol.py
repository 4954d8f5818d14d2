"""The PROXY protocol of HAProxy, versions 1 and 2: the client's address in front of a connection's first byte.

The header is for the server and not for the client's TLS, so it is taken next to the socket, below TLS. Twisted's own
wrapper takes it above, and believes every sender; its parser takes ports such as ``+1``, and addresses with a zone.

``connectionMade`` of the wrapped protocol comes *before* the header: its transport tells the client's address from the
first ``dataReceived`` on. A peer that sends no header is the wrapped protocol's to wait for, and to drop.

Clauses are those of https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import logging
import re
import socket
import struct
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import alsoProvides

from ..asgi.forwarded import TrustedPeers
from ..asgi.scope import unmapped

__all__ = ["Header", "HeaderFirstReactor", "ProxiedConnection", "ProxiedFactory", "parse"]

logger = logging.getLogger("asgiserver.wire")

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
#: The longest header of version 1, its CRLF included (§2.1).
_V1_LIMIT = 107
_V2_FIXED = 16
#: The most that follows the fixed part. A header may say 65,535, but HAProxy sends no more than it has buffer for.
_V2_LIMIT = 16384

# §2.1: one space between the parts, and no zero in front of a port.
_V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]*) (0|[1-9][0-9]*))\r\n",
    re.DOTALL,
)
_V1_FAMILIES = {b"4": socket.AF_INET, b"6": socket.AF_INET6}

# §2.2: the families, and the bytes of one of their addresses; and the byte that has family and transport protocol.
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_ADDRESS_SIZE = {_INET: 4, _INET6: 16, _UNIX: 108}
_KINDS = frozenset((0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32))
_LOCAL, _PROXY = 0x20, 0x21
#: §2.2.6: the field that tells of TLS, the bytes before what is nested in it, and the bit "the client used TLS".
_TYPE_SSL = 0x20
_SSL_FIXED = 5
_CLIENT_SSL = 0x01

_Address = IPv4Address | IPv6Address | UNIXAddress


class Header(NamedTuple):
    """What a PROXY header says.

    :param size: bytes of the header.
    :param client: the announced client; None when none is announced, and the connection's own addresses hold.
    :param server: the announced address that the client has connected to; None with ``client``.
    :param secure: the client has connected to the proxy over TLS.
    """

    size: int
    client: _Address | None = None
    server: _Address | None = None
    secure: bool = False


def parse(data: bytes | bytearray) -> Header | None:
    """The header that ``data`` begins with, None while more of it is needed.

    :raises ValueError: ``data`` does not begin with a header, in words for a log.
    """
    if data.startswith(_V1[: len(data)]):
        end = data.find(b"\r\n", 0, _V1_LIMIT)
        if end < 0 and len(data) >= _V1_LIMIT:
            raise ValueError("the line of its PROXY header is too long")
        return _parse_line(bytes(data[: end + 2])) if end >= 0 else None
    if not data.startswith(_V2[: len(data)]):
        raise ValueError("it does not begin with a PROXY header")
    if len(data) < _V2_FIXED:
        return None
    size = int.from_bytes(data[14:16], "big")
    if size > _V2_LIMIT:
        raise ValueError("its PROXY header is too long")
    end = _V2_FIXED + size
    return _parse_block(data[12], data[13], bytes(data[_V2_FIXED:end])) if len(data) >= end else None


def _parse_line(line: bytes) -> Header:
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise ValueError("the line of its PROXY header is malformed")
    family, *ends = match.groups()
    if family is None:
        return Header(len(line))
    packed = [_packed(_V1_FAMILIES[family], text.decode("ascii")) for text in ends[:2]]
    ports = [int(digits) for digits in ends[2:]]
    if max(ports) > 65535:
        raise ValueError("a port in its PROXY header is out of range")
    client, server = map(_internet, packed, ports)
    return Header(len(line), client, server)


def _packed(family: socket.AddressFamily, text: str) -> bytes:
    try:
        return socket.inet_pton(family, text)
    except OSError:
        raise ValueError("an address in its PROXY header is malformed") from None


def _parse_block(command: int, kind: int, block: bytes) -> Header:
    """Version 2, behind the signature.

    :param command: the byte with version and command.
    :param kind: the byte with address family and transport protocol.
    """
    whole = _V2_FIXED + len(block)
    if command == _LOCAL:
        # The proxy's own, such as a health check; what else it says is to be discarded.
        return Header(whole)
    if command != _PROXY:
        raise ValueError("the version or command of its PROXY header is unknown")
    if kind not in _KINDS:
        raise ValueError("the family or protocol in its PROXY header is unknown")
    family = kind >> 4
    if family == _UNSPECIFIED:
        return Header(whole)
    size = _ADDRESS_SIZE[family]
    end = 2 * size + (0 if family == _UNIX else 4)
    if len(block) < end:
        raise ValueError("the addresses in its PROXY header are cut off")
    addresses = block[:size], block[size : 2 * size]
    if family == _UNIX:
        client, server = map(_unix, addresses)
    else:
        client, server = map(_internet, addresses, struct.unpack("!HH", block[end - 4 : end]))
    return Header(whole, client, server, _is_secure(block[end:]))


def _internet(packed: bytes, port: int) -> _Address:
    """The address as the system writes it, an IPv4-mapped one as IPv4."""
    host = unmapped(socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed))
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


def _unix(path: bytes) -> _Address:
    return UNIXAddress(path.partition(b"\0")[0] or None)


def _is_secure(fields: bytes) -> bool:
    """True when one of the fields that follow the addresses (§2.2) says that the client used TLS."""
    secure, at = False, 0
    while at < len(fields):
        value = at + 3
        end = value + int.from_bytes(fields[at + 1 : value], "big")
        if len(fields) < max(value, end) or fields[at] == _TYPE_SSL and end - value < _SSL_FIXED:
            raise ValueError("a field of its PROXY header is cut off")
        secure |= fields[at] == _TYPE_SSL and bool(fields[value] & _CLIENT_SSL)
        at = end
    return secure


class ProxiedConnection(ProtocolWrapper):
    """A connection that is closed unless it begins with a PROXY header, which its addresses are taken from.

    :ivar proxy_header: what the header says; None until it is complete.
    :ivar proxy: address and port of the machine that has connected, None on a unix socket.
    """

    wrappedProtocol: Any  # noqa: N815 - Twisted's name
    transport: Any
    proxy_header: Header | None = None
    _refused = False

    def __init__(self, factory: ProxiedFactory, wrapped: Any, proxy: tuple[str, int] | None) -> None:
        super().__init__(factory, wrapped)  # type: ignore[arg-type] # it asks for a factory of itself
        self.proxy = proxy
        self._head = bytearray()

    def makeConnection(self, transport: Any) -> None:  # noqa: N802 - Twisted's name
        """The proxy has connected."""
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            alsoProvides(self, IHalfCloseableProtocol)

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """The peer has ended its direction."""
        self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Our direction is closed behind all that was written."""
        self.wrappedProtocol.writeConnectionLost()

    def getPeer(self) -> Any:  # noqa: N802 - Twisted's name
        """The announced client, the proxy itself when it announces none."""
        header = self.proxy_header
        return self.transport.getPeer() if header is None or header.client is None else header.client

    def getHost(self) -> Any:  # noqa: N802 - Twisted's name
        """What the announced client has connected to, our own end when the proxy announces none."""
        header = self.proxy_header
        return self.transport.getHost() if header is None or header.server is None else header.server

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Take the header, and hand on what follows it."""
        if self.proxy_header is None:
            data = self._after_header(data)
        if data:
            self.wrappedProtocol.dataReceived(data)

    def _after_header(self, data: bytes) -> bytes:
        """What follows the header; empty while it is not complete, and when it is refused."""
        if self._refused:
            return b""
        self._head += data
        try:
            self.proxy_header = header = parse(self._head)
        except ValueError as error:
            self._refused = True
            self._head.clear()
            logger.info("Refused a connection from %s: %s", _shown(self.proxy), error)
            self.loseConnection()  # type: ignore[no-untyped-call]
            return b""
        if header is None:
            return b""
        rest = bytes(self._head[header.size :])
        self._head.clear()
        return rest


class ProxiedFactory(WrappingFactory[ProtocolWrapper]):
    """Wraps a factory whose connections come through a proxy that speaks the PROXY protocol.

    :param allowed: who may connect; all others are closed at once.
    """

    noisy = False

    def __init__(self, wrapped: Any, allowed: TrustedPeers) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.allowed = allowed

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802 - Twisted's name
        """A protocol for a new connection, None to close it."""
        proxy = None if isinstance(addr, UNIXAddress) else (unmapped(addr.host), addr.port)
        if proxy not in self.allowed:
            logger.info("Refused a connection from %s: proxy_allow_ips does not name it", _shown(proxy))
            return None
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else ProxiedConnection(self, wrapped, proxy)


class HeaderFirstReactor:
    """A reactor for endpoints with TLS: their ports take the PROXY header before TLS begins, as HAProxy sends it.

    :param reactor: listens in truth, and is asked for everything else.
    :param allowed: who may connect.
    """

    def __init__(self, reactor: Any, allowed: TrustedPeers) -> None:
        self._reactor = reactor
        self._allowed = allowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:  # noqa: N802
        """Listen; ``factory`` makes what follows the header."""
        return self._reactor.listenTCP(port, ProxiedFactory(factory, self._allowed), backlog, interface)

    def listenSSL(  # noqa: N802 - Twisted's name
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""  # noqa: N803
    ) -> Any:
        """Listen; TLS follows the header, and ``factory`` makes what is within TLS."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        within = TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor)
        return self.listenTCP(port, within, backlog, interface)


def _shown(proxy: tuple[str, int] | None) -> str:
    return "a unix socket's peer" if proxy is None else proxy[0]
