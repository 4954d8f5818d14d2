"""Who is here: a list that stays right over any number of servers, each of which may be killed at any time.

Each open WebSocket has a row in the database. A server renews its own rows with every beat, all in one transaction,
and removes rows that no server has renewed for a while: they were a dead server's. Each change of a room's people has
a number, taken in the transaction of the change, so that a page that gets two lists in the wrong order keeps
the newer one.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from .models import Presence, Room

logger = logging.getLogger("django.chat")

#: Beats that a server may miss until its people count as gone.
MISSED_BEATS = 2.5

#: Room and user of each WebSocket of this process, by its channel's name. Only touched in the database's thread.
_here: dict[str, tuple[int, int]] = {}


@database_sync_to_async
def enter(channel: str, room: Room, user: Any) -> dict[str, Any]:
    """Note that ``user`` has opened ``room``; return the event that tells who is there now."""
    with transaction.atomic():
        Presence.objects.create(channel=channel, room=room, user=user, seen=timezone.now())
        event = _changed(room.pk)
    _here[channel] = (room.pk, user.pk)
    return event


@database_sync_to_async
def leave(channel: str, room: Room) -> dict[str, Any]:
    _here.pop(channel, None)
    with transaction.atomic():
        Presence.objects.filter(channel=channel).delete()
        return _changed(room.pk)


@database_sync_to_async
def beat() -> list[dict[str, Any]]:
    """Renew this server's rows and remove dead ones; return an event for each room whose people this has changed."""
    now = timezone.now()
    with transaction.atomic():
        known = set(
            get_user_model().objects.filter(pk__in={user for _, user in _here.values()}).values_list("pk", flat=True)
        )
        mine = {channel: where for channel, where in _here.items() if where[1] in known}
        # A process that was halted for long finds its rows removed by the others.
        kept = set(Presence.objects.filter(channel__in=mine).values_list("channel", flat=True))
        Presence.objects.bulk_create(
            [Presence(channel=channel, room_id=room, user_id=user, seen=now) for channel, (room, user) in mine.items()],
            update_conflicts=True, unique_fields=["channel"], update_fields=["seen"],
        )  # fmt: skip
        dead = Presence.objects.filter(seen__lt=now - timedelta(seconds=MISSED_BEATS * settings.PRESENCE_BEAT))
        rooms = set(dead.values_list("room_id", flat=True)) | {mine[channel][0] for channel in mine.keys() - kept}
        dead.delete()
        return [_changed(room) for room in rooms]


async def keep_beating() -> None:
    while True:
        await asyncio.sleep(settings.PRESENCE_BEAT)
        try:
            for event in await beat():
                await tell(event)
        except Exception:  # a failure of the database or of Redis must not end the beats
            logger.exception("A sign of life was not given")


async def tell(event: dict[str, Any]) -> None:
    """Tell the room who is there, and the feed how many."""
    layer = get_channel_layer()
    await layer.group_send(f"room.{event['room']}", event)
    await layer.group_send("feed", {"type": "feed.people", "slug": event["slug"], "count": len(event["people"])})


def _changed(room_id: int) -> dict[str, Any]:
    Room.objects.filter(pk=room_id).update(people_version=F("people_version") + 1)
    room = Room.objects.get(pk=room_id)
    people = room.presences.values_list("user", "user__username").distinct().order_by("user__username")
    return {
        "type": "room.people",
        "room": room_id,
        "slug": room.slug,
        "version": room.people_version,
        "people": [{"id": user, "name": name} for user, name in people],
    }
