"""Peers that leave by a reset, on each loop that a server may run on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.live import get, post
from tests.e2e.server import COMMANDS, ServerProcess, command_on, reset, serving, wait_for

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

@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("application")
    with serving(folder, APPLICATION, "--lifespan", "off", command=command_on(request.param)) as server:
        assert httpx.get(f"{server.url}/loop").text.partition(".")[0] == request.param
        yield server
    assert server.returncode == 0
    assert "Traceback" not in server.output()


def application_goes_on(server: ServerProcess, name: str) -> None:
    (Path(server.args[server.args.index("--app-dir") + 1]) / name).touch()


@pytest.mark.parametrize("size", [0, 1000, 500000])
def test_the_application_hears_of_it_after_what_came_before(server: ServerProcess, size: int) -> None:
    """With much unread, the server had stopped reading, and reads on after the reset."""
    name = f"after{size}"
    peer = server.connect()
    peer.sendall(post(1_000_000, target=f"/{name}"))
    wait_for(lambda: f"begin {name}" in server.output())
    peer.sendall(bytes(size))
    reset(peer)
    application_goes_on(server, name)
    wait_for(lambda: f"sent {name}" in server.output(), 5, "the application was not told")
    # What the kernel had not handed over is lost with a reset.
    assert f"end {name} " in server.output()


def test_a_request_and_a_reset_in_one_go_are_a_disconnect(server: ServerProcess) -> None:
    with server.connect() as peer:
        peer.sendall(post(10, b"1234", "/at-once"))
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
    before = sockets(server)
    for number in range(100):
        with server.connect() as peer:
            peer.sendall(get("/loop") * (number % 3))
            reset(peer)
    wait_for(lambda: sockets(server) <= before, 5, "connections were left open")
