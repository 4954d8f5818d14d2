"""What a hostile peer of HTTP/2 can make a connection do or keep has a bound."""

from __future__ import annotations

import struct

import pytest

from asgiserver.wire.http2_output import StreamOutput
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
