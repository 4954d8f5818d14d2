"""``python -m tests.benchmarks``: measure what is installed, print tables, and draw the chart."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.server import ROOT

from .chart import svg
from .loads import LOADS, varied_over
from .measuring import Record, rounds
from .readme import CHART, DOCUMENTS, MAIN, SHORT, SHORT_CHART, ran_on, with_results
from .report import Table, by_group, checkouts, environment, number, overview, summary, tables
from .servers import SERVERS, other_checkout
from .targets import verdicts

__all__ = ["main"]

#: Open files that 2,000 connections and whatever else need.
MOST_FILES = 8192


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measures asgiserver beside the other ASGI servers that are installed.",
        epilog=f"Loads: {', '.join(LOADS)}. Servers: {', '.join(SERVERS)}.",
    )
    parser.add_argument("--only", metavar="LOAD[,LOAD]", help="only these loads")
    parser.add_argument("--servers", metavar="NAME[,NAME]", help="only these servers")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=PATH",
        help="one more server: asgiserver as it is in the checkout PATH, with uvloop, on the "
        "applications of this one; a change is measured by turns with what was before it; may be given several times",
    )
    parser.add_argument("--connections", type=int, metavar="N", help="of the load varied, 1 to 1000 (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="1 to 20; the median counts (default: 3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each server in a round, 0.5 to 60 (1.5)")
    parser.add_argument("--quick", action="store_true", help="one round of one second each: a look, not a result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all single measurements there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the chart there")
    parser.add_argument(
        "--readme", action="store_true",
        help=f"write the results into {' and '.join(DOCUMENTS)}, the charts to {CHART} and {SHORT_CHART}; a table "
        "of which nothing was measured stays",
    )
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="measure nothing: results of --json")
    return parser


def _prepared(parser: argparse.ArgumentParser, also: Sequence[str], connections: int | None) -> list[str]:
    """Change the load and add to the servers as the options say; the names of the new ones."""
    if connections is not None:
        if not 1 <= connections <= 1000:
            parser.error("--connections: 1 to 1000")
        LOADS["varied"] = varied_over(connections)
    names = []
    for given in also:
        name, _, folder = given.partition("=")
        try:
            SERVERS[name] = other_checkout(name, Path(folder))
        except ValueError as error:
            parser.error(f"--also {given}: {error}")
        names.append(name)
    return names


def _chosen(parser: argparse.ArgumentParser, given: str | None, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in given.split(",")] if given else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    return names


def _say(record: Record) -> None:
    values = "  ".join(f"{name} {number(value)}" for name, value in record.values.items())
    what = f"round {record.round}  {record.load:<13} {record.server:<15}"
    sys.stderr.write(f"{what} {f'failed: {record.failure}' if record.failure else values}\n")
    sys.stderr.flush()


def _measured(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    loads = _chosen(parser, options.only, list(LOADS))
    known = list(SERVERS)
    more = _prepared(parser, options.also, options.connections)
    for name in more:
        checkout = SERVERS[name].checkout
        if checkout and not (checkout / "asgiserver" / "__main__.py").is_file():
            parser.error(f"--also {name}={checkout}: it has no package asgiserver")
    servers = [*_chosen(parser, options.servers, known), *more]
    number_of_rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    if not 1 <= number_of_rounds <= 20:
        parser.error("--rounds: 1 to 20")
    if not 0.5 <= seconds <= 60:
        parser.error("--seconds: 0.5 to 60")
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error("what processes use is read from /proc, as Linux has it")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else MOST_FILES, most))
    load_before = os.getloadavg()[0]
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="asgiserver-benchmarks-") as folder:
        try:
            records.extend(rounds(loads, servers, number_of_rounds, seconds, Path(folder), _say))
        except KeyboardInterrupt:
            sys.stderr.write("interrupted: here is what was measured until now\n")
    return {
        "environment": environment(),
        "also": options.also,
        "connections": options.connections,
        "rounds": number_of_rounds,
        "seconds": seconds,
        "load_average_before": load_before,
        "records": records,
    }


def _read(parser: argparse.ArgumentParser, source: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(source.read_text("utf-8"))
        _prepared(parser, found.get("also", []), found.get("connections"))
        return {**found, "records": [Record(**record) for record in found["records"]]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        parser.error(f"--from {source}: no results of --json: {error}")


def _write(results: Sequence[Table], environment: Mapping[str, str]) -> None:
    """Write the documents and their charts."""
    main = by_group(results).get(MAIN, [])
    for path, shown in ((CHART, main), (SHORT_CHART, [table for table in main if table.load in SHORT[MAIN]])):
        if shown:
            (ROOT / path).write_text(svg(shown), "utf-8")
    for name in DOCUMENTS:
        document = ROOT / name
        document.write_text(with_results(name, document.read_text("utf-8"), results, environment), "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when something was measured, 1 when everything failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # Said now, not after three quarters of an hour.
    for path in (options.json, options.svg):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    found = _read(parser, options.source) if options.source else _measured(parser, options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=Record.as_json) + "\n", "utf-8")
    results = summary(found["records"])
    ran = f"{found['rounds']} round(s) of {found['seconds']:g} s, load before: {found['load_average_before']:.2f}"
    groups = by_group(results)
    compared = [*map(overview, groups.values()), verdicts(results), checkouts(results)]
    parts = [tables(results), *compared, ran_on(found["environment"]), ran]
    sys.stdout.write("\n\n".join(part for part in parts if part) + "\n")
    if options.svg:
        options.svg.write_text(svg(results), "utf-8")
    if options.readme:
        _write(results, found["environment"])
    return 0 if any(row.values for table in results for row in table.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
