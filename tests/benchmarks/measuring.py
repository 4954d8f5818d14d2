"""The rounds: for each load all servers are started, measured by turns in short slices, and stopped."""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from .load import Slice, opened
from .loads import LOADS
from .processes import WARM_UP, ProcessesChanged
from .running import ServerFailed
from .servers import SERVERS, Certificate
from .wrk import ClientFailed

__all__ = ["Record", "certificate", "combined", "measure", "rotated", "rounds"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """One load on one server in one round.

    :param values: by the names in :data:`~tests.benchmarks.load.METRICS`; also ``busy``, the cores that the server
        kept busy, and ``client``, microseconds of the client's CPU per unit.
    :param failure: why there are no values; empty when there are.
    :param slices: what they were made of.
    """

    load: str
    server: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    slices: list[dict[str, float]] = field(default_factory=list)

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


class _Turn:
    """One server in a round of a load: from its start to its end, or to its failure."""

    def __init__(self, load: str, server: str, number: int) -> None:
        self.load = LOADS[load]
        self.kind = SERVERS[server]
        self.record = Record(load, server, number)
        self.taken: list[dict[str, float]] = []
        self.stack = ExitStack()
        self.take: Slice | None = None

    def begin(self, folder: Path, secured: Certificate | None) -> None:
        if not self.kind.installed():
            self.record = replace(self.record, failure="not installed")
        elif self.load.needs and shutil.which(self.load.needs) is None:
            self.record = replace(self.record, failure=f"{self.load.needs} is not installed")
        else:
            with self.failing():
                self.take = self.stack.enter_context(opened(self.load, self.kind, folder, secured))

    def slice(self, seconds: float, *, counts: bool = True) -> None:
        """Nothing when it has failed."""
        if self.take is not None:
            with self.failing():
                found = self.take(seconds)
                if counts:
                    self.taken.append(found)

    def end(self) -> Record:
        with self.failing():
            self.stack.close()
        if self.record.failure or not self.taken:
            return self.record
        return replace(self.record, values=combined(self.taken), slices=self.taken)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Whatever goes wrong in the block is the record's failure, and ends the server, which disturbs nobody then."""
        try:
            yield
        except (ServerFailed, ClientFailed, ProcessesChanged, OSError, subprocess.SubprocessError) as error:
            self.record = replace(self.record, failure=" ".join(str(error).split()) or repr(error))
            self.take = None
            self.stack.close()


def measure(name: str, servers: Sequence[str], number: int, seconds: float, folder: Path) -> list[Record]:
    """One round of the load ``name``: all ``servers`` are started, and take turns in slices of ``seconds`` together.

    Those whose turn it is not are idle, which costs less than 2 ms of CPU a second.
    """
    load = LOADS[name]
    turns = [_Turn(name, server, number) for server in servers]
    secured = certificate(folder) if load.tls else None
    with ThreadPoolExecutor(len(turns)) as pool:
        try:
            for turn in turns:
                turn.begin(folder, secured)
            if load.warm_up:
                for turn in turns:
                    turn.slice(WARM_UP, counts=False)
            for current in range(load.slices):
                if load.together:
                    list(pool.map(lambda turn: turn.slice(seconds), turns))
                else:
                    for turn in rotated(turns, number + current):
                        turn.slice(seconds / load.slices)
        finally:
            records = list(pool.map(_Turn.end, turns))
    return records


def rotated(turns: Sequence[T], by: int) -> list[T]:
    """Another one comes first each time, and every other time they go backwards: who follows whom changes."""
    step = -1 if by % 2 else 1
    return [turns[(by + step * place) % len(turns)] for place in range(len(turns))]


def combined(taken: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """A round's values: the medians of its slices'.

    Where others use the same machine a slice can cost three times what the next one does. What all slices cost together
    differs as much between rounds as the median does, until one such slice comes: that moved it by a third, and the
    median by nothing. The least is no better, as clocks differ between slices too.
    """
    names = [name for name in taken[0] if all(name in values for values in taken)]
    return {name: statistics.median(values[name] for values in taken) for name in names}


def rounds(
    loads: Sequence[str],
    servers: Sequence[str],
    number: int,
    seconds: float,
    folder: Path,
    say: Callable[[Record], None],
) -> Iterator[Record]:
    """All records, in rounds of all loads: what else the machine does falls on all servers alike."""
    for current in range(1, number + 1):
        for load in loads:
            group, tls = LOADS[load].group, LOADS[load].tls
            taking_part = [name for name in servers if SERVERS[name].takes_part(load, group, tls=tls)]
            for record in measure(load, taking_part, current, seconds, folder) if taking_part else ():
                say(record)
                yield record
