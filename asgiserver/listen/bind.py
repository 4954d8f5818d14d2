"""The first step of listening: from settings to sockets, which another process may accept on.

Where it can, asgiserver makes the socket itself: then it decides about errors, permissions and stale files, and Twisted
only accepts. It does so for host and port, unix sockets, descriptors, and the descriptions ``unix:``, ``fd:`` and
``systemd:``. Twisted and its plugins read every other description, and bind it when its port is to accept.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..settings import Settings
from . import sockets

if TYPE_CHECKING:
    from ..asgi.forwarded import TrustedPeers
    from ..transport.certificates import Certificates

__all__ = ["KINDS", "SECURE", "USAGE", "Bound", "Described", "bind", "described_by"]

#: The position of the backlog among the arguments of Twisted's descriptions, counted from the prefix, which is 0.
_BACKLOG_POSITION = {"tcp": 3, "tcp6": 2, "ssl": 6, "tls": 3}

#: Twisted's descriptions with TLS; the second is txsni's.
SECURE = frozenset(("ssl", "tls"))

#: Twisted's descriptions that may follow ``haproxy:``: these listen on TCP, by the reactor that they are given.
_PROXIED = frozenset(("tcp", "tcp6")) | SECURE

#: The kinds of descriptions that need no further plugin.
KINDS = "tcp", "tcp6", "ssl", "tls", "unix", "fd", "systemd", "haproxy"

#: The endpoints that ``ssl_certfile`` is for.
_CERTIFIED = re.compile("haproxy:tcp6?(?::|$)", re.IGNORECASE)

_NO_TLS = "TLS needs pyOpenSSL: install asgiserver[tls]"


@dataclass(frozen=True, slots=True)
class Bound:
    """A listening socket that nobody accepts on yet.

    :ivar sock: non-blocking and non-inheritable; closed by :func:`~.accept.accept`, which works on a copy, or by
        :meth:`close`.
    :ivar secure: connections on it use TLS with the certificate of the settings.
    :ivar proxies: the proxies that may connect, and send a PROXY header first; None without proxies.
    :ivar path: the unix socket's file, when closing is to remove it.
    :ivar file: the file that was made at ``path``, to tell it from one that another server may have put there.
    :ivar inherited: the descriptor that ``sock`` is a copy of; another process has the same socket.
    :ivar redirects_to: the port of TLS that each request is sent on to; None to serve the application.
    :ivar shared: another process has the same socket, and no descriptor of it is left in this one.
    :ivar certificates: those of the settings, when they were read already; processes that were forked since then resume
        each other's sessions.
    """

    sock: socket.socket
    secure: bool = False
    proxies: TrustedPeers | None = None
    path: str | None = None
    file: os.stat_result | None = None
    inherited: int | None = None
    redirects_to: int | None = None
    shared: bool = False
    certificates: Certificates | None = None

    @property
    def description(self) -> str:
        """For the log: ``http://127.0.0.1:8000``, ``https://[::1]:8443``, ``unix:/run/x.sock``."""
        name: Any = self.sock.getsockname()
        if self.sock.family in (socket.AF_INET, socket.AF_INET6):
            return f"{'https' if self.secure else 'http'}://{sockets.host_and_port(name[0], name[1])}"
        path = os.fsdecode(name)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"

    def close(self) -> None:
        """Give the socket up before anything has been accepted on it, and remove its file."""
        self.remove_file()
        self.sock.close()

    def remove_file(self) -> None:
        """Remove the unix socket's file, unless another file has taken its place."""
        if self.path is not None and self.file is not None:
            sockets.unlink_if_same(self.path, self.file)


@dataclass(frozen=True, slots=True)
class Described:
    """A description that only Twisted can bind; Twisted does so when the port is to accept.

    :ivar kind: the description's first word, in lower case.
    :ivar text: the description, without ``haproxy:``.
    :ivar whole: the description as the user gave it.
    :ivar secure: connections use TLS with the certificate of the settings; a description with a kind of :data:`SECURE`
        names its own.
    :ivar proxies: see :class:`Bound`.
    """

    kind: str
    text: str
    whole: str
    secure: bool = False
    proxies: TrustedPeers | None = None

    def close(self) -> None:
        """Nothing is open yet."""


async def bind(settings: Settings, *, inheritable: bool = False) -> list[Bound | Described]:
    """Bind what the settings name: host and port, unix socket, file descriptor and descriptions, in this order.

    With none of them it is 127.0.0.1:8000; a host alone means port 8000, a port alone 127.0.0.1. A host name with
    several addresses is bound at the first that works, IPv4 first.

    :param inheritable: bind everything here and now, for other processes; a description that Twisted would have to bind
        is an error.
    :raises SettingsError: when a setting or a description is invalid.
    :raises ListenError: when an address cannot be bound. All sockets that were made by then have been closed again.
    """
    binding = _Binding(settings, inheritable)
    try:
        await binding.all()
    except BaseException:
        for bound in binding.made:
            bound.close()
        raise
    return binding.made


class _Binding:
    """One run of :func:`bind`: the settings, a method for each kind of address, and the sockets made so far."""

    def __init__(self, settings: Settings, inheritable: bool) -> None:
        self.settings = settings
        self.own = _OWN | _INHERITABLE if inheritable else _OWN
        self.inheritable = inheritable
        self.made: list[Bound | Described] = []

    def check(self) -> bool:
        """True when a host and port are to be bound; refuse settings that would need them."""
        settings = self.settings
        elsewhere = bool(settings.unix_socket is not None or settings.file_descriptor is not None or settings.endpoints)
        named = settings.host is not None or settings.port is not None or not elsewhere
        if settings.redirect_to_https is not None and not (named and settings.ssl_certfile):
            message = "redirect_to_https needs ssl_certfile, and a host and port that it is for"
            raise SettingsError(message, "redirect_to_https", "ssl_certfile")
        if settings.ssl_certfile and not named and not any(map(_CERTIFIED.match, settings.endpoints)):
            raise SettingsError(
                "ssl_certfile is for a host and port and for haproxy:tcp: endpoints, and none of them is given; "
                "another endpoint names its own, like ssl:8443:certKey=chain.pem:privateKey=key.pem",
                "ssl_certfile",
            )
        return named

    async def all(self) -> None:
        settings = self.settings
        if self.check():
            number = await self.tcp(settings.host, settings.port)
            if settings.redirect_to_https is not None:
                await self.tcp(settings.host, settings.redirect_to_https, number)
        if settings.unix_socket is not None:
            self.unix(settings.unix_socket, settings.unix_socket_mode, settings.backlog)
        if settings.file_descriptor is not None:
            self.descriptor(settings.file_descriptor)
        for text in settings.endpoints:
            self.endpoint(text, text)

    async def tcp(self, host: str | None, port: int | None, redirects_to: int | None = None) -> int:
        """Bind a host and port, and return the real port."""
        host = "127.0.0.1" if host is None else host.removeprefix("[").removesuffix("]")
        port = 8000 if port is None else port
        with sockets.listening(sockets.host_and_port(host, port), port):
            try:
                addresses = sockets.resolve(host, port, numeric=True)
            except socket.gaierror:
                loop = asyncio.get_running_loop()
                addresses = await loop.run_in_executor(None, sockets.resolve, host, port)
            sock = sockets.bind_tcp(addresses, self.settings.backlog)
        secure = bool(self.settings.ssl_certfile) and redirects_to is None
        self.made.append(Bound(sock, secure=secure, redirects_to=redirects_to))
        number: int = sock.getsockname()[1]
        return number

    def unix(self, path: str, mode: int, backlog: int, proxies: TrustedPeers | None = None) -> None:
        with sockets.listening(f"unix:{path}"):
            sock = sockets.bind_unix(path, mode, backlog)
            self.made.append(Bound(sock, proxies=proxies, path=path, file=os.lstat(path)))

    def descriptor(self, number: int, proxies: TrustedPeers | None = None) -> None:
        self.made.append(Bound(sockets.inherit(number), proxies=proxies, inherited=number))

    def endpoint(self, text: str, whole: str, proxies: TrustedPeers | None = None) -> None:
        """Bind what a description says.

        :param whole: the description as the user gave it; ``text`` may be only its end.
        :param proxies: see :class:`Bound`.
        """
        arguments, keywords = _parse(text)
        kind = arguments[0].lower()
        if kind == "haproxy" and proxies is None:
            from ..asgi.forwarded import TrustedPeers

            trusted = TrustedPeers(self.settings.proxy_allow_ips, "proxy_allow_ips")
            self.endpoint(text.partition(":")[2], whole, trusted)
        elif kind in self.own:
            try:
                self.own[kind](self, proxies, *arguments[1:], **keywords)
            except (TypeError, ValueError) as error:
                raise SettingsError(f"endpoints: {whole!r}: expected {USAGE[kind]}") from error
        elif self.inheritable:
            kinds = ", ".join(self.own)
            shared = f"they share {kinds}, with --ssl-certfile"
            raise SettingsError(f"endpoints: {whole!r}: workers cannot share it; {shared}")
        else:
            _check_kind(kind, whole)
            if proxies is not None and kind not in _PROXIED:
                raise SettingsError(f"endpoints: {whole!r}: expected {USAGE['haproxy']}")
            secure = proxies is not None and kind not in SECURE and bool(self.settings.ssl_certfile)
            text = _with_backlog(text, arguments, keywords, self.settings.backlog)
            self.made.append(Described(kind, text, whole, secure, proxies))

    def tcp_endpoint(
        self, proxies: TrustedPeers | None, port: str, interface: str = "", backlog: str = "", *, dual: bool = False
    ) -> None:
        """Twisted's ``tcp:``."""
        settings, number = self.settings, int(port)
        if not 0 <= number <= 65535:
            # The system would take another port for it.
            raise ValueError(port)
        self.described_tcp(interface, number, int(backlog) if backlog else settings.backlog, dual, proxies)

    def described_tcp(
        self, interface: str, number: int, backlog: int, dual: bool, proxies: TrustedPeers | None
    ) -> None:
        with sockets.listening(sockets.host_and_port(interface or "0.0.0.0", number), number):
            addresses = sockets.resolve(interface, number, numeric=True)
            sock = sockets.bind_tcp(addresses, backlog, dual=dual)
        secure = proxies is not None and bool(self.settings.ssl_certfile)
        self.made.append(Bound(sock, secure=secure, proxies=proxies))

    def tcp6_endpoint(
        self, proxies: TrustedPeers | None, port: str, backlog: str = "", interface: str = "::"
    ) -> None:
        """Twisted's ``tcp6:``, which takes IPv4 too."""
        self.tcp_endpoint(proxies, port, interface, backlog, dual=True)

    def unix_endpoint(
        self, proxies: TrustedPeers | None, address: str, mode: str = "", backlog: str = "", lockfile: str = ""
    ) -> None:
        """Twisted's ``unix:``; ``lockfile`` is accepted and ignored, because a stale file is found without one."""
        settings = self.settings
        permissions = int(mode, 8) if mode else settings.unix_socket_mode
        if not 0 <= permissions <= 0o777:
            raise ValueError(mode)
        self.unix(address, permissions, int(backlog) if backlog else settings.backlog, proxies)

    def fd_endpoint(self, proxies: TrustedPeers | None, fileno: str, domain: str = "") -> None:
        """Daphne's ``fd:``; ``domain`` is ignored, because the socket itself knows it."""
        number = int(fileno)
        if number < 0:
            raise ValueError(fileno)
        self.descriptor(number, proxies)

    def systemd_endpoint(
        self, proxies: TrustedPeers | None, domain: str = "", index: str | None = None, name: str | None = None
    ) -> None:
        """Twisted's ``systemd:``, but names may be missing from the environment, or shared by several sockets."""
        if (index is None) == (name is None):
            raise ValueError("index or name")
        self.activated(None if index is None else int(index), name, proxies)

    def activated(self, index: int | None, name: str | None, proxies: TrustedPeers | None) -> None:
        for number in sockets.activated_descriptors(index, name):
            self.descriptor(number, proxies)


class _Checking(_Binding):
    """Reads descriptions as :class:`_Binding` does, and opens nothing."""

    def unix(self, *_: object) -> None: ...

    def described_tcp(self, *_: object) -> None: ...

    def descriptor(self, *_: object) -> None: ...

    def activated(self, *_: object) -> None: ...


def described_by(settings: Settings, inheritable: bool) -> list[Described]:
    """The descriptions for Twisted among the settings' endpoints; no socket is opened.

    :param inheritable: as for :func:`bind`; there are none then.
    :raises SettingsError: as :func:`bind`.
    """
    checking = _Checking(settings, inheritable)
    checking.check()
    for text in settings.endpoints:
        checking.endpoint(text, text)
    return [each for each in checking.made if isinstance(each, Described)]


#: The descriptions that do not go through Twisted, and how they are written.
_OWN: dict[str, Callable[..., None]] = {
    "unix": _Binding.unix_endpoint,
    "fd": _Binding.fd_endpoint,
    "systemd": _Binding.systemd_endpoint,
}
#: And these, where Twisted could only bind them in the process that accepts.
_INHERITABLE: dict[str, Callable[..., None]] = {"tcp": _Binding.tcp_endpoint, "tcp6": _Binding.tcp6_endpoint}
USAGE = {
    "tcp": "tcp:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "tcp6": "tcp6:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "haproxy": "haproxy: once, before tcp, tcp6, ssl, tls, unix, fd or systemd",
    "unix": "unix:PATH[:mode=OCTAL][:backlog=NUMBER]",
    "fd": "fd:fileno=NUMBER",
    "systemd": "systemd:index=NUMBER or systemd:name=NAME",
}


def _parse(text: str) -> tuple[list[str], dict[str, str]]:
    """The positional arguments of a description, its prefix first, and its keywords; a backslash escapes.

    :raises SettingsError: when ``text`` ends within an escape.
    """
    if not re.fullmatch(r"(?:\\.|[^\\])*", text, re.DOTALL):
        raise SettingsError(f"endpoints: {text!r} ends with a backslash")
    arguments: list[str] = []
    keywords: dict[str, str] = {}
    for part in re.findall(r"(?:^|:)((?:\\.|[^\\:])*)", text, re.DOTALL):
        found = re.fullmatch(r"((?:\\.|[^\\=])*)=(.*)", part, re.DOTALL)
        if found:
            keywords[_unescaped(found[1])] = _unescaped(found[2])
        else:
            arguments.append(_unescaped(part))
    return arguments, keywords


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _with_backlog(text: str, arguments: list[str], keywords: dict[str, str], backlog: int) -> str:
    """The description with our backlog, if its kind has one and the user gave none; Twisted's default is 50."""
    position = _BACKLOG_POSITION.get(arguments[0].lower())
    if position is None or len(arguments) > position or "backlog" in keywords:
        return text
    return f"{text}:backlog={backlog}"


def _check_kind(kind: str, whole: str) -> None:
    if kind == "stdio":
        raise SettingsError(f"endpoints: {whole!r} does not listen for connections")
    if kind in SECURE:
        try:
            import twisted.internet.ssl  # noqa: F401
        except ImportError:
            raise SettingsError(f"endpoints: {whole!r}: {_NO_TLS}") from None
