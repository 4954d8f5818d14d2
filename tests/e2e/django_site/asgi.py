"""The project's applications, one for each way in which Django's handler may be found; the server gets a factory."""
# ruff: noqa: E402 - Django is to be set up before its models are imported

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.e2e.django_site.settings")

from django.core.asgi import get_asgi_application

# Before the models.
_first = get_asgi_application()

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import got_request_exception, request_finished, request_started
from django.db.backends.signals import connection_created
from django.urls import path

from .journal import HELD, NAME, say, served
from .models import Note


def _count(**_: Any) -> None:
    served.count += 1
    say("started", threading.get_ident())


async def _async_receiver(**_: Any) -> None:
    say("async receiver", threading.current_thread() is threading.main_thread())


if os.environ.get("SITE_ASYNC_RECEIVER") == "1":
    request_finished.connect(_async_receiver, weak=False)
if settings.MIDDLEWARE[0].endswith("Named"):
    request_started.connect(_count, weak=False)
    request_finished.connect(lambda **_: say("finished", threading.get_ident(), NAME.get()), weak=False)
    got_request_exception.connect(lambda **_: say("exception", threading.get_ident()), weak=False)
    connection_created.connect(lambda **_: say("connected", threading.current_thread().name), weak=False)


def _name_the_line(record: logging.LogRecord) -> bool:
    record.msg = f"{record.msg} name={NAME.get()}"
    return True


logging.getLogger("asgiserver.access").addFilter(_name_the_line)
# While the server stops, no client can say "release".
signal.signal(signal.SIGUSR2, lambda *_: HELD.set())


class Control(AsyncWebsocketConsumer):
    """Answers the tests on the loop, whatever Django's threads do."""

    ANSWERS: dict[str, Callable[[], object]] = {
        "tasks": lambda: len(asyncio.all_tasks()),
        "threads": lambda: threading.active_count() - 1,
        "hold": HELD.clear,
        "release": HELD.set,
        "collect": gc.collect,
    }

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(str(self.ANSWERS[text_data or ""]()))


class News(AsyncWebsocketConsumer):
    """Sends what is said to the group, and counts notes when asked."""

    groups = ["news"]

    async def said(self, event: dict[str, str]) -> None:
        await self.send(event["text"])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(str(await database_sync_to_async(Note.objects.count)()))


class Subclass(ASGIHandler):
    """One of the project's own, whose server must not change it."""


def _router(http: Any) -> Any:
    websocket = URLRouter([path("control", Control.as_asgi()), path("news", News.as_asgi())])
    return ProtocolTypeRouter({"http": http, "websocket": websocket})


def _wrapped() -> Any:
    inner = get_asgi_application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    return application


def router() -> Any:
    return _router(_first)


def plain() -> Any:
    return _first


def static() -> Any:
    return ASGIStaticFilesHandler(_first)


def subclass() -> Any:
    return _router(Subclass())


def wrapped() -> Any:
    return _router(_wrapped())


application = _first
