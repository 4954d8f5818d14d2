"""The heads of one HTTP/2 connection: HEADERS and its CONTINUATION frames, decoded (RFC 9113 §4.3, §6.2, §6.10); pure.

Each is decoded, even if nobody wants it, as those after it depend on its table.
"""

from __future__ import annotations

from .hpack import Decoder, FieldsTooLarge, HPACKError
from .http2_fields import Fields
from .http2_frames import (
    END_HEADERS,
    END_STREAM,
    MAX_WINDOW,
    PRIORITIZED,
    ConnectionFault,
    ErrorCode,
    unpack_number,
    unpadded,
)

__all__ = ["FIRST_TABLE", "Head", "Heads"]

#: The table of which both sides know before any SETTINGS (RFC 9113 §6.5.2); bytes.
FIRST_TABLE = 4096
#: Most CONTINUATION frames of a head: enough for a block twice as large as the largest head.
_MOST_CONTINUED = 8


#: A whole head: its stream's number; whether nothing follows it; whether its stream depends on itself, which RFC 7540
#: §5.3.1 made an error; the bytes of its block; its fields, None when they are too many or too large; and their size by
#: RFC 9113 §6.5.2.
Head = tuple[int, bool, bool, int, Fields | None, int]


class Heads:
    """Puts heads together in their order.

    :param most_bytes: of a head's fields by RFC 9113 §6.5.2.
    :param most_fields: of a head.
    :ivar unfinished: what has come of a head that goes on; None when there is none.
    """

    __slots__ = ("_decoder", "_most_bytes", "_most_fields", "unfinished")

    def __init__(self, most_bytes: int, most_fields: int) -> None:
        self._decoder = Decoder(FIRST_TABLE)
        self._most_bytes = most_bytes
        self._most_fields = most_fields
        self.unfinished: tuple[int, int, bool, list[bytes]] | None = None

    def begin(self, flags: int, number: int, payload: bytes) -> Head | None:
        """Take HEADERS; None when its head goes on.

        :raises ConnectionFault: the frame or the block is malformed.
        """
        payload = unpadded(flags, payload)
        depends = False
        if flags & PRIORITIZED:
            if len(payload) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS has no room for its priority")
            depends = unpack_number(payload) & MAX_WINDOW == number
            payload = payload[5:]
        if flags & END_HEADERS:
            return self._whole(flags, number, payload, depends)
        self.unfinished = flags, number, depends, [payload]
        return None

    def go_on(self, flags: int, number: int, payload: bytes) -> Head | None:
        """Take CONTINUATION; None when its head still goes on.

        :raises ConnectionFault: it continues nothing, there are too many, or the block is malformed.
        """
        unfinished = self.unfinished
        if unfinished is None or unfinished[1] != number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION is out of place")
        first_flags, _, depends, pieces = unfinished
        pieces.append(payload)
        if len(pieces) > 1 + _MOST_CONTINUED:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a head has too many frames")
        if not flags & END_HEADERS:
            return None
        self.unfinished = None
        return self._whole(first_flags, number, b"".join(pieces), depends)

    def _whole(self, flags: int, number: int, block: bytes, depends: bool) -> Head:
        fields = None
        try:
            fields = self._decoder.decode(block, self._most_bytes, self._most_fields)
        except HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from None
        except FieldsTooLarge:
            pass  # the caller answers
        return number, flags & END_STREAM != 0, depends, len(block), fields, self._decoder.decoded
