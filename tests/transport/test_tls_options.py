"""Several certificates, changing ones, passwords, clients' certificates, and the time of a handshake; no socket."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from asgiserver.errors import SettingsError
from asgiserver.transport import certificates
from asgiserver.transport.certificates import Certificates, Options, load
from tests.transport.test_tls import Connection, client_context, make_port

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()


def issue(folder: Path, name: str, *hosts: str) -> str:
    """A file with a certificate for ``hosts`` and its key."""
    path = folder / name
    AUTHORITY.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


def encrypt(path: str, password: bytes) -> str:
    """A file beside ``path`` with its key, encrypted."""
    key = load_pem_private_key(Path(path).read_bytes(), None)
    encrypted = Path(f"{path}.key")
    encrypted.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)))
    return str(encrypted)


class Ends:
    """A client and a server that shake hands in memory."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext | None = None, name: str | None = "localhost"
    ) -> None:
        if client is None:
            client = trusting()
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client.check_hostname = client.check_hostname and name is not None
        self.client = client.wrap_bio(back, there, server_hostname=name)
        self.server = server.wrap_bio(there, back, server_side=True)

    def shake_hands(self) -> Ends:
        for end in (self.client, self.server, self.client, self.server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
        return self

    @property
    def names(self) -> list[str]:
        """The names in the certificate that the client has got."""
        found: Any = self.shake_hands().client.getpeercert()
        return [value for _, value in found["subjectAltName"]]


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    context.check_hostname = False
    return context


def refusal(certfile: str, keyfile: str | None = None, **options: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(certfile, keyfile, Options(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("names")
    files = [
        issue(folder, "first", "first.example"),
        issue(folder, "second", "second.example", "*.Second.example", "*.both.example"),
        issue(folder, "third", "exact.second.example", "second.example", "127.0.0.1"),
    ]
    certificates = Certificates(files, clock=Clock().seconds)
    certificates.offer(["http/1.1"])
    return certificates.current()


class TestNames:
    @pytest.mark.parametrize(
        ("asked", "got"),
        [
            ("first.example", "first.example"),
            ("second.example", "second.example"),
            ("SECOND.example", "second.example"),
            ("a.second.example", "second.example"),
            ("exact.second.example", "exact.second.example"),
            ("a.b.second.example", "first.example"),
            ("example", "first.example"),
            ("elsewhere.example", "first.example"),
            ("127.0.0.1", "first.example"),
            (None, "first.example"),
        ],
    )
    def test_the_one_that_a_client_asks_for_chooses(self, asked: str | None, got: str, named: ssl.SSLContext) -> None:
        assert Ends(named, name=asked).names[0] == got

    @pytest.mark.parametrize("name", ["first.example", "second.example"])
    def test_each_certificate_comes_with_the_protocols(self, name: str, named: ssl.SSLContext) -> None:
        client = trusting()
        client.set_alpn_protocols(["h2", "http/1.1"])
        assert Ends(named, client, name).shake_hands().client.selected_alpn_protocol() == "http/1.1"

    def test_a_key_belongs_to_the_certificate_in_its_place(self, tmp_path: Path) -> None:
        first, second = issue(tmp_path, "first", "first.example"), issue(tmp_path, "second", "second.example")
        certificates = Certificates([first, second], [first, second], clock=Clock().seconds)
        assert Ends(certificates.current(), name="second.example").names == ["second.example"]
        with pytest.raises(SettingsError, match=f"ssl_keyfile: the key in {second} does not belong to the cert"):
            Certificates([first, second], [second, first], clock=Clock().seconds)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_session_is_resumed_under_its_name(self, version: ssl.TLSVersion, named: ssl.SSLContext) -> None:
        client = trusting()
        client.maximum_version = version
        ends = Ends(named, client, "second.example").shake_hands()
        ends.server.write(b"x")
        ends.client.read()
        again = Ends(named, client, "second.example")
        again.client.session = ends.client.session
        assert again.shake_hands().client.session_reused


class TestChanges:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return issue(tmp_path, "pem", "old.example")

    @pytest.fixture
    def certificates(self, path: str, clock: Clock) -> Certificates:
        made = Certificates([path], clock=clock.seconds)
        made.offer(["http/1.1"])
        return made

    def names(self, certificates: Certificates) -> list[str]:
        return Ends(certificates.current()).names

    def test_are_found_at_a_handshake_after_a_while(
        self, certificates: Certificates, path: str, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        begun = Ends(certificates.current())
        issue(tmp_path, "pem", "new.example")
        clock.advance(29.9)
        assert self.names(certificates) == ["old.example"]
        clock.advance(0.2)
        assert self.names(certificates) == ["new.example"]
        assert begun.names == ["old.example"], "a connection goes on with what it began with"
        assert caplog.messages == ["The certificates were read again"]
        client = trusting()
        client.set_alpn_protocols(["http/1.1"])
        assert Ends(certificates.current(), client).shake_hands().client.selected_alpn_protocol() == "http/1.1"

    def test_are_found_at_once_when_asked(self, certificates: Certificates, tmp_path: Path) -> None:
        issue(tmp_path, "pem", "new.example")
        certificates.read_again()
        assert self.names(certificates) == ["new.example"]

    def test_files_that_stay_are_not_read(
        self, certificates: Certificates, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        context = certificates.current()
        clock.advance(31)
        assert certificates.current() is context
        certificates.read_again()
        assert certificates.current() is context
        assert not caplog.messages

    @pytest.mark.parametrize("change", ["junk", "empty", "gone", "a folder", "another key"])
    def test_that_are_broken_change_nothing_and_are_told_once(
        self, change: str, certificates: Certificates, path: str, clock: Clock, tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        good = Path(path).read_bytes()
        os.unlink(path)
        if change == "a folder":
            os.mkdir(path)
        elif change != "gone":
            key = AUTHORITY.issue_cert("x").private_key_pem.bytes()
            certificate = good[good.index(b"-----BEGIN CERT") :]
            Path(path).write_bytes({"junk": b"junk", "empty": b"", "another key": certificate + key}[change])
        for _ in range(3):
            clock.advance(31)
            assert self.names(certificates) == ["old.example"]
        certificates.read_again()
        (told,) = caplog.messages
        assert told.startswith("The certificates stay as they are: ssl_certfile: ")
        if change == "a folder":
            os.rmdir(path)
        issue(tmp_path, "pem", "new.example")
        certificates.read_again()
        assert self.names(certificates) == ["new.example"]

    def test_a_file_that_goes_while_it_is_read_changes_nothing(
        self, path: str, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        second = issue(tmp_path, "second", "second.example")
        made = Certificates([path, second], clock=clock.seconds)
        issue(tmp_path, "second", "third.example")
        names = certificates._names

        def going(certfile: str) -> list[str]:
            Path(second).unlink(missing_ok=True)
            return names(certfile)

        read = certificates._read

        def kept(setting: str, file: str) -> bytes:
            # Both readings before OpenSSL's own find it.
            return Path(path).read_bytes() if file == second else read(setting, file)

        monkeypatch.setattr(certificates, "_names", going)
        monkeypatch.setattr(certificates, "_read", kept)
        made.read_again()
        assert caplog.messages == [
            f"The certificates stay as they are: ssl_certfile: cannot read {second}: No such file or directory"
        ]
        assert Ends(made.current(), name="second.example").names == ["second.example"]

    def test_a_second_break_is_told_too(
        self, certificates: Certificates, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        for text in ("junk", "more junk"):
            Path(path).write_text(text)
            certificates.read_again()
        assert len(caplog.messages) == 2

    def test_of_one_of_two_certificates(self, path: str, clock: Clock, tmp_path: Path) -> None:
        certificates = Certificates([path, issue(tmp_path, "second", "second.example")], clock=clock.seconds)
        issue(tmp_path, "second", "third.example")
        certificates.read_again()
        assert Ends(certificates.current(), name="third.example").names == ["third.example"]
        assert Ends(certificates.current(), name="second.example").names == ["old.example"]

    def test_of_the_authorities_and_of_the_password(self, path: str, clock: Clock, tmp_path: Path) -> None:
        authorities, password = tmp_path / "ca.pem", tmp_path / "password"
        STRANGER.cert_pem.write_to_path(authorities)
        password.write_text("one\n")
        options = Options(keyfile_password_file=str(password), ca_certs=str(authorities))
        certificates = Certificates([path], [encrypt(path, b"one")], options, clock.seconds)
        client = trusting()
        AUTHORITY.issue_cert("client@example.org").configure_cert(client)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            Ends(certificates.current(), client).shake_hands()
        encrypt(path, b"two")
        password.write_text("two\n")
        AUTHORITY.cert_pem.write_to_path(authorities)
        certificates.read_again()
        Ends(certificates.current(), client).shake_hands()

    def test_the_keys_of_session_tickets_are_used_for_a_day(
        self, certificates: Certificates, path: str, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        first = certificates.current()
        clock.advance(86300)
        assert certificates.current() is first
        clock.advance(101)
        second = certificates.current()
        assert second is not first
        assert not caplog.messages
        clock.advance(86401)
        os.rename(path, f"{path}.away")
        os.mkdir(path)
        assert certificates.current() is second


class TestPasswords:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[str, str]:
        path = issue(tmp_path, "pem", "localhost")
        return path, encrypt(path, "s\u00e9cret ".encode())

    def test_open_a_key(self, files: tuple[str, str]) -> None:
        assert Ends(load(*files, Options(keyfile_password="s\u00e9cret "))).names == ["localhost"]

    @pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nsecond line\n"])
    def test_in_a_file_are_its_first_line(self, end: str, files: tuple[str, str], tmp_path: Path) -> None:
        path = tmp_path / "password"
        path.write_bytes(f"s\u00e9cret {end}".encode())
        assert Ends(load(*files, Options(keyfile_password_file=str(path)))).names == ["localhost"]

    @pytest.mark.parametrize("password", ["wrong", "", "x" * 2000])
    def test_that_are_wrong_are_told_but_not_shown(self, password: str, files: tuple[str, str]) -> None:
        message = refusal(*files, keyfile_password=password)
        expected = f"ssl_keyfile: the key in {files[1]} is encrypted with another password than the one that is given"
        assert message == expected

    def test_that_are_needed_are_named(self, files: tuple[str, str]) -> None:
        assert refusal(*files).endswith("is encrypted, and no ssl_keyfile_password is given")

    def test_that_cannot_be_read(self, files: tuple[str, str]) -> None:
        message = "ssl_keyfile_password_file: cannot read nowhere: No such file or directory"
        assert refusal(*files, keyfile_password_file="nowhere") == message

    def test_of_a_key_of_another_certificate(self, files: tuple[str, str], tmp_path: Path) -> None:
        other = issue(tmp_path, "other", "other.example")
        message = refusal(other, files[1], keyfile_password="s\u00e9cret ")
        assert message == f"ssl_keyfile: the key in {files[1]} does not belong to the certificate in {other}"


class TestClientsCertificates:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[str, str]:
        AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
        return issue(tmp_path, "pem", "localhost"), str(tmp_path / "ca.pem")

    @pytest.mark.parametrize(
        ("required", "shown", "accepted"),
        [
            ("auto", "ours", True), ("auto", "strange", False), ("auto", "", False),
            ("required", "ours", True), ("required", "strange", False), ("required", "", False),
            ("optional", "ours", True), ("optional", "strange", False), ("optional", "", True),
            ("none", "ours", True), ("none", "strange", True), ("none", "", True),
        ],
    )  # fmt: skip
    def test_are_asked_for_as_the_setting_says(
        self, required: str, shown: str, accepted: bool, files: tuple[str, str]
    ) -> None:
        certfile, authorities = files
        client = trusting()
        if shown:
            issuer = AUTHORITY if shown == "ours" else STRANGER
            issuer.issue_cert("client@example.org").configure_cert(client)
        ends = Ends(load(certfile, None, Options(ca_certs=authorities, cert_reqs=required)), client)
        if not accepted:
            with pytest.raises(ssl.SSLError, match=r"CERTIFICATE_VERIFY_FAILED|PEER_DID_NOT_RETURN"):
                ends.shake_hands()
            return
        ends.shake_hands()
        assert (ends.server.getpeercert(binary_form=True) is not None) == (shown == "ours" and required != "none")

    def test_are_known_to_the_transport(self, files: tuple[str, str]) -> None:
        certfile, authorities = files
        port = make_port()
        port.secure(Certificates([certfile], (), Options(ca_certs=authorities), Clock().seconds))
        client = trusting()
        issued = AUTHORITY.issue_cert("client@example.org")
        issued.configure_cert(client)
        connection = Connection(port, client)
        assert connection.transport.getPeerCertificate() is None
        connection.shake_hands()
        shown = connection.transport.getPeerCertificate()
        assert shown == ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
        connection.transport.connectionLost(connection_lost())
        assert connection.transport.getPeerCertificate() is None

    def test_a_file_without_authorities_is_refused(self, files: tuple[str, str], tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("junk")
        assert refusal(files[0], ca_certs=files[1]) == f"ssl_ca_certs: no certificate in PEM in {files[1]}"


def connection_lost() -> Any:
    from twisted.internet.main import CONNECTION_LOST
    from twisted.python.failure import Failure

    return Failure(CONNECTION_LOST)


class TestVersionsAndCiphers:
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return issue(tmp_path, "pem", "localhost")

    def test_every_cipher_authenticates_what_it_encrypts(self, path: str) -> None:
        assert all(cipher["aead"] for cipher in load(path, None).get_ciphers())

    def test_ciphers_of_ones_own(self, path: str) -> None:
        context = load(path, None, Options(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"))
        old = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
        assert old == ["ECDHE-ECDSA-AES128-GCM-SHA256"]

    @pytest.mark.parametrize("text", ["nonsense", "nonsense:more"])
    def test_unknown_ciphers_are_refused(self, text: str, path: str) -> None:
        assert refusal(path, ciphers=text) == f"ssl_ciphers: OpenSSL knows no cipher in {text!r}"

    @pytest.mark.parametrize(("oldest", "accepted"), [("TLSv1.2", True), ("TLSv1.3", False)])
    def test_the_oldest_version(self, oldest: str, accepted: bool, path: str) -> None:
        client = trusting()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        ends = Ends(load(path, None, Options(min_version=oldest)), client)
        if accepted:
            assert ends.shake_hands().server.version() == "TLSv1.2"
        else:
            with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
                ends.shake_hands()


class TestTimeOfAHandshake:
    def connection(self, timeout: float | None) -> tuple[Connection, Any]:
        port, reactor = make_port(), MemoryReactorClock()
        port.reactor, port.handshake_timeout = reactor, timeout
        return Connection(port, client_context()), reactor

    @pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"G"])
    def test_ends_with_the_connection(self, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        connection, reactor = self.connection(7.0)
        connection.socket.arrived += sent
        if sent:
            connection.read()
        reactor.advance(6.9)
        assert not connection.transport.disconnected
        reactor.advance(0.2)
        assert connection.transport.disconnected
        assert caplog.messages == ["TLS handshake with 192.0.2.7 failed: it took longer than 7 seconds"]

    @pytest.mark.parametrize("how", ["shaken", "plain", "lost"])
    def test_counts_no_longer_once_it_is_over(self, how: str) -> None:
        connection, reactor = self.connection(7.0)
        if how == "shaken":
            connection.shake_hands()
        elif how == "lost":
            connection.transport.connectionLost(connection_lost())
        else:
            connection.protocol.plain_received = lambda: None  # type: ignore[attr-defined]
            connection.socket.arrived += b"GET / HTTP/1.1\r\n"
            connection.read()
        assert not reactor.getDelayedCalls()
        reactor.advance(8)
        assert connection.transport.disconnected == (how == "lost")

    def test_has_no_limit_without_one(self) -> None:
        connection, reactor = self.connection(None)
        assert not reactor.getDelayedCalls()
        assert not connection.transport.disconnected
