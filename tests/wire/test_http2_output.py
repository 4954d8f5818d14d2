"""What an HTTP/2 connection sends when the peer's windows or the socket are full, and in which order."""

from __future__ import annotations

import asyncio
import functools
import os
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import SettingsFrame

from asgiserver.asgi.exchange import State as ExchangeState
from asgiserver.asgi.messages import ResponseBody
from tests.fakes import FakeSocket, settle
from tests.wire.http2_peer import UPGRADE, Peer

MIB = 1 << 20


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test whose application waits."""

    @functools.wraps(test)
    def run(*args: Any, **more: Any) -> None:
        asyncio.run(test(*args, **more))

    return run


def sizes(frames: list[tuple[Any, ...]], number: int | None = None) -> int:
    return sum(len(frame[2]) for frame in frames if frame[0] == "DATA" and number in (None, frame[1]))


def order(frames: list[tuple[Any, ...]]) -> list[int]:
    """The streams of the data, one after the other."""
    seen: list[int] = []
    for frame in frames:
        if frame[0] == "DATA" and seen[-1:] != [frame[1]]:
            seen.append(frame[1])
    return seen


class TestWindows:
    def test_what_the_window_has_room_for_is_sent_and_the_rest_later(self) -> None:
        peer = Peer(windows=3)
        peer.get(1)
        peer.answer(b"hello")
        assert peer.take() == [("HEADERS", 1, {":status": "200"}), ("DATA", 1, b"hel")]
        assert peer.streams[1].output.slow
        peer.open(1, 1)
        assert peer.take() == [("DATA", 1, b"l")]
        peer.open(1, 100)
        assert peer.take() == [("DATA", 1, b"o", "end")]

    def test_an_empty_end_needs_no_window(self) -> None:
        peer = Peer(windows=0)
        peer.get(1)
        peer.answer(b"")
        assert peer.take()[-1][-1] == "end"
        peer.get(3)
        peer.start()
        peer.body(b"", more=True)
        peer.body()
        assert peer.take()[-1] == ("DATA", 3, b"", "end")

    def test_an_end_waits_for_what_is_before_it(self) -> None:
        peer = Peer(windows=0)
        peer.get(1)
        peer.start()
        peer.body(b"a", more=True)
        peer.body()
        peer.take()
        peer.open(1, 100)
        assert peer.take() == [("DATA", 1, b"a", "end")]

    def test_large_pieces_are_cut_into_frames(self) -> None:
        peer = Peer(windows=MIB)
        peer.open(0, MIB)
        peer.get(1)
        peer.answer(bytes(range(256)) * 256)
        data = [frame for frame in peer.take() if frame[0] == "DATA"]
        assert [len(frame[2]) for frame in data] == [16384] * 4
        assert b"".join(frame[2] for frame in data) == bytes(range(256)) * 256
        assert [frame[-1] == "end" for frame in data] == [False, False, False, True]

    def test_settings_move_all_windows_even_below_zero(self) -> None:
        peer = Peer(windows=10)
        for number in (1, 3):
            peer.get(number)
            peer.answer(b"x" * 20)
        assert sizes(peer.take()) == 20
        peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 5}))
        peer.open(1, 5)
        assert sizes(peer.take()) == 0
        peer.open(1, 1)
        assert sizes(peer.take()) == 1
        peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}))
        assert sizes(peer.take()) == 19

    def test_the_connections_window_stops_all_streams(self) -> None:
        peer = Peer(windows=MIB)
        for number in (1, 3):
            peer.get(number)
            peer.answer(b"x" * 40_000)
        assert sizes(peer.take()) == 65535
        peer.open(0, 1)
        assert sizes(peer.take()) == 1
        peer.open(0, MIB)
        assert sizes(peer.take()) == 80_000 - 65536
        assert not peer.streams

    def test_memory_of_a_message_is_not_copied(self) -> None:
        peer = Peer(windows=0)
        peer.get(1)
        body = b"x" * MIB
        peer.answer(body)
        assert peer.streams[1].output._parts[0].obj is body

    def test_a_peer_for_which_much_waits_is_refused_further_streams(self) -> None:
        peer = Peer(windows=0)
        peer.get(1)
        peer.answer(b"x" * (16 * MIB + 1))
        peer.take()
        peer.get(3)
        assert peer.take() == [("RST", 3, "REFUSED_STREAM")]
        peer.reset(1)
        peer.get(5)
        assert 5 in peer.streams


class TestOrder:
    def streams(self, *priorities: str, size: int = 100_000) -> Peer:
        """Streams that wait for the connection's window."""
        peer = Peer(windows=MIB)
        peer.get(1)
        peer.answer(b"x" * 65535)
        for index, priority in enumerate(priorities, start=1):
            peer.get(1 + 2 * index, *([("priority", priority)] if priority else []))
            peer.answer(b"x" * size)
        peer.take()
        return peer

    def open(self, peer: Peer, size: int = MIB) -> list[int]:
        peer.open(0, size)
        frames = []
        for _ in range(20):
            frames += peer.take()
        return order(frames)

    def test_without_priorities_they_share(self) -> None:
        assert self.open(self.streams("", "")) == [3, 5, 3, 5, 3, 5, 3, 5]

    def test_the_urgent_are_first(self) -> None:
        assert self.open(self.streams("u=5", "u=1", "u=3, i")) == [5, 7, 3]

    def test_a_peer_may_change_its_mind(self) -> None:
        peer = self.streams("u=1", "u=2")
        peer.feed(struct.pack("!IBII", 7 << 8 | 16, 0, 0, 5) + b"u=0")
        assert self.open(peer) == [5, 3]

    def test_or_say_so_before(self) -> None:
        peer = Peer(windows=0)
        peer.feed(struct.pack("!IBII", 7 << 8 | 16, 0, 0, 1) + b"u=0")
        peer.get(1)
        assert peer.streams[1].output.priority == (0, False)

    def test_a_stream_without_a_window_stops_no_other(self) -> None:
        peer = self.streams("u=0", "u=5")
        peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        peer.open(5, MIB)
        assert self.open(peer) == [5]


class TestPressure:
    @in_a_loop
    async def test_send_waits_for_the_window_of_its_stream(self) -> None:
        peer = Peer(windows=5)
        peer.get(1)
        peer.get(3)
        peer.start(0)
        peer.start(1)
        first, second = peer.hub.exchanges
        sending = asyncio.ensure_future(first.handle_reply({"type": "http.response.body", "body": b"x" * 9}))
        await settle()
        assert not sending.done()
        # No other stream waits with it.
        await asyncio.wait_for(second.handle_reply({"type": "http.response.body", "body": b"x" * 5}), 1)
        peer.open(1, 4)
        await asyncio.wait_for(sending, 1)
        assert sizes(peer.take(), 1) == 9

    @pytest.mark.parametrize("end", ["reset", "lost", "error"])
    @in_a_loop
    async def test_send_does_not_wait_for_a_stream_that_is_gone(self, end: str) -> None:
        peer = Peer(windows=0)
        peer.get(1)
        peer.start()
        exchange = peer.hub.exchange
        sending = asyncio.ensure_future(
            exchange.handle_reply({"type": "http.response.body", "body": b"x", "more_body": True})
        )
        await settle()
        match end:
            case "reset":
                peer.reset(1)
            case "lost":
                peer.connection.connectionLost()
            case "error":
                peer.push()
        await asyncio.wait_for(sending, 1)
        assert exchange.state is ExchangeState.GONE

    def test_a_full_socket_stops_all(self) -> None:
        peer = Peer(FakeSocket(), windows=MIB)
        peer.open(0, 10 * MIB)
        peer.send(peer.head(1), peer.head(3))
        peer.transport.room = 100_000
        for index in (0, 1):
            peer.start(index)
            peer.hub.exchanges[index].take_reply(ResponseBody(b"x" * 200_000, True))
        # What the socket does not take waits in the streams, but for one turn's write.
        assert len(peer.transport.sent) <= 100_200
        assert peer.connection._wire.writer.waiting > 100_000  # type: ignore[union-attr]
        seen = 0
        for _ in range(20):
            seen += sizes(peer.take())
            peer.transport.readable(100_000)
        assert seen + sizes(peer.take()) == 400_000

    def test_a_write_takes_a_bounded_turn(self) -> None:
        peer = Peer(FakeSocket(), windows=2**31 - 1)
        peer.open(0, 2**30)
        peer.get(1)
        peer.answer(b"x" * MIB)
        assert len(peer.transport.sent) < 140_000
        seen = 0
        for _ in range(20):
            seen += sizes(peer.take())
        assert seen == MIB

    def test_small_data_does_not_wait_behind_large_pieces(self) -> None:
        peer = Peer(windows=0)
        peer.get(1)
        peer.get(3)
        peer.answer(b"x" * MIB, index=0)
        peer.open(3, 10)
        peer.answer(b"small", index=1)
        assert ("DATA", 3, b"small", "end") in peer.take()

    def test_a_websocket_may_write_while_it_waits(self) -> None:
        peer = Peer(windows=3)
        peer.send(peer.head(1, UPGRADE, end=False))
        peer.accept()
        engine = peer.hub.exchange._engine
        engine.send_message(b"hello", text=True)
        engine.send_ping(b"")
        assert peer.take()[1:] == [("DATA", 1, b"<he")]
        peer.open(1, 100)
        assert peer.take() == [("DATA", 1, b"llo>"), ("DATA", 1, b"<ping>")]
        assert engine.resumed


class TestTime:
    def test_a_stream_that_takes_nothing_is_reset(self) -> None:
        peer = Peer(windows=0, write_timeout=5, min_response_rate=None)
        peer.get(1)
        peer.answer(b"x" * 100)
        peer.take()
        peer.advance(4)
        peer.open(1, 1)
        peer.take()
        peer.advance(4)
        assert peer.streams
        peer.advance(6)
        assert peer.take() == [("RST", 1, "CANCEL")]
        assert not peer.closed

    def test_a_stream_that_takes_too_little_is_reset(self) -> None:
        peer = Peer(windows=0, min_response_rate=100)
        peer.get(1)
        peer.answer(b"x" * 10_000)
        for _ in range(21):
            peer.advance(1)
            peer.open(1, 64) if peer.streams else None
        assert ("RST", 1, "CANCEL") in peer.take()

    def test_a_stream_that_takes_enough_is_not(self) -> None:
        peer = Peer(windows=0, min_response_rate=100)
        peer.get(1)
        peer.answer(b"x" * 10_000)
        for _ in range(60):
            peer.advance(1)
            peer.open(1, 120)
        assert peer.streams

    def test_of_the_connections_window_all_streams_together_take(self) -> None:
        """One that is served last must not pay for that."""
        peer = Peer(windows=10 * MIB, write_timeout=5)
        peer.get(1, ("priority", "u=0"))
        peer.answer(b"x" * MIB)
        peer.get(3, ("priority", "u=7"))
        peer.answer(b"x" * 1000)
        for _ in range(30):
            peer.advance(1)
            peer.open(0, 10_000)
        assert len(peer.streams) == 2
        for _ in range(3):
            peer.advance(5)
        assert not peer.streams

    def test_a_full_socket_is_the_connections_affair(self) -> None:
        peer = Peer(FakeSocket(), windows=10 * MIB, write_timeout=5)
        peer.open(0, MIB)
        peer.transport.room = 0
        peer.get(1)
        peer.answer(b"x" * 300_000)
        assert peer.streams[1].output._progress is not None
        peer.advance(4)
        assert not peer.transport.aborted
        peer.advance(2)
        assert peer.transport.aborted


class TestFiles:
    def send(self, peer: Peer, path: Path, *, last: bool = True) -> list[str]:
        calls: list[str] = []
        descriptor = os.open(path, os.O_RDONLY)
        peer.get(1)
        stream = peer.streams[1]
        stream.respond(200, [], [], None, has_body=True, close=False, data=b"", last=False)
        size = path.stat().st_size
        stream.send_file(descriptor, 1, size - 1, last=last, sent=lambda: calls.append("sent"))
        self.descriptor = descriptor
        return calls

    def test_a_file_is_read_as_the_peer_takes_it(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        content = os.urandom(300_000)
        path.write_bytes(content)
        peer = Peer(windows=100_000)
        calls = self.send(peer, path)
        assert peer.streams[1].output.slow
        frames = peer.take()
        assert sizes(frames) == 65535
        assert peer.connection._wire.writer.waiting <= 65536  # type: ignore[union-attr]
        peer.open(0, MIB)
        peer.open(1, MIB)
        for _ in range(10):
            frames += peer.take()
        assert b"".join(frame[2] for frame in frames if frame[0] == "DATA") == content[1:]
        assert frames[-1][-1] == "end"
        assert calls == ["sent"]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(self.descriptor)

    def test_the_end_of_the_server_waits_for_it(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(bytes(300_000))
        peer = Peer(windows=0)
        self.send(peer, path)
        peer.connection.finish()
        assert not peer.closed
        peer.open(0, MIB)
        peer.open(1, MIB)
        for _ in range(10):
            peer.take()
        assert peer.closed

    def test_a_file_may_be_followed(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"abcd")
        peer = Peer()
        calls = self.send(peer, path, last=False)
        assert calls == ["sent"]
        peer.streams[1].send_data(b"e", last=True)
        assert peer.take()[1:] == [("DATA", 1, b"bcd"), ("DATA", 1, b"e", "end")]

    def test_a_file_that_becomes_shorter_ends_its_stream(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(bytes(300_000))
        peer = Peer(windows=70_000)
        peer.open(0, MIB)
        calls = self.send(peer, path)
        peer.hub.exchange.state = ExchangeState.STREAMING
        os.truncate(path, 70_001)
        peer.open(1, MIB)
        assert peer.take()[-1] == ("RST", 1, "INTERNAL_ERROR")
        assert calls == []
        assert "cannot be read to its end: it has become shorter" in caplog.text

    def test_the_end_of_its_stream_closes_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(bytes(300_000))
        peer = Peer(windows=0)
        self.send(peer, path)
        peer.reset(1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(self.descriptor)
