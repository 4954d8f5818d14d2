"""The chart: a panel of bars for each load, as SVG that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from .load import METRICS
from .loads import LOADS
from .report import Row, Table, label, number
from .servers import SERVERS

__all__ = ["svg"]

WIDTH = 960
COLUMNS = 3
GAP = 24
LABELS = 112
VALUES = 56
BAR = 13
HEAD = 40
#: A bar that is longer than this many times the best peer's is cut, so that the others can be told apart.
MOST = 4.0

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 12px } .unit { fill: #59636e; font-size: 10px }
.ours { fill: #1a7f37 } .peer { fill: #8c959f } .line { stroke: #59636e; stroke-dasharray: 2 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .unit { fill: #9198a1 }
  .ours { fill: #3fb950 } .peer { fill: #656c76 } .line { stroke: #9198a1 }
}
"""


def svg(tables: Sequence[Table]) -> str:
    """The whole document. Bars are ratios to the best peer, marked by a line; numbers are what was measured."""
    panel = (WIDTH - GAP * (COLUMNS - 1)) / COLUMNS
    parts: list[str] = []
    top = 0.0
    for start in range(0, len(tables), COLUMNS):
        row = tables[start : start + COLUMNS]
        for column, table in enumerate(row):
            left = column * (panel + GAP)
            parts += [f'<g transform="translate({left:.1f} {top:.1f})">', *_panel(table, panel), "</g>"]
        top += HEAD + max(len(table.rows) for table in row) * BAR + GAP
    size = f'width="{WIDTH}" height="{top:.0f}" viewBox="0 0 {WIDTH} {top:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, "<title>Costs of ASGI servers</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _panel(table: Table, width: float) -> Iterator[str]:
    load = LOADS[table.load]
    metric = load.metrics[0]
    longest = width - LABELS - VALUES
    scale = longest / max([1.0, *(min(row.ratios.get(metric, 1.0), MOST) for row in table.rows)])
    yield f'<text class="title" y="12">{escape(load.title)}</text>'
    yield f'<text class="unit" y="26">{escape(f"{METRICS[metric].title}, {label(load, metric)}")}</text>'
    if any(metric in row.ratios for row in table.rows):
        x, bottom = LABELS + scale, HEAD + len(table.rows) * BAR
        yield f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD - 4}" y2="{bottom}"/>'
    for position, row in enumerate(table.rows):
        yield from _bar(row, metric, HEAD + position * BAR, longest, scale)


def _bar(row: Row, metric: str, y: float, longest: float, scale: float) -> Iterator[str]:
    yield f'<text x="{LABELS - 6}" y="{y + 9:.1f}" text-anchor="end">{escape(row.server)}</text>'
    if metric not in row.values:
        yield f'<text class="unit" x="{LABELS + 4}" y="{y + 9:.1f}">failed</text>'
        return
    # Without a peer there is nothing to compare with: all bars are as long as the best would be.
    length = min(row.ratios.get(metric, 1.0) * scale, longest)
    cut = "…" if row.ratios.get(metric, 1.0) > MOST else ""
    kind = "ours" if SERVERS[row.server].ours else "peer"
    yield f'<rect class="{kind}" x="{LABELS}" y="{y:.1f}" width="{length:.1f}" height="{BAR - 3}" rx="1"/>'
    text = f"{cut}{number(row.values[metric])}"
    yield f'<text x="{LABELS + length + 4:.1f}" y="{y + 9:.1f}">{text}</text>'
