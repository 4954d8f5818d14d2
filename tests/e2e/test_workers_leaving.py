"""Workers that are replaced, by a reload or one by one, and what their clients notice: nothing."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
import time
from bisect import bisect_right
from pathlib import Path

import pytest

from asgiserver.errors import SettingsError
from asgiserver.workers.recycling import memory_share
from tests.e2e.certificate import Certificate
from tests.e2e.live import in_loop, until
from tests.e2e.server import wait_for
from tests.e2e.workers import Load, Supervised, WebSocketClient, ask, get, gone, upgrade

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
            # Each ends with its last client, long before its time.
            await until(lambda: gone(server.first), 3)

    @pytest.mark.slow
    @in_loop
    async def test_a_thousand_websockets_are_closed_one_after_the_other(self, tmp_path: Path) -> None:
        count, spread = 1000, 10
        with Supervised(tmp_path, 2, "--drain-timeout", "0.5", "--drain-spread", str(spread)) as server:
            clients = await asyncio.gather(*(WebSocketClient.connect(server.port) for _ in range(count)))
            server.send_signal(signal.SIGHUP)

            async def close(client: WebSocketClient) -> float:
                assert await client.closed(60) == 1012
                return time.monotonic()

            times = sorted(await asyncio.gather(*map(close, clients)))
            # So many come back within any second.
            most = max(bisect_right(times, began + 1) - number for number, began in enumerate(times))
            assert most <= 1.3 * count / spread
            assert times[-1] - times[0] >= 0.8 * spread

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


    @pytest.mark.slow
    @in_loop
    async def test_new_certificates_are_for_new_connections(self, tmp_path: Path) -> None:
        first, second, files = (Certificate(made_folder(tmp_path / each)) for each in ("first", "second", "files"))

        def use(certificate: Certificate) -> None:
            for each, other in ((files.chain, certificate.chain), (files.key, certificate.key)):
                each.write_bytes(other.read_bytes())

        async def answers(certificate: Certificate) -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=certificate.client())
            try:
                return await get(reader, writer)
            finally:
                writer.close()

        use(first)
        with Supervised(tmp_path, 2, *files.args) as server:
            before = await asyncio.open_connection("127.0.0.1", server.port, ssl=first.client())
            use(second)
            await asyncio.to_thread(server.reload, 2)
            assert [await answers(second) for _ in range(4)]
            with pytest.raises(ssl.SSLCertVerificationError):
                await answers(first)
            assert await get(*before)
            files.chain.write_text("junk", "utf-8")
            server.send_signal(signal.SIGHUP)
            server.wait_for_line("ERROR")
            assert [await answers(second) for _ in range(4)]
            assert len(server.lines("ERROR")) == 1


def memory(process: int) -> int:
    try:
        return memory_share(Path(f"/proc/{process}/smaps_rollup"))
    except SettingsError:
        return 0  # it has ended


def made_folder(path: Path) -> Path:
    path.mkdir()
    return path


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

    @pytest.mark.slow
    @in_loop
    async def test_a_leak_stays_within_bounds_and_no_request_fails(self, tmp_path: Path) -> None:
        server = Supervised(tmp_path, 1, "--max-memory", str(100 << 20), "--drain-timeout", "0.5")
        server.write(
            "kept, inner = [], application\n"
            "async def application(scope, receive, send):\n"
            "    if scope['type'] == 'http':\n"
            "        kept.append(b'x' * (1 << 20))\n"
            "    await inner(scope, receive, send)\n"
        )
        with server:
            most = 0
            while len(server.workers()) < 4:
                assert await ask(server.port)
                # Of the worker that leaks, and the one before it.
                most = max(most, sum(map(memory, server.workers()[-2:])))
                await asyncio.sleep(0.03)
            assert server.lines("ERROR") == server.lines("WARNING") == []
            # Two looks at the memory, two seconds apart.
            assert most < 500 << 20

    @pytest.mark.slow
    @in_loop
    async def test_with_too_much_memory(self, tmp_path: Path) -> None:
        with Supervised(tmp_path, 1, "--max-memory", "1000000") as server:
            await until(lambda: "MiB of memory" in server.output())
            await until(lambda: len(server.workers()) == 2)
            server.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait) == 0
