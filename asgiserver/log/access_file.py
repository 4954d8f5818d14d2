"""The access log in a file. Imported only when there is one: ``logging.handlers`` takes a while to load."""

from __future__ import annotations

from logging.handlers import WatchedFileHandler

from .setup import AccessHandler

__all__ = ["AccessFile"]


class AccessFile(AccessHandler, WatchedFileHandler):
    """Opens the file anew after another program, such as logrotate, has moved it away."""
