"""What a server process has loaded when it answers its first request."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from .server import ServerProcess

APPLICATION = """
import gc, json, sys

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    seen = {"modules": list(sys.modules), "collecting": gc.isenabled(), "frozen": gc.get_freeze_count()}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
"""

#: What an HTTP request on a plain socket needs nothing of, each with all that is below it.
UNUSED = (
    # WebSockets
    "asgiserver.wire.frames", "asgiserver.wire.deflate", "autobahn", "txaio", "cbor2", "msgpack", "ujson", "hyperlink",
    "cffi", "pycparser",
    # Other applications than ASGI 3, and what those import
    "asgiref", "channels", "django", "starlette",
    # Other protocols and entrances
    "h2", "hpack", "hyperframe", "twisted.application", "twisted.conch", "twisted.plugin", "twisted.trial",
    "twisted.web", "twisted.words", "asgiserver.service",
    # Settings that are not used here
    "asgiserver.process.certificates", "asgiserver.process.proxy_protocol", "difflib", "logging.config", "tomllib",
    "twisted.internet.endpoints", "trustme",
)  # fmt: skip

#: Twisted imports these, for its own sake, wherever pyOpenSSL is installed.
TLS = ("OpenSSL", "cryptography", "service_identity", "idna", "_cffi_backend")

#: Runs the command line as if pyOpenSSL were not installed: as without the extra ``tls``.
WITHOUT_TLS = "import sys; sys.modules['OpenSSL'] = None; from asgiserver.__main__ import script; script()"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "shows.py").write_text(APPLICATION, "utf-8")
    args = ("--app-dir", str(tmp_path), "-p", "0", "shows")
    with ServerProcess(*args, command=(sys.executable, "-c", WITHOUT_TLS)) as server:
        yield server


def shown(server: ServerProcess) -> dict[str, Any]:
    seen: dict[str, Any] = httpx.get(server.url).json()
    return seen


def loaded(server: ServerProcess, names: tuple[str, ...]) -> list[str]:
    """The modules that are loaded among ``names`` and what is below them."""
    inside = tuple(f"{name}." for name in names)
    return sorted(each for each in shown(server)["modules"] if each in names or each.startswith(inside))


class TestImports:
    def test_nothing_is_loaded_that_the_first_answer_does_not_need(self, server: ServerProcess) -> None:
        assert loaded(server, UNUSED) == []
        assert loaded(server, TLS) == ["OpenSSL"]  # the None that stands for its absence

    def test_the_first_websocket_loads_its_own(self, server: ServerProcess) -> None:
        with connect(server.url.replace("http", "ws")):
            pass
        assert {"asgiserver.wire.frames", "autobahn.websocket.protocol"} <= set(loaded(server, UNUSED))
        assert loaded(server, ("asgiref", "django", "twisted.application", "twisted.web")) == []

    @pytest.mark.parametrize("name", UNUSED)
    def test_each_name_is_one_that_could_be_loaded(self, name: str) -> None:
        # Otherwise a name that has changed would forbid nothing any more.
        if not name.startswith(("asgiserver", "twisted")):
            return
        assert importlib.util.find_spec(name) is not None


class TestTheGarbageCollector:
    def test_works_for_the_application_and_skips_what_was_loaded_before_it(self, server: ServerProcess) -> None:
        seen = shown(server)
        assert seen["collecting"]
        assert seen["frozen"] > 10000

    def test_stays_off_where_it_was_off(self, tmp_path: Path) -> None:
        (tmp_path / "shows.py").write_text(APPLICATION, "utf-8")
        program = "import gc; gc.disable(); from asgiserver.__main__ import script; script()"
        args = ("--app-dir", str(tmp_path), "-p", "0", "shows")
        with ServerProcess(*args, command=(sys.executable, "-c", program)) as server:
            assert not shown(server)["collecting"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_has_answered_is_small(server: ServerProcess) -> None:
    """uvicorn with uvloop and httptools has 32 MB on the machine where this has 36."""
    shown(server)
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 48 * 1024 * 1024
