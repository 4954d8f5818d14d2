"""What HTTP and WebSocket exchanges share: a waiting ``receive()``, and what an exchange says of itself."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from asgiserver.asgi.deadlines import Deadline
from asgiserver.asgi.exchange import Exchange, State, logged_request
from asgiserver.asgi.messages import ResponseBody
from asgiserver.settings import Settings
from tests.fakes import Clock, FakeHub, FakeStream, at_once, settle


class Letterbox(Exchange):
    """An exchange whose events the test puts in itself."""

    __slots__ = ("__weakref__", "letters")

    def __init__(self, clock: Clock | None = None) -> None:
        extensions = {"asgiserver": {"request_id": "9-1"}}
        scope = {"type": "http", "method": "GET", "path": "/\u2603", "extensions": extensions}
        super().__init__(scope, FakeStream(), FakeHub(), Settings(), clock or Clock())
        self.letters: list[dict[str, Any]] = []

    def _next_event(self) -> dict[str, Any] | None:
        return self.letters.pop(0) if self.letters else None

    def disconnected(self) -> None:
        self.state = State.GONE
        self._wake()

    @staticmethod
    def parse(message: Any) -> Any:
        raise AssertionError("nothing is sent here")

    def _fail(self, *_: object) -> None:
        raise AssertionError("nothing is sent here")

    take_reply = application_done = body_received = request_failed = _fail

    def post(self, *kinds: str) -> None:
        self.letters += ({"type": kind} for kind in kinds)
        self._wake()


class TestReceive:
    def test_event_that_is_there_comes_at_once(self) -> None:
        exchange = Letterbox()
        exchange.post("a", "b")
        assert [at_once(exchange.receive()), at_once(exchange.receive())] == [{"type": "a"}, {"type": "b"}]

    def test_waiting_receive_is_woken(self) -> None:
        async def main() -> None:
            exchange = Letterbox()
            task = asyncio.ensure_future(exchange.receive())
            await settle()
            assert not task.done()
            assert exchange.listening
            exchange.post("a")
            assert await task == {"type": "a"}
            assert not exchange.listening

        asyncio.run(main())

    def test_cancelled_receive_loses_no_event(self) -> None:
        async def main() -> None:
            exchange = Letterbox()
            task = asyncio.ensure_future(exchange.receive())
            await settle()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            exchange.post("a")
            assert await exchange.receive() == {"type": "a"}

        asyncio.run(main())

    def test_receive_that_is_cancelled_just_after_it_was_woken_loses_no_event(self) -> None:
        async def main() -> None:
            exchange = Letterbox()
            task = asyncio.ensure_future(exchange.receive())
            await settle()
            exchange.post("a")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert await exchange.receive() == {"type": "a"}

        asyncio.run(main())

    def test_of_several_that_wait_each_event_goes_to_one(self) -> None:
        async def main() -> None:
            exchange = Letterbox()
            tasks = [asyncio.ensure_future(exchange.receive()) for _ in range(3)]
            await settle()
            exchange.post("a", "b")
            await settle()
            assert [task.done() for task in tasks] == [True, True, False]
            exchange.post("c")
            assert [(await task)["type"] for task in tasks] == ["a", "b", "c"]

        asyncio.run(main())

    def test_being_woken_twice_does_no_harm(self) -> None:
        async def main() -> None:
            exchange = Letterbox()
            task = asyncio.ensure_future(exchange.receive())
            await settle()
            exchange.post("a")
            exchange.post("b")
            assert await task == {"type": "a"}
            assert await exchange.receive() == {"type": "b"}

        asyncio.run(main())


class TestRepeated:
    """An application that asks again after the end is told without a turn of the loop."""

    @staticmethod
    def gone() -> Letterbox:
        exchange = Letterbox()
        exchange.disconnected()
        exchange._told = True
        exchange.post(*["end"] * 5000)
        return exchange

    def test_no_wait_hides_the_answer(self) -> None:
        exchange = self.gone()
        for _ in range(50):
            with pytest.raises(StopIteration) as stopped:
                exchange.receive().send(None)
            assert stopped.value.value == {"type": "end"}

    def test_a_tight_loop_lets_others_have_their_turn(self) -> None:
        async def main() -> None:
            exchange, turns = self.gone(), 0

            async def others() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(others())
            for _ in range(5000):
                await exchange.receive()
            assert turns >= 10
            task.cancel()

        asyncio.run(main())


class TestState:
    ANSWERED = {State.OPEN, State.CLOSING, State.COMPLETE, State.GONE}

    @pytest.mark.parametrize("state", State)
    def test_what_a_state_means(self, state: State) -> None:
        exchange = Letterbox()
        exchange.state = state
        assert exchange.gone == (state is State.GONE)
        assert exchange.finished == (state in (State.COMPLETE, State.GONE))
        assert exchange.answered == (state in self.ANSWERED)

    @pytest.mark.parametrize("state", State)
    def test_every_state_explains_why_a_reply_is_unexpected(self, state: State) -> None:
        exchange = Letterbox()
        exchange.state = state
        error = exchange._unexpected(ResponseBody(b"", False))
        assert str(error).startswith("http.response.body was sent ")
        assert isinstance(error, RuntimeError)


class TestDeadlines:
    def test_exchange_that_needs_none_has_none(self) -> None:
        clock = Clock()
        Letterbox(clock).release()
        assert clock.getDelayedCalls() == []

    def test_release_leaves_no_timer_that_keeps_the_exchange_alive(self) -> None:
        clock = Clock()
        exchange = Letterbox(clock)
        exchange.deadlines.set(Deadline.APPLICATION, 10, exchange.disconnected)
        exchange.release()
        assert clock.getDelayedCalls() == []
        watched = weakref.ref(exchange)
        del exchange
        gc.collect()
        assert watched() is None

    def test_release_keeps_what_the_peer_still_owes(self) -> None:
        clock = Clock()
        exchange = Letterbox(clock)
        exchange.deadlines.set(Deadline.APPLICATION, 10, pytest.fail)
        exchange.deadlines.set(Deadline.CLOSE, 20, exchange.disconnected)
        exchange.release()
        clock.advance(20)
        clock.advance(0)
        assert exchange.gone


class TestNames:
    def test_exchange_is_named_in_the_log_by_method_and_path(self) -> None:
        assert str(Letterbox()) == "GET '/\u2603'"
        exchange = Letterbox()
        del exchange.scope["method"]
        assert str(exchange) == "WEBSOCKET '/\u2603'"

    def test_line_breaks_in_a_path_are_shown_escaped(self) -> None:
        exchange = Letterbox()
        exchange.scope["path"] = "/a\r\nb"
        assert "\n" not in str(exchange)

    @pytest.mark.parametrize(("client", "shown"), [(("192.0.2.7", 80), "192.0.2.7:80"), (None, None)])
    @pytest.mark.parametrize(("query", "path"), [(b"", "/a%20b"), (b"c=d", "/a%20b?c=d")])
    def test_action_logger_is_told_path_and_client(
        self, client: tuple[str, int] | None, shown: str | None, query: bytes, path: str
    ) -> None:
        scope = {
            "client": client, "raw_path": b"/a%20b", "query_string": query, "http_version": "1.1", "scheme": "http",
            "headers": [(b"a", b"b")],
        }
        assert logged_request(scope, "9-1") == {
            "path": path, "client": shown, "http_version": "1.1", "scheme": "http", "headers": [(b"a", b"b")],
            "request_id": "9-1",
        }
