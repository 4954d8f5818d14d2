"""Where the monitor listens, and its settings. For the supervisor too, so this imports no Twisted."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import SettingsError
from ..listen.bind import Bound, bind
from ..settings import Settings

__all__ = ["announce", "bind_monitor", "monitor_settings", "of_metrics"]

logger = logging.getLogger("asgiserver")


def monitor_settings(settings: Settings) -> Settings:
    """The settings of the monitor's server: its own limits, as those of the service may be used up.

    :param settings: the service's.
    """
    return Settings(
        endpoints=settings.metrics,
        unix_socket_mode=settings.unix_socket_mode,
        proxy_allow_ips=settings.proxy_allow_ips,
        loop=settings.loop,
        verbosity=settings.verbosity,
        interface="asgi3",
        django="off",
        lifespan="off",
        limit_connections=256,
        limit_body_size=65536,
        keep_alive_timeout=75.0,
        graceful_timeout=1.0,
        graceful_idle=0.0,
        websocket_close_timeout=0.5,
        websocket_max_message_size=1024,
    )


@contextmanager
def of_metrics() -> Iterator[None]:
    """Name the setting that the user gave in a ``SettingsError`` about the endpoints of :func:`monitor_settings`."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"metrics: {str(error).removeprefix('endpoints: ')}") from None


async def bind_monitor(settings: Settings) -> list[Bound]:
    """Bind the sockets of the monitor; one that others than this machine reach is told in the log.

    :param settings: the service's.
    :raises SettingsError: a description is invalid, or of a kind that processes cannot share.
    :raises ListenError: as :func:`.bind`.
    """
    with of_metrics():
        made = await bind(monitor_settings(settings), inheritable=True)
    bound = [each for each in made if isinstance(each, Bound)]
    for each in bound:
        if not _is_local(each.sock):
            logger.warning("%s tells of the service to everybody who reaches it (--metrics)", each.description)
    return bound


def announce(bound: list[Bound]) -> None:
    """Tell where the monitor is."""
    for each in bound:
        logger.info("Metrics on %s", each.description)


def _is_local(sock: socket.socket) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host, *_ = sock.getsockname()
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
