"""The parts for Django projects: the handler of their requests, ``runserver``, system checks, a live server for tests.

``handler.py`` serves sync views in one hop, on the threads of ``lanes.py``, and keeps async views off threads by
``inline.py`` and ``ends.py``; ``serving.py`` puts it in the place of Django's own when the server starts. ``runserver``
itself is in :mod:`asgiserver.management.commands.runserver`, because Django looks for it only there. The server imports
nothing of this package where there is no Django.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["get_asgi_application"]

logger = logging.getLogger("asgiserver")


def get_asgi_application() -> Any:
    """The project's ASGI application, as ``django.core.asgi.get_asgi_application`` gives it.

    Its sync views are served the short way even where the server could not find Django's own handler, such as behind
    middleware of ASGI. Under another server it serves as Django's does.
    """
    from django.core.asgi import get_asgi_application as djangos

    found = djangos()
    try:
        from .serving import replaced
    except ImportError as error:
        logger.warning("Django's own handler serves the project: %s", error)
        return found
    application, obstacle = replaced(found)
    if obstacle:
        logger.info("Django's own handler serves the project: %s", obstacle)
    return application
