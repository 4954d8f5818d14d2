"""Files as bodies of responses (ASGI extensions ``http.response.pathsend`` and ``http.response.zerocopysend``).

Only regular files are sent: any other file has no known length, and reading it may take any time.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import MessageError
from .fields import fail, shown

__all__ = [
    "FilePart", "SendFile", "SendPath", "file_part", "open_path", "parse_file", "parse_path", "pass_by", "read",
]  # fmt: skip

#: The messages that the errors of files name.
_PATHSEND, _ZEROCOPYSEND = {"type": "http.response.pathsend"}, {"type": "http.response.zerocopysend"}


class SendPath(NamedTuple):
    """``http.response.pathsend``: a whole file is the whole body."""

    path: str


class SendFile(NamedTuple):
    """``http.response.zerocopysend``.

    :param file: an open file of the application's, which has a descriptor.
    :param offset: where to begin, None for where the file stands.
    :param size: how many bytes, None for all that follow.
    """

    file: Any
    offset: int | None
    size: int | None
    more_body: bool


class FilePart(NamedTuple):
    """An existing part of a regular file: ``offset + size`` is not beyond the file's end.

    :param descriptor: the owner of the part closes it.
    """

    descriptor: int
    offset: int
    size: int


def parse_path(message: Mapping[str, Any]) -> SendPath:
    """Check an ``http.response.pathsend``; raises MessageError."""
    path = message.get("path")
    if not isinstance(path, str | os.PathLike):
        fail(message, f'"path" must be a str, got {type(path).__name__}')
    path = os.fspath(path)
    if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
        fail(message, f'"path" must be an absolute path, got {shown(path)}')
    return SendPath(path)


def parse_file(message: Mapping[str, Any]) -> SendFile:
    """Check an ``http.response.zerocopysend``; raises MessageError."""
    file = message.get("file")
    if not hasattr(file, "fileno"):
        fail(message, f'"file" must be an open file, got {type(file).__name__}')
    offset, size = message.get("offset"), message.get("count")
    for name, number in (("offset", offset), ("count", size)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            fail(message, f'"{name}" must be an int of at least 0, got {shown(number)}')
    return SendFile(file, offset, size, bool(message.get("more_body", False)))


def open_path(path: str) -> FilePart:
    """Open the file of a :class:`SendPath`.

    :raises MessageError: there is no such file, or it is no regular one.
    """
    try:
        # O_NONBLOCK, so that opening a named pipe does not wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        # A ValueError when the path has a lone surrogate, which no file's name can have.
        fail(_PATHSEND, f"cannot open {shown(path)}: {getattr(error, 'strerror', None) or error}")
    try:
        return FilePart(descriptor, 0, _size(descriptor, _PATHSEND))
    except MessageError:
        os.close(descriptor)
        raise


def file_part(reply: SendFile) -> FilePart:
    """The part that ``reply`` means, with a descriptor of its own; the file's position stays until :func:`pass_by`.

    :raises MessageError: the file is closed, not open for reading, no regular one, or too short.
    """
    file = reply.file
    try:
        descriptor = file.fileno()
        end = _size(descriptor, _ZEROCOPYSEND)
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            fail(_ZEROCOPYSEND, "the file is open for writing alone")
        # The position of the object, not of its descriptor, from which a buffered file has read ahead.
        offset = _position(file) if reply.offset is None else reply.offset
        size = max(0, end - offset) if reply.size is None else reply.size
        if offset + size > end:
            fail(_ZEROCOPYSEND, f"the file has {end} bytes, but {size} from {offset} on are to be sent")
        return FilePart(os.dup(descriptor), offset, size)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        # OverflowError and TypeError: fileno() has returned a value that cannot be a descriptor.
        if isinstance(error, MessageError):
            raise
        fail(_ZEROCOPYSEND, f'"file" cannot be sent: {error}')


def read(part: FilePart) -> bytes:
    """The content of a part.

    :raises MessageError: the file has become shorter since it was looked at, or cannot be read.
    """
    try:
        data = os.pread(part.descriptor, part.size, part.offset)
    except OSError as error:
        raise MessageError(f"the file cannot be read: {error.strerror}") from error
    if len(data) < part.size:
        raise MessageError(f"the file has become {part.size - len(data)} bytes shorter while it was sent")
    return data


def pass_by(reply: SendFile, part: FilePart) -> None:
    """Move a file that was sent without an offset to the end of its ``part``, as reading it would."""
    if reply.offset is None:
        file, end = reply.file, part.offset + part.size
        if hasattr(file, "seek"):
            file.seek(end)
        else:
            os.lseek(file.fileno(), end, os.SEEK_SET)


def _position(file: Any) -> int:
    return int(file.tell()) if hasattr(file, "tell") else os.lseek(file.fileno(), 0, os.SEEK_CUR)


def _size(descriptor: int, message: Mapping[str, Any]) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        fail(message, "only regular files can be sent")
    return status.st_size
