"""Descriptions, errors and listeners that need no socket; real ones are in e2e/test_endpoints.py."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from asgiserver.errors import ListenError, SettingsError
from asgiserver.listen.accept import Listener
from asgiserver.listen.bind import Bound
from asgiserver.listen.endpoints import listen
from asgiserver.listen.proxy_protocol import HeaderFirst, ProxiedFactory
from asgiserver.settings import Settings
from asgiserver.transport.tcp import TCPPort
from asgiserver.transport.tls import TLSTransport
from asgiserver.transport.tls_port import TLSPort

T = TypeVar("T")
FACTORY = Factory.forProtocol(Protocol)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def opened(*endpoints: str, reactor: Any = None, **settings: Any) -> Any:
    """The reactor in memory that has been asked to listen on the descriptions."""
    reactor = MemoryReactorClock() if reactor is None else reactor
    listeners = run(listen(Settings(endpoints=endpoints, **settings), FACTORY, reactor))
    assert len(listeners) == len(endpoints)
    return reactor


def refusal(*endpoints: str, **settings: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        run(listen(Settings(endpoints=endpoints, **settings), FACTORY, MemoryReactorClock()))
    message = str(caught.value)
    assert "\n" not in message
    return message


@implementer(IListeningPort)
class Port:
    """A listening port that counts how often it is stopped, and is slow about it."""

    def __init__(self, address: object) -> None:
        self.address = address
        self.stopped = 0
        self.done: Deferred[None] = Deferred()

    def getHost(self) -> object:
        return self.address

    def stopListening(self) -> Deferred[None]:
        self.stopped += 1
        return self.done


class TestListener:
    @pytest.mark.parametrize(("host", "description", "address"), [
        (IPv4Address("TCP", "127.0.0.1", 8000), "http://127.0.0.1:8000", ("127.0.0.1", 8000)),
        (IPv6Address("TCP", "::1", 8000), "http://[::1]:8000", ("::1", 8000)),
        (UNIXAddress("/run/x.sock"), "unix:/run/x.sock", None),
        (UNIXAddress(b"\0hidden"), "unix:@hidden", None),
        (UNIXAddress(None), "unix:", None),
    ])  # fmt: skip
    def test_describes_itself_for_the_log(self, host: object, description: str, address: object) -> None:
        listener = Listener(Port(host))
        assert (listener.description, listener.address) == (description, address)

    def test_says_https_with_tls(self) -> None:
        assert Listener(Port(IPv6Address("TCP", "::1", 8443)), secure=True).description == "https://[::1]:8443"

    def test_closes_once_however_often_it_is_asked(self) -> None:
        async def main() -> None:
            port = Port(IPv4Address("TCP", "127.0.0.1", 8000))
            listener = Listener(port)
            first, second = asyncio.create_task(listener.close()), asyncio.create_task(listener.close())
            await asyncio.sleep(0)
            assert [first.done(), second.done()] == [False, False], "the port is not closed yet"
            port.done.callback(None)
            await asyncio.gather(first, second)
            await listener.close()
            assert port.stopped == 1

        run(main())

    def test_goes_on_closing_when_whoever_waits_is_cancelled(self) -> None:
        async def main() -> None:
            port = Port(IPv4Address("TCP", "127.0.0.1", 8000))
            listener = Listener(port)
            impatient = asyncio.create_task(listener.close())
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.gather(impatient, return_exceptions=True)
            port.done.callback(None)
            await listener.close()
            assert impatient.cancelled()
            assert port.stopped == 1

        run(main())

    def test_a_port_that_stops_at_once_is_fine(self) -> None:
        port = Port(IPv4Address("TCP", "127.0.0.1", 8000))
        port.stopListening = lambda: None  # type: ignore[assignment]
        run(Listener(port).close())

    def test_removes_its_own_file_only(self, tmp_path: Path) -> None:
        path = tmp_path / "x.sock"
        for replaced in (False, True):
            path.touch()
            port = Port(UNIXAddress(str(path)))
            port.done.callback(None)
            bound = Bound(socket.socket(), path=str(path), file=path.lstat())
            bound.sock.close()
            listener = Listener(port, bound=bound)
            if replaced:
                (tmp_path / "other").touch()
                (tmp_path / "other").rename(path)
            run(listener.close())
            assert path.exists() is replaced


class TestTwistedDescriptions:
    def test_get_our_backlog_where_they_give_none(self) -> None:
        (server,) = opened("tcp:8001:interface=127.0.0.1", backlog=99).tcpServers
        assert server == (8001, FACTORY, 99, "127.0.0.1")

    @pytest.mark.parametrize("text", ["tcp:8001:backlog=7", "tcp:8001:127.0.0.1:7", "tcp:port=8001:backlog=7"])
    def test_keep_the_backlog_that_they_give(self, text: str) -> None:
        (server,) = opened(text).tcpServers
        assert (server[0], server[2]) == (8001, 7)

    def test_tcp6_has_its_arguments_in_another_order(self) -> None:
        assert opened("tcp6:8001", backlog=99).tcpServers == [(8001, FACTORY, 99, "::")]
        assert opened("tcp6:8001:7", backlog=99).tcpServers == [(8001, FACTORY, 7, "::")]

    def test_may_escape(self) -> None:
        (server,) = opened(r"tcp:8001:interface=\:\:1").tcpServers
        assert server[3] == "::1"

    def test_ssl_is_https(self, tmp_path: Path) -> None:
        certificate = trustme.CA().issue_cert("localhost")
        pem = tmp_path / "server.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(pem)
        reactor = MemoryReactorClock()
        text = f"ssl:8443:privateKey={pem}"
        (listener,) = run(listen(Settings(endpoints=(text,)), FACTORY, reactor))
        assert listener.description.startswith("https://")
        assert reactor.sslServers[0][0] == 8443
        assert reactor.sslServers[0][3] == 2048

    def test_several_are_opened_in_order(self) -> None:
        assert [server[0] for server in opened("tcp:8002", "tcp:8001").tcpServers] == [8002, 8001]


# Twisted before 26 gives pyOpenSSL what that would rather not take.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
class TestBehindAProxy:
    @pytest.fixture(autouse=True)
    def ports(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The ports that are asked to listen, without sockets."""
        ports: list[Any] = []
        monkeypatch.setattr(TCPPort, "startListening", lambda port: ports.append(port))
        monkeypatch.setattr(TCPPort, "getHost", lambda port: IPv4Address("TCP", "127.0.0.1", port.port))
        return ports

    @pytest.fixture
    def pem(self, tmp_path: Path) -> str:
        path = tmp_path / "server.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)

    def listener(self, text: str, **settings: Any) -> Listener:
        (listener,) = run(listen(Settings(endpoints=(text,), **settings), FACTORY, MemoryReactorClock()))
        return listener

    @pytest.mark.parametrize("text", ["haproxy:tcp:8001:interface=127.0.0.1", r"haproxy:tcp6:8001:interface=127.0.0.1"])
    def test_the_port_takes_headers(self, text: str, ports: list[Any]) -> None:
        assert self.listener(text, backlog=99).description == "http://127.0.0.1:8001"
        (port,) = ports
        assert type(port) is TCPPort
        assert issubclass(port.transport, HeaderFirst)
        assert (port.port, port.backlog, port.interface) == (8001, 99, "127.0.0.1")
        assert port.factory.wrappedFactory is FACTORY

    def test_the_header_is_below_twisteds_tls(self, pem: str, ports: list[Any]) -> None:
        """HAProxy sends it in plain, before the handshake."""
        assert self.listener(f"haproxy:ssl:8443:privateKey={pem}").description == "https://127.0.0.1:8443"
        (port,) = ports
        assert type(port) is TCPPort
        assert issubclass(port.transport, HeaderFirst)
        assert isinstance(port.factory, ProxiedFactory)
        assert isinstance(port.factory.wrappedFactory, TLSMemoryBIOFactory)
        assert port.factory.wrappedFactory.wrappedFactory is FACTORY
        assert (port.port, port.backlog) == (8443, 2048)

    @pytest.mark.parametrize("text", ["haproxy:tcp:8443", "haproxy:tcp6:8443", "HAProxy:tcp:port=8443"])
    def test_and_below_our_own(self, text: str, pem: str, ports: list[Any]) -> None:
        assert self.listener(text, ssl_certfile=pem).description == "https://127.0.0.1:8443"
        (port,) = ports
        assert type(port) is TLSPort
        assert issubclass(port.transport, HeaderFirst)
        assert issubclass(port.transport, TLSTransport)
        assert (port.port, port.factory.wrappedFactory) == (8443, FACTORY)

    def test_an_endpoint_with_a_certificate_of_its_own_keeps_it(self, pem: str, ports: list[Any]) -> None:
        texts = "haproxy:tcp:8001", f"haproxy:ssl:8443:privateKey={pem}", "tcp:8002"
        listeners = run(listen(Settings(endpoints=texts, ssl_certfile=pem), FACTORY, MemoryReactorClock()))
        assert [type(port) for port in ports] == [TLSPort, TCPPort]
        assert [each.description.partition(":")[0] for each in listeners] == ["https", "https", "http"]

    def test_an_unreadable_certificate_is_told(self) -> None:
        assert refusal("haproxy:tcp:1", ssl_certfile="/nonexistent/x.pem").startswith("ssl_certfile: cannot read")


class TestMalformedDescriptions:
    @pytest.mark.parametrize(("text", "message"), [
        ("nonsense:1", "Unknown endpoint type: 'nonsense'"),
        ("", "Unknown endpoint type: ''"),
        ("haproxy", "expected haproxy: once, before tcp, tcp6, ssl, tls, unix, fd or systemd"),
        ("haproxy:nonsense:1", "expected haproxy: once, before tcp,"),
        ("tcp:http-alt", "expected tcp:PORT[:interface=ADDRESS]"),
        ("tcp", "expected tcp:PORT[:interface=ADDRESS]"),
        ("tcp:8000:colour=red", "expected tcp:PORT[:interface=ADDRESS]"),
        ("ssl:8443:privateKey=/nonexistent/key.pem", "No such file or directory"),
        ("stdio:", "does not listen for connections"),
        ("haproxy:stdio:", "does not listen for connections"),
        ("haproxy:haproxy:tcp:8000", "expected haproxy: once"),
    ])  # fmt: skip
    def test_are_settings_errors_that_quote_them(self, text: str, message: str) -> None:
        line = refusal(text)
        assert line.startswith(f"endpoints: {text!r}")
        assert message in line

    @pytest.mark.parametrize(
        "text", ["unix", "unix:/x:mode=rw", "unix:/x:mode=7777", "unix:/x:backlog=many", "unix:/x:a=b"]
    )
    def test_of_unix_sockets_say_how_to_write_them(self, text: str) -> None:
        assert refusal(text) == f"endpoints: {text!r}: expected unix:PATH[:mode=OCTAL][:backlog=NUMBER]"

    @pytest.mark.parametrize("text", ["fd", "fd:fileno=x", "fd:fileno=-1", "fd:3:4:5"])
    def test_of_descriptors_say_how_to_write_them(self, text: str) -> None:
        assert refusal(text) == f"endpoints: {text!r}: expected fd:fileno=NUMBER"

    @pytest.mark.parametrize("text", ["systemd:", "systemd:domain=INET", "systemd:index=0:name=web", "systemd:index=x"])
    def test_of_systemd_say_how_to_write_them(self, text: str) -> None:
        assert refusal(text) == f"endpoints: {text!r}: expected systemd:index=NUMBER or systemd:name=NAME"

    def test_may_not_end_within_an_escape(self) -> None:
        assert refusal("unix:/x\\") == r"endpoints: 'unix:/x\\' ends with a backslash"


class TestWithoutPyOpenSSL:
    """An installation without the extra ``tls``."""

    @pytest.fixture(autouse=True)
    def _without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "OpenSSL.SSL", None)
        monkeypatch.setitem(sys.modules, "twisted.internet.ssl", None)

    @pytest.mark.parametrize("text", ["ssl:8443:privateKey=x.pem", "tls:/certificates:8443", "haproxy:ssl:8443"])
    def test_the_description_names_the_extra(self, text: str) -> None:
        assert refusal(text) == f"endpoints: {text!r}: TLS needs pyOpenSSL: install asgiserver[tls]"

    def test_plain_connections_do_not_need_it(self) -> None:
        assert opened("tcp:8001").tcpServers


class TestErrors:
    @pytest.mark.parametrize("text", ["haproxy:tcp:8001", "haproxy:ssl:8443:privateKey=x.pem"])
    def test_of_the_proxies_that_may_connect_names_the_setting(self, text: str) -> None:
        assert refusal(text, proxy_allow_ips=("10.0.0.1/8",)).startswith("proxy_allow_ips: expected an address")

    @pytest.mark.parametrize("text", ["tcp:1", "haproxy:unix:/x", "haproxy:ssl:8443", "haproxy:fd:fileno=3", "unix:/x"])
    def test_a_certificate_needs_a_port_that_it_is_for(self, text: str) -> None:
        message = refusal(text, ssl_certfile="x.pem")
        assert message.startswith("ssl_certfile is for a host and port and for haproxy:tcp: endpoints, and none of")

    def test_an_unreadable_certificate_is_told_before_anything_listens(self) -> None:
        assert refusal(port=0, ssl_certfile="/nonexistent/x.pem").startswith("ssl_certfile: cannot read /nonexistent")

    def test_an_empty_path_is_not_taken_for_no_certificate(self) -> None:
        assert refusal(port=0, ssl_certfile="").startswith("ssl_certfile: cannot read")

    def test_no_host_of_that_name(self) -> None:
        with pytest.raises(ListenError, match=r"^cannot listen on no\.\.host:8000: not a host name$"):
            run(listen(Settings(host="no..host"), FACTORY, MemoryReactorClock()))

    def test_twisteds_refusal_is_one_line_and_closes_what_was_open(self) -> None:
        class Reactor(MemoryReactorClock):
            ports: list[Port] = []

            def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
                if port == 80:
                    raise CannotListenError(interface, port, PermissionError(13, "Permission denied"))
                super().listenTCP(port, factory, backlog, interface)
                made = Port(IPv4Address("TCP", "127.0.0.1", port))
                made.done.callback(None)
                self.ports.append(made)
                return made

        reactor = Reactor()
        with pytest.raises(ListenError, match=r"^cannot listen on tcp:80: Permission denied: ports below 1024 "):
            opened("tcp:8001", "tcp:8002", "tcp:80", "tcp:8003", reactor=reactor)
        assert [port.stopped for port in reactor.ports] == [1, 1], "and 8003 was not tried"

    def test_a_systemd_socket_that_was_not_handed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", "1")
        with pytest.raises(ListenError, match="LISTEN_PID"):
            opened("systemd:domain=INET:index=0")
