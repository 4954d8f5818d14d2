"""``--metrics``: the monitor beside workers and beside a server alone, as Prometheus and probes see it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from asgiserver.errors import ListenError, SettingsError
from tests.e2e.live import get as request
from tests.e2e.live import in_loop, serve, until
from tests.e2e.live import url as address
from tests.e2e.server import DEADLINE, ServerProcess, serving, wait_for
from tests.e2e.workers import APPLICATION, Supervised, WebSocketClient, ask, children, get, gone

linux = pytest.mark.skipif(sys.platform != "linux", reason="the tests look into /proc")

MONITOR = ("--metrics", "tcp:0:interface=127.0.0.1")
_MONITOR = re.compile(r"Metrics on (http://127\.0\.0\.1:\d+)")
GETS = "http_request_duration_seconds_count GET 2xx"

Samples = dict[str, float]


def url(server: ServerProcess) -> str:
    wait_for(lambda: _MONITOR.search(server.output()))
    found = _MONITOR.search(server.output())
    assert found
    return found[1]


def samples(text: str) -> Samples:
    """Each series by its name without ours before it, with the values of its labels behind."""
    return {
        " ".join([sample.name.removeprefix("asgiserver_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def asked(monitor: str, path: str) -> httpx.Response:
    # To read all certificates of the machine would take longer than the answer.
    return httpx.get(f"{monitor}{path}", verify=False, trust_env=False)


def scrape(monitor: str) -> Samples:
    return samples(asked(monitor, "/metrics").raise_for_status().text)


def status(monitor: str, path: str) -> int:
    return asked(monitor, path).status_code


def the_monitor(server: Supervised) -> int:
    """Its process: the nursery's child that is no worker."""
    (process,) = {*children(server.nursery())} - {*server.workers()}
    return process


class Watch:
    """Scrapes all the time, and fails when a counter falls; counts the scrapes that are not answered."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.last: Samples = {}
        self.unanswered = 0

    async def run(self) -> None:
        while True:
            try:
                async with httpx.AsyncClient(verify=False, trust_env=False) as client:
                    found = samples((await client.get(f"{self.monitor}/metrics")).raise_for_status().text)
            except httpx.TransportError:
                self.unanswered += 1
                continue
            for name, value in self.last.items():
                if re.search(r"_(total|count|bucket|sum)\b", name):
                    assert found[name] >= value, name
            self.last = found
            await asyncio.sleep(0.02)


@linux
class TestWorkers:
    @in_loop
    async def test_no_counter_falls_and_the_sums_are_right(self, tmp_path: Path) -> None:
        """Over workers that are killed and replaced, and a monitor that is killed."""
        with Supervised(tmp_path, 2, *MONITOR, "--drain-timeout", "0.2", "--drain-spread", "0") as server:
            watch = Watch(url(server))
            watching = asyncio.create_task(watch.run())
            answers: list[tuple[int, float]] = []

            async def ask_on(count: int) -> None:
                end = len(answers) + count
                while len(answers) < end:
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    with suppress(OSError, EOFError):
                        while len(answers) < end and not writer.is_closing():
                            process = int((await get(reader, writer)).split()[1])
                            answers.append((process, time.monotonic()))
                    writer.close()

            client = await WebSocketClient.connect(server.port)
            assert await client.talk()
            await asyncio.gather(*(ask_on(1500) for _ in range(8)))
            # Others have to write what they have counted, this one will not.
            victim = next(each for each in server.first if each != client.process)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            lost = sum(process == victim and when > killed - 2 for process, when in answers)
            os.kill(the_monitor(server), signal.SIGKILL)
            os.kill(client.process, signal.SIGTERM)
            assert await client.closed(40) == 1012
            await asyncio.gather(*(ask_on(500) for _ in range(4)))
            await until(lambda: watching.done() or watch.last["worker_exits_total replaced"])
            await until(lambda: watching.done() or watch.last.get(GETS, 0) >= len(answers) - lost)
            assert not watching.done(), watching.exception()
            watching.cancel()
            # An answer may be cut off by the kill.
            assert len(answers) - lost <= watch.last[GETS] <= len(answers) + 8
            assert watch.last["worker_exits_total died"] == 1
            assert watch.last["websocket_messages_total in"] == 1
            assert watch.last["websocket_close_total 1012"] == 1
            assert watch.last["workers serving"] == 2
            assert watch.unanswered <= 2
            assert len([line for line in server.lines("ERROR") if "The monitor has died" in line]) == 1

    @in_loop
    async def test_probes_are_answered_while_all_workers_are_blocked(self, tmp_path: Path) -> None:
        """And no connection is left to the service."""
        made = Supervised(tmp_path, 2, *MONITOR, "--limit-connections", "3")
        made.write("def the_place_where_it_blocks(): time.sleep(30)")
        with made as server, ExitStack() as stack:
            monitor = url(server)
            held = [stack.enter_context(server.connect()) for _ in range(12)]
            held[0].sendall(request("/sleep/600?password=secret"))
            await until_shown(monitor, lambda shown: shown["slowest"])
            for peer in held[1:]:
                # Those above the limit have got their answer.
                with suppress(OSError):
                    peer.sendall(request("/block"))
            shown = await until_shown(
                monitor, lambda shown: [each["state"] for each in shown["workers"]] == ["silent"] * 2
            )
            slow = [(each["method"], each["path"]) for each in shown["slowest"]]
            assert slow[0] == ("GET", "/sleep/600")
            times = []
            for path in ("/healthz", "/readyz", "/metrics") * 3:
                began = time.perf_counter()
                assert status(monitor, path) == 200
                times.append(time.perf_counter() - began)
            assert min(times) < 0.05
            os.kill(the_monitor(server), signal.SIGKILL)
            assert status(monitor, "/readyz") == 200
            processes = server.processes()
            server.end_at_once()
            wait_for(lambda: gone(processes))

    @in_loop
    async def test_each_generation_has_its_monitor_also_without_a_fork(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1, *MONITOR, "--preload", "off", "--drain-timeout", "0.2") as server:
            monitor = url(server)
            async with connect(f"{monitor.replace('http', 'ws')}/live") as page:
                assert json.loads(await page.recv())["generation"] == 1
                server.reload(2)
                with suppress(ConnectionClosed):
                    while True:
                        await page.recv()
                assert page.close_code == 1012
            shown = await live(monitor)
            assert (shown["generation"], shown["state"], shown["application"]) == (2, "serving", "app")
            assert shown["addresses"] == server.urls
            server.write("1 +")
            server.send_signal(signal.SIGHUP)
            server.wait_for_line("SyntaxError")
            found = scrape(monitor)
            assert (found["reloads_total success"], found["reloads_total failure"], found["generation"]) == (1, 1, 2)
            listed = {each["name"]: each for each in asked(monitor, "/settings.json").json()}
            assert listed["workers"] == {"name": "workers", "value": "1", "origin": "command line"}
            processes = server.processes()
        assert gone(processes)


async def until_shown(monitor: str, condition: Callable[[Any], object]) -> Any:
    """What the page shows once ``condition`` holds for it."""
    async with asyncio.timeout(DEADLINE), connect(f"{monitor.replace('http', 'ws')}/live") as page:
        while not condition(shown := json.loads(await page.recv())):
            pass
    return shown


async def live(monitor: str) -> Any:
    async with connect(f"{monitor.replace('http', 'ws')}/live") as page:
        return json.loads(await page.recv())


@pytest.mark.parametrize("workers", [pytest.param(("--workers", "1"), marks=linux), ()], ids=["workers", "alone"])
def test_a_stop_is_delayed_and_told_at_once(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """The signal goes to all processes, as systemd sends it."""
    options = *workers, *MONITOR, "--shutdown-delay", "1.5"
    with serving(tmp_path, APPLICATION, *options, new_session=True) as server:
        monitor = url(server)
        wait_for(lambda: status(monitor, "/readyz") == 200)
        os.killpg(server.pid, signal.SIGTERM)
        began = time.monotonic()
        server_said = "Stopping in 1.5 s"
        wait_for(lambda: server_said in server.output())
        assert [status(monitor, path) for path in ("/readyz", "/healthz")] == [503, 200]
        while time.monotonic() < began + 1.2:
            assert asyncio.run(ask(server.port)).startswith("one ")
            time.sleep(0.1)
        assert server.wait() == 0
        assert time.monotonic() - began >= 1.5
        assert "ERROR" not in server.output()


class TestAlone:
    @in_loop
    async def test_what_clients_do_is_counted(self, tmp_path: Path) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.send", "text": "1"})
                await receive()
                await send({"type": "websocket.close", "code": 4000})
            elif scope["path"] == "/fails":
                raise RuntimeError
            else:
                while (await receive())["more_body"]:
                    pass
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"answer"})

        path = tmp_path / "monitor"
        async with (
            serve(application, metrics=[f"unix:{path}"], limit_target_size=100) as server,
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://m") as monitor,
            httpx.AsyncClient(base_url=address(server)) as client,
        ):
            assert (await monitor.get("/healthz")).status_code == 200
            for method in ("GET", "POST", "BREW"):
                await client.request(method, "/", content=b"body" if method == "POST" else None)
            await client.get("/fails")
            await client.get("/long" * 50)
            async with connect(address(server, "ws")) as websocket:
                await websocket.recv()
                await websocket.send("2")
                with pytest.raises(ConnectionClosed):
                    await websocket.recv()
            await until(lambda: not server.exchanges)
            found = samples((await monitor.get("/metrics")).text)
            expected = {
                GETS: 1, "http_request_duration_seconds_count POST 2xx": 1,
                "http_request_duration_seconds_count other 2xx": 1,
                "http_request_duration_seconds_count GET 5xx": 1, "application_exceptions_total http": 1,
                "http_request_bytes_total": 4, "http_response_bytes_total": 18 + len("Internal Server Error\n"),
                "rejected_total target": 1, "websockets_total accepted": 1, "websocket_messages_total in": 1,
                "websocket_messages_total out": 1, "websocket_close_total other": 1, "workers serving": 1,
                "http_requests_in_flight": 0, "websockets_active": 0, "generation": 1,
            }  # fmt: skip
            assert {name: found[name] for name in expected} == expected
            assert found["connections_total"] >= 2
            if sys.platform == "linux":
                assert found[f"listen_queue_limit {server.listeners[0].description}"] > 0
                assert found["worker_memory_bytes 0"] > 1e6
        assert not path.exists()

    @in_loop
    async def test_a_page_of_another_site_may_not_look(self, tmp_path: Path) -> None:
        path = tmp_path / "monitor"
        async with serve(lambda *_: None, interface="asgi3", metrics=[f"unix:{path}"]):
            async with unix_connect(str(path), "ws://localhost/live", origin=Origin("http://localhost")) as page:
                assert json.loads(await page.recv())["state"] == "serving"
            with pytest.raises(InvalidStatus, match="403"):
                await unix_connect(str(path), "ws://localhost/live", origin=Origin("http://elsewhere"))

    @in_loop
    async def test_who_reaches_it_is_told_and_what_cannot_be_is_refused(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "asgiserver"):
            async with serve(lambda *_: None, interface="asgi3", metrics=["tcp:0", "tcp:0:interface=127.0.0.1"]):
                assert len(caplog.records) == 1
                assert "tells of the service to everybody who reaches it" in caplog.records[0].message
        with pytest.raises(SettingsError, match="metrics: 'stdio:'"):
            async with serve(lambda *_: None, interface="asgi3", metrics=["stdio:"]):
                pass
        (tmp_path / "file").touch()
        with pytest.raises(ListenError, match="is not a socket"):
            async with serve(lambda *_: None, interface="asgi3", metrics=[f"unix:{tmp_path}/file"]):
                pass
