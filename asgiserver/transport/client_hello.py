"""A client's first message: the protocols that a TLS client offers by ALPN (RFC 8446 §4.1.2, RFC 7301 §3.1), or the
beginning of a request without TLS.

Python's ``ssl`` goes on without a protocol when none of those offered is ours, where RFC 7301 §3.2 wants a fatal alert,
and it does not tell which were offered. Pure: bytes in, names out. OpenSSL finds any fault in the message.
"""

from __future__ import annotations

import re

__all__ = ["NO_APPLICATION_PROTOCOL", "IncompleteHello", "is_request", "offered_protocols"]

#: The alert for a client that offers none of our protocols, as a record: fatal (2), no_application_protocol (120).
NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_ALPN = 16

#: A message with more bytes or records is not looked into; clients send one record of at most 2,000 bytes.
_MOST_BYTES = 16384
_MOST_RECORDS = 4

#: A method and a space, or as much of it as has come (RFC 9112 §3); a TLS record begins with a byte below the letters.
_METHOD = re.compile(rb"[A-Z][A-Z-]{0,19}(?: |\Z)")


class IncompleteHello(Exception):
    """More bytes are needed to tell."""


def is_request(data: bytes) -> bool:
    """True when a client has begun an HTTP request instead of TLS.

    :param data: all that was received of it so far.
    :raises IncompleteHello: this may be a request, but its method has not arrived whole.
    """
    method = _METHOD.match(data)
    if method is None:
        return False
    if not method[0].endswith(b" "):
        raise IncompleteHello
    return True


def offered_protocols(data: bytes) -> list[bytes] | None:
    """The protocols that a client offers.

    :param data: all that was received of it so far.
    :return: in the client's order; None when it does not use ALPN, or the message cannot be understood.
    :raises IncompleteHello: the message has not arrived whole.
    """
    hello = _message(data)
    extension = None if hello is None else _extension(hello, _ALPN)
    return None if extension is None else _names(extension)


def _message(data: bytes) -> bytes | None:
    """The ClientHello without its header, put together from the records that it came in."""
    message, start = b"", 0
    for _ in range(_MOST_RECORDS):
        header = data[start : start + 5]
        if header[:1] != bytes((_HANDSHAKE,)) and header:
            return None
        end = start + 5 + int.from_bytes(header[3:5])
        message += data[start + 5 : end]
        size = 4 + int.from_bytes(message[1:4])
        if message[:1] != bytes((_CLIENT_HELLO,)) and message or size > _MOST_BYTES:
            return None
        if 4 <= size <= len(message):
            return message[4:size]
        if len(header) < 5 or end > len(data):
            raise IncompleteHello
        start = end
    return None


def _extension(hello: bytes, wanted: int) -> bytes | None:
    position = 2 + 32
    # The session's identifier, the cipher suites and the compression methods, each with its length before it.
    for size in (1, 2, 1):
        position += size + int.from_bytes(hello[position : position + size])
    position += 2
    while position + 4 <= len(hello):
        kind, size = int.from_bytes(hello[position : position + 2]), int.from_bytes(hello[position + 2 : position + 4])
        if kind == wanted:
            return hello[position + 4 : position + 4 + size]
        position += 4 + size
    return None


def _names(extension: bytes) -> list[bytes]:
    names, position = [], 2
    while position < len(extension):
        end = position + 1 + extension[position]
        names.append(extension[position + 1 : end])
        position = end
    return names
