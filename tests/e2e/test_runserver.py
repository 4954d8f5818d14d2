"""``manage.py runserver`` in real projects, with real clients, real edits of real files, and Django's own reloader."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .live import in_loop
from .runserver_project import ASGI, RunServer, write_project
from .server import DEADLINE, ServerProcess, connects, environment, free_port, wait_for


def soon() -> float:
    """A second, on a machine that does nothing else; on a busy one as many as it makes of one."""
    return 1 + os.getloadavg()[0] / (os.cpu_count() or 1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunServer]:
    with RunServer(write_project(tmp_path_factory.mktemp("project")), "0") as process:
        yield process


def get(server: ServerProcess, path: str) -> httpx.Response:
    return httpx.get(f"{server.urls[-1]}/{path}", timeout=DEADLINE)


def manage(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """``manage.py ARGS``, for what ends by itself."""
    return subprocess.run(
        [sys.executable, "manage.py", *args], cwd=project, env=environment(), capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip


def alive(pid: int) -> bool:
    """Whether the process is there and not only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def serving_process(server: RunServer) -> int:
    """The id of the process that answers, which under the reloader is the child of the one that was started."""
    return int(get(server, "version").text.split()[1])


async def many(server: RunServer, count: int) -> list[Any]:
    url = f"{server.url.replace('http', 'ws')}/ws"
    return [await client(url) for _ in range(count)]


class TestServing:
    def test_it_says_what_it_is_and_where(self, server: RunServer) -> None:
        assert re.search(
            r"Performing system checks\.\.\.\n\n"
            r"System check identified no issues \(0 silenced\)\.\n"
            r"lifespan\.startup\n"
            r"\w+ \d\d, \d{4} - \d\d:\d\d:\d\d\n"
            r"Django version \d.*, using settings 'mysite\.settings'\n"
            rf"Starting ASGI/asgiserver version \S+ development server at http://127\.0\.0\.1:{server.port}/\n"
            r"Quit the server with CONTROL-C\.\n",
            server.output(),
        )

    def test_the_projects_asgi_application_is_served(self, server: RunServer) -> None:
        assert get(server, "about").text.startswith("http /about ASGIRequest")

    def test_a_view_that_imports_the_reactor_gets_the_one_that_runs(self, server: RunServer) -> None:
        """The reloader imports the URLs in its own thread, perhaps before the server's has begun."""
        assert get(server, "reactor").text in ("UvloopReactor True", "DirectReactor True")

    def test_static_files_too(self, server: RunServer) -> None:
        response = get(server, "static/style.css")
        assert (response.status_code, response.text) == (200, "body { color: teal }")
        assert response.headers["content-type"] == "text/css"
        again = httpx.get(
            f"{server.url}/static/style.css", headers={"if-modified-since": response.headers["last-modified"]}
        )
        assert again.status_code == 304
        assert get(server, "static/nothing.css").status_code == 404

    def test_each_request_has_a_line(self, server: RunServer) -> None:
        for path in ("about?a=b%25", "nowhere"):
            get(server, path)
        for line in (r"GET /about\?a=b%25 200", "GET /nowhere 404"):
            pattern = re.compile(rf"^HTTP {line} \[\d+\.\d\d, 127\.0\.0\.1:\d+\]$", re.MULTILINE)
            wait_for(lambda: pattern.search(server.output()), message=server.output())  # noqa: B023

    def test_the_page_of_an_exception_comes_at_once(self, server: RunServer) -> None:
        for path, words in (("fail", "the cat has left"), ("broken", "Internal Server Error")):
            start = time.monotonic()
            response = get(server, path)
            assert response.status_code == 500
            assert words in response.text
            assert time.monotonic() - start < soon()
        server.said("LookupError: the cat has left")
        server.said("LookupError: broken below Django")

    @in_loop
    async def test_websockets_with_their_lines(self, server: RunServer) -> None:
        url = server.url.replace("http", "ws")
        async with client(f"{url}/open?a") as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "ws hello"
        with pytest.raises(InvalidStatus):
            await client(f"{url}/refused")
        for line in ("HANDSHAKING /open?a", "CONNECT /open?a", "DISCONNECT /open?a", "REJECT /refused"):
            await asyncio.to_thread(server.said, f"WebSocket {line} [127.0.0.1:")


class TestOptions:
    def test_nostatic(self, project: Path) -> None:
        with RunServer(project, "0", "--nostatic", "--noreload") as server:
            assert get(server, "static/style.css").status_code == 404

    def test_static_files_without_debug_with_insecure(self, tmp_path: Path) -> None:
        project = write_project(tmp_path, settings="DEBUG = False\nFORCE_SCRIPT_NAME = '/below'")
        with RunServer(project, "0", "--noreload", "--insecure") as server:
            assert get(server, "about").text.startswith("http /below/about ASGIRequest")
            assert get(server, "static/style.css").status_code == 200

    @pytest.mark.parametrize("args", [[], ["--noreload"]])
    def test_static_files_are_below_the_prefix(self, tmp_path: Path, args: list[str]) -> None:
        project = write_project(tmp_path, settings="FORCE_SCRIPT_NAME = '/below'\nSTATIC_URL = 'static/'")
        with RunServer(project, str(free_port()), *args) as server:
            assert get(server, "below/static/style.css").status_code == 200
            # As a proxy asks that strips the prefix (C2).
            assert get(server, "static/style.css").status_code == 200

    def test_noasgi_is_djangos_own_server_with_static_files(self, project: Path) -> None:
        with RunServer(project, "0", "--noasgi", "--noreload") as server:
            assert get(server, "about").text.startswith("http /about WSGIRequest")
            assert get(server, "static/style.css").status_code == 200
        assert "ASGI/asgiserver" not in server.output()

    @in_loop
    async def test_daphnes_limits_and_those_of_the_projects_settings(self, tmp_path: Path) -> None:
        settings = "DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE = 100\nASGISERVER_SERVER_NAME = 'mine'"
        project = write_project(tmp_path, settings=settings)
        args = ("0", "--noreload", "--http_timeout", "0.2", "--websocket-max-frame-size", "50")
        with RunServer(project, *args) as server:
            response = get(server, "sleep")
            assert (response.status_code, response.headers["server"]) == (503, "mine")
            for size in (60, 110):
                async with client(f"{server.url.replace('http', 'ws')}/ws", compression=None) as websocket:
                    # In frames that are small enough, the second time.
                    await websocket.send("x" * 60 if size == 60 else ["x" * 40] * 3)
                    with pytest.raises(ConnectionClosed):
                        await websocket.recv()
                    assert websocket.close_code == 1009

    @pytest.mark.parametrize(
        ("args", "url"),
        [
            (["[::1]:0"], r"http://\[::1\]:\d+"),
            (["-6", "0"], r"http://\[::1\]:\d+"),
            (["0:0"], r"http://0\.0\.0\.0:\d+"),
        ],
    )
    def test_addresses(self, project: Path, args: list[str], url: str) -> None:
        with RunServer(project, *args, "--noreload", "--skip-checks") as server:
            assert re.fullmatch(url, server.url)
            host = "[::1]" if "::1" in url else "127.0.0.1"
            assert httpx.get(f"http://{host}:{server.port}/version").status_code == 200
            assert "Performing" not in server.output()


class TestBesideOthers:
    @in_loop
    async def test_channels_and_daphne(self, tmp_path: Path) -> None:
        """And Daphne may stay in INSTALLED_APPS, below."""
        asgi = """
            from channels.generic.websocket import WebsocketConsumer
            from channels.routing import ProtocolTypeRouter
            from django.core.asgi import get_asgi_application

            class Echo(WebsocketConsumer):
                def receive(self, text_data=None, bytes_data=None):
                    self.send(text_data=text_data)

            application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": Echo.as_asgi()})
        """
        apps = "INSTALLED_APPS = ['asgiserver', 'daphne', 'channels', 'django.contrib.staticfiles']"
        project = write_project(tmp_path, {"mysite/asgi.py": asgi}, settings=apps)
        with RunServer(project, "0", "--noreload") as server:
            assert "Starting ASGI/asgiserver" in server.output()
            assert get(server, "about").text.startswith("http /about ASGIRequest")
            assert get(server, "static/style.css").status_code == 200
            async with client(f"{server.url.replace('http', 'ws')}/") as websocket:
                await websocket.send("hello")
                assert await websocket.recv() == "hello"
        assert "Traceback" not in server.output()

    def test_a_subclass_in_another_application(self, tmp_path: Path) -> None:
        """As one that was written for Daphne's command."""
        command = """
            from asgiserver.management.commands.runserver import Command as RunServer

            class Command(RunServer):
                class server_cls(RunServer.server_cls):
                    def __init__(self, *args, **keywords):
                        print("websocket_handshake_timeout", keywords["websocket_handshake_timeout"])
                        super().__init__(*args, **{**keywords, "server_name": "other"})

                def get_application(self, options):
                    inner = super().get_application(options)

                    async def application(scope, receive, send):
                        if scope["type"] == "http":
                            scope["path"] = "/about"
                        await inner(scope, receive, send)

                    return application

                def log_action(self, protocol, action, details):
                    print("logged", protocol, action, details["path"], details["status"])
        """
        files = {f"mysite/management/{name}": "" for name in ("__init__.py", "commands/__init__.py")}
        files["mysite/management/commands/runserver.py"] = command
        project = write_project(tmp_path, files, settings="INSTALLED_APPS = ['mysite', *INSTALLED_APPS]")
        with RunServer(project, "0", "--noreload") as server:
            response = get(server, "version")
            assert (response.headers["server"], response.text[:11]) == ("other", "http /about")
            server.said("logged http complete /version 200")
        assert "websocket_handshake_timeout 5.0\n" in server.output()

    def test_an_asyncio_reactor_is_used(self, tmp_path: Path) -> None:
        """The cure that the error of another reactor tells."""
        cure = "from twisted.internet import asyncioreactor\nasyncioreactor.install()\nimport twisted.internet.reactor"
        with RunServer(write_project(tmp_path, settings=cure), "0", "--noreload") as server:
            assert get(server, "version").status_code == 200


class TestReloading:
    def edit(self, project: Path, old: str, new: str) -> None:
        path = project / "mysite/urls.py"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    def until(self, project: Path, server: RunServer, condition: Callable[[], bool]) -> None:
        """Wait until ``condition``, touching the file each second: Django's reloader does not see what was changed
        after it was imported and before it was first looked at."""
        path = project / "mysite/urls.py"
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, server.output()
            if time.time() - path.stat().st_mtime > 1:
                path.touch()
            time.sleep(0.05)

    def test_a_hundred_quick_edits_leave_one_server_on_the_same_port(self, project: Path) -> None:
        with RunServer(project, str(free_port())) as server:
            seen = set()
            for number in range(100):
                self.edit(project, f"VERSION = {number}\n", f"VERSION = {number + 1}\n")
                if number % 25 == 0:
                    # Else they would all be one; between these nobody waits for anything.
                    self.until(project, server, lambda: server.serves("version", f"{number + 1} "))  # noqa: B023
                    seen.add(serving_process(server))
            self.until(project, server, lambda: server.serves("version", "100 "))
            seen.add(serving_process(server))
            last = serving_process(server)
            assert len(seen) >= 4
            assert [pid for pid in seen if alive(pid)] == [last]
            server.interrupt()
            assert server.wait() == 0
            assert not alive(last)
            assert not connects(server.port)
        assert "in use" not in server.output()
        assert "Traceback" not in server.output()
        assert server.output().count("lifespan.startup\n") == server.output().count("ended lifespan.shutdown None\n")

    def test_a_file_that_cannot_be_read_is_waited_for(self, project: Path) -> None:
        with RunServer(project, str(free_port())) as server:
            for old, new, words in (
                ("VERSION = 0", "VERSION = (", "SyntaxError"),
                ("VERSION = (", "VERSION = 1", ""),
            ):
                self.edit(project, old, new)
                if words:
                    self.until(project, server, lambda: words in server.output())  # noqa: B023
                else:
                    self.until(project, server, lambda: server.serves("version", f"{new[-1]} "))  # noqa: B023

    def test_an_application_that_cannot_be_imported_or_started_is_waited_for(self, tmp_path: Path) -> None:
        project = write_project(tmp_path, {"mysite/asgi.py": "1 / 0"})
        asgi = project / "mysite/asgi.py"
        with RunServer(project, str(free_port()), listeners=0) as server:
            server.said("ZeroDivisionError: division by zero")
            failing = (
                "async def application(scope, receive, send):\n"
                "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
            )
            for text, words in (
                ("other = 1", "'mysite.asgi' has no 'application'"),
                (failing, "no database"),
                (ASGI.replace("\n    ", "\n"), "Starting ASGI"),
            ):
                asgi.write_text(text)
                end = time.monotonic() + DEADLINE
                while words not in server.output():
                    assert time.monotonic() < end, server.output()
                    if time.time() - asgi.stat().st_mtime > 1:
                        asgi.touch()
                    time.sleep(0.05)
            assert server.serves("version", "0 ")

    @in_loop
    async def test_neither_a_websocket_nor_a_busy_thread_holds_it_up(self, project: Path) -> None:
        with RunServer(project, str(free_port())) as server:
            async with client(f"{server.url.replace('http', 'ws')}/ws") as websocket, httpx.AsyncClient() as browser:
                request = asyncio.create_task(browser.get(f"{server.url}/sleep"))
                await asyncio.to_thread(server.said, "sleeping")
                before = await asyncio.to_thread(serving_process, server)
                self.edit(project, "VERSION = 0", "VERSION = 1")
                await asyncio.to_thread(
                    self.until, project, server, lambda: not alive(before) and server.serves("version", "1 ")
                )
                with pytest.raises(ConnectionClosed):
                    await websocket.recv()
                assert websocket.close_code == 1012
                assert (await request).status_code == 503


class TestEnding:
    @pytest.mark.parametrize(
        ("options", "how"),
        [([], "ctrl-c"), (["--noreload"], "ctrl-c"), ([], "sigterm")],
        ids=["reloader", "noreload", "sigterm"],
    )
    @in_loop
    async def test_within_a_second_with_websockets_and_a_busy_thread(
        self, project: Path, options: list[str], how: str
    ) -> None:
        with RunServer(project, "0", *options) as server:
            pid = await asyncio.to_thread(serving_process, server)
            websockets = await many(server, 20)
            async with httpx.AsyncClient() as browser:
                request = asyncio.create_task(browser.get(f"{server.url}/sleep"))
                await asyncio.to_thread(server.said, "sleeping")
                start = time.monotonic()
                if how == "ctrl-c":
                    server.interrupt()
                else:
                    server.send_signal(signal.SIGTERM)
                status = await asyncio.to_thread(server.wait)
                took = time.monotonic() - start
                assert (await asyncio.gather(request, return_exceptions=True))[0] is not None
            assert status == 0
            assert took < soon()
            wait_for(lambda: not alive(pid))
            for websocket in websockets:
                await websocket.wait_closed()
        if how == "ctrl-c":
            assert [each.close_code for each in websockets] == [1012] * 20
            assert server.output().count("ended websocket.disconnect 1012\n") == 20
            assert "ended lifespan.shutdown" in server.output()
        assert "Traceback" not in server.output()

    def test_in_the_middle_of_the_start(self, tmp_path: Path) -> None:
        slow = "import time\nprint('starting', flush=True)\ntime.sleep(30)"
        project = write_project(tmp_path, {"mysite/asgi.py": slow})
        with RunServer(project, "0", listeners=0) as server:
            server.said("starting")
            start = time.monotonic()
            server.interrupt()
            assert server.wait() == 0
            assert time.monotonic() - start < soon()
        assert "Traceback" not in server.output()

    @pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
    def test_no_orphan_when_the_reloader_was_stopped_while_it_started_the_server(self, project: Path) -> None:
        """Django raises SystemExit out of Popen() then, and does not know the process that it has started."""
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        started = {"RUN_MAIN": "true", "_ASGISERVER_RELOADER": str(gone.pid)}
        with RunServer(project, "0", env=started, listeners=0) as server:
            assert server.wait() == 1

    def test_no_orphan_when_the_reloader_was_killed(self, project: Path) -> None:
        with RunServer(project, "0") as server:
            pid = serving_process(server)
            server.send_signal(signal.SIGKILL)
            wait_for(lambda: not alive(pid))
            assert not connects(server.port)
            server.said("ended lifespan.shutdown")


class TestMistakes:
    @pytest.mark.parametrize("options", [[], ["--noreload", "--tls"]], ids=["reloader", "noreload"])
    def test_a_taken_port_ends_it(self, project: Path, options: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with RunServer(project, str(port), *options, listeners=0) as server:
                assert server.wait() == 1
        lines = [line for line in server.output().splitlines() if "Error" in line]
        assert len(lines) == 1
        assert f"Error: cannot listen on 127.0.0.1:{port}: Address already in use: ss -ltnp" in lines[0]
        assert "Starting ASGI" not in server.output()
        assert "Traceback" not in server.output()

    def one_line(self, project: Path, *args: str) -> tuple[int, str]:
        with RunServer(project, "0", *args, listeners=0) as server:
            status = server.wait()
        assert "Traceback" not in server.output()
        lines = [line for line in server.output().splitlines() if "Error: " in line]
        assert len(lines) == 1, server.output()
        return status, lines[0]

    def test_another_reactor(self, tmp_path: Path) -> None:
        """With the cure."""
        project = write_project(tmp_path, settings="from twisted.internet import reactor")
        status, line = self.one_line(project)
        assert status == 1
        assert re.search(
            r"Twisted's \w+Reactor is installed, .* call twisted.internet.asyncioreactor.install\(\)", line
        )

    def test_no_application(self, tmp_path: Path) -> None:
        for number, (settings, args, said, wanted) in enumerate(
            [
                ("del ASGI_APPLICATION", [], "add ASGI_APPLICATION = 'mysite.asgi.application' to mysite.settings", 1),
                ("ASGI_APPLICATION = 'mysite'", ["--noreload"], "expected a name like 'mysite.asgi.application'", 2),
            ]
        ):
            status, line = self.one_line(write_project(tmp_path / str(number), settings=settings), *args)
            assert said in line
            assert status == wanted

    def test_a_start_that_fails(self, tmp_path: Path) -> None:
        asgi = "async def application(scope, receive, send):\n    await send({'type': 'lifespan.startup.failed'})\n"
        with RunServer(write_project(tmp_path, {"mysite/asgi.py": asgi}), "0", "--noreload", listeners=0) as server:
            assert server.wait() == 3

    def test_the_order_of_the_applications(self, tmp_path: Path) -> None:
        for number, (apps, owner) in enumerate(
            [
                (["django.contrib.staticfiles", "asgiserver"], "django.contrib.staticfiles"),
                (["daphne", "asgiserver", "django.contrib.staticfiles"], "daphne"),
                (["asgiserver", "daphne", "django.contrib.staticfiles"], None),
            ]
        ):
            project = write_project(tmp_path / str(number), settings=f"INSTALLED_APPS = {apps}\nASGISERVER_PRT = 1")
            done = manage(project, "check")
            assert done.returncode == (owner is not None)
            assert ("(asgiserver.E001)" in done.stderr) == (owner is not None)
            assert f"because {owner} stands before asgiserver" in done.stderr or owner is None
            assert "(asgiserver.W001) The setting ASGISERVER_PRT has no effect." in done.stderr


class TestTLS:
    @in_loop
    async def test_https_wss_and_secure_cookies(self, project: Path) -> None:
        with RunServer(project, str(free_port()), "--tls") as server:
            match = re.search(r"signed by (\S+): have your browser trust it", server.output())
            assert match is not None
            trusted = ssl.create_default_context(cafile=match[1])
            assert server.url.startswith("https://127.0.0.1:")
            async with httpx.AsyncClient(verify=trusted) as browser:
                assert (await browser.get(f"{server.url}/about")).text.startswith("https /about ASGIRequest")
                named = f"https://localhost:{server.port}/visits"
                assert [(await browser.get(named)).text for _ in range(3)] == ["1", "2", "3"]
            async with client(f"wss://localhost:{server.port}/ws", ssl=trusted) as websocket:
                await websocket.send("hello")
                assert await websocket.recv() == "wss hello"
                websockets = [await client(f"wss://localhost:{server.port}/ws", ssl=trusted) for _ in range(5)]
                start = time.monotonic()
                server.interrupt()
                assert await asyncio.to_thread(server.wait) == 0
                assert time.monotonic() - start < soon()
                for each in [websocket, *websockets]:
                    await each.wait_closed()
        assert "Traceback" not in server.output()
        # The next one has the same certificate, so that it has to be trusted once.
        kept = {path: path.read_bytes() for path in Path(match[1]).parent.iterdir()}
        with RunServer(project, "0", "--tls", "--noreload") as server:
            async with httpx.AsyncClient(verify=trusted) as browser:
                assert (await browser.get(f"{server.url}/version")).status_code == 200
        assert kept == {path: path.read_bytes() for path in Path(match[1]).parent.iterdir()}
        private = [path for path, text in kept.items() if b"PRIVATE" in text]
        assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600]

    def test_without_trustme(self, tmp_path: Path) -> None:
        project = write_project(tmp_path, {"trustme.py": "raise ImportError"})
        status, line = TestMistakes().one_line(project, "--tls")
        assert (status, line) == (2, "CommandError: --tls needs trustme: install asgiserver[runserver]")


def test_colours_of_the_lines(project: Path) -> None:
    """Those of Django's palette, where it is asked for colours."""
    with RunServer(project, "0", "--noreload", "--force-color", env={"DJANGO_COLORS": "dark"}) as server:
        for path in ("about", "nowhere"):
            get(server, path)
        server.said("\x1b[33mHTTP GET /nowhere 404 [")
        assert "\x1b[33mHTTP GET /about" not in server.output()
        assert os.environ.get("NO_COLOR") is None
