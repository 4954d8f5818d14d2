"""HTTP/2 as clients speak it that others have written."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import pytest

from tests.e2e.applications import Recorder, answering, hello
from tests.e2e.certificate import Certificate
from tests.e2e.chat import chromium
from tests.e2e.live import DEADLINE, Receive, Send, answer, serve, until, url
from tests.e2e.server import ServerProcess, serving, wait_for
from tests.programs import require

MIB = 1 << 20

old_style = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

#: What the processes serve: a page that speaks for itself, a stream of 10 MiB, an echo, and a WebSocket.
SITE = '''
import asyncio

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": scope["http_version"] + event["text"]})
        return
    path, body = scope["path"], b""
    more = scope["type"] == "http" and path != "/early"
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body")
    if path == "/slow":
        print("begun", flush=True)
        await asyncio.sleep(1)
    status = 401 if path == "/early" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/html")]})
    for _ in range(160 if path == "/large" else 0):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    await send({"type": "http.response.body", "body": body or scope["http_version"].encode()})
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("site"), SITE, "--lifespan", "off") as server:
        yield server


def run(*command: str) -> str:
    done = subprocess.run(
        [require(command[0]), *command[1:]], capture_output=True, text=True, timeout=4 * DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestTLS:
    @pytest.fixture(params=["settings", pytest.param("endpoint", marks=old_style)])
    def settings(self, request: pytest.FixtureRequest, certificate: Certificate) -> dict[str, Any]:
        """Both ways to ask for TLS."""
        endpoint = {"port": None, "endpoints": (certificate.endpoint(),)}
        return certificate.settings if request.param == "settings" else endpoint

    async def test_a_client_that_offers_it_gets_it(self, certificate: Certificate, settings: dict[str, Any]) -> None:
        recorder = Recorder()
        async with serve(recorder, **settings) as server:
            async with httpx.AsyncClient(http2=True, verify=certificate.client()) as client:
                sizes = [0, 1, 70_000, 300_000]
                answers = await asyncio.gather(
                    *(client.post(url(server, "https"), content=b"x" * size) for size in sizes)
                )
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            assert [len(answer.content) for answer in answers] == sizes
            assert (recorder.scope["http_version"], recorder.scope["scheme"]) == ("2", "https")

    async def test_a_client_that_does_not_gets_http_1(
        self, certificate: Certificate, settings: dict[str, Any]
    ) -> None:
        client = httpx.AsyncClient(verify=certificate.client())
        async with serve(answering(b"hello"), **settings) as server, client:
            assert (await client.get(url(server, "https"))).http_version == "HTTP/1.1"

    async def test_off_is_off(self, certificate: Certificate, settings: dict[str, Any]) -> None:
        client = httpx.AsyncClient(http2=True, verify=certificate.client())
        async with serve(answering(b"hello"), http2="off", **settings) as server, client:
            assert (await client.get(url(server, "https"))).http_version == "HTTP/1.1"


    async def test_a_connection_too_many_is_told_so(self, certificate: Certificate, settings: dict[str, Any]) -> None:
        first, second = (httpx.AsyncClient(http2=True, verify=certificate.client()) for _ in range(2))
        async with serve(answering(b"hello"), limit_connections=1, **settings) as server, first, second:
            assert (await first.get(url(server, "https"))).status_code == 200
            refused = await second.get(url(server, "https"))
            assert (refused.http_version, refused.status_code) == ("HTTP/2", 503)


class TestPriorKnowledge:
    async def test_the_access_log_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "asgiserver.access")
        async with serve(hello, access_log_format="common") as server:
            async with httpx.AsyncClient(http1=False, http2=True) as client:
                await client.post(url(server) + "/x", content=b"body")
            await until(lambda: caplog.records)
        assert '"POST /x HTTP/2" 200 5' in caplog.text

    def test_curl(self, site: ServerProcess, tmp_path: Path) -> None:
        upload = tmp_path / "upload"
        upload.write_bytes(bytes(range(256)) * 8192)
        command = ["curl", "-s", "--http2-prior-knowledge", "-w", "%{http_version} %{size_download}", "-o"]
        target = str(tmp_path / "download")
        assert run(*command, target, "-T", str(upload), site.url) == f"2 {2 * MIB}"
        assert (tmp_path / "download").read_bytes() == upload.read_bytes()
        assert run(*command, target, site.url + "/large") == f"2 {10 * MIB + 1}"

    def test_curl_has_its_response_before_its_upload_is_complete(self, site: ServerProcess, tmp_path: Path) -> None:
        """Of any size: what is thrown away to the end, and what is not."""
        for size in (100_000, 500_000, 3_000_000):
            (tmp_path / "upload").write_bytes(bytes(size))
            for _ in range(2):
                command = ["curl", "-s", "--http2-prior-knowledge", "-T", str(tmp_path / "upload"), "-m", "10"]
                assert run(*command, site.url + "/early") == "2"

    def test_nghttp_and_its_priorities(self, site: ServerProcess) -> None:
        assert run(require("nghttp"), "-p", "8", site.url, site.url + "/a") == "22"

    def test_h2load(self, site: ServerProcess) -> None:
        assert "2000 succeeded, 0 failed" in run(require("h2load"), "-c4", "-m32", "-n2000", site.url)

    @pytest.mark.slow
    def test_one_connection_may_last_for_ever(self, site: ServerProcess) -> None:
        assert "200000 succeeded, 0 failed" in run("h2load", "-c1", "-m32", "-n200000", site.url)

    def test_a_stop_completes_what_is_under_way_and_what_was_on_its_way(self, tmp_path: Path) -> None:
        with serving(tmp_path, SITE, "--lifespan", "off") as server:
            with httpx.Client(http1=False, http2=True, timeout=DEADLINE) as client:
                assert client.get(server.url).text == "2"
                slow = subprocess.Popen(
                    [require("curl"), "-s", "--http2-prior-knowledge", server.url + "/slow"], stdout=subprocess.PIPE
                )
                wait_for(lambda: "begun" in server.output())
                server.send_signal(15)
                assert slow.communicate(timeout=DEADLINE)[0] == b"2"
            assert server.wait() == 0

    async def test_a_client_that_takes_nothing_behind_goaway_has_its_response(self) -> None:
        began = asyncio.Event()

        async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            began.set()
            await asyncio.sleep(0.3)
            await answer(send, b"complete")

        async with httpx.AsyncClient(http1=False, http2=True) as client, serve(slow) as server:
            request = asyncio.ensure_future(client.get(url(server)))
            await began.wait()
            stopped = asyncio.ensure_future(server.__aexit__(None, None, None))
            assert (await request).text == "complete"
            await stopped


class Client:
    """h2 on a socket of its own."""

    def __init__(self, server: ServerProcess, window: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.h2.initiate_connection()
        self.data: dict[int, int] = {}
        self.begun = 0
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def get(self, path: str) -> int:
        number = self.h2.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        self.h2.send_headers(number, fields, end_stream=True)
        self.flush()
        return number

    def read(self) -> None:
        for event in self.h2.receive_data(self.socket.recv(65536)):
            if isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] = self.data.get(event.stream_id, 0) + len(event.data)
            elif isinstance(event, h2.events.ResponseReceived):
                self.begun += 1
        self.flush()


class TestPressure:
    def test_a_stream_that_the_client_leaves_ends_its_application_alone(self, site: ServerProcess) -> None:
        with Client(site, 100) as client:
            number = client.get("/large")
            while not client.data.get(number):
                client.read()
            client.h2.reset_stream(number)
            other = client.get("/")
            while not client.data.get(other):
                client.read()
        wait_for(lambda: "The client of GET '/large' left" in site.output())

    def test_streams_whose_windows_are_closed_cost_little(self, site: ServerProcess) -> None:
        """Fifty streams of 10 MiB: each has one piece waiting, and none stops another."""
        with Client(site, 0) as client:
            client.get("/")
            while client.begun < 1:
                client.read()
            before = site.memory()
            numbers = [client.get("/large") for _ in range(50)]
            while client.begun < 51:
                client.read()
            client.h2.increment_flow_control_window(4 * MIB)
            client.h2.increment_flow_control_window(MIB, numbers[25])
            client.flush()
            while client.data.get(numbers[25], 0) < MIB:
                client.read()
            assert client.data == {numbers[25]: MIB}
            assert site.memory("VmHWM") - before < 8 * MIB


class TestBrowser:
    def test_chromium(self, tmp_path: Path, certificate: Certificate) -> None:
        with serving(tmp_path, SITE, "--lifespan", "off", *certificate.args) as server, chromium() as browser:
            page = browser.new_page(ignore_https_errors=True)
            page.goto(server.url)
            assert page.inner_text("body") == "2"
            counts = page.evaluate("""async () => {
                const echoed = await (await fetch('/', {method: 'POST', body: new Uint8Array(300000)})).arrayBuffer();
                const texts = await Promise.all([...Array(150).keys()].map(
                    number => fetch('/?' + number).then(response => response.text())));
                const aborter = new AbortController();
                await (await fetch('/large', {signal: aborter.signal})).body.getReader().read();
                aborter.abort();
                return [echoed.byteLength, texts.filter(text => text === '2').length];
            }""")
            assert counts == [300000, 150]
            said = page.evaluate("""async () => {
                const socket = new WebSocket(location.href.replace('https', 'wss') + 'socket');
                await new Promise(resolve => socket.onopen = resolve);
                socket.send('!');
                const heard = await new Promise(resolve => socket.onmessage = event => resolve(event.data));
                const closed = new Promise(resolve => socket.onclose = event => resolve(event));
                socket.close(1000);
                const {code, wasClean} = await closed;
                return [heard, code, wasClean];
            }""")
            assert said == ["2!", 1000, True]
