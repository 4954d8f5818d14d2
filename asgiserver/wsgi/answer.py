"""A WSGI application's response to one request (PEP 3333), turned into blocks; used in the application's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import FileWrapper

from ..asgi.interfaces import Message
from ..pipe import Pipe, regular_part

__all__ = ["Answer"]

#: Statuses of responses without a body (RFC 9110 §6.4.1).
_BODILESS = (204, 304)


class Answer:
    """Calls an application once and sends its response.

    Nothing is sent before the first block that is not empty, so that the application may change its mind until then.

    :param pipe: takes the head and the blocks.
    :param is_head: the request's method is HEAD: the response has no body, whatever the application gives.
    """

    def __init__(self, pipe: Pipe, is_head: bool) -> None:
        self._pipe = pipe
        self._is_head = is_head
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        #: Bytes of the body that are still to come; None when that is not known.
        self._remaining: int | None = None
        self._begun = False
        self._ended = False

    def run(self, application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call ``application`` and send all that it gives; its iterable is closed in any case."""
        result = application(environ, self.start_response)
        try:
            if not (isinstance(result, FileWrapper) and self._send_file(result.filelike)):
                # The length of a single block is that of the body ("Handling the Content-Length Header").
                alone = isinstance(result, (list, tuple)) and len(result) == 1
                for block in result:
                    if block and not self._send(block, len(block) if alone else None):
                        break
            self._end()
        finally:
            if hasattr(result, "close"):
                result.close()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
        """See PEP 3333, "The start_response() Callable".

        :raises AssertionError: it was called before, and there is no ``exc_info``.
        :raises ValueError: ``status`` does not begin with three digits, or a field has characters beyond Latin-1.
        """
        if exc_info:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._status:
            raise AssertionError("start_response() was called a second time without exc_info")
        code = status[:3]
        if not (code.isascii() and code.isdecimal() and len(code) == 3 and status[3:4] in ("", " ")):
            raise ValueError(f"the status must be three digits, a space and a reason, got {status!r}")
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        self._remaining = int(lengths[0]) if lengths and lengths[0].isdecimal() else None
        self._status = int(code)
        return self._write

    def _write(self, data: bytes) -> None:
        """See PEP 3333, "The write() Callable"."""
        self._send(data, None)

    def _send(self, data: bytes, length: int | None) -> bool:
        """Send a block, as far as Content-Length allows; False when nothing may be sent any more.

        :param length: the size of the whole body in bytes, where it is known.
        """
        self._check_started()
        if not isinstance(data, bytes):
            raise TypeError(f"the body must be given in blocks of bytes, got {type(data).__name__}")
        if self._ended:
            return False
        head = self._begin(length)
        if self._remaining is not None:
            data = data[: self._remaining]
            self._remaining -= len(data)
            self._ended = not self._remaining
        self._pipe.put(head, data, not self._ended)
        return True

    def _send_file(self, file: Any) -> bool:
        """Let the kernel send the rest of ``file``, if reads would give the same bytes; False if not."""
        if self._is_head or self._status in _BODILESS or self._ended:
            return False
        part = regular_part(file)
        if part is None:
            return False
        self._check_started()
        raw, offset, size = part
        if self._remaining is not None:
            size = min(size, self._remaining)
        if size <= 0:
            return False
        head = self._begin(size)
        self._remaining, self._ended = 0, True
        self._pipe.put_file(head, raw, offset, size)
        return True

    def _end(self) -> None:
        self._check_started()
        if not self._ended:
            self._ended = True
            self._pipe.put(self._begin(None if self._is_head else 0), b"", False)

    def _check_started(self) -> None:
        if not self._status:
            raise AssertionError("the application has not called start_response() before the first block or the end")

    def _begin(self, length: int | None) -> Message | None:
        """The head at the first call, None after that."""
        if self._begun:
            return None
        bodiless = self._status in _BODILESS
        if length is not None and self._remaining is None and not bodiless:
            self._headers.append((b"Content-Length", b"%d" % length))
            self._remaining = length
        if bodiless or self._is_head:
            self._remaining = 0
        self._begun = True
        return {"type": "http.response.start", "status": self._status, "headers": self._headers}
