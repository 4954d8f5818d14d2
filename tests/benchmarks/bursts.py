"""Many requests at once, each on a connection of its own, until the last one is answered."""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack

from .frames import DEADLINE
from .processes import LEAD
from .wrk import ClientFailed

__all__ = ["burst"]


def burst(port: int, target: str, answer: bytes, requests: int) -> float:
    """Seconds from the first request to the last answer.

    :param answer: the whole body of each.
    :raises ClientFailed: one is another, or none, within the deadline.
    """
    message = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii")
    with ExitStack() as stack:
        sockets = {}
        for _ in range(requests):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))
            sockets[sock.fileno()] = sock
        poll = stack.enter_context(select.epoll())
        for number in sockets:
            poll.register(number, select.EPOLLIN)
        # The server accepts them meanwhile.
        time.sleep(LEAD)
        begin = time.perf_counter()
        for sock in sockets.values():
            sock.sendall(message)
        parts = dict.fromkeys(sockets, b"")
        while parts:
            ready = poll.poll(max(0.0, begin + DEADLINE - time.perf_counter()))
            if not ready:
                raise ClientFailed(f"{len(parts)} of {requests} requests are not answered within {DEADLINE:g} s")
            for number, _ in ready:
                data = sockets[number].recv(65536)
                if not data:
                    raise ClientFailed("the server closed a connection")
                parts[number] += data
                if _is_whole(parts[number], answer):
                    del parts[number]
                    poll.unregister(number)
        return time.perf_counter() - begin


def _is_whole(data: bytes, answer: bytes) -> bool:
    """:raises ClientFailed: it is no success, or has another body."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(b"HTTP/1.1 200 ") or not answer.startswith(body):
        raise ClientFailed(f"an answer that begins with {data[:40]!r} and ends with {body[-40:]!r}")
    return body == answer
