"""A Django project with one Channels consumer, which echoes through groups of the layer in memory, and a census."""
# ruff: noqa: E402 - Django is to be configured before Channels is imported

from __future__ import annotations

import asyncio
import gc
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of no use to anybody",
    ALLOWED_HOSTS=["*"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path


class Echo(AsyncWebsocketConsumer):
    """Answers bytes itself, text by way of its own group; it is in a group with all others too."""

    async def connect(self) -> None:
        self.group = self.channel_name.replace("!", ".")
        await self.channel_layer.group_add("everybody", self.channel_name)
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if bytes_data is not None:
            await self.send(bytes_data=bytes_data)
        else:
            await self.channel_layer.group_send(self.group, {"type": "said", "text": text_data})

    async def said(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)
        await self.channel_layer.group_discard("everybody", self.channel_name)


async def census(request: HttpRequest) -> JsonResponse:
    """What is there besides this request; garbage is collected first."""
    gc.collect()
    layer = get_channel_layer()
    return JsonResponse(
        {
            "consumers": sum(isinstance(each, Echo) for each in gc.get_objects()),
            "groups": len(layer.groups),
            "channels": len(layer.channels),
            "tasks": len(asyncio.all_tasks()),
            "objects": len(gc.get_objects()),
        }
    )


urlpatterns = [path("census", census)]

application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("echo", Echo.as_asgi())])}
)
