"""The monitor: an ASGI application of ours, on a server of its own.

==================  ========================================================================================
``/metrics``        for Prometheus
``/healthz``        200 while the supervisor and a worker that serves have given a sign of life, else 503
``/readyz``         200 while a worker serves and nobody has asked the service to stop, else 503
``/``               a page, which reads the next two
``/settings.json``  the settings in force, without passwords
``/live``           a WebSocket: how the service is, once a second
==================  ========================================================================================

Nothing here asks an application or waits for a worker. What clients have sent is shown only as methods and paths.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..asgi.interfaces import Message, Receive, Scope, Send
from ..listen.bind import Bound
from ..server import Server
from ..settings import Settings
from .endpoints import monitor_settings
from .exposition import CONTENT_TYPE, exposition
from .reading import Reading

__all__ = ["Monitor", "make_server"]

#: Seconds between two messages of ``/live``, and how many may listen: probes have to find a connection that is free.
_EVERY: Final = 1.0
_MOST_PAGES: Final = 100
_PLAIN: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_PAGE: Final = Path(__file__).with_name("page.html")
#: No page of another site may show ours, and ours asks nobody else for anything.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: A status, a media type and a body.
_Answer = tuple[int, str, str]


class Monitor:
    """The application (ASGI 3).

    :param reading: what it tells.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._pages = 0
        self._answers: dict[str, Callable[[], _Answer]] = {
            "/": lambda: (200, "text/html; charset=utf-8", _PAGE.read_text("utf-8")),
            "/metrics": lambda: (200, CONTENT_TYPE, exposition(reading)),
            "/healthz": lambda: _verdict(reading.alive()),
            "/readyz": lambda: _verdict(reading.ready()),
            "/settings.json": lambda: (200, _JSON, json.dumps(reading.facts.settings)),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a handshake."""
        if scope["type"] == "websocket":
            self._pages += 1
            try:
                await self._live(scope, receive, send)
            finally:
                self._pages -= 1
            return
        answer = self._answers.get(scope["path"])
        if answer is None:
            await _send(send, (404, _PLAIN, "There is no such page.\n"))
        elif scope["method"] not in ("GET", "HEAD"):
            await _send(send, (405, _PLAIN, "This can only be read.\n"), (b"allow", b"GET, HEAD"))
        else:
            await _send(send, answer())

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] != "/live" or not _same_origin(scope) or self._pages > _MOST_PAGES:
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        gone = asyncio.ensure_future(_end(receive))
        try:
            while not gone.done():
                await send({"type": "websocket.send", "text": json.dumps(self._reading.live())})
                await asyncio.wait((gone,), timeout=_EVERY)
        finally:
            gone.cancel()


async def _end(receive: Receive) -> None:
    """Wait until the client leaves; what it says does not matter."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _verdict(good: bool) -> _Answer:
    return (200, _PLAIN, "yes\n") if good else (503, _PLAIN, "no\n")


def _same_origin(scope: Scope) -> bool:
    """Whether the page that has opened the WebSocket, if one has, is ours (RFC 6455 §10.2)."""
    fields = dict(scope["headers"])
    origin: bytes | None = fields.get(b"origin")
    return origin is None or origin.partition(b"://")[2].lower() == fields.get(b"host", b"").lower()


async def _send(send: Send, answer: _Answer, *more: tuple[bytes, bytes]) -> None:
    status, media, text = answer
    body = text.encode()
    headers = [
        (b"content-type", media.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", _POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def make_server(reading: Reading, settings: Settings, bound: list[Bound], reactor: Any = None) -> Server:
    """The server of a monitor.

    :param settings: those of the service.
    :param bound: the sockets, see :func:`.endpoints.bind_monitor`.
    :param reactor: as ``Server`` takes it.
    """
    server = _Quiet(Monitor(reading), monitor_settings(settings), reactor=reactor)
    server.bound = bound
    return server


class _Quiet(Server):
    """Probes come every few seconds, and nobody wants to read of them."""

    @property
    def logs_actions(self) -> bool:
        return False

    async def _close_listeners(self) -> None:
        for listener in self.listeners:
            await listener.close()
