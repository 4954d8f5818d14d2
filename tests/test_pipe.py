"""The way of a response from a thread to the loop, after its end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from asgiserver.pipe import Pipe

HEAD = {"type": "http.response.start", "status": 200, "headers": []}


def test_what_waits_when_it_is_closed_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"file")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        descriptors = len(os.listdir("/dev/fd"))
        blocks, file = Pipe(send), Pipe(send)
        blocks.put(HEAD, b"block", False)
        file.put_file(HEAD, part, 0, 4)
        for pipe in (blocks, file):
            pipe.close()
            await pipe.forward()
        assert sent == []
        assert len(os.listdir("/dev/fd")) == descriptors

    with open(tmp_path / "file", "rb", buffering=0) as part:
        asyncio.run(main())
