"""The settings that ``startproject`` writes, for production: with DEBUG off, and a database in the run's folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .connections import Counted

_NAME = __package__

SECRET_KEY = "of no use to anybody, and as long as a key of Django's has to be"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

#: A project with coroutine views has them in a URLconf of its own, as most projects have none.
ROOT_URLCONF = os.environ.get("BENCHMARK_URLS", f"{_NAME}.urls")

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ.get("BENCHMARK_FOLDER", tempfile.gettempdir())) / "asgiserver-benchmark.sqlite3",
        "CONN_MAX_AGE": 60,
        # Counts, and is the connection that Django opens without it in all else.
        "OPTIONS": {"factory": Counted},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
STATIC_URL = "static/"
