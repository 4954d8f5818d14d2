"""How many clients wait to be accepted, as Linux tells it of a listening socket of TCP."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

__all__ = ["overflows", "write_queues"]

#: In the kernel's ``struct tcp_info``, where of a listening socket ``tcpi_unacked`` is the length of the queue, and
#: ``tcpi_sacked`` its limit.
_QUEUE = struct.Struct("=24x2I")
_NETSTAT = Path("/proc/net/netstat")


def write_queues(gauges: memoryview[float], sockets: Sequence[socket.socket | None]) -> None:
    """Write two numbers for each listening socket: how many connections wait, and how many may.

    :param sockets: None for one that is not known.
    """
    for at, sock in enumerate(sockets[: len(gauges) // 2]):
        gauges[2 * at], gauges[2 * at + 1] = _queue(sock)


def _queue(sock: socket.socket | None) -> tuple[int, int]:
    """Zeros where the system does not tell, and for a socket that is closed."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return 0, 0
    try:
        waiting, limit = _QUEUE.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size))
    except (OSError, struct.error):
        return 0, 0  # another system's tcp_info is another one
    return waiting, limit


def overflows(path: Path = _NETSTAT) -> int | None:
    """Connections that were lost because a queue was full, of any socket of the machine or container."""
    try:
        lines = [line.split() for line in path.read_text("ascii").splitlines() if line.startswith("TcpExt:")]
        return int(dict(zip(*lines[:2], strict=True))["ListenOverflows"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
