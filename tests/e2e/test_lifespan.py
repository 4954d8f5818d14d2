"""The lifespan around a real server's life."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_websocket

from asgiserver import Server
from asgiserver.errors import LifespanError
from tests.e2e.live import DEADLINE, answer, connect, until, url
from tests.e2e.server import ServerProcess, connects, free_port, run_command, wait_for

Lifespan = Callable[[Any, Any, Any], Awaitable[None]]


class App:
    """An application with the given lifespan that answers every request and keeps the scopes."""

    def __init__(self, lifespan: Lifespan) -> None:
        self.lifespan = lifespan
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await answer(send, b"Hello")
        else:
            await receive()
            await send({"type": "websocket.accept"})


def serving(application_lifespan: Lifespan, **settings: Any) -> Server:
    return Server(App(application_lifespan), port=0, **settings)


async def hello(server: Server) -> None:
    async with connect(server) as peer:
        assert (await peer.request("GET", "/")).body == b"Hello"


def lifespan(*steps: Any) -> Lifespan:
    """Takes an event before each step, which is a message to send, an error to raise, or None, which never ends."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            await receive()
            if step is None:
                await asyncio.Event().wait()
            elif isinstance(step, Exception):
                raise step
            else:
                await send(step)

    return run


STARTED, ENDED = {"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}
starts = lifespan(STARTED, ENDED)
refuses = lifespan({"type": "lifespan.startup.failed", "message": "no database"})
hangs = lifespan(None)


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("I know no lifespan")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return


class TestOrder:
    async def test_startup_comes_before_the_port_is_open_and_shutdown_after_the_last_response(self) -> None:
        port = free_port()
        seen: list[Any] = []

        async def looks(scope: Any, receive: Any, send: Any) -> None:
            for message in (STARTED, ENDED):
                seen.append(((await receive())["type"], connects(port)))
                await send(message)

        async with Server(App(looks), port=port) as server:
            await hello(server)
            seen.append("served")
        assert seen == [("lifespan.startup", False), "served", ("lifespan.shutdown", False)]

    async def test_an_application_may_do_what_it_likes_after_its_shutdown(self) -> None:
        async def likes(scope: Any, receive: Any, send: Any) -> None:
            await starts(scope, receive, send)
            raise RuntimeError("nobody listens")

        async with asyncio.timeout(DEADLINE), serving(likes) as server:
            await hello(server)


class TestScope:
    async def test_has_versions_and_a_state(self) -> None:
        async with serving(starts) as server:
            scope = server.application.scopes[0]  # type: ignore[attr-defined]
        assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}

    async def test_each_request_has_a_shallow_copy_of_the_state(self) -> None:
        pool = object()

        async def pools(scope: Any, receive: Any, send: Any) -> None:
            scope["state"]["pool"] = pool
            await starts(scope, receive, send)

        async with serving(pools) as server:
            await hello(server)
            async with connect_websocket(url(server, "ws")):
                pass
            own, http, websocket = server.application.scopes  # type: ignore[attr-defined]
        assert [scope["type"] for scope in (own, http, websocket)] == ["lifespan", "http", "websocket"]
        assert own["state"] == http["state"] == websocket["state"] == {"pool": pool}
        assert len({id(scope["state"]) for scope in (own, http, websocket)}) == 3
        assert http["state"]["pool"] is pool

    async def test_requests_have_no_state_when_there_is_no_lifespan(self) -> None:
        async with serving(returns) as server:
            await hello(server)
            http = server.application.scopes[-1]  # type: ignore[attr-defined]
        assert "state" not in http


class TestUnsupported:
    @pytest.mark.parametrize("unable", [raises, returns])
    async def test_auto_goes_on_quietly(self, unable: Lifespan, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "asgiserver")
        async with serving(unable) as server:
            await hello(server)
        about = [record for record in caplog.records if "lifespan" in record.getMessage()]
        assert [record.levelno for record in about] == [logging.DEBUG]

    @pytest.mark.parametrize("unable", [raises, returns])
    async def test_on_is_an_error(self, unable: Lifespan) -> None:
        server = serving(unable, lifespan="on")
        with pytest.raises(LifespanError, match="before it completed its start-up"):
            await server.serve()
        assert server.listening_addresses == []

    async def test_off_never_calls_it(self) -> None:
        async with serving(raises, lifespan="off") as server:
            await hello(server)
            assert [scope["type"] for scope in server.application.scopes] == ["http"]  # type: ignore[attr-defined]


class TestFailure:
    async def test_a_refused_start_up_opens_no_port(self) -> None:
        port = free_port()
        server = Server(App(refuses), port=port)
        with pytest.raises(LifespanError, match="the application failed to start: no database"):
            async with server:
                raise AssertionError("it serves")
        assert not connects(port)

    async def test_a_start_up_that_never_answers_is_given_up(self) -> None:
        with pytest.raises(LifespanError, match=r"did not start within 0\.1 s"):
            await serving(hangs, lifespan_startup_timeout=0.1).serve()

    @pytest.mark.parametrize(
        ("second", "said"),
        [
            ({"type": "lifespan.shutdown.failed", "message": "still writing"},
             "The application failed to shut down: still writing"),
            (None, "The application did not shut down within 0.1 s"),
            # it comes right behind the start-up
            (RuntimeError("the pool is gone"), "RuntimeError: the pool is gone"),
        ],
    )  # fmt: skip
    async def test_a_later_one_is_logged_once_and_the_server_ends_as_it_would_have(
        self, second: Any, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fails(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            if isinstance(second, Exception):
                raise second
            await lifespan(second)(scope, receive, send)

        async with asyncio.timeout(DEADLINE), serving(fails, lifespan_shutdown_timeout=0.1) as server:
            await hello(server)
        assert caplog.text.count(said) == 1
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


class TestCommandLine:
    def write(self, folder: Path, body: str) -> None:
        text = "import asyncio\nasync def application(scope, receive, send):\n    assert scope['type'] == 'lifespan'\n"
        (folder / "app.py").write_text(text + f"    {body}\n", "utf-8")

    def test_a_refused_start_up_is_one_line_and_status_3(self, tmp_path: Path) -> None:
        self.write(tmp_path, "await send({'type': 'lifespan.startup.failed', 'message': 'no database'})")
        result = run_command("--app-dir", str(tmp_path), "-p", "0", "app")
        assert (result.returncode, result.stdout) == (3, "")
        assert result.stderr == "asgiserver: error: the application failed to start: no database\n"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_during_the_start_up_ends_it_cleanly(self, tmp_path: Path, number: int) -> None:
        """The port is never opened, and the application can clean up."""
        self.write(
            tmp_path,
            "print('starting', flush=True)\n"
            "    try: await asyncio.Event().wait()\n"
            "    finally: print('cleaned up', flush=True)",
        )
        server = ServerProcess("--app-dir", str(tmp_path), "-p", "0", "app", listeners=0)
        with server:
            wait_for(lambda: "starting" in server.output())
            began = time.monotonic()
            server.send_signal(number)
            assert server.wait() == 0
            assert time.monotonic() - began < 5
        assert "cleaned up" in server.output()
        assert "Listening" not in server.output()
        assert "Traceback" not in server.output()


async def test_context_variables_of_the_start_up_are_there_in_requests() -> None:
    """Also those that it sets later, and what one request sets no other has."""
    variable = contextvars.ContextVar("variable", default="unset")
    later = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            variable.set("by the start-up")
            await send({"type": "lifespan.startup.complete"})
            await later.wait()
            variable.set("later")
            later.clear()
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http":
            await answer(send, variable.get().encode())
            variable.set("by a request")
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": variable.get()})

    async with Server(application, port=0) as server, connect(server) as peer:
        for _ in range(2):
            assert (await peer.request("GET", "/")).body == b"by the start-up"
        async with connect_websocket(url(server, "ws")) as websocket:
            assert await websocket.recv() == "by the start-up"
        later.set()
        await until(lambda: not later.is_set())
        assert (await peer.request("GET", "/")).body == b"later"


async def test_name_of_a_requests_task_forges_no_line_of_a_log() -> None:
    names: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())
        await answer(send, b"")

    async with Server(application, port=0, lifespan="off") as server, connect(server) as peer:
        await peer.request("GET", "/x%0aCRITICAL%20forged%E2%80%A8?secret=1")
    assert names == ["/x%0aCRITICAL%20forged%E2%80%A8"]
