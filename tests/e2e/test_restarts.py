"""One server process takes over from another on the same sockets, behind a proxy, and no request is lost."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.proxies import nginx
from tests.e2e.server import DEADLINE, ServerProcess, free_port, running
from tests.programs import require

APPLICATION = """
async def application(scope, receive, send):
    size, event = 0, {"more_body": True}
    while event["more_body"]:
        event = await receive()
        size += len(event["body"])
    body = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

#: Each status is one line of four bytes in the access log.
NGINX = """
log_format status "$status";
access_log {folder}/status.log status;
client_body_buffer_size 64k;
keepalive_requests 1000000;
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_next_upstream off;
upstream unix {{ server unix:{folder}/app.sock; keepalive 32; }}
upstream tcp {{ server 127.0.0.1:{tcp}; keepalive 32; }}
server {{
    listen 127.0.0.1:{port};
    location /unix {{ proxy_pass http://unix; }}
    location /tcp {{ proxy_pass http://tcp; }}
}}
"""

POST = """
wrk.method = "POST"
wrk.body = string.rep("x", 20000)
"""

#: Seconds between two restarts, and for which all is waited for on a machine with other things to do.
EVERY, PATIENCE = 0.7, 90.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for a unix socket; open to nginx's workers, which are another user's under root."""
    path = Path(tempfile.mkdtemp(prefix="asgi"))
    path.chmod(0o755)
    (path / "app.py").write_text(APPLICATION, "utf-8")
    (path / "post.lua").write_text(POST, "utf-8")
    yield path
    shutil.rmtree(path)


class Restarted:
    """Server processes one after the other, on listening sockets that stay.

    :ivar number: how often a process was replaced.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.number = 0
        self._folder = folder
        self._stack = stack
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "app.sock"))
        (folder / "app.sock").chmod(0o666)
        unix.listen(2048)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        self.port: int = tcp.getsockname()[1]
        self._sockets = unix.fileno(), tcp.fileno()
        self._ended: list[ServerProcess] = []
        self._current = self._start()

    def _start(self) -> ServerProcess:
        first, second = self._sockets
        return self._stack.enter_context(
            ServerProcess(
                "--app-dir", str(self._folder), "--lifespan", "off", "--access-log", "/dev/null",
                "--fd", str(first), "-e", f"fd:fileno={second}", "app", listeners=2, pass_fds=self._sockets,
            )
        )  # fmt: skip

    def restart(self) -> None:
        """The new process serves before the old one is told to stop, and that one ends beside it."""
        old, self._current = self._current, self._start()
        old.send_signal(signal.SIGTERM)
        self._ended.append(old)
        self.number += 1

    def check(self) -> None:
        """Each process has ended in order."""
        for server in self._ended:
            assert server.wait() == 0
            assert not [line for line in server.output().splitlines() if " ERROR " in line or " WARNING " in line]


@pytest.mark.parametrize(("restarts", "requests"), [(3, 5000), pytest.param(30, 60_000, marks=pytest.mark.slow)])
def test_no_request_is_lost_while_processes_take_over_from_each_other(
    folder: Path, restarts: int, requests: int
) -> None:
    """nginx keeps connections, and cannot know that they close before it has sent its next request."""
    wrk, port = require("wrk"), free_port()
    statuses = folder / "status.log"
    with ExitStack() as stack:
        servers = Restarted(folder, stack)
        http = NGINX.format(folder=folder, tcp=servers.port, port=port)
        stack.enter_context(nginx(folder, http, port))
        # 32 clients each that post without a pause.
        load = wrk, "-t1", "-c32", f"-d{PATIENCE:.0f}s", "-s", str(folder / "post.lua"), f"http://127.0.0.1:{port}"
        to_unix, to_tcp = ((*load[:-1], f"{load[-1]}/{path}") for path in ("unix", "tcp"))
        with running(*to_unix, end=signal.SIGINT), running(*to_tcp, end=signal.SIGINT):
            end = time.monotonic() + PATIENCE - DEADLINE
            while servers.number < restarts or statuses.stat().st_size < 4 * requests:
                assert time.monotonic() < end, f"{statuses.stat().st_size // 4} requests, {servers.number} restarts"
                due = time.monotonic() + EVERY
                servers.restart()
                time.sleep(max(0.0, due - time.monotonic()))
        servers.check()
    # A client that leaves while it is answered is a 499: wrk does so at its end.
    found = statuses.read_text("ascii").split()
    lost = [status for status in found if status not in ("200", "499")]
    assert found.count("200") >= requests
    assert found.count("499") <= 64
    assert not lost, f"{len(lost)} of {len(found)} requests were lost: {sorted(set(lost))}"
