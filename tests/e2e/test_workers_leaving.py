"""Workers that are replaced, by a reload or one by one, and what their clients notice: nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.live import in_loop, until
from tests.e2e.server import wait_for
from tests.e2e.workers import Load, Supervised, WebSocketClient, get, gone, upgrade

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")


class TestReloading:
    @pytest.mark.parametrize("reloads", [2, pytest.param(50, marks=pytest.mark.slow)])
    @in_loop
    async def test_under_load_loses_nothing(self, tmp_path: Path, reloads: int) -> None:
        with Supervised(tmp_path, 2, "--drain-timeout", "0.5", "--drain-spread", "0.5") as server:
            async with Load(server.port, slow=4, websockets=40) as load:
                for number in range(reloads):
                    await asyncio.sleep(0.5)
                    await asyncio.to_thread(server.reload, number + 2)
                await until(lambda: load.done["closed"] >= 40)
            old = server.workers()[:-2]
            wait_for(lambda: gone(old))
            assert min(load.done[each] for each in ("kept", "fresh", "slow", "messages")) > 0
            assert server.lines("ERROR") == server.lines("WARNING") == []

    @in_loop
    async def test_websockets_stay_with_the_old_workers_for_their_time(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2, "--drain-timeout", "60") as server:
            clients = [await WebSocketClient.connect(server.port) for _ in range(6)]
            server.write(VERSION="two")
            await asyncio.to_thread(server.reload, 2)
            new = await WebSocketClient.connect(server.port)
            assert new.greeting.startswith("two ")
            new.writer.close()
            for client in clients:
                assert client.greeting.startswith("one ")
                assert await client.talk()
                client.writer.close()
            began = time.monotonic()
            await until(lambda: gone(server.first))
            # Each ends with its last client, long before its time.
            assert time.monotonic() - began < 10

    @in_loop
    async def test_an_old_worker_still_takes_a_websocket_and_a_request_on_its_connections(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1, "--drain-timeout", "2", "--drain-spread", "0") as server:
            streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
            assert await get(*streams[0]) == await get(*streams[1])
            # The third has sent nothing so far.
            await asyncio.sleep(0.1)
            server.write(VERSION="two")
            await asyncio.to_thread(server.reload, 2)
            server.wait_for_line("Draining")
            assert (await get(*streams[1])).startswith("one ")
            assert streams[1][1].is_closing()
            assert (await get(*streams[2])).startswith("one ")
            reader, writer = streams[0]
            writer.write(upgrade())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            client = WebSocketClient(reader, writer)
            assert (await client.frame())[1].startswith(b"one ")
            assert await client.talk()
            assert await client.closed() == 1012


class TestRecycling:
    @in_loop
    async def test_after_so_many_requests_the_successor_is_there_first(self, tmp_path: Path) -> None:
        args = ("--max-requests", "100", "--drain-timeout", "0.2", "--drain-spread", "0.2")
        with Supervised(tmp_path, 1, *args) as server:
            async with Load(server.port, slow=0):
                await until(lambda: len(server.workers()) >= 4)
            lines = server.output().splitlines()
            assert server.lines("ERROR") == server.lines("WARNING") == []
        events = [line for line in lines if " is to be replaced: " in line or " serves" in line or "Draining" in line]
        # One serves, asks for a successor, which serves, and then the first one is drained.
        text = "".join("s" if " serves" in line else "d" if "Draining" in line else "r" for line in events[3:12])
        assert text.startswith(("rsdrsd", "sdrsdr", "drsdrs")), events

    @in_loop
    async def test_websockets_count(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1, "--max-requests", "5") as server:
            for _ in range(5):
                (await WebSocketClient.connect(server.port)).writer.close()
            await until(lambda: "it has answered 5 requests" in server.output())
            await until(lambda: len(server.workers()) == 2)

    @pytest.mark.slow
    @in_loop
    async def test_after_so_long_a_life(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 2, "--max-lifetime", "1") as server:
            async with Load(server.port, slow=0, websockets=0):
                await until(lambda: len(server.workers()) >= 5)
            assert server.lines("ERROR") == server.lines("WARNING") == []

    @in_loop
    async def test_with_too_much_memory(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1, "--max-memory", "1000000") as server:
            await until(lambda: "MiB of memory" in server.output())
            await until(lambda: len(server.workers()) == 2)
            server.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait) == 0
