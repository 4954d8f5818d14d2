"""The lifespan: start-up, shutdown, and every way in which an application can miss them.

An application is a list of steps: what it receives, sends, awaits and raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from asgiserver.asgi.interfaces import Message, Receive, Scope, Send
from asgiserver.asgi.lifespan import Lifespan
from asgiserver.errors import LifespanError, MessageError, UnexpectedMessage
from asgiserver.settings import Settings

COMPLETE: Message = {"type": "lifespan.startup.complete"}
FAILED: Message = {"type": "lifespan.startup.failed", "message": "no database"}
SHUTDOWN_COMPLETE: Message = {"type": "lifespan.shutdown.complete"}
SHUTDOWN_FAILED: Message = {"type": "lifespan.shutdown.failed", "message": "lost the cache"}

#: A deadline that passes within a test, and one that only a broken test reaches; seconds.
SHORT, LONG = 0.05, 10.0

def make(application: Callable[..., Awaitable[None]], **settings: Any) -> Lifespan:
    settings = {"lifespan_startup_timeout": LONG, "lifespan_shutdown_timeout": LONG} | settings
    return Lifespan(application, Settings(**settings))


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LONG / 2):
            await coroutine
        assert asyncio.all_tasks() == {asyncio.current_task()}, "the application's task is left over"

    asyncio.run(bounded())


def start_and_stop(lifespan: Lifespan) -> None:
    async def both() -> None:
        await lifespan.startup()
        await lifespan.shutdown()

    run(both())


def start_error(lifespan: Lifespan) -> LifespanError:
    async def start() -> None:
        with pytest.raises(LifespanError) as caught:
            await lifespan.startup()
        errors.append(caught.value)
        await lifespan.shutdown()

    errors: list[LifespanError] = []
    run(start())
    assert not lifespan.supported
    return errors[0]


def records(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """The log lines of at least ``level``."""
    return [record.getMessage() for record in caplog.records if record.levelno >= level and record.name == "asgiserver"]


@pytest.fixture(autouse=True)
def _debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asgiserver")


class Application:
    """Does one step after the other: sends a message, raises an exception, or calls what it is given.

    :ivar seen: the events that it received, and what else a test has it note.
    """

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.seen: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            if step is RECEIVE:
                self.seen.append((await receive())["type"])
            elif isinstance(step, str):
                self.seen.append(step)
            elif callable(step):
                await step()
            else:
                await send(step)


RECEIVE = object()


async def stay() -> None:
    await asyncio.Event().wait()


async def pause() -> None:
    await asyncio.sleep(0.01)


GOOD = (RECEIVE, COMPLETE, RECEIVE, SHUTDOWN_COMPLETE)


async def good(scope: Scope, receive: Receive, send: Send) -> None:
    await Application(*GOOD)(scope, receive, send)


class TestGoodApplication:
    @pytest.mark.parametrize("mode", ["auto", "on"])
    def test_it_gets_both_events_in_order(self, mode: str, caplog: pytest.LogCaptureFixture) -> None:
        application = Application(*GOOD)
        lifespan = make(application, lifespan=mode)
        start_and_stop(lifespan)
        assert application.seen == ["lifespan.startup", "lifespan.shutdown"]
        assert (lifespan.supported, lifespan.failed, caplog.messages) == (True, False, [])

    def test_its_scope_is_that_of_the_specification(self) -> None:
        scopes: list[Scope] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            scopes.append(scope)
            await good(scope, receive, send)

        lifespan = make(application)
        start_and_stop(lifespan)
        assert scopes == [{"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}]
        assert scopes[0]["state"] is lifespan.state

    def test_what_it_puts_into_the_state_can_be_read_after_the_start_up(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["pool"] = "open"
            await good(scope, receive, send)

        async def main() -> None:
            lifespan = make(application)
            await lifespan.startup()
            assert lifespan.state == {"pool": "open"}
            await lifespan.shutdown()

        run(main())

    def test_start_up_waits_for_it_and_shutdown_does_too(self) -> None:
        application = Application(
            RECEIVE, pause, "started", COMPLETE, RECEIVE, pause, "stopped", SHUTDOWN_COMPLETE, pause, "ended"
        )

        async def main() -> None:
            lifespan = make(application)
            await lifespan.startup()
            application.seen.append("serving")
            await lifespan.shutdown()

        run(main())
        assert application.seen == [
            "lifespan.startup", "started", "serving", "lifespan.shutdown", "stopped", "ended",
        ]  # fmt: skip

    def test_it_may_complete_without_receiving(self) -> None:
        lifespan = make(Application(COMPLETE))
        start_and_stop(lifespan)
        assert (lifespan.supported, lifespan.failed) == (True, False)

    def test_no_limits_mean_no_limits(self) -> None:
        lifespan = make(good, lifespan_startup_timeout=-1, lifespan_shutdown_timeout=-1)
        start_and_stop(lifespan)
        assert lifespan.supported

    def test_a_cancelled_receive_loses_no_event(self) -> None:
        events: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            events.append((await receive())["type"])
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            await send(COMPLETE)
            events.append((await receive())["type"])
            await send(SHUTDOWN_COMPLETE)

        start_and_stop(make(application))
        assert events == ["lifespan.startup", "lifespan.shutdown"]

    def test_a_loop_around_receive_ends_with_the_shutdown(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while True:
                event = await receive()
                await send({"type": event["type"] + ".complete"})

        lifespan = make(application)
        start_and_stop(lifespan)
        assert not lifespan.failed


class TestOff:
    def test_the_application_is_not_called(self) -> None:
        def application(*arguments: Any) -> Any:
            raise AssertionError("called")

        lifespan = make(application, lifespan="off")
        start_and_stop(lifespan)
        assert not lifespan.supported
        assert lifespan.state == {}


async def lets_a_cancellation_through() -> None:
    other = asyncio.ensure_future(asyncio.sleep(LONG))
    other.cancel()
    await other


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("it has no text")


def is_no_coroutine_function(scope: Scope) -> None:
    raise AssertionError("not reached: it takes one argument")


WITHOUT_LIFESPAN = [
    (Application(ValueError("only http here")), "raised ValueError: only http here"),
    (Application(RECEIVE, AssertionError("what is that?")), "raised AssertionError: what is that?"),
    (Application(), "returned"),
    (Application(SystemExit(5)), "raised SystemExit: 5"),
    (Application(lets_a_cancellation_through), "raised asyncio.exceptions.CancelledError"),
    (Application(Unprintable()), "raised tests.asgi.test_lifespan.Unprintable: <exception str() failed>"),
    (is_no_coroutine_function, "raised TypeError: "),
]


class TestApplicationWithoutLifespan:
    @pytest.mark.parametrize(("application", "what"), WITHOUT_LIFESPAN)
    def test_auto_serves_without_it_and_stays_quiet(
        self, application: Any, what: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        lifespan = make(application)
        start_and_stop(lifespan)
        assert (lifespan.supported, lifespan.failed) == (False, False)
        (record,) = [record for record in caplog.records if record.name == "asgiserver"]
        assert what in record.getMessage()
        assert "\n" not in record.getMessage()
        assert record.exc_info is None
        # One that took the event may have meant to start.
        took_it = isinstance(application, Application) and RECEIVE in application.steps
        assert record.levelno == (logging.WARNING if took_it else logging.DEBUG)

    def test_auto_does_not_name_one_that_takes_the_event_and_returns(self, caplog: pytest.LogCaptureFixture) -> None:
        start_and_stop(make(Application(RECEIVE)))
        assert records(caplog) == []
        assert records(caplog, logging.DEBUG) == ["The application has no lifespan: it returned"]

    @pytest.mark.parametrize(("application", "what"), WITHOUT_LIFESPAN)
    def test_on_is_an_error_with_the_cause(self, application: Any, what: str) -> None:
        error = start_error(make(application, lifespan="on"))
        assert f"the application {what}" in str(error)
        assert (error.__cause__ is None) == (what == "returned")


NO_DATABASE = "the application failed to start: no database"
LATE = "the application did not start within 0.05 s (lifespan_startup_timeout)"
SOON = {"lifespan_startup_timeout": SHORT}

#: What an application does, the settings, and the error of the start-up.
FAILED_START_UPS = {
    "its message is the error": ([RECEIVE, FAILED], {"lifespan": "auto"}, NO_DATABASE),
    "its message is the error when it must have a lifespan": ([RECEIVE, FAILED], {"lifespan": "on"}, NO_DATABASE),
    "it may have no message": ([{"type": "lifespan.startup.failed"}], {}, "the application failed to start: "),
    "what is raised behind it is not reported twice": ([FAILED, ConnectionError("no database")], {}, NO_DATABASE),
    "cleaning up has a deadline": ([FAILED, stay], {"lifespan_shutdown_timeout": SHORT}, NO_DATABASE),
    "it never answers": ([stay], {"lifespan": "auto", **SOON}, LATE),
    "it never answers and must have a lifespan": ([stay], {"lifespan": "on", **SOON}, LATE),
    "waiting for another event is no answer": ([RECEIVE, RECEIVE], SOON, LATE),
}


class TestFailedStartUp:
    @pytest.mark.parametrize(("steps", "settings", "text"), FAILED_START_UPS.values(), ids=list(FAILED_START_UPS))
    def test_it_is_an_error(
        self, steps: list[Any], settings: dict[str, Any], text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert str(start_error(make(Application(*steps), **settings))) == text
        assert records(caplog) == []

    def test_the_application_may_clean_up_behind_it(self) -> None:
        application = Application(FAILED, pause, "cleaned up")
        start_error(make(application))
        assert application.seen == ["cleaned up"]

    def test_a_loop_around_receive_ends_behind_it(self) -> None:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            while await receive():
                await send(FAILED)

        start_error(make(application))


class TestStartUpDeadline:
    def test_an_application_that_ignores_its_cancellation_is_left_and_named(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asgiserver.asgi.lifespan._CANCEL_TIMEOUT", SHORT)

        async def main() -> None:
            released = asyncio.Event()

            async def application(scope: Scope, receive: Receive, send: Send) -> None:
                while not released.is_set():
                    try:
                        await released.wait()
                    except asyncio.CancelledError:
                        continue

            with pytest.raises(LifespanError):
                await make(application, lifespan_startup_timeout=SHORT).startup()
            released.set()
            await asyncio.sleep(0)

        run(main())
        assert records(caplog) == ["The application's lifespan does not end though it was cancelled"]


class TestCancelledStartUp:
    def test_the_application_is_cancelled_and_has_ended(self, caplog: pytest.LogCaptureFixture) -> None:
        steps: list[str] = []

        async def main() -> None:
            receiving = asyncio.Event()

            async def application(scope: Scope, receive: Receive, send: Send) -> None:
                receiving.set()
                try:
                    await stay()
                finally:
                    await asyncio.sleep(0)
                    steps.append("cleaned up")

            lifespan = make(application)
            starting = asyncio.ensure_future(lifespan.startup())
            await receiving.wait()
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            steps.append("cancelled")
            await lifespan.shutdown()

        run(main())
        assert steps == ["cleaned up", "cancelled"]
        assert records(caplog) == []


class TestEndWhileServing:
    def test_an_exception_is_logged_once_and_shutdown_returns_at_once(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            lifespan = make(Application(COMPLETE, pause, ValueError("the background broke")))
            await lifespan.startup()
            assert lifespan.supported
            await asyncio.wait([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
            await lifespan.shutdown()
            assert lifespan.failed
            assert str(lifespan.error) == "the background broke"

        run(main())
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == "the background broke"

    @pytest.mark.parametrize(("steps", "settings", "failed", "errors"), [
        # An exception right behind the start-up does not undo it, and a return is no failure.
        ([COMPLETE, SystemExit(1)], {"lifespan": "on"}, True, 1),
        ([COMPLETE], {}, False, 0),
    ])  # fmt: skip
    def test_right_behind_the_start_up(
        self, steps: list[Any], settings: Any, failed: bool, errors: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        lifespan = make(Application(*steps), **settings)
        start_and_stop(lifespan)
        assert (lifespan.supported, lifespan.failed) == (True, failed)
        assert len(records(caplog)) == len(records(caplog, logging.ERROR)) == errors


LOST = RuntimeError("lost the cache")
RAISED = "The application's lifespan raised an exception"

#: What an application does behind its start-up, whether its shutdown has failed, and what is logged.
SHUTDOWNS = {
    "a failure is logged with its message once": (
        [RECEIVE, RECEIVE, SHUTDOWN_FAILED, LOST], True, ["The application failed to shut down: lost the cache"],
    ),
    "an exception before its answer": ([RECEIVE, RECEIVE, LOST], True, [RAISED]),
    "an exception behind its answer": ([RECEIVE, RECEIVE, SHUTDOWN_COMPLETE, LOST], True, [RAISED]),
    "it never answers": (
        [stay], True, ["The application did not shut down within 0.05 s (lifespan_shutdown_timeout)"],
    ),
    "it runs on after its answer": ([RECEIVE, RECEIVE, SHUTDOWN_COMPLETE, stay], False, []),
}  # fmt: skip


class TestShutdown:
    def test_it_can_be_called_twice_and_without_a_start_up(self) -> None:
        async def main() -> None:
            lifespan = make(good)
            await lifespan.shutdown()
            await lifespan.startup()
            await lifespan.shutdown()
            await lifespan.shutdown()

        run(main())

    @pytest.mark.parametrize(("steps", "failed", "logged"), SHUTDOWNS.values(), ids=list(SHUTDOWNS))
    def test_its_end(
        self, steps: list[Any], failed: bool, logged: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        stays = {"lifespan_shutdown_timeout": SHORT} if stay in steps else {}
        lifespan = make(Application(COMPLETE, *steps), **stays)
        start_and_stop(lifespan)
        assert lifespan.failed is failed
        assert records(caplog) == logged
        assert ("RuntimeError: lost the cache" in caplog.text) == (logged == [RAISED])

    def test_cancelling_it_cancels_the_application(self) -> None:
        async def main() -> None:
            stopping = asyncio.Event()

            async def told() -> None:
                stopping.set()

            lifespan = make(Application(RECEIVE, COMPLETE, RECEIVE, told, stay))
            await lifespan.startup()
            shutdown = asyncio.ensure_future(lifespan.shutdown())
            await stopping.wait()
            shutdown.cancel()
            with pytest.raises(asyncio.CancelledError):
                await shutdown

        run(main())


class TestWrongMessages:
    """Each is sent at a moment of its own, and the error must come out of that very ``send()``."""

    #: What the application has done before it sends the wrong message, by name.
    BEFORE = {"start-up": [], "serving": [COMPLETE], "shutdown": [COMPLETE, SHUTDOWN_COMPLETE]}

    def error(self, before: str, message: Any) -> BaseException:
        caught: list[BaseException] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            for answer in self.BEFORE[before]:
                await receive()
                await send(answer)
            try:
                await send(message)
            except Exception as error:
                caught.append(error)
            if before == "start-up":
                await send(COMPLETE)

        lifespan = make(application)
        start_and_stop(lifespan)
        assert lifespan.supported, "a wrong message must not change anything"
        return caught[0]

    @pytest.mark.parametrize("before", list(BEFORE))
    def test_an_unknown_type_names_those_that_are_known(self, before: str) -> None:
        error = self.error(before, {"type": "http.response.start"})
        assert isinstance(error, MessageError)
        assert "lifespan.startup.complete, lifespan.startup.failed" in str(error)

    @pytest.mark.parametrize("message", [None, {}, {"type": None}, []])
    def test_what_is_no_message_is_refused(self, message: Any) -> None:
        assert isinstance(self.error("start-up", message), MessageError)

    def test_a_failure_needs_a_text(self) -> None:
        error = self.error("start-up", {"type": "lifespan.startup.failed", "message": b"bytes"})
        assert isinstance(error, MessageError)
        assert str(error) == 'lifespan.startup.failed: "message" must be a str, got bytes'

    @pytest.mark.parametrize(("before", "message", "moment"), [
        ("start-up", SHUTDOWN_COMPLETE, "before the start-up was complete"),
        ("start-up", SHUTDOWN_FAILED, "before the start-up was complete"),
        ("serving", COMPLETE, "before the shutdown was asked for"),
        ("serving", FAILED, "before the shutdown was asked for"),
        ("serving", SHUTDOWN_COMPLETE, "before the shutdown was asked for"),
        ("shutdown", COMPLETE, "after the shutdown was complete"),
        ("shutdown", SHUTDOWN_COMPLETE, "after the shutdown was complete"),
        ("shutdown", SHUTDOWN_FAILED, "after the shutdown was complete"),
    ])  # fmt: skip
    def test_a_message_at_the_wrong_moment_says_which(self, before: str, message: Message, moment: str) -> None:
        error = self.error(before, message)
        assert isinstance(error, UnexpectedMessage)
        assert str(error) == f"{message['type']} was sent {moment}"
