"""The clients for what wrk cannot do, each in a process of its own: ``python -m tests.benchmarks.clients JSON``.

A line on standard input, a number of seconds, asks for one slice, and a line of JSON on standard output says what was
measured, or why not. Connections are opened for each slice: one that waited for its next turn would be sent pings, or
be closed. The clients do as little as they can while they measure: frames are made beforehand, the first answer is
looked at byte for byte, and of all later ones only the length.
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

from . import bursts, echoes, slow_reader
from .applications import BODY
from .downloads import Download
from .frames import DEADLINE, exactly, expect, head, open_websocket
from .http2_requests import HTTP2Requests, block_of, open_connection
from .processes import ProcessesChanged, Usage, memory_bytes, per_unit
from .requests import Requests
from .wrk import ClientFailed

__all__ = ["CLIENTS", "main"]

MIB = 1 << 20
#: Seconds that an upload may take.
MOST_SECONDS = 60.0
#: Idle connections are opened no faster than this, each second, and then left alone for so many seconds.
PACE = 200
REST = 1.5


def upload(port: int, pid: int, seconds: float, mebibytes: int = 256) -> dict[str, float]:
    """POST one body of ``mebibytes``, however many seconds that takes; per MiB."""
    block = memoryview(bytes(MIB))
    usage, before = Usage(pid), time.process_time()
    memory = _post(port, block, mebibytes, pid)
    usage.stop()
    client = time.process_time() - before
    return {**per_unit(mebibytes, usage, client), "memory": memory / MIB}


def _post(port: int, block: memoryview, blocks: int, pid: int) -> int:
    """One request; the memory of the server ``pid`` just before the last block is sent."""
    memory = 0
    length = len(block) * blocks
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        sock.settimeout(MOST_SECONDS)
        sock.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n\r\n" % (port, length))
        for number in range(blocks):
            if number == blocks - 1:
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


def open_http2(port: int) -> socket.socket:
    """The same over HTTP/2."""
    connection = open_connection(port)
    block = block_of(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
    connection.ask([(block, len(BODY))])
    while not connection.received():
        pass
    return connection.sock


OPENS = {"http": open_kept, "http2": open_http2, "websocket": open_websocket}


def idle(port: int, pid: int, seconds: float, kind: str = "http", connections: int = 2000) -> dict[str, float]:
    """What connections that do nothing cost: KiB each, and microseconds of CPU a second for ``connections`` of them.

    What is told is by how much the server grows from the first quarter to the last connection. The first quarter has
    made what is made once: imports, tables, pools. They are opened slowly, and the server rests before it is looked
    at, because of what a request leaves behind for a while, such as a finished application that is only looked for
    once a second: opened at full speed, a thousand of those make room that the next thousand connections fill without
    any growth, and a server that holds 2.9 KiB for each seems to need anything from 2 to 9.

    :param kind: ``http``, ``http2`` or ``websocket``.
    """
    opens: Callable[[int], socket.socket] = OPENS[kind]
    sockets: list[socket.socket] = []
    with ExitStack() as stack:

        def grown(more: int) -> int:
            begin = time.monotonic()
            for number in range(more):
                time.sleep(max(0.0, begin + number / PACE - time.monotonic()))
                sockets.append(stack.enter_context(opens(port)))
            time.sleep(REST)
            return memory_bytes(pid)

        before = grown(connections // 4)
        after = grown(connections)
        usage = Usage(pid)
        time.sleep(seconds)
        usage.stop()
        if lost := sum(map(_is_closed, sockets)):
            raise ClientFailed(f"{lost} of {len(sockets)} idle connections were closed")
        idle_cpu = usage.seconds / usage.wall * 1e6 / len(sockets) * connections
    return {"each": (after - before) / connections / 1024, "idle_cpu": idle_cpu}


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


def large(port: int, pid: int, seconds: float, target: str, size: int) -> dict[str, float]:
    """A large response to a slow reader, which shows what of it the server keeps, and then others at full speed."""
    grown = slow_reader.growth(port, pid, target, size)
    begins, usage, client = Download(port, size, 1, target).one_by_one(pid, seconds)
    begun = {"first_byte": statistics.median(begins) * 1e3, "growth": grown / MIB}
    return {**per_unit(len(begins), usage, client), **begun}


def burst(port: int, pid: int, seconds: float, target: str, answer: str, requests: int) -> dict[str, float]:
    """Requests at once, until all are answered, however many seconds that takes; per request."""
    usage, before = Usage(pid), time.process_time()
    took = bursts.burst(port, target, answer.encode("ascii"), requests)
    usage.stop()
    return {**per_unit(requests, usage, time.process_time() - before), "all_answered": took * 1e3}


def broadcast(port: int, pid: int, seconds: float, **options: Any) -> dict[str, float]:
    """One message delivered to all; per delivery."""
    return _measured(echoes.Deliveries(port, **options), pid, seconds)


def requests(port: int, pid: int, seconds: float, **options: Any) -> dict[str, float]:
    """GETs of which no two are alike, by TCP or through a unix socket; per request."""
    return _measured(Requests(port, **options), pid, seconds)


def http2_requests(port: int, pid: int, seconds: float, **options: Any) -> dict[str, float]:
    """GETs of which no two are alike, over HTTP/2; per request."""
    return _measured(HTTP2Requests(port, **options), pid, seconds)


def _measured(play: echoes.Play, pid: int, seconds: float) -> dict[str, float]:
    units, times, usage, client = play.run(pid, seconds)
    if not units:
        raise ClientFailed("nothing came back")
    return {**per_unit(units, usage, client), **latency(times)}


CLIENTS: dict[str, Callable[..., dict[str, float]]] = {
    "upload": upload, "download": download, "idle": idle, "echo": echo, "broadcast": broadcast,
    "requests": requests, "http2_requests": http2_requests, "large": large, "burst": burst,
}  # fmt: skip


def main(arguments: str) -> int:
    """Run what the JSON in ``arguments`` asks for, client, port, pid, and the client's options, once for each line."""
    options = json.loads(arguments)
    client = CLIENTS[options.pop("client")]
    for line in sys.stdin:
        try:
            found: dict[str, Any] = client(seconds=float(line), **options)
        except (ClientFailed, ProcessesChanged, OSError) as error:
            found = {"failure": str(error) or repr(error)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
