"""What the soak takes for growth, and that it finds a server that keeps what it should not."""

from __future__ import annotations

import sys

import pytest

from tests import soak
from tests.soak import MOST_MEMORY, Sample, grown, main

HALF = Sample(50_000_000, 20, 1, 3)


@pytest.mark.parametrize(("end", "found"), [
    (HALF, []),
    (HALF._replace(memory=HALF.memory + MOST_MEMORY, descriptors=19, tasks=2), []),
    (HALF._replace(memory=HALF.memory + 2 * MOST_MEMORY), ["memory by 4.0 MiB"]),
    (HALF._replace(memory=HALF.memory + 2 * MOST_MEMORY, processes=2), []),
    (HALF._replace(descriptors=21, tasks=5), ["descriptors by 1", "tasks by 2"]),
])  # fmt: skip
def test_growth(end: Sample, found: list[str]) -> None:
    assert grown(HALF, end) == found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_an_application_keeps_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "KEPT.append((bytearray(20_000), open('/dev/null')))"
    kept = soak.APPLICATION.replace("        size, event =", f"        {more}\n        size, event =")
    monkeypatch.setattr(soak, "APPLICATION", kept + "\nKEPT = []\n")
    assert main(["--seconds", "10"]) == 1
    output = capsys.readouterr().out
    assert "one process: memory by" in output
    assert "one process: descriptors by" in output
