"""What is served with ``--reload`` in place of an application that cannot start."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from typing import Any

from ..asgi.interfaces import Receive, Scope, Send
from ..cli import CommandLineInterface
from ..log import setup as logs
from ..loop.reactor import install_reactor
from ..settings import Settings
from .nursery import Application

__all__ = ["FailurePage", "load"]

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>The application cannot start</title>
<h1>The application cannot start</h1>
<p>It is tried again when its code changes.</p>
<pre>{}</pre>
</html>
"""


def load(text: str, values: Mapping[str, Any]) -> Application:
    """The page, for a worker.

    :param text: why the application cannot start.
    :param values: the supervisor's settings, as those of now may be the reason.
    """
    interface = CommandLineInterface()
    interface.settings = dataclasses.replace(Settings(**values), interface="asgi3", lifespan="off", django="off")
    logs.configure(interface.settings)
    logs.bridge_twisted()
    install_reactor(interface.settings.loop)
    return Application(interface, FailurePage(text), {})


class FailurePage:
    """An application that answers 500 to everything, handshakes of WebSockets too.

    :param text: its body; in a page of HTML for clients that accept one.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        kind, text = "plain", self._text
        if b"text/html" in accepted:
            kind, text = "html", _PAGE.format(html.escape(text))
        body = text.encode("utf-8", "backslashreplace")
        headers = [
            (b"content-type", f"text/{kind}; charset=utf-8".encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        # A denial of a handshake has the same form under another name.
        prefix = "websocket.http" if scope["type"] == "websocket" else "http"
        await send({"type": f"{prefix}.response.start", "status": 500, "headers": headers})
        await send({"type": f"{prefix}.response.body", "body": body})
