"""The two steps of listening: sockets that are bound, and accepted on later, elsewhere, or never."""

# ruff: noqa: ASYNC222, ASYNC240 - a test looks at files and at its child while nothing else is to run

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from asgiserver.errors import ListenError, SettingsError
from asgiserver.listen.accept import accept
from asgiserver.listen.bind import Bound, Described, bind
from asgiserver.loop.reactor import install_reactor
from asgiserver.settings import Settings

from .test_endpoints import EchoFactory


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "web.sock")


def only(made: list[Bound | Described]) -> Bound:
    (bound,) = made
    assert isinstance(bound, Bound)
    return bound


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_who_connects_before_anybody_accepts_is_served_then(unix: bool, path: str) -> None:
    settings = Settings(unix_socket=path) if unix else Settings(port=0)
    bound = only(await bind(settings))
    with socket.socket(bound.sock.family, socket.SOCK_STREAM) as client:
        client.connect(bound.sock.getsockname())
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"hello")
        listener = await accept(bound, settings, EchoFactory(), install_reactor())
        assert await loop.sock_recv(client, 10) == b"hello"
    assert bound.sock.fileno() == -1
    await listener.close()
    assert not os.path.exists(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_another_process_may_accept(path: str) -> None:
    bound = only(await bind(Settings(unix_socket=path)))
    child = os.fork()
    if not child:
        bound.sock.setblocking(True)
        bound.sock.accept()[0].sendall(b"from the child")
        os._exit(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(path)
        assert client.recv(100) == b"from the child"
    assert os.waitpid(child, 0)[1] == 0
    bound.close()


async def test_one_that_is_given_up_leaves_nothing(path: str) -> None:
    bound = only(await bind(Settings(unix_socket=path)))
    bound.close()
    assert (bound.sock.fileno(), os.path.exists(path)) == (-1, False)


async def test_file_of_another_server_is_left_alone(path: str) -> None:
    bound = only(await bind(Settings(unix_socket=path)))
    os.rename(path, f"{path}.old")
    Path(path).touch()
    bound.close()
    assert os.path.exists(path)


async def test_when_one_fails_those_before_it_are_closed(path: str) -> None:
    with pytest.raises(ListenError, match="file descriptor 4711"):
        await bind(Settings(unix_socket=path, file_descriptor=4711))
    assert not os.path.exists(path)


async def test_when_one_cannot_accept_its_socket_is_closed(path: str, tmp_path: Path) -> None:
    settings = Settings(port=0, ssl_certfile=str(tmp_path / "missing.pem"))
    bound = only(await bind(settings))
    with pytest.raises(SettingsError, match=r"missing\.pem"):
        await accept(bound, settings, EchoFactory(), install_reactor())
    assert bound.sock.fileno() == -1


async def test_twisteds_descriptions_are_bound_when_they_accept() -> None:
    settings = Settings(endpoints=("haproxy:tcp:0:interface=127.0.0.1",))
    (described,) = await bind(settings)
    assert isinstance(described, Described)
    assert (described.kind, described.proxies is not None, described.secure) == ("tcp", True, False)
    listener = await accept(described, settings, EchoFactory(), install_reactor())
    assert listener.address is not None
    await listener.close()


# Twisted leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("text", "inheritable"), [("tcp:65536", False), ("tcp:65536", True), ("tcp6:65536", True)])
async def test_a_port_that_there_cannot_be_is_a_settings_error(text: str, inheritable: bool) -> None:
    settings = Settings(endpoints=(text,))

    async def listen() -> None:
        (described,) = await bind(settings, inheritable=inheritable)
        await accept(described, settings, EchoFactory(), install_reactor())

    with pytest.raises(SettingsError, match=f"'{text}': "):
        await listen()


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors")
async def test_an_inherited_socket_stays_with_who_left_it_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        bound = only(await bind(Settings(file_descriptor=theirs.fileno())))
        assert (bound.inherited, bound.sock.fileno() != theirs.fileno()) == (theirs.fileno(), True)
        bound.close()
        assert theirs.fileno() >= 0
