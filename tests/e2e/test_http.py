"""HTTP/1.1 through real sockets: what the application sees of a request, and what the client sees of a response."""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import unquote

import aiohttp
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgiserver.errors import ClientDisconnected

from ..programs import require
from .applications import Application, Hearing, Recorder, answering, lives, piece, sending, start
from .live import (
    CHUNKED,
    DEADLINE,
    Receive,
    Send,
    answer,
    connect,
    get,
    post,
    receive_body,
    serve,
    stalls,
    until,
    url,
)  # fmt: skip

#: The header of each request of :func:`tests.e2e.live.get`.
OWN = (b"host", b"example.org")


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def upload(body: bytes) -> bytes:
    return post(len(body), body)


class TestScope:
    async def test_has_every_key_with_its_type(self) -> None:
        recorder = Recorder()
        async with serve(recorder) as server, connect(server) as peer:
            await peer.request("GET", "/")
            client, address = peer.writer.get_extra_info("sockname"), server.listening_addresses[0]
        scope = recorder.scope
        assert scope.pop("headers") == [(b"host", b"example.org")]
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "client": [client[0], client[1]],
            "server": [address[0], address[1]],
            "extensions": {
                "http.response.pathsend": {}, "http.response.zerocopysend": {}, "asgiserver": {"request_id": ANY},
            },
        }
        assert type(scope["client"][1]) is int
        assert type(scope["server"][1]) is int

    #: A request, and what is in its scope.
    ROWS = [
        *((get(target), {"path": path, "raw_path": raw_path, "query_string": query})
          for target, path, raw_path, query in [
            ("/a?b=c+d%20e&f", "/a", b"/a", b"b=c+d%20e&f"),
            ("/a?", "/a", b"/a", b""),
            ("/foo%2Fbar", "/foo/bar", b"/foo%2Fbar", b""),
            ("/%E4%B8%96", "/\u4e16", b"/%E4%B8%96", b""),
            ("/%ff", "/\ufffd", b"/%ff", b""),
            ("/100%", "/100%", b"/100%", b""),
            ("//a//b", "//a//b", b"//a//b", b""),
            ("/a?b?c", "/a", b"/a", b"b?c"),
            ("http://example.org/a?b", "/a", b"/a", b"b"),
            ("http://example.org", "/", b"/", b""),
        ]),
        # An absolute target has the host.
        (get("http://other.example:81/a"), {"headers": [(b"host", b"other.example:81")]}),
        (get("*", method="OPTIONS"), {"method": "OPTIONS", "path": "*", "raw_path": b"*"}),
        # names in lower case and stripped values, in order
        (get("/", "X-A: 1", "x-B:\t two  ", "X-a:3", "X-C:", "X-D: caf\xe9"),
         {"headers": [OWN, (b"x-a", b"1"), (b"x-b", b"two"), (b"x-a", b"3"), (b"x-c", b""), (b"x-d", b"caf\xe9")]}),
        # a name with an underscore is dropped, but not its twin
        (get("/", "X_Real_Ip: 6.6.6.6", "X-Real-Ip: 192.0.2.1"), {"headers": [OWN, (b"x-real-ip", b"192.0.2.1")]}),
        # the root path is the setting's and nobody else's
        (get("/app/x", "Daphne-Root-Path: /evil"), {"root_path": "/app", "path": "/app/x", "raw_path": b"/app/x"}),
        (b"GET / HTTP/1.0\r\n\r\n", {"http_version": "1.0", "headers": []}),
        # empty lines before the request line are tolerated
        (b"\r\n\r\n" + get("/late"), {"path": "/late"}),
    ]  # fmt: skip

    @pytest.mark.parametrize(("data", "expected"), ROWS)
    async def test_is_as_the_request(self, data: bytes, expected: dict[str, Any]) -> None:
        recorder = Recorder()
        async with serve(recorder, root_path=expected.get("root_path", "")) as server, connect(server) as peer:
            await peer.send(data)
            assert (await peer.response()).status == 200
        assert {key: recorder.scope[key] for key in expected} == expected

    async def test_of_ipv6_has_ipv6_addresses(self) -> None:
        recorder = Recorder()
        async with serve(recorder, host="::1") as server, connect(server) as peer:
            await peer.request("GET", "/")
        assert recorder.scope["client"][0] == recorder.scope["server"][0] == "::1"

    async def test_of_a_unix_socket_has_no_client(self, tmp_path: Path) -> None:
        recorder, path = Recorder(), str(tmp_path / "s")
        async with serve(recorder, port=None, unix_socket=path), connect(path) as peer:
            await peer.request("GET", "/")
        assert (recorder.scope["client"], recorder.scope["server"]) == (None, [path, None])

    async def test_has_a_copy_of_the_lifespan_state(self) -> None:
        shared: list[int] = []
        states: list[dict[str, Any]] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                scope["state"]["shared"] = shared
                await lives(receive, send)
                return
            states.append(dict(scope["state"]))
            scope["state"]["private"] = scope["path"]
            await answer(send)

        async with serve(application, lifespan="on") as server, connect(server) as peer:
            await peer.request("GET", "/1")
            await peer.request("GET", "/2")
        assert [set(state) for state in states] == [{"shared"}, {"shared"}]
        assert all(state["shared"] is shared for state in states)

    async def test_is_the_same_wherever_the_request_is_split(self) -> None:
        recorder = Recorder()
        request = b"POST /a%20b?c HTTP/1.1\r\nHost: h\r\nX-Y: z\r\nContent-Length: 3\r\n\r\nxyz"
        async with serve(recorder) as server, connect(server) as peer:
            for position in range(0, len(request), 5):
                await peer.send(request[:position])
                await asyncio.sleep(0)
                await peer.send(request[position:])
                assert (await peer.response()).body == b"xyz"
            for byte in request:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.0005)
            assert (await peer.response()).body == b"xyz"
        first = recorder.scopes[0]
        first["extensions"]["asgiserver"]["request_id"] = ANY
        assert first["headers"] == [(b"host", b"h"), (b"x-y", b"z"), (b"content-length", b"3")]
        assert all(scope == first for scope in recorder.scopes)

    def test_and_body_come_through_unchanged_whatever_is_sent(self) -> None:
        tchar = "!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyz"
        own = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
        names = st.text(tchar, min_size=1, max_size=12).filter(lambda name: name not in own)
        visible = [chr(code) for code in [*range(0x21, 0x7F), *range(0xA0, 0x100)]]
        values = st.text([*visible, " ", "\t"], max_size=20).map(lambda text: text.strip(" \t"))
        paths = st.text([c for c in map(chr, range(0x21, 0x7F)) if c not in "#?"], max_size=20)
        queries = st.text([c for c in map(chr, range(0x21, 0x7F)) if c != "#"], max_size=20)

        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.tuples(names, values), max_size=8), paths, queries, st.binary(max_size=3000))
        def check(fields: list[tuple[str, str]], path: str, query: str, body: bytes) -> None:
            head = [f"POST /{path}?{query} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}"]
            head += [f"{name}: {value}" for name, value in fields]
            asyncio.run(check_one("\r\n".join([*head, "", ""]).encode("latin-1"), body, fields, path, query))

        async def check_one(
            head: bytes, body: bytes, fields: list[tuple[str, str]], path: str, query: str
        ) -> None:
            recorder = Recorder()
            async with serve(recorder) as server, connect(server) as peer:
                await peer.send(head + body)
                assert (await peer.response()).body == body
            scope = recorder.scope
            assert recorder.bodies == [body]
            assert scope["headers"][2:] == [(n.encode(), v.encode("latin-1")) for n, v in fields]
            assert scope["raw_path"] == f"/{path}".encode()
            assert scope["path"] == unquote(f"/{path}")
            assert scope["query_string"] == query.encode()

        check()


class TestRequestBody:
    async def test_with_a_length_arrives_whole(self) -> None:
        async with serve(Recorder()) as server, connect(server) as peer:
            assert (await peer.request("POST", "/", body=b"a" * 1000)).body == b"a" * 1000

    async def test_in_chunks_arrives_whole_with_extensions_and_trailers_ignored(self) -> None:
        chunks = b"3;name=value\r\nabc\r\n00A\r\n0123456789\r\n1 ; x\r\nz\r\n0\r\nX-Sum: 1\r\n\r\n"
        recorder = Recorder()
        async with serve(recorder) as server, connect(server) as peer:
            await peer.send(CHUNKED + chunks + get("/next"))
            assert (await peer.response()).body == b"abc0123456789z"
            assert (await peer.response()).status == 200
        assert recorder.scope["path"] == "/next"
        assert all(name != b"x-sum" for name, _ in recorder.scopes[0]["headers"])

    async def test_that_is_missing_is_one_empty_event(self) -> None:
        events: list[Any] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            events.append(await receive())
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0.05)
            events.append(waiting.done())
            await answer(send)
            events.extend([await waiting, await receive()])

        async with serve(application) as server, connect(server) as peer:
            await peer.request("GET", "/")
            await until(lambda: len(events) == 4)
        assert events == [
            {"type": "http.request", "body": b"", "more_body": False},
            False,
            {"type": "http.disconnect"},
            {"type": "http.disconnect"},
        ]

    async def test_is_seen_before_the_client_has_sent_all_of_it(self) -> None:
        first = asyncio.Event()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            event = await receive()
            assert event == {"type": "http.request", "body": b"one", "more_body": True}
            first.set()
            await answer(send, await receive_body(receive))

        async with serve(application) as server, connect(server) as peer:
            await peer.send(post(6, b"one"))
            await until(first.is_set)
            await peer.send(b"two")
            assert (await peer.response()).body == b"two"

    async def test_of_ten_megabytes_comes_in_bounded_pieces_and_complete(self) -> None:
        body = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(327680))
        sizes: list[int] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            digest = hashlib.sha256()
            more = True
            while more:
                event = await receive()
                more = event["more_body"]
                sizes.append(len(event["body"]))
                digest.update(event["body"])
            await answer(send, digest.hexdigest().encode())

        expected = hashlib.sha256(body).hexdigest()
        async with serve(application, request_buffer_size=16384) as server, httpx.AsyncClient() as client:
            with_length = await client.post(url(server), content=body)

            in_chunks = await client.post(url(server), content=pieces(body, 99991))
        assert [with_length.text, in_chunks.text] == [expected, expected]
        # A piece is what a read has brought.
        assert max(sizes) <= 262144
        assert len(sizes) > 2 * len(body) // 262144

    async def test_stays_with_the_client_while_the_application_does_not_read(self) -> None:
        go = asyncio.Event()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await go.wait()
            await answer(send, str(len(await receive_body(receive))).encode())

        size = 32 * 1024 * 1024
        async with serve(application) as server, connect(server) as peer:
            peer.writer.write(upload(bytes(size)))
            unsent = peer.writer.transport.get_write_buffer_size
            await asyncio.sleep(0.2)
            # Two socket buffers may be full, 4 and 6 MiB at most on Linux; the rest has not left.
            assert unsent() > size // 2
            go.set()
            assert (await peer.response()).body == str(size).encode()

    async def test_loses_nothing_when_receive_is_cancelled(self) -> None:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(receive(), 0.01)
            await send(start())
            await send(piece(b"ready:", True))
            await send(piece(await receive_body(receive)))

        async with serve(application) as server, connect(server) as peer:
            await peer.send(post(4))
            await peer.read_until(b"ready:\r\n")
            await peer.send(b"body")
            assert b"body" in await peer.read_until(b"0\r\n\r\n")


async def late(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.05)
    await answer(send, await receive_body(receive))


async def output_of(*command: str) -> bytes:
    """What a program prints that ends well."""
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await child.communicate()
    assert child.returncode == 0
    return output


class TestExpectContinue:
    REQUEST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\n"

    async def test_is_answered_when_the_application_reads(self) -> None:
        async with serve(Recorder()) as server, connect(server) as peer:
            await peer.send(self.REQUEST)
            interim = await peer.response()
            assert (interim.status, interim.headers) == (100, [])
            await peer.send(b"body")
            final = await peer.response()
            assert (final.status, final.body) == (200, b"body")
            assert (await peer.request("GET", "/again")).status == 200

    async def test_is_not_answered_in_the_middle_of_the_response(self) -> None:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await send(start())
            await send(piece(b"begun", True))
            await send(piece(await receive_body(receive)))

        async with serve(application) as server, connect(server) as peer:
            await peer.send(self.REQUEST)
            head = await peer.read_until(b"5\r\nbegun\r\n")
            assert b"connection: close" in head
            await peer.send(b"body")
            assert await peer.read_rest() == b"4\r\nbody\r\n0\r\n\r\n"

    @pytest.mark.parametrize(
        ("application", "data", "expected"),
        [
            (answering(b"no", 403), REQUEST, (403, b"no", "close")),
            (late, REQUEST + b"body", (200, b"body", None)),
            (
                late, REQUEST.replace(b"100-Continue", b"200-ok"),
                (417, b"The only expectation that is supported is 100-continue.\n", "close"),
            ),
        ],
        ids=["the application answers at once", "the body is there already", "another kind"],
    )  # fmt: skip
    async def test_is_not_answered_when(
        self, application: Application, data: bytes, expected: tuple[int, bytes, str | None]
    ) -> None:
        async with serve(application) as server, connect(server) as peer:
            await peer.send(data)
            response = await peer.response()
            assert (response.status, response.body, response.value("connection")) == expected
            assert not expected[2] or await peer.closed()

    async def test_of_http_1_0_is_ignored(self) -> None:
        async with serve(Recorder()) as server, connect(server) as peer:
            await peer.send(self.REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))
            await asyncio.sleep(0.05)
            await peer.send(b"body")
            assert (await peer.response()).body == b"body"

    async def test_of_curl_works(self, tmp_path: Path) -> None:
        data = tmp_path / "upload"
        data.write_bytes(bytes(range(256)) * 8192)
        async with serve(Recorder()) as server:
            options = ("-H", "Expect: 100-continue", "--data-binary", f"@{data}")
            assert await output_of(require("curl"), "-sS", "-m", "20", *options, url(server)) == data.read_bytes()


class TestPersistence:
    async def test_two_requests_share_a_connection(self) -> None:
        recorder = Recorder()
        async with serve(recorder) as server, connect(server) as peer:
            for body in (b"1", b"22"):
                response = await peer.request("POST", "/", body=body)
                assert (response.body, response.value("connection")) == (body, None)
        assert recorder.scopes[0]["client"] == recorder.scopes[1]["client"]

    @pytest.mark.parametrize(
        ("application", "field"),
        [
            *((Recorder(), f"Connection: {value}") for value in ("close", "Keep-Alive, CLOSE", "x ,close")),
            (answering(b"x", headers=[(b"Connection", b"close"), (b"content-length", b"1")]), "X-Nothing: asked"),
        ],
    )
    async def test_either_side_can_ask_for_the_end(self, application: Application, field: str) -> None:
        async with serve(application) as server, connect(server) as peer:
            response = await peer.request("GET", "/", field)
            assert response.values("connection") == ["close"]
            assert await peer.closed()

    async def test_http_1_0_is_kept_when_asked_for_and_the_length_is_known(self) -> None:
        async with serve(Recorder()) as server, connect(server) as peer:
            request = b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx"
            for _ in range(2):
                await peer.send(request)
                response = await peer.response()
                assert (response.body, response.value("connection")) == (b"x", "keep-alive")
            await peer.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await peer.response()).value("connection") == "close"
            assert await peer.closed()

    async def test_http_1_0_gets_no_chunks_and_the_end_when_the_length_is_not_known(self) -> None:
        async with serve(sending(start(), piece(b"one", True), piece(b"two"))) as server, connect(server) as peer:
            await peer.send(get("/", "Connection: keep-alive", version="1.0"))
            response = await peer.response()
            assert (response.body, response.value("connection")) == (b"onetwo", "close")
            assert response.value("transfer-encoding") is None

    async def test_pipelined_requests_are_answered_in_order_one_at_a_time(self) -> None:
        running: list[str] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            assert not running
            running.append(scope["path"])
            body = await receive_body(receive)
            await asyncio.sleep(0.05 if scope["path"] == "/0" else 0)
            running.clear()
            await answer(send, scope["path"].encode() + body)

        async with serve(application) as server, connect(server) as peer:
            await peer.send(b"".join(post(2, b"xy", f"/{n}") for n in range(20)))
            assert [(await peer.response()).body for _ in range(20)] == [b"/%dxy" % n for n in range(20)]

    async def test_a_request_that_comes_after_the_server_has_closed_its_half_is_not_run(self) -> None:
        # Nobody would see its answer.
        begun: list[str] = []
        go = asyncio.Event()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            begun.append(scope["path"])
            await go.wait()
            await answer(send)

        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serve(application, graceful_timeout=DEADLINE))
            async with connect(server) as busy, connect(server) as idle:
                await until(lambda: len(server.connections) == 2)
                await idle.send(b"\r\n")
                await busy.send(get("/busy"))
                await until(lambda: begun)
                stopping = asyncio.ensure_future(stack.aclose())
                assert await idle.closed()
                await idle.send(get("/late"))
                await asyncio.sleep(0.1)
                go.set()
                assert (await busy.response()).value("connection") == "close"
                await busy.close()
                await idle.close()
                await stopping
        assert begun == ["/busy"]

    async def test_a_flood_of_pipelined_requests_is_answered_to_the_last(self) -> None:
        count = 5000
        async with serve(Recorder(), pipeline_buffer_size=1024) as server, connect(server) as peer:
            peer.writer.write(get("/") * count)
            for _ in range(count):
                assert (await peer.response()).status == 200
            await peer.writer.drain()

    async def test_a_pipelining_client_that_does_not_read_gets_no_further_requests_run(self) -> None:
        served: list[str] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            served.append(scope["path"])
            await answer(send, bytes(1024 * 1024))

        count = 60
        async with serve(application) as server, connect(server, receive_buffer=65536) as peer:
            await peer.send(get("/") * count)
            # What fits into the kernel's buffers, 4 MiB of ours at most on Linux, and a little more.
            assert await stalls(lambda: len(served)) < 15
            for _ in range(count):
                assert len((await peer.response()).body) == 1024 * 1024
        assert len(served) == count


EARLY = answering(b"early")


class TestUnreadBody:
    """The application answers without reading the body; the client must get the answer all the same."""

    async def test_that_is_small_is_drained_and_the_connection_goes_on(self) -> None:
        async with serve(EARLY) as server, connect(server) as peer:
            # What looks like a request inside the body is none.
            body = get("/smuggled") * 100
            assert (await peer.request("POST", "/", body=body)).value("connection") is None
            assert (await peer.request("GET", "/")).body == b"early"

    async def test_in_chunks_that_is_small_is_drained_and_the_connection_goes_on(self) -> None:
        async with serve(EARLY) as server, connect(server) as peer:
            await peer.send(CHUNKED + b"4\r\nab")
            assert (await peer.response()).body == b"early"
            await peer.send(b"cd\r\n0\r\n\r\n" + get("/"))
            assert (await peer.response()).body == b"early"

    @pytest.mark.parametrize("coding", ["length", "chunked"])
    async def test_that_is_large_does_not_cost_the_client_its_answer(self, coding: str) -> None:
        body = bytes(20 * 1024 * 1024)
        field = "Transfer-Encoding: chunked" if coding == "chunked" else f"Content-Length: {len(body)}"
        data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if coding == "chunked" else body
        async with serve(EARLY) as server, connect(server) as peer:
            peer.writer.write(get("/", field).replace(b"GET", b"POST") + data + get("/never"))
            response = await peer.response()
            assert (response.status, response.body) == (200, b"early")
            if coding == "length":
                assert response.value("connection") == "close"
            assert await peer.closed()

    async def test_that_is_large_does_not_cost_httpx_and_aiohttp_their_answer(self) -> None:
        body = bytes(20 * 1024 * 1024)
        async with serve(EARLY) as server:
            async with httpx.AsyncClient() as client:
                assert (await client.post(url(server), content=body)).text == "early"
            async with aiohttp.ClientSession() as session, session.post(url(server), data=io.BytesIO(body)) as response:
                assert await response.text() == "early"

    async def test_of_an_application_that_reads_only_the_first_piece(self) -> None:
        application = sending(start(200, (b"content-length", b"5")), piece(b"early"), after_receive=True)
        async with serve(application) as server, connect(server) as peer:
            for _ in range(3):
                assert (await peer.request("POST", "/", body=bytes(500_000))).body == b"early"


class TestResponse:
    @pytest.mark.parametrize(
        ("status", "reason"),
        [(200, "OK"), (418, "I'm a Teapot"), (404, "Not Found"), (299, None), (799, None)],
    )
    async def test_has_status_reason_headers_and_body(self, status: int, reason: str | None) -> None:
        # a status may be one that nobody knows
        application = answering(b"body", status, [(b"content-length", b"4"), (b"x-a", b"b")])
        async with serve(application) as server, connect(server) as peer:
            response = await peer.request("GET", "/")
        assert (response.version, response.status, response.body) == ("HTTP/1.1", status, b"body")
        assert reason is None or response.reason.lower() == reason.lower()
        assert response.headers[:2] == [("content-length", "4"), ("x-a", "b")]
        assert response.value("transfer-encoding") is None

    FIELDS = [[b"Content-Length", b"0"], (b"Set-Cookie", b"a=1"), (b"X-Mixed", b"v"), (b"Set-Cookie", b"b=2")]

    #: What the application sends, and the client gets, twice on one connection: the status, the body, and the values
    #: of some fields.
    ROWS = [
        # without a length it is chunked
        *((sending(start(), *(piece(part, True) for part in parts), piece()),
           (200, b"".join(parts), {"transfer-encoding": ["chunked"]}))
          for parts in [[b""], [b"one"], [b"one", b"", b"two", b""], [b"x" * 100_000, b"y"]]),
        # and is not coded twice when the application says so
        (answering(b"body", headers=[(b"Transfer-Encoding", b"chunked")]),
         (200, b"body", {"transfer-encoding": ["chunked"]})),
        # the headers may be any iterable, and in any case
        (lambda scope, receive, send: answer(send, headers=iter(TestResponse.FIELDS)),
         (200, b"", {"set-cookie": ["a=1", "b=2"], "x-mixed": ["v"]})),
        # a status without a body has neither body nor chunks
        *((answering(b"ignored", status, []), (status, b"", {"transfer-encoding": [], "content-length": []}))
          for status in (204, 304)),
    ]  # fmt: skip

    @pytest.mark.parametrize(("application", "expected"), ROWS)
    async def test_is_framed(self, application: Application, expected: tuple[int, bytes, dict[str, list[str]]]) -> None:
        async with serve(application, interface="asgi3") as server, connect(server) as peer:
            for _ in range(2):
                response = await peer.request("GET", "/")
                values = {name: response.values(name) for name in expected[2]}
                assert (response.status, response.body, values) == expected

    async def test_is_on_the_wire_piece_by_piece(self) -> None:
        go = asyncio.Queue[bytes]()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await send(start())
            while data := await go.get():
                await send(piece(data, True))
            await send(piece())

        async with serve(application) as server, connect(server) as peer:
            await peer.send(get("/"))
            for data in (b"first", b"second", b"third"):
                go.put_nowait(data)
                await peer.read_until(data + b"\r\n")
            go.put_nowait(b"")
            assert await peer.read(5) == b"0\r\n\r\n"

    @pytest.mark.parametrize("length", [[(b"content-length", b"4")], []])
    async def test_to_head_has_the_headers_of_get_and_no_body(self, length: list[tuple[bytes, bytes]]) -> None:
        async with serve(answering(b"body", headers=length)) as server, connect(server) as peer:
            head = await peer.request("HEAD", "/")
            other = await peer.request("GET", "/")
        dates = ("date", head.value("date")), ("date", other.value("date"))
        assert sorted({*head.headers} - {*dates}) == sorted({*other.headers} - {*dates})
        assert (head.body, other.body) == (b"", b"body")

    async def test_has_date_and_server_once(self) -> None:
        given: list[tuple[bytes, bytes]] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await answer(send, headers=[*given, (b"content-length", b"0")])

        async with serve(application, headers=("X-More: m",)) as server, connect(server) as peer:
            response = await peer.request("GET", "/")
            assert [len(response.values(name)) for name in ("date", "server", "x-more")] == [1, 1, 1]
            assert response.value("server") == "asgiserver"
            given[:] = [(b"Date", b"then"), (b"Server", b"mine"), (b"X-More", b"own")]
            response = await peer.request("GET", "/")
            assert [response.values(name) for name in ("date", "server", "x-more")] == [["then"], ["mine"], ["own"]]

    @pytest.mark.parametrize(("name", "values"), [("", []), ("other", ["other"])])
    async def test_has_the_server_name_of_the_setting(self, name: str, values: list[str]) -> None:
        async with serve(Recorder(), server_name=name) as server, connect(server) as peer:
            assert (await peer.request("GET", "/")).values("server") == values

    async def test_of_fifty_megabytes_in_one_message_is_complete(self) -> None:
        body = bytes(range(256)) * (50 * 4096)

        async with serve(answering(body)) as server:
            async with httpx.AsyncClient() as client:
                assert (await client.get(url(server))).content == body
            async with aiohttp.ClientSession() as session, session.get(url(server)) as response:
                assert await response.read() == body

    async def test_waits_in_send_for_a_client_that_does_not_read_and_is_complete_in_the_end(self) -> None:
        sent: list[int] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await send(start())
            for number in range(400):
                await send(piece(bytes([number % 256]) * 100_000, True))
                sent.append(number)
            await send(piece())

        async with serve(application) as server, connect(server, receive_buffer=65536) as peer:
            await peer.send(get("/"))
            assert await stalls(lambda: len(sent)) < 100
            response = await peer.response()
        assert response.body == b"".join(bytes([number % 256]) * 100_000 for number in range(400))


class TestDisconnect:
    async def test_wakes_a_waiting_receive_at_once(self) -> None:
        events: list[Any] = []
        begun = asyncio.Event()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await send(start())
            await send(piece(b"x", True))
            events.append(await receive())
            begun.set()
            events.append(await receive())

        async with serve(application) as server, connect(server) as peer:
            await peer.send(get("/"))
            await until(begun.is_set)
            peer.abort()
            await until(lambda: len(events) == 2, 1)
        assert [event["type"] for event in events] == ["http.request", "http.disconnect"]

    @pytest.mark.parametrize("reset", [True, False])
    async def test_ends_a_send_that_waits_and_fails_the_next_one(self, reset: bool) -> None:
        outcome: list[BaseException] = []
        sent: list[int] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await send(start())
            try:
                while True:
                    await send(piece(bytes(100_000), True))
                    sent.append(1)
            except OSError as error:
                outcome.append(error)

        async with serve(application) as server, connect(server, receive_buffer=65536) as peer:
            await peer.send(get("/"))
            await stalls(lambda: len(sent))
            if reset:
                peer.abort()
            else:
                await peer.close()
            await until(lambda: outcome)
        assert isinstance(outcome[0], ClientDisconnected)

    async def test_makes_send_silent_for_an_application_that_listens(self) -> None:
        done = asyncio.Event()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await receive()
            await send(start())
            await send(piece(b"x", True))
            assert await receive() == {"type": "http.disconnect"}
            for _ in range(3):
                await send(piece(b"x", True))
            done.set()

        async with serve(application) as server, connect(server) as peer:
            await peer.send(get("/"))
            await peer.read_until(b"x\r\n")
            peer.abort()
            await until(done.is_set)

    async def test_does_not_let_a_deaf_application_starve_the_others(self) -> None:
        # An application that ignores every error of its send() is cancelled after the close timeout.
        ended: list[BaseException] = []

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            if scope["path"] == "/other":
                await answer(send, b"served")
                return
            await send(start())
            try:
                while True:
                    try:
                        await send(piece(b"x" * 1000, True))
                    except OSError:
                        pass
            except asyncio.CancelledError as error:
                ended.append(error)

        async with serve(application, application_close_timeout=0.2) as server:
            async with connect(server) as peer:
                await peer.send(get("/"))
                await peer.read_until(b"xxx")
                peer.abort()
            async with connect(server) as peer:
                assert (await peer.request("GET", "/other")).body == b"served"
            await until(lambda: ended)

    async def test_in_the_middle_of_a_body_is_no_end_of_it(self) -> None:
        application = Hearing()
        async with serve(application) as server, connect(server) as peer:
            await peer.send(post(9, b"abc"))
            await until(lambda: application.events)
            await peer.close()
            await until(application.has_ended)
        came = {"type": "http.request", "body": b"abc", "more_body": True}
        assert application.events == [came, {"type": "http.disconnect"}]


class TestClients:
    """The same few exchanges with clients that people use."""

    async def test_httpx_posts_and_gets_over_one_connection(self) -> None:
        recorder = Recorder()
        async with serve(recorder) as server, httpx.AsyncClient() as client:
            for _ in range(3):
                response = await client.post(f"{url(server)}/a%20b?q=1", content=b"body")
                assert (response.status_code, response.content) == (200, b"body")
        assert len({scope["client"][1] for scope in recorder.scopes}) == 1
        assert recorder.scope["path"] == "/a b"

    async def test_aiohttp_posts_a_form_and_a_stream(self) -> None:
        recorder = Recorder()
        async with serve(recorder) as server, aiohttp.ClientSession() as session:
            async with session.post(url(server), data={"a": "b c"}) as response:
                assert await response.text() == "a=b+c"

            async with session.post(url(server), data=pieces(b"x" * 500_000, 50_000)) as response:
                assert await response.read() == b"x" * 500_000
        assert (b"transfer-encoding", b"chunked") in recorder.scope["headers"]

    @pytest.mark.parametrize("option", ["--http1.0", "--http1.1", "--head"])
    async def test_curl_gets(self, option: str) -> None:
        application = sending(start(200, (b"x-one", b"1")), piece(b"one", True), piece(b"two"))
        async with serve(application) as server:
            command = [require("curl"), "-sS", "-m", "20", option]
            output = await output_of(*command, f"{url(server)}/1", f"{url(server)}/2")
        assert output.count(b"x-one: 1\r\n" if option == "--head" else b"onetwo") == 2

    async def test_urllib_gets(self) -> None:
        program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], b'body').read().decode())"
        async with serve(Recorder()) as server:
            assert (await output_of(sys.executable, "-c", program, url(server))).strip() == b"body"
