"""``Server(on_failure=…, reactor=…)``: the hooks for tests, error trackers and programs with several reactors."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed

from asgiserver import Server
from asgiserver.errors import ApplicationError, LifespanError, ReactorError
from asgiserver.loop.reactor import new_loop, private_reactor

from . import live_applications as applications
from .applications import sending
from .live import connect as peer
from .live import get, serve, until, url
from .websocket import accept

LOOPS = ["asyncio", *(["uvloop"] if find_spec("uvloop") else [])]


@asynccontextmanager
async def watched(application: Any, **options: Any) -> AsyncIterator[tuple[Server, list[BaseException]]]:
    failures = list[BaseException]()
    async with serve(application, on_failure=failures.append, **options) as server:
        yield server, failures


fails_in_its_websocket = sending(accept(), LookupError("in a WebSocket"), after_receive=True)


class TestOnFailure:
    async def test_it_is_told_what_the_application_raises(self) -> None:
        async with watched(applications.application) as (server, failures), httpx.AsyncClient() as client:
            for path in ("/", "/fail", "/fail-too"):
                await client.get(url(server) + path)
        assert [repr(each) for each in failures] == [
            "ZeroDivisionError('the application fails')",
            "LookupError('it fails again')",
        ]

    async def test_of_a_websocket_too(self) -> None:
        async with watched(fails_in_its_websocket) as (server, failures):
            with pytest.raises(ConnectionClosed):
                async with websocket(url(server, "ws")) as socket:
                    await socket.recv()
        assert [str(each) for each in failures] == ["in a WebSocket"]

    async def test_that_an_answer_is_missing(self) -> None:
        async with watched(applications.application) as (server, failures), httpx.AsyncClient() as client:
            assert (await client.get(url(server) + "/nothing")).status_code == 500
        (failure,) = failures
        assert type(failure) is ApplicationError
        assert str(failure) == "The application for GET '/nothing' returned without a complete response"

    @pytest.mark.parametrize("leaves", [False, True])
    async def test_what_the_stop_cuts_off_is_nobodys_failure_nor_is_a_client_that_leaves(self, leaves: bool) -> None:
        async with watched(applications.application) as (server, failures), peer(server) as client:
            await client.send(get("/endless"))
            await client.read_until(b"x")
            if leaves:
                client.abort()
                await until(lambda: not server.connections)
        assert failures == []

    @pytest.mark.parametrize(
        ("application", "kind", "words"),
        [
            (applications.failing_shutdown, RuntimeError, "the shutdown fails"),
            (applications.refusing_shutdown, LifespanError, "the application failed to shut down, see the log"),
        ],
    )
    async def test_at_the_end_what_the_lifespan_has_raised(self, application: Any, kind: type, words: str) -> None:
        async with watched(application, lifespan="on") as (_, failures):
            pass
        assert [(type(each), str(each)) for each in failures] == [(kind, words)]

    async def test_a_start_that_fails_is_raised_and_nothing_else(self) -> None:
        failures = list[BaseException]()
        server = Server(applications.failing_start, port=0, on_failure=failures.append)
        with pytest.raises(LifespanError):
            await server.serve()
        assert failures == []

    async def test_what_it_raises_is_logged_and_harms_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        def tracker(error: BaseException) -> None:
            raise ConnectionError("the tracker is not there")

        async with serve(applications.application, on_failure=tracker) as server, httpx.AsyncClient() as client:
            assert (await client.get(url(server) + "/fail")).status_code == 500
            assert (await client.get(url(server))).status_code == 200
        assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == [
            "Exception in the application for GET '/fail'",
            "Exception in on_failure",
        ]


class TestReactor:
    @pytest.mark.parametrize("kind", LOOPS)
    def test_a_server_uses_the_one_that_it_is_given(self, kind: str) -> None:
        async def test() -> None:
            with private_reactor() as reactor:
                async with serve(applications.application, reactor=reactor) as server, httpx.AsyncClient() as client:
                    assert (await client.get(url(server))).status_code == 200

        installed = sys.modules.get("twisted.internet.reactor")
        loop = new_loop(kind)
        try:
            loop.run_until_complete(asyncio.wait_for(test(), 20))
        finally:
            loop.close()
        assert sys.modules.get("twisted.internet.reactor") is installed

    @pytest.mark.parametrize("start", [lambda server: asyncio.run(server.serve()), Server.run], ids=["serve", "run"])
    async def test_one_of_another_loop_is_refused(self, start: Callable[[Server], None]) -> None:
        """``run`` has a reactor of its own, which is the process's."""
        with private_reactor() as reactor:
            server = Server(applications.application, port=0, reactor=reactor)
            with pytest.raises(ReactorError, match="on another event loop than the one that serves"):
                await asyncio.to_thread(start, server)
