# ruff: noqa: E402 - Django is to be set up before its models are imported

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()
if os.environ.get("LIVE_BROKEN"):
    raise LookupError("the application is broken")

from .consumers import Chat, Counter

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AllowedHostsOriginValidator(
            URLRouter([path("ws/chat/", Chat.as_asgi()), path("ws/count/", Counter.as_asgi())])
        ),
    }
)
