"""An ASGI server on Twisted: HTTP/1.1 through h11, WebSocket through Autobahn, Daphne's interface.

``Server`` and ``Settings`` are the whole of it for most programs; :mod:`asgiserver.errors` has what they raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Server", "Settings", "__version__"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .server import Server
    from .settings import Settings


def __getattr__(name: str) -> Any:
    # Importing a module of this package, or asking for the version, must not cost the import of Twisted.
    if name == "Server":
        from .server import Server

        return Server
    if name == "Settings":
        from .settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
