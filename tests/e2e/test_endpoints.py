"""Real sockets: an echo protocol of Twisted's behind :func:`listen`, and asyncio's clients before it."""

# ruff: noqa: ASYNC240 - a test looks at files while nothing else is to run

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import struct
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from asgiserver.errors import ListenError
from asgiserver.listen.accept import Listener
from asgiserver.listen.endpoints import listen
from asgiserver.loop.reactor import install_reactor
from asgiserver.settings import Settings
from asgiserver.transport.tls_port import TLSPort
from tests.e2e.certificate import Certificate
from tests.e2e.live import connect, until
from tests.e2e.proxies import CLIENT, HAPROXY_ENDPOINT, V1, V2_LOCAL
from tests.e2e.server import DEADLINE, ROOT, free_port

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what the kernel knows")


class Echo(Protocol):
    factory: EchoFactory

    def connectionMade(self) -> None:
        self.factory.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.factory.peers.append(self.transport.getPeer())
        self.factory.hosts.append(self.transport.getHost())
        self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)


@implementer(IProtocolNegotiationFactory)
class EchoFactory(Factory):
    protocol = Echo
    noisy = False

    def __init__(self) -> None:
        self.connections: set[Echo] = set()
        self.peers: list[Any] = []
        self.hosts: list[Any] = []

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


class Serving:
    """What a test needs of a running :func:`listen`."""

    def __init__(self, factory: EchoFactory, listeners: list[Listener]) -> None:
        self.factory = factory
        self.listeners = listeners
        self.listener = listeners[0]

    @property
    def descriptions(self) -> list[str]:
        return [listener.description for listener in self.listeners]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first of them."""
        assert self.listener.address is not None
        return self.listener.address

    async def echo(self, index: int = 0, **options: Any) -> None:
        """A client's bytes come back from the listener."""
        assert await exchange(self.listeners[index], b"hello", **options) == b"hello"


async def exchange(listener: Listener, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """What comes back for ``data`` until the server closes or the first piece is there."""
    async with connect(listener.address or listener.description.removeprefix("unix:"), tls=tls) as peer:
        await peer.send(data)
        return await peer.reader.read(1000)


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Serving]:
    factory = EchoFactory()
    async with asyncio.timeout(2 * DEADLINE):
        listeners = await listen(Settings(**settings), factory, install_reactor())
        try:
            yield Serving(factory, listeners)
        finally:
            for listener in listeners:
                await listener.close()
            await until(lambda: not factory.connections)


async def refusal(**settings: Any) -> str:
    with pytest.raises(ListenError) as caught:
        await listen(Settings(**settings), EchoFactory(), install_reactor())
    message = str(caught.value)
    assert "\n" not in message
    return message


@contextmanager
def listening_socket(family: int, address: Any) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(address)
        sock.listen(5)
        yield sock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.sock"


class TestHostAndPort:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [({}, "127.0.0.1:8000"), ({"host": "127.0.0.3"}, "127.0.0.3:8000")],
        ids=["nothing given", "a host alone"],
    )
    async def test_port_8000_is_the_default(self, settings: dict[str, Any], expected: str) -> None:
        try:
            async with serving(**settings) as server:
                assert server.descriptions == [f"http://{expected}"]
        except ListenError as error:
            # Somebody else has it on this machine; the message shows what was tried.
            assert str(error).startswith(f"cannot listen on {expected}: Address already in use: ss ")  # noqa: PT017

    async def test_a_port_alone_is_on_127_0_0_1_and_0_is_a_real_one(self) -> None:
        async with serving(port=0) as server:
            host, port = server.address
            assert host == "127.0.0.1"
            assert port > 0
            assert server.descriptions == [f"http://127.0.0.1:{port}"]
            await server.echo()

    @pytest.mark.parametrize("host", ["::1", "[::1]"])
    async def test_ipv6_with_and_without_brackets(self, host: str) -> None:
        async with serving(host=host, port=0) as server:
            assert server.descriptions == [f"http://[::1]:{server.address[1]}"]
            await server.echo()
            assert server.factory.peers[0].host == "::1"

    @pytest.mark.parametrize(("host", "address"), [("", "127.0.0.1"), ("0.0.0.0", "0.0.0.0")])
    async def test_every_ipv4_address_only_when_it_is_asked_for(self, host: str, address: str) -> None:
        async with serving(host=host, port=0) as server:
            assert server.address[0] == address
            await server.echo()

    async def test_every_ipv6_address_leaves_ipv4_to_others(self) -> None:
        async with serving(host="::", port=0) as six:
            async with serving(host="0.0.0.0", port=six.address[1]) as four:
                await four.echo()
            assert not six.factory.peers

    async def test_a_name_is_listened_on_at_one_address_ipv4_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = socket.getaddrinfo

        def resolver(host: str, port: int, **options: Any) -> Any:
            if host != "both.test":
                return real(host, port, **options)
            if options["flags"] & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "not numeric")
            return [found for numeric in ("::1", "192.0.2.1", "127.0.0.1") for found in real(numeric, port, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        async with serving(host="both.test", port=0) as server:
            assert len(server.listeners) == 1
            assert server.address[0] == "127.0.0.1", "192.0.2.1 is not ours, so it was the next"

    @pytest.mark.parametrize(
        ("host", "cause"),
        [
            ("192.0.2.1", "Cannot assign requested address"),
            ("127.0.0.1", "Address already in use: ss -ltnp 'sport = :PORT' shows by whom"),
            ("nobody.test", "Name or service not known"),
        ],
    )
    async def test_one_that_cannot_be_is_one_line(self, host: str, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolver(*args: Any, **options: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        if host == "nobody.test":
            monkeypatch.setattr(socket, "getaddrinfo", resolver)
        with listening_socket(socket.AF_INET, ("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            cause = cause.replace("PORT", str(port))
            assert await refusal(host=host, port=port) == f"cannot listen on {host}:{port}: {cause}"

    @linux_only
    async def test_the_backlog_is_the_settings(self) -> None:
        async with serving(port=0, backlog=37) as server:
            info = server.listener._port.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            # tcp(7): of a listening socket, tcpi_sacked is its backlog.
            assert struct.unpack_from("I", info, 28) == (37,)


class TestClose:
    async def test_refuses_new_connections_and_keeps_those_that_are_open(self) -> None:
        async with serving(port=0) as server, connect(server.address) as peer:
            await peer.send(b"before")
            assert await peer.read(6) == b"before"
            await asyncio.gather(server.listener.close(), server.listener.close())
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*server.address)
            await peer.send(b"after")
            assert await peer.read(5) == b"after"

    async def test_the_port_can_be_listened_on_again_though_the_server_closed_connections(self) -> None:
        async with serving(port=0) as server:
            port = server.address[1]
            async with connect(server.address) as peer:
                await until(lambda: server.factory.connections)
                for connection in server.factory.connections:
                    assert connection.transport is not None
                    connection.transport.loseConnection()
                assert await peer.read_rest() == b""  # whoever closes first is left in TIME_WAIT
        async with serving(port=port) as again:
            await again.echo()


class TestAllAtOnce:
    async def test_everything_that_is_given_is_listened_on(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.sock"
        with listening_socket(socket.AF_INET, ("127.0.0.1", 0)) as sock:
            settings: dict[str, Any] = {
                "port": 0,
                "unix_socket": str(path),
                "file_descriptor": sock.fileno(),
                "endpoints": ["tcp:0:interface=127.0.0.1", f"unix:{other}", "tcp6:0:interface=\\:\\:1"],
            }
            async with serving(**settings) as server:
                assert len(server.listeners) == 6
                assert server.descriptions[1] == f"unix:{path}"
                assert server.descriptions[4] == f"unix:{other}"
                assert server.listeners[2].address == sock.getsockname()
                for index in range(6):
                    await server.echo(index)
        assert not path.exists()
        assert not other.exists()

    async def test_one_failure_closes_the_others(self, path: Path) -> None:
        port = free_port()
        with listening_socket(socket.AF_INET, ("127.0.0.1", 0)) as taken:
            text = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            message = await refusal(port=port, unix_socket=str(path), endpoints=[text])
            assert message.startswith(f"cannot listen on {text}: Address already in use: ss -ltnp")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            assert not path.exists()


class TestUnixSocket:
    async def test_is_listened_on_and_removed(self, path: Path) -> None:
        async with serving(unix_socket=str(path)) as server:
            assert (server.descriptions, server.listener.address) == ([f"unix:{path}"], None)
            await server.echo()
            assert server.factory.hosts[0].name == os.fsencode(path)
        assert not path.exists()

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    async def test_has_its_mode_whatever_the_umask(self, path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            async with serving(unix_socket=str(path), unix_socket_mode=0o640):
                assert stat.S_IMODE(path.stat().st_mode) == 0o640
        finally:
            os.umask(before)

    async def test_has_its_mode_before_anybody_can_connect(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        modes, real = [], socket.socket.listen

        def spy(sock: socket.socket, backlog: int) -> None:
            modes.append(stat.S_IMODE(path.stat().st_mode))
            real(sock, backlog)

        monkeypatch.setattr(socket.socket, "listen", spy)
        async with serving(unix_socket=str(path), unix_socket_mode=0o600):
            pass
        assert modes == [0o600], "and nobody listens a second time with another backlog"

    async def test_a_stale_one_is_replaced(self, path: Path) -> None:
        with listening_socket(socket.AF_UNIX, str(path)):
            pass
        assert path.is_socket()
        async with serving(unix_socket=str(path)) as server:
            await server.echo()

    async def test_a_live_one_is_refused_and_goes_on(self, path: Path) -> None:
        async with serving(unix_socket=str(path)) as server:
            for settings in {"unix_socket": str(path)}, {"endpoints": [f"unix:{path}"]}:
                assert await refusal(**settings) == f"cannot listen on unix:{path}: another server listens there"
            await server.echo()

    @linux_only
    async def test_a_live_one_that_is_too_busy_to_accept_is_refused_without_waiting(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
            busy.bind(str(path))
            busy.listen(0)
            client.connect(str(path))
            assert "another server listens there" in await refusal(unix_socket=str(path))

    async def test_a_datagram_socket_is_left_alone(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(path))
            assert str(path) in await refusal(unix_socket=str(path))
        assert path.is_socket()

    async def test_what_others_put_in_its_place_is_not_removed(self, path: Path) -> None:
        async with serving(unix_socket=str(path)) as old:
            path.unlink()
            async with serving(unix_socket=str(path)) as new:
                await old.listener.close()
                await new.echo()
        assert not path.exists(), "the new one has removed its own"

    async def test_a_file_that_is_gone_already_does_not_disturb_closing(self, path: Path) -> None:
        async with serving(unix_socket=str(path)):
            path.unlink()

    @pytest.mark.parametrize("name", ["x" * 200, "no/such/folder/x.sock"])
    async def test_an_impossible_path_is_one_line(self, tmp_path: Path, name: str) -> None:
        message = await refusal(unix_socket=str(tmp_path / name))
        assert message.startswith(f"cannot listen on unix:{tmp_path / name}: ")

    async def test_a_description_has_mode_and_escapes(self, tmp_path: Path) -> None:
        path = tmp_path / "a:b.sock"
        escaped = str(path).replace(":", "\\:")
        async with serving(endpoints=[f"unix:{escaped}:mode=600:backlog=5:lockfile=0"]) as server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            await server.echo()
        assert list(tmp_path.iterdir()) == []


class TestFileDescriptor:
    @pytest.mark.parametrize("spelling", ["setting", "fd:fileno={}", "fd:{}", "fd:fileno={}:domain=INET"])
    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=["inet", "inet6", "unix"])
    async def test_of_any_family_works_and_stays_its_owners(self, path: Path, family: int, spelling: str) -> None:
        address: Any = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}.get(family, str(path))
        with listening_socket(family, address) as sock:
            number = sock.fileno()
            by_setting = spelling == "setting"
            settings = {"file_descriptor": number} if by_setting else {"endpoints": [spelling.format(number)]}
            async with serving(**settings) as server:
                await server.echo()
            with socket.socket(family) as client:
                client.connect(sock.getsockname())  # it still listens, and its file is still there
            async with serving(**settings) as server:
                await server.echo()

    async def test_of_a_unix_socket_keeps_its_mode(self, path: Path) -> None:
        with listening_socket(socket.AF_UNIX, str(path)) as sock:
            path.chmod(0o600)
            async with serving(file_descriptor=sock.fileno()):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @linux_only
    async def test_of_an_abstract_unix_socket_works(self) -> None:
        name = f"\0asgiserver-test-{os.getpid()}"
        with listening_socket(socket.AF_UNIX, name) as sock:
            async with serving(file_descriptor=sock.fileno()) as server, connect(name) as peer:
                assert server.descriptions == [f"unix:@{name[1:]}"]
                await peer.send(b"hello")
                assert await peer.read(5) == b"hello"

    @pytest.mark.parametrize(
        ("opened", "cause"),
        [
            (lambda: socket.socket(), "the socket does not listen"),
            (lambda: socket.socket(type=socket.SOCK_DGRAM), "it is not a stream socket of TCP or unix"),
            (lambda: os.fdopen(os.open(os.devnull, os.O_RDONLY)), "Socket operation on non-socket"),
        ],
        ids=["bound alone", "datagrams", "no socket"],
    )
    async def test_that_is_no_listening_stream_is_one_line(self, opened: Callable[[], Any], cause: str) -> None:
        with opened() as file:
            if isinstance(file, socket.socket):
                file.bind(("127.0.0.1", 0))
            expected = f"cannot listen on file descriptor {file.fileno()}: {cause}"
            assert await refusal(file_descriptor=file.fileno()) == expected
            assert await refusal(endpoints=[f"fd:{file.fileno()}"]) == expected

    def test_0_is_valid(self) -> None:
        program = """
            async with serving(file_descriptor=0) as server:
                await server.echo()
                print(*server.descriptions)
        """
        with listening_socket(socket.AF_INET, ("127.0.0.1", 0)) as sock:
            assert in_child(program, stdin=sock.fileno()) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def in_child(program: str, stdin: int = subprocess.DEVNULL, activated: list[socket.socket] | None = None) -> str:
    """What a coroutine prints in a process of its own, which systemd would have given the sockets to."""
    lines = [
        "import asyncio, os, sys",
        f"numbers = {[sock.fileno() for sock in activated or []]}",
        "if numbers and 'LISTEN_PID' not in os.environ:",
        "    saved = [os.dup(number) for number in numbers]",
        "    copies = [os.dup2(number, 100 + index) for index, number in enumerate(saved)]",
        "    for index, number in enumerate(copies):",
        "        os.dup2(number, 3 + index)",
        "    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)))",
        "    os.execv(sys.executable, sys.orig_argv)",
        "if 'early' in os.environ:",
        "    import twisted.internet.endpoints",
        "    assert 'LISTEN_FDS' not in os.environ",
        "from tests.e2e.test_endpoints import *",
        "from tests.e2e.test_endpoints import serving, refusal",
        "async def main():",
        *textwrap.indent(textwrap.dedent(program).strip(), "    ").splitlines(),
        "asyncio.run(main())",
    ]
    child = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT, stdin=stdin, pass_fds=[sock.fileno() for sock in activated or []], capture_output=True, text=True,
        timeout=2 * DEADLINE, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


@linux_only
class TestSystemd:
    def test_gives_sockets_by_index_or_name_without_their_domain(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = """
            texts = ["systemd:index=0", "systemd:domain=INET6:index=1", "systemd:name=web"]
            for text in texts:
                async with serving(endpoints=[text]) as server:
                    for index in range(len(server.listeners)):
                        await server.echo(index)
                    print(*server.descriptions)
            print(await refusal(endpoints=["systemd:index=2"]))
        """
        monkeypatch.setenv("LISTEN_FDNAMES", "web:web")
        with (
            listening_socket(socket.AF_INET, ("127.0.0.1", 0)) as tcp,
            listening_socket(socket.AF_UNIX, str(path)) as unix,
        ):
            first, second, both, missing = in_child(program, activated=[tcp, unix]).splitlines()
            assert first == f"http://127.0.0.1:{tcp.getsockname()[1]}"
        assert second == f"unix:{path}"
        assert both == f"{first} {second}"
        assert "none with index 2" in missing

    def test_works_without_names_when_twisted_has_taken_its_variables_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = """
            async with serving(endpoints=["systemd:domain=INET:index=0"]) as server:
                await server.echo()
                print(*server.descriptions)
        """
        monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
        monkeypatch.setenv("early", "1")
        with listening_socket(socket.AF_INET, ("127.0.0.1", 0)) as sock:
            assert in_child(program, activated=[sock]) == f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One whose chain the server has to send along, as clients know only the root."""
    return Certificate(tmp_path_factory.mktemp("certificate"), below_another=True)


class TestTLS:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    @pytest.mark.parametrize("files", [1, 2])
    async def test_a_client_that_knows_the_root_is_convinced_by_the_chain(
        self, certificate: Certificate, host: str, files: int
    ) -> None:
        paths = (certificate.both, None) if files == 1 else (certificate.chain, str(certificate.key))
        async with serving(host=host, port=0, ssl_certfile=str(paths[0]), ssl_keyfile=paths[1]) as server:
            assert server.listener.description.startswith("https://")
            await server.echo(tls=certificate.client())

    async def test_the_factory_says_which_protocol_is_negotiated(self, certificate: Certificate) -> None:
        async with serving(port=0, ssl_certfile=str(certificate.both)) as server:
            for offered, chosen in ((("h2", "http/1.1"), "http/1.1"), ((), None)):
                async with connect(server.address, tls=certificate.client(*offered)) as peer:
                    await peer.send(b"x")
                    assert await peer.read(1) == b"x"
                    assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen

    async def test_the_reactor_is_the_given_one_and_not_the_global_one(self, certificate: Certificate) -> None:
        class Given:
            def __getattr__(self, name: str) -> Any:
                return getattr(install_reactor(), name)

        given: Any = Given()
        settings = Settings(port=0, ssl_certfile=str(certificate.both))
        (listener,) = await listen(settings, EchoFactory(), given)
        try:
            assert isinstance(listener._port, TLSPort)
            assert listener._port.reactor is given
        finally:
            await listener.close()

    async def test_plain_bytes_do_not_disturb_the_next_client(self, certificate: Certificate) -> None:
        async with serving(port=0, ssl_certfile=str(certificate.both)) as server:
            assert b"HTTP" not in await exchange(server.listener, b"GET / HTTP/1.1\r\n\r\n")
            await server.echo(tls=certificate.client())
            assert len(server.factory.peers) == 1

    @pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted's own loading does that
    async def test_twisteds_description_works_too(self, certificate: Certificate) -> None:
        text = f"ssl:0:interface=127.0.0.1:privateKey={certificate.key}:certKey={certificate.chain}"
        async with serving(endpoints=[f"{text}:extraCertChain={certificate.chain}"]) as server:
            assert server.listener.description.startswith("https://127.0.0.1:")
            await server.echo(tls=certificate.client())


class TestHAProxy:
    async def test_gives_the_clients_address(self) -> None:
        async with serving(**HAPROXY_ENDPOINT) as server:
            assert server.listener.description.startswith("http://127.0.0.1:")
            assert await exchange(server.listener, V1 + b"hello") == b"hello"
            peer = server.factory.peers[0]
            assert (peer.host, peer.port) == CLIENT

    @pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", V2_LOCAL])
    async def test_keeps_the_sockets_address_when_the_header_gives_none(self, header: bytes) -> None:
        async with serving(**HAPROXY_ENDPOINT) as server:
            assert await exchange(server.listener, header + b"hello") == b"hello"
            assert server.factory.peers[0].host == "127.0.0.1"

    @pytest.mark.parametrize("data", [b"hello, no header here", b"PROXY TCP4 x\r\nhello", b"GET / HTTP/1.1\r\n\r\n"])
    async def test_closes_without_a_header(self, data: bytes) -> None:
        async with serving(**HAPROXY_ENDPOINT) as server:
            assert await exchange(server.listener, data) == b""
            assert await exchange(server.listener, V1 + b"hello") == b"hello"
            assert len(server.factory.peers) == 1

    async def test_wraps_our_own_kinds(self, path: Path) -> None:
        with listening_socket(socket.AF_INET, ("127.0.0.1", 0)) as sock:
            async with serving(endpoints=[f"haproxy:unix:{path}", f"haproxy:fd:fileno={sock.fileno()}"]) as server:
                for listener in server.listeners:
                    assert await exchange(listener, V1 + b"hello") == b"hello"
                assert {peer.host for peer in server.factory.peers} == {CLIENT[0]}


async def test_no_descriptor_is_left_when_all_is_closed(path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts descriptors as Linux shows them")
    install_reactor()
    async with serving(port=0):
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with serving(port=0, unix_socket=str(path), endpoints=["tcp:0:interface=127.0.0.1"]) as server:
            await server.echo()
        await refusal(port=0, unix_socket=str(path), host="192.0.2.1")
    assert len(os.listdir("/proc/self/fd")) == before
