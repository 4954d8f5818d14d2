"""A connection without a socket: how it writes, waits, slows down, closes, and whom it turns away."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import textwrap
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import directlyProvides

from asgiserver.asgi.messages import ResponseBody, ResponseStart
from asgiserver.asgi.scope import Addresses
from asgiserver.listen.proxy_protocol import parse
from asgiserver.wire.addresses import _SERVERS
from asgiserver.wire.connection import HTTPConnection, HTTPFactory
from asgiserver.wire.output import Output
from tests.fakes import CLIENT, SERVER, FakeSocket, FakeTransport, WireHub, settle
from tests.wire.http2_peer import Peer

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
BUFFER = FakeSocket.bufferSize


def connected(room: int = 1 << 30, **settings: float) -> tuple[WireHub, HTTPConnection, FakeSocket]:
    hub = WireHub(**settings)
    connection, transport = hub.connect(FakeSocket(room))
    return hub, connection, transport


def answer(hub: WireHub, data: bytes = b"ok", close: bool = False) -> None:
    hub.exchange.take_reply(ResponseStart(200, [], None, close, False, []))
    hub.exchange.take_reply(ResponseBody(data, False))


class TestWriting:
    def test_socket_is_written_to_at_once(self) -> None:
        _, connection, transport = connected()
        connection.output.write(b"hello")
        assert (transport.sent, transport.writing) == (b"hello", False)

    def test_response_is_one_write(self) -> None:
        hub, connection, transport = connected()
        connection.dataReceived(GET)
        answer(hub)
        assert len(transport.writes) == 1

    def test_rest_of_a_partial_write_waits_for_the_reactor(self) -> None:
        _, connection, transport = connected(room=3)
        connection.output.write(b"hello")
        assert (transport.sent, transport.writing) == (b"hel", True)
        transport.readable(100)
        assert (transport.sent, transport.writing) == (b"hello", False)

    def test_order_is_kept_while_something_is_buffered(self) -> None:
        _, connection, transport = connected(room=3)
        connection.output.write(b"hello")
        transport.room = 100
        connection.output.write(b" world")
        assert transport.sent == b"hel"
        transport.doWrite()
        assert transport.sent == b"hello world"
        connection.output.write(b"!")
        assert transport.sent == b"hello world!"

    def test_peer_that_takes_little_by_little_gets_all_of_it(self) -> None:
        _, connection, transport = connected(room=0)
        data = bytes(range(256)) * 40
        connection.output.write(data)
        while transport.writing:
            transport.readable(1000)
        assert transport.sent == data

    def test_error_is_left_for_the_reactor_to_meet(self) -> None:
        _, connection, transport = connected()
        transport.broken = True
        connection.output.write(b"hello")
        assert (transport.sent, transport.writing) == (b"", True)
        assert isinstance(transport.doWrite(), Exception)

    def test_nothing_is_written_directly_once_the_transport_is_disconnecting(self) -> None:
        _, connection, transport = connected()
        connection.output.close()
        connection.output.write(b"hello")
        assert transport.writes == []

    def test_nothing_is_written_directly_once_the_connection_is_lost(self) -> None:
        _, connection, transport = connected()
        transport.lose()
        connection.output.write(b"hello")
        assert transport.writes == []

    def test_transport_that_wraps_another_keeps_its_own_write(self) -> None:
        connection, transport = WireHub().connect(FakeTransport())
        connection.output.write(b"hello")
        assert transport.take() == b"hello"

    def test_small_packets_are_not_delayed(self) -> None:
        class Socket(FakeSocket):
            no_delay = False

            def setTcpNoDelay(self, enabled: bool) -> None:
                self.no_delay = enabled

        transport = Socket()
        directlyProvides(transport, ITCPTransport)
        WireHub().connect(transport)
        assert transport.no_delay


class TestPressure:
    def test_full_buffer_makes_it_slow_and_an_empty_one_fast_again(self) -> None:
        _, connection, transport = connected(room=0)
        connection.output.write(b"*" * BUFFER)
        assert not connection.output.slow
        connection.output.write(b"*")
        assert connection.output.slow
        transport.readable(BUFFER)
        assert connection.output.slow
        transport.readable(1)
        assert not connection.output.slow

    def test_drain_returns_at_once_while_the_peer_is_fast(self) -> None:
        async def main() -> None:
            _, connection, _ = connected()
            connection.output.write(b"hello")
            task = asyncio.ensure_future(connection.output.drain())
            await asyncio.sleep(0)
            assert task.done()

        asyncio.run(main())

    @pytest.mark.parametrize("end", ["taken", "lost"])
    def test_drain_waits_until_the_peer_has_taken_all_or_is_gone(self, end: str) -> None:
        async def main() -> None:
            _, connection, transport = connected(room=0)
            connection.output.write(b"*" * (BUFFER + 1))
            tasks = [asyncio.ensure_future(connection.output.drain()) for _ in range(2)]
            await settle()
            assert not any(task.done() for task in tasks)
            transport.readable(1 << 20) if end == "taken" else transport.lose()
            await asyncio.gather(*tasks)

        asyncio.run(main())

    def test_cancelled_drain_leaves_nothing_behind(self) -> None:
        async def main() -> None:
            _, connection, transport = connected(room=0)
            connection.output.write(b"*" * (BUFFER + 1))
            task = asyncio.ensure_future(connection.output.drain())
            await settle()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            transport.readable(1 << 20)
            assert not connection.output._waiters

        asyncio.run(main())

    def test_application_that_sends_without_end_lets_others_run(self) -> None:
        async def main() -> None:
            _, connection, _ = connected()
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(count())
            for _ in range(100):
                connection.output.write(b"*" * 65536)
                await connection.output.drain()
            task.cancel()
            # One for each 512 KiB, at least.
            assert turns >= 10

        asyncio.run(main())

    def test_reading_is_paused_and_resumed_once(self) -> None:
        _, connection, transport = connected()
        calls: list[str] = []
        transport.pauseProducing = lambda: calls.append("pause")  # type: ignore[method-assign]
        transport.resumeProducing = lambda: calls.append("resume")  # type: ignore[method-assign]
        connection.resume_reading()
        connection.pause_reading()
        connection.pause_reading()
        connection.resume_reading()
        connection.resume_reading()
        assert calls == ["pause", "resume"]

    def test_peer_that_takes_nothing_is_dropped_and_named(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        hub, connection, transport = connected(room=0, write_timeout=5)
        connection.output.write(b"*" * (BUFFER + 1))
        hub.clock.advance(4.9)
        assert (transport.aborted, caplog.messages) == (False, [])
        hub.clock.advance(0.1)
        assert transport.aborted
        assert caplog.messages == ["Dropped 192.0.2.7:4711, which took nothing for 5 seconds"]

    def test_peer_that_takes_little_is_not(self) -> None:
        hub, connection, transport = connected(room=0, write_timeout=5, min_response_rate=0)
        connection.output.write(b"*" * (BUFFER + 10))
        for _ in range(5):
            transport.readable(1)
            hub.clock.advance(5)
        assert not transport.aborted
        hub.clock.advance(5)
        assert transport.aborted

    def test_peer_that_takes_little_of_what_is_encrypted_is_not(self) -> None:
        """A TLS transport says only of a whole piece that it is sent."""
        hub, connection, transport = connected(room=0, write_timeout=5, min_response_rate=0)
        transport.sealed = b"*" * 10
        connection.output.write(b"*" * (BUFFER + 10))
        for size in (8, 3):
            transport.sealed = b"*" * size
            hub.clock.advance(5)
        assert not transport.aborted
        hub.clock.advance(5)
        assert transport.aborted

    def test_peer_that_has_taken_all_has_no_deadline(self) -> None:
        hub, connection, transport = connected(room=0, write_timeout=5, first_byte_timeout=0)
        connection.output.write(b"*" * (BUFFER + 1))
        transport.readable(1 << 20)
        hub.clock.advance(1e6)
        assert not transport.aborted


class TestTooMany:
    def test_one_connection_too_many_is_told_so(self) -> None:
        hub = WireHub()
        hub.accepting = False
        connection, transport = hub.connect(FakeSocket())
        connection.dataReceived(GET)
        assert transport.sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 1\r\n" in transport.sent
        assert b"\r\nconnection: close\r\n" in transport.sent
        assert transport.half_closed
        connection.dataReceived(GET)
        assert hub.requests == hub.refused == []

    def test_one_of_http_2_is_told_so_in_http_2(self) -> None:
        hub = WireHub()
        hub.accepting = False
        peer = Peer(hub=hub)
        peer.get(1)
        peer.get(3)
        frames = peer.take()
        assert [frame[2][":status"] for frame in frames if frame[0] == "HEADERS"] == ["503", "503"]
        assert ("GOAWAY", 2**31 - 1, "NO_ERROR") in frames
        peer.ping(b"leaving!", ack=True)
        assert peer.take() == [("GOAWAY", 3, "NO_ERROR")]
        assert peer.closed
        assert hub.requests == hub.refused == []

    def test_one_that_says_nothing_is_closed_soon(self) -> None:
        hub = WireHub(close_timeout=2)
        hub.accepting = False
        _, transport = hub.connect(FakeSocket())
        hub.clock.advance(2.1)
        assert (transport.sent, transport.half_closed) == (b"", True)

    def test_it_is_told_when_debugging_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "asgiserver.wire")
        hub = WireHub()
        hub.accepting = False
        hub.connect(FakeSocket())[0].dataReceived(GET)
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
            (logging.DEBUG, "Turned 192.0.2.7:4711 away: There are too many connections.")
        ]


class TestTwisted:
    """That the sockets' transport has what is read of it past Twisted's public interface."""

    def names_read(self) -> set[str]:
        """The attributes that a connection reads of its transport."""
        return {
            node.attr
            for kind in (HTTPConnection, Output)
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind))))
            if isinstance(node, ast.Attribute)
            and ast.unparse(node.value) in ("transport", "self.transport", "self._transport", "bottom")
            # Asked for when the transport says that it is TCP's, and of one that wraps another.
            and node.attr not in ("setTcpNoDelay", "transport")
        }

    def test_every_name_that_is_read_is_there(self) -> None:
        assert "unregisterProducer" in self.names_read()
        descriptor = FileDescriptor(reactor=object())  # type: ignore[arg-type]
        plain = self.names_read() - {"abortConnection", "getHandle"}
        assert {name for name in plain if not hasattr(descriptor, name)} == set()
        assert issubclass(TCPConnection, FileDescriptor)
        assert hasattr(TCPConnection, "abortConnection")


class TestAddresses:
    @pytest.mark.parametrize(
        ("peer", "host", "addresses"),
        [
            (IPv4Address("TCP", *CLIENT), IPv4Address("TCP", *SERVER), Addresses(CLIENT, SERVER, False)),
            (
                IPv6Address("TCP", "2001:db8::1", 5),
                IPv6Address("TCP", "::1", 8000),
                Addresses(("2001:db8::1", 5), ("::1", 8000), False),
            ),
            # C4: a socket of IPv6 that takes IPv4 too.
            (
                IPv6Address("TCP", "::ffff:192.0.2.7", 4711),
                IPv6Address("TCP", "::ffff:198.51.100.1", 8000),
                Addresses(CLIENT, SERVER, False),
            ),
            (UNIXAddress(""), UNIXAddress("/run/web.sock"), Addresses(None, ("/run/web.sock", None), False)),
            (UNIXAddress("/tmp/peer"), UNIXAddress(b"/run/web.sock"), Addresses(None, ("/run/web.sock", None), False)),
            (UNIXAddress(None), UNIXAddress(None), Addresses(None, None, False)),
        ],
    )
    def test_both_ends(self, peer: IAddress, host: IAddress, addresses: Addresses) -> None:
        connection, _ = WireHub().connect(FakeTransport(peer, host))
        assert connection.addresses == addresses

    def test_tls_is_told(self) -> None:
        transport = FakeTransport()
        directlyProvides(transport, ISSLTransport)
        connection, _ = WireHub().connect(transport)
        assert connection.addresses.secure

    @pytest.mark.parametrize(
        ("header", "addresses"),
        [
            (b"PROXY UNKNOWN\r\n", Addresses(CLIENT, SERVER, False)),
            (
                b"PROXY TCP4 203.0.113.9 203.0.113.1 5 443\r\n",
                Addresses(("203.0.113.9", 5), ("203.0.113.1", 443), False, True, CLIENT),
            ),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xcb\0\x71\x09\xcb\0\x71\x01\0\5\1\xbb\x20\0\5\1\0\0\0\0",
                Addresses(("203.0.113.9", 5), ("203.0.113.1", 443), True, True, CLIENT),
            ),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(108) + b"/run/web".ljust(108, b"\0"),
                Addresses(None, ("/run/web", None), False, True, CLIENT),
            ),
        ],
    )
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_proxys_header_gives_them_and_the_proxy_is_remembered(
        self, header: bytes, addresses: Addresses, wrapped: bool
    ) -> None:
        """Next to the connection, and with something between them, as TLS would be."""
        told = parse(header)
        assert told is not None
        transport: Any = FakeTransport(told.client, told.server)
        transport.proxy_header, transport.proxy = told, CLIENT
        found = HTTPFactory(WireHub()).buildProtocol(None)
        outer: Any = ProtocolWrapper(WrappingFactory(Factory()), found) if wrapped else found
        outer.makeConnection(transport)
        assert found.addresses == addresses

    def test_what_others_keep_is_not_kept_again(self) -> None:
        made = []
        for port in (4711, 4712):
            transport = FakeTransport(IPv4Address("TCP", "192.0.2.7", port), IPv4Address("TCP", *SERVER))
            transport.client = ("192.0.2.7", port)
            connection, _ = WireHub().connect(transport)
            assert connection.addresses.client is transport.client
            made.append(connection)
        assert made[0].addresses.server == SERVER
        assert made[0].addresses.server is made[1].addresses.server

    @pytest.mark.parametrize(
        "client", [("198.51.100.9", 1), ("2001:db8::1", 5, 0, 0), ("2001:db8::1", 6, 0, 0), "", None, ()]
    )
    def test_whatever_the_transport_keeps_the_peer_is_who_it_says(self, client: Any) -> None:
        """Behind the PROXY protocol the socket's peer is another one, and IPv6 has more than two parts."""
        transport = FakeTransport(IPv6Address("TCP", "2001:db8::1", 5), IPv4Address("TCP", *SERVER))
        transport.client = client
        connection, _ = WireHub().connect(transport)
        assert connection.addresses.client == ("2001:db8::1", 5)

    def test_of_very_many_servers_not_all_are_kept(self) -> None:
        for port in range(1000):
            host = IPv4Address("TCP", "198.51.100.1", port)
            connection, _ = WireHub().connect(FakeTransport(IPv4Address("TCP", *CLIENT), host))
            assert connection.addresses.server == ("198.51.100.1", port)
        assert len(_SERVERS) <= 256

    def test_they_are_asked_for_once(self) -> None:
        connection, _ = WireHub().connect(FakeTransport())
        assert connection.addresses is connection.addresses


class TestFactory:
    def test_it_builds_connections_of_its_hub(self) -> None:
        hub = WireHub()
        made = HTTPFactory(hub).buildProtocol(None)
        assert isinstance(made, HTTPConnection)
        assert made.hub is hub
