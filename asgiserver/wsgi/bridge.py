"""Between the event loop, where a request's ``receive`` and ``send`` run, and the thread of its WSGI application."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import io
import logging
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from ..asgi.interfaces import Message, Receive, Send
from ..errors import ClientDisconnected

__all__ = ["Bridge", "RestOfBody"]

logger = logging.getLogger("asgiserver")

#: Bytes of a response that may wait for the loop before the thread has to wait: several blocks of the usual sizes.
_AHEAD = 262144

#: Several waiting blocks that are smaller on average are joined, to be one message of ASGI; bytes.
_SMALL = 8192

#: Bytes that a block counts for besides its own, so that the number of tiny blocks is bounded too.
_OVERHEAD = 64


class Bridge:
    """Carries one request's messages; made on the loop.

    :param name: the request's target, for the log.
    """

    def __init__(self, receive: Receive, send: Send, name: str) -> None:
        self._receive = receive
        self._send = send
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._abandoned = False
        #: Guards the attributes below; notifies a thread that waits.
        self._room = threading.Condition(threading.Lock())
        self._head: Message | None = None
        self._blocks: list[bytes] = []
        self._file: Message | None = None
        self._more = True
        self._waiting = 0
        self._failure: Exception | None = None

    # On the loop.

    async def run(self, function: Callable[..., None], *arguments: object) -> None:
        """Call ``function`` on a thread of the default executor, and send what it puts.

        ``function`` sees the context variables of its request. A cancellation does not end the thread, but the next
        ``put`` or read there raises ClientDisconnected.

        :raises Exception: what ``function`` or ``send`` raises.
        """
        context = contextvars.copy_context()
        done = self._loop.run_in_executor(None, context.run, self._work, function, *arguments)
        done.add_done_callback(lambda _: self._changed.set())
        try:
            ended = False
            while not ended:
                await self._changed.wait()
                self._changed.clear()
                # Asked before blocks are taken: a thread puts its last block before it ends.
                ended = done.done()
                while self._blocks or self._file:
                    await self._forward()
                    if self._blocks:
                        # A client that takes all at once never makes send() wait, and other tasks want their turn.
                        await asyncio.sleep(0)
        except BaseException:
            self._abandoned = True
            self._fail(ClientDisconnected("the request was cancelled"))
            done.cancel()
            if self._file is not None:
                self._file["file"].close()
            raise
        done.result()
        if self._failure is not None:
            raise self._failure

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
        if self._failure is None:
            try:
                await self._send(message)
            except Exception as error:  # noqa: BLE001 - raised in the thread, and by run()
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._room:
            self._failure = error
            self._room.notify_all()

    # In the thread.

    def _work(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except (StopIteration, concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            # No future can hold a StopIteration. A CancelledError, from a future of the application's, would look like
            # a cancelled request, whose end is logged without a traceback.
            raise RuntimeError(f"the application raised {type(error).__name__}") from error
        except Exception as error:
            if self._abandoned and not isinstance(error, ClientDisconnected):
                # Nobody waits for the end of this thread any more.
                logger.exception("Exception in the application for %r, whose request was cancelled", self._name)
            raise

    def put(self, head: Message | None, block: bytes, more: bool) -> None:
        """Have a block sent, after ``head``, an ``http.response.start``, if given; wait while much waits already.

        :raises Exception: the exception of an earlier ``send``; ClientDisconnected when the client has left.
        """
        with self._room:
            self._wait_for_room()
            idle = not self._blocks
            self._head = head or self._head
            self._blocks.append(block)
            self._more = more
            self._waiting += len(block) + _OVERHEAD
        if idle:
            self._loop.call_soon_threadsafe(self._changed.set)

    def put_file(self, head: Message | None, file: io.FileIO, offset: int, count: int) -> None:
        """Have a part of a regular file sent, which ends the response; else as :meth:`put`.

        The part is sent by a descriptor of its own, so that the thread need not wait before it closes ``file``.
        """
        with self._room:
            self._wait_for_room()
            copy = io.FileIO(os.dup(file.fileno()))
            self._head = head or self._head
            self._file = {"type": "http.response.zerocopysend", "file": copy, "offset": offset, "count": count}
        self._loop.call_soon_threadsafe(self._changed.set)

    def _wait_for_room(self) -> None:
        while self._failure is None and self._waiting > _AHEAD:
            self._room.wait()
        if self._failure is not None:
            raise self._failure

    def receive(self) -> Message:
        """The next ``http.request``; waits for it.

        :raises ClientDisconnected: the client has left before the end of its request.
        """

        async def receive() -> Message:
            return await self._receive()

        message = asyncio.run_coroutine_threadsafe(receive(), self._loop).result()
        if message["type"] != "http.request":
            self._fail(ClientDisconnected("the client has left before the end of its request"))
        if self._failure is not None:
            raise self._failure
        return message


class RestOfBody(io.RawIOBase):
    """A request's body of which only the beginning has come, for ``io.BufferedReader``.

    :param receive: gives the next ``http.request``; may raise an OSError.
    """

    def __init__(self, beginning: bytes, receive: Callable[[], Message]) -> None:
        self._piece = memoryview(beginning)
        self._receive = receive
        self._more = True

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See ``io.RawIOBase``; 0 at the end of the body."""
        while not self._piece and self._more:
            message = self._receive()
            self._piece, self._more = memoryview(message.get("body", b"")), message.get("more_body", False)
        size = min(len(buffer), len(self._piece))
        buffer[:size], self._piece = self._piece[:size], self._piece[size:]
        return size
