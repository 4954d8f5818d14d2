"""A Django project with Channels consumers in one file; each line that it prints is one thing that a test looks for."""
# ruff: noqa: E402, T201 - Django is to be configured before Channels is imported; printing is how the test listens

from __future__ import annotations

import asyncio
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of no use to anybody",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path


def say(*words: object) -> None:
    # In one write: consumers in several threads speak at once.
    print(" ".join(("consumer", *map(str, words))) + "\n", end="", flush=True)


class Sync(WebsocketConsumer):
    """Runs in a thread."""

    def connect(self) -> None:
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "close":
            self.close(code=4001, reason="you asked for it")
        else:
            self.send(text_data=text_data, bytes_data=bytes_data)

    def disconnect(self, code: int) -> None:
        say("sync", "disconnect", code)


class Chat(AsyncJsonWebsocketConsumer):
    """What one member says, all of the room hear."""

    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept(subprotocol="json" if "json" in self.scope["subprotocols"] else None)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.channel_layer.group_send("room", {"type": "said", "content": content})

    async def said(self, event: dict[str, Any]) -> None:
        await self.send_json(event["content"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("room", self.channel_name)
        say("chat", "disconnect", code)


class Ticker(AsyncWebsocketConsumer):
    """Sends by itself, faster than anybody can leave."""

    async def connect(self) -> None:
        await self.accept()
        self.ticking = asyncio.ensure_future(self.tick())

    async def tick(self) -> None:
        while True:
            await self.channel_layer.send(self.channel_name, {"type": "ticked"})
            await asyncio.sleep(0.001)

    async def ticked(self, event: dict[str, Any]) -> None:
        await self.send(text_data="tick")

    async def disconnect(self, code: int) -> None:
        self.ticking.cancel()
        say("ticker", "disconnect", code)


class Slow(AsyncWebsocketConsumer):
    """Takes its time to accept, and says something at once."""

    async def connect(self) -> None:
        say("slow", "connect")
        await asyncio.sleep(0.2)
        await self.accept()
        await self.send(text_data="welcome")

    async def disconnect(self, code: int) -> None:
        say("slow", "disconnect", code)


class Refusing(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.close()

    async def disconnect(self, code: int) -> None:
        say("refusing", "disconnect", code)


class Forbidding(AsyncWebsocketConsumer):
    """Means a status of HTTP, and gives a reason that is no text."""

    async def connect(self) -> None:
        await self.close(code=403, reason=["members", "only"])

    async def disconnect(self, code: int) -> None:
        say("forbidding", "disconnect", code)


class Session(WebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        self.send(text_data=str(self.scope["session"].get("name")))


def log_in(request: HttpRequest) -> HttpResponse:
    request.session["name"] = "Åsa"
    return HttpResponse("welcome")


from django.contrib.sessions.middleware import SessionMiddleware

urlpatterns = [path("login", lambda request: SessionMiddleware(log_in)(request))]

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(
            SessionMiddlewareStack(
                URLRouter(
                    [
                        path("sync", Sync.as_asgi()),
                        path("chat", Chat.as_asgi()),
                        path("ticker", Ticker.as_asgi()),
                        path("slow", Slow.as_asgi()),
                        path("refusing", Refusing.as_asgi()),
                        path("forbidding", Forbidding.as_asgi()),
                        path("session", Session.as_asgi()),
                    ]
                )
            )
        ),
    }
)
