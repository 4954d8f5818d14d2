from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from asgiserver.process.proxy_protocol import ProxiedFactory, header_size

V2 = b"\r\n\r\n\0\r\nQUIT\n"
SOCKET = "192.168.1.1"
"""The peer that Twisted's StringTransport names."""

V1_TCP4 = b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 443\r\n"
V1_TCP6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n"
V2_TCP4 = V2 + b"\x21\x11\0\x0c" + bytes([203, 0, 113, 7, 198, 51, 100, 1]) + b"\x13\x88\x01\xbb"
V2_LOCAL = V2 + b"\x20\0\0\0"


class Recorder(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.peers: list[tuple[str, int]] = []
        self.lost = 0
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.data += data
        peer = self.transport.getPeer()
        self.peers.append((peer.host, peer.port))  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost += 1

    def readConnectionLost(self) -> None:
        self.ended = True


class Proxied:
    """A connection that a proxy opens, over a transport in memory."""

    def __init__(self) -> None:
        factory = ProxiedFactory(Factory.forProtocol(Recorder))
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

    protocol = ProxiedFactory(Factory.forProtocol(Raising)).buildProtocol(IPv4Address("TCP", SOCKET, 54321))
    assert protocol is not None
    protocol.makeConnection(StringTransport())
    with pytest.raises(ValueError, match="the application's own"):
        protocol.dataReceived(V1_TCP4 + b"GET")


def test_the_end_of_the_peers_direction_is_passed_on() -> None:
    it = Proxied()
    half_closeable = IHalfCloseableProtocol(it.protocol)
    half_closeable.readConnectionLost()
    half_closeable.writeConnectionLost()
    assert (it.application.ended, it.application.lost) == (True, 0)


class TestHeaderSize:
    @pytest.mark.parametrize("header", [V1_TCP4, V1_TCP6, V2_TCP4, V2_LOCAL])
    def test_counts_the_header_and_not_what_follows(self, header: bytes) -> None:
        assert header_size(header) == header_size(header + b"more\r\n") == len(header)

    @pytest.mark.parametrize("header", [V1_TCP4, V2_TCP4])
    def test_is_unknown_while_there_is_less(self, header: bytes) -> None:
        assert {header_size(header[:cut]) for cut in range(len(header))} == {None}

    def test_a_line_is_at_most_107_bytes_long(self) -> None:
        longest = b"PROXY UNKNOWN".ljust(105) + b"\r\n"
        assert header_size(longest) == 107
        with pytest.raises(ValueError, match="too long"):
            header_size(b"PROXY UNKNOWN".ljust(106) + b"\r\n")
