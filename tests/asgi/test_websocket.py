"""A WebSocket exchange without wire and frames: every state against every reply and event, inbox, deadlines."""

from __future__ import annotations

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
from tests.asgi import traces as trace
from tests.asgi.test_scope import ADDRESSES
from tests.asgi.traces import (
    after,
    calls,
    data,
    done,
    is_listening,
    is_told,
    last_call,
    listens,
    lost,
    no_call,
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
)
from tests.fakes import CLIENT, FakeFrames, would_wait

ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "h\xe9"}
BYTES = {"type": "websocket.send", "bytes": b"\0"}
CLOSE = {"type": "websocket.close", "code": 4001, "reason": "enough"}
DENIAL_START = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"X", b"1")]}
DENIAL_MORE = {"type": "websocket.http.response.body", "body": b"abc", "more_body": True}
DENIAL_LAST = {"type": "websocket.http.response.body", "body": b"def"}
CONNECT = {"type": "websocket.connect"}


class Made(trace.Made):
    def __init__(self, *, subprotocols: tuple[str, ...] = (), logs_actions: bool = True, **settings: Any) -> None:
        super().__init__(logs_actions=logs_actions)
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

    def logged(self) -> list[str]:
        return [action for _, action, _ in self.hub.actions]


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def event(payload: str | bytes) -> dict[str, Any]:
    return {"type": "websocket.receive", "text" if isinstance(payload, str) else "bytes": payload}


def traces(rows: dict[str, tuple[Any, ...]]) -> Callable[..., None]:
    return trace.traces(Made, rows)


# Steps of traces that only WebSockets have.


def message(payload: str | bytes) -> Any:
    """The peer has sent one."""
    return lambda made: made.exchange.message_received(payload)


def peer_closes(code: int, reason: str = "") -> Any:
    return lambda made: made.exchange.close_received(code, reason)


def breaks(code: int, reason: str = "") -> Any:
    """The peer breaks the protocol, for which the engine sends this."""
    return lambda made: made.exchange.failed(code, reason)


def server_stopping(made: Made) -> None:
    made.exchange.server_stopping()


def slow(value: bool) -> Any:
    """The peer takes nothing, or takes data again."""
    return lambda made: setattr(made.stream, "slow", value)


def is_slow(made: Made) -> None:
    assert made.exchange.slow


def writable(made: Made) -> None:
    made.exchange.writable()


def no_engine(made: Made) -> None:
    assert made.engines == []


def pending(size: int) -> Any:
    """So much of what was sent waits for the peer."""
    return lambda made: setattr(made.stream, "pending", size)


def frames(*expected: tuple[object, ...]) -> Any:
    """All frames until now."""

    def look(made: Made) -> None:
        assert made.engine.sent == list(expected)

    return look


def pings(count: int) -> Any:
    """All frames until now are so many pings."""

    def look(made: Made) -> None:
        assert [kind for kind, *_ in made.engine.sent] == ["ping"] * count

    return look


def keeps(*payloads: str) -> Any:
    """What the engine has kept, and gives on once it is resumed."""

    def step(made: Made) -> None:
        made.engine.resume = lambda: [made.exchange.message_received(each) for each in payloads]

    return step


def inbox(*, full: bool, resumed: int) -> Any:
    """Whether the inbox is full and has stopped the peer, and how often the engine was asked to go on."""

    def look(made: Made) -> None:
        assert (made.exchange.full, made.stream.reading, made.engine.resumed) == (full, not full, resumed)

    return look


def awaits(*kinds: Deadline) -> Any:
    """All that is awaited of the peer."""

    def look(made: Made) -> None:
        assert {kind for kind in Deadline if made.exchange.deadlines.pending(kind)} == set(kinds)

    return look


def logged(*actions: str) -> Any:
    def look(made: Made) -> None:
        assert made.logged() == list(actions)

    return look


def logged_status(expected: int) -> Any:
    def look(made: Made) -> None:
        assert made.hub.actions[-1][2]["status"] == expected

    return look


#: The application has taken the connect event and accepts.
OPENED = (receives(CONNECT), ACCEPT)


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


DENIAL_9 = DENIAL_START | {"headers": [(b"content-length", b"9")]}
DENIAL_1 = DENIAL_START | {"headers": [(b"content-length", b"1")]}


def has_field(made: Made) -> None:
    assert (b"X", b"1") in made.stream.headers


class TestDenying:
    test_of_a_handshake = traces({
        "in one message": (
            {}, DENIAL_START, DENIAL_LAST | {"body": b"\xff"}, status(401), data(b"\xff"), has_field,
            logged("connecting", "rejected"), logged_status(401),
        ),
        "in several messages": (
            {}, DENIAL_START, DENIAL_MORE, DENIAL_MORE, DENIAL_LAST, data(b"abcabcdef"), state(State.COMPLETE),
        ),
        "that ends short of its length is aborted": (
            {}, DENIAL_9, DENIAL_MORE, refused(MessageError, DENIAL_LAST, "3 bytes short"), calls("respond", "abort"),
        ),
        "that is too long from the start can still be answered 500": (
            {}, DENIAL_1, refused(MessageError, DENIAL_LAST), done(failed=True), status(500),
        ),
        "that takes longer than an accept may is not cut off": (
            {"websocket_connect_timeout": 5}, DENIAL_START, DENIAL_MORE, after(6), DENIAL_LAST,
            calls("respond", "data", "end"),
        ),
    })  # fmt: skip


class TestInbox:
    test_of_events = traces({
        "the first event is connect even when the peer has left": ({}, lost, receives(CONNECT, disconnect(1006))),
        "messages keep type, order and emptiness": (
            {}, *OPENED, message("a"), message(b"a"), message(""), message(b""),
            receives(event("a"), event(b"a"), event(""), event(b"")),
        ),
        "messages before the end can still be read": (
            {}, *OPENED, message("last"), peer_closes(1001, "leaving"),
            receives(event("last"), disconnect(1001, "leaving")),
        ),
        "a message after the application's close is dropped": ({}, *OPENED, CLOSE, message("late"), waits),
        "a waiting receive is woken by a message and by the end": (
            {}, *OPENED, listens, message("x"), is_told(event("x")), listens, lost, is_told(disconnect(1006)),
        ),
        "it listens from the first receive after it accepted": (
            {}, receives(CONNECT), is_listening(False), ACCEPT, is_listening(False), message("x"),
            receives(event("x")), is_listening(True),
        ),
        "a receive that gave connect after the accept does not count as listening": (
            {}, ACCEPT, receives(CONNECT), is_listening(False),
        ),
    })  # fmt: skip


class TestPressure:
    SIZE = 1024
    ROOM = SIZE // MESSAGE_OVERHEAD

    MADE = {"request_buffer_size": SIZE}
    LARGE, OTHER = "*" * SIZE, "+" * SIZE

    test_of_messages = traces({
        "a full inbox stops wire and engine until half of it is read": (
            MADE, *OPENED, *[inbox(full=False, resumed=0), message("")] * ROOM, inbox(full=True, resumed=0),
            *[receives(event(""))] * (ROOM // 2 - 1), inbox(full=True, resumed=0),
            receives(event("")), inbox(full=False, resumed=1),
        ),
        "the wire stays stopped while what the engine kept fills the inbox again": (
            MADE, *OPENED, message(LARGE), keeps(OTHER), receives(event(LARGE)), inbox(full=True, resumed=0), keeps(),
            receives(event(OTHER)), reading,
        ),
        "closing makes room so that the peer's close frame is found": (
            MADE, *OPENED, message(LARGE), CLOSE, inbox(full=False, resumed=1), receives(event(LARGE)),
        ),
        "a lost exchange does not touch its stream when its inbox is read": (
            MADE, *OPENED, message(LARGE), lost, receives(event(LARGE), disconnect(1006)), stopped,
        ),
        "the engine is told when the peer takes data again": (
            MADE, *OPENED, slow(True), is_slow, writable, inbox(full=False, resumed=1),
        ),
        "nothing is resumed before there is an engine": ({}, writable, no_engine),
    })  # fmt: skip

    @given(st.lists(st.one_of(st.text(max_size=800), st.binary(max_size=800), st.none()), max_size=40))
    def test_messages_come_as_they_were_sent_whatever_the_order(self, steps: list[str | bytes | None]) -> None:
        made = play(Made(**self.MADE), *OPENED)
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
        steps = (peer_closes(code, reason), calls("switch", "close"), receives(disconnect(code, reason)), told_hub)
        play(Made(), *OPENED, *steps)

    test_of_a_websocket = traces({
        "a lost connection is 1006": ({}, *OPENED, lost, receives(disconnect(1006))),
        "a broken protocol ends the application with the code that was sent": (
            {}, *OPENED, breaks(1007, "not UTF-8"), calls("switch", "close"), receives(disconnect(1007, "not UTF-8")),
        ),
        "the peer's answer to the application's close gives the application's code": (
            {}, *OPENED, CLOSE, peer_closes(1000), receives(disconnect(4001, "enough")),
            calls("switch", "data", "close"),
        ),
        "a broken protocol after the application's close gives the application's code": (
            {}, *OPENED, CLOSE, breaks(1002, "no such opcode"), receives(disconnect(4001, "enough")),
            calls("switch", "data", "close"),
        ),
        # Not aborted: what was sent before may still be on its way to a slow peer, for which close_timeout is there.
        "a close frame is awaited for a while, then the connection is dropped": (
            {"websocket_close_timeout": 3}, *OPENED, CLOSE, after(2.9), calls("switch", "data"), after(0.1),
            calls("switch", "data", "close"), receives(disconnect(4001, "enough")), no_timers,
        ),
        "so it is after the server's": (
            {"websocket_close_timeout": 3}, *OPENED, server_stopping, after(2.9), calls("switch", "data"), after(0.1),
            calls("switch", "data", "close"), receives(disconnect(1012, "service restart")), no_timers,
        ),
        "an answered close leaves no deadline": (
            {}, *OPENED, CLOSE, peer_closes(1000), lost, no_timers, calls("switch", "data", "close"),
        ),
        "the application hears of the server's close at once": (
            {}, *OPENED, server_stopping, receives(disconnect(1012, "service restart")),
            peer_closes(1012), calls("switch", "data", "close"), told_hub,
        ),
        "a failure in the closing handshake only closes": (
            {}, ACCEPT, server_stopping, breaks(1002), receives(CONNECT, disconnect(1012, "service restart")),
            calls("switch", "data", "close"),
        ),
    })  # fmt: skip

    @pytest.mark.parametrize("state", [State.OPEN, State.CLOSING])
    def test_engine_is_abandoned_with_the_connection(self, state: State) -> None:
        made = reached(state)
        made.lose()
        assert made.engine.abandoned

    @pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 3000, 4999])
    def test_applications_code_and_reason_are_sent(self, code: int) -> None:
        made = reached(State.OPEN)
        made.send({"type": "websocket.close", "code": code, "reason": "so"})
        assert made.engine.sent == [("close", code, "so")]


class TestDeadlines:
    PINGED = {"ping_interval": 20, "ping_timeout": 30}

    test_of_a_peer = traces({
        "a handshake that is not answered is 503": (
            {"websocket_connect_timeout": 5}, after(5), status(503), state(State.GONE),
            logged("connecting", "rejected"),
        ),
        "an accepted WebSocket has no deadline of the handshake": (
            {"websocket_connect_timeout": 5, "ping_interval": None}, ACCEPT, after(5), calls("switch"),
        ),
        "its life time ends with 1001": (
            {"websocket_timeout": 60, "ping_interval": None}, *OPENED, after(60), frames(("close", 1001, "time limit")),
            receives(disconnect(1001, "time limit")),
        ),
        "its life may be infinite": ({"websocket_timeout": -1, "ping_interval": None}, ACCEPT, after(1e9), frames()),
        "any byte is a sign of life": (
            PINGED, ACCEPT, after(20, 10), piece(b"p"), after(10, 10), pings(2), after(10), no_call("abort"), after(20),
            last_call("abort"),
        ),
        # A ping, then its pong; any byte is as good as a pong and moves the next ping, until one side closes.
        "one thing at a time is awaited": (
            {**PINGED, "websocket_timeout": 1000}, ACCEPT, awaits(Deadline.PING, Deadline.LIFETIME), after(20),
            awaits(Deadline.PING, Deadline.LIFETIME), pings(1), piece(b"p"), awaits(Deadline.PING, Deadline.LIFETIME),
            CLOSE, piece(b"p"), awaits(Deadline.LIFETIME, Deadline.CLOSE), peer_closes(1000), awaits(),
        ),
        "a peer that talks is not pinged": ({"ping_interval": 20}, ACCEPT, *[after(15), piece(b"x")] * 10, frames()),
        "there is no ping without an interval": (
            {"ping_interval": 0, "websocket_timeout": None}, ACCEPT, after(1e6), frames(),
        ),
        "without a ping timeout the peer is pinged on and on": (
            {"ping_interval": 20, "ping_timeout": 0}, ACCEPT, after(*[20] * 5), pings(5), no_call("abort"),
        ),
        "the peer is not blamed while the application does not read": (
            {**PINGED, "request_buffer_size": 1024}, ACCEPT, message("*" * 2000), after(20, 30, 30), no_call("abort"),
        ),
        "a peer that is slow to take a message is not pinged behind it": (
            PINGED, ACCEPT, slow(True), after(*[20] * 10), frames(), slow(False), after(20), pings(1), slow(True),
            after(10, 10, 10), no_call("abort"), slow(False), after(*[10] * 6), last_call("abort"),
        ),
        # The kernel may keep much of what was sent before the ping.
        "a peer that reads on towards the ping is not blamed": (
            PINGED, ACCEPT,
            *[step for left in range(1_000_000, 500_000, -10_000) for step in (pending(left), after(5))],
            no_call("abort"), after(*[5] * 12), last_call("abort"),
        ),
        "a peer that died while the application did not read is found later": (
            {**PINGED, "request_buffer_size": 1024}, *OPENED, message("*" * 2000), after(20, 20, 20, 20),
            receives(event("*" * 2000)), after(*[5] * 10), last_call("abort"),
        ),
    })  # fmt: skip

    @pytest.mark.parametrize("off", [-1, 0, None])
    def test_handshake_may_take_for_ever(self, off: int | None) -> None:
        play(Made(websocket_connect_timeout=off), after(1e9), calls())

    def test_silent_peer_is_pinged_and_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.wire")
        made = play(Made(**self.PINGED), *OPENED, after(19.9), frames(), after(0.1), pings(1))
        assert len(made.engine.sent[0][1]) == 8
        play(made, after(20), pings(1))
        assert caplog.messages == []
        play(made, after(10), last_call("abort"), receives(disconnect(1006, "ping timeout")))
        assert caplog.messages == ["Dropped WEBSOCKET '/ws', which answered no ping for 30 seconds"]

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
            "request_id": made.exchange.request_id,
        }
        assert made.hub.actions == [
            ("websocket", "connecting", common),
            ("websocket", "connected", common),
            ("websocket", "disconnected", common | {"code": 1001, "time_taken": 0.5, "size": 5, "request_size": 5}),
        ]

    def test_nothing_is_collected_when_nobody_wants_it(self) -> None:
        made = reached(State.COMPLETE, logs_actions=False)
        assert made.hub.actions == []
