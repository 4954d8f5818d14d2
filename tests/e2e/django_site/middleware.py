"""Middleware of each kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from .journal import NAME, say

GetResponse = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def Named(get_response: GetResponse) -> GetResponse:
    """Sets a context variable, as structured logging does, and the request's URLconf."""

    def enter(request: HttpRequest) -> None:
        NAME.set(request.headers.get("X-Name", "-"))
        if "X-Urlconf" in request.headers:
            request.urlconf = f"tests.e2e.django_site.{request.headers['X-Urlconf']}"

    def leave(response: HttpResponse) -> HttpResponse:
        response["X-Name"] = NAME.get()
        return response

    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            enter(request)
            return leave(await get_response(request))
    else:

        def middleware(request: HttpRequest) -> HttpResponse:
            enter(request)
            return leave(get_response(request))

    return middleware


class Watched(MiddlewareMixin):
    """Says when a response is closed, with the context variable's value at that time."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response._resource_closers.append(lambda: say("closed", request.path, NAME.get()))
        say("left", request.path)
        return response


class Hooks(MiddlewareMixin):
    """Has every hook and tells which were called; ``X-Fail`` and ``X-Answer`` name one that fails or answers."""

    def called(self, request: HttpRequest, name: str) -> HttpResponse | None:
        request.META.setdefault("site.hooks", []).append(name)
        if request.headers.get("X-Fail") == name:
            raise LookupError(f"{name} fails")
        return HttpResponse(f"{name} answers") if request.headers.get("X-Answer") == name else None

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        return self.called(request, "process_request")

    def process_view(self, request: HttpRequest, *_: Any) -> HttpResponse | None:
        return self.called(request, "process_view")

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return self.called(request, "process_exception")

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        self.called(request, "process_template_response")
        response.context_data = {**(response.context_data or {}), "word": "by a hook"}
        return response

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response = self.called(request, "process_response") or response
        response["X-Hooks"] = " ".join(request.META["site.hooks"])
        return response


class AsyncOnly:
    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        response = await self.get_response(request)
        response["X-Async"] = "only"
        return response
