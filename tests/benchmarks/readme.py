"""The part of the README that is made from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .report import Table, failures, overview

__all__ = ["BEGIN", "CHART", "END", "with_results"]

BEGIN = "<!-- benchmarks: made by `python -m tests.benchmarks --readme` -->\n"
END = "<!-- benchmarks end -->\n"
#: Where the chart is, seen from the README.
CHART = "tests/benchmarks/chart.svg"


def ran_on(environment: Mapping[str, str]) -> str:
    """One sentence on the machine and the versions."""
    machine = ("cpu", "cores", "system", "python")
    versions = [f"{name} {value}" for name, value in environment.items() if name not in machine]
    cpu, cores, system, python = (environment[name] for name in machine)
    return f"{cpu}, {cores} cores, {system}, {python}; {', '.join(versions)}."


def with_results(text: str, tables: Sequence[Table], environment: Mapping[str, str]) -> str:
    """README's text with these results in place of the last ones.

    :raises ValueError: it has no place for them.
    """
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = [f"![What serving costs, in bars for each load and server]({CHART})", overview(tables)]
    if reasons := failures(tables):
        made.append(f"What failed:\n\n{reasons}")
    made.append(f"Measured on {ran_on(environment)}")
    return before + BEGIN + "\n" + "\n\n".join(made) + "\n\n" + END + after
