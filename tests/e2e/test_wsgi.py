"""WSGI applications behind ``--interface wsgi``: plain ones, Flask's and Django's, beside gunicorn's threads. C5."""

from __future__ import annotations

import ast
import hashlib
import http.client
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from .certificate import Certificate
from .server import DEADLINE, ServerProcess, wait_for
from .websocket import handshake

SITES = "tests.e2e.wsgi_sites"
SOURCE = Path(__file__).with_name("wsgi_sites.py")
MEBIBYTE = 1 << 20
THREADS = 4

#: What belongs to the server.
SERVERS_OWN = {"server", "date", "connection", "transfer-encoding"}


class GunicornProcess(ServerProcess):
    """gunicorn's threaded worker, which is what WSGI applications are used to."""

    listening = re.compile(r"Listening at: (?P<url>(?P<scheme>https?)://\S*:(?P<port>\d+))")

    def __init__(self) -> None:
        super().__init__(
            "-k", "gthread", "--threads", str(THREADS), "-b", "127.0.0.1:0", f"{SITES}:application",
            command=(sys.executable, "-m", "gunicorn"),
        )  # fmt: skip


def serving(*options: str, name: str = "application", env: dict[str, str] | None = None) -> ServerProcess:
    bind = () if "-u" in options else ("-p", "0")
    threads = {"ASGI_THREADS": str(THREADS)} | (env or {})
    return ServerProcess("--interface", "wsgi", *bind, *options, f"{SITES}:{name}", env=threads)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    loop = request.param
    pytest.importorskip(loop)
    with serving("--loop", loop) as started:
        yield started


@pytest.fixture(scope="module")
def gunicorn() -> Iterator[ServerProcess]:
    with GunicornProcess() as started:
        yield started


@pytest.fixture(scope="module")
def remembered() -> dict[Any, Any]:
    """What gunicorn has answered, so that it is asked once."""
    return {}


def ask(
    server: ServerProcess, method: str, target: str, fields: list[tuple[str, str]], body: bytes
) -> tuple[int, dict[str, list[str]], bytes]:
    """Status, fields but the server's own, and body of the answer to a request that is sent exactly as given."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)) as connection:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", "example.org"), *fields]:
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answered: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            answered.setdefault(name.lower(), []).append(value)
        text = response.read()
    return response.status, {name: answered[name] for name in sorted(answered.keys() - SERVERS_OWN)}, text


def seen(server: ServerProcess | str, path: str = "/plain/", **options: Any) -> dict[str, Any]:
    """The texts of the plain application's ``environ``, and ``counts``."""
    url = server if isinstance(server, str) else server.url
    response = httpx.get(url + path, timeout=DEADLINE, **options)
    assert response.status_code == 200
    environ: dict[str, Any] = ast.literal_eval(response.text)
    return environ


def counted(server: ServerProcess, name: str) -> int:
    number: int = seen(server)["counts"].get(name, 0)
    return number


def connected(server: ServerProcess, head: str, body: bytes = b"") -> socket.socket:
    peer = server.connect()
    peer.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
    return peer


def multipart(*parts: tuple[str, str, str]) -> bytes:
    lines = [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
        for name, more, value in parts
    ]
    return "".join([*lines, "--limit--\r\n"]).encode()


FORM = b"name=caf%C3%A9&name=b"
PARTS = multipart(("name", "", "a"), ("file", '; filename="a.txt"', "content\r\n" * 20000))


def sized(body: bytes, kind: str = "application/octet-stream") -> list[tuple[str, str]]:
    return [("Content-Length", str(len(body))), ("Content-Type", kind)]


REQUESTS = [
    ("GET", "/echo?a=1&a=%20&b", [], b""),
    ("HEAD", "/echo?a=1", [], b""),
    ("OPTIONS", "/echo", [], b""),
    ("GET", "/echo/%FF", [], b""),
    ("GET", "/echo/caf%C3%A9/a%2Fb//c", [], b""),
    ("GET", "/echo/;a=b", [("X-Many", "a"), ("X-Many", "b")], b""),
    ("GET", "/echo", [("Cookie", "a=1; b=2"), ("X-Many", "caf\xe9")], b""),
    ("POST", "/echo", sized(FORM, "application/x-www-form-urlencoded"), FORM),
    ("POST", "/echo", sized(PARTS, "multipart/form-data; boundary=limit"), PARTS),
    ("POST", "/echo", sized(b'{"a": [1]}', "application/json"), b'{"a": [1]}'),
    ("POST", "/echo", [("Content-Length", "0")], b""),
    ("POST", "/upload", sized(b"x" * 300_000), b"x" * 300_000),
    ("GET", "/stream", [], b""),
    ("HEAD", "/stream", [], b""),
    ("GET", "/file", [], b""),
    ("HEAD", "/file", [], b""),
    ("GET", "/file", [("Range", "bytes=10-19")], b""),
    ("GET", "/empty", [], b""),
    ("GET", "/tagged", [], b""),
    ("GET", "/tagged", [("If-None-Match", '"tag"')], b""),
    ("GET", "/moved", [], b""),
    ("GET", "/fail", [], b""),
    ("GET", "/nowhere", [], b""),
    ("GET", "/coroutine", [], b""),
]


ENVIRONS = [
    ("GET", "/plain//a//b", [], b""),
    ("DELETE", "/plain/a;b=c?%ff", [("Content-Length", "3"), ("Authorization", "Basic x")], b"abc"),
    ("GET", "/plain/a%00b%zz%FF", [("Content-Type", "a"), ("X-A", "1"), ("x-a", "2"), ("X-Empty", "")], b""),
    ("POST", "/plain/", [("Content-Length", "0"), ("Connection", "close, x")], b""),
]
#: The servers' own, and what gunicorn has not or knows better.
DIFFERENT = {"counts", "SERVER_PORT", "REMOTE_PORT", "SERVER_SOFTWARE", "REQUEST_URI", "wsgi.multiprocess"}


class TestBesideGunicorn:
    @pytest.mark.parametrize("framework", ["flask", "django"])
    @pytest.mark.parametrize(
        "request_", REQUESTS, ids=lambda each: " ".join((*each[:2], *(name for name, _ in each[2])))
    )
    def test_the_answer_is_the_same(
        self, framework: str, request_: Any, server: ServerProcess, gunicorn: ServerProcess, remembered: dict[Any, Any]
    ) -> None:
        method, target, fields, body = request_
        key = framework, method, target, str(fields), body
        if key not in remembered:
            remembered[key] = ask(gunicorn, method, f"/{framework}{target}", fields, body)
        status, expected, text = remembered[key]
        answer = ask(server, method, f"/{framework}{target}", fields, body)
        assert answer == (status, expected, text)

    @pytest.mark.parametrize("request_", ENVIRONS, ids=lambda each: " ".join(each[:2]))
    def test_the_environ_is_the_same(self, request_: Any, server: ServerProcess, gunicorn: ServerProcess) -> None:
        mine, others = (
            {
                name: value
                for name, value in ast.literal_eval(ask(each, *request_)[2].decode()).items()
                if name not in DIFFERENT
            }
            for each in (server, gunicorn)
        )
        assert mine == others


class TestRequests:
    def test_two_cookie_lines_are_one_list_of_cookies(self, server: ServerProcess) -> None:
        for framework in ("flask", "django"):
            fields = [("Cookie", "a=1"), ("Cookie", "b=2")]
            _, _, body = ask(server, "GET", f"/{framework}/echo", fields, b"")
            assert b'"cookies":{"a":"1","b":"2"}' in body.replace(b": ", b":").replace(b", ", b",")

    @pytest.mark.parametrize("framework", ["flask", "django"])
    @pytest.mark.parametrize("size", [0, 1000, 300_000])
    def test_an_upload_in_chunks_is_seen(self, framework: str, size: int, server: ServerProcess) -> None:
        body = b"0123456789" * (size // 10)
        pieces = (body[at : at + 7777] for at in range(0, size, 7777))
        response = httpx.post(f"{server.url}/{framework}/upload", content=pieces, timeout=DEADLINE)
        assert response.request.headers["transfer-encoding"] == "chunked"
        assert response.text == f"{size} {hashlib.sha256(body).hexdigest()}"

    def test_a_form_in_chunks_is_seen(self, server: ServerProcess) -> None:
        fields = {"content-type": "application/x-www-form-urlencoded"}
        for framework in ("flask", "django"):
            response = httpx.post(f"{server.url}/{framework}/echo", content=iter([FORM]), headers=fields)
            assert response.json()["form"] == {"name": ["caf\u00e9", "b"]}

    def test_100_continue_is_sent_when_the_application_reads(self, server: ServerProcess) -> None:
        head = "POST {} HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 5\nConnection: close\n"
        with connected(server, head.format("/plain/")) as peer:
            # The application does not read, so the final response is the first one.
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
        with connected(server, head.format("/flask/upload")) as peer, peer.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
            peer.sendall(b"hello")
            assert hashlib.sha256(b"hello").hexdigest().encode() in answer.read()

    def test_an_upload_that_is_not_read_does_no_harm(self, server: ServerProcess) -> None:
        with httpx.Client(base_url=server.url, timeout=DEADLINE) as client:
            assert client.post("/plain/", content=b"x" * 500_000).status_code == 200
            assert client.get("/plain/").status_code == 200

    def test_the_validator_finds_nothing(self, server: ServerProcess) -> None:
        with httpx.Client(base_url=server.url, timeout=DEADLINE) as client:
            assert client.get("/valid/a%FFb?c").status_code == 200
            assert client.head("/valid/").status_code == 200
            assert client.post("/valid/read", content=b"x" * 500_000).status_code == 200
            assert client.post("/valid/read", content=iter([b"x"] * 10)).status_code == 200
            response = client.get("/valid/download?3")
        assert len(response.content) == 3 * 65536
        assert "AssertionError" not in server.output()
        assert "close" not in server.output()

    def test_values_are_latin_1_both_ways(self, server: ServerProcess) -> None:
        status, fields, body = ask(server, "GET", "/plain/", [("X-Given", "caf\xe9")], b"")
        assert (status, fields["x-name"]) == (200, ["caf\xe9"])
        assert ast.literal_eval(body.decode())["HTTP_X_GIVEN"] == "caf\xe9"

    def test_what_is_printed_to_errors_is_in_the_log(self, server: ServerProcess) -> None:
        seen(server, "/plain/print")
        wait_for(lambda: "a line for the log\n" in server.output())

    def test_below_a_prefix(self) -> None:
        with serving("--root-path", "/pre", name="plain") as server:
            environs = [seen(server, target) for target in ("/pre/plain", "/preface", "/pre", "/")]
        assert {environ["SCRIPT_NAME"] for environ in environs} == {"/pre"}
        assert [environ["PATH_INFO"] for environ in environs] == ["/plain", "/preface", "", "/"]

    def test_over_a_unix_socket(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        with serving("-u", path, name="plain"), httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            environ = ast.literal_eval(client.get("http://example.org:1234/").text)
        assert not {"REMOTE_ADDR", "REMOTE_PORT"} & environ.keys()
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")
        assert environ["HTTP_HOST"] == "example.org:1234"

    def test_over_tls(self, certificate: Certificate) -> None:
        with (
            serving(*certificate.args) as server,
            httpx.Client(base_url=server.url, verify=certificate.client()) as client,
        ):
            assert ast.literal_eval(client.get("/plain/").text)["wsgi.url_scheme"] == "https"
            assert client.get("/flask/file").content == client.get("/django/file").content == SOURCE.read_bytes()

    @pytest.mark.parametrize("lifespan", ["auto", "off"])
    def test_without_a_lifespan(self, lifespan: str) -> None:
        with serving("--lifespan", lifespan, name="plain") as server:
            assert seen(server, "/")["SERVER_PROTOCOL"] == "HTTP/1.1"
        assert not re.search("lifespan|Traceback", server.output())


class TestFailures:
    def test_before_the_response_is_500(self, server: ServerProcess) -> None:
        for path in ("/plain/fail", "/plain/exit"):
            assert httpx.get(server.url + path).status_code == 500
        wait_for(lambda: "ValueError: the application has failed\n" in server.output())
        assert server.output().count("Exception in the application for GET '/plain/fail'") == 1

    def test_in_its_middle_cuts_it(self, server: ServerProcess) -> None:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/plain/cut")
        wait_for(lambda: "ValueError: the application has failed in the middle\n" in server.output())

    def test_a_websocket_is_refused(self, server: ServerProcess) -> None:
        lines = handshake().decode().split("\r\n")[2:-2]
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        assert ask(server, "GET", "/plain/", fields, b"")[0] == 403


class TestThreads:
    def test_as_many_requests_run_at_a_time_as_there_are_threads(self, server: ServerProcess) -> None:
        # The application answers when four have met.
        peers = [connected(server, "GET /plain/meet HTTP/1.1\nHost: h\n") for _ in range(THREADS)]
        for peer in peers:
            with peer:
                assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")

    def test_a_client_that_leaves_a_download_ends_it(self, server: ServerProcess) -> None:
        before = counted(server, "closed")
        for _ in range(2 * THREADS):
            with connected(server, "GET /plain/download?100000000 HTTP/1.1\nHost: h\n") as peer:
                assert peer.recv(65536)
        wait_for(lambda: counted(server, "closed") == before + 2 * THREADS)
        # Django's signal is sent by the response's close().
        for _ in range(2 * THREADS):
            with connected(server, "GET /django/endless HTTP/1.1\nHost: h\n") as peer:
                assert peer.recv(65536)
        wait_for(lambda: counted(server, "started") == counted(server, "finished"))
        # No traceback: that it left is a line for information.
        assert "errors.ClientDisconnected" not in server.output()

    def test_a_client_that_leaves_an_upload_ends_it(self, server: ServerProcess) -> None:
        before = counted(server, "cut off")
        for _ in range(2 * THREADS):
            head = "POST /plain/read HTTP/1.1\nHost: h\nContent-Length: 1000000\n"
            connected(server, head, b"x" * 200_000).close()
        wait_for(lambda: counted(server, "cut off") == before + 2 * THREADS)
        # No traceback: that it left is a line for information.
        assert "errors.ClientDisconnected" not in server.output()

    def test_a_client_that_does_not_read_makes_the_thread_wait(self, server: ServerProcess) -> None:
        before = counted(server, "made")
        with connected(server, "GET /plain/download?1000 HTTP/1.0\nHost: h\n") as peer:
            made = -1

            def stopped() -> bool:
                nonlocal made
                last, made = made, counted(server, "made")
                return made == last > before

            wait_for(stopped)
            assert made - before < 400
            with peer.makefile("rb") as answer:
                assert len(answer.read().partition(b"\r\n\r\n")[2]) == 1000 * 65536
        assert counted(server, "made") == before + 1000

    def test_a_file_that_is_downloaded_slowly_occupies_none(self, server: ServerProcess, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with path.open("wb") as file:
            file.truncate(16 * MEBIBYTE)
        head = f"GET /plain/file?{path} HTTP/1.0\nHost: h\n"
        peers = [connected(server, head) for _ in range(2 * THREADS)]
        for peer in peers:
            assert peer.recv(100).startswith(b"HTTP/1.1 200 ")
        assert seen(server)["REQUEST_METHOD"] == "GET"
        for peer in peers:
            with peer, peer.makefile("rb") as answer:
                assert len(answer.read().partition(b"\r\n\r\n")[2]) == 16 * MEBIBYTE

    def test_a_stop_waits_for_a_thread(self) -> None:
        with serving(name="plain") as server, connected(server, "GET /sleep HTTP/1.1\nHost: h\n") as peer:
            wait_for(lambda: seen(server, "/")["counts"].get("asleep"))
            assert server.stop() == 0
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")

    def test_small_uploads_that_arrive_slowly_occupy_none(self, server: ServerProcess) -> None:
        head = "POST /plain/read HTTP/1.1\nHost: h\nContent-Length: 20000\n"
        peers = [connected(server, head, b"x" * 10_000) for _ in range(2 * THREADS)]
        assert seen(server)["REQUEST_METHOD"] == "GET"
        for peer in peers:
            with peer:
                peer.sendall(b"x" * 10_000)
                assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_200_mebibytes_pass_in_little_memory(self, server: ServerProcess) -> None:
        def pieces() -> Iterator[bytes]:
            for _ in range(200):
                yield bytes(MEBIBYTE)

        with httpx.Client(base_url=server.url, timeout=DEADLINE) as client:
            # Whatever is made once is there before.
            seen(server)
            client.post("/django/upload", content=b"x" * 300_000)
            before = server.memory("VmHWM")
            sized = {"content-length": str(200 * MEBIBYTE)}
            for path, fields in (("/flask/upload", sized), ("/django/upload", {})):
                answer = client.post(path, content=pieces(), headers=fields).text
                assert answer.startswith(f"{200 * MEBIBYTE} ")
            with client.stream("GET", "/plain/download?3200") as response:
                assert sum(map(len, response.iter_raw())) == 200 * MEBIBYTE
        assert server.memory("VmHWM") - before < 16 * MEBIBYTE
