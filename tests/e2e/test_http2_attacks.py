"""Peers of HTTP/2 that mean harm: each is held or let go within bounds, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import hpack
import httpx
import pytest

from asgiserver.wire.connection import PREFACE
from tests.e2e.server import DEADLINE, ServerProcess, serving, wait_for
from tests.wire.http2_peer import raw

#: An application that takes no time, reads no upload to /deaf, and has 10 MiB at /large.
SITE = '''
import asyncio

async def application(scope, receive, send):
    if scope["path"] == "/deaf":
        await asyncio.sleep(60)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(160 if scope["path"] == "/large" else 0):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    await send({"type": "http.response.body", "body": b"well"})
'''

#: It logs no request, and ends the applications that peers have left.
QUIET = ("--no-access-log", "--application-close-timeout", "0.1")

#: Those of which no unit test has the like; the others repeat one at length.
SHORT = ("rapid reset", "references", "heads alone, unread", "an upload that nobody reads")

_encoder = hpack.Encoder()


def head(number: int, path: str = "/", *more: tuple[str, str], method: str = "GET", flags: int = 5) -> bytes:
    fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path), *more]
    # Nothing enters the table, so that heads may be repeated.
    block = b"".join(_encoder.encode([(*field, True)]) for field in fields)  # type: ignore[list-item]
    return raw(1, flags, number, block)


def each(part: bytes) -> Iterator[bytes]:
    """So many at once that the server is busy, and as often as it takes them."""
    while True:
        yield part * (65536 // len(part))


def numbered(*parts: tuple[int, int, bytes]) -> Iterator[bytes]:
    """A request, and frames for its stream: type, flags and payload."""
    request = head(1)
    for first in range(1, 1 << 24, 200):
        yield b"".join(
            request[:5] + struct.pack("!I", number) + request[9:]
            + b"".join(raw(kind, flags, number, payload) for kind, flags, payload in parts)
            for number in range(first, first + 200, 2)
        )  # fmt: skip


def bombs() -> Iterator[bytes]:
    """A large cookie in the table, and requests of references to it."""
    encoder = hpack.Encoder()
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/large")]
    for number in range(1, 1 << 24, 2):
        yield raw(1, 5, number, encoder.encode([*fields, *[("cookie", "x" * 4000)] * 15]))


NO_WINDOWS = raw(4, 0, 0, struct.pack("!HI", 4, 0))

ATTACKS = {
    "rapid reset": lambda: numbered((3, 0, struct.pack("!I", 8))),
    "made you reset by WINDOW_UPDATE": lambda: numbered((8, 0, bytes(4))),
    "made you reset by overflow": lambda: numbered((8, 0, struct.pack("!I", 2**31 - 1))),
    "made you reset by DATA": lambda: numbered((0, 0, b"x")),
    "made you reset by HEADERS": lambda: numbered((1, 5, b"\x82")),
    "continuation": lambda: each(raw(1, 1, 1, b"\x82") + raw(9, 0, 1, b"\x82") * 100),
    "settings": lambda: each(raw(4, 0, 0, struct.pack("!HI", 4, 9) * 16)),
    "ping": lambda: each(raw(6, 0, 0, bytes(8))),
    "priority": lambda: each(raw(2, 0, 1, bytes(5))),
    "priority update": lambda: each(raw(16, 0, 0, bytes(3) + b"\x01" + b"i," * 4000)),
    "goaway": lambda: iter([head(1, "/deaf"), *[raw(7, 0, 0, bytes(8)) * 1000] * 100]),
    "references": bombs,
    "no windows": lambda: iter([NO_WINDOWS, *(head(number, "/large") for number in range(1, 101, 2))]),
    "heads alone, unread": lambda: (
        b"".join(head(number, method="HEAD") for number in range(first, first + 200, 2))
        for first in range(1, 1 << 20, 200)
    ),
    "an upload that nobody reads": lambda: iter(
        [head(1, "/deaf", method="POST", flags=4), raw(0, 0, 1, bytes(16383)) * 4, b"\0"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("site"), SITE, "--lifespan", "off", *QUIET) as server:
        # What a first request loads and a first write of each size takes is no growth.
        with httpx.Client(http1=False, http2=True, timeout=DEADLINE) as client:
            for path in ("/", "/large"):
                client.get(server.url + path)
        yield server


@pytest.mark.parametrize(
    "attack", [pytest.param(name, marks=[] if name in SHORT else pytest.mark.slow) for name in ATTACKS]
)
def test_others_are_served_meanwhile(site: ServerProcess, attack: str) -> None:
    over = threading.Event()

    def harm(peer: socket.socket) -> None:
        """Send and read nothing, until the server has had enough or reads no more."""
        with contextlib.suppress(OSError):
            peer.sendall(PREFACE + raw(4, 0, 0))
            for data in ATTACKS[attack]():
                if over.is_set():
                    break
                peer.sendall(data)

    before = site.memory()
    with socket.create_connection(("127.0.0.1", site.port), 1.0) as peer:
        thread = threading.Thread(target=harm, args=(peer,))
        thread.start()
        with httpx.Client(http1=False, http2=True, timeout=DEADLINE) as client:
            ends, slowest, served = time.monotonic() + 0.4, 0.0, 0
            while time.monotonic() < ends:
                began = time.monotonic()
                assert client.get(site.url).text == "well"
                slowest, served = max(slowest, time.monotonic() - began), served + 1
                time.sleep(0.005)
        grown = site.memory() - before
        over.set()
        peer.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)
    assert served >= 2
    assert slowest < 0.7
    assert grown < 8 << 20
    wait_for(lambda: httpx.get(site.url).text == "well")
