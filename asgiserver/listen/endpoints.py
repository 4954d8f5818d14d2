"""From settings to listening ports: :mod:`.bind`, then :mod:`.accept`."""

from __future__ import annotations

from typing import Any

from ..loop.reactor import Reactor
from ..settings import Settings
from .accept import Listener, accept
from .bind import bind

__all__ = ["listen"]


async def listen(settings: Settings, factory: Any, reactor: Reactor) -> list[Listener]:
    """Bind and accept in one process.

    :param factory: an ``IProtocolFactory``, the same one for every port; with TLS it is asked for ALPN's protocols too.
    :param reactor: an asyncio reactor on the loop that runs here.
    :raises SettingsError: when a setting, a certificate or a description is invalid.
    :raises ListenError: when an address cannot be bound. All sockets that were made by then have been closed again.
    """
    waiting = await bind(settings)
    listeners: list[Listener] = []
    try:
        while waiting:
            listeners.append(await accept(waiting.pop(0), settings, factory, reactor))
    except BaseException:
        for bound in waiting:
            bound.close()
        for listener in listeners:
            await listener.close()
        raise
    return listeners
