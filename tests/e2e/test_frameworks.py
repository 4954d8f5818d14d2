"""Starlette and Django, with real clients that also leave early."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from .live import GET, connect, get, post, serve, until, url
from .server import ServerProcess, serving, wait_for


def starlette(endpoint: Any) -> Starlette:
    return Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestStarlette:
    async def test_streams_both_ways(self) -> None:
        async def upper(request: Request) -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                async for piece in request.stream():
                    yield piece.upper()

            return StreamingResponse(pieces())

        async with serve(starlette(upper)) as server, httpx.AsyncClient() as client:
            response = await client.post(url(server), content=b"abc" * 200_000)
        assert response.content == b"ABC" * 200_000

    async def test_runs_a_background_task_while_the_connection_goes_on(self) -> None:
        go, done = asyncio.Event(), asyncio.Event()

        async def background() -> None:
            await go.wait()
            done.set()

        async def view(request: Request) -> Response:
            return PlainTextResponse("sent", background=BackgroundTask(background))

        async with serve(starlette(view)) as server, connect(server) as peer:
            for _ in range(3):
                assert (await peer.request("GET", "/")).body == b"sent"
            assert not done.is_set()
            go.set()
            await until(done.is_set)

    @pytest.mark.parametrize("by_reset", [False, True])
    async def test_each_request_object_learns_that_the_client_has_left(
        self, by_reset: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It asks within a scope that is cancelled already."""
        told: list[bool] = []
        asked = asyncio.Event()

        async def view(request: Request) -> Response:
            while not await request.is_disconnected():
                asked.set()
                await asyncio.sleep(0.005)
            for _ in range(3):
                told.append(await Request(request.scope, request.receive).is_disconnected())
            return PlainTextResponse("too late")

        async with serve(starlette(view)) as server:
            async with connect(server) as peer:
                await peer.send(GET)
                await until(asked.is_set)
                if by_reset:
                    peer.abort()
            await until(lambda: len(told) == 3 and not server.connections)
        assert told == [True, True, True]
        assert not failures(caplog)

    @pytest.mark.parametrize("way", ["plain", "middleware", "group"])
    async def test_an_upload_that_the_client_gives_up_is_one_line(
        self, way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A middleware passes on what a task group has raised, whose origins go round in a circle."""

        async def view(request: Request) -> Response:
            return PlainTextResponse(str(len(await request.body())))

        async def through(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        async def grouped(scope: Any, receive: Any, send: Any) -> None:
            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                raise OSError("the peer has left")

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(watch())
            except BaseExceptionGroup as raised:
                raise raised.exceptions[0]  # noqa: B904 - as the frameworks do

        caplog.set_level(logging.INFO, "asgiserver")
        application = starlette(view)
        if way == "middleware":
            application.add_middleware(BaseHTTPMiddleware, dispatch=through)
        async with serve(grouped if way == "group" else application) as server:
            async with connect(server) as peer:
                await peer.send(post(9, b"123"))
                await until(lambda: server._tasks)
            await until(lambda: not server._tasks)
        lines = [record for record in caplog.records if "left, which ended its application" in record.getMessage()]
        assert [(record.levelno, record.exc_info) for record in lines] == [(logging.INFO, None)]
        assert failures(caplog) == []

    async def test_stops_streaming_when_the_client_leaves(self, caplog: pytest.LogCaptureFixture) -> None:
        closed = asyncio.Event()

        async def view(request: Request) -> Response:
            async def ticks() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"tick\n"
                        await asyncio.sleep(0.01)
                finally:
                    closed.set()

            return StreamingResponse(ticks())

        async with serve(starlette(view)) as server, connect(server) as peer:
            await peer.send(GET)
            await peer.read_until(b"tick\n")
            peer.abort()
            await until(closed.is_set)
        assert not failures(caplog)

    async def test_runs_its_lifespan_and_sees_the_state(self) -> None:
        seen: list[str] = []

        @asynccontextmanager
        async def lifespan(application: Starlette) -> AsyncIterator[dict[str, str]]:
            seen.append("began")
            yield {"greeting": "hello"}
            seen.append("ended")

        async def view(request: Request) -> Response:
            seen.append("asked")
            return PlainTextResponse(request.state.greeting)

        application = Starlette(routes=[Route("/", view)], lifespan=lifespan)
        async with serve(application, lifespan="on") as server, httpx.AsyncClient() as client:
            assert (await client.get(url(server))).text == "hello"
        assert seen == ["began", "asked", "ended"]


DJANGO = '''
import asyncio, hashlib, sys, time
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, FILE_UPLOAD_MAX_MEMORY_SIZE=100_000, USE_TZ=True,
    LOGGING_CONFIG=None,
)
django.setup()
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished, request_started
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path

seen = {"started": 0, "finished": 0, "cancelled": 0, "closed": 0}
request_started.connect(lambda **_: seen.update(started=seen["started"] + 1), weak=False)
request_finished.connect(lambda **_: seen.update(finished=seen["finished"] + 1), weak=False)

def sync(request):
    return HttpResponse(f"{request.method} {request.path} {request.GET.get('q')} {request.POST.get('name')}")

async def upload(request):
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return HttpResponse(f"{type(file).__name__} {file.name} {digest.hexdigest()}")

async def stream(request):
    async def pieces():
        for number in range(1000):
            yield f"{number}\\n" * 100
    return StreamingHttpResponse(pieces())

def file(request):
    return FileResponse(open(__file__, "rb"))

async def endless(request):
    async def ticks():
        try:
            while True:
                yield "tick\\n"
                await asyncio.sleep(0.01)
        finally:
            seen["closed"] += 1
    return StreamingHttpResponse(ticks())

async def slow(request):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        seen["cancelled"] += 1
        raise

def blocking(request):
    time.sleep(0.3)
    return HttpResponse("done")

async def counts(request):
    return HttpResponse(" ".join(f"{seen[name]}" for name in ("started", "finished", "cancelled", "closed")))

urlpatterns = [
    path("sync/", sync), path("upload/", upload), path("stream/", stream), path("file/", file),
    path("endless/", endless), path("slow/", slow), path("blocking/", blocking), path("counts/", counts),
]
application = get_asgi_application()
'''


def django(folder: Path) -> ServerProcess:
    return serving(folder, DJANGO)


def counts(server: ServerProcess) -> list[int]:
    """Requests begun before this one, and finished, views cancelled, streams closed."""
    started, *others = map(int, httpx.get(f"{server.url}/counts/").text.split())
    return [started - 1, *others]


def leave(server: ServerProcess, path: str, piece: bytes) -> None:
    """Ask for ``path`` and leave as soon as ``piece`` of the answer has come, or soon when it is empty."""
    with server.connect() as peer:
        peer.sendall(get(path))
        answer = b""
        while piece and piece not in answer:
            answer += peer.recv(65536)
        if not piece:
            time.sleep(0.1)


class TestDjango:
    def test_serves_pages_forms_uploads_and_streams(self, tmp_path: Path) -> None:
        content = os.urandom(3_000_000)
        with django(tmp_path) as server, httpx.Client(base_url=server.url) as client:
            assert client.get("/sync/?q=1").text == "GET /sync/ 1 None"
            assert client.post("/sync/", data={"name": "caf\u00e9"}).text == "POST /sync/ None caf\u00e9"
            uploaded = client.post("/upload/", files={"file": ("a.bin", content)})
            assert uploaded.text == f"TemporaryUploadedFile a.bin {hashlib.sha256(content).hexdigest()}"
            assert client.get("/stream/").text == "".join(f"{number}\n" * 100 for number in range(1000))
            assert client.get("/file/").content == (tmp_path / "app.py").read_bytes()
            assert client.get("/nowhere/").status_code == 404
            started, finished, _, _ = counts(server)
            assert started == finished == 6
        assert "Traceback" not in server.output()

    def test_finishes_each_request_whose_client_has_left(self, tmp_path: Path) -> None:
        with django(tmp_path) as server:
            for path, piece in (("/endless/", b"tick"), ("/slow/", b""), ("/blocking/", b"")):
                for _ in range(3):
                    leave(server, path, piece)

            def all_finished() -> bool:
                started, finished, cancelled, closed = counts(server)
                # The requests for the counts come and go too.
                return started == finished and (cancelled, closed) == (3, 3)

            wait_for(all_finished)
        output = server.output()
        assert "Traceback" not in output
        assert "cancelled" not in output


MOUNTED = '''
import os
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, FORCE_SCRIPT_NAME=os.environ.get("SCRIPT_NAME"),
    LOGGING_CONFIG=None,
)
django.setup()
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path, reverse

def item(request, number):
    return HttpResponse(f"{request.path_info} {reverse('item', args=[number])}")

urlpatterns = [path("item/<int:number>/", item, name="item")]
application = get_asgi_application()
'''


@pytest.mark.parametrize(("options", "env"), [(["--root-path", "/shop"], {}), ([], {"SCRIPT_NAME": "/shop"})])
def test_django_below_a_prefix_makes_urls_with_it(options: list[str], env: dict[str, str], tmp_path: Path) -> None:
    """Whether the proxy before it leaves the prefix in the path or takes it off."""
    with serving(tmp_path, MOUNTED, *options, env=env) as server:
        for target in ("/shop/item/7/", "/item/7/"):
            assert httpx.get(server.url + target).text == "/item/7/ /shop/item/7/"
