"""Which hooks of Django's middleware run on the loop, with everything that blocks out of reach; and which do not."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import inspect
import io
import os
import pkgutil
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import django
import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.conf import settings
from django.contrib.messages import get_messages, info
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import get_token
from django.test import override_settings
from django.urls import path
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string
from django.utils.translation import trans_real
from django.views.decorators.csrf import csrf_exempt

from asgiserver.django import inline
from asgiserver.django.inline import HOOKS, KNOWN_RELEASES, run_hooks_on_loop

from . import others
from .configured import MIDDLEWARE, configured

SECURITY, SESSION, COMMON, CSRF, AUTH, MESSAGES, FRAMES = MIDDLEWARE
LOCALE = "django.middleware.locale.LocaleMiddleware"
SESSION_ENGINES = "db", "cache", "cached_db", "file", "signed_cookies"
STORAGES = "cookie.CookieStorage", "fallback.FallbackStorage", "session.SessionStorage"


async def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("seen")


async def forbidden(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied


urlpatterns = [path("view/", view), path("forbidden", forbidden)]


@pytest.fixture(scope="module", autouse=True)
def _project() -> Iterator[None]:
    with configured(__name__):
        yield


class BlockedError(BaseException):
    """Something was done that may block. Django does not take it for an error of its own."""


_watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(("open", "os.", "socket.", "sqlite3.", "subprocess.", "import")):
        raise BlockedError(event, arguments)


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    sys.addaudithook(_watch)


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Nothing reaches databases, files or caches, and nothing is imported."""
    global _watching

    def block(*arguments: Any, **_: Any) -> Any:
        raise BlockedError(arguments)

    operations = "add", "get", "set", "touch", "delete", "has_key", "incr", "clear", "get_many", "set_many"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "cursor", "ensure_connection"):
            patch.setattr(BaseDatabaseWrapper, name, block)
        for name in operations:
            patch.setattr(LocMemCache, name, block)
        # Python's audit events tell nothing of these.
        for name in ("stat", "lstat", "access", "readlink"):
            patch.setattr(os, name, block)
        _watching = True
        try:
            yield
        finally:
            _watching = False


def result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine function returns that waits for nothing; there is no loop on which it could."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def on_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with poisoned():
        return result(coroutine)


def in_thread(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """True when a coroutine wants a thread, for which it needs a loop."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)
    return True


def request(target: str = "/view/", method: str = "GET", **headers: str) -> ASGIRequest:
    where, _, query = target.partition("?")
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "h", **headers}.items()]
    scope = {"type": "http", "method": method, "path": where, "query_string": query.encode(), "headers": fields}
    return ASGIRequest(scope, io.BytesIO())


class Chain:
    """Django's handler with middleware, and what the last of it gets."""

    def __init__(self, *names: str, **values: Any) -> None:
        with override_settings(MIDDLEWARE=names, **values):
            self.handler = ASGIHandler()
            run_hooks_on_loop(self.handler)
        [self.first, *_] = list(inline._middleware(self.handler._middleware_chain)) or [None]

    def call(
        self, request: HttpRequest, response: HttpResponse | None = None, view: Callable[..., Any] | None = None
    ) -> Coroutine[Any, Any, Any]:
        """The first middleware's call, with a view in the place of all the rest."""

        async def respond(request: HttpRequest) -> HttpResponse:
            given = view(request) if view is not None else None
            return given or response or HttpResponse("seen")

        self.first.get_response = respond
        coroutine: Coroutine[Any, Any, Any] = self.first(request)
        return coroutine


class TestSecurity:
    def test_its_headers_are_set(self) -> None:
        response = on_loop(Chain(SECURITY, SECURE_HSTS_SECONDS=60).call(request()))
        assert response["X-Content-Type-Options"] == "nosniff"

    def test_it_redirects(self) -> None:
        response = on_loop(Chain(SECURITY, SECURE_SSL_REDIRECT=True).call(request()))
        assert (response.status_code, response["Location"]) == (301, "https://h/view/")


class TestCommon:
    def test_the_length_is_set(self) -> None:
        assert on_loop(Chain(COMMON).call(request()))["Content-Length"] == "4"

    def test_a_slash_is_appended(self) -> None:
        response = on_loop(Chain(COMMON).call(request("/view"), HttpResponseNotFound()))
        assert (response.status_code, response["Location"]) == (301, "/view/")

    @override_settings(PREPEND_WWW=True)
    def test_www_is_prepended(self) -> None:
        response = on_loop(Chain(COMMON).call(request("/view")))
        assert (response.status_code, response["Location"]) == (301, "http://www.h/view/")

    def test_content_that_a_class_of_ones_own_fetches_is_fetched_in_a_thread(self) -> None:
        class Fetched(HttpResponse):
            @property
            def content(self) -> bytes:
                raise BlockedError

            @content.setter
            def content(self, value: Any) -> None: ...

        assert in_thread(Chain(COMMON).call(request(), Fetched()))


class TestFrames:
    def test_its_header_is_set(self) -> None:
        assert on_loop(Chain(FRAMES).call(request()))["X-Frame-Options"] == "DENY"


class TestLocale:
    def language(self, request: HttpRequest) -> str:
        response = on_loop(Chain(LOCALE).call(request, view=lambda _: HttpResponse(translation.get_language())))
        assert response["Content-Language"] == response.content.decode()
        return str(response["Content-Language"])

    @pytest.fixture(autouse=True)
    def _languages(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(trans_real, "_translations", {})
        for function in (trans_real.translation_catalog_exists, trans_real._get_supported_language_variant):
            function.cache_clear()
        with translation.override(None):
            yield

    def test_the_projects_own_is_there(self) -> None:
        assert self.language(request()) == "en"

    def test_one_that_was_used_is_too(self) -> None:
        Chain(LOCALE)
        trans_real.translation("de")
        assert self.language(request(accept_language="de")) == "de"
        assert self.language(request(cookie="django_language=de")) == "de"

    def test_one_that_nobody_has_is_not_looked_for(self) -> None:
        assert self.language(request(accept_language="tlh, xx-yy")) == "en"

    def test_one_that_was_not_used_is_loaded_in_a_thread(self) -> None:
        assert in_thread(Chain(LOCALE).call(request(accept_language="fr")))

    @pytest.mark.parametrize("other", [{"target": "/dE/view/"}, {"cookie": "django_language=dE"}])
    def test_one_that_is_written_otherwise_is_looked_for_in_a_thread(self, other: dict[str, str]) -> None:
        chain = Chain(LOCALE)
        trans_real.translation("de")
        trans_real.translation("dE")
        assert in_thread(chain.call(request(**other)))

    def test_it_is_loaded_in_a_thread_when_the_projects_own_is_not(self) -> None:
        chain = Chain(LOCALE)
        trans_real.translation("de")
        with override_settings(LANGUAGE_CODE="fr"):
            assert in_thread(chain.call(request(accept_language="de")))

    def test_none_is_active_after_the_start(self) -> None:
        translation.deactivate_all()
        Chain(LOCALE)
        assert translation.get_language() is None

    @override_settings(USE_I18N=False)
    def test_without_languages_there_is_nothing_to_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(translation, "_trans", type(translation._trans)())
        assert self.language(request(accept_language="fr")) == "en-us"


class TestSession:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Any) -> Iterator[None]:
        # The store of files keeps its folder with the class.
        store = import_string("django.contrib.sessions.backends.file.SessionStore")
        with override_settings(SESSION_FILE_PATH=str(tmp_path)):
            yield
        if "_storage_path" in vars(store):
            del store._storage_path

    def chain(self, engine: str, **values: Any) -> Chain:
        return Chain(SESSION, SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}", **values)

    def key(self) -> dict[str, str]:
        return {"cookie": "sessionid=0123456789abcdef"}

    @pytest.mark.parametrize("engine", SESSION_ENGINES)
    def test_one_that_nobody_uses_is_opened_and_left(self, engine: str) -> None:
        response = on_loop(self.chain(engine).call(request(**self.key())))
        assert "Set-Cookie" not in response
        assert not response.cookies
        assert "Vary" not in response

    @pytest.mark.parametrize("engine", SESSION_ENGINES)
    def test_one_that_was_read_makes_the_response_vary(self, engine: str) -> None:
        def read(request: HttpRequest) -> None:
            request.session._session_cache = {"loaded": 1}
            assert request.session["loaded"] == 1

        response = on_loop(self.chain(engine).call(request(**self.key()), view=read))
        assert response["Vary"] == "Cookie"
        assert not response.cookies

    @pytest.mark.parametrize("engine", SESSION_ENGINES)
    @pytest.mark.parametrize("always", [False, True])
    def test_one_that_was_emptied_loses_its_cookie(self, engine: str, always: bool) -> None:
        def empty(request: HttpRequest) -> None:
            # What ``flush`` does, without its access to the database.
            request.session.clear()
            request.session._session_key = None

        with override_settings(SESSION_SAVE_EVERY_REQUEST=always):
            response = on_loop(self.chain(engine).call(request(**self.key()), view=empty))
        assert response.cookies["sessionid"]["max-age"] == 0

    @pytest.mark.parametrize("engine", SESSION_ENGINES)
    def test_one_that_was_changed_is_saved_in_a_thread(self, engine: str) -> None:
        def change(request: HttpRequest) -> None:
            request.session._session_cache = {}
            request.session["changed"] = True

        assert in_thread(self.chain(engine).call(request(**self.key()), view=change))

    @pytest.mark.parametrize("engine", SESSION_ENGINES)
    @override_settings(SESSION_SAVE_EVERY_REQUEST=True)
    def test_so_is_one_that_is_always_saved(self, engine: str) -> None:
        assert in_thread(self.chain(engine).call(request(**self.key())))

    @override_settings(SESSION_SAVE_EVERY_REQUEST=True)
    def test_one_that_is_empty_never_is(self) -> None:
        assert on_loop(self.chain("db").call(request())).status_code == 200

    def test_no_cache_is_open_after_the_start(self) -> None:
        def opened() -> list[Any]:
            self.chain("cache")
            found: list[Any] = caches.all(initialized_only=True)
            return found

        assert contextvars.Context().run(opened) == []

    def test_that_of_another_engine_is_opened_in_a_thread(self) -> None:
        assert in_thread(Chain(SESSION, SESSION_ENGINE=others.__name__).call(request()))

    @pytest.mark.parametrize("engine", ["cache", "cached_db"])
    def test_one_in_another_cache_is_opened_in_a_thread(self, engine: str) -> None:
        caches = {"default": {"BACKEND": f"{others.__name__}.Cache"}}
        with override_settings(CACHES=caches):
            assert in_thread(self.chain(engine).call(request()))

    def test_one_that_a_view_has_put_there_is_left_in_a_thread(self) -> None:
        class Other(SessionStore):
            pass

        def replace(request: HttpRequest) -> None:
            request.session = Other()

        assert in_thread(self.chain("db").call(request(), view=replace))

    def test_an_engine_that_cannot_be_had_is_reported_with_the_request(self, tmp_path: Any) -> None:
        with override_settings(SESSION_FILE_PATH=str(tmp_path / "missing")):
            assert in_thread(self.chain("file").call(request()))


class TestAuthentication:
    def test_a_user_is_there_for_whoever_asks(self) -> None:
        asked = request()
        asked.session = {}
        on_loop(Chain(AUTH).call(asked))
        assert {"user", "auser"} <= vars(asked).keys()


class TestTokens:
    @pytest.mark.parametrize("token", ["a" * 32, "a" * 64, "bad"])
    def test_the_cookie_is_read_and_set(self, token: str) -> None:
        view = lambda request: HttpResponse(get_token(request))  # noqa: E731
        response = on_loop(Chain(CSRF).call(request(cookie=f"csrftoken={token}"), view=view))
        assert len(response.content) == 64
        assert (response.cookies["csrftoken"].value == token) == (token == "a" * 32)

    @override_settings(CSRF_USE_SESSIONS=True)
    def test_in_a_session_it_is_read_in_a_thread(self) -> None:
        assert in_thread(Chain(CSRF).call(request()))

    def test_in_a_session_it_is_set_in_a_thread(self) -> None:
        def use_sessions(request: HttpRequest) -> None:
            settings.CSRF_USE_SESSIONS = True

        with override_settings(CSRF_USE_SESSIONS=False):
            assert in_thread(Chain(CSRF).call(request(), view=use_sessions))

    def check(self, method: str, view: Callable[..., Any] = view) -> Coroutine[Any, Any, Any]:
        [hook] = Chain(CSRF).handler._view_middleware
        coroutine: Coroutine[Any, Any, Any] = hook(request(method=method), view, (), {})
        return coroutine

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
    def test_nothing_is_checked_before_views_that_change_nothing(self, method: str) -> None:
        assert on_loop(self.check(method)) is None

    def test_nothing_is_checked_before_views_that_are_exempt(self) -> None:
        assert on_loop(self.check("POST", csrf_exempt(lambda request: None))) is None

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_others_are_checked_in_a_thread(self, method: str) -> None:
        assert in_thread(self.check(method))


class TestMessages:
    def asked(self) -> ASGIRequest:
        asked = request(cookie="messages=some")
        asked.session = SessionStore("0123456789abcdef")
        return asked

    @pytest.mark.parametrize("storage", STORAGES)
    def test_those_that_nobody_uses_stay_where_they_are(self, storage: str) -> None:
        with override_settings(MESSAGE_STORAGE=f"django.contrib.messages.storage.{storage}"):
            response = on_loop(Chain(MESSAGES).call(self.asked()))
        assert not response.cookies

    def test_those_that_were_added_are_stored_in_a_thread(self) -> None:
        assert in_thread(Chain(MESSAGES).call(self.asked(), view=lambda request: info(request, "new")))

    def test_those_that_were_read_are_removed_in_a_thread(self) -> None:
        def read(request: HttpRequest) -> None:
            storage = get_messages(request)
            storage._loaded_data = []
            assert list(storage) == []

        assert in_thread(Chain(MESSAGES).call(self.asked(), view=read))

    def test_those_that_are_gone_are_left_in_a_thread(self) -> None:
        assert in_thread(Chain(MESSAGES).call(self.asked(), view=lambda request: delattr(request, "_messages")))

    @pytest.mark.parametrize(
        ("name", "value"), [("MESSAGE_STORAGE", f"{others.__name__}.Messages"), ("SIGNING_BACKEND", "Signer")]
    )
    def test_storages_and_signers_of_others_are_made_in_a_thread(self, name: str, value: str) -> None:
        chain = Chain(MESSAGES)
        with override_settings(**{name: value}):
            assert in_thread(chain.call(self.asked()))


class TestWhatStays:
    """As Django has it."""

    def changed(self, chain: Chain) -> bool:
        return "__acall__" in vars(chain.first)

    @pytest.mark.parametrize("name", HOOKS)
    def test_of_what_is_listed_nothing(self, name: str) -> None:
        assert self.changed(Chain(name))
        assert HOOKS[name].keys() <= {"process_request", "process_view", "process_response"} & vars(
            import_string(name)
        ).keys()

    @pytest.mark.parametrize(
        "name", ["django.middleware.gzip.GZipMiddleware", "django.middleware.common.BrokenLinkEmailsMiddleware"]
    )
    def test_what_is_not_listed(self, name: str) -> None:
        assert not self.changed(Chain(name))

    def test_a_subclass(self) -> None:
        assert not self.changed(Chain(f"{__name__}.Derived"))

    def test_a_class_that_somebody_has_patched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(XFrameOptionsMiddleware, "get_xframe_options_value", lambda *_: "ALLOW")
        assert not self.changed(Chain(FRAMES))
        assert self.changed(Chain(COMMON))

    @pytest.mark.parametrize("name", ["__call__", "__acall__"])
    def test_all_when_somebody_has_patched_the_base(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(MiddlewareMixin, name, lambda self, request: None)
        assert not self.changed(Chain(FRAMES))

    def test_all_of_a_release_that_nobody_has_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(django, "VERSION", (99, 0, 0, "final", 0))
        chain = Chain(CSRF)
        assert not self.changed(chain)
        assert isinstance(chain.handler._view_middleware[0], SyncToAsync)

    def test_a_request_that_somebody_has_given_another_class(self) -> None:
        asked = request()
        asked.__class__ = type("Other", (ASGIRequest,), {})
        assert in_thread(Chain(SECURITY).call(asked))

    def test_hooks_for_views_of_other_middleware(self) -> None:
        own, other = Chain(CSRF, f"{__name__}.Views").handler._view_middleware
        assert not isinstance(own, SyncToAsync)
        assert isinstance(other, SyncToAsync)


class Derived(CommonMiddleware):
    """Somebody's own."""


class Views(MiddlewareMixin):
    def process_view(self, *_: Any) -> None: ...


def by_function(get_response: Callable[..., Any]) -> Callable[..., Any]:
    async def middleware(request: HttpRequest) -> Any:
        return await get_response(request) or _never

    # What a function names of its closure may have no value yet.
    for _never in ():
        pass
    return middleware


by_function.async_capable = True  # type: ignore[attr-defined]
by_function.sync_capable = False  # type: ignore[attr-defined]


def sync_only(get_response: Callable[..., Any]) -> Callable[..., Any]:
    def middleware(request: HttpRequest) -> Any:
        return get_response(request)

    return middleware


class TestChain:
    def names(self, *names: str) -> list[str]:
        chain = inline._middleware(Chain(*names).handler._middleware_chain)
        return [inline.full_name(type(middleware)) for middleware in chain]

    def test_all_middleware_is_found(self) -> None:
        assert self.names(*MIDDLEWARE, LOCALE) == [*MIDDLEWARE, LOCALE]

    @pytest.mark.parametrize("name", ["by_function", "sync_only"])
    def test_so_is_what_stands_behind_a_function(self, name: str) -> None:
        assert self.names(SECURITY, f"{__name__}.{name}", FRAMES) == [SECURITY, FRAMES]

    def test_without_any_there_is_none(self) -> None:
        assert self.names() == []

    def test_what_goes_round_in_circles_ends(self) -> None:
        middleware = XFrameOptionsMiddleware(view)
        middleware.get_response = middleware
        assert list(inline._middleware(middleware)) == [middleware]

    @pytest.mark.parametrize("adapter", [sync_to_async, async_to_sync])
    def test_adapters_are_seen_through(self, adapter: Any) -> None:
        middleware = XFrameOptionsMiddleware(view if adapter is async_to_sync else lambda request: None)
        assert list(inline._middleware(adapter(middleware))) == [middleware]

    def test_a_request_passes_through_all_of_it_without_a_thread(self) -> None:
        handler = Chain(*MIDDLEWARE, LOCALE).handler
        asked = request()
        with override_settings(MIDDLEWARE=[*MIDDLEWARE, LOCALE]):
            response = on_loop(handler.get_response_async(asked))
        assert (response.status_code, response.content) == (200, b"seen")
        names = {"X-Frame-Options", "Content-Language", "Content-Length", "X-Content-Type-Options"}
        assert names <= {*response.headers}

    def test_an_exception_becomes_a_response_where_django_makes_one(self) -> None:
        handler = Chain(SECURITY, FRAMES).handler
        response = asyncio.run(handler.get_response_async(request("/forbidden")))
        # Each middleware on the way out has seen it.
        assert (response.status_code, response["X-Frame-Options"]) == (403, "DENY")
        assert "X-Content-Type-Options" in response

    def test_so_does_one_of_a_hook_that_runs_on_the_loop(self) -> None:
        handler = Chain(SECURITY, COMMON).handler
        with override_settings(ALLOWED_HOSTS=["other"]):
            response = asyncio.run(handler.get_response_async(request()))
        assert response.status_code == 400
        assert "X-Content-Type-Options" in response


#: What runs on the loop, and what decides that, each with the digests of the code that somebody has read. When Django
#: changes one, read it again: does it still touch neither databases nor files nor caches?
READ: dict[str, set[str]] = {
    "django.middleware.security.SecurityMiddleware": {"19eb53889608"},
    "django.middleware.common.CommonMiddleware": {"1815ab478df6", "f257e1fb7768"},
    "django.middleware.clickjacking.XFrameOptionsMiddleware": {"a2601efbe796"},
    "django.middleware.locale.LocaleMiddleware": {"47c6f5b072bb"},
    "django.middleware.csrf.CsrfViewMiddleware": {"92002ca8750d", "eefc632f68fe"},
    "django.contrib.sessions.middleware.SessionMiddleware": {"699049ead4d6"},
    "django.contrib.auth.middleware.AuthenticationMiddleware": {"92b1ce0f6975"},
    "django.contrib.messages.middleware.MessageMiddleware": {"2b2375c8064e"},
    "django.utils.deprecation.MiddlewareMixin": {"8110dfb0706b"},
    "django.contrib.sessions.backends.base.SessionBase": {"ecc2e78744b4", "23c2fa142298", "840db2594663"},
    "django.contrib.sessions.backends.cache.SessionStore": {"17ff769273fb"},
    "django.contrib.sessions.backends.cached_db.SessionStore": {"b1c47cf04c08"},
    "django.contrib.sessions.backends.db.SessionStore": {"d629b24a81ed", "b7f9bd94cda1"},
    "django.contrib.sessions.backends.file.SessionStore": {"9977076d3ad5", "8c7356732fc7"},
    "django.contrib.sessions.backends.signed_cookies.SessionStore": {"aff944cfaccc"},
    "django.contrib.messages.storage.base.BaseStorage": {"4fcb3866ae58"},
    "django.contrib.messages.storage.cookie.CookieStorage": {"bba5d5c998f8", "7937573e83fb"},
    "django.contrib.messages.storage.fallback.FallbackStorage": {"bc49dd79bfd3"},
    "django.contrib.messages.storage.session.SessionStorage": {"bc8e17f4135a"},
    "django.utils.translation.trans_real.activate": {"63b84ca0501e"},
    "django.utils.translation.trans_real.get_language_from_path": {"0770e0514d78"},
    "django.utils.translation.trans_real.get_language_from_request": {"074cabd846ce"},
    "django.utils.translation.trans_real.get_supported_language_variant": {"9be00d6cde07"},
    "django.core.handlers.asgi.ASGIHandler.handle": {"421cf65f8be3", "3e2274408db7"},
    "django.core.handlers.asgi.ASGIRequest.close": {"2b6949452e64"},
    "django.core.handlers.base.reset_urlconf": {"52c4db7dd8f1"},
    "django.core.handlers.exception.convert_exception_to_response": {"730ba7912fd8"},
    "django.core.cache.close_caches": {"e087503e7f23"},
    "django.db.close_old_connections": {"81b7a119db5b"},
    "django.db.reset_queries": {"e76e32e70560"},
    "django.dispatch.Signal._live_receivers": {"e9721e1e4816", "471a9c80ec85"},
    "django.dispatch.Signal.asend": {"52651144c2ae", "d5251831441d"},
    "django.http.request.HttpRequest.close": {"176ed64f5b76"},
    "django.http.response.HttpResponseBase.close": {"7626504ecad9"},
}


def digest(name: str) -> str:
    """Of the code behind a name, however it is laid out."""
    code = "".join(inspect.getsource(pkgutil.resolve_name(name)).split())
    return hashlib.sha256(code.encode()).hexdigest()[:12]


class TestReleases:
    def test_the_installed_one_is_known(self) -> None:
        assert django.VERSION[:2] in KNOWN_RELEASES, "read the hooks of this release, and add it to KNOWN_RELEASES"

    @pytest.mark.parametrize("name", READ)
    def test_its_code_is_what_somebody_has_read(self, name: str) -> None:
        assert digest(name) in READ[name]

    def test_all_that_runs_on_the_loop_has_been_read(self) -> None:
        assert READ.keys() >= HOOKS.keys()
        assert READ.keys() >= inline._ENGINES | inline._CACHED_ENGINES | inline._STORAGES
