from __future__ import annotations

from board import views
from django.urls import path
from django.views.generic import TemplateView

icon = TemplateView.as_view(template_name="board/icon.svg", content_type="image/svg+xml")

urlpatterns = [
    path("favicon.ico", icon, name="icon"),
    path("", views.home, name="home"),
    path("entries/", views.add_entry, name="add-entry"),
    path("uploads/", views.upload, name="upload"),
    path("numbers.csv", views.numbers, name="numbers"),
]
