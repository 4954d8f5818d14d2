"""What a process writes of its requests."""

from __future__ import annotations

import json
import os
from typing import Any

from asgiserver.hub import Hub
from asgiserver.metrics.counts import IN_FLIGHT, WEBSOCKETS, durations
from asgiserver.metrics.recorder import Recorder, slowest
from asgiserver.settings import Settings
from asgiserver.workers.board import Board
from tests.asgi.test_http import Made as MadeHTTP
from tests.asgi.test_websocket import Made as MadeWebSocket


class Server(Hub):
    """A hub without tasks: its exchanges are what a test says."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, Settings(), None)  # type: ignore[arg-type, return-value]
        self.under_way: list[Any] = []

    @property
    def exchanges(self) -> list[Any]:
        return self.under_way


def test_what_is_under_way_is_written() -> None:
    server = Server()
    board, descriptor = Board.create()
    os.close(descriptor)
    slot = board.use(0)
    recorder = Recorder(server, slot)
    assert server.counts is recorder.counts
    done = MadeHTTP().exchange
    done.disconnected()
    server.under_way = [MadeHTTP("POST").exchange, done, MadeWebSocket().exchange, MadeHTTP().exchange]
    recorder.counts.request(("GET", 200, 0.001, 0, 0))
    recorder.stop()
    assert (slot.gauges[IN_FLIGHT], slot.gauges[WEBSOCKETS]) == (2, 1)
    assert slot.counts[durations("GET", "2xx").start] == 1
    assert [each["method"] for each in json.loads(slot.text)] == ["POST", "GET"]


def test_at_most_three_are_shown_and_they_fit_whatever_the_client_has_sent() -> None:
    requests = [MadeHTTP("A" * 999).exchange for _ in range(5)]
    for each in requests:
        each.scope["raw_path"] = b'/"' * 500
        each.scope["query_string"] = b"password=secret"
        each.request_id = "a" * 128
    text = slowest(requests)
    assert len(text) <= 2046
    assert b"secret" not in text
    shown = json.loads(text)
    assert len(shown) == 3
    assert (len(shown[0]["method"]), shown[0]["path"][-3:], len(shown[0]["id"])) == (20, "...", 64)
