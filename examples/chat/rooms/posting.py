from __future__ import annotations

from typing import Any

from channels.layers import get_channel_layer

from .models import Message, Room

#: Most characters of a message.
MAX_TEXT = 2000


def save(room: Room, author: Any, key: str, *, text: str = "", picture: str = "") -> Message:
    """Store a message once: a page that does not know that its message has arrived sends it again with its key."""
    message, _ = Message.objects.get_or_create(
        author=author, key=key, defaults={"room": room, "name": author.username, "text": text, "picture": picture}
    )
    return message


async def announce(room: Room, message: Message) -> None:
    """Tell the room and the feed, on all servers."""
    layer = get_channel_layer()
    await layer.group_send(room.group, {"type": "room.message", "message": message.as_dict()})
    await layer.group_send("feed", {"type": "feed.message", "message": feed_entry(room, message)})


def feed_entry(room: Room, message: Message) -> dict[str, Any]:
    return {**message.as_dict(), "text": message.text[:120], "slug": room.slug, "room": room.name}
