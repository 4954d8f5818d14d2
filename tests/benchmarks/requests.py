"""Requests that differ, on plain sockets: TCP, or unix sockets, of which wrk knows nothing.

Driven by epoll itself, without an event loop, and with requests that are made beforehand, this client needs less CPU
for a request than any server does.
"""

from __future__ import annotations

import itertools
import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from .applications import varied_of
from .frames import DEADLINE
from .processes import LEAD, Usage
from .varied import Varied, any_number
from .wrk import ClientFailed

__all__ = ["MOST_REQUESTS", "Requests", "measured"]

#: The number of requests that are made before a slice; a slice of a few seconds begins anew with the first.
MOST_REQUESTS = 10_000

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def measured(
    pid: int, seconds: float, times: list[float], go: Callable[[float], None]
) -> tuple[float, list[float], Usage, float]:
    """A slice: requests, the seconds that each took, what the server used, and the CPU seconds of this process.

    :param times: to which ``go`` adds those of each answer.
    :param go: sends and receives for so many seconds.
    """
    go(LEAD)
    times.clear()
    usage, client = Usage(pid), time.process_time()
    go(seconds)
    # The machine may stand still for longer than a slice.
    end = time.monotonic() + DEADLINE
    while not times and time.monotonic() < end:
        go(LEAD)
    spent = time.process_time() - client
    usage.stop()
    return len(times), [*times], usage, spent


class Requests:
    """One request is under way on each of ``connections``.

    :param path: of a unix socket that is connected to, instead of ``port``.
    """

    def __init__(self, port: int, path: str = "", connections: int = 32) -> None:
        self.address = path or ("127.0.0.1", port)
        self.family = socket.AF_UNIX if path else socket.AF_INET
        self.connections = connections
        first, host, request = any_number(), f"127.0.0.1:{port}", Varied(varied_of)
        self.messages = itertools.cycle([request.message(first + n, host) for n in range(MOST_REQUESTS)])
        self.sockets: dict[int, socket.socket] = {}
        #: The beginnings of answers that have not come whole, by file descriptor.
        self.parts: dict[int, bytes] = {}
        self.sent: dict[int, float] = {}
        self.times: list[float] = []

    def run(self, pid: int, seconds: float) -> tuple[float, list[float], Usage, float]:
        """Requests, the seconds that each took, what the server used, and the CPU seconds of this process."""
        with ExitStack() as stack:
            self.poll = stack.enter_context(select.epoll())
            for _ in range(self.connections):
                sock = stack.enter_context(socket.socket(self.family))
                sock.settimeout(DEADLINE)
                sock.connect(self.address)
                self._add(sock)
            return measured(pid, seconds, self.times, self._pass)

    def _add(self, sock: socket.socket) -> None:
        if self.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.sockets[sock.fileno()] = sock
        self.poll.register(sock, select.EPOLLIN)
        self._ask(sock.fileno(), sock)

    def _ask(self, number: int, sock: socket.socket) -> None:
        message = next(self.messages)
        self.sent[number] = time.perf_counter()
        # The socket holds nothing else, so that there is room.
        if sock.send(message) != len(message):
            raise ClientFailed("a request was not taken whole")

    def _pass(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for number, _ in self.poll.poll(left):
                self._answered(number, self.sockets[number])

    def _answered(self, number: int, sock: socket.socket) -> None:
        """Ask for the next one, once all of an answer has come.

        :raises ClientFailed: it is no success, is framed otherwise than by its length, or the connection was closed.
        """
        data = sock.recv(65536)
        if not data:
            raise ClientFailed("the server closed a connection")
        data = self.parts.pop(number, b"") + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            length = _LENGTH.search(data, 0, end)
            if length is None or not data.startswith(b"HTTP/1.1 200 "):
                raise ClientFailed(f"an answer that begins with {data[:40]!r}")
            missing = end + 4 + int(length[1]) - len(data)
            if missing < 0:
                raise ClientFailed("more came than the answer's length says")
            if missing == 0:
                self.times.append(time.perf_counter() - self.sent[number])
                return self._ask(number, sock)
        self.parts[number] = data
        return None
