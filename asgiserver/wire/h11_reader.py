"""Requests whose heads are read by h11: the reader that is always there."""

from __future__ import annotations

import h11

from ..asgi.scope import Request
from ..errors import RequestError
from .head import check_framing, check_head, check_lines, request
from .reader import Reader

__all__ = ["H11Reader", "parse"]


class H11Reader(Reader):
    """See :class:`.Reader`."""

    __slots__ = ()

    def _parse(self, head: bytes) -> Request:
        check_head(head, self._settings.limit_head_count)
        check_framing(head)
        return parse(head)


def parse(head: bytes) -> Request:
    """Read a whole head that was checked by :func:`.check_head` and :func:`.check_framing`.

    :raises RequestError: the head is malformed, or asks for what is not supported.
    """
    # A parser that is used again would have to be told of the response too, which is more work than a new one.
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        reason = "The request must have one Host." if "Host" in str(error) else "The request's head is malformed."
        raise RequestError(error.error_status_hint, reason) from error
    assert isinstance(event, h11.Request)
    headers = list(event.headers)
    check_lines(head, headers)
    return request(event.method, event.target, headers, "1.0" if event.http_version == b"1.0" else "1.1")
