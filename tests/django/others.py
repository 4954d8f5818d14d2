"""What a project may have in the place of Django's session engine, cache and storage of messages."""

from __future__ import annotations

from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.sessions.backends import db
from django.core.cache.backends.locmem import LocMemCache

__all__ = ["Cache", "Messages", "SessionStore"]


class SessionStore(db.SessionStore):  # type: ignore[misc]
    """An engine."""


class Cache(LocMemCache):  # type: ignore[misc]
    """A backend of the cache."""


class Messages(CookieStorage):  # type: ignore[misc]
    """A storage of messages."""
