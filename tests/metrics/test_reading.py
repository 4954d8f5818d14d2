"""What is read from the board: health, readiness, and all that the page shows."""

from __future__ import annotations

import json
import time

import pytest

from asgiserver.metrics.counts import Counts
from asgiserver.workers.states import ServiceState, WorkerState

from .board import Service


@pytest.fixture
def service() -> Service:
    made = Service()
    made.start()
    return made


class TestHealth:
    def test_before_the_first_worker_serves_nothing_is_well(self) -> None:
        service = Service()
        assert not service.reading.alive()
        assert not service.reading.ready()
        assert (service.reading.state, service.reading.generation) == ("starting", 0)
        service.board.use(0).describe(1, 5, 1, WorkerState.STARTING.value)
        assert not service.reading.ready()

    def test_one_worker_that_serves_is_enough(self, service: Service) -> None:
        service.board.slot(0).describe(7, 100, 3, WorkerState.DRAINING.value)
        service.board.slot(1).describe(8, 101, 3, WorkerState.LEAVING.value)
        assert service.reading.alive()
        assert service.reading.ready()
        service.board.slot(1).describe(8, 101, 3, WorkerState.ENDING.value)
        assert not service.reading.alive()
        assert not service.reading.ready()

    def test_a_supervisor_that_is_silent_is_not_alive(self, service: Service) -> None:
        service.now += 9.5
        assert service.reading.alive()
        service.now += 1
        assert not service.reading.alive()

    def test_all_workers_silent_for_too_long(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        beaten = service.now
        monkeypatch.setattr("time.monotonic_ns", lambda: int(service.now * 1e9))
        for seconds, alive in ((59, True), (61, False)):
            service.now = beaten + seconds
            service.board.supervisor_beat()
            assert service.reading.alive() is alive
            assert service.reading.ready()
            assert [each.state for each in service.reading.workers()] == ["silent", "silent"]

    def test_a_service_that_stops_is_alive_and_not_ready(self, service: Service) -> None:
        service.board.describe(ServiceState.STOPPING.value, 3)
        assert service.reading.alive()
        assert not service.reading.ready()
        assert service.reading.state == "stopping"


class TestMemory:
    def test_it_is_asked_for_every_ten_seconds(self, service: Service) -> None:
        assert [each.memory for each in service.reading.workers()] == [4096, 4096]
        assert sorted(path.parent.name for path in service.sizes) == ["100", "101"]
        service.now += 9.9
        service.reading.workers()
        assert len(service.sizes) == 2
        service.now += 0.2
        service.reading.workers()
        assert len(service.sizes) == 4

    def test_many_are_not_asked_for_at_a_time(self, service: Service) -> None:
        def slow(path: object) -> int:
            service.now += 0.03
            return 1

        service.reading._memory = slow
        assert [each.memory for each in service.reading.workers()] == [1, None]
        assert [each.memory for each in service.reading.workers()] == [1, 1]


def test_what_the_page_shows(service: Service) -> None:
    counts = Counts()
    counts.request(("GET", 200, 0.001, 3, 4))
    counts.request(("BREW", 503, 0.3, 0, 0))
    counts.websocket("connected", None)
    counts.message_sent()
    counts.refused(431, stopping=False)
    slowest = [{"method": "GET", "path": "/a", "age": 2, "id": None}]
    service.count(0, counts, 1, 2, 0.25, slowest=slowest)
    service.count(1, counts, slowest=[{**slowest[0], "age": 3, "id": "x"}])
    shown = json.loads(json.dumps(service.reading.live()))
    assert shown["totals"] == {
        "requests": {"1xx": 0, "2xx": 2, "3xx": 0, "4xx": 0, "5xx": 2},
        "request_bytes": 6, "response_bytes": 8, "websockets": 2, "messages_in": 0, "messages_out": 2,
        "exceptions": 0, "rejected": 2,
    }  # fmt: skip
    assert len(shown["latency"]["counts"]) == len(shown["latency"]["bounds"]) + 1
    assert (shown["latency"]["counts"][0], sum(shown["latency"]["counts"])) == (2, 4)
    first = shown["workers"][0]
    assert first.pop("age") >= 0
    assert first == {
        "worker": 7, "pid": 100, "generation": 3, "state": "serving", "connections": 5, "websockets": 2,
        "requests": 1, "memory": 4096, "loop_delay": 0.25,
    }  # fmt: skip
    slow = [(each["worker"], each["id"], round(each["age"])) for each in shown["slowest"]]
    assert slow == [(8, "x", 3), (7, None, 2)]
    # A request may end at any time, but not while the loop is blocked.
    service.now += 10
    assert [round(each["age"]) for each in service.reading.live()["slowest"]] == [13, 12]
    service.board.slot(1).beat()
    service.now = time.monotonic()
    assert round(service.reading.live()["slowest"][0]["age"]) == 3
    assert (shown["state"], shown["generation"], shown["started"], shown["loop"]) == ("serving", 3, 5.0, "uvloop")


@pytest.mark.parametrize("text", [b"[{", b"\xff", b"7", b"[7]", b"[{}]", b'[{"age": "x"}]'])
def test_a_text_that_is_half_written_shows_nothing(service: Service, text: bytes) -> None:
    service.board.slot(0).text = text
    assert service.reading.live()["slowest"] == []
