from __future__ import annotations

from board import views
from django.urls import path

urlpatterns = [
    path("", views.home, name="home"),
    path("entries/", views.add_entry, name="add-entry"),
    path("uploads/", views.upload, name="upload"),
    path("numbers.csv", views.numbers, name="numbers"),
]
