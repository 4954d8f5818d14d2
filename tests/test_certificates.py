from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from asgiserver.errors import SettingsError
from asgiserver.process.certificates import load


class Files:
    """A certificate for ``localhost`` below an intermediate one, its key, and another key, in PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
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


class TestLoad:
    def test_chain_and_key_in_two_files(self, files: Files) -> None:
        context = load(files.write("chain.pem", files.chain), files.write("key.pem", files.key)).getContext()
        assert isinstance(context, SSL.Context)

    def test_the_certificates_after_the_first_are_sent_along(self, files: Files) -> None:
        options = load(files.write("chain.pem", files.chain), files.write("key.pem", files.key))
        assert files.chain.count(b"BEGIN CERTIFICATE") == 2
        assert len(options.extraCertChain) == 1

    @pytest.mark.parametrize("key_first", [True, False])
    def test_chain_and_key_in_one_file(self, files: Files, key_first: bool) -> None:
        content = files.key + files.chain if key_first else files.chain + files.key
        assert load(files.write("both.pem", content), None).getContext()

    def test_nothing_older_than_tls_1_2(self, files: Files) -> None:
        context = load(files.write("both.pem", files.chain + files.key), None).getContext()
        # Setting no further option returns those that are set.
        options = context.set_options(0)
        assert options & SSL.OP_NO_TLSv1
        assert options & SSL.OP_NO_TLSv1_1
        assert not options & SSL.OP_NO_TLSv1_2
        assert not options & SSL.OP_NO_TLSv1_3


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

    def test_an_encrypted_key_is_not_asked_about_on_the_terminal(self, files: Files) -> None:
        key = load_pem_private_key(files.key, None)
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        path = files.write("encrypted.pem", content)
        message = refusal(files.write("chain.pem", files.chain), path)
        assert message == f"ssl_keyfile: the key in {path} is encrypted; give one that is not"
