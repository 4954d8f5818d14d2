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
from tests.asgi import traces as trace
from tests.asgi.test_scope import ADDRESSES
from tests.asgi.traces import (
    after,
    calls,
    data,
    done,
    failed,
    is_listening,
    is_told,
    last_call,
    listens,
    lost,
    no_timers,
    piece,
    play,
    reading,
    receives,
    refused,
    state,
    status,
    stopped,
    told_hub,
    waits,
)  # fmt: skip
from tests.fakes import CLIENT, settle

START = {"type": "http.response.start", "status": 200, "headers": [(b"X", b"1")]}
MORE = {"type": "http.response.body", "body": b"abc", "more_body": True}
LAST = {"type": "http.response.body", "body": b"def"}
PROMISE = {**START, "trailers": True}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")]}
MORE_TRAILERS = {"type": "http.response.trailers", "headers": [(b"x-sum", b"2")], "more_trailers": True}
HINT = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}
LENGTHS = {length: {**START, "headers": [(b"content-length", b"%d" % length)]} for length in (2, 6, 9)}
DISCONNECT = {"type": "http.disconnect"}


class Made(trace.Made):
    def __init__(self, method: str = "GET", *, logs_actions: bool = True, **settings: Any) -> None:
        super().__init__(logs_actions=logs_actions)
        scope = ScopeBuilder("", None, None).http(Request(method, b"/a%20b?c", []), ADDRESSES)
        self.exchange = HTTPExchange(scope, self.stream, self.hub, Settings(**settings), self.clock)

    def upload(self, *pieces: bytes, end: bool = True) -> None:
        for each in pieces:
            self.exchange.body_received(each)
        if end:
            self.exchange.body_ended()


def request(body: bytes, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more_body}


def ended(made: Made) -> None:
    """The body is."""
    made.exchange.body_ended()


def traces(rows: dict[str, tuple[Any, ...]]) -> Callable[..., None]:
    return trace.traces(Made, rows)


REACHED: dict[State, Callable[[Made], object]] = {
    State.WAITING: lambda made: None,
    State.STARTED: lambda made: made.send(START),
    State.STREAMING: lambda made: (made.send(START), made.send(MORE)),
    State.TRAILERS: lambda made: (made.send(PROMISE), made.send(LAST)),
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
        (State.TRAILERS, "more trailers"): (State.TRAILERS, []),
        (State.TRAILERS, "trailers"): (State.COMPLETE, ["trailers", "end"]),
        # Whether the peer can have it is for the wire to know.
        (State.WAITING, "hint"): (State.WAITING, ["103"]),
        (State.STARTED, "hint"): (State.STARTED, ["103"]),
        (State.STREAMING, "hint"): (State.STREAMING, ["103"]),
        (State.TRAILERS, "hint"): (State.TRAILERS, ["103"]),
    }
    MESSAGES = {
        "start": START, "more": MORE, "last": LAST, "more trailers": MORE_TRAILERS, "trailers": TRAILERS, "hint": HINT,
    }

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
        with pytest.raises(UnexpectedMessage, match=r"http.response.body was sent after the response's body was comp"):
            reached(State.TRAILERS).send(LAST)


class TestStatesAndEvents:
    """The whole product: next state, what the stream was told, status, and whether the hub was told of the loss."""

    ANSWER = ["respond", "end"]
    NEXT: dict[tuple[State, str], tuple[State, list[str]]] = {
        (State.WAITING, "disconnected"): (State.GONE, []),
        (State.STARTED, "disconnected"): (State.GONE, []),
        (State.STREAMING, "disconnected"): (State.GONE, []),
        (State.TRAILERS, "disconnected"): (State.GONE, []),
        (State.TRAILERS, "request_failed"): (State.GONE, ["abort"]),
        (State.TRAILERS, "returned"): (State.GONE, ["abort"]),
        (State.TRAILERS, "raised"): (State.GONE, ["abort"]),
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


def meets_while_it_resumes(*steps: Any) -> Any:
    """What the wire has kept comes once the exchange resumes it."""

    def step(made: Made) -> None:
        made.stream.on_resume = lambda: [step(made) for step in steps]

    return step


class TestReceiving:
    test_of_events = traces({
        "no body is one empty event": ({}, ended, receives(request(b""))),
        "pieces come as they came and then an end": (
            {}, piece(b"ab"), piece(b"c"), ended, receives(request(b"ab", True), request(b"c")),
        ),
        "a piece comes before the end is known": (
            {}, piece(b"ab"), receives(request(b"ab", True)), waits, ended, receives(request(b"")),
        ),
        "after the last event it waits for the disconnect and repeats that": (
            {}, piece(b"a"), ended, receives(request(b"a")), waits, lost, receives(DISCONNECT, DISCONNECT),
        ),
        "a waiting receive is woken by the peer's leave": (
            {}, piece(b"ab"), ended, receives(request(b"ab")), listens, lost, is_told(DISCONNECT),
        ),
        "a waiting receive is woken by a failure of the request": (
            {}, piece(b"ab"), ended, receives(request(b"ab")), listens, failed(408), is_told(DISCONNECT),
        ),
        "a complete response gives a disconnect": ({}, START, LAST, receives(DISCONNECT)),
        "a complete response wakes a waiting receive": (
            {}, ended, receives(request(b"")), listens, START, LAST, is_told(DISCONNECT),
        ),
        "a complete body can be read after the peer has left": (
            {}, piece(b"ab"), piece(b"c"), ended, lost, is_listening(False),
            receives(request(b"ab", True), request(b"c"), DISCONNECT), is_listening(True),
        ),
        "an incomplete body is never made to look complete": ({}, piece(b"ab"), lost, receives(DISCONNECT)),
        "a broken body is never made to look complete": ({}, piece(b"ab"), failed(400), receives(DISCONNECT)),
        "an end that the wire meets while receive resumes it is told at once": (
            {}, meets_while_it_resumes(failed(400)), receives(DISCONNECT),
        ),
        "a piece that the wire has kept is delivered at once": (
            {}, meets_while_it_resumes(piece(b"ab"), ended), receives(request(b"ab")),
        ),
        "it listens while a receive waits and from the disconnect on": (
            {}, ended, receives(request(b"")), is_listening(False), listens, lost, is_told(DISCONNECT),
            is_listening(True),
        ),
    })  # fmt: skip


class TestPressure:
    SIZE = 1024

    test_of_the_peer = traces({
        "reading stops at the buffer's size and goes on at half of it": (
            {"request_buffer_size": SIZE}, piece(b"*" * 512), piece(b"*" * 511), reading, piece(b"*"), calls("pause"),
            receives(request(b"*" * 512, True)), reading, piece(b"*" * 512), calls("pause", "pause"),
        ),
        "a piece that is waited for does not stop the peer but the next one does": (
            {"request_buffer_size": SIZE}, listens, piece(b"1" * 2500), reading, piece(b"2"), stopped,
            is_told(request(b"1" * 2500, True)), reading, receives(request(b"2", True)),
        ),
        "more pieces after the pause do not pause again": (
            {"request_buffer_size": SIZE}, piece(b"*" * 1024), piece(b"*" * 1024), ended, calls("pause"),
        ),
    })  # fmt: skip

    def test_pieces_are_as_the_wire_gave_them(self) -> None:
        made, whole = Made(request_buffer_size=self.SIZE), b"*" * 2500
        made.upload(whole)
        assert made.receive()["body"] is whole

    def test_application_that_waits_for_a_body_asks_for_it(self) -> None:
        """The wire answers 100-continue then."""
        resumed: list[Made] = []
        play(Made(), meets_while_it_resumes(resumed.append), waits)
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
    test_of_a_response = traces({
        "a body that is too long leaves an unstarted response to be answered 500": (
            {}, LENGTHS[2], refused(MessageError, MORE, "1 bytes longer"), state(State.STARTED), done(failed=True),
            status(500),
        ),
        "a body that falls short is aborted and never ended": (
            {}, LENGTHS[9], MORE, refused(MessageError, LAST, "3 bytes short"), calls("respond", "abort"),
            state(State.GONE),
        ),
        "a piece that is too long may be followed by a right one": (
            {}, LENGTHS[6], MORE, refused(MessageError, MORE | {"body": b"defg"}), LAST, data(b"abcdef"),
            state(State.COMPLETE),
        ),
        "a start without a status leaves all as it was": (
            {}, refused(MessageError, {"type": "http.response.start"}), START, state(State.STARTED),
        ),
        "a start with a field of text leaves all as it was": (
            {}, refused(MessageError, START | {"headers": [("x", b"1")]}), START, state(State.STARTED),
        ),
    })  # fmt: skip


def closes(made: Made) -> None:
    assert made.stream.framing["close"]


def released(made: Made) -> None:
    made.exchange.release()


def trailers(*expected: tuple[bytes, bytes]) -> Any:
    """The stream was given these."""

    def look(made: Made) -> None:
        assert made.stream.trailers == list(expected)

    return look


def hints(*expected: bytes) -> Any:
    def look(made: Made) -> None:
        assert made.stream.hints == [(b"link", link) for link in expected]

    return look


def is_answered(expected: bool) -> Any:
    def look(made: Made) -> None:
        assert made.exchange.answered is expected

    return look


class TestTrailers:
    test_of_a_response = traces({
        "the last body does not end a response that promises them": (
            {}, PROMISE, MORE, LAST, calls("respond", "data"), state(State.TRAILERS), is_answered(False), TRAILERS,
            calls("respond", "data", "trailers", "end"), trailers((b"X-Sum", b"1")), is_answered(True),
        ),
        "several messages are one section": (
            {}, PROMISE, LAST, MORE_TRAILERS, MORE_TRAILERS, calls("respond"), TRAILERS,
            trailers((b"x-sum", b"2"), (b"x-sum", b"2"), (b"X-Sum", b"1")),
        ),
        "none at all is an end too": (
            {}, PROMISE, LAST, {"type": "http.response.trailers"}, trailers(), state(State.COMPLETE),
        ),
        "a response without a body ends with them": (
            {"method": "HEAD"}, PROMISE, LAST, calls("respond"), data(b""), TRAILERS, last_call("end"),
        ),
        "a short body is found before them": (
            {}, PROMISE | LENGTHS[9] | {"trailers": True}, MORE, refused(MessageError, LAST, "3 bytes short"),
            last_call("abort"),
        ),
        "a field that cannot be one leaves all as it was": (
            {}, PROMISE, LAST, refused(MessageError, TRAILERS | {"headers": [(b"Host", b"x")]}), TRAILERS,
            trailers((b"X-Sum", b"1")),
        ),
        "too many of them can still be ended": (
            {}, PROMISE, LAST, MORE_TRAILERS | {"headers": [(b"a", b"*" * 60_000)]},
            refused(MessageError, MORE_TRAILERS | {"headers": [(b"b", b"*" * 6_000)]}, "larger than 65536 bytes"),
            TRAILERS | {"headers": []}, trailers((b"a", b"*" * 60_000)),
        ),
        "a promise that is not kept is an incomplete response": (
            {}, PROMISE, LAST, is_answered(False), done(failed=False), calls("respond", "abort"), state(State.GONE),
        ),
    })  # fmt: skip

    def test_messages_without_fields_have_an_end_too(self) -> None:
        made = reached(State.TRAILERS)
        message = {"type": "http.response.trailers", "more_trailers": True}
        for _ in range(65536 // 32):
            made.send(message)
        with pytest.raises(MessageError, match="larger than"):
            made.send(message)


class TestEarlyHints:
    FIRST, SECOND = b"</a.css>; rel=preload", b"</b.js>; rel=preload"

    test_of_a_response = traces({
        "before the start and before the body": (
            {}, HINT, START, HINT | {"links": [b" </c> "]}, MORE, LAST, calls("103", "103", "respond", "data", "end"),
            hints(FIRST, SECOND, b"</c>"),
        ),
        "they are no answer": ({}, HINT, is_answered(False), done(failed=False), calls("103", "respond", "end")),
    })  # fmt: skip


class TestAge:
    test_of_an_exchange = traces({
        "a request without a response is answered 503": (
            {"http_timeout": 5}, after(4.9), calls(), after(0.1), status(503),
            closes, told_hub,
        ),
        "a begun response is cut off": ({"http_timeout": 5}, START, MORE, after(5), last_call("abort")),
        "a complete response has no age": (
            {"http_timeout": 5}, START, LAST, after(5, 5), calls("respond", "end"), released, no_timers,
        ),
        "a request whose peer has left has no age": (
            {"http_timeout": 5}, lost, after(5, 5), calls(), released, no_timers,
        ),
        "no timer without the setting": ({}, START, LAST, released, no_timers),
    })  # fmt: skip


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


def stopping(made: Made) -> None:
    made.hub.stopping = True


def ending(made: Made) -> None:
    """Half of the time for the stop is over."""
    made.hub.stopping = made.hub.ending = True


def server_stopping(made: Made) -> None:
    """Exchanges are told of either."""
    made.exchange.server_stopping()


async def still_waits(made: Made) -> None:
    await settle()
    assert made.waiting is not None
    assert not made.waiting.done()


def answered(expected: bool) -> Any:
    def look(made: Made) -> None:
        assert made.exchange.answered is expected

    return look


class TestStopping:
    """An application that listens is told to end a stream whose end nobody knows."""

    ASKED = (ended, receives(request(b"")))

    test_of_an_application = traces({
        "who waits is told when the end is near": (
            {}, *ASKED, START, listens, stopping, server_stopping, still_waits, ending, server_stopping,
            is_told(DISCONNECT), receives(DISCONNECT),
        ),
        "who waits in mid-response is told when the end is near": (
            {}, *ASKED, START, MORE, listens, stopping, server_stopping, still_waits, ending, server_stopping,
            is_told(DISCONNECT), receives(DISCONNECT),
        ),
        "a response that has not begun may run to its end": ({}, *ASKED, ending, waits, answered(False)),
        "a response with a length may run to its end": ({}, *ASKED, LENGTHS[6], ending, waits, answered(False)),
        "and in its middle, too": ({}, *ASKED, LENGTHS[6], MORE, ending, waits, answered(False)),
        "a body that still comes is received first": (
            {"method": "POST"}, piece(b"a"), START, MORE, ending, receives(request(b"a", True)), waits, piece(b"b"),
            ended, receives(request(b"b"), DISCONNECT),
        ),
        "who was told may end the response in order": (
            {}, *ASKED, START, MORE, ending, receives(DISCONNECT), MORE, LAST, state(State.COMPLETE),
            data(b"abcabcdef"), last_call("end"),
        ),
    })  # fmt: skip

    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize(("messages", "failed", "status", "called"), [
        ((START, MORE), False, 200, ["respond", "abort"]),
        ((START, MORE), True, 200, ["respond", "abort"]),
        ((START,), False, 503, ["respond", "end"]),
        ((START,), True, 500, ["respond", "end"]),
    ])  # fmt: skip
    def test_who_leaves_a_stream_is_not_at_fault_but_it_does_not_look_complete(
        self, told: bool, messages: Any, failed: bool, status: int, called: list[str]
    ) -> None:
        """An application may also have learned otherwise that the server stops."""
        end = (ending, receives(DISCONNECT)) if told else (stopping,)
        made = play(Made(), *self.ASKED, *messages, *end, answered(True), done(failed=failed), calls(*called))
        assert made.exchange.status == status

    def test_who_asks_again_and_again_lets_others_run(self) -> None:
        async def main() -> None:
            made = Made()
            made.upload()
            for message in (START, MORE):
                made.send(message)
            made.hub.stopping = made.hub.ending = True
            assert made.receive() == request(b"")
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
