"""The protocol of sd_notify(3): what the service manager is told, when it has asked for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Tells systemd about the service; does nothing where no systemd listens.

    :param environ: where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        microseconds = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: Seconds between two signs of life; None when none are asked for. Half of the limit, as systemd advises.
        self.watchdog = int(microseconds) / 2e6 if meant and microseconds.isdecimal() else None

    def ready(self) -> None:
        """The service serves, also after a reload, successful or not."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A reload begins; ``Type=notify-reload`` wants to know since when."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """The service works; to be said every :attr:`watchdog` seconds."""
        self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                try:
                    sock.sendto(state.encode(), socket.MSG_DONTWAIT, self._address)
                except OSError:
                    pass  # a service manager that does not listen must not end the service
