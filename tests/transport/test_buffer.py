"""What a transport has not sent yet, and that Twisted keeps it where it is looked for."""

from __future__ import annotations

import ast
import inspect
import io
from types import SimpleNamespace

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from asgiserver.transport import buffer
from asgiserver.transport.buffer import bottom_of, call_when_empty, is_idle, unsent
from tests.fakes import FakeSocket


class TestTwisted:
    """That a socket's transport of Twisted's has what is read of it past its public interface."""

    def test_every_name_that_is_read_is_there(self) -> None:
        names = {
            node.attr
            for node in ast.walk(ast.parse(inspect.getsource(buffer)))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "transport"
        }
        assert names >= {"dataBuffer", "offset", "_tempDataBuffer", "_tempDataLen", "disconnecting", "producerPaused"}
        descriptor = FileDescriptor(reactor=object())  # type: ignore[arg-type]
        assert [name for name in names if not hasattr(descriptor, name)] == []

    def test_sending_is_done_by_no_other_way(self) -> None:
        """``writeSomeData`` is what ``doWrite`` itself sends by, so that what is sent first is first."""
        assert "self.writeSomeData(" in inspect.getsource(FileDescriptor.doWrite)
        assert Connection.doWrite is FileDescriptor.doWrite

    def test_bytes_that_wait_are_where_they_are_counted(self) -> None:
        transport = FakeSocket(0)
        assert (unsent(transport), is_idle(transport)) == (0, True)
        transport.write(b"*" * 10)
        waiting = b"".join(transport._tempDataBuffer)
        assert (transport._tempDataLen, waiting, transport.dataBuffer) == (10, b"*" * 10, b"")
        assert (unsent(transport), is_idle(transport)) == (10, False)
        transport.readable(4)
        assert (transport._tempDataLen, transport._tempDataBuffer) == (0, [])
        assert (len(transport.dataBuffer), transport.offset) == (10, 4)
        assert (unsent(transport), is_idle(transport)) == (6, False)
        transport.write(b"*")
        assert unsent(transport) == 7
        transport.readable(100)
        assert (transport.dataBuffer, transport.offset) == (b"", 0)
        assert (unsent(transport), is_idle(transport)) == (0, True)


def test_what_tls_has_encrypted_waits_too() -> None:
    transport = FakeSocket(0)
    transport.sealed = memoryview(b"***")  # type: ignore[attr-defined]
    transport.write(b"*")
    assert unsent(transport) == 4


def test_a_transport_that_closes_takes_nothing_behind_what_it_has() -> None:
    transport = FakeSocket(0)
    transport.disconnecting = True
    assert not is_idle(transport)


def test_the_producer_is_called_without_a_byte_to_send() -> None:
    transport = FakeSocket(0)
    called: list[str] = []
    transport.registerProducer(SimpleNamespace(resumeProducing=lambda: called.append("resumed")), True)
    call_when_empty(transport)
    assert transport.writing
    transport.readable(1)
    assert called == ["resumed"]


@pytest.mark.parametrize("wraps", [0, 1, 2])
def test_the_bottom_is_the_sockets(wraps: int) -> None:
    transport = bottom = FakeSocket(0)
    for _ in range(wraps):
        wrapper = ProtocolWrapper(WrappingFactory(None), None)  # type: ignore[arg-type]
        wrapper.transport = transport
        transport = wrapper  # type: ignore[assignment]
    assert bottom_of(transport) is bottom


@pytest.mark.parametrize("transport", [None, io.BytesIO()])
def test_without_a_socket_there_is_no_bottom(transport: object) -> None:
    assert bottom_of(transport) is None
