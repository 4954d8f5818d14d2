"""From settings to listening ports: :mod:`.bind`, then :mod:`.accept`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..loop.reactor import Reactor
from ..settings import Settings
from .accept import Listener, accept
from .bind import Bound, Described, bind

__all__ = ["listen"]


async def listen(
    settings: Settings, factory: Any, reactor: Reactor, inherited: Iterable[Bound] | None = None
) -> list[Listener]:
    """Bind, unless that was done, and accept.

    :param factory: an ``IProtocolFactory``, the same one for every port; with TLS it is asked for ALPN's protocols too.
    :param reactor: an asyncio reactor on the loop that runs here.
    :param inherited: sockets that another process has bound, in place of those of the settings.
    :raises SettingsError: when a setting, a certificate or a description is invalid.
    :raises ListenError: when an address cannot be bound. All sockets that were made by then have been closed again.
    """
    waiting: list[Bound | Described] = await bind(settings) if inherited is None else [*inherited]
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
