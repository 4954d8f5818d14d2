"""Supervisors, nurseries and workers that fail without being killed, and what it is to the others."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.live import in_loop, until
from tests.e2e.server import ROOT, wait_for
from tests.e2e.workers import Supervised, WebSocketClient, ask, children, gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")


class TestSupervisor:
    @in_loop
    async def test_one_that_fails_says_why_and_tells_all_to_stop(self, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nif any('workers.supervisor' in each for each in sys.orig_argv):\n"
            "    from asgiserver.workers.supervisor import Supervisor\n"
            "    Supervisor._signalled = lambda self, number: 1 / 0\n",
            "utf-8",
        )
        with Supervised(tmp_path, 2, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as server:
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


class TestBlocking:
    @in_loop
    async def test_a_worker_says_where_and_is_replaced_while_the_others_work_on(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2, "--worker-timeout", "2") as server:
            clients = {}
            while len(clients) < 2:
                client = await WebSocketClient.connect(server.port)
                clients.setdefault(client.process, client)
            blocked, other = clients.values()
            blocked.write(b"block")
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
            for each in clients.values():
                each.writer.close()

    @pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=pytest.mark.slow)])
    def test_a_start_up_may_compute_for_longer(self, tmp_path: Path, seconds: float) -> None:
        args = "--worker-timeout", "0.5", "--lifespan", "on", "--lifespan-startup-timeout", "0"
        server = Supervised(tmp_path, 1, *args, patience=200)
        server.write(f"""
async def started():
    while time.process_time() < {seconds}:
        pass
""")
        with server:
            assert len(server.first) == 1
        assert server.lines("ERROR") == []
