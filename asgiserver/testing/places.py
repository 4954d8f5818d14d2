"""Where a server under test runs: on the running loop, or in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import Context
from functools import partial
from typing import Any

from ..asgi.exchange import Exchange
from ..errors import StartupError
from ..loading import load_application
from ..log import setup as logs
from ..loop.reactor import new_loop, private_reactor
from ..running import tear_down
from ..server import Server
from ..settings import Settings
from .capture import Capture

__all__ = ["LAST_WAIT", "QUICK_STOP", "InTask", "InThread", "Place", "Surroundings", "loaded"]

#: Makes the context in which the server of a thread or task runs, the application's tasks included.
Surroundings = Callable[[], AbstractAsyncContextManager[object]]

#: Settings of every server under test, unless a test gives others: no client of a test is worth waiting for.
QUICK_STOP = {"graceful_timeout": 1, "graceful_idle": 0}

#: Seconds for the threads of a server to end, or for its loop to end the turn that it is in.
LAST_WAIT = 5.0


def loaded(application: Any, settings: Settings) -> Any:
    """``application``, imported if it is a name."""
    return load_application(application, settings) if isinstance(application, str) else application


class Place:
    """Where a server runs.

    :ivar address: host and port, once it has started.
    """

    address: tuple[str, int]

    def __init__(self, application: Any, settings: Settings, capture: Capture) -> None:
        self.application = application
        self.settings = settings
        self.capture = capture

    @property
    def stop_timeout(self) -> float:
        """Seconds for a server to end after it was asked to."""
        times = (self.settings.graceful_timeout, self.settings.lifespan_shutdown_timeout)
        return sum(60 if each is None else each for each in times) + LAST_WAIT

    def log(self) -> str:
        """The log so far."""
        return self.capture.text

    def collect(self) -> None:
        """Bring ``capture.exceptions`` up to date."""

    def not_started(self, reason: object) -> StartupError:
        return StartupError(f"the server did not start: {reason}\n{self.log()}".rstrip())


class InTask(Place):
    """On the running loop.

    :ivar contained: the exceptions, besides Exception, that an application may raise without ending the loop.
    """

    contained: tuple[type[BaseException], ...] = (SystemExit,)

    def __init__(
        self, application: Any, settings: Settings, capture: Capture, surroundings: Surroundings = nullcontext
    ) -> None:
        super().__init__(application, settings, capture)
        self.server: Server | None = None
        self._surroundings = surroundings
        self._stopping = False

    async def start(self, timeout: float) -> None:
        """Start the server; on any error it has been stopped again.

        :raises StartupError: it did not start, or not within ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self.serve(partial(ready.set_result, None)), context=self.capture.context())
        try:
            await asyncio.wait({self._task, ready}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
            if not ready.done():
                raise TimeoutError(f"it took longer than {timeout:g} s")
        except BaseException as error:
            self.ask_to_stop()
            await asyncio.wait({self._task})
            if isinstance(error, Exception):
                raise self.not_started(error) from error
            raise

    async def stop(self) -> None:
        """Stop the server and wait for its end."""
        self.ask_to_stop()
        await self._task

    def ask_to_stop(self) -> None:
        """Ask the server to stop; may be called from any thread."""
        self._stopping = True
        if self.server is not None:
            self.server.stop()

    async def serve(self, ready: Callable[[], object]) -> None:
        """Serve on the running loop; call ``ready`` when the server listens."""
        logs.enable()
        with self.capture.open(), private_reactor() as reactor:
            async with self._surroundings():
                server = Server(
                    self.application, self.settings, ready_callable=partial(self._listening, ready),
                    reactor=reactor, on_failure=self.capture.failed,
                )  # fmt: skip
                server.contained = self.contained
                self.server = server
                if self._stopping:
                    server.stop()
                await server.serve()

    def _listening(self, ready: Callable[[], object]) -> None:
        assert self.server is not None
        self.address = self.server.listening_addresses[0]
        ready()


class InThread(InTask):
    """On a loop of its own in a thread of its own."""

    # Ctrl-C interrupts the main thread: here only the application can raise a KeyboardInterrupt.
    contained = (SystemExit, KeyboardInterrupt)

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="asgiserver", daemon=True)

    def start_thread(self, timeout: float) -> None:
        """As :meth:`start`, for a caller that is no coroutine; blocks."""
        try:
            self._thread.start()
            started = self._settled.wait(timeout)
            if self._error is not None:
                raise self.not_started(self._error) from self._error
            if not started:
                raise self.not_started(f"it took longer than {timeout:g} s")
        except BaseException:
            self.ask_to_stop()
            if self._thread.ident is not None:
                self._thread.join(self.stop_timeout)
            raise

    def stop_thread(self) -> None:
        """As :meth:`stop`, for a caller that is no coroutine; blocks.

        :raises RuntimeError: the server does not end, perhaps because the application blocks the loop.
        """
        self.ask_to_stop()
        self._thread.join(self.stop_timeout)
        if self._thread.is_alive():
            raise RuntimeError(f"the server does not end; does the application block its loop?\n{self.log()}")
        if self._error is not None:
            raise self._error

    def collect(self) -> None:
        """Wait for the end of the loop's turn: the server answers a request first, then reports its exception."""
        if threading.current_thread() is self._thread:
            return
        done = threading.Event()
        # A loop that is closed has nothing left to report.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(done.set)
            done.wait(LAST_WAIT)

    def drop_clients(self, timeout: float) -> bool:
        """As :meth:`LiveServer.drop_clients <asgiserver.testing.LiveServer.drop_clients>`."""
        server = self.server
        assert server is not None
        _wait_until(lambda: all(map(_is_open_websocket, server.exchanges)), timeout)
        self._loop.call_soon_threadsafe(_abort_connections, server)
        return _wait_until(lambda: not server.exchanges and not server.connections, timeout)

    def _run(self) -> None:
        try:
            self._serve_on_own_loop()
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the test
            self._error = error
        finally:
            self._settled.set()

    def _serve_on_own_loop(self) -> None:
        self._loop = loop = new_loop(self.settings.loop)
        workers = f"asgiserver-{id(self)}"
        executor = ThreadPoolExecutor(thread_name_prefix=workers)
        loop.set_default_executor(executor)
        try:
            # Not in a copy of the test's context, in which asgiref may keep a thread that waits for this one.
            self.capture.context(Context()).run(loop.run_until_complete, self.serve(self._settled.set))
        finally:
            tear_down(loop, executor)
            deadline = time.monotonic() + LAST_WAIT
            for thread in threading.enumerate():
                if thread.name.startswith(workers):
                    thread.join(max(0, deadline - time.monotonic()))


def _is_open_websocket(exchange: Exchange) -> bool:
    return exchange.scope["type"] == "websocket" and not exchange.finished


def _abort_connections(server: Server) -> None:
    for connection in list(server.connections):
        connection.abort()


def _wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True
