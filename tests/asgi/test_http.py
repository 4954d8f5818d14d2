"""An HTTP exchange without a wire: every state against every reply and every event, and the way of the body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.exchange import State
from asgiserver.asgi.http import HTTPExchange
from asgiserver.asgi.scope import Request, ScopeBuilder
from asgiserver.errors import MessageError, RequestError, UnexpectedMessage
from asgiserver.settings import Settings
from tests.asgi.test_scope import ADDRESSES
from tests.fakes import CLIENT, Clock, FakeHub, FakeStream, at_once, settle, would_wait

START = {"type": "http.response.start", "status": 200, "headers": [(b"X", b"1")]}
MORE = {"type": "http.response.body", "body": b"abc", "more_body": True}
LAST = {"type": "http.response.body", "body": b"def"}
DISCONNECT = {"type": "http.disconnect"}


class Made:
    """An exchange with what stands around it."""

    def __init__(self, method: str = "GET", *, logs_actions: bool = True, **settings: Any) -> None:
        self.clock = Clock()
        self.stream = FakeStream()
        self.hub = FakeHub(logs_actions=logs_actions)
        scope = ScopeBuilder("", None, None).http(Request(method, b"/a%20b?c", []), ADDRESSES)
        self.exchange = HTTPExchange(scope, self.stream, self.hub, Settings(**settings), self.clock)

    def send(self, message: dict[str, Any]) -> None:
        self.exchange.take_reply(self.exchange.parse(message))

    def receive(self) -> dict[str, Any]:
        return dict(at_once(self.exchange.receive()))

    def lose(self) -> None:
        self.stream.lost = True
        self.exchange.disconnected()

    def upload(self, *pieces: bytes, end: bool = True) -> None:
        for piece in pieces:
            self.exchange.body_received(piece)
        if end:
            self.exchange.body_ended()


def request(body: bytes, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more_body}


REACHED: dict[State, Callable[[Made], object]] = {
    State.WAITING: lambda made: None,
    State.STARTED: lambda made: made.send(START),
    State.STREAMING: lambda made: (made.send(START), made.send(MORE)),
    State.COMPLETE: lambda made: (made.send(START), made.send(LAST)),
    State.GONE: lambda made: made.lose(),
}
EVENTS: dict[str, Callable[[Made], object]] = {
    "disconnected": lambda made: made.lose(),
    "request_failed": lambda made: made.exchange.request_failed(RequestError(408, "Late.")),
    "returned": lambda made: made.exchange.application_done(failed=False),
    "raised": lambda made: made.exchange.application_done(failed=True),
    "server_stopping": lambda made: made.exchange.server_stopping(),
    "writable": lambda made: made.exchange.writable(),
    "body_received": lambda made: made.exchange.body_received(b"x"),
    "body_ended": lambda made: made.exchange.body_ended(),
}


def reached(state: State, **settings: Any) -> Made:
    made = Made(**settings)
    REACHED[state](made)
    assert made.exchange.state is state
    made.stream.calls.clear() if state not in (State.COMPLETE, State.GONE) else None
    return made


class TestStatesAndReplies:
    """The whole product; a pair that has no next state is the application's mistake."""

    NEXT = {
        (State.WAITING, "start"): (State.STARTED, []),
        (State.STARTED, "more"): (State.STREAMING, ["respond"]),
        (State.STARTED, "last"): (State.COMPLETE, ["respond", "end"]),
        (State.STREAMING, "more"): (State.STREAMING, ["data"]),
        (State.STREAMING, "last"): (State.COMPLETE, ["data", "end"]),
    }
    MESSAGES = {"start": START, "more": MORE, "last": LAST}

    @pytest.mark.parametrize("name", MESSAGES)
    @pytest.mark.parametrize("state", REACHED)
    def test_reply_fits_or_is_refused_without_a_trace(self, state: State, name: str) -> None:
        made = reached(state)
        before = list(made.stream.calls)
        if (state, name) in self.NEXT:
            made.send(self.MESSAGES[name])
            next_state, calls = self.NEXT[state, name]
            assert (made.exchange.state, made.stream.calls) == (next_state, calls)
        else:
            with pytest.raises(UnexpectedMessage):
                made.send(self.MESSAGES[name])
            assert (made.exchange.state, made.stream.calls) == (state, before)

    @pytest.mark.parametrize("state", [State.OPEN, State.CLOSING])
    @pytest.mark.parametrize("message", MESSAGES.values())
    def test_states_of_websockets_allow_nothing(self, state: State, message: dict[str, Any]) -> None:
        made = Made()
        made.exchange.state = state
        with pytest.raises(UnexpectedMessage):
            made.send(message)

    def test_refusal_says_what_was_sent_when(self) -> None:
        with pytest.raises(UnexpectedMessage, match=r"http.response.body was sent before http.response.start"):
            Made().send(LAST)
        with pytest.raises(UnexpectedMessage, match=r"http.response.start was sent after the response was complete"):
            reached(State.COMPLETE).send(START)


class TestStatesAndEvents:
    """The whole product: next state, what the stream was told, status, and whether the hub was told of the loss."""

    ANSWER = ["respond", "end"]
    NEXT: dict[tuple[State, str], tuple[State, list[str]]] = {
        (State.WAITING, "disconnected"): (State.GONE, []),
        (State.STARTED, "disconnected"): (State.GONE, []),
        (State.STREAMING, "disconnected"): (State.GONE, []),
        (State.WAITING, "request_failed"): (State.GONE, ANSWER),
        (State.STARTED, "request_failed"): (State.GONE, ANSWER),
        (State.STREAMING, "request_failed"): (State.GONE, ["abort"]),
        (State.WAITING, "returned"): (State.COMPLETE, ANSWER),
        (State.STARTED, "returned"): (State.COMPLETE, ANSWER),
        (State.STREAMING, "returned"): (State.GONE, ["abort"]),
        (State.WAITING, "raised"): (State.COMPLETE, ANSWER),
        (State.STARTED, "raised"): (State.COMPLETE, ANSWER),
        (State.STREAMING, "raised"): (State.GONE, ["abort"]),
    }
    STATUS = {"request_failed": 408, "returned": 500, "raised": 500}

    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize("state", REACHED)
    def test_event(self, state: State, event: str) -> None:
        made = reached(state)
        before, told = list(made.stream.calls), len(made.hub.gone)
        EVENTS[event](made)
        next_state, calls = self.NEXT.get((state, event), (state, before))
        assert (made.exchange.state, made.stream.calls) == (next_state, calls)
        assert len(made.hub.gone) - told == (next_state is State.GONE and state is not State.GONE)
        if calls == self.ANSWER and state is not State.COMPLETE:
            assert made.stream.status == self.STATUS[event]

    @pytest.mark.parametrize("event", ["request_failed", "returned"])
    def test_answer_in_the_applications_place_has_none_of_its_fields(self, event: str) -> None:
        made = reached(State.STARTED)
        EVENTS[event](made)
        assert (b"x", b"1") not in made.stream.headers
        assert made.stream.framing["close"] is (event == "request_failed")

    @pytest.mark.parametrize("state", REACHED)
    def test_it_happens_once_only_whatever_comes_afterwards(self, state: State) -> None:
        made = reached(state)
        made.lose()
        for event in EVENTS.values():
            event(made)
        assert len(made.hub.gone) == (state is not State.COMPLETE)
        assert len(made.hub.actions) == 1


class TestReceiving:
    def test_no_body_is_one_empty_event(self) -> None:
        made = Made()
        made.upload()
        assert made.receive() == request(b"")

    def test_pieces_come_as_they_came_and_then_an_end(self) -> None:
        made = Made()
        made.upload(b"ab", b"c")
        assert [made.receive(), made.receive()] == [request(b"ab", True), request(b"c")]

    def test_piece_comes_before_the_end_is_known(self) -> None:
        made = Made()
        made.upload(b"ab", end=False)
        assert made.receive() == request(b"ab", True)
        assert would_wait(made.exchange.receive)
        made.upload()
        assert made.receive() == request(b"")

    def test_after_the_last_event_it_waits_for_the_disconnect_and_repeats_that(self) -> None:
        made = Made()
        made.upload(b"a")
        made.receive()
        assert would_wait(made.exchange.receive)
        made.lose()
        assert [made.receive(), made.receive()] == [DISCONNECT, DISCONNECT]

    @pytest.mark.parametrize("event", ["disconnected", "request_failed"])
    def test_waiting_receive_is_woken_by_the_end(self, event: str) -> None:
        async def main() -> None:
            made = Made()
            made.upload(b"ab")
            made.receive()
            task = asyncio.ensure_future(made.exchange.receive())
            await settle()
            assert not task.done()
            EVENTS[event](made)
            assert await task == DISCONNECT

        asyncio.run(main())

    def test_complete_response_gives_a_disconnect(self) -> None:
        made = reached(State.COMPLETE)
        assert made.receive() == DISCONNECT

    def test_complete_response_wakes_a_waiting_receive(self) -> None:
        async def main() -> None:
            made = Made()
            made.upload()
            made.receive()
            task = asyncio.ensure_future(made.exchange.receive())
            await settle()
            made.send(START)
            made.send(LAST)
            assert await task == DISCONNECT

        asyncio.run(main())

    def test_complete_body_can_be_read_after_the_peer_has_left(self) -> None:
        made = Made()
        made.upload(b"ab", b"c")
        made.lose()
        assert not made.exchange.listening
        assert [made.receive(), made.receive(), made.receive()] == [request(b"ab", True), request(b"c"), DISCONNECT]
        assert made.exchange.listening

    def test_incomplete_body_is_never_made_to_look_complete(self) -> None:
        made = Made()
        made.upload(b"ab", end=False)
        made.lose()
        assert made.receive() == DISCONNECT

    def test_broken_body_is_never_made_to_look_complete(self) -> None:
        made = Made()
        made.upload(b"ab", end=False)
        made.exchange.request_failed(RequestError(400, "Bad chunk."))
        assert made.receive() == DISCONNECT

    def test_end_that_the_wire_meets_while_receive_resumes_it_is_told_at_once(self) -> None:
        made = Made()
        made.stream.on_resume = lambda: made.exchange.request_failed(RequestError(400, "Bad chunk."))
        assert made.receive() == DISCONNECT

    def test_piece_that_the_wire_has_kept_is_delivered_at_once(self) -> None:
        made = Made()
        made.stream.on_resume = lambda: made.upload(b"ab")
        assert made.receive() == request(b"ab")

    def test_it_listens_while_a_receive_waits_and_from_the_disconnect_on(self) -> None:
        async def main() -> None:
            made = Made()
            made.upload()
            await made.exchange.receive()
            assert not made.exchange.listening
            task = asyncio.ensure_future(made.exchange.receive())
            await settle()
            assert made.exchange.listening
            made.lose()
            await task
            assert made.exchange.listening

        asyncio.run(main())


class TestPressure:
    SIZE = 1024

    def test_reading_stops_at_the_buffers_size_and_goes_on_at_half_of_it(self) -> None:
        made = Made(request_buffer_size=self.SIZE)
        made.upload(b"*" * 512, b"*" * 511, end=False)
        assert made.stream.reading
        made.upload(b"*", end=False)
        assert made.stream.calls == ["pause"]
        made.receive()
        assert made.stream.reading
        made.upload(b"*" * 512, end=False)
        assert made.stream.calls == ["pause", "pause"]

    def test_pieces_are_as_the_wire_gave_them(self) -> None:
        made, piece = Made(request_buffer_size=self.SIZE), b"*" * 2500
        made.upload(piece)
        assert made.receive()["body"] is piece

    def test_piece_that_is_waited_for_does_not_stop_the_peer_but_the_next_one_does(self) -> None:
        async def main() -> None:
            made = Made(request_buffer_size=self.SIZE)
            task = asyncio.ensure_future(made.exchange.receive())
            await asyncio.sleep(0)
            made.upload(b"1" * 2500, end=False)
            assert made.stream.reading
            made.upload(b"2", end=False)
            assert not made.stream.reading
            assert (await task)["body"] == b"1" * 2500
            assert made.stream.reading
            assert made.receive()["body"] == b"2"

        asyncio.run(main())

    def test_more_pieces_after_the_pause_do_not_pause_again(self) -> None:
        made = Made(request_buffer_size=self.SIZE)
        made.upload(b"*" * 1024, b"*" * 1024)
        assert made.stream.calls == ["pause"]

    def test_application_that_waits_for_a_body_asks_for_it(self) -> None:
        """The wire answers 100-continue then."""
        made = Made()
        resumed: list[None] = []
        made.stream.on_resume = lambda: resumed.append(None)
        assert would_wait(made.exchange.receive)
        assert resumed

    @pytest.mark.parametrize("state", [State.COMPLETE, State.GONE])
    def test_body_that_comes_too_late_is_not_kept(self, state: State) -> None:
        made = reached(state)
        made.exchange.body_received(b"*" * 100_000)
        assert "pause" not in made.stream.calls
        assert made.receive() == DISCONNECT

    @pytest.mark.parametrize("state", [State.COMPLETE, State.GONE])
    def test_finished_exchange_does_not_touch_its_stream_when_what_it_kept_is_read(self, state: State) -> None:
        made = Made(request_buffer_size=self.SIZE)
        made.upload(b"*" * 600, b"*" * 600)
        REACHED[state](made)
        calls = list(made.stream.calls)
        while made.receive() != DISCONNECT:
            pass
        assert made.stream.calls == calls

    @given(st.lists(st.one_of(st.binary(max_size=3000), st.none()), max_size=20))
    def test_body_is_what_was_sent_whatever_the_order_of_sending_and_reading(self, steps: list[bytes | None]) -> None:
        made = Made(request_buffer_size=self.SIZE)
        sent = b"".join(step for step in steps if step)
        read = b""
        waiting = 0
        for step in steps:
            if step:
                made.exchange.body_received(step)
                waiting += len(step)
            elif step is None and waiting:
                piece = made.receive()["body"]
                read += piece
                waiting -= len(piece)
            assert made.stream.reading or waiting >= self.SIZE // 2
        made.exchange.body_ended()
        more = True
        while more:
            event = made.receive()
            read, more = read + event["body"], event["more_body"]
        assert read == sent
        assert made.stream.reading


class TestLength:
    def test_too_long_body_leaves_an_unstarted_response_to_be_answered_500(self) -> None:
        made = Made()
        made.send(START | {"headers": [(b"content-length", b"2")]})
        with pytest.raises(MessageError, match="1 bytes longer"):
            made.send(MORE)
        assert made.exchange.state is State.STARTED
        made.exchange.application_done(failed=True)
        assert made.stream.status == 500

    def test_body_that_falls_short_is_aborted_and_never_ended(self) -> None:
        made = Made()
        made.send(START | {"headers": [(b"content-length", b"9")]})
        made.send(MORE)
        with pytest.raises(MessageError, match="3 bytes short"):
            made.send(LAST)
        assert made.stream.calls == ["respond", "abort"]
        assert made.exchange.gone

    def test_piece_that_is_too_long_may_be_followed_by_a_right_one(self) -> None:
        made = Made()
        made.send(START | {"headers": [(b"content-length", b"6")]})
        made.send(MORE)
        with pytest.raises(MessageError):
            made.send(MORE | {"body": b"defg"})
        made.send(LAST)
        assert (made.stream.data, made.exchange.state) == (b"abcdef", State.COMPLETE)

    @pytest.mark.parametrize("message", [{"type": "http.response.start"}, START | {"headers": [("x", b"1")]}])
    def test_malformed_message_leaves_all_as_it_was(self, message: dict[str, Any]) -> None:
        made = Made()
        with pytest.raises(MessageError):
            made.send(message)
        made.send(START)
        assert made.exchange.state is State.STARTED


class TestAge:
    def test_request_without_a_response_is_answered_503(self) -> None:
        made = Made(http_timeout=5)
        made.clock.advance(4.9)
        assert made.stream.calls == []
        made.clock.advance(0.1)
        assert made.stream.status == 503
        assert made.stream.framing["close"]
        assert made.hub.gone == [made.exchange]

    def test_begun_response_is_cut_off(self) -> None:
        made = Made(http_timeout=5)
        made.send(START)
        made.send(MORE)
        made.clock.advance(5)
        assert made.stream.calls[-1] == "abort"

    @pytest.mark.parametrize("state", [State.COMPLETE, State.GONE])
    def test_finished_exchange_has_no_age(self, state: State) -> None:
        made = reached(state, http_timeout=5)
        calls = list(made.stream.calls)
        made.clock.advance(5)
        made.clock.advance(5)
        assert made.stream.calls == calls
        made.exchange.release()
        assert made.clock.getDelayedCalls() == []

    def test_no_timer_without_the_setting(self) -> None:
        made = reached(State.COMPLETE)
        made.exchange.release()
        assert made.clock.getDelayedCalls() == []


class TestActions:
    def test_complete_response_is_logged_as_daphne_logs_it(self) -> None:
        made = Made("POST")
        made.upload(b"12345")
        made.clock.advance(0.25)
        made.send(START)
        made.send(MORE)
        assert made.hub.actions == []
        made.clock.advance(0.25)
        made.send(LAST)
        ((protocol, action, details),) = made.hub.actions
        assert (protocol, action) == ("http", "complete")
        assert details == {
            "path": "/a%20b?c",
            "client": "{}:{}".format(*CLIENT),
            "http_version": "1.1",
            "scheme": "http",
            "headers": [],
            "status": 200,
            "method": "POST",
            "time_taken": 0.5,
            "size": 6,
            "request_size": 5,
        }

    def test_peer_that_leaves_before_the_response_is_logged_as_499(self) -> None:
        made = reached(State.STARTED)
        made.lose()
        assert made.hub.actions[0][2]["status"] == 499

    def test_peer_that_leaves_in_mid_response_is_logged_with_its_status_and_size(self) -> None:
        made = reached(State.STREAMING)
        made.lose()
        assert [made.hub.actions[0][2][key] for key in ("status", "size")] == [200, 3]

    def test_nothing_is_collected_when_nobody_wants_it(self) -> None:
        made = Made(logs_actions=False)
        made.send(START)
        made.send(LAST)
        assert made.hub.actions == []


class TestStopping:
    """An application that listens is told to end a stream whose end nobody knows."""

    @staticmethod
    def streaming(*messages: dict[str, Any]) -> Made:
        made = Made()
        made.upload()
        assert made.receive() == request(b"")
        for message in messages or (START, MORE):
            made.send(message)
        return made

    @pytest.mark.parametrize("messages", [(START,), (START, MORE)])
    def test_who_waits_is_told_when_the_end_is_near(self, messages: Any) -> None:
        async def main() -> None:
            made = self.streaming(*messages)
            waiting = asyncio.ensure_future(made.exchange.receive())
            await settle()
            made.hub.stopping = True
            made.exchange.server_stopping()
            await settle()
            assert not waiting.done()
            made.hub.ending = True
            made.exchange.server_stopping()
            await settle()
            assert waiting.done()
            assert waiting.result() == DISCONNECT
            assert await made.exchange.receive() == DISCONNECT

        asyncio.run(main())

    @pytest.mark.parametrize("messages", [
        (),
        ({**START, "headers": [(b"content-length", b"6")]},),
        ({**START, "headers": [(b"content-length", b"6")]}, MORE),
    ])  # fmt: skip
    def test_a_response_with_an_end_may_run_to_it(self, messages: Any) -> None:
        made = Made()
        made.upload()
        made.receive()
        for message in messages:
            made.send(message)
        made.hub.stopping = made.hub.ending = True
        assert would_wait(made.exchange.receive)
        assert not made.exchange.answered

    def test_a_body_that_still_comes_is_received_first(self) -> None:
        made = Made("POST")
        made.upload(b"a", end=False)
        made.send(START)
        made.send(MORE)
        made.hub.stopping = made.hub.ending = True
        assert made.receive() == request(b"a", True)
        assert would_wait(made.exchange.receive)
        made.upload(b"b")
        assert [made.receive() for _ in range(2)] == [request(b"b"), DISCONNECT]

    def test_who_was_told_may_end_the_response_in_order(self) -> None:
        made = self.streaming()
        made.hub.stopping = made.hub.ending = True
        assert made.receive() == DISCONNECT
        made.send(MORE)
        made.send(LAST)
        assert (made.exchange.state, made.stream.data) == (State.COMPLETE, b"abcabcdef")
        assert made.stream.calls[-1] == "end"

    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize(("messages", "failed", "status", "calls"), [
        ((START, MORE), False, 200, ["respond", "abort"]),
        ((START, MORE), True, 200, ["respond", "abort"]),
        ((START,), False, 503, ["respond", "end"]),
        ((START,), True, 500, ["respond", "end"]),
    ])  # fmt: skip
    def test_who_leaves_a_stream_is_not_at_fault_but_it_does_not_look_complete(
        self, told: bool, messages: Any, failed: bool, status: int, calls: list[str]
    ) -> None:
        """An application may also have learned otherwise that the server stops."""
        made = self.streaming(*messages)
        made.hub.stopping = True
        if told:
            made.hub.ending = True
            assert made.receive() == DISCONNECT
        assert made.exchange.answered
        made.exchange.application_done(failed=failed)
        assert (made.exchange.status, made.stream.calls) == (status, calls)

    def test_who_asks_again_and_again_lets_others_run(self) -> None:
        async def main() -> None:
            made = self.streaming()
            made.hub.stopping = made.hub.ending = True
            asked = 0

            async def ask() -> None:
                nonlocal asked
                while asked < 100_000 and await made.exchange.receive() == DISCONNECT:
                    asked += 1

            asking = asyncio.ensure_future(ask())
            await settle()
            assert 1 < asked < 100_000
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

        asyncio.run(main())
