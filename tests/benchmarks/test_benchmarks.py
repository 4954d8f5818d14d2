"""What the benchmarks make of measurements: medians, ratios, tables, chart, and the frames that they send."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
import zlib
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import __main__ as command_line
from tests.benchmarks import measuring, processes, readme, wrk
from tests.benchmarks.__main__ import main
from tests.benchmarks.chart import svg
from tests.benchmarks.echoes import text_of
from tests.benchmarks.frames import client_frame, deflated, expect, payload_of, server_frame
from tests.benchmarks.load import METRICS
from tests.benchmarks.loads import LOADS
from tests.benchmarks.measuring import Record, measure
from tests.benchmarks.report import Table, environment, number, overview, summary, tables
from tests.benchmarks.servers import SERVERS, Certificate, Order, ServerKind, other_checkout
from tests.benchmarks.targets import ASGI, TARGETS, Target, reached, verdicts

ROOT = Path(__file__).resolve().parents[2]


def records(load: str = "get", **costs: list[float | str]) -> list[Record]:
    """Rounds of servers (``_`` for a dash): CPU costs, or why there are none."""
    return [
        Record(load, name.replace("_", "-"), number, failure=cost)
        if isinstance(cost, str)
        else Record(load, name.replace("_", "-"), number, {"cpu": cost, "rate": 1e6 / cost, "busy": 1.0})
        for name, rounds in costs.items()
        for number, cost in enumerate(rounds, 1)
    ]


def table(**costs: list[float | str]) -> Table:
    [found] = summary(records(**costs))
    return found


class TestSummary:
    def test_the_median_round_counts(self) -> None:
        row = table(granian=[30.0, 20.0, 90.0]).row("granian")
        assert row is not None
        assert row.values == {"cpu": 30.0, "rate": pytest.approx(1e6 / 30)}

    def test_ratios_are_to_the_best_peer_and_not_to_ourselves(self) -> None:
        found = table(asgiserver=[15.0], uvicorn=[24.0], granian=[20.0])
        ratios = {row.server: row.ratios["cpu"] for row in found.rows}
        assert ratios == {"asgiserver": 0.75, "uvicorn": 1.2, "granian": 1.0}

    def test_of_a_rate_the_greatest_is_best(self) -> None:
        found = table(asgiserver=[40.0], uvicorn=[20.0], granian=[10.0])
        assert {row.server: row.ratios["rate"] for row in found.rows} == pytest.approx(
            {"asgiserver": 0.25, "uvicorn": 0.5, "granian": 1.0}
        )

    def test_without_a_peer_there_is_no_ratio(self) -> None:
        row = table(asgiserver=[15.0]).row("asgiserver")
        assert row is not None
        assert row.ratios == {}

    def test_loads_and_servers_keep_their_order(self) -> None:
        found = summary(records("echo", granian=[1.0], asgiserver=[2.0]) + records("get", granian=[1.0]))
        assert [each.load for each in found] == ["echo", "get"]
        assert [row.server for row in found[0].rows] == ["granian", "asgiserver"]


class TestFailures:
    def test_a_server_that_failed_is_shown_with_the_reason(self) -> None:
        text = tables([table(uvicorn=[20.0], daphne=["not | installed"])])
        [line] = [line for line in text.splitlines() if line.startswith("| daphne")]
        assert line.count("failed") == len(LOADS["get"].metrics) + 1
        assert "not \\| installed" in line

    def test_a_round_that_failed_is_told_beside_the_others(self) -> None:
        text = tables([table(uvicorn=[20.0, "it broke", 22.0])])
        assert "| 21.0 (1.00) |" in text
        assert "1 of 3 rounds failed: it broke" in text

    def test_the_overview_and_the_chart_show_it_too(self) -> None:
        found = [table(uvicorn=[20.0], daphne=["it broke"])]
        assert "| **20.0** | failed |" in overview(found)
        assert ">failed</text>" in svg(found)

    def test_what_is_not_installed_is_a_failed_row(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        nobody = ServerKind("nobody", ("no-such-package-at-all",), lambda order: [])
        monkeypatch.setitem(SERVERS, "nobody", nobody)
        assert measure("start", ["nobody"], 1, 1.0, tmp_path) == [Record("start", "nobody", 1, failure="not installed")]

    def test_a_server_that_ends_at_once_is_a_failed_row(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        wrong = ServerKind("wrong", ("asgiserver",), lambda order: ["asgiserver", "-p", "x", "a:b"])
        monkeypatch.setitem(SERVERS, "wrong", wrong)
        [found] = measure("start", ["wrong"], 1, 1.0, tmp_path)
        assert found.failure.startswith("ended with status 2: ")
        assert "expected a whole number, got 'x'" in found.failure

    def test_another_checkout_is_what_is_run(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        package = tmp_path / "before" / "asgiserver"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text("raise SystemExit('the other one')")
        monkeypatch.setitem(SERVERS, "before", other_checkout("before", package.parent))
        [found] = measure("start", ["before"], 1, 1.0, tmp_path)
        assert found.failure == "ended with status 1: the other one"

    def test_a_flag_that_is_not_known_is_a_failed_row(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        wrong = ServerKind("wrong", ("asgiserver",), lambda order: [], ("--port", "--sail"))
        monkeypatch.setitem(SERVERS, "wrong", wrong)
        [found] = measure("start", ["wrong"], 1, 1.0, tmp_path)
        assert found.failure == "no such flag: --sail"


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "expected"), [(0.123, "0.12"), (9.99, "9.99"), (14.94, "14.9"), (123.4, "123"), (45678.9, "45,679")]
    )
    def test_three_digits(self, value: float, expected: str) -> None:
        assert number(value) == expected


class TestTargets:
    def test_each_is_of_a_load_and_servers_that_exist(self) -> None:
        for target in TARGETS:
            assert SERVERS[target.server].ours
            other = SERVERS["uvicorn" if target.against in ("", ASGI) else target.against]
            assert not other.ours or other.tcp_in == target.load
            assert not target.metric or target.metric in LOADS[target.load].metrics

    def test_against_the_best_peer(self) -> None:
        found = table(asgiserver=[15.0], uvicorn=[24.0], granian=[20.0])
        assert reached(Target("get", 0.75), found) == 0.75

    def test_against_a_named_peer(self) -> None:
        found = table(asgiserver_asyncio=[55.0], uvicorn_h11=[100.0], granian=[20.0])
        assert reached(Target("get", 0.6, "asgiserver-asyncio", "uvicorn-h11"), found) == 0.55

    def test_verdicts(self) -> None:
        text = verdicts([table(asgiserver=[15.0], asgiserver_asyncio=[70.0], uvicorn_h11=[100.0], granian=[20.0])])
        assert "asgiserver / best peer | 0.85 | 0.75 | met |" in text
        servers = {"asgiserver": [15.0], "asgiserver_asyncio": [70.0], "uvicorn_h11": [100.0], "granian": [16.0]}
        text = verdicts(summary(records("varied", **servers)))
        assert "asgiserver / best peer | 0.90 | 0.94 | **missed** |" in text
        assert "asgiserver / uvicorn | 0.75 | – | unknown |" in text
        assert "asgiserver-asyncio / uvicorn-h11 | 0.50 | 0.70 | **missed** |" in text

    def test_a_unix_socket_against_our_own_tcp(self) -> None:
        found = summary(records("unix", asgiserver=[21.0], asgiserver_tcp=[20.0], uvicorn=[42.0]))
        text = verdicts(found)
        assert "asgiserver / best peer | 0.90 | 0.50 | met |" in text
        assert "asgiserver / asgiserver-tcp | 1.05 | 1.05 | met |" in text
        assert "asgiserver-tcp" not in overview(found)
        assert "| **21.0** | 42.0 |" in overview(found)

    def test_what_failed_is_neither_met_nor_missed(self) -> None:
        text = verdicts([table(asgiserver=["it broke"], granian=[20.0])])
        assert "| 0.85 | – | unknown |" in text
        assert "met" not in text.replace("memory", "")

    def test_against_the_best_peer_that_serves_asgi(self) -> None:
        found = summary(records("django", asgiserver=[3.0], asgiserver_off=[9.0], uvicorn=[20.0], granian_wsgi=[2.0]))
        assert reached(Target("django", 0.15, against=ASGI), found[0]) == 0.15
        assert reached(Target("django", 0.15, against=ASGI), table(asgiserver=[3.0])) is None

    def test_nothing_to_say_without_targets(self) -> None:
        assert verdicts(summary(records("browser", asgiserver=[1.0]))) == ""


class TestChart:
    FOUND = (
        table(asgiserver=[10.0], uvicorn=[20.0], daphne=[200.0]),
        *summary(records("echo", asgiserver=[10.0])),
    )

    def test_it_is_xml_with_a_bar_for_each_server(self) -> None:
        root = ET.fromstring(svg(self.FOUND))
        bars = root.findall(".//{*}rect")
        assert [bar.get("class") for bar in bars] == ["ours", "peer", "peer", "ours"]

    def test_bars_are_as_long_as_the_costs_up_to_a_bound(self) -> None:
        ours, best, cut, _ = (
            float(bar.get("width", "")) for bar in ET.fromstring(svg(self.FOUND)).findall(".//{*}rect")
        )
        assert ours == pytest.approx(best / 2, abs=0.1)
        assert cut == pytest.approx(best * 4, abs=0.2)
        assert ">…200</text>" in svg(self.FOUND)

    def test_all_of_it_is_inside(self) -> None:
        root = ET.fromstring(svg([table(asgiserver=[10.0], uvicorn=[20.0])] * 4))
        height = float(root.get("height", ""))
        panels = [float(group.get("transform", "").split()[1].rstrip(")")) for group in root.findall("{*}g")]
        assert len(panels) == 4
        assert max(panels) + 40 + 2 * 13 <= height


class TestOverview:
    def test_a_load_has_a_row_for_each_way_in_which_servers_are_compared(self) -> None:
        ways = {"opened": (8.0, 40.0), "peak": (8.0, 20.0), "rate": (300.0, 900.0)}
        found = summary(
            [
                Record("django-pool", server, 1, {metric: values[place] for metric, values in ways.items()})
                for place, server in enumerate(("asgiserver", "daphne"))
            ]
        )
        title = LOADS["django-pool"].title
        assert overview(found).splitlines()[2:] == [
            f"| {title}, opened, connections | **8.00** | 40.0 |",
            f"| {title}, open at once, connections | **8.00** | 20.0 |",
            f"| {title}, throughput, /s | 300 | **900** |",
        ]

    def test_what_is_told_by_the_unit_of_the_load_says_so(self) -> None:
        found = [*summary(records("django-file", uvicorn=[20.0])), table(uvicorn=[20.0])]
        assert [line.split(" |")[0] for line in overview(found).splitlines()[2:]] == [
            f"| {LOADS['django-file'].title}, CPU, µs per download",
            f"| {LOADS['django-file'].title}, first byte of the content after, ms",
            f"| {LOADS['django-file'].title}, memory grown for a slow reader, MiB",
            "| the same GET again and again, µs per request",
        ]


class TestReadme:
    def part(self, text: str, group: str, document: str = readme.DETAILS) -> str:
        begin, end = readme.MARKS[document][group]
        assert text.count(begin) == text.count(end) == 1
        return text.partition(begin)[2].partition(end)[0]

    def made(self, *found: Table, document: str = readme.DETAILS) -> str:
        return readme.with_results(document, (ROOT / document).read_text("utf-8"), found, environment())

    def test_it_has_the_place_for_results(self) -> None:
        part = self.part(self.made(table(asgiserver=[10.0], uvicorn=[20.0])), "asgi")
        assert "| the same GET again and again, µs per request | **10.0** | 20.0 |" in part
        assert "failed" not in part

    def test_what_failed_has_its_reason(self) -> None:
        part = self.part(self.made(table(asgiserver=[10.0], uvicorn=[20.0, "once"], daphne=["it broke"])), "asgi")
        assert "\n\n- the same GET again and again, daphne: it broke\n\n" in part
        assert "once" not in part

    def test_django_has_a_table_of_its_own(self) -> None:
        django = summary(records("django", asgiserver=[300.0], gunicorn_wsgi=[500.0]))
        made = self.made(table(asgiserver=[10.0]), *django)
        title = LOADS["django"].title
        assert f"\n| | asgiserver | gunicorn-wsgi |\n|---|---:|---:|\n| {title}, µs per" in self.part(made, "django")
        assert title not in self.part(made, "asgi")

    def test_the_projects_readme_shows_few_of_djangos(self) -> None:
        found = [*summary(records("django", asgiserver=[300.0])), *summary(records("django-drf", asgiserver=[400.0]))]
        part = self.part(self.made(*found, document=readme.README), "django", readme.README)
        assert LOADS["django"].title in part
        assert LOADS["django-drf"].title not in part

    def test_the_loads_that_it_shows_are_there(self) -> None:
        for group, names in readme.SHORT.items():
            assert {LOADS[name].group for name in names} == {group}

    @pytest.mark.parametrize(("document", "chart"), [
        (readme.README, readme.SHORT_CHART), (readme.DETAILS, readme.CHART.rpartition("/")[2]),
    ])  # fmt: skip
    def test_each_document_shows_its_chart(self, document: str, chart: str) -> None:
        assert f"]({chart})\n" in (ROOT / document).read_text("utf-8")

    def test_a_group_that_was_not_measured_keeps_its_part(self) -> None:
        before = (ROOT / readme.DETAILS).read_text("utf-8")
        made = self.made(*summary(records("django", asgiserver=[300.0])))
        assert self.part(made, "asgi") == self.part(before, "asgi")
        assert self.part(self.made(table(asgiserver=[10.0])), "django") == self.part(before, "django")
        assert self.made() == before


class TestFrames:
    @pytest.mark.parametrize("size", [0, 1, 32, 125, 126, 1024, 65535, 65536])
    def test_a_servers_frame_is_found_whole(self, size: int) -> None:
        frame = server_frame(b"x" * size)
        assert payload_of(frame + b"more") == (len(frame) - size, len(frame))
        assert all(payload_of(frame[:length]) is None for length in {0, 1, 3, len(frame) - 1} if length < len(frame))

    @pytest.mark.parametrize("size", [0, 32, 1024, 65536])
    def test_a_clients_frame_is_masked(self, size: int) -> None:
        payload = text_of(size)
        frame = client_frame(payload)
        head = len(server_frame(payload)) - size
        assert frame[:1] + bytes([frame[1] ^ 0x80]) + frame[2:head] == server_frame(payload)[:head]
        mask, masked = frame[head : head + 4], frame[head + 4 :]
        assert bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked)) == payload

    def test_a_compressed_message_can_be_sent_again_and_again(self) -> None:
        payload = text_of(1024)
        assert client_frame(deflated(payload), compressed=True)[0] == 0xC1
        window = zlib.decompressobj(wbits=-15)
        for _ in range(3):
            assert window.decompress(deflated(payload) + b"\0\0\xff\xff") == payload

    @pytest.mark.parametrize("size", [0, 32, 1024, 65536])
    def test_the_text_has_its_size(self, size: int) -> None:
        assert len(text_of(size)) == size

    def test_another_status_is_a_failure(self) -> None:
        expect(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101)
        with pytest.raises(wrk.ClientFailed, match=r"expected 101, got HTTP/1\.1 403 Forbidden"):
            expect(b"HTTP/1.1 403 Forbidden\r\n\r\n", 101)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestProcesses:
    def test_cpu_time_of_a_process_and_its_children(self) -> None:
        spin = "import time\nwhile time.process_time() < 0.1: pass\nprint('done', flush=True)\n"
        child = spin + "import sys; sys.stdin.read()"
        start = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        parent = [sys.executable, "-c", start + spin + "child.wait()"]
        with subprocess.Popen(parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert [process.stdout.readline(), process.stdout.readline()] == [b"done\n", b"done\n"]
            members = processes.tree(process.pid)
            assert len(members) == 2
            for member in members:
                assert processes.cpu_seconds(member) >= 0.1
            usage = processes.Usage(process.pid)
            usage.stop()
            assert usage.seconds < 0.1
            assert processes.memory_bytes(process.pid) > processes.memory_bytes(members[1])
            process.communicate(b"")
        with pytest.raises((processes.ProcessesChanged, OSError)):
            usage.stop()

    def test_a_later_process_with_the_same_id_is_another(self) -> None:
        assert processes.started(os.getpid()) == processes.started(os.getpid())
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            process.wait()
        assert processes.started(process.pid) is None

    def test_usage_counts_this_process(self) -> None:
        usage = processes.Usage(os.getpid())
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        usage.stop()
        assert 0.05 <= usage.seconds <= usage.wall + 1


class TestServers:
    def test_each_gets_application_port_and_certificate(self) -> None:
        for kind in SERVERS.values():
            plain = kind.arguments(Order("module:attribute", 4321))
            assert plain[0] == kind.packages[0]
            assert "module:attribute" in plain
            assert "4321" in " ".join(plain)
            secured = Order("module:attribute", 4321, certificate=Certificate("/chain", "/key", "/authority"))
            secure = " ".join(kind.arguments(secured))
            assert "/chain" in secure
            assert "/key" in secure

    def test_each_takes_a_unix_socket_instead_of_the_port(self) -> None:
        for kind in SERVERS.values():
            words = " ".join(kind.arguments(Order("module:attribute", 4321, "/run/test.sock")))
            assert "/run/test.sock" in words
            assert "4321" not in words

    def test_each_believes_forwarding_fields_when_it_is_asked_to(self) -> None:
        """By an option, or by a wrapper around the application."""
        for kind in SERVERS.values():
            assert kind.arguments(Order("a:b", 1)) != kind.arguments(Order("a:b", 1, proxied=True))

    def test_loads_have_columns_that_exist(self) -> None:
        for load in LOADS.values():
            assert set(load.metrics) <= set(METRICS)


class TestCommandLine:
    @pytest.mark.usefixtures("unchanged")
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--only", "nonsense"], "unknown: nonsense"),
            (["--servers", "nonsense"], "unknown: nonsense"),
            (["--rounds", "0"], "--rounds: 1 to 20"),
            (["--seconds", "0.1"], "--seconds: 0.5 to 60"),
            (["--connections", "0"], "--connections: 1 to 1000"),
            (["--also", "before=/no/such/folder"], "before=/no/such/folder: it has no package asgiserver"),
            (["--also", f"uvicorn={ROOT}"], "'uvicorn' is no new name"),
            (["--also", str(ROOT)], "is no new name"),
            (["--json", "no/such/folder/results.json"], "there is no folder for no/such/folder/results.json"),
            (["--from", "no-such-file"], "--from no-such-file: no results of --json: "),
            (["--from", __file__], "no results of --json: "),
        ],
    )
    def test_a_mistake_is_told(self, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(arguments)
        assert reason in capsys.readouterr().err

    @pytest.fixture
    def nothing_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
        """In which order what would be; the fifth is interrupted."""
        order: list[tuple[str, str, int]] = []

        def measure(load: str, servers: list[str], number: int, seconds: float, folder: Path) -> list[Record]:
            order.append((load, ",".join(servers), number))
            if len(order) == 5:
                raise KeyboardInterrupt
            return [Record(load, server, number, {"cpu": 10.0 + number}) for server in servers]

        monkeypatch.setattr(measuring, "measure", measure)
        return order

    ARGUMENTS = ("--only", "get,tls", "--servers", "asgiserver,uvicorn", "--seconds", "1")

    def test_a_round_has_all_loads(self, nothing_is_measured: list[tuple[str, str, int]]) -> None:
        assert main([*self.ARGUMENTS, "--rounds", "2"]) == 0
        assert nothing_is_measured == [
            (load, "asgiserver,uvicorn", number) for number in (1, 2) for load in ("get", "tls")
        ]

    @pytest.mark.usefixtures("nothing_is_measured")
    def test_results_can_be_read_again(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        results, chart = tmp_path / "results.json", tmp_path / "chart.svg"
        assert main([*self.ARGUMENTS, "--rounds", "1", "--json", str(results), "--svg", str(chart)]) == 0
        first, drawn = capsys.readouterr().out, chart.read_text("utf-8")
        assert main(["--from", str(results), "--svg", str(chart)]) == 0
        assert capsys.readouterr().out == first
        assert chart.read_text("utf-8") == drawn

    @pytest.fixture
    def unchanged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the options add and change is gone after the test."""
        monkeypatch.setitem(LOADS, "varied", LOADS["varied"])
        monkeypatch.setitem(SERVERS, "before", SERVERS["asgiserver"])
        del SERVERS["before"]

    @pytest.mark.usefixtures("nothing_is_measured")
    def test_each_group_has_an_overview(self, capsys: pytest.CaptureFixture[str]) -> None:
        servers = ["--servers", "asgiserver,gunicorn-wsgi"]
        assert main(["--only", "get,django", *servers, "--rounds", "1", "--seconds", "1"]) == 0
        out = capsys.readouterr().out
        assert "| | asgiserver |\n|---|---:|\n| the same GET" in out
        assert "| | asgiserver | gunicorn-wsgi |\n|---|---:|---:|\n| Django, sync view, µs" in out

    @pytest.mark.usefixtures("nothing_is_measured")
    @pytest.mark.parametrize(
        ("load", "written"),
        [
            ("django", [readme.README, readme.DETAILS]),
            ("get", [readme.DETAILS, readme.CHART]),
            ("varied", [readme.DETAILS, readme.CHART, readme.SHORT_CHART]),
        ],
    )
    def test_what_shows_a_load_is_written_again(
        self, load: str, written: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / readme.DETAILS).parent.mkdir(parents=True)
        files = [readme.README, readme.DETAILS, readme.CHART, readme.SHORT_CHART]
        before = {}
        for name in files:
            shutil.copy(ROOT / name, tmp_path / name)
            before[name] = (tmp_path / name).read_bytes()
        monkeypatch.setattr(command_line, "ROOT", tmp_path)
        assert main(["--only", load, "--servers", "asgiserver", "--rounds", "1", "--readme"]) == 0
        assert [name for name in files if (tmp_path / name).read_bytes() != before[name]] == written

    @pytest.mark.usefixtures("nothing_is_measured", "unchanged")
    def test_another_checkout_is_one_more_server(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Also when its results are read after it has gone."""
        results, package = tmp_path / "results.json", tmp_path / "asgiserver"
        package.mkdir()
        (package / "__main__.py").touch()
        options = ["--also", f"before={tmp_path}", "--connections", "128", "--json", str(results)]
        assert main(["--only", "varied", "--servers", "asgiserver", "--rounds", "1", *options]) == 0
        out = capsys.readouterr().out
        assert "| before | 11.0 |" in out
        assert "| | asgiserver / before |\n|---|---:|\n| GET, each different, 128 connections | 1.000 |" in out
        del SERVERS["before"]
        shutil.rmtree(package)
        assert main(["--from", str(results)]) == 0
        assert capsys.readouterr().out == out

    @pytest.mark.usefixtures("nothing_is_measured")
    def test_what_was_measured_before_an_interrupt_is_kept(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*self.ARGUMENTS, "--rounds", "3"]) == 0
        out, err = capsys.readouterr()
        assert "interrupted" in err
        assert "| asgiserver | 11.5 (1.00) |" in out

    @pytest.mark.usefixtures("nothing_is_measured")
    def test_it_says_on_what_it_ran(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(self.ARGUMENTS)
        out = capsys.readouterr().out
        assert f"{platform.python_implementation()} {platform.python_version()}" in out
        assert f"twisted {version('twisted')}" in out
        assert f"{os.cpu_count()} cores" in out

    def test_when_all_failed_so_does_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def measure(load: str, servers: list[str], number: int, seconds: float, folder: Path) -> list[Record]:
            return [Record(load, server, number, failure="it broke") for server in servers]

        monkeypatch.setattr(measuring, "measure", measure)
        assert main(self.ARGUMENTS) == 1
