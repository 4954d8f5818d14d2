"""``asgiserver.run`` without serving; the rest is in e2e."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asgiserver
from asgiserver import Server, running
from asgiserver.errors import SettingsError


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that were run; none takes the process over."""
    found: list[Server] = []
    monkeypatch.setattr(Server, "run", lambda self: found.append(self))
    monkeypatch.setattr(running, "install_reactor", lambda loop: None)
    return found


async def application(scope: Any, receive: Any, send: Any) -> None: ...


def test_it_is_the_packages_own_name() -> None:
    assert asgiserver.run is running.run


def test_an_application_may_be_named(served: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_for_running.py").write_text("async def app(scope, receive, send): ...")
    monkeypatch.setattr("sys.path", [])
    asgiserver.run("named_for_running:app", app_dir=str(tmp_path), port=5, log_level="debug")
    assert (served[0].settings.port, served[0].settings.verbosity) == (5, 2)
    assert served[0].application.__name__ == "app"


def test_settings_are_those_of_the_server(served: list[Server]) -> None:
    asgiserver.run(application, asgiserver.Settings(port=5), host="::1")
    assert (served[0].settings.port, served[0].settings.host) == (5, "::1")


@pytest.mark.parametrize("setting", [{"workers": 2}, {"reload": True}])
def test_other_processes_are_the_commands(setting: dict[str, Any], served: list[Server]) -> None:
    [name] = setting
    with pytest.raises(SettingsError, match=f"{name}: only the command line starts processes: asgiserver --{name}"):
        asgiserver.run(application, **setting)
    assert served == []
