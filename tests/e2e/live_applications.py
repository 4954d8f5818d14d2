"""Applications for servers under test; in a module of their own, which a spawned process imports quickly."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers, or fails, as the path says."""
    if scope["type"] == "lifespan":
        raise NotImplementedError("no lifespan")
    path = scope["path"]
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if path in _FAILURES:
        raise _FAILURES[path]
    if path == "/nothing":
        return
    if path == "/print":
        print("printed by the application", flush=True)  # noqa: T201 - its output is what is tested
        logging.getLogger("my.application").warning("logged by the application")
    if path == "/exit":
        os._exit(7)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/endless":
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.Event().wait()
    await send({"type": "http.response.body", "body": f"{os.getpid()} {threading.get_ident()}".encode()})


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class SlowError(Exception):
    """Takes its time to be logged, so that the client has its answer long before."""

    def __str__(self) -> str:
        time.sleep(0.3)
        return "at last"


_FAILURES: dict[str, BaseException] = {
    "/fail": ZeroDivisionError("the application fails"),
    "/fail-too": LookupError("it fails again"),
    "/fail-oddly": UnpicklableError("this", "that"),
    "/fail-slowly": SlowError(),
    "/leave": SystemExit("the application leaves"),
    "/interrupt": KeyboardInterrupt(),
}


async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Appends to the file named by LIVE_FILE when it has started and when it has shut down."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            note(event)
            await send({"type": f"lifespan.{event}.complete"})
    else:
        await application(scope, receive, send)


async def failing_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def failing_shutdown(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise RuntimeError("the shutdown fails")


async def refusing_shutdown(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "no disk"})


async def slow_start(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


async def blocking(scope: Any, receive: Any, send: Any) -> None:
    """Keeps the loop busy for a while, so that it cannot stop."""
    if scope["type"] == "http":
        time.sleep(1)  # noqa: ASYNC251 - that is the point


def note(words: str) -> None:
    with Path(os.environ["LIVE_FILE"]).open("a", encoding="utf-8") as file:
        file.write(words + "\n")


def get_application() -> Any:
    return application


def get_with_lifespan() -> Any:
    return with_lifespan


def get_nothing() -> Any:
    raise ImportError("there is no application, \0 and a long story: " + "ä" * 100_000)


def get_oddly() -> Any:
    raise UnpicklableError("this", "that")


def leave() -> Any:
    sys.exit("the application does not want to")


def count(shared: Any) -> None:
    with shared.get_lock():
        shared.value += 1


def note_setup() -> None:
    note("setup")


def note_teardown() -> None:
    note("teardown")
