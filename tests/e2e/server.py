"""Starts the real command line in a process of its own and drives it from outside."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = [
    "COMMANDS", "DEADLINE", "ROOT", "ServerProcess", "command_on", "connects", "environment", "free_port",
    "free_ports", "handed_over", "read_until", "reset", "run_command", "run_python", "running", "serving", "wait_for",
]  # fmt: skip

#: The checkout.
ROOT = Path(__file__).resolve().parents[2]

#: Seconds that a step of a test may take on a busy machine before it counts as failed.
DEADLINE = 20.0

_LISTENING = re.compile(r"Listening on (?P<url>(?P<scheme>https?|unix):(?://[^\s,]*:(?P<port>\d+)|\S+))")


def wait_for(condition: Callable[[], object], seconds: float = DEADLINE, message: str = "") -> None:
    """Return once ``condition()`` is true.

    :raises AssertionError: with ``message`` when that takes longer than ``seconds``.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message or "the condition did not come true in time"
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1, each another one, that were free a moment ago, for programs that cannot take any."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    return free_ports(1)[0]


def connects(port: int) -> bool:
    """True when somebody listens on ``port`` of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tests' environment for a child: unbuffered, without the settings of whoever runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASGISERVER_")}
    inherited.pop("WEB_CONCURRENCY", None)
    path = os.pathsep.join(part for part in (str(ROOT), inherited.get("PYTHONPATH", "")) if part)
    return {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **(extra or {})}


def run_command(*args: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``asgiserver ARGS`` to its end, for command lines that do not serve.

    :raises subprocess.TimeoutExpired: when it serves after all.
    """
    command = [sys.executable, "-m", "asgiserver", *args]
    return subprocess.run(
        command, cwd=cwd, env=environment(env), capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def run_python(program: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program of its own to its end, in the tests' environment and with ``env``."""
    return subprocess.run(
        [sys.executable, "-c", program, *args], cwd=ROOT, env=environment(env), capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip


@contextmanager
def running(
    *command: str, ports: Sequence[int] = (), end: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[str]]:
    """Another program, which listens on ``ports`` when its block is entered, and is ended with it by a signal."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: all(map(connects, ports)) or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield process
    finally:
        process.send_signal(end)
        try:
            process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def read_until(peer: socket.socket, end: bytes) -> bytes:
    """What comes until ``end`` is the last of it."""
    data = b""
    while not data.endswith(end):
        piece = peer.recv(65536)
        assert piece, f"the server closed after {data!r}"
        data += piece
    return data


def reset(peer: socket.socket) -> None:
    """Close by a TCP reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class ServerProcess:
    """``python -m asgiserver ARGS`` as a context manager, ready when its block is entered.

    ::

        with ServerProcess("examples.hello:application", "-p", "0") as server:
            httpx.get(server.url)
        assert server.returncode == 0

    Leaving the block stops the process by SIGTERM. A process that does not stop within the deadline is killed and the
    test fails.

    :param args: the command line after ``asgiserver``; give ``-p 0`` for a free port.
    :param env: variables added to the tests' environment; no ``ASGISERVER_*`` variable is inherited.
    :param listeners: how many ``Listening on`` lines to wait for.
    :param pass_fds: file descriptors that the child keeps.
    :param command: what is run instead of ``python -m asgiserver``.
    :param new_session: give it a process group of its own, as a terminal does.
    :param patience: seconds until it listens.
    """

    #: How it says where it listens.
    listening = _LISTENING

    def __init__(
        self,
        *args: str,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        listeners: int = 1,
        pass_fds: Sequence[int] = (),
        command: Sequence[str] = (sys.executable, "-m", "asgiserver"),
        new_session: bool = False,
        patience: float = DEADLINE,
    ) -> None:
        self.args = [*command, *args]
        self.cwd = cwd
        self.env = environment(env)
        self.listeners = listeners
        self.pass_fds = tuple(pass_fds)
        self.new_session = new_session
        self.patience = patience
        self.returncode: int | None = None
        self._lines: list[str] = []
        self._taking = threading.Lock()

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self.args, cwd=self.cwd, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, pass_fds=self.pass_fds, start_new_session=self.new_session,
        )  # fmt: skip
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._rest = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_until_listening()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = self._end()
        if kind is None:
            assert stopped, f"the server did not stop in time:\n{self.output()}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def urls(self) -> list[str]:
        """The addresses it listens on, in the order logged: ``http://…``, ``https://…``, ``unix:PATH``."""
        return [match["url"] for match in map(self.listening.search, list(self._lines)) if match]

    @property
    def url(self) -> str:
        """The first address, without a slash at its end."""
        return self.urls[0].rstrip("/")

    @property
    def port(self) -> int:
        """The port of the first address that has one."""
        ports = [match["port"] for match in map(self.listening.search, list(self._lines)) if match and match["port"]]
        return int(ports[0])

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A connection to its first port; see :func:`tests.e2e.live.connect` for ``receive_buffer``."""
        peer = socket.socket()
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.settimeout(DEADLINE)
        peer.connect(("127.0.0.1", self.port))
        return peer

    def memory(self, field: str = "VmRSS") -> int:
        """A line of its status in Linux's /proc, in bytes; VmHWM is the highest that VmRSS ever was."""
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))
        return int(kibibytes) * 1024

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def output(self) -> str:
        """Standard output and standard error so far, mixed; ANSI colours never, as neither is a terminal."""
        return "".join(self._lines)

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Wait for the process to end by itself and return its status.

        :raises subprocess.TimeoutExpired: when it goes on.
        """
        self.returncode = self.process.wait(seconds)
        self._reader.join(DEADLINE)
        return self.returncode

    def stop(self, seconds: float = DEADLINE) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        if self.process.poll() is None:
            self.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def _read(self) -> None:
        assert self.process.stdout is not None
        queue = select.poll()
        queue.register(self.process.stdout.fileno(), select.POLLIN)
        while self.take_output():
            queue.poll()
        self._lines += [self._rest.decode(errors="replace")] if self._rest else []
        self.process.stdout.close()

    def take_output(self) -> bool:
        """Take all that the process has written by now, as the thread that does so may be late; False after its end."""
        assert self.process.stdout is not None
        with self._taking:
            if self.process.stdout.closed:
                return False
            while data := self.process.stdout.read():
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines += [line.decode(errors="replace") + "\n" for line in lines]
            return data is None

    def _wait_until_listening(self) -> None:
        def ready() -> bool:
            return len(self.urls) >= self.listeners or self.process.poll() is not None

        try:
            wait_for(ready, self.patience)
        except AssertionError:
            raise AssertionError(f"the server did not say where it listens:\n{self.output()}") from None
        if len(self.urls) < self.listeners:
            status = self.wait()
            raise AssertionError(f"the server ended with status {status}:\n{self.output()}")

    def _end(self) -> bool:
        """Stop what still runs; False when it had to be killed."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            return False
        return True


#: The program on each loop: on asyncio's as if uvloop were not installed.
COMMANDS = {
    "asyncio": (
        sys.executable, "-c", "import sys; sys.modules['uvloop'] = None; from asgiserver.cli import main; main()",
    ),
    "uvloop": (sys.executable, "-m", "asgiserver"),
}  # fmt: skip


def command_on(loop: str) -> tuple[str, ...]:
    """That of :data:`COMMANDS`; skips a test that needs uvloop where it is not installed."""
    # Not above: the benchmarks use this module, and have no pytest.
    import pytest

    pytest.importorskip(loop)
    return COMMANDS[loop]


def serving(folder: Path, text: str, *args: str, **options: Any) -> ServerProcess:
    """A server of the application in ``text``, which is written into ``folder``; on a free port unless ``args`` say.

    :param options: of :class:`ServerProcess`.
    """
    (folder / "app.py").write_text(text, "utf-8")
    where = () if {"-p", "-u", "-e", "--fd"} & {*args} else ("-b", "127.0.0.1", "-p", "0")
    return ServerProcess("--app-dir", str(folder), *where, *args, "app", **options)


def handed_over(descriptor: int, number: int) -> tuple[str, ...]:
    """A command that becomes ``python -m asgiserver`` with ``descriptor`` as ``number``, as a supervisor starts it."""
    script = (
        f"import os, sys; os.dup2({descriptor}, {number}); os.environ['LISTEN_PID'] = str(os.getpid()); "
        "os.execv(sys.executable, [sys.executable, '-m', 'asgiserver', *sys.argv[1:]])"
    )
    return (sys.executable, "-c", script)
