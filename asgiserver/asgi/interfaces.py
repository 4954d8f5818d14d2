"""The seams between the rooms: what an exchange needs of a wire, of a frame engine, and of time.

Everything here is a ``typing.Protocol`` or an alias, so that ``asgi/`` never imports ``wire/``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

__all__ = [
    "Application", "Channel", "Clock", "Counts", "Frames", "Headers", "Hub", "Message", "Output", "Receive", "Scope",
    "Send", "Sleeper", "Stream", "Turn",
]  # fmt: skip

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Field lines in order, duplicates kept; names in lower case, but for those that an application sends.
Headers = Sequence[tuple[bytes, bytes]]


class Sleeper(Protocol):
    """An object that a clock wakes; it is compared by identity."""

    def wake(self) -> None:
        """The time has come."""


class Clock(Protocol):
    """Time: the part of Twisted's ``IReactorTime`` that is used, and a cheap way to wake many objects."""

    def seconds(self) -> float:
        """A time in seconds that never goes back; its zero has no meaning."""

    def callLater(self, delay: float, function: Callable[..., object], /, *args: object) -> object:  # noqa: N802
        """Call ``function(*args)`` after ``delay`` seconds."""

    def wake_at(self, due: float, sleeper: Sleeper) -> float:
        """Call ``sleeper.wake()`` once, when ``seconds()`` is at what this returns: ``due`` or somewhat later."""

    def let_sleep(self, sleeper: Sleeper, when: float) -> None:
        """Do not wake ``sleeper`` at ``when``, which ``wake_at`` returned; one that was woken already is left alone."""


class Counts(Protocol):
    """What is counted of exchanges, for ``--metrics``; see :class:`asgiserver.metrics.counts.Counts`."""

    def request(self, request: tuple[str, int, float, int, int], /) -> None:
        """A request is over: its method, its status, its seconds, and the bytes of its body and of the response's."""

    def message_received(self) -> None:
        """A WebSocket's message has come."""

    def message_sent(self) -> None:
        """A WebSocket's message goes out."""

    def websocket(self, action: str, code: int | None, /) -> None:
        """An event of a WebSocket, in the words of the access log; ``code`` is that of its end."""


class Hub(Protocol):
    """What an exchange tells the server about itself, and asks it.

    :ivar counts: None when nothing is counted.
    :ivar stopping: the server wants to stop.
    :ivar ending: responses that stream without end are to end.
    """

    @property
    def counts(self) -> Counts | None: ...

    stopping: bool
    ending: bool

    @property
    def logs_actions(self) -> bool:
        """False when :meth:`log_action` would do nothing, so that nobody collects details in vain."""

    def exchange_gone(self, exchange: Any) -> None:
        """The peer of ``exchange`` has left before it was answered; its application is to end soon."""

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Something worth a line in the access log has happened."""


class Output(Protocol):
    """The way out for the bytes of a connection. Only the output knows of back-pressure, so ask it each time."""

    @property
    def slow(self) -> bool:
        """True while more is waiting to be sent than the peer takes."""

    @property
    def congested(self) -> bool:
        """True when :meth:`drain` has to be awaited before more is sent: the peer is slow, or others want a turn."""

    @property
    def pending(self) -> int:
        """Bytes that the peer has not taken yet, as far as is known: also those that the kernel keeps for it."""

    async def drain(self) -> None:
        """Return when the peer is ready for more, or gone, or others have had their turn.

        While :attr:`slow` or :attr:`congested` is true this never returns without a real wait, so that a loop around
        it cannot keep the event loop busy.
        """


class Turn(Protocol):
    """How much is done with what one connection has read before the others have their turn."""

    steps: int
    """What is left of it, in small pieces of work such as one frame; the turn is over when this is not above 0."""

    def wait_for_turn(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` once in the connection's next turn; nothing more is read before ``go_on`` is done."""


class Stream(Protocol):
    """Where one exchange writes its half; the only way out of ``asgi/``.

    A wire implements it: HTTP/1.1 for its current request, HTTP/2 for each of its streams. After the last piece or
    :meth:`send_trailers`, after :meth:`abort`, or once the peer is gone, no method may be called; the exchange's state
    makes sure of that.
    """

    @property
    def output(self) -> Output:
        """The pressure on this stream; that of the connection, where the wire has no other."""

    @property
    def turn(self) -> Turn:
        """The connection's; all its streams share it."""

    def respond(
        self,
        status: int,
        headers: Headers,
        names: list[bytes],
        content_length: int | None,
        *,
        has_body: bool,
        close: bool,
        data: bytes,
        last: bool,
    ) -> None:
        """Begin the final response, with the first piece of its body. The wire adds its framing and default fields.

        :param status: 200 to 999.
        :param headers: checked, their names as the application spells them (HTTP/2 wants them in lower case, RFC 9113
            §8.2), without connection-specific fields.
        :param names: those of ``headers``, in lower case.
        :param content_length: the body's size in bytes as ``headers`` say it, None when they say none.
        :param has_body: False for HEAD, 204, 205 and 304: no body follows, whatever the fields say (RFC 9112 §6.3).
        :param close: the connection is not to be used again.
        :param data: may be empty.
        :param last: ``data`` is the whole body, and no trailers follow.
        """

    def send_informational(self, status: int, headers: Headers, names: list[bytes]) -> None:
        """Send an informational response (RFC 9110 §15.2), any number of them before :meth:`respond`.

        It is dropped after :meth:`respond`, and where the wire or its peer knows none. The output counts it even then,
        so that an application that sends on and on lets others run.

        :param status: 103.
        :param headers: as those of :meth:`respond`.
        :param names: as those of :meth:`respond`.
        """

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        """Send more of the body (or, after :meth:`switch`, opaque bytes); ``last`` ends the response."""

    def send_trailers(self, headers: Headers, names: list[bytes]) -> None:
        """End the response, whose whole body was sent without ``last``, with a trailer section (RFC 9110 §6.5).

        The fields are dropped where the peer has not asked for them (:attr:`.Request.trailers`), and where the framing
        of the response has no place for them.

        :param headers: as those of :meth:`respond`, maybe none.
        :param names: as those of :meth:`respond`.
        """

    def send_parts(self, parts: list[bytes]) -> None:
        """After :meth:`switch`: send the opaque ``parts`` one after another, without a copy of the large ones."""

    def send_file(self, descriptor: int, offset: int, count: int, *, last: bool, sent: Callable[[], None]) -> None:
        """Send ``count`` bytes of a regular file from ``offset`` on; ``last`` ends the response after them.

        Until ``sent`` is called :attr:`Output.slow` is true, and no other method may be called but :meth:`abort`.
        ``sent`` is called once all was written, and not at all when the connection is lost before.

        :param descriptor: the stream closes it in any case, as soon as it is not needed any more.
        :param count: at least 1.
        """

    def switch(self, headers: Headers, names: list[bytes]) -> None:
        """Accept a WebSocket: 101 on HTTP/1.1 (RFC 6455 §4.2.2), 200 to an extended CONNECT (RFC 8441 §5).

        What follows both ways is opaque.

        :param headers: as those of :meth:`respond`, the answer to the handshake among them.
        :param names: as those of :meth:`respond`.
        """

    def abort(self) -> None:
        """Cut the response off so that the peer can see that it is not complete.

        Bytes that were sent before still reach the peer, but not the rest of a file. They may be lost where the end of
        the connection would be taken for the end of the body. Nothing more may be sent.
        """

    def close(self) -> None:
        """End an opaque (switched) stream after everything written has been sent."""

    def pause_reading(self) -> None:
        """Deliver only bytes that have been read already, until :meth:`resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver again; also answers a pending ``Expect: 100-continue`` (RFC 9110 §10.1.1)."""


class Frames(Protocol):
    """What a WebSocket exchange needs of a frame engine (RFC 6455 §5), made for it by the hub."""

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer; events come back through the exchange's ``*_received`` methods."""

    def resume(self) -> None:
        """Go on with bytes that were kept back while the exchange was full."""

    def send_message(self, payload: bytes, *, text: bool) -> None:
        """Send one whole message."""

    def send_ping(self, payload: bytes) -> None:
        """Send a ping with at most 125 bytes."""

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame with any code that RFC 6455 §7.4 lets an endpoint send; at most once."""

    def abandon(self) -> None:
        """The connection is lost: nothing may be called back any more."""


class Channel(Protocol):
    """The owner of a frame engine: takes the peer's messages, and the bytes for the peer."""

    @property
    def full(self) -> bool:
        """True while no more messages are wanted; :meth:`Frames.resume` is called when that changes."""

    @property
    def slow(self) -> bool:
        """True while the peer takes less than is sent; :meth:`Frames.resume` is called when that changes."""

    def message_received(self, payload: str | bytes) -> None:
        """A whole message, maybe empty."""

    def pong_received(self, payload: bytes) -> None:
        """A pong, asked for or not."""

    def close_received(self, code: int, reason: str) -> None:
        """The peer's close frame, answered by ours; 1005 for one without a code. Nothing follows."""

    def failed(self, code: int, reason: str) -> None:
        """The peer broke the protocol or a limit: 1002, 1007 or 1009, sent unless we had closed. Nothing follows."""

    def write(self, data: bytes) -> None:
        """Bytes for the peer, at least one whole frame."""

    def write_large(self, head: bytes, payload: bytes) -> None:
        """A frame for the peer whose payload is too large to be copied behind its head."""
