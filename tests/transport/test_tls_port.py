"""The port that TLS connections share; connections themselves are in test_tls.py."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from asgiserver.transport.tls import TLSTransport
from asgiserver.transport.tls_port import TLSPort
from tests.transport.test_tls import HTTP, ISSUED, Fixed, Reactor, Socket


def secured(factory: Factory) -> TLSPort:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ISSUED.configure_cert(context)
    port = TLSPort(0, factory, reactor=Reactor())
    port.secure(Fixed(context))
    return port


def test_a_factory_is_asked_what_may_be_spoken() -> None:
    assert secured(HTTP()).protocols == {b"http/1.1"}


def test_one_that_does_not_say_leaves_it_open() -> None:
    assert secured(Factory()).protocols == frozenset()


def test_its_connections_work_in_its_memory() -> None:
    port = secured(HTTP())
    skt: Any = Socket()
    one, other = (TLSTransport(skt, Protocol(), ("192.0.2.7", 4711), port, n, port.reactor) for n in range(2))
    assert one._incoming is other._incoming is port.incoming
    assert one._outgoing is other._outgoing is port.outgoing
    assert one._received is other._received is port.received
    assert port.transport is TLSTransport
