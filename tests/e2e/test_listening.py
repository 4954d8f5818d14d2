"""Everything that can be listened on, from the command line; the listeners themselves are in test_endpoints.py."""

from __future__ import annotations

import logging
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.hello import application as hello
from tests.e2e.live import serve
from tests.e2e.server import ServerProcess, handed_over, run_command

HELLO = "examples.hello:application"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, as the path of a unix socket has to be."""
    with tempfile.TemporaryDirectory(prefix="asgi") as path:
        yield Path(path)


def get(url: str) -> str:
    """The page at a URL as it is logged, of a unix socket too."""
    if url.startswith("unix:"):
        with httpx.Client(transport=httpx.HTTPTransport(uds=url.removeprefix("unix:"))) as client:
            return client.get("http://unix/").text
    return httpx.get(url).text


def test_on_everything_at_once(folder: Path) -> None:
    path, other = folder / "one", folder / "two"
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        args = (
            "-b", "127.0.0.1", "-p", "0", "-u", str(path), "--fd", str(inherited.fileno()),
            "-e", "tcp:0:interface=127.0.0.1", "-e", f"unix:{other}",
        )  # fmt: skip
        with ServerProcess(*args, HELLO, listeners=5, pass_fds=[inherited.fileno()]) as server:
            urls = server.urls
            assert [get(url) for url in urls] == ["Hello, world!\n"] * 5
        assert server.returncode == 0
    ports = [int(url.rpartition(":")[2]) for url in urls if url.startswith("http:")]
    assert 0 not in ports
    assert {f"unix:{path}", f"unix:{other}"} <= set(urls)
    assert len(set(ports)) == 3
    # Removed at the exit, both of them.
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_on_ipv6(host: str) -> None:
    with ServerProcess("-b", host, "-p", "0", HELLO) as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert get(server.url) == "Hello, world!\n"


def test_on_a_unix_socket_with_a_mode(folder: Path) -> None:
    """A stale file is replaced, a live one is refused, and it is removed at the exit."""
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with ServerProcess("-u", str(path), "--unix-socket-mode", "600", HELLO) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        refused = run_command("-u", str(path), HELLO)
        assert refused.returncode == 1
        assert refused.stderr == f"asgiserver: error: cannot listen on unix:{path}: another server listens there\n"
        assert get(server.url) == "Hello, world!\n"
    assert not path.exists()


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({"proxy_headers": True}, 1),
        ({"proxy_headers": True, "forwarded_allow_ips": "unix"}, 0),
        ({"proxy_headers": True, "forwarded_allow_ips": "10.0.0.0/8 *"}, 0),
        ({"proxy_headers": True, "forwarded_allow_ips": "10.0.0.0/8"}, 1),
        ({}, 0),
    ],
)
async def test_on_unix_sockets_of_untrusted_proxies_is_warned_of_once(
    folder: Path, settings: dict[str, Any], warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Daphne trusts whoever connects there."""
    sockets = {"unix_socket": str(folder / "one"), "endpoints": (f"unix:{folder / 'two'}",)}
    async with serve(hello, **sockets, **settings) as server:
        assert len(server.listeners) == 3
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == warnings
    assert all("add 'unix' to it" in line for line in lines)


async def test_on_ports_alone_needs_no_trust_in_unix_sockets(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(hello, proxy_headers=True):
        pass
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_on_standard_input_as_supervisor_hands_it_over() -> None:
    """Descriptor 0 is as good as any."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        command = handed_over(number, 0)
        with ServerProcess("--fd", "0", HELLO, command=command, pass_fds=[number]) as server:
            assert server.port == listening.getsockname()[1]
            assert get(server.url) == "Hello, world!\n"


@pytest.mark.parametrize("names", [{}, {"LISTEN_FDNAMES": "web"}])
def test_on_a_socket_of_systemds_without_its_names(names: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        command = handed_over(number, 3)
        with ServerProcess(
            "-e", "systemd:index=0", HELLO, command=command, pass_fds=[number], env={"LISTEN_FDS": "1", **names}
        ) as server:
            assert server.port == listening.getsockname()[1]
            assert get(server.url) == "Hello, world!\n"


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("-e", "tcp:x"), 2, "tcp:x"),
        (("-e", "systemd:index=0"), 1, "LISTEN_PID"),
        (("--fd", "987"), 1, "file descriptor 987"),
        (("-u", "/nowhere/at/all"), 1, "unix:/nowhere/at/all"),
        (("-b", "192.0.2.1", "-p", "0"), 1, "192.0.2.1:0"),
    ],
)
def test_what_cannot_be_listened_on_is_one_line(args: tuple[str, ...], status: int, words: str) -> None:
    result = run_command(*args, HELLO)
    assert result.returncode == status
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_port_that_is_free_again_can_be_used_at_once() -> None:
    with ServerProcess("-p", "0", HELLO) as server:
        port = server.port
        # A connection that the server closes first stays in TIME_WAIT.
        httpx.get(server.url, headers={"connection": "close"})
    with ServerProcess("-p", str(port), HELLO) as server:
        assert get(server.url) == "Hello, world!\n"
