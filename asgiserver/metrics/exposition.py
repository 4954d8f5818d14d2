"""The text that Prometheus reads, format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from .counts import CLASSES, COUNTERS, DELAYS, DURATIONS, METHODS, delays, durations, place
from .queues import overflows
from .reading import WORKER_STATES, Reading

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

#: A series: what stands behind the family's name, its labels, and its value.
_Sample = tuple[str, Mapping[str, object], float]


def exposition(reading: Reading) -> str:
    """All series, of the workers that there are and have been."""
    # First, as it brings the board up to date where nobody else does.
    workers = reading.workers()
    totals = reading.board.totals()
    lines = [*_durations(totals), *_delays(totals), *_counters(totals)]
    running: dict[str, list[float]] = {
        "http_requests_in_flight": [each.requests for each in workers],
        "connections_active": [each.connections for each in workers],
        "websockets_active": [each.websockets for each in workers],
    }
    for name, values in running.items():
        lines += _family(name, "gauge", _GAUGES[name], [("", {}, sum(values))])
    states = dict.fromkeys((*WORKER_STATES.values(), "silent"), 0)
    for each in workers:
        states[each.state] += 1
    lines += _family("workers", "gauge", "Workers.", [("", {"state": name}, n) for name, n in states.items()])
    memory = [("", {"slot": each.slot}, each.memory) for each in workers if each.memory is not None]
    lines += _family("worker_memory_bytes", "gauge", "Proportional share of the memory (PSS) of a worker.", memory)
    lines += [*_queues(reading), *_service(reading)]
    return "\n".join(lines) + "\n"


_GAUGES = {
    "http_requests_in_flight": "Requests that are not answered yet.",
    "connections_active": "Connections that are open.",
    "websockets_active": "WebSockets that are open, or whose handshake is not answered yet.",
}


def _durations(totals: Sequence[float]) -> Iterator[str]:
    samples: list[_Sample] = []
    for method in METHODS:
        for kind in CLASSES:
            found = totals[durations(method, kind)]
            if any(found):
                samples += _histogram(found, DURATIONS, {"method": method, "class": kind})
    text = "From the head of a request to the end of its response; 499 for a client that has left."
    return _family("http_request_duration_seconds", "histogram", text, samples)


def _delays(totals: Sequence[float]) -> Iterator[str]:
    text = "How late a timer of the event loop is, four times a second."
    return _family("loop_delay_seconds", "histogram", text, _histogram(totals[delays()], DELAYS, {}))


def _histogram(row: Sequence[float], bounds: Sequence[float], labels: Mapping[str, object]) -> list[_Sample]:
    """The series of a histogram, from a count for each bucket and the sum behind them."""
    *counts, total = row
    upper = [*map(repr, bounds), "+Inf"]
    running = list(accumulate(counts))
    buckets = [("_bucket", {**labels, "le": le}, count) for le, count in zip(upper, running, strict=True)]
    return [*buckets, ("_sum", labels, total), ("_count", labels, running[-1])]


def _counters(totals: Sequence[float]) -> Iterator[str]:
    for name, counter in COUNTERS.items():
        samples: list[_Sample] = [
            ("", {counter.label: value} if counter.label else {}, totals[place(name, value)])
            for value in counter.values
        ]
        yield from _family(f"{name}_total", "counter", counter.text, samples)


def _queues(reading: Reading) -> Iterator[str]:
    gauges = reading.board.own.gauges
    found = [(address, gauges[2 * at], gauges[2 * at + 1]) for at, address in enumerate(reading.facts.addresses)]
    # A limit of none: the system does not tell, as for unix sockets.
    known = [each for each in found if each[2]]
    waiting: list[_Sample] = [("", {"endpoint": address}, queue) for address, queue, _ in known]
    limits: list[_Sample] = [("", {"endpoint": address}, limit) for address, _, limit in known]
    yield from _family("listen_queue", "gauge", "Connections that wait to be accepted.", waiting)
    yield from _family("listen_queue_limit", "gauge", "Connections that may wait to be accepted.", limits)
    lost = overflows()
    text = "Connections that were lost as a queue was full, on any socket of the machine or container."
    yield from _family("listen_overflows_total", "counter", text, [] if lost is None else [("", {}, lost)])


def _service(reading: Reading) -> Iterator[str]:
    facts = reading.facts
    labels = {"version": facts.version, "python": facts.python, "loop": facts.loop}
    yield from _family("generation", "gauge", "Generation of the code that serves.", [("", {}, reading.generation)])
    yield from _family(
        "start_time_seconds", "gauge", "When the service was started, since the epoch.", [("", {}, facts.started)]
    )
    yield from _family("build_info", "gauge", "Versions.", [("", labels, 1)])


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> Iterator[str]:
    """The lines of a family; none without a sample."""
    samples = list(samples)
    if samples:
        yield f"# HELP asgiserver_{name} {text}"
        yield f"# TYPE asgiserver_{name} {kind}"
    for suffix, labels, value in samples:
        inner = ",".join(f'{key}="{str(each).translate(_ESCAPES)}"' for key, each in labels.items())
        yield f"asgiserver_{name}{suffix}{f'{{{inner}}}' if inner else ''} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
