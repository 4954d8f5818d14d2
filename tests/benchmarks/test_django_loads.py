"""The loads of Django: who takes part, what is asked, what has to be answered, and what is counted."""

from __future__ import annotations

import gc
import socket
import sqlite3
from pathlib import Path
from typing import cast

import pytest

from tests.benchmarks import bursts, downloads, load
from tests.benchmarks.django_loads import DJANGO
from tests.benchmarks.downloads import Download
from tests.benchmarks.load import METRICS
from tests.benchmarks.loads import LOADS
from tests.benchmarks.project import connections
from tests.benchmarks.project.answers import found_of, login_of
from tests.benchmarks.project.connections import Counted, counts
from tests.benchmarks.running import Running, ServerFailed
from tests.benchmarks.servers import SERVERS, Order, other_checkout
from tests.benchmarks.varied import Asked, Varied
from tests.benchmarks.wrk import ClientFailed

HOST = "127.0.0.1:4321"


def taking_part(name: str) -> set[str]:
    return {server for server, kind in SERVERS.items() if kind.takes_part(name, LOADS[name].group)}


class TestServers:
    def test_each_load_of_django_has_the_same(self) -> None:
        expected = {
            "asgiserver", "asgiserver-off", "daphne", "granian", "granian-wsgi", "gunicorn", "gunicorn-wsgi", "uvicorn",
        }  # fmt: skip
        for name in DJANGO:
            assert taking_part(name) == expected

    @pytest.mark.parametrize("name", ["get", "channels"])
    def test_no_other_load_has_those_that_are_there_for_django(self, name: str) -> None:
        assert not {"asgiserver-off", "granian-wsgi", "gunicorn-wsgi"} & taking_part(name)
        assert {"asgiserver", "hypercorn", "uvicorn-h11"} <= taking_part(name)

    def test_another_checkout_takes_part_in_all(self, tmp_path: Path) -> None:
        kind = other_checkout("before", tmp_path)
        assert all(kind.takes_part(name, LOADS[name].group) for name in LOADS)

    def test_servers_of_wsgi_serve_the_application_for_it_and_the_others_theirs(self) -> None:
        for each in DJANGO.values():
            assert {each.path(SERVERS[name]) for name in ("granian-wsgi", "gunicorn-wsgi")} == {
                "tests.benchmarks.project.wsgi:application"
            }
            assert each.path(SERVERS["granian"]) == "tests.benchmarks.project.asgi:application"

    @pytest.mark.parametrize(("name", "flag"), [("granian-wsgi", "--blocking-threads"), ("gunicorn-wsgi", "--threads")])
    def test_servers_of_wsgi_have_as_many_threads_as_the_load_says(self, name: str, flag: str) -> None:
        words = SERVERS[name].arguments(Order("a:b", 1, threads=17))
        assert words[words.index(flag) + 1] == "17"
        assert flag not in SERVERS[name.removesuffix("-wsgi")].arguments(Order("a:b", 1, threads=17))

    def test_one_leaves_django_to_itself(self) -> None:
        words = SERVERS["asgiserver-off"].arguments(Order("a:b", 1))
        assert words[words.index("--django") + 1] == "off"
        assert "--django" not in SERVERS["asgiserver"].arguments(Order("a:b", 1))


class TestRequests:
    VIEWS = [each for each in DJANGO.values() if each.varied]

    @pytest.mark.parametrize("each", VIEWS, ids=lambda each: each.title)
    def test_targets_and_answers_differ(self, each: load.Load) -> None:
        assert each.varied is not None
        messages = [each.varied.message(number, HOST) for number in range(200)]
        assert len(set(messages)) == len(messages)
        assert all(message.startswith(b"GET %s/articles/" % each.varied.prefix.encode()) for message in messages)
        assert len({each.varied.expected(number) for number in range(200)}) == len(messages)

    def test_the_script_for_wrk_has_the_prefix(self) -> None:
        assert '"GET /orm/articles/%d/%s?page=' in Varied(found_of, prefix="/orm").script(HOST)
        assert '"GET /articles/%d/%s?page=' in Varied(found_of).script(HOST)

    def test_what_the_database_holds_is_in_the_answer(self) -> None:
        asked = Asked("/orm/articles/1207/of", b"page=1&q=2", "", b"")
        assert found_of(asked) == b"Hello, /orm/articles/1207/of?page=1&q=2! Yours, 7@example.org"

    @pytest.mark.parametrize(
        ("page", "reason"), [(b"<p>%s</p>", ""), (b"<p></p>", "a wrong answer of 7 bytes")], ids=["it has it", "not"]
    )
    def test_of_a_page_with_a_token_a_part_is_checked(self, page: bytes, reason: str) -> None:
        class Fake:
            host = HOST

            def answer(self, message: bytes) -> bytes:
                target = message.split(b" ")[1]
                path, _, query = target.partition(b"?")
                return page.replace(b"%s", login_of(Asked(path.decode(), query, "", b"")))

        server = cast(Running, Fake())
        if reason:
            with pytest.raises(ServerFailed, match=reason):
                load._check(DJANGO["django-login"], server)
        else:
            load._check(DJANGO["django-login"], server)


class TestLoads:
    def test_what_servers_are_compared_by_exists(self) -> None:
        for each in LOADS.values():
            assert 1 <= each.compared <= len(each.metrics)
            assert set(each.metrics) <= set(METRICS)

    def test_all_are_of_one_group_with_a_database(self) -> None:
        assert {name for name, each in LOADS.items() if each.group == "django"} == set(DJANGO)
        assert all(each.prepare is not None for each in DJANGO.values())


class TestConnections:
    @pytest.fixture(autouse=True)
    def since_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "_counts", {"opened": 0, "peak": 0})

    @staticmethod
    def opened() -> Counted:
        return sqlite3.connect(":memory:", factory=Counted)

    def test_those_that_are_open_at_the_same_time(self) -> None:
        first, second = self.opened(), self.opened()
        assert counts() == {"opened": 2, "peak": 2}
        first.close()
        third = self.opened()
        assert counts() == {"opened": 3, "peak": 2}
        second.close()
        third.close()

    def test_closing_twice_is_closing_once(self) -> None:
        first, second = self.opened(), self.opened()
        first.close()
        first.close()
        third = self.opened()
        assert counts() == {"opened": 3, "peak": 2}
        second.close()
        third.close()

    @pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
    def test_one_that_nobody_holds_is_open_until_it_is_collected(self) -> None:
        first = self.opened()
        del first
        gc.collect()
        second = self.opened()
        assert counts() == {"opened": 2, "peak": 1}
        second.close()


class FakeSocket:
    """Gives a piece at each read, which is what its clock counts."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.reads = 0

    def sendall(self, data: bytes) -> None:
        self.reads = 0

    def recv(self, size: int) -> bytes:
        self.reads += 1
        return self.pieces.pop(0)

    def recv_into(self, buffer: bytearray, size: int, flags: int) -> int:
        return len(self.recv(size))


class TestDownloads:
    HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"

    @pytest.mark.parametrize(
        ("pieces", "read"),
        [((HEAD, b"x" * 4, b"x" * 6), 2), ((HEAD[:9], HEAD[9:], b"x" * 10), 3), ((HEAD + b"x", b"x" * 9), 1)],
        ids=["alone", "in two", "with content"],
    )
    def test_content_begins_after_the_head(
        self, pieces: tuple[bytes, ...], read: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A head may be sent long before any of the content is there."""
        sock = FakeSocket(*pieces)
        monkeypatch.setattr(downloads.time, "perf_counter", lambda: float(sock.reads))
        assert Download(1, 10, 1).once(0, cast(socket.socket, sock), bytearray(16)) == read
        assert sock.pieces == []


class TestBursts:
    HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

    @pytest.mark.parametrize("cut", [1, 20, len(HEAD), len(HEAD) + 3])
    def test_an_answer_that_has_not_come_whole(self, cut: int) -> None:
        whole = self.HEAD + b"Slept"
        assert bursts._is_whole(whole, b"Slept")
        assert not bursts._is_whole(whole[:cut], b"Slept")

    @pytest.mark.parametrize(
        "answer", [HEAD.replace(b"200", b"503"), HEAD + b"Awake", HEAD + b"Slept well"], ids=["status", "body", "more"]
    )
    def test_another_answer_is_a_failure(self, answer: bytes) -> None:
        with pytest.raises(ClientFailed, match=r"an answer that begins with b'HTTP/1\.1 "):
            bursts._is_whole(answer, b"Slept")
