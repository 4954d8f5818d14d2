"""The servers that are compared, each as its own manual tells to run it in production, with one worker process.

What is set for all of them, where they have it: one worker unless the load is of several, no log of requests, idle
connections kept for 75 s, room for as many connections as the loads open, and forwarding fields believed in the load
for that alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.e2e.server import ROOT, environment

__all__ = ["SERVERS", "THREADS", "Certificate", "Order", "ServerKind", "other_checkout"]

KEEP_ALIVE = "75"
MOST_CONNECTIONS = "4096"
#: Where the application for servers stands whose forwarding fields a wrapper of theirs reads.
PROXIED = "tests.benchmarks.proxied"
#: Threads of servers that run applications in a pool of them, unless a load says otherwise.
THREADS = 8


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a certificate chain, its key, and the authority that it comes from, all in PEM."""

    chain: str
    key: str
    authority: str


@dataclass(frozen=True, slots=True)
class Order:
    """What a server is asked to serve, and where.

    :param application: ``module:attribute``.
    :param port: of 127.0.0.1.
    :param path: of a unix socket to listen on instead; empty for the port.
    :param proxied: the forwarding fields of 127.0.0.1 are believed; otherwise of nobody.
    :param threads: that a WSGI server runs the application in.
    :param workers: processes that serve.
    :param http2: offers HTTP/2, where that has to be asked for.
    """

    application: str
    port: int
    path: str = ""
    certificate: Certificate | None = None
    proxied: bool = False
    threads: int = THREADS
    workers: int = 1
    http2: bool = False


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A server with its options.

    :param name: its name in tables.
    :param packages: what has to be installed; the first has its version shown.
    :param arguments: the command after ``python -m``.
    :param flags: options that its ``--help`` has to know.
    :param tcp_in: the load over unix sockets in which alone it takes part, on TCP, to be compared; empty for all loads.
    :param groups: of the loads in which it takes part.
    :param tls_groups: of the loads over TLS in which it takes part besides.
    :param wsgi: serves the WSGI application of a load.
    :param checkout: the folder whose package ``asgiserver`` is run instead of this one's.
    """

    name: str
    packages: tuple[str, ...]
    arguments: Callable[[Order], list[str]] = field(repr=False)
    flags: tuple[str, ...] = ()
    tcp_in: str = ""
    groups: tuple[str, ...] = ("asgi",)
    tls_groups: tuple[str, ...] = ()
    wsgi: bool = False
    checkout: Path | None = None

    @property
    def ours(self) -> bool:
        return self.packages[0] == "asgiserver"

    def takes_part(self, load: str, group: str, *, tls: bool = False) -> bool:
        """Whether it is measured under the load of that name in that group."""
        return (group in self.groups or tls and group in self.tls_groups) and self.tcp_in in ("", load)

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


def _tls(order: Order, chain: str, key: str) -> list[str]:
    return [chain, order.certificate.chain, key, order.certificate.key] if order.certificate else []


def _bound(order: Order) -> str:
    return f"unix:{order.path}" if order.path else f"127.0.0.1:{order.port}"


def _asgiserver(*more: str, supervised: bool = False) -> Callable[[Order], list[str]]:
    def arguments(order: Order) -> list[str]:
        where = ["-u", order.path] if order.path else ["-b", "127.0.0.1", "-p", str(order.port)]
        workers = ["--workers", str(order.workers)] if supervised or order.workers > 1 else []
        return [
            "asgiserver", *where, "-v", "0", "--keep-alive-timeout", KEEP_ALIVE, *workers, *more,
            *(["--proxy-headers"] if order.proxied else []), *_tls(order, "--ssl-certfile", "--ssl-keyfile"),
            order.application,
        ]  # fmt: skip

    return arguments


_FASTEST = _asgiserver("--loop", "uvloop")


def _uvicorn(*more: str) -> Callable[[Order], list[str]]:
    def arguments(order: Order) -> list[str]:
        where = ["--uds", order.path] if order.path else ["--host", "127.0.0.1", "--port", str(order.port)]
        return [
            "uvicorn", *where, "--no-access-log", "--log-level", "warning", "--timeout-keep-alive", KEEP_ALIVE, *more,
            *(["--workers", str(order.workers)] if order.workers > 1 else []),
            "--proxy-headers" if order.proxied else "--no-proxy-headers",
            *_tls(order, "--ssl-certfile", "--ssl-keyfile"), order.application,
        ]  # fmt: skip

    return arguments


def _daphne(order: Order) -> list[str]:
    more = ["--proxy-headers"] if order.proxied else []
    where = ["-u", order.path] if order.path else ["-b", "127.0.0.1", "-p", str(order.port)]
    if order.certificate:
        keys = f"privateKey={order.certificate.key}:certKey={order.certificate.chain}"
        where = ["-e", f"ssl:{order.port}:interface=127.0.0.1:{keys}"]
    return ["daphne", *where, "-v", "0", *more, order.application]


def _hypercorn(order: Order) -> list[str]:
    return [
        "hypercorn", "-b", _bound(order), "-k", "uvloop", "-w", "1", "--backlog", "2048",
        "--keep-alive", KEEP_ALIVE, "--log-level", "warning", *_tls(order, "--certfile", "--keyfile"),
        f"{PROXIED}:hypercorn" if order.proxied else order.application,
    ]  # fmt: skip


def _granian(interface: str) -> Callable[[Order], list[str]]:
    def arguments(order: Order) -> list[str]:
        where = ["--uds", order.path] if order.path else ["--host", "127.0.0.1", "--port", str(order.port)]
        return [
            "granian", "--interface", interface, *where, "--workers", str(order.workers),
            "--no-access-log", "--log-level", "warning", "--backpressure", MOST_CONNECTIONS,
            *(["--blocking-threads", str(order.threads)] if interface == "wsgi" else []),
            *_tls(order, "--ssl-certificate", "--ssl-keyfile"),
            f"{PROXIED}:granian" if order.proxied else order.application,
        ]  # fmt: skip

    return arguments


def _gunicorn(worker: str, *more: str) -> Callable[[Order], list[str]]:
    def arguments(order: Order) -> list[str]:
        return [
            "gunicorn", "-k", worker, "-w", str(order.workers), "-b", _bound(order), "--log-level", "warning", *more,
            *(["--threads", str(order.threads)] if worker == "gthread" else []),
            "--keep-alive", KEEP_ALIVE, "--worker-connections", MOST_CONNECTIONS,
            # Without TLS it takes HTTP/2 from those alone whose forwarding fields it believes.
            "--forwarded-allow-ips", "127.0.0.1" if order.proxied or order.http2 else "",
            *(["--http-protocols", "h2,h1", "--http2-cleartext", "both"] if order.http2 else []),
            *_tls(order, "--certfile", "--keyfile"), order.application,
        ]  # fmt: skip

    return arguments


def _h2corn(order: Order) -> list[str]:
    # It counts the wait for a further head as the reading of that head: without both, idle connections end after 10 s.
    return [
        "h2corn", "-b", _bound(order), "-w", "1", "--loop", "uvloop", "--no-access-log",
        "--timeout-keep-alive", KEEP_ALIVE, "--timeout-request-header", KEEP_ALIVE,
        *(["--proxy-headers"] if order.proxied else []), *_tls(order, "--certfile", "--keyfile"),
        order.application,
    ]  # fmt: skip


#: The groups of loads that people choose a server by; the other kinds show what a part of a server is worth.
_BOTH = ("asgi", "django")
#: These, those of several workers, and those over HTTP/2.
_ALL = (*_BOTH, "workers", "http2")
_OURS = (*_ALL, "supervised")

#: In the order of the tables.
SERVERS = {
    kind.name: kind
    for kind in (
        ServerKind("asgiserver", ("asgiserver", "uvloop"), _FASTEST, ("--loop",), groups=_OURS),
        # One worker under a supervisor, to be compared with none.
        ServerKind(
            "asgiserver-supervised", ("asgiserver", "uvloop"), _asgiserver("--loop", "uvloop", supervised=True),
            ("--loop", "--workers"), groups=("supervised",),
        ),
        # Django as it serves itself, by its own handler.
        ServerKind(
            "asgiserver-off", ("asgiserver", "uvloop"), _asgiserver("--loop", "uvloop", "--django", "off"),
            ("--loop", "--django"), groups=("django",),
        ),
        ServerKind("asgiserver-tcp", ("asgiserver", "uvloop"), _FASTEST, tcp_in="unix"),
        ServerKind(
            "asgiserver-asyncio", ("asgiserver",), _asgiserver("--loop", "asyncio"), ("--loop",),
            groups=("asgi", "http2"),
        ),
        ServerKind("uvicorn", ("uvicorn", "httptools", "uvloop", "websockets"), _uvicorn(), groups=(*_BOTH, "workers")),
        ServerKind("uvicorn-h11", ("uvicorn", "h11", "websockets"), _uvicorn("--http", "h11", "--loop", "asyncio")),
        ServerKind("granian", ("granian", "uvloop"), _granian("asgi"), groups=_ALL),
        ServerKind("granian-wsgi", ("granian",), _granian("wsgi"), groups=("django",), wsgi=True),
        ServerKind("h2corn", ("h2corn", "uvloop"), _h2corn, groups=("asgi", "http2")),
        ServerKind("gunicorn", ("gunicorn", "uvloop"), _gunicorn("asgi"), groups=_ALL),
        ServerKind("gunicorn-preload", ("gunicorn", "uvloop"), _gunicorn("asgi", "--preload"), groups=("workers",)),
        ServerKind("gunicorn-wsgi", ("gunicorn",), _gunicorn("gthread"), groups=("django",), wsgi=True),
        ServerKind("hypercorn", ("hypercorn", "uvloop"), _hypercorn, groups=("asgi", "http2")),
        ServerKind("daphne", ("daphne",), _daphne, groups=_BOTH, tls_groups=("http2",)),
    )
}  # fmt: skip


def other_checkout(name: str, folder: Path) -> ServerKind:
    """This server as it is in another checkout, with uvloop.

    :raises ValueError: the name is none, or that of another server.
    """
    if not re.fullmatch(r"[a-z0-9.-]+", name) or name in SERVERS:
        raise ValueError(f"{name!r} is no new name of small letters, digits, dots and dashes")
    return ServerKind(name, ("asgiserver", "uvloop"), _FASTEST, groups=_OURS, checkout=folder.resolve())
