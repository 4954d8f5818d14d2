from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.exceptions import ChannelFull
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.db.models import Count

from . import presence
from .models import Message, Room
from .posting import MAX_TEXT, announce, feed_entry, save

#: Messages that a page gets at a time.
PAGE = 50

#: Messages that a returning page gets again, before the newest that it has: over several servers messages may arrive in
#: another order than they were stored, and the page knows which it has.
OVERLAP = 20

KEY = re.compile(r"[\w-]{8,36}")

MALFORMED, SIGN_IN, NO_ROOM = 4400, 4401, 4404


class RoomConsumer(AsyncJsonWebsocketConsumer):
    """One open page of a room.

    The handshake is accepted before the checks, because a page learns nothing about a handshake that was refused, and
    would try again for ever.
    """

    room: Room | None = None

    async def connect(self) -> None:
        await self.accept()
        self.user = self.scope["user"]
        if not self.user.is_authenticated:
            await self.close(SIGN_IN, "sign in first")
            return
        self.room = await Room.objects.filter(slug=self.scope["url_route"]["kwargs"]["slug"]).afirst()
        if self.room is None:
            await self.close(NO_ROOM, "there is no such room")
            return
        # Join the groups first, then read the history: a message that comes in between is sent twice instead of never.
        for group in (self.room.group, user_group(self.user.pk)):
            await self.channel_layer.group_add(group, self.channel_name)
        after = parse_qs(self.scope["query_string"].decode("ascii", "replace")).get("after", [""])[0]
        news = await self.history(after=max(0, whole_number(after) - OVERLAP))
        people = await presence.enter(self.channel_name, self.room, self.user)
        await self.send_json({**news, "type": "welcome"})
        await self.room_people(people)
        await presence.tell(people)

    async def disconnect(self, code: int) -> None:
        if self.room is not None:
            for group in (self.room.group, user_group(self.user.pk)):
                await self.channel_layer.group_discard(group, self.channel_name)
            await presence.tell(await presence.leave(self.channel_name, self.room))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        try:
            content = json.loads(text_data or "")
        except (ValueError, RecursionError):
            content = None
        if self.room is not None:
            await self.receive_json(content)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        match content:
            case {"type": "say", "key": str(key), "text": str(text)} if KEY.fullmatch(key) and text.strip():
                # JSON may carry half a surrogate pair, which no database takes.
                await self.say(key, text.strip()[:MAX_TEXT].encode("utf-8", "replace").decode())
            case {"type": "typing"}:
                event = {"type": "room.typing", "id": self.user.pk, "name": self.user.username}
                await self.channel_layer.group_send(self.room.group, event)
            case {"type": "older", "before": int(before)}:
                await self.send_json({**await self.history(before=before), "type": "older"})
            case _:
                await self.close(MALFORMED, "this is not what the page sends")

    async def say(self, key: str, text: str) -> None:
        if not text.startswith("/"):
            await announce(self.room, await database_sync_to_async(save)(self.room, self.user, key, text=text))
            return
        command = {
            "type": "robot.command", "text": text, "key": key, "room": self.room.pk, "name": self.user.username,
            "reply": self.channel_name,
        }  # fmt: skip
        try:
            await self.channel_layer.send("robot", command)
        except ChannelFull:
            await self.robot_whisper({"text": "I have too much to do. Please ask again later."})
        await self.send_json({"type": "taken", "key": key})

    async def history(self, *, after: int = 0, before: int | None = None) -> dict[str, Any]:
        """The newest messages after ``after`` and before ``before``, one page; ``more`` when older ones are left."""
        found = self.room.messages.filter(id__gt=after).order_by("-id")
        if before is not None:
            found = found.filter(id__lt=before)
        messages = [message.as_dict() async for message in found[: PAGE + 1]]
        return {"messages": messages[:PAGE][::-1], "more": len(messages) > PAGE, "after": after}

    # Events from the channel layer.

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send_json({"type": "message", "message": event["message"]})

    async def room_people(self, event: dict[str, Any]) -> None:
        await self.send_json({"type": "people", "people": event["people"], "version": event["version"]})

    async def room_typing(self, event: dict[str, Any]) -> None:
        if event["id"] != self.user.pk:
            await self.send_json({"type": "typing", "id": event["id"], "name": event["name"]})

    async def robot_whisper(self, event: dict[str, Any]) -> None:
        await self.send_json({"type": "whisper", "text": event["text"]})

    async def user_signed_out(self, event: dict[str, Any]) -> None:
        await self.close(SIGN_IN, "signed out")


class FeedConsumer(AsyncHttpConsumer):
    """The events of all rooms, as server-sent events.

    A browser that was cut off asks again by itself and names the last event that it has.
    """

    async def http_request(self, message: dict[str, Any]) -> None:
        # The inherited method ends the consumer after handle(); this one goes on until the client leaves.
        if not message.get("more_body"):
            await self.handle(b"")

    async def handle(self, body: bytes) -> None:
        if not self.scope["user"].is_authenticated:
            await self.send_response(401, b"sign in first\n", headers=[(b"content-type", b"text/plain")])
            return
        fields = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await self.send_headers(headers=fields)
        await self.channel_layer.group_add("feed", self.channel_name)
        last = whole_number(dict(self.scope["headers"]).get(b"last-event-id", b"").decode("latin-1"))
        found = Message.objects.filter(id__gt=last).select_related("room")
        recent = [feed_entry(message.room, message) async for message in found.order_by("-id")[:15]]
        await self.send_body(b"retry: 2000\n\n", more_body=True)
        # People may have come and gone between the making of the page and its request for the feed.
        async for room in Room.objects.annotate(here=Count("presences__user", distinct=True)):
            await self.feed_people({"slug": room.slug, "count": room.here})
        for entry in reversed(recent):
            await self.feed_message({"message": entry, "past": True})

    async def disconnect(self) -> None:
        await self.channel_layer.group_discard("feed", self.channel_name)

    async def feed_message(self, event: dict[str, Any]) -> None:
        await self.event("message", {**event["message"], "past": "past" in event}, number=event["message"]["id"])

    async def feed_people(self, event: dict[str, Any]) -> None:
        await self.event("people", {"slug": event["slug"], "count": event["count"]})

    async def event(self, name: str, data: Any, number: int | None = None) -> None:
        line = "" if number is None else f"id: {number}\n"
        await self.send_body(f"event: {name}\n{line}data: {json.dumps(data)}\n\n".encode(), more_body=True)


def user_group(user_id: int) -> str:
    """The group of all pages of one person."""
    return f"user.{user_id}"


def whole_number(text: str) -> int:
    """The number of a message as a client names it; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
