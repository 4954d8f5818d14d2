"""What the servers are asked to do with a Django project, by ASGI and by WSGI."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.server import ROOT, environment

from .load import Client, Load, Slice, by_client, by_wrk
from .project.answers import SLEPT, api_of, found_of, hello_of, login_of
from .running import Running, ServerFailed
from .varied import Varied

__all__ = ["DJANGO", "database"]

PROJECT = "tests.benchmarks.project"
#: Seconds until the database has to be made.
MOST_SECONDS = 60.0
#: Connections of the loads of views, and slices in a round: few and long ones, as slow servers answer some dozens of
#: requests in a slice, and what is under way at its ends is a part of that.
CLIENTS = 8
SLICES = 3
#: Bytes of the large responses.
LARGE = 300 << 20
#: Of the file and the stream, of which a slice is one at least.
COSTS_OF_LARGE = ("cpu", "first_byte", "growth")
#: As many as the Django handler of this server has by itself.
THREADS_FOR_SLEEPING = 40


@functools.cache
def database(folder: Path) -> None:
    """Make the project's database in ``folder``, once.

    :raises ServerFailed: it cannot be made.
    """
    variables = environment({"BENCHMARK_FOLDER": str(folder)})
    command = [sys.executable, "-m", PROJECT]
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=MOST_SECONDS, check=False
    )  # fmt: skip
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason"]
        raise ServerFailed(f"the database could not be made: {reason[-1][:200]}")


def _project(title: str, unit: str, client: Client, **options: Any) -> Load:
    applications = {"application": f"{PROJECT}.asgi:application", "wsgi": f"{PROJECT}.wsgi:application"}
    return Load(
        f"Django, {title}", unit, client=client, group="django", prepare=database, **applications, **options
    )  # fmt: skip


def _view(title: str, request: Varied, *, variables: Mapping[str, str] | None = None, part: bool = False) -> Load:
    return _project(
        title, "request", by_wrk(request, CLIENTS), varied=request, needs="wrk", slices=SLICES, part=part,
        variables=variables or {},
    )  # fmt: skip


def _large(title: str, target: str) -> Load:
    """The slow reader warms the server up; a further slice would find the memory already grown."""
    client = by_client("large", target=f"{target}/{LARGE}", size=LARGE)
    return _project(title, "download", client, metrics=COSTS_OF_LARGE, compared=3, slices=1, warm_up=False)


def _counting(client: Client) -> Client:
    """``client``, and then what the application knows of its connections to the database since its start."""

    @contextmanager
    def counting(server: Running) -> Iterator[Slice]:
        with client(server) as take:

            def counted(seconds: float) -> dict[str, float]:
                found = take(seconds)
                answer = server.answer(b"GET /connections HTTP/1.1\r\nHost: %s\r\n\r\n" % server.host.encode("ascii"))
                return {**found, **json.loads(answer)}

            yield counted

    return counting


QUERY = Varied(found_of, prefix="/orm")

DJANGO = {
    "django": _view("sync view", Varied(hello_of)),
    "django-orm": _view("sync view with a query", QUERY),
    "django-async": _view("async view", Varied(hello_of), variables={"BENCHMARK_URLS": f"{PROJECT}.urls_async"}),
    "django-login": _view("the admin's page to log in", Varied(login_of, prefix="/admin/login/?next="), part=True),
    "django-drf": _view("view of REST framework", Varied(api_of, prefix="/drf")),
    "django-file": _large("file of 300 MiB", "/file"),
    "django-stream": _large("sync stream of 300 MiB", "/stream"),
    "django-pool": _project(
        "64 clients, a query, CONN_MAX_AGE=60", "request", _counting(by_wrk(QUERY, 64)), varied=QUERY, needs="wrk",
        metrics=("opened", "peak", "rate"), compared=3, slices=1, warm_up=False,
    ),
    "django-sleep": _project(
        "200 requests at once, each sleeps 50 ms", "request",
        by_client("burst", target="/sleep", answer=SLEPT.decode("ascii"), requests=200),
        metrics=("all_answered", "cpu", "memory"), threads=THREADS_FOR_SLEEPING, slices=5,
    ),
}  # fmt: skip
