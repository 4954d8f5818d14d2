"""How a connection writes: joined when small, in parts when large, files in turns."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.main import CONNECTION_LOST

from asgiserver.wire.output import Output
from tests.fakes import Clock, FakeSocket, FakeTransport, WireHub

LARGE = 3_000_000


@pytest.fixture
def large(tmp_path: Path) -> Path:
    made = tmp_path / "large"
    made.write_bytes(os.urandom(LARGE))
    return made


def connected(transport: Any) -> tuple[WireHub, Output, Any]:
    hub = WireHub()
    connection, transport = hub.connect(transport)
    return hub, connection.output, transport


def begin(output: Output, path: Path, offset: int = 0, count: int | None = None) -> list[str]:
    """Begin to send a file; what comes back says when it is sent."""
    said: list[str] = []
    descriptor = os.open(path, os.O_RDONLY)
    output.send_file(descriptor, offset, LARGE - offset if count is None else count,
                         lambda: said.append("sent"), lambda: said.append("failed"))
    return said


class TestParts:
    @pytest.mark.parametrize("sizes", [(10, 20), (100, 20_000), (100, 200_000), (5, 100_000, 2)])
    @pytest.mark.parametrize("kind", [FakeSocket, FakeTransport])
    def test_arrive_in_order(self, sizes: tuple[int, ...], kind: Any) -> None:
        _, output, transport = connected(kind())
        parts = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
        output.write_all(parts)
        assert (transport.sent if kind is FakeSocket else transport.take()) == b"".join(parts)

    def test_of_moderate_size_are_one_write(self) -> None:
        """To TLS each write is a record of its own."""
        _, output, transport = connected(FakeSocket())
        output.write_all([b"a" * 10, b"b" * 65_536, b"\r\n"])
        assert transport.writes == [65_548]

    def test_what_a_slow_peer_does_not_take_waits(self) -> None:
        _, output, transport = connected(FakeSocket(room=15))
        output.write_all([b"a" * 10, b"b" * 200_000])
        assert len(transport.sent) == 15
        assert output.slow
        transport.readable(1 << 30)
        assert transport.sent == b"a" * 10 + b"b" * 200_000
        assert not output.slow


class Owner:
    output: Output

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    def output_full(self) -> None:
        self.told.append(("full", self.output.slow))

    def output_empty(self) -> None:
        self.told.append(("empty", self.output.slow))


class TestOwner:
    """It is told when the peer is slow, once, and when the peer has taken all; and no more of it is HTTP's."""

    def made(self, room: int) -> tuple[Owner, Output, FakeSocket]:
        owner, transport = Owner(), FakeSocket(room)
        owner.output = output = Output(transport, Clock(), owner)
        transport.registerProducer(output, True)  # type: ignore[no-untyped-call]
        return owner, output, transport

    def test_of_a_slow_peer_once_until_it_has_taken_all(self) -> None:
        owner, output, transport = self.made(room=0)
        for _ in range(3):
            output.write(b"*" * FakeSocket.bufferSize)
        assert owner.told == [("full", True)]
        transport.readable(1 << 30)
        assert owner.told == [("full", True), ("empty", False)]
        assert not output.busy

    def test_of_each_turn_of_a_file(self, large: Path) -> None:
        owner, output, transport = self.made(room=1 << 30)
        said = begin(output, large)
        while not said:
            transport.doWrite()
        assert owner.told == [("full", True), ("empty", True)] * 2

    def test_what_waits_for_a_file_is_called_behind_it_and_at_once_without_one(self, large: Path) -> None:
        _, output, transport = self.made(room=1 << 30)
        said = begin(output, large)
        output.after_file(lambda: said.append("after"))
        assert said == []
        while not said:
            transport.doWrite()
        assert said == ["sent", "after"]
        output.after_file(lambda: said.append("at once"))
        assert said[2:] == ["at once"]


class TestSender:
    """A transport that can send is asked to, as long as nothing waits."""

    def test_data_goes_to_it_at_once(self) -> None:
        transport = FakeSocket()
        _, output, _ = connected(transport)
        output.write(b"one")
        output.write_all([b"two", b"three"])
        assert (transport.writes, transport.sent, transport.writing) == ([3, 8], b"onetwothree", False)

    def test_what_it_does_not_take_waits_and_what_comes_then_too(self) -> None:
        transport = FakeSocket(room=4)
        _, output, _ = connected(transport)
        output.write(b"first")
        output.write(b"second")
        assert (transport.writes, transport.sent, transport.writing) == ([4], b"firs", True)
        transport.readable(1 << 20)
        output.write(b"third")
        assert (transport.writes, transport.sent) == ([4, 7, 5], b"firstsecondthird")

    def test_an_error_is_left_to_the_reactor(self) -> None:
        transport = FakeSocket()
        _, output, _ = connected(transport)
        transport.broken = True
        output.write(b"answer")
        assert transport.writing
        assert transport.doWrite() is CONNECTION_LOST

    def test_one_that_closes_is_not_asked(self) -> None:
        transport = FakeSocket()
        _, output, _ = connected(transport)
        output.close_write()
        transport.loseConnection()
        output.write(b"too late")
        assert transport.writes == []


class TestFiles:
    def test_is_sent_in_turns_that_leave_room_for_others(self, large: Path) -> None:
        _, output, transport = connected(FakeSocket())
        said = begin(output, large)
        assert 1_000_000 < len(transport.sent) < LARGE
        assert transport.writing
        assert output.slow
        while not said:
            transport.doWrite()
        assert said == ["sent"]
        assert transport.sent == large.read_bytes()
        assert not output.slow

    def test_a_part(self, large: Path) -> None:
        _, output, transport = connected(FakeSocket())
        assert begin(output, large, 100, 50_000) == ["sent"]
        assert transport.sent == large.read_bytes()[100:50_100]

    def test_a_slow_peer_is_waited_for(self, large: Path) -> None:
        _, output, transport = connected(FakeSocket(room=100_000))
        said = begin(output, large)
        for _ in range(40):
            assert len(transport.dataBuffer) + transport._tempDataLen <= 65_536
            transport.readable(100_000)
        assert said == ["sent"]
        assert transport.sent == large.read_bytes()

    def test_an_end_that_a_slow_peer_does_not_take_at_once_holds_nobody_up(self, large: Path) -> None:
        """The rest is too little for the transport to pause, so it will not tell when it is gone either."""
        _, output, transport = connected(FakeSocket(room=70_000))
        assert begin(output, large, 0, 100_000) == ["sent"]
        assert len(transport.sent) == 70_000
        assert not output.slow
        transport.readable(1 << 30)
        assert transport.sent == large.read_bytes()[:100_000]
        assert not output.slow

    def test_others_have_a_turn_after_a_file_that_went_at_once(self, large: Path) -> None:
        _, output, _ = connected(FakeSocket())
        assert begin(output, large, 0, 1_000_000) == ["sent"]
        assert output.congested

    def test_a_peer_that_takes_nothing_is_dropped(self, large: Path) -> None:
        hub, output, transport = connected(FakeSocket(room=0))
        said = begin(output, large)
        hub.clock.advance(59)
        assert not transport.aborted
        hub.clock.advance(2)
        assert transport.aborted
        assert said == []

    def test_through_a_transport_that_wraps_another(self, large: Path) -> None:
        hub, output, transport = connected(FakeTransport())
        said = begin(output, large)
        while not said:
            hub.clock.advance(0)
        assert transport.take() == large.read_bytes()

    def test_a_wrapping_transport_that_is_full_is_waited_for(self, large: Path) -> None:
        hub, output, transport = connected(FakeTransport())
        write = transport.write

        def one_and_no_more(data: bytes) -> None:
            write(data)
            output.pauseProducing()

        transport.write = one_and_no_more
        said = begin(output, large)
        assert len(transport.value()) == 65_536
        hub.clock.advance(0)
        assert len(transport.value()) == 65_536
        while not said:
            output.resumeProducing()
        assert transport.value() == large.read_bytes()
        assert output.slow

    @pytest.mark.parametrize("kind", [FakeSocket, FakeTransport])
    def test_a_file_that_became_shorter_is_given_up(
        self, large: Path, kind: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody could tell the rest from what follows; what is left of the response is for its stream to say.

        B4. The log tells why, as the application has handed the file over long before and learns nothing of it.
        """
        hub, output, transport = connected(kind())
        said = begin(output, large)
        os.truncate(large, 1_500_000)
        for _ in range(5):
            if kind is FakeSocket:
                transport.doWrite()
            else:
                hub.clock.advance(0)
        assert said == ["failed"]
        assert (transport.sent if kind is FakeSocket else transport.value()) == large.read_bytes()
        assert not output.slow
        assert caplog.messages == ["A file that is being sent cannot be read to its end: it has become shorter"]

    def test_a_file_that_cannot_be_read_is_given_up(
        self, large: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What the kernel says of the file, or of its disk, stays so however long the peer is waited for."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            with socket.create_connection(listening.getsockname()) as ours, listening.accept()[0]:
                _, output, _ = connected(FakeSocket())
                output.socket = ours
                descriptor = os.open(large, os.O_WRONLY)
                failed: list[str] = []
                output.send_file(
                    descriptor, 0, LARGE, lambda: pytest.fail("nothing was sent"), lambda: failed.append("failed")
                )
        assert failed == ["failed"]
        assert "Bad file descriptor" in caplog.text

    @pytest.mark.parametrize("how", ["lost", "aborted"])
    def test_the_descriptor_goes_with_the_connection(self, large: Path, how: str) -> None:
        before = len(os.listdir("/proc/self/fd"))
        _, output, _ = connected(FakeSocket(room=0))
        begin(output, large)
        assert len(os.listdir("/proc/self/fd")) == before + 1
        if how == "lost":
            output.lost()
        else:
            output.abort()
        assert len(os.listdir("/proc/self/fd")) == before
