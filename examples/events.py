"""Server-sent events: the time of day and the number of listeners, once a second, until the client leaves.

Run it and open http://127.0.0.1:8000/, or watch the stream itself::

    asgiserver examples.events:application
    curl -N http://127.0.0.1:8000/events
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

HTML = [(b"content-type", b"text/html; charset=utf-8")]

#: Seconds between two events.
INTERVAL = 1.0

#: One task for each client that listens now.
listeners: set[asyncio.Task[None]] = set()

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Events</title>
<link rel="icon" href="data:,">
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; min-height: 100vh; display: grid; place-content: center }
  :root { color-scheme: light dark }
  body { text-align: center }
  time { font: 300 clamp(3rem, 15vw, 9rem)/1 ui-monospace, monospace }
</style>
<time>--:--:--</time>
<p></p>
<script>
  new EventSource("/events").onmessage = event => {
    const news = JSON.parse(event.data);
    document.querySelector("time").textContent = news.time;
    document.querySelector("p").textContent = news.listeners === 1 ? "only you" : `${news.listeners} of you`;
  };
</script>
</html>
"""


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The stream on ``/events``, a page that shows it on every other path."""
    if scope["type"] != "http":
        raise RuntimeError(f"this application does not speak {scope['type']}")
    if scope["path"] == "/events":
        await events(receive, send)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": HTML})
        await send({"type": "http.response.body", "body": PAGE})


async def events(receive: Any, send: Any) -> None:
    """Send events until the client leaves or the server stops."""
    # A proxy that collects responses before it passes them on would hold the events back: nginx reads this field.
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(send_events(send))
        listeners.add(sending)
        sending.add_done_callback(listeners.discard)
        while (await receive())["type"] != "http.disconnect":
            pass
        sending.cancel()
    # Nobody gets this message when the client has left. When the server stops, the message ends the stream in order.
    await send({"type": "http.response.body"})


async def send_events(send: Any) -> None:
    """Send one event for each :data:`INTERVAL`, for ever."""
    while True:
        news = {"time": f"{datetime.now().astimezone():%H:%M:%S}", "listeners": len(listeners)}
        await send({"type": "http.response.body", "body": f"data: {json.dumps(news)}\n\n".encode(), "more_body": True})
        await asyncio.sleep(INTERVAL)
