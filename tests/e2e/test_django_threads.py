"""Threads of Django's views: which serve, how many, whose connections and context variables they have, who waits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from .django_site.running import BOTH, Connection, Site, head, site
from .server import DEADLINE, wait_for

#: Threads of our handler.
THREADS = 32


@pytest.fixture(scope="module", params=BOTH)
def server(request: pytest.FixtureRequest) -> Iterator[Site]:
    options = ("--django-threads", str(THREADS))
    with site(request.param, *options, CONN_MAX_AGE="60", ATOMIC="1", ASYNC_RECEIVER="1") as server:
        yield server


@pytest.fixture(scope="module")
def ours() -> Iterator[Site]:
    with site("ours", "--django-threads", str(THREADS), CONN_MAX_AGE="60") as server:
        yield server


def together(server: Site, paths: list[str], clients: int = 16) -> list[str]:
    """The answers to requests that are made at the same time."""
    with ThreadPoolExecutor(clients) as pool:
        return [answer.text for answer in pool.map(server.get, paths)]


class TestThreadsOfARequest:
    def test_sync_views_of_ours_share_threads_that_stay(self, server: Site) -> None:
        counts = [server.get("/thread/").json()["served"] for _ in range(8)]
        # Django's handler has a new thread for each request. A next request may come while the last is being closed.
        assert (max(counts) > 1) == (server.handler == "ours")

    @pytest.mark.parametrize(("path", "status"), [("/thread/", 200), ("/fail/error/", 500)])
    def test_signals_come_in_the_thread_of_the_view(self, server: Site, path: str, status: int) -> None:
        kinds = ("started", "view", "finished", *(("exception",) if status == 500 else ()))
        server.rest()
        before = {kind: len(server.said(kind)) for kind in kinds}
        assert server.get(path).status_code == status
        server.rest()
        new = {kind: server.said(kind)[before[kind] :] for kind in kinds}
        assert {len(each) for each in new.values()} == {1}
        if server.handler == "ours":
            assert len({each[0][0] for each in new.values()}) == 1

    def test_async_receivers_are_called_on_the_loop(self, server: Site) -> None:
        before = len(server.said("async receiver"))
        server.get("/thread/")
        server.wait_until_said("async receiver", times=before + 1)
        assert {line[0] for line in server.said("async receiver")} == {"True"}

    def test_async_views_are_on_the_loop_and_have_one_thread_for_the_rest(self, server: Site) -> None:
        found = server.get("/async/thread/").json()
        assert found["on loop"]
        assert len(set(found["threads"])) == 1

    def test_coroutines_and_functions_nested_three_deep(self, server: Site) -> None:
        found = server.get("/nested/", headers={"X-Name": "a"}).json()
        assert found == {"threads": 1, "loops": [True, True], "inner": "a+inner", "after": "a+inner"}

    def test_a_thread_that_the_view_starts(self, server: Site) -> None:
        assert server.get("/own-thread/", headers={"X-Name": "a"}).json() == ["a", "-"]

    def test_nested_at_once_by_as_many_as_there_are_threads(self, server: Site) -> None:
        answers = together(server, ["/nested/"] * 2 * THREADS, 2 * THREADS)
        assert len(set(answers)) == 1


class TestContextVariables:
    def test_from_the_middleware_through_the_view_to_the_end(self, server: Site) -> None:
        server.rest()
        response = server.get("/name/?through", headers={"X-Name": "a"})
        assert (response.text, response.headers["x-name"]) == ("a+view", "a+view")
        server.rest()
        if server.handler == "ours":
            assert server.said("closed", "/name/")[-1] == ["a+view"]
            assert server.said("finished")[-1][1] == "a+view"
        wait_for(lambda: "/name/?through" in server.output())
        [line] = [line for line in server.output().splitlines() if '"GET /name/?through"' in line]
        # With Django's handler, each task has a copy of its own.
        assert line.endswith(" name=a+view")

    def test_never_to_another_request(self, server: Site) -> None:
        def ask(number: int) -> tuple[str, str]:
            given = {"X-Name": f"n{number}"} if number % 2 else {}
            path = "/nested/" if number % 3 == 0 else "/name/"
            return f"n{number}" if number % 2 else "-", server.get(path, headers=given).headers["x-name"]

        with ThreadPoolExecutor(8) as pool:
            for given, found in pool.map(ask, range(64)):
                assert found.split("+")[0] == given


class TestGroups:
    """Channels' layer in memory belongs to the loop."""

    @pytest.mark.parametrize("when", ["", "&later"], ids=["in the view", "in a receiver"])
    def test_views_send_to_websockets(self, server: Site, when: str) -> None:
        with ExitStack() as stack:
            sockets = [stack.enter_context(server.websocket("/news")) for _ in range(4)]
            for each in sockets:
                # After an answer it is in its group, and has used the database in a thread.
                each.send("")
                assert int(each.recv(DEADLINE)) >= 0
            if not when:
                together(server, [f"/publish/?text={number}" for number in range(40)])
            for number in range(40):
                if when:
                    # A receiver hears of the end of each request, and so of another's.
                    server.get(f"/publish/?text={number}{when}")
                heard = [int(each.recv(DEADLINE)) for each in sockets]
                assert heard == [number] * 4 if when else len(set(heard)) == 1


class TestTheDatabase:
    def test_connections_stay_with_our_threads(self, ours: Site) -> None:
        """Django's own handler loses the thread, and with it the connection, of each request."""
        for _ in range(2):
            together(ours, ["/slow-query/"] * 128, 64)
        names = [line[0] for line in ours.said("connected")]
        assert len(set(names)) == len(names) <= THREADS, sorted(names)
        assert ours.databases() <= THREADS

    def test_a_transaction_is_rolled_back(self, server: Site) -> None:
        assert server.get("/write/?text=kept").text == "in a transaction: True"
        assert server.get("/write/?text=lost&fail").status_code == 500
        rows = server.get("/rows/").text.splitlines()
        assert [row.rpartition(" ")[0] for row in rows].count("kept") == 1
        assert not any(row.startswith("lost") for row in rows)

    def test_a_stream_reads_after_the_transaction(self, server: Site) -> None:
        texts = [f"stream {number}" for number in range(35)]
        for text in texts:
            server.get(f"/write/?text={text}")
        rows = [row.rpartition(" ") for row in server.get("/rows/").text.splitlines()]
        assert [text for text, _, _ in rows if text.startswith("stream")] == texts
        assert {inside for _, _, inside in rows} == {"False"}
        # No cursor, and so no lock, is left.
        assert server.get("/write/?text=after").status_code == 200

    def test_two_requests_of_which_one_waits_for_the_others_lock(self, server: Site) -> None:
        with ThreadPoolExecutor(1) as pool:
            before = len(server.said("locked"))
            first = pool.submit(server.get, "/lock/first/")
            server.wait_until_said("locked", times=before + 1)
            assert server.get("/lock/second/").text == "database is locked"
            assert first.result().text == "True"

    def test_two_requests_that_wait_for_each_others_lock(self, server: Site) -> None:
        answers = sorted(together(server, ["/deadlock/"] * 2))
        assert answers == ["database is locked", "written"]


class TestClientsThatLeave:
    def test_a_sync_view_runs_to_its_end(self, server: Site) -> None:
        server.control("hold")
        before = len(server.said("left", "/hold/"))
        with Connection(server) as client:
            client.send(head("/hold/?n=leaves"))
            server.wait_until_said("holding", "leaves")
        server.control("release")
        server.wait_until_said("held", "leaves")
        if server.handler == "ours":
            # Middleware's way out runs too.
            wait_for(lambda: len(server.said("left", "/hold/")) == before + 1)
        server.rest()

    @pytest.mark.parametrize(("path", "word"), [("/hold/coroutine/", "coroutine"), ("/async/hold/", "view")])
    def test_a_coroutine_is_cancelled(self, server: Site, path: str, word: str) -> None:
        with Connection(server) as client:
            client.send(head(path))
            server.wait_until_said("holding", word)
        server.wait_until_said("cancelled", word)
        server.rest()


class TestTheBound:
    def test_views_wait_in_order_and_are_withdrawn_when_their_client_leaves(self, ours: Site) -> None:
        count, leaving = 200, range(40, 200, 8)
        ours.rest()
        ours.control("hold")
        with ExitStack() as stack:
            clients = [stack.enter_context(Connection(ours)) for _ in range(count)]
            link = stack.enter_context(ours.websocket("/control"))
            link.send("tasks")
            idle = int(link.recv(DEADLINE))
            for number, client in enumerate(clients):
                client.send(head(f"/hold/?n=o{number}"))
                # The server has read it once it has answered this.
                link.send("tasks")
                link.recv(DEADLINE)
            ours.wait_until_said("holding", times=THREADS)
            assert len(ours.said("holding")) == THREADS
            link.send("threads")
            # The loop's own executor may have a few for its part.
            assert int(link.recv(DEADLINE)) <= THREADS + 8

            def tasks() -> int:
                link.send("tasks")
                return int(link.recv(DEADLINE))

            before = tasks()
            assert before >= idle + count
            for number in leaving:
                clients[number].socket.close()
            wait_for(lambda: tasks() <= before - len(leaving), message="those who left still have their tasks")
            ours.control("release")
            stay = [number for number in range(count) if number not in leaving]
            assert {clients[number].read().body for number in stay} == {b"True"}
        begun = [line[0] for line in ours.said("holding") if line[0].startswith("o")]
        # Of those that may run at once, any may speak first.
        assert set(begun[:THREADS]) == {f"o{number}" for number in stay[:THREADS]}
        places = {word: place for place, word in enumerate(begun)}
        assert places.keys() == {f"o{number}" for number in stay}
        assert all(abs(places[f"o{number}"] - place) < THREADS for place, number in enumerate(stay))


def load(server: Site, first: int, count: int) -> None:
    """Pipelined requests, all different."""
    with Connection(server) as client, client.socket.makefile("rb") as answers:
        for start in range(first, first + count, 25):
            paths = [f"/name/?{number}" for number in range(start, start + 25)]
            client.send(b"".join(head(path, f"X-Id: {path}") for path in paths))
            for _ in paths:
                assert answers.readline().startswith(b"HTTP/1.1 200 ")
                for line in iter(answers.readline, b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                answers.read(length)


def test_memory_is_flat_and_threads_are_bounded() -> None:
    """Some 10,000 requests of four clients."""
    with site("ours", "--django-threads", "3", "--access-log", os.devnull, MIDDLEWARE="startproject") as server:

        def run(first: int, count: int) -> int:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda n: load(server, first + n * count, count), range(4)))
            server.control("collect")
            return server.memory()

        threads = server.control("threads") or 0
        before = run(0, 750)
        grown = run(100_000, 2000) - before
        assert grown < 4 << 20, f"{grown >> 10} KiB"
        assert (server.control("threads") or 0) <= threads + 3


@pytest.mark.parametrize("handler", BOTH)
class TestStopping:
    def test_a_view_may_end_and_one_that_does_not_is_answered_503(self, handler: str) -> None:
        with site(handler, "--graceful-timeout", "1", "--exit-timeout", "1") as server:
            server.control("hold")
            with Connection(server) as held:
                held.send(head("/hold/?n=long"))
                server.wait_until_said("holding", "long")
                server.send_signal(signal.SIGTERM)
                assert held.read().status == 503
            began = time.monotonic()
            # The view's thread is not waited for, though it would hold on for longer.
            server.wait(DEADLINE / 2)
            assert time.monotonic() - began < DEADLINE / 2
        assert server.said("held") == []

    def test_a_second_signal_ends_it_at_once(self, handler: str) -> None:
        with site(handler, "--graceful-timeout", "60") as server:
            server.control("hold")
            with Connection(server) as held:
                held.send(head("/hold/?n=long"))
                server.wait_until_said("holding", "long")
                server.send_signal(signal.SIGINT)
                wait_for(lambda: "Stopping" in server.output())
                time.sleep(1.1)  # a second signal, not the first one again
                server.send_signal(signal.SIGINT)
                server.wait(DEADLINE / 2)
        assert server.said("held") == []

    def test_what_can_end_in_time_is_answered(self, handler: str) -> None:
        with site(handler, "--graceful-timeout", "20", application="router") as server:
            server.control("hold")
            with Connection(server) as held:
                held.send(head("/hold/?n=long"))
                server.wait_until_said("holding", "long")
                server.send_signal(signal.SIGTERM)
                wait_for(lambda: "Stopping" in server.output())
                server.send_signal(signal.SIGUSR2)
                assert held.read().body == b"True"
        assert server.returncode == 0
        assert server.said("held") == [["long"]]
