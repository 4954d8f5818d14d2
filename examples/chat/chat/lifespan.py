from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.worker import Worker
from django.conf import settings
from django.core.management import call_command
from rooms import presence


class Lifespan:
    """Tasks beside the requests of a server: its signs of life and, without a Redis, the robot.

    A channel layer in memory ends at the process, so a worker in another process would hear nothing. A server without a
    Redis also brings the database up to date; for several servers, ``manage.py migrate`` does that once.
    """

    def __init__(self, channels: Any) -> None:
        self.channels = channels

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()  # lifespan.startup
        try:
            await self.prepare()
        except Exception as error:  # noqa: BLE001 - the server reports any failure and stops
            await send({"type": "lifespan.startup.failed", "message": f"the database is not ready: {error}"})
            return
        tasks = [asyncio.create_task(duty) for duty in self.duties()]
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def prepare(self) -> None:
        if not settings.REDIS_URL:
            await sync_to_async(call_command)("migrate", verbosity=0, interactive=False)
        await presence.beat()

    def duties(self) -> list[Coroutine[Any, Any, None]]:
        return [presence.keep_beating()] if settings.REDIS_URL else [presence.keep_beating(), self.work()]

    async def work(self) -> None:
        """Do the work of ``manage.py runworker robot``, as a task of this process."""
        worker = Worker(self.channels, ["robot"], get_channel_layer())
        try:
            await asyncio.gather(worker.application_checker(), worker.listener("robot"))
        finally:
            for channel in list(worker.application_instances):
                worker.delete_application_instance(channel)
