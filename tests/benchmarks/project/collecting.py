"""The project with a page that makes a full collection of garbage and tells which process has answered."""

from __future__ import annotations

import gc
import os
from typing import Any

from .asgi import application as django

__all__ = ["application"]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve the project, and ``/collect``."""
    if scope["type"] != "http" or scope["path"] != "/collect":
        await django(scope, receive, send)
        return
    gc.collect()
    body = b"%d" % os.getpid()
    fields = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})
