"""Workers and their supervisor: who starts, who dies, who replaces whom, and what a signal does."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.live import in_loop, until
from tests.e2e.server import connects, environment, run_command, wait_for
from tests.e2e.workers import Load, Supervised, ask, can_bind, children, descendants, gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests look into /proc")


async def answers(server: Supervised, count: int) -> set[str]:
    """The processes that answer; ``count`` of them, or the test waits."""
    found: set[str] = set()

    async def ask_again() -> bool:
        found.add((await ask(server.port)).split()[1])
        return len(found) >= count

    async with asyncio.timeout(20):
        while not await ask_again():
            pass
    return found


def test_the_supervisor_is_of_the_standard_library_alone() -> None:
    program = (
        "import sys, asgiserver.workers.supervisor, asgiserver.workers.nursery\n"
        "print([name for name in ('twisted', 'zope', 'h11', 'autobahn', 'uvloop') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


class TestServing:
    @in_loop
    async def test_all_workers_serve_and_all_end(self, tmp_path: Path) -> None:
        path = tmp_path / "pid"
        command = [sys.executable, "-W", "always::ResourceWarning", "-m", "asgiserver"]
        with Supervised(tmp_path, 3, "--pid-file", str(path), command=command) as server:
            processes = server.processes()
            assert len(processes) == 4
            assert path.read_text("ascii") == f"{server.pid}\n"
            assert await answers(server, 3) == {str(process) for process in server.first}
            assert server.stop() == 0
        assert gone(processes)
        assert not connects(server.port)
        assert not path.exists()
        assert "ResourceWarning" not in server.output()
        assert server.lines("ERROR") == server.lines("WARNING") == []

    def test_a_pid_file_of_a_process_that_runs_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "pid"
        path.write_text(f"{os.getpid()}\n", "ascii")
        for workers in ((), ("--workers", "1")):
            done = run_command(*workers, "-p", "0", "--pid-file", str(path), "examples.hello:application")
            assert done.returncode == 2
            assert f"has the number of process {os.getpid()}, which runs" in done.stderr
        assert path.read_text("ascii") == f"{os.getpid()}\n"


class TestFailingAtTheStart:
    @pytest.mark.parametrize(
        ("code", "status", "message"),
        [
            ("1 +", 1, "SyntaxError"),
            ("raise RuntimeError('mine')", 1, "RuntimeError: mine"),
            ("del application", 2, "has neither 'application' nor 'app'"),
            ("async def started(): raise RuntimeError('mine')", 3, "in started"),
        ],
    )
    def test_the_service_ends_with_its_status_and_one_message(
        self, tmp_path: Path, code: str, status: int, message: str
    ) -> None:
        # Found by the nursery in one case, by a worker in the other.
        preload = "off" if "application" in code else "auto"
        server = Supervised(tmp_path, 2, "--preload", preload, "--lifespan", "on")
        server.write(code)
        done = run_command(*server.args[3:])
        assert (done.returncode, done.stderr.count(message)) == (status, 1), done.stderr

    def test_an_address_that_is_taken_is_named(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1) as server:
            done = run_command("--workers", "1", "-p", str(server.port), "examples.hello:application")
        assert (done.returncode, done.stderr.count("cannot listen on")) == (1, 1)


class TestReloading:
    @in_loop
    async def test_broken_code_changes_nothing_and_the_next_works(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2, "--lifespan", "on", "--lifespan-startup-timeout", "0.5") as server:
            broken = {
                "1 +": "SyntaxError",
                "import no_such_module": "No module named 'no_such_module'",
                "raise SystemExit(4)": "SystemExit(4)",
                "async def started(): raise RuntimeError('mine')": "RuntimeError: mine",
                "async def started(): await asyncio.sleep(600)": "did not start within 0.5 s",
            }
            for number, (code, message) in enumerate(broken.items(), 1):
                server.write(f"VERSION = 'broken'\n{code}")
                server.send_signal(signal.SIGHUP)
                server.wait_for_line(message)
                assert len(server.lines("ERROR")) == number
                assert (await ask(server.port)).split()[0] == "one"
            server.write(VERSION="two")
            server.reload(len(broken) + 2)
            assert (await ask(server.port)).split()[0] == "two"
            wait_for(lambda: gone(server.first))
        assert server.returncode == 0

    @in_loop
    async def test_twice_at_once_is_one_with_the_later_code(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1) as server:
            server.write(VERSION="two")
            server.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.05)
            server.write(VERSION="three")
            server.reload(3)
            assert (await ask(server.port)).split()[0] == "three"
            assert "Generation 2 serves" not in server.output()
            assert server.lines("ERROR") == []


class TestStopping:
    @in_loop
    async def test_running_requests_are_answered(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2) as server:
            running = [asyncio.create_task(ask(server.port, "/sleep/1")) for _ in range(4)]
            await asyncio.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            # As a process manager that signals the group, and the process.
            server.send_signal(signal.SIGTERM)
            assert len(await asyncio.gather(*running)) == 4
            assert await asyncio.to_thread(server.wait) == 0

    @in_loop
    async def test_a_second_signal_ends_everything_at_once(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2) as server:
            processes = server.processes()
            running = asyncio.create_task(ask(server.port, "/sleep/9"))
            await asyncio.sleep(0.3)
            server.end_at_once()
            wait_for(lambda: gone(processes))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await running

    @in_loop
    async def test_quit_waits_for_no_request(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1) as server:
            running = asyncio.create_task(ask(server.port, "/sleep/30"))
            await asyncio.sleep(0.3)
            began = time.monotonic()
            server.send_signal(signal.SIGQUIT)
            assert await asyncio.to_thread(server.wait) == 0
            assert time.monotonic() - began < 10
            with pytest.raises((AssertionError, asyncio.IncompleteReadError)):
                await running

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_to_all_processes_is_one_shutdown(self, tmp_path: Path, number: signal.Signals) -> None:
        """A terminal sends SIGINT so, and systemd SIGTERM."""
        with Supervised(tmp_path, 2, new_session=True) as server:
            os.killpg(server.pid, number)
            assert server.wait() == 0
        assert "Traceback" not in server.output()
        assert server.lines("ERROR") == server.lines("WARNING") == []


    def test_during_the_import_ends_it(self, tmp_path: Path) -> None:
        server = Supervised(tmp_path, 2)
        server.write("open(__file__ + '.begun', 'w').close()\ntime.sleep(600)\n")
        process = subprocess.Popen(server.args, env=server.env, stderr=subprocess.PIPE, text=True)
        try:
            wait_for((tmp_path / "app.py.begun").exists)
            processes = descendants(process.pid)
            process.terminate()
            assert process.communicate(timeout=20)[1] == ""
            assert process.returncode == 0
            wait_for(lambda: gone(processes))
        finally:
            process.kill()
            process.wait()


class TestDying:
    @pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.slow)])
    @in_loop
    async def test_workers_that_are_killed_lose_only_their_own_clients(self, tmp_path: Path, seconds: float) -> None:
        with Supervised(tmp_path, 3) as server:
            descriptors, memory = server.descriptors(), server.memory("RssAnon")
            cut = ConnectionError, asyncio.IncompleteReadError
            async with Load(server.port, spare=cut) as load:
                end, kills = time.monotonic() + seconds, 0
                while time.monotonic() < end:
                    os.kill(random.choice(children(server.nursery())), signal.SIGKILL)
                    kills += 1
                    await until(lambda: len(server.workers()) == 3 + kills)  # noqa: B023 - called at once
                    await asyncio.sleep(1)
            # Of 18 clients a third is cut off by each kill, and no fresh connection is refused.
            assert sum(load.lost.values()) <= kills * 18
            assert server.output().count("was ended by SIGKILL") == kills
            wait_for(lambda: server.descriptors() == descriptors)
            assert server.memory("RssAnon") - memory < 2 << 20
            assert await ask(server.port)

    @pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.slow)])
    @in_loop
    async def test_without_the_supervisor_all_end_by_themselves(self, tmp_path: Path, times: int) -> None:
        for _ in range(times):
            await self.kill_the_supervisor(tmp_path, 2 if times == 1 else 0.5)

    async def kill_the_supervisor(self, tmp_path: Path, seconds: float) -> None:
        with Supervised(tmp_path, 2) as server:
            processes, port = server.processes(), server.port
            running = asyncio.create_task(ask(port, "/sleep/1"))
            await asyncio.sleep(0.3)
            os.kill(server.pid, signal.SIGKILL)
            wait_for(lambda: can_bind(port), seconds)
            assert await running
            # graceful_timeout, and one second.
            wait_for(lambda: gone(processes), 11)

    @in_loop
    async def test_without_the_nursery_all_serve_on_and_a_new_one_comes(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2) as server:
            server.write(VERSION="two")
            async with Load(server.port) as load:
                os.kill(server.nursery(), signal.SIGKILL)
                server.wait_for_line("Generation 2 serves")
                await until(lambda: load.answers["two"])
            server.send_signal(signal.SIGTTIN)
            await until(lambda: len(server.workers()) == 5)

    @in_loop
    async def test_a_worker_that_exits_is_replaced(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1) as server:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await ask(server.port, "/exit")
            assert await ask(server.port)
            assert "its exit status was 7" in server.output()

    @in_loop
    async def test_later_failures_are_tried_again(self, tmp_path: Path) -> None:
        """Each start of a worker looks at a file."""
        flag = tmp_path / "broken"
        with Supervised(tmp_path, 2, "--lifespan", "on") as server:
            server.write(
                f"import pathlib\nasync def started():\n    if pathlib.Path({str(flag)!r}).exists():\n"
                "        raise RuntimeError('mine')\n"
            )
            server.reload(2)
            flag.touch()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await ask(server.port, "/exit")
            server.wait_for_line("RuntimeError: mine", 3)
            assert await ask(server.port)
            flag.unlink()
            served = len(server.workers())
            await until(lambda: len(server.workers()) == served + 1)


class TestSignals:
    @in_loop
    async def test_more_and_fewer_workers(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2) as server:
            # Two signals of one kind that nobody has taken yet are one.
            for workers in (3, 4):
                server.send_signal(signal.SIGTTIN)
                await until(lambda: len(server.workers()) == workers)  # noqa: B023 - called at once
            for processes in (4, 3, 2, 2):
                said = server.output().count("There are to be")
                server.send_signal(signal.SIGTTOU)
                server.wait_for_line("There are to be", said + 1)
                await until(lambda: len(server.processes()) == processes)  # noqa: B023 - called at once
            assert await ask(server.port)

    @in_loop
    async def test_term_to_one_worker_replaces_it_first(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1) as server:
            async with Load(server.port):
                os.kill(server.first[0], signal.SIGTERM)
                await until(lambda: len(server.workers()) == 2)
                await until(lambda: "Draining" in server.output())
        assert server.lines("ERROR") == []

    def test_files_of_the_log_are_opened_anew(self, tmp_path: Path) -> None:
        """Those of the workers too, which have them from their nursery."""
        path, moved, config = tmp_path / "log", tmp_path / "log.1", tmp_path / "log.json"
        logger = {"level": "INFO", "handlers": ["file"]}
        handler = {"class": "logging.FileHandler", "filename": str(path)}
        config.write_text(json.dumps({"handlers": {"file": handler}, "loggers": {"asgiserver": logger}}), "utf-8")
        server = Supervised(tmp_path, 2, "--log-config", str(config), "--lifespan", "off")
        server.write("import logging\nasync def application(scope, receive, send):\n"
                     "    logging.getLogger('asgiserver').info('asked %s', os.getpid())\n"
                     "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
                     "    await send({'type': 'http.response.body'})\n")  # fmt: skip
        process = subprocess.Popen(server.args, env=server.env, stdout=subprocess.PIPE)
        try:
            wait_for(lambda: path.exists() and "Listening on" in path.read_text("utf-8"))
            port = int(path.read_text("utf-8").rpartition("Listening on http://127.0.0.1:")[2].split()[0])
            asked = 0

            def ask_once() -> None:
                nonlocal asked
                httpx.get(f"http://127.0.0.1:{port}")
                asked += 1

            ask_once()
            path.rename(moved)
            process.send_signal(signal.SIGUSR1)

            def both_write_there() -> bool:
                ask_once()
                return path.exists() and len(set(re.findall(r"asked (\d+)", path.read_text("utf-8")))) == 2

            wait_for(both_write_there)
            size = moved.stat().st_size
            for _ in range(10):
                ask_once()
            assert moved.stat().st_size == size
            assert sum(each.read_text("utf-8").count("asked") for each in (path, moved)) == asked
        finally:
            process.terminate()
            process.communicate(timeout=20)

    @in_loop
    async def test_each_request_under_way_is_named(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2) as server:
            # Enough that both workers have some.
            running = [asyncio.create_task(ask(server.port, "/sleep/600")) for _ in range(8)]
            await asyncio.sleep(0.5)
            blocked = asyncio.create_task(ask(server.port, "/block"))
            await asyncio.sleep(1.5)
            server.send_signal(signal.SIGUSR2)
            server.wait_for_line("in the_place_where_it_blocks")
            for text in ("Under way: GET '/sleep/600'", "in sleep"):
                server.wait_for_line(text)
            server.kill()
            await asyncio.gather(*running, blocked, return_exceptions=True)
