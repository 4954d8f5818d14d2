"""``LiveServer``: in a thread, on the running loop, in a process; what it raises, and that nothing is left."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from asgiserver.errors import ApplicationError, LifespanError, ListenError, SettingsError, StartupError
from asgiserver.testing import LiveServer
from tests.test_readme import example

from . import live_applications as applications
from .live import in_loop
from .live_applications import application
from .server import DEADLINE, ROOT, connects, environment, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

THREAD, FORK = False, "fork"


def visit(server: LiveServer, *paths: str) -> None:
    for path in paths:
        assert httpx.get(server.url + path).status_code == (200 if path == "/" else 500)


def fail(server: LiveServer) -> None:
    visit(server, "/fail")
    raise AssertionError("the test fails")


def make_it_exit(server: LiveServer) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(server.url + "/exit")
    wait_for(lambda: not multiprocessing.active_children())


def status_of(program: str) -> int:
    """The exit status of a Python program of its own."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env=environment(), timeout=DEADLINE, check=False).returncode


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    threads, reactor = set(threading.enumerate()), sys.modules.get("twisted.internet.reactor")
    filters = [logging.getLogger(name).filters[:] for name in ("asgiserver", "asgiserver.access")]
    yield
    # A client's own thread may end a moment after its connection.
    wait_for(lambda: set(threading.enumerate()) <= threads)
    assert sys.modules.get("twisted.internet.reactor") is reactor
    assert not multiprocessing.active_children()
    assert [logging.getLogger(name).filters for name in ("asgiserver", "asgiserver.access")] == filters


@pytest.mark.parametrize("process", [THREAD, FORK], ids=["thread", "process"])
class TestWith:
    def test_it_serves(self, process: Any) -> None:
        with LiveServer(application, process=process) as server:
            assert server.url == f"http://127.0.0.1:{server.port}"
            pid, thread = httpx.get(server.url).text.split()
            with connect(server.ws_url) as socket:
                socket.ping().wait(DEADLINE)
        assert (int(pid) != os.getpid()) == bool(process)
        assert process or int(thread) != threading.get_ident()
        assert not connects(server.port)

    def test_its_log_has_the_requests_and_outlives_it(self, process: Any) -> None:
        with LiveServer(application, process=process) as server:
            httpx.get(server.url + "/some/path")
            wait_for(lambda: "GET /some/path" in server.logs)
        assert f", 1 process\nINFO asgiserver: Listening on {server.url}\n" in server.logs
        assert server.logs.endswith("INFO asgiserver: Stopping\nINFO asgiserver: Stopped\n")

    def test_what_the_application_raises_is_raised_at_the_end(self, process: Any) -> None:
        with (
            pytest.raises(ZeroDivisionError, match="the application fails"),
            LiveServer(application, process=process) as server,
        ):
            assert httpx.get(server.url + "/fail").status_code == 500
        assert "ZeroDivisionError: the application fails" in server.logs
        # Once.
        assert server.exceptions == []

    def test_several_are_raised_as_a_group(self, process: Any) -> None:
        with (
            pytest.raises(ExceptionGroup, match="the application raised 2 exceptions") as caught,
            LiveServer(application, process=process) as server,
        ):
            visit(server, "/fail", "/fail-too")
        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError, LookupError]

    def test_they_can_be_expected(self, process: Any) -> None:
        with LiveServer(application, process=process) as server:
            httpx.get(server.url + "/fail")
            assert isinstance(server.exceptions.pop(), ZeroDivisionError)
            assert server.exceptions == []

    def test_they_are_there_as_soon_as_the_request_is_answered(self, process: Any) -> None:
        """The server answers first, and logs and tells of the exception then."""
        with LiveServer(application, process=process) as server:
            visit(server, "/fail-slowly")
            assert [type(each).__name__ for each in server.exceptions] == ["SlowError"]
            server.exceptions.clear()

    def test_they_can_be_looked_at_alone(self, process: Any) -> None:
        with LiveServer(application, process=process, raise_exceptions=False) as server:
            httpx.get(server.url + "/fail")
        assert [str(each) for each in server.exceptions] == ["the application fails"]

    def test_those_of_a_failing_test_are_its_notes(self, process: Any) -> None:
        with (
            pytest.raises(AssertionError, match="the test fails") as caught,
            LiveServer(application, process=process) as server,
        ):
            fail(server)
        (note,) = caught.value.__notes__
        assert note.startswith(f"Meanwhile the application of {server.url} raised:\n")
        assert "ZeroDivisionError: the application fails" in note
        assert not connects(server.port)

    def test_no_answer_is_an_error_of_the_application(self, process: Any) -> None:
        with (
            pytest.raises(ApplicationError, match="GET '/nothing' returned without a complete response"),
            LiveServer(application, process=process) as server,
        ):
            httpx.get(server.url + "/nothing")

    def test_a_stop_hides_no_answer_that_was_missing_before(
        self, process: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The block may end while the server still logs the failure for which it has answered."""

        def linger(record: logging.LogRecord) -> bool:
            if "without a complete response" in record.msg:
                time.sleep(0.3)
            return True

        monkeypatch.setattr(logging.getLogger("asgiserver"), "filters", [linger])
        with pytest.raises(ApplicationError), LiveServer(application, process=process) as server:
            visit(server, "/nothing")

    def test_a_system_exit_ends_neither_server_nor_test(self, process: Any) -> None:
        with (
            pytest.raises(RuntimeError, match="the application raised SystemExit"),
            LiveServer(application, process=process) as server,
        ):
            visit(server, "/leave", "/")

    def test_an_interrupt_that_the_application_raises_ends_neither(self, process: Any) -> None:
        with (
            pytest.raises(RuntimeError, match="the application raised KeyboardInterrupt"),
            LiveServer(application, process=process) as server,
        ):
            visit(server, "/interrupt", "/")

    def test_an_interrupt_of_the_user_stops_it(self, process: Any) -> None:
        with pytest.raises(KeyboardInterrupt), LiveServer(application, process=process) as server:
            raise KeyboardInterrupt
        assert not connects(server.port)

    def test_its_lifespan_is_run(self, process: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVE_FILE", str(tmp_path / "notes"))
        with LiveServer(applications.with_lifespan, process=process):
            assert (tmp_path / "notes").read_text() == "startup\n"
        assert (tmp_path / "notes").read_text() == "startup\nshutdown\n"

    def test_a_shutdown_that_fails_is_raised(self, process: Any) -> None:
        server = LiveServer(applications.failing_shutdown, process=process)
        with pytest.raises(RuntimeError, match="the shutdown fails"), server:
            pass

    def test_a_start_that_fails_is_raised_with_its_log(self, process: Any) -> None:
        with pytest.raises(StartupError) as caught, LiveServer(applications.failing_start, process=process):
            pass
        assert str(caught.value).startswith("the server did not start: the application failed to start: no database")
        assert isinstance(caught.value.__cause__, LifespanError)

    def test_a_start_that_takes_too_long(self, process: Any) -> None:
        server = LiveServer(applications.slow_start, process=process, startup_timeout=0.2)
        with pytest.raises(StartupError, match=r"it took longer than 0\.2 s"), server:
            pass

    def test_a_port_that_is_taken(self, process: Any) -> None:
        with (
            LiveServer(application) as first,
            pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1:{first.port}") as caught,
        ):
            LiveServer(application, port=first.port, process=process).__enter__()
        assert isinstance(caught.value.__cause__, ListenError)

    def test_clients_that_stay_do_not_hold_it_up(self, process: Any) -> None:
        with ExitStack() as clients:
            with LiveServer(application, process=process) as server:
                socket = clients.enter_context(connect(server.ws_url))
                response = clients.enter_context(httpx.stream("GET", server.url + "/endless"))
                assert next(response.iter_bytes()) == b"x"
                started = time.monotonic()
            assert time.monotonic() - started < DEADLINE
            with pytest.raises(ConnectionClosed):
                socket.recv(DEADLINE)

    def test_an_application_by_its_name(self, process: Any) -> None:
        with LiveServer("tests.e2e.live_applications:application", process=process) as server:
            assert httpx.get(server.url).status_code == 200

    def test_it_can_be_used_again(self, process: Any) -> None:
        server = LiveServer(application, process=process)
        for _ in range(2):
            with server:
                assert httpx.get(server.url).status_code == 200
        assert server.logs.count("Listening on") == 1


@pytest.mark.parametrize("process", [THREAD, FORK], ids=["loop", "process"])
class TestAsyncWith:
    def test_it_serves_on_the_running_loop(self, process: Any) -> None:
        @in_loop
        async def test() -> None:
            tasks = asyncio.all_tasks()
            async with LiveServer(application, process=process) as server, httpx.AsyncClient() as client:
                pid, thread = (await client.get(server.url)).text.split()
                async with async_connect(server.ws_url) as socket:
                    await socket.ping()
            assert (int(pid) != os.getpid()) == bool(process)
            assert process or int(thread) == threading.get_ident()
            assert asyncio.all_tasks() == tasks
            assert "GET /" in server.logs

        test()

    def test_what_the_application_raises_is_raised_at_the_end(self, process: Any) -> None:
        @in_loop
        async def test() -> None:
            with pytest.raises(ZeroDivisionError):
                async with LiveServer(application, process=process) as server, httpx.AsyncClient() as client:
                    await client.get(server.url + "/fail")

        test()

    def test_a_start_that_fails(self, process: Any) -> None:
        @in_loop
        async def test() -> None:
            with pytest.raises(StartupError, match="no database"):
                async with LiveServer(applications.failing_start, process=process):
                    pass

        test()

    def test_a_start_that_takes_too_long(self, process: Any) -> None:
        @in_loop
        async def test() -> None:
            with pytest.raises(StartupError, match=r"it took longer than 0\.2 s"):
                async with LiveServer(applications.slow_start, process=process, startup_timeout=0.2):
                    pass

        test()

    def test_a_test_that_is_cancelled_while_it_starts(self, process: Any) -> None:
        @in_loop
        async def test() -> None:
            server = LiveServer(applications.slow_start, process=process, startup_timeout=1)
            task = asyncio.ensure_future(server.__aenter__())
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait({task})
            assert asyncio.all_tasks() == {asyncio.current_task()}

        test()

    def test_a_test_that_is_cancelled_in_its_block(self, process: Any) -> None:
        @in_loop
        async def test() -> None:
            server = LiveServer(application, process=process)
            entered = asyncio.Event()

            async def body() -> None:
                async with server:
                    entered.set()
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(body())
            await entered.wait()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            assert not connects(server.port)

        test()


class TestThread:
    def test_from_a_coroutine(self) -> None:
        @in_loop
        async def test() -> None:
            with LiveServer(application) as server:
                async with httpx.AsyncClient() as client:
                    _, thread = (await client.get(server.url)).text.split()
            assert int(thread) != threading.get_ident()

        test()

    def test_several_at_once_are_told_apart(self) -> None:
        @in_loop
        async def test() -> None:
            async with LiveServer(application, raise_exceptions=False) as one, httpx.AsyncClient() as client:
                with LiveServer(application) as two, LiveServer(application) as three:
                    for server, path in ((one, "/fail"), (two, "/two"), (three, "/three")):
                        await client.get(server.url + path)
            assert [type(each) for each in one.exceptions] == [ZeroDivisionError]
            assert ("/fail" in one.logs, "/two" in one.logs, "/three" in one.logs) == (True, False, False)
            assert ("/fail" in two.logs, "/two" in two.logs, "/three" in two.logs) == (False, True, False)
            assert ("/fail" in three.logs, "/two" in three.logs, "/three" in three.logs) == (False, False, True)

        test()

    def test_a_server_of_the_hosts_beside_it(self) -> None:
        program = (
            "import asyncio, sys, httpx\n"
            "from asgiserver import Server\n"
            "from asgiserver.testing import LiveServer\n"
            "from tests.e2e.live_applications import application\n"
            "async def main():\n"
            "    async with Server(application, port=0, lifespan='off') as server, httpx.AsyncClient() as client:\n"
            "        reactor = sys.modules['twisted.internet.reactor']\n"
            "        with LiveServer(application) as live:\n"
            "            for url in (live.url, 'http://%s:%s' % server.listening_addresses[0]):\n"
            "                assert (await client.get(url)).status_code == 200\n"
            "        assert sys.modules['twisted.internet.reactor'] is reactor\n"
            "asyncio.run(main())\n"
        )
        assert status_of(program) == 0

    def test_any_reactor_may_be_installed(self) -> None:
        program = (
            "from twisted.internet import reactor\n"
            "import httpx\n"
            "from asgiserver.testing import LiveServer\n"
            "from tests.e2e.live_applications import application\n"
            "with LiveServer(application) as live:\n"
            "    assert httpx.get(live.url).status_code == 200\n"
        )
        assert status_of(program) == 0

    def test_fifty_in_a_row_leave_no_descriptor(self) -> None:
        def use(times: int) -> None:
            for _ in range(times):
                with LiveServer(application) as server, httpx.Client(trust_env=False, verify=False) as client:
                    client.get(server.url)

        use(2)
        before = descriptors()
        use(50)
        assert descriptors() <= before

    def test_logging_that_is_switched_off_hides_no_exception(self) -> None:
        logging.disable(logging.CRITICAL)
        try:
            with pytest.raises(ZeroDivisionError), LiveServer(application) as server:
                httpx.get(server.url + "/fail")
        finally:
            logging.disable(logging.NOTSET)

    def test_an_application_that_blocks_its_loop_is_waited_for(self) -> None:
        with LiveServer(applications.blocking, raise_exceptions=False) as server, pytest.raises(httpx.ReadTimeout):
            httpx.get(server.url, timeout=0.1)
        assert not connects(server.port)

    def test_an_interrupt_while_it_starts(self) -> None:
        async def interrupting(scope: Any, receive: Any, send: Any) -> None:
            signal.pthread_kill(main, signal.SIGINT)
            await asyncio.Event().wait()

        main = threading.get_ident()
        # A shell's background job ignores the signal.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt), LiveServer(interrupting):
                pass
        finally:
            signal.signal(signal.SIGINT, before)

    def test_clients_can_be_dropped(self) -> None:
        with LiveServer(application) as server:
            with connect(server.ws_url) as socket:
                assert server.drop_clients()
                with pytest.raises(ConnectionClosed):
                    socket.recv(DEADLINE)
            assert httpx.get(server.url).status_code == 200
        # F7. There are none any more, and no loop that could drop them.
        with pytest.raises(RuntimeError, match="of a server that runs"):
            server.drop_clients()

    def test_an_application_may_look_at_its_exceptions_itself(self) -> None:
        """On its own loop it does not wait for that loop."""

        async def looks(scope: Any, receive: Any, send: Any) -> None:
            number = str(len(server.exceptions)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": number})

        with LiveServer(looks, lifespan="off") as server:
            assert httpx.get(server.url).text == "0"

    def test_those_of_a_process_cannot_be_dropped(self) -> None:
        with LiveServer(application, process=FORK) as server, pytest.raises(RuntimeError, match="in a thread"):
            server.drop_clients()


class TestProcess:
    def test_it_can_be_spawned(self) -> None:
        with LiveServer(application, process="spawn") as server:
            assert httpx.get(server.url).text.split()[0] != str(os.getpid())

    def test_an_application_that_cannot_be_pickled(self) -> None:
        with pytest.raises(TypeError, match="the application, or get_application, cannot be pickled"):
            LiveServer(lambda scope, receive, send: None, process="spawn").__enter__()

    def test_its_output_is_part_of_the_log(self) -> None:
        with LiveServer(application, process=FORK) as server:
            httpx.get(server.url + "/print")
        assert "printed by the application\n" in server.logs
        assert "WARNING my.application: logged by the application\n" in server.logs

    def test_an_exception_comes_with_its_traceback(self) -> None:
        with (
            pytest.raises(RuntimeError, match="UnpicklableError: this and that") as caught,
            LiveServer(application, process=FORK) as server,
        ):
            httpx.get(server.url + "/fail-oddly")
        assert "live_applications.py" in caught.value.__notes__[0]

    def test_an_exception_whose_class_the_test_cannot_import(self, tmp_path: Path) -> None:
        """The process has found the application in ``app_dir``, where the test does not look."""
        (tmp_path / "lonely.py").write_text(
            "class OwnError(Exception): pass\n"
            "async def application(scope, receive, send):\n"
            "    raise OwnError('of the application')\n"
        )
        server = LiveServer("lonely:application", process=FORK, app_dir=str(tmp_path), lifespan="off")
        with pytest.raises(RuntimeError, match="OwnError: of the application") as caught, server:
            visit(server, "/fail")
        assert 'lonely.py", line 3' in caught.value.__notes__[0]

    def test_one_that_ends_before_it_has_started(self) -> None:
        """The error says it once."""

        async def exits(scope: Any, receive: Any, send: Any) -> None:
            os._exit(5)

        with pytest.raises(StartupError) as caught, LiveServer(exits, process=FORK):
            pass
        assert str(caught.value) == (
            "the server did not start: its process ended with exit code 5; see what it has printed"
        )

    def test_an_import_that_fails(self, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text("raise LookupError('while it is imported')")
        server = LiveServer("broken:application", process=FORK, app_dir=str(tmp_path))
        with pytest.raises(StartupError, match="while it is imported") as caught, server:
            pass
        assert isinstance(caught.value.__cause__, LookupError)
        assert 'broken.py", line 1' in str(caught.value)

    def test_a_process_that_ends_by_itself(self) -> None:
        with (
            pytest.raises(RuntimeError, match="ended by itself with exit code 7"),
            LiveServer(application, process=FORK) as server,
        ):
            make_it_exit(server)

    def test_one_that_the_terminal_has_interrupted_too_hides_no_interrupt(self) -> None:
        def interrupt(server: LiveServer) -> None:
            (process,) = multiprocessing.active_children()
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
            wait_for(lambda: not multiprocessing.active_children())
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught, LiveServer(application, process=FORK) as server:
            interrupt(server)
        assert "ended by itself with exit code 0" in caught.value.__notes__[0]

    def test_an_unknown_way_to_start_one(self) -> None:
        with pytest.raises(ValueError, match="cannot find context for 'thread'"):
            LiveServer(application, process="thread").__enter__()


class TestReadme:
    def test_its_block_serves(self) -> None:
        assert status_of(example("testing")) == 0

    def test_its_fixture_serves(self, tmp_path: Path) -> None:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["asgiserver.pytest_plugin"]\n')
        (tmp_path / "test_hello.py").write_text(example("fixture"))
        arguments = ["-p", "no:cacheprovider", str(tmp_path)]
        assert status_of(f"import sys, pytest; sys.exit(pytest.main({arguments}))") == 0


class TestArguments:
    def test_an_unknown_setting(self) -> None:
        with pytest.raises(SettingsError, match="no_such"):
            LiveServer(application, no_such=1)

    def test_a_server_that_has_not_started_has_no_address(self) -> None:
        with pytest.raises(RuntimeError, match="use it in a with block"):
            LiveServer(application).url  # noqa: B018

    def test_settings_are_the_servers(self) -> None:
        with LiveServer(application, server_name="tested", host="localhost") as server:
            assert server.url == f"http://localhost:{server.port}"
            assert httpx.get(server.url).headers["server"] == "tested"

    def test_the_event_loop_is_the_one_that_is_asked_for(self) -> None:
        async def tells_its_loop(scope: Any, receive: Any, send: Any) -> None:
            name = type(asyncio.get_running_loop()).__module__.partition(".")[0]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": name.encode()})

        pytest.importorskip("uvloop")
        for loop in ("asyncio", "uvloop"):
            with LiveServer(tells_its_loop, loop=loop, lifespan="off") as server:
                assert httpx.get(server.url).text == loop

    def test_an_event_loop_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "uvloop", None)
        with pytest.raises(StartupError, match="uvloop is not installed"), LiveServer(application, loop="uvloop"):
            pass

    def test_an_address_of_ipv6_is_bracketed(self) -> None:
        with LiveServer(application, host="::1") as server:
            assert server.url == f"http://[::1]:{server.port}"
            assert httpx.get(server.url).status_code == 200

    def test_no_django_is_needed(self) -> None:
        program = (
            "import sys\n"
            "sys.modules['django'] = None\n"
            "from asgiserver.testing import *\n"
            "import asgiserver.testing\n"
            "try:\n"
            "    asgiserver.testing.ASGILiveServerTestCase\n"
            "except ImportError:\n"
            "    sys.exit(3)\n"
        )
        assert status_of(program) == 3
