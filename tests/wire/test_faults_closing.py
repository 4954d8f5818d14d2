"""How connections end, and how slow a peer may be, without a socket."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from asgiserver.asgi.messages import Accept, Close, ResponseBody, ResponseStart
from asgiserver.errors import MessageError, RequestError
from asgiserver.hub import _MOST_TURNED_AWAY, Hub
from asgiserver.settings import Settings
from asgiserver.wire import closing
from asgiserver.wire.connection import HTTPConnection
from tests.fakes import Clock, FakeSocket, FakeTransport, WireHub
from tests.wire.test_connection import BUFFER, connected

HTTP_1_1 = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
HTTP_1_0 = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def begin_response(hub: WireHub, length: int | None = None, data: bytes = b"part") -> None:
    fields = [] if length is None else [(b"content-length", b"%d" % length)]
    hub.exchange.take_reply(ResponseStart(200, fields, length, False, False, [name.lower() for name, _ in fields]))
    hub.exchange.take_reply(ResponseBody(data, True))


class TestCutOff:
    """A response that is cut off: what send() took is sent, and its end says that it is not all."""

    #: The request, the Content-Length of the response, and whether the connection's end would look like the body's.
    RESPONSES = [
        (HTTP_1_1, None, False), (HTTP_1_1, 10, False), (HTTP_1_0, 10, False), (HTTP_1_0, None, True),
        (HEAD, None, False), (POST, None, False),
    ]  # fmt: skip

    CASES = [
        (*response, how)
        for response in RESPONSES
        for how in ("raised", "returned", "too old", "short", "long")
        if response[1] is not None or how not in ("short", "long")
    ]

    @pytest.mark.parametrize(("request_", "length", "reset", "how"), CASES)
    def test_by_a_reset_only_where_it_would_look_whole(
        self, request_: bytes, length: int | None, reset: bool, how: str
    ) -> None:
        hub, connection, transport = connected(http_timeout=3)
        connection.dataReceived(request_)
        begin_response(hub, length)
        if how == "too old":
            hub.clock.advance(3)
        elif how in ("raised", "returned"):
            hub.exchange.application_done(failed=how == "raised")
        else:
            with pytest.raises(MessageError):
                hub.exchange.take_reply(ResponseBody(b"!" if how == "short" else b"*" * 7, False))
        assert (transport.aborted, transport.half_closed) == (reset, not reset)
        assert not transport.sent.endswith(b"0\r\n\r\n")
        assert hub.exchange.gone

    def test_what_the_peer_has_not_taken_yet_still_goes_to_it(self) -> None:
        hub, connection, transport = connected(room=0)
        connection.dataReceived(HTTP_1_1)
        begin_response(hub, data=b"*" * (BUFFER + 1))
        hub.exchange.application_done(failed=True)
        assert not transport.aborted
        while transport.writing:
            transport.readable(10_000)
        assert transport.sent.endswith(b"***\r\n")
        assert transport.half_closed

    @pytest.mark.parametrize("size", [10, BUFFER + 1])
    def test_a_peer_that_takes_none_of_it_is_dropped(self, size: int) -> None:
        hub, connection, transport = connected(room=0, write_timeout=4, close_timeout=4)
        connection.dataReceived(HTTP_1_1)
        begin_response(hub, data=b"*" * size)
        hub.exchange.application_done(failed=True)
        hub.clock.advance(3.9)
        assert not transport.aborted
        hub.clock.advance(0.1)
        assert transport.aborted

    def test_nothing_more_is_taken_from_anybody(self) -> None:
        hub, connection, transport = connected()
        connection.dataReceived(HTTP_1_1)
        begin_response(hub)
        stream, exchange = hub.exchange.stream, hub.exchange
        exchange.application_done(failed=True)
        before = transport.sent
        stream.send_data(b"late")
        stream.send_data(b"", last=True)
        stream.abort()
        connection.dataReceived(HTTP_1_1)
        assert (transport.sent, len(hub.requests), transport.aborted) == (before, 1, False)

    @pytest.mark.parametrize("length", [None, 9])
    def test_a_denial_of_a_websocket_is_no_exception(self, length: int | None) -> None:
        hub, connection, transport = connected()
        connection.dataReceived(UPGRADE)
        hub.exchange.take_reply(ResponseStart(401, [], length, False, False, []))
        hub.exchange.take_reply(ResponseBody(b"part", True))
        hub.exchange.application_done(failed=True)
        assert (transport.aborted, transport.half_closed) == (False, True)
        assert b"part" in transport.sent

    def test_nor_is_an_open_websocket(self) -> None:
        """RFC 6455 §7.1.5: without a close frame it is closed abnormally."""
        hub, connection, transport = connected()
        connection.dataReceived(UPGRADE)
        hub.exchange.stream.switch([], [])
        hub.exchange.stream.send_data(b"<frame>")
        hub.exchange.stream.abort()
        assert (transport.aborted, transport.half_closed) == (False, True)
        assert transport.sent.endswith(b"<frame>")

    def test_of_a_file_no_more_is_sent(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"*" * 3_000_000)
        hub, connection, transport = connected(room=500_000)
        connection.dataReceived(HTTP_1_1)
        begin_response(hub, 3_000_004)
        open_before = len(os.listdir("/proc/self/fd"))
        hub.exchange.stream.send_file(
            os.open(tmp_path / "file", os.O_RDONLY), 0, 3_000_000, last=True, sent=lambda: pytest.fail("it was cut")
        )
        hub.exchange.application_done(failed=True)
        assert len(os.listdir("/proc/self/fd")) == open_before
        while transport.writing:
            transport.readable(500_000)
        assert 400_000 < len(transport.sent) < 1_500_000
        assert (transport.aborted, transport.half_closed) == (False, True)

    @pytest.mark.parametrize(("request_", "reset"), [(HTTP_1_1, False), (HTTP_1_0, True)])
    @pytest.mark.parametrize("size", [20_000, 3_000_000])
    def test_a_file_that_became_shorter_ends_the_response_like_that(
        self, request_: bytes, reset: bool, size: int, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(b"*" * (size - 1000))
        hub, connection, transport = connected()
        connection.dataReceived(request_)
        begin_response(hub)
        hub.exchange.stream.send_file(
            os.open(tmp_path / "file", os.O_RDONLY), 0, size, last=True, sent=lambda: pytest.fail("it is not all there")
        )
        while transport.writing and not transport.aborted:
            transport.doWrite()
        assert transport.sent.count(b"*") == size - 1000
        assert (transport.aborted, transport.half_closed) == (reset, not reset)
        assert hub.exchange.gone

    def test_a_transport_that_wraps_another_closes_in_its_own_way(self) -> None:
        for request, reset in ((HTTP_1_1, False), (HTTP_1_0, True)):
            hub = WireHub()
            connection, transport = hub.connect(FakeTransport())
            connection.dataReceived(request)
            begin_response(hub)
            hub.exchange.application_done(failed=True)
            assert transport.disconnecting
            assert bool(transport.disconnected) == reset


    @pytest.mark.parametrize(("request_", "reset"), [(HTTP_1_1, False), (HTTP_1_0, True), (b"", True)])
    def test_at_the_very_end_the_kernel_goes_on(self, request_: bytes, reset: bool) -> None:
        hub, connection, transport = connected(room=10)
        if request_:
            connection.dataReceived(request_)
            begin_response(hub)
        connection.drop()
        assert (transport.aborted, bool(transport.disconnected)) == (reset, not reset)


class TestLingering:
    """A peer that is still sending has the time to come to its end."""

    def test_as_long_as_bytes_arrive(self) -> None:
        hub, connection, transport = connected(close_timeout=5)
        connection.close(unread=True)
        for _ in range(7):
            connection.dataReceived(b"*" * 1000)
            hub.clock.advance(4)
        assert not transport.disconnecting
        hub.clock.advance(10)
        assert (transport.disconnecting, transport.aborted) == (True, False)

    def test_but_not_for_ever(self) -> None:
        hub, connection, transport = connected(close_timeout=5)
        connection.close(unread=True)
        passed = 0
        while not transport.disconnecting:
            connection.dataReceived(b"*")
            hub.clock.advance(1)
            passed += 1
        assert passed == closing._LINGERING == 30

    def test_and_not_when_it_stops(self) -> None:
        hub, connection, transport = connected(close_timeout=5)
        connection.close(unread=True)
        connection.dataReceived(b"*")
        hub.clock.pump([5, 4.9])
        assert not transport.disconnecting
        hub.clock.advance(0.1)
        assert transport.disconnecting

    def test_its_time_begins_when_all_is_sent(self) -> None:
        hub, connection, transport = connected(room=0, close_timeout=5, min_response_rate=0)
        connection.write(b"*" * 100)
        connection.close(unread=True)
        for _ in range(9):
            hub.clock.advance(4)
            transport.readable(10)
        transport.readable(10)
        connection.writeConnectionLost()
        hub.clock.advance(4.9)
        assert (transport.reading, transport.aborted) == (True, False)
        hub.clock.advance(0.1)
        assert (transport.reading, transport.aborted) == (False, False)


class TestKernel:
    """What the kernel keeps for a peer counts as not taken."""

    @pytest.fixture
    def kept(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        kept = [1_000_000]
        monkeypatch.setattr(closing, "_kept_by_kernel", lambda _: kept[0])
        return kept

    def test_a_peer_that_takes_only_of_that_is_not_dropped(self, kept: list[int]) -> None:
        hub, connection, transport = connected(room=0, write_timeout=5)
        connection.write(b"*" * (BUFFER + 1))
        for _ in range(20):
            kept[0] -= 40_000
            hub.clock.advance(4.9)
        assert not transport.aborted
        hub.clock.advance(5.1)
        assert transport.aborted

    def test_nor_while_its_connection_closes(self, kept: list[int]) -> None:
        hub, connection, transport = connected(room=0, close_timeout=5)
        connection.write(b"*" * 10)
        connection.close()
        for _ in range(20):
            kept[0] -= 40_000
            hub.clock.advance(4.9)
        assert not transport.aborted
        hub.clock.advance(5.1)
        assert transport.aborted

    def test_who_has_nothing_but_that_left_is_the_kernels(self, kept: list[int]) -> None:
        hub, connection, transport = connected(close_timeout=5)
        connection.write(b"*" * 10)
        connection.close()
        hub.clock.advance(5)
        assert (transport.disconnecting, transport.aborted) == (True, False)

    def test_where_it_cannot_be_asked_it_keeps_nothing(self) -> None:
        assert closing._kept_by_kernel(-1) == 0
        with open(os.devnull, "rb") as file:
            assert closing._kept_by_kernel(file.fileno()) == 0

    def test_a_writer_that_goes_on_does_not_move_the_deadline(self) -> None:
        """Twisted says with each write that its buffer is full."""
        hub, connection, transport = connected(room=0, write_timeout=5)
        connection.write(b"*" * (BUFFER + 1))
        for _ in range(5):
            hub.clock.advance(1)
            connection.write(b"*")
        assert transport.aborted


class TestRequestRate:
    """The least rate of a request's body."""

    @pytest.mark.parametrize("request_", [POST, CHUNKED])
    def test_a_slower_one_is_answered_408(
        self, request_: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        hub, connection, transport = connected()
        connection.dataReceived(request_)
        piece = b"a\r\n0123456789\r\n" if request_ is CHUNKED else b"0123456789"
        for _ in range(2):
            assert transport.sent == b""
            hub.clock.advance(5)
            connection.dataReceived(piece)
        assert transport.sent.startswith(b"HTTP/1.1 408 ")
        assert transport.half_closed
        said = "Ended POST '/' with 408: The request's body arrived at less than 240 bytes a second."
        assert [each for each in caplog.messages if "POST" in each] == [said]

    def test_one_that_did_not_wait_for_its_100_is_judged_too(self) -> None:
        """Its first piece comes before the application asks for the body."""
        hub, connection, transport = connected()
        connection.dataReceived(POST.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"))
        connection.dataReceived(b"0123456789")
        hub.clock.advance(10)
        assert transport.sent.startswith(b"HTTP/1.1 408 ")

    def test_a_response_that_has_begun_is_cut_off(self) -> None:
        hub, connection, transport = connected()
        connection.dataReceived(POST)
        begin_response(hub)
        hub.clock.advance(10)
        assert b" 408 " not in transport.sent
        assert hub.exchange.gone
        assert transport.half_closed

    def test_the_rest_of_an_answered_one_is_not_waited_for(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        hub, connection, transport = connected()
        connection.dataReceived(POST)
        hub.exchange.take_reply(ResponseStart(200, [], None, False, False, []))
        hub.exchange.take_reply(ResponseBody(b"enough", False))
        hub.clock.advance(10)
        assert transport.half_closed
        assert caplog.messages == [
            "Closed the connection of 192.0.2.7:4711: The request's body arrived at less than 240 bytes a second."
        ]

    def test_one_that_is_fast_enough_takes_its_time(self) -> None:
        hub, connection, transport = connected()
        connection.dataReceived(POST)
        for _ in range(20):
            connection.dataReceived(b"*" * 1300)
            hub.clock.advance(5)
        assert transport.sent == b""
        assert not hub.exchange.gone

    def test_what_was_fast_may_pause(self) -> None:
        hub, connection, _ = connected(request_buffer_size=200_000)
        connection.dataReceived(POST + b"*" * 50_000)
        hub.clock.advance(50)
        assert not hub.exchange.gone

    def test_an_application_that_makes_the_peer_wait_has_all_time(self) -> None:
        hub, connection, transport = connected(request_buffer_size=1024)
        connection.dataReceived(POST + b"*" * 1024)
        assert not transport.reading
        hub.clock.advance(1000)
        assert not hub.exchange.gone

    def test_a_client_that_awaits_a_100_has_all_time(self) -> None:
        hub, connection, transport = connected()
        connection.dataReceived(POST.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"))
        hub.clock.advance(1000)
        assert transport.sent == b""

    @pytest.mark.parametrize("body", [b"*" * 5, b""])
    def test_what_has_come_whole_has_no_rate(self, body: bytes) -> None:
        hub, connection, transport = connected()
        connection.dataReceived(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        hub.clock.advance(1000)
        assert transport.sent == b""
        assert not hub.exchange.gone

    def test_each_request_has_its_own(self) -> None:
        hub, connection, transport = connected()
        whole = POST.replace(b"100000", b"5") + b"12345"
        for _ in range(3):
            connection.dataReceived(whole[:-1])
            hub.clock.advance(9)
            connection.dataReceived(whole[-1:])
            assert not hub.exchange.gone
            hub.exchange.take_reply(ResponseStart(200, [], None, False, False, []))
            hub.exchange.take_reply(ResponseBody(b"ok", False))
        assert not transport.half_closed

    def test_it_can_be_off(self) -> None:
        hub, connection, _ = connected(min_request_rate=0, body_timeout=0)
        connection.dataReceived(POST)
        hub.clock.advance(1000)
        assert not hub.exchange.gone


class TestResponseRate:
    """The least rate at which a peer takes what waits for it."""

    def test_a_slower_one_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        _, connection, transport = connected(room=0)
        hub: Any = connection.hub
        connection.write(b"*" * (BUFFER + 1))
        for _ in range(2):
            assert not transport.aborted
            transport.readable(32)
            hub.clock.advance(5)
        assert transport.aborted
        assert caplog.messages == ["Dropped 192.0.2.7:4711, which took less than 240 bytes a second"]

    def test_so_is_one_whose_connection_is_closing(self) -> None:
        hub, connection, transport = connected(room=0)
        connection.write(b"*" * 1000)
        connection.close()
        for _ in range(2):
            assert not transport.aborted
            transport.readable(32)
            hub.clock.advance(5)
        assert transport.aborted

    def test_so_is_one_that_reads_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"*" * 3_000_000)
        hub, connection, transport = connected(room=0)
        file = os.open(tmp_path / "file", os.O_RDONLY)
        connection.send_file(file, 0, 3_000_000, lambda: None, lambda: None)
        transport.writeSomeData = lambda _: 0  # type: ignore[method-assign]
        for kept in (1_000_064, 1_000_032):
            transport.sealed = bytes(kept)
            hub.clock.advance(10)
        assert transport.aborted

    def test_one_that_is_fast_enough_takes_its_time(self) -> None:
        hub, connection, transport = connected(room=0)
        connection.write(b"*" * (BUFFER + 1))
        for _ in range(50):
            transport.readable(1300)
            hub.clock.advance(5)
        assert not transport.aborted

    @pytest.mark.parametrize("request_", [HTTP_1_1, UPGRADE])
    def test_who_has_nothing_to_take_has_all_time(self, request_: bytes) -> None:
        hub, connection, transport = connected(ping_interval=0, websocket_timeout=-1)
        connection.dataReceived(request_)
        if request_ is UPGRADE:
            hub.exchange.take_reply(Accept(None, [], []))
        else:
            begin_response(hub)
        hub.clock.advance(100_000)
        assert not transport.aborted
        assert not transport.half_closed

    def test_it_can_be_off(self) -> None:
        hub, connection, transport = connected(room=0, min_response_rate=0)
        connection.write(b"*" * (BUFFER + 1))
        for _ in range(20):
            transport.readable(1)
            hub.clock.advance(50)
        assert not transport.aborted


class TestTooManyConnections:
    """Only so many of those beyond the limit have an answer made for them at a time."""

    def hub(self, limit: int) -> Any:
        hub: Any = Hub(None, Settings(limit_connections=limit), None)  # type: ignore[arg-type]
        hub.clock = Clock()
        return hub

    def connect(self, hub: Any) -> FakeSocket:
        transport = FakeSocket()
        transport.protocol = connection = HTTPConnection(hub)
        connection.makeConnection(transport)
        return transport

    def test_the_others_are_closed_at_once(self) -> None:
        hub = self.hub(2)
        made = [self.connect(hub) for _ in range(2 + _MOST_TURNED_AWAY + 3)]
        assert [transport.sent[:12] for transport in made[:2]] == [b"", b""]
        told = made[2 : 2 + _MOST_TURNED_AWAY]
        assert {transport.sent[:12] for transport in told} == {b"HTTP/1.1 503"}
        assert {(transport.sent, transport.aborted) for transport in made[-3:]} == {(b"", True)}
        assert not any(transport.aborted for transport in made[:-3])
        assert hub.clock.getDelayedCalls() != []

    def test_until_there_is_room_among_them_again(self) -> None:
        hub = self.hub(1)
        made = [self.connect(hub) for _ in range(1 + _MOST_TURNED_AWAY + 1)]
        for transport in made[1:3] + made[-1:]:
            transport.lose()
        assert [self.connect(hub).aborted for _ in range(3)] == [False, False, True]


class TestPlainOnTLS:
    """Which of TLS and plain HTTP a port speaks is told to a client that speaks the other."""

    def test_our_tls_transport_has_the_client_answered(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        hub, connection, transport = connected()
        connection.plain_received()
        assert transport.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert transport.sent.endswith(b"This port speaks TLS: ask for an https address.\n")
        assert transport.half_closed
        assert caplog.messages == ["Refused 192.0.2.7:4711, which speaks plain HTTP to a port of TLS"]
        connection.dataReceived(b"x" * 1000)
        assert hub.requests == []

    @pytest.mark.parametrize("parts", [1, 5])
    def test_tls_on_a_plain_port_is_named_as_that(self, parts: int) -> None:
        refused: list[str] = []

        class Refusing(WireHub):
            def request_refused(self, request: Any, addresses: Any, error: RequestError) -> None:
                refused.append(error.reason)

        hub = Refusing()
        connection, transport = hub.connect(FakeSocket())
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        size = len(hello) // parts + 1
        for at in range(0, len(hello), size):
            connection.dataReceived(hello[at : at + size])
        assert transport.sent.startswith(b"HTTP/1.1 400 ")
        assert refused == ["The client speaks TLS, and this port speaks plain HTTP."]


def test_a_websocket_that_is_denied_whole_keeps_its_connection() -> None:
    """Nothing is cut off that was complete."""
    hub, connection, transport = connected()
    connection.dataReceived(UPGRADE)
    hub.exchange.take_reply(Close(1000, ""))
    assert not transport.half_closed
