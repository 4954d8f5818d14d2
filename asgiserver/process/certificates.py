"""The server's certificate and key, from PEM files to what Twisted makes TLS connections with.

Imported only when TLS is wanted: it needs pyOpenSSL, which an installation may be without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from OpenSSL.SSL import Error
from twisted.internet.ssl import CertificateOptions

from ..errors import SettingsError

__all__ = ["load"]


def load(certfile: str, keyfile: str | None) -> Any:
    """TLS 1.2 and later with Twisted's choice of ciphers.

    :param certfile: the server's certificate in PEM, then those that lead to the root, if any.
    :param keyfile: the private key in PEM, not encrypted; looked for in ``certfile`` when None.
    :return: a connection creator for ``TLSMemoryBIOFactory``.
    :raises SettingsError: when a file cannot be read, or the key does not belong to the certificate.
    """
    chain = _certificates(certfile)
    setting, path = ("ssl_certfile", certfile) if keyfile is None else ("ssl_keyfile", keyfile)
    key = _private_key(setting, path)
    try:
        options = CertificateOptions(privateKey=key, certificate=chain[0], extraCertChain=chain[1:])
        # Made now rather than for the first connection, so that a key that does not fit is found.
        options.getContext()
    except Error as error:
        raise SettingsError(f"{setting}: the key in {path} does not belong to the certificate in {certfile}") from error
    return options


def _certificates(path: str) -> list[Certificate]:
    data = _read("ssl_certfile", path)
    try:
        return load_pem_x509_certificates(data)
    except ValueError as error:
        raise SettingsError(f"ssl_certfile: no certificate in PEM in {path}") from error


def _private_key(setting: str, path: str) -> Any:
    data = _read(setting, path)
    try:
        return load_pem_private_key(data, None)
    except TypeError as error:
        raise SettingsError(f"{setting}: the key in {path} is encrypted; give one that is not") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{setting}: no private key in PEM in {path}") from error


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror or error}") from error
