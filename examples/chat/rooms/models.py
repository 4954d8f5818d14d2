from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.urls import reverse

#: The user in whose name the robot speaks.
ROBOT = "Robot"


class Room(models.Model):
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=40)
    topic = models.CharField(max_length=120, blank=True)
    people_version = models.PositiveBigIntegerField(default=0, help_text="Counts the changes of who is here.")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("room", args=[self.slug])

    @property
    def group(self) -> str:
        """The channel layer's group of all pages of the room."""
        return f"room.{self.pk}"


class Message(models.Model):
    """A message; ``name`` stays when the author has signed out and the user is deleted."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)
    name = models.CharField(max_length=24)
    key = models.CharField(max_length=40, help_text="Made by the page, so that what is sent twice is stored once.")
    text = models.TextField(max_length=2000, blank=True)
    picture = models.CharField(max_length=40, blank=True, help_text="Name of a file in MEDIA_ROOT.")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["author", "key"], name="one_message_for_each_key")]

    def __str__(self) -> str:
        return f"{self.name}: {self.text or self.picture}"

    def as_dict(self) -> dict[str, Any]:
        """The message as pages get it; the time in milliseconds, as JavaScript counts."""
        return {
            "id": self.pk,
            "key": self.key,
            "author": self.author_id,
            "name": self.name,
            "robot": self.name == ROBOT,
            "text": self.text,
            "picture": settings.MEDIA_URL + self.picture if self.picture else "",
            "at": int(self.created.timestamp() * 1000),
        }


class Presence(models.Model):
    """A user's open page of a room; the server that has its WebSocket renews ``seen``."""

    channel = models.CharField(max_length=100, unique=True)
    room = models.ForeignKey(Room, models.CASCADE, related_name="presences")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    seen = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.channel
