"""Lanes, slots and leases: who gets a thread, when, and which."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from asgiserver.django import lanes as module
from asgiserver.django.lanes import Lane, Lanes, Lease

pytest.importorskip("django")


made: list[Lanes] = []


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In the place of Django's, which need a project."""
    stand_in = SimpleNamespace(close_all=lambda: None)
    monkeypatch.setattr(module, "connections", stand_in)
    return stand_in


def lanes_of(limit: int) -> Lanes:
    """Lanes that end with the test."""
    made.append(Lanes(limit))
    return made[-1]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main()
            while made:
                await made.pop().close()

    asyncio.run(limited())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - threads set no asyncio.Event
            await asyncio.sleep(0.001)


async def called(lane: Lane, function: Callable[[], object]) -> None:
    """Run a function in a lane's thread, and wait for its end."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    call = lane.start(lambda: function() and None, lambda: loop.call_soon_threadsafe(ended.set))
    try:
        await ended.wait()
    except asyncio.CancelledError:
        call.cancel()
        raise
    call.take_context()
    assert call.failure is None


async def thread_of(lane: Lane) -> threading.Thread:
    threads: list[threading.Thread] = []
    await called(lane, lambda: threads.append(threading.current_thread()))
    return threads[0]


class TestSlots:
    def test_first_come_first_served(self) -> None:
        async def main() -> None:
            lanes, order = lanes_of(1), []

            async def request(number: int) -> None:
                slot = await lanes.enter()
                order.append(number)
                await asyncio.sleep(0)
                slot.leave()

            await asyncio.gather(*map(request, range(5)))
            assert order == [0, 1, 2, 3, 4]

        run(main)

    def test_who_is_cancelled_while_waiting_is_passed_over(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            slot = await lanes.enter()
            second, third = asyncio.ensure_future(lanes.enter()), asyncio.ensure_future(lanes.enter())
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.sleep(0)
            slot.leave()
            (await third).leave()
            (await lanes.enter()).leave()

        run(main)

    def test_who_is_cancelled_in_the_turn_of_the_grant_gives_it_on(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            slot = await lanes.enter()
            second = asyncio.ensure_future(lanes.enter())
            await asyncio.sleep(0)
            slot.leave()
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            (await lanes.enter()).leave()

        run(main)

    def test_those_who_are_cancelled_in_the_turn_before_the_grant_are_passed_over(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            slot = await lanes.enter()
            leaving = [asyncio.ensure_future(lanes.enter()) for _ in range(2000)]
            last = asyncio.ensure_future(lanes.enter())
            await asyncio.sleep(0)
            for each in leaving:
                each.cancel()
            slot.leave()
            assert {type(error) for error in await asyncio.gather(*leaving, return_exceptions=True)} == {
                asyncio.CancelledError
            }
            (await last).leave()
            (await lanes.enter()).leave()

        run(main)

    def test_left_twice_counts_once(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            slot = await lanes.enter()
            slot.leave()
            slot.leave()
            await lanes.enter()
            third = asyncio.ensure_future(lanes.enter())
            await asyncio.sleep(0)
            assert not third.done()
            third.cancel()

        run(main)

    def test_a_thread_that_waits_for_a_coroutine_gives_its_slot_on(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            second_runs = asyncio.Event()

            async def first() -> None:
                slot = await lanes.enter()
                lane = slot.lane = lanes.take("GET '/first'")
                await called(lane, lambda: async_to_sync(second_runs.wait)())

            async def second() -> None:
                await lanes.enter()
                second_runs.set()

            await asyncio.gather(first(), second())

        run(main)

    def test_so_does_one_whose_coroutine_has_called_a_function_before(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            second_runs = asyncio.Event()

            async def coroutine() -> None:
                await sync_to_async(int)()
                await second_runs.wait()

            async def first() -> None:
                slot = await lanes.enter()
                lane = slot.lane = lanes.take("GET '/first'")
                await called(lane, lambda: async_to_sync(coroutine)())

            async def second() -> None:
                await lanes.enter()
                second_runs.set()

            await asyncio.gather(first(), second())

        run(main)

    def test_a_thread_that_works_for_the_coroutine_that_it_waits_for_keeps_its_slot(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_LOOK", 0.01)
        looks: list[object] = []
        waits_for = Lane.waits_for
        monkeypatch.setattr(Lane, "waits_for", lambda *given: looks.append(waits_for(*given)) or looks[-1])

        async def main() -> None:
            lanes, release = lanes_of(1), threading.Event()
            slot = await lanes.enter()
            lane = slot.lane = lanes.take("GET '/'")

            async def coroutine() -> None:
                await sync_to_async(lambda: release.wait(10))()

            second = asyncio.ensure_future(lanes.enter())
            call = asyncio.ensure_future(called(lane, lambda: async_to_sync(coroutine)()))
            await until(lambda: looks[5:])
            assert not second.done()
            release.set()
            await call
            slot.leave()
            (await second).leave()

        run(main)

    def test_a_thread_that_waits_for_one_coroutine_after_another_keeps_its_slot(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_LOOK", 0.02)

        async def main() -> None:
            lanes = lanes_of(1)
            slot = await lanes.enter()
            lane = slot.lane = lanes.take("GET '/'")

            def many_short_waits() -> None:
                for _ in range(100):
                    async_to_sync(asyncio.sleep)(0.001)

            second = asyncio.ensure_future(lanes.enter())
            await called(lane, many_short_waits)
            assert not second.done()
            slot.leave()
            (await second).leave()

        run(main)

    def test_a_long_wait_is_told_once(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(module, "_LOOK", 0.001)
        monkeypatch.setattr(module, "_LONG", 0.01)

        async def main() -> None:
            lanes = lanes_of(2)
            for _ in range(2):
                await lanes.enter()
            waiting = [asyncio.ensure_future(lanes.enter()) for _ in range(3)]
            await until(lambda: caplog.records)
            await asyncio.sleep(0.05)
            for each in waiting:
                each.cancel()

        with caplog.at_level(logging.WARNING, "asgiserver"):
            run(main)
        assert len(caplog.records) == 1
        assert caplog.messages[0].startswith("All 2 threads of Django's are busy: 3 requests wait")


class TestLanes:
    def test_the_lane_used_last_is_used_next(self) -> None:
        async def main() -> None:
            lanes = lanes_of(3)
            one, two = lanes.take("1"), lanes.take("2")
            lanes.give(one)
            lanes.give(two)
            assert lanes.take("3") is two
            assert await thread_of(two) == await thread_of(two)
            assert await thread_of(one) != await thread_of(two)

        run(main)

    def test_no_more_are_kept_than_there_are_slots(self) -> None:
        async def main() -> None:
            lanes = lanes_of(2)
            for lane in [lanes.take(str(number)) for number in range(5)]:
                await thread_of(lane)
                lanes.give(lane)
            assert lanes.threads == 2

        run(main)

    def test_those_of_requests_that_wait_for_slow_clients_do_not_count(self) -> None:
        async def main() -> None:
            lanes = lanes_of(2)
            waiting = [lanes.take(str(number)) for number in range(4)]
            lane = lanes.take("GET '/'")
            lanes.give(lane)
            assert lanes.take("GET '/'") is lane
            for each in (lane, *waiting):
                lanes.give(each)
            assert lanes.threads == 2

        run(main)

    def test_idle_lanes_end_with_their_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_IDLE", 0.01)

        async def main() -> None:
            lanes = lanes_of(2)
            lane = lanes.take("1")
            thread = await thread_of(lane)
            lanes.give(lane)
            await until(lambda: not thread.is_alive())
            assert lanes.threads == 0

        run(main)

    def test_connections_that_do_not_close_are_told(
        self, connections: SimpleNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise OSError("the database is gone")

        connections.close_all = fail

        async def main() -> None:
            lanes = lanes_of(1)
            lanes.give(lanes.take("GET '/'"))

        run(main)
        assert caplog.messages == ["A thread of Django's could not close its database connections"]

    def test_the_end_names_the_requests_that_still_run(self, caplog: pytest.LogCaptureFixture) -> None:
        release = threading.Event()

        async def main() -> None:
            lanes = lanes_of(2)
            lane = lanes.take("GET '/slow'")
            begun = threading.Event()
            running = asyncio.ensure_future(called(lane, lambda: begun.set() or release.wait(10)))  # type: ignore[func-returns-value]
            await until(begun.is_set)
            await lanes.close()
            made.clear()
            release.set()
            await running
            lanes.give(lane)
            assert lanes.threads == 0

        with caplog.at_level(logging.WARNING, "asgiserver"):
            run(main)
        assert caplog.messages == ["A thread of Django's still runs GET '/slow', and is left behind"]

    def test_a_process_that_may_have_no_more_threads_is_told_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threading.Thread, "start", no_thread)

        async def main() -> None:
            lanes = lanes_of(1)
            with pytest.raises(RuntimeError, match="can't start"):
                lanes.take("GET '/'")
            assert lanes.threads == 0

        run(main)

    def test_a_failure_that_nobody_waits_for_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            lane = lanes_of(1).take("GET '/'")
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.cancel()
            lane.settle(done, None)
            lane.settle(done, ValueError("too late"))
            cancelled = RuntimeError("the application raised CancelledError")
            cancelled.__cause__ = asyncio.CancelledError()
            lane.settle(done, cancelled)
            made.pop().give(lane)

        run(main)
        assert caplog.messages == ["Exception in GET '/', whose end nobody waits for any more"]

    @pytest.mark.parametrize("own", [False, True], ids=["the loop", "a loop of its own"])
    def test_a_coroutine_is_cancelled_on_whichever_loop_it_runs(
        self, own: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun = threading.Event()
        ended: list[str] = []

        async def held() -> None:
            begun.set()
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async def main() -> None:
            # Then a task that another loop's thread cancels raises.
            asyncio.get_running_loop().set_debug(True)
            lanes = lanes_of(1)
            lane = lanes.take("GET '/'")
            call = asyncio.ensure_future(called(lane, lambda: async_to_sync(held, force_new_loop=own)()))
            await until(begun.is_set)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: ended)
            lanes.give(lane)

        run(main)
        assert caplog.messages == []


def no_thread(_: threading.Thread) -> None:
    """What a process meets whose limit of threads is reached."""
    raise RuntimeError("can't start new thread")


class TestLease:
    def test_all_calls_of_a_request_run_in_one_thread(self) -> None:
        async def main() -> None:
            lanes = lanes_of(2)
            lease = Lease(lanes, "GET '/'")
            loop = asyncio.get_running_loop()
            names = [await loop.run_in_executor(lease, lambda: threading.current_thread().name) for _ in range(3)]
            assert len(set(names)) == 1
            lease.end()
            assert lanes.threads == 1

        run(main)

    def test_it_holds_no_slot_between_its_calls(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            lease = Lease(lanes, "GET '/'")
            await asyncio.get_running_loop().run_in_executor(lease, int)
            (await lanes.enter()).leave()
            lease.end()

        run(main)

    def test_a_call_waits_for_a_slot(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            slot = await lanes.enter()
            lease = Lease(lanes, "GET '/'")
            call = asyncio.get_running_loop().run_in_executor(lease, int)
            await asyncio.sleep(0.01)
            assert not call.done()
            slot.leave()
            assert await call == 0
            lease.end()

        run(main)

    def test_a_call_that_is_cancelled_while_it_waits_begins_no_thread(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            slot = await lanes.enter()
            lease = Lease(lanes, "GET '/'")
            call = asyncio.get_running_loop().run_in_executor(lease, int)
            call.cancel()
            await asyncio.wait([call])
            lease.end()
            slot.leave()
            (await lanes.enter()).leave()
            assert lanes.threads == 0

        run(main)

    def test_a_call_that_outlives_its_request_keeps_the_lane(self) -> None:
        async def main() -> None:
            lanes, release = lanes_of(1), threading.Event()
            lease = Lease(lanes, "GET '/'")
            call = asyncio.get_running_loop().run_in_executor(lease, release.wait, 10)
            lease.end()
            assert lanes.threads == 1
            assert not lanes._idle
            release.set()
            await call
            await until(lambda: lanes._idle)

        run(main)

    def test_exceptions_and_calls_from_other_threads(self) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            lease = Lease(lanes, "GET '/'")
            other: Any = await asyncio.to_thread(lease.submit, int, "nine")
            with pytest.raises(ValueError, match="nine"):
                await asyncio.wrap_future(other)
            lease.end()

        run(main)

    def test_a_call_that_no_thread_can_be_had_for_fails_and_loses_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def main() -> None:
            lanes = lanes_of(1)
            lease, loop = Lease(lanes, "GET '/'"), asyncio.get_running_loop()
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", no_thread)
                with pytest.raises(RuntimeError, match="can't start"):
                    await loop.run_in_executor(lease, int)
            assert await loop.run_in_executor(lease, int) == 0
            lease.end()

        run(main)
