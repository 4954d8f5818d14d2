"""Medians, ratios to the best peer, and the tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .load import METRICS, Load
from .loads import LOADS
from .measuring import Record
from .servers import SERVERS

__all__ = [
    "Row", "Table", "by_group", "checkouts", "environment", "failures", "label", "overview", "summary", "tables",
]  # fmt: skip

PACKAGES = (
    "asgiserver", "twisted", "autobahn", "h11", "httptools", "uvloop", "uvicorn", "websockets", "granian", "h2corn",
    "gunicorn", "gunicorn-h1c", "hypercorn", "daphne", "django", "djangorestframework", "channels",
)  # fmt: skip


def environment() -> dict[str, str]:
    """What it ran on."""
    found = {"cpu": _cpu(), "cores": str(os.cpu_count()), "system": f"{platform.system()} {platform.release()}"}
    found["python"] = f"{platform.python_implementation()} {platform.python_version()}"
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@dataclass(frozen=True, slots=True)
class Row:
    """A server under a load.

    :param values: the median of the rounds that succeeded.
    :param ratios: each value as a part of the best peer's; without those that no peer has.
    :param failure: the reason of the last round that failed.
    :param failed: how many rounds did.
    """

    server: str
    values: Mapping[str, float]
    ratios: Mapping[str, float]
    failure: str
    failed: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Table:
    load: str
    rows: Sequence[Row]

    def row(self, server: str) -> Row | None:
        return next((row for row in self.rows if row.server == server), None)


def summary(records: Sequence[Record]) -> list[Table]:
    """A table for each load, in the order in which they were measured."""
    return [_table(load, [record for record in records if record.load == load]) for load in _unique(records)]


def _unique(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record.load for record in records))


def _table(load: str, records: Sequence[Record]) -> Table:
    names = list(dict.fromkeys(record.server for record in records))
    values = {name: _medians(load, [record for record in records if record.server == name]) for name in names}
    best = {}
    for metric in LOADS[load].metrics:
        peers = [values[name][metric] for name in names if not SERVERS[name].ours and metric in values[name]]
        if peers:
            best[metric] = max(peers) if METRICS[metric].more_is_better else min(peers)
    rows = []
    for name in names:
        mine = [record for record in records if record.server == name]
        failures = [record.failure for record in mine if record.failure]
        ratios = {metric: value / best[metric] for metric, value in values[name].items() if best.get(metric)}
        rows.append(Row(name, values[name], ratios, failures[-1] if failures else "", len(failures), len(mine)))
    return Table(load, rows)


def _medians(load: str, records: Sequence[Record]) -> dict[str, float]:
    good = [record.values for record in records if not record.failure]
    return {
        metric: statistics.median(values[metric] for values in good)
        for metric in LOADS[load].metrics
        if good and all(metric in values for values in good)
    }


def by_group(found: Sequence[Table]) -> dict[str, list[Table]]:
    """The tables of each group of loads that was measured."""
    groups: dict[str, list[Table]] = {}
    for table in found:
        groups.setdefault(LOADS[table.load].group, []).append(table)
    return groups


def label(load: Load, metric: str) -> str:
    """The unit of ``metric``, with that of the load where it is told by that."""
    return METRICS[metric].unit + (f" per {load.unit}" if METRICS[metric].per_unit else "")


def number(value: float) -> str:
    """Three significant digits, with thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def tables(found: Sequence[Table]) -> str:
    """Each load's table in Markdown, with all that was measured."""
    return "\n\n".join("\n".join(_lines(table)) for table in found)


def _lines(table: Table) -> Iterator[str]:
    load = LOADS[table.load]
    yield f"### {load.title} (`{table.load}`), per {load.unit}"
    yield ""
    heads = [f"{METRICS[metric].title} {METRICS[metric].unit}" for metric in load.metrics]
    yield "| " + " | ".join(["server", *heads, ""]) + "|"
    yield "|---|" + "---:|" * len(heads) + "---|"
    for row in table.rows:
        cells = [_cell(row, metric) for metric in load.metrics]
        yield "| " + " | ".join([row.server, *cells, _note(row)]) + " |"


def _cell(row: Row, metric: str) -> str:
    if metric not in row.values:
        return "failed" if row.failed == row.rounds else "–"
    ratio = f" ({row.ratios[metric]:.2f})" if metric in row.ratios else ""
    return number(row.values[metric]) + ratio


def _note(row: Row) -> str:
    if not row.failed:
        return ""
    reason = row.failure.replace("|", "\\|")
    return f"failed: {reason}" if row.failed == row.rounds else f"{row.failed} of {row.rounds} rounds failed: {reason}"


def failures(found: Sequence[Table]) -> str:
    """The reasons of what the overview calls failed, as a list; empty when nothing is."""
    reasons = (
        f"- {LOADS[table.load].title}, {row.server}: {row.failure}"
        for table in found
        for row in table.rows
        if row.failed == row.rounds
    )
    return "\n".join(reasons)


def overview(found: Sequence[Table]) -> str:
    """One table of what the servers are compared by: loads down, servers across, the best of each in bold.

    A load that they are compared by in several ways has a row for each.
    Those that are there for one load are left out.
    """
    servers = [name for name, kind in SERVERS.items() if not kind.tcp_in and any(table.row(name) for table in found)]
    lines = ["| | " + " | ".join(servers) + " |", "|---|" + "---:|" * len(servers)]
    for table in found:
        load = LOADS[table.load]
        for metric in load.metrics[: load.compared]:
            what = f", {METRICS[metric].title}" if load.compared > 1 else ""
            cells = " | ".join(_compared(table, metric, servers))
            lines.append(f"| {load.title}{what}, {label(load, metric)} | {cells} |")
    return "\n".join(lines)


def _compared(table: Table, metric: str, servers: Sequence[str]) -> Iterator[str]:
    values = {row.server: row.values[metric] for row in table.rows if row.server in servers and metric in row.values}
    best = (max if METRICS[metric].more_is_better else min)(values.values(), default=None)
    for name in servers:
        text = number(values[name]) if name in values else "failed" if table.row(name) else "–"
        yield f"**{text}**" if name in values and values[name] == best else text


def checkouts(found: Sequence[Table]) -> str:
    """A table of what this checkout costs as a part of what others do; empty when no other was measured."""
    others = [name for name, kind in SERVERS.items() if kind.checkout and any(table.row(name) for table in found)]
    lines = ["| | " + " | ".join(f"asgiserver / {name}" for name in others) + " |", "|---|" + "---:|" * len(others)]
    for table in found:
        metric = LOADS[table.load].metrics[0]
        values = {row.server: row.values[metric] for row in table.rows if row.values.get(metric)}
        ours = values.get("asgiserver", 0.0)
        cells = [f"{ours / values[name]:.3f}" if ours and name in values else "–" for name in others]
        lines.append(f"| {LOADS[table.load].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if others else ""
