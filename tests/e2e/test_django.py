"""A Django project behind the real command line: middleware, streams, clients that leave, large uploads, prefixes."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.programs import require

from .server import DEADLINE, ServerProcess, connects, free_port, wait_for

APPLICATION = "tests.e2e.django_project:application"
MIB = 1024 * 1024
FILE = os.urandom(300_000)
LINES = "".join(f"line {number}\n" * 100 for number in range(200))


@contextmanager
def project(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    (folder / "file.bin").write_bytes(FILE)
    env = {"DATABASE": str(folder / "db.sqlite3"), "FILE": str(folder / "file.bin"), **(env or {})}
    with ServerProcess("-p", "0", *options, APPLICATION, env=env) as server:
        yield server
    assert server.returncode == 0


@pytest.fixture(scope="module", params=["async", "sync"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One with a chain of middleware that is asynchronous throughout, and one with a synchronous link in it."""
    env = {"SYNC_MIDDLEWARE": "1" if request.param == "sync" else "0"}
    folder = tmp_path_factory.mktemp("django")
    with project(folder, "--graceful-timeout", "2", env=env) as server:
        yield server
        wait_for(lambda: not databases(server), message="a connection to the database stays open")
    assert server.output().count("project started") == server.output().count("project finished")
    assert "Traceback" not in server.output(), server.output()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=DEADLINE) as client:
        yield client


def databases(server: ServerProcess) -> int:
    """How many connections to its database the process has open."""
    folder = Path(f"/proc/{server.pid}/fd")
    targets = [os.readlink(each) for each in folder.iterdir() if each.is_symlink()]
    return sum(target == server.env["DATABASE"] for target in targets)


def said(server: ServerProcess, *words: object) -> int:
    return server.output().count(" ".join(("project", *map(str, words))) + "\n")


def leave(server: ServerProcess, path: str, *, after: str) -> None:
    """Ask for ``path``, and leave as soon as the project has said ``after`` once more."""
    before = said(server, after)
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        wait_for(lambda: said(server, after) > before)


def finished(server: ServerProcess) -> bool:
    """Every request that was begun is over, and its connection to the database closed."""
    return said(server, "started") == said(server, "finished") and not databases(server)


class TestMiddleware:
    @pytest.mark.parametrize("path", ["/text/", "/async/text/", "/sync/stream/", "/async/stream/", "/file/"])
    def test_of_every_kind_is_passed_in_order(self, client: httpx.Client, server: ServerProcess, path: str) -> None:
        chain = "async sync both-sync" if server.env["SYNC_MIDDLEWARE"] == "1" else "async both-async"
        response = client.get(path)
        assert (response.status_code, response.headers["x-passed"]) == (200, chain)

    @pytest.mark.parametrize("path", ["/text/", "/async/text/", "/sync/stream/", "/async/stream/"])
    def test_compresses_what_the_client_takes_compressed(self, client: httpx.Client, path: str) -> None:
        plain = client.get(path, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.text == (LINES if "stream" in path else "all the same " * 1000)
        with client.stream("GET", path, headers={"accept-encoding": "gzip"}) as response:
            raw = b"".join(response.iter_raw())
        assert response.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == plain.content
        assert len(raw) < len(plain.content) / 4

    @pytest.mark.parametrize("path", ["/text/", "/async/text/", "/fixed/"])
    def test_answers_304_to_who_has_it_already(self, client: httpx.Client, path: str) -> None:
        first = client.get(path)
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        # Compressed, it has a weak one (RFC 9110 §8.8.1).
        assert again.headers["etag"] == first.headers["etag"].removeprefix("W/")
        assert client.get(path, headers={"if-none-match": '"other"'}).content == first.content

    @pytest.mark.parametrize("path", ["/text/", "/async/text/", "/fixed/", "/sync/stream/", "/async/stream/", "/file/"])
    def test_head_has_the_fields_and_no_body(self, server: ServerProcess, path: str) -> None:
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as peer, peer.makefile("rb") as answers:
            for _ in range(2):
                peer.sendall(f"HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                fields = list(iter(answers.readline, b"\r\n"))
                # A body would stand where the next head is read.
                assert fields[0] == b"HTTP/1.1 200 OK\r\n"
                length = [field for field in fields if field.lower().startswith(b"content-length:")]
                assert len(length) == (0 if "stream" in path else 1)

    def test_of_sessions_and_forms(self, client: httpx.Client) -> None:
        for expected, path in enumerate(["/visits/", "/async/visits/", "/visits/", "/async/visits/"], 1):
            assert client.get(path).text == str(expected)
        assert client.post("/form/", data={"name": "Åsa"}).status_code == 403
        token = client.get("/form/").text
        assert client.post("/form/", data={"name": "Åsa", "csrfmiddlewaretoken": token}).text == "Åsa"
        assert client.post("/form/", data={"name": "Åsa", "csrfmiddlewaretoken": token[:-1] + "_"}).status_code == 403

    def test_cookies_come_and_go_by_the_dozen(self, client: httpx.Client) -> None:
        response = client.get("/cookies/?count=60")
        fields = response.headers.get_list("set-cookie")
        assert [re.match(r'(cookie-\d+)="value\\054 \d+"; ', field)[1] for field in fields] == [  # type: ignore[index]
            f"cookie-{number}" for number in range(60)
        ]
        large = {f"large-{number}": "x" * 4000 for number in range(12)}
        with httpx.Client(base_url=client.base_url, cookies=large, timeout=DEADLINE) as sender:
            assert sender.get("/cookies/").text == "48000"


class TestStreams:
    def test_of_events_bring_each_when_it_happens(self, client: httpx.Client) -> None:
        # Django's compression would keep them back.
        headers = {"accept": "text/event-stream", "accept-encoding": "identity"}
        with client.stream("GET", "/events/", headers=headers) as response:
            assert response.headers["content-type"] == "text/event-stream"
            lines = (line for line in response.iter_lines() if line)
            assert next(lines) == "data: welcome"
            for word in ("one", "two", "three"):
                client.get("/tell/", params={"word": word})
                assert next(lines) == f"data: {word}"

    def test_of_a_file_are_whole_and_named(self, client: httpx.Client) -> None:
        response = client.get("/file/", headers={"accept-encoding": "identity"})
        assert response.content == FILE
        assert response.headers["content-length"] == str(len(FILE))
        assert response.headers["content-disposition"] == "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.bin"

    def test_of_a_file_take_a_range_only_if_django_does(self, client: httpx.Client) -> None:
        """Django 5.2 sends the whole file, which RFC 9110 §14.2 allows; what it says must hold either way."""
        response = client.get("/file/", headers={"accept-encoding": "identity", "range": "bytes=10-19"})
        if response.status_code == 206:
            assert (response.headers["content-range"], response.content) == (f"bytes 10-19/{len(FILE)}", FILE[10:20])
        else:
            assert (response.status_code, response.content) == (200, FILE)


class TestAClientThatLeaves:
    def test_cancels_an_async_view_that_can_still_use_the_database(self, server: ServerProcess) -> None:
        before = said(server, "view cancelled")
        for _ in range(5):
            leave(server, "/cancelled/", after="view begun")
        wait_for(lambda: said(server, "view cancelled") == before + 5)
        wait_for(lambda: finished(server))

    def test_lets_a_sync_view_end_and_closes_its_database(self, server: ServerProcess) -> None:
        before = said(server, "view blocked")
        for _ in range(3):
            leave(server, "/blocking/?seconds=0.3", after="view begun")
        wait_for(lambda: finished(server))
        assert said(server, "view blocked") == before + 3

    def test_ends_a_stream_of_events(self, server: ServerProcess) -> None:
        before = said(server, "events closed")
        for _ in range(5):
            headers = {"accept-encoding": "identity"}
            with httpx.stream("GET", f"{server.url}/events/", headers=headers, timeout=DEADLINE) as response:
                assert "welcome" in next(response.iter_text())
        wait_for(lambda: said(server, "events closed") == before + 5)
        wait_for(lambda: finished(server))


class TestThreads:
    def test_slow_sync_views_do_not_wait_for_each_other(self, server: ServerProcess) -> None:
        """Each request has a thread of its own for what is thread-sensitive, and with it a connection."""
        count = 12
        with ThreadPoolExecutor(count) as clients:
            began = time.monotonic()
            answers = list(
                clients.map(lambda _: httpx.get(f"{server.url}/blocking/?seconds=1", timeout=DEADLINE), range(count))
            )
            took = time.monotonic() - began
            found = [answer.json() for answer in answers]
        assert {each["answer"] for each in found} == {42}
        # Fewer than there are requests when one has ended before another began.
        assert len({each["thread"] for each in found}) > count / 2
        assert took < count / 2
        wait_for(lambda: finished(server))

    def test_of_one_request_is_one_and_not_the_loops(self, client: httpx.Client) -> None:
        found = client.get("/threads/").json()
        assert len(set(found["threads"])) == 1
        assert found["main"] not in found["threads"]


class TestFailures:
    @pytest.mark.parametrize("path", ["/fail/", "/async/fail/"])
    @pytest.mark.parametrize("debug", ["0", "1"])
    def test_of_a_view_are_a_page(self, debug: str, path: str, tmp_path: Path) -> None:
        with project(tmp_path, env={"DEBUG": debug}) as server, httpx.Client(base_url=server.url) as client:
            for _ in range(2):
                response = client.get(path, timeout=DEADLINE)
                assert response.status_code == 500
                assert ("this view fails" in response.text) == (debug == "1")
                assert ("Server Error (500)" in response.text) == (debug == "0")
            wait_for(lambda: finished(server))
        assert "ERROR    Exception in the application" not in server.output()

    def test_of_a_stream_cut_it_off(self, tmp_path: Path) -> None:
        with project(tmp_path) as server, httpx.Client(base_url=server.url) as client:
            for _ in range(2):
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    client.get("/later/fail/", timeout=DEADLINE)
            assert client.get("/text/").status_code == 200
        assert server.output().count("ERROR    Exception in the application for GET '/later/fail/'") == 2
        assert "ValueError: this stream fails" in server.output()

    @pytest.mark.parametrize("path", ["/leave/", "/async/leave/"])
    def test_by_exiting_end_no_server(self, path: str, tmp_path: Path) -> None:
        with project(tmp_path) as server, httpx.Client(base_url=server.url) as client:
            for _ in range(2):
                assert client.get(path, timeout=DEADLINE).status_code == 500
            assert client.get("/text/").status_code == 200


@contextmanager
def nginx(folder: Path, locations: str) -> Iterator[str]:
    """The URL of an nginx with these locations."""
    port = free_port()
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"""daemon off; pid {folder}/pid; error_log stderr; events {{}}
        http {{ access_log off; client_body_temp_path {folder}/body; {paths}
        server {{ listen 127.0.0.1:{port}; proxy_set_header Host $http_host; {locations} }} }}
        """
    )
    command = [require("nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: connects(port) or process.poll() is not None)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


@pytest.mark.parametrize(
    ("strips", "options", "env"),
    [
        (False, ["--root-path", "/shop"], {}),
        (False, [], {"SCRIPT_NAME": "/shop"}),
        (True, ["--root-path", "/shop"], {}),
        (True, [], {"SCRIPT_NAME": "/shop"}),
    ],
    ids=["kept-root-path", "kept-script-name", "stripped-root-path", "stripped-script-name"],
)
def test_urls_behind_a_prefix_are_right(strips: bool, options: list[str], env: dict[str, str], tmp_path: Path) -> None:
    """Behind an nginx that takes the prefix off or leaves it on, with the server's setting and with Django's."""
    with (
        project(tmp_path, *options, env=env) as server,
        nginx(tmp_path, f"location /shop/ {{ proxy_pass {server.url}{'/' if strips else ''}; }}") as proxy,
        httpx.Client(base_url=proxy, timeout=DEADLINE) as client,
    ):
        for path in ("/shop/item/7/", "/shop/async/item/7/"):
            assert client.get(path).json() == {
                "path_info": path.removeprefix("/shop"),
                "reverse": "/shop/item/7/",
                "absolute": f"{proxy}/shop/item/7/",
            }
        assert client.get("/shop/nowhere/").status_code == 404
        if options or not strips:
            # Of a path without its prefix Django makes a redirect without it, too: it has to be the server's setting.
            assert client.get("/shop/item/7").headers["location"] == "/shop/item/7/"


SIZE = 1024 * MIB
#: How much more memory than for a small upload the server may have taken for that of 1 GiB.
BOUND = 64 * MIB


def multipart(size: int, piece: bytes) -> Iterator[bytes]:
    yield b'--edge\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n'
    yield b"Content-Type: application/octet-stream\r\n\r\n"
    for _ in range(size // len(piece)):
        yield piece
    yield b"\r\n--edge--\r\n"


def send(server: ServerProcess, size: int, piece: bytes) -> Any:
    length = sum(map(len, multipart(0, piece))) + size
    headers = {"content-type": "multipart/form-data; boundary=edge", "content-length": str(length)}
    answer = httpx.post(f"{server.url}/upload/", content=multipart(size, piece), headers=headers, timeout=120)
    return json.loads(answer.content)


def peak(server: ServerProcess) -> int:
    """The most memory that the process ever had; bytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_of_a_gibibyte_takes_no_memory_and_leaves_no_file(tmp_path: Path) -> None:
    """Django keeps the body, and then the file in it, in temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with project(tmp_path, env={"TMPDIR": str(temporary)}) as server:
        piece = os.urandom(MIB)
        assert send(server, 4 * MIB, piece)["size"] == 4 * MIB
        before = peak(server)
        checksum = 0
        for _ in range(SIZE // MIB):
            checksum = zlib.crc32(piece, checksum)
        found = send(server, SIZE, piece)
        assert found == {"name": "large.bin", "size": SIZE, "crc32": checksum, "on disk": True}
        grown = peak(server) - before
        assert grown < BOUND, f"grown by {grown / MIB:.0f} MiB"
        wait_for(lambda: not any(temporary.iterdir()))
