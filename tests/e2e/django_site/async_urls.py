"""A URLconf of asynchronous views alone."""

from __future__ import annotations

import threading

from django.http import HttpRequest, JsonResponse
from django.urls import path


async def here(request: HttpRequest) -> JsonResponse:
    on_loop = threading.current_thread() is threading.main_thread()
    return JsonResponse({"on loop": on_loop, "threads": threading.active_count() - 1})


urlpatterns = [path("here/", here)]
