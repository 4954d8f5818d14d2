from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from .models import Line


def page(request: HttpRequest) -> HttpResponse:
    return render(request, "live_project/chat.html")


@csrf_exempt
def lines(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        with transaction.atomic():
            Line.objects.create(text=request.body.decode())
            Line.objects.filter(text="").delete()
    return JsonResponse([line.text for line in Line.objects.order_by("id")], safe=False)


async def async_lines(request: HttpRequest) -> HttpResponse:
    return JsonResponse([line.text async for line in Line.objects.order_by("id")], safe=False)


def failing(request: HttpRequest) -> HttpResponse:
    raise LookupError("the view fails")


urlpatterns = [
    path("", page),
    path("lines/", lines),
    path("async-lines/", async_lines),
    path("failing/", failing),
]
