"""``--reload``: a change is answered by the new code, and nothing that is open, broken or killed holds it up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.live import in_loop, until
from tests.e2e.server import wait_for
from tests.e2e.test_metrics import the_monitor
from tests.e2e.workers import Supervised, WebSocketClient, ask, can_bind, get, gone, upgrade

pytest.importorskip("watchfiles")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests look into /proc")

#: A stream without end, that tells how it has ended; and an import that takes its time.
STREAM = """
VERSION = "one"
application_without = application

async def application(scope, receive, send):
    if scope.get("path") != "/stream":
        return await application_without(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: begun\\n\\n", "more_body": True})
    while (event := await receive())["type"] == "http.request":
        pass
    await send({"type": "http.response.body", "body": b"data: " + event["type"].encode() + b"\\n\\n"})
"""
IMPORT = 0.3


def stream(version: str, seconds: float = 0.0) -> str:
    return STREAM.replace("one", version) + f"time.sleep({seconds})"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def version(port: int, expected: str) -> None:
    """Ask again and again, as an impatient browser, until the new code answers; nothing may fail meanwhile."""
    async with asyncio.timeout(10):
        while (await ask(port)).split()[0] != expected:
            pass


async def answered(client: httpx.AsyncClient, condition: Callable[[httpx.Response], bool]) -> httpx.Response:
    async with asyncio.timeout(10):
        while not condition(answer := await client.get("/")):
            pass
    return answer


async def denied(port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(upgrade())
        assert (await reader.readline()).startswith(b"HTTP/1.1 500 ")


class TestChanges:
    @in_loop
    async def test_are_answered_at_once_whatever_is_open(self, tmp_path: Path) -> None:
        monitor = tmp_path / "monitor"
        metrics = "--metrics", f"unix:{monitor}"
        server = Supervised(tmp_path, 0, "--lifespan", "on", *metrics, env={"WEB_CONCURRENCY": "2"})
        server.write(stream("one"))
        with server:
            ignored = "workers is ignored with --reload (environment: WEB_CONCURRENCY)"
            assert [line.endswith(ignored) for line in server.lines("WARNING")] == [True]
            # A kept connection, an event stream, a WebSocket and a request that takes longer than it may.
            async with (
                connected(server.port) as (kept, kept_writer),
                connected(server.port) as (events, events_writer),
                connected(server.port) as (slow, slow_writer),
            ):
                assert (await get(kept, kept_writer)).startswith("one ")
                events_writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
                await events.readuntil(b"begun")
                slow_writer.write(b"GET /sleep/60 HTTP/1.1\r\nHost: a\r\n\r\n")
                websocket = await WebSocketClient.connect(server.port)
                began = time.monotonic()
                server.write(stream("two", IMPORT))
                await version(server.port, "two")
                # A second, beside the import, on a machine that has nothing else to do.
                assert time.monotonic() - began < IMPORT + 4
                assert await websocket.closed() == 1012
                assert b"data: http.disconnect" in await events.read()
                assert await kept.read() == b""
                assert (await slow.readline()).startswith(b"HTTP/1.1 503 ")
            assert f"Reloading: {tmp_path}/app.py has changed" in server.output()
            await until(lambda: gone(server.first))

            await self.broken_code_is_told_by_a_page(server)
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(monitor))) as client:
                counted = (await client.get("http://a/metrics")).text
            assert 'asgiserver_reloads_total{outcome="success"} 2\n' in counted
            assert 'asgiserver_reloads_total{outcome="failure"} 5\n' in counted
            await self.a_worker_that_is_killed_is_replaced(server)
            await self.of_other_files_change_nothing(server)
            processes = server.processes()
        assert server.returncode == 0
        assert gone(processes)
        assert can_bind(server.port)

    async def broken_code_is_told_by_a_page(self, server: Supervised) -> None:
        broken = {
            "1 + '<b>'(": "SyntaxError",
            "import no_such_module": "ModuleNotFoundError",
            "sys = __import__('sys'); sys.exit(4)": "SystemExit(4)",
            "os._exit(7)": "its exit status was 7",
            "async def started(): raise RuntimeError('mine')": "RuntimeError: mine",
        }
        for number, (code, message) in enumerate(broken.items(), 1):
            server.write(code)
            server.wait_for_line("a page says so", number)
            assert message in server.output()
            async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
                plain = await answered(client, lambda answer, message=message: message in answer.text)
                page = await client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
            assert (plain.status_code, page.status_code) == (500, 500)
            assert plain.headers["content-type"] == "text/plain; charset=utf-8"
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert message in page.text
            if message == "SyntaxError":
                assert code in plain.text
                assert "&lt;b&gt;" in page.text
                assert "<b>" not in page.text
                # What is said is of the application, not of the server's own way to it.
                assert "nursery.py" not in plain.text
        await denied(server.port)
        server.write(stream("three"))
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            await answered(client, lambda answer: answer.text.startswith("three "))

    async def a_worker_that_is_killed_is_replaced(self, server: Supervised) -> None:
        killed = int((await ask(server.port)).split()[1])
        os.kill(killed, signal.SIGKILL)
        await until(lambda: gone([killed]))
        name, process = (await ask(server.port)).split()
        assert name == "three"
        assert int(process) != killed

    async def of_other_files_change_nothing(self, server: Supervised) -> None:
        reloads = server.output().count("Reloading")
        for name in ("db.sqlite3-journal", "upload.bin", ".hidden.py"):
            (server.folder / name).write_text("new", "utf-8")
        server.write(stream("four"))
        await version(server.port, "four")
        assert server.output().count("Reloading") == reloads + 1


class TestStarting:
    @in_loop
    async def test_broken_and_then_with_a_file_of_settings_a_blocked_worker_and_a_killed_reloader(
        self, tmp_path: Path
    ) -> None:
        """On a unix socket."""
        site, path, config = tmp_path / "site", tmp_path / "socket", tmp_path / "etc" / "asgiserver.toml"
        for folder in (site, config.parent):
            folder.mkdir()
        config.write_text("header = ['X-A: one']\n", "utf-8")
        metrics = "--metrics", f"unix:{tmp_path}/monitor"
        server = Supervised(site, 0, "--config", str(config), "-u", str(path), *metrics, port=False)
        server.write("1 +")
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        with server:
            async with httpx.AsyncClient(transport=transport, base_url="http://a", timeout=20) as client:
                assert "SyntaxError" in (await client.get("/")).text
                server.write()
                answer = await answered(client, lambda answer: answer.status_code == 200)
                assert answer.headers["x-a"] == "one"

                config.write_text("header = ['X-A: second']\n", "utf-8")
                answer = await answered(client, lambda answer: answer.headers["x-a"] == "second")
                # Settings that are wrong are told too.
                config.write_text("no-such = 1\n", "utf-8")
                answer = await answered(client, lambda answer: answer.status_code == 500)
                assert "there is no setting 'no-such'" in answer.text
                os.kill(the_monitor(server), signal.SIGKILL)
                server.wait_for_line("The monitor has failed\nasgiserver: error: ")
                assert "Traceback" not in server.output()
                config.write_text("", "utf-8")
                answer = await answered(client, lambda answer: answer.status_code == 200)

                blocked = asyncio.create_task(client.get("/block"))
                await asyncio.sleep(0.1)
                server.write(VERSION="two")
                server.wait_for_line("Reloading", 5)
                assert (await client.get("/")).text.startswith("two ")
                processes = server.processes()
                server.send_signal(signal.SIGKILL)
                # The one that is blocked too.
                await until(lambda: gone(processes))
                blocked.cancel()
                server.wait()

    def test_ctrl_c_ends_an_import_at_once(self, tmp_path: Path) -> None:
        """The signal goes to all processes, as a terminal sends it. The change is found by polling."""
        with Supervised(tmp_path, 0, new_session=True, env={"WATCHFILES_FORCE_POLLING": "1"}) as server:
            server.write("time.sleep(600)")
            server.wait_for_line("Reloading")
            wait_for(lambda: len(server.processes()) == 2 and gone(server.first))
            processes = server.processes()
            os.killpg(server.pid, signal.SIGINT)
            assert server.wait(5) == 0
        assert gone(processes)
