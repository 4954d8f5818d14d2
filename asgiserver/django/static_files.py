"""The static files of ``runserver``."""

from __future__ import annotations

from typing import Any

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

from ..asgi.interfaces import Receive, Scope, Send

__all__ = ["StaticFiles"]


class StaticFiles(ASGIStaticFilesHandler):  # type: ignore[misc]
    """Serves static files also when their URL lacks the root path, which the path of each scope begins with."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """See ``ASGIStaticFilesHandler``."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope["root_path"])
            if self._should_handle(path):
                scope = {**scope, "path": path}
        return await super().__call__(scope, receive, send)
