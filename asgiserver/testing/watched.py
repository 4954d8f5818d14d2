"""A server that tells a test what its application raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..asgi.exchange import Exchange
from ..asgi.websocket import WebSocketExchange
from ..errors import ApplicationError, LifespanError
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
        super().__init__(application, **keywords)
        self._failed = failed
        self._private = private

    def _reactor(self) -> Reactor:
        return super()._reactor() if self._private is None else self._private

    def application_failed(self, message: str, exchange: Exchange, error: BaseException | None = None) -> None:
        super().application_failed(message, exchange, error)
        # What the stop has cut off is nobody's fault.
        if error is not None or not self.stop_requested:
            self._failed(ApplicationError(message % exchange) if error is None else error)

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

    async def _close(self) -> None:
        await super()._close()
        if self._lifespan is not None and self._lifespan.failed:
            self._failed(self._lifespan.error or LifespanError("the application failed to shut down, see the log"))
