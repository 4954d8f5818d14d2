"""How many clients wait to be accepted, as Linux tells it of a listening socket of TCP."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

__all__ = ["listen_queue", "overflows"]

#: In the kernel's ``struct tcp_info``, where of a listening socket ``tcpi_unacked`` is the length of the queue, and
#: ``tcpi_sacked`` its limit.
_QUEUE = struct.Struct("=24x2I")
_NETSTAT = Path("/proc/net/netstat")


def listen_queue(sock: socket.socket) -> tuple[int, int] | None:
    """The connections that wait on a listening socket, and how many may; None where the system does not tell."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        waiting, limit = _QUEUE.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size))
    except (OSError, struct.error):
        return None  # another system's tcp_info is another one
    return waiting, limit


def overflows(path: Path = _NETSTAT) -> int | None:
    """Connections that were lost because a queue was full, of any socket of the machine or container."""
    try:
        lines = [line.split() for line in path.read_text("ascii").splitlines() if line.startswith("TcpExt:")]
        return int(dict(zip(*lines[:2], strict=True))["ListenOverflows"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
