"""wrk, the HTTP client in C: one thread, told by a small script what to send and how to report."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Usage

__all__ = ["ClientFailed", "Request", "available", "run"]

#: wrk's times are in microseconds.
_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests":%d,"duration":%d,"failures":%d,"status":%d,"p50":%.1f,"p99":%.1f}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


class ClientFailed(RuntimeError):
    """The client saw something else than what the load expects; the reason in one line."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent again and again.

    :param body: bytes of the body, all the same letter; 0 for none.
    """

    method: str = "GET"
    fields: Mapping[str, str] = field(default_factory=dict)
    body: int = 0

    def script(self) -> str:
        lines = [f"wrk.method = {json.dumps(self.method)}"]
        lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in self.fields.items()]
        if self.body:
            lines.append(f'wrk.body = string.rep("x", {self.body})')
        return "\n".join(lines) + _DONE


def available() -> bool:
    return shutil.which("wrk") is not None


def run(url: str, request: Request, connections: int, seconds: float, pid: int, folder: Path) -> dict[str, float]:
    """Ask ``url`` over ``connections`` for ``seconds`` (whole ones, at least 1), and measure the server ``pid``.

    :raises ClientFailed: an answer was no success, a connection broke, or nothing was answered.
    """
    path = folder / "wrk.lua"
    path.write_text(request.script(), "utf-8")
    whole = max(1, round(seconds))
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{whole}s", "--timeout", "10s", "-s", str(path), url]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    usage = Usage(pid)
    done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 30, check=False)
    usage.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise ClientFailed(f"wrk: {(done.stderr or done.stdout).strip()[:200]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if found["status"] or found["failures"] or not found["requests"]:
        raise ClientFailed(
            f"{found['requests']} answers, {found['status']} of them no success, {found['failures']} broken connections"
        )
    client = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cpu": usage.seconds / found["requests"] * 1e6,
        "rate": found["requests"] / (found["duration"] / 1e6),
        "p50": found["p50"] / 1e3,
        "p99": found["p99"] / 1e3,
        "busy": usage.seconds / usage.wall,
        "client": client / found["requests"] * 1e6,
    }
