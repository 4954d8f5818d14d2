"""What a hostile peer of HTTP/2 can make a connection do or keep has a bound."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from asgiserver.wire.connection import PREFACE
from asgiserver.wire.http2_output import StreamOutput
from tests.fakes import FakeTransport, WireHub
from tests.wire.http2_peer import Peer, raw


class TestWork:
    def test_settings_move_each_window_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many values one frame has, as a connection may have many streams."""
        peer = Peer(windows=0)
        peer.get(1)
        peer.answer(bytes(100))
        moved: list[int] = []
        opened = StreamOutput.opened

        def counted(output: StreamOutput, size: int) -> None:
            moved.append(size)
            opened(output, size)

        monkeypatch.setattr(StreamOutput, "opened", counted)
        peer.feed(raw(4, 0, 0, struct.pack("!HI", 4, 90) * 15 + struct.pack("!HI", 4, 10)))
        assert moved == [10]
        assert ("DATA", 1, bytes(10)) in peer.take()


class TestMemory:
    LARGE = ("cookie", "x" * 4000)

    def bombs(self, peer: Peer, numbers: range) -> int:
        """Send requests with fields of 60 kB, each of some twenty bytes; how many begin."""
        peer.hub.exchanges.clear()
        for number in numbers:
            peer.get(number, *[self.LARGE] * 15)
        refused = [frame[1:] for frame in peer.take() if frame[0] == "RST"]
        assert {why for _, why in refused} == {"REFUSED_STREAM"}
        return len(peer.hub.exchanges)

    def test_heads_of_references(self) -> None:
        """CVE-2026-49975."""
        peer = Peer(windows=0)
        tracemalloc.start()
        try:
            began = self.bombs(peer, range(1, 200, 2))
            assert 30 <= began <= 40
            assert tracemalloc.get_traced_memory()[0] < 3 << 20
        finally:
            tracemalloc.stop()
        # Each one that ends makes room for another.
        for index in range(began):
            peer.start(index, status=204)
            peer.body(index=index)
        assert self.bombs(peer, range(201, 401, 2)) == began

    def test_heads_of_applications_that_run_on(self) -> None:
        peer = Peer()
        began = self.bombs(peer, range(1, 100, 2))
        for number in range(1, 2 * began, 2):
            peer.reset(number)
        peer.take()
        peer.get(101)
        assert peer.take() == [("RST", 101, "REFUSED_STREAM")]
        peer.hub.begun.clear()  # they have ended
        assert self.bombs(peer, range(103, 201, 2)) == began


class TestTime:
    """What has to come whole has its time once, in however many pieces it comes."""

    def late(self, peer: Peer) -> None:
        assert peer.closed
        assert peer.take()[-1][::2] == ("GOAWAY", "ENHANCE_YOUR_CALM")

    def test_continuation_frames_gain_a_head_no_time(self) -> None:
        peer = Peer(head_timeout=5)
        peer.feed(raw(1, 1, 1, b"\x82"))
        for _ in range(3):
            assert not peer.closed
            peer.advance(1.9)
            peer.feed(raw(9, 0, 1))
        self.late(peer)

    def test_a_head_behind_another_has_its_own(self) -> None:
        peer = Peer(head_timeout=5)
        head = peer.head(1).data
        peer.feed(raw(1, 1, 1, head[:2]))
        peer.advance(4)
        peer.feed(raw(9, 4, 1, head[2:]) + raw(1, 1, 3, b"\x82"))
        peer.advance(4)
        assert not peer.closed
        peer.advance(1.1)
        self.late(peer)

    def test_nor_does_the_preface_in_pieces(self) -> None:
        transport = FakeTransport()
        transport.negotiatedProtocol = b"h2"
        connection, _ = WireHub(head_timeout=5).connect(transport)
        for at in range(5):
            assert connection.phase.name == "OPEN"
            connection.dataReceived(PREFACE[at : at + 1])
            connection.hub.clock.advance(1.1)
        assert connection.phase.name != "OPEN"

    def test_a_body_comes_at_a_fair_rate_in_large_frames(self) -> None:
        """One DATA frame may take longer than the rate is looked at, or than the body's next piece may take."""
        peer = Peer(body_timeout=5, min_request_rate=400)
        peer.post(1)
        frame = raw(0, 1, 1, bytes(16384))
        for at in range(0, len(frame), 500):
            peer.feed(frame[at : at + 500])
            peer.advance(1)
        peer.answer()
        assert peer.status(1) == "200"

    def test_a_body_in_one_frame_is_late_and_slow_as_others_are(self) -> None:
        frame = raw(0, 1, 1, bytes(16384))
        late, slow = Peer(body_timeout=5, min_request_rate=400), Peer(body_timeout=5, min_request_rate=600)
        late.post(1)
        late.feed(frame[:5000])
        late.advance(5.1)
        assert late.status(1) == "408"
        slow.post(1)
        for at in range(0, 5000, 500):
            slow.feed(frame[at : at + 500])
            slow.advance(1)
        assert slow.status(1) == "408"
