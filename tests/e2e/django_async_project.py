"""A Django project of one file with the middleware of a new project and async views; its settings come with ``SITE``.

``DATABASE`` in the environment is the SQLite file, ``SITE`` holds settings as JSON.
"""
# ruff: noqa: E402 - Django is to be configured before its models are imported

from __future__ import annotations

import json
import os
import threading
from typing import Any

import django
from django.conf import settings

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

settings.configure(
    **{
        "SECRET_KEY": "of no use to anybody",
        "ALLOWED_HOSTS": ["127.0.0.1", "known", "www.known"],
        "INSTALLED_APPS": [f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions", "messages")],
        "MIDDLEWARE": [*MIDDLEWARE, f"{__name__}.Failing"],
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
        "ROOT_URLCONF": __name__,
        "USE_TZ": True,
        **json.loads(os.environ.get("SITE", "{}")),
    }
)
django.setup()

from django.contrib import auth, messages
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.management import call_command
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin


class Failing(MiddlewareMixin):
    """Fails in the hook that the request names."""

    def process_request(self, request: HttpRequest) -> None:
        self._fail(request, "in")

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        self._fail(request, "out")
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return HttpResponse("saved", status=418) if "save" in request.GET else None

    def _fail(self, request: HttpRequest, hook: str) -> None:
        if request.GET.get("hook") == hook:
            raise PermissionDenied


async def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


async def threads(request: HttpRequest) -> HttpResponse:
    """The threads of Django's sync code that the process has."""
    names = [thread.name for thread in threading.enumerate()]
    return JsonResponse([name for name in names if name.startswith(("django-", "ThreadPoolExecutor"))], safe=False)


async def session_read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await request.session.aget("count", 0)))


async def session_written(request: HttpRequest) -> HttpResponse:
    await request.session.aset("count", await request.session.aget("count", 0) + 1)
    return HttpResponse("written")


async def session_flushed(request: HttpRequest) -> HttpResponse:
    await request.session.aflush()
    return HttpResponse("flushed")


async def login(request: HttpRequest) -> HttpResponse:
    user = await User.objects.aget(username="somebody")
    await auth.alogin(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("in")


async def logout(request: HttpRequest) -> HttpResponse:
    await auth.alogout(request)
    return HttpResponse("out")


async def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await request.auser()).get_username())


async def message_added(request: HttpRequest) -> HttpResponse:
    messages.info(request, "of some length " * int(request.GET.get("times", 1)))
    return HttpResponse("added")


async def messages_read(request: HttpRequest) -> HttpResponse:
    return HttpResponse("|".join(str(each) for each in messages.get_messages(request)))


async def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_token(request))


async def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.POST.get("name", ""))


async def language(request: HttpRequest) -> HttpResponse:
    return HttpResponse(translation.get_language() + translation.gettext("Monday"))


async def fails(request: HttpRequest, how: str) -> Any:
    if how == "nothing":
        return None
    raise {"404": Http404, "403": PermissionDenied, "400": SuspiciousOperation, "500": OSError}[how]


_VIEWS = (
    plain, threads, session_read, session_written, session_flushed, login, logout, who, message_added, messages_read,
    token, form, language,
)  # fmt: skip
urlpatterns = [*(path(f"{view.__name__}/", view) for view in _VIEWS), path("fails/<how>/", fails)]

if "django_session" not in connection.introspection.table_names():
    call_command("migrate", verbosity=0)
    User.objects.create_user("somebody", password="secret")
application = get_asgi_application()
