"""``python -m tests.benchmarks.project``: make the database of the project, with its members."""

from __future__ import annotations

import os

import django
from django.core.management import call_command

from .answers import MEMBERS, address, username


def main() -> None:
    """Apply all migrations, and add the users that views look for."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.project.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    User.objects.bulk_create(User(username=username(n), email=address(n)) for n in range(MEMBERS))


if __name__ == "__main__":
    main()
