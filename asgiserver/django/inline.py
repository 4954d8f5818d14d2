"""Hooks of Django's own middleware that cannot block run on the loop, not in a thread.

For an async view ``MiddlewareMixin`` goes to a thread and back for each ``process_request`` and ``process_response``.
Most of Django's only look at headers. :data:`HOOKS` says which those are, and of the others, how to tell before the
call that this one will not block. A call that may block goes to the thread as before.

Django's chain stays as it was loaded, with its handling of exceptions: only the instance's ``__acall__``, and the
entries of ``_view_middleware``, change. They change only for the very classes that are named here, whose code nobody
has patched, and only in the releases of Django whose hooks somebody has read: :data:`KNOWN_RELEASES`.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponse, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string
from django.utils.translation import trans_real

__all__ = ["KNOWN_RELEASES", "full_name", "is_own", "run_hooks_on_loop"]

#: The series whose hooks and ``ASGIHandler.handle`` have been read, and are tested. Others run as Django has them.
KNOWN_RELEASES = {(5, 2), (6, 0), (6, 1)}

#: Tells of a call that it cannot block; called with the middleware and the hook's arguments.
Condition = Callable[..., bool]


def run_hooks_on_loop(handler: ASGIHandler) -> None:
    """Let the middleware of a handler run on the loop what cannot block."""
    if django.VERSION[:2] not in KNOWN_RELEASES:
        return
    for middleware in _middleware(handler._middleware_chain):
        hooks = HOOKS.get(full_name(type(middleware)))
        if hooks is None or not is_own(type(middleware)) or not _is_prepared(middleware):
            continue
        middleware.__acall__ = _both_ways(middleware, hooks)
        if "process_view" in hooks:
            run = _hook(middleware.process_view, hooks["process_view"])
            views = handler._view_middleware
            views[:] = [run if getattr(each, "__self__", None) is middleware else each for each in views]


def _middleware(handler: Any) -> Iterator[Any]:
    """The middleware of a chain, from without to within, as far as it can be followed."""
    seen = set()
    while handler is not None and id(handler) not in seen:
        seen.add(id(handler))
        if isinstance(handler, MiddlewareMixin):
            yield handler
        handler = _next(handler)


def _next(handler: Any) -> Any:
    """What a part of the chain calls: another part.

    Django wraps each middleware in ``convert_exception_to_response``, and where sync meets async, in asgiref's
    adapters. Middleware keeps the rest of the chain as ``get_response``, a function in its closure.
    """
    for name in ("__wrapped__", "awaitable", "get_response"):
        if (found := getattr(handler, name, None)) is not None:
            return found
    if inspect.isfunction(handler) and "get_response" in (names := handler.__code__.co_freevars):
        return handler.__closure__[names.index("get_response")].cell_contents  # type: ignore[index]
    return None


def full_name(kind: type) -> str:
    """The name by which settings call a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def is_own(kind: type) -> bool:
    """True when the functions of a class are those of its module: nobody has put others in their place."""
    names = vars(sys.modules[kind.__module__])
    functions = [each for each in vars(kind).values() if callable(each) and not isinstance(each, type)]
    if not all(inspect.isfunction(each) and each.__globals__ is names for each in functions):
        return False
    return kind is MiddlewareMixin or not issubclass(kind, MiddlewareMixin) or (
        is_own(MiddlewareMixin) and kind.__acall__ is MiddlewareMixin.__acall__  # type: ignore[attr-defined]
    )


def _both_ways(middleware: Any, hooks: dict[str, Condition]) -> Callable[[Any], Awaitable[Any]]:
    """What stands in for the middleware's ``__acall__``."""
    way_in, way_out = (
        _hook(getattr(middleware, name), hooks.get(name, _never)) if hasattr(middleware, name) else None
        for name in ("process_request", "process_response")
    )

    async def acall(request: Any) -> Any:
        # Whoever gives the request another class may have given it attributes that block.
        if type(request) is not ASGIRequest:
            return await type(middleware).__acall__(middleware, request)
        response = await way_in(request) if way_in is not None else None
        response = response or await middleware.get_response(request)
        return await way_out(request, response) if way_out is not None else response

    return acall


def _hook(hook: Callable[..., Any], cannot_block: Condition) -> Callable[..., Awaitable[Any]]:
    """A hook as a coroutine function."""
    in_thread = sync_to_async(hook, thread_sensitive=True)
    middleware = hook.__self__  # type: ignore[attr-defined]

    async def run(*arguments: Any) -> Any:
        if cannot_block(middleware, *arguments):
            return hook(*arguments)
        return await in_thread(*arguments)

    return run


# What the middleware needs once, before it cannot block.


def _is_prepared(middleware: Any) -> bool:
    """Do what the hooks would do at their first call: imports, and looks at files. False when it fails."""
    prepare = _PREPARATIONS.get(full_name(type(middleware)))
    if prepare is not None:
        try:
            # In a context of its own: what Django keeps there belongs to a request.
            contextvars.copy_context().run(prepare, middleware)
        except Exception:  # noqa: BLE001 - each request meets it again where Django answers it
            return False
    return True


def _prepare_session(middleware: Any) -> None:
    middleware.SessionStore()


def _prepare_messages(_: Any) -> None:
    import_string(settings.MESSAGE_STORAGE)(SimpleNamespace(session=None))


def _prepare_languages(_: Any) -> None:
    for code in trans_real.get_languages():
        translation.check_for_language(code)
    anybody = SimpleNamespace(COOKIES={}, META={})
    for code in (settings.LANGUAGE_CODE, translation.get_language_from_request(anybody)):
        translation.activate(code)


_PREPARATIONS: dict[str, Callable[[Any], None]] = {
    "django.contrib.sessions.middleware.SessionMiddleware": _prepare_session,
    "django.contrib.messages.middleware.MessageMiddleware": _prepare_messages,
    "django.middleware.locale.LocaleMiddleware": _prepare_languages,
}


# Conditions.


def _always(*_: Any) -> bool:
    return True


def _never(*_: Any) -> bool:
    return False


def _has_content(_: Any, __: Any, response: Any) -> bool:
    """The response's content is there: a class of somebody else may fetch it when it is asked for."""
    return getattr(type(response), "content", None) in _CONTENTS


_CONTENTS = (HttpResponse.content, SimpleTemplateResponse.content, StreamingHttpResponse.content)


def _opens_own_session(middleware: Any, _: Any) -> bool:
    """Django's engines load nothing before the session is used; those that use a cache make its client, though."""
    engine = full_name(middleware.SessionStore)
    if engine in _CACHED_ENGINES:
        backend: str = settings.CACHES[settings.SESSION_CACHE_ALIAS]["BACKEND"]
        return backend.startswith("django.core.cache.backends.")
    return engine in _ENGINES


_CACHED_ENGINES = {f"django.contrib.sessions.backends.{name}.SessionStore" for name in ("cache", "cached_db")}
_ENGINES = {f"django.contrib.sessions.backends.{name}.SessionStore" for name in ("db", "file", "signed_cookies")}


def _saves_no_session(middleware: Any, request: Any, _: Any) -> bool:
    """The session is Django's, and has nothing to be saved; an empty one is not saved."""
    session: Any = getattr(request, "session", None)
    if type(session) is not middleware.SessionStore or full_name(type(session)) not in _ENGINES | _CACHED_ENGINES:
        return False
    return not (session.modified or settings.SESSION_SAVE_EVERY_REQUEST) or session.is_empty()


def _keeps_token_in_cookie(*_: Any) -> bool:
    return not settings.CSRF_USE_SESSIONS


def _checks_no_token(_: Any, request: Any, view: Any, *__: Any) -> bool:
    """Where a token is to be checked, the form is read, uploads included, and a page of errors rendered."""
    return request.method in ("GET", "HEAD", "OPTIONS", "TRACE") or getattr(view, "csrf_exempt", False)


def _opens_own_messages(*_: Any) -> bool:
    return (
        settings.MESSAGE_STORAGE in _STORAGES and settings.SIGNING_BACKEND == "django.core.signing.TimestampSigner"
    )


_STORAGES = {
    "django.contrib.messages.storage.cookie.CookieStorage",
    "django.contrib.messages.storage.fallback.FallbackStorage",
    "django.contrib.messages.storage.session.SessionStorage",
}


def _stores_no_messages(_: Any, request: Any, __: Any) -> bool:
    """Messages that nobody has read or added stay where they are, and are not even loaded."""
    storage: Any = getattr(request, "_messages", None)
    return full_name(type(storage)) in _STORAGES and not (storage.used or storage.added_new)


def _has_language(_: Any, request: Any) -> bool:
    """The request's language is loaded: the first use of one reads its files."""
    if not settings.USE_I18N:
        return True
    # Django looks for the files of each way to write a code, but these it has looked for.
    cookie = request.COOKIES.get(settings.LANGUAGE_COOKIE_NAME, "")
    prefix = request.path_info[1:].partition("/")[0]
    if cookie != cookie.lower() or prefix != prefix.lower():
        return False
    in_path, _ = is_language_prefix_patterns_used(getattr(request, "urlconf", settings.ROOT_URLCONF))
    language = translation.get_language_from_request(request, check_path=in_path)
    return language in trans_real._translations and settings.LANGUAGE_CODE in trans_real._translations


#: The hooks that run on the loop, and when. A hook that is not here may always block.
HOOKS: dict[str, dict[str, Condition]] = {
    "django.middleware.security.SecurityMiddleware": {"process_request": _always, "process_response": _always},
    "django.middleware.common.CommonMiddleware": {"process_request": _always, "process_response": _has_content},
    "django.middleware.clickjacking.XFrameOptionsMiddleware": {"process_response": _always},
    "django.middleware.locale.LocaleMiddleware": {"process_request": _has_language, "process_response": _always},
    "django.middleware.csrf.CsrfViewMiddleware": {
        "process_request": _keeps_token_in_cookie,
        "process_view": _checks_no_token,
        "process_response": _keeps_token_in_cookie,
    },
    "django.contrib.sessions.middleware.SessionMiddleware": {
        "process_request": _opens_own_session,
        "process_response": _saves_no_session,
    },
    "django.contrib.auth.middleware.AuthenticationMiddleware": {"process_request": _always},
    "django.contrib.messages.middleware.MessageMiddleware": {
        "process_request": _opens_own_messages,
        "process_response": _stores_no_messages,
    },
}
