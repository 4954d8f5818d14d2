"""WSGI applications (PEP 3333) served as ASGI applications, each request on one thread of the loop's default executor.

The loop makes ``environ`` (``environ.py``) and waits for the beginning of the body, so that a small body that arrives
slowly occupies no thread. In the thread ``answer.py`` runs the application and applies PEP 3333's rules to its
response. ``bridge.py`` calls it there, and a pipe carries the response to the loop, makes the thread wait for a slow
client, and tells the thread that the client has left. Nothing here knows the wire or the server: this is an ASGI
application like any other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from tempfile import TemporaryFile
from typing import IO, Any

from ..asgi.interfaces import Receive, Scope, Send
from .answer import Answer
from .bridge import Bridge, RestOfBody
from .environ import make_environ

__all__ = ["WSGI"]

#: Bytes of a request's body that are awaited before a thread is taken.
_AHEAD = 65536


class WSGI:
    """An ASGI 3 application that runs a WSGI application.

    As many requests run at a time as the loop's default executor has threads: ``ASGI_THREADS``, or Python's default of
    four more than there are cores, at most 32. Others wait in order of arrival.

    WSGI knows neither lifespan nor WebSockets: there is no start-up, and a WebSocket's handshake is answered 403.

    :param application: a WSGI application that may run in several threads at a time.
    :param chunked_body_size: most bytes of a body without Content-Length. Frameworks need the length before they read
        (Django takes a missing one for 0), so such a body is read to its end first, into a temporary file if it
        has more than 64 KiB; a longer body is answered 413.
    """

    _asgi_single_callable = True

    def __init__(self, application: Callable[..., Iterable[bytes]], chunked_body_size: int = 268_435_456) -> None:
        self.application = application
        self.chunked_body_size = chunked_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises what the application raises."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        environ = make_environ(scope)
        pieces: list[bytes] = []
        # A client that waits for 100 (Continue) gets it when the application reads (RFC 9110 §10.1.1).
        missing, more = 0 if environ.get("HTTP_EXPECT", "").lower() == "100-continue" else _AHEAD, True
        while more and missing > 0:
            message = await receive()
            if message["type"] != "http.request":
                return
            pieces.append(message.get("body", b""))
            missing, more = missing - len(pieces[-1]), message.get("more_body", False)
        body = b"".join(pieces)
        bridge = Bridge(receive, send, str(environ["RAW_URI"]))
        if more:
            environ["wsgi.input"] = io.BufferedReader(RestOfBody(body, bridge.receive), _AHEAD)
        else:
            environ["wsgi.input"] = io.BytesIO(body)
            if body:
                environ.setdefault("CONTENT_LENGTH", str(len(body)))
        await bridge.run(self._answer, environ, Answer(bridge.pipe, scope["method"] == "HEAD"))

    def _answer(self, environ: dict[str, Any], answer: Answer) -> None:
        """Run the application for one request, in its thread."""
        body = environ["wsgi.input"]
        if "CONTENT_LENGTH" in environ or isinstance(body, io.BytesIO):
            answer.run(self.application, environ)
            return
        with TemporaryFile() as file:
            complete = _copy(body, file, self.chunked_body_size)
            if file.tell():
                environ["CONTENT_LENGTH"] = str(file.tell())
            file.seek(0)
            environ["wsgi.input"] = file
            answer.run(self.application if complete else _too_large, environ)


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> bool:
    """Copy a body; False when it is longer than ``most`` bytes."""
    while piece := source.read(_AHEAD):
        if target.tell() + len(piece) > most:
            return False
        target.write(piece)
    return True


def _too_large(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("413 Content Too Large", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"The body is too large to be taken without a Content-Length.\n"]
