"""The server's certificates and keys, from PEM files to the contexts that TLS connections are made with."""

from __future__ import annotations

import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import SettingsError

__all__ = ["Certificates", "Options", "load"]

logger = logging.getLogger("asgiserver")

#: For TLS 1.2, as Python's default differs between systems: forward secrecy and authenticated encryption. TLS 1.3 has
#: no other ciphers.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

#: Seconds between two looks whether files have changed; and how long the keys of session tickets are used, with which
#: a recorded session of TLS 1.2 could be decrypted.
_LOOK = 30.0
_TICKETS = 86400.0

_certificate = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----").search

_REQUIREMENTS = {
    "none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED, "auto": ssl.CERT_REQUIRED,
}  # fmt: skip


class Options(NamedTuple):
    """What the contexts of all certificates have in common; the fields are the settings ``ssl_…``."""

    keyfile_password: str | None = None
    keyfile_password_file: str | None = None
    ca_certs: str | None = None
    cert_reqs: str = "auto"
    min_version: str = "TLSv1.2"
    ciphers: str | None = None


class _Context(ssl.SSLContext):
    """The context of one certificate.

    :ivar certificate: it, in PEM, as ``ssl`` cannot be asked for it; None where its file has it in another form.
    """

    certificate: str | None = None


class _EncryptedKey(Exception):
    """OpenSSL has asked for a password, and there is none."""


class _Password:
    """Gives OpenSSL the password of a key, lest it ask the terminal.

    :ivar complaint: why a key could not be read; empty when OpenSSL has not asked.
    """

    def __init__(self, options: Options) -> None:
        self._password: str | bytes | None = options.keyfile_password
        if options.keyfile_password_file is not None:
            data = _read("ssl_keyfile_password_file", options.keyfile_password_file)
            self._password = next(iter(data.splitlines()), b"")
        self.complaint = ""

    def __call__(self) -> str | bytes:
        if self._password is None:
            self.complaint = "is encrypted, and no ssl_keyfile_password is given"
            raise _EncryptedKey
        self.complaint = "is encrypted with another password than the one that is given"
        return self._password


class Certificates:
    """The contexts of a port's certificates, made anew when their files have changed.

    A connection keeps the context that it began with, so a change disturbs none. Files that cannot be used change
    nothing.

    :param certfiles: see :func:`load`. The first is for clients that ask for no name, or for one that none is for.
    :param keyfiles: one for each of ``certfiles``, or none at all.
    :param clock: gives the seconds between two looks.
    :raises SettingsError: as :func:`load`.
    """

    def __init__(
        self,
        certfiles: Iterable[str],
        keyfiles: Iterable[str] = (),
        options: Options | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        certfiles, keyfiles = tuple(certfiles), tuple(keyfiles)
        self._options = options or Options()
        self._pairs = tuple(zip(certfiles, keyfiles or (None,) * len(certfiles), strict=True))
        also = self._options.keyfile_password_file, self._options.ca_certs
        self._files = [path for path in (*certfiles, *keyfiles, *also) if path is not None]
        self._clock = clock
        self._protocols: list[str] = []
        self._looked_at = self._made_at = clock()
        self._seen = self._look()
        self._refused: list[object] | None = None
        self._contexts = self._made()

    def offer(self, protocols: Iterable[str]) -> None:
        """Have ALPN choose one of ``protocols``."""
        self._protocols = [*protocols]
        for context in self._contexts:
            context.set_alpn_protocols(self._protocols)

    def current(self) -> ssl.SSLContext:
        """The context for a new connection; looks at the files when the last look is a while ago."""
        if self._clock() - self._looked_at >= _LOOK:
            self.read_again()
        return self._contexts[0]

    def read_again(self) -> None:
        """Make the contexts anew if the files have changed, or the keys of session tickets are old."""
        self._looked_at = now = self._clock()
        seen = self._look()
        if seen == self._seen and now - self._made_at < _TICKETS:
            return
        try:
            self._contexts = self._made()
        except SettingsError as error:
            if seen != self._refused:
                logger.error("The certificates stay as they are: %s", error)
            self._refused = seen
            return
        if seen != self._seen:
            logger.info("The certificates were read again")
        self._seen, self._made_at, self._refused = seen, now, None

    def _look(self) -> list[object]:
        """What tells each file from another one in its place; taken before the file is read, lest a change be lost."""
        return [_file(path) for path in self._files]

    def _made(self) -> list[ssl.SSLContext]:
        contexts, names = [], dict[str, ssl.SSLContext]()
        for certfile, keyfile in self._pairs:
            try:
                context = load(certfile, keyfile, self._options)
                if len(self._pairs) > 1:
                    names = dict.fromkeys(_names(certfile), context) | names
            except OSError as error:
                # The file has been there a moment ago; OpenSSL opens it once more.
                raise SettingsError(f"ssl_certfile: cannot read {certfile}: {error.strerror or error}") from error
            if self._protocols:
                context.set_alpn_protocols(self._protocols)
            contexts.append(context)
        if names:
            contexts[0].sni_callback = partial(_choose, names)
        return contexts


def _choose(names: dict[str, ssl.SSLContext], connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
    """Use the certificate for the name that a client asks for (RFC 6066 §3); called by OpenSSL.

    A wildcard stands for one label (RFC 9525 §6.3), and a certificate for the name itself goes before one.
    """
    name = (name or "").lower()
    context = names.get(name) or names.get(f"*.{name.partition('.')[2]}")
    if context is not None:
        connection.context = context


def _names(certfile: str) -> list[str]:
    """The host names of the first certificate in a file, in lower case."""
    # Python's ssl decodes a certificate of one's own by no public function.
    decoded = ssl._ssl._test_decode_cert(certfile)  # type: ignore[attr-defined]
    return [name.lower() for kind, name in decoded.get("subjectAltName", ()) if kind == "DNS"]


def _file(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def load(certfile: str, keyfile: str | None, options: Options | None = None) -> ssl.SSLContext:
    """Make the context of one certificate.

    :param certfile: the server's certificate in PEM, then the intermediate certificates, if any.
    :param keyfile: the private key in PEM; looked for in ``certfile`` when None.
    :raises SettingsError: when a file cannot be read, the key does not belong to the certificate, or an option is
        wrong.
    """
    options = options or Options()
    setting, path = ("ssl_certfile", certfile) if keyfile is None else ("ssl_keyfile", keyfile)
    certificates = _check_certificates("ssl_certfile", certfile)
    _read(setting, path)
    # Not create_default_context: it logs the keys of connections to a file that the environment names.
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    if (found := _certificate(certificates)) is not None:
        context.certificate = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii")))
    _configure(context, options)
    password = _Password(options)
    try:
        context.load_cert_chain(certfile, keyfile, password=password)
    except (ssl.SSLError, _EncryptedKey, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        raise SettingsError(_complaint(reason, certfile, setting, path, password.complaint)) from error
    return context


def _configure(context: ssl.SSLContext, options: Options) -> None:
    context.minimum_version = ssl.TLSVersion[options.min_version.replace(".", "_")]
    try:
        context.set_ciphers(options.ciphers or _CIPHERS)
    except ssl.SSLError as error:
        raise SettingsError(f"ssl_ciphers: OpenSSL knows no cipher in {options.ciphers!r}") from error
    # A client of TLS 1.2 could make the server shake hands over and over.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A client needs one ticket to resume its session; OpenSSL would make a second in every handshake of TLS 1.3.
    context.num_tickets = 1
    if options.ca_certs is not None:
        _check_certificates("ssl_ca_certs", options.ca_certs)
        context.load_verify_locations(options.ca_certs)
        context.verify_mode = _REQUIREMENTS[options.cert_reqs]


def _check_certificates(setting: str, path: str) -> bytes:
    """The content of a file; one without a certificate is refused, and before its key is looked for.

    OpenSSL reports both alike.
    """
    data = _read(setting, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"{setting}: no certificate in PEM in {path}") from error
    return data


def _complaint(reason: str, certfile: str, setting: str, keyfile: str, of_password: str) -> str:
    # The second reason means that there is no certificate for this kind of key.
    if reason.endswith("_MISMATCH") or reason == "NO_CERTIFICATE_ASSIGNED":
        return f"{setting}: the key in {keyfile} does not belong to the certificate in {certfile}"
    if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        return f"ssl_certfile: OpenSSL takes the certificate in {certfile} for insecure: {reason}"
    if of_password:
        return f"{setting}: the key in {keyfile} {of_password}"
    return f"{setting}: no private key in PEM in {keyfile}"


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror or error}") from error
