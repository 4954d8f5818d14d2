"""The benchmarks still run: a tiny round of them on this server alone."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import clients, h2load, load, slow_reader, wrk
from tests.benchmarks.applications import FILE_SIZE, PIECE, PIECES
from tests.benchmarks.django_loads import DJANGO, database
from tests.benchmarks.load import opened
from tests.benchmarks.loads import JSON, LOADS, VARIED
from tests.benchmarks.running import Running, ServerFailed
from tests.benchmarks.servers import SERVERS
from tests.benchmarks.varied import Varied
from tests.benchmarks.wrk import ClientFailed
from tests.programs import require

from .server import DEADLINE, ROOT, environment

#: One server that is there wherever the tests are.
SERVER = "asgiserver-asyncio"


def run(loads: str, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The records and the printed report of half a second of ``loads``."""
    results, chart = folder / "results.json", folder / "chart.svg"
    command = [
        sys.executable, "-m", "tests.benchmarks", "--only", loads, "--servers", SERVER, "--rounds", "1",
        "--seconds", "0.5", "--json", str(results), "--svg", str(chart),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=6 * DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert chart.read_text("utf-8").startswith("<svg")
    return json.loads(results.read_text("utf-8"))["records"], done.stdout


@contextmanager
def running(application: str, folder: Path) -> Iterator[Running]:
    with Running(SERVERS[SERVER], f"tests.benchmarks.applications:{application}", folder) as server:
        yield server


def add_up(values: dict[str, float]) -> None:
    """What a unit costs, times how often it happened, is the time in which the server was busy."""
    assert values["cpu"] * values["rate"] == pytest.approx(values["busy"] * 1e6, rel=0.01)
    assert values["client"] > 0


def test_what_needs_no_other_program(tmp_path: Path) -> None:
    found, report = run("start,ws-varied,unix", tmp_path)
    loads = ["start", "ws-varied", "unix"]
    assert [(record["load"], record["failure"]) for record in found] == [(load, "") for load in loads], report
    start, echo, _ = (record["values"] for record in found)
    assert 1 < start["first_answer"] < DEADLINE * 1e3
    assert start["start_cpu"] > 1
    assert start["memory"] > 10
    for record in found[1:]:
        assert len(record["slices"]) == LOADS[record["load"]].slices
        for values in record["slices"]:
            add_up(values)
    assert 0 < echo["p50"] <= echo["p99"]
    assert "| WebSocket echo, 20 to 400 B, each different, µs per message |" in report


def test_what_wrk_does(tmp_path: Path) -> None:
    require("wrk")
    found, report = run("get,varied,proxied", tmp_path)
    assert [record["failure"] for record in found] == ["", "", ""], report
    for record in found:
        for values in record["slices"]:
            add_up(values)
        assert record["values"]["rate"] > 100
    assert "asgiserver-asyncio / uvicorn-h11 | 0.50 | – | unknown |" in report


def test_requests_over_http2_that_differ(tmp_path: Path) -> None:
    with running("varied", tmp_path) as server:
        add_up(clients.http2_requests(server.port, server.pid, 0.2, connections=2, streams=4))
    with running("hello", tmp_path) as server, clients.open_http2(server.port) as sock:
        assert not clients._is_closed(sock)


def test_what_h2load_does(tmp_path: Path) -> None:
    require("h2load")
    with running("measured", tmp_path) as server:
        for body in (0, 65536):
            found = h2load.run(server.url, 2, 4, body, 0.2, server.pid, tmp_path)
            add_up(found)
            assert 0 < found["p50"] <= found["p99"]
        with pytest.raises(ClientFailed, match="h2load spoke no HTTP/2"):
            h2load.run(server.url.replace("http", "https"), 1, 1, 0, 0.0, server.pid, tmp_path)


class Recorder(socketserver.StreamRequestHandler):
    """Answers every request, and keeps it."""

    def handle(self) -> None:
        # wrk goes in the middle of what it does.
        with suppress(ConnectionError):
            while (line := self.rfile.readline()) != b"":
                head = line
                while line not in (b"\r\n", b""):
                    line = self.rfile.readline()
                    head += line
                length = re.search(rb"Content-Length: (\d+)", head)
                self.server.seen.append(head + self.rfile.read(int(length[1]) if length else 0))  # type: ignore[attr-defined]
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


class Recording(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Recorder)


@pytest.mark.parametrize("request_", [VARIED, JSON], ids=["get", "post"])
def test_what_wrk_sends_is_never_the_same_and_as_it_is_known_here(request_: Varied, tmp_path: Path) -> None:
    require("wrk")
    measured = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with measured, Recording() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        host = f"127.0.0.1:{server.server_address[1]}"
        try:
            wrk.run(f"http://{host}/", request_, 4, 0.1, measured.pid, tmp_path)
        finally:
            measured.kill()
            server.shutdown()
            thread.join()
        seen = list(server.seen)
    assert len(set(seen)) == len(seen) > 8
    for message in seen:
        number = re.match(rb"\w+ /articles/(\d+)/", message)
        assert number is not None
        assert message == request_.message(int(number[1]), host)


def test_websockets_and_idle_connections(tmp_path: Path) -> None:
    with running("echo", tmp_path) as server:
        compressed = clients.echo(server.port, server.pid, 0.2, size=1024, connections=2, compressed=True)
        add_up(compressed)
        for kind in ("http", "websocket"):
            found = clients.idle(server.port, server.pid, 0.1, kind=kind, connections=60)
            assert 0 <= found["each"] < 1000
            assert found["idle_cpu"] >= 0


def test_one_sender_to_many(tmp_path: Path) -> None:
    with running("broadcast", tmp_path) as server:
        add_up(clients.broadcast(server.port, server.pid, 0.2, connections=20))


def test_a_slice_in_which_nothing_comes_back_in_time_goes_on_until_something_does(tmp_path: Path) -> None:
    with running("echo", tmp_path) as server:
        add_up(clients.echo(server.port, server.pid, 0.0, connections=1))
    with running("stream", tmp_path) as server:
        add_up(clients.download(server.port, server.pid, 0.0, size=len(PIECE) * PIECES, connections=1))


def test_uploads(tmp_path: Path) -> None:
    with running("measured", tmp_path) as server:
        found = clients.upload(server.port, server.pid, 0.0, mebibytes=4)
        add_up(found)
        assert found["memory"] > 10


def test_downloads(tmp_path: Path) -> None:
    with running("stream", tmp_path) as server:
        add_up(clients.download(server.port, server.pid, 0.2, size=len(PIECE) * PIECES, connections=2))
    with running("file", tmp_path) as server:
        add_up(clients.download(server.port, server.pid, 0.2, size=FILE_SIZE, connections=2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of the Django project."""
    folder = tmp_path_factory.mktemp("project")
    database(folder)
    return folder


@contextmanager
def project(folder: Path, name: str = "django", server: str = SERVER) -> Iterator[Running]:
    """The Django project in its folder, as the load of that name has it."""
    kind, wanted = SERVERS[server], DJANGO[name]
    with Running(kind, wanted.path(kind), folder, threads=wanted.threads, variables=wanted.variables) as found:
        yield found


@pytest.mark.parametrize("server", [SERVER, "gunicorn-wsgi"])
def test_what_django_answers_is_right(server: str, made: Path) -> None:
    with project(made, server=server) as found:
        for name, each in DJANGO.items():
            if name != "django-async":
                load._check(each, found)
    with project(made, "django-async", server) as found:
        load._check(DJANGO["django-async"], found)


def test_a_database_that_cannot_be_made_is_a_failed_server(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"the database could not be made: .*unable to open database file"):
        database(tmp_path / "missing")


def test_a_large_response_of_django(made: Path) -> None:
    size = 3 << 20
    with project(made) as server:
        for target in ("file", "stream"):
            found = clients.large(server.port, server.pid, 0.0, target=f"/{target}/{size}", size=size)
            add_up(found)
            assert found["first_byte"] > 0
            assert found["growth"] >= 0
        with pytest.raises(ClientFailed, match="expected 200, got 404"):
            slow_reader.growth(server.port, server.pid, "/nothing", size)
        with pytest.raises(ClientFailed, match=f"{size} of {size + 1} bytes came"):
            slow_reader.growth(server.port, server.pid, f"/stream/{size}", size + 1)
        with pytest.raises(ClientFailed, match="something else than what the application sends"):
            slow_reader.growth(server.port, server.pid, "/", size)


def test_what_a_server_keeps_for_a_slow_reader_shows(tmp_path: Path) -> None:
    """Through an application that is written as simply as can be, and so has all of it in memory."""
    size = 64 << 20
    (tmp_path / "whole.py").write_text(WHOLE.format(size=size))
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    with Running(SERVERS[SERVER], "whole:application", tmp_path, variables=variables) as server:
        assert slow_reader.growth(server.port, server.pid, "/large", size) > size // 2


WHOLE = """
from tests.benchmarks.applications import hello

async def application(scope, receive, send):
    if scope.get("path") != "/large":
        return await hello(scope, receive, send)
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"x" * {size}}})
"""


def test_requests_at_once(made: Path) -> None:
    with project(made) as server:
        found = clients.burst(server.port, server.pid, 0.0, target="/sleep", answer="Slept well.", requests=10)
        add_up(found)
        assert found["all_answered"] >= 50
        with pytest.raises(ClientFailed, match="an answer that begins with"):
            clients.burst(server.port, server.pid, 0.0, target="/sleep", answer="Awake.", requests=2)


def test_what_django_knows_of_its_connections(made: Path) -> None:
    require("wrk")
    with opened(DJANGO["django-pool"], SERVERS[SERVER], made, None) as take:
        found = take(0.2)
    assert 1 <= found["peak"] <= found["opened"]
    add_up(found)


def test_a_client_that_sees_something_else_says_so(tmp_path: Path) -> None:
    with running("hello", tmp_path) as server:
        with pytest.raises(ClientFailed, match="a response of 13 instead of 100 bytes"):
            clients.download(server.port, server.pid, 0.2, size=100, connections=1)
        with pytest.raises(ClientFailed, match="the application got"):
            clients.upload(server.port, server.pid, 0.0, mebibytes=1)
        with pytest.raises(ClientFailed, match="expected 101, got"):
            clients.echo(server.port, server.pid, 0.2)
