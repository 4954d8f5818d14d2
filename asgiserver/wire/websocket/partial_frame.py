"""A data frame that is a message of its own and comes in several reads.

Its payload is unmasked, inflated and checked as it comes, so that a fault or an excess is found at once. It is kept in
one buffer, so that a peer that sends it byte by byte takes no more memory than any other.
"""

from __future__ import annotations

import codecs

from .deflate import Deflate
from .frame_parser import unmask

__all__ = ["PartialFrame"]

_decoded = codecs.utf_8_decode


class PartialFrame:
    """The part of a frame that has come.

    :param mask: its four bytes.
    :param size: of the payload as sent, in bytes.
    :param deflate: what inflates it, None when it is not compressed.
    :ivar missing: how many bytes of the payload have not come yet.
    """

    __slots__ = ("_checked", "_deflate", "_mask", "message", "missing", "text")

    def __init__(self, mask: bytes, size: int, deflate: Deflate | None, *, text: bool) -> None:
        self.text = text
        self.missing = size
        self.message = bytearray()
        self._mask = mask
        self._checked = 0
        self._deflate = deflate
        if deflate is not None:
            deflate.start_decompress_message()

    def add(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the payload; after the last one :attr:`message` is complete, but its end is not checked.

        :raises UnicodeDecodeError: a text is not UTF-8.
        :raises PayloadExceededError: it becomes too large when it is inflated.
        :raises PayloadCorruptError: it cannot be inflated.
        """
        message, deflate = self.message, self._deflate
        piece = bytearray() if deflate is not None else message
        begin = len(piece)
        piece += memoryview(data)[start:end]
        unmask(piece, begin, self._mask)
        # The next piece begins with another byte of the mask.
        turn = end - start & 3
        self._mask = self._mask[turn:] + self._mask[:turn]
        self.missing -= end - start
        if deflate is not None:
            message += deflate.decompress_message_data(piece)
        if self.missing:
            if self.text:
                self._check()
        elif deflate is not None:
            deflate.end_decompress_message()

    def _check(self) -> None:
        with memoryview(self.message) as view, view[self._checked :] as rest:
            self._checked += _decoded(rest, "strict", False)[1]
