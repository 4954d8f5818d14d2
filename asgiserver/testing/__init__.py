"""For tests: a real server, on a real port, for any ASGI application.

:class:`LiveServer` is a context manager, :mod:`asgiserver.pytest_plugin` its fixture for pytest. For Django there is
``ASGILiveServerTestCase`` (:mod:`asgiserver.django.testing`, which needs Django), and :class:`ServerProcess` for the
``ProtocolServerProcess`` of Channels' own ``ChannelsLiveServerTestCase``.

Begin to read with :class:`LiveServer` below. It serves in one of three places: a task or a thread (``places.py``), or a
process (``process.py``). A ``Capture`` (``capture.py``) holds what that one server logs and what its application
raises, which ``Server`` tells it by its hook ``on_failure``; a child process hands it over in a file (``failures.py``).

The server does not know of this package, and this package uses only public attributes and hooks of ``Server``. Nothing
here needs Django or pytest. When the block ends, everything that a place has started is gone: thread, process, loop,
file, and filter of a logger.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..errors import StartupError
from ..settings import Settings
from .capture import Capture
from .places import QUICK_STOP, InTask, InThread, loaded
from .process import InProcess, ServerProcess

if TYPE_CHECKING:
    from ..django.testing import ASGILiveServerTestCase as ASGILiveServerTestCase

__all__ = ["LiveServer", "ServerProcess", "StartupError"]

#: How much of a traceback becomes a note of another exception, characters.
_MOST_OF_A_NOTE = 10_000


def __getattr__(name: str) -> Any:
    if name == "ASGILiveServerTestCase":
        # Only this needs Django.
        from ..django.testing import ASGILiveServerTestCase

        return ASGILiveServerTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class LiveServer:
    """Serves ``application`` for the length of a ``with`` or ``async with`` block.

    ::

        with LiveServer(application) as server:
            assert httpx.get(server.url).status_code == 200

    ``with`` serves on a loop of its own in a thread and can be used anywhere, in a coroutine too. ``async with`` serves
    on the running loop, so that test and application can share what belongs to a loop. When the block ends, the server
    has stopped, and exceptions of the application are raised there.

    :param application: an ASGI application, or its name, like ``"mysite.asgi:application"``.
    :param host: the host to listen on, ``"127.0.0.1"`` by default.
    :param port: TCP port, 0 for any free one.
    :param process: serve in a process of its own, started by multiprocessing's default start method, or by a named one:
        ``"fork"``, ``"forkserver"``, ``"spawn"``. Except with ``"fork"``, the application has to be a name, or to
        survive pickling.
    :param raise_exceptions: raise the application's exceptions at the end of the block: a single one itself, several
        as an ``ExceptionGroup``. When the block itself raises, they become notes of its exception instead.
    :param startup_timeout: seconds for the server to start.
    :param settings: single settings, as those of :class:`asgiserver.Server`. Unless given,
        ``graceful_timeout`` is 1 s and ``graceful_idle`` 0.
    :raises SettingsError: a setting is wrong or unknown.

    Entering the block raises :class:`StartupError` when the server does not start; leaving it raises ``RuntimeError``
    when the server does not end, or its process ended before. The object can be used again for another block.

    The server in a thread or on the running loop has a Twisted reactor of its own, which is not
    ``twisted.internet.reactor``: an application that imports the latter has to be tested with ``process``.
    """

    def __init__(
        self,
        application: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        process: bool | str = False,
        raise_exceptions: bool = True,
        startup_timeout: float = 30.0,
        **settings: Any,
    ) -> None:
        self.application = application
        self.raise_exceptions = raise_exceptions
        self.startup_timeout = startup_timeout
        self._process = process
        self._settings = Settings.from_keywords(**{"host": host, "port": port, **QUICK_STOP, **settings})
        self._place: InTask | InProcess | None = None
        self._running = False

    # Where the server is.

    @property
    def host(self) -> str:
        """The host, as it was given."""
        return self._settings.host or "127.0.0.1"

    @property
    def port(self) -> int:
        """The real port.

        :raises RuntimeError: the server has not started.
        """
        return self._started().address[1]

    @property
    def url(self) -> str:
        """``http://HOST:PORT``, or ``https:`` with a certificate; no slash at the end."""
        return self._url("http")

    @property
    def ws_url(self) -> str:
        """``ws://HOST:PORT``, or ``wss:`` with a certificate; no slash at the end."""
        return self._url("ws")

    # Log, exceptions and clients.

    @property
    def logs(self) -> str:
        """The server's log so far, with requests and tracebacks; can be read after the block too.

        The line of a request may follow its response by a moment. With ``process`` the log is all that the process has
        written to its standard output and error.
        """
        return self._started().log()

    @property
    def exceptions(self) -> list[BaseException]:
        """The application's exceptions so far, oldest first. One that is taken out of the list is not raised any more.

        Those of a ``process`` are copies; a ``RuntimeError`` with its text replaces one that cannot be copied.
        """
        place = self._started()
        if self._running:
            place.collect()
        return place.capture.exceptions

    def check(self) -> None:
        """Raise the application's exceptions so far, as the end of the block does, and forget them."""
        self._raise(None)

    def drop_clients(self, timeout: float = 1.0) -> bool:
        """Let requests be answered, cut off all clients, WebSockets too, and wait for their applications' end; blocks.

        For a server in a thread that two tests share: nothing of the first test runs on into the second.

        :param timeout: seconds for requests to be answered, and as many for applications to end.
        :returns: False when the applications do not end in time.
        :raises RuntimeError: the server does not run in a thread, or not any more.
        """
        place = self._started()
        if not isinstance(place, InThread) or not self._running:
            raise RuntimeError("only the clients of a server that runs in a thread can be dropped")
        return place.drop_clients(timeout)

    # Start and end.

    def __enter__(self) -> Self:
        place: InThread | InProcess
        if self._process:
            self._place = place = self._in_process()
            place.start(self.startup_timeout)
        else:
            application = loaded(self.application, self._settings)
            self._place = place = InThread(application, self._settings, Capture(), self.surroundings)
            place.start_thread(self.startup_timeout)
        self._running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._place
        with self._ending(error):
            if isinstance(place, InThread):
                place.stop_thread()
            elif isinstance(place, InProcess):
                place.stop()

    async def __aenter__(self) -> Self:
        if self._process:
            self._place = place = self._in_process()
            try:
                await _in_thread(place.start, self.startup_timeout)
            except asyncio.CancelledError:
                place.stop()
                raise
        else:
            application = loaded(self.application, self._settings)
            self._place = task = InTask(application, self._settings, Capture(), self.surroundings)
            await task.start(self.startup_timeout)
        self._running = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._place
        with self._ending(error):
            if isinstance(place, InProcess):
                await _in_thread(place.stop)
            elif place is not None:
                await place.stop()

    def surroundings(self) -> AbstractAsyncContextManager[object]:
        """For subclasses: a context in which the server and the application's tasks run; not used with ``process``."""
        return nullcontext()

    def _started(self) -> InTask | InProcess:
        if self._place is None:
            raise RuntimeError("the server has not started: use it in a with block")
        return self._place

    def _url(self, scheme: str) -> str:
        secure = "s" if self._settings.ssl_certfile else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}{secure}://{host}:{self.port}"

    def _in_process(self) -> InProcess:
        method = self._process if isinstance(self._process, str) else None
        return InProcess(self.application, self._settings, Capture(), method)

    @contextmanager
    def _ending(self, error: BaseException | None) -> Iterator[None]:
        """Add a failure to stop to the ``error`` of the block, which it must not replace."""
        try:
            yield
        except RuntimeError as problem:
            if error is None:
                raise
            error.add_note(str(problem))
        finally:
            self._running = False
            self._raise(error)

    def _raise(self, error: BaseException | None) -> None:
        """Raise the application's exceptions, or add them to the ``error`` of the block."""
        exceptions = self.exceptions
        if not self.raise_exceptions or not exceptions:
            return
        raised = exceptions[:]
        exceptions.clear()
        if error is not None:
            for each in raised:
                text = "".join(traceback.format_exception(each))
                error.add_note(f"Meanwhile the application of {self.url} raised:\n{text[-_MOST_OF_A_NOTE:]}")
        elif len(raised) == 1:
            raise raised[0]
        else:
            raise BaseExceptionGroup(f"the application raised {len(raised)} exceptions", raised)


async def _in_thread(function: Callable[..., None], *args: object) -> None:
    """Call ``function`` in a thread; a cancellation too waits for its end."""
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise
