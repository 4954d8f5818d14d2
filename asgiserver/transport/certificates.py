"""The server's certificate and key, from PEM files to the context that TLS connections are made with."""

from __future__ import annotations

import ssl
from pathlib import Path

from ..errors import SettingsError

__all__ = ["load"]

#: For TLS 1.2, as Python's default differs between systems. TLS 1.3 has no weak ciphers.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!PSK:!SHA1:!AESCCM"


class _EncryptedKey(Exception):
    """OpenSSL has asked for a password."""


def load(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    """Make a context for TLS 1.2 and later, with forward secrecy.

    :param certfile: the server's certificate in PEM, then the intermediate certificates, if any.
    :param keyfile: the private key in PEM, not encrypted; looked for in ``certfile`` when None.
    :raises SettingsError: when a file cannot be read, or the key does not belong to the certificate.
    """
    setting, path = ("ssl_certfile", certfile) if keyfile is None else ("ssl_keyfile", keyfile)
    _check_certificate(certfile)
    _read(setting, path)
    # Not create_default_context: it logs the keys of connections to a file that the environment names.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    # A client of TLS 1.2 could make the server shake hands over and over.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A client needs one ticket to resume its session; OpenSSL would make a second in every handshake of TLS 1.3.
    context.num_tickets = 1
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except _EncryptedKey as error:
        raise SettingsError(f"{setting}: the key in {path} is encrypted; give one that is not") from error
    except ssl.SSLError as error:
        raise SettingsError(_complaint(error.reason or "", certfile, setting, path)) from error
    return context


def _check_certificate(path: str) -> None:
    """Refuse a file without a certificate before its key is looked for: OpenSSL reports both alike."""
    data = _read("ssl_certfile", path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"ssl_certfile: no certificate in PEM in {path}") from error


def _no_password() -> str:
    # Without this OpenSSL would ask the terminal.
    raise _EncryptedKey


def _complaint(reason: str, certfile: str, setting: str, keyfile: str) -> str:
    # The second reason means that there is no certificate for this kind of key.
    if reason.endswith("_MISMATCH") or reason == "NO_CERTIFICATE_ASSIGNED":
        return f"{setting}: the key in {keyfile} does not belong to the certificate in {certfile}"
    if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        return f"ssl_certfile: OpenSSL takes the certificate in {certfile} for insecure: {reason}"
    return f"{setting}: no private key in PEM in {keyfile}"


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror or error}") from error
