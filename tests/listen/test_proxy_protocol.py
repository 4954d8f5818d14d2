from __future__ import annotations

import logging
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from asgiserver.asgi.forwarded import TrustedPeers
from asgiserver.listen.proxy_protocol import (
    Header,
    HeaderFirst,
    HeaderFirstReactor,
    ProxiedFactory,
    parse,
    take_headers,
)
from asgiserver.transport.tcp import TCPPort
from asgiserver.transport.tls_port import TLSPort
from asgiserver.transport.unix import UNIXPort, UNIXTransport
from tests.transport.test_tls import Connection, Reactor, Socket, client_context, make_port

V2 = b"\r\n\r\n\0\r\nQUIT\n"
SOCKET = "192.168.1.1"
"""The proxy."""

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


class Recorder(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.peers: list[tuple[str, int]] = []
        self.lost = 0

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.data += data
        peer = self.transport.getPeer()
        self.peers.append((peer.host, peer.port))  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost += 1


class Proxied:
    """A connection that a proxy opens, over a socket in memory.

    :ivar why: what ``doRead`` has ended the connection with.
    """

    def __init__(self, protocol: type[Protocol] = Recorder) -> None:
        port = TCPPort(0, Factory.forProtocol(protocol), reactor=Reactor())
        take_headers(port, EVERYBODY)
        self.application: Any = port.factory.buildProtocol(IPv4Address("TCP", SOCKET, 54321))
        self.socket = Socket()
        self.transport = port.transport(self.socket, self.application, (SOCKET, 54321), port, 0, port.reactor)
        self.application.makeConnection(self.transport)
        self.why: Any = None

    def receive(self, *pieces: bytes) -> Proxied:
        for piece in pieces:
            self.socket.arrived += piece
            while self.socket.arrived and self.why is None:
                self.why = self.transport.doRead()
        if self.why is not None and not self.socket.closed:
            self.transport.connectionLost(Failure(self.why))
        return self

    @property
    def peer(self) -> str:
        assert self.application.peers, "the application got nothing"
        host: str = self.application.peers[-1][0]
        return host

    def refused(self) -> bool:
        return self.why is CONNECTION_LOST and self.application.data == b"" and not self.socket.taken


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
        assert proxied.why is None

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
    @pytest.mark.parametrize("data", [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PROXY\r\nGET", b"PROXY TCP4\r\n",
        b"PROXY TCP5 203.0.113.7 198.51.100.1 5000 443\r\n", b"PROXY TCP4 203.0.113.7 198.51.100.1 x 443\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 x\r\n", b"PROXY TCP4 203.0.113.7 198.51.100.1 70000 443\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 -1 443\r\n", b"PROXY TCP4 localhost 198.51.100.1 5000 443\r\n",
        b"PROXY TCP4 2001:db8::7 198.51.100.1 5000 443\r\n", b"PROXY TCP6 203.0.113.7 2001:db8::1 5000 443\r\n",
        b"PROXY TCP4 203.0.113.7 nowhere 5000 443\r\n", b"PROXY TCP4 \xff 198.51.100.1 5000 443\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 443" + b" " * 80, V2 + b"\x31\x11\0\x0c" + bytes(12),
        V2 + b"\x22\x11\0\x0c" + bytes(12), V2 + b"\x21\x13\0\x0c" + bytes(12), V2 + b"\x21\x11\0\x04" + bytes(4),
    ])  # fmt: skip
    def test_on_a_header_that_is_missing_or_malformed(self, data: bytes) -> None:
        assert Proxied().receive(data + b"GET").refused()

    def test_and_a_good_header_after_a_bad_one_does_not_open_it_again(self) -> None:
        assert Proxied().receive(b"GET / HTTP/1.1\r\n", V1_TCP4 + b"GET").refused()
        assert Proxied().receive(b"PROXY TCP4 x\r\n", V1_TCP4 + b"GET").refused()

    def test_and_the_application_is_told_once(self) -> None:
        assert Proxied().receive(b"nonsense").application.lost == 1

    def test_but_not_while_the_header_may_still_become_one(self) -> None:
        proxied = Proxied().receive(b"PROXY TCP4 203.0.113.7", b" ")
        assert proxied.why is None
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

    with pytest.raises(ValueError, match="the application's own"):
        Proxied(Raising).receive(V1_TCP4 + b"GET")


class TestTheSocket:
    def test_keeps_what_follows_the_header(self) -> None:
        """So that it is read as on any other port; one read takes the header, and what is there behind it."""
        for header in (V1_TCP4, V2_TCP4):
            proxied = Proxied()
            proxied.socket.arrived += header + b"GET"
            assert proxied.transport._read_header() is None
            assert (proxied.transport.proxy_header, proxied.socket.arrived) == (parse(header), b"GET")
            assert (proxied.transport._head, proxied.application.data) == (b"", b"")

    def test_may_give_less_than_it_has_shown(self) -> None:
        proxied = Proxied()
        proxied.socket.arrived += V1_TCP4 + b"GET"
        receive: Any = proxied.socket.recv
        proxied.socket.recv = lambda size, flags=0: receive(size if flags else min(size, 5), flags)  # type: ignore[method-assign]
        while not proxied.application.data:
            assert proxied.transport.doRead() is None
        assert proxied.application.peers == [("203.0.113.7", 5000)]
        assert proxied.application.data == b"GET"

    def test_is_emptied_before_it_is_closed_for_a_bad_header(self) -> None:
        """Unread input would make the close a reset."""
        proxied = Proxied().receive(b"GET / HTTP/1.1\r\n\r\n")
        assert proxied.socket.closed
        assert proxied.socket.arrived == b""

    def test_is_asked_for_no_more_than_the_longest_header(self) -> None:
        longest = v2(0x11, INET, field(0x04, bytes(16384 - len(INET) - 3)))
        proxied = Proxied().receive(longest[:-1])
        assert (len(proxied.transport._head), proxied.why) == (16399, None)
        proxied.receive(longest[-1:] + bytes(100000))
        assert len(proxied.application.data) == 100000

    def test_may_have_nothing_or_be_broken_or_at_its_end(self) -> None:
        for start in (b"", b"PROXY "):
            proxied = Proxied().receive(start)
            assert proxied.transport.doRead() is None
            proxied.socket.error = ConnectionResetError()
            assert proxied.transport.doRead() is CONNECTION_LOST
            proxied.socket.error, proxied.socket.ended = None, True
            assert proxied.transport.doRead() is CONNECTION_DONE

    def test_of_a_unix_port_has_a_header_too(self) -> None:
        skt: Any = Socket()
        skt.getsockname = lambda: "/run/x.sock"
        port: Any = UNIXPort(skt, Factory.forProtocol(Recorder), Reactor())
        take_headers(port, EVERYBODY)
        assert issubclass(port.transport, HeaderFirst)
        assert issubclass(port.transport, UNIXTransport)
        transport = port.transport(skt, Recorder(), None, port, 0, port.reactor)
        assert transport.proxy is None
        skt.arrived += V1_TCP4
        assert transport._read_header() is None
        assert (transport.getPeer().host, transport.getHost().host) == ("203.0.113.7", "198.51.100.1")


class TestOurTLS:
    """The header comes before our own TLS too."""

    def connect(self, *protocols: str) -> Connection:
        port = make_port()
        take_headers(port, EVERYBODY)
        return Connection(port, client_context(*protocols))

    def shake_hands(self, connection: Connection, *cuts: int, header: bytes = V2_TCP4) -> None:
        connection.step()
        sent = header + bytes(connection.socket.arrived)
        connection.socket.arrived.clear()
        for start, end in zip((0, *cuts), (*cuts, len(sent)), strict=True):
            connection.socket.arrived += sent[start:end]
            while connection.socket.arrived:
                assert connection.read() is None
        connection.shake_hands()
        connection.send(b"GET")
        connection.read()
        assert connection.protocol.pieces == [b"GET"]

    @pytest.mark.parametrize("header", [V1_TCP4, V2_TCP4, v2(0x11, INET, TLS), v2(0x11, INET, field(0x20, bytes(5)))])
    def test_in_any_segments(self, header: bytes) -> None:
        for cut in (*range(1, len(header) + 8), len(header) + 100):
            connection = self.connect()
            self.shake_hands(connection, cut, header=header)
            assert connection.transport.getPeer() == IPv4Address("TCP", "203.0.113.7", 5000)
            assert connection.transport.getHost() == IPv4Address("TCP", "198.51.100.1", 443)
        self.shake_hands(self.connect(), *range(1, len(header) + 150), header=header)

    def test_and_the_connection_is_as_on_any_other_port(self) -> None:
        connection = self.connect("http/1.1")
        self.shake_hands(connection)
        transport: Any = connection.transport
        assert ISSLTransport.providedBy(transport)
        assert (transport.negotiatedProtocol, transport.proxy) == (b"http/1.1", ("192.0.2.7", 4711))
        assert transport.send(b"answer") == 6
        assert connection.take() == b"answer"

    def test_a_header_without_addresses_leaves_the_sockets(self) -> None:
        connection = self.connect()
        self.shake_hands(connection, header=V2_LOCAL)
        assert connection.transport.getPeer() == IPv4Address("TCP", "192.0.2.7", 4711)

    @pytest.mark.parametrize("start", [b"", b"PROXY TCP4 x\r\n", b"GET / HTTP/1.1\r\n"])
    def test_without_one_nothing_is_answered_and_the_log_has_one_line(
        self, start: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        connection = self.connect()
        connection.socket.arrived += start
        connection.step()
        assert connection.read() is CONNECTION_LOST
        assert (connection.socket.closed, connection.socket.taken) == (True, b"")
        assert [message.partition(":")[0] for message in caplog.messages] == ["Refused a connection from 192.0.2.7"]

    def test_plain_http_behind_it_is_told_so(self) -> None:
        connection, told = self.connect(), []
        connection.protocol.plain_received = lambda: told.append(True)  # type: ignore[attr-defined]
        connection.socket.arrived += V2_TCP4 + b"GET / HTTP/1.1\r\n"
        assert connection.read() is None
        assert told == [True]

    @pytest.mark.parametrize(
        ("header", "shown"),
        [(V2_TCP4, "203.0.113.7"), (V2_LOCAL, "192.0.2.7"), (v2(0x31, b"/c".ljust(216, b"\0")), "UNIXAddress('/c')")],
    )
    def test_the_log_names_the_announced_client(
        self, header: bytes, shown: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        failing, foreign = self.connect(), self.connect("h2")
        failing.socket.arrived += header + b"\x16\x03\x01\0\x05nonsense of a client"
        foreign.socket.arrived += header
        foreign.step()
        for connection in (failing, foreign):
            assert connection.read() is not None
        assert [message.partition(" failed")[0] for message in caplog.messages] == [f"TLS handshake with {shown}"] * 2


def refusal(data: bytes) -> str:
    with pytest.raises(ValueError) as caught:
        parse(data)
    return str(caught.value)


def announced(data: bytes) -> Any:
    header = parse(data)
    assert header is not None
    return header.client


class TestParse:
    @pytest.mark.parametrize("header", [V1_TCP4, V1_TCP6, V2_TCP4, V2_TCP6, V2_LOCAL, v2(0x11, INET, TLS)])
    def test_counts_the_header_and_not_what_follows(self, header: bytes) -> None:
        assert parse(header) == parse(header + b"more\r\n")
        assert parse(header).size == len(header)  # type: ignore[union-attr]
        assert {parse(header[:cut]) for cut in range(len(header))} == {None}

    def test_a_line_is_at_most_107_bytes_long(self) -> None:
        longest = b"PROXY UNKNOWN ".ljust(105) + b"\r\n"
        assert parse(longest) == Header(107)
        assert refusal(b"PROXY UNKNOWN ".ljust(106) + b"\r\n") == "the line of its PROXY header is too long"

    @pytest.mark.parametrize("line", [
        b'PROXY TCP6 fe80::1%x"y 2001:db8::1 5000 443', b"PROXY TCP6 fe80::1%eth0 2001:db8::1 5000 443",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 +1 443", b"PROXY TCP4 203.0.113.7 198.51.100.1 1_1 443",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 1 4_43", b"PROXY TCP4 203.0.113.7 198.51.100.1 01 443",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 1 65536", b"PROXY TCP4 203.0.113.7 198.51.100.1  1 443",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 1 443 ", b"PROXY TCP4 203.0.113.7 198.51.100.1 1 443\n",
        b"PROXY TCP4 203.0.113.7\t198.51.100.1 1 443", b"PROXY  TCP4 203.0.113.7 198.51.100.1 1 443",
        b"PROXY tcp4 203.0.113.7 198.51.100.1 1 443", b"PROXY TCP4 203.0.113.7 198.51.100.1 1",
        b"PROXY TCP4 203.0.113 198.51.100.1 1 443", b"PROXY TCP4 203.0.113.07 198.51.100.1 1 443",
        b"PROXY TCP4 3405803783 198.51.100.1 1 443", b"PROXY TCP4 ::ffff:1.2.3.4 198.51.100.1 1 443",
        b"PROXY TCP6 [2001:db8::7] 2001:db8::1 1 443", b"PROXY TCP6 2001:db8:::7 2001:db8::1 1 443",
        b"PROXY TCP6 2001:db8::12345 2001:db8::1 1 443", b"PROXY UNKNOWNS", b"PROXY ",
    ])  # fmt: skip
    def test_a_line_is_followed_to_the_letter(self, line: bytes) -> None:
        assert refusal(line + b"\r\n")

    @pytest.mark.parametrize(("written", "usual"), [
        (b"2001:0DB8:0000::0007", "2001:db8::7"),
        (b"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        (b"::FFFF:203.0.113.7", "203.0.113.7"),
        (b"::ffff:cb00:7107", "203.0.113.7"),
    ])  # fmt: skip
    def test_an_ipv6_address_is_written_in_its_usual_form(self, written: bytes, usual: str) -> None:
        """One that maps IPv4 is an IPv4 address."""
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

    @pytest.mark.parametrize(("fields", "secure"), [
        (b"", False),
        (TLS, True),
        (field(0x20, b"\x07\0\0\0\1"), True),
        (field(0x20, b"\0\0\0\0\0"), False),
        (field(0x20, b"\x06\0\0\0\0"), False),
        (field(0x04, b"") + field(0x05, b"\x20\0\5\x01") + TLS + field(0xEA, bytes(300)), True),
        (field(0x05, TLS), False),
    ])  # fmt: skip
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
    """``proxy_allow_ips``."""

    @pytest.mark.parametrize(("address", "allowed"), [
        (IPv4Address("TCP", "127.0.0.1", 1), True),
        (IPv6Address("TCP", "::ffff:127.0.0.1", 1), True),
        (IPv6Address("TCP", "::1", 1), True),
        (UNIXAddress(None), True),
        (IPv4Address("TCP", "203.0.113.7", 1), False),
        (IPv6Address("TCP", "::ffff:203.0.113.7", 1), False),
    ])  # fmt: skip
    def test_others_are_closed_with_one_line_in_the_log(
        self, address: Any, allowed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        factory = ProxiedFactory(Factory.forProtocol(Recorder), TrustedPeers(["127.0.0.1", "::1", "unix"]))
        assert (factory.buildProtocol(address) is not None) is allowed
        lines = [] if allowed else ["Refused a connection from 203.0.113.7: proxy_allow_ips does not name it"]
        assert caplog.messages == lines


class TestTheLog:
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
                proxied.transport.connectionLost(connectionDone)
                assert proxied.application.lost == 1
        assert not caplog.records


@pytest.mark.parametrize("secure", [False, True])
def test_twisteds_endpoints_get_ports_that_take_the_header_first(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(TCPPort, "startListening", lambda port: started.append(port))
    reactor: Any = MemoryReactorClock()
    factory = Factory()
    securing = (lambda port: port.secure(make_port().certificates)) if secure else None
    given = HeaderFirstReactor(reactor, EVERYBODY, securing)
    port: Any = given.listenTCP(8001, factory, 7, "127.0.0.1")
    assert started == [port]
    assert type(port) is (TLSPort if secure else TCPPort)
    assert (port.port, port.backlog, port.interface, port.reactor) == (8001, 7, "127.0.0.1", reactor)
    assert issubclass(port.transport, HeaderFirst)
    assert isinstance(port.factory, ProxiedFactory)
    assert port.factory.wrappedFactory is factory
    assert given.seconds() == reactor.seconds()
