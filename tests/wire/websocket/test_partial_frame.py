"""A data frame in pieces: what it takes, what it finds wrong, and when."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from autobahn.exception import PayloadCorruptError, PayloadExceededError

from asgiserver.wire.handshake import parse_extensions
from asgiserver.wire.websocket.deflate import Deflate, negotiate_deflate
from asgiserver.wire.websocket.frame_parser import FrameParser
from asgiserver.wire.websocket.frames import WebSocketProtocol
from asgiserver.wire.websocket.partial_frame import PartialFrame
from tests.conformance.cases import DEFLATE, deflated, messages
from tests.conformance.peer import BINARY, MASK, PING, TEXT, RecordingChannel, close, connect, frame


def masked(payload: bytes) -> bytes:
    return frame(BINARY, payload)[-len(payload) :] if payload else b""


def inflater(max_message_size: int = 0) -> Deflate:
    negotiated = negotiate_deflate(parse_extensions(DEFLATE), max_message_size)
    assert negotiated is not None
    deflate: Deflate = Deflate.create_from_offer_accept(True, negotiated[1])
    return deflate


def added(partial: PartialFrame, sent: bytes, size: int) -> PartialFrame:
    for at in range(0, len(sent), size):
        partial.add(b"before" + sent[at : at + size] + b"behind", 6, 6 + len(sent[at : at + size]))
    return partial


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 17, 64, 1000])
@pytest.mark.parametrize("text", [True, False])
def test_pieces_of_all_sizes_make_up_the_message(size: int, text: bool) -> None:
    payload = "Grüße \U0001f600 ".encode() * 50
    partial = added(PartialFrame(MASK, len(payload), None, text=text), masked(payload), size)
    assert (partial.missing, partial.message, partial.text) == (0, payload, text)


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_pieces_are_inflated_as_they_come(size: int) -> None:
    payload = "Grüße \U0001f600 ".encode() * 50
    sent, deflate = deflated(payload), inflater()
    for _ in range(2):
        partial = added(PartialFrame(MASK, len(sent), deflate, text=True), masked(sent), size)
        assert (partial.missing, partial.message) == (0, payload)


def test_text_that_is_not_utf8_is_found_before_its_end() -> None:
    partial = PartialFrame(MASK, 1000, None, text=True)
    partial.add(masked(b"a\xf0\x9f"), 0, 3)
    with pytest.raises(UnicodeDecodeError):
        partial.add(masked(b"...a")[3:], 0, 1)
    PartialFrame(MASK, 1000, None, text=False).add(masked(b"\xff\xff"), 0, 2)


def test_what_inflates_to_too_much_is_found_before_its_end() -> None:
    sent = deflated(bytes(10_000_000))
    partial = PartialFrame(MASK, len(sent), inflater(1000), text=False)
    with pytest.raises(PayloadExceededError):
        partial.add(masked(sent), 0, 20)


@pytest.mark.parametrize("sent", [b"\x07" * 20, deflated(bytes(range(200)), level=0)[:-30]])
def test_what_cannot_be_inflated_is_corrupt(sent: bytes) -> None:
    with pytest.raises(PayloadCorruptError):
        added(PartialFrame(MASK, len(sent), inflater(), text=False), masked(sent), 9)


def test_buffer_is_no_larger_than_what_has_come() -> None:
    partial = added(PartialFrame(MASK, 1 << 40, None, text=False), b"*" * 50_000, 1)
    assert len(partial.message) == 50_000
    assert sys.getsizeof(partial.message) < 60_000


class Straight(WebSocketProtocol):
    """An engine that must not need Autobahn."""

    def parse(self, data: bytes, at: int) -> int:
        raise AssertionError(f"Autobahn was asked for {data[at : at + 14].hex()}")


def engine(monkeypatch: pytest.MonkeyPatch, **made: Any) -> tuple[RecordingChannel, WebSocketProtocol]:
    monkeypatch.setattr(FrameParser, "parse", Straight.parse)
    channel = RecordingChannel()
    return channel, connect(channel, **made)


class TestInTheEngine:
    @pytest.mark.parametrize("size", [15, 16_384, 65_536, 1 << 20])
    @pytest.mark.parametrize("offer", [b"", DEFLATE])
    def test_frames_of_messages_of_their_own_do_without_autobahn(
        self, monkeypatch: pytest.MonkeyPatch, size: int, offer: bytes
    ) -> None:
        channel, protocol = engine(monkeypatch, offer=offer, max_message_size=200_000)
        payload = b"Hello " * 30_000
        kinds = [frame(TEXT, payload), frame(BINARY, payload), frame(TEXT), frame(TEXT, b"*" * 126)]
        if offer:
            kinds += [frame(TEXT, deflated(payload), rsv=4), frame(BINARY, deflated(b"*"), rsv=4), frame(TEXT, rsv=4)]
        for sent in kinds:
            for at in range(0, len(sent), size):
                protocol.receive(sent[at : at + size])
        text = payload.decode()
        assert channel.events == messages(text, payload, "", "*" * 126, *((text, b"*", "") if offer else ()))
        assert (protocol._partial, protocol._kept) == (None, b"")

    def test_nothing_is_buffered_of_a_frame_that_is_too_long(self) -> None:
        channel = RecordingChannel()
        protocol = connect(channel, max_message_size=1000)
        protocol.receive(frame(TEXT, b"*" * 1001)[:100])
        assert channel.events == [("failed", 1009)]
        assert protocol._partial is None

    @pytest.mark.parametrize("payload", [b"\xff" + b"*" * 300, b"*" * 300])
    def test_nothing_is_kept_of_a_frame_when_the_connection_ends_within_it(self, payload: bytes) -> None:
        channel = RecordingChannel()
        protocol = connect(channel)
        protocol.receive(frame(TEXT, payload)[:100])
        protocol.abandon()
        assert protocol._partial is None
        protocol.receive(frame(TEXT, payload)[100:])
        assert ("message", payload.decode(errors="replace")) not in channel.events

    def test_rest_of_a_frame_is_passed_over_after_our_close_and_not_kept(self) -> None:
        channel = RecordingChannel()
        protocol = connect(channel)
        sent = frame(TEXT, b"*" * 70_000)
        protocol.receive(sent[:1000])
        protocol.send_close(1000, "")
        protocol.receive(sent[1000:60_000])
        assert protocol._partial is not None
        assert len(protocol._partial.message) < 1000
        protocol.receive(sent[60_000:] + frame(PING) + close(1000))
        assert channel.events == [("close", 1000, "")]

    def test_frame_waits_in_the_middle_while_the_channel_is_full(self) -> None:
        channel = RecordingChannel(room=1)
        protocol = connect(channel)
        sent = frame(TEXT, b"1") + frame(TEXT, b"2" * 1000)
        protocol.receive(sent[:100])
        channel.room = 2
        protocol.resume()
        channel.room = 0
        protocol.receive(sent[100:500])
        protocol.receive(sent[500:])
        assert channel.events == messages("1")
        channel.room = 2
        protocol.resume()
        assert channel.events == messages("1", "2" * 1000)

    def test_idle_engine_has_nothing_of_its_own(self) -> None:
        protocol = connect(RecordingChannel())
        sent = frame(TEXT, b"*" * 100_000)
        protocol.receive(sent[:50_000])
        protocol.receive(sent[50_000:])
        kept = {name: value for name, value in vars(protocol).items() if value and isinstance(value, bytes | bytearray)}
        assert kept == {}
        assert len(vars(protocol)) <= 18


ALONE = {
    "short": frame(TEXT, b"late"),
    "medium": frame(TEXT, b"late" * 99),
    "large": frame(BINARY, b"late" * 20_000),
    "compressed": frame(TEXT, deflated(b"late" * 99), rsv=4),
}


#: What is done before a frame that could be taken at once comes, and what is told of all.
IN_ITS_WAY: dict[str, tuple[Callable[[WebSocketProtocol], object], list[tuple[object, ...]]]] = {
    "we have closed": (
        lambda engine: (engine.receive(frame(TEXT, b"a")), engine.send_close(1000, "")), messages("a"),
    ),
    "the connection is lost": (lambda engine: engine.abandon(), []),
    "the peer has failed": (lambda engine: engine.receive(frame(TEXT, b"\xff")), [("failed", 1007)]),
    "another message is under way": (
        lambda engine: engine.receive(frame(TEXT, b"a", fin=False)), [("failed", 1002)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("short_cuts", [True, False])
@pytest.mark.parametrize("sent", ALONE.values(), ids=ALONE)
class TestAWholeFrameInOneRead:
    """What is in the way of a frame that could be taken at once."""

    def make(self, short_cuts: bool, **made: int) -> None:
        self.channel = RecordingChannel()
        self.protocol = connect(self.channel, offer=DEFLATE, short_cuts=short_cuts, **made)

    def test_nothing_is(self, sent: bytes, short_cuts: bool) -> None:
        self.make(short_cuts)
        self.protocol.receive(sent)
        self.protocol.receive(sent)
        assert [name for name, _ in self.channel.events] == ["message"] * 2

    @pytest.mark.parametrize(("before", "events"), IN_ITS_WAY.values(), ids=list(IN_ITS_WAY))
    def test_something_is(self, sent: bytes, short_cuts: bool, before: Any, events: list[Any]) -> None:
        self.make(short_cuts)
        before(self.protocol)
        self.protocol.receive(sent)
        assert self.channel.events == events

    def test_another_frame_is_under_way(self, sent: bytes, short_cuts: bool) -> None:
        self.make(short_cuts)
        before = frame(BINARY, bytes(len(sent) + 1))
        self.protocol.receive(before[: -len(sent)])
        self.protocol.receive(sent)
        ((name, payload),) = self.channel.events
        assert name == "message"
        assert isinstance(payload, bytes)
        assert payload[:1] == b"\0"

    def test_the_channel_is_full(self, sent: bytes, short_cuts: bool) -> None:
        self.make(short_cuts)
        self.channel.room = 0
        self.protocol.receive(sent)
        assert self.channel.events == []
        # There is room, but what was kept back comes first.
        self.channel.room = 5
        self.protocol.receive(frame(PING) + close(1000))
        assert [name for name, *_ in self.channel.events] == ["message", "close"]

    def test_another_was_kept_back(self, sent: bytes, short_cuts: bool) -> None:
        self.make(short_cuts)
        self.channel.room = 1
        self.protocol.receive(frame(TEXT, b"1") + frame(TEXT, b"2"))
        self.channel.room = 5
        self.protocol.receive(sent)
        assert [payload for _, payload in self.channel.events][:2] == ["1", "2"]
        assert len(self.channel.events) == 3

    def test_a_limit_of_frames(self, sent: bytes, short_cuts: bool) -> None:
        self.make(short_cuts, max_frame_size=len(sent) - 100 if len(sent) > 300 else 3)
        self.protocol.receive(sent)
        small = len(sent) < 100 and sent[0] & 0x40  # room for what compression may add
        assert self.channel.events == ([("message", "late" * 99)] if small else [("failed", 1009)])

    def test_a_limit_of_messages(self, sent: bytes, short_cuts: bool) -> None:
        self.make(short_cuts, max_message_size=3)
        self.protocol.receive(sent)
        assert self.channel.events == [("failed", 1009)]
