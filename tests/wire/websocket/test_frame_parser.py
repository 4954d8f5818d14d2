"""That Autobahn's parser finds everything it looks for, though its own initialisation never ran."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

import pytest
from autobahn.websocket.protocol import WebSocketProtocol as Autobahn

from asgiserver.wire.websocket import frame_parser
from asgiserver.wire.websocket.frame_parser import FrameParser, unmasked
from asgiserver.wire.websocket.frames import WebSocketProtocol
from tests.conformance.peer import MASK, RecordingChannel, connect, frame

#: Called only when a switch is on that the last test sees off.
NEVER_CALLED = {"logRxFrame", "onAutoPong", "_cancelAutoPingTimeoutCall", "_sendAutoPing"}
#: Autobahn's methods that a FrameParser runs.
ENTRANCES = ("processData", "onFrameBegin", "onFrameData", "onFrameEnd", "processControlFrame")


def names_read(method: str) -> set[str]:
    """The attributes of ``self`` that a method of Autobahn's reads."""
    source = textwrap.dedent(inspect.getsource(getattr(Autobahn, method)))
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def names_reached() -> set[str]:
    """All attributes that the parser reads, also by methods of Autobahn's that it calls and nobody overrides."""
    reached: set[str] = set()
    waiting = list(ENTRANCES)
    while waiting:
        for name in names_read(waiting.pop()) - reached - NEVER_CALLED:
            reached.add(name)
            inherited = getattr(WebSocketProtocol, name, None) is getattr(Autobahn, name, object())
            if inherited and inspect.isfunction(getattr(Autobahn, name)):
                waiting.append(name)
    return reached


def test_every_attribute_that_the_parser_reads_is_there() -> None:
    protocol = connect(RecordingChannel())
    reached = names_reached()
    assert {"processControlFrame", "onFrameEnd", "current_frame", "_perMessageCompress"} <= reached
    assert {name for name in reached if not hasattr(protocol, name)} == set()


def test_no_method_is_reached_that_sends_drops_or_waits() -> None:
    assert not names_reached() & {"transport", "dropConnection", "sendData", "sendFrame", "is_closed", "failByDrop"}


@pytest.mark.parametrize(
    "switch",
    ["logFrames", "logOctets", "trackedTimings", "autoPingPending", "autoPingTimeoutCall", "utf8validateIncoming"],
)
def test_what_is_not_wanted_is_off(switch: str) -> None:
    assert not getattr(FrameParser, switch)


def test_unmasked_frames_are_refused_and_masks_are_taken_off() -> None:
    assert FrameParser.requireMaskedClientFrames
    assert FrameParser.applyMask
    assert FrameParser.factory.isServer


def test_log_and_statistics_take_everything_and_keep_nothing() -> None:
    FrameParser.log.debug("{}", 1, more=2)
    FrameParser.log.warn("")
    FrameParser.trafficStats.incomingWebSocketFrames += 1
    assert FrameParser.trafficStats.incomingWebSocketFrames == 0
    assert vars(FrameParser.trafficStats) == {}


def octets(size: int) -> bytes:
    return bytes(at * at & 0xFF for at in range(size))


@pytest.mark.parametrize("size", [*range(140), 1023, 1024, 1025, 1027, 65535, 70_001])
def test_mask_is_taken_off_payloads_of_all_sizes(size: int) -> None:
    data = b"before" + frame(2, octets(size)) + b"behind"
    end = len(data) - 6
    assert unmasked(data, end - size, end) == octets(size)


@pytest.mark.parametrize("mask", [bytes(4), b"\xff\xff\xff\xff", b"\x00\x00\x00\x01", b"\x80\x00\x00\x00"])
@pytest.mark.parametrize("size", [1, 5, 6, 7, 8, 125])
def test_every_bit_of_a_mask_counts(mask: bytes, size: int) -> None:
    masked = bytes(octet ^ mask[at % 4] for at, octet in enumerate(octets(size)))
    assert unmasked(mask + masked, 4, 4 + size) == octets(size)


@pytest.mark.parametrize("unmask", [frame_parser.unmask, frame_parser._unmask_as_number])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 33, 1024, 1027])
@pytest.mark.parametrize("start", [0, 1, 3, 16])
def test_mask_is_taken_off_behind_an_offset_alone(
    unmask: Callable[[bytearray, int, bytes], None], start: int, size: int
) -> None:
    payload = bytearray(b"*" * start + frame(2, octets(size))[-size:] if size else b"*" * start)
    unmask(payload, start, MASK)
    assert payload == b"*" * start + octets(size)
