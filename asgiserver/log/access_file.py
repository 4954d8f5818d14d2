"""The access log in a file. Imported when there is one: few servers have, and ``logging.handlers`` takes a while."""

from __future__ import annotations

from logging.handlers import WatchedFileHandler

from .setup import AccessHandler

__all__ = ["AccessFile"]


class AccessFile(AccessHandler, WatchedFileHandler):
    """Opened anew when it was moved away, as logrotate does."""
