from __future__ import annotations

from django.conf import settings
from django.urls import path
from django.views.generic import RedirectView
from rooms import views

urlpatterns = [
    # For browsers that ask for it without a page that names an icon.
    path("favicon.ico", RedirectView.as_view(url=f"{settings.STATIC_URL}rooms/icon.svg")),
    path("", views.lobby, name="lobby"),
    path("sign-in/", views.sign_in, name="sign-in"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("rooms/", views.create_room, name="create-room"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("rooms/<slug:slug>/pictures/", views.upload, name="upload"),
    path("pictures/<str:name>", views.picture, name="picture"),
]
