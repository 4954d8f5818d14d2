"""Settings that are safe on one's own machine and, with a few environment variables, on several machines.

``CHAT_DATA``              the folder of the database, the pictures and the secret key; ``data`` beside ``manage.py``
``CHAT_ALLOWED_HOSTS``     host names to answer, with commas between; this machine's own
``CHAT_SECRET_KEY``        the key of all servers; by default made once and kept in the folder
``REDIS_URL``              a Redis for the channel layer, ``redis://127.0.0.1:6379/0``; without it, this process alone
``CHAT_PRESENCE_BEAT``     seconds between two signs of life of a server, 10
"""

from __future__ import annotations

import os
from pathlib import Path

from .secret import kept_key

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("CHAT_DATA", BASE_DIR / "data"))
DATA_DIR.mkdir(parents=True, exist_ok=True)

DEBUG = False
ALLOWED_HOSTS = os.environ.get("CHAT_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
# This key signs sessions, so it has to outlive a restart and be the same for all servers.
SECRET_KEY = os.environ.get("CHAT_SECRET_KEY") or kept_key(DATA_DIR / "secret.key")

ASGI_APPLICATION = "chat.asgi.application"
ROOT_URLCONF = "chat.urls"
INSTALLED_APPS = [
    "asgiserver",  # for manage.py runserver; before staticfiles, which has one too
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "rooms",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "chat.policy.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "chat.sqlite3",
        # Readers go on during a write, and a second writer waits instead of failing.
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=wal; PRAGMA synchronous=normal",
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = os.environ.get("REDIS_URL", "")
# The layer waits five seconds for messages from Redis. The default timeout of redis-py 8 is just as long, and would cut
# off everybody in a quiet room.
REDIS = {"address": REDIS_URL, "socket_timeout": 15}
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [REDIS], "capacity": 1000}}
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}
}

PRESENCE_BEAT = float(os.environ.get("CHAT_PRESENCE_BEAT", "10"))

LOGIN_URL = "sign-in"
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "chat_session", "chat_csrf"
CSRF_COOKIE_HTTPONLY = True

STATIC_URL, STATIC_ROOT = "/static/", DATA_DIR / "static"
MEDIA_URL, MEDIA_ROOT = "/pictures/", DATA_DIR / "pictures"

USE_TZ = True
TIME_ZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "django": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "django.channels.worker": {"handlers": ["console"], "level": "INFO", "propagate": False},
    },
}
