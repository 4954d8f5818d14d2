"""Requests of which no two are alike, as real clients send them: for wrk in Lua, and byte for byte the same in Python.

Each has a number of its own, from which its target, cookies, id, forwarded address and JSON are made. A server can
remember nothing of them that is of use for the next one. One template serves both languages, as both format alike.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Asked", "Varied", "any_number"]

#: Each target and one cookie hold the beginning of this text, of another length each time.
WORDS = "of-requests-that-real-clients-send-no-two-are-ever-the-same"
_TARGET = "/articles/%d/%s?page=%d&q=%08x"
_HEAD = (
    "METHOD PREFIX" + _TARGET + " HTTP/1.1\r\n"
    "Host: HOST\r\n"
    "Accept: */*\r\n"
    "Cookie: sessionid=%08x%08x; last=%s\r\n"
    "X-Request-Id: %08x-%08x\r\n"
    "X-Forwarded-For: 203.%d.%d.%d\r\n"
)
_BODY = (
    '{"id": %d, "name": "%s", "page": %d, "token": "%08x", "session": "%08x", '
    + ", ".join(f'"field_{number:02d}": "some text as people write it"' for number in range(20))
    + ', "trace": "%08x%08x", "last": "%s"}'
)

#: The same as :func:`_values`. Every product is below 2 to the 53rd, up to which Lua's numbers are exact.
_VALUES = """
local number = START
local band, rshift, format, sub = bit.band, bit.rshift, string.format, string.sub
local function message()
  number = number + 1
  local n = number
  local a = n * 1540483 % 4294967296
  local b = (a * 69069 + 1) % 4294967296
  local word, page = sub(WORDS, 1, 4 + n % 50), n % 97
  local x, y, z = band(a, 255), band(rshift(a, 8), 255), band(rshift(a, 16), 255)
"""
_LUA_GET = """
  return format(HEAD, n, word, page, a, b, a, word, b, a, x, y, z)
end
"""
_LUA_POST = """
  local body = format(BODY, n, word, page, a, b, a, b, word)
  return format(HEAD, n, word, page, a, b, a, word, b, a, x, y, z, #body) .. body
end
"""


class Asked(NamedTuple):
    """The parts of a request on which its answer depends."""

    path: str
    query: bytes
    client: str
    body: bytes


def any_number() -> int:
    """A number to begin a slice with, below 2 to the 31st, so that slices do not repeat each other's requests."""
    return random.randrange(1 << 31)


@dataclass(frozen=True, slots=True)
class Varied:
    """A request that is another one each time.

    :param answer: makes the body that it has to be answered with.
    :param posts: 1 KiB of JSON; else it is a GET.
    :param fields: lines that all of them have besides, each with its CRLF.
    :param prefix: what all their targets begin with.
    """

    answer: Callable[[Asked], bytes]
    posts: bool = False
    fields: str = ""
    prefix: str = ""

    def _head(self, host: str) -> str:
        texts = {"METHOD": "POST" if self.posts else "GET", "PREFIX": self.prefix, "HOST": host}
        head = _HEAD + self.fields
        for name, text in texts.items():
            head = head.replace(name, text)
        if self.posts:
            head += "Content-Type: application/json\r\nContent-Length: %d\r\n"
        return head + "\r\n"

    def message(self, number: int, host: str) -> bytes:
        """The whole request of that number."""
        n, word, page, a, b = _values(number)
        body = _BODY % (n, word, page, a, b, a, b, word) if self.posts else ""
        length = (len(body),) if self.posts else ()
        last = (a & 255, a >> 8 & 255, a >> 16 & 255)
        head = self._head(host) % (n, word, page, a, b, a, word, b, a, *last, *length)
        return (head + body).encode("ascii")

    def expected(self, number: int) -> bytes:
        """The body of the answer to the request of that number."""
        n, word, page, a, b = _values(number)
        path, _, query = (self.prefix + _TARGET % (n, word, page, a)).partition("?")
        body = _BODY % (n, word, page, a, b, a, b, word) if self.posts else ""
        client = f"203.{a & 255}.{a >> 8 & 255}.{a >> 16 & 255}"
        return self.answer(Asked(path, query.encode("ascii"), client, body.encode("ascii")))

    def script(self, host: str) -> str:
        """For wrk: ``message()`` makes the next request."""
        texts = {"HEAD": self._head(host), "BODY": _BODY, "WORDS": WORDS}
        lines = [f"local {name} = {json.dumps(text)}" for name, text in texts.items()]
        lines.append(f"local START = {any_number()}")
        return "\n".join(lines) + _VALUES + (_LUA_POST if self.posts else _LUA_GET)


def _values(number: int) -> tuple[int, str, int, int, int]:
    a = number * 1540483 % (1 << 32)
    return number, WORDS[: 4 + number % 50], number % 97, a, (a * 69069 + 1) % (1 << 32)
