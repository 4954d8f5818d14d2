"""The monitor of a process that serves without workers: a second server on its loop, and a board of one worker."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from .. import config
from ..settings import Settings
from ..workers.board import Board
from ..workers.states import ServiceState, WorkerState
from .endpoints import announce, bind_monitor
from .monitor import make_server
from .queues import write_queues
from .reading import Reading, facts
from .recorder import Recorder

if TYPE_CHECKING:
    from ..server import Server

__all__ = ["Beside"]


class Beside:
    """Counts what a server does and tells it.

    :param server: it has not begun to serve.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._board, descriptor = Board.create()
        os.close(descriptor)
        self._slot = self._board.use(0)
        self._recorder = Recorder(server, self._slot)
        self._addresses: list[str] = []
        self._monitor: Server | None = None

    async def start(self) -> None:
        """Listen; raises as :func:`.endpoints.bind_monitor` does."""
        settings: Settings = self._server.settings
        loop = asyncio.get_running_loop()
        bound = await bind_monitor(settings)
        configuration = self._server.configuration or config.Configuration(settings, None, {}, {}, "")
        reading = Reading(self._board, facts(configuration, time.time(), self._addresses, loop), self._refresh)
        self._refresh()
        announce(bound)
        self._monitor = await make_server(reading, settings, bound, self._server.reactor).__aenter__()
        self._recorder.start(loop)

    async def close(self, *, quick: bool) -> None:
        """Count no more, and end the monitor; ``quick``: without waiting for its clients."""
        self._recorder.stop()
        if self._monitor is not None:
            self._monitor.stop(wait=not quick)
            await self._monitor.__aexit__()

    def _refresh(self) -> None:
        """What supervisor and worker write elsewhere; at each question, so it is never late."""
        server, board, slot = self._server, self._board, self._slot
        state = ServiceState.SERVING if server.listeners else ServiceState.STARTING
        if server.stop_requested:
            state = ServiceState.STOPPING
        worker = WorkerState.SERVING if server.listeners else WorkerState.STARTING
        if server.stopping:
            worker = WorkerState.ENDING
        board.describe(state.value, int(bool(server.listeners)))
        slot.describe(1, os.getpid(), 1, worker.value)
        board.supervisor_beat()
        slot.beat()
        if not self._addresses:
            self._addresses += [listener.description for listener in server.listeners]
        write_queues(board.own.gauges, [getattr(each.port, "socket", None) for each in server.listeners])
        self._recorder.write()
