"""The file with the process's number, for programs that send it signals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import SettingsError

__all__ = ["pid_file"]


@contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Keep the number of this process in a file for the length of the block; do nothing without a path.

    The file is removed unless another process has written its own number meanwhile, and not in forked processes.

    :raises SettingsError: the file has the number of another process that runs, or cannot be written.
    """
    if path is None:
        yield
        return
    own = os.getpid()
    _refuse_running(path, own)
    # Readers see the old file or the new one, never half of a number.
    new = f"{path}.{own}"
    try:
        with open(new, "w", encoding="ascii") as file:
            file.write(f"{own}\n")
        os.replace(new, path)
    except OSError as error:
        raise SettingsError(f"pid_file: cannot write to {path!r}: {error.strerror}") from None
    try:
        yield
    finally:
        if os.getpid() == own and _number(path) == own:
            os.unlink(path)


def _refuse_running(path: str, own: int) -> None:
    other = _number(path)
    # On Windows os.kill() would interrupt the other process instead of looking for it.
    if other is None or other == own or os.name != "posix":
        return
    try:
        os.kill(other, 0)
    except ProcessLookupError:
        return
    except OSError:
        pass  # another user's, so it runs
    raise SettingsError(f"pid_file: {path!r} has the number of process {other}, which runs")


def _number(path: str) -> int | None:
    """The number in a file; None when there is none."""
    try:
        with open(path, encoding="ascii") as file:
            number = int(file.read(32))
    except (OSError, ValueError):
        return None
    return number if number > 0 else None
