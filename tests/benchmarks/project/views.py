"""The views: each does one thing, as briefly as Django allows."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from django.contrib.auth.models import User
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from tests.benchmarks.applications import BODY

from .answers import SLEPT, found, greeting, username
from .connections import counts

__all__ = ["asynchronous", "connections", "file", "hello", "index", "member", "sleep", "stream"]

#: Bytes that a stream gives at a time.
PIECE = 65536


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse(BODY, content_type="text/plain")


def hello(request: HttpRequest, number: int, words: str) -> HttpResponse:
    return HttpResponse(greeting(request.get_full_path()))


async def asynchronous(request: HttpRequest, number: int, words: str) -> HttpResponse:
    return HttpResponse(greeting(request.get_full_path()))


def member(request: HttpRequest, number: int, words: str) -> HttpResponse:
    """One query."""
    user = User.objects.get(username=username(number))
    return HttpResponse(found(request.get_full_path(), user.email))


def file(request: HttpRequest, size: int) -> FileResponse:
    """A file of so many bytes, made when it is not there."""
    path = Path(os.environ.get("BENCHMARK_FOLDER", tempfile.gettempdir())) / f"asgiserver-benchmark-{size}.bin"
    if not path.exists() or path.stat().st_size != size:
        with path.open("wb") as content:
            content.writelines(_pieces(size))
    return FileResponse(path.open("rb"))


def stream(request: HttpRequest, size: int) -> StreamingHttpResponse:
    """So many bytes from a generator."""
    return StreamingHttpResponse(_pieces(size), content_type="text/plain")


def _pieces(size: int) -> Iterator[bytes]:
    """Each has memory of its own, so that one who keeps them all can be told."""
    for start in range(0, size, PIECE):
        yield b"x" * min(PIECE, size - start)


def sleep(request: HttpRequest) -> HttpResponse:
    """50 ms, as if another service had been asked."""
    time.sleep(0.050)
    return HttpResponse(SLEPT)


def connections(request: HttpRequest) -> JsonResponse:
    """What is known of this process's connections to the database."""
    return JsonResponse(counts())
