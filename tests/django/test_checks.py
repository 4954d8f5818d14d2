"""The system checks, without a project."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import BaseCommand

from asgiserver.django import checks
from asgiserver.management.commands.runserver import Command


class Derived(Command):
    """What another application has made of ours."""


def owned_by(monkeypatch: pytest.MonkeyPatch, owner: str | BaseCommand, command: BaseCommand | None = None) -> None:
    def load(name: str, subcommand: str) -> BaseCommand:
        assert (name, subcommand) == (owner, "runserver")
        assert command is not None, "the server is loaded where there is no need"
        return command

    monkeypatch.setattr(checks, "get_commands", lambda: {"runserver": owner})
    monkeypatch.setattr(checks, "load_command_class", load)


class TestOrder:
    def test_ours_is_right(self, monkeypatch: pytest.MonkeyPatch) -> None:
        owned_by(monkeypatch, "asgiserver")
        assert checks.check_order(None) == []

    def test_so_is_one_that_is_made_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        owned_by(monkeypatch, "mysite", Derived())
        assert checks.check_order(None) == []
        owned_by(monkeypatch, Derived())
        assert checks.check_order(None) == []

    def test_another_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        owned_by(monkeypatch, "django.contrib.staticfiles", BaseCommand())
        [error] = checks.check_order(None)
        assert error.id == "asgiserver.E001"
        assert error.is_serious()
        assert "django.contrib.staticfiles stands before asgiserver" in error.msg
        assert error.hint == 'Put "asgiserver" at the top of INSTALLED_APPS.'


class TestSettings:
    def found(self, monkeypatch: pytest.MonkeyPatch, **values: Any) -> list[str]:
        monkeypatch.setattr(checks, "settings", SimpleNamespace(**values))
        messages = checks.check_settings(None)
        assert {(each.id, each.is_serious()) for each in messages} <= {("asgiserver.W001", False)}
        return [each.msg for each in messages]

    def test_a_known_one_and_others_are_right(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.found(monkeypatch, ASGISERVER_PING_INTERVAL=3, DEBUG=True, DAPHNE_X=1) == []

    def test_a_misspelt_one_and_one_without_meaning_are_warned_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.found(monkeypatch, ASGISERVER_PING_INTERVALL=3, ASGISERVER_PORT=3)
        assert found == [
            "The setting ASGISERVER_PING_INTERVALL has no effect.",
            "The setting ASGISERVER_PORT has no effect.",
        ]


class TestDaphne:
    class Case:
        """Stands in for ``ChannelsLiveServerTestCase``."""

        ProtocolServerProcess: type = type("DaphneProcess", (), {"__module__": "daphne.testing"})

    @pytest.fixture(autouse=True)
    def project(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "apps", SimpleNamespace(is_installed=lambda name: False))
        monkeypatch.setitem(sys.modules, "channels.testing", SimpleNamespace(ChannelsLiveServerTestCase=self.Case))

    def test_it_is_warned_of_among_the_applications(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "apps", SimpleNamespace(is_installed=lambda name: name == "daphne"))
        [warning] = checks.check_daphne(None)
        assert (warning.id, warning.is_serious()) == ("asgiserver.W002", False)
        assert warning.msg == "daphne is in INSTALLED_APPS beside asgiserver."

    def test_tests_that_run_on_it_are_named(self) -> None:
        class Ours(self.Case):  # type: ignore[name-defined, misc]
            ProtocolServerProcess = type("ServerProcess", (), {"__module__": "asgiserver.testing.process"})

        class Theirs(self.Case):  # type: ignore[name-defined, misc]
            pass

        class Further(Theirs):
            pass

        found = checks.check_daphne(None)
        assert [each.id for each in found] == ["asgiserver.W002"] * 2
        assert "Theirs run on Daphne." in found[0].msg
        assert "Further run on Daphne." in found[1].msg
        assert Ours.__name__ not in str(found)

    def test_without_any_there_is_nothing_to_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "channels.testing")
        assert checks.check_daphne(None) == []
