"""HTTP/2 on one connection: its frames, its limits, and which stream each belongs to (RFC 9113).

A read is taken apart into frames, and each frame changes the connection or one stream (:mod:`.http2_stream`). What the
streams send goes through here: small frames of one turn of the loop are one write, and large pieces share the windows
in the order of :mod:`.http2_order`.

=======  ============================================  ==================================================
state    streams of the peer                           what ends it
=======  ============================================  ==================================================
OPEN     begin exchanges                               the server stops, and answers the next one: LEAVING
LEAVING  begin exchanges: they were on their way       the peer has read that no more are wanted: LAST
LAST     are refused                                   the last stream's end: CLOSED
CLOSED   –                                             –
=======  ============================================  ==================================================

A peer that breaks the protocol or a limit is told so by GOAWAY, and the connection closes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto

from ..asgi.deadlines import Deadline
from ..asgi.exchange import Exchange
from ..errors import RequestError
from .connection import PREFACE, HTTPConnection
from .http2_fields import Fields, MalformedRequest, read_request
from .http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME,
    MAX_WINDOW,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    Setting,
    StreamFault,
    frame,
    goaway,
    read_settings,
    reset,
    settings_frame,
    unpack_head,
    unpack_number,
    unpadded,
    window_update,
)
from .http2_heads import FIRST_TABLE, Head, Heads
from .http2_limits import Budget, Kind
from .http2_order import Priority, read_priority
from .http2_stream import HTTP2Stream
from .http2_writer import FIRST_WINDOW, Writer

__all__ = ["HTTP2", "State"]

logger = logging.getLogger("asgiserver.wire")

#: The connection's window is so many times that of a stream: so many streams may stop before the others do.
_STREAMS_IN_WINDOW = 16
#: How large the window of a stream becomes whose application keeps up, so that a distant peer can use its line; and by
#: how much all of them together grow. Bytes.
_LARGEST_WINDOW = 1048576
_MOST_GROWN = 4 * 1048576
#: Steps that a head takes in a turn besides that of its frame: some, and one for so many bytes, as their code is slow.
_STEPS_OF_REQUEST = 3
_BYTES_OF_STEP = 512
#: Frames for a peer that reads none: when so many are kept, it is not read any more.
_MOST_UNREAD = 100
#: A peer for which so many bytes wait is refused further streams; and one whose requests have so large heads together,
#: as their fields may be references of one byte each (CVE-2026-49975).
_MOST_WAITING = 16 * 1048576
_MOST_HEADS = 2 * 1048576
#: Streams that the peer may not know to be closed; its frames for any other are an error.
_MOST_FORGOTTEN = 256
#: A window that is opened by less, RFC 9113 §10.5 counts as a nuisance.
_LEAST_UPDATE = 64
#: The PING with the first GOAWAY (RFC 9113 §6.8), and how long its answer may take; seconds.
_LEAVE_PING = b"leaving!"
_LEAVE_TIMEOUT = 1.0


class State(Enum):
    """How far the end of a connection has come."""

    OPEN = auto()
    LEAVING = auto()  # the peer was told to begin no more streams
    LAST = auto()  # the peer was told which stream is the last
    CLOSED = auto()


_OPEN, _LEAVING, _LAST, _CLOSED = State


class HTTP2:
    """The HTTP/2 wire of a connection.

    :ivar output: the connection's.
    :ivar streams: those that are open or half closed, by number.
    :ivar writer: writes for all of them.
    :ivar stream_window: bytes that a stream takes of the peer before the exchange has taken any.
    """

    __slots__ = (
        "_allowed", "_begun", "_budget", "_expected", "_forgotten", "_grown", "_heads", "_initial_window", "_kept",
        "_last", "_outlived", "_owed", "_peer_leaves", "_preface", "_resize", "_rest", "_state", "_taken", "_touched",
        "_wishes", "connection", "hub", "output", "stream_window", "streams", "writer",
    )  # fmt: skip

    #: Each stream shows by itself whether its response is complete.
    ends_with_connection = False

    def __init__(self, connection: HTTPConnection) -> None:
        self.connection = connection
        self.hub = hub = connection.hub
        self.output = connection.output
        self.streams: dict[int, HTTP2Stream] = {}
        self.writer = Writer(connection.output, hub.clock, self.streams)
        self._initial_window = FIRST_WINDOW
        most = MAX_WINDOW // _STREAMS_IN_WINDOW
        self.stream_window = min(max(FIRST_WINDOW, hub.settings.request_buffer_size), most)
        self._state = _OPEN
        self._heads = Heads(hub.settings.limit_head_size, hub.settings.limit_head_count)
        self._budget = Budget()
        # Of the input: what is not a whole frame yet, and the type that the next frame must have.
        self._rest = b""
        self._preface = PREFACE
        self._expected: int | None = SETTINGS
        self._owed = False
        self._last = 0
        self._allowed = self.stream_window * _STREAMS_IN_WINDOW
        self._taken = self._grown = 0
        #: Exchanges and streams of the read that is taken apart.
        self._begun: list[Exchange] = []
        self._touched: dict[HTTP2Stream, None] = {}
        #: Closed streams of which the peer may not know, applications that run on for a stream that was cut off with
        #: the sizes of their heads, the sizes of all heads, and priorities of streams to come.
        self._forgotten: dict[int, None] = {}
        self._outlived: dict[Exchange, int] = {}
        self._kept = 0
        self._wishes: dict[int, Priority] = {}
        self._peer_leaves = False
        # What the next block begins with.
        self._resize = b""
        connection.deadlines.clear(Deadline.FIRST_BYTE)
        self._wait_for_next()
        self._greet()

    def _greet(self) -> None:
        settings = self.hub.settings
        self.writer.write(
            settings_frame({
                Setting.MAX_CONCURRENT_STREAMS: settings.http2_max_streams,
                Setting.INITIAL_WINDOW_SIZE: self.stream_window,
                Setting.MAX_HEADER_LIST_SIZE: settings.limit_head_size,
                Setting.ENABLE_CONNECT_PROTOCOL: 1,
                Setting.NO_RFC7540_PRIORITIES: 1,
            })
            + window_update(0, self._allowed - FIRST_WINDOW)
        )  # fmt: skip

    # Called by the connection.

    def data_received(self, data: bytes) -> None:
        if self._state is not _CLOSED:
            self._rest = self._rest + data if self._rest else data
            self._read()

    def connection_lost(self) -> None:
        # A peer that has ended its direction alone still gets what was sent in this turn.
        self.writer.flush()
        self._state = _CLOSED
        self._lose_streams()

    def writable(self) -> None:
        self.writer.unread = 0
        if not self.connection.reading:
            self.connection.resume_reading()
        self.writer.push()
        for stream in list(self.streams.values()):
            stream.all_sent(last=False)

    def server_stopping(self) -> None:
        """Tell the exchanges; and the peer, behind its next response, that it is to begin no more streams.

        Python's h2 takes nothing behind GOAWAY, so its clients would lose what they wait for.
        """
        for stream in list(self.streams.values()):
            if stream.exchange is not None:
                stream.exchange.server_stopping()
        if not self.streams:
            self.leave()

    def finish(self) -> bool:
        """The applications have ended: False while what they sent waits for the peer."""
        if any(stream.output.waits for stream in self.streams.values()):
            self._say_last()
            return False
        self._close()
        return True

    # Reading.

    def _read(self) -> None:
        self.writer.hold()
        head = self._heads.unfinished
        try:
            # A head is to be whole in time, so its CONTINUATION frames gain it none.
            moved = self._take_frames() and (head is None or self._heads.unfinished is not head)
            if self._state is not _CLOSED:
                self._after_frames(moved=moved)
        except ConnectionFault as fault:
            logger.info("Ended the connection of %s: %s", self.connection.addresses.peer, fault.reason)
            self._begun.clear()
            self._touched.clear()
            self._close(fault.code, fault.reason, unread=True)
        finally:
            self.writer.release()

    def _after_frames(self, *, moved: bool) -> None:
        """Do what needs to be done once for all frames of a read.

        :param moved: the peer has done what it had to; if there is more to come, its time begins anew.
        """
        for stream in self._touched:
            stream.deliver()
        for exchange in self._begun:
            # A stream that was reset in the same read begins no application.
            if not exchange.finished:
                self.hub.create_application(exchange)
        self._begun.clear()
        for stream in self._touched:
            stream.wait_for_piece()
        self._touched.clear()
        # What is left may be a frame that is not whole. One of DATA has its stream's deadlines.
        owed = self._expected is not None or self._rest[3:4] > b"\0" or 0 < len(self._rest) < 4
        if owed and (moved or not self._owed):
            self.connection.deadlines.set(Deadline.HEAD, self.hub.settings.head_timeout, self._head_late)
        elif self._owed and not owed:
            self.connection.deadlines.clear(Deadline.HEAD)
        self._owed = owed
        self.writer.push()
        if self.writer.unread >= _MOST_UNREAD:
            self.connection.pause_reading()

    def _take_frames(self) -> bool:
        """Take all whole frames that a turn has time for; True if there was one."""
        connection, data, at = self.connection, self._rest, 0
        if self._preface:
            at = self._take_preface(data)
        first, end = at, len(data)
        try:
            while end - at >= 9 and self._state is not _CLOSED:
                word, flags, number = unpack_head(data, at)
                start = at + 9
                stop = start + (word >> 8)
                if stop > start + MAX_FRAME:
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is larger than is allowed")
                if stop > end:
                    if word & 255 == DATA and (stream := self.streams.get(number & MAX_WINDOW)) is not None:
                        stream.part = end - start
                        self._touched[stream] = None
                    break
                if connection.steps <= 0:
                    connection.wait_for_turn(self._read)
                    break
                connection.steps -= 1
                at = stop
                number &= MAX_WINDOW
                try:
                    self._take_frame(word & 255, flags, number, data[start:stop])
                except StreamFault as fault:
                    self._reset_faulty(number, fault)
        finally:
            self._rest = b"" if self._state is _CLOSED else data[at:]
        return at > first

    def _take_preface(self, data: bytes) -> int:
        """Take what has come of the preface (RFC 9113 §3.4)."""
        size = min(len(data), len(self._preface))
        if data[:size] != self._preface[:size]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not the preface of HTTP/2")
        self._preface = self._preface[size:]
        return size

    def _take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind != self._expected and self._expected is not None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame is out of place")
        take = _TAKE.get(kind)
        if take is None:
            # RFC 9113 §5.5: unknown types are ignored.
            self._spend(Kind.IDLE)
        else:
            take(self, flags, number, payload)

    def _reset_faulty(self, number: int, fault: StreamFault) -> None:
        logger.info("Reset a stream of %s: %s", self.connection.addresses.peer, fault.reason)
        stream = self.streams.get(number)
        if stream is None:
            self._forgotten_is(number)
            self.writer.write(reset(number, fault.code))
        else:
            self.reset(stream, fault.code)
        self._spend(Kind.RESET)

    def _spend(self, kind: Kind) -> None:
        if not self._budget.spend(kind, self.hub.clock.seconds()):
            what = "resets" if kind is Kind.RESET else "frames that do nothing"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"there are too many {what}")

    def _check(self, ok: object, reason: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        if not ok:
            raise ConnectionFault(code, reason)

    def _check_size(self, payload: bytes, size: int) -> None:
        self._check(len(payload) == size, "a frame has not the size of its type", ErrorCode.FRAME_SIZE_ERROR)

    def _check_known(self, number: int) -> None:
        """Refuse a frame for no stream, or for a stream that has not begun (RFC 9113 §5.1)."""
        self._check(0 < number <= self._last and number & 1, "a frame is for a stream that has not begun")

    # Heads.

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        self._check(number & 1, "a client's stream has an odd number")
        self._take_head(self._heads.begin(flags, number, payload))

    def _take_continuation(self, flags: int, number: int, payload: bytes) -> None:
        self._take_head(self._heads.go_on(flags, number, payload))

    def _take_head(self, head: Head | None) -> None:
        """A head of a request or trailers; None while it goes on."""
        self._expected = CONTINUATION if head is None else None
        if head is None:
            return
        number, ended, depends, length, fields, size = head
        self.connection.steps -= _STEPS_OF_REQUEST + length // _BYTES_OF_STEP
        stream, new = self.streams.get(number), number > self._last
        if new:
            self._last = number
        if depends:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        if new:
            self._begin(number, fields, size, ended=ended)
        elif stream is not None:
            stream.trailers_received(fields, ended=ended)
        else:
            self._check(number in self._forgotten, "HEADERS for a closed stream", ErrorCode.STREAM_CLOSED)

    def _begin(self, number: int, fields: Fields | None, size: int, *, ended: bool) -> None:
        if self._state is _LAST or not self._has_room():
            self._forgotten_is(number)
            self.writer.write(reset(number, ErrorCode.REFUSED_STREAM))
            self._spend(Kind.RESET)
            return
        settings = self.hub.settings
        stream = self.streams[number] = HTTP2Stream(self, number, self._initial_window)
        if fields is not None:
            stream.head_size = size
            self._kept += size
        if self._wishes and number in self._wishes:
            stream.output.prioritize(self._wishes.pop(number))
        try:
            if fields is None:
                raise RequestError(431, f"The request's head is larger than {settings.limit_head_size} bytes.")
            stream.begin(read_request(fields, settings.limit_target_size, ended=ended), ended=ended)
        except MalformedRequest as error:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, str(error)) from None
        except RequestError as error:
            stream.refuse(error, ended=ended, has_body=(b":method", b"HEAD") not in (fields or ()))
            return
        if stream.exchange is not None:
            self._begun.append(stream.exchange)
        if not ended:
            self._touched[stream] = None

    def _has_room(self) -> bool:
        """One more stream may begin. Applications whose streams were cut off have as much room again as the streams."""
        most, streams = self.hub.settings.http2_max_streams, len(self.streams)
        if self._outlived:
            for exchange in [exchange for exchange in self._outlived if not self.hub.is_running(exchange)]:
                self._kept -= self._outlived.pop(exchange)
        if streams >= most or streams + len(self._outlived) >= 2 * most:
            return False
        return self.writer.waiting <= _MOST_WAITING and self._kept <= _MOST_HEADS

    # Other frames.

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._allowed -= size
        self._check(self._allowed >= 0, "DATA is beyond the connection's window", ErrorCode.FLOW_CONTROL_ERROR)
        data = unpadded(flags, payload)
        ended = flags & END_STREAM != 0
        if not data and not ended:
            self._spend(Kind.IDLE)
        stream = self.streams.get(number)
        if stream is not None:
            self._touched[stream] = None
            stream.data_received(data, size, ended=ended)
            return
        self._check_known(number)
        self._check(number in self._forgotten, "DATA for a closed stream", ErrorCode.STREAM_CLOSED)
        self.credit(size)

    def _take_priority(self, flags: int, number: int, payload: bytes) -> None:
        self._check(number, "PRIORITY is for no stream")
        self._spend(Kind.IDLE)
        if len(payload) != 5:
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has not the size of its type")
        if unpack_number(payload) & MAX_WINDOW == number:
            self._check_known(number)
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")

    def _take_reset(self, flags: int, number: int, payload: bytes) -> None:
        self._check_size(payload, 4)
        self._check_known(number)
        stream = self.streams.get(number)
        self._spend(Kind.IDLE if stream is None else Kind.RESET)
        if stream is not None:
            self.outlive(stream, stream.exchange)
            self.forget(stream)

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._check(not number, "SETTINGS is for a stream")
        self._spend(Kind.IDLE)
        if flags & ACK:
            self._check_size(payload, 0)
            return
        before = self._initial_window
        for name, value in read_settings(payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._initial_window = value
            elif name == Setting.HEADER_TABLE_SIZE and value < FIRST_TABLE:
                # RFC 7541 §4.2: the next block has to agree. Ours never use the table, so its size is 0.
                self._resize = b"\x20"
        # Once for all the values of a frame, as a connection may have many streams.
        if change := self._initial_window - before:
            for stream in self.streams.values():
                largest = stream.output.window + change
                self._check(largest <= MAX_WINDOW, "a window is too large", ErrorCode.FLOW_CONTROL_ERROR)
                stream.output.opened(change)
        if self._expected == SETTINGS:
            self._expected = None
        self.writer.write(frame(SETTINGS, ACK, 0))

    def _take_push(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client must not push")

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        self._check_size(payload, 8)
        self._check(not number, "PING is for a stream")
        if not flags & ACK:
            self._spend(Kind.IDLE)
            self.writer.write(frame(PING, ACK, 0, payload))
        elif payload == _LEAVE_PING and self._state is _LEAVING:
            self._say_last()

    def _take_goaway(self, flags: int, number: int, payload: bytes) -> None:
        self._check(not number, "GOAWAY is for a stream")
        self._check(len(payload) >= 8, "GOAWAY has not the size of its type", ErrorCode.FRAME_SIZE_ERROR)
        self._spend(Kind.IDLE)
        self._peer_leaves = True
        if not self.streams:
            self._close()

    def _take_window_update(self, flags: int, number: int, payload: bytes) -> None:
        self._check_size(payload, 4)
        size = unpack_number(payload) & MAX_WINDOW
        stream = self.streams.get(number)
        if size < _LEAST_UPDATE or number and stream is None:
            self._spend(Kind.IDLE)
        if not number:
            self._check(size, "WINDOW_UPDATE opens nothing")
            self.writer.window += size
            self._check(self.writer.window <= MAX_WINDOW, "the window is too large", ErrorCode.FLOW_CONTROL_ERROR)
        elif stream is None:
            self._check_known(number)
        elif not size:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE opens nothing")
        elif stream.output.window + size > MAX_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
        else:
            stream.output.opened(size)

    def _take_priority_update(self, flags: int, number: int, payload: bytes) -> None:
        """RFC 9218 §7.1."""
        self._check(not number, "PRIORITY_UPDATE is for a stream")
        self._check(len(payload) >= 4, "PRIORITY_UPDATE has no stream", ErrorCode.FRAME_SIZE_ERROR)
        self._spend(Kind.IDLE)
        number = unpack_number(payload) & MAX_WINDOW
        self._check(number & 1, "PRIORITY_UPDATE is for no request")
        stream = self.streams.get(number)
        if stream is not None:
            stream.output.prioritize(read_priority(payload[4:]))
        elif number > self._last and len(self._wishes) < self.hub.settings.http2_max_streams:
            self._wishes[number] = read_priority(payload[4:])

    # Called by the streams.

    def credit(self, size: int) -> None:
        """The peer may send ``size`` bytes more on the connection, and is told so now and then."""
        self._taken += size
        if self._taken * 2 >= self.stream_window * _STREAMS_IN_WINDOW and self._state is not _CLOSED:
            taken, self._taken = self._taken, 0
            self._allowed += taken
            self.writer.write(window_update(0, taken))

    def grow(self, window: int) -> int:
        """A stream's ``window`` may become so much larger; the connection's opens along, until :meth:`shrink`."""
        size = max(0, min(window, _LARGEST_WINDOW - window, _MOST_GROWN - self._grown))
        self._grown += size
        self.credit(size)
        return size

    def shrink(self, size: int) -> None:
        """A stream is gone whose window had grown by ``size``: the peer is told so much less of what is taken."""
        self._grown -= size
        self._taken -= size

    def resized(self, block: bytes) -> bytes:
        """A block as it is sent next: the peer may have to be told once that our table is empty."""
        if self._resize:
            block, self._resize = self._resize + block, b""
        return block

    def reset(self, stream: HTTP2Stream, code: ErrorCode) -> None:
        """Cut a stream off, unless it is closed."""
        if stream.number not in self.streams:
            return
        self._forgotten_is(stream.number)
        self.outlive(stream, stream.exchange)
        self.writer.write(reset(stream.number, code))
        self.forget(stream)

    def outlive(self, stream: HTTP2Stream, exchange: Exchange | None) -> None:
        """A stream is cut off, which does not end its application; so its peer gets no room for another at once."""
        if exchange is not None and self.hub.is_running(exchange):
            self._outlived[exchange], stream.head_size = stream.head_size, 0

    def forget(self, stream: HTTP2Stream) -> None:
        """A stream is closed."""
        if self.streams.pop(stream.number, None) is None:
            return
        self._kept -= stream.head_size
        stream.lost()
        if self.streams:
            return
        if self._state is _LAST or self._peer_leaves:
            self._close()
        else:
            self._wait_for_next()

    def _forgotten_is(self, number: int) -> None:
        if len(self._forgotten) >= _MOST_FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]
        self._forgotten[number] = None

    # The end.

    def _wait_for_next(self) -> None:
        self.connection.deadlines.set(Deadline.KEEP_ALIVE, self.hub.keep_alive_timeout, self._idle)

    def _idle(self) -> None:
        if not self.streams:
            self._close()

    def _head_late(self) -> None:
        logger.info("Ended the connection of %s: a frame did not arrive in time", self.connection.addresses.peer)
        self._close(ErrorCode.ENHANCE_YOUR_CALM, "a frame did not arrive in time", unread=True)

    def leave(self) -> None:
        """Ask the peer for no more streams; those that are on their way are still answered (RFC 9113 §6.8)."""
        if self._state is _OPEN:
            self._state = _LEAVING
            # For the same reason, the PING is not behind it.
            self.writer.write(frame(PING, 0, 0, _LEAVE_PING) + goaway(MAX_WINDOW, ErrorCode.NO_ERROR))
            # While connections wait for no application, nothing else has this deadline.
            self.connection.deadlines.set(Deadline.PING, _LEAVE_TIMEOUT, self._say_last)

    def _say_last(self) -> None:
        if self._state is _CLOSED or self._state is _LAST:
            return
        self.connection.deadlines.clear(Deadline.PING)
        if not self.streams:
            self._close()
            return
        self._state = _LAST
        self.writer.write(goaway(self._last, ErrorCode.NO_ERROR))

    def _close(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: str = "", *, unread: bool = False) -> None:
        """Close the connection behind what was written, and cut off what has not ended."""
        if self._state is _CLOSED:
            return
        self.writer.write(goaway(self._last, code, reason))
        self.writer.flush()
        self._state = _CLOSED
        self._lose_streams()
        self.connection.close(unread=unread)

    def _lose_streams(self) -> None:
        self.connection.deadlines.clear(Deadline.PING, Deadline.HEAD, Deadline.KEEP_ALIVE)
        self.writer.stop()
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.lost()


_TAKE: dict[int, Callable[[HTTP2, int, int, bytes], None]] = {
    DATA: HTTP2._take_data,
    HEADERS: HTTP2._take_headers,
    PRIORITY: HTTP2._take_priority,
    RST_STREAM: HTTP2._take_reset,
    SETTINGS: HTTP2._take_settings,
    PUSH_PROMISE: HTTP2._take_push,
    PING: HTTP2._take_ping,
    GOAWAY: HTTP2._take_goaway,
    WINDOW_UPDATE: HTTP2._take_window_update,
    CONTINUATION: HTTP2._take_continuation,
    PRIORITY_UPDATE: HTTP2._take_priority_update,
}
