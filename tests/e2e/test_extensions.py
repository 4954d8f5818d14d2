"""Extensions of ASGI as real clients see them: trailers, early hints, and what TLS knows."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import httpx
import pytest

from asgiserver.errors import UnexpectedMessage

from ..programs import require
from .live import Receive, Send, answer, in_loop, serve, until, url


class Sums:
    """Sends the length of its body in a trailer.

    :ivar announced: whether the last scope has announced trailers.
    """

    def __init__(self) -> None:
        self.announced = False
        self.ended = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.announced = "http.response.trailers" in scope["extensions"]
        headers = [(b"trailer", b"X-Sum")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": b"Hello, ", "more_body": True})
        await send({"type": "http.response.body", "body": b"world"})
        with pytest.raises(UnexpectedMessage):
            await send({"type": "http.response.body", "body": b"!"})
        if scope["path"] != "/broken":
            await send({"type": "http.response.trailers", "headers": [(b"X-Note", b"a")], "more_trailers": True})
            await send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"12")]})
        self.ended += 1


class TestTrailers:
    @pytest.mark.parametrize("asked", [True, False])
    @in_loop
    async def test_of_curl(self, asked: bool) -> None:
        application = Sums()
        async with serve(application) as server:
            head, body = await self.curl(url(server), *(["-H", "TE: trailers"] if asked else []))
        assert application.announced is asked
        assert body == "Hello, world"
        assert ("X-Note: a\r\nX-Sum: 12\r\n" in head) is asked

    @in_loop
    async def test_come_before_the_next_response(self) -> None:
        """To a client that makes nothing of trailers, but asked for them."""
        application = Sums()
        async with serve(application) as server, httpx.AsyncClient(headers={"te": "trailers"}) as client:
            streams = set()
            for _ in range(3):
                response = await client.get(url(server))
                assert response.text == "Hello, world"
                streams.add(response.extensions["network_stream"])
        assert len(streams) == 1

    @in_loop
    async def test_that_do_not_come_leave_the_response_incomplete(self, caplog: pytest.LogCaptureFixture) -> None:
        application = Sums()
        async with serve(application) as server, httpx.AsyncClient() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url(server) + "/broken", headers={"te": "trailers"})
            await until(lambda: application.ended)
        assert "returned without a complete response" in caplog.text

    async def curl(self, *args: str) -> tuple[str, str]:
        command = [require("curl"), "-sS", "-m", "20", "-D", "/dev/stderr", *args]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        body, head = await child.communicate()
        assert child.returncode == 0, head
        return head.decode(), body.decode()


class TestEarlyHints:
    @in_loop
    async def test_are_dropped_on_http_1_1(self) -> None:
        """RFC 8297 §3: some clients take the 103 for the response."""

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            assert "http.response.early_hint" not in scope["extensions"]
            await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload; as=style"]})
            await answer(send, b"Hello")

        async with serve(application) as server, httpx.AsyncClient() as client:
            assert (await client.get(url(server))).text == "Hello"
