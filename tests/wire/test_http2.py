"""HTTP/2 on a connection: how it begins and ends, what is answered to frames, and what a peer may not do."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.deadlines import Deadline
from asgiserver.asgi.exchange import State as ExchangeState
from asgiserver.asgi.messages import ResponseBody, ResponseStart
from asgiserver.errors import RequestError
from asgiserver.wire.connection import PREFACE, HTTPConnection, HTTPFactory
from asgiserver.wire.http1 import HTTP1
from asgiserver.wire.http2 import HTTP2, State
from tests.fakes import FakeSocket, FakeTransport, WireHub
from tests.wire.http2_peer import GET, POST, UPGRADE, Peer, raw

OK = {":status": "200"}


class TestChoice:
    """Which protocol a connection speaks."""

    def wire(self, *reads: bytes, alpn: bytes | None = None, **settings: Any) -> tuple[HTTPConnection, Any]:
        transport = FakeTransport()
        if alpn is not None:
            transport.negotiatedProtocol = alpn
        connection, transport = WireHub(**settings).connect(transport)
        for read in reads:
            connection.dataReceived(read)
        return connection, transport

    def kind(self, *reads: bytes, **more: Any) -> type | None:
        wire = self.wire(*reads, **more)[0]._wire
        return None if wire is None else type(wire)

    def test_the_preface_asks_for_http_2(self) -> None:
        assert self.kind(PREFACE) is HTTP2
        assert self.kind(*(PREFACE[at : at + 1] for at in range(len(PREFACE)))) is HTTP2

    @pytest.mark.parametrize("size", range(1, len(PREFACE)))
    def test_part_of_the_preface_is_waited_for(self, size: int) -> None:
        assert self.kind(PREFACE[:size]) is None
        assert self.kind(PREFACE[:size], PREFACE[size:]) is HTTP2

    @pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"PRI / HTTP/1.1\r\n", b"POST /", b"\r\nPRI *"])
    def test_anything_else_is_http_1(self, request_: bytes) -> None:
        assert self.kind(request_) is HTTP1
        assert self.kind(request_[:1], request_[1:]) is HTTP1

    def test_a_request_that_began_like_the_preface_is_read_from_its_first_byte(self) -> None:
        connection, _ = self.wire(b"P", b"OST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert connection.hub.requests[0].method == "POST"

    def test_a_beginning_that_stays_one_is_late_as_a_head_is(self) -> None:
        connection, transport = self.wire(b"PRI", head_timeout=5)
        connection.hub.clock.advance(4.9)
        assert transport.take() == b""
        connection.hub.clock.advance(0.2)
        assert transport.take().startswith(b"HTTP/1.1 408 ")

    def test_a_stopping_server_does_not_take_such_a_beginning_for_idleness(self) -> None:
        connection, _ = self.wire(b"PRI")
        connection.server_stopping()
        assert not connection.deadlines.pending(Deadline.KEEP_ALIVE)

    def test_alpn_decides(self) -> None:
        assert self.kind(PREFACE[:3], alpn=b"h2") is HTTP2
        assert self.kind(b"GET / HTTP/1.1\r\n\r\n", alpn=b"http/1.1") is HTTP1

    def test_off_is_http_1_alone(self) -> None:
        connection, transport = self.wire(PREFACE, http2="off")
        assert type(connection._wire) is HTTP1
        assert transport.take().startswith(b"HTTP/1.1 505 ")

    def test_alpn_offers_it_first_unless_it_is_off(self) -> None:
        assert HTTPFactory(WireHub()).acceptableProtocols() == [b"h2", b"http/1.1", b"http/1.0"]
        assert HTTPFactory(WireHub(http2="off")).acceptableProtocols() == [b"http/1.1", b"http/1.0"]

    def test_its_modules_are_imported_with_the_first_connection_that_speaks_it(self) -> None:
        program = (
            "import sys; from asgiserver import cli, server; from asgiserver.wire import connection;"
            "print([name for name in sys.modules if 'http2' in name or 'hpack' in name or 'huffman' in name])"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "[]"

    def test_a_wrong_preface_behind_alpn_ends_the_connection(self) -> None:
        connection, transport = self.wire(b"GET / HTTP/1.1\r\n", alpn=b"h2")
        assert transport.take().endswith(raw(7, 0, 0, struct.pack("!II", 0, 1) + b"this is not the preface of HTTP/2"))
        assert connection.phase.name.startswith("CLOSING")


class TestOpening:
    def test_settings_and_a_larger_window(self) -> None:
        peer = Peer(request_buffer_size=100_000, http2_max_streams=7)
        assert peer.opening == [
            ("SETTINGS", {3: 7, 4: 100_000, 6: 65536, 8: 1, 9: 1}),
            ("WINDOW", 0, 1_600_000 - 65535),
            ("SETTINGS", "ack"),
        ]

    def test_a_small_buffer_makes_no_window_smaller_than_the_first(self) -> None:
        assert Peer(request_buffer_size=1).opening[0][1][4] == 65535

    def test_a_huge_buffer_makes_no_window_too_large(self) -> None:
        peer = Peer(request_buffer_size=1 << 40)
        assert peer.opening[0][1][4] <= peer.opening[1][2] + 65535 <= 2**31 - 1

    def test_the_first_frame_must_be_settings(self) -> None:
        hub = WireHub()
        connection, transport = hub.connect()
        connection.dataReceived(PREFACE + raw(6, 0, 0, bytes(8)))
        assert b"a frame is out of place" in transport.take()

    def test_settings_that_do_not_come_are_late(self) -> None:
        hub = WireHub(head_timeout=5)
        connection, _ = hub.connect()
        connection.dataReceived(PREFACE)
        hub.clock.advance(5)
        assert connection.phase.name.startswith("CLOSING")


class TestRequests:
    def test_a_request_and_its_response(self) -> None:
        peer = Peer()
        peer.get(1)
        request = peer.hub.requests[0]
        assert (request.method, request.target, request.http_version) == ("GET", b"/", "2")
        assert request.headers == [(b"host", b"example.com")]
        assert peer.hub.exchange.scope["http_version"] == "2"
        peer.start(content_type="text/plain")
        peer.body(b"hello")
        fields = {":status": "200", "content-type": "text/plain"}
        assert peer.take() == [("HEADERS", 1, fields), ("DATA", 1, b"hello", "end")]
        assert not peer.streams

    def test_names_are_sent_in_lower_case(self) -> None:
        peer = Peer()
        peer.get(1)
        peer.hub.exchange.take_reply(
            type(self).start([(b"X-Mixed", b"Value")], [b"x-mixed"])
        )
        peer.body()
        assert peer.take() == [("HEADERS", 1, {":status": "200", "x-mixed": "Value"}, "end")]

    @staticmethod
    def start(headers: list[tuple[bytes, bytes]], names: list[bytes]) -> Any:
        return ResponseStart(200, headers, None, False, False, names)

    @pytest.mark.parametrize("status", [204, 205, 304])
    def test_responses_without_a_body(self, status: int) -> None:
        peer = Peer()
        peer.get(1)
        peer.start(status=status, content_length="2")
        peer.body(b"no")
        (head,) = peer.take()
        length = {204: None, 205: "0", 304: "2"}[status]
        assert (head[2].get("content-length"), head[-1]) == (length, "end")

    def test_many_streams_at_a_time_in_any_order(self) -> None:
        peer = Peer()
        peer.send(*(peer.head(number) for number in (1, 3, 5)))
        assert len(peer.hub.begun) == 3
        for index in (1, 2, 0):
            peer.answer(b"%d" % index, index)
        data = [frame for frame in peer.take() if frame[0] == "DATA"]
        assert data == [("DATA", 3, b"1", "end"), ("DATA", 5, b"2", "end"), ("DATA", 1, b"0", "end")]

    def test_a_stream_that_is_reset_in_the_read_of_its_head_begins_no_application(self) -> None:
        peer = Peer()
        peer.send(peer.head(1), RstStreamFrame(1, error_code=8))
        assert peer.hub.exchanges
        assert not peer.hub.begun

    def test_a_head_in_several_frames(self) -> None:
        peer = Peer()
        head = peer.head(1, [*GET, ("x", "y" * 99)])
        pieces = [head.data[at : at + 20] for at in range(0, len(head.data), 20)]
        first = HeadersFrame(1, pieces[0], flags=["END_STREAM"])
        rest = [ContinuationFrame(1, piece) for piece in pieces[1:]]
        rest[-1].flags.add("END_HEADERS")
        peer.send(first, *rest)
        assert peer.hub.requests[0].headers[-1] == (b"x", b"y" * 99)
        assert peer.streams[1]._state.name == "ANSWERING"

    def test_padding_and_priority_are_passed_over(self) -> None:
        peer = Peer()
        head = peer.head(1)
        head.flags |= {"PADDED", "PRIORITY"}
        head.pad_length, head.depends_on, head.stream_weight = 9, 3, 200
        peer.send(head)
        assert peer.hub.requests

    def test_a_malformed_request_is_reset(self) -> None:
        peer = Peer()
        peer.get(1, ("Upper", "case"))
        peer.get(3)
        assert peer.take() == [("RST", 1, "PROTOCOL_ERROR")]
        assert len(peer.hub.requests) == 1

    def test_a_refusal_is_an_ordinary_response(self) -> None:
        peer = Peer()
        peer.hub.refusal = RequestError(503, "The server is busy.", ((b"retry-after", b"1"),))
        peer.get(1)
        fields = {":status": "503", "content-type": "text/plain; charset=utf-8", "content-length": "20"}
        head, data = peer.take()
        assert head == ("HEADERS", 1, {**fields, "retry-after": "1"})
        assert data[1:] == (1, b"The server is busy.\n", "end")
        assert peer.hub.refused[0][1] == 503
        assert not peer.streams
        peer.hub.refusal = None
        peer.get(3)
        peer.answer()
        assert peer.status(3) == "200"

    def test_a_refusal_of_head_has_no_body(self) -> None:
        peer = Peer()
        peer.hub.refusal = RequestError(503, "The server is busy.")
        peer.send(peer.head(1, [(":method", "HEAD"), *GET[1:]]))
        # Nor has that of one which is no request at all.
        peer.send(peer.head(3, [(":method", "HEAD"), (":scheme", "ftp"), *GET[2:]]))
        assert [frame[0] for frame in peer.take()] == ["HEADERS", "HEADERS"]

    @pytest.mark.parametrize("more", [[("x", "y" * 400)], [("x", "y")] * 9])
    def test_too_large_a_head_is_answered_and_the_table_stays_right(self, more: list[tuple[str, str]]) -> None:
        peer = Peer(limit_head_size=512, limit_head_count=12)
        peer.get(1, *more)
        assert peer.status(1) == "431"
        peer.get(3, ("x", "z"))
        peer.answer()
        assert peer.status(3) == "200"

    def test_too_long_a_target(self) -> None:
        peer = Peer(limit_target_size=64)
        peer.send(peer.head(1, [*GET[:3], (":path", "/" + "x" * 64)]))
        assert peer.status(1) == "414"

    def test_the_peers_smaller_table_is_agreed_to_once(self) -> None:
        peer = Peer()
        peer.send(SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: 0}))
        peer._decoder.max_allowed_table_size = 0
        for number in (1, 3):
            peer.get(number)
            peer.answer()
        blocks = peer.transport.value()
        assert blocks.count(b"\x20\x88") == 1
        assert [frame[0] for frame in peer.take()] == ["SETTINGS", *["HEADERS", "DATA"] * 2]

    def test_a_peer_that_leaves_takes_all_its_streams_along(self) -> None:
        peer = Peer()
        peer.send(peer.head(1), peer.head(3))
        peer.transport.loseConnection()
        peer.connection.connectionLost()
        assert {exchange.state for exchange in peer.hub.exchanges} == {ExchangeState.GONE}


#: What a peer sends, and the error of its connection.
CONNECTION_ERRORS: dict[str, tuple[Callable[[Peer], object], str]] = {
    "a frame that is too large": (lambda peer: peer.feed(raw(0, 0, 1, bytes(16385))), "FRAME_SIZE_ERROR"),
    "HEADERS of a server": (lambda peer: peer.send(peer.head(2)), "PROTOCOL_ERROR"),
    "HEADERS of no stream": (lambda peer: peer.feed(raw(1, 5, 0, b"\x82")), "PROTOCOL_ERROR"),
    "a frame between HEADERS and CONTINUATION": (
        lambda peer: (peer.feed(raw(1, 0, 1, b"\x82")), peer.ping()), "PROTOCOL_ERROR"),
    "CONTINUATION of another stream": (
        lambda peer: (peer.feed(raw(1, 0, 1, b"\x82")), peer.feed(raw(9, 4, 3))), "PROTOCOL_ERROR"),
    "CONTINUATION of nothing": (lambda peer: peer.feed(raw(9, 4, 1)), "PROTOCOL_ERROR"),
    "more padding than payload": (
        lambda peer: (peer.post(1), peer.feed(raw(0, 8, 1, b"\x06abcde"))), "PROTOCOL_ERROR"),
    "padding without its size": (lambda peer: (peer.post(1), peer.feed(raw(0, 8, 1))), "PROTOCOL_ERROR"),
    "HEADERS too short for a priority": (lambda peer: peer.feed(raw(1, 0x25, 1, b"\x00")), "FRAME_SIZE_ERROR"),
    "a broken block": (lambda peer: peer.feed(raw(1, 5, 1, b"\x80")), "COMPRESSION_ERROR"),
    "DATA of no stream": (lambda peer: peer.feed(raw(0, 0, 0)), "PROTOCOL_ERROR"),
    "DATA of a stream to come": (lambda peer: peer.data(1, b"x"), "PROTOCOL_ERROR"),
    "HEADERS of a stream that is over": (
        lambda peer: (peer.get(1), peer.answer(), peer.get(1)), "STREAM_CLOSED"),
    "HEADERS of a stream that was passed over": (lambda peer: (peer.get(3), peer.get(1)), "STREAM_CLOSED"),
    "DATA of a stream that is over": (
        lambda peer: (peer.get(1), peer.answer(), peer.data(1, b"x")), "STREAM_CLOSED"),
    "RST_STREAM of a stream to come": (lambda peer: peer.reset(1), "PROTOCOL_ERROR"),
    "RST_STREAM of a wrong size": (lambda peer: peer.feed(raw(3, 0, 1, b"123")), "FRAME_SIZE_ERROR"),
    "SETTINGS of a stream": (lambda peer: peer.feed(raw(4, 0, 1)), "PROTOCOL_ERROR"),
    "SETTINGS of a wrong size": (lambda peer: peer.feed(raw(4, 0, 0, b"12345")), "FRAME_SIZE_ERROR"),
    "an acknowledgement with settings": (lambda peer: peer.feed(raw(4, 1, 0, bytes(6))), "FRAME_SIZE_ERROR"),
    "too many settings": (lambda peer: peer.feed(raw(4, 0, 0, bytes(6 * 33))), "ENHANCE_YOUR_CALM"),
    "a push that is neither on nor off": (
        lambda peer: peer.feed(raw(4, 0, 0, struct.pack("!HI", 2, 2))), "PROTOCOL_ERROR"),
    "too large a first window": (
        lambda peer: peer.feed(raw(4, 0, 0, struct.pack("!HI", 4, 1 << 31))), "FLOW_CONTROL_ERROR"),
    "too small a frame": (
        lambda peer: peer.feed(raw(4, 0, 0, struct.pack("!HI", 5, 16383))), "PROTOCOL_ERROR"),
    "a first window that makes another too large": (
        lambda peer: (
            peer.get(1), peer.open(1, 2**31 - 1 - 65535), peer.feed(raw(4, 0, 0, struct.pack("!HI", 4, 65536))),
        ), "FLOW_CONTROL_ERROR"),
    "a push": (lambda peer: peer.push(), "PROTOCOL_ERROR"),
    "PING of a wrong size": (lambda peer: peer.feed(raw(6, 0, 0, b"1234567")), "FRAME_SIZE_ERROR"),
    "PING of a stream": (lambda peer: peer.feed(raw(6, 0, 1, bytes(8))), "PROTOCOL_ERROR"),
    "GOAWAY of a stream": (lambda peer: peer.feed(raw(7, 0, 1, bytes(8))), "PROTOCOL_ERROR"),
    "GOAWAY of a wrong size": (lambda peer: peer.feed(raw(7, 0, 0, bytes(7))), "FRAME_SIZE_ERROR"),
    "WINDOW_UPDATE by nothing": (lambda peer: peer.feed(raw(8, 0, 0, bytes(4))), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE by too much": (lambda peer: peer.open(0, 2**31 - 1), "FLOW_CONTROL_ERROR"),
    "WINDOW_UPDATE of a wrong size": (lambda peer: peer.feed(raw(8, 0, 0, bytes(5))), "FRAME_SIZE_ERROR"),
    "WINDOW_UPDATE of a stream to come": (lambda peer: peer.open(1, 100), "PROTOCOL_ERROR"),
    "PRIORITY of no stream": (lambda peer: peer.feed(raw(2, 0, 0, bytes(5))), "PROTOCOL_ERROR"),
    "PRIORITY_UPDATE of a stream": (lambda peer: peer.feed(raw(16, 0, 1, bytes(4))), "PROTOCOL_ERROR"),
    "PRIORITY_UPDATE of a wrong size": (lambda peer: peer.feed(raw(16, 0, 0, bytes(3))), "FRAME_SIZE_ERROR"),
    "PRIORITY_UPDATE for no stream": (lambda peer: peer.feed(raw(16, 0, 0, bytes(4))), "PROTOCOL_ERROR"),
    "DATA beyond the connection's window": (
        lambda peer: [
            peer.send(peer.head(number, POST, end=False), *([DataFrame(number, bytes(16384))] * 4))
            for number in range(1, 61, 2)
        ], "FLOW_CONTROL_ERROR"),
}  # fmt: skip

#: The same for the error of a stream; number 1, unless it says otherwise.
STREAM_ERRORS: dict[str, tuple[Callable[[Peer], object], str]] = {
    "DATA behind the end": (lambda peer: (peer.get(1), peer.data(1, b"x")), "STREAM_CLOSED"),
    "HEADERS behind the end": (lambda peer: (peer.get(1), peer.get(1)), "STREAM_CLOSED"),
    "a second head in the midst": (
        lambda peer: (peer.post(1), peer.send(peer.head(1, [("x", "y")], end=False))), "PROTOCOL_ERROR"),
    "trailers with a pseudo-header": (lambda peer: (peer.post(1), peer.get(1)), "PROTOCOL_ERROR"),
    "a body that is too long": (
        lambda peer: peer.post(1, b"abc", ("content-length", "2")), "PROTOCOL_ERROR"),
    "a body that is too short": (
        lambda peer: peer.post(1, b"abc", ("content-length", "4"), end=True), "PROTOCOL_ERROR"),
    "trailers before the body's end": (
        lambda peer: (peer.post(1, b"a", ("content-length", "2")), peer.send(peer.head(1, [("x", "y")]))),
        "PROTOCOL_ERROR"),
    "WINDOW_UPDATE by nothing": (lambda peer: (peer.get(1), peer.feed(raw(8, 0, 1, bytes(4)))), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE by too much": (lambda peer: (peer.get(1), peer.open(1, 2**31 - 1)), "FLOW_CONTROL_ERROR"),
    "PRIORITY of a wrong size": (lambda peer: (peer.get(1), peer.feed(raw(2, 0, 1, bytes(4)))), "FRAME_SIZE_ERROR"),
    "a stream that depends on itself": (
        lambda peer: peer.send(peer.head(1), PriorityFrame(1, depends_on=1)), "PROTOCOL_ERROR"),
    "HEADERS that depend on themselves": (lambda peer: self_dependent(peer), "PROTOCOL_ERROR"),
    "DATA beyond the window": (
        lambda peer: (peer.post(1), [peer.data(1, b"x" * 16384) for _ in range(7)]), "FLOW_CONTROL_ERROR"),
}  # fmt: skip


def self_dependent(peer: Peer) -> None:
    head = peer.head(1)
    head.flags.add("PRIORITY")
    head.depends_on = 1
    peer.send(head)


class TestErrors:
    @pytest.mark.parametrize("case", CONNECTION_ERRORS)
    def test_of_a_connection(self, case: str) -> None:
        send, code = CONNECTION_ERRORS[case]
        peer = Peer()
        send(peer)
        last = [frame for frame in peer.take() if frame[0] == "GOAWAY"]
        assert [frame[2] for frame in last] == [code]
        assert peer.closed
        assert not peer.streams

    @pytest.mark.parametrize("case", STREAM_ERRORS)
    def test_of_a_stream(self, case: str) -> None:
        send, code = STREAM_ERRORS[case]
        peer = Peer()
        send(peer)
        assert [frame for frame in peer.take() if frame[0] in ("RST", "GOAWAY")] == [("RST", 1, code)]
        assert 1 not in peer.streams
        assert all(exchange.state is ExchangeState.GONE for exchange in peer.hub.exchanges)
        peer.get(3)
        peer.answer()
        assert peer.status(3) == "200"

    def test_what_a_peer_sent_before_it_knew_of_a_reset_is_no_error(self) -> None:
        peer = Peer()
        peer.post(1, b"abc", ("content-length", "2"))
        peer.data(1, b"x" * 1000)
        peer.open(1, 1000)
        peer.send(peer.head(1, [("x", "y")]))
        peer.reset(1)
        assert peer.take() == [("RST", 1, "PROTOCOL_ERROR")]
        assert not peer.closed

    def test_an_unknown_frame_and_an_unknown_setting_are_ignored(self) -> None:
        peer = Peer()
        peer.feed(raw(99, 0xFF, 5, b"whatever") + raw(4, 0, 0, struct.pack("!HI", 99, 99)))
        peer.get(1)
        assert peer.take() == [("SETTINGS", "ack")]
        assert peer.hub.requests

    def test_any_split_of_the_bytes_is_read_alike(self) -> None:
        first, second = Peer(), Peer()
        head, data = first.head(1, POST, end=False), raw(0, 0, 1, b"hello") + raw(0, 1, 1, b"")
        whole = head.serialize() + data
        first.feed(whole)
        for at in range(len(whole)):
            second.feed(whole[at : at + 1])
        for peer in (first, second):
            peer.answer()
        assert first.take() == second.take()
        assert first.hub.exchange._received == second.hub.exchange._received == 5


class TestFloods:
    """What costs a peer nothing has a limit, and what an honest peer does has none."""

    def flood(self, peer: Peer, send: Callable[[int], object], most: int) -> int:
        """How often it is taken; the connection ends calmly."""
        for count in range(most):
            if peer.closed:
                (last,) = [frame for frame in peer.take() if frame[0] == "GOAWAY"]
                assert last[2] == "ENHANCE_YOUR_CALM"
                return count
            send(count)
        raise AssertionError("it goes on")

    FRAMES: dict[str, Callable[[Peer, int], object]] = {
        "PING": lambda peer, _: peer.ping(),
        "SETTINGS": lambda peer, _: peer.send(SettingsFrame()),
        "SETTINGS with ACK": lambda peer, _: peer.feed(raw(4, 1, 0)),
        "PRIORITY": lambda peer, _: peer.feed(raw(2, 0, 99, bytes(5))),
        "unknown": lambda peer, _: peer.feed(raw(99, 0, 0)),
        "WINDOW_UPDATE by little": lambda peer, _: peer.open(0, 1),
        "WINDOW_UPDATE of a closed stream": lambda peer, count: (
            None if count else (peer.get(1), peer.answer()), peer.open(1, 1000)
        ),
        "PRIORITY_UPDATE": lambda peer, _: peer.feed(raw(16, 0, 0, struct.pack("!I", 5))),
        "empty DATA": lambda peer, count: (None if count else peer.post(1), peer.data(1)),
        "RST_STREAM of a closed stream": lambda peer, count: (
            None if count else (peer.get(1), peer.answer()), peer.reset(1)
        ),
    }  # fmt: skip

    @pytest.mark.parametrize("kind", FRAMES)
    def test_frames_that_do_nothing(self, kind: str) -> None:
        peer = Peer()
        taken = self.flood(peer, lambda count: self.FRAMES[kind](peer, count), 1100)
        assert 990 <= taken <= 1010

    def test_a_rapid_reset_begins_few_applications_and_ends(self) -> None:
        """CVE-2023-44487."""
        peer = Peer()
        numbers = iter(range(1, 100_000, 2))

        def send(_: int) -> None:
            number = next(numbers)
            peer.get(number)
            peer.reset(number)

        assert self.flood(peer, send, 300) <= 205
        # Those of streams that were reset run on; they have as much room again as open streams have.
        assert len(peer.hub.begun) == 200

    def test_resets_that_the_peer_makes_the_server_send_are_counted_too(self) -> None:
        """CVE-2025-8671."""
        peer = Peer()
        numbers = iter(range(1, 100_000, 2))

        def send(_: int) -> None:
            number = next(numbers)
            peer.get(number)
            peer.feed(raw(8, 0, number, bytes(4)))

        assert self.flood(peer, send, 300) <= 205
        assert len(peer.hub.begun) == 200

    def test_streams_beyond_the_limit_are_refused_and_no_error(self) -> None:
        peer = Peer(http2_max_streams=2)
        peer.send(peer.head(1), peer.head(3), peer.head(5), peer.head(7))
        assert peer.take() == [("RST", 5, "REFUSED_STREAM"), ("RST", 7, "REFUSED_STREAM")]
        peer.answer(index=0)
        peer.get(9)
        peer.answer()
        assert peer.status(9) == "200"
        assert peer.hub.requests[0].target == b"/"
        assert len(peer.hub.requests) == 3

    def test_applications_of_reset_streams_keep_their_place(self) -> None:
        peer = Peer(http2_max_streams=2)
        for number in (1, 3, 5, 7):
            peer.get(number)
            peer.reset(number)
        peer.get(9)
        assert peer.take() == [("RST", 9, "REFUSED_STREAM")]
        peer.hub.begun.clear()  # they have ended
        peer.get(11)
        peer.answer()
        assert peer.status(11) == "200"

    def test_a_head_in_too_many_frames(self) -> None:
        """CVE-2024-27316."""
        peer = Peer()
        peer.feed(raw(1, 1, 1, b"\x82"))
        assert self.flood(peer, lambda _: peer.feed(raw(9, 0, 1, b"\x00\x01x\x01y")), 20) == 9

    @pytest.mark.parametrize("part", [raw(1, 1, 1, b"\x82"), raw(1, 5, 1, b"\x82" * 9)[:-1], b"\0", b"\0\0\0\x06"])
    def test_a_head_or_a_frame_that_does_not_come_whole(self, part: bytes) -> None:
        peer = Peer(head_timeout=5)
        peer.feed(part)
        peer.advance(4.9)
        assert not peer.closed
        peer.advance(0.2)
        assert peer.take()[-1][2] == "ENHANCE_YOUR_CALM"
        assert peer.closed

    def test_whole_frames_move_that_deadline(self) -> None:
        peer = Peer(head_timeout=5)
        ping = raw(6, 0, 0, bytes(8))
        peer.feed(ping[:9])
        for _ in range(4):
            peer.advance(3)
            peer.feed(ping[9:] + ping[:9])
        assert not peer.closed
        peer.feed(ping[9:])
        peer.advance(20)
        assert not peer.closed

    def test_answers_to_a_peer_that_reads_none_stop(self) -> None:
        peer = Peer()
        peer.connection.output.pauseProducing()
        for _ in range(100):
            assert peer.transport.reading
            peer.ping()
        assert not peer.transport.reading
        peer.connection.output.resumeProducing()
        assert peer.transport.reading

    def test_responses_without_a_body_to_a_peer_that_reads_none_stop(self) -> None:
        """No window holds them back."""
        peer = Peer()
        peer.connection.output.pauseProducing()
        for number in range(1, 201, 2):
            assert peer.transport.reading
            peer.send(peer.head(number, [(":method", "HEAD"), *GET[1:]]))
            peer.hub.exchanges[-1].application_done(failed=True)
        peer.ping()
        assert not peer.transport.reading
        peer.connection.output.resumeProducing()
        assert peer.transport.reading

    def test_an_honest_peer_goes_on_for_ever(self) -> None:
        peer = Peer()
        wire: Any = peer.connection._wire
        for number in range(1, 40_001, 2):
            peer.send(peer.head(number))
            peer.hub.exchanges.clear()
            wire.streams[number].respond(
                200, [], [], None, has_body=True, close=False, data=b"", last=True
            )
            if number % 50 == 1:
                # Meanwhile it resets and pings now and then.
                peer.advance(0.1)
                peer.ping()
                peer.transport.clear()
        assert not peer.closed
        assert len(wire._forgotten) <= 256


class TestTurns:
    def test_a_read_of_many_requests_takes_several_turns(self) -> None:
        peer = Peer()
        peer.send(*(peer.head(number) for number in range(1, 200, 2)))
        assert len(peer.hub.exchanges) == 32
        assert not peer.transport.reading
        for _ in range(3):
            peer.advance(0)
        assert len(peer.hub.exchanges) == 100
        assert peer.transport.reading

    def test_large_heads_take_more_of_a_turn(self) -> None:
        peer = Peer()
        # All of it is read in one code or the other, which takes time in proportion to its size.
        peer.send(*(peer.head(number, [*GET, ("x", f"{number:05}" * 3000)]) for number in range(1, 21, 2)))
        assert len(peer.hub.exchanges) < 10
        for _ in range(3):
            peer.advance(0)
        assert len(peer.hub.exchanges) == 10

    def test_small_answers_of_a_turn_are_one_write(self) -> None:
        peer = Peer(FakeSocket())
        peer.send(*(peer.head(number) for number in range(1, 20, 2)))
        peer.transport.writes.clear()
        for index in range(10):
            peer.answer(index=index)
        # The last one finds no other stream open, and takes along what was kept.
        peer.advance(0)
        assert len(peer.transport.writes) == 1
        assert len(peer.take()) == 20

    def test_the_only_stream_is_answered_at_once(self) -> None:
        peer = Peer(FakeSocket())
        peer.get(1)
        peer.transport.writes.clear()
        peer.answer()
        assert len(peer.transport.writes) == 1


class TestEnd:
    def test_an_idle_connection_is_closed(self) -> None:
        peer = Peer(keep_alive_timeout=5)
        peer.advance(4)
        peer.get(1)
        peer.advance(100)
        assert not peer.closed
        peer.answer()
        peer.take()
        for _ in range(4):
            peer.advance(1)
            peer.ping()
        peer.take()
        peer.advance(1.1)
        assert peer.take() == [("GOAWAY", 1, "NO_ERROR")]
        assert peer.closed

    def test_a_stopping_server_lets_come_what_is_on_its_way(self) -> None:
        peer = Peer()
        peer.connection.server_stopping()
        assert peer.take() == [("PING", b"leaving!"), ("GOAWAY", 2**31 - 1, "NO_ERROR")]
        peer.get(1)
        peer.get(3)
        peer.ping(b"leaving!", ack=True)
        assert peer.take() == [("GOAWAY", 3, "NO_ERROR")]
        peer.get(5)
        assert peer.take() == [("RST", 5, "REFUSED_STREAM")]
        peer.answer(index=0)
        assert not peer.closed
        peer.answer(index=1)
        assert [frame[:2] for frame in peer.take()] == [
            ("HEADERS", 1), ("DATA", 1), ("HEADERS", 3), ("DATA", 3), ("GOAWAY", 5),
        ]  # fmt: skip
        assert peer.closed

    def test_of_several_responses_the_first_says_so_before(self) -> None:
        peer = Peer()
        peer.get(1)
        peer.get(3)
        peer.hub.stopping = True
        peer.answer(index=0)
        assert [frame[0] for frame in peer.take()] == ["PING", "GOAWAY", "HEADERS", "DATA"]

    def test_what_is_under_way_is_complete_before_the_peer_is_told(self) -> None:
        peer = Peer()
        peer.get(1)
        peer.hub.stopping = True
        peer.connection.server_stopping()
        assert peer.take() == []
        peer.answer()
        assert [frame[0] for frame in peer.take()] == ["HEADERS", "DATA", "PING", "GOAWAY"]
        peer.ping(b"leaving!", ack=True)
        assert peer.closed

    def test_a_peer_that_does_not_answer_is_waited_for_a_second(self) -> None:
        peer = Peer()
        peer.connection.server_stopping()
        peer.take()
        peer.advance(0.9)
        assert not peer.closed
        peer.advance(0.2)
        assert peer.take() == [("GOAWAY", 0, "NO_ERROR")]
        assert peer.closed

    def test_a_response_while_the_server_drains_says_so_too(self) -> None:
        peer = Peer()
        peer.get(1)
        peer.hub.stopping = True
        peer.answer()
        assert [frame[0] for frame in peer.take()] == ["HEADERS", "DATA", "PING", "GOAWAY"]

    def test_the_end_of_the_server_waits_for_windows(self) -> None:
        peer = Peer(windows=0)
        peer.get(1)
        peer.answer(b"hello")
        peer.connection.finish()
        assert not peer.closed
        peer.take()
        peer.open(1, 100)
        assert peer.take() == [("DATA", 1, b"hello", "end"), ("GOAWAY", 1, "NO_ERROR")]
        assert peer.closed

    def test_a_peer_that_ends_its_direction_gets_what_was_sent_in_this_turn(self) -> None:
        peer = Peer(FakeSocket())
        peer.send(peer.head(1), peer.head(3))
        peer.answer(index=0)
        assert peer.transport.sent.find(b"ok") < 0
        peer.connection.readConnectionLost()
        assert [frame[:2] for frame in peer.take()] == [("HEADERS", 1), ("DATA", 1)]
        assert peer.hub.exchange.state is ExchangeState.GONE

    def test_the_end_of_the_server_otherwise(self) -> None:
        peer = Peer()
        peer.connection.finish()
        assert peer.take() == [("GOAWAY", 0, "NO_ERROR")]
        assert peer.transport.disconnecting

    def test_a_peer_that_goes_away_has_its_last_answers(self) -> None:
        peer = Peer()
        peer.get(1)
        peer.send(GoAwayFrame(0))
        assert not peer.closed
        peer.answer()
        assert [frame[0] for frame in peer.take()] == ["HEADERS", "DATA", "GOAWAY"]
        assert peer.closed

    def test_a_peer_that_goes_away_idle(self) -> None:
        peer = Peer()
        peer.send(GoAwayFrame(0))
        assert peer.closed

    def test_frames_behind_the_end_are_not_read(self) -> None:
        peer = Peer()
        peer.feed(raw(6, 0, 1, bytes(8)) + peer.head(1).serialize())
        peer.get(3)
        assert not peer.hub.requests

    def test_dropping_it_loses_nothing_that_could_look_complete(self) -> None:
        peer = Peer(FakeSocket())
        assert not peer.connection._wire.ends_with_connection  # type: ignore[union-attr]

    def test_window_updates_for_the_connection_free_all_streams(self) -> None:
        peer = Peer(windows=1 << 20)
        peer.get(1)
        peer.answer(b"x" * 70_000)
        sent = sum(len(frame[2]) for frame in peer.take() if frame[0] == "DATA")
        assert sent == 65535
        peer.send(WindowUpdateFrame(0, window_increment=10_000))
        assert peer.take() == [("DATA", 1, b"x" * (70_000 - 65535), "end")]


OPEN, LEAVING, LAST, CLOSED = State

#: Each with a request that is not answered, but for CLOSED.
REACHED: dict[State, Callable[[Peer], object]] = {
    OPEN: lambda peer: peer.get(1),
    LEAVING: lambda peer: (peer.connection.server_stopping(), peer.get(1)),
    LAST: lambda peer: (peer.connection.server_stopping(), peer.get(1), peer.ping(b"leaving!", ack=True)),
    CLOSED: lambda peer: peer.push(),
}

#: What happens, and which state that leads to. A state that is not named stays as it is.
EVENTS: dict[str, tuple[Callable[[Peer], object], dict[State, State]]] = {
    "a request": (lambda peer: peer.get(3), {}),
    "the answer": (lambda peer: _replies(peer, 1), {LAST: CLOSED}),
    "a reset": (lambda peer: peer.reset(1), {LAST: CLOSED}),
    "a ping": (lambda peer: peer.ping(), {}),
    "an answer to a ping": (lambda peer: peer.ping(b"leaving!", ack=True), {LEAVING: LAST}),
    "the peer goes away": (lambda peer: peer.send(GoAwayFrame(0)), {}),
    "the server stops": (lambda peer: peer.connection.server_stopping(), {}),
    "the answer while it stops": (
        lambda peer: (setattr(peer.hub, "stopping", True), _replies(peer, 1)), {OPEN: LEAVING, LAST: CLOSED}
    ),
    "the server ends": (lambda peer: peer.connection.finish(), dict.fromkeys(State, CLOSED)),
    "a fault": (lambda peer: peer.push(), dict.fromkeys(State, CLOSED)),
    "a second": (lambda peer: peer.advance(1.1), {LEAVING: LAST}),
    "the connection is lost": (lambda peer: peer.connection.connectionLost(), dict.fromkeys(State, CLOSED)),
}


class TestStates:
    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize("before", State)
    def test_each_event_in_each_state(self, before: State, event: str) -> None:
        peer = Peer()
        wire: Any = peer.connection._wire
        REACHED[before](peer)
        assert wire._state is before
        happens, after = EVENTS[event]
        happens(peer)
        peer.take()
        assert wire._state is after.get(before, before)
        assert (wire._state is CLOSED) is (peer.closed or wire is not peer.connection._wire)
        if wire._state is CLOSED:
            assert not wire.streams
            assert all(exchange.finished for exchange in peer.hub.exchanges)


def _replies(peer: Peer, number: int) -> None:
    stream = peer.streams.get(number)
    if stream is not None and stream.exchange is not None and stream.exchange.state is ExchangeState.WAITING:
        stream.exchange.take_reply(ResponseStart(200, [], None, False, False, []))
        stream.exchange.take_reply(ResponseBody(b"x" * 20, False))


#: What a peer and an application may do in any order, to the stream of a number.
STEPS: list[Callable[[Peer, int], object]] = [
    lambda peer, number: peer.get(number),
    lambda peer, number: peer.post(number, b"body"),
    lambda peer, number: peer.data(number, b"more"),
    lambda peer, number: peer.data(number, b"", end=True),
    lambda peer, number: peer.send(peer.head(number, [("x", "y")])),
    lambda peer, number: peer.reset(number),
    lambda peer, number: peer.open(number, 7),
    lambda peer, _: peer.open(0, 100),
    lambda peer, _: peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 3})),
    lambda peer, number: peer.send(peer.head(number, UPGRADE, end=False)),
    lambda peer, _: peer.connection.output.pauseProducing(),
    lambda peer, _: peer.connection.output.resumeProducing(),
    lambda peer, _: peer.connection.server_stopping(),
    _replies,
    _replies,
]  # fmt: skip


class TestAnyBytes:
    """Whatever a peer sends, the connection goes on or ends in order."""

    @staticmethod
    def end(peer: Peer) -> None:
        for _ in range(3):
            peer.advance(0)
        for exchange in peer.hub.exchanges:
            if exchange.state is ExchangeState.WAITING:
                exchange.application_done(failed=True)
        peer.advance(0)
        wire: Any = peer.connection._wire
        if wire is not None:
            outputs = [stream.output for stream in peer.streams.values()]
            assert wire.writer.waiting == sum(output._size for output in outputs)
            sendable = {output for output in outputs if output.waits and output.window > 0}
            assert set(wire.writer.order._places) == sendable
        peer.connection.connectionLost()
        assert all(exchange.finished for exchange in peer.hub.exchanges)
        assert not peer.hub.connections

    @given(st.lists(st.tuples(st.integers(0, 17), st.integers(0, 255), st.integers(0, 7), st.binary(max_size=40))))
    def test_random_frames(self, frames: list[tuple[int, int, int, bytes]]) -> None:
        peer = Peer()
        for frame in frames:
            peer.feed(raw(*frame))
        self.end(peer)

    @given(st.lists(st.sampled_from(STEPS)))
    def test_random_conversations(self, steps: list[Callable[[Peer, int], object]]) -> None:
        peer = Peer(windows=10)
        for index, step in enumerate(steps):
            step(peer, 1 + 2 * (index % 4))
            peer.hub.clock.advance(0)
        self.end(peer)
