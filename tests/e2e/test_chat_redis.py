"""The example ``chat`` on two servers, with a worker, a Redis between them and its nginx in front."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import pytest
from playwright.sync_api import expect
from websockets.exceptions import ConnectionClosed

from tests.e2e.chat import FOLDER, Visitor, chat_server, chromium, manage, png, variables
from tests.e2e.proxies import nginx
from tests.e2e.server import ServerProcess, free_ports, running, wait_for
from tests.e2e.test_deployment import replaced
from tests.programs import require

#: Seconds within which a message that goes through Redis has to be there.
SOON = 1.0


class Worker(ServerProcess):
    """``manage.py runworker robot``."""

    listening = re.compile("(?P<url>Running worker)")

    def __init__(self, data: Path, env: dict[str, str]) -> None:
        command = (sys.executable, str(FOLDER / "manage.py"), "runworker", "robot")
        super().__init__(command=command, env=variables(data, env))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        assert "Traceback" not in self.output(), self.output()

    def kill(self) -> None:
        self.process.kill()
        self.wait()


class Site:
    """Two servers, their Redis and their nginx."""

    def __init__(self, data: Path, redis: int, nginx: int) -> None:
        self.data, self.ports = data, free_ports(2)
        self.env = {"REDIS_URL": f"redis://127.0.0.1:{redis}/0"}
        self.url = f"http://127.0.0.1:{nginx}"
        self.servers: list[ServerProcess] = []

    def start(self, number: int) -> ServerProcess:
        server = chat_server(self.data, "--proxy-headers", port=self.ports[number], env=self.env).__enter__()
        self.servers[number:] = [server, *self.servers[number + 1 :]]
        return server

    def worker(self) -> Worker:
        return Worker(self.data, self.env)

    def opened(self, number: int, room: str) -> int:
        """How many WebSockets a server has opened in a room since it was started."""
        return len(re.findall(rf"WSCONNECT /ws/rooms/{room}/", self.servers[number].output()))

    def stop(self) -> None:
        # All of them first, so that none is left behind when there is something to complain of.
        statuses = [server.stop() for server in self.servers]
        assert set(statuses) <= {0, -signal.SIGKILL}
        for server in self.servers:
            assert "Traceback" not in server.output(), server.output()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    (redis, port), program = free_ports(2), require("redis-server")
    require("nginx")
    with ExitStack() as stack:
        # Open to nginx's workers, which are another user's under root.
        folder = Path(tempfile.mkdtemp(prefix="chat"))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        stack.enter_context(
            running(program, "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                    "--dir", str(folder), ports=[redis])
        )  # fmt: skip
        site = Site(folder / "data", redis, port)
        for command in (("migrate", "-v", "0"), ("collectstatic", "-v", "0", "--no-input")):
            done = manage(site.data, *command, env=site.env)
            assert done.returncode == 0, done.stderr
        stack.callback(site.stop)
        site.start(0)
        site.start(1)
        stack.enter_context(nginx(folder, configuration(site, port), port))
        yield site


def configuration(site: Site, port: int) -> str:
    text = (FOLDER / "nginx.conf").read_text("utf-8")
    values = {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "server_name example.com;": "server_name localhost;",
        "127.0.0.1:8001": f"127.0.0.1:{site.ports[0]}",
        "127.0.0.1:8002": f"127.0.0.1:{site.ports[1]}",
        "/srv/chat/data": str(site.data),
    }
    types = "types { text/css css; text/javascript js; image/svg+xml svg; }\n"
    return types + replaced(text, values)


@pytest.fixture
def visitors(site: Site) -> Iterator[list[Visitor]]:
    """Two people, each on a server of their own, in one room."""
    with ExitStack() as stack:
        pair = []
        for server, name in zip(site.servers, ("Ada", "Grace"), strict=True):
            visitor = stack.enter_context(Visitor(server.url, f"{name} {time.monotonic_ns() % 10**9}"))
            visitor.join("kitchen")
            pair.append(visitor)
        yield pair


class TestTwoServers:
    def test_a_message_sent_through_one_arrives_through_the_other(self, visitors: list[Visitor]) -> None:
        ada, grace = visitors
        seconds = []
        for number in range(3):
            started = time.monotonic()
            ada.say(f"across {number}")
            grace.hear_text(f"across {number}")
            seconds.append(time.monotonic() - started)
        assert sorted(seconds)[1] < SOON, seconds

    def test_so_do_pictures_typing_and_who_is_here(self, visitors: list[Visitor]) -> None:
        ada, grace = visitors
        ada.see(ada.name, grace.name)
        made = ada.show("kitchen", png(4, 4))
        assert made.status_code == 201
        assert grace.hear("message")["message"]["picture"] == made.json()["picture"]
        ada.send(type="typing")
        assert grace.hear("typing")["name"] == ada.name
        grace.websocket.close()
        ada.see(ada.name)

    def test_nginx_gives_away_what_is_a_file_and_passes_on_the_rest(self, site: Site) -> None:
        with Visitor(site.url, "Behind nginx") as visitor:
            assert visitor.http.get("/static/rooms/room.js").headers["content-type"] == "text/javascript"
            made = visitor.show("garden", png(4, 4))
            assert made.status_code == 201
            picture = visitor.http.get(made.json()["picture"])
            assert picture.content == png(4, 4)
            assert picture.headers["content-type"] == "image/png"
            assert picture.headers["x-content-type-options"] == "nosniff"
            assert visitor.http.get("/pictures/secret.key").status_code == 404
            visitor.join("garden")
            with visitor.http.stream("GET", "/feed/") as feed:
                lines = feed.iter_lines()
                next(line for line in lines if line.startswith("retry:"))
                visitor.say("through nginx")
                assert next(line for line in lines if "through nginx" in line).startswith("data: ")


class TestWorker:
    def test_one_that_is_killed_and_started_again_loses_no_later_command(
        self, site: Site, visitors: list[Visitor]
    ) -> None:
        ada, grace = visitors
        with site.worker() as first:
            ada.say("/stats")
            assert f"process {first.process.pid} " in grace.hear_text("I am process")["text"]
            first.kill()
        for number in range(20):
            ada.say(f"/roll {number + 1}d6")
            assert ada.hear("taken")
        with site.worker() as second:
            for number in range(20):
                assert f" rolls {number + 1}d6: " in grace.hear_text(" rolls ")["text"]
            grace.say("/stats")
            assert f"process {second.process.pid} " in ada.hear_text("I am process")["text"]
            grace.say("/help")
            assert "/roll" in grace.hear("whisper")["text"]


class TestSilence:
    def test_nobody_is_cut_off_by_it(self, site: Site, visitors: list[Visitor]) -> None:
        """Five seconds are the longest that the channel layer and the client of Redis wait for an answer."""
        ada, grace = visitors
        with site.worker() as worker:
            ada.see(ada.name, grace.name)
            with pytest.raises(TimeoutError):
                ada.websocket.recv(6)
            ada.say("/stats")
            assert f"process {worker.process.pid} " in grace.hear_text("I am process")["text"]


class TestServerThatIsKilled:
    def test_only_its_own_clients_are_cut_off_and_come_back_through_the_other(self, site: Site) -> None:
        with ExitStack() as stack:
            people = [stack.enter_context(Visitor(site.url, f"Person {number}")) for number in range(6)]
            for person in people:
                person.join("workshop")
            names = {person.name for person in people}
            people[0].see(*names)
            opened = [site.opened(0, "workshop"), site.opened(1, "workshop")]
            assert sum(opened) == 6
            assert 0 not in opened, "nginx spreads them over both"

            site.servers[1].process.kill()
            site.servers[1].wait()
            cut_off = [person for person in people if self.is_cut_off(person)]
            assert len(cut_off) == opened[1]
            stayed = [person for person in people if person not in cut_off]
            # A killed server says no good-bye: who was on it counts as here until its signs of life are missed.
            stayed[0].see(*(person.name for person in stayed))

            for person in cut_off:
                person.join("workshop")
            assert site.opened(0, "workshop") == 6
            stayed[0].see(*names)
            cut_off[0].say("here again")
            assert {person.hear_text("here again")["name"] for person in people} == {cut_off[0].name}
            self.a_server_that_is_started_again_serves(site, people[0])

    def is_cut_off(self, person: Visitor) -> bool:
        """True when the connection breaks, False when it answers."""
        key = f"asked-by-{person.name}".replace(" ", "-")
        try:
            person.say(f"is somebody there? {person.name}", key)
            person.hear("message", lambda told: told["message"]["key"] == key)
        except ConnectionClosed:
            return True
        return False

    def a_server_that_is_started_again_serves(self, site: Site, person: Visitor) -> None:
        server = site.start(1)
        with Visitor(server.url, "Newcomer") as newcomer:
            texts = Counter(message["text"] for message in newcomer.join("workshop")["messages"])
            assert texts["here again"] == 1
            newcomer.say("good morning")
            person.hear_text("good morning")

    def test_a_page_comes_back_by_itself(self, site: Site) -> None:
        with chromium() as browser, Visitor(site.url, "Reader") as reader, Visitor(site.url, "Writer") as writer:
            context = browser.new_context(base_url=site.url)
            context.add_cookies(reader.cookies)
            page = context.new_page()
            before = site.opened(0, "garden")
            page.goto("/rooms/garden/")
            status = page.locator("#status")
            expect(status).to_have_text("Connected")
            number = 0 if site.opened(0, "garden") > before else 1
            before = site.opened(1 - number, "garden")
            site.servers[number].process.kill()
            site.servers[number].wait()
            try:
                wait_for(lambda: site.opened(1 - number, "garden") > before)
                expect(status).to_have_text("Connected")
                writer.join("garden", url=site.servers[1 - number].url)
                writer.say("You are with me now")
                expect(page.locator("#messages")).to_contain_text("You are with me now")
            finally:
                site.start(number)
            context.close()
