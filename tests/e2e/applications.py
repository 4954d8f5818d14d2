"""Applications that several files serve, and the messages of short ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .live import Receive, Send, answer, receive_body
from .websocket import Echo

__all__ = [
    "Application", "Hearing", "Recorder", "Waiting", "answering", "hello", "lives", "piece", "sending", "start",
]  # fmt: skip

Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


class Recorder:
    """Answers with the request's body, echoes over WebSockets, and keeps every scope and body.

    :ivar began: set when there was a request.
    """

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.began.set()
        if scope["type"] == "websocket":
            await Echo()(scope, receive, send)
            return
        self.bodies.append(await receive_body(receive))
        await answer(send, self.bodies[-1])

    @property
    def scope(self) -> dict[str, Any]:
        return self.scopes[-1]

    @property
    def seen(self) -> tuple[Any, Any, str]:
        """The latest scope's client, server, and scheme."""
        client, server = (self.scope[key] and tuple(self.scope[key]) for key in ("client", "server"))
        return client, server, self.scope["scheme"]


class Hearing:
    """Takes events until that of the disconnect, and keeps them; it answers nothing."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.events: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.began.set()
        while not self.has_ended():
            self.events.append(await receive())

    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1]["type"].endswith(".disconnect")


class Waiting:
    """Sends ``messages``, and waits until it is cancelled."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.messages = messages

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        for message in self.messages:
            await send(message)
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def hello(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Reads the request's body, and answers."""
    await receive_body(receive)
    await answer(send, b"hello")


async def lives(receive: Receive, send: Send, events: list[Any] | None = None) -> None:
    """A lifespan that starts and ends well; the types of its events are added to ``events``."""
    for kind in ("startup", "shutdown"):
        event = await receive()
        if events is not None:
            events.append(event["type"])
        await send({"type": f"lifespan.{kind}.complete"})


def answering(body: bytes = b"", status: int = 200, headers: Any = None) -> Application:
    """Answers at once and always the same; see :func:`tests.e2e.live.answer`."""

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await answer(send, body, status, headers)

    return application


def sending(*steps: Any, after_receive: bool = False) -> Application:
    """Sends one message after the other, and returns; a step that is an exception is raised.

    :param after_receive: take the first event before.
    """

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if after_receive:
            await receive()
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            await send(step)

    return application


def start(status: int = 200, *headers: tuple[Any, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {"headers": list(headers)} if headers else {}
    return {"type": "http.response.start", "status": status, **more}


def piece(body: bytes = b"", more_body: bool = False) -> dict[str, Any]:
    more = ({"body": body} if body else {}) | ({"more_body": True} if more_body else {})
    return {"type": "http.response.body", **more}
