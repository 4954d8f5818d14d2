"""The process of the monitor, see :mod:`asgiserver.metrics`: forked by the nursery, or a fresh interpreter like it."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from typing import Any, NoReturn

from .. import config
from ..listen.bind import Bound
from ..log import setup as logs
from ..loop.reactor import forget_reactor, install_reactor, loop_of
from ..metrics.monitor import make_server
from ..metrics.reading import Reading, facts
from ..server import Server
from ..signals import hold
from .board import Board
from .channel import Channel
from .nursery import fail, prepare
from .worker import WorkerSignals, bound_of

__all__ = ["serve"]


def serve(channel: Channel, specification: Mapping[str, Any], interface: Any) -> NoReturn:
    """Tell of the service until the supervisor says otherwise or is gone, then end the process.

    :param interface: the command line of the nursery; None when that has not read it.
    """
    try:
        # The supervisor's alone, also those that a service manager sends to all processes.
        hold(WorkerSignals())
        gc.enable()
        for each in specification["sockets"]:
            # Nobody may wait in the queue of a socket that is open here alone.
            os.close(each["descriptor"])
        configuration = (interface or prepare(specification)[0]).configuration
        _Process(channel, specification, configuration).run()
    except BaseException as error:  # noqa: BLE001 - the supervisor logs it
        fail(channel, specification, error)
    # The exit handlers of the application, which this process may have inherited, are the workers'.
    os._exit(0)


class _Process:
    def __init__(
        self, channel: Channel, specification: Mapping[str, Any], configuration: config.Configuration
    ) -> None:
        self._channel = channel
        self._bound: list[Bound] = [bound_of(each, configuration.settings) for each in specification["monitor"]]
        # What the application has scheduled at its import is the workers' too.
        forget_reactor()
        self._loop = loop_of(install_reactor(configuration.settings.loop))
        told = facts(configuration, specification["started"], specification["addresses"], self._loop)
        reading = Reading(Board(specification["board"]), told)
        self._server: Server = make_server(reading, configuration.settings, self._bound)

    def run(self) -> None:
        self._server.ready_callable = lambda: self._channel.send({"is": "ready"})
        self._loop.call_soon(self._attach)
        self._server.run()

    def _attach(self) -> None:
        self._loop.add_reader(self._channel.fileno(), self._read)

    def _read(self) -> None:
        for message in self._channel.receive():
            if message["do"] == "reopen":
                logs.reopen()
            else:
                self._server.stop()
        if not self._channel.open:
            self._loop.remove_reader(self._channel.fileno())
            self._server.stop(wait=False)
