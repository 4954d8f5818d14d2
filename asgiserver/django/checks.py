"""Django's system checks: ``runserver`` is ours, each ``ASGISERVER_…`` setting counts, and no test runs on Daphne."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.management import BaseCommand, get_commands, load_command_class

from .project import django_names

__all__ = ["check_daphne", "check_order", "check_settings"]


def check_order(app_configs: Any, **_: Any) -> list[checks.CheckMessage]:
    """E001: Django takes ``runserver`` from the first application that has one, which should be ours."""
    owner = get_commands().get("runserver")
    if owner == "asgiserver":
        return []
    # Not imported before it is needed: every command of manage.py runs the checks, and this loads the whole server.
    from ..management.commands.runserver import Command

    command = owner if isinstance(owner, BaseCommand) else load_command_class(owner, "runserver")
    if isinstance(command, Command):
        # Another application has subclassed our command.
        return []
    return [
        checks.Error(
            f"runserver is {owner}'s, because {owner} stands before asgiserver in INSTALLED_APPS.",
            hint='Put "asgiserver" at the top of INSTALLED_APPS.',
            id="asgiserver.E001",
        )
    ]


def check_settings(app_configs: Any, **_: Any) -> list[checks.CheckMessage]:
    """W001: a setting that is misspelt, or has no meaning to ``runserver``, must not be ignored in silence."""
    given = sorted(name for name in dir(settings) if name.startswith("ASGISERVER_"))
    return [
        checks.Warning(
            f"The setting {name} has no effect.",
            hint="The names are those of `asgiserver --show-settings`, but without address and logging.",
            id="asgiserver.W001",
        )
        for name in given
        if name not in django_names()
    ]


def check_daphne(app_configs: Any, **_: Any) -> list[checks.CheckMessage]:
    """W002: a project that is served by asgiserver should not be tested on Daphne.

    ``manage.py test`` has imported the tests when it runs the checks.
    """
    found = []
    if apps.is_installed("daphne"):
        hint = 'Take "daphne" out of INSTALLED_APPS: it installs its own reactor, and brings another runserver.'
        found.append(checks.Warning("daphne is in INSTALLED_APPS beside asgiserver.", hint=hint, id="asgiserver.W002"))
    live = getattr(sys.modules.get("channels.testing"), "ChannelsLiveServerTestCase", None)
    for case in _subclasses(live):
        if case.ProtocolServerProcess.__module__.startswith("daphne."):
            hint = (
                "Set ProtocolServerProcess = asgiserver.testing.ServerProcess in it, or use ASGILiveServerTestCase of "
                "asgiserver.testing."
            )
            name = f"{case.__module__}.{case.__qualname__}"
            found.append(checks.Warning(f"The tests of {name} run on Daphne.", hint=hint, id="asgiserver.W002"))
    return found


def _subclasses(kind: Any) -> Iterator[Any]:
    for each in () if kind is None else kind.__subclasses__():
        yield each
        yield from _subclasses(each)
