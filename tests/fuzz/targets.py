"""What must hold for any bytes: a second way reads the same, cuts change nothing, and errors are of the named types."""

from __future__ import annotations

import ipaddress
import ssl
import struct
from collections.abc import Hashable
from functools import cache

import h11
import hpack as hpack_package
import trustme

from asgiserver.asgi.forwarded import Forwarding, TrustedPeers
from asgiserver.asgi.scope import Request
from asgiserver.errors import RequestError
from asgiserver.listen import proxy_protocol
from asgiserver.settings import Settings
from asgiserver.transport.client_hello import IncompleteHello, is_request, offered_protocols
from asgiserver.wire.body import ChunkedBody, Event
from asgiserver.wire.head import parsed_request
from asgiserver.wire.hpack import Decoder, FieldsTooLarge, HPACKError
from asgiserver.wire.http2_fields import MalformedRequest, read_request
from asgiserver.wire.reader import Reader
from tests.conformance.cases import DEFLATE
from tests.conformance.peer import RecordingChannel, connect
from tests.wire.test_ways_of_heads import FIELDS, LIMITS, LINES, same

from .engine import Target, pieces

__all__ = ["TARGETS"]


def heads(data: bytes) -> Hashable:
    """Requests: h11 reads each head the same, and cuts change nothing."""
    whole = same(data)
    reader = Reader(LIMITS)
    events: list[object] = []
    try:
        for piece in pieces(data):
            reader.feed(piece)
            while (event := reader.next_event()) is not Event.NEED_DATA:
                events.append(event)
    except RequestError:
        events.append("refused")
    expected = [each for each in whole if not isinstance(each, int) and each is not Event.NEED_DATA]
    if whole[-1] in range(400, 600) and whole[-2:-1] != [Event.NEED_DATA]:
        expected.append("refused")
    assert _joined(events) == _joined(expected)
    return tuple(type(each).__name__ if isinstance(each, bytes | Request) else each for each in whole[:8:2]), whole[-1]


def _joined(events: list[object]) -> list[object]:
    """Adjacent pieces of a body as one."""
    joined: list[object] = []
    for event in events:
        if isinstance(event, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += event
        else:
            joined.append(event)
    if joined[-1:] == ["refused"] and isinstance(joined[-2:][0], bytes):
        del joined[-2]  # it depends on the cuts how much of a body comes before the refusal
    return joined


def body(data: bytes) -> Hashable:
    """Chunks: cuts change nothing, and what is taken is what h11 takes."""
    content, end = _chunks([data])
    cut, cut_end = _chunks(pieces(data))
    # Of two things that are wrong, it depends on the cuts which is told.
    assert cut == content
    assert cut_end == end or {cut_end, end}.isdisjoint(Event.__members__)
    if end == "END":
        theirs = h11.Connection(h11.SERVER)
        theirs.receive_data(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + data)
        assert isinstance(theirs.next_event(), h11.Request)
        read = b""
        try:
            while isinstance(event := theirs.next_event(), h11.Data):
                read += event.data
        except h11.RemoteProtocolError as error:
            # It knows no white space before a semicolon, and not all extensions.
            if "illegal chunk header" not in str(error):
                raise
            return "extension"
        assert isinstance(event, h11.EndOfMessage)
        assert read == content
    return end, min(len(content), 64)


def _chunks(given: list[bytes]) -> tuple[bytes, str]:
    """The content, and what came at last."""
    made, content, rest = ChunkedBody(200, 5), b"", b""
    for piece in given:
        rest, at = rest + piece, 0
        while True:
            try:
                event, at = made.take(rest, at)
            except RequestError as error:
                return b"", str(error)
            if event is Event.END:
                return content, event.name
            if isinstance(event, Event):
                break
            assert event
            content += event
        rest = rest[at:]
    return content, Event.NEED_DATA.name


def websocket(data: bytes) -> Hashable:
    """Frames: neither short cuts nor cuts change anything; the first byte chooses limits and compression."""
    choice, data = data[:1], data[1:]
    bits = choice[0] if choice else 0
    limits = {"max_message_size": (0, 5, 126, 300)[bits & 3], "max_frame_size": (0, 5, 126, 300)[bits >> 2 & 3]}
    found = []
    for short_cuts, given in ((True, [data]), (True, pieces(data)), (False, [data]), (False, pieces(data))):
        channel = RecordingChannel()
        engine = connect(channel, offer=DEFLATE if bits & 16 else b"", short_cuts=short_cuts, **limits)
        for piece in given:
            engine.receive(piece)
        # Two things can be wrong with one payload, and it is told of either: not of the reason of a failure.
        seen = [(first, payload[:2] if first == 0x88 else payload) for first, payload in channel.frames]
        found.append((channel.events, seen))
    assert all(each == found[0] for each in found), found
    most = limits["max_message_size"]
    assert not most or all(len(each[1]) <= most for each in found[0][0] if each[0] == "message")  # type: ignore[arg-type]
    events = found[0][0]
    return tuple(each[0] for each in events[:6]), events[-1][1] if events and events[-1][0] != "message" else None


def hpack(data: bytes) -> Hashable:
    """Blocks of one connection: the package hpack decodes the same, and has the same table."""
    ours, theirs = Decoder(), hpack_package.Decoder()
    outcome: Hashable = None
    for block in pieces(data)[:4]:
        expected = verdict(theirs, block)
        try:
            made = ours.decode(block, 16384, 500)
        except FieldsTooLarge:
            return "large"
        except HPACKError as error:
            assert expected is None
            return str(error)
        assert made == expected
        table = ours._table[62:]
        assert table == list(theirs.header_table.dynamic_entries)
        outcome = len(made), len(table)
    return outcome


PSEUDO = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"example.com")]


def http2_fields(data: bytes) -> Hashable:
    """Lines of fields: what is taken is taken in HTTP/1.1 too, and means the same."""
    pairs = [line.partition(b": ") for line in data.split(b"\n")]
    given = [(name, value) for name, _, value in pairs]
    own = [field for field in given if field[0][:1] != b":"]
    try:
        read_request(given, 512, ended=False)
    except (MalformedRequest, RequestError) as error:
        first = str(error)
    else:
        first = "taken"
    try:
        read = read_request([*PSEUDO, *own], 512, ended=False)
    except (MalformedRequest, RequestError) as error:
        return first, str(error)
    length = dict(own).get(b"content-length")
    framing = b"" if length is not None else b"transfer-encoding: chunked\r\n"
    lines = b"".join(b"%b: %b\r\n" % field for field in own if field[0] not in (b"host", b"cookie"))
    same = parsed_request(b"POST / HTTP/1.1\r\nhost: example.com\r\n" + lines + framing + b"\r\n", 1000)
    assert (same.body_size, same.expects_continue, same.trailers) == (
        read.body_size, read.expects_continue, read.trailers
    )  # fmt: skip
    left_out = (b"cookie", b"transfer-encoding")
    assert [field for field in same.headers if field[0] not in left_out] == [
        field for field in read.headers if field[0] not in left_out
    ]
    return first, "taken"


def verdict(decoder: hpack_package.Decoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    """What the package makes of a block; None for an error."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except hpack_package.HPACKError:
        return None


TRUSTED = Settings(forwarded_allow_ips=("10.0.0.0/8", "127.0.0.1", "::1", "2001:db8:f::/48", "unix"))
PROXY = ("10.0.0.1", 4711)
forwarding, trusted, anybody = Forwarding(TRUSTED), TrustedPeers(TRUSTED.forwarded_allow_ips), TrustedPeers(["*"])


def forwarded(data: bytes) -> Hashable:
    """Lines of fields: the answer is well formed, and what a client has written on the left cannot change it."""
    pairs = [line.partition(b": ") for line in data.split(b"\n")]
    headers = [(name.lower(), value) for name, _, value in pairs]
    found = forwarding.resolve(headers, PROXY, "http", PROXY)
    assert found.scheme in ("http", "https")
    assert found.host is None or found.host and not set(found.host) & set(b'\r\n\0 ,"/@')
    assert found.client is not None
    host, port = found.client
    assert str(ipaddress.ip_address(host.partition("%")[0])) == host.partition("%")[0]
    assert 0 <= port <= 65535
    by_list = any(name in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host") for name, _ in headers)
    if by_list and found.client not in trusted:
        rubbish = b'1.2.3.4, "[::9], for=8.8.8.8;'
        before = [(b"x-forwarded-for", rubbish), *headers]
        assert forwarding.resolve(before, PROXY, "http", PROXY) == found
        at = next((at for at, field in enumerate(headers) if field[0] == b"x-forwarded-for"), None)
        if at is not None:
            headers[at] = b"x-forwarded-for", rubbish + b"," + headers[at][1]
            assert forwarding.resolve(headers, PROXY, "http", PROXY) == found
    assert forwarding.resolve(headers, ("192.0.2.1", 5), "http", ("192.0.2.1", 5)).client == ("192.0.2.1", 5)
    return host, port, found.scheme, found.host


def proxy(data: bytes) -> Hashable:
    """A PROXY header: only a whole one is one, and the addresses are those that Python reads."""
    try:
        header = proxy_protocol.parse(data)
    except ValueError as error:
        return str(error)
    if header is None:
        return None
    for size in range(header.size):
        assert proxy_protocol.parse(data[:size]) is None
    assert proxy_protocol.parse(data[: header.size]) == header
    ends = [end for end in (header.client, header.server) if end is not None and hasattr(end, "host")]
    if ends:
        assert [(ipaddress.ip_address(end.host), end.port) for end in ends] == _ends(data[: header.size])
    return header.size, type(header.client).__name__, header.secure


def _ends(header: bytes) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """The two ends in a header that is right; IPv4 in IPv6 is IPv4."""
    if header.startswith(b"PROXY "):
        words = header.decode().split()
        hosts = [ipaddress.ip_address(host) for host in words[2:4]]
        ports = [int(port) for port in words[4:6]]
    else:
        size = 4 if header[13] >> 4 == 1 else 16
        block = header[16:]
        hosts = [ipaddress.ip_address(block[at : at + size]) for at in (0, size)]
        ports = list(struct.unpack("!HH", block[2 * size : 2 * size + 4]))
    return [(getattr(host, "ipv4_mapped", None) or host, port) for host, port in zip(hosts, ports, strict=True)]


@cache
def _certificate() -> trustme.LeafCert:
    return trustme.CA().issue_cert("localhost")


@cache
def _openssl(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certificate().configure_cert(context)
    context.set_alpn_protocols([name])
    return context


def hello(data: bytes) -> Hashable:
    """A first message: more bytes do not change the answer, and OpenSSL chooses among the same protocols."""
    answers: list[object] = []
    for size in sorted({*range(0, len(data), 97), len(data)}):
        try:
            answers.append((is_request(data[:size]), offered_protocols(data[:size])))
        except IncompleteHello:
            assert not answers, "more bytes are wanted after the answer"
    assert all(answer == answers[0] for answer in answers)
    if not answers:
        return None
    _, names = answers[0]  # type: ignore[misc]
    if names in (None, []) or not (names[0].isascii() and names[0].isalnum()):
        return names is None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(data)
    server = _openssl(names[0].decode()).wrap_bio(incoming, outgoing, server_side=True)
    try:
        server.do_handshake()
    except ssl.SSLWantReadError:
        if outgoing.pending:
            assert server.selected_alpn_protocol() in (names[0].decode(), None)
            return server.selected_alpn_protocol()
    except ssl.SSLError as error:
        return error.reason
    return len(names)


TARGETS = {
    "heads": Target(heads, [b"\r\n" + line for line in (*LINES, *FIELDS) if len(line) < 200]),
    "body": Target(body, [b"0\r\n\r\n", b"5\r\nhello\r\n", b";a=b", b';a="b"', b"x: y\r\n", b"\r\n 5"]),
    "websocket": Target(
        websocket, [b"\x81\x85", b"\x01\x80", b"\x80\x80", b"\x89\x80", b"\x88\x82", b"\xc1\xfe\0\x80"]
    ),
    "hpack": Target(hpack, [b"\x40", b"\x3f\xe1\x1f", b"\xbe", b"\x82", b"\x7f", b"\x0f", b"\x20", b"\x7f\x80\x80\0"]),
    "http2_fields": Target(http2_fields, [
        b"\n:path: /", b"\ncontent-length: 5", b"\nte: trailers", b"\ncookie: a", b"\nhost: example.com",
        b"\nexpect: 100-continue", b"\nconnection: close",
    ]),
    "forwarded": Target(forwarded, [
        b"\nx-forwarded-for: ", b"\nx-forwarded-proto: https", b"\nx-forwarded-host: ", b"\nx-forwarded-port: ",
        b"\nforwarded: for=", b"10.0.0.9", b"for=", b"unix:", b"[::1]:80",
    ]),
    "proxy": Target(proxy, [b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"::ffff:1.2.3.4", b"\x20\0\5\1\0\0\0\0"]),
    "hello": Target(hello, [b"\x16\3\1\0\1", b"\0\x10\0\5\0\3\2h2", b"GET / HTTP/1.1\r\n", b"\x08http/1.1"]),
}  # fmt: skip
