"""TLS connections: Twisted's TCP transport with OpenSSL between the socket and the protocol.

Twisted's own TLS wraps one transport in another and goes through pyOpenSSL. Here Python's ``ssl`` does the same in
fewer steps, and nothing has to be installed for it.

OpenSSL works in memory buffers that belong to the port, not to the connection. All received bytes are decrypted and all
encrypted bytes are taken out before a call returns: so the buffers are empty between two calls, and an idle connection
keeps none. A read and a write need one system call each; with the socket in its own hands, OpenSSL would make two for
each record that it reads, and one for each that it writes.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from twisted.internet import main
from twisted.internet.interfaces import IHalfCloseableProtocol, INegotiated, ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from .client_hello import NO_APPLICATION_PROTOCOL, IncompleteHello, is_request, offered_protocols
from .tcp import TCPTransport
from .tls_details import session_details

if TYPE_CHECKING:
    from ..asgi.scope import TLS
    from .tls_port import TLSPort

__all__ = ["READ_SIZE", "TLSTransport"]

logger = logging.getLogger("asgiserver.wire")

#: Most bytes of data in a record (RFC 8446 §5.1).
_RECORD = 16384

#: Read from the socket, and encrypted for it, at a time; bytes.
READ_SIZE = 131072
_WRITE = 131072

#: Most bytes of OpenSSL's own messages that are kept for a peer that takes none; an honest peer never causes so many.
_MOST_SEALED = 2 * _WRITE

#: Errors of a socket that takes no more. The last means that the kernel is full; Twisted treats it so too.
_FULL = errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS


class _State(Enum):
    HELLO = auto()  # the client's first message has not come whole
    PLAIN = auto()  # the client speaks HTTP without TLS
    SHAKING = auto()
    OPEN = auto()
    CLOSED = auto()  # close_notify is sent or waits in ``sealed``, or the connection is lost


#: Names of the module's own, as an enum's members are slower to look up.
_HELLO, _PLAIN, _SHAKING, _OPEN, _CLOSED = _State


@implementer(ISSLTransport, INegotiated)
class TLSTransport(TCPTransport):
    """One connection, from the client's first byte on: ``connectionMade`` comes before the handshake.

    Data that is written before the end of the handshake waits for it. ``send`` and ``writeSomeData`` may have encrypted
    more than they say they have sent; so their caller has to ``write`` the rest before anything else.

    :ivar sealed: bytes that OpenSSL has made and the socket has not taken.
    :ivar _claimed: bytes of plain data that are encrypted in ``sealed`` and not reported as sent yet.
    :ivar _records: reads and writes records; None until the handshake is done, and after the connection is lost.
    """

    protocol: Any
    server: TLSPort

    def __init__(
        self, skt: socket.socket, protocol: Any, client: tuple[object, ...], server: TLSPort, number: int, reactor: Any
    ) -> None:
        super().__init__(skt, protocol, client, server, number, reactor)
        self._received, self._incoming, self._outgoing = server.received, server.incoming, server.outgoing
        context = server.certificates.current()
        self._tls: Any = context.wrap_bio(server.incoming, server.outgoing, server_side=True)
        self._records: Any = None
        self._state = _HELLO
        self._hello = b""
        self.sealed: bytes | memoryview = b""
        self._claimed = 0
        timeout = server.handshake_timeout
        self._clock: Any = None if timeout is None else reactor.callLater(timeout, self._late, timeout)

    @property
    def negotiatedProtocol(self) -> bytes | None:  # noqa: N802 - Twisted's name
        """The protocol that ALPN has chosen; None without ALPN, and before the handshake."""
        name = None if self._tls is None else self._tls.selected_alpn_protocol()
        return None if name is None else name.encode("ascii")

    def getPeerCertificate(self) -> bytes | None:  # noqa: N802 - Twisted's name
        """The client's certificate in DER; None when it has shown none."""
        certificate: bytes | None = None if self._records is None else self._tls.getpeercert(binary_form=True)
        return certificate

    def details(self) -> TLS | None:
        """What the connection tells of itself; None before the handshake, and after the connection is lost."""
        return None if self._records is None else session_details(self._tls)

    # Reading.

    def doRead(self) -> Any:  # noqa: N802 - Twisted's name
        """Decrypt the socket's input, and hand it on in one piece."""
        received, incoming = self._received, self._incoming
        try:
            size = self.socket.recv_into(received)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not size:
            return main.CONNECTION_DONE
        if self._state is _HELLO:
            return self._read_hello(bytes(received[:size]))
        if self._state is _PLAIN:
            self.protocol.dataReceived(bytes(received[:size]))
            return None
        if self._records is None or size > _RECORD:
            incoming.write(received[:size])
            return self._unseal([])
        try:
            incoming.write(received[:size])
            # Encryption makes data longer, so all of it fits, unless a part of the record came before.
            data = self._records.read(size)
        except ssl.SSLError as error:
            return self._unseal([], error)
        except BaseException:
            # All connections share the buffer: the input of the next one must not begin with these bytes.
            incoming.read()
            raise
        if not data or len(data) == size or incoming.pending or self._outgoing.pending:
            return self._unseal([data])
        # One whole record of data, and nothing else.
        self.protocol.dataReceived(data)
        return None

    def _read_hello(self, data: bytes) -> Any:
        self._hello += data
        ours = self.server.protocols
        try:
            if is_request(self._hello) and hasattr(self.protocol, "plain_received"):
                self._state, self._hello = _PLAIN, b""
                self._stop_clock()
                self.protocol.plain_received()
                return None
            offered = offered_protocols(self._hello) if ours else None
        except IncompleteHello:
            return None
        if offered is not None and ours.isdisjoint(offered):
            logger.info("TLS handshake with %s failed: it speaks none of our protocols", self._peer())
            self._outgoing.write(NO_APPLICATION_PROTOCOL)
            self._flush()
            return main.CONNECTION_DONE
        self._incoming.write(self._hello)
        self._hello = b""
        self._state = _SHAKING
        return self._unseal([])

    def _unseal(self, pieces: list[bytes], error: ssl.SSLError | None = None) -> Any:
        """Decrypt the input, send OpenSSL's own answers, and hand the data on.

        :param pieces: the data decrypted so far; an empty piece is the peer's close_notify.
        :param error: the error that OpenSSL has met already.
        """
        done: Any = None
        try:
            if error is not None:
                raise error
            if self._state is _SHAKING:
                self._tls.do_handshake()
                self._shaken()
            ended = pieces == [b""]
            while not ended and (self._incoming.pending or self._tls.pending()):
                pieces.append(self._tls.read(_RECORD))
                ended = not pieces[-1]
            if ended:
                raise ssl.SSLZeroReturnError
        except ssl.SSLWantReadError:
            pass  # the rest of the record, or of the handshake, is still to come
        except ssl.SSLZeroReturnError:
            done = main.CONNECTION_DONE
        except ssl.SSLError as error:
            self._log(error)
            done = main.CONNECTION_LOST
        finally:
            if self._incoming.pending:
                self._incoming.read()
        # OpenSSL's part of the handshake, an alert, or an answer to a key update.
        if self._outgoing.pending and not self._flush():
            done = done or main.CONNECTION_LOST
        if data := pieces[0] if len(pieces) == 1 else b"".join(pieces):
            self.protocol.dataReceived(data)
        if done is None or not self.connected:
            return None
        # The peer's close_notify is the end, as a FIN is without TLS; ours follows the data still to be sent.
        if done is main.CONNECTION_LOST or not IHalfCloseableProtocol.providedBy(self.protocol):
            self._close_tls()
        return done

    def _shaken(self) -> None:
        self._state = _OPEN
        self._stop_clock()
        # Python's own object would only call this one.
        self._records = getattr(self._tls, "_sslobj", self._tls)
        if self._waiting():
            self.startWriting()

    def _stop_clock(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.cancel()

    def _late(self, timeout: float) -> None:
        self._clock = None
        logger.info("TLS handshake with %s failed: it took longer than %g seconds", self._peer(), timeout)
        self.abortConnection()  # type: ignore[no-untyped-call]

    def _log(self, error: ssl.SSLError) -> None:
        what = "handshake" if self._state is _SHAKING else "connection"
        logger.info("TLS %s with %s failed: %s", what, self._peer(), error.reason or error)

    def _peer(self) -> object:
        """The client for the log: with a PROXY header the announced one, which may be on a unix socket."""
        peer = self.getPeer()  # type: ignore[no-untyped-call]
        return getattr(peer, "host", peer)

    # Writing.

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send the beginning of ``data``, as a socket does; nothing may wait in front of it.

        :return: how much of it has been sent, bytes; a full socket is not an error.
        :raises OSError: the connection is lost; ``doWrite`` has to meet the error again, and end it.
        """
        size = len(data)
        if self._state is not _OPEN or self.sealed or not 0 < size <= _WRITE:
            return self._send_in_pieces(data)
        try:
            self._records.write(data)
        except ssl.SSLError:
            self._outgoing.read()
            raise
        sealed = self._outgoing.read()
        try:
            sent = self.socket.send(sealed)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            sent = 0
        if sent == len(sealed):
            return size
        self.sealed = memoryview(sealed)[sent:]
        self._claimed = size
        self.startWriting()
        return 0

    def _send_in_pieces(self, data: bytes | memoryview) -> int:
        offset, size = 0, len(data)
        while offset < size:
            sent = self.writeSomeData(memoryview(data)[offset:])
            if isinstance(sent, BaseException) or sent <= 0:
                break
            offset += sent
        return offset

    def writeSomeData(self, data: bytes | memoryview) -> Any:  # noqa: N802 - Twisted's name
        """Encrypt and send the beginning of ``data``.

        :return: how much of it has been sent, bytes, or the error that ends the connection.
        """
        if self._state is _PLAIN:
            return super().writeSomeData(data)  # type: ignore[arg-type]
        if self._state is not _OPEN:
            # Nothing may follow close_notify.
            return len(data) if self._state is _CLOSED else 0
        if self.sealed:
            lost = self._send_sealed()
            if lost is not None or self.sealed:
                return lost or 0
        done, self._claimed = self._claimed, 0
        piece = memoryview(data)[done : done + _WRITE] if done or len(data) > _WRITE else data
        if not piece:
            return done
        try:
            return done + self.send(piece)
        except ssl.SSLError as error:
            self._log(error)
        except OSError:
            pass  # a reset
        return main.CONNECTION_LOST

    def doWrite(self) -> Any:  # noqa: N802 - Twisted's name
        """Send the data that waits, and close when that is asked for."""
        if self.sealed:
            lost = self._send_sealed()
            if lost is not None or self.sealed:
                return lost
        if self._held():
            self.stopWriting()  # type: ignore[no-untyped-call]
            return None
        return super().doWrite()  # type: ignore[no-untyped-call]

    def startWriting(self) -> None:  # noqa: N802 - Twisted's name
        """Ask for ``doWrite``, unless it could do nothing."""
        if self.sealed or not self._held():
            super().startWriting()  # type: ignore[no-untyped-call]

    def _waiting(self) -> bool:
        return bool(self._tempDataLen or len(self.dataBuffer) > self.offset)

    def _held(self) -> bool:
        """True when there is something to write, but the handshake comes first."""
        return self._state in (_HELLO, _SHAKING) and self._waiting()

    def _flush(self) -> bool:
        """Send OpenSSL's output, or keep it until the socket takes more; False when the peer is lost or too slow."""
        made = self._outgoing.read()
        if self.sealed:
            self.sealed = b"".join((self.sealed, made))
            return len(self.sealed) <= _MOST_SEALED
        self.sealed = made
        if self._send_sealed() is not None:
            return False
        if self.sealed:
            self.startWriting()
        return True

    def _send_sealed(self) -> Any:
        sealed = self.sealed
        try:
            sent = self.socket.send(sealed)
        except OSError as error:
            return None if error.errno in _FULL else main.CONNECTION_LOST
        self.sealed = memoryview(sealed)[sent:] if sent < len(sealed) else b""
        return None

    # Closing.

    def loseConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Close once all that was written has been sent, and close_notify after it."""
        super().loseConnection()  # type: ignore[no-untyped-call]
        if self.connected and self._held():
            # Without reading, the handshake would never end.
            self.startReading()  # type: ignore[no-untyped-call]

    def _postLoseConnection(self) -> Any:  # noqa: N802 - Twisted's name
        return main.CONNECTION_DONE if self._close_tls() else None

    def _closeWriteConnection(self) -> None:  # noqa: N802 - Twisted's name
        if self._close_tls():
            super()._closeWriteConnection()

    def _close_tls(self) -> bool:
        """Send close_notify, once; False while it is not sent, in which case ``doWrite`` asks again."""
        if self._state is _OPEN:
            self._state = _CLOSED
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # as a rule because the peer has not closed its direction yet
            return not (self._outgoing.pending and self._flush() and self.sealed)
        return not self.sealed

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Tell the protocol, and drop OpenSSL's objects."""
        # The protocol may still write when it is told.
        self._state = _CLOSED
        self._stop_clock()
        super().connectionLost(reason)
        self._tls = self._records = None
        self.sealed = b""
