"""How a connection ends, without a socket: its deadlines, what is still sent, and the peer's own end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure

from tests.fakes import FakeSocket, FakeTransport, WireHub
from tests.wire.test_connection import BUFFER, GET, answer, connected


class TestClosing:
    def test_only_our_direction_is_closed_first(self) -> None:
        """RFC 9112 §9.6."""
        _, connection, transport = connected()
        connection.close()
        assert (transport.half_closed, transport.disconnecting, transport.reading) == (True, False, True)

    def test_input_is_thrown_away_then(self) -> None:
        hub, connection, _ = connected()
        connection.close()
        connection.dataReceived(GET)
        assert hub.requests == []

    def test_input_is_read_again_when_it_was_paused(self) -> None:
        _, connection, transport = connected()
        connection.pause_reading()
        assert not transport.reading
        connection.close()
        assert transport.reading

    def test_peer_that_stays_is_left_after_a_while_without_a_reset(self) -> None:
        hub, connection, transport = connected(close_timeout=2)
        connection.close()
        hub.clock.advance(1.9)
        assert not transport.disconnecting
        hub.clock.advance(0.1)
        assert transport.disconnecting
        assert not transport.aborted

    def test_what_was_written_is_sent_before(self) -> None:
        _, connection, transport = connected(room=0)
        connection.output.write(b"hello")
        connection.close()
        transport.readable(100)
        assert transport.sent == b"hello"

    def test_peer_that_takes_none_of_the_rest_is_dropped(self) -> None:
        hub, connection, transport = connected(room=0, close_timeout=2)
        connection.output.write(b"hello")
        connection.close()
        hub.clock.advance(2)
        assert transport.aborted

    def test_peer_that_still_takes_much_has_the_time_it_needs(self) -> None:
        hub, connection, transport = connected(room=0, close_timeout=2, write_timeout=5, min_response_rate=0)
        data = b"*" * (BUFFER + 100)
        connection.output.write(data)
        connection.close()
        for _ in range(10):
            transport.readable(10)
            hub.clock.advance(4)
        assert not transport.aborted
        transport.readable(1 << 20)
        assert transport.sent == data
        assert transport.half_closed

    def test_closing_twice_is_closing_once(self) -> None:
        hub, connection, _ = connected(close_timeout=2)
        connection.close()
        (call,) = hub.clock.getDelayedCalls()
        connection.close()
        assert hub.clock.getDelayedCalls() == [call]

    def test_lost_connection_has_no_timer_and_is_forgotten(self) -> None:
        hub, connection, transport = connected()
        connection.close()
        transport.lose()
        assert hub.clock.getDelayedCalls() == []
        assert hub.connections == set()

    def test_abort_drops_what_was_not_sent(self) -> None:
        hub, connection, transport = connected(room=0)
        connection.output.write(b"hello")
        connection.abort()
        assert transport.aborted
        assert hub.clock.getDelayedCalls() == []

    def test_finish_does_not_wait_for_the_peer(self) -> None:
        _, connection, transport = connected(room=0)
        connection.output.write(b"hello")
        connection.finish()
        assert not transport.aborted
        transport.readable(100)
        assert (transport.sent, transport.disconnecting) == (b"hello", True)

    def test_finish_waits_no_longer_than_the_close_deadline_for_a_peer_that_takes_nothing(self) -> None:
        hub, connection, transport = connected(room=0, close_timeout=2, head_timeout=1)
        connection.dataReceived(b"GET / HT")
        connection.output.write(b"hello")
        connection.finish()
        hub.clock.advance(1.9)
        assert not transport.aborted
        hub.clock.advance(0.1)
        assert transport.aborted

    def test_finish_leaves_a_peer_that_is_still_sending_to_the_close_deadline(self) -> None:
        """RFC 9112 §9.6: closed with unread input it would be reset, and might lose what it was sent."""
        hub, connection, transport = connected(close_timeout=2)
        connection.output.write(b"No.")
        connection.close(unread=True)
        connection.finish()
        assert not transport.disconnecting
        hub.clock.advance(1.9)
        assert not transport.disconnecting
        hub.clock.advance(0.1)
        assert transport.disconnecting
        assert not transport.aborted

    @pytest.mark.parametrize("closing", [True, False])
    def test_finish_ends_an_idle_peer_at_once(self, closing: bool) -> None:
        _, connection, transport = connected(close_timeout=2)
        if closing:
            connection.close()
        connection.finish()
        assert transport.disconnecting

    def test_wrapped_transport_closes_in_its_own_way(self) -> None:
        connection, transport = WireHub().connect(FakeTransport())
        connection.close()
        assert transport.disconnecting

    def test_socket_under_a_wrapped_transport_is_found(self) -> None:
        transport = FakeTransport()
        transport.transport = FakeSocket()
        connection, _ = WireHub().connect(transport)
        connection.finish()
        assert transport.transport.disconnecting

    def test_new_connection_that_sends_nothing_is_closed(self) -> None:
        hub, _, transport = connected(first_byte_timeout=3)
        hub.clock.advance(3)
        assert transport.half_closed
        assert transport.sent == b""

    def test_connection_that_was_never_used_is_closed_a_while_after_the_server_stops(self) -> None:
        """What its peer has connected for may be on the way."""
        hub, connection, transport = connected()
        hub.stopping, hub.keep_alive_timeout = True, 0.5
        connection.server_stopping()
        hub.clock.advance(0.4)
        assert not transport.half_closed
        hub.clock.advance(0.1)
        assert transport.half_closed

    def test_connection_that_closes_is_left_alone_when_the_server_stops(self) -> None:
        hub, connection, transport = connected(close_timeout=5)
        connection.close()
        hub.stopping, hub.keep_alive_timeout = True, 0.5
        connection.server_stopping()
        hub.clock.advance(4)
        assert not transport.disconnecting
        hub.clock.advance(1)
        assert transport.disconnecting


class TestThePeersEnd:
    """The peer has closed its direction, and may have closed the other too."""

    def test_the_application_is_told(self) -> None:
        hub, connection, _ = connected()
        connection.dataReceived(GET)
        connection.readConnectionLost()
        assert hub.exchange.gone
        assert connection.connected

    def test_nothing_is_waited_for_when_nothing_is_left_to_send(self) -> None:
        class Socket(FakeSocket):
            writeSomeData = TCPConnection.writeSomeData  # type: ignore[assignment]  # noqa: N815 - Twisted's name

            def getHandle(self) -> Any:
                return self

            def send(self, data: bytes) -> int:
                return FakeSocket.writeSomeData(self, data)  # type: ignore[return-value]

            def connectionLost(self, reason: Failure) -> None:
                self.lose()

        transport = Socket()
        hub = WireHub()
        connection, _ = hub.connect(transport)
        connection.dataReceived(GET)
        answer(hub)
        connection.readConnectionLost()
        assert connection not in hub.connections
        assert not transport.writing

    def test_what_was_written_is_still_sent(self) -> None:
        hub, connection, transport = connected(room=10)
        connection.dataReceived(GET)
        answer(hub, b"*" * (BUFFER + 10))
        connection.readConnectionLost()
        assert connection in hub.connections
        transport.readable(1 << 20)
        assert transport.sent.endswith(b"**\r\n0\r\n\r\n")
        assert transport.disconnecting

    def test_what_is_written_before_our_own_close_is_still_sent(self) -> None:
        _, connection, transport = connected(room=0)
        connection.output.write(b"hello")
        connection.close()
        connection.readConnectionLost()
        transport.readable(5)
        assert transport.sent == b"hello"
        assert transport.disconnecting

    def test_a_peer_that_takes_none_of_it_is_dropped(self) -> None:
        hub, connection, transport = connected(room=0, close_timeout=2)
        connection.output.write(b"hello")
        connection.readConnectionLost()
        hub.clock.advance(2)
        assert transport.aborted

    @pytest.mark.parametrize("how", ["end", "finish"])
    def test_a_file_is_sent_to_its_end(self, how: str, tmp_path: Path) -> None:
        """Also when the server stops meanwhile."""
        (tmp_path / "file").write_bytes(b"*" * 500_000)
        _, connection, transport = connected(room=100_000)
        sent: list[str] = []
        file = os.open(tmp_path / "file", os.O_RDONLY)
        connection.output.send_file(file, 0, 500_000, lambda: sent.append("sent"), connection.abort)
        if how == "end":
            connection.readConnectionLost()
        connection.finish()
        assert not transport.disconnecting
        transport.readable(1 << 20)
        while not sent:
            transport.doWrite()
        assert len(transport.sent) == 500_000
        assert transport.disconnecting

    def test_a_file_that_is_not_taken_is_given_up(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"*" * 500_000)
        hub, connection, transport = connected(room=0, write_timeout=5)
        file = os.open(tmp_path / "file", os.O_RDONLY)
        connection.output.send_file(file, 0, 500_000, lambda: pytest.fail("nothing was sent"), connection.abort)
        connection.readConnectionLost()
        hub.clock.advance(5)
        assert transport.aborted
