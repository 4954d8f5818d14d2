"""Importing once for all workers, where that is safe, and an application whose import needs Twisted's reactor."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.live import in_loop, until
from tests.e2e.server import wait_for
from tests.e2e.workers import Load, Supervised, ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what an import leaves is seen in /proc")

#: Each import writes the number of its process.
IMPORTED = "open(__file__ + '.imported', 'a').write(f'{os.getpid()}\\n')\n"

#: What an import may leave behind, and what it is called.
LEFT = [
    (
        """
import threading
end = threading.Event()
threading.Thread(target=end.wait, name="scheduler", daemon=True).start()
""",
        "thread 'scheduler'",
    ),
    (
        """
import socket
sock = socket.create_connection(("127.0.0.1", {port}))
""",
        "socket to ('127.0.0.1', {port})",
    ),
    (
        """
import sqlite3
database = sqlite3.connect({folder!r} + "/d.sqlite3")
database.execute("create table if not exists t (c)")
""",
        "file '{folder}/d.sqlite3'",
    ),
]


def imports(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "app.py.imported").read_text("ascii").split()]


class TestPreloading:
    def test_the_application_is_imported_once(self, tmp_path: Path) -> None:
        server = Supervised(tmp_path, 3)
        server.write(IMPORTED)
        with server:
            assert imports(tmp_path) == [server.nursery()]

    def test_or_by_each_worker(self, tmp_path: Path) -> None:
        server = Supervised(tmp_path, 2, "--preload", "off")
        server.write(IMPORTED)
        with server:
            assert sorted(imports(tmp_path)) == sorted(server.first)

    @pytest.mark.parametrize(
        ("code", "found"),
        [pytest.param(*each, id=name, marks=marks) for name, each, marks in zip(
            ("thread", "socket", "file"), LEFT, ((), pytest.mark.slow, pytest.mark.slow), strict=True
        )],
    )
    @in_loop
    async def test_what_must_not_be_shared_is_named_in_one_line(self, tmp_path: Path, code: str, found: str) -> None:
        # Python 3.12 warns of a fork beside threads.
        server = Supervised(tmp_path, 2, command=[sys.executable, "-W", "error", "-m", "asgiserver"])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            names = {"port": listener.getsockname()[1], "folder": str(tmp_path)}
            server.write(IMPORTED + code.format(**names))
            with server:
                (line,) = server.lines("WARNING")
                assert f"The import leaves {found.format(**names)}: it is not forked" in line
                assert set(server.first) <= set(imports(tmp_path))
                assert await ask(server.port)

    def test_a_log_and_a_file_that_is_only_read_may_be(self, tmp_path: Path) -> None:
        server = Supervised(tmp_path, 2)
        server.write(
            "import logging\nlogging.getLogger('mine').addHandler(logging.FileHandler(__file__ + '.log'))\n"
            "logging.getLogger('mine').warning('opened')\nkept = open(__file__)\n" + IMPORTED
        )
        with server:
            assert imports(tmp_path) == [server.nursery()]


@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=pytest.mark.slow), "uvloop"])
@in_loop
async def test_an_application_that_imports_the_reactor_works_in_every_worker(tmp_path: Path, loop: str) -> None:
    pytest.importorskip(loop)
    server = Supervised(tmp_path, 2, "--loop", loop)
    server.write(
        IMPORTED + "from twisted.internet import reactor, threads\n"
        "called = []\nreactor.callLater(0.1, lambda: called.append(os.getpid()))\n"
        "async def application(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        return await lifespan(scope, receive, send)\n"
        "    found = await threads.deferToThread(os.getpid).asFuture(asyncio.get_running_loop())\n"
        "    body = f'{found} {called}'.encode()\n"
        "    fields = [(b'content-length', b'%d' % len(body))]\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': fields})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
    )
    with server:
        assert imports(tmp_path) == [server.nursery()]
        expected = {f"{process} [{process}]" for process in server.first}
        found: set[str] = set()
        async with asyncio.timeout(20):
            while found != expected:
                answer = await ask(server.port)
                if not answer.endswith("[]"):
                    found.add(answer)
        assert server.stop() == 0
    assert server.lines("ERROR") == []


@in_loop
async def test_a_reload_imports_the_code_anew_also_without_preloading(tmp_path: Path) -> None:
    with Supervised(tmp_path, 2, "--preload", "off") as server:
        server.write(VERSION="two")
        async with Load(server.port, websockets=0) as load:
            server.send_signal(signal.SIGHUP)
            await until(lambda: load.answers["two"])
            wait_for(lambda: "Generation 2 serves" in server.output())


#: Django in one file; its URLconf is another one.
SITE = """
import django
from django.conf import settings
from django.core.asgi import get_asgi_application

settings.configure(ROOT_URLCONF="site_urls", ALLOWED_HOSTS=["*"], SECRET_KEY="x")
application = get_asgi_application()
"""
URLS = """
import os
from django.http import HttpResponse
from django.urls import path

open(__file__ + ".imported", "a").write(f"{os.getpid()}\\n")
urlpatterns = [path("", lambda request: HttpResponse(b"mine", headers={"content-length": "4"}))]
"""


@in_loop
async def test_the_views_of_django_are_imported_with_it_and_have_to_be_right(tmp_path: Path) -> None:
    """Django itself would import them with the first request, and answer 500 to all."""
    urls = tmp_path / "site_urls.py"
    urls.write_text(URLS, "utf-8")
    server = Supervised(tmp_path, 2)
    server.write(SITE)
    with server:
        assert (tmp_path / "site_urls.py.imported").read_text("ascii") == f"{server.nursery()}\n"
        assert await ask(server.port) == "mine"
        urls.write_text(f"{URLS}1 +", "utf-8")
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("SyntaxError")
        assert await ask(server.port) == "mine"
        assert len(server.lines("ERROR")) == 1


@in_loop
async def test_a_command_line_of_ones_own_loads_the_application_in_its_own_way(tmp_path: Path) -> None:
    """Its module is found where the command itself has found it."""
    (tmp_path / "mine.py").write_text(
        "import sys\nfrom asgiserver.cli import CommandLineInterface\n"
        "class Mine(CommandLineInterface):\n"
        "    def load_asgi_app(self, path):\n"
        "        module = __import__('app')\n"
        "        module.VERSION = f'mine:{path}'\n"
        "        return module.application\n",
        "utf-8",
    )
    command = [sys.executable, "-c", "import sys, mine; sys.path.append('.'); mine.Mine().run(sys.argv[1:])"]
    with Supervised(tmp_path, 1, "--app-dir", ".", command=command, cwd=tmp_path) as server:
        assert (await ask(server.port)).split()[0] == "mine:app"
