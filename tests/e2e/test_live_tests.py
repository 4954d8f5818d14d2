"""Test cases of a Django project against a live server, run as its developers run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import require
from tests.test_readme import example

from .server import ROOT, environment

#: Seconds for a browser and a few servers to start on a busy machine.
DEADLINE = 90.0

#: Twisted keeps one descriptor in reserve, for when there are no more, and never closes it.
STRICT = ("-W", "error", "-W", "ignore:unclosed file:ResourceWarning")

MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.e2e.live_project.settings"
for name in os.environ.get("LIVE_WITHOUT", "").split():
    sys.modules[name] = None
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "test", "--noinput", *sys.argv[1:]])
"""


@pytest.fixture(params=["memory", "file"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ":memory:" if request.param == "memory" else str(tmp_path / "live.sqlite3")


def manage_test(*labels: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """``manage.py test``, with warnings as errors."""
    return subprocess.run(
        [sys.executable, *STRICT, "-c", MANAGE, *(f"tests.e2e.live_project.{label}" for label in labels)],
        cwd=ROOT, env=environment({"LIVE_MEDIA": str(tmp_path), **env}), capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip


def passed(done: subprocess.CompletedProcess[str], tests: int) -> None:
    assert done.returncode == 0, done.stderr
    assert f"Ran {tests} tests in" in done.stderr
    assert "\nOK\n" in done.stderr
    # Nor anything that unittest or Python says about what was left open.
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


class TestASGILiveServerTestCase:
    def test_a_browser_and_the_test_see_each_others_rows(self, database: str, tmp_path: Path) -> None:
        require("chromium")
        done = manage_test("asgi_cases.BrowserTests", tmp_path=tmp_path, LIVE_DATABASE=database)
        passed(done, 2)

    def test_views_consumers_files_and_what_is_left(self, database: str, tmp_path: Path) -> None:
        labels = ("asgi_cases.RequestTests", "asgi_cases.LastTests")
        # The browser's driver has no part in it, and Daphne is not needed.
        done = manage_test(*labels, tmp_path=tmp_path, LIVE_DATABASE=database, LIVE_WITHOUT="daphne")
        passed(done, 5)

    def test_what_the_application_raises_is_an_error_of_the_test(self, tmp_path: Path) -> None:
        done = manage_test("asgi_cases.FailingTests", tmp_path=tmp_path)
        assert done.returncode == 1
        assert "FAILED (errors=2)" in done.stderr
        assert "LookupError: the view fails" in done.stderr
        assert "LookupError: the consumer fails" in done.stderr

    def test_the_readmes_cases(self, tmp_path: Path) -> None:
        (tmp_path / "readme_cases.py").write_text(example("channels") + example("django"))
        program = MANAGE.replace("import os, sys", f"import os, sys; sys.path.insert(0, {str(tmp_path)!r})")
        done = subprocess.run(
            [sys.executable, *STRICT, "-c", program, "readme_cases"],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        passed(done, 2)

    def test_under_pytest(self, tmp_path: Path) -> None:
        """Whose unittest support calls the same hooks."""
        program = (
            "import django, sys, pytest\n"
            "from django.test.utils import get_runner, setup_databases, setup_test_environment\n"
            "django.setup()\n"
            "setup_test_environment()\n"
            "setup_databases(0, False)\n"
            "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-o', 'addopts=', *sys.argv[1:]]))\n"
        )
        cases = "tests/e2e/live_project/asgi_cases.py"
        env = environment({"DJANGO_SETTINGS_MODULE": "tests.e2e.live_project.settings", "LIVE_MEDIA": str(tmp_path)})
        done = subprocess.run(
            [sys.executable, "-c", program, f"{cases}::RequestTests", f"{cases}::FailingTests"],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert "2 failed, 4 passed" in done.stdout, done.stdout
        assert "LookupError: the view fails" in done.stdout


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow), "spawn"])
class TestChannelsLiveServerTestCase:
    """Channels' own, with ``ServerProcess`` in Daphne's place."""

    def test_two_people_chat(self, method: str, tmp_path: Path) -> None:
        done = manage_test(
            "channels_cases.ChatTests", tmp_path=tmp_path,
            LIVE_DATABASE=str(tmp_path / "live.sqlite3"), LIVE_START_METHOD=method,
        )  # fmt: skip
        passed(done, 2)

    def test_a_start_that_fails_is_shown_with_its_cause(self, method: str, tmp_path: Path) -> None:
        done = manage_test(
            "channels_cases.FailingTests", tmp_path=tmp_path,
            LIVE_DATABASE=str(tmp_path / "live.sqlite3"), LIVE_START_METHOD=method, LIVE_BROKEN="1",
        )  # fmt: skip
        assert done.returncode == 1
        assert "StartupError: the server did not start: Traceback" in done.stderr
        assert done.stderr.count("LookupError: the application is broken") == 2
        assert os.path.join("live_project", "asgi.py") in done.stderr
