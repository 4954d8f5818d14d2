"""From settings to listening ports.

Where it can, asgiserver makes the socket itself and hands Twisted one that listens already: then errors, permissions
and stale files are ours, and Twisted is left with accepting. That goes for host and port, unix sockets, descriptors,
and the descriptions ``unix:``, ``fd:`` and ``systemd:``. Every other description is Twisted's, its plugins included.
With ``haproxy:`` in front of one of our own, or of Twisted's for TCP, connections begin with a PROXY header.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

from ..errors import ListenError, SettingsError
from ..forks import let_go_in_children
from ..loop.reactor import Reactor
from ..settings import Settings
from ..transport.tcp import TCPPort
from . import sockets
from .accepting import watch

if TYPE_CHECKING:
    from ..asgi.forwarded import TrustedPeers

__all__ = ["Listener", "listen"]

#: Which positional argument of Twisted's descriptions, counted from the prefix, is the backlog.
_BACKLOG_POSITION = {"tcp": 3, "tcp6": 2, "ssl": 6, "tls": 3}

#: Twisted's descriptions with TLS; the second is txsni's.
_SECURE = frozenset(("ssl", "tls"))

#: Those that may follow ``haproxy:``, besides our own: they listen by the reactor that they are given, on TCP.
_PROXIED = frozenset(("tcp", "tcp6")) | _SECURE

#: The endpoints that ``ssl_certfile`` is for.
_CERTIFIED = re.compile("haproxy:tcp6?(?::|$)", re.IGNORECASE)

#: Connections that are accepted when a port closes, at most; as many as Linux lets a backlog have by default.
_LAST_ACCEPTS = 4096

_NO_TLS = "TLS needs pyOpenSSL: install asgiserver[tls]"


class Listener:
    """One listening port.

    :ivar description: for the log: ``http://127.0.0.1:8000``, ``https://[::1]:8443``, ``unix:/run/x.sock``; a port
        given as 0 is the real one.
    :ivar address: host and port, None on anything but TCP.
    """

    def __init__(
        self, port: Any, *, secure: bool = False, path: str | None = None, inherited: int | None = None
    ) -> None:
        """Describe ``port``, which listens.

        :param path: the unix socket's file, when closing is to remove it.
        :param inherited: the descriptor that ``port`` has a copy of; another process has the same socket.
        """
        watch(port)
        self._port = port
        self._path = path
        self._inherited = inherited
        self._file = os.lstat(path) if path is not None else None
        self._closing: asyncio.Future[Any] | None = None
        host = port.getHost()
        self.address: tuple[str, int] | None = None if isinstance(host, UNIXAddress) else (host.host, host.port)
        self.description = _describe(host, "https" if secure else "http")
        let_go_in_children(self)

    def let_go(self) -> None:
        """In a forked child: do not hold the port after the parent has ended; the parent's goes on listening."""
        self._file = None
        sock = getattr(self._port, "socket", None)
        if sock is not None:
            # No more than that: the parent's epoll is the child's too, and not to be told.
            sock.close()
        if self._inherited is not None:
            # Its number stays taken: it may be that of the standard input.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, self._inherited)
            os.close(null)

    def remove_file(self) -> None:
        """Remove a unix socket's file if it still is the one that was made."""
        if self._path is not None and self._file is not None:
            sockets.unlink_if_same(self._path, self._file)

    async def close(self) -> None:
        """Stop listening and return when the port is closed; open connections stay. Any number of times.

        Its unix socket's file is removed. Connections that wait in the backlog are accepted first, unless the socket is
        shared with another process: then they wait for that.
        """
        if self._closing is None:
            # Before the socket: as long as that is open, the number of its file cannot have been given to another.
            self.remove_file()
            self._closing = _future(self._stop_listening())
        await asyncio.shield(self._closing)

    def _stop_listening(self) -> Deferred[Any] | None:
        port = self._port
        if self._inherited is not None or not isinstance(port, Port):
            stopping: Deferred[Any] | None = port.stopListening()
            return stopping
        # Its clients are connected as far as they know, and the kernel resets them when the socket is closed. Twisted
        # would close it a turn of the loop later, for others to come meanwhile.
        port.stopReading()  # type: ignore[no-untyped-call]
        port.numberAccepts = _LAST_ACCEPTS
        port.doRead()  # type: ignore[no-untyped-call]
        port.connectionLost(Failure(CONNECTION_DONE))  # type: ignore[no-untyped-call]
        return None


async def listen(settings: Settings, factory: Any, reactor: Reactor) -> list[Listener]:
    """Listen wherever the settings say: host and port, unix socket, file descriptor and descriptions, in this order.

    With none of them it is 127.0.0.1:8000; a host alone means port 8000, a port alone 127.0.0.1. A host name with
    several addresses is listened on at the first that works, IPv4 first.

    :param factory: an ``IProtocolFactory``, the same one for every port; with TLS it is asked for ALPN's protocols too.
    :param reactor: an asyncio reactor on the loop that runs here.
    :raises SettingsError: when a setting, a certificate or a description cannot be right.
    :raises ListenError: when an address cannot be had. Whatever was open by then has been closed again.
    """
    listeners: list[Listener] = []
    try:
        opening = _Opening(settings, factory, reactor, listeners)
        await opening.all()
    except BaseException:
        for listener in listeners:
            await listener.close()
        raise
    return listeners


class _Opening:
    """One run of :func:`listen`: what all ways to a port have in common, and the listeners so far."""

    def __init__(self, settings: Settings, factory: Any, reactor: Reactor, listeners: list[Listener]) -> None:
        self.settings = settings
        self.factory = factory
        self.reactor = reactor
        self.listeners = listeners

    async def all(self) -> None:
        settings = self.settings
        elsewhere = bool(settings.unix_socket is not None or settings.file_descriptor is not None or settings.endpoints)
        if settings.host is not None or settings.port is not None or not elsewhere:
            await self.tcp(settings.host, settings.port)
        elif settings.ssl_certfile is not None and not any(map(_CERTIFIED.match, settings.endpoints)):
            raise SettingsError(
                "ssl_certfile is for a host and port and for haproxy:tcp: endpoints, and none of them is given; "
                "another endpoint names its own, like ssl:8443:certKey=chain.pem:privateKey=key.pem"
            )
        if settings.unix_socket is not None:
            self.unix(settings.unix_socket, settings.unix_socket_mode, settings.backlog)
        if settings.file_descriptor is not None:
            self.descriptor(settings.file_descriptor)
        for text in settings.endpoints:
            await self.endpoint(text, text)

    async def tcp(self, host: str | None, port: int | None) -> None:
        host = "127.0.0.1" if host is None else host.removeprefix("[").removesuffix("]")
        port = 8000 if port is None else port
        context = self.context()
        with sockets.listening(_host_and_port(host, port)):
            try:
                addresses = sockets.resolve(host, port, numeric=True)
            except socket.gaierror:
                loop = asyncio.get_running_loop()
                addresses = await loop.run_in_executor(None, sockets.resolve, host, port)
            self.adopt(sockets.bind_tcp(addresses, self.settings.backlog), context=context)

    def context(self) -> ssl.SSLContext | None:
        """For TLS with the certificate of the settings; None without one."""
        certificate = self.settings.ssl_certfile
        if certificate is None:
            return None
        from ..transport.certificates import load

        return load(certificate, self.settings.ssl_keyfile)

    def unix(self, path: str, mode: int, backlog: int, allowed: TrustedPeers | None = None) -> None:
        with sockets.listening(f"unix:{path}"):
            self.adopt(sockets.bind_unix(path, mode, backlog), allowed, path=path)

    def descriptor(self, number: int, allowed: TrustedPeers | None = None) -> None:
        sock = sockets.inherit(number)
        with sockets.listening(f"file descriptor {number}"):
            self.adopt(sock, allowed, inherited=number)

    def adopt(
        self,
        sock: socket.socket,
        allowed: TrustedPeers | None = None,
        *,
        context: ssl.SSLContext | None = None,
        path: str | None = None,
        inherited: int | None = None,
    ) -> None:
        """Let Twisted accept on a listening socket; it works on a copy, and this one is closed.

        :param allowed: the proxies that may connect, and send a PROXY header first; None without proxies.
        """
        factory = self.factory
        with sock:
            port: Any
            if context is not None:
                from ..transport.tls_port import TLSPort

                port = TLSPort.adopt(sock, factory, self.reactor)
                port.secure(context)
            elif sock.family == socket.AF_UNIX:
                from ..transport.unix import UNIXPort

                port = UNIXPort(sock.dup(), factory, self.reactor)
            else:
                port = TCPPort.adopt(sock, factory, self.reactor)
            if allowed is not None:
                from .proxy_protocol import take_headers

                take_headers(port, allowed)
            port.startListening()
        self.listeners.append(Listener(port, secure=context is not None, path=path, inherited=inherited))

    async def endpoint(self, text: str, whole: str, allowed: TrustedPeers | None = None) -> None:
        """Listen as a description says.

        :param whole: the description as the user gave it, of which ``text`` may be the end.
        :param allowed: the proxies that may connect, and send a PROXY header first; None without proxies.
        """
        arguments, keywords = _parse(text)
        kind = arguments[0].lower()
        if kind == "haproxy" and allowed is None:
            from ..asgi.forwarded import TrustedPeers

            proxies = TrustedPeers(self.settings.proxy_allow_ips, "proxy_allow_ips")
            await self.endpoint(text.partition(":")[2], whole, proxies)
        elif kind in _OWN:
            try:
                _OWN[kind](self, allowed, *arguments[1:], **keywords)
            except (TypeError, ValueError) as error:
                raise SettingsError(f"endpoint {whole!r}: expected {_USAGE[kind]}") from error
        else:
            text = _with_backlog(text, arguments, keywords, self.settings.backlog)
            await self.twisted_endpoint(kind, text, whole, allowed)

    async def twisted_endpoint(self, kind: str, text: str, whole: str, allowed: TrustedPeers | None) -> None:
        _check_kind(kind, whole)
        reactor: Any = self.reactor
        context = None
        if allowed is not None:
            from .proxy_protocol import HeaderFirstReactor

            if kind not in _PROXIED:
                raise SettingsError(f"endpoint {whole!r}: expected {_USAGE['haproxy']}")
            context = None if kind in _SECURE else self.context()
            reactor = HeaderFirstReactor(reactor, allowed, context)
        # Importing it takes systemd's variables out of the environment, so not before it is needed.
        from twisted.internet.endpoints import serverFromString

        try:
            endpoint: Any = serverFromString(reactor, text)  # type: ignore[no-untyped-call]
        except Exception as error:  # each kind and each plugin raises what it likes about its arguments
            raise SettingsError(f"endpoint {whole!r}: {_first_line(error)}") from error
        try:
            port = await _future(endpoint.listen(self.factory))
        except CannotListenError as error:
            cause = error.socketError
            raise ListenError(f"cannot listen on {whole}: {getattr(cause, 'strerror', None) or cause}") from error
        except OSError as error:
            raise ListenError(f"cannot listen on {whole}: {error.strerror or error}") from error
        if not IListeningPort.providedBy(port):
            raise SettingsError(f"endpoint {whole!r} does not listen for connections")
        self.listeners.append(Listener(port, secure=kind in _SECURE or context is not None))

    def unix_endpoint(
        self, allowed: TrustedPeers | None, address: str, mode: str = "", backlog: str = "", lockfile: str = ""
    ) -> None:
        """Twisted's ``unix:``; ``lockfile`` is accepted, but a stale file is found without one."""
        settings = self.settings
        permissions = int(mode, 8) if mode else settings.unix_socket_mode
        if not 0 <= permissions <= 0o777:
            raise ValueError(mode)
        self.unix(address, permissions, int(backlog) if backlog else settings.backlog, allowed)

    def fd_endpoint(self, allowed: TrustedPeers | None, fileno: str, domain: str = "") -> None:
        """Daphne's ``fd:``; the socket itself knows its ``domain``."""
        number = int(fileno)
        if number < 0:
            raise ValueError(fileno)
        self.descriptor(number, allowed)

    def systemd_endpoint(
        self, allowed: TrustedPeers | None, domain: str = "", index: str | None = None, name: str | None = None
    ) -> None:
        """Twisted's ``systemd:``, but names may be missing from the environment, or shared by several sockets."""
        if (index is None) == (name is None):
            raise ValueError("index or name")
        for number in sockets.activated_descriptors(None if index is None else int(index), name):
            self.descriptor(number, allowed)


#: The descriptions that do not go through Twisted, and how they are written.
_OWN: dict[str, Callable[..., None]] = {
    "unix": _Opening.unix_endpoint,
    "fd": _Opening.fd_endpoint,
    "systemd": _Opening.systemd_endpoint,
}
_USAGE = {
    "haproxy": "haproxy: once, before tcp, tcp6, ssl, tls, unix, fd or systemd",
    "unix": "unix:PATH[:mode=OCTAL][:backlog=NUMBER]",
    "fd": "fd:fileno=NUMBER",
    "systemd": "systemd:index=NUMBER or systemd:name=NAME",
}


def _parse(text: str) -> tuple[list[str], dict[str, str]]:
    """The positional arguments of a description, its prefix first, and those with a name; a backslash escapes.

    :raises SettingsError: when it ends within an escape.
    """
    if not re.fullmatch(r"(?:\\.|[^\\])*", text, re.DOTALL):
        raise SettingsError(f"endpoint {text!r} ends with a backslash")
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
    """The description with our backlog, if its kind has one and it says none; Twisted's default is 50."""
    position = _BACKLOG_POSITION.get(arguments[0].lower())
    if position is None or len(arguments) > position or "backlog" in keywords:
        return text
    return f"{text}:backlog={backlog}"


def _check_kind(kind: str, whole: str) -> None:
    if kind == "stdio":
        raise SettingsError(f"endpoint {whole!r} does not listen for connections")
    if kind in _SECURE:
        try:
            import twisted.internet.ssl  # noqa: F401
        except ImportError:
            raise SettingsError(f"endpoint {whole!r}: {_NO_TLS}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _future(result: Deferred[Any] | None) -> asyncio.Future[Any]:
    deferred = succeed(None) if result is None else result
    return deferred.asFuture(asyncio.get_running_loop())


def _describe(host: Any, scheme: str) -> str:
    if not isinstance(host, UNIXAddress):
        return f"{scheme}://{_host_and_port(host.host, host.port)}"
    name = os.fsdecode(host.name or b"")
    return f"unix:@{name[1:]}" if name.startswith("\0") else f"unix:{name}"


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
