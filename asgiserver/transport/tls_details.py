"""What a TLS connection tells of itself: its version and cipher suite, and the certificates of both ends."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Any

from ..asgi.scope import TLS

__all__ = ["details_of", "session_details"]


def details_of(transport: Any) -> TLS | None:
    """The details of a transport of TLS, ours or Twisted's; None while they are not known.

    :param transport: may wrap another one, on which an attribute that it lacks is looked up.
    """
    if hasattr(transport, "details"):
        details: TLS | None = transport.details()
        return details
    connection = transport.getHandle() if hasattr(transport, "getHandle") else None
    return _pyopenssl_details(connection) if hasattr(connection, "get_cipher_name") else None


def session_details(session: ssl.SSLObject) -> TLS:
    """The details of a connection of Python's ``ssl``, after its handshake."""
    version, cipher = session.version(), session.cipher()
    certificate, chain = session.getpeercert(binary_form=True), []
    if certificate is not None:
        # A resumed session keeps the client's certificate, but none that came with it.
        sent: Any = session._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        chain = [ssl.DER_cert_to_PEM_cert(certificate), *(each.public_bytes() for each in (sent or ())[1:])]
    return _details(
        getattr(session.context, "certificate", None),
        chain,
        None if version is None else ssl.TLSVersion[version.replace(".", "_")].value,
        None if cipher is None else cipher[0],
    )


def _pyopenssl_details(connection: Any) -> TLS:
    """The details of a connection of pyOpenSSL, which Twisted's TLS goes through."""
    from cryptography.hazmat.primitives.serialization import Encoding

    def pem(certificate: Any) -> str:
        text: str = certificate.public_bytes(Encoding.PEM).decode("ascii")
        return text

    own = connection.get_certificate(as_cryptography=True)
    certificate = connection.get_peer_certificate(as_cryptography=True)
    # A server's OpenSSL gives the client's certificate apart from those above it.
    above = connection.get_peer_cert_chain(as_cryptography=True) or () if certificate is not None else ()
    return _details(
        None if own is None else pem(own),
        [] if certificate is None else [pem(certificate), *map(pem, above)],
        connection.get_protocol_version(),
        connection.get_cipher_name(),
    )


def _details(own: str | None, chain: list[str], version: int | None, cipher: str | None) -> TLS:
    # Of a client whose certificate is not in order, the handshake has failed: so there is no error to tell.
    return TLS(own, tuple(chain), _name(chain[0]) if chain else None, None, version, _suites().get(cipher or ""))


def _name(certificate: str) -> str:
    """The subject of a certificate in PEM (RFC 4514)."""
    # Imported here, as few servers ask clients for certificates.
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(certificate.encode("ascii")).subject.rfc4514_string()


@lru_cache(maxsize=1)
def _suites() -> dict[str, int]:
    """IANA's numbers of the cipher suites (RFC 8446 §B.4) by OpenSSL's names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    # OpenSSL's own numbers have a prefix.
    return {suite["name"]: suite["id"] & 0xFFFF for suite in context.get_ciphers()}
