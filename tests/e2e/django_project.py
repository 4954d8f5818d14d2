"""A Django project of one file, with every kind of view and middleware; what it prints is what tests look for.

``DATABASE`` in the environment is the SQLite file; ``DEBUG``, ``SCRIPT_NAME`` and ``SYNC_MIDDLEWARE`` may be there too.
"""
# ruff: noqa: E402, T201 - Django is to be configured before its models are imported; printing is how the test listens

from __future__ import annotations

import asyncio
import os
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import django
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings

settings.configure(
    SECRET_KEY="of no use to anybody",
    ALLOWED_HOSTS=["*"],
    DEBUG=os.environ.get("DEBUG") == "1",
    FORCE_SCRIPT_NAME=os.environ.get("SCRIPT_NAME"),
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=[
        f"{__name__}.both_ways",
        *([f"{__name__}.sync_only"] if os.environ.get("SYNC_MIDDLEWARE") == "1" else []),
        f"{__name__}.AsyncOnly",
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["DATABASE"],
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        }
    },
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()

from django.contrib.sessions.models import Session
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.db import connection
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path, reverse
from django.utils.decorators import sync_and_async_middleware
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import condition

GetResponse = Callable[[HttpRequest], Any]


def say(*words: object) -> None:
    # In one write: views in several threads speak at once.
    print(" ".join(("project", *map(str, words))) + "\n", end="", flush=True)


request_started.connect(lambda **_: say("started"), weak=False)
request_finished.connect(lambda **_: say("finished"), weak=False)


def passed(response: HttpResponse, name: str) -> HttpResponse:
    response["X-Passed"] = f"{response.get('X-Passed', '')} {name}".strip()
    return response


@sync_and_async_middleware
def both_ways(get_response: GetResponse) -> GetResponse:
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            return passed(await get_response(request), "both-async")

    else:

        def middleware(request: HttpRequest) -> HttpResponse:
            return passed(get_response(request), "both-sync")

    return middleware


def sync_only(get_response: GetResponse) -> GetResponse:
    def middleware(request: HttpRequest) -> HttpResponse:
        assert threading.current_thread() is not threading.main_thread()
        return passed(get_response(request), "sync")

    return middleware


class AsyncOnly:
    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        assert threading.current_thread() is threading.main_thread()
        return passed(await self.get_response(request), "async")


def text(request: HttpRequest) -> HttpResponse:
    return HttpResponse("all the same " * 1000, content_type="text/plain")


async def async_text(request: HttpRequest) -> HttpResponse:
    return text(request)


@condition(etag_func=lambda request: '"fixed"')
def fixed(request: HttpRequest) -> HttpResponse:
    return HttpResponse("fixed")


def sync_stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        yield from (f"line {number}\n" * 100 for number in range(200))

    return StreamingHttpResponse(lines())


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(200):
            yield f"line {number}\n" * 100

    return StreamingHttpResponse(lines())


listeners: set[asyncio.Queue[str]] = set()


async def events(request: HttpRequest) -> StreamingHttpResponse:
    """Server-sent events: what :func:`tell` says."""

    async def heard() -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        listeners.add(queue)
        try:
            yield "data: welcome\n\n"
            while True:
                yield f"data: {await queue.get()}\n\n"
        finally:
            listeners.discard(queue)
            say("events closed")

    await Session.objects.acount()
    return StreamingHttpResponse(heard(), content_type="text/event-stream")


async def tell(request: HttpRequest) -> HttpResponse:
    for queue in listeners:
        queue.put_nowait(request.GET["word"])
    return HttpResponse(str(len(listeners)))


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(os.environ["FILE"], "rb"), as_attachment=True, filename="größe.bin")


async def cancelled(request: HttpRequest) -> HttpResponse:
    await Session.objects.acount()
    say("view begun")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await Session.objects.acount()
        say("view cancelled")
        raise
    return HttpResponse("never")


def blocking(request: HttpRequest) -> HttpResponse:
    """Takes a thread, and a connection to the database, for so many seconds."""
    rows = Session.objects.count()
    say("view begun")
    time.sleep(float(request.GET["seconds"]))
    with connection.cursor() as cursor:
        cursor.execute("SELECT 40 + 2")
        (answer,) = cursor.fetchone()
    say("view blocked")
    return JsonResponse({"rows": rows, "answer": answer, "thread": threading.get_ident()})


async def in_threads(request: HttpRequest) -> HttpResponse:
    """The threads that thread-sensitive calls of one request run in, side by side and nested."""

    def ident() -> int:
        time.sleep(0.01)
        return threading.get_ident()

    async def nested() -> int:
        return await sync_to_async(ident)()

    idents = await asyncio.gather(*(nested() for _ in range(5)))
    return JsonResponse({"threads": idents, "main": threading.main_thread().ident})


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    uploaded = request.FILES["file"]
    checksum = 0
    for piece in uploaded.chunks():
        checksum = zlib.crc32(piece, checksum)
    kept = os.path.exists(uploaded.temporary_file_path()) if hasattr(uploaded, "temporary_file_path") else False
    return JsonResponse({"name": uploaded.name, "size": uploaded.size, "crc32": checksum, "on disk": kept})


def form(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return HttpResponse(request.POST["name"])
    return HttpResponse(get_token(request))


def visits(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


async def async_visits(request: HttpRequest) -> HttpResponse:
    await request.session.aset("visits", await request.session.aget("visits", 0) + 1)
    return HttpResponse(str(await request.session.aget("visits")))


def cookies(request: HttpRequest) -> HttpResponse:
    """Sets so many cookies; tells the size of those that came."""
    response = HttpResponse(str(sum(map(len, request.COOKIES.values()))))
    for number in range(int(request.GET.get("count", 0))):
        response.set_cookie(f"cookie-{number}", f"value, {number}", max_age=60, httponly=True, samesite="Lax")
    return response


def item(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse(
        {
            "path_info": request.path_info,
            "reverse": reverse("item", args=[number]),
            "absolute": request.build_absolute_uri(reverse("item", args=[number])),
        }
    )


async def async_item(request: HttpRequest, number: int) -> HttpResponse:
    return item(request, number)


def fail(request: HttpRequest) -> HttpResponse:
    raise ValueError("this view fails")


async def async_fail(request: HttpRequest) -> HttpResponse:
    raise ValueError("this view fails")


async def fail_later(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        yield "begun\n" * 1000
        raise ValueError("this stream fails")

    return StreamingHttpResponse(lines())


def leave(request: HttpRequest) -> HttpResponse:
    raise SystemExit(3)


async def async_leave(request: HttpRequest) -> HttpResponse:
    raise SystemExit(3)


urlpatterns = [
    path("text/", text),
    path("async/text/", async_text),
    path("fixed/", fixed),
    path("sync/stream/", sync_stream),
    path("async/stream/", async_stream),
    path("events/", events),
    path("tell/", tell),
    path("file/", file),
    path("cancelled/", cancelled),
    path("blocking/", blocking),
    path("threads/", in_threads),
    path("upload/", upload),
    path("form/", form),
    path("visits/", visits),
    path("async/visits/", async_visits),
    path("cookies/", cookies),
    path("item/<int:number>/", item, name="item"),
    path("async/item/<int:number>/", async_item),
    path("fail/", fail),
    path("async/fail/", async_fail),
    path("later/fail/", fail_later),
    path("leave/", leave),
    path("async/leave/", async_leave),
]

call_command("migrate", verbosity=0)
connection.close()
application = get_asgi_application()
