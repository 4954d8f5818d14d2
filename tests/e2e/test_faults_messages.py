"""What an application sends and a client would refuse or misread: control bytes, spellings, impossible closes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect as client
from websockets.exceptions import InvalidStatus

from asgiserver.errors import MessageError

from .applications import piece, sending, start
from .live import GET, Receive, Send, connect, get, serve, until, url
from .websocket import Attempts, handshake, refused

#: HTAB aside, all that RFC 9110 §5.5 keeps out of a value.
CONTROLS = [bytes((number,)) for number in (*range(9), *range(10, 32), 127)]
SPELLED = [(b"Content-Type", b"text/plain"), (b"ETag", b'"1"'), (b"X-REQUEST-ID", b"7"), (b"vary", b"*")]
OK = piece(b"ok")


def levels(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {record.levelname for record in caplog.records if record.levelno >= logging.WARNING}


async def test_control_byte_in_a_value_is_an_error_in_send_and_never_reaches_a_client() -> None:
    raised = 0

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal raised
        for control in CONTROLS:
            for value in (control, b"a" + control + b"b", b"ab" + control):
                with pytest.raises(MessageError, match="x-a"):
                    await send(start(200, (b"x-a", value)))
                raised += 1
        await send(start(200, (b"x-a", b"b\tc \xff\x80")))
        await send(OK)

    async with serve(application) as server, httpx.AsyncClient() as browser, connect(server) as peer:
        assert (await browser.get(url(server))).text == "ok"
        response = await peer.request("GET", "/")
        async with aiohttp.ClientSession() as session, session.get(url(server)) as other:
            assert await other.read() == b"ok"
    assert (response.value("x-a"), response.body) == ("b\tc \xff\x80", b"ok")
    assert raised == 3 * 3 * len(CONTROLS)


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.start"])
async def test_control_byte_in_the_answer_to_a_handshake_is_an_error_in_send(kind: str) -> None:
    wrong = [{"type": kind, "status": 401, "headers": [(b"x-a", b"a" + control)]} for control in CONTROLS]
    application = Attempts(*wrong, {"type": "websocket.close"})
    async with serve(application) as server, connect(server) as peer:
        await peer.send(handshake())
        assert (await peer.response()).status == 403
    assert application.outcomes == [*[MessageError] * len(CONTROLS), None]


@pytest.mark.parametrize("how", ["whole", "pieces", "file", "HEAD", "304"])
async def test_names_reach_the_client_as_the_application_spells_them(how: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"ok")

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        length = [(b"CONTENT-length", b"2")] if how in ("whole", "304") else []
        status = 304 if how == "304" else 200
        await send(start(status, *SPELLED, *length))
        if how == "file":
            await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})
            return
        await send(piece(b"o", True) if how == "pieces" else OK)
        if how == "pieces":
            await send(piece(b"k"))

    method = "HEAD" if how == "HEAD" else "GET"
    async with serve(application) as server, connect(server) as peer:
        for _ in range(2):
            # The length is understood however it is spelled: each response ends where it should.
            assert (await peer.request(method, "/")).body == (b"" if how in ("HEAD", "304") else b"ok")
        await peer.send(get("/", method=method))
        lines = (await peer.read_until(b"\r\n\r\n")).split(b"\r\n")
    assert lines[1:5] == [b": ".join(field) for field in SPELLED]
    lengths = {"whole": [b"CONTENT-length: 2"], "304": [b"CONTENT-length: 2"], "file": [b"content-length: 2"]}
    assert [line for line in lines if line.lower().startswith(b"content-length")] == lengths.get(how, [])


async def test_default_fields_give_way_however_the_application_spells_its_own() -> None:
    own = [(b"SERVER", b"mine"), (b"Date", b"Tue, 15 Nov 1994 08:12:31 GMT"), (b"Connection", b"close")]

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await sending(start(200, *own), OK)(scope, receive, send)
        else:
            await send({"type": "websocket.accept", "headers": own})

    async with serve(application) as server:
        async with connect(server) as peer:
            response = await peer.request("GET", "/")
            assert [len(response.values(name)) for name in ("server", "date", "connection")] == [1, 1, 1]
            assert await peer.closed()
        async with connect(server) as peer:
            await peer.send(handshake())
            answer = await peer.read_until(b"\r\n\r\n")
    assert answer.endswith(b"\r\nSERVER: mine\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\n\r\n")
    assert [answer.lower().count(name) for name in (b"\r\nserver:", b"\r\ndate:", b"\r\nconnection:")] == [1, 1, 1]


async def test_answers_to_a_handshake_keep_their_spelling_too() -> None:
    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] == "/accept":
            await send({"type": "websocket.accept", "headers": SPELLED})
        else:
            await send({"type": "websocket.http.response.start", "status": 401, "headers": SPELLED})
            await send({"type": "websocket.http.response.body", "body": b"no"})

    async with serve(application) as server:
        for target in ("/accept", "/deny"):
            async with connect(server) as peer:
                await peer.send(handshake(target=target))
                lines = (await peer.read_until(b"\r\n\r\n")).split(b"\r\n")
                assert set(lines) >= {b": ".join(field) for field in SPELLED}


@pytest.mark.parametrize("name", ["Te", "Upgrade", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding"])
async def test_fields_of_one_connection_are_the_servers(name: str) -> None:
    """Whatever their spelling; RFC 9110 §7.6.1."""
    application = sending(start(200, (name.encode(), b"gzip, chunked")), OK)
    async with serve(application) as server, connect(server) as peer:
        for _ in range(2):
            response = await peer.request("GET", "/")
            assert response.body == b"ok"
            assert response.values(name.lower()) in ([], ["chunked"])


def project() -> FastAPI:
    application = FastAPI()

    @application.websocket("/items/{item}")
    async def items(websocket: WebSocket, item: int) -> None:
        await websocket.accept()
        await websocket.send_json(item)
        await websocket.close()

    @application.websocket("/forbidden")
    async def forbidden(websocket: WebSocket) -> None:
        await websocket.close(code=403, reason="members only " * 20)

    return application


@pytest.mark.parametrize("path", ["/items/seven", "/forbidden"])
async def test_refusal_of_fastapi_is_a_403_without_a_traceback(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Validation closes with a reason that is a list of errors."""
    async with serve(project()) as server:
        with pytest.raises(InvalidStatus) as caught:
            await client(url(server, "ws") + path)
        async with client(url(server, "ws") + "/items/7") as websocket:
            assert await websocket.recv() == "7"
    assert caught.value.response.status_code == 403
    assert levels(caplog) == set()


async def test_close_that_cannot_be_sent_is_an_error_once_accepted() -> None:
    wrong = [{"type": "websocket.close", "code": 403}, {"type": "websocket.close", "reason": ["no text"]}]
    application = Attempts({"type": "websocket.accept"}, *wrong, {"type": "websocket.close", "code": 4001})
    async with serve(application) as server, client(url(server, "ws")) as websocket:
        async with asyncio.timeout(20):
            await websocket.wait_closed()
        assert websocket.close_code == 4001
    assert application.outcomes == [None, MessageError, MessageError, None]


REFUSALS: dict[str, list[dict[str, Any]]] = {
    "close": [{"type": "websocket.close", "code": 4001}],
    "denial": [
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
        {"type": "websocket.http.response.body", "body": b"n", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"o"},
    ],
}


@pytest.mark.parametrize("how", REFUSALS)
async def test_what_follows_a_refusal_is_ignored(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each with a line for developers, and whatever it says."""
    late = [
        {"type": "websocket.accept"}, {"type": "websocket.send", "text": "a"}, {"type": "websocket.close", "code": 403},
        *REFUSALS["denial"],
    ]  # fmt: skip
    application = Attempts(*REFUSALS[how], *late)
    with caplog.at_level(logging.DEBUG, "asgiserver"):
        async with serve(application) as server, connect(server) as peer:
            for turn in (1, 2):
                response = await refused(peer, handshake())
                assert (response.status, response.body) in ((403, b"Forbidden\n"), (401, b"no"))
                await until(lambda turn=turn: len(application.outcomes) == turn * len(REFUSALS[how] + late))
    assert set(application.outcomes) == {None}
    assert levels(caplog) == set()
    lines = [record for record in caplog.records if record.name == "asgiserver" and "ignored" in record.getMessage()]
    assert [record.levelname for record in lines] == ["DEBUG"] * 2 * len(late)


@pytest.mark.parametrize(("asked", "made"), [("HEAD", "GET"), ("GET", "HEAD")])
async def test_method_that_an_application_writes_into_its_scope_changes_no_framing(asked: str, made: str) -> None:
    """Middleware that lets GET answer HEAD, or overrides methods, misleads no client (RFC 9110 §9.3.2)."""

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        scope["method"] = made
        await send(start(200, (b"content-length", b"2")))
        await send(OK)

    async with serve(application) as server, connect(server) as peer:
        for _ in range(2):
            response = await peer.request(asked, "/")
            assert (response.version, response.body) == ("HTTP/1.1", b"" if asked == "HEAD" else b"ok")


@pytest.mark.parametrize("data", [GET, handshake()])
async def test_scope_that_an_application_empties_is_its_own(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The peer's leave is met, the request is logged, and its connection does not stay."""
    begun = asyncio.Event()
    caplog.set_level(logging.INFO, "asgiserver.access")

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        scope.clear()
        begun.set()
        while not (await receive())["type"].endswith(".disconnect"):
            pass

    async with serve(application) as server:
        async with connect(server) as peer:
            await peer.send(data)
            await asyncio.wait_for(begun.wait(), 20)
            peer.abort()
        await until(lambda: not server.connections and not server.exchanges)
    assert levels(caplog) == set()
    assert "/" in caplog.text
