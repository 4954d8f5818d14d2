"""A plain WSGI application, one of Flask and one of Django, below the path's first segment; for test_wsgi.py."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import shift_path_info
from wsgiref.validate import validator

import django
import flask
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import re_path
from django.views.decorators.http import condition

Environ = dict[str, Any]

settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True, LOGGING_CONFIG=None,
    FILE_UPLOAD_MAX_MEMORY_SIZE=100_000, APPEND_SLASH=False,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.http.ConditionalGetMiddleware"],
)  # fmt: skip
django.setup()

#: What has happened so far, by name.
counts: dict[str, int] = {}
counting = threading.Lock()
meeting = threading.Barrier(4, timeout=15)


def count(name: str, amount: int = 1) -> None:
    with counting:
        counts[name] = counts.get(name, 0) + amount


request_started.connect(lambda **_: count("started"), weak=False)
request_finished.connect(lambda **_: count("finished"), weak=False)


def lines() -> Iterator[str]:
    for number in range(200):
        yield f"line {number}\n"


# Flask

site = flask.Flask(__name__)


@site.route("/echo", methods=["GET", "POST", "PUT", "OPTIONS"])
@site.route("/echo/<path:more>")
def echo(more: str = "") -> Any:
    request = flask.request
    files = {name: [file.filename, file.read().decode()] for name, file in request.files.items()}
    return flask.jsonify(
        method=request.method, path=request.path, root=request.script_root, query=request.args.to_dict(flat=False),
        form=request.form.to_dict(flat=False), files=files, cookies=request.cookies, more=more,
        accept=request.headers.get("X-Many"), type=request.content_type, secure=request.is_secure,
        body=request.get_data().decode("latin-1"),
    )  # fmt: skip


@site.post("/upload")
def upload() -> Any:
    digest, size = hashlib.sha256(), 0
    while piece := flask.request.stream.read(65536):
        digest.update(piece)
        size += len(piece)
    return f"{size} {digest.hexdigest()}"


@site.get("/stream")
def stream() -> Any:
    return flask.Response(lines(), mimetype="text/plain")


@site.get("/file")
def file() -> Any:
    return flask.send_file(__file__, conditional=True)


@site.get("/empty")
def empty() -> Any:
    return "", 204


@site.get("/tagged")
def tagged() -> Any:
    response = flask.make_response("tagged")
    response.set_etag("tag")
    return response.make_conditional(flask.request)


@site.get("/moved")
def moved() -> Any:
    response = flask.redirect("/flask/caf\u00e9")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@site.get("/fail")
def fail() -> Any:
    raise ValueError("the view has failed")


# Django


def django_echo(request: HttpRequest, more: str = "") -> HttpResponse:
    files = {name: [file.name, file.read().decode()] for name, file in request.FILES.items()}
    return JsonResponse({
        "method": request.method, "path": request.path, "info": request.path_info, "query": dict(request.GET.lists()),
        "form": dict(request.POST.lists()), "files": files, "cookies": request.COOKIES, "more": more,
        "many": request.headers.get("X-Many"), "type": request.content_type, "secure": request.is_secure(),
        "body": "" if files or request.POST else request.body.decode("latin-1"),
    })  # fmt: skip


def django_upload(request: HttpRequest) -> HttpResponse:
    digest, size = hashlib.sha256(), 0
    while piece := request.read(65536):
        digest.update(piece)
        size += len(piece)
    return HttpResponse(f"{size} {digest.hexdigest()}")


def django_moved(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(status=302, headers={"Location": "/django/caf\u00e9".encode().decode("latin-1")})
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def django_fail(request: HttpRequest) -> HttpResponse:
    raise ValueError("the view has failed")


def django_file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


async def django_coroutine(request: HttpRequest) -> HttpResponse:
    return HttpResponse("from a coroutine")


def django_endless(request: HttpRequest) -> StreamingHttpResponse:
    def ticks() -> Iterator[str]:
        while True:
            yield "tick\n" * 1000

    return StreamingHttpResponse(ticks())


urlpatterns = [
    re_path("^echo(?:/(?P<more>.*))?$", django_echo), re_path("^upload$", django_upload),
    re_path("^stream$", lambda _: StreamingHttpResponse(lines(), content_type="text/plain")),
    re_path("^file$", django_file),
    re_path("^empty$", lambda _: HttpResponse(status=204)),
    re_path("^tagged$", condition(etag_func=lambda _: '"tag"')(lambda _: HttpResponse("tagged"))),
    re_path("^moved$", django_moved), re_path("^fail$", django_fail), re_path("^coroutine$", django_coroutine),
    re_path("^endless$", django_endless),
]  # fmt: skip


# Neither


class Blocks:
    """A body of many blocks that counts what was made of it, and its end."""

    def __init__(self, amount: int, block: bytes = b"x" * 65536) -> None:
        self.amount = amount
        self.block = block

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self.amount):
            count("made")
            yield self.block

    def close(self) -> None:
        count("closed")


def plain(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/meet":
        meeting.wait()
    elif path == "/sleep":
        count("asleep")
        time.sleep(1)
    elif path == "/download":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Blocks(int(environ["QUERY_STRING"]))
    elif path == "/file":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open(environ["QUERY_STRING"], "rb"))
    elif path == "/read":
        try:
            environ["wsgi.input"].read(-1)
        except OSError:
            count("cut off")
            raise
    elif path == "/fail":
        raise ValueError("the application has failed")
    elif path == "/cut":
        return broken(start_response)
    elif path == "/exit":
        sys.exit("the application exits")
    elif path == "/print":
        print("a line for the log", file=environ["wsgi.errors"], flush=True)
    kept = {name: value for name, value in environ.items() if isinstance(value, (str, int, bool))}
    body = repr({"counts": dict(counts), **kept}).encode("ascii", "backslashreplace")
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Name", "caf\xe9")])
    return [body]


def broken(start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    raise ValueError("the application has failed in the middle")


SITES: dict[str | None, Callable[..., Any]] = {
    "flask": site.wsgi_app, "django": get_wsgi_application(), "plain": plain, "valid": validator(plain)
}  # fmt: skip


def application(environ: Environ, start_response: Callable[..., Any]) -> Any:
    return SITES[shift_path_info(environ)](environ, start_response)
