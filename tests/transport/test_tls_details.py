"""What a connection tells of its TLS, with Python's ssl and with pyOpenSSL; no socket."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from OpenSSL import SSL
from twisted.internet import main
from twisted.python.failure import Failure

from asgiserver.asgi.scope import TLS
from asgiserver.transport.certificates import Certificates, Options
from asgiserver.transport.tls_details import details_of, session_details
from tests.transport.test_tls import Connection, make_port
from tests.transport.test_tls_options import AUTHORITY, Ends, issue, trusting

#: Above the client's certificate stands another one, which it sends too.
BELOW = AUTHORITY.create_child_ca()
CLIENT = BELOW.issue_cert("me@example.com", common_name='Ann, "A"', organization_name="X+Y")
VERSIONS = {0x0303: ssl.TLSVersion.TLSv1_2, 0x0304: ssl.TLSVersion.TLSv1_3}


def pems(issued: trustme.LeafCert) -> tuple[str, ...]:
    return tuple(blob.bytes().decode() for blob in issued.cert_chain_pems)


def client(version: int = 0x0304, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = trusting()
    context.maximum_version = VERSIONS[version]
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def first_certificate(path: str) -> str:
    text = Path(path).read_text(encoding="ascii")
    return text[text.index("-----BEGIN CERT") :].partition("-----END CERTIFICATE-----\n")[0] + (
        "-----END CERTIFICATE-----\n"
    )


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pem")
    return [issue(folder, "first", "first.example"), issue(folder, "second", "second.example")]


@pytest.fixture(scope="module")
def asking(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """The context of a server that takes certificates of clients."""
    root = tmp_path_factory.mktemp("root") / "root"
    AUTHORITY.cert_pem.write_to_path(root)
    return Certificates(paths, options=Options(ca_certs=str(root), cert_reqs="optional")).current()


class TestSession:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_version_and_suite_are_the_numbers_of_the_rfcs(self, version: int, asking: ssl.SSLContext) -> None:
        ends = Ends(asking, client(version)).shake_hands()
        names = {
            "TLS_AES_256_GCM_SHA384": 0x1302, "TLS_CHACHA20_POLY1305_SHA256": 0x1303, "TLS_AES_128_GCM_SHA256": 0x1301,
            "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C, "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
            "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9, "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
        }  # fmt: skip
        name, _, _ = ends.client.cipher() or ("", "", 0)
        details = session_details(ends.server)
        assert (details.tls_version, details.cipher_suite) == (version, names[name])

    @pytest.mark.parametrize(("asked", "number"), [("first.example", 0), ("second.example", 1), (None, 0)])
    def test_the_servers_certificate_is_the_one_that_the_client_was_shown(
        self, asked: str | None, number: int, asking: ssl.SSLContext, paths: list[str]
    ) -> None:
        ends = Ends(asking, client(), asked).shake_hands()
        shown = session_details(ends.server).server_cert
        assert shown == first_certificate(paths[number])
        assert shown == ssl.DER_cert_to_PEM_cert(ends.client.getpeercert(binary_form=True) or b"")

    def test_of_a_client_without_a_certificate(self, asking: ssl.SSLContext) -> None:
        assert session_details(Ends(asking, client()).shake_hands().server)[1:4] == ((), None, None)

    @pytest.mark.parametrize("version", VERSIONS)
    def test_the_clients_certificates_and_its_name(self, version: int, asking: ssl.SSLContext) -> None:
        ends = Ends(asking, client(version, CLIENT)).shake_hands()
        details = session_details(ends.server)
        assert details.client_cert_chain[: len(pems(CLIENT))] == pems(CLIENT)
        assert details.client_cert_name is not None
        parts = details.client_cert_name.replace(r"\,", "").split(",")
        assert r'CN=Ann\, \"A\"' in details.client_cert_name
        assert r"O=X\+Y" in parts
        assert details.client_cert_error is None

    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_resumed_session_has_the_clients_certificate(self, version: int, asking: ssl.SSLContext) -> None:
        context = client(version, CLIENT)
        ends = Ends(asking, context, "second.example").shake_hands()
        ends.server.write(b"x")
        ends.client.read()
        again = Ends(asking, context, "second.example")
        again.client.session = ends.client.session
        assert again.shake_hands().client.session_reused
        before, after = session_details(ends.server), session_details(again.server)
        assert after.client_cert_chain[0] == pems(CLIENT)[0]
        assert (after.client_cert_name, after.server_cert) == (before.client_cert_name, before.server_cert)


class TestTransport:
    def test_has_details_while_it_is_connected(self, paths: list[str]) -> None:
        port = make_port()
        port.secure(Certificates(paths))
        connection = Connection(port, trusting())
        assert details_of(connection.transport) is None
        connection.shake_hands()
        details = details_of(connection.transport)
        assert isinstance(details, TLS)
        assert details.server_cert == first_certificate(paths[0])
        connection.transport.connectionLost(Failure(main.CONNECTION_LOST))
        assert details_of(connection.transport) is None

    def test_that_says_nothing_of_itself(self) -> None:
        assert details_of(object()) is None


class TestPyOpenSSL:
    @pytest.mark.parametrize("shown", [None, CLIENT], ids=["without", "with"])
    def test_tells_the_same(self, shown: trustme.LeafCert | None, paths: list[str]) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(paths[0])
        context.use_privatekey_file(paths[0])
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        server, peer = SSL.Connection(context), self.client(shown)
        server.set_accept_state()
        for one, other in ((peer, server), (server, peer)) * 3:
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
        transport: Any = type("Transport", (), {"getHandle": lambda _: server})()
        details = details_of(transport)
        assert details is not None
        assert (details.tls_version, details.cipher_suite) == (0x0304, 0x1302)
        assert details.server_cert == first_certificate(paths[0])
        chain = () if shown is None else pems(shown)
        assert details.client_cert_chain[: len(chain)] == chain
        assert bool(details.client_cert_chain) is (shown is not None) is (r"O=X\+Y" in (details.client_cert_name or ""))

    def client(self, certificate: trustme.LeafCert | None) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if certificate is not None:
            certificate.configure_cert(context)
        connection = SSL.Connection(context)
        connection.set_connect_state()
        return connection
