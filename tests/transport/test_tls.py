"""The TLS transport over a socket in memory, against a client of Python's own ``ssl``; no socket, no reactor."""

from __future__ import annotations

import errno
import gc
import logging
import random
import socket
import ssl
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import trustme
from twisted.internet import main
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolNegotiationFactory, ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from asgiserver.transport.certificates import Certificates
from asgiserver.transport.tls import TLSTransport
from asgiserver.transport.tls_port import TLSPort

AUTHORITY = trustme.CA()
ISSUED = AUTHORITY.issue_cert("localhost")
MEBIBYTE = 1 << 20


class Socket:
    """The server's end of a connection.

    :ivar room: bytes that it takes before the peer has to read.
    """

    def __init__(self) -> None:
        self.arrived = bytearray()
        self.taken = bytearray()
        self.sends: list[int] = []
        self.room = 1 << 30
        self.error: OSError | None = None
        self.ended = False
        self.half_closed = False
        self.closed = False

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def fileno(self) -> int:
        return -1 if self.closed else 7

    def recv_into(self, buffer: memoryview) -> int:
        if self.error is not None:
            raise self.error
        size = min(len(buffer), len(self.arrived))
        if not size and not self.ended:
            raise BlockingIOError(errno.EAGAIN, "empty")
        buffer[:size] = self.arrived[:size]
        del self.arrived[:size]
        return size

    def recv(self, size: int, flags: int = 0) -> bytes:
        before = bytes(self.arrived)
        data = bytearray(size)
        got = self.recv_into(memoryview(data))
        if flags:
            assert flags == socket.MSG_PEEK
            self.arrived[:] = before
        return bytes(data[:got])

    def send(self, data: bytes | memoryview) -> int:
        assert not self.half_closed
        assert len(data)
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "full")
        size = min(len(data), self.room)
        self.room -= size
        self.taken += data[:size]
        self.sends.append(size)
        return size

    def shutdown(self, how: int) -> None:
        self.half_closed = True

    def setsockopt(self, *_: object) -> None:
        """For an abort."""

    def close(self) -> None:
        self.closed = True


class Reactor:
    """Knows who wants to read and write, and nothing else."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def callLater(self, _: float, function: Any, *args: Any) -> None:
        function(*args)


class Recorder(Protocol):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost: Failure | None = None
        self.answer: Any = lambda data: None

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        self.answer(data)

    def connectionLost(self, reason: Failure = main.CONNECTION_DONE) -> None:
        self.lost = reason


@implementer(IProtocolNegotiationFactory)
class HTTP(Factory):
    noisy = False

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


class Fixed(Certificates):
    """One context, of no file."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def offer(self, protocols: Iterable[str]) -> None:
        self.context.set_alpn_protocols([*protocols])

    def current(self) -> ssl.SSLContext:
        return self.context


def make_port(factory: Factory | None = None) -> TLSPort:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ISSUED.configure_cert(context)
    port = TLSPort(0, factory or HTTP(), reactor=Reactor())
    port.secure(Fixed(context))
    return port


def client_context(*protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class Connection:
    """A transport with its protocol and socket, and the client at the other end."""

    def __init__(
        self, port: TLSPort | None = None, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
    ) -> None:
        port = port or make_port()
        self.socket, self.protocol, self.reactor = Socket(), Recorder(), port.reactor
        skt: Any = self.socket
        self.transport: TLSTransport = port.transport(skt, self.protocol, ("192.0.2.7", 4711), port, 0, self.reactor)
        self.port = port
        self.protocol.makeConnection(self.transport)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = (context or client_context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost", session=session
        )
        self.received = bytearray()
        self.told = False

    # The reactor's part.

    def read(self) -> Any:
        """One call of ``doRead``, and what the reactor makes of its result."""
        return self._act(self.transport.doRead())

    def write(self) -> Any:
        assert self.transport in self.reactor.writers, "the reactor was not asked to"
        return self._act(self.transport.doWrite())

    def _act(self, why: Any) -> Any:
        assert not self.port.incoming.pending
        assert not self.port.outgoing.pending
        if why is not None:
            self.transport.connectionLost(Failure(why))
        return why

    @property
    def writing(self) -> bool:
        return self.transport in self.reactor.writers

    # The client's part.

    def send(self, data: bytes) -> None:
        self.client.write(data)
        self.deliver()

    def deliver(self) -> None:
        self.socket.arrived += self.outgoing.read()

    def take(self) -> bytes:
        """What the client can decrypt by now."""
        self.incoming.write(bytes(self.socket.taken))
        self.socket.taken.clear()
        try:
            while piece := self.client.read(65536):
                self.received += piece
            self.told = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.told = True
        data = bytes(self.received)
        self.received.clear()
        return data

    def step(self) -> bool:
        """The client does what it can to shake hands; True when it is through."""
        self.incoming.write(bytes(self.socket.taken))
        self.socket.taken.clear()
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.deliver()
        return True

    def shake_hands(self) -> Connection:
        while not self.step():
            self.read()
        self.read()
        # The tickets.
        assert self.take() == b""
        return self


@pytest.fixture
def connection() -> Connection:
    return Connection().shake_hands()


def spy(connection: Connection) -> list[int]:
    """How much is asked for with each call of OpenSSL's reading, from now on."""
    calls: list[int] = []
    records = connection.transport._records

    class Spy:
        def read(self, size: int) -> bytes:
            calls.append(size)
            data: bytes = records.read(size)
            return data

    connection.transport._records = Spy()
    return calls


class TestReading:
    def test_hands_the_plain_text_on(self, connection: Connection) -> None:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.read() is None
        assert connection.protocol.pieces == [b"GET / HTTP/1.1\r\n\r\n"]

    def test_all_records_of_a_read_are_one_piece(self, connection: Connection) -> None:
        body = random.Random(1).randbytes(60000)
        connection.send(body)
        connection.read()
        assert connection.protocol.pieces == [body]

    def test_a_record_may_come_in_any_pieces(self, connection: Connection) -> None:
        connection.client.write(b"one")
        connection.client.write(b"two")
        for byte in connection.outgoing.read():
            connection.socket.arrived.append(byte)
            connection.read()
        assert connection.protocol.pieces == [b"one", b"two"]

    def test_data_right_behind_the_handshake_is_not_left_lying(self) -> None:
        connection = Connection()
        while not connection.step():
            connection.read()
        connection.send(b"early")
        connection.read()
        assert connection.protocol.pieces == [b"early"]

    def test_a_whole_record_is_one_call_of_openssl(self, connection: Connection) -> None:
        """And no exception, which would cost as much as the call."""
        assert connection.transport._records is connection.transport._tls._sslobj
        calls = spy(connection)
        for size in (1, 40, 16000):
            connection.send(bytes(size))
            assert connection.read() is None
        assert calls == [22 + 1, 22 + 40, 22 + 16000]
        assert connection.protocol.pieces == [bytes(1), bytes(40), bytes(16000)]

    def test_the_end_of_a_record_brings_more_than_itself(self, connection: Connection) -> None:
        """What is read then was received before, so it is longer than what is received now."""
        body = random.Random(7).randbytes(16384)
        connection.client.write(body)
        connection.client.write(b"next")
        data = connection.outgoing.read()
        for part in (data[:9000], data[9000:16390], data[16390:]):
            connection.socket.arrived += part
            assert connection.read() is None
        assert connection.protocol.pieces == [body + b"next"]

    def test_a_record_whose_end_is_as_long_as_its_data(self, connection: Connection) -> None:
        connection.send(b"0123456789")
        data = bytes(connection.socket.arrived)
        for part in (data[:-10], data[-10:]):
            connection.socket.arrived[:] = part
            assert connection.read() is None
        assert connection.protocol.pieces == [b"0123456789"]

    @pytest.mark.parametrize("size", [16000, 16361, 16362, 16363, 16383, 16384])
    def test_the_largest_records(self, connection: Connection, size: int) -> None:
        connection.send(bytes(size))
        connection.read()
        assert connection.protocol.pieces == [bytes(size)]

    def test_many_tiny_records(self, connection: Connection) -> None:
        for _ in range(5000):
            connection.client.write(b"x")
        connection.deliver()
        connection.read()
        assert connection.protocol.pieces == [b"x" * 5000]

    def test_what_openssl_answers_to_a_record_is_sent_first(self, connection: Connection) -> None:
        """As to a new key of the peer's, which may come with data."""
        records = connection.transport._records

        class Answering:
            def read(self, size: int) -> bytes:
                data: bytes = records.read(size)
                connection.port.outgoing.write(b"a key of ours")
                return data

        connection.transport._records = Answering()
        connection.protocol.answer = lambda _: connection.socket.send(b", an answer")
        connection.send(b"data")
        assert connection.read() is None
        assert connection.protocol.pieces == [b"data"]
        assert connection.socket.taken == b"a key of ours, an answer"

    def test_what_fails_for_another_reason_leaves_nothing_to_the_next_connection(self, connection: Connection) -> None:
        class Failing:
            def read(self, size: int) -> bytes:
                raise MemoryError

        connection.transport._records = Failing()
        connection.send(b"data")
        with pytest.raises(MemoryError):
            connection.read()
        assert not connection.port.incoming.pending

    def test_a_protocol_that_fails_leaves_nothing_to_the_next_connection(self, connection: Connection) -> None:
        def fail(_: bytes) -> None:
            raise ssl.SSLError(1, "of another connection")

        connection.protocol.answer = fail
        for size in (4, 20000):
            connection.send(bytes(size))
            with pytest.raises(ssl.SSLError, match="of another connection"):
                connection.read()
            assert not connection.port.incoming.pending

    def test_without_python_s_own_shortcut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """``SSLObject`` does not promise to keep what it wraps where it is."""
        connection = Connection()
        tls = connection.transport._tls

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                if name == "_sslobj":
                    raise AttributeError(name)
                return getattr(tls, name)

        connection.transport._tls = Wrapped()
        connection.shake_hands()
        assert isinstance(connection.transport._records, Wrapped)
        connection.send(b"ping")
        connection.read()
        assert connection.protocol.pieces == [b"ping"]
        assert connection.transport.send(b"pong") == 4
        assert connection.take() == b"pong"

    def test_nothing_there_is_no_harm(self, connection: Connection) -> None:
        assert connection.read() is None

    def test_the_end_without_close_notify_is_the_end(self, connection: Connection) -> None:
        connection.socket.ended = True
        assert connection.read() is main.CONNECTION_DONE

    def test_a_reset_is_a_lost_connection(self, connection: Connection) -> None:
        connection.socket.error = ConnectionResetError()
        assert connection.read() is main.CONNECTION_LOST

    def test_a_forged_record_is_answered_with_an_alert(
        self, connection: Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        connection.client.write(b"good")
        connection.client.write(b"bad")
        data = bytearray(connection.outgoing.read())
        data[-1] ^= 1
        connection.socket.arrived += data + b"behind it"
        assert connection.read() is main.CONNECTION_LOST
        assert connection.protocol.pieces == [b"good"]
        with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
            connection.take()
        assert "TLS connection with 192.0.2.7 failed: " in caplog.text
        assert "Traceback" not in caplog.text

    def test_a_protocol_that_ends_the_connection_within_is_asked_no_more(self, connection: Connection) -> None:
        connection.protocol.answer = lambda _: connection.transport.abortConnection()
        connection.client.write(b"data")
        with pytest.raises(ssl.SSLWantReadError):
            connection.client.unwrap()
        connection.deliver()
        assert connection.read() is None
        assert connection.protocol.lost is not None
        assert connection.protocol.lost.check(ConnectionAborted)


class TestWriting:
    def test_small_data_is_one_call_of_the_socket(self, connection: Connection) -> None:
        connection.socket.sends.clear()
        assert connection.transport.writeSomeData(b"answer") == 6
        assert len(connection.socket.sends) == 1
        assert connection.take() == b"answer"
        assert not connection.writing

    def test_64_kib_are_one_call_too(self, connection: Connection) -> None:
        connection.socket.sends.clear()
        assert connection.transport.writeSomeData(bytes(65536)) == 65536
        assert len(connection.socket.sends) == 1

    def test_large_data_is_encrypted_little_by_little(self, connection: Connection) -> None:
        body = memoryview(random.Random(2).randbytes(MEBIBYTE))
        sent = connection.transport.writeSomeData(body)
        assert sent == 131072
        assert connection.take() == body[:sent]

    def test_a_full_socket_has_sent_nothing_until_the_piece_is_gone(self, connection: Connection) -> None:
        body = random.Random(3).randbytes(300000)
        connection.socket.room = 1000
        assert connection.transport.writeSomeData(body) == 0
        assert connection.writing
        assert connection.transport.writeSomeData(body) == 0
        connection.socket.room = 1 << 30
        # The rest of the first piece, and the second.
        assert connection.transport.writeSomeData(body) == 2 * 131072
        assert connection.take() == body[: 2 * 131072]

    @pytest.mark.parametrize("how", ["send", "writeSomeData"])
    def test_whatever_the_socket_takes_arrives_once_and_in_order(self, how: str) -> None:
        chance = random.Random(4)
        for _ in range(20):
            connection = Connection().shake_hands()
            transport, expected, got = connection.transport, b"", b""
            for _ in range(30):
                data = chance.randbytes(chance.choice((1, 100, 16384, 70000, 200000)))
                expected += data
                rest: bytes | memoryview = data
                if not transport.dataBuffer and not transport._tempDataBuffer:
                    # As HTTPConnection does it.
                    while rest and (sent := getattr(transport, how)(rest)) > 0:
                        rest = rest[sent:]
                transport.write(bytes(rest))
                connection.socket.room = chance.choice((0, 1, 5, 1000, 16406, 100000, 1 << 20))
                while connection.writing and connection.socket.room:
                    connection.write()
                got += connection.take()
            connection.socket.room = 1 << 30
            while connection.writing:
                connection.write()
            assert got + connection.take() == expected

    def test_a_producer_is_paused_and_resumed(self, connection: Connection) -> None:
        calls: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

        connection.transport.registerProducer(Producer(), True)
        connection.socket.room = 100
        connection.transport.write(bytes(100000))
        assert calls == ["pause"]
        connection.write()
        assert calls == ["pause"]
        connection.socket.room = 1 << 30
        while connection.writing:
            connection.write()
        assert calls == ["pause", "resume"]
        assert connection.take() == bytes(100000)

    def test_a_reset_is_told_to_whoever_writes(self, connection: Connection) -> None:
        connection.socket.error = BrokenPipeError()
        assert connection.transport.writeSomeData(b"answer") is main.CONNECTION_LOST
        connection.transport.write(b"answer")
        assert connection.write() is main.CONNECTION_LOST

    def test_a_kernel_without_memory_is_only_a_full_socket(self, connection: Connection) -> None:
        connection.socket.error = OSError(errno.ENOBUFS, "no memory")
        connection.transport.write(b"answer")
        assert connection.write() is None
        connection.socket.error = None
        assert connection.write() is None
        assert connection.take() == b"answer"

    def test_a_reset_is_met_with_data_under_way(self, connection: Connection) -> None:
        connection.socket.room = 100
        assert connection.transport.writeSomeData(bytes(1000)) == 0
        connection.socket.error = BrokenPipeError()
        assert connection.transport.writeSomeData(bytes(1000)) is main.CONNECTION_LOST
        assert connection.write() is main.CONNECTION_LOST

    def test_an_error_of_openssl_ends_the_connection(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)

        class Broken:
            def write(self, data: bytes) -> int:
                connection.port.outgoing.write(b"half a record")
                error = ssl.SSLError(1, "internal error")
                error.reason = "INTERNAL_ERROR"
                raise error

        monkeypatch.setattr(connection.transport, "_records", Broken())
        with pytest.raises(ssl.SSLError):
            connection.transport.send(b"answer")
        assert not connection.port.outgoing.pending
        connection.transport.write(b"answer")
        assert connection.write() is main.CONNECTION_LOST
        assert caplog.text.count("TLS connection with 192.0.2.7 failed: INTERNAL_ERROR") == 1

    def test_a_peer_that_takes_no_alerts_cannot_make_them_pile_up(self, connection: Connection) -> None:
        connection.socket.room = 0
        connection.transport.writeSomeData(b"x")
        for _ in range(100):
            connection.port.outgoing.write(bytes(16384))
            connection.send(b"ping")
            if connection.read() is main.CONNECTION_LOST:
                break
        else:
            pytest.fail("they pile up")


class TestSending:
    """What a connection writes by while nothing waits."""

    def test_small_data_is_one_record_and_one_call_of_the_socket(self, connection: Connection) -> None:
        connection.socket.sends.clear()
        assert connection.transport.send(b"answer") == 6
        assert connection.socket.sends == [5 + 6 + 1 + 16]
        assert connection.socket.taken[3:5] == (6 + 1 + 16).to_bytes(2)
        assert connection.take() == b"answer"
        assert not connection.writing

    def test_large_data_goes_at_once_in_pieces(self, connection: Connection) -> None:
        body = random.Random(8).randbytes(300000)
        connection.socket.sends.clear()
        assert connection.transport.send(body) == len(body)
        assert len(connection.socket.sends) == 3
        assert connection.take() == body

    def test_nothing_is_sent_as_nothing(self, connection: Connection) -> None:
        connection.socket.sends.clear()
        assert connection.transport.send(b"") == 0
        assert connection.socket.sends == []

    @pytest.mark.parametrize("room", [0, 10])
    def test_what_a_full_socket_does_not_take_is_kept(self, connection: Connection, room: int) -> None:
        connection.socket.room = room
        assert connection.transport.send(b"answer") == 0
        assert connection.writing
        connection.transport.write(b"answer")
        connection.socket.room = 1 << 30
        while connection.writing:
            connection.write()
        assert connection.take() == b"answer"
        assert connection.transport.send(b"next") == 4
        assert connection.take() == b"next"

    def test_it_goes_behind_what_openssl_has_to_say(self, connection: Connection) -> None:
        connection.socket.room = 0
        connection.port.outgoing.write(b"an alert")
        connection.transport._flush()
        assert connection.transport.send(b"answer") == 0
        connection.transport.write(b"answer")
        connection.socket.room = 1 << 30
        connection.write()
        assert connection.socket.taken.startswith(b"an alert")
        del connection.socket.taken[: len(b"an alert")]
        assert connection.take() == b"answer"

    def test_a_reset_is_an_error_that_is_met_again(self, connection: Connection) -> None:
        connection.socket.error = BrokenPipeError(errno.EPIPE, "gone")
        with pytest.raises(BrokenPipeError):
            connection.transport.send(b"answer")
        connection.transport.write(b"answer")
        assert connection.write() is main.CONNECTION_LOST

    def test_before_the_handshake_nothing_is(self) -> None:
        connection = Connection()
        assert connection.transport.send(b"503") == 0
        assert connection.socket.taken == b""

    def test_after_close_notify_it_is_dropped(self, connection: Connection) -> None:
        connection.transport.loseWriteConnection()
        connection.write()
        connection.take()
        assert connection.transport.send(b"too late") == 8
        assert connection.socket.taken == b""

    def test_a_protocol_may_send_while_it_is_told_of_the_end(self, connection: Connection) -> None:
        sent: list[int] = []
        protocol: Any = connection.protocol
        protocol.connectionLost = lambda reason: sent.append(connection.transport.send(b"too late"))
        connection.transport.connectionLost(Failure(main.CONNECTION_LOST))
        sent.append(connection.transport.send(b"too late"))
        assert sent == [8, 8]
        assert connection.socket.taken == b""


class TestHandshake:
    def test_what_is_written_before_waits_without_waking_anybody(self) -> None:
        connection = Connection()
        assert connection.transport.writeSomeData(b"503") == 0
        connection.transport.write(b"503")
        assert not connection.writing
        connection.step()
        connection.read()
        assert not connection.writing
        connection.step()
        connection.read()
        connection.write()
        assert connection.take() == b"503"

    def test_a_full_socket_holds_it_up_but_does_not_stop_it(self) -> None:
        connection = Connection()
        connection.socket.room = 10
        connection.transport.write(b"503")
        connection.step()
        connection.read()
        for _ in range(500):
            if connection.socket.room or not connection.writing:
                break
            connection.socket.room = 10
            connection.write()
        assert not connection.writing
        connection.socket.room = 1 << 30
        assert connection.step()
        connection.read()
        while connection.writing:
            connection.write()
        assert connection.take() == b"503"

    def test_many_at_once_do_not_disturb_each_other(self) -> None:
        """They share OpenSSL's input and output, and one of them leaves in the middle."""
        port = make_port()
        connections = [Connection(port) for _ in range(10)]
        waiting = list(connections)
        chance = random.Random(5)
        while waiting:
            connection = chance.choice(waiting)
            through = connection.step()
            while connection.socket.arrived:
                some = bytes(connection.socket.arrived[: chance.randint(1, 300)])
                rest = bytes(connection.socket.arrived[len(some) :])
                connection.socket.arrived[:] = some
                connection.read()
                connection.socket.arrived[:] = rest
            if through:
                waiting.remove(connection)
            if connection is connections[3] and connection in waiting:
                waiting.remove(connection)
                connection.transport.connectionLost(Failure(main.CONNECTION_LOST))
                connections.remove(connection)
        for number, connection in enumerate(connections):
            connection.take()
            connection.send(b"%d" % number)
            connection.read()
            assert connection.protocol.pieces == [b"%d" % number]
            connection.transport.write(b"%d" % -number)
            connection.write()
            assert connection.take() == b"%d" % -number

    def test_alpn_says_what_is_spoken(self) -> None:
        connection = Connection(context=client_context("h2", "http/1.1"))
        assert connection.transport.negotiatedProtocol is None
        connection.shake_hands()
        assert connection.transport.negotiatedProtocol == b"http/1.1"
        assert connection.client.selected_alpn_protocol() == "http/1.1"

    def test_without_alpn_nothing_is_said(self, connection: Connection) -> None:
        assert connection.transport.negotiatedProtocol is None

    @pytest.mark.parametrize("size", [1, 100, 1 << 20])
    def test_a_client_that_speaks_only_something_else_is_refused(self, size: int) -> None:
        connection = Connection(context=client_context("h2"))
        connection.step()
        data = bytes(connection.socket.arrived)
        for start in range(0, len(data), size):
            connection.socket.arrived[:] = data[start : start + size]
            done = connection.read()
        assert done is main.CONNECTION_DONE
        with pytest.raises(ssl.SSLError, match="no application protocol"):
            connection.step()

    def test_a_factory_that_does_not_say_what_it_speaks_takes_anybody(self) -> None:
        connection = Connection(make_port(Factory()), client_context("h2")).shake_hands()
        assert connection.transport.negotiatedProtocol is None

    def test_plain_http_is_turned_away_without_a_word_of_it(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        connection = Connection()
        connection.socket.arrived += b"GET / HTTP/1.1\r\n\r\n"
        assert connection.read() is main.CONNECTION_LOST
        assert connection.protocol.pieces == []
        assert "TLS handshake with 192.0.2.7 failed: HTTP_REQUEST" in caplog.text

    def test_a_client_of_tls_1_1_gets_an_alert(self) -> None:
        context = client_context()
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        connection = Connection(context=context)
        connection.port.certificates.current().minimum_version = ssl.TLSVersion.TLSv1_2
        connection.step()
        assert connection.read() is main.CONNECTION_LOST
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
            connection.step()

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_client_that_comes_back_resumes_its_session(self, version: ssl.TLSVersion) -> None:
        port, context = make_port(), client_context()
        context.maximum_version = version
        first = Connection(port, context).shake_hands()
        assert not first.client.session_reused
        again = Connection(port, context, first.client.session).shake_hands()
        assert again.client.session_reused


class TestClosing:
    def test_close_notify_comes_after_the_data(self, connection: Connection) -> None:
        connection.socket.room = 0
        connection.transport.write(bytes(100000))
        connection.transport.loseConnection()
        for _ in range(200):
            connection.socket.room = 1000
            if connection.write() is not None:
                break
        assert connection.take() == bytes(100000)
        assert connection.told
        assert connection.socket.closed
        assert connection.protocol.lost is not None

    def test_a_half_close_is_close_notify_and_then_the_end(self, connection: Connection) -> None:
        connection.transport.write(b"last")
        connection.transport.loseWriteConnection()
        connection.socket.room = 30
        connection.write()
        assert not connection.socket.half_closed
        connection.socket.room = 1 << 30
        while connection.writing:
            connection.write()
        assert connection.socket.half_closed
        assert not connection.socket.closed
        assert connection.take() == b"last"
        assert connection.told
        # What the peer still sends can be read.
        connection.send(b"more")
        connection.read()
        assert connection.protocol.pieces == [b"more"]
        connection.client.unwrap()
        connection.deliver()
        assert connection.read() is main.CONNECTION_DONE

    def test_a_half_close_with_a_full_socket_waits_for_room(self, connection: Connection) -> None:
        connection.socket.room = 0
        connection.transport.loseWriteConnection()
        connection.write()
        assert connection.writing
        connection.socket.room = 5
        connection.write()
        assert not connection.socket.half_closed
        connection.socket.room = 1000
        connection.write()
        assert connection.socket.half_closed
        assert not connection.writing
        assert connection.take() == b""
        assert connection.told

    def test_the_peers_close_notify_is_the_end_and_is_answered(self, connection: Connection) -> None:
        connection.client.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            connection.client.unwrap()
        connection.deliver()
        connection.protocol.answer = connection.transport.writeSomeData
        assert connection.read() is main.CONNECTION_DONE
        assert connection.protocol.pieces == [b"last"]
        connection.incoming.write(bytes(connection.socket.taken))
        assert connection.client.read() == b"last"
        connection.client.unwrap()

    @pytest.mark.parametrize("behind", [b"", b"no record"])
    def test_the_peers_close_notify_may_come_alone_or_with_junk(self, connection: Connection, behind: bytes) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            connection.client.unwrap()
        connection.deliver()
        connection.socket.arrived += behind
        assert connection.read() is main.CONNECTION_DONE
        assert connection.protocol.pieces == []
        connection.incoming.write(bytes(connection.socket.taken))
        connection.client.unwrap()

    def test_the_peers_close_notify_leaves_whoever_can_send_on_its_own_direction(self, connection: Connection) -> None:
        directlyProvides(connection.protocol, IHalfCloseableProtocol)
        connection.client.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            connection.client.unwrap()
        connection.deliver()
        assert connection.transport.doRead() is main.CONNECTION_DONE
        connection.transport.write(b"our last")
        connection.transport.loseConnection()
        assert connection.write() is main.CONNECTION_DONE
        assert connection.take() == b"our last"
        assert connection.told

    def test_nothing_follows_close_notify(self, connection: Connection) -> None:
        connection.socket.room = 10
        connection.transport.loseConnection()
        connection.write()
        connection.transport.write(b"too late")
        connection.socket.room = 1 << 30
        assert connection.write() is main.CONNECTION_DONE
        assert connection.take() == b""
        assert connection.told

    def test_before_the_handshake_it_is_a_plain_end(self) -> None:
        connection = Connection()
        connection.transport.loseConnection()
        assert connection.write() is main.CONNECTION_DONE
        assert connection.socket.taken == b""

    def test_before_the_handshake_a_half_close_is_one(self) -> None:
        connection = Connection()
        connection.step()
        connection.read()
        connection.transport.loseWriteConnection()
        connection.write()
        assert connection.socket.half_closed
        assert not connection.writing

    @pytest.mark.parametrize("close", ["loseConnection", "loseWriteConnection"])
    def test_what_was_written_before_the_handshake_is_sent_first(self, close: str) -> None:
        connection = Connection()
        connection.transport.write(b"503")
        getattr(connection.transport, close)()
        assert not connection.writing
        assert connection.transport in connection.reactor.readers
        while not connection.step():
            connection.read()
        connection.read()
        while connection.writing:
            connection.write()
        assert connection.take() == b"503"
        assert connection.told

    def test_a_closed_connection_is_freed_without_the_garbage_collector(self) -> None:
        gc.collect()
        gc.disable()
        try:
            connection = Connection().shake_hands()
            transport, tls = weakref.ref(connection.transport), weakref.ref(connection.transport._tls)
            connection.transport.connectionLost(Failure(main.CONNECTION_DONE))
            assert tls() is None
            connection.protocol.transport = None
            del connection
            assert transport() is None
        finally:
            gc.enable()


def test_the_transport_says_that_it_is_secure(connection: Connection) -> None:
    assert ISSLTransport.providedBy(connection.transport)
    assert connection.transport.getPeerCertificate() is None
