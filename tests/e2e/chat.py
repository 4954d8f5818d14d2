"""Visitors of the example ``chat`` that need no browser, its server, and pictures to show there."""

from __future__ import annotations

import json
import re
import shlex
import struct
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Self

import httpx
from playwright.sync_api import Browser, expect, sync_playwright
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.e2e.server import DEADLINE, ROOT, ServerProcess, environment
from tests.programs import require

__all__ = ["Visitor", "chat_server", "chromium", "manage", "png"]

FOLDER = ROOT / "examples" / "chat"

#: Seconds between two signs of life of a server; short, so that nobody waits for a dead one to be missed.
BEAT = "0.4"


def variables(data: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {"CHAT_DATA": str(data), "CHAT_PRESENCE_BEAT": BEAT, "REDIS_URL": "", **(extra or {})}


def chat_server(data: Path, *args: str, port: int = 0, env: Mapping[str, str] | None = None) -> ServerProcess:
    """The chat as its README starts it, with its files in ``data``."""
    found = re.search(r"\n\.venv/bin/asgiserver (.+)\n", (FOLDER / "README.md").read_text("utf-8"))
    assert found, "examples/chat/README.md does not say how to start the chat"
    return ServerProcess(*shlex.split(found[1]), "-p", str(port), *args, env=variables(data, env))


def manage(data: Path, *args: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "manage.py"), *args], env=environment(variables(data, env)), cwd=ROOT,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that is installed, without a window and without calls home."""
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update",
    ]  # fmt: skip
    program = require("chromium")
    expect.set_options(timeout=DEADLINE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


class Visitor:
    """Somebody who has signed in, and perhaps sits in a room; a context manager that leaves it."""

    def __init__(self, url: str, name: str) -> None:
        self._open = ExitStack()
        self.url = url
        self.http = self._open.enter_context(httpx.Client(base_url=url, follow_redirects=True, timeout=DEADLINE))
        self.name = name
        form = {"csrfmiddlewaretoken": self.token("/sign-in/"), "name": name}
        page = self.http.post("/sign-in/", data=form)
        assert page.url.path == "/", page.text
        self.websocket: ClientConnection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def token(self, page: str) -> str:
        """The token of the forms on a page."""
        text = self.http.get(page).text
        return text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]

    @property
    def cookies(self) -> list[Any]:
        """The cookies as a browser wants them."""
        return [{"name": name, "value": value, "url": self.url} for name, value in self.http.cookies.items()]

    @property
    def headers(self) -> dict[str, str]:
        return {"cookie": "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())}

    def join(self, room: str, query: str = "", url: str = "") -> dict[str, Any]:
        """Open the room's WebSocket and return its welcome."""
        address = f"ws{(url or self.url).removeprefix('http')}/ws/rooms/{room}/{query}"
        opened = connect(address, additional_headers=self.headers, origin=Origin(self.url))
        self.websocket = self._open.enter_context(opened)
        return self.hear("welcome")

    def send(self, **message: Any) -> None:
        self.websocket.send(json.dumps(message))

    def say(self, text: str, key: str = "") -> str:
        key = key or str(uuid.uuid4())
        self.send(type="say", key=key, text=text)
        return key

    def hear(self, kind: str, matches: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next of the things that the server tells that is of this kind, and matches.

        :raises TimeoutError: when it does not come within the deadline, whatever else may.
        """
        end = time.monotonic() + DEADLINE
        while True:
            told: dict[str, Any] = json.loads(self.websocket.recv(max(0.0, end - time.monotonic())))
            if told["type"] == kind and matches(told):
                return told

    def hear_text(self, text: str) -> dict[str, Any]:
        """The next message with ``text`` in it."""
        found: dict[str, Any] = self.hear("message", lambda told: text in told["message"]["text"])["message"]
        return found

    def see(self, *names: str) -> None:
        """Wait until those who are here are these."""
        self.hear("people", lambda told: {person["name"] for person in told["people"]} == set(names))

    def show(self, room: str, content: bytes, kind: str = "image/png") -> httpx.Response:
        """Upload a picture."""
        headers = {"x-csrftoken": self.token(f"/rooms/{room}/")}
        data, files = {"key": str(uuid.uuid4())}, {"picture": ("picture", content, kind)}
        return self.http.post(f"/rooms/{room}/pictures/", data=data, files=files, headers=headers)


def png(width: int, height: int) -> bytes:
    """A picture of noise, which takes three bytes for each of its points."""
    rows = Random(7).randbytes(width * height * 3)
    lines = b"".join(b"\0" + rows[start : start + width * 3] for start in range(0, len(rows), width * 3))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 0)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
