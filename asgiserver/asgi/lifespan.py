"""The application's lifespan: start-up before the first connection, shutdown after the last (Lifespan 2.0).

The application runs as one task from start-up to shutdown. The table ``_ANSWERS`` has the messages that it may send in
each phase, and the phase that follows; any other pair is the application's mistake and raises inside its ``send()``.
Except KeyboardInterrupt, no exception of the application leaves the task: each becomes a phase and, where somebody must
know, one log record.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from contextvars import Context
from enum import Enum, auto
from typing import Any

from ..errors import LifespanError, MessageError, UnexpectedMessage
from ..settings import Settings
from .interfaces import Application, Message, Scope
from .messages import message_type

__all__ = ["Lifespan"]

logger = logging.getLogger("asgiserver")

#: Seconds for a cancelled task to end: it only cleans up then, and the deadline for that has passed.
_CANCEL_TIMEOUT = 1.0


class _Phase(Enum):
    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    REFUSED = auto()  # the application sent startup.failed
    STOPPING = auto()
    STOPPED = auto()
    STOP_FAILED = auto()  # the application sent shutdown.failed
    UNSUPPORTED = auto()  # the task ended before it answered the start-up
    ENDED = auto()  # the task ended, or was given up, in any other phase


_ANSWERS = {
    (_Phase.STARTING, "lifespan.startup.complete"): _Phase.RUNNING,
    (_Phase.STARTING, "lifespan.startup.failed"): _Phase.REFUSED,
    (_Phase.STOPPING, "lifespan.shutdown.complete"): _Phase.STOPPED,
    (_Phase.STOPPING, "lifespan.shutdown.failed"): _Phase.STOP_FAILED,
}
_TYPES = tuple(kind for _, kind in _ANSWERS)

#: Phases that no event follows, so that a ``receive()`` would wait for ever.
_LAST = frozenset((_Phase.REFUSED, _Phase.STOPPED, _Phase.STOP_FAILED, _Phase.UNSUPPORTED, _Phase.ENDED))


class Lifespan:
    """Runs the lifespan of one application, once.

    :param application: called with the lifespan scope unless ``settings.lifespan`` is ``"off"``.
    :param settings: ``lifespan``, ``lifespan_startup_timeout`` and ``lifespan_shutdown_timeout`` are used.
    :param context: the task runs in it, so that it has the context variables that the application sets there.
    """

    def __init__(self, application: Application, settings: Settings, context: Context | None = None) -> None:
        #: In the scope as ``state``; a server gives each request a shallow copy of it.
        self.state: dict[str, Any] = {}
        #: The application has completed its start-up, so it gets a shutdown.
        self.supported = False
        #: The application raised after its start-up, or its shutdown failed or was not done in time.
        self.failed = False
        #: The exception that it raised then, if any.
        self.error: BaseException | None = None
        self._application = application
        self._settings = settings
        self._context = context
        self._phase = _Phase.NEW
        self._delivered = False
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._reason = ""

    async def startup(self) -> None:
        """Start the application; returns when it is ready to serve, or has no lifespan and need not have one.

        Cancelling this cancels the application's task and waits for its end.

        :raises LifespanError: the application said that it failed, did not answer in time, or has no lifespan though
            ``settings.lifespan`` is ``"on"``. The exception of the application, if any, is the cause.
        """
        if self._settings.lifespan == "off":
            return
        self._phase = _Phase.STARTING
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._run(), name="lifespan", context=self._context)
        timeout = self._settings.lifespan_startup_timeout
        try:
            await self._wait_for_answer(timeout)
            self.supported = self._phase not in (_Phase.STARTING, _Phase.REFUSED, _Phase.UNSUPPORTED)
            if self._phase is _Phase.REFUSED:
                await self._wait_for_end(self._task, self._settings.lifespan_shutdown_timeout)
                raise LifespanError(f"the application failed to start: {self._reason}")
        except asyncio.CancelledError:
            await self._cancel(self._task)
            raise
        if self._phase is _Phase.STARTING:
            await self._cancel(self._task)
            raise LifespanError(f"the application did not start within {timeout:g} s (lifespan_startup_timeout)")
        if self._phase is _Phase.UNSUPPORTED:
            self._unsupported()

    async def shutdown(self) -> None:
        """Let the application shut down; returns when its task has ended, at once when there is none.

        Never raises but for its own cancelling, which cancels the application's task too; see :attr:`failed`.
        """
        if self._phase is not _Phase.RUNNING or self._task is None:
            return
        self._phase = _Phase.STOPPING
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        try:
            await self._wait_for_end(self._task, self._settings.lifespan_shutdown_timeout)
        except asyncio.CancelledError:
            await self._cancel(self._task)
            raise

    # The application's side.

    async def _run(self) -> None:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        error: BaseException | None = None
        try:
            await self._application(scope, self._receive, self._send)
        except KeyboardInterrupt:
            raise
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled this task: the application let the CancelledError of something else through.
            error = cancelled
        except BaseException as raised:  # noqa: BLE001 - a SystemExit out of a task would end the loop
            error = raised
        finally:
            self._ended(error)

    async def _receive(self) -> Message:
        """The next event; can be cancelled without losing one."""
        task = asyncio.current_task()
        if self._phase in _LAST and self._inbox.empty() and task is not None and task is self._task:
            # An application that calls receive() in a loop would otherwise wait here until the deadline.
            task.cancel()
        event = await self._inbox.get()
        self._delivered = True
        return event

    async def _send(self, message: Message) -> None:
        kind = message_type(message, _TYPES)
        phase = _ANSWERS.get((self._phase, kind))
        if phase is None:
            raise UnexpectedMessage(f"{kind} was sent {_SO_FAR[self._phase]}")
        reason = message.get("message", "")
        if not isinstance(reason, str):
            raise MessageError(f'{kind}: "message" must be a str, got {type(reason).__name__}')
        self._phase = phase
        self._reason = reason
        self._answered.set()
        if phase is _Phase.STOP_FAILED:
            self.failed = True
            logger.error("The application failed to shut down: %s", reason)

    def _ended(self, error: BaseException | None) -> None:
        phase = self._phase
        if phase is _Phase.STARTING:
            self._phase = _Phase.UNSUPPORTED
            self._error = error
            self._answered.set()
            return
        if phase not in _LAST:
            self._phase = _Phase.ENDED
        # An application often raises the error that it has just reported as its failure; one record is enough.
        if error is not None and phase in (_Phase.RUNNING, _Phase.STOPPING, _Phase.STOPPED):
            self.failed, self.error = True, error
            logger.error("The application's lifespan raised an exception", exc_info=error)

    # The server's side.

    async def _wait_for_answer(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._answered.wait()
        except TimeoutError:
            # The caller looks at the phase: the answer may have come in the turn of the loop in which time was up.
            pass

    async def _wait_for_end(self, task: asyncio.Task[None], timeout: float | None) -> None:
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            return
        if self._phase is _Phase.STOPPING:
            self.failed = True
            logger.error("The application did not shut down within %g s (lifespan_shutdown_timeout)", timeout)
        else:
            logger.debug("The application's lifespan ran on after its last message and is cancelled")
        await self._cancel(task)

    async def _cancel(self, task: asyncio.Task[None]) -> None:
        if self._phase not in _LAST:
            self._phase = _Phase.ENDED
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_TIMEOUT)
        if not task.done():
            logger.error("The application's lifespan does not end though it was cancelled")

    def _unsupported(self) -> None:
        error = self._error
        what = "returned"
        if error is not None:
            # By traceback, since the exception's own str() may fail; on one line.
            what = "raised " + " ".join("".join(traceback.format_exception_only(error)).split())
        if self._settings.lifespan == "on":
            raise LifespanError(f"the application {what} before it completed its start-up") from error
        # An application that took the event and raised has failed to start, or takes every event for a request's: worth
        # a line, no more. ASGI wants the server to go on all the same; startup.failed is the way to stop it.
        if self._delivered and error is not None:
            logger.warning(
                "The application %s in its start-up and is served without a lifespan; --lifespan on makes this an "
                "error, --lifespan off is for none", what,
            )  # fmt: skip
        else:
            logger.debug("The application has no lifespan: it %s", what)


_SO_FAR = {
    _Phase.NEW: "before the start-up",
    _Phase.STARTING: "before the start-up was complete",
    _Phase.RUNNING: "before the shutdown was asked for",
    _Phase.REFUSED: "after the start-up failed",
    _Phase.STOPPING: "during the shutdown",
    _Phase.STOPPED: "after the shutdown was complete",
    _Phase.STOP_FAILED: "after the shutdown failed",
    _Phase.UNSUPPORTED: "after the lifespan ended",
    _Phase.ENDED: "after the lifespan ended",
}
