"""What is to be reached, and whether it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .loads import LOADS, METRICS
from .report import Table

__all__ = ["TARGETS", "Target", "verdicts"]


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio that is not to be exceeded.

    :param server: of ours.
    :param against: a peer, or empty for the best of all.
    """

    load: str
    limit: float
    server: str = "asgiserver"
    against: str = ""
    metric: str = ""


def _h11(load: str, limit: float) -> Target:
    return Target(load, limit, "asgiserver-h11", "uvicorn-h11")


TARGETS = (
    Target("get", 0.75), Target("browser", 0.75), _h11("get", 0.60), _h11("browser", 0.60),
    Target("wait", 0.95), Target("post", 0.95), Target("upload", 0.95), Target("stream", 0.95),
    _h11("wait", 0.80), _h11("post", 0.80), _h11("upload", 0.80), _h11("stream", 0.80),
    Target("echo", 0.75), Target("large", 1.0), Target("broadcast", 1.0), Target("tls", 1.2),
    Target("idle", 0.8), Target("idle-ws", 0.8), Target("start", 1.5), Target("start", 1.5, metric="memory"),
)  # fmt: skip


def verdicts(found: Sequence[Table]) -> str:
    """A table of the targets that these results can tell about."""
    lines = list(_lines(found))
    return "\n".join(["| target | limit | reached | |", "|---|---:|---:|---|", *lines]) if lines else ""


def _lines(found: Sequence[Table]) -> Iterator[str]:
    by_load = {table.load: table for table in found}
    for target in TARGETS:
        if target.load in by_load:
            metric = target.metric or LOADS[target.load].metrics[0]
            ratio = reached(target, by_load[target.load])
            verdict = "unknown" if ratio is None else "met" if ratio <= target.limit else "**missed**"
            pair = f"{target.server} / {target.against or 'best peer'}"
            what = f"{LOADS[target.load].title}, {METRICS[metric].title}: {pair}"
            yield f"| {what} | {target.limit:.2f} | {'–' if ratio is None else f'{ratio:.2f}'} | {verdict} |"


def reached(target: Target, table: Table) -> float | None:
    """The ratio that was measured; None when one of the two has no value."""
    metric = target.metric or LOADS[target.load].metrics[0]
    ours = table.row(target.server)
    if ours is None or metric not in ours.values:
        return None
    if not target.against:
        return ours.ratios.get(metric)
    other = table.row(target.against)
    if other is None or not other.values.get(metric):
        return None
    return ours.values[metric] / other.values[metric]
