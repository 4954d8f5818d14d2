"""How a child process hands exceptions to its parent: the child appends them to a file, and the parent reads it."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

__all__ = ["append", "read"]

#: How much of an exception is handed over: bytes of its pickle, and characters of its traceback.
_MOST_OF_AN_ERROR = 16_384
_MOST_OF_A_TEXT = 8_192

#: Bytes of a file to which nothing more is appended: an application may fail at every request.
_MOST_OF_A_FILE = 8 * 1024 * 1024


def append(path: Path, error: BaseException) -> None:
    """Append ``error`` with its traceback to the file."""
    try:
        pickled = pickle.dumps(error)
    except Exception:  # noqa: BLE001 - the error's own class may raise anything: it cannot travel
        pickled = b""
    if len(pickled) > _MOST_OF_AN_ERROR:
        pickled = b""
    words = "".join(traceback.format_exception_only(error)).strip()[:_MOST_OF_A_TEXT]
    # The end of a traceback says most.
    text = "".join(traceback.format_exception(error))[-_MOST_OF_A_TEXT:]
    with path.open("ab", buffering=0) as file:
        if file.tell() < _MOST_OF_A_FILE:
            file.write(pickle.dumps((pickled, words, text)))


def read(path: Path) -> list[tuple[BaseException, str]]:
    """Copies of all exceptions in the file, oldest first, each with its traceback.

    In place of an exception that is too long or cannot be pickled, or whose class cannot be imported here, there is a
    RuntimeError with its text.
    """
    failures = list[tuple[BaseException, str]]()
    if not path.exists():
        return failures
    with path.open("rb") as file:
        while True:
            try:
                pickled, words, text = pickle.load(file)
            except (EOFError, pickle.UnpicklingError):
                # The end, or an entry that the child has not written to its end.
                return failures
            failures.append((_unpickled(pickled, words), text))


def _unpickled(pickled: bytes, words: str) -> BaseException:
    try:
        error = pickle.loads(pickled)
    except Exception:  # noqa: BLE001 - the error's own class or module may raise anything
        error = None
    return error if isinstance(error, BaseException) else RuntimeError(words)
