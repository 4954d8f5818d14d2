"""How the benchmarks measure: servers by turns, slices and their medians, and what the clients say."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.benchmarks import clients, measuring, processes, wrk
from tests.benchmarks.load import Load, Slice
from tests.benchmarks.loads import LOADS
from tests.benchmarks.measuring import combined, measure, rotated
from tests.benchmarks.servers import Certificate, ServerKind


class TestRounds:
    """Servers that are not there: each slice of them takes 100 µs more than the one before."""

    @pytest.fixture
    def order(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
        """What happens: slices with their seconds, and servers' starts and ends with 0 and -1."""
        happened: list[tuple[str, float]] = []

        @contextmanager
        def opened(load: Load, kind: ServerKind, folder: Path, secured: Certificate | None) -> Iterator[Slice]:
            costs = iter(range(100, 10000, 100))

            def take(seconds: float) -> dict[str, float]:
                happened.append((kind.name, seconds))
                if kind.name == "granian" and len(happened) > 9:
                    raise wrk.ClientFailed("it broke")
                return {"cpu": float(next(costs)), "busy": 1.0}

            happened.append((kind.name, 0))
            try:
                yield take
            finally:
                happened.append((kind.name, -1))

        monkeypatch.setattr(measuring, "opened", opened)
        monkeypatch.setattr(ServerKind, "installed", lambda kind: True)
        monkeypatch.setattr(shutil, "which", lambda name: name)
        return happened

    SERVERS = ("asgiserver", "uvicorn", "granian")

    def test_all_are_started_and_warmed_before_they_take_turns(
        self, order: list[tuple[str, float]], tmp_path: Path
    ) -> None:
        measure("get", self.SERVERS[:2], 1, 4.0, tmp_path)
        first, second = self.SERVERS[:2]
        warm = processes.WARM_UP
        assert order[:4] == [(first, 0), (second, 0), (first, warm), (second, warm)]
        assert order[4:8] == [(second, 0.5), (first, 0.5), (first, 0.5), (second, 0.5)]
        assert sorted(order[-2:]) == sorted([(first, -1), (second, -1)])
        slices = [name for name, seconds in order if seconds == 0.5]
        assert slices.count(first) == slices.count(second) == LOADS["get"].slices

    def test_the_median_slice_counts_and_the_warm_up_does_not(
        self, order: list[tuple[str, float]], tmp_path: Path
    ) -> None:
        [found] = measure("get", ["asgiserver"], 1, 4.0, tmp_path)
        assert found.values == {"cpu": 550.0, "busy": 1.0}
        assert [values["cpu"] for values in found.slices] == [200.0 + 100 * n for n in range(LOADS["get"].slices)]

    def test_one_that_fails_is_ended_and_the_others_go_on(self, order: list[tuple[str, float]], tmp_path: Path) -> None:
        found = measure("get", self.SERVERS, 1, 4.0, tmp_path)
        assert [record.failure for record in found] == ["", "", "it broke"]
        assert found[2].values == {}
        assert all(len(record.slices) == LOADS["get"].slices for record in found[:2])
        end = order.index(("granian", -1))
        assert "granian" not in [name for name, _ in order[end + 1 :]]
        assert ("asgiserver", 0.5) in order[end + 1 :]

    def test_idle_connections_are_one_slice_of_all_together(
        self, order: list[tuple[str, float]], tmp_path: Path
    ) -> None:
        measure("idle", self.SERVERS, 1, 4.0, tmp_path)
        assert sorted(order[3:6]) == sorted((name, 4.0) for name in self.SERVERS)

    def test_only_unix_sockets_are_compared_with_tcp(self, order: list[tuple[str, float]], tmp_path: Path) -> None:
        servers = ["asgiserver", "asgiserver-tcp"]
        found = list(measuring.rounds(["get", "unix"], servers, 1, 4.0, tmp_path, lambda record: None))
        assert [(each.load, each.server) for each in found] == [
            ("get", "asgiserver"), ("unix", "asgiserver"), ("unix", "asgiserver-tcp"),
        ]  # fmt: skip
        assert list(measuring.rounds(["get"], servers[1:], 1, 4.0, tmp_path, lambda record: None)) == []

    def test_an_interrupt_ends_all_servers(
        self, order: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def interrupt(turns: object, by: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(measuring, "rotated", interrupt)
        with pytest.raises(KeyboardInterrupt):
            measure("get", self.SERVERS, 1, 4.0, tmp_path)
        assert sorted(order[-3:]) == sorted((name, -1) for name in self.SERVERS)

    def test_everyone_is_first_as_often_and_not_always_after_the_same(self) -> None:
        orders = [rotated("abcd", by) for by in range(8)]
        assert all(sorted(order) == list("abcd") for order in orders)
        assert sorted(order[0] for order in orders) == sorted("abcd" * 2)
        followers = {(before, after) for order in orders for before, after in pairwise(order)}
        assert {("a", "b"), ("b", "a")} <= followers
        assert rotated("a", 3) == ["a"]

    def test_what_one_slice_lacks_is_not_told(self) -> None:
        assert combined([{"cpu": 1.0, "p50": 3.0}, {"cpu": 9.0}, {"cpu": 2.0, "p50": 3.0}]) == {"cpu": 2.0}

    def test_a_client_takes_a_slice_for_each_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def client(seconds: float, port: int) -> dict[str, float]:
            if seconds > 1:
                raise wrk.ClientFailed("too long")
            return {"cpu": seconds * port}

        monkeypatch.setitem(clients.CLIENTS, "echo", client)
        monkeypatch.setattr(sys, "stdin", io.StringIO("0.5\n2\n0.25\n"))
        clients.main('{"client": "echo", "port": 4}')
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines == [{"cpu": 2.0}, {"failure": "too long"}, {"cpu": 1.0}]


class TestWrk:
    def test_its_script_says_what_is_sent(self) -> None:
        script = wrk.script(wrk.Request("POST", {"X-Quote": 'a "b"'}, body=3), "host", 32, 0.5)
        lines = ['wrk.method = "POST"', 'wrk.headers["X-Quote"] = "a \\"b\\""', 'wrk.body = string.rep("x", 3)']
        assert script.splitlines()[:3] == lines
        assert "wrk.body" not in wrk.script(wrk.Request(), "host", 32, 0.5)
        assert "local CONNECTIONS, LEAD, SECONDS = 32, 0.05, 0.5\n" in script

    def test_it_reads_the_clocks_of_the_server(self) -> None:
        script = wrk.script(wrk.Request(), "host", 32, 0.5, [processes.clock_id(4), processes.clock_id(7)])
        assert "local CLOCKS = {-38, -62}\n" in script

    def test_what_it_says_is_waited_for(self) -> None:
        said = io.StringIO('Running 1s test\n\n{"mark":"begin"}\n\n{"mark":"end","requests":7}\n')
        wrk._until(said, "begin")
        assert wrk._until(said, "end")["requests"] == 7

    @pytest.mark.parametrize(
        ("said", "reason"),
        [("unable to connect to 127.0.0.1:1\n\n", "unable to connect to 127.0.0.1:1"), ("", "it said nothing")],
    )
    def test_its_end_before_that_is_a_failure(self, said: str, reason: str) -> None:
        with pytest.raises(wrk.ClientFailed, match=f"wrk ended before the begin: {reason}"):
            wrk._until(io.StringIO(said), "begin")
