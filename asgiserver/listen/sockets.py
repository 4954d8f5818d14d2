"""Listening sockets as the operating system knows them: made here, or inherited. No Twisted, no TLS, no protocol.

Each function returns a listening, non-blocking, non-inheritable stream socket that the caller closes.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ListenError

__all__ = [
    "activated_descriptors", "bind_tcp", "bind_unix", "host_and_port", "inherit", "listening", "reason", "resolve",
    "unlink_if_same",
]  # fmt: skip

#: An address as getaddrinfo gives it: its family, and the argument of bind().
Address = tuple[socket.AddressFamily, Any]

#: The first descriptor that sd_listen_fds(3) hands over.
_FIRST_ACTIVATED = 3

_FAMILIES = {socket.AF_INET, socket.AF_INET6} | ({socket.AF_UNIX} if hasattr(socket, "AF_UNIX") else set())


@contextmanager
def listening(where: str, port: int | None = None) -> Iterator[None]:
    """Turn an OSError of the block into a ListenError: one line that says where, why, and what helps.

    :param where: the address as the user gave it.
    :param port: of TCP.
    """
    try:
        yield
    except ListenError:
        raise
    except OSError as error:
        raise ListenError(f"cannot listen on {where}: {reason(error, port)}") from error


def reason(error: Any, port: Any) -> str:
    """Why an address cannot be listened on, and what helps.

    :param error: an OSError, or what Twisted has in its place.
    :param port: a number where the address is one of TCP.
    """
    text = str(getattr(error, "strerror", None) or error)
    if not isinstance(port, int):
        return text
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"{text}: ss -ltnp 'sport = :{port}' shows by whom"
    if number in (errno.EACCES, errno.EPERM) and port < 1024:
        return (
            f"{text}: ports below 1024 are for root; take one from 1024 on, a socket of systemd's (--endpoint "
            "systemd:...), AmbientCapabilities=CAP_NET_BIND_SERVICE, or sysctl net.ipv4.ip_unprivileged_port_start"
        )
    return text


def resolve(host: str, port: int, *, numeric: bool = False) -> list[Address]:
    """The addresses of a host, IPv4 first, since clients of ``localhost`` are often given 127.0.0.1.

    :param host: an address without brackets, or a name; empty for every IPv4 address of the machine.
    :param numeric: do not look names up, which may block for seconds.
    :raises socket.gaierror: when the host has none.
    """
    flags = socket.AI_PASSIVE | (socket.AI_NUMERICHOST if numeric else 0)
    name = host or "0.0.0.0"
    try:
        # For a str Python would load its IDNA codec, which only names beyond ASCII need.
        known: str | bytes = name.encode("ascii") if numeric and name.isascii() else name
        found = socket.getaddrinfo(known, port, type=socket.SOCK_STREAM, flags=flags)
    except ValueError as error:
        # The name has a label that is empty or too long, or a NUL.
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    addresses: list[Address] = [(family, address) for family, _, _, _, address in found if family in _FAMILIES]
    return sorted(dict.fromkeys(addresses), key=lambda item: item[0] != socket.AF_INET)


def bind_tcp(addresses: Iterable[Address], backlog: int, *, dual: bool = False) -> socket.socket:
    """Listen on the first of the addresses that works.

    :param backlog: most connections that the kernel keeps until they are accepted; the kernel has a bound of its own.
    :param dual: let a socket of IPv6 take IPv4 too.
    :raises OSError: that of the first address, when none works.
    """
    first: OSError | None = None
    for family, address in addresses:
        try:
            return _bind_tcp(family, address, backlog, dual)
        except OSError as error:
            first = first or error
    raise first or OSError("no address")


def _bind_tcp(family: socket.AddressFamily, address: Any, backlog: int, dual: bool) -> socket.socket:
    with _closed_on_error(socket.socket(family, socket.SOCK_STREAM)) as sock:
        if os.name == "posix":
            # On other systems this option lets two servers listen on one port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Whether :: takes IPv4 too must not depend on the machine, and 0.0.0.0 may be wanted beside it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    return sock


def bind_unix(path: str, mode: int, backlog: int) -> socket.socket:
    """Listen on a unix socket, replacing one that nobody listens on any more.

    A client can at no moment connect with other permissions than ``mode``: until ``listen()`` the kernel refuses every
    connection.

    :param mode: permissions of the socket's file, whatever the umask.
    :raises ListenError: when another server listens there, or the file is not a socket; the file is not touched.
    :raises OSError: any other failure.
    """
    _remove_stale(path)
    with _closed_on_error(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.bind(path)
        try:
            os.chmod(path, mode)
            sock.listen(backlog)
        except OSError:
            os.unlink(path)
            raise
        sock.setblocking(False)
    return sock


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on unix:{path}: the file is there and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A live server whose backlog is full would let a blocking probe wait.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            unlink_if_same(path, found)
            return
        except BlockingIOError:
            pass
    raise ListenError(f"cannot listen on unix:{path}: another server listens there")


def unlink_if_same(path: str, file: os.stat_result) -> None:
    """Unlink ``path`` if it still is ``file``: another server may have put its own there. Never raises OSError."""
    try:
        if os.path.samestat(os.lstat(path), file):
            os.unlink(path)
    except OSError:
        # Gone already, or the folder is not ours any more; a stale socket does no harm.
        pass


def inherit(descriptor: int) -> socket.socket:
    """A copy of a listening socket that this process was started with; the descriptor may be 0.

    The descriptor itself stays open, for it is not ours: a supervisor may share it between processes, and connections
    that arrive between two processes wait in its backlog. The copy becomes non-blocking, and the original with it.

    :raises ListenError: when ``descriptor`` is not open, or not a listening stream socket of TCP or unix.
    """
    where = f"file descriptor {descriptor}"
    with listening(where):
        copy = os.dup(descriptor)
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise
    with _closed_on_error(sock):
        if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
            raise ListenError(f"cannot listen on {where}: it is not a stream socket of TCP or unix")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ListenError(f"cannot listen on {where}: the socket does not listen")
        sock.setblocking(False)
    return sock


def activated_descriptors(
    index: int | None, name: str | None, environ: Mapping[str, str] | None = None, process: int | None = None
) -> list[int]:
    """The descriptors that systemd has handed to this process (sd_listen_fds(3)), by their index or their name.

    :param index: counted from 0; gives one descriptor.
    :param name: as ``FileDescriptorName=`` says; several sockets of one unit share it.
    :param environ: where ``LISTEN_FDS``, ``LISTEN_PID`` and perhaps ``LISTEN_FDNAMES`` are; the process's when None.
    :param process: the id that ``LISTEN_PID`` must have; this process's when None.
    :raises ListenError: when there is no such descriptor.
    """
    environ = _activation_environment() if environ is None else environ
    if environ.get("LISTEN_PID") != str(os.getpid() if process is None else process):
        raise ListenError("systemd has handed no socket to this process: LISTEN_PID does not name it")
    count = environ.get("LISTEN_FDS", "")
    descriptors = range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + (int(count) if count.isdecimal() else 0))
    if index is not None:
        if index not in range(len(descriptors)):
            raise ListenError(f"systemd has handed over {len(descriptors)} sockets, none with index {index}")
        return [descriptors[index]]
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = [descriptor for descriptor, given in zip(descriptors, names, strict=False) if given == name]
    if not found:
        raise ListenError(f"systemd has handed over no socket with the name {name!r}")
    return found


def _activation_environment() -> Mapping[str, str]:
    """The environment with systemd's variables: the import of Twisted's endpoints removes them from ``os.environ``."""
    if "LISTEN_FDS" in os.environ:
        return os.environ
    try:
        block = Path("/proc/self/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in os.fsdecode(block).split("\0"))
    return {name: value for name, _, value in pairs}


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[socket.socket]:
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def host_and_port(host: str, port: int) -> str:
    """Host and port as in a URL: an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
