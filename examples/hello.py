"""The smallest HTTP application.

Run it::

    asgiserver examples.hello:application
"""

from __future__ import annotations

from typing import Any


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every HTTP request with one line of text; refuse any other protocol, as ASGI asks."""
    if scope["type"] != "http":
        raise RuntimeError(f"this application does not speak {scope['type']}")
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"14")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!\n"})
