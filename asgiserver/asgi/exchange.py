"""An exchange: one request and its response, as the application sees them (RFC 9110 §3.4).

:class:`Exchange` owns what HTTP and WebSocket share: the state, the waiting ``receive()``, and how the end of either
side is told to the other. A wire calls its peer half, the hub its application half. The reply half of each kind is
one ``match`` over (state, reply); a pair that is not there is the application's mistake.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from abc import ABC, abstractmethod
from contextvars import ContextVar
from enum import Enum, auto
from typing import Any

from ..errors import ApplicationError, ClientDisconnected, RequestError, UnexpectedMessage
from ..settings import Settings
from .deadlines import Deadline, Deadlines
from .interfaces import Clock, Hub, Message, Output, Scope, Stream
from .messages import TYPES
from .response import CLIENT_CLOSED_REQUEST, Response, plain

__all__ = [
    "CLOSING", "COMPLETE", "GONE", "LAST_WORDS", "OPEN", "STARTED", "STREAMING", "TRAILERS", "WAITING", "Exchange",
    "State", "logged_request",
]  # fmt: skip

logger = logging.getLogger("asgiserver")

#: How long a request has waited for a thread before its application ran, in seconds; for the access log.
waited: ContextVar[float] = ContextVar("asgiserver.waited")


class State(Enum):
    """Where an exchange is; each kind uses its own part of them."""

    WAITING = auto()  # nothing of the reply yet
    STARTED = auto()  # the start of a response is held until its first body message
    STREAMING = auto()  # the head of the response is with the wire
    TRAILERS = auto()  # the whole body is with the wire, and the trailers that end the response are awaited
    OPEN = auto()  # WebSocket accepted
    CLOSING = auto()  # the application closed the WebSocket; the peer's close frame is awaited
    COMPLETE = auto()  # the application's half is over, cleanly
    GONE = auto()  # the peer left, or was cut off


#: The same as names of a module, which are faster to look up than an enum's members.
WAITING, STARTED, STREAMING, TRAILERS, OPEN, CLOSING, COMPLETE, GONE = State

#: How many calls of ``receive()`` in a row are told at once that the peer has left, before other tasks have a turn. At
#: once, because Starlette calls it within a scope that is cancelled already, where any wait would hide the event.
_REPEATS = 100

#: How many messages are dropped in silence when the application was told that its peer has left, but was not waiting in
#: ``receive()`` when the peer left: a whole response of start, body and end. An application that sends more has not got
#: the event: Starlette's middleware loses an event that ``is_disconnected()`` takes.
LAST_WORDS = 3

#: And when it was waiting: one that still sends after so many has lost the event in the same way.
MANY_WORDS = 1000


class Exchange(ABC):
    """What HTTP and WebSocket exchanges share.

    :param scope: the application's scope.
    :param stream: where this exchange writes.
    :param hub: told when the peer is gone and what to log.
    :ivar began: when it began, by its clock; None for a request that is neither logged nor counted.
    :ivar request_id: what the log calls this exchange: an id that a trusted proxy or the server has made.
    :ivar response: the response, None before its start; for a WebSocket, the denial of its handshake.
    """

    began: float | None

    __slots__ = (
        "_deadlines", "_hub", "_repeated", "_spared", "_told", "_waiters", "began", "clock", "request_id", "response",
        "scope", "settings", "state", "stream",
    )  # fmt: skip

    def __init__(self, scope: Scope, stream: Stream, hub: Hub, settings: Settings, clock: Clock) -> None:
        self.scope = scope
        # Kept here too, as the application may change what its scope says.
        self.request_id: str = scope["extensions"]["asgiserver"]["request_id"]
        self.stream = stream
        self.response: Response | None = None
        self.settings = settings
        self.clock = clock
        self.state = WAITING
        self._hub = hub
        self._told = False
        self._repeated = 0
        #: How many messages to the peer that has left may still be dropped in silence.
        self._spared = sys.maxsize
        #: One future for each ``receive()`` that waits; its result is an event, or None to look for one.
        self._waiters: list[asyncio.Future[Message | None]] | None = None
        self._deadlines: Deadlines | None = None

    def __str__(self) -> str:
        return f"{self.scope.get('method', 'WEBSOCKET')} {self.scope['path']!r}"

    @property
    def logged(self) -> dict[str, str]:
        """What a record about this exchange has besides its message: the ``extra`` of a logger's methods."""
        return {"request_id": self.request_id}

    @property
    def status(self) -> int:
        """The response's status, for the log; :data:`.CLIENT_CLOSED_REQUEST` while none was sent."""
        return CLIENT_CLOSED_REQUEST if self.response is None else self.response.status

    @property
    def gone(self) -> bool:
        """The peer cannot be reached any more."""
        return self.state is GONE

    @property
    def finished(self) -> bool:
        """Nothing more will be sent: an application that still runs does so in the background."""
        return self.state is COMPLETE or self.state is GONE

    @property
    def answered(self) -> bool:
        """The application may return: it has left no response missing or incomplete."""
        return self.state not in (WAITING, STARTED, STREAMING, TRAILERS)

    @property
    def cut_off(self) -> bool:
        """The peer left before its request was complete, and the application was told so."""
        return False

    @property
    def listening(self) -> bool:
        """The application learns from ``receive()`` that the peer has left, so its ``send()`` may stay silent."""
        return self._told or bool(self._waiters)

    @property
    def deadlines(self) -> Deadlines:
        """The deadlines of this exchange; most exchanges never make any."""
        if self._deadlines is None:
            self._deadlines = Deadlines(self.clock)
        return self._deadlines

    # What the application calls.

    async def receive(self) -> Message:
        """The next event for the application; can be cancelled without loss (ASGI ``receive``)."""
        if self._told and self.state is not OPEN:
            self._repeated += 1
            if self._repeated % _REPEATS == 0:
                # An application that asks again and again after the end must not keep the others from running, nor
                # the deadline that cancels it.
                await asyncio.sleep(0)
        while (event := self._next_event()) is None:
            waiter: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            try:
                event = await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    # The event came in the turn of the loop in which this call was cancelled.
                    self._give_back(waiter.result())
                    if self.finished and self._waiters == [waiter]:
                        # Nobody who waited has been told.
                        self._spared = LAST_WORDS
                raise
            finally:
                self._waiters.remove(waiter)
            if event is not None:
                break
        return event

    async def handle_reply(self, message: Message) -> None:
        """Take a message of the application, and wait while the peer is slow (ASGI ``send``).

        A message that follows a complete response is ignored, as ASGI asks.

        :raises ApplicationError: the message is malformed or does not fit the state; nothing of it was sent.
        :raises ClientDisconnected: the peer has left, and the application does not listen for that or sends on.
        """
        output, state = self.stream.output, self.state
        late = output.congested or state is GONE or state is COMPLETE
        try:
            if late:
                await self._handle_late_reply(message, output)
                return
            # Fast path: there is nothing to wait for first.
            self.take_reply(self.parse(message))
        except ApplicationError:
            # An application that goes on after each of its mistakes must not keep others from running.
            await asyncio.sleep(0)
            raise
        if output.congested:
            await output.drain()

    async def _handle_late_reply(self, message: Message, output: Output) -> None:
        reply = None if self.finished else self.parse(message)
        while output.slow and not self.finished:
            # Several tasks may send, or a task that has given up waiting: none may add bytes before there is room.
            await output.drain()
        if not self.finished:
            self.take_reply(reply)
            await output.drain()
            return
        # An application that sends on in a loop must not keep others from running: neither its own receive(), nor the
        # deadline that cancels it when it ignores the error too.
        await asyncio.sleep(0)
        self._spared -= 1
        if self._spared < 0 or (self.gone and not self.listening):
            raise ClientDisconnected("the client has left")
        if not self.gone:
            logger.debug("A message for %s after its response was complete is ignored", self, extra=self.logged)

    @abstractmethod
    def _next_event(self) -> Message | None:
        """What :meth:`receive` gives next, None while there is nothing."""

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _give_back(self, event: Message | None) -> None:
        """Take back an event that a cancelled ``receive()`` did not hand to the application; None for none."""

    @staticmethod
    @abstractmethod
    def parse(message: Message) -> Any:
        """The typed reply that ``message`` means; raises MessageError."""

    @abstractmethod
    def take_reply(self, reply: Any) -> None:
        """Take a parsed message of the application.

        :raises ApplicationError: the message does not fit the state; nothing of it reached the wire.
        """

    def _answer(self, error: RequestError, *, close: bool) -> None:
        """Send a whole response in the application's place."""
        self.response = Response(self.stream, plain(error), self.scope.get("method", "GET"), close=close)
        self.response.send(error.body, more_body=False)

    # What the hub calls.

    @abstractmethod
    def application_done(self, failed: bool) -> None:
        """The application has returned, or ``failed``: end the response or WebSocket that it left open."""

    def server_stopping(self) -> None:
        """The server wants to stop, or now wants streams without end to end (``Hub.ending``); any number of times."""

    def release(self) -> None:
        """The application's task has ended: leave no timer behind that keeps this exchange alive."""
        if self._deadlines is not None:
            self._deadlines.clear(Deadline.APPLICATION)
            self._deadlines.settle()

    # What a wire calls.

    @abstractmethod
    def body_received(self, data: bytes) -> None:
        """The peer has sent a piece of its half."""

    def body_ended(self) -> None:
        """The peer's half is complete."""

    def writable(self) -> None:
        """The peer takes data again after the output's ``slow`` was true."""

    @abstractmethod
    def request_failed(self, error: RequestError) -> None:
        """No application can answer any more: send the error's response, or abort one that has begun."""

    def file_failed(self) -> None:
        """The rest of a file that is being sent cannot be read, so the response cannot be completed."""
        self.request_failed(RequestError(500, "A file could not be sent to its end."))

    @abstractmethod
    def disconnected(self) -> None:
        """The connection, or this stream of it, is lost."""

    def _unexpected(self, reply: Any) -> UnexpectedMessage:
        """The error for a reply that the state does not allow."""
        kind: str = TYPES[type(reply)]
        websocket = self.scope["type"] == "websocket"
        if websocket and kind.startswith("http."):
            kind = f"websocket.{kind}"
        so_far = _SO_FAR_OF_WEBSOCKET if websocket else _SO_FAR
        return UnexpectedMessage(f"{kind} was sent {so_far[self.state]}")


def logged_request(scope: Scope, request_id: str) -> dict[str, Any]:
    """What ``action_logger`` is told of any request: Daphne's path, with the query, and client; and more."""
    client, query = scope["client"], scope["query_string"]
    path = scope["raw_path"] + (b"?" + query if query else b"")
    return {
        "path": path.decode("ascii"),
        "client": None if client is None else f"{client[0]}:{client[1]}",
        "http_version": scope["http_version"],
        "scheme": scope["scheme"],
        "headers": scope["headers"],
        "request_id": request_id,
    }


_SO_FAR = {
    State.WAITING: "before http.response.start",
    State.STARTED: "after the response was started",
    State.STREAMING: "while the response's body is being sent",
    State.TRAILERS: "after the response's body was complete",
    State.OPEN: "after the WebSocket was accepted",
    State.CLOSING: "after the WebSocket was closed",
    State.COMPLETE: "after the response was complete",
    State.GONE: "after the client has left",
}


_SO_FAR_OF_WEBSOCKET = {
    **_SO_FAR,
    State.WAITING: "before websocket.accept",
    State.STARTED: "after websocket.http.response.start",
    State.COMPLETE: "after the WebSocket was denied",
}
