"""The project's settings; variables that begin with ``SITE_`` choose what differs from server to server."""

from __future__ import annotations

import os

FOLDER = os.environ["SITE_FOLDER"]
_HERE = "tests.e2e.django_site"
_CHAIN = os.environ.get("SITE_MIDDLEWARE", "usual")

SECRET_KEY = "of no use to anybody"
DEBUG = os.environ.get("SITE_DEBUG") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "h"]
INTERNAL_IPS = ["127.0.0.1"]
INSTALLED_APPS = [
    "asgiserver", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "channels", _HERE,
]  # fmt: skip
if _CHAIN == "ecosystem":
    INSTALLED_APPS += ["django.contrib.admin", "corsheaders", "debug_toolbar", "rest_framework"]

_USUAL = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
MIDDLEWARE = {
    # What startproject writes, and nothing else.
    "startproject": _USUAL,
    "usual": [f"{_HERE}.middleware.Named", f"{_HERE}.middleware.Watched", *_USUAL, f"{_HERE}.middleware.Hooks"],
    "async-only": [f"{_HERE}.middleware.AsyncOnly", *_USUAL],
    "ecosystem": [
        "debug_toolbar.middleware.DebugToolbarMiddleware",
        "corsheaders.middleware.CorsMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "whitenoise.middleware.WhiteNoiseMiddleware",
        *_USUAL,
    ],
}[_CHAIN]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE", os.path.join(FOLDER, "site.sqlite3")),
        "CONN_MAX_AGE": int(os.environ.get("SITE_CONN_MAX_AGE", "0")),
        "ATOMIC_REQUESTS": os.environ.get("SITE_ATOMIC") == "1",
        "OPTIONS": {"timeout": 20},
        "TEST": {"NAME": os.environ.get("SITE_DATABASE")},
    }
}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
ROOT_URLCONF = os.environ.get("SITE_URLCONF", f"{_HERE}.{'ecosystem_urls' if _CHAIN == 'ecosystem' else 'urls'}")
ASGI_APPLICATION = f"{_HERE}.asgi.application"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [os.path.join(FOLDER, "assets")]
STATIC_ROOT = os.path.join(FOLDER, "static")
MEDIA_ROOT = os.path.join(FOLDER, "media")
CORS_ALLOWED_ORIGINS = ["https://other.example"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 100_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 50
DATA_UPLOAD_MAX_NUMBER_FILES = 3
#: Larger files, and larger bodies, are kept on disk.
FILE_UPLOAD_MAX_MEMORY_SIZE = 50_000
FILE_UPLOAD_TEMP_DIR = os.path.join(FOLDER, "temporary")

if os.environ.get("SITE_SENTRY") == "1":
    from .tracing import trace

    trace()
