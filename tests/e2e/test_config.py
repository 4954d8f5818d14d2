"""The command line with its files: served, shown and checked as a deployment does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.server import DEADLINE, ServerProcess, environment, run_command

APPLICATION = """
import os
print("imported with", os.environ.get("COLOUR"), flush=True)

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        print("the lifespan runs", flush=True)
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": os.environ["COLOUR"].encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "coloured.py").write_text(APPLICATION, "utf-8")
    return tmp_path


class TestServing:
    def test_a_file_alone_is_a_command(self, folder: Path) -> None:
        (folder / "asgiserver.toml").write_text(
            'application = "coloured:application"\napp-dir = "site"\nport = 0\nserver-name = "from the file"\n'
        )
        (folder / "env").write_text("export COLOUR='red'  # not blue\nASGISERVER_VERBOSITY=2\n")
        with ServerProcess("--env-file", "env", cwd=folder) as server:
            answer = httpx.get(server.url)
            assert (answer.text, answer.headers["server"]) == ("red", "from the file")
        assert "imported with red" in server.output()

    def test_a_file_elsewhere_means_the_folder_that_it_is_in(self, folder: Path) -> None:
        (folder / "site" / "pyproject.toml").write_text('[tool.asgiserver]\napp-dir = "."\nport = 0\n')
        config = str(folder / "site" / "pyproject.toml")
        env = {"COLOUR": "blue", "ASGISERVER_SERVER_NAME": "mine", "ASGISERVER_CONFIG": config}
        with ServerProcess("coloured", env=env) as server:
            answer = httpx.get(server.url)
            assert (answer.text, answer.headers["server"]) == ("blue", "mine")
        assert "is not the variable of any setting" not in server.output()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("prot = 1", "asgiserver.toml: there is no setting 'prot'; did you mean port?"),
            ("port = 'x'", "asgiserver.toml: port: expected a whole number, got 'x'"),
            ("verbosity = 0", "the following arguments are required: MODULE:ATTRIBUTE (see asgiserver --help)"),
        ],
    )
    def test_a_mistake_is_one_line_with_status_2(self, text: str, message: str, folder: Path) -> None:
        (folder / "asgiserver.toml").write_text(text)
        ended = run_command(cwd=folder)
        assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"asgiserver: error: {message}\n")


class TestShown:
    def test_it_needs_no_application_and_feeds_itself(self, folder: Path) -> None:
        (folder / "asgiserver.toml").write_text('port = 5\nunix-socket-mode = "600"\n')
        first = run_command("--show-settings", "--header", "X: \u00e4", "-t", "0", cwd=folder)
        assert (first.returncode, first.stderr) == (0, "")
        (folder / "site" / "shown.toml").write_text(first.stdout, "utf-8")
        again = run_command("--show-settings", "--config", "site/shown.toml", cwd=folder)
        assert (again.returncode, again.stderr) == (0, "")

        def settings(text: str) -> list[str]:
            return [line.partition("  # ")[0] for line in text.splitlines()]

        assert settings(again.stdout) == settings(first.stdout)
        assert "port = 5  # site/shown.toml" in again.stdout.splitlines()
        assert 'header = ["X: \u00e4"]  # site/shown.toml' in again.stdout.splitlines()


class TestCheck:
    """Each with the status and the line of a start, and nothing that a server beside it could notice."""

    def check(self, folder: Path, *args: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        ended = run_command("--check", "--app-dir", "site", *args, cwd=folder, env=env)
        return ended.returncode, ended.stdout, ended.stderr

    def test_it_binds_nothing_and_runs_no_lifespan(self, folder: Path) -> None:
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(folder / "pem")
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket(socket.AF_UNIX) as served:
            port = taken.getsockname()[1]
            served.bind(str(folder / "served"))
            served.listen()
            status, output, error = self.check(
                folder, "-p", str(port), "--ssl-certfile", "pem", "-u", "served", "--fd", "77", "-e", "unix:made",
                "-e", f"tcp:{port}:interface=127.0.0.1", "-e", f"haproxy:tcp:{port}", "-e", "systemd:index=0",
                "-e", f"ssl:{port}:privateKey=pem", "coloured",
            )  # fmt: skip
        assert (status, error) == (0, "")
        assert output == "imported with None\nasgiserver: coloured can be served with these settings\n"
        assert sorted(os.listdir(folder)) == ["pem", "served", "site"]

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["missing"], "no module named 'missing'"),
            (["coloured:nothing"], "module 'coloured' has no attribute 'nothing'"),
            (["--ssl-certfile", "nowhere.pem", "coloured"], "--ssl-certfile: cannot read nowhere.pem"),
            (["--ssl-certfile", "pem", "-u", "x", "coloured"], "--ssl-certfile is for a host and port"),
            (["--redirect-to-https", "80", "coloured"], "--redirect-to-https needs --ssl-certfile"),
            (["-e", "tcp:none", "coloured"], "-e: 'tcp:none': expected tcp:PORT"),
            (["-e", "unix:/x:mode=rw", "coloured"], "-e: 'unix:/x:mode=rw': expected unix:PATH"),
            (["-e", "systemd:", "coloured"], "-e: 'systemd:': expected systemd:index"),
            (["-e", "ssl:1:privateKey=none", "coloured"], "-e: 'ssl:1:privateKey=none': "),
            (["--forwarded-allow-ips", "x", "--proxy-headers", "coloured"], "--forwarded-allow-ips: "),
            (["--header", "TE: x", "coloured"], "--header: "),
            (["--access-log-format", "%(nothing)s", "coloured"], "--access-log-format: "),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_a_mistake_is_one_line_with_status_2(self, args: list[str], message: str, folder: Path) -> None:
        status, _, error = self.check(folder, *args)
        assert error.startswith(f"asgiserver: error: {message}")
        assert (status, error.count("\n")) == (2, 1)

    def test_a_wrong_number_of_threads_is_found(self, folder: Path) -> None:
        status, _, error = self.check(folder, "coloured", env={"ASGI_THREADS": "many"})
        assert (status, error.count("\n")) == (2, 1)
        assert "ASGI_THREADS: expected a whole number" in error

    def test_an_application_that_cannot_be_imported_shows_its_traceback_with_status_1(self, folder: Path) -> None:
        (folder / "site" / "broken.py").write_text("1 / 0\n")
        status, output, error = self.check(folder, "broken")
        assert (status, output) == (1, "")
        assert error.endswith("ZeroDivisionError: division by zero\n")


def test_what_embeds_the_server_is_not_asked(folder: Path) -> None:
    """A file in the working directory is the command line's: here it would be refused."""
    (folder / "asgiserver.toml").write_text("nonsense = 1\n")
    program = (
        "import asyncio\n"
        "from asgiserver import Server, Settings\n"
        "from asgiserver.service import ASGIService\n"
        "async def application(scope, receive, send): ...\n"
        "async def main():\n"
        "    ASGIService(application)\n"
        "    async with Server(application, Settings(port=0, lifespan='off')) as server:\n"
        "        print('served', len(server.listeners))\n"
        "asyncio.run(main())\n"
    )
    (folder / "program.py").write_text(program)
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment(), capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert ended.stdout == "served 1\n", ended.stderr
