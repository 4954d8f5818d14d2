"""Every example, started by the real command line and used as its readers would use it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.e2e.chat import chromium
from tests.e2e.server import (
    DEADLINE,
    ROOT,
    ServerProcess,
    environment,
    free_ports,
    read_until,
    run_command,
    running,
    wait_for,
)
from tests.programs import require
from tests.test_readme import README, command, example


def ws(url: str) -> str:
    return "ws" + url.removeprefix("http")


@pytest.fixture(scope="class")
def hello() -> Iterator[ServerProcess]:
    with ServerProcess("examples.hello:application", "-p", "0") as server:
        yield server


class TestHello:
    def test_it_greets(self, hello: ServerProcess) -> None:
        response = httpx.get(hello.url)
        assert (response.status_code, response.text) == (200, "Hello, world!\n")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"

    def test_head_has_the_fields_and_no_body(self, hello: ServerProcess) -> None:
        response = httpx.head(hello.url)
        assert (response.headers["content-length"], response.content) == ("14", b"")

    def test_curl_is_greeted_twice_on_one_connection(self, hello: ServerProcess) -> None:
        done = subprocess.run(
            [require("curl"), "-sSv", hello.url, hello.url],
            capture_output=True, text=True, timeout=DEADLINE, check=True,
        )
        assert done.stdout == "Hello, world!\n" * 2
        assert re.search("re-us(ing|ed)", done.stderr, re.IGNORECASE)

    def test_it_ends_with_status_0(self) -> None:
        with ServerProcess("examples.hello:application", "-p", "0") as server:
            httpx.get(server.url)
            assert server.stop() == 0


@pytest.fixture(scope="class")
def echo() -> Iterator[ServerProcess]:
    with ServerProcess("examples.echo:application", "-p", "0") as server:
        yield server


class TestEcho:
    def test_its_page_is_in_utf_8(self, echo: ServerProcess) -> None:
        response = httpx.get(echo.url)
        assert response.status_code == 200
        assert "Connecting…" in response.text

    def test_any_other_page_is_not_found(self, echo: ServerProcess) -> None:
        assert httpx.get(echo.url + "/other").status_code == 404

    def test_text_and_bytes_come_back_as_they_were(self, echo: ServerProcess) -> None:
        with connect(ws(echo.url) + "/ws") as socket:
            for message in ("hello", "", "ü€😀", b"\x00\xff", b""):
                socket.send(message)
                assert socket.recv(DEADLINE) == message

    def test_another_path_has_no_websocket(self, echo: ServerProcess) -> None:
        with pytest.raises(InvalidStatus) as caught, connect(ws(echo.url) + "/other"):
            pass
        assert caught.value.response.status_code == 403


@pytest.fixture(scope="class")
def clock() -> Iterator[ServerProcess]:
    with ServerProcess("examples.events:application", "-p", "0") as server:
        yield server


class TestEvents:
    @contextmanager
    def listening(self, clock: ServerProcess) -> Iterator[Iterator[dict[str, object]]]:
        """The events of a new listener."""
        with httpx.stream("GET", clock.url + "/events", timeout=DEADLINE) as response:
            assert response.headers["content-type"] == "text/event-stream"
            yield (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))

    def test_its_page_listens(self, clock: ServerProcess) -> None:
        assert 'new EventSource("/events")' in httpx.get(clock.url).text

    def test_events_arrive_while_the_response_goes_on(self, clock: ServerProcess) -> None:
        with self.listening(clock) as events:
            assert re.fullmatch(r"\d\d:\d\d:\d\d", str(next(events)["time"]))
            assert next(events)["time"]

    def test_the_stream_ends_when_its_client_leaves(self, clock: ServerProcess) -> None:
        with self.listening(clock) as stays:
            with self.listening(clock) as leaves:
                assert next(leaves)["listeners"] == 2
            wait_for(lambda: next(stays)["listeners"] == 1, message="the application was not told that a client left")
        assert "Traceback" not in clock.output()


@pytest.fixture(scope="class")
def django(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    database = tmp_path_factory.mktemp("django") / "board.sqlite3"
    # As the README starts it, but for the port.
    args = shlex.split(command("serve").rpartition("bin/asgiserver ")[2])
    with ServerProcess(*args, "-p", "0", env={"DJANGO_DATABASE": str(database)}) as server:
        yield server


class TestDjango:
    @pytest.fixture
    def browser(self, django: ServerProcess) -> Iterator[httpx.Client]:
        """A client that has loaded the page, so that it has the cookie of Django's protection of forms."""
        with httpx.Client(base_url=django.url, follow_redirects=True, timeout=DEADLINE) as client:
            client.get("/").raise_for_status()
            client.headers["x-csrftoken"] = client.cookies["csrftoken"]
            yield client

    def test_its_page_names_the_client(self, browser: httpx.Client) -> None:
        page = browser.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "to 127.0.0.1 over http" in page.text

    def test_a_line_left_in_the_form_is_on_the_page(self, browser: httpx.Client) -> None:
        page = browser.post("/entries/", data={"text": "<b>a line</b>"})
        assert page.history[0].status_code == 302
        assert "&lt;b&gt;a line&lt;/b&gt;" in page.text

    def test_an_empty_line_is_refused(self, browser: httpx.Client) -> None:
        page = browser.post("/entries/", data={"text": ""})
        assert page.status_code == 422
        assert "This field is required" in page.text

    def test_a_form_without_its_token_is_refused(self, django: ServerProcess) -> None:
        assert httpx.post(django.url + "/entries/", data={"text": "x"}).status_code == 403

    def test_an_uploaded_file_is_hashed(self, browser: httpx.Client) -> None:
        content = bytes(range(256)) * 4 * 8192
        page = browser.post("/uploads/", files={"file": ("eight.bin", content)})
        assert page.status_code == 200
        assert "8.0\xa0MB" in page.text
        assert hashlib.sha256(content).hexdigest() in page.text

    def test_a_download_arrives_whole(self, browser: httpx.Client) -> None:
        with browser.stream("GET", "/numbers.csv", params={"rows": 200_000}) as response:
            assert response.headers["content-disposition"] == 'attachment; filename="numbers.csv"'
            lines = list(response.iter_lines())
        assert (len(lines), lines[0], lines[-1]) == (200_001, "number,square", "200000,40000000000")

    @pytest.mark.parametrize("rows", ["0", "-1", "x", "5000001", "1" * 5000, "٣"])
    def test_a_download_of_no_sensible_length_is_refused(self, browser: httpx.Client, rows: str) -> None:
        assert browser.get("/numbers.csv", params={"rows": rows}).status_code == 400

    def test_an_unfinished_download_does_no_harm(self, django: ServerProcess, browser: httpx.Client) -> None:
        with browser.stream("GET", "/numbers.csv", params={"rows": 5_000_000}) as response:
            next(response.iter_bytes())
        assert browser.get("/").status_code == 200
        assert "Traceback" not in django.output()

    def test_what_is_not_there_has_a_page_and_a_line_in_the_log(self, django: ServerProcess) -> None:
        response = httpx.get(django.url + "/nowhere")
        assert (response.status_code, "There is no such page" in response.text) == (404, True)
        line = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING django\.request: Not Found: /nowhere$"
        wait_for(lambda: re.search(line, django.output(), re.MULTILINE))

    def test_its_icon_is_where_browsers_look_for_it(self, django: ServerProcess) -> None:
        response = httpx.get(django.url + "/favicon.ico")
        assert (response.status_code, response.headers["content-type"]) == (200, "image/svg+xml")

    def test_its_button_lies_over_nothing_on_a_phone(self, django: ServerProcess) -> None:
        covers = """() => {
            const line = document.querySelector("section:last-of-type p"), text = document.createRange();
            text.selectNodeContents(line.firstChild);
            const button = line.querySelector("a").getBoundingClientRect();
            return [...text.getClientRects()].some(other => other.bottom > button.top && other.right > button.left);
        }"""
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 390, "height": 844})
            page.goto(django.url)
            assert page.evaluate(covers) is False

    def test_its_websocket_shouts(self, django: ServerProcess) -> None:
        with connect(ws(django.url) + "/ws/") as socket:
            socket.send("hello")
            assert socket.recv(DEADLINE) == "HELLO"

    def test_another_host_is_not_answered(self, django: ServerProcess) -> None:
        assert httpx.get(django.url, headers={"host": "example.org"}).status_code == 400

    def test_a_database_out_of_reach_stops_it_with_status_3(self, tmp_path: Path) -> None:
        args = ("--app-dir", "examples/django_project", "-p", "0", "project.asgi:application")
        done = run_command(*args, env={"DJANGO_DATABASE": str(tmp_path / "missing" / "board.sqlite3")})
        assert done.returncode == 3
        assert "the database could not be migrated: unable to open database file" in done.stderr

    def test_its_migrations_are_those_of_its_models(self, tmp_path: Path) -> None:
        check = [sys.executable, "examples/django_project/manage.py", "makemigrations", "--check", "--dry-run"]
        env = environment({"DJANGO_DATABASE": str(tmp_path / "board.sqlite3")})
        done = subprocess.run(check, cwd=ROOT, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


class TestTwistedApp:
    """A site of ``twisted.web`` with an ASGI application below it, under ``twistd``."""

    @pytest.fixture
    def ports(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Of the site, and of the protocol of lines."""
        ports = free_ports(2)
        for name, port in zip(("WEB", "LINES"), ports, strict=True):
            monkeypatch.setenv(name, f"tcp:{port}:interface=127.0.0.1")
        return ports

    def test_it_talks_in_three_ways(self, ports: list[int]) -> None:
        found = re.search(r"`\.venv/bin/twistd (.+)`", README.read_text("utf-8"))
        assert found, "README.md does not say how to start it"
        run = "from twisted.scripts.twistd import run; run()"
        twistd = (sys.executable, "-W", "error", "-c", run, "--pidfile=", *shlex.split(found[1]))
        web, lines = ports
        with running(*twistd, ports=ports) as process:
            with httpx.Client(base_url=f"http://127.0.0.1:{web}", timeout=DEADLINE) as client:
                assert "<h1>Talk</h1>" in client.get("/").text
                assert client.get("/talk/lines").json() == {"lines": ["The room is open."]}
                assert client.get("/talk/other").status_code == 404
            with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{web}/talk/other"):
                pass
            with (
                connect(f"ws://127.0.0.1:{web}/talk/ws") as socket,
                create_connection(("127.0.0.1", lines), DEADLINE) as peer,
            ):
                peer.sendall("from a line ü\n".encode())
                assert socket.recv(DEADLINE) == "from a line ü"
                assert read_until(peer, b"\n") == "from a line ü\n".encode()
                socket.send("from a WebSocket")
                assert socket.recv(DEADLINE) == "from a WebSocket"
                assert read_until(peer, b"\n") == b"from a WebSocket\n"
                process.terminate()
                with pytest.raises(ConnectionClosed) as caught:
                    socket.recv(DEADLINE)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1012
            # Newer versions of twistd end as the signal would have ended them.
            assert process.wait(DEADLINE) in (0, -signal.SIGTERM)


class TestFastAPIApp:
    def test_its_own_tests_pass(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "examples/fastapi_app"],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=3 * DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def test_it_starts_as_the_readme_says(self) -> None:
        found = re.search(r"`\.venv/bin/asgiserver (--app-dir examples/fastapi_app .+?)`", README.read_text("utf-8"))
        assert found
        with ServerProcess(*shlex.split(found[1]), "-p", "0") as server:
            assert httpx.get(server.url + "/openapi.json").json()["info"]["title"] == "Parcels"


class TestReference:
    def test_its_embedded_server_answers(self) -> None:
        done = subprocess.run(
            # Twisted keeps one descriptor in reserve, for when there are no more, and never closes it.
            [sys.executable, "-W", "error", "-W", "ignore:unclosed file:ResourceWarning", "-c", example("embedding")],
            cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("HTTP/1.1 200 OK\n")
        assert "Hello, world!" in done.stdout
