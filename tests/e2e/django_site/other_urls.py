"""A URLconf that a middleware gives to single requests; with pages of its own for errors."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from .views import fail


def missing(request: HttpRequest, exception: Exception) -> HttpResponse:
    return HttpResponse(f"own 404: {type(exception).__name__}", status=404)


def broken(request: HttpRequest) -> HttpResponse:
    return HttpResponse("own 500", status=500)


handler404 = missing
handler500 = "tests.e2e.django_site.other_urls.broken"

urlpatterns = [
    path("only/here/", lambda request: HttpResponse("the other URLconf")),
    path("fail/<name>/", fail),
]
