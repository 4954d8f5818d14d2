"""Peers that leave by a reset, on each loop that a server may run on."""

from __future__ import annotations

import importlib.util
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import DEADLINE, ServerProcess, wait_for

APPLICATION = """
import asyncio, os
async def application(scope, receive, send):
    name = scope["path"].strip("/")
    if name == "loop":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": type(asyncio.get_running_loop()).__module__.encode()})
        return
    print("begin", name, flush=True)
    size = 0
    while not os.path.exists(f"{os.path.dirname(__file__)}/{name}"):
        await asyncio.sleep(0.01)
    while (event := await receive())["type"] != "http.disconnect":
        size += len(event["body"])
    print("end", name, size, flush=True)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"nobody reads this"})
    print("sent", name, flush=True)
"""

#: Runs the command line as if uvloop were not installed.
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from asgiserver.cli import main; main()"

COMMANDS = {
    "asyncio": (sys.executable, "-c", WITHOUT_UVLOOP),
    "uvloop": (sys.executable, "-m", "asgiserver"),
}


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    folder = tmp_path_factory.mktemp("application")
    (folder / "app.py").write_text(APPLICATION, "utf-8")
    args = ("--app-dir", str(folder), "-b", "127.0.0.1", "-p", "0", "--lifespan", "off", "app")
    with ServerProcess(*args, command=COMMANDS[request.param]) as server:
        assert httpx.get(f"{server.url}/loop").text.partition(".")[0] == request.param
        yield server
    assert server.returncode == 0
    assert "Traceback" not in server.output()


def application_goes_on(server: ServerProcess, name: str) -> None:
    (Path(server.args[server.args.index("--app-dir") + 1]) / name).touch()


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize("size", [0, 1000, 500000])
def test_the_application_hears_of_it_after_what_came_before(server: ServerProcess, size: int) -> None:
    """T108, T170: with much unread, the server had stopped reading, and reads on after the reset."""
    name = f"after{size}"
    peer = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    head = b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" % name.encode()
    peer.sendall(head)
    wait_for(lambda: f"begin {name}" in server.output())
    peer.sendall(bytes(size))
    reset(peer)
    application_goes_on(server, name)
    wait_for(lambda: f"sent {name}" in server.output(), 5, "the application was not told")
    # What the kernel had not handed over is lost with a reset.
    assert f"end {name} " in server.output()


def test_a_request_and_a_reset_in_one_go_are_a_disconnect(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as peer:
        peer.sendall(b"POST /at-once HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234")
        reset(peer)
    application_goes_on(server, "at-once")
    # The reset may have been faster than the request, which then never was one.
    assert httpx.get(f"{server.url}/loop").status_code == 200
    if "begin at-once" in server.output():
        wait_for(lambda: "sent at-once" in server.output(), 5, "the application was not told")


def sockets(server: ServerProcess) -> int:
    """How many sockets the server has open."""
    found = 0
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        try:
            found += link.readlink().name.startswith("socket:")
        except FileNotFoundError:
            pass
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the descriptors of a process")
def test_many_leave_nothing_behind(server: ServerProcess) -> None:
    """T130."""
    before = sockets(server)
    for number in range(100):
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as peer:
            peer.sendall(b"GET /loop HTTP/1.1\r\nHost: a\r\n\r\n" * (number % 3))
            reset(peer)
    wait_for(lambda: sockets(server) <= before, 5, "connections were left open")
