"""wrk, the HTTP client in C: one thread, told by a small script what to send, and when to say how much that was."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from .processes import LEAD, Usage, clock_id, per_unit
from .varied import Varied

__all__ = ["ClientFailed", "Request", "run", "script"]

#: Seconds after which wrk gives up by itself, beyond those that are measured: a bound for every wait for its words.
SLACK = 20

#: The two marks are told before a request is sent. At both of them as many are under way, so that what is sent
#: between them is what is answered: opening connections, TLS handshakes and their end are outside. The clocks are read
#: here too, because on a busy machine it may be long until whoever reads the marks has its turn.
_MARKS = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds, nanoseconds; } moment; int clock_gettime(int, moment *);")
local moment, begin, mark, over = ffi.new("moment")
local sent, first = 0, 0
local function clock(id)
  ffi.C.clock_gettime(id, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end
local function server()
  local total = 0
  for _, id in ipairs(CLOCKS) do total = total + clock(id) end
  return total
end
local function say(...)
  io.write(string.format(...))
  io.flush()
end
function request()
  sent = sent + 1
  if over then return message() end
  local time = clock(1)
  begin = begin or time
  if mark then
    if time - mark >= SECONDS then
      over = true
      say('\\n{"mark":"end","requests":%d,"server":%.9f,"client":%.9f,"time":%.9f}\\n',
        sent - first, server(), clock(2), time)
      wrk.thread:stop()
    end
  elseif sent > 2 * CONNECTIONS and time - begin >= LEAD then
    mark, first = time, sent
    say('\\n{"mark":"begin","server":%.9f,"client":%.9f,"time":%.9f}\\n', server(), clock(2), time)
  end
  return message()
end
function done(summary, latency, requests)
  local e = summary.errors
  say('\\n{"mark":"done","answers":%d,"failures":%d,"status":%d,"p50":%.1f,"p99":%.1f}\\n',
    summary.requests, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99))
end
"""

_REPEATED = """
local text
function init() text = wrk.format() end
local function message() return text end
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

    def script(self, host: str) -> str:
        """For wrk, which adds ``host`` itself: ``message()`` tells the request."""
        lines = [f"wrk.method = {json.dumps(self.method)}"]
        lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in self.fields.items()]
        if self.body:
            lines.append(f'wrk.body = string.rep("x", {self.body})')
        return "\n".join([*lines, _REPEATED])


def script(request: Request | Varied, host: str, connections: int, seconds: float, clocks: Sequence[int] = ()) -> str:
    """All that wrk is told: to send ``request`` over ``connections``, and to mark ``seconds`` of it.

    :param clocks: whose sum is told at the marks.
    """
    bounds = f"local CONNECTIONS, LEAD, SECONDS = {connections}, {LEAD}, {seconds}"
    return "\n".join([request.script(host), bounds, f"local CLOCKS = {{{', '.join(map(str, clocks))}}}", _MARKS])


def run(
    url: str, request: Request | Varied, connections: int, seconds: float, pid: int, folder: Path
) -> dict[str, float]:
    """Ask ``url`` over ``connections`` of its own for ``seconds``, and measure what the server ``pid`` needs for it.

    The latencies are of all that wrk does, so that the first requests on new connections, and TLS handshakes beside
    them, are in the 99th percentile.

    :raises ClientFailed: an answer was no success, a connection broke, or nothing was answered.
    """
    path = folder / "wrk.lua"
    usage = Usage(pid)
    clocks = [clock_id(process) for process in usage.processes]
    path.write_text(script(request, urlsplit(url).netloc, connections, seconds, clocks), "utf-8")
    limit = f"{SLACK + round(seconds)}s"
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", limit, "--timeout", "10s", "-s", str(path), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            begin = _until(process.stdout, "begin")
            end = _until(process.stdout, "end")
            usage.stop()
            # Its thread has stopped; what started it sleeps until its time is over, or until this.
            process.send_signal(signal.SIGINT)
            found = _until(process.stdout, "done")
        finally:
            # It has ended by itself, unless something went wrong here.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()
    if found["status"] or found["failures"]:
        raise ClientFailed(
            f"{found['answers']} answers, {found['status']} of them no success, {found['failures']} broken connections"
        )
    usage.seconds, usage.wall, client = (end[name] - begin[name] for name in ("server", "time", "client"))
    return {**per_unit(end["requests"], usage, client), "p50": found["p50"] / 1e3, "p99": found["p99"] / 1e3}


def _until(output: IO[str], mark: str) -> dict[str, Any]:
    """What wrk says at ``mark``.

    :raises ClientFailed: it has ended before.
    """
    lines = []
    for line in output:
        found = json.loads(line) if line.startswith("{") else {}
        if found.get("mark") == mark:
            return found
        lines.append(line.strip())
    reasons = [line for line in lines if line]
    raise ClientFailed(f"wrk ended before the {mark}: {(reasons or ['it said nothing'])[-1][:200]}")
