"""Makes inputs by changing those of a corpus, and keeps those that led to something new.

There is no instrumentation: a target returns what it has seen, such as the kinds of events and the text of a refusal,
and an input with an outcome that was not seen before joins the corpus.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

__all__ = ["CORPUS", "Failure", "Target", "fuzz", "load", "pieces"]

CORPUS = Path(__file__).with_name("corpus")

#: Bytes of an input at most; there are tests of their own for large ones.
MOST_BYTES = 4096
#: Inputs that may join a corpus.
MOST_KEPT = 2000
#: CPU seconds that one input may take: a hundred times as long as any does, but for what takes quadratic time or worse.
MOST_SECONDS = 0.5
#: MiB that the process may grow after its first inputs. The corpus and the outcomes take up to 10.
MOST_GROWTH = 32
#: Inputs until caches are filled and modules loaded.
WARM = 500

#: What is put between other bytes for all targets.
_BYTES = [b"\0", b"\xff", b"\x7f", b"\x80", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b";", b'"', b"\\", b"=",
          b"0", b"1", b"\r\n\r\n", b"\0" * 8, b"\xff" * 8]  # fmt: skip


class Target(NamedTuple):
    """Something that reads bytes.

    :param check: takes any bytes, and returns what was seen; raises when something does not hold.
    :param words: are put into inputs.
    """

    check: Callable[[bytes], Hashable]
    words: Sequence[bytes] = ()


class Failure(AssertionError):
    """Something does not hold.

    :ivar data: the input, as short as it could be made.
    """

    def __init__(self, data: bytes, seed: int, number: int) -> None:
        super().__init__(f"input {number} of seed {seed}: {data!r}")
        self.data = data


def load(name: str) -> list[bytes]:
    """The corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def pieces(data: bytes) -> list[bytes]:
    """``data`` in pieces; the same every time."""
    random = Random(data)
    cuts = sorted(random.choices(range(len(data) + 1), k=random.randrange(6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _most_memory() -> int:
    """The most memory that the process ever had; KiB."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux hands ru_maxrss on from a process to the programs that it starts.
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def _changed(random: Random, corpus: list[bytes], words: Sequence[bytes]) -> bytes:
    data = random.choice(corpus)
    for _ in range(random.choice((1, 1, 2, 3, 5, 8))):
        at = random.randrange(len(data) + 1)
        end = at + random.choice((0, 0, 1, 2, 4, 16))
        other = random.choice(corpus)
        new = random.choice((
            b"", random.randbytes(random.randrange(1, 4)), random.choice(_BYTES), random.choice(words or _BYTES),
            data[at:end] * random.choice((2, 3, 100)), other[random.randrange(len(other) + 1) :][:40],
            bytes(byte ^ 1 << random.randrange(8) for byte in data[at:end]),
        ))  # fmt: skip
        data = data[:at] + new + data[end:]
    return data[:MOST_BYTES]


def _shortest(check: Callable[[bytes], Hashable], data: bytes, error: Exception) -> bytes:
    """``data`` without what is not needed for an error of the same type."""
    size = len(data) // 2
    while size:
        for at in range(0, len(data), size):
            shorter = data[:at] + data[at + size :]
            try:
                check(shorter)
            except type(error):
                data = shorter
                break
            except Exception:
                continue
        else:
            size //= 2
    return data


def fuzz(target: Target, corpus: Sequence[bytes], seed: int, *, seconds: float, inputs: int | None = None) -> int:
    """Feed a target; the number of inputs.

    :param seconds: CPU time.
    :param inputs: stop after so many.
    :raises Failure: from what the target has raised, or when an input takes too long.
    :raises MemoryError: the process grows.
    """
    random = Random(seed)
    kept, seen, number, most = list(corpus), set[int](), 0, 0
    now = time.process_time()
    end = now + seconds
    while now < end and number != inputs:
        data = corpus[number] if number < len(corpus) else _changed(random, kept, target.words)
        number += 1
        try:
            outcome = hash(target.check(data))
        except Exception as error:
            raise Failure(_shortest(target.check, data, error), seed, number) from error
        before, now = now, time.process_time()
        if now - before > MOST_SECONDS:
            raise Failure(data, seed, number) from TimeoutError(f"{now - before:.2f} s of CPU time")
        if outcome not in seen and len(kept) < MOST_KEPT:
            seen.add(outcome)
            kept.append(data)
        if number == WARM:
            most = _most_memory() + MOST_GROWTH * 1024
    if most and _most_memory() > most:
        raise MemoryError(f"the process has grown by more than {MOST_GROWTH} MiB")
    return number
