"""Autobahn's frame parser without the rest of Autobahn: no factory, transport, handshake, timers, or log.

Autobahn initialises itself by making Deferreds and formatting what is to be logged, and it reads far more attributes
than it needs here. :class:`FrameParser` holds them, and :mod:`.frames` overrides what the parser calls.
"""
# ruff: noqa: N802, N815 - Autobahn's names

from __future__ import annotations

from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol as Autobahn
from autobahn.websocket.xormasker import create_xor_masker

__all__ = ["FrameParser", "unmasked"]

#: Up to here one exclusive-or of two large numbers is faster than Autobahn's masker (0.3 to 2 µs against 2.3 µs).
_SHORT_PAYLOAD = 1024


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
    """All that is asked of a factory."""

    isServer = True


class FrameParser(Autobahn):  # type: ignore[misc]
    """What Autobahn's initialisation would set and its parser reads, in the state after the handshake.

    Most is switched off for good; the class holds it so that an instance does not. A test reads the parser's source
    and misses no name.
    """

    log = _Silent()
    trafficStats = _Silent()
    factory = _ServerSide()
    requireMaskedClientFrames = applyMask = True
    acceptMaskedServerFrames = False
    # Python's decoder checks UTF-8 faster than Autobahn's validator and is needed anyway. It fails as early, but for
    # surrogates: at their third octet instead of the second.
    utf8validateIncoming = utf8validateIncomingCurrentMessage = False
    utf8validator = utf8validateLast = None
    logFrames = logOctets = trackTimings = False
    trackedTimings = autoPingInterval = autoPingTimeoutCall = None
    autoPingPending = autoPingPendingCall = autoPingPendingSent = None
    autoPingRestartOnAnyTraffic = False
    # Off: Autobahn takes a compressed message for larger than it is.
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
        # Not Autobahn's: it makes Deferreds that nobody waits for.
        pass

    def parse(self, piece: bytes) -> None:
        """Parse ``piece``, which must not reach beyond one frame's head or payload."""
        self.data += piece
        while self.processData() and self.state != self.STATE_CLOSED:
            pass

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


def unmasked(mask: bytes, payload: bytes) -> bytes:
    """Take the mask of four bytes off a whole payload (RFC 6455 §5.3)."""
    size = len(payload)
    if size > _SHORT_PAYLOAD:
        plain: bytes = create_xor_masker(mask, size).process(payload)
        return plain
    repeated = (mask * (size + 3 >> 2))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)
