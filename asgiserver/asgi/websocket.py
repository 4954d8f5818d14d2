"""A WebSocket as the application sees it (RFC 6455; ASGI WebSocket 2.5).

To a wire this is an exchange whose body is opaque: bytes of the peer go to a frame engine, which calls back with
messages and closes, and whatever the engine writes goes to the stream. The same class serves every HTTP version.

The application's view ends (state GONE) when the peer closes, breaks the protocol, or is closed by the server; the
closing handshake may still be under way then, and ends with the peer's close frame or its deadline.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from ..errors import MessageError, RequestError
from ..settings import Settings
from .deadlines import Deadline
from .default_fields import DefaultFields
from .exchange import State, logged_request, unexpected
from .inbox import Inbox
from .interfaces import Clock, Frames, Headers, Hub, Message, Scope, Stream
from .messages import Accept, Close, DenialBody, DenialStart, ResponseStart, SendBytes, SendText, parse_websocket

__all__ = ["Answer", "WebSocketExchange"]

logger = logging.getLogger("asgiserver.wire")

ABNORMAL_CLOSURE = 1006
_WAITING, _OPEN, _COMPLETE, _GONE = State.WAITING, State.OPEN, State.COMPLETE, State.GONE

#: Makes the fields of the answer that accepts the handshake, from the chosen subprotocol.
Answer = Callable[[str | None], Headers]


class WebSocketExchange(Inbox):
    """A WebSocket, from its handshake to the end of its closing handshake.

    :param fields: the default fields of a response.
    :param answer: makes the fields that accept the handshake.
    :param frames: makes the frame engine once the WebSocket is accepted; it calls this object back.
    """

    __slots__ = (
        "_answer", "_began", "_close", "_connected", "_frames", "_heard_at", "_pending", "_pinged_at",
        "_received", "_sent",
    )

    parse = staticmethod(parse_websocket)

    def __init__(
        self,
        scope: Scope,
        stream: Stream,
        hub: Hub,
        settings: Settings,
        clock: Clock,
        fields: DefaultFields,
        answer: Answer,
        frames: Callable[[WebSocketExchange], Frames],
    ) -> None:
        super().__init__(scope, stream, hub, settings, clock, fields)
        self._answer = answer
        self._frames = frames
        self._connected = False
        self._close: tuple[int, str] | None = None
        self._received = self._sent = 0
        self._began = self._heard_at = clock.seconds()
        self._pinged_at: float | None = None
        #: What the peer had still to take when it was pinged, the ping included; bytes.
        self._pending = 0
        self.deadlines.set(Deadline.ACCEPT, settings.websocket_connect_timeout, self._not_accepted)
        self._log("connecting")

    # The application's inbox.

    def _next_event(self) -> Message | None:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        state = self.state
        if state is not _WAITING:
            # An application that calls receive() after it accepted will hear of the disconnect there.
            self._told = True
        if self._inbox:
            return self._next_message(self._inbox)
        if state is _GONE or state is _COMPLETE:
            code, reason = self._close or (ABNORMAL_CLOSURE, "")
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        return None

    # What the wire calls.

    def body_received(self, data: bytes) -> None:
        """Bytes of frames, after :meth:`Stream.switch`."""
        self._received += len(data)
        self._heard_at = self.clock.seconds()
        assert self._engine is not None
        self._engine.receive(data)

    def writable(self) -> None:
        """The peer takes data again: the engine may answer a ping that it kept."""
        if self._engine is not None:
            self._engine.resume()

    def request_failed(self, error: RequestError) -> None:
        """The handshake's deadline has passed, or the wire cannot go on with it."""
        if self.state in (State.WAITING, State.STARTED):
            self.answer(error, close=True)
            self._rejected()
            self._leave(ABNORMAL_CLOSURE, "", logged=True)
        elif not self.finished:
            self._cut_off()

    def _cut_off(self) -> None:
        self.stream.abort()
        self.disconnected()

    def _close_expired(self) -> None:
        # Not aborted: what was sent before the close frame may still be on its way to a slow peer.
        self.stream.close()
        self.disconnected()

    def disconnected(self) -> None:
        """The connection is lost, with or without a closing handshake before."""
        self.deadlines.clear(Deadline.CLOSE)
        # It refers back to this object: let both go without waiting for the garbage collector.
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.abandon()
        if self.state is State.STREAMING:
            self._rejected()
            self._leave(ABNORMAL_CLOSURE, "", logged=True)
        elif not self.finished:
            self._leave(*(self._close or (ABNORMAL_CLOSURE, "")))
        self.deadlines.settle()

    # What the frame engine calls.

    @property
    def slow(self) -> bool:
        """The peer does not take what it is sent."""
        return self.stream.slow

    def write(self, data: bytes) -> None:
        """Frames for the peer."""
        self._sent += len(data)
        self.stream.send_data(data)

    def write_large(self, head: bytes, payload: bytes) -> None:
        """A large frame for the peer."""
        self._sent += len(head) + len(payload)
        self.stream.send_parts([head, payload])

    def pong_received(self, payload: bytes) -> None:
        """Any byte shows that the peer is alive, so there is nothing to do for a pong of its own."""

    def close_received(self, code: int, reason: str) -> None:
        """The peer's close frame has come and ours was sent: the closing handshake is over (RFC 6455 §7.1.4)."""
        self.deadlines.clear(Deadline.CLOSE)
        self.stream.close()
        if not self.finished:
            self._leave(*(self._close or (code, reason)))

    def failed(self, code: int, reason: str) -> None:
        """The peer broke the protocol or a limit, and was told by a close frame (RFC 6455 §7.1.7)."""
        self.close_received(code, reason)

    # The application's messages.

    def handle_reply(self, reply: Any) -> None:
        """Take a parsed message of the application (ASGI WebSocket)."""
        if self.state is _OPEN and (type(reply) is SendText or type(reply) is SendBytes):
            # By far the most; a match takes several times as long to find them.
            assert self._engine is not None
            payload: str | bytes = reply[0]
            if isinstance(payload, str):
                self._engine.send_message(payload.encode(), text=True)
            else:
                self._engine.send_message(payload, text=False)
            return
        match self.state, reply:
            case State.OPEN, Close(code, reason):
                self.state = State.CLOSING
                self._send_close(code, reason)
            case State.WAITING, Accept(subprotocol, headers):
                self._accept(subprotocol, headers)
            case State.WAITING, Close():
                self.answer(RequestError(403, "Forbidden"), close=False)
                self._deny()
            case State.WAITING, DenialStart():
                self.start(ResponseStart(*reply))
                self.state = State.STARTED
            case (State.STARTED | State.STREAMING), DenialBody(body, more_body):
                self._send_denial(body, more_body)
            case (State.CLOSING | State.COMPLETE), (SendText() | SendBytes() | Close()) if self.listening:
                # Say, a group's message that was queued for a Channels consumer while it closed: an exception would
                # end the consumer before it hears of the disconnect.
                pass
            case _:
                raise unexpected(self.state, reply)

    def _accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        if subprotocol is not None and subprotocol not in self.scope["subprotocols"]:
            offered = ", ".join(self.scope["subprotocols"]) or "none"
            raise MessageError(
                f'websocket.accept: "subprotocol" must be one that the client offered ({offered}), got {subprotocol!r}'
            )
        self.state = State.OPEN
        self._engine = self._frames(self)
        self.deadlines.clear(Deadline.ACCEPT)
        self.deadlines.set(Deadline.PING, self.settings.ping_interval, self._idle)
        self.deadlines.set(Deadline.LIFETIME, self.settings.websocket_timeout, self._too_old)
        self._log("connected")
        self.stream.switch(self._fields.complete([*self._answer(subprotocol), *headers]))

    def _send_close(self, code: int, reason: str) -> None:
        assert self._engine is not None
        self._close = (code, reason)
        self._engine.send_close(code, reason)
        self.deadlines.clear(Deadline.PING)
        self.deadlines.clear(Deadline.PONG)
        self.deadlines.set(Deadline.CLOSE, self.settings.websocket_close_timeout, self._close_expired)
        if self.full:
            # Nothing more is kept for the application, so the peer's close frame can be looked for.
            self._make_room()

    def _send_denial(self, body: bytes, more_body: bool) -> None:
        try:
            self.body(body, more_body)
        except MessageError:
            if not more_body and self.state is State.STREAMING:
                self._cut_off()
            raise
        if more_body:
            # The handshake is answered, however long the rest of the answer takes.
            self.deadlines.clear(Deadline.ACCEPT)
            self.state = State.STREAMING
        else:
            self._deny()

    def _deny(self) -> None:
        self._rejected()
        self.state = State.COMPLETE
        self._wake()

    def application_done(self, failed: bool) -> None:
        """500 before it accepted, 1011 when it failed afterwards, 1000 when it returned."""
        match self.state:
            case State.WAITING | State.STARTED:
                self.answer(RequestError(500, "Internal Server Error"), close=False)
                self._deny()
            case State.STREAMING:
                self._cut_off()
            case State.OPEN:
                self.state = State.CLOSING
                self._send_close(*((1011, "internal error") if failed else (1000, "")))

    def server_stopping(self) -> None:
        """RFC 6455's registry, 1012: service restart; clients come back by themselves."""
        if self.state is State.OPEN:
            self._close_by_server(1012, "service restart")
        elif self.state is State.WAITING:
            # Accepted now it would be open until it is cut off.
            self.request_failed(RequestError(503, "The server is stopping."))

    # Deadlines.

    def _not_accepted(self) -> None:
        self.request_failed(RequestError(503, "The WebSocket was not accepted in time."))

    def _too_old(self) -> None:
        if self.state is State.OPEN:
            self._close_by_server(1001, "time limit")

    def _close_by_server(self, code: int, reason: str) -> None:
        self._leave(code, reason)
        self._send_close(code, reason)

    def _idle(self) -> None:
        """Ping a peer that has been silent for ``ping_interval`` (RFC 6455 §5.5.2)."""
        interval = self.settings.ping_interval
        if self.state is not State.OPEN or interval is None:
            return
        silent = self.clock.seconds() - self._heard_at
        self.deadlines.set(Deadline.PING, interval - silent if silent < interval else interval, self._idle)
        awaited = self._pinged_at == self._heard_at and self.deadlines.pending(Deadline.PONG)
        if silent < interval or awaited or self.stream.slow:
            return
        self._pinged_at = self._heard_at
        self.deadlines.set(Deadline.PONG, self.settings.ping_timeout, self._no_pong)
        assert self._engine is not None
        self._engine.send_ping(os.urandom(8))
        self._pending = self.stream.pending

    def _no_pong(self) -> None:
        # The pong may wait behind messages that the application does not read, the ping behind those that the peer has
        # not read yet but goes on to read.
        waits = self.full or self.stream.slow or 0 < self.stream.pending < self._pending
        if self._heard_at == self._pinged_at and not waits and self.state is State.OPEN:
            logger.info("Dropped %s, which answered no ping for %g seconds", self, self.settings.ping_timeout)
            self._close = (ABNORMAL_CLOSURE, "ping timeout")
            self._cut_off()

    # The end.

    def _leave(self, code: int, reason: str, *, logged: bool = False) -> None:
        """The application's view ends here."""
        # An exception from its accept would keep a Channels consumer from disconnect(), where it leaves its groups.
        self._told = self._told or self.state is State.WAITING
        self._close = (code, reason)
        self.state = State.GONE
        for kind in (Deadline.ACCEPT, Deadline.PING, Deadline.PONG, Deadline.LIFETIME):
            self.deadlines.clear(kind)
        if not logged:
            age = self.clock.seconds() - self._began
            self._log("disconnected", code=code, time_taken=age, size=self._sent, request_size=self._received)
        self._wake()
        self._hub.exchange_gone(self)

    def _rejected(self) -> None:
        self.deadlines.clear(Deadline.ACCEPT)
        self._log("rejected", status=self.status)

    def _log(self, action: str, **details: Any) -> None:
        if self._hub.logs_actions:
            self._hub.log_action("websocket", action, {**logged_request(self.scope), **details})
