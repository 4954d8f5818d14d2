"""The chat as one ASGI application.

Requests go to Django, except those for the feed. WebSockets go to a consumer, if a page of this site opens them.
Messages on the channel ``robot`` go to the robot, in the process where it runs. The lifespan runs the other tasks.
"""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
django = get_asgi_application()

# The following imports need Django to be set up.
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402
from django.urls import path, re_path  # noqa: E402
from rooms.consumers import FeedConsumer, RoomConsumer  # noqa: E402
from rooms.robot import RobotConsumer  # noqa: E402

from .lifespan import Lifespan  # noqa: E402

channels = ChannelNameRouter({"robot": RobotConsumer.as_asgi()})

application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("feed/", AuthMiddlewareStack(FeedConsumer.as_asgi())),
                re_path("", ASGIStaticFilesHandler(django)),
            ]
        ),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([path("ws/rooms/<slug:slug>/", RoomConsumer.as_asgi())]))
        ),
        "channel": channels,
        "lifespan": Lifespan(channels),
    }
)
