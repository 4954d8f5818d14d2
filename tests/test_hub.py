"""The hub without wires: applications' tasks, their failures, and how they are told that their peer has left."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from asgiserver.asgi.exchange import Exchange, State
from asgiserver.asgi.http import HTTPExchange
from asgiserver.asgi.interfaces import Message, Receive, Scope, Send
from asgiserver.asgi.scope import Request
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
HANDSHAKE = [
    (b"host", b"x"), (b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]
GET = Request("GET", b"/page", [])
POST = Request("POST", b"/upload", [], body_size=9)
UPGRADE = Request("GET", b"/ws", HANDSHAKE, upgrade=True)

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]


class Served:
    """A hub with one application, inside a running loop."""

    def __init__(self, application: Application, action_logger: Any = None, **settings: Any) -> None:
        self.hub = Hub(application, Settings(**settings), action_logger or (lambda *_: None))
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


def leave(exchange: Exchange, stream: FakeStream) -> None:
    stream.lost = True
    exchange.disconnected()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestApplications:
    def test_application_gets_scope_receive_and_send(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["path"] == "/page"
            assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
            await send(START)
            await send(LAST)

        async def main() -> None:
            served = Served(application)
            exchange, stream = await served.open()
            assert isinstance(exchange, HTTPExchange)
            assert stream.calls == ["respond", "end"]
            assert served.running == 0
            assert served.clock.getDelayedCalls() == []

        asyncio.run(main())

    def test_all_that_they_send_goes_through_handle_reply(self) -> None:
        """Also when a subclass has another one."""
        sent: list[Any] = []

        class Watched(Hub):
            async def handle_reply(self, exchange: Exchange, message: Message) -> None:  # type: ignore[override]
                sent.append((exchange, message["type"]))
                await super().handle_reply(exchange, message)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(LAST)

        async def main() -> None:
            served = Served(application)
            served.hub = Watched(application, Settings(), lambda *_: None)
            served.hub.clock = served.clock
            exchange, stream = await served.open()
            assert sent == [(exchange, "http.response.start"), (exchange, "http.response.body")]
            assert stream.over

        asyncio.run(main())

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

    def test_handshake_opens_a_websocket(self) -> None:
        kinds: list[object] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            kinds.extend((scope["type"], (await receive())["type"]))
            await send(ACCEPT)
            await receive()

        async def main(offer: bytes, **settings: Any) -> dict[bytes, bytes]:
            served = Served(application, **settings)
            headers = [*HANDSHAKE, (b"sec-websocket-extensions", offer)] if offer else HANDSHAKE
            exchange, stream = await served.open(UPGRADE._replace(headers=headers))
            assert isinstance(exchange, WebSocketExchange)
            leave(exchange, stream)
            await settle()
            assert served.clock.getDelayedCalls() == []
            return dict(stream.headers)

        plain = asyncio.run(main(b""))
        assert kinds == ["websocket", "websocket.connect"]
        assert plain[b"sec-websocket-accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert b"sec-websocket-extensions" not in plain
        assert asyncio.run(main(b"permessage-deflate"))[b"sec-websocket-extensions"].startswith(b"permessage-deflate")
        off = asyncio.run(main(b"permessage-deflate", websocket_compression=False))
        assert b"sec-websocket-extensions" not in off

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
            assert caught.value.status == status
            assert served.running == 0

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
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            await send(START)
            await send(LAST)

        async def main() -> None:
            served = Served(application)
            served.hub.stopping = True
            with pytest.raises(RequestError, match="stopping") as caught:
                await served.open(UPGRADE)
            assert (caught.value.status, served.running) == (503, 0)
            _, stream = await served.open(GET)
            assert stream.status == 200

        asyncio.run(main())

    def test_one_too_many_is_503_until_one_has_ended(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def main() -> None:
            served = Served(application, limit_concurrency=2)
            opened = [await served.open(), await served.open()]
            with pytest.raises(RequestError) as caught:
                await served.open()
            assert (caught.value.status, caught.value.headers) == (503, ((b"retry-after", b"1"),))
            leave(*opened[0])
            await settle()
            await served.open()
            assert served.running == 2

        asyncio.run(main())


class TestEnd:
    """An application's end is met however its task ends."""

    def test_task_that_is_cancelled_before_its_turn(self, caplog: pytest.LogCaptureFixture) -> None:
        began: list[bool] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            began.append(True)

        async def main() -> None:
            hub, stream = Served(application).hub, FakeStream()
            hub.create_application(hub.open_exchange(GET, stream, ADDRESSES))
            (task,) = hub._tasks.values()
            task.cancel()
            await settle()
            assert task.cancelled()
            assert not hub._tasks
            assert stream.status == 500

        asyncio.run(main())
        assert began == []
        assert [record.message for record in caplog.records] == [
            "The application for GET '/page' was cancelled without a complete response"
        ]

    def test_loop_that_ends_before_its_tasks_is_no_failure_of_theirs(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.Event().wait()

        served, stream = Served(application), FakeStream()
        loop = asyncio.new_event_loop()
        try:
            served.hub._loop = loop
            served.hub.create_application(served.hub.open_exchange(GET, stream, ADDRESSES))
            (task,) = served.hub._tasks.values()
            assert task is not None
            task.get_coro().close()  # type: ignore[union-attr]
            assert caplog.records == []
            assert stream.calls == []
        finally:
            with pytest.raises(RuntimeError, match="already awaited"):
                loop.run_until_complete(task)
            loop.close()


class TestFailures:
    @pytest.mark.parametrize("before", [[], [START]])
    def test_exception_before_the_response_is_500_and_logged_once(
        self, before: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            for message in before:
                await send(message)
            raise ValueError("of the application")

        async def main() -> None:
            _, stream = await Served(application).open()
            assert stream.status == 500

        asyncio.run(main())
        (record,) = caplog.records
        assert record.name == "asgiserver"
        assert record.getMessage() == "Exception in the application for GET '/page'"
        assert "of the application" in (record.exc_text or str(record.exc_info))

    @pytest.mark.parametrize("failed", [True, False])
    def test_begun_response_is_cut_off(self, failed: bool, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(MORE)
            if failed:
                raise ValueError

        async def main() -> None:
            _, stream = await Served(application).open()
            assert stream.calls == ["respond", "abort"]

        asyncio.run(main())
        assert len(errors(caplog)) == 1

    @pytest.mark.parametrize("start", [START, {**START, "headers": [(b"content-length", b"9")]}])
    def test_stream_that_is_left_because_the_server_stops_is_no_failure(
        self, start: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """One whose length was told is."""
        stop = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start)
            await send(MORE)
            await stop.wait()

        async def main() -> None:
            served = Served(application)
            _, stream = await served.open()
            served.hub.stopping = True
            stop.set()
            await settle()
            assert stream.calls == ["respond", "abort"]

        asyncio.run(main())
        assert len(errors(caplog)) == ("headers" in start)

    def test_return_without_a_response_is_500_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            pass

        async def main() -> None:
            _, stream = await Served(application).open()
            assert stream.status == 500

        asyncio.run(main())
        assert errors(caplog) == ["The application for GET '/page' returned without a complete response"]

    def test_exception_after_the_response_is_logged_and_changes_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(LAST)
            raise ValueError

        async def main() -> None:
            _, stream = await Served(application).open()
            assert stream.calls == ["respond", "end"]

        asyncio.run(main())
        assert len(errors(caplog)) == 1

    def test_failure_of_one_leaves_the_next_alone(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(MORE)
            raise ValueError

        async def main() -> None:
            served = Served(application)
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
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        async def main() -> None:
            served = Served(application)
            assert served.hub.contained == (SystemExit,)
            served.hub.contained = (SystemExit, KeyboardInterrupt)
            for _ in range(2):
                _, stream = await served.open()
                assert stream.status == 500

        asyncio.run(main())
        assert len(caplog.records) == 2
        assert f"the application raised {type(error).__name__}" in str(caplog.records[0].exc_info)

    @pytest.mark.parametrize("error", [GeneratorExit(), BaseException("of the application")], ids=repr)
    def test_whatever_else_is_raised_is_logged_once_and_goes_no_further(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        async def main() -> None:
            _, stream = await Served(application).open()
            assert stream.status == 500

        asyncio.run(main())
        assert errors(caplog) == ["Exception in the application for GET '/page'"]

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
            served = Served(application)
            served.hub = Quiet(application, Settings(), lambda *_: None)
            served.hub.clock = served.clock
            await served.open()
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
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            raise KeyboardInterrupt

        async def main() -> None:
            await Served(application).open()

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())

    def test_application_that_is_cancelled_is_500(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            raise asyncio.CancelledError

        async def main() -> None:
            _, stream = await Served(application).open()
            assert stream.status == 500

        asyncio.run(main())
        assert errors(caplog) == ["The application for GET '/page' was cancelled without a complete response"]

    @pytest.mark.parametrize(
        ("message", "error"), [(LAST, UnexpectedMessage), ({"type": "nonsense"}, MessageError), (None, MessageError)]
    )
    def test_wrong_message_raises_in_the_application(self, message: Any, error: type[Exception]) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            with pytest.raises(error):
                await send(message)
            await send(START)
            await send(LAST)

        async def main() -> None:
            _, stream = await Served(application).open()
            assert (stream.status, stream.calls[-1]) == (200, "end")

        asyncio.run(main())

    def test_websocket_that_fails_is_closed_with_1011(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            raise ValueError

        async def main() -> None:
            exchange, stream = await Served(application).open(UPGRADE)
            assert stream.data == b"\x88\x10\x03\xf3internal error"
            assert exchange.state is State.CLOSING

        asyncio.run(main())


class TestPressure:
    def test_send_waits_while_the_peer_is_slow(self) -> None:
        sent: list[int] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            for at in range(3):
                await send(MORE)
                sent.append(at)
            await send(LAST)

        async def main() -> None:
            fast = asyncio.Event()
            served = Served(application)
            stream = FakeStream()

            async def drain() -> None:
                if stream.data:
                    await fast.wait()

            stream.drain = drain  # type: ignore[method-assign]
            served.begin(GET, stream)
            await settle()
            assert sent == []
            fast.set()
            await settle()
            assert sent == [0, 1, 2]

        asyncio.run(main())


    def test_send_that_is_given_up_while_it_waits_for_room_has_sent_nothing(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(MORE)
            for _ in range(5):
                waiting = asyncio.ensure_future(send(MORE))
                await settle()
                waiting.cancel()
                await asyncio.wait({waiting})
                given_up.append(waiting.cancelled())
            stream.give_room()
            await send(LAST)

        async def main() -> None:
            nonlocal stream
            stream = SlowStream()
            Served(application).begin(GET, stream)
            await settle()
            # The first piece took the room, and is waited for.
            stream.give_room()
            stream.slow = True
            for _ in range(20):
                await settle()

        stream: SlowStream
        given_up: list[bool] = []
        asyncio.run(main())
        assert given_up == [True] * 5
        assert stream.data == b"ab"

    def test_of_several_that_send_at_a_time_each_waits_for_room_of_its_own(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            await asyncio.gather(*(send({"type": "websocket.send", "bytes": b"%d" % at}) for at in range(5)))

        async def main() -> None:
            stream = SlowStream()
            exchange = Served(application).begin(UPGRADE, stream)
            await settle()
            for count in range(1, 6):
                assert len(stream.data) == 3 * count
                stream.give_room()
                await settle()
            assert stream.data == b"".join(b"\x82\x01%d" % at for at in range(5)) + b"\x88\x02\x03\xe8"
            leave(exchange, stream)

        asyncio.run(main())

    @pytest.mark.parametrize("message", [{"type": "nonsense"}, {**MORE, "body": "text"}])
    def test_wrong_message_is_refused_without_waiting_for_room(self, message: dict[str, Any]) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            stream.slow = True
            with pytest.raises(MessageError):
                await send(message)
            done.append(True)
            stream.slow = False

        async def main() -> None:
            await settle()
            Served(application).begin(GET, stream)
            await settle()

        stream, done = SlowStream(), list[bool]()
        asyncio.run(main())
        assert done

    def test_send_that_waits_for_room_ends_when_the_peer_leaves(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            stream.slow = True
            with pytest.raises(ClientDisconnected):
                await send(MORE)
            done.append(True)

        async def main() -> None:
            exchange = Served(application).begin(GET, stream)
            await settle()
            assert not done
            leave(exchange, stream)
            stream.give_room()
            await settle()

        stream, done = SlowStream(), list[bool]()
        asyncio.run(main())
        assert done
        assert stream.data == b""


class TestFailure:
    def test_a_subclass_may_hear_of_each_failure_of_the_application(self) -> None:
        class Listening(Hub):
            def application_failed(self, message: str, exchange: Exchange, error: BaseException | None = None) -> None:
                heard.append((message % exchange, error))

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/page":
                raise failure

        async def main() -> None:
            hub = Listening(application, Settings(), lambda *_: None)
            hub.clock = Clock()
            for request in (GET, Request("GET", b"/other", [])):
                hub.create_application(hub.open_exchange(request, FakeStream(), ADDRESSES))
                await settle()

        heard, failure = list[tuple[str, BaseException | None]](), KeyError("bug")
        asyncio.run(main())
        assert heard == [
            ("Exception in the application for GET '/page'", failure),
            ("The application for GET '/other' returned without a complete response", None),
        ]


class TestDisconnect:
    """An application is told once that its peer has left, in the way it listens."""

    @staticmethod
    async def lost(application: Application, request: Request = GET, **settings: Any) -> Served:
        """Serve one request whose peer leaves once the application has nothing to do."""
        served = Served(application, **settings)
        exchange, stream = await served.open(request)
        leave(exchange, stream)
        await settle()
        return served

    def test_http_application_that_only_sends_gets_an_oserror(self, caplog: pytest.LogCaptureFixture) -> None:
        """ASGI 2.4."""
        told: list[OSError] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(MORE)
            await left.wait()
            try:
                await send(MORE)
            except OSError as error:
                told.append(error)
                raise

        async def main() -> None:
            nonlocal left
            left = asyncio.Event()
            served = await self.lost(application)
            left.set()
            await settle()
            assert served.running == 0

        left: asyncio.Event
        asyncio.run(main())
        assert isinstance(told[0], ClientDisconnected)
        assert caplog.records == []

    def test_http_application_that_has_read_its_body_but_does_not_wait_gets_an_oserror(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await left.wait()
            with pytest.raises(ClientDisconnected):
                await send(START)
            assert await receive() == {"type": "http.disconnect"}
            await send(START)
            done.append(True)

        async def main() -> None:
            nonlocal left
            left = asyncio.Event()
            await self.lost(application)
            left.set()
            await settle()

        left: asyncio.Event
        done: list[bool] = []
        asyncio.run(main())
        assert done

    def test_http_application_that_waits_in_receive_gets_the_event_and_may_send_in_silence(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            assert await receive() == {"type": "http.disconnect"}
            await send(START)
            await send({"type": "nonsense"})
            assert await receive() == {"type": "http.disconnect"}
            done.append(True)

        done: list[bool] = []
        asyncio.run(self.lost(application))
        assert done

    def test_sender_beside_a_waiting_receive_is_not_disturbed(self) -> None:
        """How Django and Starlette listen."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            listener = asyncio.ensure_future(receive())
            await send(START)
            await send(MORE)
            while not listener.done():
                await send(MORE)
            await send(LAST)
            done.append(listener.result()["type"])

        done: list[str] = []
        asyncio.run(self.lost(application))
        assert done == ["http.disconnect"]

    def test_application_that_sends_to_nobody_without_end_lets_others_run_and_is_cancelled(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await receive()
            await receive()
            while True:
                await send(MORE)

        async def main() -> None:
            served = await self.lost(application, application_close_timeout=5)
            assert served.running == 1
            served.clock.advance(5)
            await settle()
            assert served.running == 0

        asyncio.run(main())

    def test_send_that_waits_for_a_slow_peer_returns_when_it_leaves(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(MORE)
            with pytest.raises(ClientDisconnected):
                await send(MORE)
            done.append(True)

        async def main() -> None:
            served = Served(application)
            stream = FakeStream()
            gone = asyncio.Event()

            async def drain() -> None:
                if stream.data:
                    await gone.wait()

            stream.drain = drain  # type: ignore[method-assign]
            exchange = served.begin(GET, stream)
            await settle()
            assert not done
            leave(exchange, stream)
            gone.set()
            await settle()

        done: list[bool] = []
        asyncio.run(main())
        assert done

    def test_peer_that_leaves_before_the_application_starts(self, caplog: pytest.LogCaptureFixture) -> None:
        events: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            events.append((await receive())["type"])

        async def main() -> None:
            served = Served(application)
            stream = FakeStream()
            leave(served.begin(GET, stream), stream)
            await settle()
            assert (served.running, stream.calls) == (0, [])

        asyncio.run(main())
        assert events == ["http.disconnect"]
        assert caplog.records == []

    def test_websocket_that_receives_gets_the_event_and_may_send_in_silence(self) -> None:
        """How a Channels consumer listens."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(receive())), None)
            await send(TEXT)
            assert (await receive())["type"] == "websocket.disconnect"
            done.append(True)

        done: list[bool] = []
        asyncio.run(self.lost(application, UPGRADE))
        assert done

    def test_websocket_in_the_middle_of_its_work_is_not_disturbed_when_it_has_received_since_it_accepted(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            assert (await receive())["text"] == "x"
            await left.wait()
            await send(TEXT)
            done.append((await receive())["type"])

        async def main() -> None:
            nonlocal left
            left = asyncio.Event()
            served = Served(application)
            exchange, stream = await served.open(UPGRADE)
            exchange.message_received("x")  # type: ignore[attr-defined]
            await settle()
            leave(exchange, stream)
            left.set()
            await settle()

        left: asyncio.Event
        done: list[str] = []
        asyncio.run(main())
        assert done == ["websocket.disconnect"]

    def test_websocket_that_accepts_too_late_is_told_by_receive(self, caplog: pytest.LogCaptureFixture) -> None:
        """As a Channels consumer is, whose disconnect() would not run after an exception from its accept."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await left.wait()
            await send(ACCEPT)
            await send(TEXT)
            events.append(await receive())

        async def main() -> None:
            nonlocal left
            left = asyncio.Event()
            await self.lost(application, UPGRADE)
            left.set()
            await settle()

        left: asyncio.Event
        events: list[Any] = []
        asyncio.run(main())
        assert events == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
        assert caplog.records == []

    def test_websocket_that_only_sends_gets_an_oserror(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await left.wait()
            try:
                await send(TEXT)
            except ClientDisconnected:
                told.append(True)
                raise

        async def main() -> None:
            nonlocal left
            left = asyncio.Event()
            served = await self.lost(application, UPGRADE)
            assert served.running == 1
            left.set()
            await settle()
            assert served.running == 0

        told: list[bool] = []
        left: asyncio.Event
        asyncio.run(main())
        assert told == [True]
        assert caplog.records == []

    @pytest.mark.parametrize("how", ["from", "framework", "group"])
    def test_exception_made_of_the_disconnect_is_no_failure(self, how: str, caplog: pytest.LogCaptureFixture) -> None:
        class ClientDisconnect(Exception):
            """As Starlette names its own."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await left.wait()
            try:
                await send(START)
            except OSError as error:
                if how == "from":
                    raise ValueError from error
                if how == "group":
                    raise BaseExceptionGroup("of a task group", [error, error]) from None
                raise ClientDisconnect  # noqa: B904

        async def main() -> None:
            nonlocal left
            left = asyncio.Event()
            served = await self.lost(application)
            left.set()
            await settle()
            assert served.running == 0

        left: asyncio.Event
        asyncio.run(main())
        assert caplog.records == []

    def test_bug_in_what_handles_the_disconnect_is_a_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await left.wait()
            try:
                await send(START)
            except OSError:
                undefined_name  # type: ignore[name-defined]  # noqa: B018, F821

        async def main() -> None:
            nonlocal left
            left = asyncio.Event()
            await self.lost(application)
            left.set()
            await settle()

        left: asyncio.Event
        asyncio.run(main())
        assert errors(caplog) == ["Exception in the application for GET '/page'"]
        assert "undefined_name" in str(caplog.records[0].exc_info)

    @pytest.mark.parametrize("group", [True, False])
    def test_other_failure_after_the_disconnect_is_logged(self, group: bool, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await receive()
            raise ExceptionGroup("two", [ClientDisconnected(), KeyError("bug")]) if group else KeyError("bug")

        asyncio.run(self.lost(application))
        assert errors(caplog) == ["Exception in the application for GET '/page'"]


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

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await leaving.wait()
            raise make()

        async def main() -> None:
            nonlocal leaving
            leaving = asyncio.Event()
            served = Served(application)
            asyncio.get_running_loop().set_exception_handler(lambda *details: unhandled.append(details))
            exchange, stream = await served.open()
            if left:
                leave(exchange, stream)
            served.hub.stopping = stopping
            leaving.set()
            await settle()
            assert served.running == 0
            assert served.clock.getDelayedCalls() == []
            assert stream.calls == ([] if left else ["respond", "end"])
            assert served.hub._changed.is_set() is stopping

        leaving: asyncio.Event
        unhandled: list[Any] = []
        asyncio.run(main())
        assert unhandled == []
        (record,) = caplog.records
        assert record.levelno == (logging.INFO if left and expected else logging.ERROR)


class TestLogging:
    @pytest.mark.parametrize("error", [RecursionError("of a handler"), ValueError("of a handler")], ids=repr)
    def test_a_log_that_fails_keeps_no_exchange_open(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            raise KeyError

        async def main() -> None:
            served = Served(application)
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["exception"]))
            monkeypatch.setattr(served.hub, "application_failed", fail)
            _, stream = await served.open()
            assert (stream.status, stream.calls[-1], served.running) == (500, "end", 0)
            assert served.clock.getDelayedCalls() == []

        def fail(*_: object) -> None:
            raise error

        unhandled: list[BaseException] = []
        asyncio.run(main())
        assert unhandled == [error]


class TestUpload:
    """An upload that the client gives up is nobody's failure."""

    @pytest.mark.parametrize("error", [KeyError("of a framework"), raised_out_of_its_group()], ids=repr)
    @pytest.mark.parametrize("told", [True, False])
    def test_whatever_is_made_of_its_end_is_one_line(
        self, told: bool, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if told:
                assert (await receive())["type"] == "http.disconnect"
            raise error

        async def main() -> None:
            served = Served(application)
            exchange, stream = await served.open(POST, body=False)
            if told:
                exchange.body_received(b"123")
                await settle()
                leave(exchange, stream)
                await settle()
            else:
                exchange.body_received(b"123")
                await settle()
            assert served.running == 0

        asyncio.run(main())
        (record,) = caplog.records
        if told:
            assert (record.levelno, record.exc_info) == (logging.INFO, None)
            line = f"The client of POST '/upload' left, which ended its application: {type(error).__name__}"
            assert record.getMessage() == line
        else:
            assert record.levelno == logging.ERROR

    def test_failure_behind_a_whole_upload_is_one(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            raise KeyError("bug")

        asyncio.run(TestDisconnect.lost(application, POST))
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

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({**START, "type": f"{kind}.start"})
            await send({**LAST, "type": f"{kind}.body"})
            await send(message)
            await send(message)

        async def main() -> None:
            _, stream = await Served(application).open(request_)
            assert stream.calls == ["respond", "end"]

        asyncio.run(main())
        what = "WEBSOCKET '/ws'" if request_.upgrade else "GET '/page'"
        expected = (logging.DEBUG, f"A message for {what} after its response was complete is ignored")
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [expected] * 2

    def test_others_have_their_turn_meanwhile(self) -> None:
        """Nor does it wait for a slow peer to take what is complete."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(LAST)
            stream.slow = True
            while True:
                await send(LAST)

        async def main() -> None:
            Served(application).begin(GET, stream)
            for _ in range(3):
                await settle()

        stream = FakeStream()
        asyncio.run(main())


class TestClosingTimeout:
    @staticmethod
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    def test_application_that_stays_is_cancelled_and_named(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            served = await TestDisconnect.lost(self.stubborn, application_close_timeout=7)
            served.clock.advance(6.9)
            await settle()
            assert served.running == 1
            served.clock.advance(0.1)
            await settle()
            assert served.running == 0
            assert served.clock.getDelayedCalls() == []

        asyncio.run(main())
        (line,) = errors(caplog)
        assert line.startswith("The application for GET '/page' still ran 7 seconds after ")

    def test_it_may_stay_for_ever(self) -> None:
        async def main() -> None:
            served = await TestDisconnect.lost(self.stubborn, application_close_timeout=-1)
            served.clock.advance(1e9)
            await settle()
            assert served.running == 1

        asyncio.run(main())

    def test_application_that_ends_in_time_leaves_no_timer(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def main() -> None:
            served = await TestDisconnect.lost(application)
            assert (served.running, served.clock.getDelayedCalls()) == (0, [])

        asyncio.run(main())
        assert caplog.records == []

    def test_work_after_a_complete_response_is_not_cancelled_when_the_peer_leaves(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(LAST)
            await asyncio.Event().wait()

        async def main() -> None:
            served = await TestDisconnect.lost(application, application_close_timeout=1)
            served.clock.advance(1e6)
            await settle()
            assert served.running == 1

        asyncio.run(main())


class TestActions:
    def test_action_logger_is_called_as_daphne_calls_it(self) -> None:
        calls: list[tuple[str, str, dict[str, Any]]] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(LAST)

        asyncio.run(Served(application, lambda *call: calls.append(call)).open())
        ((protocol, action, details),) = calls
        assert (protocol, action, details["status"], details["path"]) == ("http", "complete", 200, "/page")

    def test_action_logger_that_fails_does_no_harm(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(*_: object) -> None:
            raise ValueError

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(LAST)

        async def main() -> None:
            _, stream = await Served(application, broken).open()
            assert stream.calls[-1] == "end"

        asyncio.run(main())
        assert errors(caplog) == ["Exception in the action logger"]

    def test_own_logger_is_always_told_and_the_access_log_when_it_is_on(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            """Never called."""

        hub = Hub(application, Settings(), lambda *_: None)
        assert hub.logs_actions
        hub = Hub(application, Settings(), None)
        assert isinstance(hub.action_logger, AccessLog)
        assert hub.logs_actions is hub.action_logger.enabled

    @pytest.mark.parametrize("request_", [GET, None])
    @pytest.mark.parametrize("client", [("192.0.2.7", 80), None])
    def test_refusal_is_information_without_traceback(
        self, request_: Request | None, client: tuple[str, int] | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        calls: list[tuple[str, str, dict[str, Any]]] = []
        hub = Served(TestClosingTimeout.stubborn, lambda *call: calls.append(call)).hub
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
        hub = Served(TestClosingTimeout.stubborn, AccessLog("%(event)s %(method)s %(path)s %(status)s %(size)s")).hub
        hub.request_refused(asked, ADDRESSES, RequestError(status, "No."))
        lines = [record.getMessage() for record in caplog.records if record.name == "asgiserver.access"]
        refused = f"rejected WSREJECT /ws {status} -" if asked.upgrade else f"complete GET /page {status} 4"
        assert lines == [refused]

    def test_refused_request_has_what_an_answered_one_has(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            for message in [START, LAST] if scope["type"] == "http" else [{"type": "websocket.close"}]:
                await send(message)

        async def main() -> None:
            served = Served(application, lambda *call: calls.append(call))
            await served.open(GET)
            served.hub.request_refused(GET, ADDRESSES, RequestError(503, "The server is busy."))
            await served.open(UPGRADE)
            served.hub.request_refused(UPGRADE, ADDRESSES, RequestError(426, "No."))

        calls: list[tuple[str, str, dict[str, Any]]] = []
        asyncio.run(main())
        answered, refused, _, rejected, refused_websocket = calls
        for one, other in ((answered, refused), (rejected, refused_websocket)):
            assert one[:2] == other[:2]
            assert one[2].keys() == other[2].keys()
            assert all(one[2][name] == other[2][name] for name in ("path", "client", "scheme", "headers"))

    def test_long_target_of_a_refused_request_is_cut_in_the_servers_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "asgiserver")
        hub = Served(TestClosingTimeout.stubborn).hub
        hub.request_refused(GET._replace(target=b"/" + b"a" * 10_000), ADDRESSES, RequestError(413, "It is too large."))
        (line,) = [record.getMessage() for record in caplog.records if record.name == "asgiserver"]
        assert f"GET b'/{'a' * 199}' of" in line

    def test_refusal_that_nobody_wants_to_know_of_makes_no_scope(self) -> None:
        """As for a scanner's requests with the access log off."""
        hub = Hub(TestClosingTimeout.stubborn, Settings(), None)
        logging.getLogger("asgiserver.access").setLevel(logging.WARNING)
        hub._scopes = None  # type: ignore[assignment]
        try:
            hub.request_refused(GET, ADDRESSES, RequestError(413, "It is too large."))
        finally:
            logging.getLogger("asgiserver.access").setLevel(logging.NOTSET)


class TestConnections:
    def test_one_too_many_is_refused_and_its_leave_makes_no_room_for_two(self) -> None:
        hub = Served(TestClosingTimeout.stubborn, limit_connections=2).hub
        first, second, third, fourth = (object() for _ in range(4))
        made: Any = hub.connection_made
        assert [made(first), made(second), made(third)] == [True, True, False]
        hub.connection_lost(second)  # type: ignore[arg-type]
        assert made(fourth)
        hub.connection_lost(third)  # type: ignore[arg-type]
        assert hub.connections == {first, fourth}
        assert not made(second)

    def test_limit_can_be_off(self) -> None:
        made: Any = Served(TestClosingTimeout.stubborn, limit_connections=0).hub.connection_made
        assert all(made(object()) for _ in range(100))
