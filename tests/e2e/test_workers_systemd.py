"""What the service manager is told, by a socket of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgiserver.workers.systemd import Notifier
from tests.e2e.server import DEADLINE
from tests.e2e.workers import Supervised

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is there on Linux alone")


class Systemd:
    """Receives what services say."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(path)
        self._sock.settimeout(DEADLINE)

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._sock.recv(4096).decode().splitlines())

    def wait_for(self, name: str, value: str | None = None) -> dict[str, str]:
        """What comes with the next assignment of ``name``."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            found = self.hear()
            if name in found and value in (None, found[name]):
                return found
        raise AssertionError(f"{name} was not said")

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    """In a folder with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="asgi"))
    made = Systemd(str(folder / "notify"))
    yield made
    made.close()
    shutil.rmtree(folder)


def test_a_service_says_how_far_it_is(tmp_path: Path, systemd: Systemd) -> None:
    env = {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "400000"}
    with Supervised(tmp_path, 2, "--worker-timeout", "0", env=env) as server:
        systemd.wait_for("READY", "1")
        systemd.wait_for("STATUS", "2 workers serve, 0 start or end")
        server.send_signal(signal.SIGHUP)
        assert int(systemd.wait_for("RELOADING", "1")["MONOTONIC_USEC"]) > 0
        systemd.wait_for("READY", "1")
        server.write("1 +")
        server.send_signal(signal.SIGHUP)
        systemd.wait_for("RELOADING")
        # The old code serves, so the service is as ready as it was.
        systemd.wait_for("READY", "1")
        systemd.wait_for("WATCHDOG", "1")
        server.send_signal(signal.SIGTERM)
        systemd.wait_for("STOPPING", "1")


def test_the_watchdog_hears_nothing_while_no_worker_serves(tmp_path: Path, systemd: Systemd) -> None:
    flag = tmp_path / "broken"
    server = Supervised(
        tmp_path, 1, "--lifespan", "on", "--preload", "off",
        env={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "200000"},
    )  # fmt: skip
    server.write(f"if os.path.exists({str(flag)!r}): os._exit(3)\n")
    with server:
        systemd.wait_for("WATCHDOG", "1")
        flag.touch()
        os.kill(server.first[0], signal.SIGKILL)
        systemd.wait_for("STATUS", "0 workers serve, 1 start or end")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert "WATCHDOG" not in systemd.hear()
        flag.unlink()
        systemd.wait_for("WATCHDOG", "1")


class TestNotifier:
    def test_without_systemd_nothing_is_said(self) -> None:
        found = Notifier({})
        found.ready()
        assert found.watchdog is None

    def test_a_watchdog_of_another_process_is_not_ours(self, systemd: Systemd) -> None:
        of_another = {"WATCHDOG_USEC": "400000", "WATCHDOG_PID": str(os.getppid())}
        assert Notifier({"NOTIFY_SOCKET": systemd.path, **of_another}).watchdog is None
        own = {**of_another, "WATCHDOG_PID": str(os.getpid())}
        assert Notifier({"NOTIFY_SOCKET": systemd.path, **own}).watchdog == pytest.approx(0.2)

    def test_a_socket_that_nobody_reads_does_no_harm(self, systemd: Systemd) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": systemd.path})
        systemd.close()
        notifier.stopping()

    def test_an_abstract_address(self) -> None:
        name = f"asgiserver-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(f"\0{name}")
            sock.settimeout(DEADLINE)
            Notifier({"NOTIFY_SOCKET": f"@{name}"}).status("well")
            assert sock.recv(100) == b"STATUS=well"
