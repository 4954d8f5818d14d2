"""Messages between the supervisor, the nurseries and the workers: JSON, a line each, with descriptors if need be."""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from typing import Any, Self

__all__ = ["Channel", "Message"]

Message = dict[str, Any]

#: Bytes of a message; a longer text is cut by its sender. The kernel takes several of these for a peer that is busy.
MOST = 65536
#: Descriptors that come with one read: more messages that carry one fit into no read.
_MOST_DESCRIPTORS = 64


class Channel:
    """One end of a connection between two processes; never blocks.

    :param sock: a connected stream socket, which the channel owns from now on.
    :ivar open: False once the peer is gone, or has stopped to read.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.open = True
        self._sock = sock
        self._received = b""
        self._descriptors: deque[int] = deque()

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """A channel, and the socket for the channel of the process at the other end."""
        here, there = socket.socketpair()
        return cls(here), there

    def fileno(self) -> int:
        """The descriptor; -1 when the channel is closed."""
        return self._sock.fileno()

    def send(self, message: Message, *descriptors: int) -> None:
        """Send a message; it is lost when the peer is gone.

        A peer that has left so many messages unread that the kernel takes no more is given up.
        """
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
        # Half of a surrogate pair has no encoding, but JSON's escape for it is the same as Python's.
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            if self.open and socket.send_fds(self._sock, [data], descriptors) < len(data):
                self._give_up()
        except OSError:
            self._give_up()

    def receive(self) -> list[Message]:
        """The messages that have arrived; the last ones may come together with the end, see :attr:`open`."""
        while self.open:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._sock, MOST, _MOST_DESCRIPTORS)
            except BlockingIOError:
                break
            except OSError:
                data, descriptors = b"", []
            self._descriptors.extend(descriptors)
            self._received += data
            self.open = bool(data)
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def take_descriptor(self) -> int:
        """The oldest descriptor that has come with a message; the caller owns it."""
        descriptor = self._descriptors.popleft()
        os.set_inheritable(descriptor, False)
        return descriptor

    def close(self) -> None:
        """Close this end, so that the peer sees it."""
        self.open = False
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _give_up(self) -> None:
        # Not closed: whoever watches the descriptor learns of the end by reading.
        if self.open:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the peer was faster
