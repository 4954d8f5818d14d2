from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LoggingFile, LogLevel, globalLogPublisher

from asgiserver import service
from asgiserver.errors import LifespanError, ListenError, ReactorError, SettingsError
from asgiserver.service import ASGIService, Options, makeService
from asgiserver.settings import Settings


async def application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application was called")


class FakeReactor(Clock):
    """Time, and shutdown triggers that are fired by the test."""

    running = True

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__()
        self.loop = loop
        self.stopped = 0
        self.triggers: list[tuple[str, str, Callable[[], Deferred[None]]]] = []

    def stop(self) -> None:
        self.stopped += 1

    def addSystemEventTrigger(self, phase: str, event: str, function: Callable[[], Deferred[None]]) -> None:
        self.triggers.append((phase, event, function))


class FakeServer:
    """Serves until it is stopped, or fails."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments = arguments
        self.keywords = keywords
        self.error: Exception | None = None
        self.asked = asyncio.Event()
        self.serving = False

    async def serve(self) -> None:
        self.serving = True
        if self.error is not None:
            raise self.error
        await self.asked.wait()
        self.serving = False

    def stop(self) -> None:
        self.asked.set()


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> FakeReactor:
    reactor = FakeReactor()
    monkeypatch.setattr(service, "install_reactor", lambda: reactor)
    monkeypatch.setattr(service, "loop_of", lambda reactor: reactor.loop)
    return reactor


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, reactor: FakeReactor) -> ASGIService:
    monkeypatch.setattr(service, "Server", FakeServer)
    return ASGIService(application, endpoints=["tcp:0"])


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


class TestService:
    def test_a_wrong_setting_is_found_when_it_is_made(self) -> None:
        with pytest.raises(SettingsError, match="unknown setting 'prot'"):
            ASGIService(application, prot=8000)

    def test_settings_and_keywords_are_the_servers(self, made: ASGIService) -> None:
        assert made.server.arguments == (application, None)  # type: ignore[attr-defined]
        assert made.server.keywords == {"endpoints": ["tcp:0"]}  # type: ignore[attr-defined]
        assert ASGIService(application, Settings(port=0), root_path="/x").server is not made.server

    def test_starting_waits_for_the_reactor_to_run(self, made: ASGIService, reactor: FakeReactor) -> None:
        async def main() -> None:
            made.startService()
            await turns()
            assert made.running
            assert not made.server.serving  # type: ignore[attr-defined]
            reactor.advance(0)
            await turns()
            assert made.server.serving  # type: ignore[attr-defined]
            made.stopService()
            await turns()

        asyncio.run(main())

    def test_stopping_fires_when_the_server_has_ended(self, made: ASGIService, reactor: FakeReactor) -> None:
        async def main() -> None:
            made.startService()
            reactor.advance(0)
            await turns()
            stopped = made.stopService()
            assert stopped is not None
            assert not stopped.called
            await stopped.asFuture(asyncio.get_running_loop())
            assert not made.running
            assert not made.server.serving  # type: ignore[attr-defined]
            assert made.stopService() is None

        asyncio.run(main())
        assert reactor.stopped == 0

    def test_stopping_before_the_reactor_ran_serves_nothing(self, made: ASGIService, reactor: FakeReactor) -> None:
        made.startService()
        assert made.stopService() is None
        assert reactor.getDelayedCalls() == []

    def test_it_can_be_started_again(self, made: ASGIService, reactor: FakeReactor) -> None:
        async def main() -> None:
            servers = []
            for _ in range(2):
                made.startService()
                reactor.advance(0)
                await turns()
                assert made.server.serving  # type: ignore[attr-defined]
                servers.append(made.server)
                stopped = made.stopService()
                assert stopped is not None
                await stopped.asFuture(asyncio.get_running_loop())
            assert servers[0] is not servers[1]

        asyncio.run(main())

    def test_another_reactor_is_an_error_at_once(self, made: ASGIService, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "install_reactor", refuse)
        with pytest.raises(ReactorError):
            made.startService()
        assert not made.running

    def test_under_twistd_that_is_one_line(self, made: ASGIService, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "install_reactor", refuse)
        monkeypatch.setattr(sys, "stdout", LoggingFile(Logger()))
        with pytest.raises(ReactorError) as caught:
            made.startService()
        assert isinstance(caught.value, SystemExit)
        assert caught.value.code == "Twisted's EPollReactor is installed"

    @pytest.mark.parametrize("begun", [True, False])
    def test_it_logs_where_twisteds_log_has_begun(
        self, made: ASGIService, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch, begun: bool
    ) -> None:
        made.server.settings = Settings()  # type: ignore[misc]

        async def main() -> None:
            made.startService()
            reactor.advance(0)
            await turns()
            logging.getLogger("asgiserver").info("Listening")
            logging.getLogger("asgiserver.access").info("GET /")
            made.stopService()
            await turns()

        events: list[LogEvent] = []
        with logging_of_a_fresh_process():
            globalLogPublisher.addObserver(events.append)
            if begun:
                monkeypatch.setattr(sys, "stdout", LoggingFile(Logger()))
            try:
                asyncio.run(main())
            finally:
                globalLogPublisher.removeObserver(events.append)
        seen = [(event["log_namespace"], event["text"]) for event in events]
        assert seen == ([("asgiserver", "Listening"), ("asgiserver.access", "GET /")] if begun else [])

    def test_a_wrong_setting_of_the_log_ends_the_reactor(
        self, made: ASGIService, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made.server.settings = Settings(access_log="/nowhere/access.log")  # type: ignore[misc]
        monkeypatch.setattr(sys, "stdout", LoggingFile(Logger()))

        async def main() -> None:
            made.startService()
            reactor.advance(0)
            await turns()

        with logging_of_a_fresh_process():
            asyncio.run(main())
        assert reactor.stopped == 1


def refuse() -> None:
    raise ReactorError("Twisted's EPollReactor is installed")


class TestFailure:
    @pytest.mark.parametrize(
        ("error", "status", "traceback"),
        [(ListenError("cannot listen"), 1, False), (LifespanError("no database"), 3, False), (OSError("odd"), 1, True)],
    )
    def test_is_logged_and_ends_the_reactor_with_a_status(
        self, made: ASGIService, reactor: FakeReactor, caplog: pytest.LogCaptureFixture,
        error: Exception, status: int, traceback: bool,
    ) -> None:  # fmt: skip
        async def main() -> None:
            made.server.error = error  # type: ignore[attr-defined]
            made.startService()
            reactor.advance(0)
            await turns()
            assert made.stopService() is None

        asyncio.run(main())
        (record,) = caplog.records
        assert (record.levelno, record.exc_info is not None) == (logging.ERROR, traceback)
        assert str(error) in caplog.text
        assert reactor.stopped == 1
        assert left_with(reactor, ends=True) == status

    def test_leaves_the_status_to_others_when_a_service_still_needs_time(self, reactor: FakeReactor) -> None:
        service._end_reactor(reactor, 3)  # type: ignore[arg-type]
        assert left_with(reactor, ends=False) is None

    def test_while_the_reactor_stops_already_does_not_stop_it_twice(
        self, made: ASGIService, reactor: FakeReactor
    ) -> None:
        async def main() -> None:
            made.server.error = ListenError("cannot listen")  # type: ignore[attr-defined]
            made.startService()
            reactor.running = False
            reactor.advance(0)
            await turns()

        asyncio.run(main())
        assert reactor.stopped == 0


def left_with(reactor: FakeReactor, *, ends: bool) -> Any:
    """Fire the shutdown as a reactor does, whose loop runs; the status that the loop was left with."""
    ((phase, event, function),) = reactor.triggers
    assert (phase, event) == ("before", "shutdown")
    loop = asyncio.new_event_loop()
    reactor.loop = loop
    result = function()
    assert not result.called

    def end(_: object) -> None:
        reactor.running = not ends

    result.addCallback(end)
    loop.call_later(0.01, loop.stop)
    try:
        loop.run_forever()
    except SystemExit as error:
        return error.code
    finally:
        loop.close()
    return None


@contextmanager
def logging_of_a_fresh_process() -> Iterator[None]:
    """No handlers, not even those of pytest."""
    loggers = [logging.getLogger(name) for name in ("", "asgiserver", "asgiserver.access")]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.handlers.clear()
    try:
        yield
    finally:
        for one, handlers, level, propagate in before:
            one.handlers[:] = handlers
            one.setLevel(level)
            one.propagate = propagate


class TestCommand:
    def test_options_are_the_command_lines(self) -> None:
        options = Options()
        options.parseOptions(["-p", "0", "--root-path", "/x", "module:application"])
        assert options.path == "module:application"
        assert (options.interface.settings.port, options.interface.settings.root_path) == (0, "/x")

    @pytest.mark.parametrize(("arguments", "words"), [
        (["--port", "x", "app"], "expected a whole number"),
        ([], "required"),
        (["--proxy-headers-host", "X-Client", "app"], "needs --proxy-headers"),
    ])  # fmt: skip
    def test_a_wrong_option_is_one_line_and_status_2(
        self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            Options().parseOptions(arguments)
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("twist asgi: error: ")
        assert words in line

    @logging_of_a_fresh_process()
    def test_the_servers_log_goes_to_twisteds(self, reactor: FakeReactor) -> None:
        options = Options()
        options.parseOptions(["-p", "0", "examples.hello:application"])
        assert isinstance(makeService(options), ASGIService)
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        try:
            logging.getLogger("asgiserver").info("Listening on %s", "{port}")
            logging.getLogger("asgiserver").error("odd")
        finally:
            globalLogPublisher.removeObserver(events.append)
        seen = [(event["log_namespace"], event["log_level"], event["text"]) for event in events]
        assert seen == [
            ("asgiserver", LogLevel.info, "Listening on {port}"),
            ("asgiserver", LogLevel.error, "odd"),
        ]

    @logging_of_a_fresh_process()
    def test_a_logging_that_is_configured_already_is_kept(self, reactor: FakeReactor) -> None:
        mine = logging.NullHandler()
        logging.getLogger().addHandler(mine)
        options = Options()
        options.parseOptions(["-p", "0", "examples.hello:application"])
        makeService(options)
        assert logging.getLogger().handlers == [mine]

    def test_another_reactor_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(service, "install_reactor", refuse)
        options = Options()
        options.parseOptions(["-p", "0", "examples.hello:application"])
        with pytest.raises(SystemExit) as caught:
            makeService(options)
        assert caught.value.code == 1
        assert capsys.readouterr().err == "twist asgi: error: Twisted's EPollReactor is installed\n"
