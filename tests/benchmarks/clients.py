"""The clients for what wrk cannot do, each in a process of its own: ``python -m tests.benchmarks.clients JSON``.

They do as little as they can while they measure: frames are made beforehand, the first answer is looked at byte for
byte, and of all later ones only the length. One line of JSON on standard output says what was measured, or why not.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from . import echoes
from .applications import BODY
from .downloads import Download
from .frames import DEADLINE, exactly, expect, head, open_websocket
from .processes import ProcessesChanged, Usage, memory_bytes
from .wrk import ClientFailed

__all__ = ["CLIENTS", "main"]

MIB = 1 << 20
#: An upload goes on for at least one body, and no longer than this.
MOST_SECONDS = 120.0


def upload(port: int, pid: int, seconds: float, mebibytes: int = 256) -> dict[str, float]:
    """POST bodies of ``mebibytes`` one after the other, each on a connection of its own; per MiB."""
    block = memoryview(bytes(MIB))
    _post(port, block, 8)
    usage = Usage(pid)
    before, sent, memory = time.process_time(), 0, 0
    while not sent or usage.wall < seconds:
        memory = max(memory, _post(port, block, mebibytes, pid))
        sent += mebibytes
        usage.stop()
    return {
        "cpu": usage.seconds / sent * 1e6,
        "rate": sent / usage.wall,
        "memory": memory / MIB,
        "busy": usage.seconds / usage.wall,
        "client": (time.process_time() - before) / sent * 1e6,
    }


def _post(port: int, block: memoryview, blocks: int, pid: int | None = None) -> int:
    """One request; the memory of the server ``pid`` just before the last block is sent."""
    memory = 0
    length = len(block) * blocks
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        sock.settimeout(MOST_SECONDS)
        sock.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n\r\n" % (port, length))
        for number in range(blocks):
            if pid is not None and number == blocks - 1:
                memory = memory_bytes(pid)
            sock.sendall(block)
        answer = head(sock)
        expect(answer, 200)
        body = _body(sock, answer, len(str(length)))
    if body != b"%d" % length:
        raise ClientFailed(f"the application got {body.decode('latin-1')} of {length} bytes")
    return memory


def _body(sock: socket.socket, answer: bytes, length: int) -> bytes:
    """The body of a response whose length is known beforehand, however it is framed."""
    if b"transfer-encoding: chunked" not in answer.lower():
        return exactly(sock, length)
    data = bytearray()
    while not data.endswith(b"0\r\n\r\n"):
        data += exactly(sock, 1)
    return bytes(data).split(b"\r\n")[1]


def open_kept(port: int) -> socket.socket:
    """A connection after one request, idle."""
    sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
    if (body := _body(sock, head(sock), len(BODY))) != BODY:
        raise ClientFailed(f"a wrong answer: {body.decode('latin-1')}")
    return sock


def idle(port: int, pid: int, seconds: float, kind: str = "http", connections: int = 2000) -> dict[str, float]:
    """What connections that do nothing cost: KiB each, and microseconds of CPU a second for ``connections`` of them.

    Half as many more are open: those came first and are not counted.

    :param kind: ``http`` or ``websocket``.
    """
    opens: Callable[[int], socket.socket] = open_websocket if kind == "websocket" else open_kept
    with ExitStack() as stack:
        # The first ones fill the holes that starting has left in the heap, and make what is made once.
        sockets = [stack.enter_context(opens(port)) for _ in range(connections // 2)]
        _settled(pid)
        before = memory_bytes(pid)
        sockets += [stack.enter_context(opens(port)) for _ in range(connections)]
        _settled(pid)
        after = memory_bytes(pid)
        usage = Usage(pid)
        time.sleep(seconds)
        usage.stop()
        if lost := sum(map(_is_closed, sockets)):
            raise ClientFailed(f"{lost} of {len(sockets)} idle connections were closed")
        idle_cpu = usage.seconds / usage.wall * 1e6 / len(sockets) * connections
    return {"each": (after - before) / connections / 1024, "idle_cpu": idle_cpu}


def _settled(pid: int) -> None:
    """Return once the server has had nothing to do for 200 ms, or after 5 s."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        usage = Usage(pid)
        time.sleep(0.2)
        usage.stop()
        if usage.seconds < 0.004:
            return


def _is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def latency(times: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile of seconds, in milliseconds."""
    if len(times) < 2:
        return {}
    parts = statistics.quantiles(times, n=100)
    return {"p50": parts[49] * 1e3, "p99": parts[98] * 1e3}


def echo(port: int, pid: int, seconds: float, **options: Any) -> dict[str, float]:
    """Messages that come back, one under way on each connection; per message."""
    return _measured(echoes.Echoes(port, **options), pid, seconds)


def download(port: int, pid: int, seconds: float, **options: Any) -> dict[str, float]:
    """Large responses; per response."""
    return _measured(Download(port, **options), pid, seconds)


def broadcast(port: int, pid: int, seconds: float, **options: Any) -> dict[str, float]:
    """One message delivered to all; per delivery."""
    return _measured(echoes.Deliveries(port, **options), pid, seconds)


def _measured(play: echoes.Play | Download, pid: int, seconds: float) -> dict[str, float]:
    units, times, usage, client = play.run(pid, seconds)
    if not units:
        raise ClientFailed("nothing came back")
    return {
        "cpu": usage.seconds / units * 1e6,
        "rate": units / usage.wall,
        **latency(times),
        "busy": usage.seconds / usage.wall,
        "client": client / units * 1e6,
    }


CLIENTS: dict[str, Callable[..., dict[str, float]]] = {
    "upload": upload, "download": download, "idle": idle, "echo": echo, "broadcast": broadcast,
}  # fmt: skip


def main(arguments: str) -> int:
    """Run what the JSON in ``arguments`` asks for: client, port, pid, seconds, and the client's options."""
    options = json.loads(arguments)
    client = CLIENTS[options.pop("client")]
    try:
        found: dict[str, Any] = client(**options)
    except (ClientFailed, ProcessesChanged, OSError) as error:
        found = {"failure": str(error) or repr(error)}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
