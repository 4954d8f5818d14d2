from __future__ import annotations

import random
import ssl
from itertools import pairwise

import pytest

from asgiserver.transport.client_hello import NO_APPLICATION_PROTOCOL, IncompleteHello, is_request, offered_protocols


def hello(*protocols: str, name: str = "localhost") -> bytes:
    """What OpenSSL says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(data: bytes, count: int) -> bytes:
    """The same message in as many records, the first of one byte."""
    message = data[5:]
    cuts = [0, *range(1, count), len(message)]
    parts = [message[start:end] for start, end in pairwise(cuts)]
    return b"".join(data[:3] + len(part).to_bytes(2) + part for part in parts)


class TestOffers:
    @pytest.mark.parametrize("protocols", [("h2",), ("h2", "http/1.1"), ("x" * 255, "http/1.1")])
    def test_are_told_in_the_clients_order(self, protocols: tuple[str, ...]) -> None:
        assert offered_protocols(hello(*protocols)) == [protocol.encode() for protocol in protocols]

    def test_may_be_missing(self) -> None:
        assert offered_protocols(hello()) is None

    def test_are_found_after_a_long_name(self) -> None:
        name = ".".join(["a" * 60] * 4)
        assert offered_protocols(hello("h2", name=name)) == [b"h2"]

    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_may_come_in_several_records(self, count: int) -> None:
        assert offered_protocols(in_records(hello("h2"), count)) == [b"h2"]

    def test_do_not_mind_what_follows(self) -> None:
        assert offered_protocols(hello("h2") + b"\x16\x03\x03\x00\x01x") == [b"h2"]


class TestIncomplete:
    @pytest.mark.parametrize("count", [1, 4])
    def test_every_beginning_asks_for_more(self, count: int) -> None:
        whole = in_records(hello("h2"), count)
        for size in range(len(whole)):
            with pytest.raises(IncompleteHello):
                offered_protocols(whole[:size])


class TestWhatIsLeftForOpenSSL:
    @pytest.mark.parametrize("data", [
        b"GET / HTTP/1.1\r\n",
        b"G",
        b"\x80\x2e\x01\x00\x02",  # SSL 2
        b"\x16\x03\x01\x00\x04\x02",  # a handshake that begins with another message
        b"\x16\x03\x01\x40\x00\x01\x00\x40\x00",  # 16,384 bytes, and a header
        b"\x16\x03\x01\x00\x00" * 4,  # empty records
    ])  # fmt: skip
    def test_it_is_nothing_that_could_be_understood(self, data: bytes) -> None:
        assert offered_protocols(data) is None

    def test_it_is_in_too_many_records(self) -> None:
        assert offered_protocols(in_records(hello("h2"), 5)) is None

    def test_it_is_damaged(self) -> None:
        """Whatever is in it, there is an answer, and no other exception; a peer may send what it likes."""
        random.seed(7301)
        whole = hello("h2", "http/1.1")
        for _ in range(3000):
            damaged = bytearray(whole)
            for _ in range(random.randint(1, 6)):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            try:
                offered = offered_protocols(bytes(damaged))
            except IncompleteHello:
                continue
            assert offered is None or all(isinstance(name, bytes) for name in offered)


def test_the_alert_is_one_that_openssl_understands() -> None:
    incoming = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(NO_APPLICATION_PROTOCOL)
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        client.do_handshake()


class TestRequests:
    """What is no TLS, but HTTP."""

    @pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0\r\n", b"PUT "])
    def test_a_method_and_a_space_are_one(self, data: bytes) -> None:
        assert is_request(data)

    @pytest.mark.parametrize("data", [b"G", b"GET", b"M-", b"A" * 20])
    def test_a_method_may_go_on(self, data: bytes) -> None:
        with pytest.raises(IncompleteHello):
            is_request(data)

    @pytest.mark.parametrize(
        "data", [b"\x16\x03\x01", b"\x80\x2e", b"", b" GET /", b"get / ", b"GE\r\n", b"-G", b"A" * 21]
    )
    def test_nothing_else_is(self, data: bytes) -> None:
        assert not is_request(data)
