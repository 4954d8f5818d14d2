"""The text, read by the parser that Prometheus itself publishes."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgiserver.metrics.counts import COUNTERS, Counts
from asgiserver.metrics.exposition import exposition

from .board import Service


@pytest.fixture
def service() -> Service:
    made = Service()
    made.start()
    return made


def parsed(service: Service) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(exposition(service.reading))
    return {
        (sample.name.removeprefix("asgiserver_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_all_families_are_there_each_once_with_a_type_and_a_text(service: Service) -> None:
    counts = Counts()
    counts.request(("GET", 200, 0.1, 0, 0))
    service.count(0, counts)
    families = list(text_string_to_metric_families(exposition(service.reading)))
    kinds = {family.name.removeprefix("asgiserver_"): family.type for family in families}
    assert len(kinds) == len(families)
    assert all(family.documentation for family in families)
    assert {name for name, kind in kinds.items() if kind == "counter"} >= set(COUNTERS)
    assert {name for name, kind in kinds.items() if kind == "histogram"} == {
        "http_request_duration_seconds", "loop_delay_seconds",
    }  # fmt: skip
    assert {name for name, kind in kinds.items() if kind == "gauge"} >= {
        "build_info", "connections_active", "generation", "http_requests_in_flight", "listen_queue",
        "listen_queue_limit", "websockets_active", "worker_memory_bytes", "workers",
    }  # fmt: skip


def test_a_histogram_has_running_sums(service: Service) -> None:
    for number, seconds in enumerate((0.004, 0.2)):
        counts = Counts()
        counts.request(("PUT", 404, seconds, 1, 2))
        counts.request(("PUT", 404, 99.0, 1, 2))
        service.count(number, counts)
    found = parsed(service)
    labels = (("class", "4xx"), ("method", "PUT"))

    def bucket(bound: str) -> float:
        return found["http_request_duration_seconds_bucket", (labels[0], ("le", bound), labels[1])]

    assert [bucket(bound) for bound in ("0.005", "0.1", "0.25", "10.0", "+Inf")] == [1, 1, 2, 2, 4]
    assert found["http_request_duration_seconds_count", labels] == 4
    assert found["http_request_duration_seconds_sum", labels] == pytest.approx(198.204)
    assert found["http_request_bytes_total", ()] == 4
    assert found["http_response_bytes_total", ()] == 8


def test_the_gauges_are_those_of_the_workers_that_run(service: Service) -> None:
    service.count(0, Counts(), 2, 3, 0.5)
    service.count(1, Counts(), 1, 0, 0.0)
    found = parsed(service)
    names = "http_requests_in_flight", "websockets_active", "connections_active"
    assert [found[name, ()] for name in names] == [3, 3, 10]
    assert found["workers", (("state", "serving"),)] == 2
    assert found["workers", (("state", "silent"),)] == 0
    assert found["worker_memory_bytes", (("slot", "1"),)] == 4096
    assert found["generation", ()] == 3
    assert found["build_info", (("loop", "uvloop"), ("python", "3.11"), ("version", "1.2"))] == 1


def test_a_queue_that_is_not_known_is_left_out(service: Service) -> None:
    endpoint = (("endpoint", "http://[::1]:80"),)
    found = parsed(service)
    assert {key: value for key, value in found.items() if key[0].startswith("listen_queue")} == {
        ("listen_queue", endpoint): 2, ("listen_queue_limit", endpoint): 128,
    }  # fmt: skip
    service.board.own.gauges[3] = 7
    assert ("listen_queue_limit", (("endpoint", 'unix:/a"\\\n'),)) in parsed(service)


def test_a_dead_workers_counts_stay_and_its_gauges_go(service: Service) -> None:
    counts = Counts()
    counts.add("application_exceptions", "websocket")
    service.count(1, counts, 4)
    slot = service.board.slot(1)
    service.board.inherit(slot)
    slot.clear()
    found = parsed(service)
    assert found["application_exceptions_total", (("kind", "websocket"),)] == 1
    assert found["http_requests_in_flight", ()] == 0
    assert found["workers", (("state", "serving"),)] == 1
