from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from asgiserver import __version__

from .server import DEADLINE, ROOT, ServerProcess, environment, run_command, wait_for

ANSWER = """
    assert scope["type"] == "http", scope["type"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s"})
"""

#: Modules of the applications' folder.
MODULES = {
    "alone_application": "app = None\nasync def application(scope, receive, send):" + ANSWER % "application",
    "alone_app": "async def app(scope, receive, send):" + ANSWER % "app",
    "package/__init__": "",
    "package/made": "class Site:\n  async def __call__(self, scope, receive, send):"
    + (ANSWER % "made").replace("\n    ", "\n      ")
    + "\nclass holder:\n  site = Site()",
    "double": """
def application(scope):
    async def instance(receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"double"})
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    return instance
""",
    "synchronous": """
def application(environ, start_response):
    start_response("200 OK", [("X-Path", environ["PATH_INFO"])])
    return [b"synchronous"]
""",
    "threads": """
import asyncio, threading
barrier = threading.Barrier(3)
def job():
    barrier.wait(10)
    return threading.current_thread().name
async def app(scope, receive, send):
    assert scope["type"] == "http"
    loop = asyncio.get_running_loop()
    names = await asyncio.gather(*(loop.run_in_executor(None, job) for _ in range(12)))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(set(names))).encode()})
""",
    "broken": "import not_installed_anywhere",
    "configures": """
import logging.config
logging.config.dictConfig({"version": 1})
async def app(scope, receive, send):
    assert scope["type"] == "http"
    raise ValueError("the page is broken")
""",
    "breaks": """
async def app(scope, receive, send):
    await receive()
    raise ConnectionError("no way to the database")
""",
    "slow": "import time\nprint('importing', flush=True)\ntime.sleep(60)",
    "constant": "app = 3",
}


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("applications")
    for name, source in MODULES.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    return folder


class TestServing:
    @pytest.mark.parametrize(
        ("arguments", "answer"),
        [
            (["alone_application"], "application"),
            (["alone_app"], "app"),
            (["package.made:holder.site"], "made"),
            (["--factory", "package.made:Site"], "made"),
            (["double:application"], "double"),
            (["--interface", "asgi2", "double"], "double"),
            (["--interface", "wsgi", "synchronous"], "synchronous"),
        ],
        ids=" ".join,
    )
    def test_an_application_of_the_current_folder(
        self, arguments: list[str], answer: str, applications: Path
    ) -> None:
        with ServerProcess("-p", "0", *arguments, cwd=applications) as server:
            assert httpx.get(server.url).text == answer
        assert server.returncode == 0

    def test_an_application_of_another_folder(self, applications: Path, tmp_path: Path) -> None:
        with ServerProcess("-p", "0", "--app-dir", str(applications), "alone_app", cwd=tmp_path) as server:
            assert httpx.get(server.url).text == "app"

    def test_the_environment_is_read_and_a_flag_wins(self, applications: Path) -> None:
        variables = {"ASGISERVER_PORT": "1", "ASGISERVER_SERVER_NAME": "from-environment", "ASGISERVER_HOST": "[::1]"}
        with ServerProcess("-p", "0", "-b", "127.0.0.1", "alone_app", cwd=applications, env=variables) as server:
            assert server.url.startswith("http://127.0.0.1:")
            assert httpx.get(server.url).headers["server"] == "from-environment"

    def test_daphnes_spellings_and_abbreviations(self, applications: Path, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        arguments = ["--unix", path, "--verb", "2", "--websocket_timeout", "-1", "--access=-", "--no", "-t", "30"]
        with ServerProcess(*arguments, "alone_app:app", cwd=applications) as server:
            with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
                assert "server" not in client.get("http://any/here").headers
            wait_for(lambda: '"GET /here" 200' in server.output())

    def test_the_console_script_acts_the_same(self, applications: Path) -> None:
        script = (sys.executable, "-c", "import sys; from asgiserver.cli import main; sys.exit(main())")
        with ServerProcess("-p", "0", "alone_app", cwd=applications, command=script) as server:
            assert httpx.get(server.url).text == "app"
        assert server.returncode == 0

    def test_asgi_threads_sizes_the_default_executor(self, applications: Path) -> None:
        with ServerProcess("-p", "0", "threads", cwd=applications, env={"ASGI_THREADS": "3"}) as server:
            assert httpx.get(server.url).text == "3"

    def test_an_application_that_configures_logging_does_not_silence_the_server(self, applications: Path) -> None:
        """``dictConfig`` disables the loggers that are there already, unless it is told not to."""
        with ServerProcess("-p", "0", "configures", cwd=applications) as server:
            assert httpx.get(server.url).status_code == 500
            wait_for(lambda: '"GET /" 500' in server.output())
        words = server.output()
        assert "Listening on http://127.0.0.1:" in words
        assert "Exception in the application for GET '/'" in words
        assert words.count("ValueError: the page is broken") == 1
        assert "Stopping" in words

    def test_verbosity_0_says_nothing(self, applications: Path, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        process = subprocess.Popen(
            [sys.executable, "-m", "asgiserver", "-v", "0", "-u", str(path), "alone_app"],
            cwd=applications, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        with process:
            try:
                wait_for(path.exists)
                with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
                    assert client.get("http://any/").text == "app"
            finally:
                process.terminate()
                output, _ = process.communicate(timeout=DEADLINE)
        assert (process.returncode, output) == (0, b"")


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "status", "line"),
        [
            ([], 2, "the following arguments are required"),
            (["--bogus", "alone_app"], 2, "there is no --bogus"),
            (["-v", "9", "alone_app"], 2, "-v: expected at most 3, got 9"),
            (["missing:app"], 2, "no module named 'missing'"),
            (["alone_app:application"], 2, "module 'alone_app' has no attribute 'application'; it has 'app'"),
            (["alone_app.py:app"], 2, "'alone_app.py' is a file's path; write the module with dots: 'alone_app:app'"),
            (["constant"], 2, "an object of type 'int' cannot be called"),
            (["synchronous"], 2, "'application' (function) looks like a WSGI application; use --interface wsgi or"),
            (["--app-dir", "nowhere", "alone_app"], 2, "--app-dir: there is no folder 'nowhere'"),
            (["--log-config", "nowhere.toml", "alone_app"], 2, "--log-config: "),
            (["-e", "no:1", "alone_app"], 2, "-e: 'no:1': Unknown endpoint type: 'no'; there are tcp, tcp6, ssl, "),
            (["--ssl-certfile", "nowhere.pem", "-p", "0", "alone_app"], 2, "--ssl-certfile: cannot read nowhere.pem"),
        ],
        ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else None,
    )
    def test_each_is_one_line_and_a_status(
        self, arguments: list[str], status: int, line: str, applications: Path
    ) -> None:
        ended = run_command(*arguments, cwd=applications)
        assert ended.stderr.startswith(f"asgiserver: error: {line}")
        assert ended.stderr.count("\n") == 1
        assert (ended.returncode, ended.stdout) == (status, "")

    def test_a_port_in_use_is_one_line_that_names_it_and_status_1(self, applications: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ended = run_command("-p", str(port), "alone_app", cwd=applications)
        assert ended.stderr.startswith("asgiserver: error: ")
        assert str(port) in ended.stderr
        assert f"in use: ss -ltnp 'sport = :{port}' shows by whom\n" in ended.stderr
        assert (ended.returncode, ended.stderr.count("\n"), ended.stdout) == (1, 1, "")

    def test_a_start_up_that_raises_shows_the_applications_traceback_and_status_3(self, applications: Path) -> None:
        ended = run_command("-p", "0", "--lifespan", "on", "breaks", cwd=applications)
        assert f'File "{applications}{os.sep}breaks.py", line 4, in app' in ended.stderr
        assert ended.stderr.count("Traceback") == 1
        last = ended.stderr.splitlines()[-1]
        assert last.startswith("asgiserver: error: the application raised ConnectionError: no way to the database")
        assert (ended.returncode, ended.stdout) == (3, "")

    def test_an_error_inside_the_application_is_its_own_traceback_and_status_1(self, applications: Path) -> None:
        ended = run_command("broken:app", cwd=applications)
        assert ended.stderr.startswith(f'Traceback (most recent call last):\n  File "{applications}{os.sep}broken.py"')
        assert ended.stderr.endswith("ModuleNotFoundError: No module named 'not_installed_anywhere'\n")
        assert ended.returncode == 1

    def test_threads_that_are_no_number_are_refused(self, applications: Path) -> None:
        ended = run_command("-p", "0", "alone_app", cwd=applications, env={"ASGI_THREADS": "many"})
        line = "asgiserver: error: ASGI_THREADS: expected a whole number of at least 1, got 'many'\n"
        assert (ended.returncode, ended.stderr) == (2, line)

    def test_an_interrupt_during_the_import_is_quiet_and_status_0(self, applications: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "asgiserver", "slow:app"], cwd=applications, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "importing\n"
                process.send_signal(signal.SIGINT)
                assert process.wait(DEADLINE) == 0
                assert process.stderr is not None
                assert process.stderr.read() == ""
            finally:
                process.kill()


class TestMisspeltVariables:
    def test_are_named(self) -> None:
        ended = run_command("no_such_module", env={"ASGISERVER_HED_TIMEOUT": "5"})
        assert "WARNING  ASGISERVER_HED_TIMEOUT is not the variable of any setting and is ignored" in ended.stderr
        assert ended.returncode == 2


class TestInformation:
    def test_version(self) -> None:
        ended = run_command("--version")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"asgiserver {__version__}\n", "")

    def test_help(self) -> None:
        ended = run_command("--help", env={"COLUMNS": "80"}, cwd=ROOT)
        assert ended.returncode == 0
        assert ended.stdout.startswith("usage: asgiserver [options] [MODULE:ATTRIBUTE]\n")
        assert max(map(len, ended.stdout.splitlines())) <= 80
