"""HTTP/1.1 on a connection: framing, order, keep-alive, rest of bodies, 100-continue, upgrade, deadlines.

Most tests are traces: what the peer sends, what the application does, and what is seen of both in between.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgiserver.asgi.deadlines import Deadline, Deadlines
from asgiserver.asgi.exchange import State
from asgiserver.asgi.messages import Accept, Close, ResponseStart
from asgiserver.errors import RequestError
from tests.fakes import DATE, Clock, FakeFrames, FakeSocket, FakeTransport, WireHub
from tests.wire.traces import (
    CHUNKED,
    CHUNKS,
    CLOSE,
    CONTINUE,
    EXPECT,
    GET,
    GET_1_0,
    GET_TE,
    KEEP_1_0,
    LARGE,
    OK,
    POST,
    POST_2000,
    UPGRADE,
    Step,
    Wire,
    after,
    answer,
    body,
    closed,
    disconnect,
    hint,
    lost,
    play,
    reading,
    received,
    requests,
    response,
    sent,
    sent_status,
    start,
    still_open,
    stop,
    stopped,
    taken,
    traces,
    trailers,
    waits,
)


class TestFraming:
    test_of_a_response = traces({
        "an unknown length is chunked": (
            {}, GET % 1, start(), sent(b""), body(b"hello", more=True), sent(CHUNKS + b"5\r\nhello\r\n"),
            body(b"", more=True), sent(b""), body(b"*" * 16), sent(b"10\r\n" + b"*" * 16 + b"\r\n0\r\n\r\n"),
        ),
        "an empty chunked response": ({}, GET % 1, answer(b""), sent(CHUNKS + b"0\r\n\r\n")),
        "large pieces are framed the same": (
            {}, GET % 1, answer(LARGE), sent(CHUNKS + b"186a0\r\n" + LARGE + b"\r\n0\r\n\r\n"),
        ),
        "1.0 gets no chunks and the connection's end ends the body": ({}, KEEP_1_0, answer(), sent(CLOSE), closed),
        "1.0 is kept alive when it asks for it and the length is known": (
            {}, KEEP_1_0, answer(length=2), sent(response(b"connection: keep-alive") + b"ok"), still_open,
        ),
        "1.0 closes by itself": ({}, GET_1_0, answer(length=2), sent(CLOSE), closed),
    })  # fmt: skip

    def test_known_length_is_sent_as_it_is(self) -> None:
        wire = Wire(GET % 1)
        name = b"content-length"
        wire.hub.exchange.take_reply(ResponseStart(200, [(name, b"2")], 2, False, False, [name]))
        wire.body(b"ok")
        assert wire.transport.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: " + DATE + b"\r\n\r\nok"
        assert not wire.closed

    @pytest.mark.parametrize(("status", "line"), [(204, b"204 No Content"), (304, b"304 Not Modified")])
    @pytest.mark.parametrize("version", [b"1.0\r\nconnection: keep-alive", b"1.1"])
    def test_204_and_304_have_neither_body_nor_coding(self, status: int, line: bytes, version: bytes) -> None:
        keep = [b"connection: keep-alive"] if b"keep" in version else []
        request = b"GET / HTTP/" + version + b"\r\nhost: x\r\n\r\n"
        play(Wire(), request, answer(b"ignored", status), sent(response(*keep, status=line)), still_open)

    @pytest.mark.parametrize("length", [None, 5])
    def test_head_is_answered_like_get_without_the_body(self, length: int | None) -> None:
        head = CHUNKS if length is None else response()
        wire = play(Wire(), (GET % 1).replace(b"GET", b"HEAD"), answer(b"hello", length=length), sent(head), GET % 2)
        assert wire.hub.requests[-1].method == "GET"

    def test_aborted_response_has_no_last_chunk(self) -> None:
        wire = play(Wire(), GET % 1, start(), body(b"hello", more=True))
        wire.hub.exchange.application_done(failed=True)
        assert wire.transport.take().endswith(b"5\r\nhello\r\n")
        assert wire.closed


class TestTrailers:
    SUM = (b"X-Sum", b"1")
    END = b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"

    test_of_a_response = traces({
        "they follow the last chunk": (
            {}, GET_TE % 1, start(trailers=True), body(b"ok"), sent(CHUNKS + b"2\r\nok\r\n"), trailers(SUM),
            sent(b"0\r\nX-Sum: 1\r\n\r\n"), still_open, GET % 2, requests(b"/1", b"/2"),
        ),
        "a request that was pipelined waits for them": (
            {}, GET_TE % 1 + GET_TE % 2, start(trailers=True), body(b"ok"), requests(b"/1"), trailers(SUM),
            requests(b"/1", b"/2"), start(trailers=True), body(b"ok"), trailers(SUM), sent((CHUNKS + END) * 2),
        ),
        "a peer that did not ask gets none": (
            {}, GET % 1, start(trailers=True), body(b"ok"), trailers(SUM), sent(CHUNKS + b"2\r\nok\r\n0\r\n\r\n"),
        ),
        "a known length has no place for them": (
            {}, GET_TE % 1, start(length=2, trailers=True), body(b"ok"), trailers(SUM), sent(OK), still_open,
        ),
        "a 304 has no place for them": (
            {}, GET_TE % 1, start(304, trailers=True), body(), trailers(SUM), sent_status(304), still_open,
            GET % 2, requests(b"/1", b"/2"),
        ),
        "HEAD has no place for them": (
            {}, (GET_TE % 1).replace(b"GET", b"HEAD"), start(trailers=True), body(b"ok"), trailers(SUM), sent(CHUNKS),
            GET % 2, requests(b"/1", b"/2"),
        ),
        "1.0 has no place for them": (
            {}, GET_1_0[:-2] + b"te: trailers\r\n\r\n", start(trailers=True), body(b"ok"), still_open, trailers(SUM),
            sent(CLOSE), closed,
        ),
        "an application that sends none leaves the last chunk out": (
            {}, GET_TE % 1, start(trailers=True), body(b"ok"),
            lambda wire: wire.hub.exchange.application_done(failed=False), sent(CHUNKS + b"2\r\nok\r\n"), closed,
        ),
    })  # fmt: skip

    test_of_early_hints = traces({
        # RFC 8297 §3.
        "they are dropped": ({}, GET % 1, hint, start(length=2), hint, sent(b""), body(b"ok"), sent(OK)),
    })  # fmt: skip

    def test_one_who_hints_on_and_on_lets_others_run(self) -> None:
        wire = Wire(GET % 1)
        for _ in range(1000):
            hint(wire)
        assert wire.connection.output.congested


class TestKeepAlive:
    test_of_a_connection = traces({
        "a second request on the connection": (
            {}, GET % 1, answer(length=2), GET % 2, answer(length=2), sent(OK * 2), requests(b"/1", b"/2"),
        ),
        "the application asks for the end": (
            {}, GET % 1 + GET % 2, answer(length=2, close=True), sent(CLOSE), closed, requests(b"/1"),
        ),
        # RFC 9112 §9.6: nothing behind the response that says so is answered.
        "a request that was pipelined before the stop is the last": (
            {}, GET % 1, start(length=2), body(b"o", more=True), stop, GET % 2 + GET % 3, body(b"k"), answer(length=2),
            sent(OK + CLOSE), closed, GET % 4, requests(b"/1", b"/2"),
        ),
        "a stopping server waits for the next request behind an unread body": (
            {}, POST + b"01234", start(length=2), body(b"o", more=True), stop, body(b"k"), after(0.4), b"56789",
            after(0.4), still_open, GET % 2, answer(length=2), sent(OK + CLOSE),
        ),
        "a stopping server does not wait for all of an unread body": (
            {}, POST + b"01234", start(length=2), body(b"o", more=True), stop, body(b"k"), after(0.5), closed,
        ),
    })  # fmt: skip

    @pytest.mark.parametrize("value", [b"close", b"foo, CLOSE"])
    def test_client_asks_for_the_end(self, value: bytes) -> None:
        request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: " + value + b"\r\n\r\n"
        play(Wire(), request + GET % 2, answer(length=2), sent(CLOSE), closed, requests(b"/"))

    def test_stopping_server_says_so(self) -> None:
        wire = Wire(GET % 1)
        wire.hub.stopping = True
        play(wire, answer(length=2), sent(CLOSE), closed)

    @pytest.mark.parametrize("asked", [True, False])
    def test_response_that_began_before_the_stop_lets_one_request_follow(self, asked: bool) -> None:
        """It did not say that it is the last, so the peer may have sent another."""
        wire = play(Wire(), after(1), GET % 0, answer(length=2), taken, GET % 1, start(length=2), body(b"o", more=True))
        play(wire, stop, after(4), body(b"k"), sent(OK), after(0.4), still_open)
        play(wire, *([GET % 2, answer(length=2), sent(CLOSE)] if asked else [after(0.1)]), closed)

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
        play(wire, after(1), stop, after(0.4), still_open, after(0.1), closed if idle else still_open)

    @pytest.mark.parametrize("before", [b"", GET % 1])
    def test_request_that_crosses_the_stop_is_answered(self, before: bytes) -> None:
        """And may take its time, that of an idle connection has no meaning then."""
        wire = play(Wire(), *([before, answer(length=2), taken] if before else []))
        play(wire, stop, after(0.4), POST + b"01234", after(5), b"56789", answer(length=2), sent(CLOSE), closed)

    @pytest.mark.parametrize(("data", "settings", "waits"), [
        (POST, {"limit_body_size": 9}, True), (CHUNKED + b"zz\r\n", {}, True), (GET % 1, {}, False),
        (b"garbage\r\n\r\n", {}, False),
    ])  # fmt: skip
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
    test_of_requests = traces({
        "answers are in order and one at a time": (
            {}, GET % 1 + GET % 2 + GET % 3, requests(b"/1"), answer(b"1", length=1), requests(b"/1", b"/2"),
            answer(b"2", length=1), requests(b"/1", b"/2", b"/3"), answer(b"3", length=1),
            sent(response() + b"1" + response() + b"2" + response() + b"3"),
        ),
        "what is read ahead is bounded": (
            {"pipeline_buffer_size": 1024}, GET % 1, b"\r\n" * 512, reading, b"\r\n", stopped, answer(), reading,
        ),
        "a large head is no pipelining": (
            {"pipeline_buffer_size": 1024}, b"GET /1 HTTP/1.1\r\nx: " + b"*" * 3000, reading,
            b"\r\nhost: x\r\n\r\n", requests(b"/1"),
        ),
    })  # fmt: skip

    def test_each_request_has_an_exchange_of_its_own(self) -> None:
        wire = play(Wire(), GET % 1 + POST + b"0123456789" + GET % 3, answer(), answer(), answer())
        assert [exchange.scope["raw_path"] for exchange in wire.hub.exchanges] == [b"/1", b"/", b"/3"]
        assert [exchange.state for exchange in wire.hub.exchanges] == [State.COMPLETE] * 3

    def test_broken_second_request_is_answered_after_the_first(self) -> None:
        wire = play(Wire(), GET % 1 + b"garbage\r\n\r\n", sent(b""), answer(length=2))
        assert wire.transport.take().startswith(OK + b"HTTP/1.1 400 Bad Request\r\n")
        assert wire.closed

    def test_many_pipelined_requests_do_not_nest(self) -> None:
        wire = play(Wire((GET % 1) * 1500), *[answer(length=2), after(0)] * 1500)
        assert len(wire.hub.requests) == 1500

    def test_peer_that_takes_no_responses_gets_no_further_ones(self) -> None:
        wire = play(Wire((GET % 1) * 5, transport := FakeSocket(room=100)), answer(LARGE), requests(b"/1"))
        assert wire.connection.output.slow
        transport.readable(1 << 20)
        play(wire, requests(b"/1", b"/1"), answer(b"*"), requests(b"/1", b"/1", b"/1"))

    def test_peer_that_takes_no_responses_cannot_send_requests_without_end(self) -> None:
        wire = Wire(GET % 1, transport := FakeSocket(room=100), pipeline_buffer_size=1024)
        play(wire, answer(LARGE), (GET % 1) * (1024 // len(GET % 1) + 1), stopped)
        transport.readable(1 << 20)
        play(wire, reading, requests(b"/1", b"/1"))

    def test_connection_is_idle_once_the_last_response_was_taken(self) -> None:
        wire = Wire(GET % 1, transport := FakeSocket(room=100), keep_alive_timeout=5, write_timeout=100)
        play(wire, answer(LARGE), after(6))
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
        event = {"type": "http.request", "body": body, "more_body": len(body) < 10} if body else {}
        assert began == [(State.WAITING, event)]

    def test_answers_of_many_turns_are_not_one_burst(self) -> None:
        """Whoever sent as much in one turn would have to let the others have theirs, and would count as waiting."""
        wire = Wire()
        for number in range(300):
            play(wire, GET % number, answer(b"*" * 4096, length=4096), taken)
            assert not wire.connection.output.congested

    def test_broken_request_begins_none(self) -> None:
        wire = play(Wire(), CHUNKED + b"nonsense\r\n", sent_status(400))
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
    test_of_a_request = traces({
        "pieces reach the exchange as they come": (
            {}, POST + b"01234", received(b"01234", more=True), b"56789", received(b"56789"), answer(), still_open,
        ),
        "an error behind kept bytes ends the request when it is reached": (
            {"request_buffer_size": 1024}, CHUNKED, b"400\r\n" + b"*" * 1024 + b"\r\n", b"zz\r\n", sent(b""),
            received(b"*" * 1024), disconnect, sent_status(400), closed,
        ),
        "a bad chunk is 400 and never a finished body": (
            {}, CHUNKED + b"5\r\nhello\r\n", received(b"hello"), b"-1\r\n", sent_status(400), disconnect, closed,
        ),
        "a bad chunk in mid-response aborts it": (
            {}, CHUNKED, start(), body(b"a", more=True), taken, b"zz\r\n", sent(b""), closed,
        ),
        "a size at the limit passes": ({"limit_body_size": 10}, POST, requests(b"/")),
        "a chunked body that passes the limit is refused": (
            {"limit_body_size": 9}, CHUNKED + b"5\r\nhello\r\n", received(b"hello"), b"5\r\nworld\r\n",
            sent_status(413), disconnect,
        ),
        # It would cost two turns of the selector for nothing.
        "a peer whose body fills the buffer with its last bytes is not stopped": (
            {"request_buffer_size": 1024}, POST_2000, b"*" * 1000, b"*" * 1000, reading,
            received(b"*" * 1000, more=True), received(b"*" * 1000, more=False), answer(), GET % 2,
            requests(b"/", b"/2"),
        ),
    })  # fmt: skip

    def test_application_that_does_not_read_stops_the_peer(self) -> None:
        wire = play(Wire(request_buffer_size=1024), POST.replace(b"10", b"5000"), b"*" * 2000, stopped)
        read = b""
        while not wire.transport.reading:
            read += wire.receive()["body"]
        wire.feed(b"*" * 3000)
        while (event := wire.receive())["more_body"]:
            read += event["body"]
        assert len(read + event["body"]) == 5000

    def test_body_that_was_kept_is_read_on_when_the_application_reads(self) -> None:
        data = CHUNKED + b"400\r\n" + b"*" * 1024 + b"\r\n5\r\nhello\r\n0\r\n\r\n"
        wire = play(Wire(request_buffer_size=1024), *(data[at : at + 600] for at in range(0, len(data), 600)))
        read = b""
        while (event := wire.receive())["more_body"]:
            read += event["body"]
        assert read + event["body"] == b"*" * 1024 + b"hello"

    def test_what_ends_a_request_in_its_body_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        play(Wire(), CHUNKED, b"zz\r\n")
        play(Wire(body_timeout=5), POST, after(5))
        assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
            ("asgiserver.wire", logging.INFO, f"Ended POST '/' with {error}")
            for error in (
                "400: The request's body has a chunk whose size or extension is not valid.",
                "408: The request's body did not arrive in time.",
            )
        ]

    def test_announced_size_above_the_limit_is_refused_before_an_application_starts(self) -> None:
        wire = play(Wire(limit_body_size=9), POST, sent_status(413), closed)
        assert wire.hub.exchanges == []
        request, status = wire.hub.refused[0]
        assert request is not None
        assert (request.method, status) == ("POST", 413)

    def test_reads_within_a_body_go_to_the_application_as_they_are(self) -> None:
        data = b"*" * 400
        wire = play(Wire(), POST.replace(b"10", b"1200"), data, data, data)
        pieces = [wire.receive() for _ in range(3)]
        assert pieces[0]["body"] is data
        assert [piece["more_body"] for piece in pieces] == [True, True, False]
        assert b"".join(piece["body"] for piece in pieces) == b"*" * 1200

    def test_a_read_while_the_peer_is_stopped_waits_behind_what_was_kept(self) -> None:
        """A transport that wraps another may have some more on its way."""
        wire = play(Wire(request_buffer_size=1024), POST.replace(b"10", b"3000"), b"a" * 1024, stopped, b"b" * 1000)
        assert wire.hub.exchange._buffered == 1024
        read = wire.receive()["body"] + wire.receive()["body"]
        wire.feed(b"c" * 976)
        assert read + wire.receive()["body"] == b"a" * 1024 + b"b" * 1000 + b"c" * 976


class TestUnreadBody:
    test_of_a_request = traces({
        "the rest is thrown away and the next request is read": (
            {}, POST + b"01234", answer(length=2), still_open, b"56789" + GET % 2, requests(b"/", b"/2"),
            answer(length=2), sent(OK * 2),
        ),
        "a rest that looks like a request is none": (
            {}, POST.replace(b"10", b"%d" % len(GET % 9)), answer(), GET % 9 + GET % 2, requests(b"/", b"/2"),
        ),
        "an announced rest beyond the limit closes and says so": (
            {"limit_unread_body": 9}, POST, answer(length=2), sent(CLOSE), closed,
        ),
        "a chunked rest is drained up to the limit": (
            {"limit_unread_body": 9}, CHUNKED, answer(length=2), b"9\r\n012345678\r\n", still_open, b"1\r\n9\r\n",
            closed, sent(OK),
        ),
        # Else a client would lose the next request that it sends on this connection.
        "a chunked rest where none is drained closes and says so": (
            {"limit_unread_body": 0}, CHUNKED, answer(length=2), sent(CLOSE), closed,
        ),
        "a broken rest closes without a second response": (
            {}, CHUNKED, answer(length=2), b"zz\r\n" + GET % 2, sent(OK), closed, requests(b"/"),
        ),
        "a stopped peer may send its rest": (
            {"request_buffer_size": 1024}, POST_2000, b"*" * 1500, stopped, answer(), reading, b"*" * 500 + GET % 2,
            requests(b"/", b"/2"),
        ),
        "a stalled rest has a deadline": ({"body_timeout": 3}, POST, answer(length=2), after(3), sent(OK), closed),
    })  # fmt: skip

    def test_stop_gives_a_peer_that_is_still_sending_the_time_to_take_its_answer(self) -> None:
        """RFC 9112 §9.6: closed with unread input, the connection would be reset."""
        wire = Wire(transport=FakeSocket(), close_timeout=5)
        play(wire, POST + b"01234", answer(length=2), stop, after(0.5))
        wire.connection.finish()
        assert wire.transport.half_closed
        play(wire, still_open, after(5), closed)


class TestContinue:
    test_of_a_request = traces({
        "it is sent when the application first reads": (
            {}, EXPECT, sent(b""), waits, sent(CONTINUE), waits, sent(b""), b"hello", received(b"hello"),
            answer(length=2), sent(OK),
        ),
        # RFC 9110 §10.1.1: nobody knows whether the body will come.
        "an application that answers without reading ends the connection": (
            {}, EXPECT, answer(length=2), sent(CLOSE), closed,
        ),
        "it is not sent when the body has come already": ({}, EXPECT + b"he", received(b"he"), waits, sent(b"")),
        "it is not sent once the response has begun": (
            {}, EXPECT, start(length=4), body(b"ok", more=True), taken, waits, sent(b""),
        ),
        "a peer that waits for it is not late": (
            {"body_timeout": 3}, EXPECT, after(4), sent(b""), waits, sent(CONTINUE), after(3), sent_status(408),
        ),
        "another expectation is 417": ({}, EXPECT.replace(b"100-continue", b"magic"), sent_status(417), closed),
    })  # fmt: skip


class TestRefusing:
    def test_answer_is_a_whole_response_that_closes(self) -> None:
        body = b"The request line must be a method, a target and a version.\n"
        answer = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\ndate: %b\r\n"
            b"connection: close\r\n\r\n%b" % (len(body), DATE, body)
        )
        wire = play(Wire(), b"garbage\r\n\r\n" + GET % 2, sent(answer), closed, requests())
        assert wire.hub.refused == [(None, 400)]

    def test_bytes_after_a_refusal_are_thrown_away(self) -> None:
        play(Wire(), b"garbage\r\n\r\n", taken, GET % 2, sent(b""), requests())

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
        play(Wire(**{limit: 300}), b"GET /" + b"*" * 500 + b" HTTP/1.1\r\n\r\n", sent_status(status))


class TestLoss:
    def test_exchange_is_told(self) -> None:
        wire = play(Wire(), POST + b"01234", lost, disconnect)
        assert wire.hub.log.gone == [wire.hub.exchange]

    @pytest.mark.parametrize("data", [b"", b"GET / HT", GET % 1])
    def test_no_timer_is_left(self, data: bytes) -> None:
        wire = play(Wire(data), lost)
        assert wire.hub.clock.getDelayedCalls() == []
        assert wire.hub.connections == set()

    def test_answered_exchange_is_not_told(self) -> None:
        assert play(Wire(), GET % 1, answer(), lost).hub.log.gone == []


class TestDeadlines:
    test_of_a_peer = traces({
        "the head is counted from its first byte": (
            {"head_timeout": 10}, b"G", *[after(1), b"G"] * 9, sent(b""), after(1), sent_status(408), closed,
        ),
        "an empty line in two reads is no request that is late": (
            {"head_timeout": 5, "keep_alive_timeout": 10}, b"\r", b"\n", after(9.9), still_open, sent(b""),
            after(0.1), closed, sent(b""),
        ),
        "an idle connection is closed quietly": (
            {"keep_alive_timeout": 5}, GET % 1, answer(length=2), after(4.9), still_open, after(0.1), closed, sent(OK),
        ),
        "half of a second request has the head's deadline": (
            {"keep_alive_timeout": 5, "head_timeout": 20}, GET % 1, answer(), taken, b"GET", after(19), still_open,
            after(1), sent_status(408),
        ),
        "a running request is not idle": (
            {"keep_alive_timeout": 5, "head_timeout": 5, "body_timeout": 5, "first_byte_timeout": 5},
            GET % 1, after(1000), still_open,
        ),
        "a pipelined request waits as long as it must": (
            {"keep_alive_timeout": 5, "head_timeout": 5}, GET % 1 + GET % 2, after(1000), answer(), after(1000),
            still_open,
        ),
        "a stalled body is 408": (
            {"body_timeout": 5}, POST, after(4), b"0", after(4), sent(b""), after(1), sent_status(408), disconnect,
        ),
        "a peer that was stopped is not late": (
            {"body_timeout": 5, "request_buffer_size": 1024}, POST.replace(b"10", b"5000"), b"*" * 1024, after(100),
            sent(b""), received(b"*" * 1024), after(5), sent_status(408),
        ),
    })  # fmt: skip

    @pytest.mark.parametrize("answered", [False, True])
    def test_empty_lines_are_no_way_around(self, answered: bool) -> None:
        wire = Wire(first_byte_timeout=10, keep_alive_timeout=10, head_timeout=100)
        if answered:
            play(wire, GET % 1, answer())
        play(wire, *[b"\r\n", after(2)] * 4, after(1.9), still_open, after(0.1), closed)

    @pytest.mark.parametrize("data", [GET % 1 + b"\r\n", POST + b"0123456789\r\n\r\n"])
    @pytest.mark.parametrize("later", [False, True])
    def test_empty_line_behind_a_request_begins_no_other(self, data: bytes, later: bool) -> None:
        """RFC 9112 §2.2: some old clients send one behind a body."""
        wire = play(Wire(keep_alive_timeout=10, head_timeout=5), data, *[b"\r\n"] * later)
        play(wire, answer(length=2), after(9.9), still_open, after(0.1), closed, sent(OK))

    @pytest.mark.parametrize(("data", "answered", "kinds"), [
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
    ])  # fmt: skip
    def test_at_most_one_thing_is_awaited_of_a_peer(self, data: bytes, answered: bool, kinds: set[Deadline]) -> None:
        """In each state of a connection its own, and none that is left to expire in vain."""
        for earlier in (0, 3):
            wire = play(Wire(), *[GET % 0, answer(length=2)] * earlier, data, *[answer(length=2)] * answered)
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
        wire, pause = Wire(), after(0.0 if answers_fast else 0.1)
        for number in range(1000):
            play(wire, POST[:20], POST[20:], b"01234", b"56789" + GET % number, answer(length=2), pause)
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
        play(wire, answer(), answer())
        assert Deadline.KEEP_ALIVE not in kinds
        play(wire, taken, after(19.9), still_open, after(0.1), sent_status(408))

    @pytest.mark.parametrize("began", [0.0, -1000.0])
    def test_each_request_moves_the_end(self, began: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wherever the zero of time is."""
        monkeypatch.setattr(Clock, "rightNow", began)
        wire = Wire(GET % 1, keep_alive_timeout=10, first_byte_timeout=100)
        assert wire.hub.clock.seconds() == began
        play(wire, answer(length=2), *[after(7), GET % 2, answer(length=2)] * 4)
        play(wire, after(9.9), still_open, after(0.2), closed)

    @pytest.mark.parametrize("answered", [False, True])
    def test_framing_of_a_body_does_not_move_its_deadline_but_pieces_do(self, answered: bool) -> None:
        wire = play(Wire(body_timeout=5, min_request_rate=0), CHUNKED, *[answer(), taken] * answered)
        for piece in (b"2", b"\r\n*", b"*", b"\r\n", b"1;"):
            play(wire, after(2), piece)
        # The last piece of the body came 4 seconds ago.
        play(wire, still_open, b"a", after(0.9), b"a", still_open, after(0.1), closed)
        assert wire.transport.take().startswith(b"" if answered else b"HTTP/1.1 408 ")

    @pytest.mark.parametrize("steps", [[], [b"GET"], [POST], [GET % 1, answer()]], ids=["none", "head", "body", "idle"])
    def test_they_can_be_off(self, steps: list[Step]) -> None:
        off = ("head_timeout", "keep_alive_timeout", "body_timeout", "first_byte_timeout", "min_request_rate")
        play(Wire(**dict.fromkeys(off, 0)), *steps, after(1e6), still_open)


class TestSwitching:
    """With an engine that does nothing in place of frames; WebSocketExchange has tests of its own."""

    def switched(self, rest: bytes = b"") -> tuple[Wire, FakeFrames]:
        wire = Wire(UPGRADE + rest, ping_interval=0, websocket_timeout=0)
        wire.hub.exchange.take_reply(Accept(None, [], []))
        return wire, wire.hub.exchange._engine

    def test_101_is_followed_by_opaque_bytes_both_ways(self) -> None:
        wire, engine = self.switched()
        head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\ndate: " + DATE + b"\r\n\r\n"
        play(wire, sent(head), GET % 1)
        assert engine.received == GET % 1
        wire.hub.exchange.stream.send_data(b"\x81\x00")
        play(wire, sent(b"\x81\x00"), requests(b"/"))

    def test_parts_follow_each_other(self) -> None:
        wire = play(self.switched()[0], taken)
        wire.hub.exchange.write(b"1")
        wire.hub.exchange.write_large(b"head", LARGE)
        wire.hub.exchange.write(b"2")
        assert wire.transport.take() == b"1head" + LARGE + b"2"
        wire.hub.exchange.stream.close()
        wire.hub.exchange.write_large(b"head", LARGE)
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
        play(self.switched()[0], after(1e6), still_open)

    def test_handshake_that_is_denied_leaves_an_http_connection(self) -> None:
        wire = Wire(UPGRADE)
        wire.hub.exchange.take_reply(Close(1000, ""))
        play(wire, sent_status(403), GET % 2, requests(b"/", b"/2"))

    def test_request_before_the_handshake_is_answered_first(self) -> None:
        wire = Wire(GET % 1 + UPGRADE)
        assert not wire.hub.requests[-1].upgrade
        wire.answer()
        assert wire.hub.requests[-1].upgrade


def test_fake_transport_is_not_taken_for_a_socket() -> None:
    connection, _ = WireHub().connect(FakeTransport())
    assert not connection.output.direct


def test_what_one_connection_has_sent_in_part_is_not_anothers() -> None:
    hub = WireHub()
    one, other = hub.connect(None)[0], hub.connect(None)[0]
    for part in (slice(10), slice(10, None)):
        one.dataReceived((GET % 1)[part])
        other.dataReceived((GET % 2)[part])
    targets = [exchange.scope["path"] for exchange in hub.exchanges]
    assert targets == ["/1", "/2"]
