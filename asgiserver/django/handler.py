"""Django's sync views in one hop: the request, its middleware, view and response run on one thread that stays.

Django's own ``ASGIHandler`` goes to a thread and back for each hook of each middleware, and makes that thread anew for
each request. :class:`Handler` stands in its place. It overrides ``handle`` alone, so that what others patch goes on
working; Django's own code makes the requests, calls the middleware and writes the heads of responses. It runs

- a sync view by ``BaseHandler``'s sync chain in one call on a lane (``lanes.py``), streams and closing included;
- an async view as Django does, with a lane in place of a thread of its own (``lanes.py``), which it needs for less:
  hooks that cannot block run on the loop (``inline.py``), and so do its beginning and its end (``ends.py``);
- every request as Django does, but for those hooks, on a loop that is not in :data:`serving`, such as another
  server's.

Whether the view is async is a guess by the URL. A wrong guess is no wrong answer: each chain runs views of both kinds.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import types
from collections.abc import Generator, Iterator
from enum import Enum, auto
from functools import lru_cache, partial
from typing import Any, ClassVar
from weakref import WeakSet

from asgiref.sync import SyncToAsync, async_to_sync, iscoroutinefunction
from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.files.base import File
from django.core.files.utils import FileProxyMixin
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.http import FileResponse, StreamingHttpResponse
from django.urls import URLPattern, get_resolver, set_script_prefix

from ..asgi.exchange import waited
from ..asgi.interfaces import Message, Receive, Scope, Send
from ..errors import ClientDisconnected
from ..pipe import Pipe, regular_part
from .ends import handle_of
from .inline import run_hooks_on_loop
from .lanes import Call, Lane, Lanes, Lease, Slot

__all__ = ["Handler", "import_urls", "serving", "walk_urls"]

#: A shorter wait for a thread is no news for the access log; seconds.
_NOTABLE = 0.001

#: The lanes of each loop on which requests are served the short way.
serving: dict[asyncio.AbstractEventLoop, Lanes] = {}


class Handler(ASGIHandler):  # type: ignore[misc]
    """Serves a project's HTTP requests.

    :param found: the handler to stand in for; by default a new one.
    :cvar made: all that are in use.
    """

    made: ClassVar[WeakSet[Handler]] = WeakSet()

    def __init__(self, found: ASGIHandler | None = None) -> None:
        found = ASGIHandler() if found is None else found
        self.__dict__.update(found.__dict__)
        self.found = found
        #: The sender of request_started and request_finished, as receivers know it.
        self.sender: type = type(found)
        #: The same middleware once more, in its sync form.
        self.sync_chain = _SyncChain()
        self.sync_chain.load_middleware(is_async=False)
        run_hooks_on_loop(found)
        self._handle_async = handle_of(found)
        self.made.add(self)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        context = SyncToAsync.thread_sensitive_context.get(None)
        lanes = serving.get(asyncio.get_running_loop())
        if lanes is None or context is None:
            await self.found.handle(scope, receive, send)
            return
        executors = SyncToAsync.context_to_thread_executor
        # Whoever runs the server in a ThreadSensitiveContext of his own wants all sync code in that one thread.
        given = executors.get(context)
        if not is_async(scope):
            lane = None if given is None else Lane(given, _name(scope))
            await _SyncRequest(self, scope, send, lanes, lane).serve(receive)
        elif given is not None:
            await self.found.handle(scope, receive, send)
        else:
            lease = Lease(lanes, _name(scope))
            try:
                with _leased(lease):
                    await self._handle_async(scope, receive, send)
            finally:
                lease.end()


@contextlib.contextmanager
def _leased(lease: Lease) -> Iterator[None]:
    """Let ``sync_to_async`` run what belongs in the request's one thread by ``lease``."""
    context = SyncToAsync.thread_sensitive_context.get()
    # Not by ThreadSensitiveContext(executor=…): a task that outlives the request could run no sync code then.
    SyncToAsync.context_to_thread_executor[context] = lease
    try:
        yield
    finally:
        SyncToAsync.context_to_thread_executor.pop(context, None)


class _SyncChain(BaseHandler):  # type: ignore[misc]
    """Django's sync chain, which also takes the responses that only its async chain takes."""

    def check_response(self, response: Any, callback: Any, name: str | None = None) -> None:
        """See ``BaseHandler``; called before a response is rendered."""
        super().check_response(response, callback, name)
        if iscoroutinefunction(getattr(response, "render", None)):
            response.render = async_to_sync(response.render)


def import_urls() -> None:
    """Import the project's URLconf, and with it the views; raises what that raises."""
    # A project of WebSockets alone has none.
    if hasattr(settings, "ROOT_URLCONF"):
        has_coroutines(get_resolver())


def walk_urls() -> None:
    """Import the URLconf, and look for coroutines, before requests come."""
    # A URLconf that cannot be imported is reported with each request.
    with contextlib.suppress(Exception):
        import_urls()


def is_async(scope: Scope) -> bool:
    """Guess whether the view of a request is a coroutine function."""
    try:
        resolver = get_resolver()
        if not has_coroutines(resolver):
            return False
        return bool(iscoroutinefunction(resolver.resolve(_path_info(scope)).func))
    except Exception:  # noqa: BLE001 - the request meets it again where Django answers it, in the sync chain
        return False


@lru_cache(16)
def has_coroutines(resolver: Any) -> bool:
    """True when a view of a URLconf is a coroutine function; raises what the URLconf raises when it is imported."""
    for pattern in resolver.url_patterns:
        if iscoroutinefunction(pattern.callback) if isinstance(pattern, URLPattern) else has_coroutines(pattern):
            return True
    return False


def _path_info(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(get_script_prefix(scope))


def _name(scope: Scope) -> str:
    return f"{scope['method']} {scope['path']!r}"


class _State(Enum):
    """Where a request of a sync view is, as the loop sees it."""

    WAITING = auto()  # for a thread
    RUNNING = auto()  # in its thread; nothing of the response has come yet
    ANSWERING = auto()  # the pipe has the response, or a part of it
    LEFT = auto()  # the client left before that


class _SyncRequest:
    """One request whose view is sync.

    :meth:`serve` runs on the loop, :meth:`_run` in the lane's thread. The thread hands the response over by a pipe and
    closes it, while the loop sends it.

    :param lane: the thread to use; None for one of ``lanes``.
    """

    def __init__(self, handler: Handler, scope: Scope, send: Send, lanes: Lanes, lane: Lane | None) -> None:
        self._handler = handler
        self._scope = scope
        self._send = send
        self._lanes = lanes
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._pipe = Pipe(send, self._noticed)
        self._state = _State.WAITING
        self._slot: Slot | None = None
        self._call: Call | None = None
        self._abandoned = False
        self._lease: Lease | None = None
        self._lane_done: asyncio.Future[None] | None = None
        self._body: Any = None
        self._request: Any = None
        self._response: Any = None
        self._closed = False

    # On the loop.

    async def serve(self, receive: Receive) -> None:
        """Answer the request; returns when its thread has done all its work."""
        try:
            self._body = await self._read(receive)
        except RequestAborted:
            return
        task = asyncio.current_task()
        assert task is not None
        listener = self._loop.create_task(self._handler.listen_for_disconnect(receive))
        listener.add_done_callback(partial(self._heard, task))
        try:
            await self._answer()
            if self._state is _State.LEFT:
                task.uncancel()
        except asyncio.CancelledError:
            # Unless the client has left, and nothing else has happened, the server wants an end.
            if self._state is not _State.LEFT or task.uncancel():
                raise
            if self._lane_done is not None:
                await self._lane_done
        finally:
            listener.cancel()
            self._pipe.close()
            if self._call is None:
                self._body.close()
        if listener.done() and not listener.cancelled() and isinstance(error := listener.exception(), AssertionError):
            raise error

    async def _read(self, receive: Receive) -> Any:
        """The body as a file; raises RequestAborted when the client has left before its end."""
        message = await receive()
        body = message.get("body", b"")
        whole = message["type"] == "http.request" and not message.get("more_body", False)
        if whole and len(body) <= settings.FILE_UPLOAD_MAX_MEMORY_SIZE:
            return io.BytesIO(body)
        first = [message]

        async def receive_again() -> Message:
            return first.pop() if first else await receive()

        return await self._handler.read_body(receive_again)

    def _heard(self, task: asyncio.Task[Any], listener: asyncio.Task[None]) -> None:
        """The client has left, or the server has given a message that it must not give."""
        if listener.cancelled():
            return
        # Asked for in any case: asyncio would log an exception that nobody has seen.
        listener.exception()
        if self._state is _State.ANSWERING:
            self._pipe.fail(ClientDisconnected("the client has left"))
            self._pipe.wake()
        else:
            # This also cancels the coroutine that the view waits for in async_to_sync.
            self._state = _State.LEFT
            task.cancel()

    async def _answer(self) -> None:
        if self._lane is None:
            began = self._loop.time()
            self._slot = slot = await self._lanes.enter()
            if (seconds := self._loop.time() - began) >= _NOTABLE:
                waited.set(seconds)
            try:
                self._lane = slot.lane = self._lanes.take(_name(self._scope))
            except RuntimeError:
                slot.leave()
                raise
        self._state = _State.RUNNING
        call = self._call = self._lane.start(self._run, self._pipe.notify)
        try:
            begun = ended = False
            while not ended:
                await self._pipe.changed()
                # Asked before pieces are taken: the thread puts its last piece before it ends.
                ended = call.done
                if ended or not begun:
                    # What sends the response, and logs it, sees what the view has set.
                    call.take_context()
                begun = True
                await self._pipe.forward()
            if call.failure is not None:
                raise call.failure
            if not self._closed:
                # The response has an async iterator, which belongs to the loop.
                await self._send_from_the_loop(self._lane)
                self._state = _State.ANSWERING
        except asyncio.CancelledError:
            self._pipe.fail(ClientDisconnected("the request was cancelled"))
            self._abandoned = True
            call.cancel()
            raise
        finally:
            if self._lane is not None:
                # Behind what the thread has still to do for this request.
                self._lane_done = self._loop.create_future()
                self._lane.end(self._close, self._give_lane)
        if self._lane_done is not None:
            await self._lane_done
        if self._pipe.failure is not None and not isinstance(self._pipe.failure, ClientDisconnected):
            raise self._pipe.failure

    async def _send_from_the_loop(self, lane: Lane) -> None:
        sending = self._handler.send_response(self._response, self._send)
        if self._slot is None:
            await sending
            return
        # What the iterator calls belongs in the view's thread, whose database connections end with the request.
        self._lease = Lease(self._lanes, lane.serving, lane)
        with _leased(self._lease):
            await sending

    def _noticed(self) -> None:
        """The thread has put a piece, or has ended; the request need not wait for its client to give the lane back."""
        assert self._call is not None
        if self._pipe.waiting and self._state is _State.RUNNING:
            self._state = _State.ANSWERING
        if self._call.done and self._closed and self._lane_done is None:
            self._give_lane()

    def _give_lane(self, failure: BaseException | None = None) -> None:
        lane, self._lane = self._lane, None
        if lane is None:
            return
        if self._abandoned and self._call is not None:
            lane.log(self._call.failure)
        if self._lane_done is not None:
            lane.settle(self._lane_done, failure)
        if self._lease is not None:
            self._lease.end()
        elif self._slot is not None:
            self._lanes.give(lane)
        if self._slot is not None:
            self._slot.leave()

    # In the thread.

    def _run(self) -> None:
        """Make and send the response, and close it, unless the loop has to send it."""
        keeps = False
        try:
            keeps = self._respond()
        finally:
            if not keeps:
                self._close()

    def _respond(self) -> bool:
        """Make and send the response; True when the loop has to send it."""
        handler, scope, sender = self._handler, self._scope, self._handler.sender
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=sender, scope=scope)
        self._request, response = handler.create_request(scope, self._body)
        if self._request is not None:
            response = handler.sync_chain.get_response(self._request)
            # The sender of request_finished.
            response._handler_class = sender
            if isinstance(response, FileResponse):
                response.block_size = handler.chunk_size
        self._response = response
        if self._state is _State.LEFT:
            return False
        if response.streaming and response.is_async:
            self._leave_slot()
            return True
        # The client that leaves closes the pipe.
        with contextlib.suppress(ClientDisconnected):
            self._put(response)
        return False

    def _put(self, response: Any) -> None:
        head = self._head(response)
        if not response.streaming:
            # However slow the client is, the thread is free for other requests.
            self._pipe.put(head, response.content, False, wait=False)
            return
        self._leave_slot()
        if (file := self._file(response)) is not None:
            self._pipe.put_file(head, *file)
            return
        begin: Message | None = head
        for piece in response:
            # Empty ones too: a stream that has nothing to say for long learns by them that its client has left.
            self._pipe.put(begin, bytes(piece), True)
            begin = None
        self._pipe.put(begin, b"", False)

    def _head(self, response: Any) -> Message:
        """The ``http.response.start``, as Django's handler writes it before anything else."""
        sending = self._handler.send_response(response, _hand_over)
        try:
            head: Message = sending.send(None)
        finally:
            sending.close()
        return head

    def _file(self, response: Any) -> tuple[io.FileIO, int, int] | None:
        """The file that is the whole body of a response, its position and size; None if the body must be read."""
        if "http.response.zerocopysend" not in self._scope.get("extensions", ()):
            return None
        if type(response).__iter__ is not StreamingHttpResponse.__iter__:
            return None
        file = getattr(response, "file_to_stream", None)
        while isinstance(file, File) and type(file).read is FileProxyMixin.read:
            file = file.file
        part = regular_part(file)
        # A middleware that wants a part of the file sent may have told its length.
        whole = part is not None and response.headers.get("Content-Length", str(part[2])) == str(part[2])
        return part if whole else None

    def _leave_slot(self) -> None:
        """Let another request run while this one waits for its client."""
        if self._slot is not None:
            # A loop that has ended has no requests either.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._slot.leave)

    def _close(self) -> None:
        """Close the response, which sends ``request_finished``, and all that belongs to the request; once."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._response is not None:
                self._response.close()
            elif self._request is not None:
                self._request.close()
                signals.request_finished.send(sender=self._handler.sender)
        finally:
            self._body.close()


@types.coroutine
def _hand_over(message: Message) -> Generator[Message, None, None]:
    """ASGI's ``send`` for who runs the coroutine by hand: the message is what the coroutine yields."""
    yield message
