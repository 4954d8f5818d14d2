from __future__ import annotations

from django.urls import path
from rooms import views

urlpatterns = [
    path("", views.lobby, name="lobby"),
    path("sign-in/", views.sign_in, name="sign-in"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("rooms/", views.create_room, name="create-room"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("rooms/<slug:slug>/pictures/", views.upload, name="upload"),
    path("pictures/<str:name>", views.picture, name="picture"),
]
