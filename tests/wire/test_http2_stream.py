"""One stream of HTTP/2: its states, its request's body, and a WebSocket on it (RFC 9113 §5.1, §8.1; RFC 8441)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from hyperframe.frame import DataFrame

from asgiserver.asgi.deadlines import Deadline
from asgiserver.asgi.exchange import State as ExchangeState
from asgiserver.asgi.http import HTTPExchange
from asgiserver.asgi.messages import EarlyHint, ResponseStart, Trailers
from asgiserver.wire.http2_limits import Kind
from asgiserver.wire.http2_stream import HTTP2Stream, State
from tests.fakes import at_once
from tests.wire.http2_peer import GET, POST, UPGRADE, Peer

OPEN, ANSWERING, DRAINING, SWITCHED, CLOSED = State


MIB = 1 << 20


def state(peer: Peer, number: int = 1) -> State:
    stream = peer.streams.get(number)
    return CLOSED if stream is None else stream._state


def taken(peer: Peer) -> bytes:
    """What the application receives of a body without having to wait."""
    data = b""
    exchange = peer.hub.exchange
    while exchange._body:
        data += at_once(exchange.receive())["body"]
    return data


def upgraded(peer: Peer) -> None:
    peer.send(peer.head(1, UPGRADE, end=False))
    peer.accept()


REACHED: dict[State, Callable[[Peer], object]] = {
    OPEN: lambda peer: peer.post(1, b"01234", ("content-length", "10")),
    ANSWERING: lambda peer: peer.get(1),
    DRAINING: lambda peer: (peer.post(1, b"01234", ("content-length", "10")), peer.answer()),
    SWITCHED: upgraded,
    CLOSED: lambda peer: (peer.get(1), peer.answer()),
}


def answers(peer: Peer, reply: Callable[[], object]) -> None:
    if not peer.hub.exchange.finished and state(peer) in (OPEN, ANSWERING):
        reply()


#: What happens, and which state that leads to. A state that is not named stays as it is.
EVENTS: dict[str, tuple[Callable[[Peer], object], dict[State, State]]] = {
    "a piece of the body": (lambda peer: peer.data(1, b"567"), {ANSWERING: CLOSED}),
    "the rest of the body": (
        lambda peer: peer.data(1, b"56789", end=True),
        {OPEN: ANSWERING, ANSWERING: CLOSED, DRAINING: CLOSED, SWITCHED: CLOSED},
    ),
    "too little of the body": (
        lambda peer: peer.data(1, b"5678", end=True),
        {OPEN: CLOSED, ANSWERING: CLOSED, DRAINING: CLOSED, SWITCHED: CLOSED},
    ),
    "too much of the body": (
        lambda peer: peer.data(1, b"56789a"), {OPEN: CLOSED, ANSWERING: CLOSED},
    ),
    "trailers that come too soon": (
        lambda peer: peer.send(peer.head(1, [("x", "y")])),
        {OPEN: CLOSED, ANSWERING: CLOSED, DRAINING: CLOSED, SWITCHED: CLOSED},
    ),
    "a reset": (lambda peer: peer.reset(1), dict.fromkeys(State, CLOSED)),
    "room": (lambda peer: peer.open(1, 1000), {}),
    "a piece of the response": (
        lambda peer: answers(peer, lambda: (peer.start(), peer.body(b"x", more=True))), {},
    ),
    "a whole response": (lambda peer: answers(peer, peer.answer), {OPEN: DRAINING, ANSWERING: CLOSED}),
    "a response that is cut off": (
        lambda peer: answers(
            peer, lambda: (peer.start(), peer.body(b"x", more=True), peer.hub.exchange.application_done(failed=True))
        ), {OPEN: CLOSED, ANSWERING: CLOSED},
    ),
    "the application fails": (
        lambda peer: answers(peer, lambda: peer.hub.exchange.application_done(failed=True)),
        {OPEN: DRAINING, ANSWERING: CLOSED},
    ),
    "the connection is lost": (lambda peer: peer.connection.connectionLost(), dict.fromkeys(State, CLOSED)),
    "all deadlines pass": (
        lambda peer: [peer.advance(10_000) for _ in range(10)], {OPEN: CLOSED, DRAINING: CLOSED, SWITCHED: CLOSED},
    ),
}  # fmt: skip


class TestStates:
    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize("before", State)
    def test_each_event_in_each_state(self, before: State, event: str) -> None:
        peer = Peer()
        REACHED[before](peer)
        assert state(peer) is before
        happens, after = EVENTS[event]
        happens(peer)
        peer.take()
        assert state(peer) is after.get(before, before)
        if state(peer) is CLOSED:
            exchange = peer.hub.exchange
            assert exchange.finished
            # Nothing holds it any more.
            for deadline in (Deadline.BODY, Deadline.BODY_RATE, Deadline.WRITE):
                assert not exchange.deadlines.pending(deadline)


class TestBodies:
    def test_pieces_and_the_end(self) -> None:
        peer = Peer()
        peer.post(1, b"abc")
        peer.data(1, b"def", pad=9)
        assert taken(peer) == b"abcdef"
        peer.data(1, end=True)
        assert at_once(peer.hub.exchange.receive()) == {"type": "http.request", "body": b"", "more_body": False}

    def test_what_comes_in_one_read_is_one_piece(self) -> None:
        """Thousands of frames with a byte each must not be kept as so many objects."""
        peer = Peer()
        peer.post(1)
        peer.send(*[DataFrame(1, b"x")] * 100)
        assert list(peer.hub.exchange._body) == [b"x" * 100]

    def test_trailers_end_it_and_are_dropped(self) -> None:
        peer = Peer()
        peer.post(1, b"abc")
        peer.send(peer.head(1, [("x-checksum", "1")]))
        assert state(peer) is ANSWERING
        assert taken(peer) == b"abc"

    def test_what_the_application_took_is_credited_now_and_then(self) -> None:
        peer = Peer()
        peer.post(1, b"x" * 16384)
        taken(peer)
        assert peer.take() == []
        peer.data(1, b"x" * 16384)
        taken(peer)
        assert peer.take() == [("WINDOW", 1, 32768)]

    def test_an_application_that_takes_nothing_stops_its_stream_and_no_other(self) -> None:
        peer = Peer()
        peer.post(1)
        for _ in range(4):
            peer.data(1, b"x" * 16384)
        peer.take()
        # From here on nothing is credited, and the peer may send what it was told before.
        peer.data(1, b"x" * 16384)
        peer.data(1, b"x" * 16384)
        assert peer.take() == []
        assert peer.transport.reading
        peer.post(3)
        for _ in range(20):
            peer.data(3, b"x" * 16384)
            taken(peer)
        assert sum(frame[2] for frame in peer.take() if frame[:2] == ("WINDOW", 3)) >= 19 * 16384
        # It begins to read: all that it has taken is credited at once.
        for _ in range(4):
            at_once(peer.hub.exchanges[0].receive())
        assert peer.take() == [("WINDOW", 1, 65536)]

    def test_the_window_grows_while_the_application_keeps_up(self) -> None:
        """A distant peer can send no more than a window in each round trip."""
        peer = Peer()
        wire: Any = peer.connection._wire
        for number in range(1, 22, 2):
            peer.post(number)
            room = {0: wire._allowed, number: 65536}
            largest = 0
            for _ in range(400):
                peer.data(number, b"x" * 16384)
                taken(peer)
                for frame in peer.take():
                    room[frame[1]] += frame[2]
                room[0] -= 16384
                room[number] -= 16384
                largest = max(largest, room[number])
            assert MIB // 2 < largest <= MIB
            assert MIB // 2 < room[0] <= 3 * MIB
            # It stops: what is kept for it is bounded by its window, and others have the rest.
            while room[number] >= 16384:
                peer.data(number, b"x" * 16384)
                room[number] -= 16384
            assert not [frame for frame in peer.take() if frame[1] == number]
            assert peer.hub.exchange._buffered <= MIB
            peer.reset(number)
        # What the connection's window had grown by is gone with them.
        assert wire._grown == 0
        assert wire._allowed + wire._taken == MIB

    def test_the_windows_of_all_streams_grow_within_a_bound(self) -> None:
        peer = Peer()
        for number in range(1, 100, 2):
            peer.post(number)
            for _ in range(200):
                peer.data(number, b"x" * 16384)
                taken(peer)
            peer.take()
        wire: Any = peer.connection._wire
        assert wire._grown == 4 * MIB

    def test_padding_is_credited_at_once(self) -> None:
        peer = Peer()
        peer.post(1)
        for _ in range(4):
            peer.data(1, b"x" * 16384)
        peer.take()
        # The application takes nothing, but the window stays as wide as it is.
        for _ in range(500):
            peer.data(1, b"", pad=255)
            peer.advance(0.01)
        assert sum(frame[2] for frame in peer.take() if frame[:2] == ("WINDOW", 1)) >= 500 * 256 - 32768
        assert not peer.closed

    def test_a_stream_that_is_over_gives_the_connection_back_what_it_held(self) -> None:
        peer = Peer()
        for number in range(1, 101, 2):
            peer.post(number)
            for _ in range(6):
                peer.data(number, b"x" * 16384)
            peer.reset(number)
        assert not peer.closed

    def test_100_continue_is_sent_when_the_body_is_asked_for(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, [*POST, ("expect", "100-continue"), ("content-length", "3")], end=False))
        assert peer.take() == []
        peer.advance(1000)
        peer.hub.exchange._next_event()
        assert peer.take() == [("HEADERS", 1, {":status": "100"})]
        peer.data(1, b"abc", end=True)
        assert taken(peer) == b"abc"

    def test_a_body_that_nobody_asked_for_may_stay_away(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, [*POST, ("expect", "100-continue"), ("content-length", "3")], end=False))
        peer.answer()
        assert [frame[0] for frame in peer.take()] == ["HEADERS", "DATA"]
        peer.advance(0.5)
        assert peer.take() == [("RST", 1, "NO_ERROR")]

    def test_too_large_a_body_that_says_so(self) -> None:
        peer = Peer(limit_body_size=9)
        peer.post(1, b"", ("content-length", "10"))
        peer.advance(0.5)
        head, _, end = peer.take()
        assert (head[2][":status"], end) == ("413", ("RST", 1, "NO_ERROR"))
        assert not peer.hub.exchanges

    def test_too_large_a_body_that_does_not(self) -> None:
        peer = Peer(limit_body_size=9)
        peer.post(1, b"0123456789")
        peer.advance(0.5)
        head, _, end = peer.take()
        assert (head[2][":status"], end) == ("413", ("RST", 1, "NO_ERROR"))
        peer.data(1, b"more")
        assert not peer.closed

    def test_the_rest_of_a_body_is_thrown_away_within_its_limit(self) -> None:
        peer = Peer(limit_unread_body=20_000)
        peer.post(1, b"x")
        peer.answer()
        peer.take()
        peer.data(1, b"x" * 16384)
        assert state(peer) is DRAINING
        peer.data(1, b"x" * 16384)
        peer.take()
        # The peer gets no more room, and has a moment to read the response by itself.
        peer.data(1, b"x" * 16384)
        peer.advance(0.4)
        assert peer.take() == []
        peer.advance(0.1)
        assert peer.take() == [("RST", 1, "NO_ERROR")]

    def test_a_client_that_is_answered_early_may_end_its_request_early(self) -> None:
        """curl 7.88 does, and then waits for the end of the stream."""
        peer = Peer()
        peer.post(1, b"x", ("content-length", "1000"))
        peer.answer()
        peer.take()
        peer.data(1, b"", end=True)
        # RFC 9113 §8.1.1 has this code for a length that is not kept.
        assert peer.take() == [("RST", 1, "PROTOCOL_ERROR")]
        wire: Any = peer.connection._wire
        assert Kind.RESET not in wire._budget._full_at
        peer.post(3, b"x")
        peer.answer()
        peer.take()
        peer.data(3, b"", end=True)
        assert peer.take() == [("RST", 3, "NO_ERROR")]

    def test_the_rest_of_a_body_that_does_not_come_is_not_waited_for(self) -> None:
        """curl 7.88 sends nothing more when it has the response, and waits."""
        peer = Peer(close_timeout=5, body_timeout=60)
        peer.post(1, b"x")
        peer.answer()
        peer.take()
        peer.advance(4)
        peer.data(1, b"x")
        peer.advance(4)
        assert state(peer) is DRAINING
        peer.advance(2)
        assert peer.take() == [("RST", 1, "NO_ERROR")]

    def test_the_rest_of_a_body_that_is_known_to_be_too_long_is_not_waited_for(self) -> None:
        peer = Peer(limit_unread_body=100)
        peer.post(1, b"x", ("content-length", "1000"))
        peer.answer()
        assert peer.take()[-1] == ("DATA", 1, b"ok", "end")
        peer.advance(0.5)
        assert peer.take() == [("RST", 1, "NO_ERROR")]

    def test_a_late_body(self) -> None:
        peer = Peer(body_timeout=5, min_request_rate=None)
        peer.post(1, b"x")
        peer.advance(4)
        peer.data(1, b"x")
        peer.advance(4)
        assert peer.take() == []
        peer.advance(1.1)
        peer.advance(0.5)
        head, _, end = peer.take()
        assert (head[2][":status"], end) == ("408", ("RST", 1, "NO_ERROR"))
        assert not peer.closed

    def test_a_slow_body(self) -> None:
        peer = Peer(min_request_rate=100)
        peer.post(1, b"x" * 100)
        peer.post(3, b"x" * 100)
        for _ in range(12):
            peer.advance(1)
            peer.data(1, b"x" * 120)
            if 3 in peer.streams:
                peer.data(3, b"x" * 20)
        assert peer.status(3) == "408"
        assert state(peer, 1) is OPEN

    def test_a_body_that_the_application_does_not_take_is_not_late(self) -> None:
        peer = Peer(body_timeout=5)
        peer.post(1)
        for _ in range(4):
            peer.data(1, b"x" * 16384)
        peer.take()
        peer.advance(100)
        assert state(peer) is OPEN
        taken(peer)
        peer.advance(6)
        assert peer.status(1) == "408"


class TestResponses:
    def start(self, peer: Peer, *, trailers: bool = False) -> None:
        peer.hub.exchange.take_reply(ResponseStart(200, [], None, False, trailers, []))

    @pytest.mark.parametrize("asked", [True, False])
    def test_trailers(self, asked: bool) -> None:
        peer = Peer()
        peer.get(1, *([("te", "trailers")] if asked else []))
        self.start(peer, trailers=True)
        peer.body(b"data")
        peer.hub.exchange.take_reply(Trailers([(b"X-Sum", b"1")], [b"x-sum"], False))
        end = ("HEADERS", 1, {"x-sum": "1"}, "end") if asked else ("DATA", 1, b"", "end")
        assert peer.take() == [("HEADERS", 1, {":status": "200"}), ("DATA", 1, b"data"), end]
        assert state(peer) is CLOSED

    def test_trailers_wait_for_the_body(self) -> None:
        peer = Peer(windows=2)
        peer.get(1, ("te", "trailers"))
        self.start(peer, trailers=True)
        peer.body(b"data")
        peer.hub.exchange.take_reply(Trailers([(b"x-sum", b"1")], [b"x-sum"], False))
        assert peer.take()[1:] == [("DATA", 1, b"da")]
        peer.open(1, 2)
        assert peer.take() == [("DATA", 1, b"ta"), ("HEADERS", 1, {"x-sum": "1"}, "end")]

    def test_early_hints_come_before_the_response_alone(self) -> None:
        peer = Peer()
        peer.get(1)
        assert "http.response.early_hint" in peer.hub.exchange.scope["extensions"]
        hint = EarlyHint([(b"link", b"</a.css>")], [b"link"])
        peer.hub.exchange.take_reply(hint)
        self.start(peer)
        peer.body(b"a", more=True)
        peer.hub.exchange.take_reply(hint)
        peer.body()
        assert peer.take() == [
            ("HEADERS", 1, {":status": "103", "link": "</a.css>"}),
            ("HEADERS", 1, {":status": "200"}), ("DATA", 1, b"a"), ("DATA", 1, b"", "end"),
        ]  # fmt: skip

    def test_a_response_that_is_cut_off(self) -> None:
        peer = Peer()
        peer.get(1)
        self.start(peer)
        peer.body(b"a", more=True)
        peer.hub.exchange.application_done(failed=True)
        assert peer.take()[1:] == [("DATA", 1, b"a"), ("RST", 1, "INTERNAL_ERROR")]
        assert not peer.closed

    def test_a_connection_that_the_application_wants_closed_goes_on(self) -> None:
        peer = Peer()
        peer.get(1)
        peer.hub.exchange.take_reply(ResponseStart(200, [], None, True, False, []))
        peer.body(b"a")
        assert [frame[0] for frame in peer.take()] == ["HEADERS", "DATA"]
        assert not peer.closed


    @pytest.mark.parametrize("end", ["answer", "reset", "wait", "upload"])
    def test_nothing_is_left_to_the_garbage_collector(self, end: str) -> None:
        def kept() -> int:
            return sum(type(found) in (HTTP2Stream, HTTPExchange) for found in gc.get_objects())

        peer = Peer(windows=10)
        gc.collect()
        gc.disable()
        before = kept()
        try:
            peer.post(1, b"body", end=end != "upload")
            if end != "reset":
                peer.answer(b"x" * (20 if end == "wait" else 2))
            peer.open(1, 100)
            if 1 in peer.streams:
                peer.reset(1)
            assert not peer.streams
            peer.hub.exchanges.clear()
            peer.hub.begun.clear()
            # The next request finds that an application whose stream was reset has ended.
            peer.get(3)
            peer.answer()
            peer.hub.exchanges.clear()
            peer.hub.begun.clear()
            peer.hub.log.gone.clear()
            assert kept() == before
        finally:
            gc.enable()


class TestWebSockets:
    """RFC 8441."""

    def test_bytes_go_both_ways(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, UPGRADE, end=False))
        request = peer.hub.requests[0]
        assert (request.upgrade, request.method) == (True, "CONNECT")
        peer.accept()
        ((name, number, fields),) = peer.take()
        assert (name, number, fields[":status"]) == ("HEADERS", 1, "200")
        peer.data(1, b"frame")
        engine = peer.hub.exchange._engine
        assert engine.received == b"frame"
        engine.send_message(b"hello", text=True)
        assert peer.take() == [("DATA", 1, b"<hello>")]

    def test_bytes_before_the_answer_are_kept(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, UPGRADE, end=False))
        peer.data(1, b"fra")
        peer.data(1, b"me")
        peer.accept()
        assert peer.hub.exchange._engine.received == b"frame"

    def test_the_end_of_the_stream_is_the_end_of_the_connection(self) -> None:
        peer = Peer()
        upgraded(peer)
        peer.take()
        peer.data(1, end=True)
        assert peer.take() == [("DATA", 1, b"", "end")]
        assert peer.hub.exchange.state is ExchangeState.GONE
        assert state(peer) is CLOSED

    def test_a_close_frame_that_comes_with_the_end_is_answered(self) -> None:
        """Chromium sends them in one frame, and takes a missing answer for a failure."""
        peer = Peer()
        upgraded(peer)
        peer.take()
        exchange = peer.hub.exchange

        def end() -> None:
            exchange._engine.send_close(1000, "")
            exchange.close_received(1000, "")

        # As the engine does: a turn later, so that the application can answer what was before.
        exchange._engine.receive = lambda data: peer.hub.clock.callLater(0, end)
        peer.data(1, b"close", end=True)
        assert peer.take() == [("DATA", 1, b"<close>"), ("DATA", 1, b"", "end")]
        assert exchange._close == (1000, "")
        assert state(peer) is CLOSED

    def test_a_reset_is_a_loss(self) -> None:
        peer = Peer()
        upgraded(peer)
        peer.reset(1)
        assert peer.hub.exchange.state is ExchangeState.GONE

    def test_the_closing_handshake(self) -> None:
        peer = Peer()
        upgraded(peer)
        peer.take()
        peer.hub.exchange.close_received(1000, "")
        assert peer.take() == [("DATA", 1, b"", "end")]
        assert state(peer) is DRAINING
        peer.data(1, end=True)
        assert state(peer) is CLOSED

    def test_a_peer_that_does_not_end_its_half(self) -> None:
        peer = Peer(close_timeout=5)
        upgraded(peer)
        peer.hub.exchange.close_received(1000, "")
        peer.take()
        peer.advance(5.1)
        assert peer.take() == [("RST", 1, "NO_ERROR")]

    def test_a_denial_is_a_response(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, UPGRADE, end=False))
        peer.hub.exchange.application_done(failed=True)
        peer.advance(0.5)
        head, data, end = peer.take()
        assert (head[2][":status"], data[-1], end) == ("500", "end", ("RST", 1, "NO_ERROR"))

    def test_a_request_that_ends_at_once(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, UPGRADE))
        assert peer.status(1) == "400"

    def test_a_peer_that_gives_up_before_the_answer(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, UPGRADE, end=False))
        peer.data(1, end=True)
        assert peer.take() == [("RST", 1, "CANCEL")]
        assert peer.hub.exchange.finished

    def test_an_engine_that_is_full_stops_its_stream_alone(self) -> None:
        peer = Peer()
        upgraded(peer)
        stream: Any = peer.streams[1]
        stream.pause_reading()
        peer.take()
        for _ in range(4):
            peer.data(1, b"x" * 16383)
        assert peer.take() == []
        assert peer.transport.reading
        stream.resume_reading()
        assert peer.take() == [("WINDOW", 1, 4 * 16383)]

    def test_a_plain_connect_asks_for_a_proxy(self) -> None:
        peer = Peer()
        peer.send(peer.head(1, [(":method", "CONNECT"), GET[2]], end=False))
        assert peer.status(1) == "501"
