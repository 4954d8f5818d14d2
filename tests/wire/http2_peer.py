"""A peer that speaks HTTP/2 to a wire without a socket, with frames that others made: hyperframe's and hpack's."""

from __future__ import annotations

import struct
from typing import Any

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from asgiserver.asgi.messages import Accept, ResponseBody, ResponseStart
from asgiserver.wire.connection import PREFACE
from asgiserver.wire.http2_frames import ErrorCode
from tests.fakes import FakeTransport, WireHub

__all__ = ["GET", "POST", "UPGRADE", "Peer", "raw"]

Fields = list[tuple[str, str]]

GET: Fields = [(":method", "GET"), (":scheme", "http"), (":authority", "example.com"), (":path", "/")]
POST: Fields = [(":method", "POST"), *GET[1:]]
UPGRADE: Fields = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:], ("sec-websocket-version", "13")]


def raw(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """A frame that hyperframe would refuse to make."""
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, number) + payload


class Peer:
    """A connection of HTTP/2 by prior knowledge, whose opening is over.

    :ivar opening: the server's first frames, as :meth:`take` shows them.
    """

    def __init__(
        self, transport: Any = None, *, hub: WireHub | None = None, windows: int | None = None, **settings: Any
    ) -> None:
        self.hub = hub or WireHub(**settings)
        self.connection, self.transport = self.hub.connect(transport or FakeTransport())
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._read = b""
        first = SettingsFrame(settings={} if windows is None else {SettingsFrame.INITIAL_WINDOW_SIZE: windows})
        self.feed(PREFACE + first.serialize())
        self.opening = self.take()

    # What the peer sends.

    def feed(self, data: bytes) -> None:
        self.connection.dataReceived(data)

    def send(self, *frames: Frame) -> None:
        self.feed(b"".join(frame.serialize() for frame in frames))

    def head(self, number: int, fields: Fields = GET, *, end: bool = True, **more: Any) -> HeadersFrame:
        flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
        return HeadersFrame(number, self._encoder.encode(fields), flags=flags, **more)

    def get(self, number: int, *more: tuple[str, str]) -> None:
        self.send(self.head(number, [*GET, *more]))

    def post(self, number: int, data: bytes = b"", *more: tuple[str, str], end: bool = False) -> None:
        self.send(self.head(number, [*POST, *more], end=False))
        if data or end:
            self.data(number, data, end=end)

    def data(self, number: int, data: bytes = b"", *, end: bool = False, pad: int = 0) -> None:
        flags = [*(["END_STREAM"] if end else []), *(["PADDED"] if pad else [])]
        self.send(DataFrame(number, data, flags=flags, pad_length=pad))

    def reset(self, number: int, code: int = ErrorCode.CANCEL) -> None:
        self.send(RstStreamFrame(number, error_code=code))

    def open(self, number: int, size: int) -> None:
        self.send(WindowUpdateFrame(number, window_increment=size))

    def ping(self, data: bytes = b"12345678", *, ack: bool = False) -> None:
        self.send(PingFrame(0, data, flags=["ACK"] if ack else []))

    def push(self) -> None:
        self.send(PushPromiseFrame(1, promised_stream_id=2, data=b"\x88", flags=["END_HEADERS"]))

    # What the application does, for the latest request or the one of that number.

    def start(self, index: int = -1, status: int = 200, **fields: str) -> None:
        headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
        length = int(fields["content_length"]) if "content_length" in fields else None
        start = ResponseStart(status, headers, length, False, False, [name for name, _ in headers])
        self.hub.exchanges[index].take_reply(start)

    def body(self, data: bytes = b"", index: int = -1, *, more: bool = False) -> None:
        self.hub.exchanges[index].take_reply(ResponseBody(data, more))

    def answer(self, data: bytes = b"ok", index: int = -1, status: int = 200) -> None:
        self.start(index, status)
        self.body(data, index)

    def accept(self, index: int = -1) -> None:
        self.hub.exchanges[index].take_reply(Accept(None, [], []))

    # What is seen.

    def take(self) -> list[tuple[Any, ...]]:
        """The frames that have come since the last look: each a tuple of its name, its stream, and what is in it."""
        self.hub.clock.advance(0)
        self._read += self.transport.take() if hasattr(self.transport, "take") else self._taken()
        seen: list[tuple[Any, ...]] = []
        while len(self._read) >= 9:
            frame, size = Frame.parse_frame_header(memoryview(self._read[:9]))
            if len(self._read) < 9 + size:
                break
            frame.parse_body(memoryview(self._read[9 : 9 + size]))
            self._read = self._read[9 + size :]
            seen.append(self._shown(frame))
        return seen

    def _taken(self) -> bytes:
        sent, self.transport.sent = self.transport.sent, b""
        assert isinstance(sent, bytes)
        return sent

    def _shown(self, frame: Any) -> tuple[Any, ...]:
        name, number = type(frame).__name__.removesuffix("Frame").upper(), frame.stream_id
        end = ["end"] if "END_STREAM" in frame.flags else []
        match name:
            case "DATA":
                return "DATA", number, frame.data, *end
            case "HEADERS":
                fields = dict(self._decoder.decode(frame.data))
                fields.pop("date", None)
                return "HEADERS", number, fields, *end
            case "RSTSTREAM":
                return "RST", number, ErrorCode(frame.error_code).name
            case "GOAWAY":
                return "GOAWAY", frame.last_stream_id, ErrorCode(frame.error_code).name
            case "WINDOWUPDATE":
                return "WINDOW", number, frame.window_increment
            case "SETTINGS":
                return "SETTINGS", "ack" if frame.flags else dict(frame.settings)
            case "PING":
                return "PING", frame.opaque_data, *(["ack"] if frame.flags else [])
        raise AssertionError(frame)

    @property
    def closed(self) -> bool:
        return self.connection.phase.name.startswith("CLOS")

    @property
    def streams(self) -> dict[int, Any]:
        wire: Any = self.connection._wire
        return {} if wire is None else wire.streams

    def status(self, number: int) -> str | None:
        """The status of the response that comes next on a stream; other frames are passed over."""
        heads = [frame[2][":status"] for frame in self.take() if frame[:2] == ("HEADERS", number)]
        return heads[-1] if heads else None

    def advance(self, seconds: float) -> None:
        self.hub.clock.advance(seconds)
