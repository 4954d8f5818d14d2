"""A connection works on what it has read for a bounded number of steps, then the others have their turn."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest

from asgiserver.asgi.messages import ResponseBody, ResponseStart
from asgiserver.wire import connection
from tests.conformance.cases import DEFLATE, Case, cases
from tests.conformance.peer import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RecordingChannel,
    Turns,
    close,
    connect,
    fragments,
    frame,
)
from tests.fakes import FakeFrames, FakeSocket, FakeTransport, WireHub, at_once

SMALL = {
    "empty fragments": frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 500,
    "fragments": frame(TEXT, fin=False) + frame(CONTINUATION, b"*", fin=False) * 500,
    "messages in fragments": fragments(TEXT, b"", b"*", b"") * 200,
    "pings": frame(PING) * 500,
    "pings with a payload": frame(PING, b"*") * 500,
    "pongs": frame(PONG) * 500,
    "empty texts": frame(TEXT) * 500,
    "texts": frame(TEXT, b"*") * 500,
    "binaries": frame(BINARY, b"*") * 500,
    "compressed": frame(TEXT, b"\x02\x00", rsv=4) * 500,
    "all of them": (frame(TEXT) + frame(PING) + fragments(BINARY, b"", b"*") + frame(PONG, b"*")) * 200,
}


class Room(RecordingChannel):
    """Is full after two messages until they are taken."""

    @property
    def full(self) -> bool:
        return len(self.events) >= 2


def outcome(case: Case, length: int, *, cut: int = 0) -> tuple[object, bytes]:
    """What comes of a case when each turn has so many steps, and one read so many bytes."""
    channel, turn = RecordingChannel(), Turns(length)
    engine = connect(
        channel, offer=case.offer, max_message_size=case.max_message_size, max_frame_size=case.max_frame_size, turn=turn
    )
    size = cut or len(case.sent) or 1
    for at in range(0, len(case.sent), size):
        engine.receive(case.sent[at : at + size])
    while turn.next():
        pass
    return channel.events, channel.written


class TestFrames:
    @pytest.mark.parametrize("sent", SMALL.values(), ids=SMALL)
    @pytest.mark.parametrize("short_cuts", [True, False])
    def test_so_many_steps_a_turn_and_nothing_is_lost(self, sent: bytes, short_cuts: bool) -> None:
        expected, channel = RecordingChannel(), RecordingChannel()
        connect(expected, offer=DEFLATE, short_cuts=short_cuts).receive(sent)
        engine = connect(channel, offer=DEFLATE, short_cuts=short_cuts, turn=(turn := Turns(20)))
        engine.receive(sent)
        turns, seen = 1, 0
        while True:
            assert len(channel.events) + len(channel.frames) - seen <= 20
            assert -1 < turn.steps <= 20
            seen = len(channel.events) + len(channel.frames)
            if not turn.next():
                break
            turns += 1
        assert turns >= 500 // 20
        assert (channel.events, channel.written) == (expected.events, expected.written)
        assert engine._kept == b""

    @pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
    @pytest.mark.parametrize("length", [1, 2, 7])
    def test_every_case_has_the_same_outcome(self, case: Case, length: int) -> None:
        assert outcome(case, length) == outcome(case, 1 << 60)

    def test_what_comes_meanwhile_stands_behind_what_is_kept(self) -> None:
        """A transport that wraps another may hand on more than one piece of a read."""
        channel, turn = RecordingChannel(), Turns(3)
        engine = connect(channel, turn=turn)
        for number in range(20):
            engine.receive(frame(TEXT, b"%d" % number) + frame(TEXT, b"%d" % number))
        while turn.next():
            pass
        assert [event[1] for event in channel.events] == [str(number // 2) for number in range(40)]

    def test_messages_that_become_large_are_many_steps(self) -> None:
        """Two kilobytes that become two megabytes."""
        deflate = zlib.compressobj(wbits=-15)
        bomb = (deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        channel, turn = RecordingChannel(), Turns(128)
        connect(channel, offer=DEFLATE + b"; client_no_context_takeover", turn=turn).receive(
            frame(BINARY, bomb, rsv=4) * 5
        )
        counts = [len(channel.events)]
        while turn.next():
            counts.append(len(channel.events))
        assert counts == [1, 2, 3, 4, 5]

    def test_an_application_that_makes_room_gets_no_further_turn_by_that(self) -> None:
        """It could read without ever waiting, and the others would wait for it."""
        channel, turn = Room(), Turns(10)
        engine = connect(channel, turn=turn)
        engine.receive(frame(TEXT, b"*") * 100)
        taken = 0
        while channel.events:
            taken += len(channel.events)
            channel.events.clear()
            engine.resume()
        assert taken == 10
        assert len(turn.waiting) == 1
        turn.next()
        assert len(channel.events) == 2
        assert not turn.waiting

    def test_of_a_lost_connection_nothing_more_is_told(self) -> None:
        channel, turn = RecordingChannel(), Turns(10)
        engine = connect(channel, turn=turn)
        engine.receive(frame(TEXT) * 100)
        engine.abandon()
        turn.next()
        assert (len(channel.events), turn.waiting) == (10, [])

    def test_the_peers_close_frame_is_found_behind_what_is_kept(self) -> None:
        channel, turn = RecordingChannel(), Turns(10)
        engine = connect(channel, turn=turn)
        engine.receive(frame(TEXT, b"*") * 100 + close(1000))
        engine.send_close(1012, "")
        while turn.next():
            pass
        assert channel.events == [("message", "*")] * 10 + [("close", 1000, "")]
        assert channel.frames == [(0x88, (1012).to_bytes(2))]


class Counting(FakeTransport):
    """Counts how often it is stopped and started."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        super().resumeProducing()


HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CHUNKS = {"plain": b"1\r\n*\r\n", "extended": b"1;a=b\r\n*\r\n"}


def next_turn(hub: WireHub) -> None:
    """One turn of the loop: call what is due, and not yet what that makes due."""
    clock = hub.clock
    for call in [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]:
        clock.calls.remove(call)
        call.func(*call.args, **call.kw)


class Wire:
    """A connection whose applications and whose time are the test's."""

    def __init__(self, **settings: Any) -> None:
        self.hub = WireHub(**settings)
        self.connection, self.transport = self.hub.connect(Counting())

    @property
    def body(self) -> bytes:
        """What the application has taken of the body that is there."""
        got = b""
        exchange = self.hub.exchange
        while exchange._body:
            got += at_once(exchange.receive())["body"]
        return got

    def turn(self) -> None:
        next_turn(self.hub)

    def answer(self) -> None:
        self.hub.exchange.take_reply(ResponseStart(200, [], 2, False, False, []))
        self.hub.exchange.take_reply(ResponseBody(b"ok", False))


class TestBodies:
    @pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
    def test_tiny_chunks_take_many_turns(self, chunk: bytes) -> None:
        wire = Wire(request_buffer_size=1 << 20)
        wire.connection.dataReceived(HEAD + chunk * 5000 + b"0\r\n\r\n" + NEXT)
        sizes = [len(wire.body)]
        while not wire.transport.reading:
            wire.turn()
            sizes.append(len(wire.body))
        assert max(sizes) <= 600
        assert sum(sizes) == 5000
        assert wire.transport.calls == ["pause", "resume"]
        assert wire.hub.exchange._ended
        wire.answer()
        assert [request.target for request in wire.hub.requests] == [b"/", b"/next"]

    def test_one_that_is_thrown_away_takes_many_turns(self) -> None:
        wire = Wire()
        wire.connection.dataReceived(HEAD)
        wire.answer()
        wire.connection.dataReceived(CHUNKS["plain"] * 5000 + b"0\r\n\r\n" + NEXT)
        turns = 1
        while not wire.transport.reading:
            wire.turn()
            turns += 1
        assert turns >= 5000 // 600
        assert wire.hub.requests[-1].target == b"/next"

    def test_pressure_outlasts_the_turn(self) -> None:
        wire = Wire(request_buffer_size=100)
        wire.connection.dataReceived(HEAD + CHUNKS["plain"] * 1000)
        for _ in range(5):
            wire.turn()
        assert (wire.transport.reading, wire.transport.calls) == (False, ["pause"])
        exchange, got = wire.hub.exchange, 0
        while got < 1000:
            got += len(wire.body)
            if not exchange._body:
                exchange._resume()
                wire.turn()
        wire.turn()
        assert got == 1000
        assert wire.transport.reading
        assert wire.transport.calls == ["pause", "resume"] * (len(wire.transport.calls) // 2)

    def test_nothing_is_read_again_before_the_end_of_what_is_kept(self) -> None:
        """Neither by an application that makes room, nor by a piece that a transport still hands on."""
        wire = Wire(request_buffer_size=100)
        wire.connection.dataReceived(HEAD + CHUNKS["plain"] * 3000)
        got = len(wire.body)
        assert not wire.transport.reading
        wire.connection.dataReceived(b"3\r\nend\r\n0\r\n\r\n")
        assert not wire.transport.reading
        while got < 3003:
            wire.turn()
            got += (last := len(wire.body))
            assert last <= 600
            wire.hub.exchange._resume()
        assert wire.hub.exchange._ended


class TestPipelining:
    def test_empty_lines_and_requests_go_on_in_order(self) -> None:
        wire = Wire(pipeline_buffer_size=1 << 20)
        wire.connection.dataReceived(b"".join(b"\r\n" + NEXT.replace(b"next", b"%d" % at) for at in range(200)))
        for _ in range(200):
            wire.answer()
            wire.turn()
        assert [request.target for request in wire.hub.requests] == [b"/%d" % at for at in range(200)]
        assert wire.transport.reading

    def test_what_is_wrong_in_a_later_turn_is_refused(self) -> None:
        wire = Wire(request_buffer_size=1 << 20)
        wire.connection.dataReceived(HEAD + CHUNKS["plain"] * 2000 + b"nonsense\r\n")
        assert wire.transport.take() == b""
        for _ in range(10):
            wire.turn()
        assert wire.transport.take().startswith(b"HTTP/1.1 400 ")
        assert wire.transport.disconnecting


class TestEnds:
    """While something is kept for the next turn."""

    @pytest.fixture
    def wire(self) -> Wire:
        wire = Wire(request_buffer_size=1 << 20)
        wire.connection.dataReceived(HEAD + CHUNKS["plain"] * 2000)
        assert not wire.transport.reading
        return wire

    def test_lost(self, wire: Wire) -> None:
        wire.connection.connectionLost()
        calls, size = list(wire.transport.calls), wire.hub.exchange._received
        wire.turn()
        assert (wire.transport.calls, wire.hub.exchange._received) == (calls, size)

    @pytest.mark.parametrize("end", ["abort", "close"])
    def test_ended_by_us(self, wire: Wire, end: str) -> None:
        """Whoever closes has to read on, to see that the peer closes too."""
        getattr(wire.hub.exchange.stream, end)()
        size = wire.hub.exchange._received
        wire.turn()
        assert wire.hub.exchange._received == size
        assert wire.transport.calls == ["pause", "resume"]

    def test_the_peer_has_ended_its_direction(self, wire: Wire) -> None:
        wire.connection.readConnectionLost()
        size = wire.hub.exchange._received
        wire.turn()
        assert wire.hub.exchange._received == size

    def test_the_server_stops(self) -> None:
        """A request that has been read in part is none that is under way."""
        wire = Wire(request_buffer_size=1 << 20)
        wire.connection.dataReceived(HEAD + CHUNKS["plain"] * 2000 + b"0\r\n\r\n")
        wire.hub.stopping = True
        wire.connection.server_stopping()
        assert not wire.transport.disconnecting
        for _ in range(10):
            wire.turn()
        wire.answer()
        assert wire.transport.disconnecting


def test_a_read_begins_a_turn_and_its_end_is_not_waited_for_in_vain() -> None:
    """Requests that come one by one stop nobody."""
    wire = Wire()
    for _ in range(50):
        wire.connection.dataReceived(NEXT)
        wire.answer()
    wire.connection.dataReceived(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
    for _ in range(100):
        wire.connection.dataReceived(b"*" * 1000)
        assert len(wire.body) == 1000
    assert wire.transport.calls == []


@pytest.mark.parametrize("transport", [FakeTransport, FakeSocket])
def test_a_websocket_shares_the_connections_turn(transport: Callable[[], Any]) -> None:
    hub = WireHub()
    made, _ = hub.connect(transport())
    made.dataReceived(UPGRADE)
    stream = hub.exchange.stream
    assert stream.turn is made
    hub.exchange.state = hub.exchange.state.OPEN
    hub.exchange._engine = FakeFrames(hub.exchange)
    stream.switch([], [])
    made.steps = 0
    gone_on: list[int] = []

    def go_on() -> None:
        gone_on.append(made.steps)
        if len(gone_on) < 3:
            made.wait_for_turn(go_on)

    for _ in range(3):
        made.wait_for_turn(go_on)
    made.dataReceived(b"more")
    assert (gone_on, made.steps) == ([], 0)
    for turn in range(1, 4):
        next_turn(hub)
        assert gone_on == [connection._STEPS] * turn
    made.dataReceived(b"more")
    assert hub.exchange._engine.received == b"moremore"
