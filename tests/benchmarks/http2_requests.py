"""Requests that differ, over HTTP/2: several at a time on each connection, by epoll itself and without an event loop.

h2load sends the same fields in all requests. These differ as those of :mod:`.varied` do, and their blocks are made
beforehand: as those of a client whose table of HPACK knows none of the fields yet, and takes all of them in.
"""

from __future__ import annotations

import itertools
import select
import socket
import struct
import time
from contextlib import ExitStack

from hpack import Encoder

from .applications import varied_of
from .frames import DEADLINE
from .processes import Usage
from .requests import MOST_REQUESTS, measured
from .varied import Varied, any_number
from .wrk import ClientFailed

__all__ = ["Connection", "HTTP2Requests", "block_of", "open_connection"]

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_MOST_WINDOW = 2**31 - 1
#: SETTINGS_INITIAL_WINDOW_SIZE.
_WINDOW = 4

_head = struct.Struct("!IBI")


def _frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return _head.pack(len(payload) << 8 | kind, flags, number) + payload


#: Windows that no slice uses up, so that none has to be opened again.
_GREETING = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(_SETTINGS, 0, 0, struct.pack("!HI", _WINDOW, _MOST_WINDOW))
    + _frame(_WINDOW_UPDATE, 0, 0, struct.pack("!I", _MOST_WINDOW - 65535))
)


def block_of(message: bytes) -> bytes:
    """The block of a request's fields, from its text in HTTP/1.1. Any connection takes it: it refers to no table."""
    line, *lines = message.partition(b"\r\n\r\n")[0].split(b"\r\n")
    method, target, _ = line.split(b" ")
    fields = [tuple(line.split(b": ", 1)) for line in lines]
    host = next(value for name, value in fields if name == b"Host")
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", host), (b":path", target)]
    block: bytes = Encoder().encode([*pseudo, *((name.lower(), value) for name, value in fields if name != b"Host")])
    return block


class Connection:
    """A connection with what is under way on it.

    :ivar under_way: of each stream: the bytes of content that are still to come, and when it was asked for.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.part = b""
        self.next = 1
        self.under_way: dict[int, tuple[int, float]] = {}

    def ask(self, asked: list[tuple[bytes, int]]) -> None:
        """Send requests, each a block and the length of the content that it has to be answered with."""
        frames, now = [], time.perf_counter()
        for block, length in asked:
            frames.append(_frame(_HEADERS, _END_STREAM | _END_HEADERS, self.next, block))
            self.under_way[self.next] = length, now
            self.next += 2
        self.send(b"".join(frames))

    def send(self, data: bytes) -> None:
        # The socket holds little else, so that there is room.
        if self.sock.send(data) != len(data):
            raise ClientFailed("requests were not taken whole")

    def received(self) -> list[float]:
        """Read once; the moments at which the requests were made that are answered now.

        :raises ClientFailed: an answer has not the length that it has to have, or the connection was closed.
        """
        data = self.sock.recv(262144)
        if not data:
            raise ClientFailed("the server closed a connection")
        data = self.part + data
        at, end, begun = 0, len(data), []
        while end - at >= 9:
            word, flags, number = _head.unpack_from(data, at)
            stop = at + 9 + (word >> 8)
            if stop > end:
                break
            kind = word & 255
            if kind <= _HEADERS:
                missing, since = self.under_way[number]
                missing -= word >> 8 if kind == _DATA else 0
                if not flags & _END_STREAM:
                    self.under_way[number] = missing, since
                elif missing:
                    raise ClientFailed(f"{missing} bytes of an answer are missing")
                else:
                    del self.under_way[number]
                    begun.append(since)
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                self.send(_frame(kind, _ACK, 0, data[at + 9 : stop] if kind == _PING else b""))
            elif kind in (_RESET, _GOAWAY):
                raise ClientFailed(f"a frame of type {kind}: {data[at + 9 : stop]!r}")
            at = stop
        self.part = data[at:]
        return begun


def open_connection(port: int) -> Connection:
    """A connection that has greeted the server."""
    sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_GREETING)
    return Connection(sock)


class HTTP2Requests:
    """``streams`` requests are under way on each of ``connections``."""

    def __init__(self, port: int, connections: int = 8, streams: int = 16) -> None:
        self.port = port
        self.connections = connections
        self.streams = streams
        first, host, request = any_number(), f"127.0.0.1:{port}", Varied(varied_of)
        numbers = range(first, first + MOST_REQUESTS)
        self.asked = itertools.cycle([(block_of(request.message(n, host)), len(request.expected(n))) for n in numbers])
        self.open: dict[int, Connection] = {}
        self.times: list[float] = []

    def run(self, pid: int, seconds: float) -> tuple[float, list[float], Usage, float]:
        """Requests, the seconds that each took, what the server used, and the CPU seconds of this process."""
        with ExitStack() as stack:
            self.open = {}
            self.poll = stack.enter_context(select.epoll())
            for _ in range(self.connections):
                connection = open_connection(self.port)
                stack.enter_context(connection.sock)
                connection.sock.setblocking(False)
                self.open[connection.sock.fileno()] = connection
                self.poll.register(connection.sock, select.EPOLLIN)
                connection.ask(list(itertools.islice(self.asked, self.streams)))
            return measured(pid, seconds, self.times, self._pass)

    def _pass(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for number, _ in self.poll.poll(left):
                connection = self.open[number]
                begun = connection.received()
                if begun:
                    now = time.perf_counter()
                    self.times += [now - since for since in begun]
                    connection.ask(list(itertools.islice(self.asked, len(begun))))
