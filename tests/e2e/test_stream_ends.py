"""Streams without end learn that the server stops, in whatever way their framework listens."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import NamedTuple

import pytest

from tests.e2e.server import COMMANDS, DEADLINE, ServerProcess, command_on

#: Streams are told after half of it; seconds.
GRACEFUL_TIMEOUT = 5.0

#: What the client reads after the beginning of each stream's body.
COMPLETE = {
    "bare": b"d\r\ndata: still\n\n\r\nb\r\ndata: bye\n\n\r\n0\r\n\r\n",
    "polling": b"b\r\ndata: bye\n\n\r\n0\r\n\r\n",
    "polite-sse": b"b\r\ndata: bye\n\n\r\n0\r\n\r\n",
    "finite": b"bye",
}
#: Their frameworks leave them without a last piece when the client seems to be gone.
LEFT = "sse", "django", "channels"


class Stream(NamedTuple):
    rest: bytes
    seconds: float


async def read(name: str, port: int, began: asyncio.Barrier, stopped: asyncio.Future[float]) -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % name.encode())
    await reader.readuntil(b"first" if name == "finite" else b"first\n\n\r\n")
    await began.wait()
    rest = b""
    try:
        while piece := await reader.read(65536):
            rest += piece
            if rest == COMPLETE.get(name):
                break
    except ConnectionResetError:
        assert name in LEFT
    seconds = time.monotonic() - await stopped
    writer.close()
    return Stream(rest, seconds)


async def streams(server: ServerProcess) -> dict[str, Stream]:
    names = [*COMPLETE, *LEFT]
    began, stopped = asyncio.Barrier(len(names) + 1), asyncio.get_running_loop().create_future()
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        reading = {name: group.create_task(read(name, server.port, began, stopped)) for name in names}
        await began.wait()
        server.send_signal(signal.SIGTERM)
        stopped.set_result(time.monotonic())
    return {name: task.result() for name, task in reading.items()}


@pytest.mark.parametrize("loop", COMMANDS)
def test_streams_without_end_are_told_and_may_end_in_order(loop: str) -> None:
    args = ("-p", "0", "--lifespan", "off", "--graceful-timeout", str(GRACEFUL_TIMEOUT))
    with ServerProcess(*args, "tests.e2e.streams_project:application", command=command_on(loop)) as server:
        found = asyncio.run(streams(server))
        assert server.wait() == 0
    output = server.output()
    assert {name: found[name].rest for name in COMPLETE} == COMPLETE
    for name in LEFT:
        # A chunked body without its last chunk does not look complete (RFC 9112 §8).
        assert found[name].rest == b""
        assert f"{name} ended" in output
    # sse-starlette looks twice a second at what the handler of SIGTERM belongs to.
    assert max(found["sse"].seconds, found["polite-sse"].seconds) < found["bare"].seconds
    assert found["bare"].seconds >= GRACEFUL_TIMEOUT / 2
    assert " WARNING " not in output
    assert " ERROR " not in output
    assert "Traceback" not in output
