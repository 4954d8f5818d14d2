from __future__ import annotations

import logging
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from asgiserver.asgi.forwarded import TrustedPeers
from asgiserver.listen.proxy_protocol import Header, HeaderFirstReactor, ProxiedFactory, parse

V2 = b"\r\n\r\n\0\r\nQUIT\n"
SOCKET = "192.168.1.1"
"""The peer that Twisted's StringTransport names."""

V1_TCP4 = b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 443\r\n"
V1_TCP6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n"
V2_TCP4 = V2 + b"\x21\x11\0\x0c" + bytes([203, 0, 113, 7, 198, 51, 100, 1]) + b"\x13\x88\x01\xbb"
V2_LOCAL = V2 + b"\x20\0\0\0"
V2_TCP6 = V2 + struct.pack(
    "!BBH16s16sHH", 0x21, 0x21, 36, socket.inet_pton(socket.AF_INET6, "2001:db8::7"), bytes(16), 5000, 443
)  # fmt: skip
EVERYBODY = TrustedPeers(["*"])


def v2(kind: int, addresses: bytes, fields: bytes = b"", command: int = 0x21) -> bytes:
    """A header of version 2; ``kind`` has its family and protocol."""
    return V2 + struct.pack("!BBH", command, kind, len(addresses + fields)) + addresses + fields


def field(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


INET = V2_TCP4[16:]
TLS = field(0x20, b"\x01\0\0\0\0" + field(0x21, b"TLSv1.3"))


@implementer(IHalfCloseableProtocol)
class Recorder(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.peers: list[tuple[str, int]] = []
        self.lost = 0
        self.ended = self.written = False

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.data += data
        peer = self.transport.getPeer()
        self.peers.append((peer.host, peer.port))  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost += 1

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        self.written = True


class Proxied:
    """A connection that a proxy opens, over a transport in memory."""

    def __init__(self) -> None:
        factory = ProxiedFactory(Factory.forProtocol(Recorder), EVERYBODY)
        self.protocol = factory.buildProtocol(IPv4Address("TCP", SOCKET, 54321))
        assert self.protocol is not None
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.application: Recorder = self.protocol.wrappedProtocol

    def receive(self, *pieces: bytes) -> Proxied:
        for piece in pieces:
            self.protocol.dataReceived(piece)
        return self

    @property
    def peer(self) -> str:
        assert self.application.peers, "the application got nothing"
        return self.application.peers[-1][0]

    def refused(self) -> bool:
        return self.transport.disconnecting and self.application.data == b""


class TestTheAddress:
    @pytest.mark.parametrize(
        ("header", "host"),
        [(V1_TCP4, "203.0.113.7"), (V1_TCP6, "2001:db8::7"), (V2_TCP4, "203.0.113.7")],
        ids=["v1 tcp4", "v1 tcp6", "v2 tcp4"],
    )
    def test_is_the_headers(self, header: bytes, host: str) -> None:
        proxied = Proxied().receive(header + b"GET")
        assert proxied.application.peers == [(host, 5000)]
        assert proxied.application.data == b"GET"

    @pytest.mark.parametrize(
        "header",
        [
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
            V2_LOCAL,
            V2 + b"\x20\x11\0\x0c" + bytes(12),
            V2 + b"\x21\0\0\0",
        ],
        ids=["v1 unknown", "v1 unknown with addresses", "v2 local", "v2 local with addresses", "v2 unspecified"],
    )
    def test_is_the_sockets_where_the_header_gives_none(self, header: bytes) -> None:
        proxied = Proxied().receive(header + b"GET")
        assert (proxied.peer, proxied.application.data) == (SOCKET, b"GET")
        assert not proxied.transport.disconnecting

    def test_stays_for_what_follows(self) -> None:
        proxied = Proxied().receive(V1_TCP4, b"GET", V2_LOCAL)
        assert proxied.application.data == b"GET" + V2_LOCAL
        assert {host for host, _ in proxied.application.peers} == {"203.0.113.7"}

    @pytest.mark.parametrize("header", [V1_TCP4, b"PROXY UNKNOWN\r\n", V2_TCP4, V2_LOCAL])
    def test_comes_through_in_any_segments(self, header: bytes) -> None:
        whole = header + b"GET"
        expected = Proxied().receive(whole).application.peers[0]
        for cut in range(1, len(whole)):
            proxied = Proxied().receive(whole[:cut], whole[cut:])
            assert proxied.application.data == b"GET"
            assert proxied.application.peers[0] == expected
        single = Proxied().receive(*(bytes([byte]) for byte in whole))
        assert (single.application.data, single.application.peers[0]) == (b"GET", expected)


class TestTheConnectionCloses:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"PROXY\r\nGET",
            b"PROXY TCP4\r\n",
            b"PROXY TCP5 203.0.113.7 198.51.100.1 5000 443\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 x 443\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 x\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 70000 443\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 -1 443\r\n",
            b"PROXY TCP4 localhost 198.51.100.1 5000 443\r\n",
            b"PROXY TCP4 2001:db8::7 198.51.100.1 5000 443\r\n",
            b"PROXY TCP6 203.0.113.7 2001:db8::1 5000 443\r\n",
            b"PROXY TCP4 203.0.113.7 nowhere 5000 443\r\n",
            b"PROXY TCP4 \xff 198.51.100.1 5000 443\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 443" + b" " * 80,
            V2 + b"\x31\x11\0\x0c" + bytes(12),
            V2 + b"\x22\x11\0\x0c" + bytes(12),
            V2 + b"\x21\x13\0\x0c" + bytes(12),
            V2 + b"\x21\x11\0\x04" + bytes(4),
        ],
    )
    def test_on_a_header_that_is_missing_or_malformed(self, data: bytes) -> None:
        assert Proxied().receive(data + b"GET").refused()

    def test_and_a_good_header_after_a_bad_one_does_not_open_it_again(self) -> None:
        assert Proxied().receive(b"GET / HTTP/1.1\r\n", V1_TCP4 + b"GET").refused()
        assert Proxied().receive(b"PROXY TCP4 x\r\n", V1_TCP4 + b"GET").refused()

    def test_and_the_application_is_told_once(self) -> None:
        proxied = Proxied().receive(b"nonsense")
        proxied.protocol.connectionLost(connectionDone)
        assert proxied.application.lost == 1

    def test_but_not_while_the_header_may_still_become_one(self) -> None:
        proxied = Proxied().receive(b"PROXY TCP4 203.0.113.7", b" ")
        assert not proxied.transport.disconnecting
        assert proxied.application.data == b""

    @given(
        st.lists(st.binary(max_size=40), max_size=4),
        st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21"]),
    )
    def test_and_nothing_raises_whatever_comes(self, pieces: list[bytes], start: bytes) -> None:
        Proxied().receive(start, *pieces)


def test_an_error_of_the_application_is_not_taken_for_a_bad_header() -> None:
    class Raising(Protocol):
        def dataReceived(self, data: bytes) -> None:
            raise ValueError("the application's own")

    protocol = ProxiedFactory(Factory.forProtocol(Raising), EVERYBODY).buildProtocol(IPv4Address("TCP", SOCKET, 54321))
    assert protocol is not None
    protocol.makeConnection(StringTransport())
    with pytest.raises(ValueError, match="the application's own"):
        protocol.dataReceived(V1_TCP4 + b"GET")


def test_the_end_of_the_peers_direction_is_passed_on() -> None:
    it = Proxied()
    half_closeable = IHalfCloseableProtocol(it.protocol)
    half_closeable.readConnectionLost()
    half_closeable.writeConnectionLost()
    assert (it.application.ended, it.application.written, it.application.lost) == (True, True, 0)


def refusal(data: bytes) -> str:
    with pytest.raises(ValueError) as caught:
        parse(data)
    return str(caught.value)


def announced(data: bytes) -> Any:
    header = parse(data)
    assert header is not None
    return header.client


class TestParse:
    """C3."""

    @pytest.mark.parametrize("header", [V1_TCP4, V1_TCP6, V2_TCP4, V2_TCP6, V2_LOCAL, v2(0x11, INET, TLS)])
    def test_counts_the_header_and_not_what_follows(self, header: bytes) -> None:
        assert parse(header) == parse(header + b"more\r\n")
        assert parse(header).size == len(header)  # type: ignore[union-attr]
        assert {parse(header[:cut]) for cut in range(len(header))} == {None}

    def test_a_line_is_at_most_107_bytes_long(self) -> None:
        longest = b"PROXY UNKNOWN ".ljust(105) + b"\r\n"
        assert parse(longest) == Header(107)
        assert refusal(b"PROXY UNKNOWN ".ljust(106) + b"\r\n") == "the line of its PROXY header is too long"

    @pytest.mark.parametrize(
        "line",
        [
            b'PROXY TCP6 fe80::1%x"y 2001:db8::1 5000 443',
            b"PROXY TCP6 fe80::1%eth0 2001:db8::1 5000 443",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 +1 443",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 1_1 443",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 1 4_43",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 01 443",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 1 65536",
            b"PROXY TCP4 203.0.113.7 198.51.100.1  1 443",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 1 443 ",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 1 443\n",
            b"PROXY TCP4 203.0.113.7\t198.51.100.1 1 443",
            b"PROXY  TCP4 203.0.113.7 198.51.100.1 1 443",
            b"PROXY tcp4 203.0.113.7 198.51.100.1 1 443",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 1",
            b"PROXY TCP4 203.0.113 198.51.100.1 1 443",
            b"PROXY TCP4 203.0.113.07 198.51.100.1 1 443",
            b"PROXY TCP4 3405803783 198.51.100.1 1 443",
            b"PROXY TCP4 ::ffff:1.2.3.4 198.51.100.1 1 443",
            b"PROXY TCP6 [2001:db8::7] 2001:db8::1 1 443",
            b"PROXY TCP6 2001:db8:::7 2001:db8::1 1 443",
            b"PROXY TCP6 2001:db8::12345 2001:db8::1 1 443",
            b"PROXY UNKNOWNS",
            b"PROXY ",
        ],
    )
    def test_a_line_is_followed_to_the_letter(self, line: bytes) -> None:
        assert refusal(line + b"\r\n")

    @pytest.mark.parametrize(
        ("written", "usual"),
        [
            (b"2001:0DB8:0000::0007", "2001:db8::7"),
            (b"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            (b"::FFFF:203.0.113.7", "203.0.113.7"),
            (b"::ffff:cb00:7107", "203.0.113.7"),
        ],
    )
    def test_an_ipv6_address_is_written_in_its_usual_form(self, written: bytes, usual: str) -> None:
        """C4, too: one that maps IPv4 is an IPv4 address."""
        client = announced(b"PROXY TCP6 %s ::ffff:198.51.100.1 5000 443\r\n" % written)
        assert (type(client), client.host) == (IPv6Address if ":" in usual else IPv4Address, usual)
        packed = socket.inet_pton(socket.AF_INET6, written.decode())
        assert announced(v2(0x21, packed + bytes(20))) == type(client)("TCP", usual, 0)

    @pytest.mark.parametrize("kind", range(256))
    def test_a_family_and_protocol_is_one_of_the_specification(self, kind: int) -> None:
        header = v2(kind, bytes(216))
        if kind in (0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32):
            assert parse(header)
        else:
            assert refusal(header) == "the family or protocol in its PROXY header is unknown"
        assert parse(v2(kind, bytes(216), command=0x20)) == Header(16 + 216), "of LOCAL all is discarded"

    @pytest.mark.parametrize("command", [number for number in range(256) if number not in (0x20, 0x21)])
    def test_a_command_is_local_or_proxy_of_version_2(self, command: int) -> None:
        assert refusal(v2(0x11, INET, command=command)) == "the version or command of its PROXY header is unknown"

    @pytest.mark.parametrize(("kind", "size"), [(0x11, 12), (0x21, 36), (0x31, 216)])
    def test_addresses_may_not_be_cut_off(self, kind: int, size: int) -> None:
        assert parse(v2(kind, bytes(size)))
        for shorter in range(size):
            assert refusal(v2(kind, bytes(shorter))) == "the addresses in its PROXY header are cut off"

    def test_a_block_may_be_16_kib_long(self) -> None:
        filling = field(0x04, bytes(16384 - 12 - 3))
        assert parse(v2(0x11, INET, filling)) == Header(16 + 16384, *parse(V2_TCP4)[1:])  # type: ignore[index]
        # It is told by the length, before that much has come.
        assert refusal(V2 + struct.pack("!BBH", 0x21, 0x11, 16385)) == "its PROXY header is too long"

    def test_of_unix_sockets_no_client_has_an_address(self) -> None:
        header = parse(v2(0x31, b"/run/client".ljust(108, b"\0") + b"/run/web".ljust(108, b"\0")))
        assert header is not None
        assert (header.client, header.server) == (UNIXAddress("/run/client"), UNIXAddress("/run/web"))

    @pytest.mark.parametrize(
        ("fields", "secure"),
        [
            (b"", False),
            (TLS, True),
            (field(0x20, b"\x07\0\0\0\1"), True),
            (field(0x20, b"\0\0\0\0\0"), False),
            (field(0x20, b"\x06\0\0\0\0"), False),
            (field(0x04, b"") + field(0x05, b"\x20\0\5\x01") + TLS + field(0xEA, bytes(300)), True),
            (field(0x05, TLS), False),
        ],
    )
    def test_the_field_of_tls_says_that_the_client_used_it(self, fields: bytes, secure: bool) -> None:
        header = parse(v2(0x11, INET, fields))
        assert header is not None
        assert header.secure is secure

    def test_a_field_may_not_be_cut_off(self) -> None:
        whole = field(0x04, b"ab") + TLS
        ends = [5, len(whole)]
        for cut in range(1, len(whole) + 1):
            header = v2(0x11, INET, whole[:cut])
            if cut in ends:
                assert parse(header)
            else:
                assert refusal(header) == "a field of its PROXY header is cut off"
        assert refusal(v2(0x11, INET, field(0x20, b"\x01\0\0\0"))) == "a field of its PROXY header is cut off"

    @given(st.binary(max_size=60), st.sampled_from([b"", V2, V2 + b"\x21\x11", V2 + b"\x21\x11\0\x20" + INET]))
    def test_whatever_comes_is_a_header_or_a_refusal(self, data: bytes, start: bytes) -> None:
        try:
            header = parse(start + data)
        except ValueError:
            return
        assert header is None or header.size <= len(start + data)


class TestWhoMaySendOne:
    """C3: proxy_allow_ips."""

    @pytest.mark.parametrize(
        ("address", "allowed"),
        [
            (IPv4Address("TCP", "127.0.0.1", 1), True),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), True),
            (IPv6Address("TCP", "::1", 1), True),
            (UNIXAddress(None), True),
            (IPv4Address("TCP", "203.0.113.7", 1), False),
            (IPv6Address("TCP", "::ffff:203.0.113.7", 1), False),
        ],
    )
    def test_others_are_closed_with_one_line_in_the_log(
        self, address: Any, allowed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        factory = ProxiedFactory(Factory.forProtocol(Recorder), TrustedPeers(["127.0.0.1", "::1", "unix"]))
        assert (factory.buildProtocol(address) is not None) is allowed
        lines = [] if allowed else ["Refused a connection from 203.0.113.7: proxy_allow_ips does not name it"]
        assert caplog.messages == lines


class TestTheLog:
    """C3."""

    @pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x\r\n", V2 + b"\x31\x11\0\0"])
    def test_has_one_line_for_a_header_that_is_malformed(self, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        proxied = Proxied().receive(data, b"more", V1_TCP4)
        assert proxied.refused()
        [record] = caplog.records
        assert (record.name, record.levelno, record.exc_info) == ("asgiserver.wire", logging.INFO, None)
        assert record.getMessage().startswith(f"Refused a connection from {SOCKET}: ")

    def test_says_nothing_of_a_peer_that_leaves_before_its_end(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        for header in (V1_TCP4, v2(0x11, INET, TLS)):
            for cut in range(len(header)):
                proxied = Proxied().receive(header[:cut])
                proxied.protocol.connectionLost(connectionDone)
                assert proxied.application.lost == 1
        assert not caplog.records


def test_a_protocol_that_knows_no_half_close_is_not_asked_for_it() -> None:
    """TLS of Twisted's, which is within the header, closes at the end of the peer's direction."""
    factory = ProxiedFactory(Factory.forProtocol(Protocol), EVERYBODY)
    protocol = factory.buildProtocol(IPv4Address("TCP", SOCKET, 54321))
    protocol.makeConnection(StringTransport())
    assert not IHalfCloseableProtocol.providedBy(protocol)


def test_endpoints_with_tls_take_the_header_first() -> None:
    """C3."""
    reactor: Any = MemoryReactorClock()
    HeaderFirstReactor(reactor, EVERYBODY).listenTCP(8001, Factory(), 7, "127.0.0.1")
    (port, factory, backlog, interface) = reactor.tcpServers[0]
    assert (port, type(factory), backlog, interface) == (8001, ProxiedFactory, 7, "127.0.0.1")
    assert HeaderFirstReactor(reactor, EVERYBODY).seconds() == reactor.seconds()
