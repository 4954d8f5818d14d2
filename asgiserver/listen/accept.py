"""The second step of listening: from bound sockets to ports that accept, in the process that serves."""

from __future__ import annotations

import asyncio
import os
import socket
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
from .bind import KINDS, SECURE, USAGE, Bound, Described, described_by

if TYPE_CHECKING:
    from ..transport.certificates import Certificates
    from ..transport.tls_port import TLSPort

__all__ = ["Listener", "accept", "certificates_of", "check"]

#: Most connections that a port still accepts when it closes: Linux's default bound of a backlog.
_LAST_ACCEPTS = 4096


class Listener:
    """One listening port.

    :ivar description: for the log: ``http://127.0.0.1:8000``, ``https://[::1]:8443``, ``unix:/run/x.sock``; a port
        given as 0 is the real one.
    :ivar shared: another process accepts on the same socket; may be set until the listener is closed.
    :ivar address: host and port, None on anything but TCP.
    """

    def __init__(self, port: Any, *, secure: bool = False, bound: Bound | None = None) -> None:
        """Take ``port``, which listens already: on a copy of the socket of ``bound``, unless that is None."""
        watch(port)
        self._port = port
        self._bound = bound
        self._inherited = None if bound is None else bound.inherited
        self.shared = bound is not None and (bound.shared or bound.inherited is not None)
        self._closing: asyncio.Future[Any] | None = None
        host = port.getHost()
        self.address: tuple[str, int] | None = None if isinstance(host, UNIXAddress) else (host.host, host.port)
        self.description = _describe(host, "https" if secure else "http")
        let_go_in_children(self)

    def let_go(self) -> None:
        """In a forked child: close its copy of the socket, which would outlive the parent. The parent's stays open."""
        self._bound = None
        sock = getattr(self._port, "socket", None)
        if sock is not None:
            # Only the socket is closed: the child shares the parent's epoll, where the parent's port must stay.
            sock.close()
        if self._inherited is not None:
            # The number of this descriptor stays taken: it may be that of the standard input.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, self._inherited)
            os.close(null)

    def read_certificates(self) -> bool:
        """Read changed certificates now; False when the port has none of ours."""
        certificates = getattr(self._port, "certificates", None)
        if certificates is not None:
            certificates.read_again()
        return certificates is not None

    @property
    def port(self) -> Any:
        """Twisted's port."""
        return self._port

    def remove_file(self) -> None:
        """Remove the unix socket's file, unless another file has taken its place."""
        if self._bound is not None:
            self._bound.remove_file()

    async def close(self) -> None:
        """Stop listening and return when the port is closed; open connections stay. May be called again.

        The file of a unix socket is removed. Connections in the backlog are accepted first, unless the socket is shared
        with another process: then they wait for that process.
        """
        if self._closing is None:
            # Before the socket is closed: until then no other file can have got the inode number of its file.
            self.remove_file()
            self._closing = _future(self._stop_listening())
        await asyncio.shield(self._closing)

    def _stop_listening(self) -> Deferred[Any] | None:
        port = self._port
        if self.shared or not isinstance(port, Port):
            stopping: Deferred[Any] | None = port.stopListening()
            return stopping
        # Clients in the backlog see themselves as connected, and the kernel resets them when the socket is closed.
        # Twisted would close the socket one turn of the loop later, and more clients could come meanwhile.
        port.stopReading()  # type: ignore[no-untyped-call]
        port.numberAccepts = _LAST_ACCEPTS
        # That of the class: what stands before it may leave connections to other processes.
        type(port).doRead(port)  # type: ignore[no-untyped-call]
        port.connectionLost(Failure(CONNECTION_DONE))  # type: ignore[no-untyped-call]
        return None


async def accept(bound: Bound | Described, settings: Settings, factory: Any, reactor: Reactor) -> Listener:
    """Accept connections, on a copy of the socket of ``bound``.

    :param bound: as :func:`.bind` gives it; its socket is closed, whatever happens.
    :param settings: the settings that ``bound`` was made from.
    :param factory: an ``IProtocolFactory``; with TLS it is asked for ALPN's protocols too.
    :param reactor: an asyncio reactor on the loop that runs here.
    :raises SettingsError: when a certificate or one of Twisted's descriptions is invalid.
    :raises ListenError: when Twisted cannot bind the address of a description.
    """
    try:
        read = None if isinstance(bound, Described) else bound.certificates
        secure = _securing(settings, read or certificates_of(settings)) if bound.secure else None
        if isinstance(bound, Described):
            port = await _twisted_port(bound, factory, reactor, secure)
            return Listener(port, secure=bound.secure or bound.kind in SECURE)
        if bound.redirects_to is not None:
            factory = factory.redirecting(bound.redirects_to)
        port = _port(bound.sock, factory, reactor, secure)
        if bound.proxies is not None:
            from .proxy_protocol import take_headers

            take_headers(port, bound.proxies)
        port.startListening()
    except BaseException:
        bound.close()
        raise
    bound.sock.close()
    return Listener(port, secure=bound.secure, bound=bound)


def check(settings: Settings, reactor: Reactor, *, inheritable: bool = False) -> None:
    """Find the mistakes in endpoints and certificates that listening would find, and open no socket.

    :param inheritable: as for :func:`.bind.bind`.
    :raises SettingsError: as :func:`.bind.bind` and :func:`accept` do.
    """
    descriptions = described_by(settings, inheritable)
    if settings.ssl_certfile:
        certificates_of(settings)
    for described in descriptions:
        _endpoint(described, reactor)


def certificates_of(settings: Settings) -> Certificates:
    """Read the certificates of the settings; raises SettingsError when one is invalid."""
    from ..transport.certificates import Certificates, Options

    options = Options(*(getattr(settings, f"ssl_{name}") for name in Options._fields))
    return Certificates(settings.ssl_certfile, settings.ssl_keyfile, options)


def _securing(settings: Settings, certificates: Certificates) -> Callable[[TLSPort], None]:
    """What makes a port one of TLS."""
    return lambda port: port.secure(certificates, settings.ssl_handshake_timeout)


def _port(sock: socket.socket, factory: Any, reactor: Reactor, secure: Callable[[TLSPort], None] | None) -> Any:
    """A port on a copy of ``sock``, which does not accept yet."""
    if secure is not None:
        from ..transport.tls_port import TLSPort

        port = TLSPort.adopt(sock, factory, reactor)
        secure(port)
        return port
    if sock.family == socket.AF_UNIX:
        from ..transport.unix import UNIXPort

        return UNIXPort(sock.dup(), factory, reactor)
    return TCPPort.adopt(sock, factory, reactor)


def _endpoint(described: Described, reactor: Any) -> Any:
    # Not imported before it is needed: the import removes systemd's variables from the environment.
    from twisted.internet.endpoints import serverFromString

    try:
        return serverFromString(reactor, described.text)  # type: ignore[no-untyped-call]
    except Exception as error:  # each kind and each plugin raises errors of its own choice
        reason = f"expected {USAGE[described.kind]}" if described.kind in USAGE else _first_line(error)
        if reason.startswith("Unknown endpoint type"):
            reason += f"; there are {', '.join(KINDS)} and those of Twisted's plugins"
        raise SettingsError(f"endpoints: {described.whole!r}: {reason}") from error


async def _twisted_port(described: Described, factory: Any, asyncio_reactor: Reactor, secure: Any) -> Any:
    reactor: Any = asyncio_reactor
    whole = described.whole
    if described.proxies is not None:
        from .proxy_protocol import HeaderFirstReactor

        reactor = HeaderFirstReactor(reactor, described.proxies, secure)
    endpoint = _endpoint(described, reactor)
    try:
        port = await _future(endpoint.listen(factory))
    except CannotListenError as error:
        raise ListenError(f"cannot listen on {whole}: {sockets.reason(error.socketError, error.port)}") from error
    except OSError as error:
        raise ListenError(f"cannot listen on {whole}: {error.strerror or error}") from error
    except OverflowError as error:
        # No such port.
        raise SettingsError(f"endpoints: {whole!r}: {error}") from error
    if not IListeningPort.providedBy(port):
        raise SettingsError(f"endpoints: {whole!r} does not listen for connections")
    return port


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _future(result: Deferred[Any] | None) -> asyncio.Future[Any]:
    deferred = succeed(None) if result is None else result
    return deferred.asFuture(asyncio.get_running_loop())


def _describe(host: Any, scheme: str) -> str:
    if not isinstance(host, UNIXAddress):
        return f"{scheme}://{sockets.host_and_port(host.host, host.port)}"
    name = os.fsdecode(host.name or b"")
    return f"unix:@{name[1:]}" if name.startswith("\0") else f"unix:{name}"
