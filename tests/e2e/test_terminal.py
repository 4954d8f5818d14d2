"""What somebody sees who starts a server at a terminal, and ends it with Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .server import DEADLINE, ROOT, environment

WAITING = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] != "http":
        await receive()
        raise OSError("no database")
    if scope["path"] == "/slow":
        print("begun", flush=True)
        await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""


class Terminal:
    """A program that runs at a terminal of its own."""

    def __init__(self, *args: str, folder: Path) -> None:
        self.text = ""
        self.process, self.descriptor = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execve(args[0], args, {**environment(), "PYTHONPATH": str(ROOT), "TERM": "xterm"})

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read on until the pattern is there."""
        until = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < until, self.text
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.descriptor, 65536).decode()
                except OSError:  # the program has ended
                    assert re.search(pattern, self.text), self.text
        return found

    def interrupt(self) -> None:
        os.write(self.descriptor, b"\x03")

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@contextmanager
def at_terminal(*args: str, folder: Path) -> Iterator[Terminal]:
    (folder / "waiting.py").write_text(WAITING)
    terminal = Terminal(sys.executable, *args, folder=folder)
    try:
        yield terminal
    finally:
        try:
            os.kill(terminal.process, 9)
            os.waitpid(terminal.process, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(terminal.descriptor)


@pytest.mark.parametrize(
    "args",
    [
        ["-m", "asgiserver", "waiting:app", "-p", "0"],
        ["-c", "import asgiserver; asgiserver.run('waiting:app', port=0)"],
        ["-c", "import waiting; from asgiserver import Server; Server(waiting.app, port=0).run()"],
    ],
    ids=["the command", "run", "Server.run"],
)
def test_how_it_starts_and_stops(args: list[str], tmp_path: Path) -> None:
    with at_terminal(*args, folder=tmp_path) as terminal:
        port = int(terminal.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1])
        terminal.wait_for("Ctrl-C stops it")
        assert re.search(r"asgiserver \S+, Python 3\.\S+, (uvloop|asyncio), 1 process", terminal.text)
        assert "\x1b[33mWARNING \x1b[0m The application raised OSError: no database in its start-up" in terminal.text
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"GET /fast HTTP/1.1\r\nhost: a\r\n\r\n")
            terminal.wait_for("GET /fast")
            peer.sendall(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            terminal.wait_for("begun")
            terminal.interrupt()
            terminal.wait_for("Stopping: waits up to 10 s for 1 request; Ctrl-C again ends it at once")
            terminal.wait_for("Stopped\r\n")
        assert terminal.status() == 0


def test_workers_are_told_of_once(tmp_path: Path) -> None:
    with at_terminal("-m", "asgiserver", "waiting:app", "-p", "0", "-w", "2", folder=tmp_path) as terminal:
        terminal.wait_for("Ctrl-C stops it")
        assert re.search(r"asgiserver \S+, Python 3\.\S+, (uvloop|asyncio), 2 workers", terminal.text)
        terminal.interrupt()
        terminal.wait_for("Stopping; Ctrl-C again ends it at once")
        terminal.wait_for("Stopped\r\n")
        assert terminal.status() == 0
    assert [terminal.text.count(line) for line in ("Ctrl-C stops it", "Stopped")] == [1, 1]
