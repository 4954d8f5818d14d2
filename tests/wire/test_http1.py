"""HTTP/1.1 on a connection: framing, order, keep-alive, rest of bodies, 100-continue, upgrade, deadlines."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgiserver.asgi.deadlines import Deadline, Deadlines
from asgiserver.asgi.exchange import State
from asgiserver.asgi.messages import Accept, Close, ResponseBody, ResponseStart
from asgiserver.errors import RequestError
from tests.fakes import DATE, Clock, FakeFrames, FakeSocket, FakeTransport, WireHub, at_once, would_wait

GET = b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
EXPECT = b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
DISCONNECT = {"type": "http.disconnect"}


def response(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"".join(line + b"\r\n" for line in (b"HTTP/1.1 " + status, b"date: " + DATE, *lines, b""))


class Wire:
    """A connection without a socket, whose applications are played by the test."""

    def __init__(self, data: bytes = b"", transport: Any = None, **settings: Any) -> None:
        self.hub = WireHub(**settings)
        self.connection, self.transport = self.hub.connect(transport)
        if data:
            self.feed(data)

    def feed(self, data: bytes) -> None:
        self.connection.dataReceived(data)

    def start(self, status: int = 200, length: int | None = None, close: bool = False) -> None:
        self.hub.exchange.take_reply(ResponseStart(status, [], length, close, False, []))

    def body(self, data: bytes = b"", more: bool = False) -> None:
        self.hub.exchange.take_reply(ResponseBody(data, more))

    def answer(self, data: bytes = b"ok", status: int = 200, length: int | None = None, close: bool = False) -> None:
        self.start(status, length, close)
        self.body(data)

    def receive(self) -> dict[str, Any]:
        return dict(at_once(self.hub.exchange.receive()))

    def advance(self, seconds: float) -> None:
        self.hub.clock.advance(seconds)

    def stop(self) -> None:
        """The server begins to stop, and gives idle connections half a second."""
        self.hub.stopping, self.hub.keep_alive_timeout = True, 0.5
        for connection in list(self.hub.connections):
            connection.server_stopping()

    @property
    def closed(self) -> bool:
        return bool(self.transport.disconnecting)

    @property
    def aborted(self) -> bool:
        return bool(self.transport.disconnected)


class TestFraming:
    def test_known_length_is_sent_as_it_is(self) -> None:
        wire = Wire(GET % 1)
        name = b"content-length"
        wire.hub.exchange.take_reply(ResponseStart(200, [(name, b"2")], 2, False, False, [name]))
        wire.body(b"ok")
        assert wire.transport.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: " + DATE + b"\r\n\r\nok"
        assert not wire.closed

    def test_unknown_length_is_chunked(self) -> None:
        wire = Wire(GET % 1)
        wire.start()
        assert wire.transport.take() == b""
        wire.body(b"hello", more=True)
        assert wire.transport.take() == response(b"transfer-encoding: chunked") + b"5\r\nhello\r\n"
        wire.body(b"", more=True)
        assert wire.transport.take() == b""
        wire.body(b"*" * 16)
        assert wire.transport.take() == b"10\r\n" + b"*" * 16 + b"\r\n0\r\n\r\n"

    def test_empty_chunked_response(self) -> None:
        wire = Wire(GET % 1)
        wire.answer(b"")
        assert wire.transport.take() == response(b"transfer-encoding: chunked") + b"0\r\n\r\n"

    def test_large_pieces_are_framed_the_same(self) -> None:
        wire = Wire(GET % 1)
        wire.answer(b"*" * 100_000)
        sent = wire.transport.take()
        assert sent == response(b"transfer-encoding: chunked") + b"186a0\r\n" + b"*" * 100_000 + b"\r\n0\r\n\r\n"

    def test_1_0_gets_no_chunks_and_the_connections_end_ends_the_body(self) -> None:
        wire = Wire(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        wire.answer()
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed

    def test_1_0_is_kept_alive_when_it_asks_for_it_and_the_length_is_known(self) -> None:
        wire = Wire(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: keep-alive") + b"ok"
        assert not wire.closed

    def test_1_0_closes_by_itself(self) -> None:
        wire = Wire(b"GET / HTTP/1.0\r\n\r\n")
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed

    @pytest.mark.parametrize(("status", "line"), [(204, b"204 No Content"), (304, b"304 Not Modified")])
    @pytest.mark.parametrize("version", [b"1.0\r\nconnection: keep-alive", b"1.1"])
    def test_204_and_304_have_neither_body_nor_coding(self, status: int, line: bytes, version: bytes) -> None:
        wire = Wire(b"GET / HTTP/" + version + b"\r\nhost: x\r\n\r\n")
        wire.answer(b"ignored", status)
        keep = [b"connection: keep-alive"] if b"keep" in version else []
        assert wire.transport.take() == response(*keep, status=line)
        assert not wire.closed

    @pytest.mark.parametrize("length", [None, 5])
    def test_head_is_answered_like_get_without_the_body(self, length: int | None) -> None:
        wire = Wire((GET % 1).replace(b"GET", b"HEAD"))
        wire.answer(b"hello", length=length)
        assert wire.transport.take() == response(*([b"transfer-encoding: chunked"] if length is None else []))
        wire.feed(GET % 2)
        assert wire.hub.requests[-1].method == "GET"

    def test_aborted_response_has_no_last_chunk(self) -> None:
        wire = Wire(GET % 1)
        wire.start()
        wire.body(b"hello", more=True)
        wire.hub.exchange.application_done(failed=True)
        assert wire.transport.take().endswith(b"5\r\nhello\r\n")
        assert wire.closed


class TestKeepAlive:
    def test_second_request_on_the_connection(self) -> None:
        wire = Wire(GET % 1)
        wire.answer(length=2)
        wire.feed(GET % 2)
        wire.answer(length=2)
        assert wire.transport.take() == (response() + b"ok") * 2
        assert [request.target for request in wire.hub.requests] == [b"/1", b"/2"]

    @pytest.mark.parametrize("value", [b"close", b"foo, CLOSE"])
    def test_client_asks_for_the_end(self, value: bytes) -> None:
        wire = Wire(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: " + value + b"\r\n\r\n" + GET % 2)
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed
        assert len(wire.hub.requests) == 1

    def test_application_asks_for_the_end(self) -> None:
        wire = Wire(GET % 1 + GET % 2)
        wire.answer(length=2, close=True)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed
        assert len(wire.hub.requests) == 1

    def test_stopping_server_says_so(self) -> None:
        wire = Wire(GET % 1)
        wire.hub.stopping = True
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed

    @pytest.mark.parametrize("asked", [True, False])
    def test_response_that_began_before_the_stop_lets_one_request_follow(self, asked: bool) -> None:
        """It did not say that it is the last, so the peer may have sent another."""
        wire = Wire()
        wire.advance(1)
        wire.feed(GET % 0)
        wire.answer(length=2)
        wire.transport.take()
        wire.feed(GET % 1)
        wire.start(length=2)
        wire.body(b"o", more=True)
        wire.stop()
        wire.advance(4)
        wire.body(b"k")
        assert wire.transport.take() == response() + b"ok"
        wire.advance(0.4)
        assert not wire.closed
        if asked:
            wire.feed(GET % 2)
            wire.answer(length=2)
            assert wire.transport.take() == response(b"connection: close") + b"ok"
        else:
            wire.advance(0.1)
        assert wire.closed

    def test_request_that_was_pipelined_before_the_stop_is_the_last(self) -> None:
        """Nothing behind the response that says so is answered (RFC 9112 §9.6)."""
        wire = Wire(GET % 1)
        wire.start(length=2)
        wire.body(b"o", more=True)
        wire.stop()
        wire.feed(GET % 2 + GET % 3)
        wire.body(b"k")
        wire.answer(length=2)
        assert wire.transport.take() == response() + b"ok" + response(b"connection: close") + b"ok"
        assert wire.closed
        wire.feed(GET % 4)
        assert [request.target for request in wire.hub.requests] == [b"/1", b"/2"]

    @pytest.mark.parametrize(
        ("data", "answered", "idle"),
        [(b"", False, True), (b"\r\n", False, True), (b"GET", False, False), (GET % 1, False, False),
         (GET % 1, True, True), (POST + b"0", True, True), (POST + b"0", False, False)],
    )  # fmt: skip
    def test_stopping_server_closes_idle_connections_after_their_time(
        self, data: bytes, answered: bool, idle: bool
    ) -> None:
        """Also those that have sent nothing, and the rest of a body that nobody reads."""
        wire = Wire(data)
        if answered:
            wire.answer(length=2)
        wire.advance(1)
        wire.stop()
        wire.advance(0.4)
        assert not wire.closed
        wire.advance(0.1)
        assert wire.closed is idle

    @pytest.mark.parametrize("before", [b"", GET % 1])
    def test_request_that_crosses_the_stop_is_answered(self, before: bytes) -> None:
        """And may take its time, that of an idle connection has no meaning then."""
        wire = Wire(before)
        if before:
            wire.answer(length=2)
            wire.transport.take()
        wire.stop()
        wire.advance(0.4)
        wire.feed(POST + b"01234")
        wire.advance(5)
        wire.feed(b"56789")
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed

    def test_stopping_server_waits_for_the_next_request_behind_an_unread_body(self) -> None:
        wire = Wire(POST + b"01234")
        wire.start(length=2)
        wire.body(b"o", more=True)
        wire.stop()
        wire.body(b"k")
        wire.advance(0.4)
        wire.feed(b"56789")
        wire.advance(0.4)
        assert not wire.closed
        wire.feed(GET % 2)
        wire.answer(length=2)
        assert wire.transport.take() == response() + b"ok" + response(b"connection: close") + b"ok"

    def test_stopping_server_does_not_wait_for_all_of_an_unread_body(self) -> None:
        wire = Wire(POST + b"01234")
        wire.start(length=2)
        wire.body(b"o", more=True)
        wire.stop()
        wire.body(b"k")
        wire.advance(0.5)
        assert wire.closed


    @pytest.mark.parametrize(
        ("data", "settings", "waits"),
        [
            (POST, {"limit_body_size": 9}, True),
            (CHUNKED + b"zz\r\n", {}, True),
            (GET % 1, {}, False),
            (b"garbage\r\n\r\n", {}, False),
        ],
    )
    def test_only_a_peer_that_may_still_be_sending_is_waited_for_at_the_end(
        self, data: bytes, settings: dict[str, Any], waits: bool
    ) -> None:
        """RFC 9112 §9.6: a reset could cost it the answer."""
        wire = Wire(data, transport := FakeSocket(), close_timeout=2, **settings)
        if wire.hub.exchanges and data.startswith(b"GET"):
            wire.answer(close=True)
        assert transport.half_closed
        wire.connection.finish()
        assert bool(transport.disconnecting) is not waits
        wire.advance(2)
        assert transport.disconnecting
        assert not transport.aborted


class TestPipelining:
    def test_answers_are_in_order_and_one_at_a_time(self) -> None:
        wire = Wire(GET % 1 + GET % 2 + GET % 3)
        for count in (1, 2, 3):
            assert [request.target for request in wire.hub.requests] == [b"/%d" % at for at in range(1, count + 1)]
            wire.answer(b"%d" % count, length=1)
        assert wire.transport.take() == b"".join(response() + b"%d" % count for count in (1, 2, 3))

    def test_each_request_has_an_exchange_of_its_own(self) -> None:
        wire = Wire(GET % 1 + POST + b"0123456789" + GET % 3)
        for _ in range(3):
            wire.answer()
        assert [exchange.scope["raw_path"] for exchange in wire.hub.exchanges] == [b"/1", b"/", b"/3"]
        assert [exchange.state for exchange in wire.hub.exchanges] == [State.COMPLETE] * 3

    def test_what_is_read_ahead_is_bounded(self) -> None:
        wire = Wire(GET % 1, pipeline_buffer_size=1024)
        wire.feed(b"\r\n" * 512)
        assert wire.transport.reading
        wire.feed(b"\r\n")
        assert not wire.transport.reading
        wire.answer()
        assert wire.transport.reading

    def test_large_head_is_no_pipelining(self) -> None:
        wire = Wire(b"GET / HTTP/1.1\r\nx: " + b"*" * 3000, pipeline_buffer_size=1024)
        assert wire.transport.reading
        wire.feed(b"\r\nhost: x\r\n\r\n")
        assert len(wire.hub.requests) == 1

    def test_broken_second_request_is_answered_after_the_first(self) -> None:
        wire = Wire(GET % 1 + b"garbage\r\n\r\n")
        assert wire.transport.take() == b""
        wire.answer(length=2)
        sent = wire.transport.take()
        assert sent.startswith(response() + b"okHTTP/1.1 400 Bad Request\r\n")
        assert wire.closed

    def test_many_pipelined_requests_do_not_nest(self) -> None:
        wire = Wire((GET % 1) * 1500)
        for _ in range(1500):
            wire.answer(length=2)
            wire.advance(0)
        assert len(wire.hub.requests) == 1500

    def test_peer_that_takes_no_responses_gets_no_further_ones(self) -> None:
        wire = Wire((GET % 1) * 5, transport := FakeSocket(room=100))
        wire.answer(b"*" * 100_000)
        assert wire.connection.slow
        assert len(wire.hub.requests) == 1
        transport.readable(1 << 20)
        assert len(wire.hub.requests) == 2
        wire.answer(b"*")
        assert len(wire.hub.requests) == 3

    def test_peer_that_takes_no_responses_cannot_send_requests_without_end(self) -> None:
        wire = Wire(GET % 1, transport := FakeSocket(room=100), pipeline_buffer_size=1024)
        wire.answer(b"*" * 100_000)
        wire.feed((GET % 1) * (1024 // len(GET % 1) + 1))
        assert not transport.reading
        transport.readable(1 << 20)
        assert transport.reading
        assert len(wire.hub.requests) == 2

    def test_connection_is_idle_once_the_last_response_was_taken(self) -> None:
        wire = Wire(GET % 1, transport := FakeSocket(room=100), keep_alive_timeout=5, write_timeout=100)
        wire.answer(b"*" * 100_000)
        wire.advance(6)
        assert not transport.half_closed
        transport.readable(1 << 20)
        wire.advance(4)
        assert not transport.half_closed
        wire.advance(1)
        assert transport.half_closed


class TestDefaultFields:
    """Those that a response lacks are added, however the application spells its own."""

    @pytest.mark.parametrize("name", [b"Date", b"DATE", b"date"])
    @pytest.mark.parametrize("whole", [True, False])
    def test_of_a_response(self, name: bytes, whole: bool) -> None:
        wire = Wire(GET % 1)
        wire.hub.exchange.take_reply(ResponseStart(200, [(name, b"today")], None, False, False, [name.lower()]))
        wire.body(b"ok", more=not whole)
        head = wire.transport.take().partition(b"\r\n\r\n")[0]
        assert head.lower().count(b"date:") == 1
        assert name + b": today" in head

    @pytest.mark.parametrize("given", [[], [(b"DATE", b"today")]])
    def test_of_an_accepted_websocket(self, given: list[tuple[bytes, bytes]]) -> None:
        wire = Wire(UPGRADE)
        wire.hub.exchange.take_reply(Accept(None, given, [name.lower() for name, _ in given]))
        date = b"DATE: today" if given else b"date: " + DATE
        start = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
        assert wire.transport.take() == start + date + b"\r\n\r\n"


class TestApplication:
    """When the application of a request is begun."""

    def test_each_request_begins_one(self) -> None:
        wire = Wire(GET % 1 + GET % 2 + b"GET")
        for count in (1, 2, 3):
            assert wire.hub.begun == wire.hub.exchanges
            assert len(wire.hub.begun) == count
            wire.answer()
            if count == 2:
                wire.feed(b" / HTTP/1.1\r\nhost: x\r\n\r\n")

    @pytest.mark.parametrize("body", [b"", b"01234", b"0123456789"])
    def test_what_is_there_of_a_body_comes_first(self, body: bytes) -> None:
        began: list[tuple[State, dict[str, Any]]] = []

        def create_application(exchange: Any) -> None:
            began.append((exchange.state, wire.receive() if body else {}))

        wire = Wire()
        wire.hub.create_application = create_application  # type: ignore[method-assign]
        wire.feed(POST + body)
        whole = len(body) == 10
        event = {"type": "http.request", "body": body, "more_body": not whole} if body else {}
        assert began == [(State.WAITING, event)]

    def test_answers_of_many_turns_are_not_one_burst(self) -> None:
        """Whoever sent as much in one turn would have to let the others have theirs, and would count as waiting."""
        wire = Wire()
        for number in range(300):
            wire.feed(GET % number)
            wire.answer(b"*" * 4096, length=4096)
            wire.transport.take()
            assert not wire.connection.congested

    def test_broken_request_begins_none(self) -> None:
        wire = Wire(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
        assert wire.transport.take().startswith(b"HTTP/1.1 400 ")
        assert len(wire.hub.exchanges) == 1
        assert wire.hub.begun == []

    def test_websocket_begins_one(self) -> None:
        wire = Wire(UPGRADE)
        assert wire.hub.begun == [wire.hub.exchange]

    def test_refused_request_begins_none(self) -> None:
        wire = Wire()
        for _ in range(2):
            wire.hub.refusal = RequestError(503, "busy")
            wire.feed(GET % 1)
        assert wire.hub.begun == []


class TestBody:
    def test_pieces_reach_the_exchange_as_they_come(self) -> None:
        wire = Wire(POST + b"01234")
        assert wire.receive() == {"type": "http.request", "body": b"01234", "more_body": True}
        wire.feed(b"56789")
        wire.receive()
        wire.answer()
        assert not wire.closed

    def test_application_that_does_not_read_stops_the_peer(self) -> None:
        wire = Wire(POST.replace(b"10", b"5000"), request_buffer_size=1024)
        wire.feed(b"*" * 2000)
        assert not wire.transport.reading
        read = b""
        while not wire.transport.reading:
            read += wire.receive()["body"]
        wire.feed(b"*" * 3000)
        while (event := wire.receive())["more_body"]:
            read += event["body"]
        assert len(read + event["body"]) == 5000

    def test_body_that_was_kept_is_read_on_when_the_application_reads(self) -> None:
        data = CHUNKED + b"400\r\n" + b"*" * 1024 + b"\r\n5\r\nhello\r\n0\r\n\r\n"
        wire = Wire(request_buffer_size=1024)
        for at in range(0, len(data), 600):
            wire.feed(data[at : at + 600])
        read = b""
        while (event := wire.receive())["more_body"]:
            read += event["body"]
        assert read + event["body"] == b"*" * 1024 + b"hello"

    def test_error_behind_kept_bytes_ends_the_request_when_it_is_reached(self) -> None:
        wire = Wire(CHUNKED, request_buffer_size=1024)
        wire.feed(b"400\r\n" + b"*" * 1024 + b"\r\n")
        wire.feed(b"zz\r\n")
        assert wire.transport.take() == b""
        assert len(wire.receive()["body"]) == 1024
        assert wire.receive() == DISCONNECT
        assert wire.transport.take().startswith(b"HTTP/1.1 400 ")
        assert wire.closed

    def test_bad_chunk_is_400_and_never_a_finished_body(self) -> None:
        wire = Wire(CHUNKED + b"5\r\nhello\r\n")
        wire.receive()
        wire.feed(b"-1\r\n")
        assert wire.transport.take().startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert wire.receive() == DISCONNECT
        assert wire.closed

    def test_what_ends_a_request_in_its_body_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        wire = Wire(CHUNKED)
        wire.feed(b"zz\r\n")
        Wire(POST, body_timeout=5).advance(5)
        assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
            ("asgiserver.wire", logging.INFO, f"Ended POST '/' with {error}")
            for error in (
                "400: The request's body has a chunk whose size or extension is not valid.",
                "408: The request's body did not arrive in time.",
            )
        ]

    def test_bad_chunk_in_mid_response_aborts_it(self) -> None:
        wire = Wire(CHUNKED)
        wire.start()
        wire.body(b"a", more=True)
        wire.transport.take()
        wire.feed(b"zz\r\n")
        assert wire.transport.take() == b""
        assert wire.closed

    def test_announced_size_above_the_limit_is_refused_before_an_application_starts(self) -> None:
        wire = Wire(POST, limit_body_size=9)
        assert wire.transport.take().startswith(b"HTTP/1.1 413 ")
        assert (wire.hub.exchanges, wire.closed) == ([], True)
        request, status = wire.hub.refused[0]
        assert request is not None
        assert (request.method, status) == ("POST", 413)

    def test_size_at_the_limit_passes(self) -> None:
        assert len(Wire(POST, limit_body_size=10).hub.exchanges) == 1

    def test_chunked_body_that_passes_the_limit_is_refused(self) -> None:
        wire = Wire(CHUNKED + b"5\r\nhello\r\n", limit_body_size=9)
        wire.receive()
        wire.feed(b"5\r\nworld\r\n")
        assert wire.transport.take().startswith(b"HTTP/1.1 413 ")
        assert wire.receive() == DISCONNECT

    def test_reads_within_a_body_go_to_the_application_as_they_are(self) -> None:
        data = b"*" * 400
        wire = Wire(POST.replace(b"10", b"1200"))
        for _ in range(3):
            wire.feed(data)
        pieces = [wire.receive() for _ in range(3)]
        assert pieces[0]["body"] is data
        assert [piece["more_body"] for piece in pieces] == [True, True, False]
        assert b"".join(piece["body"] for piece in pieces) == b"*" * 1200

    def test_a_read_while_the_peer_is_stopped_waits_behind_what_was_kept(self) -> None:
        """A transport that wraps another may have some more on its way."""
        wire = Wire(POST.replace(b"10", b"3000"), request_buffer_size=1024)
        wire.feed(b"a" * 1024)
        assert not wire.transport.reading
        wire.feed(b"b" * 1000)
        assert wire.hub.exchange._buffered == 1024
        read = wire.receive()["body"] + wire.receive()["body"]
        wire.feed(b"c" * 976)
        assert read + wire.receive()["body"] == b"a" * 1024 + b"b" * 1000 + b"c" * 976

    def test_a_peer_whose_body_is_here_is_not_stopped(self) -> None:
        """A body that fills the buffer with its last bytes would cost two turns of the selector for nothing."""
        wire = Wire(POST.replace(b"10", b"2000"), request_buffer_size=1024)
        wire.feed(b"*" * 1000)
        wire.feed(b"*" * 1000)
        assert wire.transport.reading
        assert [wire.receive()["more_body"] for _ in range(2)] == [True, False]
        wire.answer()
        wire.feed(GET % 2)
        assert len(wire.hub.exchanges) == 2


class TestUnreadBody:
    def test_rest_is_thrown_away_and_the_next_request_is_read(self) -> None:
        wire = Wire(POST + b"01234")
        wire.answer(length=2)
        assert not wire.closed
        wire.feed(b"56789" + GET % 2)
        assert [request.target for request in wire.hub.requests] == [b"/", b"/2"]
        wire.answer(length=2)
        assert wire.transport.take() == (response() + b"ok") * 2

    def test_rest_that_looks_like_a_request_is_none(self) -> None:
        inner = GET % 9
        wire = Wire(POST.replace(b"10", b"%d" % len(inner)))
        wire.answer()
        wire.feed(inner + GET % 2)
        assert [request.target for request in wire.hub.requests] == [b"/", b"/2"]

    def test_stop_gives_a_peer_that_is_still_sending_the_time_to_take_its_answer(self) -> None:
        """RFC 9112 §9.6: closed with unread input, the connection would be reset."""
        wire = Wire(POST + b"01234", transport=FakeSocket(), close_timeout=5)
        wire.answer(length=2)
        wire.stop()
        wire.advance(0.5)
        wire.connection.finish()
        assert wire.transport.half_closed
        assert not wire.transport.disconnecting
        wire.advance(5)
        assert wire.transport.disconnecting

    def test_announced_rest_beyond_the_limit_closes_and_says_so(self) -> None:
        wire = Wire(POST, limit_unread_body=9)
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed

    def test_chunked_rest_is_drained_up_to_the_limit(self) -> None:
        wire = Wire(CHUNKED, limit_unread_body=9)
        wire.answer(length=2)
        wire.feed(b"9\r\n012345678\r\n")
        assert not wire.closed
        wire.feed(b"1\r\n9\r\n")
        assert wire.closed
        assert wire.transport.take() == response() + b"ok"

    def test_chunked_rest_where_none_is_drained_closes_and_says_so(self) -> None:
        """Else a client would lose the next request that it sends on this connection."""
        wire = Wire(CHUNKED, limit_unread_body=0)
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed

    def test_broken_rest_closes_without_a_second_response(self) -> None:
        wire = Wire(CHUNKED)
        wire.answer(length=2)
        wire.feed(b"zz\r\n" + GET % 2)
        assert wire.transport.take() == response() + b"ok"
        assert wire.closed
        assert len(wire.hub.requests) == 1

    def test_stopped_peer_may_send_its_rest(self) -> None:
        wire = Wire(POST.replace(b"10", b"2000"), request_buffer_size=1024)
        wire.feed(b"*" * 1500)
        assert not wire.transport.reading
        wire.answer()
        assert wire.transport.reading
        wire.feed(b"*" * 500 + GET % 2)
        assert len(wire.hub.requests) == 2

    def test_stalled_rest_has_a_deadline(self) -> None:
        wire = Wire(POST, body_timeout=3)
        wire.answer(length=2)
        wire.advance(3)
        assert wire.transport.take() == response() + b"ok"
        assert wire.closed


class TestContinue:
    def test_it_is_sent_when_the_application_first_reads(self) -> None:
        wire = Wire(EXPECT)
        assert wire.transport.take() == b""
        assert would_wait(wire.hub.exchange.receive)
        assert wire.transport.take() == CONTINUE
        assert would_wait(wire.hub.exchange.receive)
        assert wire.transport.take() == b""
        wire.feed(b"hello")
        assert wire.receive()["body"] == b"hello"
        wire.answer(length=2)
        assert wire.transport.take() == response() + b"ok"

    def test_application_that_answers_without_reading_ends_the_connection(self) -> None:
        """RFC 9110 §10.1.1: nobody knows whether the body will come."""
        wire = Wire(EXPECT)
        wire.answer(length=2)
        assert wire.transport.take() == response(b"connection: close") + b"ok"
        assert wire.closed

    def test_it_is_not_sent_when_the_body_has_come_already(self) -> None:
        wire = Wire(EXPECT + b"he")
        assert wire.receive()["body"] == b"he"
        assert would_wait(wire.hub.exchange.receive)
        assert wire.transport.take() == b""

    def test_it_is_not_sent_once_the_response_has_begun(self) -> None:
        wire = Wire(EXPECT)
        wire.start(length=4)
        wire.body(b"ok", more=True)
        wire.transport.take()
        assert would_wait(wire.hub.exchange.receive)
        assert wire.transport.take() == b""

    def test_peer_that_waits_for_it_is_not_late(self) -> None:
        wire = Wire(EXPECT, body_timeout=3)
        wire.advance(4)
        assert wire.transport.take() == b""
        assert would_wait(wire.hub.exchange.receive)
        wire.advance(3)
        assert b"408" in wire.transport.take()

    def test_other_expectation_is_417(self) -> None:
        wire = Wire(EXPECT.replace(b"100-continue", b"magic"))
        assert wire.transport.take().startswith(b"HTTP/1.1 417 ")
        assert wire.closed


class TestRefusing:
    def test_answer_is_a_whole_response_that_closes(self) -> None:
        wire = Wire(b"garbage\r\n\r\n" + GET % 2)
        body = b"The request line must be a method, a target and a version.\n"
        assert wire.transport.take() == b"".join(
            (
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n",
                b"content-length: %d\r\ndate: " % len(body) + DATE + b"\r\nconnection: close\r\n\r\n" + body,
            )
        )
        assert wire.closed
        assert (wire.hub.requests, wire.hub.refused) == ([], [(None, 400)])

    def test_bytes_after_a_refusal_are_thrown_away(self) -> None:
        wire = Wire(b"garbage\r\n\r\n")
        wire.transport.take()
        wire.feed(GET % 2)
        assert (wire.transport.take(), wire.hub.requests) == (b"", [])

    def test_server_may_refuse_with_fields_of_its_own(self) -> None:
        wire = Wire()
        wire.hub.refusal = RequestError(503, "The server is busy.", ((b"retry-after", b"1"),))
        wire.feed(GET % 1)
        sent = wire.transport.take()
        assert sent.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in sent
        assert sent.endswith(b"\r\n\r\nThe server is busy.\n")
        assert wire.closed

    def test_refused_head_request_gets_no_body(self) -> None:
        wire = Wire()
        wire.hub.refusal = RequestError(503, "The server is busy.")
        wire.feed(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert wire.transport.take().endswith(b"\r\n\r\n")

    @pytest.mark.parametrize(("limit", "status"), [("limit_head_size", 431), ("limit_target_size", 414)])
    def test_limits(self, limit: str, status: int) -> None:
        wire = Wire(b"GET /" + b"*" * 500 + b" HTTP/1.1\r\n\r\n", **{limit: 300})
        assert wire.transport.take().startswith(b"HTTP/1.1 %d " % status)


class TestLoss:
    def test_exchange_is_told(self) -> None:
        wire = Wire(POST + b"01234")
        wire.connection.connectionLost()
        assert wire.receive() == DISCONNECT
        assert wire.hub.log.gone == [wire.hub.exchange]

    @pytest.mark.parametrize("data", [b"", b"GET / HT", GET % 1])
    def test_no_timer_is_left(self, data: bytes) -> None:
        wire = Wire(data)
        wire.connection.connectionLost()
        assert wire.hub.clock.getDelayedCalls() == []
        assert wire.hub.connections == set()

    def test_answered_exchange_is_not_told(self) -> None:
        wire = Wire(GET % 1)
        wire.answer()
        wire.connection.connectionLost()
        assert wire.hub.log.gone == []


class TestDeadlines:
    def test_head_is_counted_from_its_first_byte(self) -> None:
        wire = Wire(b"G", head_timeout=10)
        for _ in range(9):
            wire.advance(1)
            wire.feed(b"G")
        assert wire.transport.take() == b""
        wire.advance(1)
        assert wire.transport.take().startswith(b"HTTP/1.1 408 ")
        assert wire.closed

    @pytest.mark.parametrize("answered", [False, True])
    def test_empty_lines_are_no_way_around(self, answered: bool) -> None:
        wire = Wire(first_byte_timeout=10, keep_alive_timeout=10, head_timeout=100)
        if answered:
            wire.feed(GET % 1)
            wire.answer()
        for _ in range(4):
            wire.feed(b"\r\n")
            wire.advance(2)
        wire.advance(1.9)
        assert not wire.closed
        wire.advance(0.1)
        assert wire.closed

    @pytest.mark.parametrize("data", [GET % 1 + b"\r\n", POST + b"0123456789\r\n\r\n"])
    @pytest.mark.parametrize("later", [False, True])
    def test_empty_line_behind_a_request_begins_no_other(self, data: bytes, later: bool) -> None:
        """RFC 9112 §2.2: some old clients send one behind a body."""
        wire = Wire(data, keep_alive_timeout=10, head_timeout=5)
        if later:
            wire.feed(b"\r\n")
        wire.answer(length=2)
        wire.advance(9.9)
        assert not wire.closed
        wire.advance(0.1)
        assert wire.closed
        assert wire.transport.take() == response() + b"ok"

    @pytest.mark.parametrize(
        ("data", "answered", "kinds"),
        [
            (b"", False, {Deadline.FIRST_BYTE}),
            (b"\r\n", False, {Deadline.FIRST_BYTE}),
            (b"GET", False, {Deadline.HEAD}),
            (GET % 1, False, set()),
            (GET % 1 + b"GET", False, set()),
            (POST, False, {Deadline.BODY, Deadline.BODY_RATE}),
            (EXPECT, False, set()),
            (POST + b"0123456789", False, set()),
            (UPGRADE, False, set()),
            (POST, True, {Deadline.BODY, Deadline.BODY_RATE}),
            (GET % 1, True, {Deadline.KEEP_ALIVE}),
            (GET % 1 + b"\r\n", True, {Deadline.KEEP_ALIVE}),
            (POST + b"0123456789", True, {Deadline.KEEP_ALIVE}),
            (GET % 1 + b"GET", True, {Deadline.HEAD}),
            (GET % 1 + GET % 2, True, set()),
        ],
    )
    def test_at_most_one_thing_is_awaited_of_a_peer(self, data: bytes, answered: bool, kinds: set[Deadline]) -> None:
        """In each state of a connection its own, and none that is left to expire in vain."""
        for earlier in (0, 3):
            wire = Wire()
            for number in range(earlier):
                wire.feed(GET % number)
                wire.answer(length=2)
            wire.feed(data)
            if answered:
                wire.answer(length=2)
            pending = {kind for kind in Deadline if wire.connection.deadlines.pending(kind)}
            assert pending == ({Deadline.KEEP_ALIVE} if earlier and kinds == {Deadline.FIRST_BYTE} else kinds)

    @pytest.mark.parametrize("answers_fast", [True, False])
    def test_requests_cost_no_timer(self, answers_fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of five thousand deadlines that are set and cleared, the clock learns of three in the shortest's time."""
        calls: list[float] = []
        original = Clock.wake_at

        def counted(self: Clock, due: float, sleeper: Any) -> float:
            calls.append(due)
            return original(self, due, sleeper)

        monkeypatch.setattr(Clock, "wake_at", counted)
        wire = Wire()
        for number in range(1000):
            wire.feed(POST[:20])
            wire.feed(POST[20:])
            wire.feed(b"01234")
            wire.feed(b"56789" + GET % number)
            wire.answer(length=2)
            wire.advance(0.0 if answers_fast else 0.1)
            wire.answer(length=2)
        assert len(calls) <= (2 if answers_fast else 3 * 100 / 10)
        assert not wire.closed

    def test_peer_that_has_begun_its_next_request_is_never_idle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wire = Wire(GET % 1 + GET % 2 + b"GET", keep_alive_timeout=5, head_timeout=20)
        kinds: list[Deadline] = []
        original = Deadlines.set

        def recorded(self: Deadlines, kind: Deadline, *rest: Any) -> None:
            kinds.append(kind)
            original(self, kind, *rest)

        monkeypatch.setattr(Deadlines, "set", recorded)
        wire.answer()
        wire.answer()
        assert Deadline.KEEP_ALIVE not in kinds
        wire.transport.take()
        wire.advance(19.9)
        assert not wire.closed
        wire.advance(0.1)
        assert wire.transport.take().startswith(b"HTTP/1.1 408 ")

    def test_empty_line_in_two_reads_is_no_request_that_is_late(self) -> None:
        wire = Wire(b"\r", head_timeout=5, keep_alive_timeout=10)
        wire.feed(b"\n")
        wire.advance(9.9)
        assert (wire.closed, wire.transport.take()) == (False, b"")
        wire.advance(0.1)
        assert (wire.closed, wire.transport.take()) == (True, b"")

    @pytest.mark.parametrize("began", [0.0, -1000.0])
    def test_each_request_moves_the_end(self, began: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wherever the zero of time is."""
        monkeypatch.setattr(Clock, "rightNow", began)
        wire = Wire(GET % 1, keep_alive_timeout=10, first_byte_timeout=100)
        assert wire.hub.clock.seconds() == began
        wire.answer(length=2)
        for number in range(2, 6):
            wire.advance(7)
            wire.feed(GET % number)
            wire.answer(length=2)
        wire.advance(9.9)
        assert not wire.closed
        wire.advance(0.2)
        assert wire.closed

    def test_idle_connection_is_closed_quietly(self) -> None:
        wire = Wire(GET % 1, keep_alive_timeout=5)
        wire.answer(length=2)
        wire.advance(4.9)
        assert not wire.closed
        wire.advance(0.1)
        assert wire.closed
        assert wire.transport.take() == response() + b"ok"

    def test_half_of_a_second_request_has_the_heads_deadline(self) -> None:
        wire = Wire(GET % 1, keep_alive_timeout=5, head_timeout=20)
        wire.answer()
        wire.transport.take()
        wire.feed(b"GET")
        wire.advance(19)
        assert not wire.closed
        wire.advance(1)
        assert wire.transport.take().startswith(b"HTTP/1.1 408 ")

    def test_running_request_is_not_idle(self) -> None:
        wire = Wire(GET % 1, keep_alive_timeout=5, head_timeout=5, body_timeout=5, first_byte_timeout=5)
        wire.advance(1000)
        assert not wire.closed

    def test_pipelined_request_waits_as_long_as_it_must(self) -> None:
        wire = Wire(GET % 1 + GET % 2, keep_alive_timeout=5, head_timeout=5)
        wire.advance(1000)
        wire.answer()
        wire.advance(1000)
        assert not wire.closed

    def test_stalled_body_is_408(self) -> None:
        wire = Wire(POST, body_timeout=5)
        wire.advance(4)
        wire.feed(b"0")
        wire.advance(4)
        assert wire.transport.take() == b""
        wire.advance(1)
        assert wire.transport.take().startswith(b"HTTP/1.1 408 ")
        assert wire.receive() == DISCONNECT

    @pytest.mark.parametrize("answered", [False, True])
    def test_framing_of_a_body_does_not_move_its_deadline_but_pieces_do(self, answered: bool) -> None:
        wire = Wire(CHUNKED, body_timeout=5, min_request_rate=0)
        if answered:
            wire.answer()
            wire.transport.take()
        for piece in (b"2", b"\r\n*", b"*", b"\r\n", b"1;"):
            wire.advance(2)
            wire.feed(piece)
        # The last piece of the body came 4 seconds ago.
        assert not wire.closed
        wire.feed(b"a")
        wire.advance(0.9)
        wire.feed(b"a")
        assert not wire.closed
        wire.advance(0.1)
        assert wire.closed
        assert wire.transport.take().startswith(b"" if answered else b"HTTP/1.1 408 ")

    def test_peer_that_was_stopped_is_not_late(self) -> None:
        wire = Wire(POST.replace(b"10", b"5000"), body_timeout=5, request_buffer_size=1024)
        wire.feed(b"*" * 1024)
        wire.advance(100)
        assert wire.transport.take() == b""
        wire.receive()
        wire.advance(5)
        assert wire.transport.take().startswith(b"HTTP/1.1 408 ")

    def test_deadlines_can_be_off(self) -> None:
        off = {"head_timeout": 0, "keep_alive_timeout": 0, "body_timeout": 0, "first_byte_timeout": 0,
               "min_request_rate": 0}
        for data in (b"", b"GET", POST):
            wire = Wire(data, **off)
            wire.advance(1e6)
            assert not wire.closed
        wire = Wire(GET % 1, **off)
        wire.answer()
        wire.advance(1e6)
        assert not wire.closed


class TestSwitching:
    """With an engine that does nothing in place of frames; WebSocketExchange has tests of its own."""

    def switched(self, rest: bytes = b"") -> tuple[Wire, FakeFrames]:
        wire = Wire(UPGRADE + rest, ping_interval=0, websocket_timeout=0)
        wire.hub.exchange.take_reply(Accept(None, [], []))
        return wire, wire.hub.exchange._engine

    def test_101_is_followed_by_opaque_bytes_both_ways(self) -> None:
        wire, engine = self.switched()
        assert wire.transport.take() == (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\ndate: " + DATE + b"\r\n\r\n"
        )
        wire.feed(GET % 1)
        assert engine.received == GET % 1
        wire.hub.exchange.stream.send_data(b"\x81\x00")
        assert wire.transport.take() == b"\x81\x00"
        assert len(wire.hub.requests) == 1

    def test_parts_follow_each_other(self) -> None:
        wire, _ = self.switched()
        wire.transport.take()
        wire.hub.exchange.write(b"1")
        wire.hub.exchange.write_large(b"head", b"*" * 100_000)
        wire.hub.exchange.write(b"2")
        assert wire.transport.take() == b"1head" + b"*" * 100_000 + b"2"
        wire.hub.exchange.stream.close()
        wire.hub.exchange.write_large(b"head", b"*" * 100_000)
        assert wire.transport.take() == b""

    def test_bytes_that_came_with_the_handshake_are_not_lost(self) -> None:
        _, engine = self.switched(b"\x81\x80mask")
        assert engine.received == b"\x81\x80mask"

    def test_closing_sends_what_was_written_first(self) -> None:
        wire, _ = self.switched()
        wire.hub.exchange.stream.close()
        assert wire.closed
        assert not wire.aborted

    def test_bytes_after_the_close_are_thrown_away(self) -> None:
        wire, engine = self.switched()
        wire.hub.exchange.stream.close()
        wire.feed(b"late")
        assert engine.received == b""

    def test_no_http_deadline_is_left(self) -> None:
        wire, _ = self.switched()
        wire.advance(1e6)
        assert not wire.closed

    def test_handshake_that_is_denied_leaves_an_http_connection(self) -> None:
        wire = Wire(UPGRADE)
        wire.hub.exchange.take_reply(Close(1000, ""))
        assert wire.transport.take().startswith(b"HTTP/1.1 403 ")
        wire.feed(GET % 2)
        assert len(wire.hub.requests) == 2

    def test_request_before_the_handshake_is_answered_first(self) -> None:
        wire = Wire(GET % 1 + UPGRADE)
        assert not wire.hub.requests[-1].upgrade
        wire.answer()
        assert wire.hub.requests[-1].upgrade


def test_fake_transport_is_not_taken_for_a_socket() -> None:
    connection, _ = WireHub().connect(FakeTransport())
    assert not connection._direct


def test_what_one_connection_has_sent_in_part_is_not_anothers() -> None:
    hub = WireHub()
    one, other = hub.connect(None)[0], hub.connect(None)[0]
    for part in (slice(10), slice(10, None)):
        one.dataReceived((GET % 1)[part])
        other.dataReceived((GET % 2)[part])
    targets = [exchange.scope["path"] for exchange in hub.exchanges]
    assert targets == ["/1", "/2"]
