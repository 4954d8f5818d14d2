"""h2load, the HTTP/2 client of nghttp2 in C: one thread, whose log of requests says when each was answered."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

from .processes import LEAD, Usage, cpu_seconds, per_unit
from .wrk import ClientFailed

__all__ = ["answered", "run"]

#: Seconds for which h2load goes on beyond what is measured: it is started, connects, and is not interrupted.
AROUND = 0.3
#: Seconds that it may take to end.
SLACK = 20.0
#: The machine may stand still for longer than a slice, of which nothing is known then: so often it is tried.
ATTEMPTS = 3


def run(
    url: str, connections: int, streams: int, body: int, seconds: float, pid: int, folder: Path
) -> dict[str, float]:
    """Ask ``url`` by ``streams`` at a time on each of ``connections``, and measure what the server ``pid`` needs.

    Opening connections, TLS handshakes and their end are outside of what is measured.

    :param body: bytes that each request posts, all the same letter; 0 for GETs.
    :raises ClientFailed: an answer was no success, a connection broke, or nothing was answered.
    """
    log, posted = folder / "h2load.log", folder / "h2load.body"
    command = [
        "h2load", "-c", str(connections), "-m", str(streams), "-D", f"{round((seconds + AROUND) * 1000)}ms",
        f"--log-file={log}", url,
    ]  # fmt: skip
    if body:
        posted.write_bytes(b"x" * body)
        command += ["-d", str(posted)]
    for _ in range(ATTEMPTS):
        log.unlink(missing_ok=True)
        begin, end, usage, client = _measured(command, seconds, pid)
        times = answered(log.read_text("ascii"), begin, end)
        if len(times) > 1:
            parts = statistics.quantiles(times, n=100)
            return {**per_unit(len(times), usage, client), "p50": parts[49], "p99": parts[98]}
    raise ClientFailed("nothing was answered")


def _measured(command: list[str], seconds: float, pid: int) -> tuple[float, float, Usage, float]:
    """Run h2load: when the slice began and ended, what the server used in it, and the CPU seconds of the client."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            time.sleep(LEAD + AROUND / 3)
            begin, usage, client = time.time(), Usage(pid), cpu_seconds(process.pid)
            time.sleep(seconds)
            usage.stop()
            end, client = time.time(), cpu_seconds(process.pid) - client
            said, _ = process.communicate(timeout=SLACK)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClientFailed(f"h2load: {error}") from error
        finally:
            process.kill()
    if process.returncode or "Application protocol: h2" not in said:
        raise ClientFailed(f"h2load spoke no HTTP/2: {' '.join(said.split())[-200:]}")
    return begin, end, usage, client


def answered(log: str, begin: float, end: float) -> list[float]:
    """The milliseconds that each request took which was answered between two moments, in seconds since the epoch.

    :param log: a line for each request: microseconds since the epoch when it began, status, and microseconds it took.
    :raises ClientFailed: one was no success.
    """
    times = []
    for line in log.splitlines():
        began, status, took = map(int, line.split("\t"))
        if status != 200:
            raise ClientFailed(f"a request was answered {status}" if status > 0 else "a stream was reset")
        if begin <= (began + took) / 1e6 < end:
            times.append(took / 1e3)
    return times
