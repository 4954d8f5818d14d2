"""The frame engine beyond the cases of ``conformance``: sending, closing, pressure, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from autobahn.websocket.utf8validator import Utf8Validator

from asgiserver.asgi.interfaces import Channel, Frames
from asgiserver.asgi.tokens import is_close_code
from asgiserver.wire.handshake import parse_extensions
from asgiserver.wire.websocket import frames
from asgiserver.wire.websocket.deflate import negotiate_deflate
from asgiserver.wire.websocket.frames import WebSocketProtocol
from tests.conformance.cases import DEFLATE, ILLEGAL_CODES, LEGAL_CODES, Case, cases, deflated, messages
from tests.conformance.peer import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RecordingChannel,
    Turns,
    close,
    connect,
    frame,
)


def opened(
    *, room: int | None = None, max_message_size: int = 0, offer: bytes = b""
) -> tuple[RecordingChannel, WebSocketProtocol]:
    channel = RecordingChannel(room=room)
    return channel, connect(channel, max_message_size=max_message_size, offer=offer)


def test_engine_is_what_an_exchange_expects() -> None:
    channel: Channel = RecordingChannel()
    engine: Frames = WebSocketProtocol(channel, max_message_size=1, max_frame_size=1, turn=Turns())
    assert isinstance(engine, WebSocketProtocol)


def test_import_installs_no_reactor_and_no_loop() -> None:
    program = (
        "import asgiserver.wire.websocket.frames, sys; "
        "assert not {'twisted.internet.reactor', 'asyncio', 'twisted.internet.defer'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


class TestSending:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
    @pytest.mark.parametrize(("text", "first"), [(True, 0x81), (False, 0x82)])
    def test_message_is_one_frame_in_one_write(self, size: int, text: bool, first: int) -> None:
        channel, protocol = opened()
        writes: list[bytes] = []
        channel.write = writes.append  # type: ignore[assignment, method-assign]
        protocol.send_message(b"*" * size, text=text)
        (channel.written,) = writes
        assert channel.frames == [(first, b"*" * size)]

    def test_ping_carries_its_payload(self) -> None:
        channel, protocol = opened()
        protocol.send_ping(b"")
        protocol.send_ping(b"*" * 125)
        assert channel.frames == [(0x89, b""), (0x89, b"*" * 125)]

    def test_messages_are_compressed_with_one_context(self) -> None:
        channel, protocol = opened(offer=DEFLATE)
        payload = bytes((at * at * 7919 >> 5) & 0xFF for at in range(3000))
        protocol.send_message(payload, text=False)
        protocol.send_message(payload, text=False)
        (first, once), (_, again) = channel.frames
        assert first == 0xC2
        assert len(again) < len(once) / 10
        inflater = zlib.decompressobj(-12)
        assert [inflater.decompress(each + b"\x00\x00\xff\xff") for each in (once, again)] == [payload, payload]

    def test_each_message_is_compressed_anew_when_the_client_asks_for_it(self) -> None:
        channel, protocol = opened(offer=DEFLATE + b"; server_no_context_takeover; server_max_window_bits=9")
        for _ in range(2):
            protocol.send_message(b"Hello " * 99, text=True)
        for first, payload in channel.frames:
            assert (first, zlib.decompressobj(-9).decompress(payload)) == (0xC1, b"Hello " * 99)

    def test_short_messages_are_not_worth_compressing(self) -> None:
        channel, protocol = opened(offer=DEFLATE)
        protocol.send_message(b"*" * 15, text=True)
        protocol.send_message(b"*" * 16, text=True)
        assert [first for first, _ in channel.frames] == [0x81, 0xC1]


class TestClosing:
    @pytest.mark.parametrize("code", LEGAL_CODES)
    def test_every_legal_code_is_sent_with_its_reason(self, code: int) -> None:
        channel, protocol = opened()
        protocol.send_close(code, "wärüm")
        assert channel.frames == [(0x88, code.to_bytes(2) + "wärüm".encode())]

    @pytest.mark.parametrize("code", ILLEGAL_CODES)
    def test_illegal_codes_are_told_apart(self, code: int) -> None:
        assert not is_close_code(code)
        assert all(map(is_close_code, LEGAL_CODES))

    def test_nothing_is_sent_after_a_close(self) -> None:
        channel, protocol = opened()
        protocol.send_close(1000, "")
        before = channel.written
        protocol.send_message(b"late", text=True)
        protocol.send_ping(b"late")
        protocol.send_close(1011, "late")
        protocol.receive(frame(PING, b"late"))
        assert channel.written == before

    def test_answer_to_our_close_is_told_and_not_answered(self) -> None:
        channel, protocol = opened()
        protocol.send_close(1000, "bye")
        protocol.receive(close(1000, b"bye"))
        assert channel.events == [("close", 1000, "bye")]
        assert len(channel.frames) == 1

    @pytest.mark.parametrize("offer", [b"", DEFLATE])
    def test_messages_under_way_when_we_close_are_passed_over(self, offer: bytes) -> None:
        channel, protocol = opened(max_message_size=100, offer=offer)
        begun = frame(TEXT, b"begun before", fin=False)
        protocol.receive(begun[:10])
        protocol.send_close(1000, "")
        # None of these would be allowed otherwise: too large, not UTF-8, not deflate.
        late = frame(CONTINUATION, b"*" * 200) + frame(TEXT, b"\xff") + frame(BINARY, b"*" * 70_000)
        if offer:
            late += frame(TEXT, b"\x07\x07", rsv=4) + frame(TEXT, deflated(bytes(10_000)), rsv=4)
        protocol.receive(begun[10:] + late + frame(PONG, b"p") + close(1001))
        assert channel.events == [("pong", b"p"), ("close", 1001, "")]

    def test_message_that_was_kept_back_when_we_close_is_passed_over(self) -> None:
        channel, protocol = opened(room=1)
        protocol.receive(frame(TEXT, b"1") + frame(TEXT, b"2") + close(4000))
        protocol.send_close(1000, "")
        protocol.resume()
        assert channel.events == [*messages("1"), ("close", 4000, "")]

    def test_violation_after_our_close_is_told_and_not_answered(self) -> None:
        channel, protocol = opened()
        protocol.send_close(1000, "")
        protocol.receive(frame(15) + close(1000))
        assert channel.events == [("failed", 1002)]
        assert len(channel.frames) == 1

    def test_channel_may_close_within_a_message(self) -> None:
        class Closing(RecordingChannel):
            def message_received(self, payload: str | bytes) -> None:
                super().message_received(payload)
                protocol.send_close(1000, "")

        for short_cuts in (True, False):
            channel = Closing()
            protocol = connect(channel, short_cuts=short_cuts)
            protocol.receive(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(PING) + close(1000))
            assert channel.events == [*messages("1"), ("close", 1000, "")]

    @pytest.mark.parametrize("end", [close(1000), frame(15)])
    def test_nothing_is_kept_after_the_end(self, end: bytes) -> None:
        channel, protocol = opened()
        protocol.receive(end + frame(TEXT, b"1") * 100)
        protocol.receive(frame(TEXT, b"2"))
        protocol.resume()
        assert len(channel.events) == 1
        assert protocol._kept == b""


class TestPressure:
    @pytest.mark.parametrize("short_cuts", [True, False])
    def test_full_channel_gets_no_more_until_it_resumes(self, short_cuts: bool) -> None:
        channel = RecordingChannel(room=2)
        protocol = connect(channel, short_cuts=short_cuts)
        protocol.receive(b"".join(frame(TEXT, b"%d" % at) for at in range(5)) + frame(PING, b"p"))
        assert channel.events == messages("0", "1")
        assert channel.frames == []
        channel.room = 3
        protocol.resume()
        assert channel.events == messages("0", "1", "2")
        protocol.receive(close(1000))
        channel.room = None
        protocol.resume()
        assert channel.events == [*messages("0", "1", "2", "3", "4"), ("close", 1000, "")]
        assert [first for first, _ in channel.frames] == [0x8A, 0x88]

    def test_one_read_of_bombs_inflates_one_at_a_time(self) -> None:
        channel, protocol = opened(room=1, max_message_size=1_000_000, offer=DEFLATE)
        protocol.receive(frame(BINARY, deflated(bytes(1_000_000)), rsv=4) * 50)
        assert len(channel.events) == 1

    def test_full_channel_keeps_a_message_in_the_middle_of_a_frame(self) -> None:
        channel, protocol = opened(room=0)
        sent = frame(TEXT, b"*" * 200)
        for at in range(0, len(sent), 7):
            protocol.receive(sent[at : at + 7])
        assert channel.events == []
        channel.room = None
        protocol.resume()
        assert channel.events == messages("*" * 200)

    def test_channel_may_resume_within_a_message(self) -> None:
        class Resuming(RecordingChannel):
            def message_received(self, payload: str | bytes) -> None:
                protocol.resume()
                super().message_received(payload)
                protocol.resume()

        channel = Resuming()
        protocol = connect(channel)
        protocol.receive(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, b"3"))
        assert channel.events == messages("1", "2", "3")

    def test_bytes_are_not_lost_when_the_channel_raises(self) -> None:
        class Failing(RecordingChannel):
            def message_received(self, payload: str | bytes) -> None:
                raise RuntimeError("oh")

        protocol = connect(Failing())
        with pytest.raises(RuntimeError, match="oh"):
            protocol.receive(frame(TEXT, b"1") + frame(TEXT, b"2"))
        with pytest.raises(RuntimeError, match="oh"):
            protocol.resume()

    def test_pings_of_a_slow_peer_cost_one_answer(self) -> None:
        channel, protocol = opened()
        channel.slow = True
        protocol.receive(b"".join(frame(PING, b"%d" % at) for at in range(1000)))
        protocol.resume()
        assert channel.frames == []
        channel.slow = False
        protocol.resume()
        protocol.resume()
        assert channel.frames == [(0x8A, b"999")]

    def test_ping_of_a_slow_peer_is_forgotten_for_a_later_one(self) -> None:
        channel, protocol = opened()
        channel.slow = True
        protocol.receive(frame(PING, b"old"))
        channel.slow = False
        protocol.receive(frame(PING, b"new"))
        protocol.resume()
        assert channel.frames == [(0x8A, b"new")]

    def test_ping_of_a_slow_peer_is_not_answered_after_a_close(self) -> None:
        channel, protocol = opened()
        channel.slow = True
        protocol.receive(frame(PING, b"1"))
        protocol.send_close(1000, "")
        channel.slow = False
        protocol.resume()
        assert [first for first, _ in channel.frames] == [0x88]


class TestParsing:
    def test_rest_of_a_head_is_not_taken_for_a_frame(self) -> None:
        channel, protocol = opened()
        protocol.receive(b"\x82")
        # A length of 1, a mask, and a payload: or an empty text message.
        protocol.receive(b"\x81" + b"\x80\x00\x00\x00" + b"\xff")
        assert channel.events == messages(b"\x7f")

    @pytest.mark.parametrize("size", [1023, 1024, 1025, 4097])
    def test_both_ways_to_unmask_agree(self, size: int) -> None:
        channel, protocol = opened()
        payload = bytes(at * at & 0xFF for at in range(size))
        protocol.receive(frame(BINARY, payload))
        assert channel.events == messages(payload)

    def test_fragments_without_end_take_no_memory_of_their_own(self) -> None:
        _, protocol = opened(max_message_size=100)
        protocol.receive(frame(BINARY, b"*", fin=False))
        protocol.receive(frame(CONTINUATION, b"", fin=False) * 10_000)
        assert sum(map(sys.getsizeof, (value for value in vars(protocol).values()))) < 2000

    def test_cost_of_a_frame_does_not_grow_with_what_follows_it(self) -> None:
        def seconds(count: int) -> float:
            best = 1e9
            for _ in range(3):
                _, protocol = opened()
                sent = frame(PONG) * count
                begin = time.process_time()
                protocol.receive(sent)
                best = min(best, time.process_time() - begin)
            return best / count

        # A copy of the rest for each frame would make this 100.
        assert seconds(100_000) < 10 * seconds(1000)


class Counted(bytes):
    """Bytes that count what is taken of them."""

    slices = copied = 0

    def __getitem__(self, key: Any) -> Any:
        taken = super().__getitem__(key)
        if isinstance(taken, bytes):
            self.slices += 1
            self.copied += len(taken)
        return taken


class TestTurns:
    """With ``after_turn`` the end waits until the messages that came with it could be answered, and nothing else."""

    def make(self, case: Case | None = None) -> None:
        case = case or Case("", b"", [])
        negotiated = negotiate_deflate(parse_extensions(case.offer), case.max_message_size)
        self.turns: list[Callable[[], None]] = []
        self.channel = RecordingChannel()
        self.protocol = WebSocketProtocol(
            self.channel,
            max_message_size=case.max_message_size,
            max_frame_size=case.max_frame_size,
            deflate=negotiated[1] if negotiated else None,
            turn=Turns(),
            after_turn=self.turns.append,
        )

    @pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
    def test_every_case_has_the_same_outcome_and_only_its_end_waits(self, case: Case) -> None:
        self.make(case)
        self.protocol.receive(case.sent)
        ends = bool(case.events) and case.events[-1][0] in ("close", "failed")
        assert self.channel.events == (case.events[:-1] if ends else case.events)
        assert len(self.turns) == ends
        for turn in self.turns:
            turn()
        assert self.channel.events == case.events
        assert len(self.turns) == ends

    @pytest.mark.parametrize(("each", "offer", "pongs"), [
        (frame(TEXT) + frame(PING), b"", True),
        (frame(TEXT, b"a") + frame(PONG), b"", False),
        (frame(TEXT, deflated(b"Hello"), rsv=4), DEFLATE, False),
        (frame(TEXT, b"a", fin=False) + frame(PING) + frame(CONTINUATION, b"b"), b"", True),
    ], ids=["message and ping", "message and pong", "compressed", "fragments and ping"])  # fmt: skip
    def test_one_read_of_many_frames_is_parsed_in_one_run_that_copies_it_once(
        self, each: bytes, offer: bytes, pongs: bool
    ) -> None:
        count = 20_000
        self.make(Case("", b"", [], offer=offer))
        told: list[str | bytes] = []
        written: list[bytes] = []
        self.channel.message_received = told.append  # type: ignore[assignment, method-assign]
        self.channel.pong_received = lambda payload: None  # type: ignore[method-assign]
        self.channel.write = written.append  # type: ignore[assignment, method-assign]
        sent = Counted(each * count)
        self.protocol.receive(sent)
        assert len(told) == count
        # All answers in one write: a system call for each would stop everybody else.
        assert len(written) == pongs
        assert len(b"".join(written)) == 2 * pongs * count
        assert self.turns == []
        assert self.protocol._kept == b""
        # Each byte once, and the two of each frame's head that tell its size twice more.
        assert sent.copied <= 3 * len(sent)
        assert sent.slices <= 5 * 3 * count

    @pytest.mark.parametrize(("end", "answer"), [(close(1000), b"\x03\xe8"), (frame(15), b"\x03\xea")])
    def test_messages_can_be_answered_before_the_end_that_came_with_them(self, end: bytes, answer: bytes) -> None:
        self.make()
        self.protocol.receive(frame(TEXT, b"a") + frame(PING) + frame(TEXT, b"b") + end)
        assert self.channel.events == messages("a", "b")
        self.protocol.send_message(b"A", text=True)
        self.protocol.send_message(b"B", text=True)
        (turn,) = self.turns
        turn()
        *before, (first, payload) = self.channel.frames
        assert before == [(0x8A, b""), (0x81, b"A"), (0x81, b"B")]
        assert (first, payload[:2]) == (0x88, answer)
        self.protocol.send_message(b"late", text=True)
        assert len(self.channel.frames) == 4

    @pytest.mark.parametrize("end", [close(1000), frame(15), frame(TEXT, b"\xff")])
    def test_what_comes_while_the_end_waits_is_thrown_away(self, end: bytes) -> None:
        self.make()
        self.protocol.receive(frame(TEXT, b"a") + end)
        for late in (frame(TEXT, b"late"), frame(PING), close(1001), frame(15)):
            self.protocol.receive(late * 100)
            self.protocol.resume()
        assert self.protocol._kept == b""
        assert len(self.turns) == 1
        assert self.channel.events == messages("a")
        assert self.channel.frames == []

    @pytest.mark.parametrize(("end", "event"), [(close(1001), ("close", 1001, "")), (frame(15), ("failed", 1002))])
    def test_closing_while_the_end_waits_sends_no_second_close(self, end: bytes, event: tuple[object, ...]) -> None:
        self.make()
        self.protocol.receive(frame(TEXT, b"a") + end)
        self.protocol.send_close(4000, "mine")
        self.protocol.receive(close(4000))
        (turn,) = self.turns
        turn()
        assert self.channel.frames == [(0x88, b"\x0f\xa0mine")]
        assert self.channel.events == [*messages("a"), event]

    @pytest.mark.parametrize(("end", "event"), [(close(1001), ("close", 1001, "")), (frame(15), ("failed", 1002))])
    def test_end_that_waits_is_told_but_not_answered_when_the_connection_is_lost(
        self, end: bytes, event: tuple[object, ...]
    ) -> None:
        self.make()
        self.protocol.receive(frame(TEXT, b"a") + end)
        self.protocol.abandon()
        (turn,) = self.turns
        turn()
        assert self.channel.events == [*messages("a"), event]
        assert self.channel.frames == []


class TestAbandoning:
    def test_what_was_kept_is_forgotten_and_nothing_follows(self) -> None:
        channel, protocol = opened(room=1)
        channel.slow = True
        protocol.receive(frame(PING) + frame(TEXT, b"1") + frame(TEXT, b"2") + close(1000))
        protocol.abandon()
        assert protocol._kept == b""
        channel.slow = False
        channel.room = None
        protocol.resume()
        protocol.receive(frame(TEXT, b"3"))
        assert channel.events == messages("1")
        assert channel.written == b""

    @pytest.mark.parametrize("short_cuts", [True, False])
    def test_channel_may_be_lost_within_a_message(self, short_cuts: bool) -> None:
        class Lost(RecordingChannel):
            def message_received(self, payload: str | bytes) -> None:
                super().message_received(payload)
                protocol.abandon()

        channel = Lost()
        protocol = connect(channel, short_cuts=short_cuts)
        protocol.receive(frame(TEXT, b"1") + frame(TEXT, b"2") + close(1000))
        assert protocol._kept == b""
        assert channel.events == messages("1")


def first_wrong(octets: bytes, is_valid: Callable[[bytes], bool]) -> int:
    """At which octet, given one after the other, a validator says no; the number of octets if it does not."""
    return next((at for at in range(len(octets)) if not is_valid(octets[at : at + 1])), len(octets))


def test_decoder_finds_what_is_not_utf8_as_early_as_autobahn() -> None:
    borders = bytes.fromhex("00 7f 80 8f 90 9f a0 bf c0 c2 df e0 e1 ed ef f0 f4 f5")
    validator = Utf8Validator()

    def decodes(decoder: object) -> Callable[[bytes], bool]:
        def is_valid(octet: bytes) -> bool:
            try:
                decoder.decode(octet)  # type: ignore[attr-defined]
            except UnicodeDecodeError:
                return False
            return True

        return is_valid

    for number in range(len(borders) ** 3):
        third, rest = number % len(borders), number // len(borders)
        octets = bytes((borders[rest // len(borders)], borders[rest % len(borders)], borders[third], 0x80))
        validator.reset()
        expected = first_wrong(octets, lambda octet: bool(validator.validate(octet)[0]))
        found = first_wrong(octets, decodes(frames._make_decoder()))
        is_surrogate = octets[expected - 1] == 0xED and octets[expected : expected + 1] in (b"\xa0", b"\xbf")
        assert found == expected or (is_surrogate and found == expected + 1), octets.hex()


def test_negotiation_is_found_beside_the_engine() -> None:
    assert frames.negotiate_deflate is negotiate_deflate
