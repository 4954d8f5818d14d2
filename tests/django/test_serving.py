"""Where Django's handler is found in an application, and when it is left alone."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.handlers.asgi import ASGIHandler
from django.urls import path, re_path

from asgiserver.django import serving
from asgiserver.django.static_files import StaticFiles


class AsyncOnly:
    """A middleware that has no sync form."""

    sync_capable = False
    async_capable = True


class Own(ASGIHandler):
    """A project's own handler."""


class StandIn:
    """In the place of our handler, which needs a project."""

    def __init__(self, found: Any) -> None:
        self.found = found


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The settings of a project."""
    settings = SimpleNamespace(MIDDLEWARE=["django.middleware.common.CommonMiddleware"])
    monkeypatch.setattr(serving, "settings", settings)
    monkeypatch.setattr(serving, "Handler", StandIn)
    return settings


def made(kind: type, **attributes: Any) -> Any:
    """An object of ``kind``, without the set-up that needs a project."""
    instance = kind.__new__(kind)
    instance.__dict__.update(attributes)
    return instance


async def application(scope: Any, receive: Any, send: Any) -> None:
    """An application that is not Django's."""


class Wrapper:
    """Middleware of ASGI."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def wrapped(app: Any) -> Any:
    """Middleware as a function."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return inner


HANDLER = made(ASGIHandler)


async def by_protocol(scope: Any, receive: Any, send: Any) -> None:
    """A function of a project that hands Django its part."""
    await HANDLER(scope, receive, send)


@pytest.mark.parametrize(
    ("found", "innermost"),
    [
        (HANDLER, lambda it: it),
        (ProtocolTypeRouter({"http": HANDLER, "websocket": application}), lambda it: it.application_mapping["http"]),
        (made(ASGIStaticFilesHandler, application=HANDLER), lambda it: it.application),
        (made(StaticFiles, application=HANDLER), lambda it: it.application),
        (
            ProtocolTypeRouter({"http": URLRouter([path("feed/", application), re_path("", HANDLER)])}),
            lambda it: it.application_mapping["http"].routes[1].callback,
        ),
        (
            made(StaticFiles, application=ProtocolTypeRouter({"http": HANDLER})),
            lambda it: it.application.application_mapping["http"],
        ),
    ],
    ids=["alone", "router", "static files", "runserver", "routes", "static files and router"],
)
def test_djangos_handler_is_replaced_wherever_it_stands(found: Any, innermost: Callable[[Any], Any]) -> None:
    replaced, obstacle = serving.replaced(found)
    assert obstacle == ""
    assert type(innermost(replaced)) is StandIn
    assert innermost(replaced).found is HANDLER
    # Who holds the application that was found sees no change.
    assert innermost(found) is HANDLER
    assert type(replaced) is (StandIn if found is HANDLER else type(found))


def test_what_else_a_router_leads_to_stays() -> None:
    replaced, _ = serving.replaced(ProtocolTypeRouter({"http": HANDLER, "websocket": application}))
    assert replaced.application_mapping["websocket"] is application


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (made(Own), "Own is a subclass of it"),
        (application, ""),
        (
            functools.partial(application, inner=HANDLER),
            "it stands behind partial; see asgiserver.django.get_asgi_application",
        ),
        (Wrapper(Wrapper(HANDLER)), "it stands behind Wrapper; see asgiserver.django.get_asgi_application"),
        (wrapped(HANDLER), "it stands behind wrapped.<locals>.inner; see asgiserver.django.get_asgi_application"),
        (by_protocol, "it stands behind by_protocol; see asgiserver.django.get_asgi_application"),
        (Wrapper(application), ""),
        (ProtocolTypeRouter({"websocket": application}), "the ProtocolTypeRouter has no 'http'"),
        (ProtocolTypeRouter({"http": made(Own)}), "Own is a subclass of it"),
        (URLRouter([path("feed/", application), re_path("", made(Own))]), "Own is a subclass of it"),
    ],
    ids=[
        "subclass", "something else", "partial", "wrapped twice", "closure", "named", "other wrapped", "no http",
        "router", "routes",
    ],
)
def test_anything_else_is_left_alone_and_the_reason_is_told(found: Any, reason: str) -> None:
    replaced, obstacle = serving.replaced(found)
    assert obstacle == reason
    assert getattr(replaced, "application_mapping", None) == getattr(found, "application_mapping", None)
    assert type(replaced) is type(found)


def test_async_only_middleware_keeps_djangos_handler(project: SimpleNamespace) -> None:
    project.MIDDLEWARE.append(f"{__name__}.AsyncOnly")
    assert serving.replaced(HANDLER) == (HANDLER, f"the middleware {__name__}.AsyncOnly is async only")


def test_middleware_that_cannot_be_made_for_sync_views_keeps_djangos_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(found: Any) -> None:
        raise TypeError("only coroutines")

    monkeypatch.setattr(serving, "Handler", refuse)
    reason = "its middleware cannot be made for sync views: TypeError('only coroutines')"
    assert serving.replaced(HANDLER) == (HANDLER, reason)


def test_a_django_without_what_ours_uses_keeps_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ASGIHandler, "listen_for_disconnect")
    replaced, obstacle = serving.replaced(HANDLER)
    assert replaced is HANDLER
    assert obstacle == "this release lacks ASGIHandler.listen_for_disconnect"


class TestServersOnOneLoop:
    @pytest.fixture(autouse=True)
    def lanes(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The numbers of threads of those that were closed."""
        closed: list[int] = []

        class StandInForLanes:
            def __init__(self, limit: int) -> None:
                self.limit, self.users = limit, 0

            async def close(self) -> None:
                closed.append(self.limit)

        monkeypatch.setattr(serving, "Lanes", StandInForLanes)
        monkeypatch.setattr(StandIn, "made", [], raising=False)
        monkeypatch.setattr(serving, "walk_urls", lambda: None)
        return closed

    def test_share_threads_until_the_last_ends(self, lanes: list[int]) -> None:
        async def main() -> None:
            _, end_first = serving.begin(HANDLER, 3)
            _, end_second = serving.begin(HANDLER, 5)
            assert end_first is not None
            assert end_second is not None
            await end_first()
            assert serving.serving[asyncio.get_running_loop()].limit == 3
            assert lanes == []
            await end_second()
            assert asyncio.get_running_loop() not in serving.serving
            assert lanes == [3]

        asyncio.run(main())

    def test_one_without_djangos_handler_ends_nothing(self, lanes: list[int]) -> None:
        async def main() -> None:
            assert serving.begin(application, 3) == (application, None)

        asyncio.run(main())
