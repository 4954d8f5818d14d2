"""WebSocket frames and messages (RFC 6455 §5 to §8, RFC 7692), server side, over Autobahn's parser.

Autobahn checks each frame's head and cuts, unmasks and joins payloads. This module decides:

* **How much is parsed.** Autobahn gets the bytes of one frame at a time, and no further one while the channel is full,
  after a failure, or when the connection's turn is over: one read may hold forty thousand frames. (Given a whole read,
  Autobahn copies the rest of it for each frame, and goes on after a violation.)
* **Limits.** Messages are counted after inflation, exactly, and joined in one buffer, so that a million fragments of
  one byte take up one megabyte.
* **Closing.** All codes that RFC 6455 §7.4 lets an endpoint send go both ways, with their reasons.
* **Answers.** A close frame or a failure ends the parsing at once. Our close frame and the call to the channel follow a
  turn of the loop later, so that messages of the same read can be answered first.

An unfragmented data frame, by far the most frequent, is recognised before Autobahn sees it, compressed or not, whole or
in pieces. The tests run all cases with and without these short cuts.
"""
# ruff: noqa: N802, N803 - Autobahn's names

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.websocket.compress_deflate import PerMessageDeflateOfferAccept

from ...asgi.interfaces import Channel, Turn
from ...asgi.tokens import MOST_OF_A_REASON, is_close_code
from .deflate import Deflate, negotiate_deflate
from .frame_parser import MASKS, MOST_BY_TABLE, FrameParser, unmasked
from .frame_writer import BINARY, COMPRESSED, NO_STATUS, PING, PONG, TEXT, FrameWriter
from .partial_frame import PartialFrame

__all__ = ["WebSocketProtocol", "negotiate_deflate"]

_OPEN = FrameParser.STATE_OPEN
_PLAIN_DATA = frozenset((TEXT, BINARY))
_COMPRESSED_DATA = frozenset((TEXT, BINARY, TEXT | COMPRESSED, BINARY | COMPRESSED))

_PROTOCOL_ERROR, _INVALID_PAYLOAD, _TOO_BIG = 1002, 1007, 1009
_NOT_UTF8 = "a text message is not UTF-8"

#: So many bytes of a message count as one step, like a small frame.
_BYTES_OF_STEP = 8192

_from_bytes = int.from_bytes
_make_decoder = codecs.getincrementaldecoder("utf-8")


class WebSocketProtocol(FrameWriter, FrameParser):
    """The frames of one open WebSocket, server side; implements ``asgi.interfaces.Frames``.

    :param channel: gets messages, close and failure, and the bytes for the peer.
    :param max_message_size: limit of a peer's message after inflation in bytes, 0 for none; more is answered 1009.
    :param max_frame_size: limit of a peer's data frame as sent in bytes, 0 for none; more is answered 1009.
    :param deflate: the second value that :func:`negotiate_deflate` returned, None without compression.
    :param turn: the connection's.
    :param after_turn: calls its argument once the application has had a turn to answer the messages so far; called once
        at most, for the end. By default the end does not wait.
    """

    #: False hands every frame to Autobahn.
    short_cuts = True

    def __init__(
        self,
        channel: Channel,
        *,
        max_message_size: int,
        max_frame_size: int,
        turn: Turn,
        deflate: PerMessageDeflateOfferAccept | None = None,
        after_turn: Callable[[Callable[[], None]], object] = lambda call: call(),
    ) -> None:
        engine: Deflate | None = None
        if deflate is not None:
            engine = self._perMessageCompress = Deflate.create_from_offer_accept(True, deflate)
        super().__init__(channel, engine)
        self._turn = turn
        self._after_turn = after_turn
        self._max_message_size = max_message_size or sys.maxsize
        self._max_frame_size = max_frame_size or sys.maxsize
        self._data_heads = _PLAIN_DATA if engine is None else _COMPRESSED_DATA
        # The longest payload that is taken at once; -1 while something is under way.
        self._most_at_once = -1
        self._partial: PartialFrame | None = None
        self._kept = b""
        self._ending: tuple[Callable[[int, str], None], int, str] | None = None
        self._message = bytearray()
        self._message_size = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._ping: bytes | None = None
        self._set_most_at_once()

    # The channel's side.

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer. Bytes that the channel has no room for are kept until :meth:`resume`."""
        size = len(data) - 6
        if 0 <= size <= self._most_at_once and data[1] == size + 0x80 and not self._channel.full:
            # One short frame and nothing else: as few steps as can be.
            first = data[0]
            if first in _PLAIN_DATA:
                factor, excess = MASKS[size]
                mask = _from_bytes(data[2:6]) * factor >> excess
                payload = (_from_bytes(data[6:]) ^ mask).to_bytes(size)
                self._deliver(payload, text=first == TEXT)
                return
        if self._most_at_once >= 0 and not self._channel.full and self._take_frame(data, 0, alone=True):
            return
        if self.state != self.STATE_CLOSED:
            self._kept = self._kept + data if self._kept else data
            self._parse()

    def resume(self) -> None:
        """The channel is no longer full, or the peer no longer slow: answer the last ping, parse what was kept."""
        if self._ping is not None and not self._channel.slow:
            self._onPing(self._ping)
        if self._kept:
            self._parse()

    def send_ping(self, payload: bytes) -> None:
        if self.state == self.STATE_OPEN:
            self._send_frame(PING, payload)

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame unless one was sent; from then on only the peer's close frame is waited for.

        The peer's close frame may be among the bytes that a full channel left: call :meth:`resume` next.

        :param reason: at most 123 bytes of UTF-8.
        """
        assert is_close_code(code), code
        self._most_at_once = -1
        if self.state == self.STATE_OPEN:
            self.state = self.STATE_CLOSING
        self._send_close(code, reason)

    def abandon(self) -> None:
        """The connection is lost: tell the channel of an end that waits for its turn, and of nothing more."""
        self.state = self.STATE_CLOSED
        self._most_at_once = -1
        self._close_sent = True
        self._kept = b""
        self._partial = None
        self._finish()

    # Parsing.

    def _parse(self) -> None:
        if self._gathered is not None:
            return  # the channel called resume() in one of its methods, which the loop below calls
        data, at, turn = self._kept, 0, self._turn
        self._gathered = []
        self._most_at_once = -1
        try:
            while at < len(data) and self._is_wanting():
                if turn.steps <= 0:
                    turn.wait_for_turn(self.resume)
                    break
                turn.steps -= 1
                at = self._parse_piece(data, at)
        finally:
            self._kept = b"" if self.state == self.STATE_CLOSED else data[at:]
            self._set_most_at_once()
            self._send_gathered()

    def _is_wanting(self) -> bool:
        # After our close frame even a full channel gets no more messages, and the peer's close frame must be found.
        return self.state == self.STATE_CLOSING or (self.state == _OPEN and not self._channel.full)

    def _set_most_at_once(self) -> None:
        """Let the next read be taken at once if no message is under way, no bytes are kept, and no end has come."""
        if self._is_between_frames() and not self._kept:
            self._most_at_once = min(MOST_BY_TABLE, self._max_message_size, self._max_frame_size)

    def _is_between_frames(self) -> bool:
        under_way = self._partial is not None or self.current_frame is not None or self.data or self.inside_message
        return self.short_cuts and self.state == _OPEN and not under_way

    def _parse_piece(self, data: bytes, at: int) -> int:
        """Take a message's only frame, or let Autobahn parse a head or a payload; each as far as it has come."""
        if self._partial is not None:
            return self._continue_frame(self._partial, data, at)
        return (self._is_between_frames() and self._take_frame(data, at)) or self.parse(data, at)

    def _take_frame(self, data: bytes, at: int, *, alone: bool = False) -> int:
        """Take the masked data frame at ``at`` that is a message of its own; after its head, as far as it has come.

        :param alone: take it only if it is whole and nothing follows it.
        :returns: where that ends; 0 when there is no such frame, so that Autobahn judges what is there.
        """
        available = len(data)
        if available < at + 6:
            return 0
        first, size = data[at], data[at + 1] - 0x80
        if first not in self._data_heads or size < 0:
            return 0
        start = at + 6
        if size > 125:
            start = at + (8 if size == 126 else 14)
            extended = _from_bytes(data[at + 2 : start - 4])
            # RFC 6455 §5.2: the shortest form must be used.
            if start > available or extended < (126 if size == 126 else 65536):
                return 0
            size = extended
        compressed = first & COMPRESSED
        if self._is_too_long(size, compressed) or (size > self._max_message_size and not compressed):
            return 0
        end = start + size
        if alone and end != available:
            return 0
        deflate = self._deflate if compressed else None
        text = first & 0x0F == 1
        if end > available:
            self._partial = PartialFrame(data[start - 4 : start], size, deflate, text=text)
            return self._continue_frame(self._partial, data, start)
        payload = unmasked(data, start, end)
        try:
            self._deliver(payload if deflate is None else deflate.inflated(payload), text=text)
        except (PayloadCorruptError, PayloadExceededError) as error:
            self._not_inflated(error)
        return end

    def _continue_frame(self, frame: PartialFrame, data: bytes, at: int) -> int:
        """Take the rest of a frame as far as it has come; return where that ends."""
        end = min(at + frame.missing, len(data))
        if self.state != _OPEN:
            frame.missing -= end - at
        else:
            try:
                frame.add(data, at, end)
            except UnicodeDecodeError:
                self._invalid_payload(_NOT_UTF8)
            except (PayloadCorruptError, PayloadExceededError) as error:
                self._not_inflated(error)
        if not frame.missing:
            self._partial = None
            if self.state == _OPEN:
                self._deliver(frame.message, text=frame.text)
        return end

    def _not_inflated(self, error: Exception) -> None:
        if isinstance(error, PayloadExceededError):
            self._max_message_size_exceeded()
        else:
            self._invalid_payload(f"received WebSocket message cannot be decompressed: {error}")

    def _deliver(self, payload: bytes | bytearray, *, text: bool) -> None:
        # A compressed message of a kilobyte may become one of a megabyte.
        self._turn.steps -= len(payload) // _BYTES_OF_STEP
        if not text:
            self._channel.message_received(bytes(payload))
            return
        try:
            message = payload.decode()
        except UnicodeDecodeError:
            self._invalid_payload(_NOT_UTF8)
        else:
            self._channel.message_received(message)

    # Called by Autobahn's parser, which names them.

    def _onMessageBegin(self, is_binary: bool) -> None:
        self._message_size = 0
        self._decoder = None if is_binary else _make_decoder()

    def _onMessageFrameBegin(self, length: int) -> None:
        if self.state != self.STATE_OPEN:
            return
        if not self._isMessageCompressed:
            self._message_size += length
        if self._is_too_long(length, self._isMessageCompressed):
            self._fail_connection(_TOO_BIG, f"a frame has more than {self._max_frame_size} bytes")
        elif self._message_size > self._max_message_size:
            self._max_message_size_exceeded()

    def _is_too_long(self, length: int, compressed: int) -> bool:
        most = self._max_frame_size
        # Clients also compress data that does not shrink: zlib makes it longer by five bytes for each of its blocks.
        return length > most and (not compressed or length > most + most // 64 + 64)

    def _onMessageFrameData(self, payload: bytes) -> None:
        self._message += payload
        if self._decoder is not None:
            try:
                self._decoder.decode(payload)
            except UnicodeDecodeError:
                self._invalid_payload(_NOT_UTF8)

    def _onMessageFrameEnd(self) -> None:
        pass

    def _onMessageEnd(self) -> None:
        message, self._message = self._message, bytearray()
        self._deliver(message, text=self._decoder is not None)

    def _onPing(self, payload: bytes) -> None:
        if self._channel.slow:
            # RFC 6455 §5.5.3: of several pings only the last needs an answer.
            self._ping = payload
        elif self.state == self.STATE_OPEN:
            self._ping = None
            self._send_frame(PONG, payload)

    def _onPong(self, payload: bytes) -> None:
        self._channel.pong_received(payload)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool:
        """Take the peer's close frame, or fail when it is wrong. Always True: nothing is parsed after it."""
        if code is not None and not is_close_code(code):
            return self._protocol_violation(f"{code} is not a code for a close frame")
        try:
            reason = (reasonRaw or b"").decode()
        except UnicodeDecodeError:
            return self._invalid_payload("the reason of a close frame is not UTF-8")
        self._end(self._channel.close_received, NO_STATUS if code is None else code, reason)
        return True

    def _protocol_violation(self, reason: str) -> bool:
        self._fail_connection(_PROTOCOL_ERROR, reason)
        return True

    def _invalid_payload(self, reason: str) -> bool:
        self._fail_connection(_INVALID_PAYLOAD, reason)
        return True

    def _max_message_size_exceeded(self, *_: object) -> None:
        self._fail_connection(_TOO_BIG, f"a message has more than {self._max_message_size} bytes")

    def _fail_connection(self, code: int = _PROTOCOL_ERROR, reason: str = "") -> None:
        self._end(self._channel.failed, code, reason.encode()[:MOST_OF_A_REASON].decode(errors="ignore"))

    def _end(self, tell: Callable[[int, str], None], code: int, reason: str) -> None:
        """Parse nothing more, and a turn later send the close frame, if none was sent, and ``tell`` the channel."""
        self.state = self.STATE_CLOSED
        self._most_at_once = -1
        self._partial = None
        self._ending = (tell, code, reason)
        self._after_turn(self._finish)

    def _finish(self) -> None:
        ending, self._ending = self._ending, None
        if ending is not None:
            tell, code, reason = ending
            self._send_close(code, reason)
            tell(code, reason)
