"""The way of a response from the thread of a synchronous application to the event loop, and of back-pressure back.

The thread puts blocks; it waits while the client is slow, and is told when the client has left. The loop forwards the
blocks as messages of ASGI. What runs in the thread, and who runs it, the pipe does not know.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import os
import stat
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from .asgi.interfaces import Message, Send
from .errors import ClientDisconnected

__all__ = ["NOT_FOR_TASKS", "Pipe", "for_a_future", "regular_part"]

#: Bytes of a response that may wait for the loop before the thread has to wait: several blocks of the usual sizes.
_AHEAD = 524288

#: Several waiting blocks that are smaller on average are joined, to be one message of ASGI; bytes.
_SMALL = 8192

#: Bytes that a block counts for besides its own, so that the number of tiny blocks is bounded too.
_OVERHEAD = 64

#: No future of asyncio ends with the first, and the second closes the coroutine that waits.
NOT_FOR_TASKS = (StopIteration, GeneratorExit)


class Pipe:
    """Carries the messages of one response; made on the loop.

    :param send: ASGI's ``send`` of the request.
    :param noticed: called on the loop after the thread has called :meth:`notify` or has put something.
    :ivar failure: what ends the response early: an exception of ``send``, or ClientDisconnected.
    """

    def __init__(self, send: Send, noticed: Callable[[], None] | None = None) -> None:
        self.failure: Exception | None = None
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._noticed = noticed
        self._notified = False
        #: Guards the attributes below; notifies a thread that waits.
        self._room = threading.Condition(threading.Lock())
        self._head: Message | None = None
        self._blocks: list[bytes] = []
        self._file: Message | None = None
        self._more = True
        self._waiting = 0

    # On the loop.

    @property
    def waiting(self) -> bool:
        """Something waits to be sent."""
        return bool(self._blocks or self._file)

    async def changed(self) -> None:
        """Wait for :meth:`wake`, or for something new of the thread's."""
        await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """Let :meth:`changed` return."""
        self._changed.set()

    def _notice(self) -> None:
        # First of all: what the thread does after this tells the loop anew.
        self._notified = False
        if self._noticed is not None:
            self._noticed()
        self._changed.set()

    async def forward(self) -> None:
        """Send all that waits, and what comes meanwhile; an exception of ``send`` becomes :attr:`failure`."""
        while self.waiting:
            await self._forward()
            if self._blocks:
                # A client that takes all at once never makes send() wait, and other tasks want their turn.
                await asyncio.sleep(0)

    async def _forward(self) -> None:
        """Send the blocks that wait; then let a waiting thread go on."""
        with self._room:
            head, blocks, file, more = self._head, self._blocks, self._file, self._more
            self._head, self._blocks, self._file, taken = None, [], None, self._waiting
        if len(blocks) > 1 and taken < len(blocks) * _SMALL:
            blocks = [b"".join(blocks)]
        with file["file"] if file is not None else nullcontext():
            if head is not None:
                await self._pass_on(head)
            for number, block in enumerate(blocks, 1):
                last = not more and number == len(blocks)
                await self._pass_on({"type": "http.response.body", "body": block, "more_body": not last})
            if file is not None:
                await self._pass_on(file)
        with self._room:
            self._waiting -= taken
            self._room.notify_all()

    async def _pass_on(self, message: Message) -> None:
        if self.failure is None:
            try:
                await self._send(message)
            except Exception as error:  # noqa: BLE001 - raised in the thread, and by the owner of the pipe
                self.fail(error)

    def close(self) -> None:
        """Drop what waits; nothing is forwarded any more, and nobody is told."""
        # Else the pipe and its owner would be a cycle, which only the garbage collector finds.
        self._noticed = None
        with self._room:
            file = self._file
            self._blocks, self._file = [], None
        if file is not None:
            file["file"].close()

    # Anywhere.

    def fail(self, error: Exception) -> None:
        """Send nothing more, and let the thread's next :meth:`put` raise ``error``; an earlier error stays."""
        with self._room:
            self.failure = self.failure or error
            self._room.notify_all()

    # In the thread.

    def put(self, head: Message | None, block: bytes, more: bool, *, wait: bool = True) -> None:
        """Have a block sent, after ``head``, an ``http.response.start``, if given.

        :param wait: wait while much waits already.
        :raises Exception: the exception of an earlier ``send``; ClientDisconnected when the client has left.
        """
        with self._room:
            self._wait_for_room(wait)
            self._head = head or self._head
            self._blocks.append(block)
            self._more = more
            self._waiting += len(block) + _OVERHEAD
        self.notify()

    def put_file(self, head: Message | None, file: io.FileIO, offset: int, count: int) -> None:
        """Have a part of a regular file sent, which ends the response; else as :meth:`put`.

        The part is sent by a descriptor of its own, so that the thread need not wait before it closes ``file``.
        """
        with self._room:
            self._wait_for_room(wait=True)
            copy = io.FileIO(os.dup(file.fileno()))
            self._head = head or self._head
            self._file = {"type": "http.response.zerocopysend", "file": copy, "offset": offset, "count": count}
        self.notify()

    def _wait_for_room(self, wait: bool) -> None:
        while wait and self.failure is None and self._waiting > _AHEAD:
            self._room.wait()
        if self.failure is not None:
            raise self.failure

    def notify(self) -> None:
        """Tell the loop that there is something new; what it has not noticed yet it notices together with this."""
        if self._notified:
            return
        self._notified = True
        try:
            self._loop.call_soon_threadsafe(self._notice)
        except RuntimeError:
            # The loop is closed, and with it the connection.
            self.fail(ClientDisconnected("the server has stopped"))


def for_a_future(error: BaseException) -> BaseException:
    """An exception of a thread as a future may hold it, without cancelling the task that waits.

    A CancelledError of the application's would look like a cancelled request, whose end is logged without a traceback.
    """
    if not isinstance(error, (*NOT_FOR_TASKS, concurrent.futures.CancelledError, asyncio.CancelledError)):
        return error
    raised = RuntimeError(f"the application raised {type(error).__name__}")
    raised.__cause__ = error
    return raised


def regular_part(file: Any) -> tuple[io.FileIO, int, int] | None:
    """The rest of an open regular file, as descriptor, offset and size, if reads would give just these bytes.

    :return: None for any other object, and when no byte is left.
    """
    # A file of another type, such as gzip's, reads other bytes than its descriptor has.
    raw = file.raw if type(file) is io.BufferedReader else file
    if type(raw) is not io.FileIO:
        return None
    status = os.fstat(raw.fileno())
    if not stat.S_ISREG(status.st_mode):
        # A pipe, such as a program's output, has no position to ask for.
        return None
    offset = file.tell()
    size = status.st_size - offset
    return (raw, offset, size) if size > 0 else None
