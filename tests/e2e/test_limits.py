"""Deadlines and limits of HTTP/1.1 connections, through real sockets and real, short times."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Self

import httpx
import pytest

from ..conformance.peer import TEXT, frame
from .applications import Application, Hearing, Waiting, answering, hello, piece, start
from .live import (
    GET,
    POST,
    Peer,
    Receive,
    Send,
    answer,
    connect,
    get,
    post,
    receive_body,
    serve,
    until,
    url,
)  # fmt: skip
from .websocket import Echo, raw_websocket

large = answering(bytes(16 * 1024 * 1024))
early = answering(b"early")


async def endless(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await send(start())
    while True:
        await send(piece(bytes(65536), True))


def slow(seconds: float) -> Application:
    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await asyncio.sleep(seconds)
        await answer(send, b"slow")

    return application


class Stopwatch:
    """How long a block took, in seconds."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began


async def refusal(peer: Peer, status: int) -> None:
    """The peer is answered ``status``, and the connection ends."""
    response = await peer.response()
    assert (response.status, response.value("connection")) == (status, "close")
    assert await peer.closed()


class TestTheHead:
    @pytest.mark.parametrize("drip", [False, True])
    async def test_that_is_too_large_is_answered_431(self, drip: bool) -> None:
        async with serve(hello, limit_head_size=4096) as server:
            async with connect(server) as peer:
                await peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
                for _ in range(50):
                    peer.writer.write(b"X-A: " + b"a" * 95 + b"\r\n")
                    if drip:
                        await asyncio.sleep(0.001)
                await refusal(peer, 431)
            async with connect(server) as peer:
                assert (await peer.request("GET", "/")).body == b"hello"

    @pytest.mark.parametrize(
        ("settings", "data", "status"),
        [
            ({"limit_head_size": 1000}, GET[:-2] + b"X-A: ".ljust(1000 - len(GET) - 2, b"a") + b"\r\n\r\n", 200),
            ({"limit_head_size": 1000}, GET[:-2] + b"X-A: ".ljust(1001 - len(GET) - 2, b"a") + b"\r\n\r\n", 431),
            ({"limit_head_count": 10}, GET[:-2] + b"X: y\r\n" * 9 + b"\r\n", 200),
            ({"limit_head_count": 10}, GET[:-2] + b"X: y\r\n" * 10 + b"\r\n", 431),
            ({"limit_target_size": 1000}, get("/" + "a" * 999, method="DELETE"), 200),
            ({"limit_target_size": 1000}, get("/" + "a" * 999), 200),
            ({"limit_target_size": 1000}, get("/" + "a" * 1000), 414),
            ({"limit_target_size": 1000}, b"GET /" + b"a" * 100_000, 414),
        ],
    )
    async def test_at_its_limit_is_served_and_beyond_it_refused(
        self, settings: dict[str, int], data: bytes, status: int
    ) -> None:
        async with serve(hello, **settings) as server, connect(server) as peer:
            await peer.send(data)
            if status == 200:
                assert (await peer.response()).body == b"hello"
                assert (await peer.request("GET", "/")).body == b"hello"
            else:
                await refusal(peer, status)

    async def test_that_drips_is_answered_408_at_its_deadline(self) -> None:
        async def drip(peer: Peer) -> None:
            while True:
                peer.writer.write(b"X")
                await asyncio.sleep(0.02)

        async with serve(hello, head_timeout=0.3) as server, connect(server) as peer:
            with Stopwatch() as watch:
                await peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
                dripping = asyncio.ensure_future(drip(peer))
                response = await peer.response()
            dripping.cancel()
        assert response.status == 408
        assert 0.2 < watch.seconds < 5


#: Settings, an application, what is sent and the status that comes for it, before the connection ends at a deadline of
#: two tenths of a second.
DEADLINES: dict[str, Any] = {
    "no byte": ({"first_byte_timeout": 0.2}, hello, [(b"", None)]),
    "empty lines": ({"first_byte_timeout": 0.2}, hello, [(b"\r\n", None)]),
    "a second head": ({"head_timeout": 0.2, "keep_alive_timeout": 60}, hello, [(GET, 200), (b"GET / HT", 408)]),
    "nothing after a response": ({"keep_alive_timeout": 0.2}, hello, [(GET, 200)]),
    "a body that is drained": ({"body_timeout": 0.2}, early, [(post(100), 200)]),
}


@pytest.mark.parametrize(("settings", "application", "steps"), DEADLINES.values(), ids=DEADLINES)
async def test_a_connection_ends_quietly_at_the_deadline_of(
    settings: dict[str, float], application: Application, steps: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(application, **settings) as server, connect(server) as peer:
        with Stopwatch() as watch:
            for data, status in steps:
                await peer.send(data)
                if status is not None:
                    response, end = await peer.response(), "close" if status == 408 else None
                    assert (response.status, response.value("connection")) == (status, end)
            assert await peer.closed()
    assert 0.15 < watch.seconds < 5
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


class TestAnIdleConnection:
    async def test_is_not_one_whose_requests_are_answered_slowly(self) -> None:
        async with serve(slow(0.3), keep_alive_timeout=0.1) as server, connect(server) as peer:
            await peer.send(GET * 2)
            assert (await peer.response()).body == b"slow"
            assert (await peer.response()).body == b"slow"
            assert await peer.closed()

    async def test_is_not_one_that_still_takes_a_large_response(self) -> None:
        timeouts = {"keep_alive_timeout": 0.3, "close_timeout": 0.1}
        async with serve(large, **timeouts) as server, connect(server, receive_buffer=65536) as peer:
            for _ in range(2):
                await peer.send(GET)
                await asyncio.sleep(0.6)
                assert len((await peer.response()).body) == 16 * 1024 * 1024
            assert await peer.closed()

    async def test_can_be_kept_for_ever(self) -> None:
        timeouts = {"keep_alive_timeout": 0, "first_byte_timeout": 0, "head_timeout": 0.1}
        async with serve(hello, **timeouts) as server, connect(server) as peer:
            for _ in range(2):
                await asyncio.sleep(0.2)
                assert (await peer.request("GET", "/")).body == b"hello"


class TestTheBody:
    @pytest.mark.parametrize("coding", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
    async def test_that_stalls_is_answered_408_and_the_application_sees_a_disconnect(self, coding: bytes) -> None:
        application = Hearing()
        async with serve(application, body_timeout=0.2) as server, connect(server) as peer:
            await peer.send(POST + coding + b"\r\n\r\n5\r\n")
            await refusal(peer, 408)
            await until(application.has_ended)
        assert all(event.get("more_body", True) for event in application.events)

    async def test_that_comes_slowly_but_steadily_is_served(self) -> None:
        async with serve(hello, body_timeout=0.3) as server, connect(server) as peer:
            await peer.send(POST + b"Content-Length: 6\r\n\r\n")
            for _ in range(6):
                await asyncio.sleep(0.1)
                await peer.send(b"x")
            assert (await peer.response()).body == b"hello"

    async def test_that_the_application_does_not_read_is_not_late(self) -> None:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.4)
            await answer(send, str(len(await receive_body(receive))).encode())

        async with serve(application, body_timeout=0.1, request_buffer_size=1024) as server, connect(server) as peer:
            assert (await peer.request("POST", "/", body=bytes(100_000))).body == b"100000"

    @pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
    async def test_whose_length_is_above_the_limit_is_answered_413_before_it_is_sent(self, expect: bytes) -> None:
        async with serve(hello, limit_body_size=10) as server, connect(server) as peer:
            assert (await peer.request("POST", "/", body=bytes(10))).status == 200
            await peer.send(POST + expect + b"Content-Length: 11\r\n\r\n")
            await refusal(peer, 413)

    async def test_in_chunks_that_passes_the_limit_is_answered_413_and_the_application_sees_a_disconnect(self) -> None:
        application = Hearing()
        async with serve(application, limit_body_size=10) as server, connect(server) as peer:
            await peer.send(POST + b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
            await asyncio.sleep(0.02)
            await peer.send(b"6\r\nabcdef\r\n")
            await refusal(peer, 413)
            await until(application.has_ended)

    @pytest.mark.parametrize("coding", ["length", "chunks"])
    async def test_of_fifty_megabytes_under_way_does_not_cost_the_client_the_413(self, coding: str) -> None:
        body = bytes(50 * 1024 * 1024)

        async def pieces() -> Any:
            for at in range(0, len(body), 1024 * 1024):
                yield body[at : at + 1024 * 1024]

        async with serve(hello, limit_body_size=1000) as server:
            async with httpx.AsyncClient() as client:
                content = body if coding == "length" else pieces()
                assert (await client.post(url(server), content=content)).status_code == 413
            async with connect(server) as peer:
                fields = b"Content-Length: %d\r\n\r\n" % len(body)
                if coding == "chunks":
                    fields = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)
                # All of it is sent before the first byte of the answer is read.
                await peer.send(POST + fields + body)
                assert (await peer.response()).status == 413


class TestTheHTTPTimeout:
    async def test_answers_503_when_nothing_was_sent(self) -> None:
        application = Waiting()
        timeouts = {"http_timeout": 0.2, "application_close_timeout": 0.1}
        async with serve(application, **timeouts) as server, connect(server) as peer:
            with Stopwatch() as watch:
                response = await peer.request("GET", "/")
            assert (response.status, response.value("connection")) == (503, "close")
            assert 0.15 < watch.seconds < 5
            await until(application.ended.is_set, 5)

    @pytest.mark.parametrize("begin", [True, False])
    async def test_answers_503_or_cuts_off_when_the_response_was_begun(self, begin: bool) -> None:
        application = Waiting(start(), *([piece(b"begun", True)] if begin else []))
        timeouts = {"http_timeout": 0.2, "application_close_timeout": 0.1}
        async with serve(application, **timeouts) as server, connect(server) as peer:
            await peer.send(GET)
            if begin:
                await peer.read_until(b"begun\r\n")
                assert await peer.closed()
            else:
                await refusal(peer, 503)

    async def test_is_not_for_requests_that_are_answered_in_time(self) -> None:
        async with serve(hello, http_timeout=0.3) as server, connect(server) as peer:
            for _ in range(3):
                assert (await peer.request("GET", "/")).body == b"hello"
                await asyncio.sleep(0.2)

    async def test_is_not_for_websockets(self) -> None:
        async with serve(Echo(), http_timeout=0.1) as server, raw_websocket(server) as websocket:
            await asyncio.sleep(0.3)
            await websocket.send(frame(TEXT, b"still here"))
            assert await websocket.frame() == (0x81, b"still here")


class TestAClientThatDoesNotRead:
    async def test_is_dropped_at_the_write_timeout(self) -> None:
        async with serve(endless, write_timeout=0.2) as server, connect(server, receive_buffer=65536) as peer:
            await peer.send(GET)
            await until(lambda: not server.connections)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await peer.response()

    async def test_is_kept_as_long_as_it_reads_a_little(self) -> None:
        async with serve(large, write_timeout=0.5) as server, connect(server, receive_buffer=65536) as peer:
            await peer.send(GET)
            head = await peer.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            for _ in range(8):
                await peer.read(1024 * 1024)
                await asyncio.sleep(0.15)
            await peer.read(8 * 1024 * 1024)

    async def test_for_longer_than_the_close_timeout_still_gets_the_last_bytes(self) -> None:
        # An abort would throw away what only the kernel has left.
        sizes = [300_000, 16 * 1024 * 1024]

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await answer(send, bytes(int(scope["path"][1:])))

        async with serve(application, close_timeout=0.1) as server:
            for size in sizes:
                async with connect(server, receive_buffer=16384) as peer:
                    await peer.send(get(f"/{size}", "Connection: close"))
                    await asyncio.sleep(0.6)
                    assert len((await peer.response()).body) == size

    async def test_nor_closes_is_dropped_at_the_close_timeout(self) -> None:
        async with serve(hello, close_timeout=0.2) as server, connect(server) as peer:
            await peer.request("GET", "/", "Connection: close")
            assert server.connections
            await until(lambda: not server.connections, 5)

    async def test_and_goes_on_sending_after_the_end_is_dropped_at_the_close_timeout(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What is sent extends the close timeout, in all up to this.
        monkeypatch.setattr("asgiserver.wire.connection._LINGERING", 1.0)

        async def flood(peer: Peer) -> None:
            while True:
                await peer.send(bytes(10_000))
                await asyncio.sleep(0.01)

        async with serve(hello, close_timeout=0.2) as server, connect(server) as peer:
            await peer.request("GET", "/", "Connection: close")
            with pytest.raises(ConnectionError):
                await flood(peer)
            await until(lambda: not server.connections, 5)


class TestTooMany:
    async def test_requests_at_a_time_are_answered_503_until_there_is_room_again(self) -> None:
        go = asyncio.Event()

        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await go.wait()
            await answer(send, b"served")

        async with serve(application, limit_concurrency=2) as server:
            async with connect(server) as one, connect(server) as two, connect(server) as three:
                await one.send(GET)
                await two.send(GET)
                await asyncio.sleep(0.05)
                response = await three.request("GET", "/")
                assert (response.status, response.value("retry-after")) == (503, "1")
                go.set()
                assert (await one.response()).body == (await two.response()).body == b"served"
            async with connect(server) as peer:
                assert (await peer.request("GET", "/")).body == b"served"

    async def test_connections_are_answered_503_until_there_is_room_again(self) -> None:
        async with serve(hello, limit_connections=2) as server:
            async with connect(server) as one, connect(server) as two:
                await one.request("GET", "/")
                await two.request("GET", "/")
                async with connect(server) as three:
                    response = await three.request("GET", "/")
                    assert (response.status, response.value("retry-after")) == (503, "1")
                    assert await three.closed()
                assert (await one.request("GET", "/")).body == b"hello"
            await until(lambda: not server.connections)
            async with connect(server) as peer:
                assert (await peer.request("GET", "/")).body == b"hello"

    async def test_connections_that_were_turned_away_do_not_keep_others_out(self) -> None:
        async with serve(hello, limit_connections=1) as server, connect(server) as first:
            await first.request("GET", "/")
            async with connect(server) as second:
                # It was told to go, but stays.
                assert (await second.request("GET", "/")).status == 503
                await first.close()
                await until(lambda: len(server.connections) < 2)
                async with connect(server) as third:
                    assert (await third.request("GET", "/")).body == b"hello"


class TestAStop:
    """What it must not take from a peer that is in the middle of something."""

    async def test_lets_a_request_finish_that_had_begun_to_arrive(self) -> None:
        async with serve(slow(0.8), graceful_timeout=10) as server, connect(server) as peer:
            await peer.send(b"GET / HTTP/1.1\r\nHos")
            await until(lambda: server.connections and all(each._wire for each in server.connections))
            server.stop()
            await until(lambda: server.stopping)
            await peer.send(b"t: a\r\n\r\n")
            assert (await peer.read_rest()).endswith(b"\r\n\r\nslow")

    async def test_does_not_reset_a_peer_whose_upload_was_answered_already(self) -> None:
        async with serve(early, graceful_timeout=10) as server, connect(server) as peer:
            await peer.send(post(500_000, bytes(1000)))
            await peer.read_until(b"early")
            server.stop()
            await until(lambda: server.stopping)
            for _ in range(4):
                await peer.send(bytes(100000))
                await asyncio.sleep(0.2)
            assert await peer.read_rest() == b""
