"""The two sides of a frame engine under test: frames as a client makes them, and a channel that records."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import cycle

from asgiserver.wire.handshake import parse_extensions
from asgiserver.wire.websocket.frames import WebSocketProtocol, negotiate_deflate

MASK = b"\x37\xfa\x21\x3d"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

Event = tuple[object, ...]


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    form: int = 0,
    mask: bytes = MASK,
) -> bytes:
    """A client's frame; ``form`` (126 or 127) forces a longer form of the length than is needed."""
    size = len(payload)
    form = form or (size if size < 126 else 126 if size < 65536 else 127)
    extended = struct.pack("!H", size) if form == 126 else struct.pack("!Q", size) if form == 127 else b""
    head = bytes((fin << 7 | rsv << 4 | opcode, masked << 7 | form)) + extended
    if not masked:
        return head + payload
    return head + mask + bytes(octet ^ key for octet, key in zip(payload, cycle(mask), strict=False))


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(opcode: int, *payloads: bytes, rsv: int = 0) -> bytes:
    """One message in as many frames as there are payloads."""
    last = len(payloads) - 1
    return b"".join(
        frame(CONTINUATION if at else opcode, payload, fin=at == last, rsv=0 if at else rsv)
        for at, payload in enumerate(payloads)
    )


def server_frames(data: bytes) -> list[tuple[int, bytes]]:
    """The first byte and the payload of each of a server's frames, which must be complete and as short as can be."""
    frames = []
    at = 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        at += 2
        if size > 125:
            form, width = (126, 2) if size == 126 else (127, 8)
            assert size == form, "a server's frame is masked"
            size = int.from_bytes(data[at : at + width])
            assert size >= (126 if form == 126 else 65536)
            at += width
        frames.append((first, data[at : at + size]))
        assert at + size <= len(data), "a frame is not complete"
        at += size
    return frames


class RecordingChannel:
    """Keeps what happened. It is full after ``room`` messages, for ever when that is 0."""

    def __init__(self, *, room: int | None = None) -> None:
        self.events: list[Event] = []
        self.written = b""
        self.room = room
        self.slow = False

    @property
    def full(self) -> bool:
        return self.room is not None and sum(event[0] == "message" for event in self.events) >= self.room

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        return server_frames(self.written)

    def message_received(self, payload: str | bytes) -> None:
        self.events.append(("message", payload))

    def pong_received(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def close_received(self, code: int, reason: str) -> None:
        self.events.append(("close", code, reason))

    def failed(self, code: int, reason: str) -> None:
        assert reason
        self.events.append(("failed", code))

    def write_large(self, head: bytes, payload: bytes) -> None:
        self.write(head + payload)

    def write(self, data: bytes) -> None:
        self.written += data


class Turns:
    """A turn that has ``length`` steps and goes on when it is told to; or that never ends."""

    def __init__(self, length: int = 1 << 60) -> None:
        self.length = self.steps = length
        self.waiting: list[Callable[[], None]] = []

    def wait_for_turn(self, go_on: Callable[[], None]) -> None:
        assert self.steps <= 0
        if go_on not in self.waiting:
            self.waiting.append(go_on)

    def next(self) -> bool:
        """Have the next turn; False when nobody waits for one."""
        waiting, self.waiting = self.waiting, []
        self.steps = self.length
        for go_on in waiting:
            go_on()
        return bool(waiting)


class LongWay(WebSocketProtocol):
    """An engine that hands every frame to Autobahn."""

    short_cuts = False


def connect(
    channel: RecordingChannel,
    *,
    max_message_size: int = 0,
    max_frame_size: int = 0,
    offer: bytes = b"",
    short_cuts: bool = True,
    turn: Turns | None = None,
) -> WebSocketProtocol:
    """An engine on ``channel``, after a handshake in which the client sent ``offer``, which is accepted."""
    negotiated = negotiate_deflate(parse_extensions(offer), max_message_size)
    assert bool(negotiated) == bool(offer)
    kind = WebSocketProtocol if short_cuts else LongWay
    return kind(
        channel,
        max_message_size=max_message_size,
        max_frame_size=max_frame_size,
        turn=turn or Turns(),
        deflate=negotiated[1] if negotiated else None,
    )
