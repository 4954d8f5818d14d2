"""The beginning and the end of a request for an async view: without a thread where the request needs none.

Django's handler goes to a thread for the receivers of ``request_started``, and to another to close the response, which
sends ``request_finished``. Its own receivers look after the connections of that thread's: where the request has used
no thread there are none. So they run on the loop, or not at all; as soon as somebody else's receiver is among them, or
the response has something to close, all go to the request's thread as before.

:func:`handle_of` does that to Django's own ``handle``, whatever the release has in it: the same code, for which two
global names mean something else.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Awaitable, Callable
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any

import django
from asgiref.sync import SyncToAsync, sync_to_async
from django.core import signals
from django.core.cache import caches, close_caches
from django.core.cache.backends.base import BaseCache
from django.core.handlers import asgi
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.base import reset_urlconf
from django.db import close_old_connections, connections, reset_queries
from django.dispatch import Signal
from django.http.response import HttpResponseBase

from .inline import KNOWN_RELEASES
from .lanes import Lease

__all__ = ["handle_of"]

#: Django's own receivers.
_STARTED = {reset_queries, close_old_connections}
_FINISHED = {close_old_connections, close_caches, reset_urlconf}


def handle_of(found: ASGIHandler) -> Callable[..., Awaitable[None]]:
    """The ``handle`` of Django's handler for requests that have a :class:`.Lease` for a thread."""
    function = type(found).handle
    # Somebody may have put a function of his own in its place.
    is_own = inspect.isfunction(function) and function.__globals__ is vars(asgi) and "handle" not in vars(found)
    if django.VERSION[:2] not in KNOWN_RELEASES or not is_own:
        return found.handle  # type: ignore[no-any-return]
    names = {**vars(asgi), "signals": _SIGNALS, "sync_to_async": _sync_to_async}
    return partial(FunctionType(function.__code__, names, function.__name__), found)


async def _asend_started(sender: Any, **named: Any) -> Any:
    """Send ``request_started``; Django's own receivers get it when the request comes to its thread, if ever."""
    receivers = _receivers(signals.request_started, sender)
    if receivers is None or not _STARTED.issuperset(receivers):
        return await signals.request_started.asend(sender, **named)

    def send_in_thread() -> None:
        for receiver in receivers:
            receiver(signal=signals.request_started, sender=sender, **named)

    _lease().before_first = send_in_thread
    return []


async def _asend_finished(sender: Any, **named: Any) -> Any:
    if _needs_no_thread(sender):
        return signals.request_finished.send(sender, **named)
    return await signals.request_finished.asend(sender, **named)


#: Stands for ``django.core.signals``.
_SIGNALS = SimpleNamespace(
    request_started=SimpleNamespace(asend=_asend_started), request_finished=SimpleNamespace(asend=_asend_finished)
)


def _sync_to_async(function: Any, *arguments: Any, **keywords: Any) -> Callable[..., Awaitable[Any]]:
    """Stands for asgiref's, with which ``handle`` closes responses."""
    response: Any = getattr(function, "__self__", None)
    if not _closes_nothing(response) or not _needs_no_thread(response._handler_class):
        return sync_to_async(function, *arguments, **keywords)  # type: ignore[no-any-return]

    async def close() -> None:
        function()

    return close


def _lease() -> Lease:
    lease = SyncToAsync.context_to_thread_executor[SyncToAsync.thread_sensitive_context.get()]
    assert isinstance(lease, Lease)
    return lease


def _receivers(signal: Signal, sender: Any) -> list[Any] | None:
    """Who receives a signal; None if coroutine functions are among them."""
    receivers, coroutines = signal._live_receivers(sender)
    return None if coroutines else receivers


def _needs_no_thread(sender: Any) -> bool:
    """True when the end of this request leaves nothing to do in a thread for who receives ``request_finished``."""
    receivers = _receivers(signals.request_finished, sender)
    return (
        receivers is not None
        and _FINISHED.issuperset(receivers)
        and not _lease().used
        # What the loop itself has opened, which Django forbids, or a cache that is told of the end.
        and all(connection.connection is None for connection in connections.all(initialized_only=True))
        and all(type(cache).close is BaseCache.close for cache in caches.all(initialized_only=True))
    )


def _closes_nothing(response: Any) -> bool:
    """True when a response has nothing to close but a request whose body is in memory, and no uploaded files."""
    return (
        isinstance(response, HttpResponseBase)
        and type(response).close is HttpResponseBase.close
        and "close" not in vars(response)
        and all(_is_light(getattr(closer, "__self__", None), closer) for closer in response._resource_closers)
    )


def _is_light(request: Any, closer: Any) -> bool:
    if type(request) is not ASGIRequest or getattr(closer, "__func__", None) is not ASGIRequest.close:
        return False
    stream = request._stream
    # A temporary file has its content in memory until there is much of it.
    return not vars(request).get("_files") and isinstance(getattr(stream, "_file", stream), io.BytesIO)
