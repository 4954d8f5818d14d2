from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.programs import require


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
