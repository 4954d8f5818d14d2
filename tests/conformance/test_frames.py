"""All cases against the engine: in one piece, in small and smallest ones, and each with and without its short cuts."""

from __future__ import annotations

import pytest

from .cases import Case, cases
from .peer import RecordingChannel, connect

CASES = list(cases())


def test_no_two_cases_have_the_same_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("short_cuts", [True, False], ids=["short", "long"])
@pytest.mark.parametrize("pieces", ["whole", "torn", "chopped"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_engine_behaves_as_the_case_says(case: Case, pieces: str, short_cuts: bool) -> None:
    channel = RecordingChannel()
    protocol = connect(
        channel,
        max_message_size=case.max_message_size,
        max_frame_size=case.max_frame_size,
        offer=case.offer,
        short_cuts=short_cuts,
    )
    # A byte at a time, or a head and a byte. For large cases numbers that meet heads and payloads at all places.
    small = len(case.sent) < 5000
    size = {"whole": len(case.sent), "torn": 15 if small else 16_383, "chopped": 1 if small else 997}[pieces]
    for at in range(0, len(case.sent), size):
        protocol.receive(case.sent[at : at + size])

    assert channel.events == case.events
    frames = channel.frames
    if case.events and case.events[-1][0] == "failed":
        first, payload = frames.pop()
        assert (first, int.from_bytes(payload[:2])) == (0x88, case.events[-1][1])
        assert 0 < len(payload[2:].decode()) <= 123
    assert frames == case.frames
