"""Each signal in each moment: the table at the top of ``asgiserver/running.py``. B2, B5, B7, B8."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.live import GET
from tests.e2e.server import DEADLINE, ServerProcess, environment, run_command, serving, wait_for
from tests.programs import require

#: Says when it has come to MOMENT, and stays there until the file RELEASE is there.
APPLICATION = """
import asyncio, atexit, os, time
from pathlib import Path

MOMENT = os.environ["MOMENT"]
RELEASE = Path(os.environ["RELEASE"])

def say(*words):
    print(*words, flush=True)

def stay(moment):
    if MOMENT == moment:
        say("now", moment)
        while not RELEASE.exists():
            try:
                time.sleep(0.02)
            except SystemExit:
                if "STUBBORN" not in os.environ:
                    raise

async def stay_in_loop(moment):
    if MOMENT == moment:
        say("now", moment)
        while not RELEASE.exists():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                say("cancelled")
                if "STUBBORN" not in os.environ:
                    raise

stay("import")
atexit.register(say, "exit handler")
atexit.register(stay, "exit")

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await stay_in_loop("start-up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("closing down")
        await stay_in_loop("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
    else:
        stay("blocked")
        await stay_in_loop("draining")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
"""

MOMENTS = ["import", "start-up", "serving", "draining", "shutdown", "exit", "blocked"]
#: Those in which a stop has been asked for already.
ENDING = ["draining", "shutdown", "exit"]
#: Those in which a first signal is the end of what goes on, and those before.
UNSERVED = ["import", "start-up"]


#: The program, with more than a second in which signals are one: a busy machine may need that to come to a moment.
PATIENCE = (
    "from asgiserver import signals; signals.ONE_SIGNAL = 30; "
    "from asgiserver.__main__ import script; script()"
)
PATIENT = (sys.executable, "-c", PATIENCE)


class Server(ServerProcess):
    """A server at a moment; it listens on a unix socket."""

    def __init__(self, folder: Path, moment: str, *args: str, loop: str = "asyncio", stubborn: bool = False) -> None:
        (folder / "app.py").write_text(APPLICATION)
        self.release_file = folder / "release"
        self.socket_file = folder / "socket"
        self.moment = moment
        variables = {"MOMENT": moment, "RELEASE": str(self.release_file)} | ({"STUBBORN": "1"} if stubborn else {})
        super().__init__(
            "--app-dir", str(folder), "-u", str(self.socket_file), "--loop", loop, *args, "app",
            env=variables, listeners=0, new_session=True,
            command=(sys.executable, "-m", "asgiserver") if stubborn else PATIENT,
        )  # fmt: skip

    def arrive(self, stack: ExitStack) -> None:
        """Bring the server to its moment."""
        if self.moment not in UNSERVED:
            wait_for(lambda: "Listening" in self.output(), message=self.output())
        if self.moment in ("draining", "blocked"):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(str(self.socket_file))
            peer.sendall(GET)
        if self.moment == "draining":
            wait_for(lambda: "now draining" in self.output())
        if self.moment in ENDING:
            self.send_signal(signal.SIGTERM)
        if self.moment == "draining":
            wait_for(lambda: "Stopping" in self.output())
        elif self.moment != "serving":
            wait_for(lambda: f"now {self.moment}" in self.output(), message=self.output())

    def send_to_group(self, *numbers: int) -> None:
        for number in numbers:
            os.killpg(self.pid, number)

    def release(self) -> None:
        self.release_file.touch()

    def insist(self, number: int) -> float:
        """Send a signal again and again until the process ends; the seconds from the first one."""
        began = time.monotonic()
        while self.process.poll() is None:
            assert time.monotonic() - began < DEADLINE, self.output()
            self.send_signal(number)
            time.sleep(0.05)
        return time.monotonic() - began


@contextmanager
def server_at(folder: Path, moment: str, *args: str, loop: str = "asyncio", stubborn: bool = False) -> Iterator[Server]:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with Server(folder, moment, *args, loop=loop, stubborn=stubborn) as server, ExitStack() as stack:
        server.arrive(stack)
        yield server
        server.release()
    assert "Traceback" not in server.output()
    assert not server.socket_file.exists()


def loops_for(moment: str) -> list[str]:
    return ["asyncio", "uvloop"] if moment in ("serving", "blocked") else ["asyncio"]


CELLS = [
    pytest.param(moment, loop, marks=pytest.mark.slow if (moment, loop) == ("blocked", "uvloop") else ())
    for moment in MOMENTS
    for loop in loops_for(moment)
]


@pytest.mark.parametrize(("moment", "loop"), CELLS)
class TestFirst:
    @pytest.mark.parametrize(
        "numbers",
        [
            pytest.param((signal.SIGTERM,), id="one", marks=pytest.mark.slow),
            pytest.param((signal.SIGINT, signal.SIGTERM), id="group"),
        ],
    )
    def test_stops_in_order(self, tmp_path: Path, moment: str, loop: str, numbers: tuple[int, ...]) -> None:
        """Two within a second, as ``uv run`` under a process manager sends them to the group, are one."""
        with server_at(tmp_path, moment, loop=loop) as server:
            server.send_to_group(*numbers)
            if moment not in (*UNSERVED, "serving"):
                server.release()
            assert server.wait() == 0
        words = server.output()
        assert ("closing down" in words) == (moment not in UNSERVED)
        assert ("exit handler" in words) == (moment != "import")
        assert ("cancelled" in words) == (moment == "start-up")

    def test_quit_waits_for_no_request(self, tmp_path: Path, moment: str, loop: str) -> None:
        """And the lifespan's shutdown and the exit handlers have their time all the same."""
        with server_at(tmp_path, moment, "--graceful-timeout", "60", loop=loop) as server:
            server.send_signal(signal.SIGQUIT)
            if moment in ("shutdown", "exit", "blocked"):
                server.release()
            assert server.wait() == 0
        words = server.output()
        assert ("closing down" in words) == (moment not in UNSERVED)
        assert ("cancelled" in words) == (moment in ("start-up", "draining"))

    def test_hup_usr1_and_usr2_are_ignored(self, tmp_path: Path, moment: str, loop: str) -> None:
        """With a line in the log, but for the moment of exit."""
        names = ["SIGHUP", "SIGUSR1", "SIGUSR2"]
        with server_at(tmp_path, moment, loop=loop) as server:
            for name in names:
                server.send_signal(signal.Signals[name])
            server.release()
            if moment not in ENDING:
                wait_for(lambda: server.output().count("is ignored") == 3, message=server.output())
                wait_for(lambda: "Listening" in server.output())
                server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        if moment != "exit":
            # The line is not one of the request that blocks the loop.
            assert all(server.output().count(f"{name} is ignored\n") == 1 for name in names)
        assert server.output().count("closing down") == 1


@pytest.mark.parametrize(
    ("moment", "loop", "number"),
    [(moment, "asyncio", signal.SIGTERM) for moment in MOMENTS if moment != "serving"]
    + [
        pytest.param("blocked", loop, number, marks=pytest.mark.slow)
        for loop, number in (("uvloop", signal.SIGTERM), ("asyncio", signal.SIGINT), ("asyncio", signal.SIGQUIT))
    ],
)
def test_a_later_one_ends_the_process_at_once(tmp_path: Path, moment: str, loop: str, number: int) -> None:
    """Later than a second after the first, whether the loop takes it up or not."""
    with server_at(tmp_path, moment, loop=loop, stubborn=True) as server:
        seconds = server.insist(number)
        assert server.wait() == 128 + number
        assert seconds >= 1 or moment in ENDING
        assert seconds < 9
    assert ("closing down" in server.output()) == (moment in ("shutdown", "exit"))


def test_an_import_that_swallows_the_stop_does_not_lead_to_serving(tmp_path: Path) -> None:
    """A signal between import and start-up is not lost."""
    with server_at(tmp_path, "import", stubborn=True) as server:
        server.send_signal(signal.SIGTERM)
        server.release()
        assert server.wait() == 0
    assert "Listening" not in server.output()


def test_a_drain_in_which_the_loop_becomes_blocked_ends_at_once_too(tmp_path: Path) -> None:
    """The loop has taken the first signal up, and not the second."""
    text = (
        "import asyncio, time\n\n"
        "async def application(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        print('here', flush=True)\n"
        "        try:\n            await asyncio.sleep(60)\n"
        "        finally:\n            while True:\n                time.sleep(0.1)\n"
    )
    with serving(tmp_path, text, "--lifespan", "off", "--graceful-timeout", "0.2") as server, server.connect() as peer:
        peer.sendall(GET)
        wait_for(lambda: "here" in server.output())
        server.send_signal(signal.SIGTERM)
        wait_for(lambda: "are cancelled" in server.output())
        time.sleep(1.1)  # a second signal, not the first one again
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 143
    assert "ended at once by SIGTERM, while in" in server.output()


def test_quit_under_fd_leaves_the_socket_to_whoever_made_it(tmp_path: Path) -> None:
    path = tmp_path / "handed"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        arguments = ["--fd", str(listening.fileno()), "examples.hello:application"]
        with ServerProcess(*arguments, pass_fds=[listening.fileno()]) as server:
            server.send_signal(signal.SIGHUP)
            wait_for(lambda: "SIGHUP is ignored" in server.output())
            server.send_signal(signal.SIGQUIT)
            assert server.wait() == 0
        assert path.exists()


def test_an_application_keeps_the_handlers_that_it_sets_itself(tmp_path: Path) -> None:
    """But for SIGINT and SIGTERM, which are the server's."""
    text = (
        "import signal\n"
        "for name in ('SIGHUP', 'SIGUSR1', 'SIGTERM'):\n"
        "    signal.signal(getattr(signal, name), lambda number, _: print('mine', number, flush=True))\n"
        "async def application(scope, receive, send): ...\n"
    )
    with serving(tmp_path, text, "--lifespan", "off") as server:
        server.send_signal(signal.SIGUSR1)
        wait_for(lambda: f"mine {signal.SIGUSR1:d}" in server.output())
        assert server.stop() == 0
    assert "ignored" not in server.output()


def test_nohup_is_respected(tmp_path: Path) -> None:
    """A signal that was ignored from the start is ignored without a word, in the application's programs too."""
    command = [sys.executable, "-m", "asgiserver"]
    with ServerProcess(require("nohup"), *command, "-p", "0", "examples.hello:application", command=()) as server:
        server.send_signal(signal.SIGHUP)
        server.send_signal(signal.SIGUSR1)
        wait_for(lambda: "SIGUSR1 is ignored" in server.output())
        assert server.stop() == 0
    assert "SIGHUP" not in server.output()


def test_a_signal_at_the_exit_after_an_error_cuts_no_exit_handler(tmp_path: Path) -> None:
    """Nothing was served, and the moment is that of the exit all the same."""
    (tmp_path / "app.py").write_text(
        "import atexit, os, signal\n"
        "def handler():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('flushed')\n"
        "atexit.register(handler)\n"
        "raise ValueError\n"
    )
    ended = run_command("--app-dir", str(tmp_path), "app")
    assert (ended.returncode, ended.stdout) == (1, "flushed\n")
    assert "Exception ignored" not in ended.stderr


def test_a_signal_behind_the_last_exit_handler_changes_no_status(tmp_path: Path) -> None:
    """Python has given the handlers up by the time that it deletes modules."""
    text = (
        "import os, signal, sys\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, own=os.getpid(), number=signal.SIGTERM, write=os.write):\n"
        "        kill(own, number)\n"
        "        write(1, b'the end')\n"
        "last = Last()\n"
        "async def application(scope, receive, send): ...\n"
    )
    with serving(tmp_path, text, "--lifespan", "off") as server:
        assert server.stop() == 0
    assert "the end" in server.output()


class TestFirstProcess:
    """PID 1 of a container, whose signals the kernel drops unless they have a handler."""

    @pytest.fixture
    def unshare(self) -> list[str]:
        """A command in front of another one, which is PID 1 of a namespace of its own then."""
        command = [require("unshare"), "-p", "-f", "--kill-child", "--mount-proc"]
        if os.geteuid() != 0:
            # Where the kernel lets users make user namespaces, they are root there.
            command.insert(1, "--map-root-user")
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=DEADLINE, check=False)
        if tried.returncode != 0:
            pytest.skip(f"may not make a PID namespace: {tried.stderr.strip()}")
        return command

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    @pytest.mark.parametrize("moment", ["import", "serving"])
    def test_is_stopped(self, unshare: list[str], tmp_path: Path, moment: str, number: int) -> None:
        server = Server(tmp_path, moment)
        server.args = [*unshare, *server.args]
        with server, ExitStack() as stack:
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
            server.arrive(stack)
            os.kill(int(children.read_text()), number)
            assert server.wait() == 0
        assert ("closing down" in server.output()) == (moment == "serving")


def test_the_first_words_of_the_program_take_the_signals(tmp_path: Path) -> None:
    """Before Twisted and the command line are imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'twisted':\n"
        "            import signal\n"
        "            print(signal.getsignal(signal.SIGTERM), flush=True)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    with ServerProcess("-p", "0", "examples.hello:application", env={"PYTHONPATH": path}) as server:
        assert server.stop() == 0
    assert "Signals.handle" in server.output().splitlines()[0]
