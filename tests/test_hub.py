"""The hub without wires: applications' tasks, their failures, and how they are told that their peer has left.

An application is a list of steps: what it sends, receives, awaits and raises. ``run`` takes it through one request.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from asgiserver.asgi.exchange import Exchange, State
from asgiserver.asgi.http import HTTPExchange
from asgiserver.asgi.interfaces import Message, Receive, Scope, Send
from asgiserver.asgi.scope import CHUNKED, Request
from asgiserver.asgi.websocket import WebSocketExchange
from asgiserver.errors import ClientDisconnected, MessageError, RequestError, UnexpectedMessage
from asgiserver.hub import Hub, is_disconnect
from asgiserver.log.setup import AccessLog
from asgiserver.settings import Settings
from tests.asgi.test_scope import ADDRESSES

from .fakes import Clock, FakeStream, settle

START = {"type": "http.response.start", "status": 200}
MORE = {"type": "http.response.body", "body": b"a", "more_body": True}
LAST = {"type": "http.response.body", "body": b"b"}
ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "x"}
START_9 = {**START, "headers": [(b"content-length", b"9")]}
DISCONNECT = {"type": "http.disconnect"}
CLOSED = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
HANDSHAKE = [
    (b"host", b"x"), (b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]
GET = Request("GET", b"/page", [])
POST = Request("POST", b"/upload", [], body_size=9)
UPGRADE = Request("GET", b"/ws", HANDSHAKE, upgrade=True)

FAILED = "Exception in the application for GET '/page'"
RETURNED = "The application for GET '/page' returned without a complete response"
CANCELLED = "The application for GET '/page' was cancelled without a complete response"

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]


class Served:
    """A hub with one application, inside a running loop."""

    def __init__(
        self, application: Application, action_logger: Any = None, kind: type[Hub] = Hub, **settings: Any
    ) -> None:
        self.hub = kind(application, Settings(**settings), action_logger or (lambda *_: None))
        self.clock = self.hub.clock = Clock()

    def begin(self, request: Request, stream: FakeStream) -> Exchange:
        exchange = self.hub.open_exchange(request, stream, ADDRESSES)
        self.hub.create_application(exchange)
        return exchange

    async def open(self, request: Request = GET, *, body: bool = True) -> tuple[Exchange, FakeStream]:
        stream = FakeStream()
        exchange = self.begin(request, stream)
        if body:
            exchange.body_ended()
        await settle()
        return exchange, stream

    @property
    def running(self) -> int:
        return len(self.hub._tasks)


class SlowStream(FakeStream):
    """A stream with room for one piece of data at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._room = asyncio.Event()

    def _add(self, data: bytes, last: bool) -> None:
        super()._add(data, last)
        self.slow = True

    def give_room(self) -> None:
        self.slow = False
        self._room.set()
        self._room = asyncio.Event()

    async def drain(self) -> None:
        if self.slow:
            await self._room.wait()


class Run(Served):
    """One request, whose application does one step after the other.

    :ivar outcome: what the application ended with: an exception or None; ``...`` when it has not ended.
    """

    exchange: Any
    stream: FakeStream
    ended: Any
    outcome: Any

    def __init__(self, steps: Sequence[Any], **options: Any) -> None:
        super().__init__(self.application, **options)
        self.steps = steps
        self.released = asyncio.Event()
        self.ended = self.outcome = ...

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for step in self.steps:
                if isinstance(step, BaseException):
                    raise step
                if step is AWAIT:
                    await self.released.wait()
                elif callable(step):
                    await step(receive, send)
                else:
                    await send(step)
        except BaseException as error:
            self.ended = error
            raise
        self.ended = None


# What an application does: it sends a message, raises an exception, or does one of these.

#: Waits until ``release``.
AWAIT = object()


def receives(event: dict[str, Any] | str | None = None) -> Any:
    """Receives this event, or one of this type."""

    async def step(receive: Receive, send: Send) -> None:
        got = await receive()
        assert event is None or got == event or got["type"] == event

    return step


def refused(error: type[Exception], message: Any) -> Any:
    """Sends a message, which raises."""

    async def step(receive: Receive, send: Send) -> None:
        with pytest.raises(error):
            await send(message)

    return step


async def stays(receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def listens(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def sends_on(receive: Receive, send: Send) -> None:
    while True:
        await send(MORE)


# What happens to it meanwhile.


def leave(run: Run) -> None:
    lose(run.exchange, run.stream)


def release(run: Run) -> None:
    run.released.set()


def stop(run: Run) -> None:
    run.hub.stopping = True


def after(seconds: float) -> Callable[[Run], None]:
    return lambda run: run.clock.advance(seconds)


def runs(count: int) -> Callable[[Run], None]:
    def look(run: Run) -> None:
        assert run.running == count

    return look


def run(*steps: Any, request: Request = GET, then: Sequence[Any] = (), body: bool = True, **options: Any) -> Run:
    """Take an application through a request, and ``then`` through what happens when it has nothing to do."""

    async def main() -> Run:
        made = Run(steps, **options)
        made.exchange, made.stream = await made.open(request, body=body)
        for happens in then:
            happens(made)
            await settle()
        if isinstance(made.ended, AssertionError | pytest.fail.Exception):
            raise made.ended
        # The end of the loop would end an application that has not ended.
        made.outcome = made.ended
        return made

    return asyncio.run(main())


def lose(exchange: Exchange, stream: FakeStream) -> None:
    stream.lost = True
    exchange.disconnected()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestApplications:
    def test_application_gets_scope_receive_and_send(self) -> None:
        made = run(
            receives({"type": "http.request", "body": b"", "more_body": False}), START, LAST, then=[runs(0)]
        )
        assert isinstance(made.exchange, HTTPExchange)
        assert made.exchange.scope["path"] == "/page"
        assert made.stream.calls == ["respond", "end"]
        assert made.clock.getDelayedCalls() == []

    def test_all_that_they_send_goes_through_handle_reply(self) -> None:
        """Also when a subclass has another one."""
        sent: list[Any] = []

        class Watched(Hub):
            async def handle_reply(self, exchange: Exchange, message: Message) -> None:  # type: ignore[override]
                sent.append((exchange, message["type"]))
                await super().handle_reply(exchange, message)

        made = run(START, LAST, kind=Watched)
        assert sent == [(made.exchange, "http.response.start"), (made.exchange, "http.response.body")]
        assert made.stream.over

    def test_each_has_a_fresh_copy_of_the_servers_context(self) -> None:
        variable = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(variable.get())
            variable.set("by an application")

        async def main() -> None:
            variable.set("by the server")
            served = Served(application)
            variable.set("by a later caller")
            await served.open()
            await served.open()

        asyncio.run(main())
        assert seen == ["by the server", "by the server"]

    @pytest.mark.parametrize(("offer", "settings", "answer"), [
        (b"", {}, None),
        (b"permessage-deflate", {}, b"permessage-deflate"),
        (b"permessage-deflate", {"websocket_compression": False}, None),
    ])  # fmt: skip
    def test_handshake_opens_a_websocket(self, offer: bytes, settings: dict[str, Any], answer: bytes | None) -> None:
        request = UPGRADE._replace(headers=[*HANDSHAKE, *([(b"sec-websocket-extensions", offer)] if offer else [])])
        made = run(receives("websocket.connect"), ACCEPT, receives(), request=request, then=[leave], **settings)
        assert isinstance(made.exchange, WebSocketExchange)
        assert made.exchange.scope["type"] == "websocket"
        headers = dict(made.stream.headers)
        assert headers[b"sec-websocket-accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        chosen = headers.get(b"sec-websocket-extensions")
        assert (chosen and chosen.partition(b";")[0]) == answer
        assert made.clock.getDelayedCalls() == []

    def test_extended_connect_opens_a_websocket(self) -> None:
        headers = [(b"host", b"x"), (b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat")]
        request = Request("CONNECT", b"/ws", headers, "2", CHUNKED, upgrade=True)
        accept = {**ACCEPT, "subprotocol": "chat"}
        made = run(receives("websocket.connect"), accept, receives(), request=request, then=[leave])
        assert isinstance(made.exchange, WebSocketExchange)
        assert (made.exchange.scope["type"], made.exchange.scope["http_version"]) == ("websocket", "2")
        assert made.stream.headers == [(b"sec-websocket-protocol", b"chat")]

    @pytest.mark.parametrize(
        ("name", "value", "status"), [(b"sec-websocket-version", b"8", 426), (b"sec-websocket-key", b"x", 400)]
    )
    def test_wrong_handshake_reaches_no_application(self, name: bytes, value: bytes, status: int) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError("it was called")

        async def main() -> None:
            served = Served(application)
            headers = [(key, value if key == name else old) for key, old in HANDSHAKE]
            with pytest.raises(RequestError) as caught:
                await served.open(UPGRADE._replace(headers=headers))
            assert (caught.value.status, served.running) == (status, 0)

        asyncio.run(main())

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no eager task factory")
    def test_eager_task_factory_does_not_start_it_before_the_wire_knows_the_exchange(self) -> None:
        began: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            began.append(scope["path"])
            await send(START)
            await send(LAST)

        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
            served, stream = Served(application), FakeStream()
            served.begin(GET, stream)
            assert began == []
            await settle()
            assert stream.calls == ["respond", "end"]
            assert served.running == 0

        asyncio.run(main())

    def test_no_websocket_is_opened_while_the_server_stops_but_requests_are_answered(self) -> None:
        async def main() -> None:
            served = Run([START, LAST])
            served.hub.stopping = True
            with pytest.raises(RequestError, match="stopping") as caught:
                await served.open(UPGRADE)
            assert (caught.value.status, served.running, served.ended) == (503, 0, ...)
            _, stream = await served.open(GET)
            assert stream.status == 200

        asyncio.run(main())

    def test_one_too_many_is_503_until_one_has_ended(self) -> None:
        async def main() -> None:
            served = Run([listens], limit_concurrency=2)
            opened = [await served.open(), await served.open()]
            with pytest.raises(RequestError) as caught:
                await served.open()
            assert (caught.value.status, caught.value.headers) == (503, ((b"retry-after", b"1"),))
            lose(*opened[0])
            await settle()
            await served.open()
            assert served.running == 2

        asyncio.run(main())


class TestEnd:
    """An application's end is met however its task ends."""

    def test_task_that_is_cancelled_before_its_turn(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            served, stream = Run([]), FakeStream()
            served.begin(GET, stream)
            (task,) = served.hub._tasks.values()
            task.cancel()
            await settle()
            assert task.cancelled()
            assert (served.running, served.ended, stream.status) == (0, ..., 500)

        asyncio.run(main())
        assert caplog.messages == [CANCELLED]

    def test_loop_that_ends_before_its_tasks_is_no_failure_of_theirs(self, caplog: pytest.LogCaptureFixture) -> None:
        served, stream = Run([stays]), FakeStream()
        loop = asyncio.new_event_loop()
        try:
            served.hub._loop = loop
            served.begin(GET, stream)
            (task,) = served.hub._tasks.values()
            assert task is not None
            task.get_coro().close()  # type: ignore[union-attr]
            assert caplog.records == []
            assert stream.calls == []
        finally:
            with pytest.raises(RuntimeError, match="already awaited"):
                loop.run_until_complete(task)
            loop.close()


ANSWER, CUT = ["respond", "end"], ["respond", "abort"]

#: What an application does, what becomes of its response, and what is logged.
ENDS: dict[str, tuple[list[Any], int, list[str], list[str]]] = {
    "it raises at once": ([ValueError()], 500, ANSWER, [FAILED]),
    "it raises before the response's first piece": ([START, ValueError()], 500, ANSWER, [FAILED]),
    "it raises in mid-response": ([START, MORE, ValueError()], 200, CUT, [FAILED]),
    "it raises after the response": ([START, LAST, ValueError()], 200, ANSWER, [FAILED]),
    "it returns without a response": ([], 500, ANSWER, [RETURNED]),
    "it returns in mid-response": ([START, MORE], 200, CUT, [RETURNED]),
    "it is cancelled": ([asyncio.CancelledError()], 500, ANSWER, [CANCELLED]),
    "it raises GeneratorExit": ([GeneratorExit()], 500, ANSWER, [FAILED]),
    "it raises what is no Exception": ([BaseException("of the application")], 500, ANSWER, [FAILED]),
    "it sends the body first": ([refused(UnexpectedMessage, LAST), START, LAST], 200, ANSWER, []),
    "it sends what nobody knows": ([refused(MessageError, {"type": "nonsense"}), START, LAST], 200, ANSWER, []),
    "it sends what is no message": ([refused(MessageError, None), START, LAST], 200, ANSWER, []),
}


class TestFailures:
    @pytest.mark.parametrize(("steps", "status", "calls", "logged"), ENDS.values(), ids=list(ENDS))
    def test_application_ends(
        self, steps: list[Any], status: int, calls: list[str], logged: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        stream = run(*steps).stream
        assert (stream.status, stream.calls) == (status, calls)
        assert caplog.messages == logged

    def test_exception_is_logged_with_its_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        run(ValueError("of the application"))
        (record,) = caplog.records
        assert record.name == "asgiserver"
        assert "of the application" in (record.exc_text or str(record.exc_info))

    @pytest.mark.parametrize("start", [START, START_9], ids=["streamed", "with a length"])
    def test_stream_that_is_left_because_the_server_stops_is_no_failure(
        self, start: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """One whose length was told is."""
        assert run(start, MORE, AWAIT, then=[stop, release]).stream.calls == CUT
        assert len(errors(caplog)) == (start is START_9)

    def test_failure_of_one_leaves_the_next_alone(self) -> None:
        async def main() -> None:
            served = Run([START, MORE, ValueError()])
            for _ in range(3):
                _, stream = await served.open()
                assert stream.calls[-1] == "abort"

        asyncio.run(main())

    def test_value_that_is_returned_is_ignored(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> int:
            await send(START)
            await send(LAST)
            return 1

        async def main() -> None:
            _, stream = await Served(application).open()
            assert stream.status == 200

        asyncio.run(main())
        assert caplog.records == []

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
    def test_what_is_contained_ends_the_request_and_not_the_server(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            served = Run([error])
            assert served.hub.contained == (SystemExit,)
            served.hub.contained = (SystemExit, KeyboardInterrupt)
            for _ in range(2):
                _, stream = await served.open()
                assert stream.status == 500

        asyncio.run(main())
        assert len(caplog.records) == 2
        assert f"the application raised {type(error).__name__}" in str(caplog.records[0].exc_info)

    def test_what_is_contained_keeps_nothing_that_keeps_it(self) -> None:
        class Exit(SystemExit):
            def __init__(self) -> None:
                gone.append(weakref.ref(self))

        class Quiet(Hub):
            def application_failed(self, message: str, exchange: Exchange, error: BaseException | None = None) -> None:
                seen.append(type(error))

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            raise Exit

        async def main() -> None:
            await Served(application, kind=Quiet).open()
            assert [error() for error in gone] == [None]

        gone: list[weakref.ref[Exit]] = []
        seen: list[object] = []
        gc.collect()
        gc.disable()
        try:
            asyncio.run(main())
        finally:
            gc.enable()
        assert seen == [RuntimeError]

    def test_what_is_not_contained_ends_the_loop(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(KeyboardInterrupt())

    def test_websocket_that_fails_is_closed_with_1011(self) -> None:
        made = run(ACCEPT, ValueError(), request=UPGRADE, then=[runs(0)])
        assert made.stream.data == b"\x88\x10\x03\xf3internal error"
        assert made.exchange.state is State.CLOSING

    def test_a_subclass_may_hear_of_each(self) -> None:
        class Listening(Hub):
            def application_failed(self, message: str, exchange: Exchange, error: BaseException | None = None) -> None:
                heard.append((message % exchange, error))

        heard, failure = list[tuple[str, BaseException | None]](), KeyError("bug")
        run(failure, kind=Listening)
        run(kind=Listening)
        assert heard == [(FAILED, failure), (RETURNED, None)]


class TestPressure:
    def test_send_waits_while_the_peer_is_slow(self) -> None:
        async def main() -> None:
            stream, sent = SlowStream(), list[int]()

            async def application(scope: Scope, receive: Receive, send: Send) -> None:
                await send(START)
                for at in range(3):
                    await send(MORE)
                    sent.append(at)
                await send(LAST)

            Served(application).begin(GET, stream)
            for seen in ([], [0], [0, 1], [0, 1, 2]):
                await settle()
                assert sent == seen
                stream.give_room()

        asyncio.run(main())

    def test_send_that_is_given_up_while_it_waits_for_room_has_sent_nothing(self) -> None:
        async def give_up(receive: Receive, send: Send) -> None:
            for _ in range(5):
                waiting = asyncio.ensure_future(send(MORE))
                await settle()
                waiting.cancel()
                await asyncio.wait({waiting})
                given_up.append(waiting.cancelled())
            stream.give_room()

        async def main() -> None:
            Run([START, MORE, give_up, LAST]).begin(GET, stream)
            await settle()
            # The first piece took the room, and is waited for.
            stream.give_room()
            stream.slow = True
            for _ in range(20):
                await settle()

        stream, given_up = SlowStream(), list[bool]()
        asyncio.run(main())
        assert given_up == [True] * 5
        assert stream.data == b"ab"

    def test_of_several_that_send_at_a_time_each_waits_for_room_of_its_own(self) -> None:
        async def send_all(receive: Receive, send: Send) -> None:
            await asyncio.gather(*(send({"type": "websocket.send", "bytes": b"%d" % at}) for at in range(5)))

        async def main() -> None:
            stream = SlowStream()
            exchange = Run([ACCEPT, send_all]).begin(UPGRADE, stream)
            await settle()
            for count in range(1, 6):
                assert len(stream.data) == 3 * count
                stream.give_room()
                await settle()
            assert stream.data == b"".join(b"\x82\x01%d" % at for at in range(5)) + b"\x88\x02\x03\xe8"
            lose(exchange, stream)

        asyncio.run(main())

    @pytest.mark.parametrize("message", [{"type": "nonsense"}, {**MORE, "body": "text"}])
    def test_wrong_message_is_refused_without_waiting_for_room(self, message: dict[str, Any]) -> None:
        async def fill(receive: Receive, send: Send) -> None:
            stream.slow = True

        async def main() -> None:
            served = Run([START, fill, refused(MessageError, message)])
            served.begin(GET, stream)
            await settle()
            assert served.ended is None

        stream = SlowStream()
        asyncio.run(main())

    @pytest.mark.parametrize(("full", "data"), [(True, b""), (False, b"a")])
    def test_send_that_waits_for_room_ends_when_the_peer_leaves(self, full: bool, data: bytes) -> None:
        async def fill(receive: Receive, send: Send) -> None:
            if full:
                stream.slow = True
            else:
                await send(MORE)

        async def main() -> None:
            served = Run([START, fill, refused(ClientDisconnected, MORE)])
            exchange = served.begin(GET, stream)
            await settle()
            assert served.ended is ...
            lose(exchange, stream)
            stream.give_room()
            await settle()
            assert served.ended is None

        stream = SlowStream()
        asyncio.run(main())
        assert stream.data == data


class ClientDisconnect(Exception):
    """As Starlette names its own."""


async def sends_beside_a_listener(receive: Receive, send: Send) -> None:
    """As Django and Starlette do."""
    listener = asyncio.ensure_future(receive())
    await send(START)
    await send(MORE)
    while not listener.done():
        await send(MORE)
    await send(LAST)
    assert listener.result() == DISCONNECT


async def listens_as_channels_does(receive: Receive, send: Send) -> None:
    await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(receive())), None)


def raises_from_the_disconnect(how: str) -> Any:
    async def step(receive: Receive, send: Send) -> None:
        try:
            await send(START)
        except OSError as error:
            if how == "from":
                raise ValueError from error
            if how == "group":
                raise BaseExceptionGroup("of a task group", [error, error]) from None
            if how == "framework":
                raise ClientDisconnect  # noqa: B904
            undefined_name  # type: ignore[name-defined]  # noqa: B018, F821

    return step


LEAVES = [leave, release]
BODY, CONNECT = receives("http.request"), receives("websocket.connect")

#: The request, what its application does, what happens meanwhile, and what the application ends with.
LEFT: dict[str, tuple[Request, list[Any], list[Any], type[BaseException] | None]] = {
    # ASGI 2.4.
    "http that only sends gets an OSError": (GET, [START, MORE, AWAIT, MORE], LEAVES, ClientDisconnected),
    "http that has read its body but does not wait gets an OSError": (
        GET, [BODY, AWAIT, refused(ClientDisconnected, START), receives(DISCONNECT), START], LEAVES, None,
    ),
    "http that waits in receive gets the event and may send in silence": (
        GET, [BODY, receives(DISCONNECT), START, {"type": "nonsense"}, receives(DISCONNECT)], [leave], None,
    ),
    "http that sends beside a waiting receive is not disturbed": (
        GET, [BODY, sends_beside_a_listener], [leave], None,
    ),
    "websocket that receives gets the event and may send in silence": (
        UPGRADE, [CONNECT, ACCEPT, listens_as_channels_does, TEXT, receives("websocket.disconnect")], [leave], None,
    ),
    "websocket that has received since it accepted is not disturbed": (
        UPGRADE,
        [CONNECT, ACCEPT, receives({"type": "websocket.receive", "text": "x"}), AWAIT, TEXT, receives(CLOSED)],
        [lambda run: run.exchange.message_received("x"), leave, release], None,
    ),
    # After an exception from its accept a Channels consumer would not run its disconnect().
    "websocket that accepts too late is told by receive": (
        UPGRADE, [CONNECT, AWAIT, ACCEPT, TEXT, receives(CLOSED)], LEAVES, None,
    ),
    "websocket that only sends gets an OSError": (
        UPGRADE, [CONNECT, ACCEPT, AWAIT, TEXT], [leave, runs(1), release], ClientDisconnected,
    ),
    "an exception from the disconnect": (GET, [AWAIT, raises_from_the_disconnect("from")], LEAVES, ValueError),
    "a group of disconnects": (GET, [AWAIT, raises_from_the_disconnect("group")], LEAVES, ExceptionGroup),
    "a framework's word": (GET, [AWAIT, raises_from_the_disconnect("framework")], LEAVES, ClientDisconnect),
    "http that ends in time": (GET, [listens], [leave], None),
}  # fmt: skip


class TestDisconnect:
    """An application is told once that its peer has left, in the way it listens."""

    @pytest.mark.parametrize(("request_", "steps", "then", "outcome"), LEFT.values(), ids=list(LEFT))
    def test_application_is_told_in_its_way(
        self, request_: Request, steps: list[Any], then: list[Any], outcome: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = run(*steps, request=request_, then=[*then, runs(0)])
        assert made.outcome is None if outcome is None else type(made.outcome) is outcome
        assert made.clock.getDelayedCalls() == []
        assert caplog.records == []

    def test_application_that_sends_to_nobody_without_end_lets_others_run_and_is_cancelled(self) -> None:
        then = [leave, runs(1), after(5), runs(0)]
        run(START, BODY, receives(DISCONNECT), sends_on, then=then, application_close_timeout=5)

    def test_peer_that_leaves_before_the_application_starts(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            served, stream = Run([receives(DISCONNECT)]), FakeStream()
            lose(served.begin(GET, stream), stream)
            await settle()
            assert (served.running, served.ended, stream.calls) == (0, None, [])

        asyncio.run(main())
        assert caplog.records == []

    def test_bug_in_what_handles_the_disconnect_is_a_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        run(AWAIT, raises_from_the_disconnect("bug"), then=LEAVES)
        assert errors(caplog) == [FAILED]
        assert "undefined_name" in str(caplog.records[0].exc_info)

    @pytest.mark.parametrize(
        "error", [ExceptionGroup("two", [ClientDisconnected(), KeyError("bug")]), KeyError("bug")], ids=repr
    )
    def test_other_failure_after_the_disconnect_is_logged(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        run(BODY, receives(DISCONNECT), error, then=[leave])
        assert errors(caplog) == [FAILED]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("it has no text")

    __repr__ = __str__


class UnprintableExit(Unprintable, SystemExit):
    pass


def linked(*errors: BaseException, by: str = "__cause__") -> BaseException:
    """The first error, each linked to the one behind it."""
    for error, origin in pairwise(errors):
        setattr(error, by, origin)
    return errors[0]


def cycle(by: str, *others: BaseException) -> BaseException:
    error = OSError("round")
    return linked(error, *others, OSError("and round"), error, by=by)


def grouped(error: BaseException, depth: int) -> BaseException:
    for _ in range(depth):
        error = BaseExceptionGroup("group", [error])
    return error


class WebSocketDisconnect(Exception):
    """As Starlette calls it."""


def raised_out_of_its_group() -> BaseException:
    """As ``except BaseExceptionGroup as group: raise group.exceptions[0]`` leaves it."""
    error = OSError("the peer has left")
    error.__context__ = BaseExceptionGroup("group", [error])
    return error


CHAINS: dict[str, tuple[Callable[[], BaseException], bool]] = {
    "cycle by context": (lambda: cycle("__context__"), False),
    "cycle by cause": (lambda: cycle("__cause__"), False),
    "itself": (lambda: linked(error := OSError(), error), False),
    "cycle through a group": (raised_out_of_its_group, False),
    "cycle beside a disconnect": (
        lambda: BaseExceptionGroup("group", [cycle("__context__"), ClientDisconnected()]), True,
    ),
    "groups in groups": (lambda: grouped(ClientDisconnected(), 50), True),
    "groups in groups with a failure": (
        lambda: grouped(BaseExceptionGroup("two", [grouped(ClientDisconnected(), 3), KeyError("bug")]), 50), False,
    ),
    "the same group twice": (lambda: BaseExceptionGroup("two", [grouped(ClientDisconnected(), 2)] * 2), True),
    "a thousand groups": (lambda: grouped(KeyError("bug"), 1000), False),
    "a thousand links": (lambda: linked(*map(OSError, range(1000)), ClientDisconnected(), by="__context__"), True),
    "a thousand causes": (lambda: linked(*map(ValueError, range(1000)), KeyError("bug")), False),
    "a framework's word": (WebSocketDisconnect, True),
    "a framework's word for a disconnect": (
        lambda: linked(WebSocketDisconnect(), ClientDisconnected(), by="__context__"), True,
    ),
    "a framework's word for a failure": (
        lambda: linked(WebSocketDisconnect(), KeyError("bug"), by="__context__"), False,
    ),
    "no text": (Unprintable, False),
    "no text before a disconnect": (lambda: linked(Unprintable(), ClientDisconnected()), True),
    "an exit without text": (UnprintableExit, False),
}  # fmt: skip


@pytest.mark.parametrize("shape", CHAINS)
class TestChains:
    """An exception's origins may be of any shape, and its exchange ends all the same, with one line in the log."""

    def test_a_disconnect_is_found(self, shape: str) -> None:
        make, expected = CHAINS[shape]
        assert is_disconnect(make()) is expected

    @pytest.mark.parametrize("left", [False, True], ids=["connected", "left"])
    @pytest.mark.parametrize("stopping", [False, True], ids=["serving", "stopping"])
    def test_the_exchange_ends(
        self, shape: str, left: bool, stopping: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        make, expected = CHAINS[shape]
        unhandled: list[Any] = []

        async def fail(receive: Receive, send: Send) -> None:
            asyncio.get_running_loop().set_exception_handler(lambda *details: unhandled.append(details))
            raise make()

        then = [*[leave] * left, *[stop] * stopping, release, runs(0)]
        made = run(BODY, AWAIT, fail, then=then)
        assert made.clock.getDelayedCalls() == []
        assert made.stream.calls == ([] if left else ANSWER)
        assert made.hub._changed.is_set() is stopping
        assert unhandled == []
        (record,) = caplog.records
        assert record.levelno == (logging.INFO if left and expected else logging.ERROR)


class TestLogging:
    @pytest.mark.parametrize("error", [RecursionError("of a handler"), ValueError("of a handler")], ids=repr)
    def test_a_log_that_fails_keeps_no_exchange_open(self, error: Exception) -> None:
        class Failing(Hub):
            def application_failed(self, *_: object) -> None:
                raise error

        async def main() -> None:
            served = Run([KeyError()], kind=Failing)
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["exception"]))
            _, stream = await served.open()
            assert (stream.status, stream.calls[-1], served.running) == (500, "end", 0)
            assert served.clock.getDelayedCalls() == []

        unhandled: list[BaseException] = []
        asyncio.run(main())
        assert unhandled == [error]


def upload(run: Run) -> None:
    run.exchange.body_received(b"123")


class TestUpload:
    """An upload that the client gives up is nobody's failure."""

    @pytest.mark.parametrize("error", [KeyError("of a framework"), raised_out_of_its_group()], ids=repr)
    @pytest.mark.parametrize("told", [True, False])
    def test_whatever_is_made_of_its_end_is_one_line(
        self, told: bool, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        steps, then = [BODY, *[receives(DISCONNECT)] * told, error], [upload, *[leave] * told, runs(0)]
        assert run(*steps, request=POST, body=False, then=then).outcome is error
        (record,) = caplog.records
        if told:
            assert (record.levelno, record.exc_info) == (logging.INFO, None)
            line = f"The client of POST '/upload' left, which ended its application: {type(error).__name__}"
            assert record.getMessage() == line
        else:
            assert record.levelno == logging.ERROR

    def test_failure_behind_a_whole_upload_is_one(self, caplog: pytest.LogCaptureFixture) -> None:
        run(listens, KeyError("bug"), request=POST, then=[leave])
        assert errors(caplog) == ["Exception in the application for POST '/upload'"]


class TestLateMessages:
    """What follows a complete response is ignored."""

    @pytest.mark.parametrize("message", [START, MORE, LAST, {"type": "nonsense"}, None], ids=repr)
    @pytest.mark.parametrize("request_", [GET, UPGRADE], ids=["http", "denial"])
    def test_is_one_line_for_debugging(
        self, request_: Request, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "asgiserver")
        kind = "websocket.http.response" if request_.upgrade else "http.response"
        whole = [{**START, "type": f"{kind}.start"}, {**LAST, "type": f"{kind}.body"}]
        assert run(receives(), *whole, message, message, request=request_).stream.calls == ANSWER
        what = "WEBSOCKET '/ws'" if request_.upgrade else "GET '/page'"
        expected = (logging.DEBUG, f"A message for {what} after its response was complete is ignored")
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [expected] * 2

    def test_others_have_their_turn_meanwhile(self) -> None:
        """Nor does it wait for a slow peer to take what is complete."""

        async def fill(receive: Receive, send: Send) -> None:
            stream.slow = True

        async def main() -> None:
            Run([START, LAST, fill, sends_on]).begin(GET, stream)
            for _ in range(3):
                await settle()

        stream = FakeStream()
        asyncio.run(main())


class TestClosingTimeout:
    def test_application_that_stays_is_cancelled_and_named(self, caplog: pytest.LogCaptureFixture) -> None:
        made = run(stays, then=[leave, after(6.9), runs(1), after(0.1), runs(0)], application_close_timeout=7)
        assert made.clock.getDelayedCalls() == []
        (line,) = errors(caplog)
        assert line.startswith("The application for GET '/page' still ran 7 seconds after ")

    def test_it_may_stay_for_ever(self) -> None:
        run(stays, then=[leave, after(1e9), runs(1)], application_close_timeout=-1)

    def test_work_after_a_complete_response_is_not_cancelled_when_the_peer_leaves(self) -> None:
        run(START, LAST, stays, then=[leave, after(1e6), runs(1)], application_close_timeout=1)


async def never_called(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("it was called")


class TestActions:
    def test_action_logger_is_called_as_daphne_calls_it(self) -> None:
        calls: list[tuple[str, str, dict[str, Any]]] = []
        run(START, LAST, action_logger=lambda *call: calls.append(call))
        ((protocol, action, details),) = calls
        assert (protocol, action, details["status"], details["path"]) == ("http", "complete", 200, "/page")

    def test_action_logger_that_fails_does_no_harm(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(*_: object) -> None:
            raise ValueError

        assert run(START, LAST, action_logger=broken).stream.calls[-1] == "end"
        assert errors(caplog) == ["Exception in the action logger"]

    def test_own_logger_is_always_told_and_the_access_log_when_it_is_on(self) -> None:
        assert Hub(never_called, Settings(), lambda *_: None).logs_actions
        hub = Hub(never_called, Settings(), None)
        assert isinstance(hub.action_logger, AccessLog)
        assert hub.logs_actions is hub.action_logger.enabled

    @pytest.mark.parametrize("request_", [GET, None])
    @pytest.mark.parametrize("client", [("192.0.2.7", 80), None])
    def test_refusal_is_information_without_traceback(
        self, request_: Request | None, client: tuple[str, int] | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        calls: list[tuple[str, str, dict[str, Any]]] = []
        hub = Served(never_called, lambda *call: calls.append(call)).hub
        hub.request_refused(request_, ADDRESSES._replace(client=client), RequestError(400, "It was wrong."))
        (record,) = caplog.records
        assert (record.levelno, record.exc_info) == (logging.INFO, None)
        what = "GET b'/page'" if request_ else "a request"
        who = "192.0.2.7:80" if client else "a unix socket's peer"
        assert record.getMessage() == f"Refused {what} of {who} with 400: It was wrong."
        assert [(*call[:2], call[2]["status"]) for call in calls] == ([("http", "complete", 400)] if request_ else [])

    @pytest.mark.parametrize("status", [400, 413, 503])
    @pytest.mark.parametrize("asked", [GET, UPGRADE], ids=["http", "websocket"])
    def test_refusal_has_its_line_in_the_access_log(
        self, asked: Request, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver.access")
        hub = Served(never_called, AccessLog("%(event)s %(method)s %(path)s %(status)s %(size)s")).hub
        hub.request_refused(asked, ADDRESSES, RequestError(status, "No."))
        lines = [record.getMessage() for record in caplog.records if record.name == "asgiserver.access"]
        refused = f"rejected WSREJECT /ws {status} -" if asked.upgrade else f"complete GET /page {status} 4"
        assert lines == [refused]

    def test_refused_request_has_what_an_answered_one_has(self) -> None:
        calls: list[tuple[str, str, dict[str, Any]]] = []
        log = {"action_logger": lambda *call: calls.append(call)}
        run(START, LAST, **log).hub.request_refused(GET, ADDRESSES, RequestError(503, "The server is busy."))
        rejected = run({"type": "websocket.close"}, request=UPGRADE, **log)
        rejected.hub.request_refused(UPGRADE, ADDRESSES, RequestError(426, "No."))
        answered, refused, _, rejection, refused_websocket = calls
        for one, other in ((answered, refused), (rejection, refused_websocket)):
            assert one[:2] == other[:2]
            assert one[2].keys() == other[2].keys()
            assert all(one[2][name] == other[2][name] for name in ("path", "client", "scheme", "headers"))

    def test_long_target_of_a_refused_request_is_cut_in_the_servers_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        hub = Served(never_called).hub
        hub.request_refused(GET._replace(target=b"/" + b"a" * 10_000), ADDRESSES, RequestError(413, "It is too large."))
        (line,) = [record.getMessage() for record in caplog.records if record.name == "asgiserver"]
        assert f"GET b'/{'a' * 199}' of" in line

    def test_refusal_that_nobody_wants_to_know_of_makes_no_scope(self) -> None:
        """As for a scanner's requests with the access log off."""
        hub = Hub(never_called, Settings(), None)
        logging.getLogger("asgiserver.access").setLevel(logging.WARNING)
        hub._scopes = None  # type: ignore[assignment]
        try:
            hub.request_refused(GET, ADDRESSES, RequestError(413, "It is too large."))
        finally:
            logging.getLogger("asgiserver.access").setLevel(logging.NOTSET)


class TestConnections:
    def test_one_too_many_is_refused_and_its_leave_makes_no_room_for_two(self) -> None:
        hub = Served(never_called, limit_connections=2).hub
        first, second, third, fourth = (object() for _ in range(4))
        made: Any = hub.connection_made
        assert [made(first), made(second), made(third)] == [True, True, False]
        hub.connection_lost(second)  # type: ignore[arg-type]
        assert made(fourth)
        hub.connection_lost(third)  # type: ignore[arg-type]
        assert hub.connections == {first, fourth}
        assert not made(second)

    def test_limit_can_be_off(self) -> None:
        made: Any = Served(never_called, limit_connections=0).hub.connection_made
        assert all(made(object()) for _ in range(100))
