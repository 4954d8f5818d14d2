"""Our handler as a server of ours has it, for the loops of Django's tests, on which no server serves."""

from __future__ import annotations

import asyncio
from typing import Any

from asgiserver.django.handler import Handler, serving
from asgiserver.django.lanes import Lanes

__all__ = ["ShortWay"]


class ShortWay(Handler):
    """Serves on any loop, with threads that end with the loop's last request."""

    def __init__(self) -> None:
        super().__init__()
        # The tests expect the class that they have made their handler of.
        self.sender = type(self)

    async def handle(self, *arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        first = loop not in serving
        if first:
            serving[loop] = Lanes(4)
        try:
            await super().handle(*arguments)
        finally:
            if first:
                await serving.pop(loop).close()
