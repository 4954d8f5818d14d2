"""A page, a form, an upload and a download: all asynchronous, and none holds more than a piece of a body in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from .forms import EntryForm, UploadForm
from .models import Entry, Upload

#: Most rows that ``/numbers.csv`` sends, and rows in one piece of the response.
MAX_ROWS, ROWS_PER_PIECE = 5_000_000, 1_000


@require_GET
async def home(request: HttpRequest) -> HttpResponse:
    return await page(request, EntryForm(), UploadForm())


@require_POST
async def add_entry(request: HttpRequest) -> HttpResponse:
    form = EntryForm(request.POST)
    if not form.is_valid():
        return await page(request, form, UploadForm(), status=422)
    await form.instance.asave()
    return redirect("home")


@require_POST
async def upload(request: HttpRequest) -> HttpResponse:
    """Remember the size and the SHA-256 of a file of any size.

    Django spools a large file to the disk while it arrives; the view reads it back piece by piece.
    """
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return await page(request, EntryForm(), form, status=422)
    file = form.cleaned_data["file"]
    # In a thread, so that neither the disk nor the hashing holds up other requests.
    digest = await sync_to_async(sha256, thread_sensitive=False)(file)
    await Upload.objects.acreate(name=file.name, size=file.size, sha256=digest)
    return redirect("home")


@require_GET
async def numbers(request: HttpRequest) -> HttpResponse:
    """Numbers and their squares as CSV; ``?rows=N`` says how many. Rows are made only as fast as the client reads."""
    text = request.GET.get("rows", "100000")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_ROWS:
        return HttpResponse(f"rows: a number from 1 to {MAX_ROWS}\n", status=400, content_type="text/plain")
    headers = {"Content-Disposition": 'attachment; filename="numbers.csv"'}
    return StreamingHttpResponse(csv(int(text)), content_type="text/csv", headers=headers)


async def page(request: HttpRequest, entry_form: EntryForm, upload_form: UploadForm, status: int = 200) -> HttpResponse:
    """The one page, with the errors of the forms."""
    context = {
        "entry_form": entry_form,
        "upload_form": upload_form,
        "entries": [entry async for entry in Entry.objects.all()[:20]],
        "uploads": [upload async for upload in Upload.objects.all()[:10]],
    }
    return render(request, "board/home.html", context, status=status)


def sha256(file: UploadedFile) -> str:
    digest = hashlib.sha256()
    for piece in file.chunks():
        digest.update(piece)
    return digest.hexdigest()


async def csv(rows: int) -> AsyncIterator[str]:
    yield "number,square\n"
    for first in range(1, rows + 1, ROWS_PER_PIECE):
        last = min(first + ROWS_PER_PIECE, rows + 1)
        yield "".join(f"{number},{number * number}\n" for number in range(first, last))
