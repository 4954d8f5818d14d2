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

from .certificate import Certificate
from .server import ServerProcess, serving

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

#: Turns bytes into capitals over Twisted's TLS, and asks itself for that.
SPEAKS_TLS = """
import asyncio, os, ssl
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

FOLDER, HOW = os.environ["FOLDER"], os.environ["HOW"]

class Contexts:
    def getContext(self):
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_chain_file(f"{FOLDER}/both.pem")
        context.use_privatekey_file(f"{FOLDER}/both.pem")
        return context

class Capitals(Protocol):
    def connectionMade(self):
        if HOW == "startTLS":
            self.transport.startTLS(Contexts())

    def dataReceived(self, data):
        self.transport.write(data.upper())

async def application(scope, receive, send):
    factory = Factory.forProtocol(Capitals)
    if HOW == "listenSSL":
        port = reactor.listenSSL(0, factory, Contexts(), interface="127.0.0.1")
    else:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    context = ssl.create_default_context(cafile=f"{FOLDER}/root.pem")
    number = port.getHost().port
    reader, writer = await asyncio.open_connection("127.0.0.1", number, ssl=context, server_hostname="localhost")
    writer.write(b"hello")
    answer = await reader.readexactly(5)
    writer.close()
    port.stopListening()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer})
"""

#: What an HTTP request on a plain socket needs nothing of, each with all that is below it.
UNUSED = (
    # WebSockets
    "asgiserver.wire.websocket", "autobahn", "txaio", "cbor2", "msgpack", "ujson", "hyperlink", "cffi", "hashlib",
    "hmac", "pycparser", "secrets",
    # Other applications than ASGI 3, and what those import
    "asgiref", "channels", "django", "starlette",
    # Other protocols and entrances
    "asgiserver.wire.http2", "asgiserver.wire.http2_fields", "asgiserver.wire.http2_frames",
    "asgiserver.wire.http2_limits", "asgiserver.wire.http2_order", "asgiserver.wire.http2_output",
    "asgiserver.wire.http2_stream", "asgiserver.wire.http2_writer", "asgiserver.wire.hpack", "asgiserver.wire.huffman",
    "h2", "hpack", "hyperframe", "twisted.application", "twisted.conch", "twisted.plugin",
    "twisted.trial", "twisted.web", "twisted.words", "asgiserver.service",
    # Settings that are not used here
    "asgiserver.asgi.forwarded", "asgiserver.log.access_file", "asgiserver.transport.certificates",
    "asgiserver.listen.proxy_protocol",
    "asgiserver.transport.unix", "difflib", "encodings.idna", "logging.config", "logging.handlers", "tomllib",
    "twisted.internet.endpoints", "trustme",
    # What Twisted imports by itself, the first wherever pyOpenSSL is installed
    "OpenSSL", "cryptography", "service_identity", "idna", "_cffi_backend", "twisted.internet.ssl",
    "twisted.protocols.tls", "http.cookiejar", "twisted.internet.udp", "twisted.internet.unix", "urllib.request",
    # What modules of Python's own import for few of their functions
    "email", "shutil",
)  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path, APPLICATION) as server:
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

    def test_the_first_websocket_loads_its_own(self, server: ServerProcess) -> None:
        with connect(server.url.replace("http", "ws")):
            pass
        assert {"asgiserver.wire.websocket.frames", "autobahn.websocket.protocol"} <= set(loaded(server, UNUSED))
        assert loaded(server, ("asgiref", "django", "twisted.application", "twisted.web")) == []

    def test_the_first_connection_of_http2_loads_its_own(self, server: ServerProcess) -> None:
        with httpx.Client(http1=False, http2=True) as client:
            client.get(server.url)
        assert loaded(server, UNUSED) == sorted(name for name in UNUSED if name.startswith("asgiserver.wire.h"))

    @pytest.mark.parametrize("name", UNUSED)
    def test_each_name_is_one_that_could_be_loaded(self, name: str) -> None:
        # Otherwise a name that has changed would forbid nothing any more.
        if not name.startswith(("asgiserver", "twisted", "http", "urllib", "OpenSSL", "cryptography")):
            return
        assert importlib.util.find_spec(name) is not None


class TestTheGarbageCollector:
    def test_works_for_the_application_and_skips_what_was_loaded_before_it(self, server: ServerProcess) -> None:
        seen = shown(server)
        assert seen["collecting"]
        assert seen["frozen"] > 10000

    def test_stays_off_where_it_was_off(self, tmp_path: Path) -> None:
        program = "import gc; gc.disable(); from asgiserver.__main__ import script; script()"
        with serving(tmp_path, APPLICATION, command=(sys.executable, "-c", program)) as server:
            assert not shown(server)["collecting"]


class TestTwistedsOwnTLS:
    """Applications have what Twisted did not import at once, pyOpenSSL among it, as if it had."""

    @pytest.fixture(params=["listenSSL", "startTLS"])
    def answer(self, request: pytest.FixtureRequest, certificate: Certificate, tmp_path: Path) -> str:
        env = {"HOW": request.param, "FOLDER": str(certificate.both.parent)}
        with serving(tmp_path, SPEAKS_TLS, env=env) as server:
            return httpx.get(server.url).text

    def test_works_in_an_application(self, answer: str) -> None:
        assert answer == "HELLO"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_has_answered_is_small(server: ServerProcess) -> None:
    """uvicorn with uvloop and httptools has 32 MB on the machine where this has 33."""
    shown(server)
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 42 * 1024 * 1024
