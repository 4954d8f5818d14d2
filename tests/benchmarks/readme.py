"""The parts of the README that are made from results: one for each group of loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .report import Table, by_group, failures, overview

__all__ = ["CHART", "MAIN", "MARKS", "ran_on", "with_results"]

#: The group of loads that the chart shows.
MAIN = "asgi"
#: Where the part of each group begins and ends.
MARKS = {
    MAIN: ("<!-- benchmarks: made by `python -m tests.benchmarks --readme` -->\n", "<!-- benchmarks end -->\n"),
    "django": (
        "<!-- benchmarks of Django: made by `python -m tests.benchmarks --readme` -->\n",
        "<!-- benchmarks of Django end -->\n",
    ),
    "http2": (
        "<!-- benchmarks of HTTP/2: made by `python -m tests.benchmarks --readme` -->\n",
        "<!-- benchmarks of HTTP/2 end -->\n",
    ),
}
#: Where the chart is, seen from the README.
CHART = "tests/benchmarks/chart.svg"


def ran_on(environment: Mapping[str, str]) -> str:
    """One sentence on the machine and the versions."""
    machine = ("cpu", "cores", "system", "python")
    versions = [f"{name} {value}" for name, value in environment.items() if name not in machine]
    cpu, cores, system, python = (environment[name] for name in machine)
    return f"{cpu}, {cores} cores, {system}, {python}; {', '.join(versions)}."


def with_results(text: str, tables: Sequence[Table], environment: Mapping[str, str]) -> str:
    """README's text with these results in place of the last ones; a group without any keeps what it has.

    :raises ValueError: it has no place for them.
    """
    for group, members in by_group(tables).items():
        if group not in MARKS:
            continue  # its results are printed alone
        begin, end = MARKS[group]
        before, rest = text.split(begin)
        _, after = rest.split(end)
        made = [f"![What serving costs, in bars for each load and server]({CHART})"] if group == MAIN else []
        made.append(overview(members))
        if reasons := failures(members):
            made.append(f"What failed:\n\n{reasons}")
        made.append(f"Measured on {ran_on(environment)}")
        text = before + begin + "\n" + "\n\n".join(made) + "\n\n" + end + after
    return text
