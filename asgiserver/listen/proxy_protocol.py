"""The PROXY protocol of HAProxy, versions 1 and 2: the client's address in front of a connection's first byte.

The header stands outside the client's TLS. So the transport takes the header from the socket before anything else, and
leaves the bytes that follow in the socket: with or without TLS, they are then read as on any other port. Twisted's own
wrapper takes the header inside TLS and believes every sender; its parser accepts ports such as ``+1``, and addresses
with a zone.

``connectionMade`` comes *before* the header: the transport knows the client's address from the first ``dataReceived``
on. The protocol has to time out a peer that sends no header.

Clauses are those of https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import logging
import re
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet import main, tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.protocols.policies import WrappingFactory

from ..asgi.forwarded import TrustedPeers
from ..asgi.scope import shown_host, unmapped
from ..transport.tcp import TCPPort, TCPTransport
from ..transport.tls import TLSTransport
from ..transport.tls_port import TLSPort
from ..transport.unix import UNIXTransport

__all__ = ["Header", "HeaderFirst", "HeaderFirstReactor", "ProxiedFactory", "parse", "take_headers"]

logger = logging.getLogger("asgiserver.wire")

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
#: The longest header of version 1, its CRLF included (§2.1).
_V1_LIMIT = 107
_V2_FIXED = 16
#: Most bytes after the fixed part. A header may announce 65,535, but HAProxy sends no more than its buffer holds.
_V2_LIMIT = 16384

# §2.1: one space between the parts, and no zero in front of a port.
_V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]*) (0|[1-9][0-9]*))\r\n",
    re.DOTALL,
)
_V1_FAMILIES = {b"4": socket.AF_INET, b"6": socket.AF_INET6}

# §2.2: the address families, the size of an address of each, and the bytes that join family and transport protocol.
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_ADDRESS_SIZE = {_INET: 4, _INET6: 16, _UNIX: 108}
_KINDS = frozenset((0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32))
_LOCAL, _PROXY = 0x20, 0x21
#: §2.2.6: the type of the field about TLS, the bytes before the fields nested in it, and the bit "the client used TLS".
_TYPE_SSL = 0x20
_SSL_FIXED = 5
_CLIENT_SSL = 0x01

_Address = IPv4Address | IPv6Address | UNIXAddress


class Header(NamedTuple):
    """The content of a PROXY header.

    :param size: bytes of the header.
    :param client: the announced client; None when none is announced: then the connection's own addresses hold.
    :param server: the announced address that the client has connected to; None when ``client`` is None.
    :param secure: the client has connected to the proxy over TLS.
    """

    size: int
    client: _Address | None = None
    server: _Address | None = None
    secure: bool = False


def parse(data: bytes | bytearray) -> Header | None:
    """The header that ``data`` begins with, None while more of it is needed.

    :raises ValueError: ``data`` does not begin with a valid header; the text is for a log.
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
    """Parse a header of version 2, without its signature.

    :param command: the byte with version and command.
    :param kind: the byte with address family and transport protocol.
    """
    whole = _V2_FIXED + len(block)
    if command == _LOCAL:
        # A connection of the proxy itself, such as a health check; the rest of the header is to be discarded.
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


class HeaderFirst(tcp.Server):
    """A transport that takes its addresses from the PROXY header that its input begins with, and closes without one.

    :ivar proxy_header: what the header says; None until it is complete.
    :ivar _head: the part of the header that was read so far, at most 16,400 bytes.
    """

    proxy_header: Header | None = None
    _head = b""

    @property
    def proxy(self) -> tuple[str, int] | None:
        """Address and port of the machine that has connected, None on a unix socket."""
        return _machine(super().getPeer())  # type: ignore[no-untyped-call]

    def getPeer(self) -> Any:  # noqa: N802 - Twisted's name
        """The announced client, the proxy itself when it announces none."""
        header = self.proxy_header
        return super().getPeer() if header is None or header.client is None else header.client  # type: ignore[no-untyped-call]

    def getHost(self) -> Any:  # noqa: N802 - Twisted's name
        """The address that the announced client has connected to, our own when the proxy announces none."""
        header = self.proxy_header
        return super().getHost() if header is None or header.server is None else header.server  # type: ignore[no-untyped-call]

    def doRead(self) -> Any:  # noqa: N802 - Twisted's name
        """Take the header, then read as the transport does without one."""
        if self.proxy_header is None:
            why = self._read_header()
            if self.proxy_header is None:
                return why
        return super().doRead()

    def _read_header(self) -> Any:
        """Take what the socket has of the header, and nothing of what follows it.

        :return: why the connection ends; None while it goes on.
        """
        head = self._head
        try:
            data = self.socket.recv(_V2_FIXED + _V2_LIMIT - len(head), socket.MSG_PEEK)
            if not data:
                return main.CONNECTION_DONE
            header, reason = _parsed(head + data)
            self._head += self.socket.recv(len(data) if header is None else header.size - len(head))
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if reason is not None:
            logger.info("Refused a connection from %s: %s", shown_host(self.proxy), reason)
            # Not CONNECTION_DONE, which Twisted takes for a half-close by the peer.
            return main.CONNECTION_LOST
        if header is not None and len(self._head) == header.size:
            self.proxy_header, self._head = header, b""
        return None


def _parsed(data: bytes) -> tuple[Header | None, str | None]:
    """The result of :func:`parse`, and the reason when the header is refused."""
    try:
        return parse(data), None
    except ValueError as error:
        return None, str(error)


#: Our transports with a PROXY header in front.
_BEHIND_HEADER: dict[type, type] = {
    kind: type(f"Proxied{kind.__name__}", (HeaderFirst, kind), {})
    for kind in (TCPTransport, TLSTransport, UNIXTransport)
}


class ProxiedFactory(WrappingFactory):  # no type argument, which none before Twisted 26 takes
    """Builds the protocols of another factory, for the proxies that may connect.

    :param allowed: the proxies that may connect; connections from all others are closed at once.
    """

    noisy = False

    def __init__(self, wrapped: Any, allowed: TrustedPeers) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.allowed = allowed

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802 - Twisted's name
        """A protocol for a new connection, None to close it."""
        proxy = _machine(addr)
        if proxy not in self.allowed:
            logger.info("Refused a connection from %s: proxy_allow_ips does not name it", shown_host(proxy))
            return None
        return self.wrappedFactory.buildProtocol(addr)


def take_headers(port: Any, allowed: TrustedPeers) -> None:
    """Have each connection of a port begin with a PROXY header.

    :param port: a port of ours, for TCP, TLS or a unix socket, that does not listen yet.
    :param allowed: the proxies that may connect.
    """
    port.factory = ProxiedFactory(port.factory, allowed)
    port.transport = _BEHIND_HEADER[port.transport]


class HeaderFirstReactor:
    """A reactor for Twisted's endpoints: their ports take the PROXY header first, before TLS too, as HAProxy sends it.

    :param reactor: the real reactor, which watches the ports and does everything else.
    :param allowed: the proxies that may connect.
    :param secure: makes a port one of TLS, our own behind the header; None without TLS.
    """

    def __init__(self, reactor: Any, allowed: TrustedPeers, secure: Callable[[TLSPort], None] | None = None) -> None:
        self._reactor = reactor
        self._allowed = allowed
        self._secure = secure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> TCPPort:  # noqa: N802
        """Listen; ``factory`` makes the protocol for the bytes that follow the header."""
        made = TCPPort(port, factory, backlog, interface, self._reactor)
        if self._secure is not None:
            made = TLSPort(port, factory, backlog, interface, self._reactor)
            self._secure(made)
        take_headers(made, self._allowed)
        made.startListening()
        return made

    def listenSSL(  # noqa: N802 - Twisted's name
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""  # noqa: N803
    ) -> TCPPort:
        """Listen; Twisted's TLS follows the header, and ``factory`` makes the protocol within TLS."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        within = TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor)
        return self.listenTCP(port, within, backlog, interface)


def _machine(address: Any) -> tuple[str, int] | None:
    return None if isinstance(address, UNIXAddress) else (unmapped(address.host), address.port)
