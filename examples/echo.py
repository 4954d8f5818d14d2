"""A WebSocket that sends every message back, with the page that talks to it.

Run it and open http://127.0.0.1:8000/::

    asgiserver examples.echo:application
"""

from __future__ import annotations

from typing import Any

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Echo</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark }
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem }
  form { display: flex; gap: .5rem }
  input { flex: 1 }
  input, button { font: inherit; padding: .5rem .75rem; border: 1px solid #99a; border-radius: .4rem }
  li { font-family: ui-monospace, monospace }
</style>
<h1>Echo</h1>
<form><input autofocus autocomplete="off" placeholder="Say something" aria-label="Message"><button>Send</button></form>
<p id="state">Connecting\xe2\x80\xa6</p>
<ol id="heard"></ol>
<script>
  const field = document.querySelector("input"), state = document.querySelector("#state");
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
  socket.onopen = () => { state.textContent = "Connected."; };
  socket.onclose = event => { state.textContent = `Closed (${event.code}).`; };
  socket.onmessage = event => {
    const line = document.createElement("li");
    line.textContent = event.data;
    document.querySelector("#heard").append(line);
  };
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    if (socket.readyState === WebSocket.OPEN) socket.send(field.value);
    field.value = "";
  };
</script>
</html>
"""


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The page on ``/``, the echo on ``/ws``."""
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["type"] == "http":
        await page(scope, send)
    else:
        raise RuntimeError(f"this application does not speak {scope['type']}")


async def page(scope: dict[str, Any], send: Any) -> None:
    """Answer ``/`` with the page and any other path with 404."""
    status, kind, body = (200, b"text/html", PAGE) if scope["path"] == "/" else (404, b"text/plain", b"Not found\n")
    headers = [(b"content-type", kind + b"; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Accept on ``/ws``, then send each message back as it came: text as text, bytes as bytes."""
    await receive()  # websocket.connect
    if scope["path"] != "/ws":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
