"""Frames as they are written, beside what the tests of the engine say of them."""

from __future__ import annotations

import pytest

from asgiserver.wire.websocket.frame_writer import BINARY, TEXT, FrameWriter
from tests.conformance.cases import DEFLATE, deflated, messages
from tests.conformance.peer import PING, RecordingChannel, connect, frame
from tests.conformance.peer import TEXT as TEXT_OPCODE


@pytest.mark.parametrize("size", range(130))
@pytest.mark.parametrize(("text", "first"), [(True, TEXT), (False, BINARY)])
def test_short_message_has_a_head_of_two_bytes(size: int, text: bool, first: int) -> None:
    channel = RecordingChannel()
    FrameWriter(channel, None).send_message(b"*" * size, text=text)
    assert channel.frames == [(first, b"*" * size)]
    assert len(channel.written) == size + (2 if size < 126 else 4)


@pytest.mark.parametrize("size", [16383, 16384, 65535, 65536, 200_000])
def test_large_payload_is_not_copied_behind_its_head(size: int) -> None:
    class Keeping(RecordingChannel):
        def write_large(self, head: bytes, payload: bytes) -> None:
            kept.append(payload)
            super().write_large(head, payload)

    kept: list[bytes] = []
    channel, message = Keeping(), b"*" * size
    FrameWriter(channel, None).send_message(message, text=False)
    assert channel.frames == [(BINARY, message)]
    assert [payload is message for payload in kept] == ([] if size < 16384 else [True])


@pytest.mark.parametrize("size", [2, 200])
def test_message_that_is_sent_while_a_read_is_parsed_keeps_its_place(size: int) -> None:
    class Echoing(RecordingChannel):
        def message_received(self, payload: str | bytes) -> None:
            super().message_received(payload)
            protocol.send_message(b"!" * size, text=False)

    channel = Echoing()
    protocol = connect(channel)
    protocol.receive(frame(PING, b"1") + frame(TEXT_OPCODE, b"a") + frame(PING, b"2"))
    assert channel.frames == [(0x8A, b"1"), (0x82, b"!" * size), (0x8A, b"2")]


def test_what_the_writer_compressed_the_engine_inflates() -> None:
    channel = RecordingChannel()
    protocol = connect(channel, offer=DEFLATE)
    texts = ["Hello " * 99, "", "x" * 15, "x" * 16, "ü" * 70_000, "Hello " * 99]
    for text in texts:
        protocol.send_message(text.encode(), text=True)
    for first, payload in channel.frames:
        protocol.receive(frame(first & 15, payload, rsv=first >> 4 & 7))
    assert channel.events == messages(*texts)


def test_messages_of_a_client_and_ours_share_no_context() -> None:
    channel = RecordingChannel()
    protocol = connect(channel, offer=DEFLATE)
    payload = bytes((at * at * 7919 >> 5) & 0xFF for at in range(3000))
    protocol.receive(frame(2, deflated(payload), rsv=4))
    protocol.send_message(payload, text=False)
    ((first, sent),) = channel.frames
    assert first == 0xC2
    assert len(sent) > 1000
