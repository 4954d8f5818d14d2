"""permessage-deflate (RFC 7692) by Autobahn's classes: which offer is accepted, and inflating within limits.

Only :mod:`.frames` uses it.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.websocket.compress_deflate import PerMessageDeflate, PerMessageDeflateOffer, PerMessageDeflateOfferAccept

from ..handshake import Extension

__all__ = ["Deflate", "negotiate_deflate"]

#: 4 KiB windows and less state than zlib's default: 32 KiB for each connection that compresses instead of 256 KiB, at
#: the cost of a few per cent of the ratio. Python's ``websockets`` made the same choice.
_WINDOW_BITS, _MEMORY_LEVEL = 12, 5

#: The end of each message, which is not sent (RFC 7692 §7.2.1).
_FLUSHED = b"\x00\x00\xff\xff"

_is_window_bits = re.compile("[89]|1[0-5]").fullmatch


def negotiate_deflate(
    extensions: list[Extension], max_message_size: int
) -> tuple[str, PerMessageDeflateOfferAccept] | None:
    """Choose the client's first offer of permessage-deflate that can be met (RFC 7692 §5, §7.1).

    :param extensions: what the client offers.
    :param max_message_size: limit of a message after inflation in bytes, 0 for none.
    :returns: the value of the response's field, and the engine's argument ``deflate``; None without such an offer.
        An offer that is not understood is passed over.
    """
    for extension in extensions:
        if extension.name == PerMessageDeflate.EXTENSION_NAME:
            accept = _accept(extension.parameters, max_message_size)
            if accept is not None:
                return accept.get_extension_string(), accept
    return None


def _accept(parameters: list[tuple[str, str | None]], max_message_size: int) -> PerMessageDeflateOfferAccept | None:
    """How the offer with these parameters is accepted, None when it must be declined (RFC 7692 §7.1)."""
    offered = dict(parameters)
    if len(offered) != len(parameters) or not all(_is_understood(name, value) for name, value in parameters):
        return None
    server_bits = int(offered.get("server_max_window_bits") or 0)
    client_bits = min(int(offered.get("client_max_window_bits") or 15), _WINDOW_BITS)
    if server_bits == 8:
        return None  # zlib does not compress with so small a window
    offer = PerMessageDeflateOffer(
        accept_max_window_bits="client_max_window_bits" in offered,
        request_no_context_takeover="server_no_context_takeover" in offered,
        request_max_window_bits=server_bits,
    )
    return PerMessageDeflateOfferAccept(
        offer,
        request_no_context_takeover="client_no_context_takeover" in offered,
        # zlib clients that mean 8 use 9, so 8 is not asked for; the largest window reads all that they send.
        request_max_window_bits=client_bits if offer.accept_max_window_bits and client_bits > 8 else 0,
        window_bits=min(server_bits or _WINDOW_BITS, _WINDOW_BITS),
        mem_level=_MEMORY_LEVEL,
        max_message_size=max_message_size or None,
    )


def _is_understood(name: str, value: str | None) -> bool:
    if name in ("server_no_context_takeover", "client_no_context_takeover"):
        return value is None
    if name == "client_max_window_bits" and value is None:
        return True
    return name in ("server_max_window_bits", "client_max_window_bits") and bool(_is_window_bits(value or ""))


class Deflate(PerMessageDeflate):  # type: ignore[misc]
    """Autobahn's permessage-deflate with exact limits, final blocks, and a check of the message's end."""

    _compressor: Any
    _decompressor: Any
    _finals = 0
    _fed = False

    def deflated(self, message: bytes) -> bytes:
        """A whole message compressed."""
        compressor = self._compressor
        if compressor is None or self.server_no_context_takeover:
            compressor = self._compressor = zlib.compressobj(
                zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -self.server_max_window_bits, self.mem_level
            )
        output: bytes = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return output[:-4]

    def inflated(self, payload: bytes | bytearray) -> bytes:
        """Inflate a message that came in one frame; raises the errors of the three steps below."""
        self.start_decompress_message()
        output = self.decompress_message_data(payload)
        self.end_decompress_message()
        return output

    def start_decompress_message(self) -> None:
        """Begin a message."""
        if self._decompressor is None or self.client_no_context_takeover:
            self._decompressor = zlib.decompressobj(-self.client_max_window_bits)
        self._decompress_message_size = 0
        self._finals = 0
        self._fed = False

    def decompress_message_data(self, data: bytes | bytearray, max_output_len: int | None = None) -> bytes:
        """Inflate a piece of a message. The limit is that of the accepted offer; ``max_output_len`` is ignored.

        :raises PayloadExceededError: when the message becomes too large; at most a byte beyond the limit is inflated.
        :raises PayloadCorruptError: when it cannot be inflated.
        """
        output = self._inflate(data)
        if self._decompressor.eof:
            # RFC 7692 §7.2.3.4: other blocks may follow a final block, at which zlib stops. A sender that ends its
            # stream begins a new one, which refers to nothing before it. No honest sender ends it twice in a message.
            rest = self._decompressor.unused_data
            self._finals += 1
            self._decompressor = zlib.decompressobj(-self.client_max_window_bits)
            self._fed = False
            output += self._inflate(rest)
            if self._finals > 1 or self._decompressor.eof:
                raise PayloadCorruptError("it has several final blocks")
        return output

    def end_decompress_message(self) -> None:
        """Give zlib the four bytes that the sender cut off.

        :raises PayloadCorruptError: when the message ended within a block.
        """
        # An empty payload, or one that is only a final block, does not begin the block that the sender cut off.
        if self._fed and not self._is_flushed():
            raise PayloadCorruptError("its end is missing")

    def _is_flushed(self) -> bool:
        try:
            # With room for a byte, as any output would mean that zlib took these four bytes for data.
            return not self._decompressor.decompress(_FLUSHED, 1) and not self._decompressor.eof
        except zlib.error as error:
            raise PayloadCorruptError(str(error)) from error

    def _inflate(self, data: bytes | bytearray) -> bytes:
        if not data:
            return b""
        self._fed = True
        limit = self.max_message_size
        # One byte of room more than allowed: if that byte stays free, zlib holds nothing back for the next call.
        room = limit - self._decompress_message_size + 1 if limit else 0
        try:
            output: bytes = self._decompressor.decompress(data, room)
        except zlib.error as error:
            raise PayloadCorruptError(str(error)) from error
        self._decompress_message_size += len(output)
        if limit and self._decompress_message_size > limit:
            raise PayloadExceededError("it is too large")
        return output
