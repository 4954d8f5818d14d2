"""Extensions of ASGI as real clients see them: trailers, early hints, and what TLS knows."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from asgiserver.errors import UnexpectedMessage

from ..programs import require
from .certificate import Certificate
from .live import Receive, Send, answer, in_loop, serve, until, url

#: Twisted makes the certificate of an ``ssl:`` description with what pyOpenSSL no longer likes.
OF_TWISTED = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


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


class Scopes:
    """Keeps what each scope says of TLS, and spoils it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        tls = scope["extensions"]["tls"]
        self.seen.append(dict(tls))
        tls.clear()
        if scope["type"] == "http":
            await answer(send, b"Hello")
        else:
            await receive()
            await send({"type": "websocket.accept"})


class TestTLS:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Certificate:
        return Certificate(tmp_path)

    @in_loop
    async def test_tells_of_a_client_with_a_certificate_in_each_scope(self, certificate: Certificate) -> None:
        context = certificate.client()
        shown = certificate.authority.issue_cert("me@example.com", common_name="Me", organization_name="A, B")
        shown.configure_cert(context)
        settings = {**certificate.settings, "ssl_ca_certs": str(certificate.root)}
        application = Scopes()
        async with serve(application, **settings) as server, httpx.AsyncClient(verify=context) as client:
            for _ in range(2):
                assert (await client.get(url(server, "https"))).text == "Hello"
            async with connect(url(server, "wss"), ssl=context):
                pass
        first, second, websocket = application.seen
        assert first == second == websocket
        assert first.pop("client_cert_name").startswith("CN=Me,")
        # OpenSSL's client sends the authority's too.
        first["client_cert_chain"] = first["client_cert_chain"][:1]
        assert first == {
            "server_cert": certificate.chain.read_text(),
            "client_cert_chain": tuple(blob.bytes().decode() for blob in shown.cert_chain_pems),
            "client_cert_error": None,
            "tls_version": 0x0304,
            "cipher_suite": 0x1302,
        }

    @OF_TWISTED
    @in_loop
    async def test_tells_of_the_tls_of_twisted_too(self, certificate: Certificate) -> None:
        application = Scopes()
        context = certificate.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with (
            serve(application, port=None, endpoints=(certificate.endpoint(),)) as server,
            httpx.AsyncClient(verify=context) as client,
        ):
            assert (await client.get(url(server, "https"))).text == "Hello"
        [seen] = application.seen
        assert (seen["server_cert"], seen["tls_version"]) == (certificate.chain.read_text(), 0x0303)
        assert (seen["client_cert_chain"], seen["client_cert_name"]) == ((), None)
        assert seen["cipher_suite"] in (0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9)

    @in_loop
    async def test_plain_http_has_none(self) -> None:
        async def application(scope: Any, receive: Receive, send: Send) -> None:
            assert "tls" not in scope["extensions"]
            await answer(send, b"Hello")

        async with serve(application) as server, httpx.AsyncClient() as client:
            headers = {"x-forwarded-proto": "https"}
            assert (await client.get(url(server), headers=headers)).text == "Hello"
