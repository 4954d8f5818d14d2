"""``ServerProcess`` as Channels uses Daphne's, by each way of starting a process."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgiserver.errors import StartupError
from asgiserver.testing import ServerProcess

from . import live_applications as applications
from .server import DEADLINE, ROOT, connects, environment, free_port, run_python, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


class Forked(ServerProcess):
    start_method = "fork"


class Spawned(ServerProcess):
    start_method = "spawn"


class ForkServed(ServerProcess):
    start_method = "forkserver"


METHODS = [Forked, Spawned, ForkServed]


def wait_as_channels_does(process: ServerProcess) -> None:
    while not process.ready.wait(timeout=0.05):
        if not process.is_alive():
            raise RuntimeError("Server stopped")


@contextmanager
def running(process: ServerProcess) -> Iterator[ServerProcess]:
    process.start()
    try:
        wait_as_channels_does(process)
        yield process
    finally:
        process.kill()
        process.join()


def start_and_fail(process: ServerProcess) -> str:
    with pytest.raises(StartupError, match=r"^the server did not start: ") as caught, running(process):
        pass
    return str(caught.value)


@pytest.mark.parametrize("kind", METHODS)
class TestEachMethod:
    def test_it_serves_between_setup_and_teardown(
        self, kind: type[ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LIVE_FILE", str(tmp_path / "notes"))
        process = kind(
            "localhost", applications.get_with_lifespan, {"server_name": "tested"},
            applications.note_setup, applications.note_teardown,
        )  # fmt: skip
        if kind is ForkServed:
            # The fork server keeps the environment of whoever was first to need it.
            process.setup = process.teardown = None
            process.get_application = applications.get_application
        process.start()
        wait_as_channels_does(process)
        assert httpx.get(f"http://localhost:{process.port.value}/").headers["server"] == "tested"
        process.terminate()
        process.join(DEADLINE)
        assert (process.exitcode, process.is_alive(), process.errors) == (0, False, [])
        if kind is not ForkServed:
            assert (tmp_path / "notes").read_text() == "setup\nstartup\nshutdown\nteardown\n"

    def test_an_error_is_told_to_the_parent(
        self, kind: type[ServerProcess], capfd: pytest.CaptureFixture[str]
    ) -> None:
        process = kind("localhost", applications.leave)
        assert start_and_fail(process).endswith("SystemExit: the application does not want to")
        ((error, text),) = process.errors
        assert (type(error), process.exitcode) == (SystemExit, 1)
        assert "in leave\n" in text
        if kind is not ForkServed:
            # The fork server writes where its parent wrote when it was started.
            assert "SystemExit: the application does not want to\n" in capfd.readouterr().err

    def test_what_is_shared_with_the_parent_travels_with_the_callables(self, kind: type[ServerProcess]) -> None:
        """Pickled twice, the shared memory's descriptor is handed to the child twice, which spawning refuses."""
        shared = multiprocessing.get_context(kind.start_method).Value("i", 0)
        count = partial(applications.count, shared)
        process = kind("127.0.0.1", applications.get_application, setup=count, teardown=count)
        process.start()
        wait_as_channels_does(process)
        process.terminate()
        process.join(DEADLINE)
        assert (process.exitcode, shared.value) == (0, 2)

    def test_the_applications_errors_are_told_too(self, kind: type[ServerProcess]) -> None:
        """They come by the same way as what ends the process."""
        with running(kind("127.0.0.1", applications.get_application)) as process:
            assert httpx.get(f"http://127.0.0.1:{process.port.value}/fail").status_code == 500
            wait_for(lambda: process.errors)
        ((error, text),) = process.errors
        assert (type(error), str(error)) == (ZeroDivisionError, "the application fails")
        assert text.endswith("ZeroDivisionError: the application fails\n")

    def test_its_files_go_with_it(self, kind: type[ServerProcess]) -> None:
        """Those that have not started leave none behind either."""
        processes = [kind("127.0.0.1", applications.leave) for _ in range(2)]
        start_and_fail(processes[0])
        folders = [each.folder for each in processes]
        assert all(each.is_dir() for each in folders)
        del processes
        gc.collect()
        assert not any(each.exists() for each in folders)


class TestErrors:
    def test_one_that_is_too_long_leaves_no_process_that_waits_for_a_reader(self) -> None:
        process = Forked("localhost", applications.get_nothing)
        message = start_and_fail(process)
        process.join(DEADLINE)
        assert process.exitcode == 1
        assert message.endswith("ä")
        ((error, text),) = process.errors
        assert type(error) is RuntimeError
        assert str(error).startswith("ImportError: there is no application")
        assert len(text.encode()) < 20_000

    def test_it_is_told_once(self) -> None:
        process = Forked("localhost", applications.get_oddly)
        start_and_fail(process)
        assert not process.is_alive()

    def test_a_port_that_is_taken(self) -> None:
        with running(Forked("127.0.0.1", applications.get_application)) as first:
            port = first.port.value
            message = start_and_fail(Forked("127.0.0.1", applications.get_application, port=port))
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use: ss -ltnp" in message

    @pytest.mark.parametrize(
        ("process", "words"),
        [
            (lambda: Forked("localhost", applications.get_application, {"no_such_setting": 1}), "no_such_setting"),
            (lambda: Forked("localhost", applications.get_application, setup=applications.get_oddly),
             "UnpicklableError: this and that"),
            (lambda: Forked("localhost", partial(os._exit, 5)),
             "the server did not start: its process ended with exit code 5; see what it has printed"),
        ],
        ids=["a setting is wrong", "the setup fails", "the process says nothing"],
    )  # fmt: skip
    def test_why_it_has_not_started_is_told(self, process: Callable[[], ServerProcess], words: str) -> None:
        assert words in start_and_fail(process())

    @pytest.mark.parametrize("kind", [Spawned, ForkServed])
    @pytest.mark.parametrize(
        ("name", "keywords"),
        [
            ("get_application", {"get_application": lambda: applications.application}),
            ("setup", {"setup": lambda: None}),
            ("kwargs", {"kwargs": {"action_logger": lambda *_: None}}),
        ],
    )
    def test_what_cannot_be_pickled_is_named(
        self, kind: type[ServerProcess], name: str, keywords: dict[str, Any]
    ) -> None:
        process = kind("localhost", **{"get_application": applications.get_application, **keywords})
        with pytest.raises(TypeError, match=f"{name}.* cannot be pickled, as the start method '{kind.start_method}'"):
            process.start()
        assert not multiprocessing.active_children()

    def test_a_fork_pickles_nothing(self) -> None:
        with running(Forked("127.0.0.1", lambda: applications.application)) as process:
            assert httpx.get(f"http://127.0.0.1:{process.port.value}/").status_code == 200

    def test_a_process_that_is_killed_has_not_failed_to_start(self) -> None:
        process = Forked("localhost", signal.pause)
        process.start()
        process.terminate()
        process.join(DEADLINE)
        assert not process.is_alive()
        assert process.exitcode == -signal.SIGTERM

    def test_errors_of_the_application_are_seen(self, capfd: pytest.CaptureFixture[str]) -> None:
        seen = list[str]()
        with running(Forked("127.0.0.1", applications.get_application)) as process:
            assert httpx.get(f"http://127.0.0.1:{process.port.value}/fail").status_code == 500
            # The server logs it after it has answered.
            wait_for(lambda: seen.append(capfd.readouterr().err) or "ZeroDivisionError: the" in "".join(seen))


def serve_twice(kind: Callable[..., ServerProcess]) -> None:
    first, second = (kind("127.0.0.1", applications.get_application) for _ in range(2))
    with running(first) as one, running(second) as two:
        pids = {httpx.get(f"http://127.0.0.1:{each.port.value}/").text.split()[0] for each in (one, two)}
        for each in (one, two):
            each.terminate()
            each.join(DEADLINE)
            assert each.exitcode == 0
    assert pids == {str(one.pid), str(two.pid)}


class TestParent:
    def test_a_running_loop_is_left_alone(self) -> None:
        """A fork shares the parent's epoll, its wake-up pipe and its signal pipe."""
        signals = list[int]()

        async def parent() -> None:
            from asgiserver import Server

            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, signals.append, number)
            async with Server(applications.application, port=0, lifespan="off") as server:
                serve_twice(Forked)
                host, port = server.listening_addresses[0]
                # By a thread, so that the loop has to wake up for it.
                response = await loop.run_in_executor(None, httpx.get, f"http://{host}:{port}/")
                assert response.text.split()[0] == str(os.getpid())
                interrupted = Forked("127.0.0.1", partial(signal.raise_signal, signal.SIGINT))
                interrupted.start()
                interrupted.join(DEADLINE)
                assert interrupted.exitcode == 130
                await asyncio.sleep(0)
                assert (await loop.run_in_executor(None, httpx.get, f"http://{host}:{port}/")).status_code == 200

        asyncio.run(parent())
        assert signals == []

    def test_a_process_does_not_outlive_its_parent(self, tmp_path: Path) -> None:
        program = (
            "import os, signal, sys\n"
            "from asgiserver.testing import ServerProcess\n"
            "from tests.e2e.live_applications import get_application\n"
            "process = ServerProcess('127.0.0.1', get_application, port=int(sys.argv[1]))\n"
            "process.start()\n"
            "process.ready.wait()\n"
            "print(process.folder, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        port = free_port()
        # A file: a pipe would be open for as long as the process, which is the parent's child, runs on.
        with (tmp_path / "output").open("w") as output:
            done = subprocess.run(
                [sys.executable, "-c", program, str(port)],
                cwd=ROOT, env=environment(), stdout=output, timeout=DEADLINE, check=False,
            )  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        wait_for(lambda: not connects(port))
        wait_for(lambda: not Path((tmp_path / "output").read_text().strip()).exists())

    def test_a_parent_that_ends_waits_for_no_process(self) -> None:
        program = (
            "from asgiserver.testing import ServerProcess\n"
            "from tests.e2e.live_applications import get_application\n"
            "process = ServerProcess('127.0.0.1', get_application)\n"
            "process.start()\n"
            "process.ready.wait()\n"
            "print(process.folder)\n"
        )
        done = run_python(program)
        assert done.returncode == 0
        assert not Path(done.stdout.strip()).exists()
