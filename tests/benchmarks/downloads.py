"""Large responses, read by blocking sockets in threads and thrown away inside the kernel.

wrk copies and parses every byte, which costs it as much as it costs a server to send them.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import ExitStack

from .frames import DEADLINE, MOST_OF_A_HEAD, expect
from .processes import LEAD, Usage
from .wrk import ClientFailed

__all__ = ["Download"]

#: How much is thrown away in one call; the memory behind it is never touched.
MOST_AT_ONCE = 1 << 20
#: How every response ends when its length is not told: the content is the letter x alone, so this is not in it.
LAST_CHUNK = b"\r\n0\r\n\r\n"

_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)


class Download:
    """``GET`` of a target again and again on each of ``connections``.

    :param size: bytes of the content, which is known beforehand.
    """

    def __init__(self, port: int, size: int, connections: int, target: str = "/") -> None:
        self.request = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (target.encode("ascii"), port)
        self.port = port
        self.size = size
        self.connections = connections
        self.times: list[float] = []
        #: Bytes of all responses, by connection, so that a response which is under way counts for what has come of it.
        self.come = [0] * connections
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self, pid: int, seconds: float) -> tuple[float, list[float], Usage, float]:
        """Responses, the seconds that each took, what the server used, and the CPU seconds of this process."""
        with ExitStack() as stack:
            stack.callback(self.over.set)
            sockets = [
                stack.enter_context(socket.create_connection(("127.0.0.1", self.port), DEADLINE))
                for _ in range(self.connections)
            ]
            threads = [threading.Thread(target=self._repeat, args=each, daemon=True) for each in enumerate(sockets)]
            for thread in threads:
                thread.start()
            self._pass(LEAD)
            before, usage, client = sum(self.come), Usage(pid), time.process_time()
            self._pass(seconds)
            # The machine may stand still for longer than a slice.
            end = time.monotonic() + DEADLINE
            while sum(self.come) == before and time.monotonic() < end:
                self._pass(LEAD)
            units, spent = (sum(self.come) - before) / self.size, time.process_time() - client
            usage.stop()
            self.over.set()
            for thread in threads:
                thread.join(DEADLINE)
        return units, self.times, usage, spent

    def one_by_one(self, pid: int, seconds: float) -> tuple[list[float], Usage, float]:
        """Whole responses, on one connection, until ``seconds`` are over: of each, the seconds until its content began;
        what the server used, and the CPU seconds of this process.

        A server may do all its work for a response before it sends any of it, so that a part of one tells nothing.
        """
        begins: list[float] = []
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as sock:
            buffer = bytearray(MOST_AT_ONCE)
            usage, client, end = Usage(pid), time.process_time(), time.monotonic() + seconds
            while not begins or time.monotonic() < end:
                asked = time.perf_counter()
                begins.append(self.once(0, sock, buffer) - asked)
            spent = time.process_time() - client
            usage.stop()
        return begins, usage, spent

    def _pass(self, seconds: float) -> None:
        if self.over.wait(seconds):
            raise ClientFailed(self.failures[0])

    def _repeat(self, number: int, sock: socket.socket) -> None:
        buffer = bytearray(MOST_AT_ONCE)
        try:
            while not self.over.is_set():
                begin = time.perf_counter()
                self.once(number, sock, buffer)
                self.times.append(time.perf_counter() - begin)
        except (ClientFailed, OSError) as error:
            self.failures.append(str(error) or repr(error))
            self.over.set()

    def once(self, number: int, sock: socket.socket, buffer: bytearray) -> float:
        """One request and all of its response, on the connection of that number; when its content began to come.

        :raises ClientFailed: a status other than 200, another length, or an end too early.
        """
        sock.sendall(self.request)
        begin = bytearray()
        while (end := begin.find(b"\r\n\r\n")) < 0:
            if len(begin) > MOST_OF_A_HEAD:
                raise ClientFailed("a response's head has no end")
            begin += _some(sock.recv(65536))
        expect(begin, 200)
        length = _LENGTH.search(begin, 0, end)
        if length and int(length[1]) != self.size:
            raise ClientFailed(f"a response of {int(length[1])} instead of {self.size} bytes")
        if len(begin) == end + 4:
            begin += _some(sock.recv(65536))
        begun = time.perf_counter()
        self.come[number] += len(begin) - end - 4
        self._skip(number, sock, buffer, self.size - (len(begin) - end - 4))
        if not length:
            self._find_end(sock, begin[end + 4 :])
        return begun

    def _skip(self, number: int, sock: socket.socket, buffer: bytearray, size: int) -> None:
        while size > 0:
            # tcp(7): with MSG_TRUNC the bytes are dropped, not copied.
            taken = sock.recv_into(buffer, min(size, MOST_AT_ONCE), socket.MSG_TRUNC)
            if not taken:
                raise ClientFailed(f"the server closed the connection {size} bytes before the end")
            self.come[number] += taken
            size -= taken

    def _find_end(self, sock: socket.socket, tail: bytearray) -> None:
        """Read what the chunks' own lines have made the response longer than its content."""
        while not tail.endswith(LAST_CHUNK):
            tail = tail[-len(LAST_CHUNK) :] + _some(sock.recv(65536))
            if len(tail) > self.size:
                raise ClientFailed("a response has no end")


def _some(data: bytes) -> bytes:
    if not data:
        raise ClientFailed("the server closed the connection in the middle of a response")
    return data
