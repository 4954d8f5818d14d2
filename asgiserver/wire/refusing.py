"""A connection above the limit: its first request is answered 503, by whichever protocol its peer speaks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

from ..asgi.interfaces import Stream
from ..asgi.scope import Addresses, Request
from ..errors import RequestError

if TYPE_CHECKING:
    from .connection import WireHub

__all__ = ["RefusingHub"]

logger = logging.getLogger("asgiserver.wire")


class RefusingHub:
    """The hub of such a connection: no request reaches the application, all else is the server's own.

    :param hub: the server.
    """

    #: So that a connection of HTTP/2 ends with its first response too.
    stopping = True

    def __init__(self, hub: WireHub) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def open_exchange(self, request: Request, stream: Stream, addresses: Addresses) -> NoReturn:
        """Refuse ``request``.

        :raises RequestError: 503, always.
        """
        raise RequestError(503, "There are too many connections.", ((b"retry-after", b"1"),))

    def request_refused(self, request: Request | None, addresses: Addresses, error: RequestError) -> None:
        """Nothing is counted or logged for each: a crowd would fill the log, and the hub has counted the connection."""
        logger.debug("Turned %s away: %s", addresses.peer, error.reason)
