"""What is made of the outcome of Django's own tests, and what is kept of their sdist."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.django import suite
from tests.django.suite_process import label

RELEASE = suite.version("django")


class Parts(unittest.TestCase):
    """Fails in two of its parts. It is no test of ours."""

    __test__ = False

    def test_parts(self) -> None:
        for number in range(2):
            with self.subTest(number=number):
                self.fail()


class NoSetUp(unittest.TestCase):
    """Never comes to its test. It is no test of ours."""

    __test__ = False

    @classmethod
    def setUpClass(cls) -> None:
        raise OSError

    def test_nothing(self) -> None: ...


def result_of(tests: unittest.TestSuite) -> unittest.TestResult:
    result = unittest.TestResult()
    tests.run(result)
    return result


class TestLabel:
    def test_of_a_method_it_is_its_id(self) -> None:
        assert label(Parts("test_parts")) == Parts("test_parts").id()

    def test_of_a_part_it_is_the_methods(self) -> None:
        result = result_of(unittest.TestSuite([Parts("test_parts")]))
        assert [label(test) for test, _ in result.failures] == [Parts("test_parts").id()] * 2
        assert len({test.id() for test, _ in result.failures}) == 2

    def test_of_a_set_up_it_is_the_class(self) -> None:
        result = result_of(unittest.TestSuite([NoSetUp("test_nothing")]))
        assert [label(test) for test, _ in result.errors] == [f"{__name__}.NoSetUp"]

    def test_of_a_module_that_cannot_be_imported_it_is_the_module(self) -> None:
        result = result_of(unittest.defaultTestLoader.loadTestsFromName("no_such_module"))
        assert [label(test) for test, _ in result.errors] == ["no_such_module"]


def outcome(**failed: str) -> suite.Outcome:
    return suite.Outcome(run=9, failed=failed, served={}, passed_by={}, output="")


class Runs:
    """Stands for the runs of Django's tests: keeps what was asked for, and gives outcomes in their order."""

    def __init__(self, *outcomes: suite.Outcome) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[tuple[str, list[str]]] = []

    def __call__(self, tests: Path, handler: str, labels: Sequence[str]) -> suite.Outcome:
        self.calls.append((handler, list(labels)))
        return self.outcomes.pop(0)


class TestCompare:
    def test_what_fails_with_our_handler_alone_is_a_regression(self, monkeypatch: pytest.MonkeyPatch) -> None:
        alone = outcome(), outcome(one="b", two="b"), outcome(ours="c")
        failed = outcome(both="a", one="b", two="b", ours="c", neighbours="d")
        runs = Runs(failed, outcome(both="a", two="b", other="b"), *alone)
        monkeypatch.setattr(suite, "run", runs)
        ours, regressions = suite.compare(Path(), "module:Class", ["asgi"])
        assert (len(ours.failed), regressions) == (5, ["one", "ours"])
        alone_calls = [("module:Class", [label]) for label in "dbc"]
        assert runs.calls == [("module:Class", ["asgi"]), (suite.OWN, ["a", "b", "c", "d"]), *alone_calls]

    def test_djangos_handler_is_not_asked_without_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runs = Runs(outcome())
        monkeypatch.setattr(suite, "run", runs)
        assert suite.compare(Path(), "module:Class", ["asgi"])[1] == []
        assert len(runs.calls) == 1


class Pip:
    """Stands for pip: puts an sdist with these files where it is told to, or fails."""

    def __init__(self, files: dict[str, str] | None) -> None:
        self.files = files
        self.commands: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.files is None:
            return subprocess.CompletedProcess(command, 1, "", "no network")
        (folder,) = (option.removeprefix("--dest=") for option in command if option.startswith("--dest="))
        with tarfile.open(Path(folder, f"django-{RELEASE}.tar.gz"), "w:gz") as archive:
            for name, text in self.files.items():
                member = tarfile.TarInfo(f"django-{RELEASE}/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        return subprocess.CompletedProcess(command, 0, "", "")


class TestSource:
    def test_the_tests_of_the_installed_release_are_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pip = Pip({"setup.py": "", "django/tests/no.py": "", "tests/runtests.py": "run", "tests/asgi/tests.py": "test"})
        monkeypatch.setattr(subprocess, "run", pip)
        for _ in range(2):
            folder = suite.django_tests(tmp_path / "cache")
        assert folder == tmp_path / "cache" / f"django-{RELEASE}"
        assert {str(path.relative_to(folder)) for path in folder.rglob("*.py")} == {"runtests.py", "asgi/tests.py"}
        assert list(folder.parent.iterdir()) == [folder]
        (command,) = pip.commands
        assert command[:4] == (sys.executable, "-m", "pip", "download")
        assert command[-1] == f"django=={RELEASE}"

    def test_nothing_is_unpacked_outside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(subprocess, "run", Pip({"tests/../../../outside": ""}))
        with pytest.raises(tarfile.OutsideDestinationError):
            suite.django_tests(tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []

    def test_without_the_sdist_pips_words_are_the_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(subprocess, "run", Pip(None))
        with pytest.raises(suite.SourceMissingError, match="no network"):
            suite.django_tests(tmp_path)
        assert list(tmp_path.iterdir()) == []
