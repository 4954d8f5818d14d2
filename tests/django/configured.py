"""A Django project within the tests' own process, which is gone again after the tests that need one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.local import Local
from django.apps import apps
from django.conf import UserSettingsHolder, global_settings, settings
from django.core.cache import caches
from django.db import connections

__all__ = ["MIDDLEWARE", "configured"]

#: That of a new project.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]


@contextmanager
def configured(urls: str, **values: Any) -> Iterator[None]:
    """Configure a project whose URLconf is the module ``urls``."""
    holder = UserSettingsHolder(global_settings)
    defaults = {
        "SECRET_KEY": "of no use to anybody", "ALLOWED_HOSTS": ["*"], "ROOT_URLCONF": urls, "MIDDLEWARE": MIDDLEWARE,
        "SETTINGS_MODULE": __name__, "DATABASES": {"default": {}},
    }  # fmt: skip
    for name, value in {**defaults, **values}.items():
        setattr(holder, name, value)
    before = settings.__dict__["_wrapped"]
    with pytest.MonkeyPatch.context() as patch:
        settings._wrapped = holder
        _forget()
        for name, value in {
            "app_configs": {}, "loading": False, "apps_ready": False, "models_ready": False,
            "ready": False, "ready_event": threading.Event(),
        }.items():  # fmt: skip
            patch.setattr(apps, name, value)
        try:
            apps.populate([f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions", "messages")])
            yield
        finally:
            apps.clear_cache()
            settings._wrapped = before
            _forget()


def _forget() -> None:
    """Let databases and caches read their settings again."""
    for each in (connections, caches):
        each._settings = None
        each._connections = Local(each.thread_critical)
        vars(each).pop("settings", None)
