"""The servers that are compared, each as its own manual tells to run it in production, with one worker process.

What is set for all of them, where they have it: one worker, no log of requests, idle connections kept for 75 s, and
room for as many connections as the loads open.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tests.e2e.server import ROOT, environment

__all__ = ["SERVERS", "Certificate", "ServerKind"]

KEEP_ALIVE = "75"
MOST_CONNECTIONS = "4096"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a certificate chain, its key, and the authority that it comes from, all in PEM."""

    chain: str
    key: str
    authority: str


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A server with its options.

    :param name: its name in tables.
    :param packages: what has to be installed; the first has its version shown.
    :param arguments: the command after ``python -m``: for an application, a port and perhaps a certificate.
    :param flags: options that its ``--help`` has to know.
    """

    name: str
    packages: tuple[str, ...]
    arguments: Callable[[str, int, Certificate | None], list[str]] = field(repr=False)
    flags: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        return self.packages[0] == "asgiserver"

    def installed(self) -> bool:
        try:
            return all(version(package) for package in self.packages)
        except PackageNotFoundError:
            return False

    def missing_flags(self) -> list[str]:
        """Those of :attr:`flags` that this version does not know."""
        return [flag for flag in self.flags if flag not in _known_flags(self.packages[0])]


@cache
def _known_flags(module: str) -> frozenset[str]:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )  # fmt: skip
    return frozenset(re.findall(r"(?<!\S)--[\w-]+", done.stdout))


def _asgiserver(*more: str) -> Callable[[str, int, Certificate | None], list[str]]:
    def arguments(application: str, port: int, certificate: Certificate | None) -> list[str]:
        tls = ["--ssl-certfile", certificate.chain, "--ssl-keyfile", certificate.key] if certificate else []
        return [
            "asgiserver", "-b", "127.0.0.1", "-p", str(port), "-v", "0", "--keep-alive-timeout", KEEP_ALIVE,
            *more, *tls, application,
        ]  # fmt: skip

    return arguments


def _uvicorn(*more: str) -> Callable[[str, int, Certificate | None], list[str]]:
    def arguments(application: str, port: int, certificate: Certificate | None) -> list[str]:
        tls = ["--ssl-certfile", certificate.chain, "--ssl-keyfile", certificate.key] if certificate else []
        return [
            "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning",
            "--timeout-keep-alive", KEEP_ALIVE, *more, *tls, application,
        ]  # fmt: skip

    return arguments


def _daphne(application: str, port: int, certificate: Certificate | None) -> list[str]:
    if certificate is None:
        return ["daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0", application]
    keys = f"privateKey={certificate.key}:certKey={certificate.chain}"
    return ["daphne", "-e", f"ssl:{port}:interface=127.0.0.1:{keys}", "-v", "0", application]


def _hypercorn(application: str, port: int, certificate: Certificate | None) -> list[str]:
    tls = ["--certfile", certificate.chain, "--keyfile", certificate.key] if certificate else []
    return [
        "hypercorn", "-b", f"127.0.0.1:{port}", "-k", "uvloop", "-w", "1", "--backlog", "2048",
        "--keep-alive", KEEP_ALIVE, "--log-level", "warning", *tls, application,
    ]  # fmt: skip


def _granian(application: str, port: int, certificate: Certificate | None) -> list[str]:
    tls = ["--ssl-certificate", certificate.chain, "--ssl-keyfile", certificate.key] if certificate else []
    return [
        "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--no-access-log", "--log-level", "warning", "--backpressure", MOST_CONNECTIONS, *tls, application,
    ]  # fmt: skip


def _gunicorn(application: str, port: int, certificate: Certificate | None) -> list[str]:
    tls = ["--certfile", certificate.chain, "--keyfile", certificate.key] if certificate else []
    return [
        "gunicorn", "-k", "asgi", "-w", "1", "-b", f"127.0.0.1:{port}", "--log-level", "warning",
        "--keep-alive", KEEP_ALIVE, "--worker-connections", MOST_CONNECTIONS, *tls, application,
    ]  # fmt: skip


#: In the order of the tables.
SERVERS = {
    kind.name: kind
    for kind in (
        ServerKind(
            "asgiserver", ("asgiserver", "httptools", "uvloop"),
            _asgiserver("--http", "httptools", "--loop", "uvloop"), ("--http", "--loop"),
        ),
        ServerKind(
            "asgiserver-h11", ("asgiserver", "h11"),
            _asgiserver("--http", "h11", "--loop", "asyncio"), ("--http", "--loop"),
        ),
        ServerKind("uvicorn", ("uvicorn", "httptools", "uvloop", "websockets"), _uvicorn()),
        ServerKind("uvicorn-h11", ("uvicorn", "h11", "websockets"), _uvicorn("--http", "h11", "--loop", "asyncio")),
        ServerKind("granian", ("granian", "uvloop"), _granian),
        ServerKind("gunicorn", ("gunicorn", "uvloop"), _gunicorn),
        ServerKind("hypercorn", ("hypercorn", "uvloop"), _hypercorn),
        ServerKind("daphne", ("daphne",), _daphne),
    )
}  # fmt: skip
