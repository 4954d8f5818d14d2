"""What a load is, and how it is put on a running server."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.server import ROOT, environment

from . import h2load, wrk
from .applications import BODY
from .processes import memory_bytes
from .running import Running, ServerFailed
from .servers import THREADS, Certificate, ServerKind
from .varied import Varied, any_number
from .wrk import ClientFailed, Request

__all__ = ["ALL", "METRICS", "Client", "Load", "Metric", "Slice", "by_client", "by_h2load", "by_wrk", "opened"]

MIB = 1 << 20
#: Seconds that a client may need for a slice beyond those that it measures: to open connections, and to close them.
SLACK = 90.0
#: Seconds until an idle server has got over its start.
REST = 0.3


@dataclass(frozen=True, slots=True)
class Metric:
    """A column.

    :param more_is_better: of a rate.
    :param per_unit: of a load, such as a request.
    """

    title: str
    unit: str
    more_is_better: bool = False
    per_unit: bool = False


METRICS = {
    "cpu": Metric("CPU", "µs", per_unit=True),
    "rate": Metric("throughput", "/s", more_is_better=True),
    "p50": Metric("p50", "ms"),
    "p99": Metric("p99", "ms"),
    "memory": Metric("memory", "MiB"),
    "each": Metric("memory each", "KiB", per_unit=True),
    "idle_cpu": Metric("CPU per second", "µs"),
    "first_answer": Metric("first answer after", "ms"),
    "start_cpu": Metric("CPU until then", "ms"),
    "first_byte": Metric("first byte of the content after", "ms"),
    "growth": Metric("memory grown for a slow reader", "MiB"),
    "opened": Metric("opened", "connections"),
    "peak": Metric("open at once", "connections"),
    "all_answered": Metric("all answered after", "ms"),
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
    :param compared: so many of them, from the first, are in the overview.
    :param group: the loads that have a table in common, and the servers that take part.
    :param wsgi: ``module:attribute`` of the same for WSGI servers.
    :param threads: of WSGI servers.
    :param workers: processes of each server that serve.
    :param variables: of the servers' environment.
    :param prepare: makes what the application needs in the run's folder.
    :param answer: what ``GET /`` has to be answered beforehand; None for anything.
    :param varied: the requests; three of them, instead of ``GET /``, have to be answered right beforehand.
    :param part: their answers have to hold what is expected, as the rest differs each time.
    :param unix: through a unix socket.
    :param proxied: servers take client and scheme from the forwarding fields.
    :param http2: servers offer HTTP/2.
    :param needs: a program without which it is nothing.
    :param slices: how many a round has of each server.
    :param warm_up: one more comes first and does not count.
    :param together: servers do it at the same time, as what is told depends on no clock, and takes long.
    """

    title: str
    unit: str
    application: str
    client: Client | None = field(repr=False)
    metrics: tuple[str, ...] = ALL
    compared: int = 1
    group: str = "asgi"
    wsgi: str = ""
    threads: int = THREADS
    workers: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = field(default=None, repr=False)
    answer: bytes | None = BODY
    varied: Varied | None = None
    part: bool = False
    tls: bool = False
    unix: bool = False
    proxied: bool = False
    http2: bool = False
    needs: str = ""
    slices: int = 8
    warm_up: bool = True
    together: bool = False

    def path(self, kind: ServerKind) -> str:
        """``module:attribute`` of what ``kind`` serves."""
        found = self.wsgi if kind.wsgi else self.application
        return found if ":" in found else f"tests.benchmarks.applications:{found}"


def by_wrk(request: Request | Varied, connections: int) -> Client:
    @contextmanager
    def client(server: Running) -> Iterator[Slice]:
        def take(seconds: float) -> dict[str, float]:
            found = wrk.run(server.url, request, connections, seconds, server.pid, server.folder)
            return {**found, "memory": memory_bytes(server.pid) / MIB}

        yield take

    return client


def by_h2load(connections: int, streams: int, body: int = 0) -> Client:
    @contextmanager
    def client(server: Running) -> Iterator[Slice]:
        def take(seconds: float) -> dict[str, float]:
            found = h2load.run(server.url, connections, streams, body, seconds, server.pid, server.folder)
            return {**found, "memory": memory_bytes(server.pid) / MIB}

        yield take

    return client


def by_client(name: str, **options: Any) -> Client:
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
        return Running(
            kind, load.path(kind), folder, certificate,
            unix=load.unix, proxied=load.proxied, http2=load.http2, threads=load.threads, workers=load.workers,
            variables=load.variables,
        )  # fmt: skip

    def start(seconds: float) -> dict[str, float]:
        with running() as server:
            time.sleep(REST)
            memory = memory_bytes(server.pid) / MIB
            _check(load, server)
            return {"first_answer": server.started_in * 1e3, "start_cpu": server.start_cpu * 1e3, "memory": memory}

    if load.prepare is not None:
        load.prepare(folder)
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
        if expected is not None and not (expected in body if load.part else body == expected):
            raise ServerFailed(f"a wrong answer of {len(body)} bytes that begins with {body[:16]!r}")
