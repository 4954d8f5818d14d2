"""A certificate for this machine's own names, so that HTTPS can be tried before there is a real one.

It is made once and kept for a year in the user's cache folder, with the certificate of the authority that has signed
it; a browser has to be told to trust that authority once. The authority's own key is never written: somebody who
reads the folder cannot sign another certificate with it.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..errors import SettingsError

__all__ = ["LocalCertificate", "cache_folder", "local_certificate"]

#: The names and addresses that are in every certificate.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: Addresses that stand for all addresses of the machine; only its loopback addresses are known beforehand.
_ANY = ("", "0", "0.0.0.0", "::")

#: Browsers take no certificate for longer than 397 days.
_LIFETIME = timedelta(days=365)

#: A certificate that expires sooner than this is made anew.
_LEAST_LEFT = timedelta(days=1)

_AUTHORITY = "authority.pem"
_CERTIFICATE = "certificate-and-key.pem"


@dataclass(frozen=True)
class LocalCertificate:
    """Where the files are.

    :ivar certfile: the certificate's chain and its private key in PEM, readable by the user alone.
    :ivar authority: the certificate in PEM that browsers and clients are to trust.
    """

    certfile: Path
    authority: Path


def cache_folder() -> Path:
    """Where a user's programs keep files that can be made again: ``XDG_CACHE_HOME``, or the system's own place."""
    named = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(named) if named else Path.home() / ".cache"


def local_certificate(host: str = "", cache: Path | None = None) -> LocalCertificate:
    """Give a certificate for the loopback names and ``host``, making it where there is none that is still good.

    :param host: an address or a name; an empty text, an address of all interfaces or a loopback name adds nothing.
    :param cache: the folder that contains asgiserver's own; the user's cache folder when None.
    :raises SettingsError: trustme or a package that it needs is not installed, ``host`` cannot be in a certificate, or
        the files cannot be written.
    """
    known = host in LOOPBACK or host in _ANY
    try:
        folder = (cache_folder() if cache is None else cache) / "asgiserver"
        place = folder / ("tls-localhost" if known else "tls-" + host.lower().replace(":", "-"))
        if not _is_good(place):
            _make(place, LOOPBACK if known else (*LOOPBACK, host))
    except ImportError as error:
        raise SettingsError(f"--tls needs {error.name or 'trustme'}: install asgiserver[runserver]") from None
    except (OSError, RuntimeError) as error:
        # RuntimeError: there is no home folder.
        raise SettingsError(f"--tls: cannot keep a certificate: {error}") from error
    return LocalCertificate(place / _CERTIFICATE, place / _AUTHORITY)


def _is_good(place: Path) -> bool:
    """Whether ``place`` has a certificate that lasts, is signed by the authority beside it, and is the user's alone."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate((place / _CERTIFICATE).read_bytes())
        authority = load_pem_x509_certificate((place / _AUTHORITY).read_bytes())
        certificate.verify_directly_issued_by(authority)
        kept = [path.stat() for path in (place, place / _CERTIFICATE)]
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
        return False
    if os.name == "posix" and any(each.st_uid != os.geteuid() or stat.S_IMODE(each.st_mode) & 0o077 for each in kept):
        return False
    return certificate.not_valid_after_utc - datetime.now(UTC) > _LEAST_LEFT


def _make(place: Path, names: tuple[str, ...]) -> None:
    """Put files for ``names`` into the new folder ``place``, all of them at once."""
    from trustme import CA

    authority = CA(organization_name="asgiserver", organization_unit_name=f"development on {names[-1]}")
    try:
        leaf = authority.issue_cert(*names, not_after=datetime.now(UTC) + _LIFETIME)
    except ValueError as error:
        raise SettingsError(f"--tls: no certificate can be made for {names[-1]!r}: {error}") from error
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Only the owner can read this folder, and the file in it from its first byte on.
    new = Path(tempfile.mkdtemp(prefix="new-", dir=place.parent))
    try:
        (new / _AUTHORITY).write_bytes(authority.cert_pem.bytes())
        with open(os.open(new / _CERTIFICATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(leaf.private_key_and_cert_chain_pem.bytes())
        _replace(place, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace(place: Path, new: Path) -> None:
    """Put ``new`` where ``place`` is, unless another server has been faster: its certificate is as good."""
    if _is_good(place):
        return
    shutil.rmtree(place, ignore_errors=True)
    try:
        new.rename(place)
    except OSError:
        if not _is_good(place):
            raise
