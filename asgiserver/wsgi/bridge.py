"""Between the event loop, where a request's ``receive`` and ``send`` run, and the thread of its WSGI application."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
from collections.abc import Callable
from typing import Any

from ..asgi.interfaces import Message, Receive, Send
from ..errors import ClientDisconnected
from ..pipe import Pipe, for_a_future

__all__ = ["Bridge", "RestOfBody"]

logger = logging.getLogger("asgiserver")


class Bridge:
    """Carries one request's messages; made on the loop.

    :param name: the request's target, for the log.
    :ivar pipe: the way of the response.
    """

    def __init__(self, receive: Receive, send: Send, name: str) -> None:
        self.pipe = Pipe(send)
        self._receive = receive
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._abandoned = False

    # On the loop.

    async def run(self, function: Callable[..., None], *arguments: object) -> None:
        """Call ``function`` on a thread of the default executor, and send what it puts.

        ``function`` sees the context variables of its request. A cancellation does not end the thread, but the next
        ``put`` or read there raises ClientDisconnected.

        :raises Exception: what ``function`` or ``send`` raises.
        """
        pipe, context = self.pipe, contextvars.copy_context()
        done = self._loop.run_in_executor(None, context.run, self._work, function, *arguments)
        done.add_done_callback(lambda _: pipe.wake())
        try:
            ended = False
            while not ended:
                await pipe.changed()
                # Asked before blocks are taken: a thread puts its last block before it ends.
                ended = done.done()
                await pipe.forward()
        except BaseException:
            self._abandoned = True
            pipe.fail(ClientDisconnected("the request was cancelled"))
            done.cancel()
            pipe.close()
            raise
        done.result()
        if pipe.failure is not None:
            raise pipe.failure

    # In the thread.

    def _work(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            if (raised := for_a_future(error)) is not error:
                raise raised from error
            if self._abandoned and isinstance(error, Exception) and not isinstance(error, ClientDisconnected):
                # Nobody waits for the end of this thread any more.
                logger.exception("Exception in the application for %r, whose request was cancelled", self._name)
            raise

    def receive(self) -> Message:
        """The next ``http.request``; waits for it.

        :raises ClientDisconnected: the client has left before the end of its request.
        """

        async def receive() -> Message:
            return await self._receive()

        message = asyncio.run_coroutine_threadsafe(receive(), self._loop).result()
        if message["type"] != "http.request":
            self.pipe.fail(ClientDisconnected("the client has left before the end of its request"))
        if self.pipe.failure is not None:
            raise self.pipe.failure
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
