"""The parts of two documents that are made from results: this folder's README.md has all, the project's has few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .report import Table, by_group, failures, overview

__all__ = ["CHART", "DETAILS", "DOCUMENTS", "MAIN", "MARKS", "README", "SHORT", "SHORT_CHART", "ran_on", "with_results"]

#: The group of loads that the charts show.
MAIN = "asgi"
README = "README.md"
DETAILS = "tests/benchmarks/README.md"
DOCUMENTS = (README, DETAILS)
#: The loads that README.md shows, of each group.
SHORT = {
    MAIN: ("varied", "page", "ws-varied"),
    "django": ("django", "django-orm", "django-async", "django-file"),
}
_DJANGO = (
    "<!-- benchmarks of Django: made by `python -m tests.benchmarks --readme` -->\n",
    "<!-- benchmarks of Django end -->\n",
)
#: Where the part of each group begins and ends. Of the main group, README.md shows the chart alone.
MARKS = {
    README: {"django": _DJANGO},
    DETAILS: {
        MAIN: ("<!-- benchmarks: made by `python -m tests.benchmarks --readme` -->\n", "<!-- benchmarks end -->\n"),
        "django": _DJANGO,
        "http2": (
            "<!-- benchmarks of HTTP/2: made by `python -m tests.benchmarks --readme` -->\n",
            "<!-- benchmarks of HTTP/2 end -->\n",
        ),
    },
}
#: The charts of the main group: of all its loads, and of those that README.md shows.
CHART = "tests/benchmarks/chart.svg"
SHORT_CHART = "tests/benchmarks/varied.svg"


def ran_on(environment: Mapping[str, str]) -> str:
    """One sentence on the machine and the versions."""
    machine = ("cpu", "cores", "system", "python")
    versions = [f"{name} {value}" for name, value in environment.items() if name not in machine]
    cpu, cores, system, python = (environment[name] for name in machine)
    return f"{cpu}, {cores} cores, {system}, {python}; {', '.join(versions)}."


def with_results(document: str, text: str, tables: Sequence[Table], environment: Mapping[str, str]) -> str:
    """A document's text with these results in place of the last ones; a group without any keeps what it has.

    :param document: one of ``DOCUMENTS``.
    :raises ValueError: it has no place for them.
    """
    for group, members in by_group(tables).items():
        if document == README:
            members = [table for table in members if table.load in SHORT.get(group, ())]
        if group not in MARKS[document] or not members:
            continue  # its results are printed alone
        begin, end = MARKS[document][group]
        before, rest = text.split(begin)
        _, after = rest.split(end)
        made = [overview(members)]
        if reasons := failures(members):
            made.append(f"What failed:\n\n{reasons}")
        if document == DETAILS:
            made.append(f"Measured on {ran_on(environment)}")
        text = before + begin + "\n" + "\n\n".join(made) + "\n\n" + end + after
    return text
