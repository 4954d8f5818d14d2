"""The messages of a WebSocket on their way to the application."""

from __future__ import annotations

from collections import deque

from ..settings import Settings
from .default_fields import DefaultFields
from .exchange import Exchange, State
from .interfaces import Clock, Frames, Hub, Message, Scope, Stream

__all__ = ["Inbox"]

#: What a message costs in the inbox besides its payload, so that empty messages are bounded too; bytes.
MESSAGE_OVERHEAD = 64

_OPEN = State.OPEN


class Inbox(Exchange):
    """Gives messages to a ``receive()`` that waits, or keeps them for the next one.

    :ivar full: the frame engine and the wire are stopped.
    """

    __slots__ = ("_buffered", "_engine", "_inbox", "full")

    def __init__(
        self, scope: Scope, stream: Stream, hub: Hub, settings: Settings, clock: Clock, fields: DefaultFields
    ) -> None:
        super().__init__(scope, stream, hub, settings, clock, fields)
        self._engine: Frames | None = None
        #: Made when a message comes that nobody waits for: an empty one takes 760 bytes.
        self._inbox: deque[str | bytes] | None = None
        self._buffered = 0
        self.full = False

    def message_received(self, payload: str | bytes) -> None:
        """A whole message; beyond ``request_buffer_size`` bytes the engine and the wire are stopped."""
        if self.state is not _OPEN:
            return
        waiters = self._waiters
        if waiters and not self._inbox and len(waiters) == 1 and not waiters[0].done():
            # By far the most: an application that waits gets it by one step of its task.
            waiters[0].set_result(_event(payload))
            return
        self._keep(payload)
        size = self.settings.request_buffer_size
        # To stop and start the peer for each message that somebody waits for would cost more than to read it.
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
            # Another may have begun to wait before this one was given up.
            self._wake()


def _event(payload: str | bytes) -> Message:
    return {"type": "websocket.receive", "text" if isinstance(payload, str) else "bytes": payload}
