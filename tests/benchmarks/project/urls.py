"""The sync views."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from . import views
from .api import Hello

urlpatterns = [
    path("", views.index),
    path("articles/<int:number>/<slug:words>", views.hello),
    path("orm/articles/<int:number>/<slug:words>", views.member),
    path("drf/articles/<int:number>/<slug:words>", Hello.as_view()),
    path("file/<int:size>", views.file),
    path("stream/<int:size>", views.stream),
    path("sleep", views.sleep),
    path("connections", views.connections),
    path("admin/", admin.site.urls),
]
