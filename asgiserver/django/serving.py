"""Where a server finds Django's handler in its application, and what it says about that."""

from __future__ import annotations

import asyncio
import copy
import logging
import types
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import SyncToAsync
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.utils.module_loading import import_string

from .handler import Handler, import_urls, serving, walk_urls
from .lanes import Lanes

__all__ = ["begin", "import_urls", "replaced"]

logger = logging.getLogger("asgiserver")

#: What ours uses of Django and asgiref besides what their documentation names.
_USED = {
    ASGIHandler: ("handle", "create_request", "listen_for_disconnect", "read_body", "send_response"),
    BaseHandler: ("load_middleware", "get_response"),
    CurrentThreadExecutor: ("run_until_future",),
    SyncToAsync: ("context_to_thread_executor", "thread_sensitive_context", "threadlocal"),
}


def begin(application: Any, threads: int) -> tuple[Any, Callable[[], Awaitable[None]] | None]:
    """Serve a project's HTTP requests the short way on the running loop; log why not.

    :param threads: how many requests may run synchronous code at a time. Servers on one loop share the threads, and the
        first says how many.
    :return: the application with :class:`.Handler` in the place of Django's handler, wherever that can be found; and
        what ends the serving, with the threads and their database connections, unless there is nothing to end.
    """
    found, (application, obstacle) = application, replaced(application)
    if application is found and not Handler.made:
        # Or the application has nothing to do with Django.
        if obstacle:
            logger.info("Django's own handler serves the project: %s", obstacle)
        return application, None
    loop = asyncio.get_running_loop()
    lanes = serving.get(loop)
    if lanes is None:
        lanes = serving[loop] = Lanes(threads)
    lanes.users += 1
    walk_urls()
    return application, partial(_end, loop, lanes)


async def _end(loop: asyncio.AbstractEventLoop, lanes: Lanes) -> None:
    lanes.users -= 1
    if not lanes.users:
        del serving[loop]
        await lanes.close()


def replaced(application: Any) -> tuple[Any, str]:
    """The application with our handler in the place of Django's, and why one that is there was not replaced, if so.

    Only Django's very class is replaced: a subclass may have changed anything.
    """
    kind = type(application)
    if kind is Handler:
        return application, ""
    if kind is ASGIHandler:
        if obstacle := _obstacle():
            return application, obstacle
        try:
            return Handler(application), ""
        except Exception as error:  # noqa: BLE001 - Django has made the same middleware, for coroutines, without one
            return application, f"its middleware cannot be made for sync views: {error!r}"
    if isinstance(application, ASGIStaticFilesHandler) and kind.__module__.startswith(("django.", "asgiserver.")):
        inner, obstacle = replaced(application.application)
        if inner is not application.application:
            application = copy.copy(application)
            application.application = inner
        return application, obstacle
    if f"{kind.__module__}.{kind.__qualname__}" == "channels.routing.URLRouter":
        return _with_routes_replaced(application)
    if f"{kind.__module__}.{kind.__qualname__}" == "channels.routing.ProtocolTypeRouter":
        routes = application.application_mapping
        if "http" not in routes:
            return application, "the ProtocolTypeRouter has no 'http'"
        inner, obstacle = replaced(routes["http"])
        if inner is not routes["http"]:
            application = copy.copy(application)
            application.application_mapping = {**routes, "http": inner}
        return application, obstacle
    if isinstance(application, ASGIHandler):
        return application, f"{kind.__qualname__} is a subclass of it"
    if any(map(_holds_one, (application, *_named_by(application)))):
        return application, f"it stands behind {_name(application)}; see asgiserver.django.get_asgi_application"
    return application, ""


def _with_routes_replaced(router: Any) -> tuple[Any, str]:
    """The same for Channels' URLRouter, whose last route often leads to Django."""
    routes, obstacles = [], []
    for route in router.routes:
        inner, obstacle = replaced(route.callback)
        obstacles.append(obstacle)
        if inner is not route.callback:
            route = copy.copy(route)
            route.callback = inner
        routes.append(route)
    if any(new is not old for new, old in zip(routes, router.routes, strict=True)):
        router = copy.copy(router)
        router.routes = routes
    return router, next(filter(None, obstacles), "")


def _name(application: Any) -> str:
    return getattr(application, "__qualname__", None) or type(application).__qualname__


def _named_by(application: Any) -> list[Any]:
    """The globals that a function names, as one that tells protocols apart names the handler of each."""
    code, known = getattr(application, "__code__", None), getattr(application, "__globals__", {})
    return [known[name] for name in getattr(code, "co_names", ()) if name in known]


def _holds_one(application: Any, depth: int = 4) -> bool:
    """Whether Django's handler is among what an object refers to, as middleware refers to what it wraps."""
    if isinstance(application, ASGIHandler):
        return True
    if not depth or not callable(application) or isinstance(application, type):
        return False
    cells = [cell for cell in getattr(application, "__closure__", None) or () if cell != types.CellType()]
    parts = [*getattr(application, "__dict__", {}).values(), *(cell.cell_contents for cell in cells)]
    if isinstance(application, partial):
        parts += [application.func, *application.args, *application.keywords.values()]
    return any(_holds_one(part, depth - 1) for part in (*parts, getattr(application, "__self__", None)))


def _obstacle() -> str:
    """Why ours cannot stand in for Django's handler; empty when it can."""
    used = [(owner, name) for owner, names in _USED.items() for name in names]
    missing = [f"{owner.__name__}.{name}" for owner, name in used if not hasattr(owner, name)]
    if missing:
        return f"this release lacks {', '.join(missing)}"
    for path in settings.MIDDLEWARE:
        if not getattr(import_string(path), "sync_capable", True):
            return f"the middleware {path} is async only"
    return ""
