"""The benchmarks still run: a tiny round of them on this server alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import require

from .server import DEADLINE, ROOT, environment

#: One server that is there wherever the tests are.
SERVER = "asgiserver-h11"


def run(loads: str, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The records and the printed report of half a second of ``loads``."""
    results, chart = folder / "results.json", folder / "chart.svg"
    command = [
        sys.executable, "-m", "tests.benchmarks", "--only", loads, "--servers", SERVER, "--rounds", "1",
        "--seconds", "0.5", "--json", str(results), "--svg", str(chart),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=3 * DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert chart.read_text("utf-8").startswith("<svg")
    return json.loads(results.read_text("utf-8"))["records"], done.stdout


def test_what_needs_no_other_program(tmp_path: Path) -> None:
    found, report = run("start,echo", tmp_path)
    assert [(record["load"], record["failure"]) for record in found] == [("start", ""), ("echo", "")], report
    start, echo = (record["values"] for record in found)
    assert 1 < start["first_answer"] < DEADLINE * 1e3
    assert start["memory"] > 10
    # What it costs, times how often it happened, is the time in which the server was busy.
    assert echo["cpu"] * echo["rate"] == pytest.approx(echo["busy"] * 1e6, rel=0.01)
    assert 0 < echo["p50"] <= echo["p99"]
    assert "| WebSocket echo, 32 B, µs per message |" in report


def test_what_wrk_does(tmp_path: Path) -> None:
    require("wrk")
    [record], report = run("get", tmp_path)
    assert not record["failure"], report
    assert record["values"]["cpu"] > 1
    assert record["values"]["rate"] > 100
    assert "asgiserver-h11 / uvicorn-h11 | 0.60 | – | unknown |" in report
