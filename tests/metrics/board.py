"""A board as a service with two workers leaves it, and one who reads it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from asgiserver.metrics.counts import Counts, place
from asgiserver.metrics.reading import Facts, Reading
from asgiserver.workers.board import Board
from asgiserver.workers.states import ServiceState, WorkerState

SETTINGS = [{"name": "port", "value": "80", "origin": "default"}]


def facts(**more: object) -> Facts:
    values: dict[str, object] = {
        "version": "1.2", "python": "3.11", "loop": "uvloop", "application": "mysite", "started": 5.0,
        "addresses": ["http://[::1]:80", 'unix:/a"\\\n'], "silence": 60.0, "settings": SETTINGS,
    }  # fmt: skip
    return Facts(**{**values, **more})  # type: ignore[arg-type]


class Service:
    """The time is what a test says."""

    def __init__(self) -> None:
        self.board, descriptor = Board.create()
        os.close(descriptor)
        self.now = time.monotonic()
        self.sizes: list[Path] = []
        self.reading = Reading(self.board, facts(), clock=lambda: self.now, memory=self._memory)

    def _memory(self, path: Path) -> int:
        self.sizes.append(path)
        return 4096

    def start(self) -> None:
        """Until both workers serve."""
        self.board.supervisor_beat()
        self.board.describe(ServiceState.SERVING.value, 3)
        self.board.own.gauges[0], self.board.own.gauges[1] = 2, 128
        for number in (0, 1):
            slot = self.board.use(number)
            slot.describe(7 + number, 100 + number, 3, WorkerState.SERVING.value)
            slot.beat()
        self.now = time.monotonic()
        self.count(0, Counts())

    def count(self, number: int, counts: Counts, *gauges: float, slowest: object = None) -> None:
        slot = self.board.slot(number)
        counts.settle()
        slot.connections = 5
        slot.write(counts.values, gauges)
        slot.text = b"" if slowest is None else json.dumps(slowest).encode()

    def total(self, name: str, value: str = "") -> float:
        return self.board.totals()[place(name, value)]
