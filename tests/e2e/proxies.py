"""nginx and HAProxy as programs, and the headers of the PROXY protocol."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.programs import require

from .server import free_ports, running

__all__ = [
    "CLIENT", "HAPROXY_ENDPOINT", "SERVER", "V1", "V2", "V2_LOCAL", "V2_SIGNATURE", "Listen", "haproxy", "nginx", "v2",
]  # fmt: skip

#: What the headers say: who has connected to the proxy, and where.
CLIENT, SERVER = ("203.0.113.7", 4711), ("198.51.100.1", 443)

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_LOCAL = V2_SIGNATURE + b"\x20\0\0\0"


def v2(more: bytes = b"") -> bytes:
    """The same as :data:`V1` in version 2, and type-length-value triples behind it."""
    addresses = b"\xcb\0\x71\7\xc6\x33\x64\1" + struct.pack("!HH", 4711, 443)
    return V2_SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(addresses + more)) + addresses + more


V2 = v2()

#: A port that a PROXY header comes first on.
HAPROXY_ENDPOINT = {"port": None, "endpoints": ("haproxy:tcp:0:interface=127.0.0.1",)}

_NGINX = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    {temporary}
    {http}
}}
"""


@contextmanager
def nginx(folder: Path, http: str, *ports: int) -> Iterator[None]:
    """An nginx with ``http`` in the block of that name, while it listens on ``ports``."""
    program, configuration = require("nginx"), folder / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    if "access_log" not in http:
        http = f"access_log off;\n{http}"
    configuration.write_text(_NGINX.format(folder=folder, temporary=temporary, http=http), "utf-8")
    with running(program, "-c", str(configuration), "-p", str(folder), ports=ports):
        yield


_HAPROXY = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 10s
    timeout server 10s
"""


class Listen(NamedTuple):
    """A section of HAProxy's configuration.

    :param server: the port that it connects to.
    :param sends: what it says there first.
    :param bind: options of its own port.
    :param more: other lines.
    """

    server: int
    sends: str
    bind: str = ""
    more: str = ""


@contextmanager
def haproxy(folder: Path, **sections: Listen) -> Iterator[dict[str, int]]:
    """A HAProxy with these sections; their ports."""
    program, configuration = require("haproxy"), folder / "haproxy.cfg"
    ports = dict(zip(sections, free_ports(len(sections)), strict=True))
    texts = [
        f"listen {name}\n    bind 127.0.0.1:{ports[name]} {bind}\n    {more}\n    server s 127.0.0.1:{server} {sends}\n"
        for name, (server, sends, bind, more) in sections.items()
    ]
    configuration.write_text(_HAPROXY + "".join(texts), "utf-8")
    with running(program, "-db", "-f", str(configuration), ports=[*ports.values()]):
        yield ports
