"""Django's system checks: ``runserver`` is ours, and each ``ASGISERVER_…`` setting has an effect."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.management import BaseCommand, get_commands, load_command_class

from .project import django_names

__all__ = ["check_order", "check_settings"]


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
            hint="The names are those of the README's table of settings, but without address and logging.",
            id="asgiserver.W001",
        )
        for name in given
        if name not in django_names()
    ]
