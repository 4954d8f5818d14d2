"""The views that the tests ask for."""

from __future__ import annotations

import asyncio
import contextvars
import gzip
import io
import os
import tempfile
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.core.signals import request_finished
from django.db import OperationalError, connection, transaction
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    HttpResponsePermanentRedirect,
    JsonResponse,
    StreamingHttpResponse,
)  # fmt: skip
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import condition, require_GET
from django.views.generic import TemplateView

from .journal import HELD, NAME, say, served
from .models import Note

MIB = 1024 * 1024
HELD_FOR = 20.0

# Requests.


@csrf_exempt
def echo(request: HttpRequest) -> HttpResponse:
    """All that Django makes of a request, apart from its port and the process's environment."""
    meta = {
        name: str(value)
        for name, value in request.META.items()
        if name.startswith(("HTTP_", "CONTENT_", "REQUEST_", "SCRIPT_", "PATH_", "QUERY_", "SERVER_N", "REMOTE_A"))
    }
    found = {
        "meta": meta, "kind": type(request).__name__, "method": request.method, "path": request.path,
        "path_info": request.path_info, "script_name": request.META.get("SCRIPT_NAME"),
        "full": request.get_full_path(), "reverse": reverse("echo"), "scheme": request.scheme,
        "cookies": request.COOKIES, "encoding": request.encoding, "content_params": request.content_params,
        "get": dict(request.GET.lists()), "post": dict(request.POST.lists()),
        "files": {
            name: [type(file).__name__, file.name, file.size, file.content_type, file.charset, zlib.crc32(file.read())]
            for name, file in request.FILES.items()
        },
    }  # fmt: skip
    found = {name: repr(value) for name, value in found.items()}
    return JsonResponse(found, json_dumps_params={"ensure_ascii": False})


def _post_then_body(request: HttpRequest) -> Any:
    return len(request.POST), len(request.body)


def _read_then_body(request: HttpRequest) -> Any:
    return request.read(3), request.body


def _read_then_post(request: HttpRequest) -> Any:
    return request.read(3), request.POST


def _body_twice(request: HttpRequest) -> Any:
    return request.body, request.read(), request.body, request.POST


def _lines(request: HttpRequest) -> Any:
    return list(request)


def _stream(request: HttpRequest) -> Any:
    # Not seekable and not to be rewound, whatever carries the body.
    return request.read(3), request.readline(), request.readlines()


BODIES = {
    view.__name__.strip("_"): view
    for view in (_post_then_body, _read_then_body, _read_then_post, _body_twice, _lines, _stream)
}


@csrf_exempt
def body(request: HttpRequest, name: str) -> HttpResponse:
    try:
        return HttpResponse(repr(BODIES[name](request)))
    except SuspiciousOperation:
        raise
    except Exception as error:
        return HttpResponse(f"{type(error).__name__}: {error}")


@csrf_exempt
def checksum(request: HttpRequest) -> HttpResponse:
    """A file that was uploaded, read by its chunks."""
    file = request.FILES["file"]
    total = 0
    for piece in file.chunks():
        total = zlib.crc32(piece, total)
    return JsonResponse({"size": file.size, "crc32": total, "disk": hasattr(file, "temporary_file_path")})


class Measuring(FileUploadHandler):
    """Keeps nothing of a file; refuses one that begins with a dot."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if raw_data.startswith(b"."):
            raise StopUpload(connection_reset=False)
        say("chunk", start, len(raw_data))

    def file_complete(self, file_size: int) -> Any:
        return io.BytesIO(str(file_size).encode())


@csrf_exempt
def measured(request: HttpRequest) -> HttpResponse:
    request.upload_handlers = [Measuring(request)]
    return HttpResponse(repr({name: file.read() for name, file in request.FILES.items()}))


@csrf_exempt
def pieces(request: HttpRequest) -> HttpResponse:
    """The body read in pieces, as an upload that resumes is."""
    sizes = [len(piece) for piece in iter(partial(request.read, 10_000), b"")]
    return JsonResponse({"sizes": sizes[:3], "sum": sum(sizes)})


# Responses.


def _cookies() -> HttpResponse:
    response = HttpResponse("cookies")
    for number in range(20):
        response.set_cookie(f"name-{number}", f"a, {number}; ü", 60, path="/shop", httponly=True, samesite="Lax")
    response.delete_cookie("gone")
    return response


def _written() -> HttpResponse:
    response = HttpResponse("one ")
    response.write("two ")
    response.writelines(["three ", b"four"])
    return response


def _latin() -> HttpResponse:
    fields = {"X-Name-Of": "größe", "X-Long": "€"}
    return HttpResponse("größe", content_type="text/plain; charset=latin-1", headers=fields)


RESPONSES: dict[str, Callable[[], HttpResponse]] = {
    "plain": lambda: HttpResponse("plain"),
    "empty": HttpResponse,
    "json": lambda: JsonResponse({"größe": [1, None]}),
    "bytes": lambda: HttpResponse([b"one", "größe", memoryview(b"two"), 3]),
    "latin": _latin,
    "cookies": _cookies,
    "redirect": lambda: HttpResponsePermanentRedirect("/echo/?größe"),
    "none": lambda: HttpResponse(status=204),
    "fresh": HttpResponseNotModified,
    "reason": lambda: HttpResponse("tea", status=418, reason="I am a teapot"),
    "length": lambda: HttpResponse("four", headers={"Content-Length": "4"}),
    "large": lambda: HttpResponse(b"0123456789abcdef" * 200_000),
    "written": _written,
    "template": lambda: TemplateResponse(None, engines["django"].from_string("{{ word }} 1 < 2"), {"word": "<b>"}),
    "stream": lambda: StreamingHttpResponse(["one", b"two", "größe" * 20_000]),
    "stream-empty": lambda: StreamingHttpResponse([]),
    "file": lambda: FileResponse(_small()),
    "nothing": lambda: None,
    "text": lambda: "no response",
}  # fmt: skip


@csrf_exempt
def respond(request: HttpRequest, name: str) -> HttpResponse:
    return RESPONSES[name]()


async def async_respond(request: HttpRequest, name: str) -> HttpResponse:
    return RESPONSES[name]()


@gzip_page
def compressed(request: HttpRequest, name: str) -> HttpResponse:
    return RESPONSES[name]()


FAILURES = {
    "missing": Http404("no such thing"),
    "denied": PermissionDenied("not you"),
    "bad": BadRequest("nonsense"),
    "suspicious": SuspiciousOperation("traps"),
    "error": ValueError("this view fails"),
    "exit": SystemExit(3),
}


def fail(request: HttpRequest, name: str) -> HttpResponse:
    say("view", threading.get_ident())
    raise FAILURES[name]


async def async_fail(request: HttpRequest, name: str) -> HttpResponse:
    raise FAILURES[name]


# Kinds of views.


class Both(View):
    @method_decorator(never_cache)
    def get(self, request: HttpRequest, **_: Any) -> HttpResponse:
        return HttpResponse("class: get")


@method_decorator(csrf_exempt, "dispatch")
class AsyncClass(View):
    async def get(self, request: HttpRequest, **_: Any) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse(f"async class: {await Note.objects.acount() >= 0}")

    async def post(self, request: HttpRequest, **_: Any) -> HttpResponse:
        return HttpResponse(f"async class: {request.POST['name']}")


class Page(TemplateView):
    def render_to_response(self, context: Any, **_: Any) -> HttpResponse:
        return TemplateResponse(self.request, engines["django"].from_string("{{ word }}"), context)


@require_GET
@never_cache
async def decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("decorated")


@condition(etag_func=lambda *_: '"fixed"')
async def conditional(request: HttpRequest) -> HttpResponse:
    return HttpResponse("conditional")


def hidden(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not know of coroutines: Django is told of a function and gets a coroutine."""

    @wraps(view)
    def inner(request: HttpRequest) -> Any:
        return view(request)

    inner.__dict__.pop("_is_coroutine_marker", None)
    return inner


async def _named(request: HttpRequest, word: str) -> HttpResponse:
    return HttpResponse(f"{word} {request.resolver_match.view_name}")


partial_view = partial(_named, word="partial")
lambda_view = lambda request: _named(request, "lambda")  # noqa: E731 - that is what is tested


# Threads, loops, context variables.


def thread(request: HttpRequest) -> HttpResponse:
    """Which thread serves this, and how many requests it has served."""
    say("view", threading.get_ident())
    return JsonResponse({"thread": threading.get_ident(), "served": served.count})


@transaction.non_atomic_requests
async def async_thread(request: HttpRequest) -> HttpResponse:
    threads = [await sync_to_async(threading.get_ident)() for _ in range(3)]
    return JsonResponse({"on loop": threading.current_thread() is threading.main_thread(), "threads": threads})


def nested(request: HttpRequest) -> HttpResponse:
    """Coroutines in functions in coroutines in functions; each thread-sensitive one belongs into the view's thread."""
    threads = [threading.get_ident()]
    loops = []

    def innermost() -> str:
        threads.append(threading.get_ident())
        return NAME.get()

    async def inner() -> str:
        loops.append(threading.current_thread() is threading.main_thread())
        NAME.set(f"{NAME.get()}+inner")
        return await sync_to_async(innermost)()

    def middle() -> str:
        threads.append(threading.get_ident())
        return async_to_sync(inner)()

    async def outer() -> str:
        loops.append(threading.current_thread() is threading.main_thread())
        return await sync_to_async(middle)()

    found = async_to_sync(outer)()
    return JsonResponse({"threads": len(set(threads)), "loops": loops, "inner": found, "after": NAME.get()})


def own_thread(request: HttpRequest) -> HttpResponse:
    """``async_to_sync`` in a thread that the view starts, with the view's context and without."""
    found = []

    async def name() -> str:
        await asyncio.sleep(0)
        return NAME.get()

    for target in (partial(contextvars.copy_context().run, lambda: found.append(async_to_sync(name)())),
                   lambda: found.append(async_to_sync(name)())):  # fmt: skip
        started = threading.Thread(target=target)
        started.start()
        started.join()
    return JsonResponse(found, safe=False)


def publish(request: HttpRequest) -> HttpResponse:
    """Says something to the group from the view, or from a receiver when the request is over."""
    send = async_to_sync(get_channel_layer().group_send)
    event = {"type": "said", "text": request.GET["text"]}
    if "later" in request.GET:

        def finished(**_: Any) -> None:
            request_finished.disconnect(finished)
            send("news", event)

        request_finished.connect(finished, weak=False)
    else:
        send("news", event)
    return HttpResponse("said")


def name(request: HttpRequest) -> HttpResponse:
    """Changes the context variable that a middleware has set."""
    NAME.set(NAME.get() + "+view")
    return HttpResponse(NAME.get())


def hold(request: HttpRequest) -> HttpResponse:
    say("holding", request.GET.get("n", ""))
    released = HELD.wait(HELD_FOR)
    say("held", request.GET.get("n", ""))
    return HttpResponse(str(released))


def hold_coroutine(request: HttpRequest) -> HttpResponse:
    async def held() -> None:
        say("holding", "coroutine")
        try:
            await asyncio.sleep(HELD_FOR)
        except asyncio.CancelledError:
            say("cancelled", "coroutine")
            raise

    async_to_sync(held)()
    return HttpResponse("held")


@transaction.non_atomic_requests
async def async_hold(request: HttpRequest) -> HttpResponse:
    say("holding", "view")
    try:
        await asyncio.sleep(HELD_FOR)
    except asyncio.CancelledError:
        say("cancelled", "view")
        raise
    return HttpResponse("held")


# The database.


def query(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"<html><body>{Note.objects.count()} notes</body></html>")


@transaction.non_atomic_requests
async def async_query(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await Note.objects.acount()))


def slow_query(request: HttpRequest) -> HttpResponse:
    """Some milliseconds with a connection in use, so that threads have their turns."""
    count = Note.objects.count()
    time.sleep(0.005)
    return HttpResponse(str(count))


def write(request: HttpRequest) -> HttpResponse:
    Note.objects.create(text=request.GET["text"])
    if "fail" in request.GET:
        raise ValueError("not to be kept")
    return HttpResponse(f"in a transaction: {connection.in_atomic_block}")


def rows(request: HttpRequest) -> StreamingHttpResponse:
    """A stream that reads the database, after the view's transaction has ended."""

    def lines() -> Iterator[str]:
        for note in Note.objects.order_by("id").iterator(chunk_size=10):
            yield f"{note.text} {connection.in_atomic_block}\n"

    return StreamingHttpResponse(lines())


_waiting = threading.Event()
_both = threading.Barrier(2)


@transaction.non_atomic_requests
def lock_first(request: HttpRequest) -> HttpResponse:
    """Holds the database's lock until :func:`lock_second` has met it."""
    _waiting.clear()
    with transaction.atomic():
        Note.objects.create(text="first")
        say("locked")
        met = _waiting.wait(HELD_FOR)
    return HttpResponse(str(met))


@transaction.non_atomic_requests
def lock_second(request: HttpRequest) -> HttpResponse:
    try:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
        Note.objects.create(text="too early")
    except OperationalError as error:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 20000")
        _waiting.set()
        Note.objects.create(text="second")
        return HttpResponse(str(error))
    return HttpResponse("there was no lock")


@transaction.non_atomic_requests
def deadlock(request: HttpRequest) -> HttpResponse:
    """Two of these at once read first, and then both want to write: the database lets one of them."""
    try:
        with transaction.atomic():
            count = Note.objects.count()
            _both.wait(HELD_FOR)
            Note.objects.create(text=f"after {count}")
    except OperationalError as error:
        return HttpResponse(str(error), status=409)
    return HttpResponse("written")


# Streams.


def stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(STREAMS[name]())


@transaction.non_atomic_requests
async def async_stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(ASYNC_STREAMS[name]())


def _over(pieces: Iterator[Any], name: str) -> Iterator[Any]:
    """``pieces``, with a word about how many were taken and in which thread the end came."""
    begun, count, how = threading.get_ident(), 0, "whole"
    try:
        for piece in pieces:
            assert threading.get_ident() == begun
            count += 1
            yield piece
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        say("over", name, count, how, threading.get_ident() == begun)


def _held() -> Iterator[str]:
    yield "one\n"
    say("waiting")
    yield "two\n" if HELD.wait(HELD_FOR) else "nobody came\n"


def _raising(error: Exception) -> Iterator[str]:
    yield "one\n"
    yield "two\n"
    raise error


def _blocks(count: int) -> Iterator[bytes]:
    block = bytes(65536)
    for _ in range(count):
        yield block


async def _async_held() -> AsyncIterator[str]:
    yield "one\n"
    try:
        await asyncio.sleep(HELD_FOR)
    finally:
        say("over", "async-held")


async def _async_raising() -> AsyncIterator[str]:
    yield "one\n" * 1000
    raise ValueError("third")


STREAMS: dict[str, Callable[[], Iterator[Any]]] = {
    "held": lambda: _over(_held(), "held"),
    "raising": lambda: _over(_raising(ValueError("third")), "raising"),
    "raising-os": lambda: _over(_raising(ConnectionResetError("the stream's own")), "raising-os"),
    "blocks": lambda: _over(_blocks(400), "blocks"),
    "huge": lambda: _over(_blocks(1024), "huge"),
}
ASYNC_STREAMS: dict[str, Callable[[], AsyncIterator[Any]]] = {"held": _async_held, "raising": _async_raising}


# Files.


def _fifo() -> FileResponse:
    path = os.path.join(tempfile.mkdtemp(dir=settings.FOLDER), "fifo")
    os.mkfifo(path)
    threading.Thread(target=lambda: Path(path).write_bytes(b"through a pipe" * 1000)).start()
    # Without its name, as Django asks a named file for its size.
    return FileResponse(open(os.open(path, os.O_RDONLY), "rb"), content_type="application/octet-stream")


def _after_seek(file: Any) -> Any:
    file.seek(100)
    return file


def _temporary() -> FileResponse:
    file = tempfile.NamedTemporaryFile(suffix=".txt")  # noqa: SIM115 - the response closes it
    file.write(b"temporary" * 100)
    file.seek(0)
    return FileResponse(file, filename="notes.txt")


class _Part(io.RawIOBase):
    """A part of a file, as a middleware for ranges makes it."""

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.left = file, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        return data

    def close(self) -> None:
        self.file.close()
        super().close()


class _Shouting(io.FileIO):
    """A file of the project's own class: its descriptor does not say what it reads."""

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        return super().read(size).translate(bytes(255 - number for number in range(256)))


def _small(name: str = "small.bin") -> Any:
    return open(os.path.join(settings.FOLDER, name), "rb")


FILES: dict[str, Callable[[], HttpResponse]] = {
    "plain": lambda: FileResponse(_small()),
    "large": lambda: FileResponse(_small("large.bin")),
    "attachment": lambda: FileResponse(_small(), as_attachment=True, filename="größe é.bin"),
    "quoted": lambda: FileResponse(_small(), as_attachment=True, filename='a"b\\c.txt'),
    "memory": lambda: FileResponse(io.BytesIO(b"in memory" * 1000), filename="memory.txt"),
    "memory-seek": lambda: FileResponse(_after_seek(io.BytesIO(b"in memory" * 1000))),
    "seek": lambda: FileResponse(_after_seek(_small())),
    "raw": lambda: FileResponse(io.FileIO(os.path.join(settings.FOLDER, "small.bin"))),
    "gzip": lambda: FileResponse(gzip.GzipFile(os.path.join(settings.FOLDER, "small.gz")), filename="inner.bin"),
    "own-class": lambda: FileResponse(_Shouting(os.path.join(settings.FOLDER, "small.bin"))),
    "part": lambda: FileResponse(_Part(_after_seek(_small()), 500), status=206, headers={"X-Part": "100-599"}),
    "temporary": _temporary,
    "fifo": _fifo,
    "null": lambda: FileResponse(_small(os.devnull)),
    "storage": lambda: FileResponse(Note(text="", file="small.bin").file.storage.open("small.bin")),
    "streamed": lambda: StreamingHttpResponse(_small()),
}


def file(request: HttpRequest, name: str) -> HttpResponse:
    return FILES[name]()


@condition(etag_func=lambda *_: '"small"')
def tagged_file(request: HttpRequest) -> HttpResponse:
    return FileResponse(_small())


@gzip_page
def zipped_file(request: HttpRequest) -> HttpResponse:
    return FileResponse(_small(), content_type="text/plain")
