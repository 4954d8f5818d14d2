"""The numbers of one process that only rise, as one list: a place for each series.

Names are those of OpenTelemetry's HTTP conventions where it has any, and so are the bounds of the durations.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final, NamedTuple

__all__ = [
    "CLASSES", "COUNTERS", "DELAYS", "DURATIONS", "IN_FLIGHT", "LOOP_DELAY", "METHODS", "WEBSOCKETS", "Counter",
    "Counts", "delays", "durations", "place",
]  # fmt: skip

#: Those of RFC 9110 and 5789; any other method, which a client may make up, counts as the last one.
METHODS: Final = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "other")
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
#: The upper bounds of the buckets, in seconds; the last bucket has none.
DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
DELAYS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counter(NamedTuple):
    """A counter.

    :param text: what it counts.
    :param label: the name of its label; empty for none.
    :param values: the label's; each one is a series.
    """

    text: str
    label: str = ""
    values: tuple[str, ...] = ("",)


#: By their names without ``asgiserver_`` and ``_total``. The last two are the supervisor's.
COUNTERS: Final = {
    "http_request_bytes": Counter("Bytes of requests' bodies."),
    "http_response_bytes": Counter("Bytes of responses' bodies."),
    "rejected": Counter(
        "Connections and requests that were turned away before an application was asked.", "reason",
        ("bad_request", "body", "concurrency", "connections", "head", "stopping", "target", "timeout"),
    ),
    "connections": Counter("Connections that were accepted."),
    "connections_deferred": Counter("Pauses in which a worker left new connections to those that have fewer."),
    "websockets": Counter("Handshakes of WebSockets.", "outcome", ("accepted", "rejected")),
    "websocket_messages": Counter("Messages of WebSockets.", "direction", ("in", "out")),
    "websocket_close": Counter(
        "WebSockets that have ended; 1006 for one without a close frame.", "code",
        (*(str(code) for code in range(1000, 1016)), "other"),
    ),
    "application_exceptions": Counter(
        "Exceptions of the application, and answers that it owes.", "kind", ("http", "websocket", "lifespan")
    ),
    "application_cancelled": Counter("Applications that were cancelled, or cancelled themselves."),
    "worker_exits": Counter(
        "Workers that have ended.", "why", ("asked", "died", "failed", "late", "replaced", "silent")
    ),
    "reloads": Counter("Times that the code was to be loaded anew.", "outcome", ("failure", "success")),
}  # fmt: skip

#: The places of the numbers of a process that also fall.
IN_FLIGHT, WEBSOCKETS, LOOP_DELAY = range(3)

#: Places of a histogram: one for each bucket, and the sum.
_DURATION_WIDTH, _DELAY_WIDTH = len(DURATIONS) + 2, len(DELAYS) + 2
_DELAYS_AT = len(METHODS) * len(CLASSES) * _DURATION_WIDTH
_COUNTERS_AT = _DELAYS_AT + _DELAY_WIDTH
_SIZES = [len(counter.values) for counter in COUNTERS.values()]
_PLACES = dict(zip(COUNTERS, accumulate(_SIZES, initial=_COUNTERS_AT), strict=False))
_SIZE = _COUNTERS_AT + sum(_SIZES)


def place(name: str, value: str = "") -> int:
    """Where a series of a counter stands; KeyError or ValueError when there is none."""
    return _PLACES[name] + COUNTERS[name].values.index(value)


def durations(method: str, kind: str) -> slice:
    """Where the durations of requests stand: a count for each bucket, then the sum in seconds."""
    at = (METHODS.index(method) * len(CLASSES) + CLASSES.index(kind)) * _DURATION_WIDTH
    return slice(at, at + _DURATION_WIDTH)


def delays() -> slice:
    """Where the delays of the event loop stand, in the same way."""
    return slice(_DELAYS_AT, _COUNTERS_AT)


#: The first place of a method's durations, and that of a status behind it: looked up, which takes less time than to
#: compute it. No status above 599 has a meaning (RFC 9110 §15), but an application may send one.
_METHOD_AT = {method: durations(method, CLASSES[0]).start for method in METHODS}
_OTHER = _METHOD_AT["other"]
_STATUS_AT = [(min(max(status // 100, 1), len(CLASSES)) - 1) * _DURATION_WIDTH for status in range(1000)]
_SUM = _DURATION_WIDTH - 1
_REQUEST_BYTES, _RESPONSE_BYTES = place("http_request_bytes"), place("http_response_bytes")
_IN, _OUT = place("websocket_messages", "in"), place("websocket_messages", "out")
_CONNECTIONS = place("connections")
_REASONS = {408: "timeout", 413: "body", 414: "target", 431: "head"}


class Counts:
    """The counts of a process.

    :ivar values: all of them, once they are settled; seconds are fractions, all else is whole.
    :ivar request: takes a request that is over, with its response or because its client has left (499): its method, its
        status, the seconds from its head to the end of its response, as far as the server handed that over, the bytes
        of its body, and those of the response's.
    """

    __slots__ = ("_requests", "request", "values")

    def __init__(self) -> None:
        self.values: list[float] = [0.0] * _SIZE
        # One after the other: as tuples they would be a load for the garbage collector.
        self._requests: list[Any] = []
        self.request: Callable[[tuple[str, int, float, int, int]], None] = self._requests.extend

    def settle(self) -> None:
        """Count the requests since the last time.

        For many at a time, as that costs each of them less.
        """
        values, parts = self.values, iter(self._requests)
        request_bytes = response_bytes = 0
        for method, status, seconds, received, sent in zip(parts, parts, parts, parts, parts, strict=True):
            at = _METHOD_AT.get(method, _OTHER) + _STATUS_AT[status]
            values[at + bisect_left(DURATIONS, seconds)] += 1.0
            values[at + _SUM] += seconds
            request_bytes += received
            response_bytes += sent
        values[_REQUEST_BYTES] += request_bytes
        values[_RESPONSE_BYTES] += response_bytes
        self._requests.clear()

    def connection(self) -> None:
        """A connection was accepted."""
        self.values[_CONNECTIONS] += 1.0

    def message_received(self) -> None:
        """A WebSocket's message has come."""
        self.values[_IN] += 1.0

    def message_sent(self) -> None:
        """A WebSocket's message goes out."""
        self.values[_OUT] += 1.0

    def websocket(self, action: str, code: int | None) -> None:
        """An event of a WebSocket, in the words of the access log; ``code`` is that of its end."""
        if action == "connected":
            self.add("websockets", "accepted")
        elif action == "rejected":
            self.add("websockets", "rejected")
        elif action == "disconnected":
            self.add("websocket_close", str(code) if code is not None and 1000 <= code <= 1015 else "other")

    def refused(self, status: int, *, stopping: bool) -> None:
        """A request was refused with this status; one that is only sent elsewhere is not."""
        if status >= 400:
            busy = "stopping" if stopping else "concurrency"
            self.add("rejected", busy if status == 503 else _REASONS.get(status, "bad_request"))

    def loop_delay(self, seconds: float) -> None:
        """A timer of the event loop was late by so much."""
        self.values[_DELAYS_AT + bisect_left(DELAYS, seconds)] += 1.0
        self.values[_COUNTERS_AT - 1] += seconds

    def add(self, name: str, value: str = "") -> None:
        """Count one for a series of :data:`COUNTERS`."""
        self.values[place(name, value)] += 1.0
