"""The fixture, in a run of pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CONFTEST = 'pytest_plugins = ["asgiserver.pytest_plugin"]\n'

TESTS = '''
import httpx
import pytest
from tests.e2e.live_applications import application


def test_it_serves(asgi_server):
    one, two = asgi_server(application), asgi_server(application, server_name="two")
    assert httpx.get(one.url).headers["server"] == "asgiserver"
    assert httpx.get(two.url).headers["server"] == "two"
    global used
    used = one.url


def test_it_has_stopped_after_the_test():
    with pytest.raises(httpx.ConnectError):
        httpx.get(used)


def test_an_exception_fails_the_test(asgi_server):
    httpx.get(asgi_server(application).url + "/fail")


def test_an_expected_one_does_not(asgi_server):
    server = asgi_server(application)
    httpx.get(server.url + "/fail")
    assert str(server.exceptions.pop()) == "the application fails"


@pytest.fixture
def server(asgi_server):
    yield asgi_server(application)
    httpx.get(asgi_server(application).url + "/fail")


def test_an_exception_is_raised_for_a_server_of_another_fixture(server):
    httpx.get(server.url + "/fail-too")


def test_that_fails(asgi_server):
    asgi_server(application)
    assert False
'''


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-W", "error", "-p", "no:cacheprovider", str(folder)],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout


class TestFixture:
    @pytest.mark.parametrize(
        "name", ["test_it_serves", "test_it_has_stopped_after_the_test", "test_an_expected_one_does_not"]
    )
    def test_it_serves_for_the_length_of_a_test(self, output: str, name: str) -> None:
        assert re.search(rf"PASSED \S*::{name}\n", output), output

    def test_an_exception_of_the_application_is_one_of_the_test(self, output: str) -> None:
        assert re.search(r"FAILED \S*::test_an_exception_fails_the_test - ZeroDivisionError", output), output

    def test_servers_that_another_fixture_has_started_count(self, output: str) -> None:
        name = "test_an_exception_is_raised_for_a_server_of_another_fixture"
        assert re.search(rf"FAILED \S*::{name} - LookupError: it fails again", output), output
        # What is raised after the test is the fixture's.
        assert re.search(rf"ERROR \S*::{name} - ZeroDivisionError", output), output

    def test_nothing_else_fails(self, output: str) -> None:
        assert re.search(r"3 failed, 3 passed, 1 error in", output), output

    def test_it_says_in_the_list_of_fixtures_what_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "conftest.py").write_text(CONFTEST)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--fixtures", "-q", "-p", "no:cacheprovider", str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Starts servers for the length of a test" in done.stdout
