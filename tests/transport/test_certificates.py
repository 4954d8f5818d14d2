from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from asgiserver.errors import SettingsError
from asgiserver.transport.certificates import load


class Files:
    """A certificate for ``localhost`` below an intermediate one, its key, and another key, in PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = authority = trustme.CA()
        self.issued = authority.create_child_ca().issue_cert("localhost")
        self.chain = b"".join(blob.bytes() for blob in self.issued.cert_chain_pems)
        self.key = self.issued.private_key_pem.bytes()
        self.other_key = authority.issue_cert("elsewhere").private_key_pem.bytes()

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


def refusal(certfile: str, keyfile: str | None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(certfile, keyfile)
    message = str(caught.value)
    assert "\n" not in message
    return message


def shake_hands(server: ssl.SSLContext, authority: trustme.CA) -> str | None:
    """The version of TLS that a client which trusts ``authority`` speaks with ``server``."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname="localhost"), server.wrap_bio(there, back, server_side=True)]
    for end in (ends[0], ends[1], ends[0], ends[1]):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return ends[1].version()


class TestLoad:
    def test_chain_and_key_in_two_files(self, files: Files) -> None:
        """The certificates after the first are sent along: this client knows only the root."""
        context = load(files.write("chain.pem", files.chain), files.write("key.pem", files.key))
        assert files.chain.count(b"BEGIN CERTIFICATE") == 2
        assert shake_hands(context, files.authority) == "TLSv1.3"

    @pytest.mark.parametrize("key_first", [True, False])
    def test_chain_and_key_in_one_file(self, files: Files, key_first: bool) -> None:
        content = files.key + files.chain if key_first else files.chain + files.key
        context = load(files.write("both.pem", content), None)
        assert shake_hands(context, files.authority) == "TLSv1.3"

    def test_what_is_not_ascii_beside_them_does_no_harm(self, files: Files) -> None:
        content = "# Ærø\n".encode() + files.chain + files.key
        assert shake_hands(load(files.write("both.pem", content), None), files.authority) == "TLSv1.3"

    def test_nothing_older_than_tls_1_2(self, files: Files) -> None:
        context = load(files.write("both.pem", files.chain + files.key), None)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_hands_are_shaken_once(self, files: Files) -> None:
        context = load(files.write("both.pem", files.chain + files.key), None)
        assert context.options & ssl.OP_NO_RENEGOTIATION

    def test_every_cipher_has_forward_secrecy_and_none_is_weak(self, files: Files) -> None:
        context = load(files.write("both.pem", files.chain + files.key), None)
        for cipher in context.get_ciphers():
            assert cipher["kea"] in ("kx-ecdhe", "kx-any"), cipher
            assert cipher["strength_bits"] >= 128, cipher

    def test_no_key_is_written_where_the_environment_says(
        self, files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        shake_hands(load(files.write("both.pem", files.chain + files.key), None), files.authority)
        assert not (tmp_path / "keys").exists()


class TestRefusals:
    def test_no_such_certificate(self, files: Files) -> None:
        path = str(files.folder / "missing.pem")
        assert refusal(path, None) == f"ssl_certfile: cannot read {path}: No such file or directory"

    def test_no_such_key(self, files: Files) -> None:
        path = str(files.folder / "missing.pem")
        assert refusal(files.write("chain.pem", files.chain), path) == (
            f"ssl_keyfile: cannot read {path}: No such file or directory"
        )

    def test_a_folder(self, files: Files) -> None:
        assert refusal(str(files.folder), None) == f"ssl_certfile: cannot read {files.folder}: Is a directory"

    @pytest.mark.parametrize(
        "content", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    )
    def test_no_certificate_in_the_file(self, files: Files, content: bytes) -> None:
        path = files.write("junk.pem", content)
        assert refusal(path, None) == f"ssl_certfile: no certificate in PEM in {path}"

    def test_no_key_in_the_certificates_file(self, files: Files) -> None:
        path = files.write("chain.pem", files.chain)
        assert refusal(path, None) == f"ssl_certfile: no private key in PEM in {path}"

    def test_no_key_in_the_keys_file(self, files: Files) -> None:
        path = files.write("chain.pem", files.chain)
        assert refusal(path, path) == f"ssl_keyfile: no private key in PEM in {path}"

    def test_the_key_of_another_certificate(self, files: Files) -> None:
        chain, key = files.write("chain.pem", files.chain), files.write("other.pem", files.other_key)
        assert refusal(chain, key) == f"ssl_keyfile: the key in {key} does not belong to the certificate in {chain}"

    def test_the_key_of_another_kind(self, files: Files) -> None:
        key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain, path = files.write("chain.pem", files.chain), files.write("rsa.pem", key)
        assert refusal(chain, path) == f"ssl_keyfile: the key in {path} does not belong to the certificate in {chain}"

    def test_a_certificate_that_openssl_takes_for_insecure(self, files: Files) -> None:
        key, name = rsa.generate_private_key(65537, 1024), x509.Name([])
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(1))
        content = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
        content += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = files.write("small.pem", content)
        message = refusal(path, None)
        assert message == f"ssl_certfile: OpenSSL takes the certificate in {path} for insecure: EE_KEY_TOO_SMALL"

    def test_an_encrypted_key_is_not_asked_about_on_the_terminal(self, files: Files) -> None:
        key = load_pem_private_key(files.key, None)
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        path = files.write("encrypted.pem", content)
        message = refusal(files.write("chain.pem", files.chain), path)
        assert message == f"ssl_keyfile: the key in {path} is encrypted, and no ssl_keyfile_password is given"
