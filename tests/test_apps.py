"""asgiserver in ``INSTALLED_APPS``."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import AppConfig
from django.core import checks

from asgiserver.apps import ASGIServerConfig
from asgiserver.django.checks import check_daphne, check_order, check_settings


def test_django_finds_the_configuration_by_the_packages_name() -> None:
    config = AppConfig.create("asgiserver")
    assert type(config) is ASGIServerConfig
    assert (config.name, config.label) == ("asgiserver", "asgiserver")


def test_the_checks_are_registered_when_django_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(checks, "register", lambda *given: registered.append(given))
    AppConfig.create("asgiserver").ready()
    assert registered == [(check_order, checks.Tags.staticfiles), (check_settings,), (check_daphne,)]
