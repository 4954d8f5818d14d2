"""WebSocket frames and messages (RFC 6455 §5 to §8, RFC 7692), server side, over Autobahn's parser.

Autobahn checks each frame's head and cuts, unmasks and joins payloads. What is decided here:

* **How much is parsed.** Autobahn gets the bytes of one frame at a time, and no further one while the channel is full
  or after a failure. (Given a whole read it copies the rest of it for each frame, and goes on after a violation.)
* **Limits.** Messages are counted after inflation, exactly, and joined in one buffer, so that a million fragments of
  one byte take up one megabyte.
* **Closing.** All codes that RFC 6455 §7.4 lets an endpoint send go both ways, with their reasons.
* **Answers.** What ends the connection ends the parsing at once, but is answered and told a turn of the loop later, so
  that messages which came with it in one read can be answered first.

A complete, unfragmented, uncompressed data frame, by far the most frequent, is recognised before Autobahn sees it.
The tests run all cases with and without this short cut.
"""
# ruff: noqa: N802, N803 - the names of what Autobahn calls

from __future__ import annotations

import codecs
import struct
import sys
from collections.abc import Callable

from autobahn.websocket.compress_deflate import PerMessageDeflateOfferAccept

from ..asgi.interfaces import Channel, is_close_code
from .deflate import Deflate, negotiate_deflate
from .frame_parser import FrameParser, unmasked

__all__ = ["Channel", "WebSocketProtocol", "negotiate_deflate"]

_OPEN = FrameParser.STATE_OPEN
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
_DATA = frozenset((_TEXT, _BINARY))
#: The first reserved bit: the message is compressed (RFC 7692 §7.2.3.1).
_COMPRESSED = 0x40

_PROTOCOL_ERROR, _NO_STATUS, _INVALID_PAYLOAD, _TOO_BIG = 1002, 1005, 1007, 1009

#: A close frame has 125 bytes, two of which are the code (RFC 6455 §5.5).
_MAX_REASON = 123

#: Messages below are sent uncompressed: a packet hardly shrinks, and each would cost about 5 µs more. The Autobahn
#: suite's smallest compressed messages have 16 bytes.
_MIN_COMPRESSED = 16

_make_decoder = codecs.getincrementaldecoder("utf-8")


def _at_once(call: Callable[[], None]) -> None:
    call()


class WebSocketProtocol(FrameParser):
    """The frames of one open WebSocket, server side; implements ``asgi.interfaces.Frames``.

    :param channel: gets messages, close and failure, and the bytes for the peer.
    :param max_message_size: limit of a peer's message after inflation in bytes, 0 for none; more is answered 1009.
    :param max_frame_size: limit of a peer's data frame as sent in bytes, 0 for none; more is answered 1009.
    :param deflate: what :func:`negotiate_deflate` returned with the extension's value, None without compression.
    :param after_turn: calls its argument once whoever got the messages so far had a turn to answer them; called once
        at most, for the end. Without it the end does not wait.
    """

    #: False hands every frame to Autobahn.
    short_cuts = True

    def __init__(
        self,
        channel: Channel,
        *,
        max_message_size: int,
        max_frame_size: int,
        deflate: PerMessageDeflateOfferAccept | None = None,
        after_turn: Callable[[Callable[[], None]], object] = _at_once,
    ) -> None:
        super().__init__()
        self._channel = channel
        self._after_turn = after_turn
        self._max_message_size = max_message_size or sys.maxsize
        self._max_frame_size = max_frame_size or sys.maxsize
        if deflate is not None:
            self._perMessageCompress = Deflate.create_from_offer_accept(True, deflate)
        #: The longest frame whose head has two bytes and that no limit forbids.
        self._short = min(125, self._max_message_size, self._max_frame_size)
        self._kept = b""
        self._parsing = False
        self._close_sent = False
        self._ending: tuple[Callable[[int, str], None], int, str] | None = None
        self._written: list[bytes] = []
        self._message = bytearray()
        self._message_size = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._ping: bytes | None = None

    # The channel's side.

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer. What the channel has no room for is kept until :meth:`resume`."""
        if self._take_short_frame(data):
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

    def send_message(self, payload: bytes, *, text: bool) -> None:
        """Send a message in one frame; ``payload`` is UTF-8 when it is ``text``. Nothing is sent after a close."""
        if self._close_sent:
            return
        first = _TEXT if text else _BINARY
        deflate = self._perMessageCompress
        if deflate is not None and len(payload) >= _MIN_COMPRESSED:
            deflate.start_compress_message()
            payload = deflate.compress_message_data(payload) + deflate.end_compress_message()
            first |= _COMPRESSED
        self._send_frame(first, payload)

    def send_ping(self, payload: bytes) -> None:
        """Send a ping of at most 125 bytes. Nothing is sent after a close."""
        if self.state == self.STATE_OPEN:
            self._send_frame(_PING, payload)

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame unless one was sent; from then on only the peer's close frame is waited for.

        It may be among the bytes that a full channel left: call :meth:`resume` next.

        :param code: one for which :func:`is_close_code` is true.
        :param reason: at most 123 bytes of UTF-8.
        """
        assert is_close_code(code), code
        if self.state == self.STATE_OPEN:
            self.state = self.STATE_CLOSING
        self._send_close(code, reason)

    def abandon(self) -> None:
        """The connection is lost: tell the channel of an end that waits for its turn, and of nothing more."""
        self.state = self.STATE_CLOSED
        self._close_sent = True
        self._kept = b""
        self._finish()

    def _send_close(self, code: int, reason: str) -> None:
        if not self._close_sent:
            self._close_sent = True
            encoded = reason.encode()
            assert len(encoded) <= _MAX_REASON, reason
            self._send_frame(_CLOSE, b"" if code == _NO_STATUS else struct.pack("!H", code) + encoded)

    def _send_frame(self, first: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((first, size))
        elif size < 65536:
            head = struct.pack("!BBH", first, 126, size)
        else:
            head = struct.pack("!BBQ", first, 127, size)
        if self._parsing:
            # Thousands of pings in one read must not cost as many system calls.
            self._written.append(head + payload)
        else:
            self._channel.write(head + payload)

    # Parsing.

    def _parse(self) -> None:
        if self._parsing:
            return  # the channel resumed from within one of its methods, which are called from the loop below
        data, at = self._kept, 0
        self._parsing = True
        try:
            while at < len(data) and self._is_wanting():
                at = self._parse_piece(data, at)
        finally:
            self._parsing = False
            self._kept = b"" if self.state == self.STATE_CLOSED else data[at:]
            if self._written:
                written, self._written = self._written, []
                self._channel.write(b"".join(written))

    def _is_wanting(self) -> bool:
        # After our close frame a full channel gets nothing any more, and the peer's close frame must be found.
        return self.state == self.STATE_CLOSING or (self.state == self.STATE_OPEN and not self._channel.full)

    def _parse_piece(self, data: bytes, at: int) -> int:
        """Parse a whole simple frame, or let Autobahn have a head or a payload or what there is of it."""
        if self.current_frame is not None:
            end: int = at + self.current_frame.length - self.current_frame_masker.pointer()
        else:
            if self.short_cuts and not self.data and not self.inside_message and self.state == _OPEN:
                end = self._parse_whole_frame(data, at)
                if end:
                    return end
            end = at + _head_size(self.data + data[at : at + 2]) - len(self.data)
        self.parse(data[at:end])
        return min(end, len(data))

    def _take_short_frame(self, data: bytes) -> bool:
        """Take ``data`` when it is one short frame of that kind and nothing is under way or in the way."""
        size = len(data) - 6
        if not 0 <= size <= self._short or size != data[1] - 0x80 or data[0] not in _DATA or self.state != _OPEN:
            return False
        if self._kept or self._parsing or self.data or self.inside_message or self.current_frame is not None:
            return False
        if self._channel.full or not self.short_cuts:
            return False
        payload = unmasked(data[2:6], data[6:])
        if data[0] == _BINARY:
            self._channel.message_received(payload)
        else:
            self._deliver(payload, text=True)
        return True

    def _parse_whole_frame(self, data: bytes, at: int) -> int:
        """Take the complete, unfragmented, uncompressed, masked data frame at ``at``.

        :returns: where it ends, 0 when there is none such: Autobahn finds out what is there, or wrong.
        """
        available = len(data)
        if available < at + 6:
            return 0
        first, size = data[at], data[at + 1] - 0x80
        if first != _TEXT and first != _BINARY or size < 0:
            return 0
        start = at + 6
        if size > 125:
            start = at + (8 if size == 126 else 14)
            extended = int.from_bytes(data[at + 2 : start - 4])
            # RFC 6455 §5.2: the shortest form must be used.
            if extended < (126 if size == 126 else 65536):
                return 0
            size = extended
        end = start + size
        if end > available or size > self._max_frame_size or size > self._max_message_size:
            return 0
        self._deliver(unmasked(data[start - 4 : start], data[start:end]), text=first == _TEXT)
        return end

    def _deliver(self, payload: bytes | bytearray, *, text: bool) -> None:
        if not text:
            self._channel.message_received(bytes(payload))
            return
        try:
            message = payload.decode()
        except UnicodeDecodeError:
            self._invalid_payload("a text message is not UTF-8")
        else:
            self._channel.message_received(message)

    # What Autobahn's parser calls. Its names.

    def _onMessageBegin(self, is_binary: bool) -> None:
        self._message_size = 0
        self._decoder = None if is_binary else _make_decoder()

    def _onMessageFrameBegin(self, length: int) -> None:
        if self.state != self.STATE_OPEN:
            return
        if not self._isMessageCompressed:
            self._message_size += length
        # Clients compress what does not shrink too: zlib makes it longer by five bytes for each of its blocks.
        if length > self._max_frame_size + (self._max_frame_size // 64 + 64) * self._isMessageCompressed:
            self._fail_connection(_TOO_BIG, f"a frame has more than {self._max_frame_size} bytes")
        elif self._message_size > self._max_message_size:
            self._max_message_size_exceeded()

    def _onMessageFrameData(self, payload: bytes) -> None:
        self._message += payload
        if self._decoder is not None:
            try:
                self._decoder.decode(payload)
            except UnicodeDecodeError:
                self._invalid_payload("a text message is not UTF-8")

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
            self._send_frame(_PONG, payload)

    def _onPong(self, payload: bytes) -> None:
        self._channel.pong_received(payload)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool:
        """Take the peer's close frame, or see that it is wrong. Always true: nothing is parsed after it."""
        if code is not None and not is_close_code(code):
            return self._protocol_violation(f"{code} is not a code for a close frame")
        try:
            reason = (reasonRaw or b"").decode()
        except UnicodeDecodeError:
            return self._invalid_payload("the reason of a close frame is not UTF-8")
        self._end(self._channel.close_received, _NO_STATUS if code is None else code, reason)
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
        self._end(self._channel.failed, code, reason.encode()[:_MAX_REASON].decode(errors="ignore"))

    def _end(self, tell: Callable[[int, str], None], code: int, reason: str) -> None:
        """Parse nothing more, and a turn later send the close frame, if none was sent, and ``tell`` the channel."""
        self.state = self.STATE_CLOSED
        self._ending = (tell, code, reason)
        self._after_turn(self._finish)

    def _finish(self) -> None:
        ending, self._ending = self._ending, None
        if ending is not None:
            tell, code, reason = ending
            self._send_close(code, reason)
            tell(code, reason)


def _head_size(start: bytes) -> int:
    """The size of a frame's head of which these are the first bytes, or how many bytes it takes to know that."""
    if len(start) < 2:
        return 2
    size = start[1] & 0x7F
    return 2 + (0 if size < 126 else 2 if size == 126 else 8) + (4 if start[1] & 0x80 else 0)
