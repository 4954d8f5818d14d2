"""What the servers are asked to do, and what of it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .applications import FILE_SIZE, PIECE, PIECES, json_of, page_of, proxied_of, varied_of
from .django_loads import DJANGO
from .load import Client, Load, by_client, by_h2load, by_wrk
from .varied import Varied
from .workers_memory import WORKERS
from .wrk import Request

__all__ = ["LOADS", "varied_over"]

BROWSER: Mapping[str, str] = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 "
    "Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control": "max-age=0",
    "Connection": "keep-alive",
    "Cookie": "csrftoken=k3bq0LJwC2pO5cUuGzXyVv1mR7dTfNhA; sessionid=x8r2m5q1w9e4t7y3u6i0o5p2a8s4d1f7",
    "Referer": "https://example.org/forum/threads/1729",
    "Sec-Ch-Ua": '"Chromium";v="130", "Not?A_Brand";v="99"',
    "Sec-Ch-Ua-Mobile": "?0",
    "Sec-Ch-Ua-Platform": '"Linux"',
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
}
POST = Request("POST", {"Content-Type": "application/octet-stream"}, body=65536)
ROUTED = "tests.benchmarks.project.routing:application"
IDLE = ("each", "idle_cpu")

VARIED = Varied(varied_of)
PAGE = Varied(page_of)
JSON = Varied(json_of, posts=True)
PROXIED = Varied(proxied_of, fields="X-Forwarded-Proto: https\r\n")


def _varied(title: str, application: str, request: Varied, connections: int = 32, **options: Any) -> Load:
    client = by_wrk(request, connections)
    return Load(title, "request", application, client, varied=request, needs="wrk", **options)


def varied_over(connections: int) -> Load:
    """The first of :data:`LOADS`, over so many connections."""
    return replace(
        LOADS["varied"], title=f"GET, each different, {connections} connections", client=by_wrk(VARIED, connections)
    )


def _http2(title: str, application: str, client: Client, unit: str = "request", **options: Any) -> Load:
    return Load(title, unit, application, client, group="http2", http2=True, **options)


def _by_h2load(title: str, connections: int, streams: int, application: str = "hello", **options: Any) -> Load:
    body = options.pop("body", 0)
    return _http2(title, application, by_h2load(connections, streams, body), needs="h2load", **options)


HTTP2 = {
    "h2-varied": _http2(
        "GET, each different, 8 connections × 16 streams", "varied", by_client("http2_requests"), varied=VARIED
    ),
    "h2-one": _http2(
        "GET, each different, 16 connections × 1 stream", "varied",
        by_client("http2_requests", connections=16, streams=1), varied=VARIED,
    ),
    "h2-get": _by_h2load("the same GET, 8 connections × 16 streams", 8, 16),
    "h2-get-one": _by_h2load("the same GET, 16 connections × 1 stream", 16, 1),
    "h2-tls": _by_h2load("the same TLS GET, 8 connections × 16 streams", 8, 16, tls=True),
    "h2-post": _by_h2load("POST of 64 KiB, 8 connections × 4 streams", 8, 4, "measured", body=65536, answer=b"0"),
    "h2-stream": _by_h2load(
        "10 MiB streamed, 4 connections × 4 streams", 4, 4, "stream", unit="response", answer=PIECE * PIECES, slices=3
    ),
    "h2-idle": _http2(
        "2,000 idle connections, HTTP/2", "hello", by_client("idle", kind="http2"), "connection", metrics=IDLE,
        slices=1, warm_up=False, together=True,
    ),
}  # fmt: skip

LOADS = {
    "varied": _varied("GET, each different", "varied", VARIED),
    "page": _varied("page of 5 KiB, each different", "page", PAGE),
    "json": _varied("POST of 1 KiB of JSON, each different", "json", JSON),
    "one": _varied("GET, each different, one connection", "varied", VARIED, 1),
    "unix": Load(
        "GET, each different, unix socket", "request", "varied", by_client("requests"), varied=VARIED, unix=True
    ),
    "proxied": _varied("GET, each different, behind a proxy", "proxied", PROXIED, proxied=True),
    "tls-varied": _varied("TLS GET, each different", "varied", VARIED, tls=True),
    "get": Load("the same GET again and again", "request", "hello", by_wrk(Request(), 32), needs="wrk"),
    "browser": Load(
        "the same GET, a browser's head", "request", "hello", by_wrk(Request(fields=BROWSER), 32), needs="wrk"
    ),
    "wait": Load("200 waiting requests of 10 ms", "request", "wait", by_wrk(Request(), 200), needs="wrk"),
    "post": Load("POST of 64 KiB", "request", "measured", by_wrk(POST, 32), answer=b"0", needs="wrk"),
    "upload": Load(
        "upload of 256 MiB", "MiB", "measured", by_client("upload"), ("cpu", "rate", "memory"), answer=b"0",
        slices=5,
    ),
    "stream": Load(
        "10 MiB streamed", "response", "stream", by_client("download", size=len(PIECE) * PIECES, connections=4),
        answer=PIECE * PIECES,
    ),
    "file": Load(
        "file of 1 MiB", "response", "file", by_client("download", size=FILE_SIZE, connections=4),
        answer=b"x" * FILE_SIZE,
    ),
    "tls": Load("the same TLS GET", "request", "hello", by_wrk(Request(), 32), tls=True, needs="wrk"),
    "echo": Load("WebSocket echo, 32 B", "message", "echo", by_client("echo", size=32)),
    "ws-varied": Load(
        "WebSocket echo, 20 to 400 B, each different", "message", "echo", by_client("echo", varied=True)
    ),
    "deflate": Load(
        "WebSocket echo, 1 KiB compressed", "message", "echo",
        by_client("echo", size=1024, connections=16, compressed=True),
    ),
    "large": Load("WebSocket echo, 64 KiB", "message", "echo", by_client("echo", size=65536, connections=8)),
    "broadcast": Load("one sender to 1,000 WebSockets", "delivery", "broadcast", by_client("broadcast"), slices=3),
    "idle": Load(
        "2,000 idle connections, HTTP", "connection", "hello", by_client("idle", kind="http"), IDLE,
        slices=1, warm_up=False, together=True,
    ),
    "idle-ws": Load(
        "2,000 idle WebSockets", "connection", "echo", by_client("idle", kind="websocket"), IDLE,
        slices=1, warm_up=False, together=True,
    ),
    "channels": Load("Channels echo, 32 B", "message", ROUTED, by_client("echo", size=32)),
    "start": Load("start", "start", "hello", None, ("first_answer", "start_cpu", "memory"), slices=3),
    **DJANGO,
    **WORKERS,
    **HTTP2,
    "supervised": _varied("GET, each different, one worker", "varied", VARIED, group="supervised"),
    "workers": _varied("GET, each different, two workers", "varied", VARIED, group="workers", workers=2),
}  # fmt: skip
