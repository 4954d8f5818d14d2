"""The project as one ASGI application: Django for HTTP, a few lines here for the rest.

Django answers HTTP only. ``application`` hands it every request, answers the WebSocket on ``/ws/``, and uses the
lifespan to bring the database up to date, so that a fresh checkout needs no further command. A project in
production runs ``manage.py migrate`` at each deployment instead.

``get_asgi_application`` is the server's, because the server cannot find Django's handler within a function.
"""

from __future__ import annotations

import os
from typing import Any

from asgiref.sync import sync_to_async
from django.core.management import call_command

from asgiserver.django import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django = get_asgi_application()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Hand a connection to the function for its protocol."""
    match scope["type"]:
        case "http":
            await django(scope, receive, send)
        case "websocket":
            await echo(scope, receive, send)
        case "lifespan":
            await lifespan(receive, send)


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send every text back in capitals; refuse any other path than ``/ws/``."""
    await receive()  # websocket.connect
    if scope["path"] != "/ws/":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        await send({"type": "websocket.send", "text": "texts only, please" if text is None else text.upper()})


async def lifespan(receive: Any, send: Any) -> None:
    """Create or update the tables before the first request; after a failure the server ends."""
    await receive()  # lifespan.startup
    try:
        await sync_to_async(call_command)("migrate", verbosity=0, interactive=False)
    except Exception as error:  # noqa: BLE001 - the server reports any failure and stops
        await send({"type": "lifespan.startup.failed", "message": f"the database could not be migrated: {error}"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})
