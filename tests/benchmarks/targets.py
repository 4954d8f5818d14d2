"""What is to be reached, and whether it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .load import METRICS
from .loads import LOADS
from .report import Table
from .servers import SERVERS

__all__ = ["TARGETS", "Target", "verdicts"]


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio that is not to be exceeded.

    :param server: of ours.
    :param against: another server; :data:`ASGI` for the best peer that serves ASGI; empty for the best peer.
    """

    load: str
    limit: float
    server: str = "asgiserver"
    against: str = ""
    metric: str = ""


#: Stands for the best of the peers that serve a project by ASGI.
ASGI = "ASGI"

TARGETS = (
    Target("varied", 0.90), Target("varied", 0.75, against="uvicorn"),
    Target("varied", 0.50, "asgiserver-asyncio", "uvicorn-h11"),
    Target("page", 0.90), Target("page", 0.75, against="uvicorn"),
    Target("json", 0.90), Target("json", 0.75, against="uvicorn"),
    Target("one", 0.80), Target("unix", 0.90), Target("unix", 1.05, against="asgiserver-tcp"),
    Target("proxied", 0.95), Target("tls-varied", 0.90), Target("get", 0.85), Target("wait", 0.90),
    Target("post", 0.70), Target("upload", 0.70), Target("stream", 1.0), Target("file", 0.60), Target("tls", 0.90),
    Target("echo", 0.60), Target("ws-varied", 0.75), Target("large", 0.75), Target("broadcast", 1.0),
    Target("django", 0.12, against="daphne"), Target("django", 0.15, against=ASGI),
    Target("django", 0.60, against="gunicorn-wsgi"),
    Target("django-orm", 0.50, against=ASGI), Target("django-orm", 0.90, against="gunicorn-wsgi"),
    Target("django-login", 0.70, against=ASGI), Target("django-drf", 0.20, against=ASGI),
    Target("django-async", 0.35, against=ASGI),
    Target("django-file", 0.50, against=ASGI), Target("django-stream", 0.50, against=ASGI),
    Target("django-sleep", 1.0, against="gunicorn-wsgi"),
    Target("workers", 0.90), Target("workers-memory", 0.75, against="uvicorn"),
    Target("workers-memory", 0.85, against="gunicorn-preload"),
    Target("h2-varied", 0.85), Target("h2-one", 0.85), Target("h2-get", 0.60), Target("h2-get-one", 0.60),
    Target("h2-tls", 0.65), Target("h2-post", 0.75), Target("h2-stream", 0.70), Target("h2-idle", 0.5),
    Target("idle", 0.5), Target("idle-ws", 0.5), Target("start", 1.2), Target("start", 1.2, metric="memory"),
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
            pair = f"{target.server} / {_name(target)}"
            what = f"{LOADS[target.load].title}, {METRICS[metric].title}: {pair}"
            yield f"| {what} | {target.limit:.2f} | {'–' if ratio is None else f'{ratio:.2f}'} | {verdict} |"


def _name(target: Target) -> str:
    return "best ASGI peer" if target.against == ASGI else target.against or "best peer"


def reached(target: Target, table: Table) -> float | None:
    """The ratio that was measured; None when one of the two has no value."""
    metric = target.metric or LOADS[target.load].metrics[0]
    ours = table.row(target.server)
    if ours is None or metric not in ours.values:
        return None
    if not target.against:
        return ours.ratios.get(metric)
    if target.against == ASGI:
        kinds = [(row, SERVERS.get(row.server)) for row in table.rows]
        peers = [row.values.get(metric) for row, kind in kinds if kind and not kind.ours and not kind.wsgi]
        best = min((value for value in peers if value), default=None)
        return None if best is None else ours.values[metric] / best
    other = table.row(target.against)
    if other is None or not other.values.get(metric):
        return None
    return ours.values[metric] / other.values[metric]
