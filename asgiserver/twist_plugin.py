"""Tells ``twist`` and ``twistd`` of the command ``asgi``; installed as ``twisted/plugins/asgiserver_twist.py``.

Twisted looks for plugins in that folder and nowhere else. The file's name and the command are ours alone, and no plugin
of ours is an endpoint: only one package may install a prefix such as Daphne's ``fd``.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

__all__ = ["asgi"]

asgi = ServiceMaker("asgiserver", "asgiserver.service", "An ASGI server.", "asgi")  # type: ignore[no-untyped-call]
