"""Tells ``twist`` and ``twistd`` of the command ``asgi``; installed as ``twisted/plugins/asgiserver_twist.py``.

Twisted finds plugins by looking into that folder and nowhere else. The file's name and the command are ours alone.
There is no plugin for endpoints, because a prefix such as Daphne's ``fd`` may be registered only once.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

__all__ = ["asgi"]

asgi = ServiceMaker("asgiserver", "asgiserver.service", "An ASGI server.", "asgi")  # type: ignore[no-untyped-call]
