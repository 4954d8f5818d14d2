"""Supervisors, nurseries and workers that fail without being killed, and what it is to the others."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.live import in_loop, until
from tests.e2e.server import ROOT, wait_for
from tests.e2e.workers import Supervised, WebSocketClient, ask, children, gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")


def changed(folder: Path, statement: str) -> dict[str, str]:
    """The environment in which a supervisor begins with ``statement``."""
    (folder / "sitecustomize.py").write_text(
        "import sys\nif any('workers.supervisor' in each for each in sys.orig_argv):\n"
        f"    from asgiserver.workers import supervisor\n    {statement}\n",
        "utf-8",
    )
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


class TestSupervisor:
    @in_loop
    async def test_one_that_fails_says_why_and_tells_all_to_stop(self, tmp_path: Path) -> None:
        env = changed(tmp_path, "supervisor.Supervisor._signalled = lambda self, number: 1 / 0")
        with Supervised(tmp_path, 2, env=env) as server:
            processes = server.processes()
            running = asyncio.create_task(ask(server.port, "/sleep/1"))
            await asyncio.sleep(0.3)
            server.send_signal(signal.SIGTTIN)
            assert await asyncio.to_thread(server.wait) == 1
            assert await running
            wait_for(lambda: gone(processes))
        (line,) = server.lines("CRITICAL")
        assert "The supervisor has failed" in line
        assert server.output().count("ZeroDivisionError") == 1

    def test_a_nursery_that_cannot_be_started_changes_nothing(self, tmp_path: Path) -> None:
        """A deployment may replace the interpreter, or the system may have no process to give."""
        python = tmp_path / "bin" / "python"
        python.parent.mkdir()
        python.symlink_to(sys.executable)
        (tmp_path / "lib").symlink_to(Path(sys.prefix, "lib"))
        if (configuration := Path(sys.prefix, "pyvenv.cfg")).exists():
            (tmp_path / "pyvenv.cfg").symlink_to(configuration)
        with Supervised(tmp_path, 1, command=[str(python), "-m", "asgiserver"]) as server:
            python.unlink()
            server.send_signal(signal.SIGHUP)
            server.wait_for_line("the nursery could not be started: [Errno 2]")
            assert len(server.lines("ERROR")) == 1
            python.symlink_to(sys.executable)
            server.reload(3)


def test_a_worker_that_is_faster_than_its_nursery_is_known_by_its_number(tmp_path: Path) -> None:
    """The nursery tells of the fork, and may have to wait for a processor before it does."""
    server = Supervised(tmp_path, 1)
    server.write("os.register_at_fork(after_in_parent=lambda: time.sleep(0.5))\n")
    with server:
        assert server.first == children(server.nursery())


def test_a_worker_that_was_killed_for_want_of_memory_is_told_from_others(tmp_path: Path) -> None:
    env = changed(tmp_path, "supervisor.oom_kills = iter((0, 0, 1)).__next__")
    with Supervised(tmp_path, 1, env=env) as server:
        for number, text in enumerate(("SIGKILL\n", "SIGKILL, as its control group was out of memory"), 1):
            os.kill(server.workers()[-1], signal.SIGKILL)
            server.wait_for_line(f"was ended by {text}")
            wait_for(lambda: len(server.workers()) == number + 1)  # noqa: B023 - called at once


@in_loop
async def test_a_fork_that_the_system_refuses_is_tried_again_and_the_others_serve(tmp_path: Path) -> None:
    flag = tmp_path / "full"
    server = Supervised(tmp_path, 2)
    server.write(f"""
fork = os.fork

def refuse():
    if os.path.exists({str(flag)!r}):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = refuse
""")
    with server:
        flag.touch()
        os.kill(server.first[0], signal.SIGKILL)
        server.wait_for_line("it could not be forked: Resource temporarily unavailable", 3)
        assert (await ask(server.port)).split()[1] == str(server.first[1])
        flag.unlink()
        await until(lambda: len(server.workers()) == 3)


class TestBlocking:
    @in_loop
    async def test_a_worker_says_where_and_is_replaced_while_the_others_work_on(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2, "--worker-timeout", "2") as server:
            clients = [await WebSocketClient.connect(server.port)]
            while clients[-1].process == clients[0].process:
                clients.append(await WebSocketClient.connect(server.port))
            blocked, other = clients[0], clients[-1]
            blocked.write(b"block")
            # Until then it may accept a connection, too.
            await until(lambda: "it blocks from now on" in server.output())
            times = []
            while "is killed: its event loop has been blocked" not in server.output():
                began = time.monotonic()
                assert await other.talk()
                assert (await ask(server.port)).split()[1] == str(other.process)
                times.append(time.monotonic() - began)
                await asyncio.sleep(0.02)
            # Of some eighty the third may be late, where other tests run beside.
            assert sorted(times)[-3] < 0.1
            await until(lambda: "in the_place_where_it_blocks" in server.output())
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await blocked.frame()
            await until(lambda: len(server.workers()) == 3)
            for each in clients:
                each.writer.close()

    @pytest.mark.slow
    @in_loop
    async def test_a_worker_that_was_stopped_is_replaced(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1, "--worker-timeout", "1") as server:
            os.kill(server.first[0], signal.SIGSTOP)
            await until(lambda: len(server.workers()) == 2)
            assert await ask(server.port)
            wait_for(lambda: gone(server.first))

    @pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=pytest.mark.slow)])
    def test_a_start_up_may_compute_for_longer(self, tmp_path: Path, seconds: float) -> None:
        times = "--worker-timeout", "0.5", "--worker-start-timeout", "0", "--lifespan-startup-timeout", "0"
        server = Supervised(tmp_path, 1, "--lifespan", "on", *times, patience=20 * seconds)
        server.write(f"""
async def started():
    while time.process_time() < {seconds}:
        pass
""")
        with server:
            assert len(server.first) == 1
        assert server.lines("ERROR") == []
