"""The project's URLs, and those of other packages."""

from __future__ import annotations

from debug_toolbar.toolbar import debug_toolbar_urls
from django.contrib import admin
from django.urls import include, path

from . import api
from .urls import urlpatterns as own

urlpatterns = [
    path("admin/", admin.site.urls),
    path("rest/double/", api.double),
    path("rest/upload/<filename>", api.upload),
    path("rest/", include(api.router.urls)),
    path("ninja/", api.ninja.urls),
    *own,
    *debug_toolbar_urls(),
]
