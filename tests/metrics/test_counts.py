"""What is counted, and where."""

from __future__ import annotations

import pytest

from asgiserver.metrics.counts import (
    CLASSES,
    COUNTERS,
    DELAYS,
    DURATIONS,
    METHODS,
    Counts,
    delays,
    durations,
    place,
)
from asgiserver.workers.board import COUNTS


def series(counts: Counts) -> dict[tuple[str, str], float]:
    """The counters that are not 0."""
    found = {(name, value): counts.values[place(name, value)] for name in COUNTERS for value in COUNTERS[name].values}
    return {key: value for key, value in found.items() if value}


def test_each_series_has_its_own_place_on_the_board() -> None:
    places = [place(name, value) for name, counter in COUNTERS.items() for value in counter.values]
    for method in METHODS:
        for kind in CLASSES:
            places += range(*durations(method, kind).indices(COUNTS))
    places += range(*delays().indices(COUNTS))
    assert sorted(places) == list(range(len(Counts().values)))
    assert len(places) <= COUNTS


@pytest.mark.parametrize(
    ("method", "status", "row"),
    [
        ("GET", 200, ("GET", "2xx")),
        ("POST", 399, ("POST", "3xx")),
        ("HEAD", 499, ("HEAD", "4xx")),
        ("GET", 500, ("GET", "5xx")),
        ("GET", 999, ("GET", "5xx")),
        ("BREW", 404, ("other", "4xx")),
        ("get", 204, ("other", "2xx")),
        ("other", 204, ("other", "2xx")),
    ],
)
def test_a_request_is_counted_by_method_and_class(method: str, status: int, row: tuple[str, str]) -> None:
    counts = Counts()
    counts.request((method, status, 0.3, 5, 7))
    assert not any(counts.values)
    counts.settle()
    found = counts.values[durations(*row)]
    assert found == [1.0 if at == DURATIONS.index(0.5) else 0.0 for at in range(len(DURATIONS) + 1)] + [0.3]
    assert sum(counts.values) == 1.3 + 5 + 7
    assert series(counts) == {("http_request_bytes", ""): 5, ("http_response_bytes", ""): 7}


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.005, 0), (0.0051, 1), (10.0, 13), (10.1, 14)])
def test_a_bound_belongs_to_its_bucket(seconds: float, bucket: int) -> None:
    counts = Counts()
    counts.request(("GET", 200, seconds, 0, 0))
    counts.settle()
    assert counts.values[durations("GET", "2xx")][bucket] == 1.0


def test_a_delay_of_the_loop() -> None:
    counts = Counts()
    counts.loop_delay(0.0)
    counts.loop_delay(99.0)
    found = counts.values[delays()]
    assert (found[0], found[len(DELAYS)], found[-1], sum(found)) == (1.0, 1.0, 99.0, 101.0)


def test_a_websocket_and_its_messages() -> None:
    counts = Counts()
    for action, code in (("connecting", None), ("connected", None), ("rejected", None)):
        counts.websocket(action, code)
    for code in (1000, 1015, 999, 4321, None):
        counts.websocket("disconnected", code)
    counts.message_received()
    counts.message_received()
    counts.message_sent()
    assert series(counts) == {
        ("websockets", "accepted"): 1,
        ("websockets", "rejected"): 1,
        ("websocket_close", "1000"): 1,
        ("websocket_close", "1015"): 1,
        ("websocket_close", "other"): 3,
        ("websocket_messages", "in"): 2,
        ("websocket_messages", "out"): 1,
    }


@pytest.mark.parametrize(
    ("status", "stopping", "reason"),
    [
        (431, False, "head"), (414, False, "target"), (413, False, "body"), (408, True, "timeout"),
        (503, False, "concurrency"), (503, True, "stopping"), (400, False, "bad_request"), (505, False, "bad_request"),
        (308, False, None),
    ],
)  # fmt: skip
def test_what_is_refused_has_a_reason(status: int, stopping: bool, reason: str | None) -> None:
    counts = Counts()
    counts.refused(status, stopping=stopping)
    assert series(counts) == ({} if reason is None else {("rejected", reason): 1})


def test_what_is_not_counted_has_no_place() -> None:
    with pytest.raises(KeyError):
        place("nonsense")
    with pytest.raises(ValueError, match="not in tuple"):
        place("rejected", "nonsense")
