"""Autobahn's frame parser without the rest of Autobahn: no factory, transport, handshake, timers, or log.

Autobahn's initialisation makes Deferreds and formats texts for the log, and its parser reads far more attributes than
it needs here. :class:`FrameParser` holds them, and :mod:`.frames` overrides the methods that the parser calls.
"""
# ruff: noqa: N802, N815 - Autobahn's names

from __future__ import annotations

from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol as Autobahn
from autobahn.websocket.xormasker import create_xor_masker

__all__ = ["MASKS", "MOST_BY_TABLE", "FrameParser", "unmask", "unmasked"]

#: A payload of up to so many bytes is unmasked as one large number, which is the fastest way for short payloads.
MOST_BY_TABLE = 125

#: For each size, the factor that repeats a mask, as a number, over so many bytes, and how many bits the product has too
#: many.
MASKS = [(sum(1 << 32 * at for at in range(-(-size // 4))), -size % 4 * 8) for size in range(MOST_BY_TABLE + 1)]

_from_bytes = int.from_bytes


class _Silent:
    """Stands in for a log and for statistics: takes everything, costs little, keeps nothing."""

    def debug(self, *args: object, **fields: object) -> None:
        """Say nothing."""

    warn = error = info = debug

    def __getattr__(self, name: str) -> int:
        return 0

    def __setattr__(self, name: str, value: object) -> None:
        pass


class _ServerSide:
    """All that the parser reads from a factory."""

    isServer = True


class FrameParser(Autobahn):  # type: ignore[misc]
    """The attributes that Autobahn's initialisation would set and its parser reads, in the state after the handshake.

    Most are switched off for good; the class holds them so that an instance need not. A test reads the parser's source
    and checks that none is missing.
    """

    log = _Silent()
    trafficStats = _Silent()
    factory = _ServerSide()
    requireMaskedClientFrames = applyMask = True
    acceptMaskedServerFrames = False
    # Python's decoder is needed anyway, and checks UTF-8 too. It fails as early as Autobahn's validator, except for
    # surrogates: at their third octet instead of the second.
    utf8validateIncoming = utf8validateIncomingCurrentMessage = False
    utf8validator = utf8validateLast = None
    logFrames = logOctets = trackTimings = False
    trackedTimings = autoPingInterval = autoPingTimeoutCall = None
    autoPingPending = autoPingPendingCall = autoPingPendingSent = None
    autoPingRestartOnAnyTraffic = False
    # Off: Autobahn counts a compressed message as larger than it is.
    maxMessagePayloadSize = message_data_total_length = 0
    wasMaxMessagePayloadSizeExceeded = failedByMe = False

    state: int = Autobahn.STATE_OPEN
    data = b""
    current_frame: Any = None
    current_frame_masker: Any = None
    frame_data: Any = None
    control_frame_data: Any = None
    inside_message = False
    _isMessageCompressed = False
    _perMessageCompress: Any = None

    def __init__(self) -> None:
        # Autobahn's own is not called: it makes Deferreds that nobody waits for.
        pass

    def parse(self, data: bytes, at: int) -> int:
        """Parse one head or payload from ``at`` on, as far as it has come, and nothing beyond; return where it ends."""
        if self.current_frame is not None:
            end: int = at + self.current_frame.length - self.current_frame_masker.pointer()
        else:
            end = at + _head_size(self.data + data[at : at + 2]) - len(self.data)
        self.data += data[at:end]
        while self.processData() and self.state != self.STATE_CLOSED:
            pass
        return min(end, len(data))

    def onFrameData(self, payload: bytes) -> bool | None:
        """Take a piece of a payload; False stops the parser."""
        if self._passes_over():
            return None
        stop: bool | None = super().onFrameData(payload)
        return stop

    def onFrameEnd(self) -> bool | None:
        """End a frame; False stops the parser."""
        if self._passes_over():
            self.inside_message = not self.current_frame.fin
            self.current_frame = None
            return None
        stop: bool | None = super().onFrameEnd()
        return stop

    def _passes_over(self) -> bool:
        # RFC 6455 §5.5.1, §7.1.7: data after our close frame or a failure mean nothing and are not unpacked.
        return self.state != self.STATE_OPEN and bool(self.current_frame.opcode < 8)


def _head_size(start: bytes) -> int:
    """The size of the frame's head that begins with ``start``; 2 while ``start`` is too short to tell."""
    if len(start) < 2:
        return 2
    size = start[1] & 0x7F
    return 2 + (0 if size < 126 else 2 if size == 126 else 8) + (4 if start[1] & 0x80 else 0)


def unmasked(data: bytes, start: int, end: int) -> bytes | bytearray:
    """Unmask the payload from ``start`` to ``end``; its mask stands before it (RFC 6455 §5.3)."""
    size = end - start
    if size <= MOST_BY_TABLE:
        factor, excess = MASKS[size]
        mask = _from_bytes(data[start - 4 : start]) * factor >> excess
        return (_from_bytes(data[start:end]) ^ mask).to_bytes(size)
    payload = bytearray(memoryview(data)[start:end])
    unmask(payload, 0, data[start - 4 : start])
    return payload


def _unmask_as_number(payload: bytearray, start: int, mask: bytes) -> None:
    size = len(payload) - start
    repeated = (mask * (size + 3 >> 2))[:size]
    payload[start:] = (_from_bytes(payload[start:]) ^ _from_bytes(repeated)).to_bytes(size)


def _unmask_in_place(payload: bytearray, start: int, mask: bytes) -> None:
    masker = _new_masker(mask)
    try:
        _process(masker, _from_buffer(payload) + start, len(payload) - start)
    finally:
        _free_masker(masker)


#: Unmasks a payload in place, from an offset on, by a mask of four bytes.
unmask = _unmask_as_number
_masker: Any = create_xor_masker(bytes(4), 1024)
if hasattr(_masker, "lib"):
    # Autobahn's masker is compiled. Its Python wrapper is slow to make and copies the payload three times, so the
    # compiled functions are called directly.
    _from_buffer, _process = _masker.ffi.from_buffer, _masker.lib.nvx_xormask_process
    _new_masker, _free_masker = _masker.lib.nvx_xormask_new, _masker.lib.nvx_xormask_free
    unmask = _unmask_in_place
