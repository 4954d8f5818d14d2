"""Writes what a process counts, and what it does at the moment, to the board: once a second, and at its end."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

from ..asgi.http import HTTPExchange
from .counts import Counts

if TYPE_CHECKING:
    from ..hub import Hub
    from ..workers.board import Slot

__all__ = ["Recorder", "slowest"]

#: Seconds between two looks at how late the event loop is, and how many of these make a second.
_LOOK: Final = 0.25
_LOOKS: Final = 4
#: Requests under way that are shown, and characters of each: all of them have to fit into a slot's text.
_SLOWEST: Final = 3
_METHOD, _PATH, _ID = 20, 200, 64


class Recorder:
    """Counts what a hub does.

    :param hub: it is given its counts here.
    :param slot: where they are written.
    """

    def __init__(self, hub: Hub, slot: Slot) -> None:
        self.counts = hub.counts = Counts()
        self._hub = hub
        self._slot = slot
        self._looks = 0
        #: The longest delays of this second and of the one before.
        self._due = self._worst = self._before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to write, on the loop that serves."""
        self._due = time.monotonic() + _LOOK
        self._timer = loop.call_later(_LOOK, self._look, loop)

    def stop(self) -> None:
        """Write for the last time."""
        if self._timer is not None:
            self._timer.cancel()
        self.write()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        # Timers are rounded, so one may come somewhat early.
        late = max(0.0, time.monotonic() - self._due)
        self.counts.loop_delay(late)
        self.counts.settle()
        self._worst = max(self._worst, late)
        self._looks += 1
        if self._looks == _LOOKS:
            self._looks, self._before, self._worst = 0, self._worst, 0.0
            self.write()
        self.start(loop)

    def write(self) -> None:
        """Write all that is known now."""
        exchanges = [exchange for exchange in self._hub.exchanges if not exchange.finished]
        requests = [exchange for exchange in exchanges if isinstance(exchange, HTTPExchange)]
        gauges = [len(requests), len(exchanges) - len(requests), max(self._before, self._worst)]
        self.counts.settle()
        self._slot.write(self.counts.values, gauges)
        self._slot.connections = len(self._hub.connections)
        self._slot.text = slowest(requests)


def slowest(requests: list[HTTPExchange]) -> bytes:
    """Those requests that have been under way for the longest, in JSON; without queries, which may hold secrets.

    :param requests: the oldest first.
    """
    return json.dumps([_told(each) for each in requests[:_SLOWEST]], separators=(",", ":")).encode("ascii")


def _told(exchange: HTTPExchange) -> dict[str, Any]:
    path = exchange.scope["raw_path"].decode("ascii")
    return {
        "method": exchange.scope["method"][:_METHOD],
        "path": path if len(path) <= _PATH else f"{path[:_PATH]}...",
        "age": exchange.age,
        "id": exchange.request_id[:_ID],
    }
