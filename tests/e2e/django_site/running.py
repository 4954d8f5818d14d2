"""Starts the project under the real command line, with Django's own handler or ours, and speaks with it."""

from __future__ import annotations

import functools
import gzip
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import pytest
from websockets.sync.client import connect

from ..server import DEADLINE, ROOT, ServerProcess, environment, wait_for

__all__ = ["BOTH", "HANDLERS", "LARGE", "SMALL", "Answer", "Connection", "Site", "head", "multipart", "site"]

#: How each handler is asked for.
HANDLERS = {"django": "off", "ours": "auto"}
#: The same for tests. What they expect of ours is what Django's own does, which seldom changes.
BOTH = [pytest.param("django", marks=pytest.mark.slow), "ours"]

SMALL = random.Random(1).randbytes(20_000)
LARGE = random.Random(2).randbytes(1 << 16) * 320

_MIGRATE = """
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0, ignore=["rest_framework", "debug_toolbar", "ninja"])
User.objects.create_superuser("root", "root@example.org", "secret")
"""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder with the project's files and its database, from which each site's is copied."""
    made = tempfile.TemporaryDirectory()
    for name in ("media", "temporary", "assets"):
        os.mkdir(f"{made.name}/{name}")
    for name in ("small.bin", "media/small.bin", "assets/small.bin"):
        Path(made.name, name).write_bytes(SMALL)
    Path(made.name, "large.bin").write_bytes(LARGE)
    Path(made.name, "small.gz").write_bytes(gzip.compress(SMALL, 1, mtime=0))
    module = "tests.e2e.django_site.settings"
    settings = {"DJANGO_SETTINGS_MODULE": module, "SITE_FOLDER": made.name, "SITE_MIDDLEWARE": "ecosystem"}
    command = [sys.executable, "-c", _MIGRATE]
    subprocess.run(command, cwd=ROOT, env=environment(settings), check=True, timeout=DEADLINE)
    return made


class Site(ServerProcess):
    """A server of the project.

    :ivar folder: what the project may write into.
    :ivar handler: a name of HANDLERS.
    """

    folder: Path
    handler: str

    @functools.cached_property
    def client(self) -> httpx.Client:
        """For any number of threads."""
        return httpx.Client(base_url=self.url, timeout=DEADLINE, limits=httpx.Limits(max_connections=None))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def websocket(self, path: str) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, open_timeout=DEADLINE)

    def control(self, *words: str) -> int | None:
        """Say words to the project on its loop, and return the last answer."""
        with self.websocket("/control") as websocket:
            answer = None
            for word in words:
                websocket.send(word)
                answer = json.loads(str(websocket.recv(DEADLINE)).replace("None", "null").lower())
        return answer

    def said(self, *words: object) -> list[list[str]]:
        """What the project said so far that begins with these words: the words after them."""
        self.take_output()
        start = " ".join(("site", *map(str, words)))
        count = len(start.split())
        return [line.split()[count:] for line in list(self._lines) if f"{line.rstrip()} ".startswith(f"{start} ")]

    def wait_until_said(self, *words: object, times: int = 1) -> None:
        try:
            wait_for(lambda: len(self.said(*words)) >= times)
        except AssertionError:
            raise AssertionError(f"{words} was not said {times} times:\n{self.output()[-4000:]}") from None

    def rest(self) -> None:
        """Wait until every request that was begun is over."""
        wait_for(lambda: len(self.said("started")) == len(self.said("finished")), message="a request does not end")

    def memory(self, which: str = "VmRSS") -> int:
        """The process's memory, or with VmHWM the most that it ever had; bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{which}:"))

    def databases(self) -> int:
        """How many connections to its database the process has open."""
        links = [os.readlink(each) for each in Path(f"/proc/{self.pid}/fd").iterdir() if each.is_symlink()]
        return links.count(str(self.folder / "site.sqlite3"))


@contextmanager
def site(handler: str, *options: str, application: str = "router", **variables: str) -> Iterator[Site]:
    """Serve the project from a copy of its folder.

    :param application: a factory of ``asgi.py``.
    :param variables: for ``settings.py``, without their ``SITE_``.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["cp", "-r", f"{_folder().name}/.", folder], check=True)
        args = ("-p", "0", "--django", HANDLERS[handler], "--graceful-timeout", "3", *options)
        env = {"SITE_FOLDER": folder, **{f"SITE_{name}": value for name, value in variables.items()}}
        with Site(*args, "--factory", f"tests.e2e.django_site.asgi:{application}", env=env) as server:
            server.folder, server.handler = Path(folder), handler
            with server.client:
                yield server


class Answer(NamedTuple):
    """A response as it came."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        return next((value for given, value in self.fields if given.lower() == name), None)

    def without(self, *names: str) -> Answer:
        return self._replace(fields=[field for field in self.fields if field[0].lower() not in names])


class Connection:
    """One connection, on which each request may be any bytes."""

    def __init__(self, server: ServerProcess, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(("127.0.0.1", server.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def begin(self, method: str = "GET") -> http.client.HTTPResponse:
        """Read the head of a response."""
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return response

    def read(self, method: str = "GET") -> Answer:
        with self.begin(method) as response:
            return Answer(response.status, response.reason, response.getheaders(), response.read())

    def ask(self, request: bytes) -> Answer:
        return self.send(request).read(request.split(b" ", 1)[0].decode())


def head(target: str, *fields: str, method: str = "GET", host: str = "h", body: bytes = b"") -> bytes:
    """A request; with the length of its body unless it is chunked."""
    given = [f"Host: {host}", *fields]
    framed = any(line.lower().startswith(("transfer-", "content-length")) for line in fields)
    if (body or method == "POST") and not framed:
        given.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {target} HTTP/1.1", *given, "", ""]).encode("latin-1") + body


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A form's body with the boundary ``edge``, of parts with their disposition and fields."""
    lines = b"".join(
        b"--edge\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"
        for disposition, data in parts
    )
    return lines + b"--edge--\r\n"
