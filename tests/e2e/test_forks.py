"""Processes that the application forks: C6."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.live import get
from tests.e2e.server import DEADLINE, ServerProcess, connects, environment, run_python, serving, wait_for

LOOPS = ["asyncio", "uvloop"]

#: ``/loop/NAME`` and ``/thread/NAME`` start a child by multiprocessing that does NAME, and answer its process id;
#: ``/join`` answers its exit code. ``/fork/NAME`` forks a child that does NAME, and answers its exit status;
#: ``/task/NAME`` does so in a task of its own, ``/pool/NAME`` in a thread of asyncio's, ``/anyio/NAME`` in anyio's.
APPLICATION = """
import asyncio, multiprocessing, os, signal, sys, time

children = []

def wait():
    # In one piece: the parent writes there too.
    os.write(1, b"%d waits\\n" % os.getpid())
    # Should the test fail.
    signal.alarm(60)
    while True:
        signal.pause()

def leave():
    sys.exit(7)

def speak():
    sys.exit("last words")

def interrupt():
    raise KeyboardInterrupt

def return_():
    pass

def fail():
    raise ZeroDivisionError

def start(name):
    child = multiprocessing.get_context("fork").Process(target=globals()[name])
    child.start()
    children.append(child)
    return child.pid

async def fork(name):
    child = os.fork()
    if child == 0:
        globals()[name]()
        # As a view that has forgotten that it is in a child.
        return None
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status)

def fork_in_thread(name):
    child = os.fork()
    if child == 0:
        # Should the test fail.
        signal.alarm(5)
        globals()[name]()
        return None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def answer(path):
    if path.startswith("/pool/"):
        return await asyncio.to_thread(fork_in_thread, path.removeprefix("/pool/"))
    if path.startswith("/anyio/"):
        import anyio.to_thread
        return await anyio.to_thread.run_sync(fork_in_thread, path.removeprefix("/anyio/"))
    if path == "/join":
        await asyncio.to_thread(children[-1].join)
        return children[-1].exitcode
    if path.startswith("/thread/"):
        return await asyncio.to_thread(start, path.removeprefix("/thread/"))
    if path.startswith("/loop/"):
        return start(path.removeprefix("/loop/"))
    if path.startswith("/task/"):
        return await asyncio.create_task(fork(path.removeprefix("/task/")))
    return await fork(path.removeprefix("/fork/"))

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("closing down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = str(await answer(scope["path"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def on(loop: str, folder: Path, *args: str, **options: Any) -> ServerProcess:
    pytest.importorskip(loop)
    return serving(folder, APPLICATION, "--loop", loop, *args, **options)


def ask(server: ServerProcess, path: str) -> int:
    return int(httpx.get(server.url + path, timeout=DEADLINE).text)


@pytest.mark.parametrize("loop", LOOPS)
class TestMultiprocessing:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
    def test_a_signal_to_the_child_ends_it_and_nothing_else(self, tmp_path: Path, loop: str, number: int) -> None:
        with on(loop, tmp_path) as server:
            for where in ("thread", "loop"):
                child = ask(server, f"/{where}/wait")
                if number != signal.SIGTERM:
                    # That comes as early as it can, as from terminate() behind start().
                    wait_for(lambda: f"{child} waits" in server.output())  # noqa: B023 - called at once
                os.kill(child, number)
                # A KeyboardInterrupt is an exception as any other for multiprocessing.
                assert ask(server, "/join") == (1 if number == signal.SIGINT else -number)
            assert "Stopping" not in server.output()
            assert "closing down" not in server.output()
        assert server.returncode == 0
        assert server.output().count("closing down") == 1

    def test_a_child_that_exits_disturbs_nobody(self, tmp_path: Path, loop: str) -> None:
        with on(loop, tmp_path) as server:
            # For a child of an executor's thread Python waits for that very thread, and multiprocessing gives up.
            for where, statuses in (("thread", (7, 1)), ("loop", (7,))):
                ask(server, f"/{where}/leave")
                assert ask(server, "/join") in statuses
        assert server.returncode == 0
        assert server.output().count("closing down") == 1
        assert "Traceback" not in server.output()

    @pytest.mark.parametrize("where", ["thread", "loop"])
    @pytest.mark.parametrize("endpoint", ["-p 0", "-e haproxy:tcp:0:interface=127.0.0.1", "--fd"])
    def test_a_child_holds_neither_the_port_nor_a_client(
        self, tmp_path: Path, loop: str, where: str, endpoint: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as handed:
            arguments = endpoint.split()
            if endpoint == "--fd":
                arguments.append(str(handed.fileno()))
            head = b"PROXY UNKNOWN\r\n" if "haproxy" in endpoint else b""
            with on(loop, tmp_path, *arguments, pass_fds=(handed.fileno(),)) as server:
                handed.close()
                with server.connect() as peer:
                    peer.sendall(head + get(f"/{where}/wait"))
                    received = b""
                    while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
                        received += peer.recv(65536)
                    child = int(received.rpartition(b"\r\n\r\n")[2])
                    try:
                        server.process.kill()
                        server.process.wait(DEADLINE)
                        wait_for(lambda: not connects(server.port))
                        try:
                            assert peer.recv(1) == b""
                        except ConnectionResetError:
                            pass
                        os.kill(child, 0)
                    finally:
                        os.kill(child, signal.SIGKILL)

    def test_the_file_of_a_unix_socket_stays_the_parents(self, tmp_path: Path, loop: str) -> None:
        path = tmp_path / "socket"
        with on(loop, tmp_path, "-u", str(path)):
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=DEADLINE) as client:
                child = int(client.get("http://a/loop/wait").text)
                os.kill(child, signal.SIGTERM)
                assert client.get("http://a/join").text == str(-signal.SIGTERM)
                # By a thread, so that the loop has to wake up for it.
                assert client.get("http://a/thread/leave").status_code == 200
                assert client.get("http://a/join").status_code == 200
            assert path.exists()
        assert not path.exists()


@pytest.mark.parametrize("way", ["fork", "task", "pool", "anyio"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_forked_child_that_comes_back_to_the_loop_ends_there(tmp_path: Path, loop: str, way: str) -> None:
    """By what it raises, in the application itself, in a task of its own or in a thread, or by returning. C6."""
    statuses = {"leave": 7, "speak": 1, "interrupt": 130, "return_": 0}
    with on(loop, tmp_path, "--graceful-timeout", "1") as server:
        for name, status in statuses.items():
            assert ask(server, f"/{way}/{name}") == status, name
        assert way in ("fork", "task") or ask(server, f"/{way}/fail") == 1
        # The parent's loop still wakes up, for a thread and for a socket.
        ask(server, "/thread/leave")
        ask(server, "/join")
    assert server.returncode == 0
    words = server.output()
    assert (words.count("closing down"), words.count("last words"), words.count("Stopping")) == (1, 1, 1)
    assert "does not end the server" not in words
    assert "Exception in the application" not in words
    assert "never retrieved" not in words
    assert words.count("raise ZeroDivisionError\n") == (way in ("pool", "anyio"))


def test_a_child_of_an_embedded_server_does_not_run_its_shutdown(tmp_path: Path) -> None:
    program = """
import asyncio, os, sys
from asgiserver import Server
from app import application

async def main():
    server = Server(application, port=0)
    async with server:
        child = os.fork()
        if child == 0:
            sys.exit(7)
        print(os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]), flush=True)

asyncio.run(main())
"""
    (tmp_path / "app.py").write_text(APPLICATION)
    done = run_python(program, PYTHONPATH=os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]]))
    assert done.stdout == "7\nclosing down\n", done.stderr


def test_a_child_of_run_has_the_handlers_that_were_there_before() -> None:
    """In a program of its own, and in a child of its child too; the parent has them again when the server has ended."""
    program = """
import asyncio, os, signal
from asgiserver import Server

def mine(number, frame):
    print("mine", number, flush=True)

signal.signal(signal.SIGUSR1, mine)
signal.signal(signal.SIGTERM, mine)

def look():
    return signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGQUIT), signal.set_wakeup_fd(-1)

def ready():
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            print(*look(), flush=True)
            os._exit(0)
        os.waitpid(grandchild, 0)
        os._exit(0)
    os.waitpid(child, 0)
    signal.raise_signal(signal.SIGUSR1)
    server.stop()

async def application(scope, receive, send): ...

server = Server(application, port=0, lifespan="off", ready_callable=ready)
server.run()
print(*look(), flush=True)
"""
    done = run_python(program)
    given_back = f"True {signal.SIG_DFL} -1"
    assert done.stdout.splitlines() == [given_back, f"mine {signal.SIGUSR1:d}", given_back], done.stderr
