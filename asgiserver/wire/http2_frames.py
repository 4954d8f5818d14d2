"""The frames of HTTP/2: their numbers, their heads, and what is wrong with a peer's (RFC 9113 §4, §6, §7); pure."""

from __future__ import annotations

import struct
from enum import IntEnum

__all__ = [
    "ACK", "CONTINUATION", "DATA", "END_HEADERS", "END_STREAM", "GOAWAY", "HEADERS", "MAX_FRAME", "MAX_WINDOW",
    "PADDED", "PING", "PRIORITIZED", "PRIORITY", "PRIORITY_UPDATE", "PUSH_PROMISE", "RST_STREAM",
    "SETTINGS", "WINDOW_UPDATE", "ConnectionFault", "ErrorCode", "Setting", "StreamFault", "frame", "frame_head",
    "goaway", "header_frames", "read_settings", "reset", "settings_frame", "unpack_head", "unpack_number", "unpadded",
    "window_update",
]  # fmt: skip

#: Types of frames; plain numbers, as an enum's members are slower to compare. PRIORITY_UPDATE is of RFC 9218 §7.1.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16

#: Flags; each type of frame has its own.
END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
PRIORITIZED = 0x20

#: Most bytes of a frame's payload. Every peer takes as many, and no peer is allowed more (RFC 9113 §4.2).
MAX_FRAME = 16384
#: The largest flow-control window, and the greatest number of a stream (RFC 9113 §6.9.1, §5.1.1).
MAX_WINDOW = 2**31 - 1
#: Most parameters of a SETTINGS frame; fewer than ten are known.
_MOST_SETTINGS = 32

_head = struct.Struct("!IBI").pack
#: The head of a frame: its size (24 bits) and type (8 bits), its flags, and its stream, whose highest bit is reserved.
unpack_head = struct.Struct("!IBI").unpack_from
_number = struct.Struct("!I")
_settings = struct.Struct("!HI")


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Parameters of SETTINGS (RFC 9113 §6.5.2; RFC 8441 §3; RFC 9218 §2.1)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9


class _Fault(Exception):
    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ConnectionFault(_Fault):
    """The peer broke the protocol or a limit, which ends the connection (RFC 9113 §5.4.1)."""


class StreamFault(_Fault):
    """The peer broke the protocol, which ends one stream (RFC 9113 §5.4.2)."""


def frame_head(size: int, kind: int, flags: int, number: int) -> bytes:
    """The head of a frame with a payload of ``size`` bytes for the stream ``number``."""
    return _head(size << 8 | kind, flags, number)


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """A whole frame, whose payload has at most :data:`MAX_FRAME` bytes."""
    return _head(len(payload) << 8 | kind, flags, number) + payload


def header_frames(number: int, block: bytes, flags: int) -> bytes:
    """A field block as HEADERS and, if it is a long one, CONTINUATION; ``flags`` may be END_STREAM."""
    size = len(block)
    if size <= MAX_FRAME:
        return _head(size << 8 | HEADERS, flags | END_HEADERS, number) + block
    pieces = [block[at : at + MAX_FRAME] for at in range(0, size, MAX_FRAME)]
    frames = [frame(HEADERS, flags, number, pieces[0])]
    frames += [frame(CONTINUATION, 0, number, piece) for piece in pieces[1:-1]]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, number, pieces[-1])])


def reset(number: int, code: ErrorCode) -> bytes:
    """RST_STREAM (RFC 9113 §6.4)."""
    return frame(RST_STREAM, 0, number, _number.pack(code))


def window_update(number: int, size: int) -> bytes:
    """WINDOW_UPDATE (RFC 9113 §6.9): the peer may send ``size`` bytes more; for the connection on stream 0."""
    return frame(WINDOW_UPDATE, 0, number, _number.pack(size))


def goaway(last: int, code: ErrorCode, reason: str = "") -> bytes:
    """GOAWAY (RFC 9113 §6.8): streams above ``last`` are not processed."""
    return frame(GOAWAY, 0, 0, _number.pack(last) + _number.pack(code) + reason.encode())


def settings_frame(values: dict[Setting, int]) -> bytes:
    """SETTINGS (RFC 9113 §6.5)."""
    return frame(SETTINGS, 0, 0, b"".join(_settings.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The parameters of a peer's SETTINGS in their order, with the bounds of those that are known.

    :raises ConnectionFault: one is out of bounds, or there are too many.
    """
    if len(payload) % _settings.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has half a parameter")
    if len(payload) > _MOST_SETTINGS * _settings.size:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "SETTINGS has too many parameters")
    values = list(_settings.iter_unpack(payload))
    for name, value in values:
        if name == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS has too large a window")
        flag = name in (Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL, Setting.NO_RFC7540_PRIORITIES)
        if flag and value > 1 or name == Setting.MAX_FRAME_SIZE and not MAX_FRAME <= value < 1 << 24:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS has a value that is out of bounds")
    return values


def unpack_number(payload: bytes, at: int = 0) -> int:
    """The four bytes from ``at`` on."""
    value: int = _number.unpack_from(payload, at)[0]
    return value


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding (RFC 9113 §6.1).

    :raises ConnectionFault: the padding is longer than the payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame has more padding than payload")
    return payload[1 : len(payload) - payload[0]]
