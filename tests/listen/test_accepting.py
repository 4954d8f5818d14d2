"""A port that has no descriptor left for another connection."""

from __future__ import annotations

import errno
import logging
import math
import socket
from typing import Any

import pytest
from twisted.internet import tcp

from asgiserver.listen.accepting import ListeningSocket, watch
from tests.fakes import Clock


class Port(tcp.Port):
    """A port without a reactor, whose reading is only noted."""

    def __init__(self, sock: Any, connected: bool = True) -> None:
        self.socket = sock
        self.connected = connected
        self.disconnecting = False
        self.reading = True
        self.reactor = Clock()

    def startReading(self) -> None:
        self.reading = True

    def stopReading(self) -> None:
        self.reading = False


class Socket:
    """Is asked for its descriptor alone, which is not one."""

    def detach(self) -> int:
        return -1


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Port:
    monkeypatch.setattr(ListeningSocket, "warned_at", -math.inf)
    # No socket is made in a unit test: only what is above it is looked at.
    monkeypatch.setattr(socket.socket, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(socket.socket, "setblocking", lambda *_: None)
    made = Port(Socket())
    watch(made)
    return made


def accept(port: Port, monkeypatch: pytest.MonkeyPatch, number: int) -> type[OSError] | None:
    """How accept() ends for the port when accept(2) says ``number``."""

    def refuse(_: Any) -> Any:
        raise OSError(number, "so it is")

    monkeypatch.setattr(socket.socket, "accept", refuse)
    try:
        port.socket.accept()
    except OSError as error:
        return type(error)
    return None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_it_is_left_alone_for_a_second(port: Port, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Nobody is accepted, nothing spins, and it goes on."""
    assert accept(port, monkeypatch, number) is BlockingIOError
    assert not port.reading
    port.reactor.advance(0.9)
    assert not port.reading
    port.reactor.advance(0.1)
    assert port.reading


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ECONNABORTED, errno.EPERM])
def test_what_only_one_connection_is_about_is_for_twisted(
    port: Port, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert accept(port, monkeypatch, number) is not None
    assert port.reading
    assert caplog.messages == []


def test_one_warning_a_minute_is_given_whatever_the_port(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = Port(Socket())
    watch(other)
    other.reactor = port.reactor
    for _ in range(59):
        accept(port, monkeypatch, errno.EMFILE)
        accept(other, monkeypatch, errno.ENFILE)
        port.reactor.advance(1)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("asgiserver", logging.WARNING)
    assert record.getMessage().startswith("New connections have to wait: so it is. ")
    port.reactor.advance(1)
    accept(other, monkeypatch, errno.EMFILE)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("end", ["connected", "disconnecting"])
def test_one_that_was_closed_meanwhile_is_not_read_again(
    port: Port, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    accept(port, monkeypatch, errno.EMFILE)
    setattr(port, end, end == "disconnecting")
    port.reactor.advance(1)
    assert not port.reading


def test_others_are_left_as_they_are() -> None:
    for other in (object(), Port(sock := Socket(), connected=False)):
        watch(other)
    assert other.socket is sock  # type: ignore[attr-defined]
