"""The client as trusted proxies tell it: ``X-Forwarded-*`` and RFC 7239 ``Forwarded``.

A forwarding field is a list to which each proxy appends the address it was called from, so an entry is only as good as
the proxy that wrote it. The walk starts at the peer of the connection and goes through the list **from the right**:

* as long as the address reached so far is trusted, the next entry was written by a proxy that is believed;
* the first address that is not trusted is the client; when all are trusted, it is the leftmost;
* an entry that is no address (``unknown``, ``_hidden``, rubbish) ends the walk, and the client is the last trusted
  address before it. Nothing to the left of it is believed. ``unix:`` is a hop over a unix socket.

A PROXY header is a hop in this chain as well. The peer of the connection announces an address by it, and may set fields
as before: its scheme and host count. But the list of addresses is gone through only if the announced address is trusted
too, since a proxy that writes PROXY headers may have passed the list on as it came.

``X-Forwarded-Proto`` and ``-Host`` have no list that goes with the addresses, so their last value counts, which the
nearest proxy wrote; so does the last line of ``X-Request-ID``. In ``Forwarded``, scheme and host belong to a hop, and
the value of the farthest hop that is still believed counts.

**Which family is read.** Most proxies maintain one family and pass the other on as the client sent it, and no request
shows which. So they are never mixed: ``Forwarded`` is read only in requests without any ``X-Forwarded-For``,
``-Proto`` or ``-Host``, the family that common proxies maintain. The setting ``proxy_headers_host`` fixes the family:
when it is ``Forwarded``, only that field is read; with any other name ``Forwarded`` is never read.

A client chooses how long and how malformed the left end of a list is, so the right end is read even when the left one
cannot be: otherwise rubbish would let a client pass for the proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Final, NamedTuple

from ..errors import SettingsError
from ..settings import Settings
from .interfaces import Headers
from .tokens import TOKEN

__all__ = ["Forwarded", "Forwarding", "TrustedPeers"]

#: Entries of a list that are looked at, empty ones among them. Real chains have a handful.
MAX_HOPS: Final = 100
#: Parameters of an element of ``Forwarded``, empty ones among them; RFC 7239 §5 knows four.
MAX_PARAMETERS: Final = 16
#: Bytes of ``Forwarded`` that are parsed as a whole: a client can make the list long, and each byte costs.
MAX_SIZE: Final = 8192
#: Bytes of a host: a name has at most 253 (RFC 1035 §2.3.4), each of which may be percent-encoded, and a port.
_MAX_HOST = 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Forwarded(NamedTuple):
    """What is to be believed about a request.

    :param client: address and port, the port 0 when it is not known; None for a peer on a unix socket.
    :param scheme: ``"http"`` or ``"https"``.
    :param host: what replaces the Host field; None to leave it.
    :param request_id: ``X-Request-ID``, when it is fit for the log: up to 128 visible ASCII characters, but no comma,
        quotation mark or backslash.
    """

    client: tuple[str, int] | None
    scheme: str
    host: bytes | None = None
    request_id: str | None = None


class Node(NamedTuple):
    """An entry's address and port (RFC 7239 §6).

    :param address: None for a unix socket.
    :param port: None when the entry has none.
    """

    address: str | None
    port: int | None = None


class Hop(NamedTuple):
    """What one proxy says of the request it got; None for each thing that it does not say, or says wrongly."""

    node: Node | None
    scheme: str | None = None
    host: bytes | None = None


class TrustedPeers:
    """The peers whose forwarding fields are believed.

    ``("10.0.0.1", 80) in trusted`` asks for a TCP peer, ``None in trusted`` for one on a unix socket. IPv4-mapped IPv6
    addresses count as IPv4 on both sides, and a zone (``%eth0``) is ignored.

    :param entries: addresses, networks in CIDR notation, ``unix``, and ``*`` for every peer; empty ones are skipped.
    :param setting: the setting that has them, for the error.
    :raises SettingsError: an entry is none of these, or a network has host bits set.
    """

    __slots__ = ("_addresses", "_all", "_networks", "_unix")

    def __init__(self, entries: Iterable[str], setting: str = "forwarded_allow_ips") -> None:
        words = {entry.strip() for entry in entries} - {""}
        self._all = "*" in words
        self._unix = self._all or "unix" in words
        networks = [_network(word, setting) for word in sorted(words - {"*", "unix"})]
        self._addresses = frozenset(network[0] for network in networks if network.num_addresses == 1)
        self._networks = tuple(network for network in networks if network.num_addresses > 1)

    def __contains__(self, client: tuple[str, int] | None) -> bool:
        if client is None:
            return self._unix
        if self._all:
            return True
        address = _address(client[0])
        if address is None:
            return False
        return address in self._addresses or any(address in network for network in self._networks)


class Forwarding:
    """Reads the forwarding fields of requests, for HTTP and WebSocket alike.

    :param settings: ``forwarded_allow_ips`` and the fields' names, ``proxy_headers_host``, ``_port`` and ``_proto``.
    :raises SettingsError: a wrong entry of ``forwarded_allow_ips``, or a name that cannot be a field's.
    """

    __slots__ = ("_for", "_names", "_port", "_proto", "_trusted", "_x_fields")

    def __init__(self, settings: Settings) -> None:
        self._trusted = TrustedPeers(settings.forwarded_allow_ips)
        self._for = _field_name("proxy_headers_host", settings.proxy_headers_host or "X-Forwarded-For")
        self._port = _field_name("proxy_headers_port", settings.proxy_headers_port or "X-Forwarded-Port")
        self._proto = _field_name("proxy_headers_proto", settings.proxy_headers_proto or "X-Forwarded-Proto")
        only_forwarded = self._for == b"forwarded"
        self._x_fields = frozenset() if only_forwarded else frozenset((self._for, self._proto, b"x-forwarded-host"))
        forwarded = {b"forwarded"} if only_forwarded or settings.proxy_headers_host is None else set()
        self._names = self._x_fields | forwarded | {self._port, b"x-request-id"}

    def resolve(
        self,
        headers: Headers,
        client: tuple[str, int] | None,
        scheme: str,
        peer: tuple[str, int] | None,
        *,
        announced: bool = False,
    ) -> Forwarded:
        """What is to be believed of a request with ``headers`` that came from ``client``; never raises.

        :param client: the connection's peer, None on a unix socket, or what a PROXY header announces.
        :param scheme: the connection's own, ``"http"`` or ``"https"``; kept when nothing better is said.
        :param peer: the machine that has connected, None on a unix socket; its fields are read when it is trusted.
        :param announced: ``client`` is from a PROXY header; None then does not mean a peer on a unix socket of ours.
        """
        if peer not in self._trusted:
            return Forwarded(client, scheme)
        fields: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name in self._names:
                fields.setdefault(name, []).append(value)
        known = Forwarded(client, scheme, None, _request_id(fields.get(b"x-request-id")))
        reached = announced and (client is None or client not in self._trusted)
        if not self._x_fields.isdisjoint(fields):
            return self._x_forwarded(fields, known, reached)
        if b"forwarded" in fields:
            return self._walk(_forwarded_hops(fields[b"forwarded"]), known, 0, reached)
        return known

    def _x_forwarded(self, fields: dict[bytes, list[bytes]], known: Forwarded, reached: bool) -> Forwarded:
        hops = (Hop(_node(entry)) for entry in _entries(fields.get(self._for, [])))
        found = self._walk(hops, known, _port(_last(fields, self._port)) or 0, reached)
        scheme = _SCHEMES.get(_last(fields, self._proto).lower(), found.scheme)
        return Forwarded(found.client, scheme, _host(_last(fields, b"x-forwarded-host")), known.request_id)

    def _walk(self, hops: Iterator[Hop], known: Forwarded, port: int, reached: bool) -> Forwarded:
        """Go outward through ``hops`` from the trusted peer.

        :param port: for entries that have none.
        :param reached: the client is ``known`` already, and only what the nearest proxy says of the request counts.
        """
        client, scheme, host, request_id = known
        for hop in hops:
            scheme, host = hop.scheme or scheme, hop.host or host
            if reached or hop.node is None:
                break
            address = hop.node.address
            if address is not None:
                client = (address, port if hop.node.port is None else hop.node.port)
            if (None if address is None else client) not in self._trusted:
                break
        return Forwarded(client, scheme, host, request_id)


_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}

_NAME = re.compile(TOKEN)
# RFC 7239 §4, with blanks around the separators and any character in an unquoted value, as proxies write it. No two
# neighbouring parts can match the same byte, and none gives back what it has matched: a line that does not match is
# given up in linear time.
_PAIR = re.compile(
    rb"[ \t]*+(?:(" + TOKEN + rb'+)=(?:"((?:[^"\\]++|\\.)*+)"|([^\x00- \x7f",;\\]++))[ \t]*+)?([;,]|\Z)',
    re.DOTALL,
)
# RFC 7239 §6, and IPv6 without brackets, which then has no port.
_NODE = re.compile(r"(?:\[([^\[\]]*:[^\[\]]*)\]|([^:\[\]]+))(?::([0-9]{1,5}|_[A-Za-z0-9._\-]+))?|([^\[\]]+)")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
# RFC 9110 §7.2 and RFC 3986 §3.2.2; without the comma, which separates the values of X-Forwarded-Host.
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?")
# Visible ASCII, but for both quotation marks, the backslash, and the comma, which separates several.
_REQUEST_ID = re.compile(rb"[!#-&(-+\--\[\]-~]{1,128}")


def _network(entry: str, setting: str) -> Network:
    try:
        network = ipaddress.ip_network(entry.partition("%")[0] if ":" in entry and "/" not in entry else entry)
    except ValueError:
        message = f"{setting}: expected an address, a network without host bits, unix or *, got {entry!r}"
        raise SettingsError(message) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _field_name(setting: str, name: str) -> bytes:
    if not (name.isascii() and _NAME.fullmatch(name.encode("ascii"))):
        raise SettingsError(f"{setting}: expected a field's name, got {name!r}")
    return name.lower().encode("ascii")


# The peers of a server behind proxies are few.
@lru_cache(maxsize=1024)
def _address(text: str) -> Address | None:
    """The address that ``text`` is, IPv4 when it is an IPv4-mapped one, or None."""
    if ":" in text:
        text = text.partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _node(entry: bytes) -> Node | None:
    """An entry's address and port; None when it has no address, or its port is wrong.

    An obfuscated port (RFC 7239 §6.3) counts as none.
    """
    if entry == b"unix:":
        return Node(None)
    # 45 bytes for the longest address, the rest for brackets, a zone and a port.
    match = _NODE.fullmatch(entry.decode("ascii")) if entry.isascii() and len(entry) <= 100 else None
    if match is None:
        return None
    in_brackets, plain, port, bare = match.groups()
    address = _address(in_brackets or plain or bare)
    if address is None:
        return None
    if port is None or port.startswith("_"):
        return Node(str(address))
    number = _port(port.encode("ascii"))
    return None if number is None else Node(str(address), number)


def _port(digits: bytes) -> int | None:
    if digits.isdigit() and len(digits) <= 5 and int(digits) <= 65535:
        return int(digits)
    return None


def _host(value: bytes) -> bytes | None:
    match = _HOST.fullmatch(value) if len(value) <= _MAX_HOST else None
    if match is None or match[1] is not None and _address(match[1].decode("ascii")) is None:
        return None
    return value


def _request_id(lines: list[bytes] | None) -> str | None:
    return str(lines[-1], "ascii") if lines is not None and _REQUEST_ID.fullmatch(lines[-1]) else None


def _last(fields: dict[bytes, list[bytes]], name: bytes) -> bytes:
    """The last value of the list field ``name``, empty when there is none."""
    lines = fields.get(name)
    return b"" if lines is None else next(_entries(lines), b"")


def _entries(lines: list[bytes]) -> Iterator[bytes]:
    """The last entries of a list field from the right, without empty ones (RFC 9110 §5.6.1.2)."""
    entries = chain.from_iterable(map(_split, reversed(lines)))
    return (entry for entry in islice(entries, MAX_HOPS) if entry)


def _split(line: bytes) -> Iterator[bytes]:
    """The entries between the commas of ``line``, from the right; at most the last :data:`MAX_HOPS`."""
    entries = line.rsplit(b",", MAX_HOPS)
    for entry in reversed(entries[-MAX_HOPS:]):
        yield entry.strip(b" \t")


def _forwarded_hops(lines: list[bytes]) -> Iterator[Hop]:
    """The last elements of ``Forwarded`` from the right, up to one that is malformed: a hop that says nothing."""
    elements = chain.from_iterable(map(_elements_from_right, reversed(lines)))
    for element in islice(elements, MAX_HOPS):
        if element is None:
            yield Hop(None)
            return
        if element:
            scheme = _SCHEMES.get(element.get(b"proto", b"").lower())
            yield Hop(_node(element.get(b"for", b"")), scheme, _host(element.get(b"host", b"")))


def _elements_from_right(line: bytes) -> Iterator[dict[bytes, bytes] | None]:
    """The elements of one line of ``Forwarded`` from the right; None where nothing more can be read.

    In a malformed line, a comma may be within quotes. What follows it there holds an odd number of quotation marks,
    or escaped ones, neither of which an element can, so nothing quoted is taken for an element.
    """
    elements = _elements(line)
    if elements is not None:
        yield from reversed(elements)
        return
    for part in _split(line):
        elements = _elements(part)
        if elements is None:
            break
        yield from elements
    yield None


def _elements(text: bytes) -> list[dict[bytes, bytes]] | None:
    """Elements (RFC 7239 §4) as their parameters, names in lower case; None when malformed, too long, or too many."""
    if len(text) > MAX_SIZE:
        return None
    elements: list[dict[bytes, bytes]] = [{}]
    position, separator, parameters = 0, b",", 0
    while separator:
        match = _PAIR.match(text, position)
        parameters += 1
        if match is None or parameters > MAX_PARAMETERS or len(elements) > MAX_HOPS:
            return None
        name, quoted, plain, separator = match.groups()
        position = match.end()
        if name is not None:
            name = name.lower()
            if name in elements[-1]:  # "MUST NOT occur more than once per field-value"
                return None
            elements[-1][name] = plain if quoted is None else _ESCAPE.sub(rb"\1", quoted)
        if separator == b",":
            elements.append({})
            parameters = 0
    return elements
