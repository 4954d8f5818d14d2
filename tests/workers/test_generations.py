"""The supervisor's decisions, on a clock of the tests' own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiserver.settings import Settings
from asgiserver.workers.generations import Generations
from asgiserver.workers.states import Generation, GenerationEvent, GenerationState, Worker, WorkerEvent, WorkerState


class FakeHands:
    """Remembers what it is told, as pairs of a verb and the number of a worker or generation."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.status: int | None = None
        self.text = ""

    def spawn(self, generation: Generation) -> None:
        self.said.append(("spawn", generation.number))

    def fork(self, worker: Worker) -> None:
        assert worker.generation.alive
        self.said.append(("fork", worker.number))

    def drain(self, worker: Worker) -> None:
        self.said.append(("drain", worker.number))

    def stop(self, worker: Worker, quick: bool) -> None:
        self.said.append(("stop", worker.number, quick))

    def dump(self, worker: Worker) -> None:
        self.said.append(("dump", worker.number))

    def kill(self, worker: Worker) -> None:
        self.said.append(("kill", worker.number))

    def retire(self, generation: Generation, quick: bool) -> None:
        assert generation.alive
        self.said.append(("retire", generation.number, quick))

    def began(self) -> None:
        self.said.append(("began",))

    def done(self, failed: bool) -> None:
        self.said.append(("failed",) if failed else ("done",))

    def leaving(self, delay: float) -> None:
        self.said.append(("leaving", delay))

    def stopping(self) -> None:
        self.said.append(("stopping",))

    def end(self, status: int) -> None:
        self.status = status

    def explain(self, text: str) -> None:
        self.text += text

    def take(self) -> list[tuple[Any, ...]]:
        """What was said since the last time."""
        said, self.said = self.said, []
        return said


class Service:
    """Generations with what a test does to them, at a time of its own."""

    def __init__(self, size: int = 2, **values: Any) -> None:
        self.hands = FakeHands()
        self.generations = Generations(self.hands, Settings(**values), size)
        self.now = 1000.0

    def at(self, seconds: float) -> None:
        self.now += seconds
        self.generations.tick(self.now)

    def reload(self) -> None:
        self.generations.reload(self.now)

    def nursery(self, event: GenerationEvent, generation: Generation | None = None, **more: Any) -> None:
        found = generation or self.generations.coming or self.generations.current
        assert found is not None
        self.generations.nursery(event, found, self.now, **more)

    def worker(self, event: WorkerEvent, number: int, **more: Any) -> None:
        worker = next(each for each in self.generations.workers if each.number == number)
        self.generations.worker(event, worker, self.now, **more)

    def states(self) -> dict[int, WorkerState]:
        return {worker.number: worker.state for worker in self.generations.workers}

    def start(self) -> None:
        """Until the first generation, or the next one, serves."""
        self.reload()
        self.nursery(GenerationEvent.LOADED)
        while (coming := self.generations.coming) is not None:
            for worker in coming.those(WorkerState.STARTING):
                self.worker(WorkerEvent.READY, worker.number)

    def taken(self) -> list[tuple[Any, ...]]:
        return self.hands.take()


@pytest.fixture
def service() -> Service:
    """Two workers that have served for a while."""
    made = Service()
    made.start()
    made.at(10)
    made.taken()
    return made


class TestStarting:
    def test_one_worker_is_tried_before_the_others(self) -> None:
        service = Service(size=3)
        service.reload()
        assert service.taken() == [("spawn", 1)]
        service.nursery(GenerationEvent.LOADED)
        assert service.taken() == [("fork", 1)]
        service.worker(WorkerEvent.READY, 1)
        assert service.taken() == [("fork", 2), ("fork", 3)]
        service.worker(WorkerEvent.READY, 3)
        assert service.taken() == []
        service.worker(WorkerEvent.READY, 2)
        assert service.taken() == [("done",)]

    @pytest.mark.parametrize("status", [1, 2, 3])
    def test_an_application_that_cannot_be_imported_ends_the_service_with_its_status(self, status: int) -> None:
        service = Service()
        service.reload()
        service.nursery(GenerationEvent.FAILED, text="why\n", status=status)
        assert service.hands.status is None
        service.nursery(GenerationEvent.GONE, service.generations.retired[0])
        assert (service.hands.status, service.hands.text) == (status, "why\n")

    def test_a_first_worker_that_cannot_start_ends_the_service_with_its_status(self) -> None:
        service = Service()
        service.reload()
        service.nursery(GenerationEvent.LOADED)
        service.worker(WorkerEvent.FAILED, 1, text="why\n", status=3)
        service.worker(WorkerEvent.GONE, 1)
        service.nursery(GenerationEvent.GONE, service.generations.retired[0])
        assert (service.hands.status, service.hands.text) == (3, "why\n")

    @pytest.mark.parametrize("loaded", [False, True], ids=["import", "worker"])
    def test_takes_no_longer_than_it_may(self, loaded: bool) -> None:
        service = Service(worker_start_timeout=5)
        service.reload()
        if loaded:
            service.nursery(GenerationEvent.LOADED)
        service.at(4.9)
        assert service.hands.text == ""
        service.at(0.2)
        assert "5 s (worker_start_timeout)" in service.hands.text
        assert (("kill", 1) if loaded else ("retire", 1, True)) in service.taken()


class TestReloading:
    def test_the_old_workers_are_drained_once_all_new_ones_serve(self, service: Service) -> None:
        service.reload()
        assert service.taken() == [("began",), ("spawn", 2)]
        service.nursery(GenerationEvent.LOADED)
        service.worker(WorkerEvent.READY, 3)
        assert service.taken() == [("fork", 3), ("fork", 4)]
        service.worker(WorkerEvent.READY, 4)
        assert service.taken() == [("retire", 1, False), ("drain", 1), ("drain", 2), ("done",)]

    @pytest.mark.parametrize("event", [GenerationEvent.FAILED, GenerationEvent.GONE])
    def test_code_that_cannot_be_imported_changes_nothing(
        self, service: Service, event: GenerationEvent, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.reload()
        service.nursery(event, text="SyntaxError: no")
        assert ("failed",) in service.taken()
        assert service.states() == {1: WorkerState.SERVING, 2: WorkerState.SERVING}
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert record.getMessage().endswith("\nSyntaxError: no")

    @pytest.mark.parametrize("event", [WorkerEvent.FAILED, WorkerEvent.GONE])
    @pytest.mark.parametrize("late", [False, True], ids=["canary", "another"])
    def test_a_worker_that_cannot_start_changes_nothing(
        self, service: Service, event: WorkerEvent, late: bool
    ) -> None:
        service.reload()
        service.nursery(GenerationEvent.LOADED)
        if late:
            service.worker(WorkerEvent.READY, 3)
        service.taken()
        service.worker(event, 4 if late else 3, text="no")
        said = service.taken()
        assert ("retire", 2, False) in said
        assert ("failed",) in said
        assert (("drain", 3) in said) == late
        assert [service.states()[number] for number in (1, 2)] == [WorkerState.SERVING] * 2

    def test_a_second_one_begins_again(self, service: Service) -> None:
        service.reload()
        service.reload()
        assert service.taken() == [("began",), ("spawn", 2), ("retire", 2, True), ("spawn", 3)]
        # What the first one has said before it was ended.
        service.nursery(GenerationEvent.LOADED, service.generations.retired[0])
        assert service.taken() == []

    def test_is_over_when_the_service_ends(self, service: Service) -> None:
        service.generations.stop(15, service.now)
        service.taken()
        service.reload()
        assert service.taken() == []


class TestReplacingTheCode:
    """With ``reload``."""

    @pytest.fixture
    def service(self) -> Service:
        made = Service(size=1, reload=True, worker_start_timeout=None)
        made.start()
        made.at(10)
        assert made.taken() == [("spawn", 1), ("fork", 1), ("done",)]
        return made

    def test_a_successor_is_forked_while_the_old_worker_drains(self, service: Service) -> None:
        service.reload()
        assert service.taken() == [("began",), ("drain", 1), ("fork", 2)]
        assert service.generations.reloading
        service.worker(WorkerEvent.READY, 2)
        assert service.taken() == [("done",)]
        assert not service.generations.reloading
        service.worker(WorkerEvent.GONE, 1)
        assert service.taken() == []
        assert service.states() == {2: WorkerState.SERVING}

    def test_a_worker_that_dies_is_replaced_without_a_reload(self, service: Service) -> None:
        service.worker(WorkerEvent.GONE, 1, text="it was ended by SIGKILL")
        service.worker(WorkerEvent.READY, 2)
        assert service.taken() == [("fork", 2)]

    def test_one_that_imports_code_of_before_is_killed(self, service: Service) -> None:
        service.reload()
        service.taken()
        service.reload()
        assert service.taken() == [("kill", 2), ("stop", 2, True), ("fork", 3)]
        service.worker(WorkerEvent.GONE, 2)
        service.worker(WorkerEvent.READY, 3)
        assert service.generations.serving == 1

    @pytest.mark.parametrize("event", [WorkerEvent.FAILED, WorkerEvent.GONE])
    @pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
    def test_code_that_cannot_start_is_told_by_a_page(
        self, event: WorkerEvent, first: bool, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        if first:
            service = Service(size=1, reload=True)
            service.reload()
            service.nursery(GenerationEvent.LOADED)
        else:
            service.reload()
        broken = max(service.states())
        service.taken()
        service.worker(event, broken, text="SyntaxError: no")
        assert service.taken() == [("fork", broken + 1)]
        page = next(each for each in service.generations.workers if each.number == broken + 1)
        assert page.failure == "SyntaxError: no"
        assert caplog.records[-1].getMessage().endswith("\nSyntaxError: no")
        service.worker(WorkerEvent.READY, page.number)
        # The first code of all is no reload that could fail.
        assert service.taken() == [("done",) if first else ("failed",)]
        # The next change cures it.
        service.reload()
        assert service.taken() == [("began",), ("drain", page.number), ("fork", page.number + 1)]
        assert [each.failure for each in service.generations.workers if each.number > page.number] == [""]

    def test_a_page_that_cannot_start_is_tried_again_after_a_pause(self, service: Service) -> None:
        service.reload()
        for number in (2, 3):
            service.worker(WorkerEvent.FAILED, number, text="no")
        assert service.taken() == [("began",), ("drain", 1), ("fork", 2), ("fork", 3)]
        service.at(0.2)
        assert service.taken() == [("fork", 4)]

    def test_changes_before_the_import_change_nothing(self) -> None:
        service = Service(size=1, reload=True)
        service.reload()
        service.taken()
        service.reload()
        assert service.taken() == []

    def test_a_change_of_the_first_code_that_is_imported_is_seen(self) -> None:
        service = Service(size=1, reload=True)
        service.reload()
        service.nursery(GenerationEvent.LOADED)
        service.taken()
        service.reload()
        assert service.taken() == [("kill", 1), ("stop", 1, True), ("fork", 2)]
        service.worker(WorkerEvent.GONE, 1)
        service.worker(WorkerEvent.READY, 2)
        assert service.taken() == [("done",)]

    def test_another_nursery_takes_the_place_of_one_that_has_died(self, service: Service) -> None:
        service.nursery(GenerationEvent.GONE)
        service.reload()
        assert service.taken() == [("spawn", 2), ("began",)]
        service.nursery(GenerationEvent.LOADED)
        service.worker(WorkerEvent.READY, 2)
        assert service.taken() == [("fork", 2), ("drain", 1), ("done",)]

    def test_a_dead_nursery_forks_no_page(self, service: Service) -> None:
        service.reload()
        service.nursery(GenerationEvent.GONE)
        service.taken()
        service.worker(WorkerEvent.FAILED, 2, text="no")
        assert service.taken() == []

    def test_nobody_waits_for_an_import_when_the_service_ends(self, service: Service) -> None:
        service.reload()
        service.taken()
        service.generations.stop(2, service.now)
        assert service.taken() == [("stopping",), ("retire", 1, False), ("stop", 1, False), ("kill", 2),
                                   ("stop", 2, False)]  # fmt: skip

    def test_is_never_without_hope(self, service: Service) -> None:
        """An import may take any time, and stand in a debugger."""
        service.reload()
        service.at(3600)
        assert service.hands.status is None
        assert service.states()[2] is WorkerState.STARTING


class TestDying:
    def test_a_worker_is_replaced_at_once(self, service: Service) -> None:
        service.worker(WorkerEvent.GONE, 1)
        assert service.taken() == [("fork", 3)]

    def test_in_a_series_the_pauses_grow_and_have_a_limit(self, service: Service) -> None:
        pauses = []
        for _ in range(12):
            number = max(service.states())
            service.worker(WorkerEvent.READY, number) if service.states()[number] is WorkerState.STARTING else None
            service.worker(WorkerEvent.GONE, number)
            if service.taken():
                continue
            due = service.generations.due(service.now)
            assert due is not None
            pauses.append(round(due - service.now, 3))
            service.at(pauses[-1] + 0.001)
            assert service.taken() == [("fork", number + 1)]
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]

    def test_a_series_is_over_when_one_has_served_for_a_while(self, service: Service) -> None:
        service.worker(WorkerEvent.GONE, 1)
        service.worker(WorkerEvent.READY, 3)
        service.worker(WorkerEvent.GONE, 3)
        service.at(0.2)
        service.worker(WorkerEvent.READY, 4)
        service.at(2)
        service.taken()
        service.worker(WorkerEvent.GONE, 4)
        assert service.taken() == [("fork", 5)]

    def test_a_service_that_nobody_gives_any_more_ends(self, service: Service) -> None:
        for number in (1, 2):
            service.worker(WorkerEvent.GONE, number)
        for _ in range(12):
            for number, state in service.states().items():
                if state is WorkerState.STARTING:
                    service.worker(WorkerEvent.FAILED, number, text="no")
                    service.worker(WorkerEvent.GONE, number)
            service.at(10)
        assert ("stopping",) in service.taken()
        # Nothing is due that was due before, or the supervisor would not rest until the end.
        due = service.generations.due(service.now)
        assert due is None or due > service.now

    def test_a_nursery_is_replaced_by_a_new_generation(self, service: Service) -> None:
        service.nursery(GenerationEvent.GONE)
        assert service.taken() == [("spawn", 2)]
        service.worker(WorkerEvent.GONE, 1)
        assert service.taken() == []
        service.nursery(GenerationEvent.LOADED)
        for number in (3, 4):
            service.worker(WorkerEvent.READY, number)
        # The nursery is gone, so only the worker is told.
        assert service.taken() == [("fork", 3), ("fork", 4), ("drain", 2), ("done",)]

    def test_a_nursery_that_cannot_be_replaced_is_tried_again_later(self, service: Service) -> None:
        service.nursery(GenerationEvent.GONE)
        service.nursery(GenerationEvent.FAILED, text="no")
        assert service.taken() == [("spawn", 2), ("retire", 2, True), ("failed",)]
        service.at(0.2)
        assert service.taken() == [("spawn", 3)]

    def test_a_blocked_worker_writes_where_it_is_and_is_killed(self, service: Service) -> None:
        service.worker(WorkerEvent.SILENT, 1, text="60 s")
        assert service.taken() == [("dump", 1), ("fork", 3)]
        service.at(0.9)
        assert service.taken() == []
        service.at(0.2)
        assert service.taken() == [("kill", 1)]


class TestLeaving:
    def test_the_successor_serves_before_the_worker_is_drained(self, service: Service) -> None:
        service.worker(WorkerEvent.LEAVING, 1)
        assert service.taken() == [("fork", 3)]
        service.worker(WorkerEvent.READY, 3)
        assert service.taken() == [("drain", 1)]

    def test_is_done_by_one_at_a_time(self, service: Service) -> None:
        for number in (1, 2):
            service.worker(WorkerEvent.LEAVING, number)
        assert service.taken() == [("fork", 3)]
        service.worker(WorkerEvent.READY, 3)
        assert service.taken() == [("drain", 1), ("fork", 4)]
        service.worker(WorkerEvent.READY, 4)
        assert service.taken() == [("drain", 2)]

    def test_a_drain_has_its_time(self, service: Service) -> None:
        # drain_timeout, drain_spread, graceful_timeout, lifespan_shutdown_timeout, exit_timeout, and five seconds.
        service.reload()
        service.nursery(GenerationEvent.LOADED)
        for number in (3, 4):
            service.worker(WorkerEvent.READY, number)
        service.taken()
        service.at(74)
        assert service.taken() == []
        service.at(2)
        assert service.taken() == [("kill", 1), ("kill", 2)]

    @pytest.mark.parametrize(("status", "said"), [(0, 0), (-11, 1)])
    def test_one_that_dies_meanwhile_is_an_error(
        self, service: Service, caplog: pytest.LogCaptureFixture, status: int, said: int
    ) -> None:
        service.generations.resize(-1, service.now)
        worker = next(each for each in service.generations.workers if each.number == 2)
        service.worker(WorkerEvent.GONE, 2, text="it was ended by SIGSEGV", status=status)
        assert worker.why == ("died" if said else "asked")
        assert [record.levelname for record in caplog.records].count("ERROR") == said

    def test_a_drain_without_a_limit_is_not_ended(self) -> None:
        service = Service(size=1, drain_timeout=None)
        service.start()
        service.worker(WorkerEvent.LEAVING, 1)
        service.worker(WorkerEvent.READY, 2)
        service.taken()
        service.at(1e6)
        assert service.taken() == []


class TestResizing:
    def test_more_and_fewer(self, service: Service) -> None:
        service.generations.resize(1, service.now)
        assert service.taken() == [("fork", 3)]
        service.worker(WorkerEvent.READY, 3)
        service.generations.resize(-1, service.now)
        assert service.taken() == [("drain", 3)]

    def test_never_ends_the_last_one(self, service: Service) -> None:
        for _ in range(5):
            service.generations.resize(-1, service.now)
        assert service.taken() == [("drain", 2)]

    def test_holds_for_the_next_generation(self, service: Service) -> None:
        service.generations.resize(-1, service.now)
        service.reload()
        service.nursery(GenerationEvent.LOADED)
        service.worker(WorkerEvent.READY, 3)
        assert service.taken()[-1] == ("done",)


class TestStopping:
    def test_everybody_is_told_and_waited_for(self, service: Service) -> None:
        service.generations.stop(15, service.now)
        assert service.taken() == [("stopping",), ("retire", 1, False), ("stop", 1, False), ("stop", 2, False)]
        for number in (1, 2):
            service.worker(WorkerEvent.GONE, number)
        assert service.hands.status is None
        service.nursery(GenerationEvent.GONE, service.generations.retired[0])
        assert service.hands.status == 0

    def test_a_second_signal_within_a_second_is_the_same(self, service: Service) -> None:
        service.generations.stop(15, service.now)
        service.taken()
        service.generations.stop(15, service.now + 0.9)
        assert (service.taken(), service.hands.status) == ([], None)

    def test_a_later_one_ends_everything_at_once(self, service: Service) -> None:
        service.generations.stop(15, service.now)
        service.taken()
        service.generations.stop(15, service.now + 1)
        assert (service.taken(), service.hands.status) == ([("retire", 1, True), ("kill", 1), ("kill", 2)], 143)

    def test_one_for_more_haste_is_passed_on(self, service: Service) -> None:
        service.generations.stop(15, service.now)
        service.taken()
        service.generations.stop(3, service.now + 5, quick=True)
        assert (service.taken(), service.hands.status) == ([("stop", 1, True), ("stop", 2, True)], None)

    def test_one_that_does_not_end_in_time_is_killed(self, service: Service) -> None:
        service.generations.stop(15, service.now)
        service.taken()
        service.at(36)
        assert service.taken() == [("kill", 1), ("kill", 2)]


#: What becomes of a worker; "gone" when it is forgotten, None for a pair that cannot be.
S = WorkerState
WORKERS: dict[WorkerState, dict[WorkerEvent, WorkerState | str | None]] = {
    S.STARTING: dict(zip(WorkerEvent, [S.SERVING, S.ENDING, None, None, S.ENDING, "gone"], strict=True)),
    S.SERVING: dict(zip(WorkerEvent, [None, None, S.LEAVING, S.ENDING, None, "gone"], strict=True)),
    S.LEAVING: dict(zip(WorkerEvent, [None, None, None, S.ENDING, None, "gone"], strict=True)),
    S.DRAINING: dict(zip(WorkerEvent, [None, None, S.DRAINING, S.ENDING, S.ENDING, "gone"], strict=True)),
    S.ENDING: dict(zip(WorkerEvent, [S.ENDING, S.ENDING, S.ENDING, None, S.ENDING, "gone"], strict=True)),
}
#: The same of a generation, in the order LOADED, FAILED, LATE, GONE.
G = GenerationState
GENERATIONS: dict[GenerationState, dict[GenerationEvent, GenerationState | str | None]] = {
    G.LOADING: dict(zip(GenerationEvent, [G.CANARY, G.RETIRED, G.RETIRED, "gone"], strict=True)),
    G.CANARY: dict(zip(GenerationEvent, [None, None, None, G.RETIRED], strict=True)),
    G.STARTING: dict(zip(GenerationEvent, [None, None, None, G.RETIRED], strict=True)),
    G.CURRENT: dict(zip(GenerationEvent, [None, None, None, G.ORPHANED], strict=True)),
    G.ORPHANED: dict.fromkeys(GenerationEvent),
    G.RETIRED: dict(zip(GenerationEvent, [G.RETIRED, G.RETIRED, None, "gone"], strict=True)),
}


class TestDelayedStop:
    @pytest.fixture
    def service(self) -> Service:
        made = Service(shutdown_delay=3)
        made.start()
        made.generations.stop(15, made.now)
        return made

    def test_all_goes_on_until_the_delay_is_over(self, service: Service) -> None:
        assert service.generations.stopping
        assert service.taken()[-1] == ("leaving", 3.0)
        service.reload()
        service.worker(WorkerEvent.LEAVING, 2)
        assert service.taken() == [("fork", 3)]
        assert service.generations.due(service.now) == service.now + 3
        service.at(2.9)
        assert service.taken() == []
        service.at(0.1)
        assert service.taken()[0] == ("stopping",)
        assert not service.generations.serving

    def test_a_second_signal_ends_all_at_once_but_not_within_a_second(self, service: Service) -> None:
        service.generations.stop(15, service.now + 0.9)
        assert service.hands.status is None
        service.generations.stop(15, service.now + 1)
        assert service.hands.status == 128 + 15

    def test_one_that_asks_for_haste_ends_the_delay(self, service: Service) -> None:
        service.taken()
        service.generations.stop(3, service.now + 0.1, quick=True)
        assert service.taken() == [("stopping",), ("retire", 1, False), ("stop", 1, True), ("stop", 2, True)]

    def test_nothing_is_delayed_before_anybody_serves(self) -> None:
        service = Service(shutdown_delay=3)
        service.reload()
        service.generations.stop(15, service.now)
        assert ("stopping",) in service.taken()


class TestTables:
    @pytest.mark.parametrize(("state", "event"), list(itertools.product(WorkerState, WorkerEvent)))
    def test_of_workers(self, state: WorkerState, event: WorkerEvent, service: Service) -> None:
        worker = next(service.generations.workers)
        worker.state = state
        expected = WORKERS[state][event]
        if expected is None:
            with pytest.raises(KeyError):
                service.worker(event, worker.number)
            return
        service.worker(event, worker.number)
        assert service.states().get(worker.number, "gone") == expected

    @pytest.mark.parametrize(("state", "event"), list(itertools.product(GenerationState, GenerationEvent)))
    def test_of_generations(self, state: GenerationState, event: GenerationEvent, service: Service) -> None:
        service.reload()
        generation = service.generations.coming
        assert generation is not None
        if state in (G.CANARY, G.STARTING, G.CURRENT, G.ORPHANED, G.RETIRED):
            service.nursery(GenerationEvent.LOADED)
        if state in (G.STARTING, G.CURRENT, G.ORPHANED):
            service.worker(WorkerEvent.READY, 3)
        if state in (G.CURRENT, G.ORPHANED):
            service.worker(WorkerEvent.READY, 4)
        if state is G.ORPHANED:
            service.nursery(GenerationEvent.GONE, generation)
        if state is G.RETIRED:
            service.worker(WorkerEvent.FAILED, 3)
            service.worker(WorkerEvent.GONE, 3)
        assert generation.state is state
        expected = GENERATIONS[state][event]
        if expected is None:
            with pytest.raises(KeyError):
                service.nursery(event, generation)
            return
        service.nursery(event, generation)
        found = generation.state if generation in service.generations.all else "gone"
        assert found == expected


class World(Service):
    """Does at random what processes and people can do, and checks what is decided."""

    def __init__(self, size: int, **values: Any) -> None:
        super().__init__(size, **values)
        self.spoken: dict[Worker, set[WorkerEvent]] = {}
        self.loaded: set[Generation] = set()
        self.reload()

    def choices(self) -> list[tuple[Callable[[], object], Worker | None]]:
        """Each thing that can happen now, with the worker that stops to serve by it."""
        found: list[tuple[Callable[[], object], Worker | None]] = [
            (self.reload, None),
            (lambda: self.generations.resize(1, self.now), None),
            (lambda: self.generations.resize(-1, self.now), None),
            (lambda: self.at(0.05), None),
            (lambda: self.at(5), None),
        ]
        for generation in self.generations.all:
            if generation.alive:
                found.append((lambda each=generation: self.nursery(GenerationEvent.GONE, each), None))
                if generation not in self.loaded:
                    for event in (GenerationEvent.LOADED, GenerationEvent.FAILED):
                        found.append((lambda each=generation, event=event: self.load(each, event), None))
        for worker in self.generations.workers:
            spoken = self.spoken.setdefault(worker, set())
            serves = worker if worker.state in (WorkerState.SERVING, WorkerState.LEAVING) else None
            found.append((lambda each=worker: self.say(each, WorkerEvent.GONE), serves))
            if serves or worker.state is WorkerState.DRAINING:
                found.append((lambda each=worker: self.say(each, WorkerEvent.SILENT), serves))
            if not spoken:
                for start in (WorkerEvent.READY, WorkerEvent.FAILED):
                    found.append((lambda each=worker, start=start: self.say(each, start), None))
            if spoken == {WorkerEvent.READY}:
                found.append((lambda each=worker: self.say(each, WorkerEvent.LEAVING), None))
        return found

    def load(self, generation: Generation, event: GenerationEvent) -> None:
        self.loaded.add(generation)
        self.nursery(event, generation)

    def say(self, worker: Worker, event: WorkerEvent) -> None:
        self.spoken[worker].add(event)
        self.generations.worker(event, worker, self.now)

    def step(self, choice: int) -> None:
        before = self.generations.current
        serving = self.serving(before)
        choices = self.choices()
        call, lost = choices[choice % len(choices)]
        call()
        after, size = self.generations.current, self.generations.size
        if lost is not None and lost.generation is before:
            serving -= 1
        if after is before:
            # Nobody who is needed is sent away.
            assert self.serving(after) >= min(size, serving)
        elif after is not None:
            assert self.serving(after) >= size
        for generation in self.generations.all:
            # One successor at a time.
            starting = len(generation.those(WorkerState.STARTING))
            assert not starting or starting + self.serving(generation) <= max(size + 1, self.most)
        self.most = max(self.generations.size + 1, max(map(self.total, self.generations.all), default=0))

    most = 0

    @staticmethod
    def serving(generation: Generation | None) -> int:
        return 0 if generation is None else len(generation.those(WorkerState.SERVING, WorkerState.LEAVING))

    def total(self, generation: Generation) -> int:
        return len(generation.those(WorkerState.STARTING)) + self.serving(generation)


#: The number of workers, and a choice of what happens at each step.
HISTORIES = st.integers(1, 4), st.lists(st.integers(0, 1000), max_size=80)


@settings(max_examples=200, deadline=None)
@given(*HISTORIES)
def test_whatever_happens_nobody_who_is_needed_is_sent_away(size: int, happens: list[int]) -> None:
    live(size, happens)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(*HISTORIES)
def test_the_same_for_long(size: int, happens: list[int]) -> None:
    live(size, happens)


def live(size: int, happens: list[int]) -> None:
    world = World(size)
    for choice in happens:
        world.step(choice)
        if world.hands.status is not None:
            return
    end(world)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=80))
def test_whatever_happens_with_reload_somebody_serves_or_is_about_to(happens: list[int]) -> None:
    world = World(1, reload=True)
    for choice in happens:
        choices = world.choices()
        choices[choice % len(choices)][0]()
        if ("stopping",) in world.hands.said:
            break
        found = world.generations
        assert found.coming or found.serving or WorkerState.STARTING in world.states().values() or found.due(world.now)
    end(world)


def end(world: World) -> None:
    """The service can be stopped, whatever has happened before."""
    world.generations.stop(15, world.now)
    for generation in world.generations.all:
        for worker in list(generation.workers.values()):
            world.generations.worker(WorkerEvent.GONE, worker, world.now)
        if generation.alive:
            world.nursery(GenerationEvent.GONE, generation)
    assert world.hands.status is not None
