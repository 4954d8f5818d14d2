"""One server process with its children: started, asked until it answers, and ended by its own id."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.server import ROOT, environment, free_port

from . import processes
from .servers import THREADS, Certificate, Order, ServerKind

__all__ = ["Running", "ServerFailed"]

#: Seconds that a server has until it answers, until it has answered one request, and until it has ended after SIGTERM.
START = 30.0
ANSWER = 10.0
STOP = 10.0


class ServerFailed(RuntimeError):
    """A server could not be started, or answers wrongly; the reason in one line."""


class Running:
    """A server of ``application`` on a free port of 127.0.0.1, as a context manager; it answers when the block begins.

    :param application: ``module:attribute``.
    :param certificate: serves TLS.
    :param folder: a temporary folder of the run.
    :param unix: on a unix socket in ``folder`` instead, unless the kind is there to be compared with that.
    :param proxied: believes the forwarding fields of 127.0.0.1.
    :param http2: offers HTTP/2.
    :param threads: of a WSGI server.
    :param workers: processes that serve.
    :param variables: of its environment, besides those of all servers.
    :ivar path: of the unix socket; empty without one.
    :ivar started_in: seconds from its start to the end of its first answer.
    :ivar start_cpu: seconds of CPU that it has used until then.
    :raises ServerFailed: on entering, when it cannot be started.
    """

    def __init__(
        self,
        kind: ServerKind,
        application: str,
        folder: Path,
        certificate: Certificate | None = None,
        *,
        unix: bool = False,
        proxied: bool = False,
        http2: bool = False,
        threads: int = THREADS,
        workers: int = 1,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.application = application
        self.folder = folder
        self.certificate = certificate
        self.path = str(folder / f"{kind.name}.sock") if unix and not kind.tcp_in else ""
        self.proxied = proxied
        self.http2 = http2
        self.threads = threads
        self.workers = workers
        self.variables = variables or {}
        self.port = 0
        self.started_in = 0.0
        self.start_cpu = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def host(self) -> str:
        """The value of requests' Host."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}/"

    def __enter__(self) -> Self:
        if missing := self.kind.missing_flags():
            raise ServerFailed(f"no such flag: {', '.join(missing)}")
        self.port = free_port()
        if self.path:
            Path(self.path).unlink(missing_ok=True)
        self.log = tempfile.TemporaryFile("w+", dir=self.folder)
        order = Order(
            self.application, self.port, self.path, self.certificate, self.proxied, self.threads, self.workers,
            self.http2,
        )
        command = [sys.executable, "-m", *self.kind.arguments(order)]
        place, variables = self._surroundings()
        begin = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=place, env=variables, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT
        )
        try:
            self._wait_until_it_answers(begin + START)
        except BaseException:
            self._end()
            raise
        self.started_in = time.monotonic() - begin
        self.start_cpu = sum(map(processes.cpu_seconds, processes.tree(self.pid)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _surroundings(self) -> tuple[Path, dict[str, str]]:
        """The working folder and the environment of the process.

        Another checkout's package is found by a link in a folder of its own, so that the applications are this one's.
        """
        variables = environment({"BENCHMARK_FOLDER": str(self.folder), "PYTHONUNBUFFERED": "", **self.variables})
        # A server that is not installed but run from its sources has to keep what it has compiled, as the others do.
        variables["PYTHONDONTWRITEBYTECODE"] = ""
        if self.kind.checkout is None:
            return ROOT, variables
        place = self.folder / f"checkout-{self.kind.name}"
        if not place.exists():
            place.mkdir()
            (place / "asgiserver").symlink_to(self.kind.checkout / "asgiserver", target_is_directory=True)
        variables["PYTHONPATH"] = os.pathsep.join((str(place), variables["PYTHONPATH"]))
        return place, variables

    @property
    def _address(self) -> tuple[socket.AddressFamily, Any]:
        return (socket.AF_UNIX, self.path) if self.path else (socket.AF_INET, ("127.0.0.1", self.port))

    def _connected(self) -> socket.socket:
        """:raises OSError: nobody listens, or the handshake fails."""
        family, address = self._address
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket(family))
            sock.settimeout(ANSWER)
            sock.connect(address)
            if self.certificate:
                trusted = ssl.create_default_context(cafile=self.certificate.authority)
                sock = trusted.wrap_socket(sock, server_hostname="127.0.0.1")
            stack.pop_all()
        return sock

    def answer(self, message: bytes = b"") -> bytes:
        """The body of the response to the request ``message``; by default ``GET /``.

        :raises ServerFailed: for any status but 200, and when the connection breaks.
        """
        try:
            with self._connected() as sock:
                sock.sendall(message or b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % self.host.encode("ascii"))
                with contextlib.closing(http.client.HTTPResponse(sock)) as response:
                    response.begin()
                    body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailed(f"no answer to the first request: {error!r}") from error
        if response.status != 200:
            raise ServerFailed(f"the first request was answered {response.status}")
        return body

    def _listens(self) -> bool:
        family, address = self._address
        with socket.socket(family) as probe:
            return probe.connect_ex(address) == 0

    def _wait_until_it_answers(self, end: float) -> None:
        while not self._listens():
            if self.process.poll() is not None:
                raise ServerFailed(f"ended with status {self.process.returncode}: {self._last_line()}")
            if time.monotonic() > end:
                raise ServerFailed(f"did not listen within {START:g} s: {self._last_line()}")
            time.sleep(0.002)
        self.answer()

    def _last_line(self) -> str:
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    def _end(self) -> None:
        """Stop the process, and whatever of its children outlives it."""
        children = processes.tree(self.pid)[1:] if self.process.poll() is None else []
        identities = {child: processes.started(child) for child in children}
        with self.process, self.log:
            self.process.terminate()
            try:
                self.process.wait(STOP)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for child, identity in identities.items():
            if identity is not None and processes.started(child) == identity:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
