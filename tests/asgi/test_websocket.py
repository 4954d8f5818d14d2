"""A WebSocket exchange without wire and frames: every state against every reply and event, inbox, deadlines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.deadlines import Deadline
from asgiserver.asgi.exchange import State
from asgiserver.asgi.scope import Request, ScopeBuilder
from asgiserver.asgi.websocket import MESSAGE_OVERHEAD, WebSocketExchange
from asgiserver.errors import MessageError, RequestError, UnexpectedMessage
from asgiserver.settings import Settings
from tests.asgi.test_scope import ADDRESSES
from tests.fakes import CLIENT, Clock, FakeFrames, FakeHub, FakeStream, at_once, settle, would_wait

ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "h\xe9"}
BYTES = {"type": "websocket.send", "bytes": b"\0"}
CLOSE = {"type": "websocket.close", "code": 4001, "reason": "enough"}
DENIAL_START = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"X", b"1")]}
DENIAL_MORE = {"type": "websocket.http.response.body", "body": b"abc", "more_body": True}
DENIAL_LAST = {"type": "websocket.http.response.body", "body": b"def"}
CONNECT = {"type": "websocket.connect"}


class Made:
    """An exchange with what stands around it."""

    def __init__(self, *, subprotocols: tuple[str, ...] = (), logs_actions: bool = True, **settings: Any) -> None:
        self.clock = Clock()
        self.stream = FakeStream()
        self.hub = FakeHub(logs_actions=logs_actions)
        self.engines: list[FakeFrames] = []
        scope = ScopeBuilder("", None, None).websocket(Request("GET", b"/ws?a", []), ADDRESSES, list(subprotocols))
        self.exchange = WebSocketExchange(
            scope, self.stream, self.hub, Settings(**settings), self.clock, self._answer, self._frames
        )

    @staticmethod
    def _answer(subprotocol: str | None) -> list[tuple[bytes, bytes]]:
        return [(b"upgrade", b"websocket"), (b"chosen", str(subprotocol).encode())]

    def _frames(self, exchange: WebSocketExchange) -> FakeFrames:
        self.engines.append(FakeFrames(exchange))
        return self.engines[-1]

    @property
    def engine(self) -> FakeFrames:
        (engine,) = self.engines
        return engine

    def send(self, message: dict[str, Any]) -> None:
        self.exchange.take_reply(self.exchange.parse(message))

    def receive(self) -> dict[str, Any]:
        return dict(at_once(self.exchange.receive()))

    def lose(self) -> None:
        self.stream.lost = True
        self.exchange.disconnected()

    def logged(self) -> list[str]:
        return [action for _, action, _ in self.hub.actions]


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


REACHED: dict[State, Callable[[Made], object]] = {
    State.WAITING: lambda made: None,
    State.STARTED: lambda made: made.send(DENIAL_START),
    State.STREAMING: lambda made: (made.send(DENIAL_START), made.send(DENIAL_MORE)),
    State.OPEN: lambda made: made.send(ACCEPT),
    State.CLOSING: lambda made: (made.send(ACCEPT), made.send(CLOSE)),
    State.COMPLETE: lambda made: made.send(CLOSE),
    State.GONE: lambda made: made.lose(),
}
EVENTS: dict[str, Callable[[Made], object]] = {
    "disconnected": lambda made: made.lose(),
    "request_failed": lambda made: made.exchange.request_failed(RequestError(503, "Stopping.")),
    "returned": lambda made: made.exchange.application_done(failed=False),
    "raised": lambda made: made.exchange.application_done(failed=True),
    "server_stopping": lambda made: made.exchange.server_stopping(),
    "writable": lambda made: made.exchange.writable(),
    "body_ended": lambda made: made.exchange.body_ended(),
    "message": lambda made: made.exchange.message_received("x"),
    "pong": lambda made: made.exchange.pong_received(b""),
}


def reached(state: State, **made_with: Any) -> Made:
    made = Made(**made_with)
    REACHED[state](made)
    assert made.exchange.state is state
    if state not in (State.COMPLETE, State.GONE):
        made.stream.calls.clear()
    return made


ANSWER = ["respond", "end"]


class TestStatesAndReplies:
    """The whole product; a pair that has no next state is the application's mistake."""

    MESSAGES = {
        "accept": ACCEPT, "text": TEXT, "bytes": BYTES, "close": CLOSE, "denial start": DENIAL_START,
        "denial more": DENIAL_MORE, "denial last": DENIAL_LAST,
    }
    NEXT = {
        (State.WAITING, "accept"): (State.OPEN, ["switch"]),
        (State.WAITING, "close"): (State.COMPLETE, ANSWER),
        (State.WAITING, "denial start"): (State.STARTED, []),
        (State.STARTED, "denial more"): (State.STREAMING, ["respond"]),
        (State.STARTED, "denial last"): (State.COMPLETE, ANSWER),
        (State.STREAMING, "denial more"): (State.STREAMING, ["data"]),
        (State.STREAMING, "denial last"): (State.COMPLETE, ["data", "end"]),
        (State.OPEN, "text"): (State.OPEN, ["data"]),
        (State.OPEN, "bytes"): (State.OPEN, ["data"]),
        (State.OPEN, "close"): (State.CLOSING, ["data"]),
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

    @pytest.mark.parametrize("name", ["text", "bytes", "close"])
    def test_what_a_listening_application_sends_after_its_close_is_dropped(self, name: str) -> None:
        """It will hear of the end by its receive(), as it would had the peer closed; Daphne drops it too."""
        made = reached(State.CLOSING)
        made.receive()
        assert would_wait(made.exchange.receive)
        made.send(self.MESSAGES[name])
        assert (made.exchange.state, made.stream.calls) == (State.CLOSING, [])


#: What no close frame may have.
UNSENDABLE: list[dict[str, Any]] = [
    *({"code": code} for code in (0, 403, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536, -1, True, 1000.0, "1000")),
    *({"reason": reason} for reason in (b"bytes", 5, ["path", "item"], {"detail": "x"}, "\udfff")),
    {"code": 403, "reason": [{"loc": ["path", "id"]}]},
]


class TestUnsendableClose:
    """A code or a reason that no close frame may have is an error where a close frame would have it."""

    @pytest.mark.parametrize("keys", [*UNSENDABLE, {"reason": "x" * 500}, {"code": None, "reason": None, "why": 1}])
    def test_before_the_accept_it_is_a_403_that_has_neither(self, keys: dict[str, Any]) -> None:
        made = Made()
        made.send({"type": "websocket.close"} | keys)
        assert (made.exchange.state, made.stream.status, made.stream.data) == (State.COMPLETE, 403, b"Forbidden\n")
        assert [made.receive(), made.receive()] == [CONNECT, disconnect(1006)]

    @pytest.mark.parametrize("keys", UNSENDABLE)
    def test_after_the_accept_it_is_refused_and_the_next_try_may_succeed(self, keys: dict[str, Any]) -> None:
        made = reached(State.OPEN)
        with pytest.raises(MessageError, match=r"websocket\.close: \"(code|reason)\""):
            made.send({"type": "websocket.close"} | keys)
        assert (made.exchange.state, made.engine.sent) == (State.OPEN, [])
        made.send(CLOSE)
        assert made.engine.sent == [("close", 4001, "enough")]

    @pytest.mark.parametrize("state", [State.STARTED, State.STREAMING, State.CLOSING, State.COMPLETE])
    def test_elsewhere_it_is_as_wrong_as_any_other_close(self, state: State) -> None:
        made = reached(state)
        with pytest.raises(UnexpectedMessage):
            made.send({"type": "websocket.close", "code": 403})
        assert made.exchange.state is state


class TestStatesAndEvents:
    """The whole product: the next state and what the stream was told."""

    NEXT: dict[tuple[State, str], tuple[State, list[str]]] = {
        (State.WAITING, "disconnected"): (State.GONE, []),
        (State.WAITING, "request_failed"): (State.GONE, ANSWER),
        (State.WAITING, "server_stopping"): (State.GONE, ANSWER),
        (State.WAITING, "returned"): (State.COMPLETE, ANSWER),
        (State.WAITING, "raised"): (State.COMPLETE, ANSWER),
        (State.STARTED, "disconnected"): (State.GONE, []),
        (State.STARTED, "request_failed"): (State.GONE, ANSWER),
        (State.STARTED, "returned"): (State.COMPLETE, ANSWER),
        (State.STARTED, "raised"): (State.COMPLETE, ANSWER),
        (State.STREAMING, "disconnected"): (State.GONE, []),
        (State.STREAMING, "request_failed"): (State.GONE, ["abort"]),
        (State.STREAMING, "returned"): (State.GONE, ["abort"]),
        (State.STREAMING, "raised"): (State.GONE, ["abort"]),
        (State.OPEN, "disconnected"): (State.GONE, []),
        (State.OPEN, "request_failed"): (State.GONE, ["abort"]),
        (State.OPEN, "returned"): (State.CLOSING, ["data"]),
        (State.OPEN, "raised"): (State.CLOSING, ["data"]),
        (State.OPEN, "server_stopping"): (State.GONE, ["data"]),
        (State.CLOSING, "disconnected"): (State.GONE, []),
        (State.CLOSING, "request_failed"): (State.GONE, ["abort"]),
    }

    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize("state", REACHED)
    def test_event(self, state: State, event: str) -> None:
        made = reached(state)
        before, told = list(made.stream.calls), len(made.hub.gone)
        EVENTS[event](made)
        next_state, calls = self.NEXT.get((state, event), (state, before))
        assert (made.exchange.state, made.stream.calls) == (next_state, calls)
        assert len(made.hub.gone) - told == (next_state is State.GONE and state is not State.GONE)

    @pytest.mark.parametrize("state", REACHED)
    def test_it_is_told_and_logged_once_only_whatever_comes_afterwards(self, state: State) -> None:
        made = reached(state)
        made.lose()
        for event in EVENTS.values():
            event(made)
        assert len(made.hub.gone) == (state is not State.COMPLETE)
        last = "rejected" if state in (State.STREAMING, State.COMPLETE) else "disconnected"
        first = ["connecting", "connected"] if state in (State.OPEN, State.CLOSING) else ["connecting"]
        assert made.logged() == [*first, last]

    @pytest.mark.parametrize("state", REACHED)
    def test_no_timer_outlives_connection_and_application(self, state: State) -> None:
        made = reached(state)
        made.lose()
        made.exchange.release()
        assert made.clock.getDelayedCalls() == []

    @pytest.mark.parametrize(("event", "status", "close"), [("request_failed", 503, True), ("raised", 500, False)])
    @pytest.mark.parametrize("state", [State.WAITING, State.STARTED])
    def test_answer_in_the_applications_place(self, state: State, event: str, status: int, close: bool) -> None:
        made = reached(state)
        EVENTS[event](made)
        assert (made.stream.status, made.stream.framing["close"]) == (status, close)
        assert (b"X", b"1") not in made.stream.headers

    @pytest.mark.parametrize(("event", "close"), [
        ("returned", ("close", 1000, "")),
        ("raised", ("close", 1011, "internal error")),
        ("server_stopping", ("close", 1012, "service restart")),
    ])  # fmt: skip
    def test_close_frame_says_why(self, event: str, close: tuple[object, ...]) -> None:
        made = reached(State.OPEN)
        EVENTS[event](made)
        assert made.engine.sent == [close]


class TestAccepting:
    def test_answer_has_the_fields_of_the_handshake_and_of_the_application(self) -> None:
        made = Made()
        made.send(ACCEPT | {"headers": [(b"Set-Cookie", b"a"), (b"set-cookie", b"b")]})
        assert made.stream.headers == [
            (b"upgrade", b"websocket"), (b"chosen", b"None"), (b"Set-Cookie", b"a"), (b"set-cookie", b"b"),
        ]  # fmt: skip

    def test_offered_subprotocol_can_be_chosen(self) -> None:
        made = Made(subprotocols=("a", "b"))
        made.send(ACCEPT | {"subprotocol": "b"})
        assert (b"chosen", b"b") in made.stream.headers

    @pytest.mark.parametrize(("offered", "shown"), [(("a", "b"), "(a, b)"), ((), "(none)")])
    def test_other_subprotocol_is_refused_and_the_next_try_may_succeed(
        self, offered: tuple[str, ...], shown: str
    ) -> None:
        made = Made(subprotocols=offered)
        with pytest.raises(MessageError) as caught:
            made.send(ACCEPT | {"subprotocol": "c"})
        assert shown in str(caught.value)
        assert made.stream.calls == []
        made.send(ACCEPT)
        assert made.stream.calls == ["switch"]

    def test_bytes_that_came_with_the_handshake_find_the_engine_ready(self) -> None:
        made = Made()
        switch = made.stream.switch

        def switch_and_deliver(headers: Any, names: Any) -> None:
            switch(headers, names)
            made.exchange.body_received(b"early")

        made.stream.switch = switch_and_deliver  # type: ignore[method-assign]
        made.send(ACCEPT)
        assert made.engine.received == b"early"

    def test_close_before_accepting_is_403(self) -> None:
        made = reached(State.COMPLETE)
        assert made.stream.status == 403
        assert made.receive() == CONNECT
        assert made.receive() == disconnect(1006)


class TestDenying:
    def test_in_one_message(self) -> None:
        made = reached(State.STARTED)
        made.send(DENIAL_LAST | {"body": b"\xff"})
        assert (made.stream.status, made.stream.data) == (401, b"\xff")
        assert (b"X", b"1") in made.stream.headers
        assert made.logged() == ["connecting", "rejected"]
        assert made.hub.actions[1][2]["status"] == 401

    def test_in_several_messages(self) -> None:
        made = reached(State.STREAMING)
        made.send(DENIAL_MORE)
        made.send(DENIAL_LAST)
        assert made.stream.data == b"abcabcdef"
        assert made.exchange.state is State.COMPLETE

    def test_that_ends_short_of_its_length_is_aborted(self) -> None:
        made = Made()
        made.send(DENIAL_START | {"headers": [(b"content-length", b"9")]})
        made.send(DENIAL_MORE)
        with pytest.raises(MessageError, match="3 bytes short"):
            made.send(DENIAL_LAST)
        assert made.stream.calls == ["respond", "abort"]

    def test_that_is_too_long_from_the_start_can_still_be_answered_500(self) -> None:
        made = Made()
        made.send(DENIAL_START | {"headers": [(b"content-length", b"1")]})
        with pytest.raises(MessageError):
            made.send(DENIAL_LAST)
        EVENTS["raised"](made)
        assert made.stream.status == 500

    def test_that_takes_longer_than_an_accept_may_is_not_cut_off(self) -> None:
        made = reached(State.STREAMING, websocket_connect_timeout=5)
        made.clock.advance(6)
        made.send(DENIAL_LAST)
        assert made.stream.calls == ["data", "end"]


class TestInbox:
    def test_first_event_is_connect_even_when_the_peer_has_left(self) -> None:
        made = reached(State.GONE)
        assert [made.receive(), made.receive()] == [CONNECT, disconnect(1006)]

    def test_messages_keep_type_order_and_emptiness(self) -> None:
        made = reached(State.OPEN)
        made.receive()
        for payload in ("a", b"a", "", b""):
            made.exchange.message_received(payload)
        assert [made.receive() for _ in range(4)] == [
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "bytes": b"a"},
            {"type": "websocket.receive", "text": ""},
            {"type": "websocket.receive", "bytes": b""},
        ]

    def test_messages_before_the_end_can_still_be_read(self) -> None:
        made = reached(State.OPEN)
        made.receive()
        made.exchange.message_received("last")
        made.exchange.close_received(1001, "leaving")
        assert [made.receive()["text"], made.receive()] == ["last", disconnect(1001, "leaving")]

    def test_message_after_the_applications_close_is_dropped(self) -> None:
        made = reached(State.CLOSING)
        made.receive()
        made.exchange.message_received("late")
        assert would_wait(made.exchange.receive)

    def test_waiting_receive_is_woken_by_a_message_and_by_the_end(self) -> None:
        async def main() -> None:
            made = reached(State.OPEN)
            await made.exchange.receive()
            task = asyncio.ensure_future(made.exchange.receive())
            await settle()
            made.exchange.message_received("x")
            assert (await task)["text"] == "x"
            task = asyncio.ensure_future(made.exchange.receive())
            await settle()
            made.lose()
            assert await task == disconnect(1006)

        asyncio.run(main())

    def test_it_listens_from_the_first_receive_after_it_accepted(self) -> None:
        made = Made()
        made.receive()
        assert not made.exchange.listening
        made.send(ACCEPT)
        assert not made.exchange.listening
        made.exchange.message_received("x")
        made.receive()
        assert made.exchange.listening

    def test_receive_that_gave_connect_after_the_accept_does_not_count_as_listening(self) -> None:
        made = reached(State.OPEN)
        assert made.receive() == CONNECT
        assert not made.exchange.listening


class TestPressure:
    SIZE = 1024
    ROOM = SIZE // MESSAGE_OVERHEAD

    def opened(self) -> Made:
        made = reached(State.OPEN, request_buffer_size=self.SIZE)
        made.receive()
        return made

    def test_full_inbox_stops_wire_and_engine_until_half_of_it_is_read(self) -> None:
        made = self.opened()
        for _ in range(self.ROOM):
            assert not made.exchange.full
            made.exchange.message_received("")
        assert made.exchange.full
        assert not made.stream.reading
        for _ in range(self.ROOM // 2 - 1):
            made.receive()
        assert (made.exchange.full, made.engine.resumed) == (True, 0)
        made.receive()
        assert (made.exchange.full, made.engine.resumed, made.stream.reading) == (False, 1, True)

    def test_wire_stays_stopped_while_what_the_engine_kept_fills_the_inbox_again(self) -> None:
        made = self.opened()
        made.exchange.message_received("*" * self.SIZE)
        made.engine.resume = lambda: made.exchange.message_received("+" * self.SIZE)  # type: ignore[method-assign]
        assert made.receive()["text"][0] == "*"
        assert made.exchange.full
        assert not made.stream.reading
        made.engine.resume = lambda: None  # type: ignore[method-assign]
        assert made.receive()["text"][0] == "+"
        assert made.stream.reading

    def test_closing_makes_room_so_that_the_peers_close_frame_is_found(self) -> None:
        made = self.opened()
        made.exchange.message_received("*" * self.SIZE)
        made.send(CLOSE)
        assert (made.exchange.full, made.engine.resumed, made.stream.reading) == (False, 1, True)
        assert made.receive()["text"][0] == "*"

    def test_lost_exchange_does_not_touch_its_stream_when_its_inbox_is_read(self) -> None:
        made = self.opened()
        made.exchange.message_received("*" * self.SIZE)
        made.lose()
        assert made.receive()["text"][0] == "*"
        assert made.receive() == disconnect(1006)
        assert not made.stream.reading

    def test_engine_is_told_when_the_peer_takes_data_again(self) -> None:
        made = self.opened()
        made.stream.slow = True
        assert made.exchange.slow
        made.exchange.writable()
        assert made.engine.resumed == 1

    def test_nothing_is_resumed_before_there_is_an_engine(self) -> None:
        made = Made()
        made.exchange.writable()
        assert made.engines == []

    @given(st.lists(st.one_of(st.text(max_size=800), st.binary(max_size=800), st.none()), max_size=40))
    def test_messages_come_as_they_were_sent_whatever_the_order(self, steps: list[str | bytes | None]) -> None:
        made = self.opened()
        sent = [step for step in steps if step is not None]
        read: list[str | bytes] = []
        waiting = 0

        def take() -> None:
            event = made.receive()
            read.append(event["text"] if "text" in event else event["bytes"])

        for step in steps:
            if step is not None:
                made.exchange.message_received(step)
                waiting += 1
            elif waiting:
                take()
                waiting -= 1
            assert made.stream.reading is not made.exchange.full
        for _ in range(waiting):
            take()
        assert read == sent
        assert made.stream.reading


class TestClosing:
    @pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (1001, ""), (1005, ""), (4005, "h\xe9")])
    def test_peers_close_ends_the_application_with_its_code(self, code: int, reason: str) -> None:
        made = reached(State.OPEN)
        made.receive()
        made.exchange.close_received(code, reason)
        assert made.stream.calls == ["close"]
        assert made.receive() == disconnect(code, reason)
        assert made.hub.gone == [made.exchange]

    def test_lost_connection_is_1006(self) -> None:
        made = reached(State.OPEN)
        made.receive()
        made.lose()
        assert made.receive() == disconnect(1006)

    @pytest.mark.parametrize("state", [State.OPEN, State.CLOSING])
    def test_engine_is_abandoned_with_the_connection(self, state: State) -> None:
        made = reached(state)
        made.lose()
        assert made.engine.abandoned

    def test_broken_protocol_ends_the_application_with_the_code_that_was_sent(self) -> None:
        made = reached(State.OPEN)
        made.receive()
        made.exchange.failed(1007, "not UTF-8")
        assert made.stream.calls == ["close"]
        assert made.receive() == disconnect(1007, "not UTF-8")

    @pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 3000, 4999])
    def test_applications_code_and_reason_are_sent(self, code: int) -> None:
        made = reached(State.OPEN)
        made.send({"type": "websocket.close", "code": code, "reason": "so"})
        assert made.engine.sent == [("close", code, "so")]

    def test_peers_answer_to_the_applications_close_gives_the_applications_code(self) -> None:
        made = reached(State.CLOSING)
        made.receive()
        made.exchange.close_received(1000, "")
        assert made.receive() == disconnect(4001, "enough")
        assert made.stream.calls == ["close"]

    def test_broken_protocol_after_the_applications_close_gives_the_applications_code(self) -> None:
        made = reached(State.CLOSING)
        made.receive()
        made.exchange.failed(1002, "no such opcode")
        assert made.receive() == disconnect(4001, "enough")
        assert made.stream.calls == ["close"]

    @pytest.mark.parametrize("state", [State.OPEN, State.CLOSING])
    def test_close_frame_is_awaited_for_a_while_then_the_connection_is_dropped(self, state: State) -> None:
        made = reached(state, websocket_close_timeout=3)
        made.receive()
        if state is State.OPEN:
            EVENTS["server_stopping"](made)
        made.stream.calls.clear()
        made.clock.advance(2.9)
        assert made.stream.calls == []
        made.clock.advance(0.1)
        # Not aborted: what was sent before may still be on its way to a slow peer, for which close_timeout is there.
        assert made.stream.calls == ["close"]
        assert made.receive()["code"] == (1012 if state is State.OPEN else 4001)
        assert made.clock.getDelayedCalls() == []

    def test_answered_close_leaves_no_deadline(self) -> None:
        made = reached(State.CLOSING)
        made.exchange.close_received(1000, "")
        made.lose()
        assert made.clock.getDelayedCalls() == []
        assert made.stream.calls == ["close"]

    def test_application_hears_of_the_servers_close_at_once(self) -> None:
        made = reached(State.OPEN)
        made.receive()
        EVENTS["server_stopping"](made)
        assert made.receive() == disconnect(1012, "service restart")
        made.exchange.close_received(1012, "")
        assert made.stream.calls == ["data", "close"]
        assert len(made.hub.gone) == 1

    def test_failure_in_the_closing_handshake_only_closes(self) -> None:
        made = reached(State.OPEN)
        EVENTS["server_stopping"](made)
        made.exchange.failed(1002, "")
        made.receive()
        assert made.receive() == disconnect(1012, "service restart")
        assert made.stream.calls == ["data", "close"]


class TestDeadlines:
    def test_handshake_that_is_not_answered_is_503(self) -> None:
        made = Made(websocket_connect_timeout=5)
        made.clock.advance(5)
        assert (made.stream.status, made.exchange.state) == (503, State.GONE)
        assert made.logged() == ["connecting", "rejected"]

    @pytest.mark.parametrize("off", [-1, 0, None])
    def test_handshake_may_take_for_ever(self, off: int | None) -> None:
        made = Made(websocket_connect_timeout=off)
        made.clock.advance(1e9)
        assert made.stream.calls == []

    def test_accepted_websocket_has_no_handshake_deadline(self) -> None:
        made = reached(State.OPEN, websocket_connect_timeout=5, ping_interval=None)
        made.clock.advance(5)
        assert made.stream.calls == []

    def test_life_time_ends_with_1001(self) -> None:
        made = reached(State.OPEN, websocket_timeout=60, ping_interval=None)
        made.receive()
        made.clock.advance(60)
        assert made.engine.sent == [("close", 1001, "time limit")]
        assert made.receive() == disconnect(1001, "time limit")

    def test_life_may_be_infinite(self) -> None:
        made = reached(State.OPEN, websocket_timeout=-1, ping_interval=None)
        made.clock.advance(1e9)
        assert made.engine.sent == []

    def test_silent_peer_is_pinged_and_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        made = reached(State.OPEN, ping_interval=20, ping_timeout=30)
        made.receive()
        made.clock.advance(19.9)
        assert made.engine.sent == []
        made.clock.advance(0.1)
        ((kind, payload),) = made.engine.sent
        assert (kind, len(payload)) == ("ping", 8)
        made.clock.advance(20)
        assert len(made.engine.sent) == 1
        assert caplog.messages == []
        made.clock.advance(10)
        assert made.stream.calls[-1] == "abort"
        assert made.receive() == disconnect(1006, "ping timeout")
        assert caplog.messages == ["Dropped WEBSOCKET '/ws', which answered no ping for 30 seconds"]

    def test_any_byte_is_a_sign_of_life(self) -> None:
        made = reached(State.OPEN, ping_interval=20, ping_timeout=30)
        made.clock.advance(20)
        made.clock.advance(10)
        made.exchange.body_received(b"p")
        made.clock.advance(10)
        made.clock.advance(10)
        assert [kind for kind, _ in made.engine.sent] == ["ping", "ping"]
        made.clock.advance(10)
        assert "abort" not in made.stream.calls
        made.clock.advance(20)
        assert made.stream.calls[-1] == "abort"

    def test_what_is_awaited_of_a_peer(self) -> None:
        """A ping, then its pong; any byte is as good as a pong and moves the next ping, until one side closes."""
        made = reached(State.OPEN, ping_interval=20, ping_timeout=30, websocket_timeout=1000)

        def pending() -> set[Deadline]:
            return {kind for kind in Deadline if made.exchange.deadlines.pending(kind)}

        always = {Deadline.PING, Deadline.LIFETIME}
        assert pending() == always
        made.clock.advance(20)
        assert (pending(), [kind for kind, _ in made.engine.sent]) == (always, ["ping"])
        made.exchange.body_received(b"p")
        assert pending() == always
        made.send(CLOSE)
        made.exchange.body_received(b"p")
        assert pending() == {Deadline.LIFETIME, Deadline.CLOSE}
        made.exchange.close_received(1000, "")
        assert pending() == set()

    def test_talking_peer_is_not_pinged(self) -> None:
        made = reached(State.OPEN, ping_interval=20)
        for _ in range(10):
            made.clock.advance(15)
            made.exchange.body_received(b"x")
        assert made.engine.sent == []

    def test_no_ping_without_an_interval(self) -> None:
        made = reached(State.OPEN, ping_interval=0, websocket_timeout=None)
        made.clock.advance(1e6)
        assert made.engine.sent == []

    def test_without_a_ping_timeout_the_peer_is_pinged_on_and_on(self) -> None:
        made = reached(State.OPEN, ping_interval=20, ping_timeout=0)
        for _ in range(5):
            made.clock.advance(20)
        assert [kind for kind, _ in made.engine.sent] == ["ping"] * 5
        assert "abort" not in made.stream.calls

    def test_peer_is_not_blamed_while_the_application_does_not_read(self) -> None:
        made = reached(State.OPEN, ping_interval=20, ping_timeout=30, request_buffer_size=1024)
        made.exchange.message_received("*" * 2000)
        made.clock.advance(20)
        made.clock.advance(30)
        made.clock.advance(30)
        assert "abort" not in made.stream.calls

    def test_peer_that_is_slow_to_take_a_message_is_not_pinged_behind_it(self) -> None:
        made = reached(State.OPEN, ping_interval=20, ping_timeout=30)
        made.stream.slow = True
        for _ in range(10):
            made.clock.advance(20)
        assert made.engine.sent == []
        made.stream.slow = False
        made.clock.advance(20)
        assert [kind for kind, _ in made.engine.sent] == ["ping"]
        made.stream.slow = True
        for _ in range(3):
            made.clock.advance(10)
        assert "abort" not in made.stream.calls
        made.stream.slow = False
        for _ in range(6):
            made.clock.advance(10)
        assert made.stream.calls[-1] == "abort"

    def test_peer_that_reads_on_towards_the_ping_is_not_blamed(self) -> None:
        """The kernel may keep much of what was sent before the ping."""
        made = reached(State.OPEN, ping_interval=20, ping_timeout=30)
        for made.stream.pending in range(1_000_000, 500_000, -10_000):
            made.clock.advance(5)
        assert "abort" not in made.stream.calls
        for _ in range(12):
            made.clock.advance(5)
        assert made.stream.calls[-1] == "abort"

    def test_peer_that_died_while_the_application_did_not_read_is_found_later(self) -> None:
        made = reached(State.OPEN, ping_interval=20, ping_timeout=30, request_buffer_size=1024)
        made.receive()
        made.exchange.message_received("*" * 2000)
        for _ in range(4):
            made.clock.advance(20)
        made.receive()
        for _ in range(10):
            made.clock.advance(5)
        assert made.stream.calls[-1] == "abort"

    @pytest.mark.parametrize("end", [CLOSE, None])
    def test_no_ping_after_the_end(self, end: dict[str, Any] | None) -> None:
        made = reached(State.OPEN, ping_interval=20, websocket_close_timeout=1000)
        if end is not None:
            made.send(end)
        else:
            made.exchange.close_received(1000, "")
        made.clock.advance(100)
        assert "ping" not in [sent[0] for sent in made.engine.sent]


class TestActions:
    def test_life_of_a_websocket_is_logged_as_daphne_logs_it(self) -> None:
        made = reached(State.OPEN)
        made.exchange.body_received(b"12345")
        made.clock.advance(0.5)
        made.send(TEXT)
        made.exchange.close_received(1001, "")
        common = {
            "path": "/ws?a",
            "client": "{}:{}".format(*CLIENT),
            "http_version": "1.1",
            "scheme": "ws",
            "headers": [],
        }
        assert made.hub.actions == [
            ("websocket", "connecting", common),
            ("websocket", "connected", common),
            ("websocket", "disconnected", common | {"code": 1001, "time_taken": 0.5, "size": 5, "request_size": 5}),
        ]

    def test_nothing_is_collected_when_nobody_wants_it(self) -> None:
        made = reached(State.COMPLETE, logs_actions=False)
        assert made.hub.actions == []
