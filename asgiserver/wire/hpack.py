"""The compression of fields in HTTP/2, HPACK (RFC 7541); pure.

The decoder's table is the only state. It belongs to one connection, so what a peer sends is remembered for that
connection alone. The encoder has no table: it refers to the static one and inserts nothing, so no secret of a response
can be guessed by the size of another (RFC 7541 §7.1), and a connection keeps no memory for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from . import huffman

__all__ = ["Decoder", "FieldsTooLarge", "HPACKError", "encode"]

#: What each entry of a table counts besides its bytes (RFC 7541 §4.1).
_OVERHEAD = 32

#: RFC 7541 Appendix A, from index 1 on: a line for each name, with its values.
_STATIC = """\
:authority
:method GET POST
:path / /index.html
:scheme http https
:status 200 204 206 304 400 404 500
accept-charset
accept-encoding gzip,\tdeflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate"""


def _static_table() -> list[tuple[bytes, bytes]]:
    """The static table; what stands at 0 is no entry."""
    table = [(b"", b"")]
    for line in _STATIC.encode("ascii").split(b"\n"):
        name, *values = line.split(b" ")
        # A space separates values here, so the only space that is in one is written as a tab.
        table += [(name, value.replace(b"\t", b" ")) for value in values or [b""]]
    return table


_TABLE = _static_table()
#: The index of the newest entry of the dynamic table (RFC 7541 §2.3.3).
_FIRST = len(_TABLE)

#: A number has up to this many bits in the bytes behind its prefix: more than any size here.
_MOST_BITS = 28


class HPACKError(Exception):
    """A block breaks RFC 7541: a connection error of type COMPRESSION_ERROR (RFC 9113 §4.3)."""


class FieldsTooLarge(Exception):
    """A block's fields are too many or too large; the decoder has read it whole, so the connection can go on."""


class Decoder:
    """Decodes the blocks of one direction of a connection, in their order.

    :param table_size: most bytes of the dynamic table by RFC 7541 §4.1, as SETTINGS_HEADER_TABLE_SIZE says.
    :ivar decoded: bytes of the latest block's fields: names and values, and 32 for each (RFC 9113 §6.5.2).
    """

    __slots__ = ("_limit", "_most", "_size", "_table", "decoded")

    def __init__(self, table_size: int = 4096) -> None:
        #: The static table and, from :data:`_FIRST` on, the dynamic one.
        self._table = _TABLE
        self._size = self.decoded = 0
        self._limit = self._most = table_size

    def decode(self, block: bytes, most_bytes: int, most_fields: int) -> list[tuple[bytes, bytes]]:
        """The fields of a whole block, in order.

        :param most_bytes: of what :attr:`decoded` counts.
        :param most_fields: counts each field, however short its representation.
        :raises HPACKError: the block is malformed; the decoder is of no use any more.
        :raises FieldsTooLarge: there is more than ``most_bytes`` or ``most_fields``.
        """
        table = self._table
        fields: list[tuple[bytes, bytes]] = []
        at, end = 0, len(block)
        try:
            while at < end:
                byte = block[at]
                at += 1
                if byte > 0x80:
                    if byte == 0xFF:
                        byte, at = _integer(block, at, 0x7F)
                        byte += 0x80
                    fields.append(table[byte - 0x80])
                elif byte & 0xE0 == 0x20:
                    if fields:
                        raise HPACKError("A table's size changes behind a field.")
                    limit, at = _integer(block, at, 0x1F) if byte == 0x3F else (byte & 0x1F, at)
                    self._resize(limit)
                elif byte == 0x80:
                    raise HPACKError("The index 0 names no field.")
                else:
                    mask = 0x3F if byte & 0x40 else 0x0F
                    index = byte & mask
                    if index == mask:
                        index, at = _integer(block, at, mask)
                    if index:
                        name = table[index][0]
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    field = name, value
                    fields.append(field)
                    if byte & 0x40:
                        table = self._insert(field)
        except IndexError:
            raise HPACKError("A block is cut off, or an index is larger than its table.") from None
        if len(fields) > most_fields:
            raise FieldsTooLarge(f"There are more than {most_fields} fields.")
        size = sum([len(name) + len(value) for name, value in fields])
        self.decoded = size = size + _OVERHEAD * len(fields)
        if size > most_bytes:
            raise FieldsTooLarge(f"The fields have more than {most_bytes} bytes.")
        return fields

    def _insert(self, field: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Make ``field`` the newest entry; one that is larger than the table empties it (RFC 7541 §4.4)."""
        table = self._table
        if table is _TABLE:
            table = self._table = _TABLE.copy()
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        table.insert(_FIRST, field)
        if self._size > self._limit:
            self._evict()
        return table

    def _resize(self, limit: int) -> None:
        """Follow the encoder, which has chosen another size (RFC 7541 §6.3)."""
        if limit > self._most:
            raise HPACKError(f"A table is to be larger than {self._most} bytes.")
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """A number whose prefix is full, with the offset behind it (RFC 7541 §5.1).

    :param prefix: the largest number that has room in the prefix.
    """
    number, shift = prefix, 0
    while True:
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift >= _MOST_BITS:
            raise HPACKError("A number is too large.")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string, with the offset behind it (RFC 7541 §5.2)."""
    byte = block[at]
    start = at + 1
    size = byte & 0x7F
    if size == 0x7F:
        size, start = _integer(block, start, 0x7F)
    end = start + size
    if end > len(block):
        raise HPACKError("A string is longer than its block.")
    if byte < 0x80:
        return block[start:end], end
    try:
        return huffman.decode(block[start:end]), end
    except huffman.HuffmanError as error:
        raise HPACKError(str(error)) from None


# What follows is the encoder.

_INDEX_OF_FIELD = {field: index for index, field in enumerate(_TABLE) if field[1]}
_INDEX_OF_NAME = {name: index for index, (name, _) in reversed([*enumerate(_TABLE)]) if index}

#: Fields that no proxy may put into a table (RFC 7541 §7.1.3).
_SECRET = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"))

#: The lengths that have room in a prefix of 7 bits, as a string begins with them.
_LENGTHS = [bytes([length]) for length in range(0x7F)]


def encode(fields: Iterable[tuple[bytes, bytes]], *, compress: bool = False) -> bytes:
    """The block of ``fields``; it changes no table, so blocks may be kept, joined and sent in any order.

    :param fields: names in lower case.
    :param compress: write values in the Huffman code where it is shorter, which pays for a block that is kept.
    """
    parts: list[bytes] = []
    for field in fields:
        index = _INDEX_OF_FIELD.get(field)
        if index is not None:
            parts.append(bytes([0x80 | index]))
            continue
        name, value = field
        if compress:
            parts += _name(name), _shortest(value)
        else:
            size = len(value)
            parts += _name(name), _LENGTHS[size] if size < 0x7F else _number(0, 0x7F, size), value
    return b"".join(parts)


@lru_cache(maxsize=512)
def _name(name: bytes) -> bytes:
    """The beginning of a literal that no table takes (RFC 7541 §6.2.2, §6.2.3), with its name.

    Applications send the same few names again and again, so these are kept.
    """
    pattern = 0x10 if name in _SECRET else 0x00
    index = _INDEX_OF_NAME.get(name)
    return bytes([pattern]) + _shortest(name) if index is None else _number(pattern, 0x0F, index)


def _shortest(text: bytes) -> bytes:
    """A string as it is or in the Huffman code (RFC 7541 §5.2)."""
    coded = huffman.encode(text)
    if len(coded) < len(text):
        return _number(0x80, 0x7F, len(coded)) + coded
    return _number(0x00, 0x7F, len(text)) + text


def _number(pattern: int, prefix: int, number: int) -> bytes:
    """A number behind the bits of ``pattern`` (RFC 7541 §5.1).

    :param prefix: the largest number that has room in the prefix.
    """
    if number < prefix:
        return bytes([pattern | number])
    octets = bytearray([pattern | prefix])
    number -= prefix
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)
