"""The files for nginx and systemd do what they say: run as they are, but for names, ports and paths."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.e2e.proxies import nginx
from tests.e2e.server import DEADLINE, ROOT, ServerProcess, free_port, handed_over
from tests.e2e.test_workers_systemd import Systemd
from tests.programs import require

DEPLOY = ROOT / "examples" / "deploy"
PROJECT = ("--app-dir", "examples/django_project", "project.asgi:application")
BEHIND_A_PROXY = ("--proxy-headers", "--forwarded-allow-ips", "unix")

def replaced(text: str, values: dict[str, str]) -> str:
    """``text`` with each key of ``values`` replaced by its value; a key that is not there fails the test."""
    for old, new in values.items():
        assert old in text, f"{old!r} is no longer in the file"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short name, for unix sockets; open to nginx's workers, which are another user's under root."""
    path = Path(tempfile.mkdtemp(prefix="asgi"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="class")
def proxy(folder: Path) -> Iterator[str]:
    """The URL of an nginx with our file, in front of the Django example on a unix socket."""
    port, path = free_port(), folder / "board.sock"
    site = replaced(
        (DEPLOY / "nginx.conf").read_text("utf-8"),
        {"listen 80;": f"listen 127.0.0.1:{port};", "unix:/run/asgiserver/board.sock": f"unix:{path}",
         "server_name example.com;": "server_name localhost;"},
    )  # fmt: skip
    env = {"DJANGO_DATABASE": str(folder / "nginx.sqlite3")}
    with ServerProcess("-u", str(path), *BEHIND_A_PROXY, *PROJECT, env=env), nginx(folder, site, port):
        yield f"http://127.0.0.1:{port}"


class TestNginx:
    def test_pages_come_through_with_the_clients_address(self, proxy: str) -> None:
        page = httpx.get(proxy, timeout=DEADLINE)
        assert page.status_code == 200
        assert "to 127.0.0.1 over http" in page.text

    @pytest.mark.parametrize(
        "forged",
        [
            {"x-forwarded-for": "203.0.113.7"},
            {"forwarded": "for=203.0.113.7;proto=https;host=evil.example"},
            {"x-forwarded-host": "evil.example"},
            {"x-forwarded-port": "7"},
            {"x-forwarded-proto": "https"},
        ],
    )
    def test_a_client_cannot_forge_what_the_proxy_says(self, proxy: str, forged: dict[str, str]) -> None:
        page = httpx.get(proxy, headers=forged, timeout=DEADLINE)
        assert page.status_code == 200
        assert "to 127.0.0.1 over http" in page.text

    def test_an_upload_comes_through(self, proxy: str) -> None:
        with httpx.Client(base_url=proxy, follow_redirects=True, timeout=DEADLINE) as client:
            client.get("/")
            headers = {"x-csrftoken": client.cookies["csrftoken"]}
            page = client.post("/uploads/", files={"file": ("four.bin", bytes(4 << 20))}, headers=headers)
        assert page.status_code == 200
        assert "4.0\xa0MB" in page.text

    def test_a_download_comes_through_whole(self, proxy: str) -> None:
        text = httpx.get(proxy + "/numbers.csv?rows=100000", timeout=DEADLINE).text
        assert text.endswith("\n100000,10000000000\n")

    def test_a_websocket_comes_through(self, proxy: str) -> None:
        with connect("ws" + proxy.removeprefix("http") + "/ws/") as socket_:
            socket_.send("hello")
            assert socket_.recv(DEADLINE) == "HELLO"


class TestSystemd:
    @pytest.fixture
    def listening(self, folder: Path) -> Iterator[socket.socket]:
        """A listening unix socket, as the socket unit makes it."""
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(folder / "activated.sock"))
            made.listen()
            yield made
        (folder / "activated.sock").unlink()

    def test_the_units_are_accepted(self, tmp_path: Path) -> None:
        program = require("systemd-analyze")
        unit = (DEPLOY / "asgiserver.service").read_text("utf-8")
        units = [tmp_path / "asgiserver.service", tmp_path / "asgiserver.socket"]
        # A program that is not there is an error to it, and this one is not.
        units[0].write_text(replaced(unit, {"/srv/board/.venv/bin/asgiserver": sys.executable}), "utf-8")
        units[1].write_bytes((DEPLOY / "asgiserver.socket").read_bytes())
        done = subprocess.run(
            [program, "verify", *map(str, units)], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_nginx_and_systemd_speak_of_one_socket(self) -> None:
        path = self.value("asgiserver.socket", "Socket", "ListenStream")
        assert f"server unix:{path};" in (DEPLOY / "nginx.conf").read_text("utf-8")

    def test_the_service_answers_on_the_socket_it_was_given(self, folder: Path, listening: socket.socket) -> None:
        program, *args = shlex.split(self.value("asgiserver.service", "Service", "ExecStart"))
        assert program.endswith("/bin/asgiserver")
        path = listening.getsockname()
        env = {
            "LISTEN_FDS": "1", "LISTEN_FDNAMES": "asgiserver.socket", "DJANGO_DATABASE": str(folder / "s.sqlite3"),
            "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "1000000",
        }  # fmt: skip
        with closing(Systemd(env["NOTIFY_SOCKET"])) as systemd, ServerProcess(
            *args, "--app-dir", "examples/django_project", env=env, pass_fds=[listening.fileno()],
            command=handed_over(listening.fileno(), 3),
        ) as server, httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=DEADLINE) as client:  # fmt: skip
            headers = {"x-forwarded-for": "198.51.100.4", "x-forwarded-proto": "https"}
            for name in ("READY", "WATCHDOG"):
                systemd.wait_for(name, "1")
            page = client.get("http://localhost/", headers=headers)
            assert page.status_code == 200, server.output()
            assert "to 198.51.100.4 over https" in page.text
        assert server.returncode == 0
        assert os.path.exists(path), "the socket is systemd's, and the next start needs it"

    def value(self, file: str, section: str, key: str) -> str:
        parser = RawConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(DEPLOY / file, "utf-8")
        return parser[section][key]
