"""A WebSocket as the application sees it (RFC 6455; ASGI WebSocket 2.5).

To a wire this is an exchange whose body is opaque: bytes of the peer go to a frame engine, which calls back with
messages and closes, and the engine's output goes to the stream. The same class serves every HTTP version.

The application's view ends (state GONE) when the peer closes, breaks the protocol, or is closed by the server; the
closing handshake may still be under way then, and ends with the peer's close frame or its deadline.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import MessageError, RequestError
from ..settings import Settings
from .deadlines import Deadline
from .exchange import CLOSING, COMPLETE, GONE, OPEN, STARTED, STREAMING, WAITING, Exchange, State, logged_request
from .interfaces import Clock, Frames, Headers, Hub, Message, Scope, Stream
from .messages import Accept, Close, ResponseBody, ResponseStart, SendBytes, SendText, parse_websocket
from .response import Response

__all__ = ["Answer", "WebSocketExchange"]

logger = logging.getLogger("asgiserver.wire")

ABNORMAL_CLOSURE = 1006
_PING = Deadline.PING

#: What a message costs in the inbox besides its payload, so that empty messages are bounded too; bytes.
MESSAGE_OVERHEAD = 64

#: Makes the fields of the answer that accepts the handshake, from the chosen subprotocol.
Answer = Callable[[str | None], Headers]


class WebSocketExchange(Exchange):
    """A WebSocket, from its handshake to the end of its closing handshake.

    :param answer: makes the fields that accept the handshake.
    :param frames: makes the frame engine once the WebSocket is accepted; it calls this object back.
    :ivar full: the frame engine and the wire are stopped.
    """

    __slots__ = (
        "_accepting", "_buffered", "_close", "_connected", "_engine", "_frames", "_inbox", "_pending",
        "_received", "_sent", "full",
    )  # fmt: skip

    parse = staticmethod(parse_websocket)

    def __init__(
        self,
        scope: Scope,
        stream: Stream,
        hub: Hub,
        settings: Settings,
        clock: Clock,
        answer: Answer,
        frames: Callable[[WebSocketExchange], Frames],
    ) -> None:
        super().__init__(scope, stream, hub, settings, clock)
        self._accepting = answer
        self._frames = frames
        self._engine: Frames | None = None
        #: Made when a message comes while no ``receive()`` waits: an empty deque takes 760 bytes.
        self._inbox: deque[str | bytes] | None = None
        self._buffered = 0
        self.full = False
        self._connected = False
        self._close: tuple[int, str] | None = None
        self._received = self._sent = 0
        self.began: float = clock.seconds()
        #: Bytes that the peer had still to take when it was pinged, the ping included.
        self._pending = 0
        self.deadlines.set(Deadline.ACCEPT, settings.websocket_connect_timeout, self._not_accepted)
        self._log("connecting")

    # The application's inbox.

    def _next_event(self) -> Message | None:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        state = self.state
        if state is not WAITING:
            # An application that calls receive() after it accepted will hear of the disconnect there.
            self._told = True
        if self._inbox:
            return self._next_message(self._inbox)
        if state is GONE or state is COMPLETE:
            code, reason = self._close or (ABNORMAL_CLOSURE, "")
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        return None

    def message_received(self, payload: str | bytes) -> None:
        """A whole message; beyond ``request_buffer_size`` bytes the engine and the wire are stopped."""
        if self.state is not OPEN:
            return
        if self._hub.counts is not None:
            self._hub.counts.message_received()
        waiters = self._waiters
        if waiters and not self._inbox and len(waiters) == 1 and not waiters[0].done():
            # Fast path: an application that waits gets the message by one step of its task.
            waiters[0].set_result(_event(payload))
            return
        self._keep(payload)
        size = self.settings.request_buffer_size
        # To pause and resume reading for each message that the application waits for would cost more than to take it.
        if self._buffered >= (2 * size if waiters else size) and not self.full:
            self.full = True
            self.stream.pause_reading()
        if waiters:
            self._wake()

    def _next_message(self, inbox: deque[str | bytes]) -> Message:
        payload = inbox.popleft()
        self._buffered -= len(payload) + MESSAGE_OVERHEAD
        if self.full and not self.gone and self._buffered <= self.settings.request_buffer_size // 2:
            self._make_room()
        return _event(payload)

    def _make_room(self) -> None:
        """There is room again: first for what the engine has kept back, then for what the peer sends."""
        self.full = False
        if self._engine is not None:
            self._engine.resume()
        if not self.full:
            self.stream.resume_reading()

    def _keep(self, payload: str | bytes) -> deque[str | bytes]:
        """Put a message behind those that wait to be received."""
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(payload)
        self._buffered += len(payload) + MESSAGE_OVERHEAD
        return self._inbox

    def _give_back(self, event: Message | None) -> None:
        if event is not None:
            self._keep(event["text"] if "text" in event else event["bytes"]).rotate(1)
            # Another receive() may have begun to wait before this one was cancelled.
            self._wake()

    # What the wire calls.

    def body_received(self, data: bytes) -> None:
        """Bytes of frames, after :meth:`Stream.switch`."""
        self._received += len(data)
        if self.state is OPEN:
            # Any byte shows that the peer is alive.
            (self._deadlines or self.deadlines).set(_PING, self.settings.ping_interval, self._silent)
        assert self._engine is not None
        self._engine.receive(data)

    def writable(self) -> None:
        """The peer takes data again: the engine may answer a ping that it kept."""
        if self._engine is not None:
            self._engine.resume()

    def request_failed(self, error: RequestError) -> None:
        """The handshake's deadline has passed, or the wire cannot go on with it."""
        if self.state in (WAITING, STARTED):
            self._answer(error, close=True)
            self._rejected()
            self._leave(ABNORMAL_CLOSURE, "", logged=True)
        elif not self.finished:
            self._cut_off()

    def _cut_off(self) -> None:
        self.stream.abort()
        self.disconnected()

    def _close_expired(self) -> None:
        # Not aborted: messages that were sent before the close frame may still be on their way to a slow peer.
        self.stream.close()
        self.disconnected()

    def disconnected(self) -> None:
        """The connection is lost, with or without a closing handshake before."""
        self.deadlines.clear(Deadline.CLOSE)
        # The engine refers back to this object: without the cycle, both go before the garbage collector runs.
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.abandon()
        if self.state is STREAMING:
            self._rejected()
            self._leave(ABNORMAL_CLOSURE, "", logged=True)
        elif not self.finished:
            self._leave(*(self._close or (ABNORMAL_CLOSURE, "")))
        self.deadlines.settle()

    # What the frame engine calls, as its Channel.

    @property
    def slow(self) -> bool:
        return self.stream.output.slow

    def write(self, data: bytes) -> None:
        self._sent += len(data)
        self.stream.send_data(data)

    def write_large(self, head: bytes, payload: bytes) -> None:
        self._sent += len(head) + len(payload)
        self.stream.send_parts([head, payload])

    def pong_received(self, payload: bytes) -> None:
        """Nothing to do: the bytes of a pong have moved the deadlines, as any bytes do."""

    def close_received(self, code: int, reason: str) -> None:
        # The closing handshake is over (RFC 6455 §7.1.4).
        self.deadlines.clear(Deadline.CLOSE)
        self.stream.close()
        if not self.finished:
            self._leave(*(self._close or (code, reason)))

    #: The peer was told by a close frame (RFC 6455 §7.1.7), as one that closes is.
    failed = close_received

    # The application's messages.

    def take_reply(self, reply: Any) -> None:
        """Take a parsed message of the application (ASGI WebSocket)."""
        kind = type(reply)
        if self.state is OPEN and (kind is SendText or kind is SendBytes):
            # Fast path: messages, which a match takes longer to find.
            assert self._engine is not None
            if self._hub.counts is not None:
                self._hub.counts.message_sent()
            text = kind is SendText
            self._engine.send_message(reply[0].encode() if text else reply[0], text=text)
            return
        match self.state, reply:
            case State.OPEN, Close(code, reason, error):
                if error is not None:
                    raise error
                self.state = CLOSING
                self._send_close(code, reason)
            case State.WAITING, Accept():
                self._accept(*reply)
            case State.WAITING, Close():
                # ASGI "Close": a 403, which has no place for a code or a reason, so an error in them does not matter.
                self._answer(RequestError(403, "Forbidden"), close=False)
                self._deny()
            case State.WAITING, ResponseStart():
                self.response = Response(self.stream, reply, "GET")
                self.state = STARTED
            case (State.STARTED | State.STREAMING), ResponseBody(body, more_body):
                self._send_denial(body, more_body)
            case State.CLOSING, (SendText() | SendBytes() | Close()) if self.listening:
                # For example, a group's message was queued for a Channels consumer while the consumer closed: an
                # exception would end the consumer before it hears of the disconnect.
                pass
            case _:
                raise self._unexpected(reply)

    def _accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]], names: list[bytes]) -> None:
        if subprotocol is not None and subprotocol not in self.scope["subprotocols"]:
            offered = ", ".join(self.scope["subprotocols"]) or "none"
            raise MessageError(
                f'websocket.accept: "subprotocol" must be one that the client offered ({offered}), got {subprotocol!r}'
            )
        self.state = OPEN
        self._engine = self._frames(self)
        self.deadlines.clear(Deadline.ACCEPT)
        self.deadlines.set(_PING, self.settings.ping_interval, self._silent)
        self.deadlines.set(Deadline.LIFETIME, self.settings.websocket_timeout, self._too_old)
        self._log("connected")
        answer = self._accepting(subprotocol)
        self.stream.switch([*answer, *headers], [*(name for name, _ in answer), *names])

    def _send_close(self, code: int, reason: str) -> None:
        assert self._engine is not None
        self._close = (code, reason)
        self._engine.send_close(code, reason)
        self.deadlines.clear(_PING)
        self.deadlines.set(Deadline.CLOSE, self.settings.websocket_close_timeout, self._close_expired)
        if self.full:
            # Messages are not kept for the application any more, so read on to find the peer's close frame.
            self._make_room()

    def _send_denial(self, body: bytes, more_body: bool) -> None:
        assert self.response is not None
        try:
            self.response.send(body, more_body)
        except MessageError:
            if not more_body and self.state is STREAMING:
                self._cut_off()
            raise
        if more_body:
            # The handshake is answered, however long the rest of the answer takes.
            self.deadlines.clear(Deadline.ACCEPT)
            self.state = STREAMING
        else:
            self._deny()

    def _deny(self) -> None:
        self._rejected()
        self.state = COMPLETE
        self._wake()

    def application_done(self, failed: bool) -> None:
        """Answer 500 when it has not accepted; else close with 1011 when it failed, with 1000 when it returned."""
        match self.state:
            case State.WAITING | State.STARTED:
                self._answer(RequestError(500, "Internal Server Error"), close=False)
                self._deny()
            case State.STREAMING:
                self._cut_off()
            case State.OPEN:
                self.state = CLOSING
                self._send_close(*((1011, "internal error") if failed else (1000, "")))

    def server_stopping(self) -> None:
        """Close with 1012, service restart (IANA's registry): clients come back by themselves. Refuse a handshake."""
        if self.state is OPEN:
            self._close_by_server(1012, "service restart")
        elif self.state is WAITING:
            # If the application accepted it now, the WebSocket would stay open until it is cut off.
            self.request_failed(RequestError(503, "The server is stopping."))

    # Deadlines.

    def _not_accepted(self) -> None:
        self.request_failed(RequestError(503, "The WebSocket was not accepted in time."))

    def _too_old(self) -> None:
        if self.state is OPEN:
            self._close_by_server(1001, "time limit")

    def _close_by_server(self, code: int, reason: str) -> None:
        self._leave(code, reason)
        self._send_close(code, reason)

    def _silent(self) -> None:
        """Ping a peer that has been silent for ``ping_interval`` (RFC 6455 §5.5.2)."""
        settings, output = self.settings, self.stream.output
        if output.slow or settings.ping_timeout is None:
            self.deadlines.set(_PING, settings.ping_interval, self._silent)
        else:
            self.deadlines.set(_PING, settings.ping_timeout, self._no_pong)
        # A ping would wait behind the messages that a slow peer does not take.
        if not output.slow:
            assert self._engine is not None
            self._engine.send_ping(os.urandom(8))
            self._pending = output.pending

    def _no_pong(self) -> None:
        # The pong may wait behind messages that the application does not read, the ping behind messages that the peer
        # has not read yet but goes on to read.
        output = self.stream.output
        if self.full or output.slow or 0 < output.pending < self._pending:
            self.deadlines.set(_PING, self.settings.ping_interval, self._silent)
            return
        seconds = self.settings.ping_timeout
        logger.info("Dropped %s, which answered no ping for %g seconds", self, seconds, extra=self.logged)
        self._close = (ABNORMAL_CLOSURE, "ping timeout")
        self._cut_off()

    # The end.

    def _leave(self, code: int, reason: str, *, logged: bool = False) -> None:
        """The application's view ends here."""
        # An exception from its accept would keep a Channels consumer from disconnect(), where it leaves its groups.
        self._told = self._told or self.state is WAITING
        self._close = (code, reason)
        self.state = GONE
        self.deadlines.clear(Deadline.ACCEPT, _PING, Deadline.LIFETIME)
        if not logged:
            age = self.clock.seconds() - self.began
            self._log("disconnected", code=code, time_taken=age, size=self._sent, request_size=self._received)
        self._wake()
        self._hub.exchange_gone(self)

    def _rejected(self) -> None:
        self.deadlines.clear(Deadline.ACCEPT)
        self._log("rejected", status=self.status)

    def _log(self, action: str, **details: Any) -> None:
        if self._hub.counts is not None:
            self._hub.counts.websocket(action, details.get("code"))
        if self._hub.logs_actions:
            self._hub.log_action("websocket", action, {**logged_request(self.scope, self.request_id), **details})


def _event(payload: str | bytes) -> Message:
    return {"type": "websocket.receive", "text" if isinstance(payload, str) else "bytes": payload}
