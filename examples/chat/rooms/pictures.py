"""Uploads: pictures that every browser shows, recognised by their first bytes, not by what the client says."""

from __future__ import annotations

import re
import secrets

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile

#: Greatest size of a picture, bytes.
MAX_SIZE = 5 << 20

TYPES = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}

#: SVG is not among them: it may carry scripts.
SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR", re.DOTALL),
    "jpg": re.compile(rb"\xff\xd8\xff"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF.{4}WEBPVP8[ LX]", re.DOTALL),
}

NAME = re.compile(rf"[0-9a-f]{{32}}\.({'|'.join(TYPES)})")


class UnfitPictureError(ValueError):
    """The text tells the user why."""


def keep(file: UploadedFile) -> str:
    """Store a picture under a name that nobody can guess, and return the name.

    :raises UnfitPictureError: it is too large, or not a picture.
    """
    if file.size > MAX_SIZE:
        raise UnfitPictureError(f"Pictures may have up to {MAX_SIZE >> 20} MiB.")
    head = file.read(32)
    kind = next((kind for kind, signature in SIGNATURES.items() if signature.match(head)), None)
    if kind is None:
        raise UnfitPictureError("Only PNG, JPEG, GIF and WebP pictures can be shown here.")
    name = f"{secrets.token_hex(16)}.{kind}"
    settings.MEDIA_ROOT.mkdir(parents=True, exist_ok=True)
    with open(settings.MEDIA_ROOT / name, "xb") as kept:
        kept.writelines(file.chunks())
    return name
