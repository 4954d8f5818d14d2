"""Ways to run a server, and ways for it to end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect as connect_websocket

from asgiserver import Server
from asgiserver.errors import ListenError, ReactorError, SettingsError
from asgiserver.wire.connection import Phase
from tests.e2e.applications import Recorder, Waiting, answering, lives
from tests.e2e.live import GET, answer, connect, get, post, receive_body, serve, until, url
from tests.e2e.server import (
    COMMANDS,
    DEADLINE,
    ROOT,
    ServerProcess,
    command_on,
    connects,
    read_until,
    run_command,
    run_python,
    serving,
    wait_for,
)  # fmt: skip

#: Speaks of what it goes through on standard output; its behaviour is told by the request's path.
APPLICATION = """
import asyncio
import time

def say(*words):
    print(*words, flush=True)

async def application(scope, receive, send):
    await {"lifespan": lifespan, "http": http, "websocket": websocket}[scope["type"]](scope, receive, send)

async def lifespan(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    say("started up")
    await receive()
    say("closing down")
    await send({"type": "lifespan.shutdown.complete"})

async def http(scope, receive, send):
    try:
        await globals()[scope["path"].strip("/") or "hello"](receive, send)
        say("done", scope["path"])
    except asyncio.CancelledError:
        say("cancelled", scope["path"])
        raise

async def start(send, body=b"", more_body=True):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})

async def hello(receive, send):
    await start(send, b"Hello", False)

async def upload(receive, send):
    say("reading")
    while (await receive()).get("more_body"):
        pass
    await start(send, b"read all", False)

async def endless(receive, send):
    await start(send, b"first")
    await asyncio.Event().wait()

async def events(receive, send):
    await start(send, b"first")
    while (event := await receive())["type"] != "http.disconnect":
        pass
    say(event["type"])

async def polite(receive, send):
    await start(send, b"first")
    while (await receive())["type"] != "http.disconnect":
        pass
    await asyncio.sleep(0.01)

async def sleeper(receive, send):
    sleeping = asyncio.get_running_loop().run_in_executor(None, time.sleep, 3)
    asyncio.get_running_loop().run_in_executor(None, say, "next job")
    say("sleeping")
    await sleeping
    say("awake")

async def stubborn(receive, send):
    await start(send, b"first")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("ignored")

async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": event["text"]})
    say("disconnect", event["code"], event["reason"])
"""

UPLOAD = post(2, b"1", "/upload")


#: What the client has got when a request runs.
FIRST = b"5\r\nfirst\r\n"


def is_orderly(output: str) -> bool:
    return "Traceback" not in output and "Unhandled" not in output and "never" not in output


def ask(peer: socket.socket, path: str, until: bytes = FIRST) -> bytes:
    peer.sendall(get(path))
    return read_until(peer, until)


def insist(server: ServerProcess, number: int) -> None:
    """Send a signal until it has its effect: those of the first second are the first one."""
    while server.process.poll() is None:
        server.send_signal(number)
        time.sleep(0.05)


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_running_request_is_completed_and_nobody_else_is_let_in(self, tmp_path: Path, number: int) -> None:
        """And the response in flight says that the connection closes."""
        with serving(tmp_path, APPLICATION) as server, server.connect() as peer:
            peer.sendall(UPLOAD)
            wait_for(lambda: "reading" in server.output())
            server.send_signal(number)
            wait_for(lambda: not connects(server.port))
            assert server.process.poll() is None
            peer.sendall(b"2")
            response = read_until(peer, b"read all\r\n0\r\n\r\n")
            assert peer.recv(1) == b""
            assert server.wait() == 0
        assert response.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in response.lower()
        words = server.output()
        assert words.index("done /upload") < words.index("closing down")
        assert is_orderly(words)

    #: Options, a request (or the beginning of one) and what the client gets before the stop, the least seconds that
    #: the stop takes, and what is said and not said meanwhile.
    STOPS: dict[str, Any] = {
        "nothing": ([], b"", b"", 0, [], []),
        "a client within its head": ([], b"GET / HTTP/1.1\r\nHo", b"", 0, [], []),
        # its response is cut off, not completed
        "a request without end": (
            ["--graceful-timeout", "0.5"], get("/endless"), FIRST, 0.5,
            ["cancelled /endless", "1 applications did not end in 0.5 seconds"], [],
        ),
        "one that listens ends by itself": (
            ["--graceful-timeout", "0.2"], get("/polite"), FIRST, 0, ["done /polite"], ["cancelled /polite"],
        ),
        "an application that ignores cancelling": (
            ["--graceful-timeout", "0.2"], get("/stubborn"), FIRST, 0.2,
            ["GET '/stubborn' did not end when it was cancelled"], [],
        ),
    }  # fmt: skip

    @pytest.mark.parametrize(("args", "data", "before", "least", "said", "unsaid"), STOPS.values(), ids=STOPS)
    def test_does_not_hold_the_server_up(
        self, tmp_path: Path, args: list[str], data: bytes, before: bytes, least: float, said: list[str],
        unsaid: list[str],
    ) -> None:  # fmt: skip
        with serving(tmp_path, APPLICATION, *args) as server, server.connect() as peer:
            peer.sendall(data)
            read_until(peer, before)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert peer.recv(100) == b""
            assert server.wait() == 0
            # The interpreter's own end is in it; graceful_timeout is 10 s.
            assert least <= time.monotonic() - began < 4
        words = server.output()
        assert all(0 <= words.find(each) < words.index("closing down") for each in said)
        assert not any(each in words for each in unsaid)
        assert is_orderly(words)

    def test_idle_connections_are_closed_at_once_where_that_is_wanted(self, tmp_path: Path) -> None:
        """Those that have had a response, and those that have sent nothing."""
        args = ("--graceful-idle", "0")
        with serving(tmp_path, APPLICATION, *args) as server, server.connect() as used, server.connect() as fresh:
            ask(used, "/", b"0\r\n\r\n")
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert used.recv(1) == b""
            assert fresh.recv(1) == b""
            assert server.wait() == 0
            assert time.monotonic() - began < 4
        assert is_orderly(server.output())

    @pytest.mark.parametrize("loop", COMMANDS)
    def test_a_thread_that_still_works_is_no_error(self, tmp_path: Path, loop: str) -> None:
        options = {"command": command_on(loop), "env": {"ASGI_THREADS": "1"}}
        with (
            serving(tmp_path, APPLICATION, "--graceful-timeout", "0.3", **options) as server,
            server.connect() as peer,
        ):
            peer.sendall(get("/sleeper"))
            wait_for(lambda: "sleeping" in server.output())
            server.send_signal(signal.SIGTERM)
            assert read_until(peer, b"The server is stopping.\n").startswith(b"HTTP/1.1 503 ")
            assert server.wait() == 0
        assert "cancelled /sleeper" in server.output()
        assert "awake" not in server.output()
        assert "next job" not in server.output()
        assert is_orderly(server.output())

    def test_a_thread_that_does_not_end_does_not_keep_the_process(self, tmp_path: Path) -> None:
        text = (
            "import asyncio, threading\n\n"
            "async def application(scope, receive, send):\n"
            "    print('stuck', flush=True)\n"
            "    await asyncio.to_thread(threading.Event().wait)\n"
        )
        args = ("--graceful-timeout", "0.2", "--lifespan", "off", "--exit-timeout", "1")
        with serving(tmp_path, text, *args) as server, server.connect() as peer:
            peer.sendall(get())
            wait_for(lambda: "stuck" in server.output())
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            assert time.monotonic() - began < 6
        assert "Threads that did not end in 1 seconds are abandoned: " in server.output()

    FLUSHES = "atexit.register(print, 'flushed', flush=True)\n"
    #: The application besides its function, options, and what is said and not said at the end.
    EXITS = {
        # Traces, metrics and logs are flushed there.
        "have their time": (
            FLUSHES + "atexit.register(time.sleep, 1.5)\n", [], ["flushed"], ["abandoned"],
        ),
        # Python waits for all threads first, and the message names the one.
        "are called beside a thread that does not end": (
            FLUSHES + "threading.Thread(target=time.sleep, args=(60,), name='the query').start()\n",
            ["--exit-timeout", "0.5"],
            ["Threads that did not end in 0.5 seconds are abandoned: the query\n", "flushed"], ["exit handlers"],
        ),
        "wait without a limit": (
            "atexit.register(lambda: print([each.name for each in threading.enumerate()], flush=True))\n",
            ["--exit-timeout", "-1"], ["['MainThread']"], [],
        ),
        "that do not end are abandoned": (
            "atexit.register(time.sleep, 60)\n", ["--exit-timeout", "0.2"],
            ["The exit handlers did not end in 0.2 seconds and are abandoned"], [],
        ),
    }  # fmt: skip
    EXITING = "import atexit, threading, time\nasync def application(scope, receive, send): ...\n"

    @pytest.mark.parametrize(("text", "args", "said", "unsaid"), EXITS.values(), ids=EXITS)
    def test_exit_handlers(
        self, tmp_path: Path, text: str, args: list[str], said: list[str], unsaid: list[str]
    ) -> None:
        with serving(tmp_path, self.EXITING + text, "--lifespan", "off", *args) as server:
            assert server.stop() == 0
        words = server.output()
        assert [words.count(each) for each in (*said, *unsaid)] == [1] * len(said) + [0] * len(unsaid)

    def test_exit_handlers_that_do_not_end_leave_the_status_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "app.py").write_text(self.EXITING + "atexit.register(time.sleep, 60)\n")
        args = ("--app-dir", str(tmp_path), "-p", "0", "--exit-timeout", "0.2", "--lifespan", "on", "app")
        ended = run_command(*args)
        assert (ended.returncode, "exit handlers" in ended.stderr) == (3, True)

    def test_event_streams_and_websockets_end_within_the_deadline(self, tmp_path: Path) -> None:
        """A WebSocket is closed with 1012, and its application hears of it."""
        with serving(tmp_path, APPLICATION, "--graceful-timeout", "1") as server, server.connect() as peer:
            ask(peer, "/events")
            with connect_websocket(f"ws://127.0.0.1:{server.port}/") as websocket:
                websocket.send("echo")
                assert websocket.recv(DEADLINE) == "echo"
                began = time.monotonic()
                server.send_signal(signal.SIGTERM)
                with pytest.raises(Exception, match="1012"):
                    websocket.recv(DEADLINE)
            assert server.wait() == 0
            assert time.monotonic() - began < 5
        assert "disconnect 1012 service restart" in server.output()
        assert is_orderly(server.output())

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_the_second_one_stops_at_once(self, tmp_path: Path, number: int, status: int) -> None:
        """No waiting for requests, and no lifespan shutdown."""
        with serving(tmp_path, APPLICATION, "--graceful-timeout", "60") as server, server.connect() as peer:
            ask(peer, "/endless")
            began = time.monotonic()
            insist(server, number)
            assert server.wait() == status
            assert 1 <= time.monotonic() - began < 5
        assert "closing down" not in server.output()
        assert is_orderly(server.output())

    def test_the_second_one_ends_a_shutdown_that_hangs(self, tmp_path: Path) -> None:
        text = APPLICATION.replace('say("closing down")', 'say("closing down"); await asyncio.sleep(60)')
        with serving(tmp_path, text, "--lifespan-shutdown-timeout", "60") as server:
            insist(server, signal.SIGINT)
            assert server.wait() == 130
        assert "closing down" in server.output()
        assert is_orderly(server.output())


class TestStop:
    async def test_from_another_thread_is_as_graceful_as_a_signal(self) -> None:
        reading, events = asyncio.Event(), []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await lives(receive, send, events)
            else:
                reading.set()
                await answer(send, await receive_body(receive))
                events.append("answered")

        ready = asyncio.Event()
        server = Server(application, port=0, ready_callable=ready.set)
        task = asyncio.create_task(server.serve())
        await until(ready.is_set)
        async with connect(server) as peer:
            await peer.send(post(2, b"1"))
            await reading.wait()
            for _ in range(2):
                stop_in_a_thread(server)
            assert server.stop_requested
            await until(lambda: server.stopping)
            await peer.send(b"2")
            assert (await peer.response()).body == b"12"
            async with asyncio.timeout(DEADLINE):
                await task
        assert events == ["lifespan.startup", "answered", "lifespan.shutdown"]

    @pytest.mark.parametrize("after_another", [False, True])
    async def test_without_waiting_cancels_requests(self, after_another: bool) -> None:
        """The lifespan has its shutdown all the same, whether the drain has begun or not."""
        began, events = asyncio.Event(), []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await lives(receive, send, events)
                return
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                events.append("cancelled")

        async with (
            asyncio.timeout(DEADLINE),
            serve(application, graceful_timeout=None, lifespan="on") as server,
            connect(server) as peer,
        ):
            await peer.send(GET)
            await began.wait()
            if after_another:
                server.stop()
                await until(lambda: server.stopping)
            for _ in range(2):
                server.stop(wait=False)
                server.stop()
            await until(lambda: "lifespan.shutdown" in events)
        assert events == ["lifespan.startup", "cancelled", "lifespan.shutdown"]

    async def test_before_the_start_serves_nothing(self) -> None:
        server = Server(answer_nothing, port=0, lifespan="off")
        server.stop()
        async with asyncio.timeout(DEADLINE):
            await server.serve()
        assert server.listening_addresses == []

    async def test_during_the_start_up_cancels_it(self) -> None:
        application = Waiting()
        server = Server(application, port=0)
        task = asyncio.create_task(server.serve())
        async with asyncio.timeout(DEADLINE):
            await application.began.wait()
            server.stop()
            await task
        assert application.ended.is_set()
        assert server.listening_addresses == []

    async def test_cancelling_serve_stops_gracefully_too(self) -> None:
        events: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await lives(receive, send, events)

        ready = asyncio.Event()
        server = Server(application, port=0, ready_callable=ready.set)
        task = asyncio.create_task(server.serve())
        await ready.wait()
        address = server.listening_addresses[0]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert events == ["lifespan.startup", "lifespan.shutdown"]
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    async def test_leaves_no_task_behind(self) -> None:
        async with serve(answer_hello) as server:
            assert await greets(server)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not server.connections

    async def test_an_application_whose_client_left_is_given_time_and_then_cancelled(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And that is logged once."""
        application = Waiting()
        caplog.set_level(logging.INFO, "asgiserver")
        async with serve(application, application_close_timeout=0.2) as server:
            async with connect(server) as peer:
                await peer.send(get("/long"))
                await application.began.wait()
            await until(lambda: not server.connections)
            assert not application.ended.is_set()
            await until(application.ended.is_set)
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert "GET '/long' still ran 0.2 s" in warnings[0]


async def answer_nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application was called")


answer_hello = answering(b"Hello")


async def greets(server: Server) -> bool:
    async with connect(server) as peer:
        return (await peer.request("GET", "/")).body == b"Hello"


def stop_in_a_thread(server: Server) -> None:
    thread = threading.Thread(target=server.stop)
    thread.start()
    thread.join()


class TestInARunningLoop:
    async def test_async_with_serves_while_its_block_runs(self) -> None:
        async with Server(answer_hello, endpoints=["tcp:0:interface=127.0.0.1"], lifespan="off") as server:
            address = server.listening_addresses[0]
            async with httpx.AsyncClient() as client:
                assert (await client.get(url(server))).text == "Hello"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    def test_it_works_for_one_loop_after_another(self) -> None:
        async def main() -> None:
            async with serve(answer_hello) as server:
                assert await greets(server)

        for _ in range(3):
            asyncio.run(main())

    async def test_stop_within_the_block_ends_serving_there(self) -> None:
        events: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await answer(send, b"Hello")
            else:
                await lives(receive, send, events)

        async with Server(application, port=0) as server:
            address = server.listening_addresses[0]
            async with connect(server) as peer:
                assert (await peer.request("GET", "/")).body == b"Hello"
                assert events == ["lifespan.startup"]
                stop_in_a_thread(server)
                assert await peer.closed()
            await until(lambda: len(events) == 2)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            server.stop()
        assert events == ["lifespan.startup", "lifespan.shutdown"]

    async def test_what_runs_when_the_block_stops_the_server_is_completed(self) -> None:
        application = Recorder()
        async with serve(application, graceful_timeout=DEADLINE) as server, connect(server) as peer:
            await peer.send(post(2, b"1"))
            await application.began.wait()
            server.stop()
            await until(lambda: server.stopping)
            await peer.send(b"2")
            assert (await peer.response()).body == b"12"

    async def test_an_idle_connection_does_not_hold_up_the_end(self) -> None:
        """Not even when its peer does not close in turn; close_timeout is 5 s."""
        async with serve(answer_hello, graceful_timeout=DEADLINE) as server, connect(server) as peer:
            assert (await peer.request("GET", "/")).body == b"Hello"
            began = time.monotonic()
            await server.__aexit__()
            assert time.monotonic() - began < 1
            assert not server.connections

    async def test_a_peer_that_is_still_sending_gets_its_refusal_though_the_server_ends(self) -> None:
        """RFC 9112 §9.6: a reset would take it away."""
        settings = {"limit_body_size": 10, "close_timeout": 1.2, "graceful_timeout": DEADLINE}
        async with serve(answer_hello, **settings) as server, connect(server) as peer:
            await peer.send(post(9_999_999))
            await until(lambda: any(connection.phase is not Phase.OPEN for connection in server.connections))
            leaving = asyncio.ensure_future(server.__aexit__())
            end = time.monotonic() + 0.9
            while time.monotonic() < end:
                await peer.send(b"*" * 1000)
                await asyncio.sleep(0.01)
            assert not leaving.done()
            assert (await peer.response()).status == 413
            await leaving

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no eager task factory")
    async def test_under_an_eager_task_factory(self) -> None:
        asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
        async with serve(answer_hello) as server, connect(server) as peer:
            await peer.send(GET * 3)
            for _ in range(3):
                assert (await peer.response()).body == b"Hello"
            # That is no part of the last request, which is answered.
            await peer.send(b"garbage\r\n\r\n")
            assert (await peer.response()).status == 400

    async def test_two_servers_share_a_loop(self) -> None:
        async with serve(answer_hello) as one, serve(answer_hello) as other:
            assert await greets(one)
            assert await greets(other)

    async def test_what_the_block_raises_comes_out_of_it(self) -> None:
        with pytest.raises(ZeroDivisionError):
            async with serve(answer_hello):
                raise ZeroDivisionError

    async def test_ready_callable_is_called_when_the_port_is_open(self) -> None:
        seen: list[bool] = []

        def ready() -> None:
            with socket.socket() as probe:
                seen.append(probe.connect_ex(server.listening_addresses[0]) == 0)

        server = Server(answer_hello, port=0, lifespan="off", ready_callable=ready)
        async with server:
            assert seen == [True]

    async def test_a_port_in_use_is_an_error_and_leaves_nothing_open(self) -> None:
        async with serve(answer_hello) as server:
            port = server.listening_addresses[0][1]
            with pytest.raises(ListenError, match=f"127.0.0.1:{port}"):
                await Server(answer_hello, port=port, lifespan="off").serve()

    async def test_a_server_serves_once(self) -> None:
        async with serve(answer_hello) as server:
            pass
        with pytest.raises(RuntimeError, match="only once"):
            await server.serve()

    async def test_run_is_refused_with_the_cure(self) -> None:
        with pytest.raises(ReactorError, match=r"await Server\.serve"):
            Server(answer_hello, port=0).run()

    async def test_an_application_begins_in_the_servers_own_context(self) -> None:
        """Not in that of the request before it, also not when that was pipelined."""
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(variable.get())
            variable.set(scope["path"])
            await answer(send)

        token = variable.set("the server's")
        async with serve(application) as server, connect(server) as peer:
            variable.reset(token)
            await peer.send(b"".join(get(f"/{number}") for number in range(3)))
            for _ in range(3):
                assert (await peer.response()).status == 200
            await peer.request("GET", "/3")
        assert seen == ["the server's"] * 4


def run_in_thread(pool: ThreadPoolExecutor, server: Server) -> Any:
    future = pool.submit(server.run)
    wait_for(lambda: server.listening_addresses or future.done())
    if future.done():
        future.result()
    return future


class TestRun:
    """Server.run: a reactor of the server's own."""

    @pytest.fixture
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor() as pool:
            yield pool

    def test_in_a_thread_with_signal_handlers_off_as_djangos_autoreloader_does(self, pool: ThreadPoolExecutor) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
        server = Server(answer_hello, port=0, lifespan="off", signal_handlers=False)
        future = run_in_thread(pool, server)
        assert httpx.get(url(server)).text == "Hello"
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before
        server.stop()
        assert future.result(DEADLINE) is None

    def test_one_server_after_another_in_one_process(self, pool: ThreadPoolExecutor) -> None:
        for _ in range(2):
            server = Server(answer_hello, port=0, lifespan="off")
            future = run_in_thread(pool, server)
            assert httpx.get(url(server)).text == "Hello"
            server.stop()
            future.result(DEADLINE)

    def test_gives_the_signals_back(self) -> None:
        result = run_python("""
import signal
from asgiserver import Server
def mine(*_): pass
signal.signal(signal.SIGTERM, mine)
for _ in range(2):
    server = Server(lambda scope, receive, send: None, port=0, lifespan="off", interface="asgi3",
                    ready_callable=lambda: signal.raise_signal(signal.SIGTERM))
    server.run()
    print(server.stop_requested, signal.getsignal(signal.SIGTERM) is mine, flush=True)
""")
        assert result.stdout.split() == ["True"] * 4, result.stderr
        assert result.returncode == 0

    @pytest.mark.parametrize("way", ["server.run()", "asyncio.run(server.serve())"])
    def test_beside_a_daphne_that_was_imported_before(self, way: str) -> None:
        """Its idle reactor is used, or gives way."""
        pytest.importorskip("daphne")
        result = run_python(f"""
import asyncio
import daphne.server
from asgiserver import Server
async def application(scope, receive, send): ...
server = Server(application, port=0, lifespan="off")
server.ready_callable = lambda: (print("serving", flush=True), server.stop())
{way}
""")
        assert (result.stdout, result.returncode) == ("serving\n", 0), result.stderr

    def test_another_reactor_is_one_clear_line(self) -> None:
        result = run_python("""
from twisted.internet import selectreactor
selectreactor.install()
from asgiserver.cli import main
main(["-p", "0", "examples.hello:application"])
""")
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert "SelectReactor is installed" in result.stderr
        assert "--reactor=asyncio" in result.stderr

    def test_an_application_that_imports_the_reactor_gets_ours(self, tmp_path: Path) -> None:
        """As under Daphne: the reactor is installed before the application is imported."""
        text = "from twisted.internet import reactor\nassert reactor.running is False\n" + APPLICATION
        with serving(tmp_path, text) as server:
            assert httpx.get(server.url).text == "Hello"

    def test_a_wrong_asgi_threads_does_not_spoil_the_process(
        self, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASGI_THREADS", "0")
        with pytest.raises(SettingsError, match="ASGI_THREADS"):
            pool.submit(Server(answer_hello, port=0).run).result(DEADLINE)
        monkeypatch.delenv("ASGI_THREADS")
        server = Server(answer_hello, port=0, lifespan="off")
        future = run_in_thread(pool, server)
        server.stop()
        future.result(DEADLINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APPLICATION, "utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for the import path that is laid out as the wheel is."""
    path = tmp_path_factory.mktemp("site")
    (path / "twisted" / "plugins").mkdir(parents=True)
    plugin = (ROOT / "asgiserver" / "twist_plugin.py").read_text("utf-8")
    (path / "twisted" / "plugins" / "asgiserver_twist.py").write_text(plugin, "utf-8")
    return str(path)


class TestTwisted:
    """Inside Twisted's own programs; the signals are theirs."""

    TAC = """
import sys
sys.path.insert(0, {folder!r})
from twisted.application import service
from asgiserver.service import ASGIService
from app import application as asgi
application = service.Application("web")
ASGIService(asgi, endpoints=["tcp:0:interface=127.0.0.1"], graceful_timeout=5).setServiceParent(application)
"""

    def twistd(self, folder: Path, name: str, reactor: str = "asyncio") -> ServerProcess:
        run = "from twisted.scripts.twistd import run; run()"
        return ServerProcess(
            f"--reactor={reactor}", "--nodaemon", "--pidfile=", "--python", str(folder / name),
            command=(sys.executable, "-c", run),
        )  # fmt: skip

    def test_a_service_in_a_tac_file_serves_and_stops_gracefully(self, folder: Path) -> None:
        (folder / "web.tac").write_text(self.TAC.format(folder=str(folder)), "utf-8")
        with self.twistd(folder, "web.tac") as server, server.connect() as peer:
            assert httpx.get(server.url).text == "Hello"
            peer.sendall(UPLOAD)
            wait_for(lambda: "reading" in server.output())
            server.send_signal(signal.SIGTERM)
            wait_for(lambda: not connects(server.port))
            peer.sendall(b"2")
            assert read_until(peer, b"read all\r\n0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            server.wait()
        assert server.output().index("done /upload") < server.output().index("closing down")
        assert is_orderly(server.output())
        stamp = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* "
        for line in (r"\[asgiserver#info\] Listening on ", r'\[asgiserver\.access#info\] .*"GET /" 200 5$'):
            assert re.search(stamp + line, server.output(), re.MULTILINE), "the lines are Twisted's, with their times"

    def test_another_reactor_is_one_line_with_its_cure(self, folder: Path) -> None:
        (folder / "poll.tac").write_text(self.TAC.format(folder=str(folder)), "utf-8")
        with pytest.raises(AssertionError, match="status 1:") as caught, self.twistd(folder, "poll.tac", "poll"):
            pass
        (line,) = [line for line in str(caught.value).splitlines() if "[stderr#error]" in line]
        assert "start twist or twistd with --reactor=asyncio" in line

    def test_a_service_that_cannot_start_ends_the_program(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            text = self.TAC.format(folder=str(folder)).replace("tcp:0:interface=127.0.0.1", endpoint)
            (folder / "taken.tac").write_text(text, "utf-8")
            with pytest.raises(AssertionError, match="the server ended") as caught, self.twistd(folder, "taken.tac"):
                pass
        assert f"cannot listen on {endpoint}" in str(caught.value)

    def twist(self, plugins: str, *args: str) -> ServerProcess:
        return ServerProcess(
            *args, command=(sys.executable, "-m", "twisted", "--log-format=text"),
            env={"PYTHONPATH": f"{plugins}:{ROOT}"},
        )  # fmt: skip

    def test_the_command_asgi_takes_the_same_options(self, plugins: str, folder: Path) -> None:
        args = ("asgi", "--app-dir", str(folder), "-p", "0", "--server-name", "mine", "app")
        with self.twist(plugins, "--reactor=asyncio", *args) as server:
            response = httpx.get(server.url)
            assert (response.text, response.headers["server"]) == ("Hello", "mine")
            server.send_signal(signal.SIGTERM)
            server.wait()
        assert "closing down" in server.output()
        assert '"GET /" 200' in server.output()
        assert is_orderly(server.output())

    @pytest.mark.parametrize(
        ("args", "status", "words"),
        [
            (("asgi", "-p", "0", "examples.hello"), 1, "--reactor=asyncio"),
            (("--reactor=asyncio", "asgi", "-p", "x", "app"), 2, "expected a whole number"),
            (("--reactor=asyncio", "asgi", "-p", "0", "nowhere"), 2, "no module named 'nowhere'"),
            (("--reactor=asyncio", "asgi", "-p", "0", "--lifespan", "on", "examples.hello"), 3, "before it completed"),
        ],
    )
    def test_what_is_wrong_is_one_line_and_a_status(
        self, plugins: str, args: tuple[str, ...], status: int, words: str
    ) -> None:
        with pytest.raises(AssertionError, match=f"ended with status {status}:") as caught, self.twist(plugins, *args):
            pass
        assert words in str(caught.value)
        assert is_orderly(str(caught.value))
