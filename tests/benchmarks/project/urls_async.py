"""The coroutine view, and the sync one that servers are waited for with."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.index),
    path("articles/<int:number>/<slug:words>", views.asynchronous),
]
