"""The lines that ``runserver`` writes for requests and WebSockets: Daphne's words in Django's colours."""

from __future__ import annotations

import logging
from typing import NamedTuple

__all__ = ["RequestLine", "request_line"]


class RequestLine(NamedTuple):
    """How an action is logged.

    :ivar level: of :mod:`logging`.
    :ivar style: a role of Django's terminal palette, empty for none.
    :ivar text: a %-format of the action's details.
    """

    level: int
    style: str
    text: str


_HTTP = "HTTP %(method)s %(path)s %(status)s [%(time_taken).2f, %(client)s]"

_STYLES = {
    1: (logging.INFO, "HTTP_INFO"),
    2: (logging.INFO, "HTTP_SUCCESS"),
    3: (logging.INFO, "HTTP_REDIRECT"),
    4: (logging.WARNING, "HTTP_BAD_REQUEST"),
    304: (logging.INFO, "HTTP_NOT_MODIFIED"),
    404: (logging.WARNING, "HTTP_NOT_FOUND"),
}
_ERROR = (logging.ERROR, "HTTP_SERVER_ERROR")

_WEBSOCKET_WORDS = {
    "connecting": "HANDSHAKING",
    "connected": "CONNECT",
    "disconnected": "DISCONNECT",
    "rejected": "REJECT",
}


def request_line(protocol: str, action: str, status: int | None) -> RequestLine | None:
    """The line for an action as an :data:`~asgiserver.log.access.ActionLogger` gets it; None for no line.

    :param status: that of an HTTP response.
    """
    if protocol == "http" and action == "complete" and status is not None:
        level, style = _STYLES.get(status) or _STYLES.get(status // 100) or _ERROR
        return RequestLine(level, style, _HTTP)
    if protocol == "websocket" and action in _WEBSOCKET_WORDS:
        return RequestLine(logging.INFO, "", f"WebSocket {_WEBSOCKET_WORDS[action]} %(path)s [%(client)s]")
    return None
