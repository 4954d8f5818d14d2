"""The robot: answers messages that begin with a slash, from a process of its own where there is a Redis."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import async_to_sync
from channels.consumer import SyncConsumer
from django.contrib.auth import get_user_model
from django.utils import timezone

from .models import ROBOT, Room
from .posting import announce, save

logger = logging.getLogger("django.chat")
started = time.monotonic()

DICE = re.compile(r"([1-9]\d?)?[dD]([1-9]\d{0,3})")

HELP = """/roll 2d6 – throw dice, for all to see
/time – the time of the server
/stats – what has happened in this room
/help – this, for you alone"""


class RobotConsumer(SyncConsumer):
    """Listens on the named channel ``robot``; runs in a thread, so it may use the database as it likes."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # A worker's own send() is not an async function, of which asgiref would warn.
        async def answer(message: Any) -> None:
            await send(message)

        await super().__call__(scope, receive, answer)

    def robot_command(self, event: dict[str, Any]) -> None:
        """Answer to the whole room, or to the one WebSocket that has asked."""
        try:
            room = Room.objects.get(pk=event["room"])
            name, _, argument = event["text"][1:].partition(" ")
            answer = COMMANDS.get(name.lower(), unknown)(room, event["name"], argument.strip())
            if answer is None:
                self.whisper(event, HELP if name.lower() == "help" else f"I do not know /{name[:20]}.\n\n{HELP}")
                return
            # A command may be delivered twice, when a worker is killed; with the same key its answer is stored once.
            message = save(room, get_user_model().objects.get(username=ROBOT), event["key"], text=answer)
            async_to_sync(announce)(room, message)
        except Exception:  # the worker must go on for the next command
            logger.exception("The robot could not answer")
            self.whisper(event, "Something went wrong inside me. Please try again.")

    def whisper(self, event: dict[str, Any], text: str) -> None:
        async_to_sync(self.channel_layer.send)(event["reply"], {"type": "robot.whisper", "text": text})


def roll(room: Room, name: str, argument: str) -> str:
    found = DICE.fullmatch(argument or "1d6")
    if found is None or int(found[2]) < 2:
        return f"{name}, I know dice like 2d6 or d20."
    thrown = [1 + secrets.randbelow(int(found[2])) for _ in range(int(found[1] or 1))]
    total = f" = {sum(thrown)}" if len(thrown) > 1 else ""
    return f"{name} rolls {found[0]}: {' + '.join(map(str, thrown))}{total}"


def clock(room: Room, name: str, argument: str) -> str:
    return f"It is {timezone.now():%H:%M:%S} UTC on {timezone.now():%A, %d %B %Y}."


def stats(room: Room, name: str, argument: str) -> str:
    said, shown = room.messages.count(), room.messages.exclude(picture="").count()
    here = room.presences.values("user").distinct().count()
    return (
        f"{room.name}: {said} messages, {shown} pictures, {here} here now.\n"
        f"I am process {os.getpid()} on {socket.gethostname()}, up for {time.monotonic() - started:.0f} s."
    )


def unknown(room: Room, name: str, argument: str) -> None:
    """No answer for the room."""


COMMANDS: dict[str, Callable[[Room, str, str], str | None]] = {"roll": roll, "time": clock, "stats": stats}
