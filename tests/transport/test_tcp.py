"""The port whose connections take less memory: they are as Twisted's in all that is asked of them."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from asgiserver.loop.direct import is_plain
from asgiserver.transport.tcp import TCPPort, TCPTransport
from tests.transport.test_tls import Reactor, Socket

PEER = ("192.0.2.7", 4711)


class Noting(Protocol):
    """Notes how it has ended, and what its transport says of itself then."""

    def __init__(self) -> None:
        self.ended: list[tuple[Any, int, str]] = []

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.append((reason.value, self.transport.fileno(), repr(self.transport)))


def make_port() -> TCPPort:
    port = TCPPort(0, Factory(), reactor=Reactor())
    port._realPortNumber = 8000
    return port


def connected(
    kind: type[tcp.Server] = TCPTransport, port: TCPPort | None = None, client: tuple[object, ...] = PEER
) -> Any:
    port = port or make_port()
    skt: Any = Socket()
    protocol = Noting()
    transport = kind(skt, protocol, client, port, 5, port.reactor)
    protocol.makeConnection(transport)
    return transport


def test_they_are_what_a_port_makes() -> None:
    assert make_port().transport is TCPTransport


@pytest.mark.parametrize("client", [PEER, ("2001:db8::1", 4711, 0, 0)])
@pytest.mark.parametrize("what", ["getPeer", "fileno", "__repr__", "logPrefix", "getHandle", "doRead"])
def test_they_say_what_twisteds_say(what: str, client: tuple[object, ...]) -> None:
    ours, theirs = connected(client=client), connected(tcp.Server, client=client)
    if what == "getHandle":
        assert isinstance(ours.getHandle(), Socket)
    elif what == "doRead":
        # So they are read from by the short way.
        assert is_plain(ours)
        assert is_plain(theirs)
    else:
        assert getattr(ours, what)() == getattr(theirs, what)()


@pytest.mark.parametrize("reason", [CONNECTION_DONE, CONNECTION_LOST])
def test_they_end_as_twisteds_do(reason: Any) -> None:
    for kind in TCPTransport, tcp.Server:
        transport = connected(kind)
        protocol, skt = transport.protocol, transport.socket
        transport.connectionLost(Failure(reason))
        transport.connectionLost(Failure(reason))
        [(value, descriptor, _)] = protocol.ended
        assert value is reason
        assert descriptor == transport.fileno() == -1
        assert skt.closed
        assert not transport.reactor.readers


def test_what_has_ended_can_still_be_named_in_a_log() -> None:
    transport = connected()
    protocol = transport.protocol
    transport.connectionLost(Failure(CONNECTION_DONE))
    assert protocol.ended[0][2] == repr(transport) == "<TCPTransport #5 on 8000>"
    assert transport.logPrefix() == "TCPTransport,5,192.0.2.7"


def test_peers_of_one_host_share_its_name() -> None:
    port = make_port()
    made = [connected(port=port, client=("".join(["192.0.2.", end]), n)) for n, end in enumerate("7787")]
    hosts = [transport.client[0] for transport in made]
    assert hosts == ["192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.7"]
    assert hosts[0] is hosts[1]
    assert [transport.client[1] for transport in made] == [0, 1, 2, 3]
    assert all(transport.hostname is transport.client[0] for transport in made)


class DualStackSocket(Socket):
    def getsockname(self) -> tuple[str, int, int, int]:
        return "::ffff:198.51.100.1", 8000, 0, 0


def test_a_client_of_ipv4_on_a_socket_of_ipv6_is_one_of_ipv4() -> None:
    """So each line of the log that names the transport's peer says so too."""
    port, skt, protocol = make_port(), DualStackSocket(), Noting()
    made: Any = TCPTransport(skt, protocol, ("::ffff:192.0.2.7", 4711, 0, 0), port, 5, port.reactor)  # type: ignore[arg-type]
    assert (made.getPeer(), made.getHost()) == (
        IPv4Address("TCP", "192.0.2.7", 4711), IPv4Address("TCP", "198.51.100.1", 8000),
    )  # fmt: skip
    assert (made.client, made.hostname) == (("192.0.2.7", 4711), "192.0.2.7")
