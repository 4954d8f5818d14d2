"""asgiserver as a Django application: it brings ``runserver`` and the checks that this command needs."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from .django.checks import check_daphne, check_order, check_settings

__all__ = ["ASGIServerConfig"]


class ASGIServerConfig(AppConfig):  # type: ignore[misc]
    """The configuration that ``"asgiserver"`` in ``INSTALLED_APPS`` stands for."""

    name = "asgiserver"
    verbose_name = "ASGI server"

    def ready(self) -> None:
        """Register the system checks; ``check --tag staticfiles`` also runs the one of the applications' order."""
        checks.register(check_order, checks.Tags.staticfiles)
        checks.register(check_settings)
        checks.register(check_daphne)
