"""What forking an imported application saves."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from asgiserver.workers.recycling import memory_share
from tests.e2e.live import in_loop
from tests.e2e.server import DEADLINE, ROOT
from tests.e2e.workers import Supervised

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
    pytest.mark.slow,
]

#: Django's example, with a page that makes a full collection, and others that say which process has answered.
APPLICATION = """
import gc, os
from project.asgi import application as django

async def application(scope, receive, send):
    if scope["type"] != "http" or scope["path"] == "/":
        return await django(scope, receive, send)
    gc.collect()
    body = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@in_loop
async def test_four_workers_need_three_quarters_of_what_four_interpreters_do(tmp_path: Path) -> None:
    sizes = {}
    for preload in ("off", "on"):
        folder = tmp_path / preload
        folder.mkdir()
        (folder / "app.py").write_text(APPLICATION, "utf-8")
        env = {"DJANGO_DATABASE": str(folder / "d.sqlite3"), "PYTHONPATH": f"{ROOT}:{ROOT}/examples/django_project"}
        with Supervised(folder, 4, "--preload", preload, env=env) as server:
            limits = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=DEADLINE) as client:
                for _ in range(24):
                    for page in await asyncio.gather(*(client.get("/") for _ in range(10))):
                        assert page.status_code == 200
                collected: set[str] = set()
                while len(collected) < 4:
                    pages = await asyncio.gather(*(client.get("/collect") for _ in range(10)))
                    collected |= {page.text for page in pages}
            processes = [server.pid, *server.processes()]
            sizes[preload] = sum(memory_share(Path(f"/proc/{each}/smaps_rollup")) for each in processes)
    assert sizes["on"] <= 0.75 * sizes["off"], sizes
