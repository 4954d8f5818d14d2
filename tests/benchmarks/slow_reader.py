"""A client that reads a large response slowly: what the server keeps of it shows in its memory."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

from .frames import DEADLINE
from .processes import memory_bytes
from .wrk import ClientFailed

__all__ = ["growth"]

#: Seconds that it reads slowly, from the first piece on, and how much how often.
SLOW = 1.5
PIECE = 65536
PAUSE = 0.05
#: How much it reads at a time of the rest, which is read to see whether all of it comes.
REST = 1 << 20


def growth(port: int, pid: int, target: str, size: int) -> int:
    """By how many bytes the server ``pid`` grows at most while one client reads ``target`` slowly.

    :param size: of the content, which is the letter x alone.
    :raises ClientFailed: the response is no success, ends too early, or has another content.
    """
    before = peak = memory_bytes(pid)
    taken = 0
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii"))
        with contextlib.closing(http.client.HTTPResponse(sock)) as response:
            try:
                response.begin()
                if response.status != 200:
                    raise ClientFailed(f"expected 200, got {response.status} {response.reason}")
                end = 0.0
                while piece := response.read(REST if end and time.monotonic() > end else PIECE):
                    end = end or time.monotonic() + SLOW
                    if piece.count(b"x") != len(piece):
                        raise ClientFailed("something else than what the application sends")
                    taken += len(piece)
                    if time.monotonic() < end:
                        peak = max(peak, memory_bytes(pid))
                        time.sleep(PAUSE)
            except http.client.HTTPException as error:
                raise ClientFailed(f"no whole response: {error!r}") from error
    if taken != size:
        raise ClientFailed(f"{taken} of {size} bytes came")
    return peak - before
