from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.programs import missing, require


class TestRequire:
    def test_a_program_on_the_path_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        python = Path(sys.executable)
        monkeypatch.setenv("PATH", str(python.parent))
        assert require(python.name) == str(python)

    def test_a_missing_program_skips_the_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
            require("no-such-program")

    def test_a_missing_program_fails_the_test_where_ci_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed, and CI is set"):
            require("no-such-program")


class TestMissing:
    def test_it_skips_the_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match=r"^no network$"):
            missing("no network")

    def test_it_fails_the_test_where_ci_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match=r"^no network, and CI is set$"):
            missing("no network")


def test_the_programs_that_tests_require_are_those_that_are_installed_before_them() -> None:
    tests = Path(__file__).parent
    text = "".join(path.read_text("utf-8") for path in (tests / "e2e").glob("*.py"))
    line = re.search(r"^for program in (.+); do$", (tests.parent / ".ci/run").read_text("utf-8"), re.MULTILINE)
    assert line is not None
    installed = {name.partition("/")[0] for name in line[1].split()}
    assert set(re.findall(r'require\("([\w-]+)"\)', text)) == installed
