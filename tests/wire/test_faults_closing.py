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
from asgiserver.wire import output
from asgiserver.wire.connection import HTTPConnection
from tests.fakes import Clock, FakeSocket, FakeTransport, WireHub
from tests.wire.test_connection import BUFFER, connected
from tests.wire.traces import Step, Wire, after, answer, closed, play, reading, still_open, stopped, traces

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


def on_socket(room: int = 1 << 30, **settings: Any) -> Wire:
    """A connection whose peer takes so many bytes before it stops."""
    return Wire(transport=FakeSocket(room), **settings)


# Steps of traces.


def writes(data: bytes) -> Step:
    return lambda wire: wire.connection.output.write(data)


def closes(*, unread: bool = False) -> Step:
    return lambda wire: wire.connection.close(unread=unread)


def takes(room: int) -> Step:
    """The peer takes so many bytes more."""
    return lambda wire: wire.transport.readable(room)


def begins(wire: Wire) -> None:
    """The application begins its response."""
    begin_response(wire.hub)


def accepts(wire: Wire) -> None:
    wire.hub.exchange.take_reply(Accept(None, [], []))


def half_closed(wire: Wire) -> None:
    assert wire.transport.half_closed


def not_closed(wire: Wire) -> None:
    assert not wire.transport.half_closed


def aborted(wire: Wire) -> None:
    assert wire.transport.aborted


def not_aborted(wire: Wire) -> None:
    assert not wire.transport.aborted


def all_sent(data: bytes) -> Step:
    """From the beginning."""

    def look(wire: Wire) -> None:
        assert wire.transport.sent == data

    return look


def late(wire: Wire) -> None:
    """The peer is answered 408."""
    assert wire.transport.sent.startswith(b"HTTP/1.1 408 ")


def not_late(wire: Wire) -> None:
    assert b" 408 " not in wire.transport.sent


def gone(wire: Wire) -> None:
    assert wire.hub.exchange.gone


def goes_on(wire: Wire) -> None:
    assert not wire.hub.exchange.gone


class TestLingering:
    """A peer that is still sending has the time to come to its end."""

    test_its_time = traces({
        "as long as bytes arrive": (
            {"close_timeout": 5}, closes(unread=True), *[b"*" * 1000, after(4)] * 7, still_open, after(10), closed,
            not_aborted,
        ),
        "but not for ever": (
            {"close_timeout": 5}, closes(unread=True), *[still_open, b"*", after(1)] * 30, closed,
        ),
        "and not when it stops": (
            {"close_timeout": 5}, closes(unread=True), b"*", after(5), after(4.9), still_open, after(0.1), closed,
        ),
        "it begins when all is sent": (
            {"room": 0, "close_timeout": 5, "min_response_rate": 0}, writes(b"*" * 100), closes(unread=True),
            *[after(4), takes(10)] * 9, takes(10), lambda wire: wire.connection.writeConnectionLost(), after(4.9),
            reading, not_aborted, after(0.1), stopped, not_aborted,
        ),
    }, on_socket)  # fmt: skip


class TestKernel:
    """What the kernel keeps for a peer counts as not taken."""

    @pytest.fixture(autouse=True)
    def _kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(output, "_kept_by_kernel", lambda _: self.kept)

    kept = 1_000_000

    @pytest.mark.parametrize("steps", [(writes(b"*" * (BUFFER + 1)),), (writes(b"*" * 10), closes())])
    def test_a_peer_that_takes_only_of_that_is_not_dropped(self, steps: tuple[Step, ...]) -> None:
        """Neither when it is slow nor while its connection closes."""
        wire = play(on_socket(room=0, write_timeout=5, close_timeout=5), *steps)
        for _ in range(20):
            self.kept -= 40_000
            wire.advance(4.9)
        play(wire, not_aborted, after(5.1), aborted)

    def test_who_has_nothing_but_that_left_is_the_kernels(self) -> None:
        play(on_socket(close_timeout=5), writes(b"*" * 10), closes(), after(5), closed, not_aborted)

    def test_a_writer_that_goes_on_does_not_move_the_deadline(self) -> None:
        """Twisted says with each write that its buffer is full."""
        steps = [after(1), writes(b"*")] * 5
        play(on_socket(room=0, write_timeout=5), writes(b"*" * (BUFFER + 1)), *steps, aborted)


def test_where_the_kernel_cannot_be_asked_it_keeps_nothing() -> None:
    assert output._kept_by_kernel(-1) == 0
    with open(os.devnull, "rb") as file:
        assert output._kept_by_kernel(file.fileno()) == 0


EXPECT = POST.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n")
FIVE, NONE = POST.replace(b"100000", b"5") + b"12345", POST.replace(b"100000", b"0")


class TestRequestRate:
    """The least rate of a request's body."""

    test_of_a_peer = traces({
        # Its first piece comes before the application asks for the body.
        "one that did not wait for its 100 is judged too": ({}, EXPECT, b"0123456789", after(10), late),
        "a response that has begun is cut off": (
            {}, POST, begins, after(10), not_late, gone, half_closed,
        ),
        "one that is fast enough takes its time": ({}, POST, *[b"*" * 1300, after(5)] * 20, all_sent(b""), goes_on),
        "so does the rest of an answered one": (
            {}, POST, answer(), *[b"*" * 1300, after(5)] * 20, not_closed,
        ),
        "what was fast may pause": ({"request_buffer_size": 200_000}, POST + b"*" * 50_000, after(50), goes_on),
        "an application that makes the peer wait has all time": (
            {"request_buffer_size": 1024}, POST + b"*" * 1024, stopped, after(1000), goes_on,
        ),
        "a client that awaits a 100 has all time": ({}, EXPECT, after(1000), all_sent(b"")),
        "what has come whole has no rate": ({}, FIVE, after(1000), all_sent(b""), goes_on),
        "nor what has no body": ({}, NONE, after(1000), all_sent(b""), goes_on),
        "each request has its own": (
            {}, *[FIVE[:-1], after(9), FIVE[-1:], goes_on, answer()] * 3, not_closed,
        ),
        "it can be off": ({"min_request_rate": 0, "body_timeout": 0}, POST, after(1000), goes_on),
    }, on_socket)  # fmt: skip

    @pytest.mark.parametrize(("request_", "piece"), [(POST, b"0123456789"), (CHUNKED, b"a\r\n0123456789\r\n")])
    def test_a_slower_one_is_answered_408(
        self, request_: bytes, piece: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        play(on_socket(), request_, *[all_sent(b""), after(5), piece] * 2, late, half_closed)
        said = "Ended POST '/' with 408: The request's body arrived at less than 240 bytes a second."
        assert [each for each in caplog.messages if "POST" in each] == [said]

    def test_the_rest_of_an_answered_one_is_not_waited_for(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        play(on_socket(), POST, answer(b"enough"), after(10), half_closed)
        assert caplog.messages == [
            "Closed the connection of 192.0.2.7:4711: The request's body arrived at less than 240 bytes a second."
        ]


class TestResponseRate:
    """The least rate at which a peer takes what waits for it."""

    test_of_a_peer = traces({
        "a slower one whose connection is closing is dropped": (
            {"room": 0}, writes(b"*" * 1000), closes(), *[not_aborted, takes(32), after(5)] * 2, aborted,
        ),
        "one that is fast enough takes its time": (
            {"room": 0}, writes(b"*" * (BUFFER + 1)), *[takes(1300), after(5)] * 50, not_aborted,
        ),
        "who has nothing to take has all time": ({}, HTTP_1_1, begins, after(100_000), not_aborted, not_closed),
        "so has an idle WebSocket": (
            {"ping_interval": 0, "websocket_timeout": -1}, UPGRADE, accepts, after(100_000), not_aborted, not_closed,
        ),
        "it can be off": (
            {"room": 0, "min_response_rate": 0}, writes(b"*" * (BUFFER + 1)), *[takes(1), after(50)] * 20, not_aborted,
        ),
    }, on_socket)  # fmt: skip

    def test_a_slower_one_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        slow = [not_aborted, takes(32), after(5)] * 2
        play(on_socket(room=0), writes(b"*" * (BUFFER + 1)), *slow, aborted)
        assert caplog.messages == ["Dropped 192.0.2.7:4711, which took less than 240 bytes a second"]

    def test_so_is_one_that_reads_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"*" * 3_000_000)
        wire = on_socket(room=0)
        file = os.open(tmp_path / "file", os.O_RDONLY)
        wire.connection.output.send_file(file, 0, 3_000_000, lambda: None, lambda: None)
        wire.transport.writeSomeData = lambda _: 0
        for kept in (1_000_064, 1_000_032):
            wire.transport.sealed = bytes(kept)
            wire.advance(10)
        assert wire.transport.aborted


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
        for transport in told:
            transport.protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
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
