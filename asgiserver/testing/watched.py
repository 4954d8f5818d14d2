"""A server that tells a test what its application raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..asgi.websocket import WebSocketExchange
from ..process.reactor import Reactor
from ..server import Server

__all__ = ["WatchedServer"]


class WatchedServer(Server):
    """A server that tells ``failed`` what the application raised, on a reactor of its own if it is given one."""

    def __init__(
        self,
        application: Any,
        *,
        failed: Callable[[BaseException], None],
        private: Reactor | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(application, reactor=private, on_failure=failed, **keywords)

    @property
    def idle(self) -> bool:
        """No application runs but for WebSockets that are open; from any thread."""
        return all(isinstance(each, WebSocketExchange) and not each.finished for each in list(self._tasks))

    @property
    def alone(self) -> bool:
        """No application runs, and nobody is connected; from any thread."""
        return not self._tasks and not self.connections

    def drop_clients(self) -> None:
        """Cut off all connections, soon; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._abort_all)

    def _abort_all(self) -> None:
        for connection in list(self.connections):
            connection.abort()
