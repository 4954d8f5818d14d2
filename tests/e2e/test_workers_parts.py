"""The parts of the supervisor that touch the kernel: its channels and its file."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgiserver.errors import SettingsError
from asgiserver.workers.channel import Channel
from asgiserver.workers.launch import command
from asgiserver.workers.nursery import left_behind, opened
from asgiserver.workers.pid_file import pid_file
from asgiserver.workers.worker import look_for

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no workers")


@posix
class TestChannel:
    @pytest.fixture
    def pair(self) -> Iterator[tuple[Channel, Channel]]:
        here, sock = Channel.pair()
        there = Channel(sock)
        yield here, there
        here.close()
        there.close()

    def test_messages_arrive_whole_and_in_order(self, pair: tuple[Channel, Channel]) -> None:
        here, there = pair
        messages = [{"number": number, "text": "é" * number} for number in range(50)]
        for message in messages:
            here.send(message)
        assert there.receive() == messages
        assert there.receive() == []
        assert there.open

    @pytest.mark.parametrize("character", ["x", "\n", "\x1b", "é", "漢", "\U0001f600", "\udc80"])
    def test_a_text_of_the_longest_kind_fits_whatever_its_characters(
        self, pair: tuple[Channel, Channel], character: str
    ) -> None:
        here, there = pair
        here.send({"text": character * 32768})
        assert there.receive() == [{"text": character * 32768}]
        assert here.open

    def test_a_descriptor_comes_with_its_message(self, pair: tuple[Channel, Channel]) -> None:
        here, there = pair
        reader, writer = os.pipe()
        here.send({"do": "fork"}, writer)
        here.send({"do": "retire"})
        os.close(writer)
        assert len(there.receive()) == 2
        taken = there.take_descriptor()
        assert not os.get_inheritable(taken)
        os.write(taken, b"x")
        os.close(taken)
        assert os.read(reader, 2) == b"x"
        os.close(reader)

    def test_what_was_said_before_the_end_is_heard(self, pair: tuple[Channel, Channel]) -> None:
        here, there = pair
        here.send({"is": "failed"})
        here.close()
        assert there.receive() == [{"is": "failed"}]
        assert not there.open
        # Nobody hears it.
        there.send({"do": "stop"})
        there.close()

    def test_a_descriptor_that_nobody_took_is_closed(self, pair: tuple[Channel, Channel]) -> None:
        here, there = pair
        reader, writer = os.pipe()
        here.send({"do": "fork"}, writer)
        os.close(writer)
        there.receive()
        there.close()
        assert os.read(reader, 1) == b""
        os.close(reader)

    def test_a_peer_that_does_not_read_is_given_up(self, pair: tuple[Channel, Channel]) -> None:
        here, there = pair
        for _ in range(1000):
            here.send({"text": "x" * 30000})
        assert here.receive() == []
        assert not here.open
        there.receive()
        assert not there.open


@pytest.mark.skipif(sys.platform != "linux", reason="what an import leaves is seen in /proc")
class TestWhatAnImportLeaves:
    def test_a_thread_a_socket_and_a_file_that_is_written_are_named(self, tmp_path: Path) -> None:
        before, end = opened(), threading.Event()
        thread = threading.Thread(target=end.wait, name="scheduler")
        here, there = socket.socketpair()
        with here, there, socket.socket() as sock, open(tmp_path / "file", "w") as file:
            thread.start()
            found = left_behind(before)
            end.set()
        thread.join()
        assert found.count("socket to ") == 2
        for each in ("thread 'scheduler'", "socket of AF_INET", f"file {file.name!r}"):
            assert each in found
        assert sock.fileno() == -1

    def test_pipes_logs_and_files_that_are_read_are_not(self, tmp_path: Path) -> None:
        before = opened()
        handler = logging.FileHandler(tmp_path / "log")
        logging.getLogger("mine").addHandler(handler)
        reader, writer = os.pipe()
        with open(__file__) as file:
            found = left_behind(before)
        logging.getLogger("mine").removeHandler(handler)
        handler.close()
        for descriptor in (reader, writer):
            os.close(descriptor)
        assert file.closed
        # The tests themselves may have threads.
        assert [each for each in found if "thread" not in each] == []


@posix
class TestPidFile:
    def test_has_the_number_while_the_block_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "pid"
        with pid_file(str(path)):
            assert path.read_text("ascii") == f"{os.getpid()}\n"
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "text",
        ["", "what\n", "999999999\n", "-1\n", f"{os.getpid()}\n"],
        ids=["empty", "text", "high", "negative", "own"],
    )
    def test_replaces_one_of_a_process_that_is_gone(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "pid"
        path.write_text(text, "ascii")
        with pid_file(str(path)):
            assert path.read_text("ascii") == f"{os.getpid()}\n"

    def test_refuses_one_of_a_process_that_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "pid"
        path.write_text(f"{os.getppid()}\n", "ascii")
        with pytest.raises(SettingsError, match="which runs"), pid_file(str(path)):
            pytest.fail("it was replaced")
        assert path.read_text("ascii") == f"{os.getppid()}\n"

    def test_leaves_the_file_of_a_successor_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "pid"
        with pid_file(str(path)):
            path.write_text("123\n", "ascii")
        assert path.read_text("ascii") == "123\n"

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="No such file"), pid_file(str(tmp_path / "no" / "pid")):
            pytest.fail("it was written")

    def test_without_a_path_does_nothing(self) -> None:
        with pid_file(None):
            pass


@posix
class TestLookingForTheSupervisor:
    @pytest.mark.parametrize("sandbox", [False, True])
    def test_tells_whether_it_runs(self, monkeypatch: pytest.MonkeyPatch, sandbox: bool) -> None:
        if sandbox:
            monkeypatch.delattr(os, "pidfd_open", raising=False)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            runs = look_for(process.pid)
            assert runs()
        assert not runs()
        assert not look_for(process.pid)()

    @pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes have numbers alone")
    def test_another_process_with_its_number_is_not_taken_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            runs = look_for(process.pid)
        monkeypatch.setattr(os, "kill", lambda *_: None)
        assert not runs()


def test_a_process_runs_with_the_flags_of_this_one() -> None:
    line = command("nursery", "7")
    assert line[0] == sys.executable
    assert line.count("-P") == 1
    assert line[-1] == "7"
