"""What a client may send, right or wrong, and what must come of it. Sections as in the Autobahn test suite."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from .peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Event, close, fragments, frame

DEFLATE = b"permessage-deflate"


class Case(NamedTuple):
    """One conversation.

    :param sent: the client's bytes.
    :param events: what the channel is told, in order; after a failure its code.
    :param frames: first byte and payload of what is written; a failure's close frame is not listed.
    """

    name: str
    sent: bytes
    events: list[Event]
    frames: list[tuple[int, bytes]] = []
    max_message_size: int = 0
    max_frame_size: int = 0
    offer: bytes = b""


def messages(*payloads: str | bytes) -> list[Event]:
    return [("message", payload) for payload in payloads]


def failed(code: int) -> Event:
    return ("failed", code)


def cases() -> Iterator[Case]:
    yield from sizes()
    yield from pings()
    yield from reserved()
    yield from fragmentation()
    yield from utf8()
    yield from closes()
    yield from limits()
    yield from compression()
    yield from broken_compression()


def sizes() -> Iterator[Case]:
    """Sections 1 and 9: every form of the length."""
    for size in (0, 1, 125, 126, 127, 128, 1024, 1025, 65535, 65536, 200_000):
        yield Case(f"1.1 text of {size}", frame(TEXT, b"*" * size), messages("*" * size))
        payload = bytes(range(256)) * (size // 256 + 1)
        yield Case(f"1.2 binary of {size}", frame(BINARY, payload[:size]), messages(payload[:size]))
    yield Case("1.3 several messages", frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT), messages("a", b"b", ""))
    for size, form in ((0, 126), (125, 126), (5, 127), (65535, 127)):
        yield Case(f"1.4 length {size} in the form of {form}", frame(TEXT, b"*" * size, form=form), [failed(1002)])
    yield Case("1.5 length with its highest bit", b"\x82\xff" + b"\xff" * 8 + b"mask", [failed(1002)])
    yield Case("1.6 not masked", frame(TEXT, b"Hello", masked=False) + frame(TEXT, b"a"), [failed(1002)])
    yield Case("1.7 not masked, after one that is", frame(TEXT, b"a") + frame(BINARY, masked=False),
               [*messages("a"), failed(1002)])
    yield Case("1.8 ping not masked", frame(PING, b"a", masked=False), [failed(1002)])
    for size in (1, 64, 1300):
        payload = bytes(range(256)) * 64
        pieces = [payload[at : at + size] for at in range(0, len(payload) // 8, size)]
        yield Case(f"9.3 in fragments of {size}", fragments(BINARY, *pieces), messages(b"".join(pieces)))
    text = "*" * 65536
    pieces = [text[at : at + 1300].encode() for at in range(0, len(text), 1300)]
    yield Case("10.1 text in fragments of 1300", fragments(TEXT, *pieces), messages(text))


def pings() -> Iterator[Case]:
    """Section 2."""
    for payload in (b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125):
        yield Case(f"2.1 ping with {len(payload)}", frame(PING, payload), [], [(0x8A, payload)])
    yield Case("2.5 ping with 126", frame(PING, b"\xfe" * 126), [failed(1002)])
    yield Case("2.5 pong with 65536", frame(PONG, b"\xfe" * 65536), [failed(1002)])
    yield Case("2.7 pong that nobody asked for", frame(PONG) + frame(PONG, b"x"), [("pong", b""), ("pong", b"x")])
    yield Case("2.9 pong, then ping", frame(PONG, b"x") + frame(PING, b"y"), [("pong", b"x")], [(0x8A, b"y")])
    yield Case("2.10 ten pings", b"".join(frame(PING, b"%d" % at) for at in range(10)), [],
               [(0x8A, b"%d" % at) for at in range(10)])


def reserved() -> Iterator[Case]:
    """Sections 3 and 4."""
    for rsv in range(1, 8):
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
            yield Case(f"3 reserved bits {rsv} with opcode {opcode}", frame(TEXT, b"a") + frame(opcode, rsv=rsv),
                       [*messages("a"), failed(1002)])
        if rsv != 4:
            yield Case(f"3 reserved bits {rsv} beside compression", frame(TEXT, rsv=rsv), [failed(1002)], offer=DEFLATE)
    yield Case("3 compressed ping", frame(PING, rsv=4), [failed(1002)], offer=DEFLATE)
    yield Case("3 compressed continuation", frame(TEXT, fin=False) + frame(CONTINUATION, rsv=4), [failed(1002)],
               offer=DEFLATE)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        for payload in (b"", b"a"):
            sent = frame(TEXT, b"a") + frame(opcode, payload) + frame(PING)
            yield Case(f"4 opcode {opcode} with {len(payload)}", sent, [*messages("a"), failed(1002)])


def fragmentation() -> Iterator[Case]:
    """Section 5."""
    yield Case("5.1 ping in fragments", fragments(PING, b"a", b"b"), [failed(1002)])
    yield Case("5.2 pong in fragments", fragments(PONG, b"a", b"b"), [failed(1002)])
    yield Case("5.2 close in fragments", frame(CLOSE, fin=False), [failed(1002)])
    yield Case("5.3 text in two", fragments(TEXT, b"frag", b"ment"), messages("fragment"))
    yield Case("5.3 binary in three, some empty", fragments(BINARY, b"", b"ab", b""), messages(b"ab"))
    yield Case("5.3 nothing in two", fragments(TEXT, b"", b""), messages(""))
    begin, end = frame(TEXT, b"frag", fin=False), frame(CONTINUATION, b"ment")
    yield Case("5.6 ping between", begin + frame(PING, b"?") + end, messages("fragment"), [(0x8A, b"?")])
    yield Case("5.6 pong between", begin + frame(PONG, b"?") + end, [("pong", b"?"), *messages("fragment")])
    yield Case("5.6 close between", begin + close(1000) + end, [("close", 1000, "")], [(0x88, b"\x03\xe8")])
    for fin in (False, True):
        lost = frame(CONTINUATION, b"a", fin=fin)
        yield Case(f"5.9 continuation of nothing, {fin}", lost + frame(TEXT), [failed(1002)])
        yield Case(f"5.13 continuation after a whole message, {fin}", frame(TEXT, b"a") + lost,
                   [*messages("a"), failed(1002)])
        yield Case(f"5.18 text within a message, {fin}", begin + frame(TEXT, b"b", fin=fin), [failed(1002)])
        yield Case(f"5.18 binary within a message, {fin}", begin + frame(BINARY, b"b", fin=fin), [failed(1002)])
    both = fragments(TEXT, b"a", b"b") + fragments(BINARY, b"c", b"d", b"e") + frame(TEXT, b"f")
    yield Case("5.19 message after message", both, messages("ab", b"cde", "f"))


VALID_UTF8 = (
    "Hello-µ@ßöäüàá-UTF-8!!", "\u03ba\u1f79\u03c3\u03bc\u03b5", "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff",
    "\U00010000", "\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\ufffe", "\U0001fffe",
)  # fmt: skip
INVALID_UTF8 = (
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf", b"\xf4\x90\x80\x80", b"\x80", b"\xbf", b"a\x80\xbf", b"\xc0 \xc1 ", b"\xe0 ", b"\xfe", b"\xff",
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80", b"\xce", b"\xe1\xbd", b"\xf0\x90\x80", b"ends within \xf0\x9f\x98",
)  # fmt: skip


def utf8() -> Iterator[Case]:
    """Section 6."""
    for text in VALID_UTF8:
        octets = text.encode()
        yield Case(f"6.2 {text!a}", frame(TEXT, octets), messages(text))
        pieces = fragments(TEXT, *(bytes((octet,)) for octet in octets), b"")
        yield Case(f"6.3 {text!a} in pieces", pieces, messages(text))
    for octets in INVALID_UTF8:
        yield Case(f"6.4 {octets!r}", frame(TEXT, octets), [failed(1007)])
        pieces = fragments(TEXT, *(bytes((octet,)) for octet in octets), b"")
        yield Case(f"6.5 {octets!r} in pieces", pieces, [failed(1007)])
        yield Case(f"6.6 {octets!r} is binary", frame(BINARY, octets), messages(octets))
    begun = frame(TEXT, b"\xf4\x90", fin=False)
    yield Case("6.4 wrong before the end of its code point", begun, [failed(1007)])
    yield Case("6.4 wrong before the end of its frame", frame(TEXT, b"\xff" + b"a" * 99_999)[:20], [failed(1007)])
    ping = frame(PING)
    yield Case("6.7 cut by a ping", frame(TEXT, b"\xf0\x9f", fin=False) + ping + frame(CONTINUATION, b"\x98\x80"),
               messages("\U0001f600"), [(0x8A, b"")])


LEGAL_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
ILLEGAL_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


def closes() -> Iterator[Case]:
    """Section 7."""
    yield Case("7.1 message, then close", frame(TEXT, b"a") + close(1000), [*messages("a"), ("close", 1000, "")],
               [(0x88, b"\x03\xe8")])
    for after in (frame(TEXT, b"late"), frame(PING, b"late"), close(1001), frame(15), b"\xff" * 99):
        yield Case(f"7.1 close, then {after[:9].hex()}", close(1000) + after, [("close", 1000, "")],
                   [(0x88, b"\x03\xe8")])
    yield Case("7.3 close without code", close(), [("close", 1005, "")], [(0x88, b"")])
    yield Case("7.3 close with half a code", frame(CLOSE, b"\x03"), [failed(1002)])
    for reason in ("Bye", "*" * 123, "\U0001f600" * 30):
        payload = b"\x03\xe8" + reason.encode()
        yield Case(f"7.3 reason of {len(payload) - 2}", frame(CLOSE, payload), [("close", 1000, reason)],
                   [(0x88, payload)])
    yield Case("7.3 reason of 124", close(1000, b"*" * 124), [failed(1002)])
    for octets in INVALID_UTF8:
        yield Case(f"7.5 reason {octets!r}", close(1000, octets), [failed(1007)])
    for code in LEGAL_CODES:
        yield Case(f"7.7 code {code}", close(code, b"why"), [("close", code, "why")],
                   [(0x88, struct.pack("!H", code) + b"why")])
    for code in ILLEGAL_CODES:
        yield Case(f"7.9 code {code}", close(code) + frame(TEXT), [failed(1002)])
        yield Case(f"7.13 code {code} with a reason", close(code, b"why"), [failed(1002)])


def limits() -> Iterator[Case]:
    """Sizes that are allowed, and one byte more."""
    for opcode, payload in ((TEXT, "*" * 300), (BINARY, b"*" * 300)):
        octets = b"*" * 300
        yield Case(f"message at the limit, {opcode}", frame(opcode, octets), messages(payload), max_message_size=300)
        yield Case(f"message above the limit, {opcode}", frame(opcode, octets), [failed(1009)], max_message_size=299)
        yield Case(f"frame at the limit, {opcode}", frame(opcode, octets), messages(payload), max_frame_size=300)
        yield Case(f"frame above the limit, {opcode}", frame(opcode, octets), [failed(1009)], max_frame_size=299)
    parts = fragments(BINARY, b"*" * 100, b"*" * 100, b"*" * 100)
    yield Case("fragments at the limit", parts * 2, messages(b"*" * 300, b"*" * 300), max_message_size=300)
    yield Case("fragments above the limit", parts, [failed(1009)], max_message_size=299)
    yield Case("fragments below a frame's limit", parts, messages(b"*" * 300), max_frame_size=100)
    yield Case("a fragment above a frame's limit", parts, [failed(1009)], max_frame_size=99)
    yield Case("above the limit by its head alone", frame(TEXT, b"*" * 300)[:8], [failed(1009)], max_message_size=299)
    yield Case("a message without end", b"\x82\xff\x7f" + b"\xff" * 7 + b"mask", [failed(1009)], max_message_size=2**40)
    yield Case("messages are counted apart", frame(TEXT, b"ab") * 3, messages("ab", "ab", "ab"), max_message_size=2)


def deflated(payload: bytes, bits: int = 15, level: int = -1) -> bytes:
    compressor = zlib.compressobj(level, wbits=-bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compression() -> Iterator[Case]:
    """Sections 12 and 13."""
    noise = bytes((at * at * 7919 >> 5) & 0xFF for at in range(3000))
    for size in (0, 1, 16, 64, 256, 1024, 4096, 32768, 131072):
        payload = (b'{"some": "json", "number": 123456}' * (size // 30 + 1))[:size]
        sent = frame(TEXT, deflated(payload), rsv=4)
        yield Case(f"12.1 text of {size}", sent, messages(payload.decode()), offer=DEFLATE)
    small = deflated(b"Hello " * 99)
    pieces = [small[at : at + 1] for at in range(len(small))]
    sent = fragments(TEXT, *pieces, rsv=4) + fragments(TEXT, b"plain", b"text")
    yield Case("12.2 in pieces, then not compressed", sent, messages("Hello " * 99, "plaintext"), offer=DEFLATE)
    stored = deflated(noise, level=0)
    yield Case("12.3 stored blocks", frame(BINARY, stored, rsv=4), messages(noise), offer=DEFLATE)
    yield Case("12.4 no compression in use", frame(TEXT, b"a"), messages("a"), offer=DEFLATE)
    compressor = zlib.compressobj(wbits=-15)
    shared = [(compressor.compress(noise) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(3)]
    assert len(shared[1]) < len(shared[0]) / 10
    sent = b"".join(frame(BINARY, each, rsv=4) for each in shared)
    yield Case("13.1 context taken over", sent, messages(*[noise] * 3), offer=DEFLATE)
    apart = frame(BINARY, deflated(noise), rsv=4) * 3
    yield Case("13.2 context not taken over", apart, messages(*[noise] * 3),
               offer=DEFLATE + b"; client_no_context_takeover")
    narrow = frame(BINARY, deflated(noise, bits=9), rsv=4) * 3
    yield Case("13.3 narrow window", narrow, messages(*[noise] * 3), offer=DEFLATE + b"; client_max_window_bits=9")
    yield Case("an empty payload that is compressed", (frame(TEXT, rsv=4) + frame(TEXT, small, rsv=4)) * 2,
               messages("", "Hello " * 99, "", "Hello " * 99), offer=DEFLATE)
    # The example of RFC 7692 §7.2.3.4, and the same without its last octet.
    final = bytes.fromhex("f348cdc9c90700")
    yield Case("a final block", (frame(TEXT, final + b"\x00", rsv=4) + frame(TEXT, small, rsv=4)) * 2,
               messages("Hello", "Hello " * 99, "Hello", "Hello " * 99), offer=DEFLATE)
    yield Case("a final block and nothing", (frame(TEXT, final, rsv=4) + frame(TEXT, small, rsv=4)) * 2,
               messages("Hello", "Hello " * 99, "Hello", "Hello " * 99), offer=DEFLATE)
    yield Case("RFC 7692 §7.2.3.5, two blocks", frame(TEXT, bytes.fromhex("f248050000 00ffffcac9c90700"), rsv=4),
               messages("Hello"), offer=DEFLATE)


def broken_compression() -> Iterator[Case]:
    """What is too large only when it is inflated, or cannot be."""
    for size in (100, 1000, 65536):
        zeros, sent = bytes(size), frame(BINARY, deflated(bytes(size)), rsv=4)
        yield Case(f"inflates to the limit of {size}", sent, messages(zeros), max_message_size=size, offer=DEFLATE)
        for less in (1, 2, 257, 300):
            if less < size:
                yield Case(f"inflates to {less} above {size - less}", sent, [failed(1009)],
                           max_message_size=size - less, offer=DEFLATE)
    bomb = deflated(bytes(50_000_000))
    yield Case("a bomb", frame(TEXT, bomb, rsv=4) + frame(TEXT), [failed(1009)],
               max_message_size=1_000_000, offer=DEFLATE)
    half = len(bomb) // 2
    yield Case("a bomb in fragments", fragments(BINARY, bomb[:half], bomb[half:], rsv=4), [failed(1009)],
               max_message_size=1_000_000, offer=DEFLATE)
    noise = bytes((at * at * 7919 >> 5) & 0xFF for at in range(1000))
    stored = frame(BINARY, deflated(noise, level=0), rsv=4)
    yield Case("larger compressed than plain", stored, messages(noise), max_message_size=1000, offer=DEFLATE)
    yield Case("larger than a frame by compression alone", stored, messages(noise), max_frame_size=1000, offer=DEFLATE)
    yield Case("a frame's limit counts compressed bytes", stored, [failed(1009)], max_frame_size=920, offer=DEFLATE)
    yield Case("not deflate", frame(TEXT, b"\x07" * 20, rsv=4) + frame(TEXT), [failed(1007)], offer=DEFLATE)
    yield Case("a distance too far back", frame(TEXT, deflated(b"ab" * 50)[3:], rsv=4), [failed(1007)], offer=DEFLATE)
    yield Case("cut within a stored block", frame(BINARY, deflated(noise, level=0)[:500], rsv=4), [failed(1007)],
               offer=DEFLATE)
    yield Case("cut within a stored block at the limit", frame(BINARY, deflated(noise, level=0)[:505], rsv=4),
               [failed(1007)], max_message_size=500, offer=DEFLATE)
    final = bytes.fromhex("f348cdc9c90700")
    yield Case("final blocks without end", frame(TEXT, final * 1000, rsv=4), [failed(1007)], offer=DEFLATE)
    each = fragments(TEXT, final, final, b"\x00", rsv=4)
    yield Case("final blocks in two fragments", each, [failed(1007)], offer=DEFLATE)
    yield Case("rubbish after a final block", frame(TEXT, final + b"\x07\x07", rsv=4), [failed(1007)], offer=DEFLATE)
    not_text = frame(TEXT, deflated(b"a\xff" * 99), rsv=4)
    yield Case("inflates to what is not UTF-8", not_text, [failed(1007)], offer=DEFLATE)
    more = frame(TEXT, final + deflated(b"****"), rsv=4)
    yield Case("blocks after a final one above the limit", more, [failed(1009)], max_message_size=8, offer=DEFLATE)
