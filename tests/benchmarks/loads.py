"""What the servers are asked to do, and what of it is measured."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.e2e.server import ROOT, environment

from . import wrk
from .applications import BODY, FILE_SIZE, PIECE, PIECES, json_of, page_of, proxied_of, varied_of
from .processes import memory_bytes
from .running import Running, ServerFailed
from .servers import Certificate, ServerKind
from .varied import Varied, any_number
from .wrk import ClientFailed, Request

__all__ = ["LOADS", "METRICS", "Load", "Metric", "Slice", "opened", "varied_over"]

MIB = 1 << 20
#: Seconds that a client may need for a slice beyond those that it measures: to open connections, and to close them.
SLACK = 90.0
#: Seconds until an idle server has got over its start.
REST = 0.3


@dataclass(frozen=True, slots=True)
class Metric:
    """A column.

    :param more_is_better: of a rate.
    """

    title: str
    unit: str
    more_is_better: bool = False


METRICS = {
    "cpu": Metric("CPU", "µs"),
    "rate": Metric("throughput", "/s", more_is_better=True),
    "p50": Metric("p50", "ms"),
    "p99": Metric("p99", "ms"),
    "memory": Metric("memory", "MiB"),
    "each": Metric("memory each", "KiB"),
    "idle_cpu": Metric("CPU per second", "µs"),
    "first_answer": Metric("first answer after", "ms"),
    "start_cpu": Metric("CPU until then", "ms"),
}
ALL = ("cpu", "rate", "p50", "p99", "memory")

#: Takes a slice of so many seconds, and tells its values as :class:`~tests.benchmarks.measuring.Record` has them.
Slice = Callable[[float], dict[str, float]]
#: A client of a running server.
Client = Callable[[Running], AbstractContextManager[Slice]]


@dataclass(frozen=True, slots=True)
class Load:
    """Something that each server is asked to do.

    :param title: for people.
    :param unit: what the costs are for.
    :param application: the attribute of ``tests.benchmarks.applications``, or ``module:attribute``.
    :param client: does it; None when there is nothing to do but to start.
    :param metrics: names in :data:`METRICS`; the first is what the servers are compared by.
    :param answer: what ``GET /`` has to be answered beforehand; None for anything.
    :param varied: the requests; three of them, instead of ``GET /``, have to be answered right beforehand.
    :param unix: through a unix socket.
    :param proxied: servers take client and scheme from the forwarding fields.
    :param needs_wrk: it is nothing without wrk.
    :param slices: how many a round has of each server.
    :param warm_up: one more comes first and does not count.
    :param together: servers do it at the same time, as what is told depends on no clock, and takes long.
    """

    title: str
    unit: str
    application: str
    client: Client | None = field(repr=False)
    metrics: tuple[str, ...] = ALL
    answer: bytes | None = BODY
    varied: Varied | None = None
    tls: bool = False
    unix: bool = False
    proxied: bool = False
    needs_wrk: bool = False
    slices: int = 8
    warm_up: bool = True
    together: bool = False

    @property
    def path(self) -> str:
        return self.application if ":" in self.application else f"tests.benchmarks.applications:{self.application}"


def _wrk(request: Request | Varied, connections: int) -> Client:
    @contextmanager
    def client(server: Running) -> Iterator[Slice]:
        def take(seconds: float) -> dict[str, float]:
            found = wrk.run(server.url, request, connections, seconds, server.pid, server.folder)
            return {**found, "memory": memory_bytes(server.pid) / MIB}

        yield take

    return client


def _client(name: str, **options: Any) -> Client:
    @contextmanager
    def client(server: Running) -> Iterator[Slice]:
        place = {"port": server.port, **({"path": server.path} if server.path else {})}
        order = json.dumps({"client": name, "pid": server.pid, **place, **options})
        command = [sys.executable, "-m", "tests.benchmarks.clients", order]
        with tempfile.TemporaryFile(dir=server.folder) as errors, subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process:  # fmt: skip

            def take(seconds: float) -> dict[str, float]:
                found = _answer(process, seconds)
                if found is None:
                    errors.seek(0)
                    reason = errors.read().decode("utf-8", "replace").strip() or "no reason"
                    raise ClientFailed(f"the client failed: {reason[-200:]}")
                if "failure" in found:
                    raise ClientFailed(found["failure"])
                return {"memory": memory_bytes(server.pid) / MIB, **found}

            try:
                yield take
            finally:
                process.kill()

    return client


def _answer(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
    """What the client says of its next slice; None when it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"%f\n" % seconds)
    process.stdin.flush()
    if not select.select([process.stdout], [], [], seconds + SLACK)[0]:
        raise ClientFailed(f"not done within {seconds + SLACK:g} s")
    line = process.stdout.readline()
    return json.loads(line) if line else None


@contextmanager
def opened(load: Load, kind: ServerKind, folder: Path, certificate: Certificate | None) -> Iterator[Slice]:
    """``load`` on a server of its own that answers right, until the block ends; a load without a client starts one for
    each slice.

    :raises ServerFailed: on entering, or when a slice is taken.
    """

    def running() -> Running:
        return Running(kind, load.path, folder, certificate, unix=load.unix, proxied=load.proxied)

    def start(seconds: float) -> dict[str, float]:
        with running() as server:
            time.sleep(REST)
            memory = memory_bytes(server.pid) / MIB
            _check(load, server)
            return {"first_answer": server.started_in * 1e3, "start_cpu": server.start_cpu * 1e3, "memory": memory}

    if load.client is None:
        yield start
        return
    with running() as server:
        _check(load, server)
        with load.client(server) as take:
            yield take


def _check(load: Load, server: Running) -> None:
    """:raises ServerFailed: an answer is not what the application answers."""
    if load.varied is None:
        asked = [(b"", load.answer)]
    else:
        numbers = [any_number() for _ in range(3)]
        asked = [(load.varied.message(each, server.host), load.varied.expected(each)) for each in numbers]
    for message, expected in asked:
        body = server.answer(message)
        if expected is not None and body != expected:
            raise ServerFailed(f"a wrong answer of {len(body)} bytes that begins with {body[:16]!r}")


BROWSER: Mapping[str, str] = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 "
    "Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control": "max-age=0",
    "Connection": "keep-alive",
    "Cookie": "csrftoken=k3bq0LJwC2pO5cUuGzXyVv1mR7dTfNhA; sessionid=x8r2m5q1w9e4t7y3u6i0o5p2a8s4d1f7",
    "Referer": "https://example.org/forum/threads/1729",
    "Sec-Ch-Ua": '"Chromium";v="130", "Not?A_Brand";v="99"',
    "Sec-Ch-Ua-Mobile": "?0",
    "Sec-Ch-Ua-Platform": '"Linux"',
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
}
POST = Request("POST", {"Content-Type": "application/octet-stream"}, body=65536)
PROJECT = "tests.benchmarks.project:application"
IDLE = ("each", "idle_cpu")

VARIED = Varied(varied_of)
PAGE = Varied(page_of)
JSON = Varied(json_of, posts=True)
PROXIED = Varied(proxied_of, fields="X-Forwarded-Proto: https\r\n")


def _varied(title: str, application: str, request: Varied, connections: int = 32, **options: Any) -> Load:
    client = _wrk(request, connections)
    return Load(title, "request", application, client, varied=request, needs_wrk=True, **options)


def varied_over(connections: int) -> Load:
    """The first of :data:`LOADS`, over so many connections."""
    return replace(
        LOADS["varied"], title=f"GET, each different, {connections} connections", client=_wrk(VARIED, connections)
    )


LOADS = {
    "varied": _varied("GET, each different", "varied", VARIED),
    "page": _varied("page of 5 KiB, each different", "page", PAGE),
    "json": _varied("POST of 1 KiB of JSON, each different", "json", JSON),
    "one": _varied("GET, each different, one connection", "varied", VARIED, 1),
    "unix": Load(
        "GET, each different, unix socket", "request", "varied", _client("requests"), varied=VARIED, unix=True
    ),
    "proxied": _varied("GET, each different, behind a proxy", "proxied", PROXIED, proxied=True),
    "tls-varied": _varied("TLS GET, each different", "varied", VARIED, tls=True),
    "get": Load("the same GET again and again", "request", "hello", _wrk(Request(), 32), needs_wrk=True),
    "browser": Load(
        "the same GET, a browser's head", "request", "hello", _wrk(Request(fields=BROWSER), 32), needs_wrk=True
    ),
    "wait": Load("200 waiting requests of 10 ms", "request", "wait", _wrk(Request(), 200), needs_wrk=True),
    "post": Load("POST of 64 KiB", "request", "measured", _wrk(POST, 32), answer=b"0", needs_wrk=True),
    "upload": Load(
        "upload of 256 MiB", "MiB", "measured", _client("upload"), ("cpu", "rate", "memory"), answer=b"0",
        slices=5,
    ),
    "stream": Load(
        "10 MiB streamed", "response", "stream", _client("download", size=len(PIECE) * PIECES, connections=4),
        answer=PIECE * PIECES,
    ),
    "file": Load(
        "file of 1 MiB", "response", "file", _client("download", size=FILE_SIZE, connections=4), answer=b"x" * FILE_SIZE
    ),
    "tls": Load("the same TLS GET", "request", "hello", _wrk(Request(), 32), tls=True, needs_wrk=True),
    "echo": Load("WebSocket echo, 32 B", "message", "echo", _client("echo", size=32)),
    "ws-varied": Load(
        "WebSocket echo, 20 to 400 B, each different", "message", "echo", _client("echo", varied=True)
    ),
    "deflate": Load(
        "WebSocket echo, 1 KiB compressed", "message", "echo",
        _client("echo", size=1024, connections=16, compressed=True),
    ),
    "large": Load("WebSocket echo, 64 KiB", "message", "echo", _client("echo", size=65536, connections=8)),
    "broadcast": Load("one sender to 1,000 WebSockets", "delivery", "broadcast", _client("broadcast"), slices=3),
    "idle": Load(
        "2,000 idle connections, HTTP", "connection", "hello", _client("idle", kind="http"), IDLE,
        slices=1, warm_up=False, together=True,
    ),
    "idle-ws": Load(
        "2,000 idle WebSockets", "connection", "echo", _client("idle", kind="websocket"), IDLE,
        slices=1, warm_up=False, together=True,
    ),
    "django": Load("Django view", "request", PROJECT, _wrk(Request(), 32), needs_wrk=True),
    "channels": Load("Channels echo, 32 B", "message", PROJECT, _client("echo", size=32)),
    "start": Load("start", "start", "hello", None, ("first_answer", "start_cpu", "memory"), slices=3),
}  # fmt: skip
