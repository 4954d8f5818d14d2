"""The rounds: each server is started for each load, measured, and stopped before the next."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from . import wrk
from .loads import LOADS, check
from .processes import ProcessesChanged
from .running import Running, ServerFailed
from .servers import SERVERS, Certificate
from .wrk import ClientFailed

__all__ = ["Record", "certificate", "measure", "rounds"]


@dataclass(frozen=True, slots=True)
class Record:
    """One load on one server in one round.

    :param values: by the names in :data:`~tests.benchmarks.loads.METRICS`; also ``busy``, the cores that the server
        kept busy, and ``client``, microseconds of the client's CPU per unit.
    :param failure: why there are no values; empty when there are.
    """

    load: str
    server: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    failure: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def certificate(folder: Path) -> Certificate:
    """One for 127.0.0.1, made now, in ``folder``; the key in PKCS #8, which all servers read."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    chain, key, trusted = folder / "chain.pem", folder / "key.pem", folder / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    private = load_pem_private_key(made.private_key_pem.bytes(), None)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Certificate(str(chain), str(key), str(trusted))


def measure(name: str, server: str, number: int, seconds: float, folder: Path) -> Record:
    """Start ``server``, put the load ``name`` on it, and stop it. Whatever goes wrong is the record's failure."""
    load, kind = LOADS[name], SERVERS[server]
    if not kind.installed():
        return Record(name, server, number, failure="not installed")
    if load.needs_wrk and not wrk.available():
        return Record(name, server, number, failure="wrk is not installed")
    try:
        with Running(kind, load.path, folder, certificate(folder) if load.tls else None) as running:
            check(load, running)
            return Record(name, server, number, load.measure(running, seconds))
    except (ServerFailed, ClientFailed, ProcessesChanged, OSError, subprocess.SubprocessError) as error:
        return Record(name, server, number, failure=" ".join(str(error).split()) or repr(error))


def rounds(
    loads: Sequence[str],
    servers: Sequence[str],
    number: int,
    seconds: float,
    folder: Path,
    say: Callable[[Record], None],
) -> Iterator[Record]:
    """All records: within a round each load is put on one server after the other, so that what else the machine does
    falls on all of them alike."""
    for current in range(1, number + 1):
        for load in loads:
            for server in servers:
                record = measure(load, server, current, seconds, folder)
                say(record)
                yield record
