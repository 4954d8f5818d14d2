"""What goes wrong in HTTP, by the application's doing and by the peer's, through real sockets."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgiserver.errors import MessageError, UnexpectedMessage

from .applications import Application, Hearing, Recorder, answering, hello, piece, sending, start
from .live import (
    CHUNKED,
    DEADLINE,
    GET,
    POST,
    Peer,
    Receive,
    Send,
    answer,
    connect,
    get,
    receive_body,
    serve,
    until,
    url,
)  # fmt: skip
from .server import COMMANDS, command_on, serving
from .websocket import handshake, refused

START, PART = start(), piece(b"part", True)


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


async def returns_a_value(scope: dict[str, Any], receive: Receive, send: Send) -> Any:
    await answer(send, b"fine")
    return 42


async def is_cut_off(peer: Peer) -> None:
    """The response to a request ends before its end."""
    await peer.send(GET)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await peer.response()


class TestAnApplicationThatFails:
    @pytest.mark.parametrize(
        ("application", "status", "tracebacks"),
        [
            (sending(ValueError("a secret")), 500, [True]),
            (sending(), 500, [False]),
            (sending(START), 500, [False]),
            (sending(asyncio.CancelledError()), 500, [False]),
            (sending(start(200, (b"content-length", b"4")), piece(b"fine"), ValueError("afterwards")), 200, [True]),
            (returns_a_value, 200, []),
        ],
        ids=["raises", "returns", "returns after the start", "is cancelled", "raises afterwards", "returns a value"],
    )
    async def test_is_answered_at_once_and_logged_once(
        self, application: Application, status: int, tracebacks: list[bool], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(application) as server, connect(server) as peer:
            for _ in range(2):
                async with asyncio.timeout(5):
                    response = await peer.request("GET", "/target")
                assert (response.status, response.body == b"fine") == (status, status == 200)
                assert b"secret" not in response.body
        assert [record.exc_info is not None for record in errors(caplog)] == 2 * tracebacks
        assert all("GET '/target'" in record.getMessage() for record in errors(caplog))

    @pytest.mark.parametrize("how", ["raises", "returns", "is cancelled"])
    async def test_in_the_middle_of_the_response_cuts_it_off(self, how: str, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            if scope["path"] == "/before":
                raise ValueError("before")
            end = {"raises": [ValueError("in the middle")], "is cancelled": [asyncio.CancelledError()]}.get(how, [])
            await sending(START, PART, *end)(scope, receive, send)

        async with serve(application) as server:
            async with connect(server) as peer:
                await is_cut_off(peer)
            async with connect(server) as peer:
                assert (await peer.request("GET", "/before")).status == 500
        assert len(errors(caplog)) == 2

    async def test_with_a_known_length_is_cut_off_too(self) -> None:
        application = sending(start(200, (b"content-length", b"100")), PART)
        async with serve(application) as server, httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(url(server))

    @pytest.mark.parametrize(
        ("error", "words"),
        [("SystemExit(7)", "SystemExit(7)"), ("KeyboardInterrupt", "the application raised KeyboardInterrupt")],
    )
    def test_by_exiting_does_not_end_the_server(self, error: str, words: str, tmp_path: Path) -> None:
        # with signal handlers of ours, no KeyboardInterrupt is the user's.
        text = f"async def application(scope, receive, send):\n    raise {error}\n"
        with serving(tmp_path, text, "--lifespan", "off") as server:
            for _ in range(2):
                assert httpx.get(server.url).status_code == 500
            assert words in server.output()
        assert server.returncode == 0

    @pytest.mark.parametrize("loop", COMMANDS)
    @pytest.mark.parametrize("error", ["SystemExit(7)", "KeyboardInterrupt()"])
    def test_by_exiting_in_a_task_of_its_own_disturbs_nobody(self, error: str, loop: str, tmp_path: Path) -> None:
        # Django, among others, runs its views in such tasks.
        text = f"""
import asyncio

waiting = asyncio.Event()

async def leave():
    raise {error}

async def application(scope, receive, send):
    if scope["path"] == "/wait":
        await waiting.wait()
    else:
        # Both in one turn: neither may cost the other its turn, nor anybody else.
        tasks = [asyncio.ensure_future(leave()) for _ in range(2)]
        asyncio.get_running_loop().call_soon(waiting.set)
        await asyncio.wait(tasks)
        for task in tasks:
            assert repr(task.exception()) == "{error}"
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}})
    await send({{"type": "http.response.body"}})
"""
        with (
            serving(tmp_path, text, "--lifespan", "off", command=command_on(loop)) as server,
            ThreadPoolExecutor() as others,
        ):
            other = others.submit(httpx.get, f"{server.url}/wait", timeout=DEADLINE)
            for _ in range(3):
                assert httpx.get(server.url, timeout=DEADLINE).status_code == 200
            assert other.result().status_code == 200
        assert server.returncode == 0
        assert server.output().count(f"The application raised {error}") >= 3
        assert "Traceback" not in server.output()


class TestAMessageThatIsWrong:
    """It raises inside the application; what the client sees depends on what the application makes of that."""

    WHOLE = [(start(200, (b"content-length", b"4")), None), (piece(b"good"), None)]

    BAD_START = [
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": "200"},
        {"type": "http.response.start", "status": 99},
        {"type": "http.response.start", "status": 200, "headers": [("x-name", b"v")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"x-name", "v")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"x-name", b"v\r\nset-cookie: evil=1")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"x-name: a\r\nevil", b"v")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"x-name", b"v\0")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"-1")]},
        {"type": "http.response.unknown"},
        {"type": "websocket.accept"},
        {"status": 200},
        ["http.response.start"],
    ]

    @pytest.mark.parametrize("message", BAD_START, ids=str)
    async def test_in_place_of_the_start_is_answered_500_and_nothing_of_it_is_sent(
        self, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(sending(message)) as server, connect(server) as peer:
            response = await peer.request("GET", "/")
            assert response.status == 500
            assert not {"set-cookie", "evil", "x-name"}.intersection(name for name, _ in response.headers)
            assert (await peer.request("GET", "/")).status == 500
        error = errors(caplog)[0].exc_info
        assert error is not None
        assert isinstance(error[1], MessageError)

    #: What an application sends, each message with the error that it raises (its type and its words) or None; and
    #: the body that its client gets on a connection that goes on, or None when the response is cut off.
    ORDERS = {
        "is made good": ([(start(200, ("x-name", b"v")), (MessageError, "x-name")), *WHOLE], b"good"),
        "by its order": (
            [
                (PART, (UnexpectedMessage, None)), (START, None), (START, (UnexpectedMessage, None)), (PART, None),
                (START, (UnexpectedMessage, None)), (piece(), None),
                # ASGI: what follows a complete response is ignored.
                (START, None), (PART, None),
            ],
            b"part",
        ),
        "of a body that is too long": (  # no stray byte is on the connection
            [(start(200, (b"content-length", b"4")), None), (PART, None),
             (piece(b"stray", True), (MessageError, "longer")), (piece(), None)],
            b"part",
        ),
        "of a body that is too short": (
            [(start(200, (b"content-length", b"10")), None), (PART, None), (piece(), (MessageError, "short"))], None,
        ),
    }  # fmt: skip

    @pytest.mark.parametrize(("messages", "body"), ORDERS.values(), ids=ORDERS)
    async def test_raises_and_the_response_stands(self, messages: Any, body: bytes | None) -> None:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            for message, error in messages:
                with pytest.raises(error[0], match=error[1]) if error else nullcontext():
                    await send(message)

        async with serve(application) as server, connect(server) as peer:
            if body is None:
                await is_cut_off(peer)
                return
            for _ in range(2):
                assert (await peer.request("GET", "/")).body == body

    async def test_of_a_body_in_one_piece_is_answered_500(self) -> None:
        application = answering(b"too long", headers=[(b"content-length", b"3")])
        async with serve(application) as server, connect(server) as peer:
            for _ in range(2):
                assert (await peer.request("GET", "/")).status == 500


class TestARequestThatIsWrong:
    REFUSED = {
        "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        "words": (b"hello\r\n\r\n", 400),
        "four words": (b"GET / HTTP/1.1 x\r\nHost: h\r\n\r\n", 400),
        "HTTP/0.9": (b"GET /\r\n\r\n", 400),
        "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        "HTTP/3.7": (b"GET / HTTP/3.7\r\nHost: h\r\n\r\n", 505),
        "the wrong preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505),
        "lower-case method": (b"get / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        "fragment": (b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        "target without a slash": (b"GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        "path that is not ASCII": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        "query that is not ASCII": (b"GET /?\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
        "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        "bad Host": (b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n", 400),
        "space in a name": (POST + b"X Y: z\r\n\r\n", 400),
        "no name": (POST + b": z\r\n\r\n", 400),
        "no colon": (POST + b"name\r\n\r\n", 400),
        "space before the colon": (POST + b"Content-Length : 0\r\n\r\n", 400),
        "folded line": (POST + b"X-Y: a\r\n b\r\n\r\n", 400),
        "folded first line": (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        "bare LF": (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        "one bare LF": (POST + b"X-Y: a\nX-Z: b\r\n\r\n", 400),
        "bare CR": (POST + b"X-Y: a\rb\r\n\r\n", 400),
        "NUL": (POST + b"X-Y: a\0b\r\n\r\n", 400),
        **{f"0x{byte:02x} in a value": (POST + b"X-Y: a%cb\r\n\r\n" % byte, 400)
           for byte in (0x01, 0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x7F, 0x85)},
        "length and coding": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        "the same length twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 400),
        "list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\n", 400),
        **{f"length {value!r}": (POST + b"Content-Length: %b\r\n\r\n" % value, 400)
           for value in (b"+5", b"-1", b"5 5", b"", b"0x5", b"1_0", b"\xb2", b"9" * 40)},
        "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
        "identity, chunked": (POST + b"Transfer-Encoding: identity, chunked\r\n\r\n", 501),
        "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
        "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
        "chunked in two lines": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        "chunked, gzip": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
        "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
        "vertical tab before chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
        "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    }  # fmt: skip

    @pytest.mark.parametrize("name", REFUSED)
    async def test_in_its_head_is_refused_and_reaches_no_application(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        data, status = self.REFUSED[name]
        application = Recorder()
        async with serve(application) as server:
            async with connect(server) as peer:
                await peer.send(data + get("/smuggled"))
                response = await peer.response()
                assert (response.status, response.value("connection")) == (status, "close")
                assert await peer.closed()
            assert not application.scopes
            async with connect(server) as peer:
                assert (await peer.request("POST", "/next", body=b"hello")).body == b"hello"
        assert not [record for record in caplog.records if record.levelno > logging.INFO]

    BAD_CHUNKS = {
        "no digit": b"x\r\nabc\r\n0\r\n\r\n",
        "negative": b"-3\r\nabc\r\n0\r\n\r\n",
        "plus": b"+3\r\nabc\r\n0\r\n\r\n",
        "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
        "underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
        "empty size": b"\r\n\r\n",
        "too many digits": b"0" * 20 + b"3\r\nabc\r\n0\r\n\r\n",
        "huge extension": b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
        "LF in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        "bare LF after the size": b"3\nabc\r\n0\r\n\r\n",
        "data longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
        "two other bytes after the data": b"3\r\nabcxx0\r\n\r\n",
        "LF after the data": b"3\r\nabc\n0\r\n\r\n",
        "malformed trailer": b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        "bare LF at the end": b"3\r\nabc\r\n0\r\n\n",
    }

    @pytest.mark.parametrize("name", BAD_CHUNKS)
    async def test_in_its_chunks_is_refused_and_the_application_sees_no_finished_body(self, name: str) -> None:
        application = Hearing()
        async with serve(application) as server, connect(server) as peer:
            await peer.send(CHUNKED)
            await application.began.wait()
            await peer.send(self.BAD_CHUNKS[name] + GET)
            response = await peer.response()
            assert (response.status, response.value("connection")) == (400, "close")
            assert await peer.closed()
            await until(application.has_ended)
        assert all(event.get("more_body", True) for event in application.events)

    @pytest.mark.parametrize("name", BAD_CHUNKS)
    async def test_in_the_chunks_that_come_with_its_head_reaches_no_application(self, name: str) -> None:
        application = Hearing()
        async with serve(application) as server, connect(server) as peer:
            await peer.send(CHUNKED + self.BAD_CHUNKS[name] + GET)
            assert (await peer.response()).status == 400
            assert await peer.closed()
        assert not application.began.is_set()

    async def test_after_the_response_has_begun_cuts_the_response_off(self) -> None:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await send(START)
            await send(PART)
            with pytest.raises(ConnectionError):
                await receive_body(receive)

        async with serve(application) as server, connect(server) as peer:
            await peer.send(CHUNKED)
            await peer.read_until(b"4\r\npart\r\n")
            await peer.send(b"x\r\n")
            assert await peer.closed()

    async def test_after_a_good_one_does_not_harm_the_answer_to_that(self) -> None:
        async with serve(hello) as server, connect(server) as peer:
            await peer.send(GET + b"nonsense\r\n\r\n")
            assert (await peer.response()).body == b"hello"
            assert (await peer.response()).status == 400
            assert await peer.closed()

    async def test_in_bytes_after_connection_close_is_never_read(self) -> None:
        async with serve(hello) as server, connect(server) as peer:
            await peer.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"\0" * 100_000)
            assert (await peer.response()).body == b"hello"
            assert await peer.closed()

    async def test_by_its_early_end_reaches_no_application_and_is_not_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            raise AssertionError

        caplog.set_level(logging.DEBUG)
        async with serve(application) as server:
            for data in (b"", b"\r\n", b"GET", GET[:-2]):
                async with connect(server) as peer:
                    await peer.send(data)
                async with connect(server) as peer:
                    await peer.send(data)
                    await asyncio.sleep(0.01)
                    peer.abort()
            await until(lambda: not server.connections)
        logged = [record for record in caplog.records if record.name.startswith(("asgiserver", "twisted"))]
        loud = [record.getMessage() for record in logged if record.levelno > logging.DEBUG]
        assert [message.split(" ")[0] for message in loud] == ["asgiserver", "Listening", "Stopping", "Stopped"]


class TestTheLogOf:
    """Requests that reached no application."""

    async def test_refused_requests_is_that_of_answered_ones(self) -> None:
        calls: list[tuple[str, str, dict[str, Any]]] = []
        began, done = asyncio.Event(), asyncio.Event()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            began.set()
            await done.wait()
            await answer(send)

        settings = {"limit_body_size": 10, "limit_concurrency": 1}
        async with serve(application, action_logger=lambda *call: calls.append(call), **settings) as server:
            for data in (
                GET.replace(b" / ", b" /large?a=b ")[:-2] + b"Content-Length: 11\r\n\r\n",
                handshake(target="/old", sec_websocket_version="8"),
                handshake(target="/wrong", sec_websocket_key="x"),
            ):
                async with connect(server) as peer:
                    await refused(peer, data)
            async with connect(server) as first, connect(server) as peer:
                await first.send(GET)
                await began.wait()
                assert (await peer.request("GET", "/busy")).status == 503
                done.set()
                assert (await first.response()).status == 200
        found = [(*call[:2], call[2]["path"], call[2]["status"]) for call in calls]
        assert found == [
            ("http", "complete", "/large?a=b", 413),
            ("websocket", "rejected", "/old", 426),
            ("websocket", "rejected", "/wrong", 400),
            ("http", "complete", "/busy", 503),
            ("http", "complete", "/", 200),
        ]
        assert all(call[2]["client"].startswith("127.0.0.1:") for call in calls)

    @pytest.mark.parametrize("data", [b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 20_000])
    async def test_heads_that_cannot_be_read_is_in_the_servers_log_alone(
        self, data: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls: list[Any] = []
        caplog.set_level(logging.INFO, "asgiserver")
        async with serve(hello, action_logger=lambda *call: calls.append(call)) as server, connect(server) as peer:
            await refused(peer, data)
        assert calls == []
        (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Refused")]
        assert "Refused a request of 127.0.0.1:" in line
        assert len(line) < 300
