"""``--reload``: which files count, and a thread of the supervisor that sees them change.

A change is heard as a message of a :class:`.Channel`. The supervisor then has its worker replaced by one that imports
the application anew, and reads the settings anew, see ``Generations.reload``.

Patterns are those of :mod:`fnmatch`. Each is compared with the name of a file or folder, and with its path from the
watched folder on. A folder that is excluded is so with all below it. What ``reload_exclude`` names never counts, and a
file that ``reload_include`` names without a wildcard, as in ``.env``, counts even where all such files are excluded.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path, PurePath

from ..errors import SettingsError
from ..settings import Settings
from .channel import Channel

__all__ = ["Files", "check", "described", "quick", "watching"]

logger = logging.getLogger("asgiserver")

_INCLUDED = ("*.py",)
_EXCLUDED = ".*", "*.pyc", "~*", "node_modules"
#: What the root of a virtual environment has in it, of venv's kind or conda's.
_ENVIRONMENT = "pyvenv.cfg", "conda-meta"
#: Milliseconds without a change after which a burst of them is over, and the most that one is waited for.
_STEP, _DEBOUNCE = 20, 200
#: Most seconds that requests have when the code changes, and that connections have whose request may be on the way.
_GRACEFUL, _IDLE = 0.5, 0.05


def quick(settings: Settings) -> Settings:
    """The settings for a worker that is to make way at once, and that may stand in a debugger for any time."""
    graceful = _GRACEFUL if settings.graceful_timeout is None else min(_GRACEFUL, settings.graceful_timeout)
    return dataclasses.replace(
        settings, graceful_timeout=graceful, graceful_idle=_IDLE, drain_timeout=0.0, drain_spread=0.0,
        worker_timeout=None, worker_start_timeout=None,
    )  # fmt: skip


def check(settings: Settings) -> None:
    """Raise SettingsError where changes cannot be watched."""
    if find_spec("watchfiles") is None:
        raise SettingsError("reload needs watchfiles: pip install 'asgiserver[standard]'", "reload")
    for folder in settings.reload_dir:
        if not os.path.isdir(folder):
            raise SettingsError(f"reload_dir: {folder!r} is not a folder")


class Files:
    """The files whose changes count.

    :param folders: those that are watched, as absolute paths.
    :param include: ``reload_include``
    :param exclude: ``reload_exclude``
    """

    def __init__(self, folders: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> None:
        self._folders = folders
        # "media/" and "./media" mean "media".
        self._include = [os.path.normpath(pattern) for pattern in include]
        self._exclude = [os.path.normpath(pattern) for pattern in exclude]

    def __contains__(self, path: str) -> bool:
        """Whether the file counts that is, or was, at this absolute path."""
        return any(
            self._counts(Path(folder), PurePath(path).relative_to(folder))
            for folder in self._folders
            if PurePath(path).is_relative_to(folder)
        )

    def _counts(self, folder: Path, path: PurePath) -> bool:
        above = path.parents[:-1]
        if any(_matches(each, self._exclude) for each in (path, *above)):
            return False
        if path.name in self._include or path.as_posix() in self._include:
            return True
        return (
            _matches(path, (*_INCLUDED, *self._include))
            and not any(_matches(each, _EXCLUDED) for each in (path, *above))
            and not any(os.path.exists(folder / each / mark) for each in above for mark in _ENVIRONMENT)
        )


def _matches(path: PurePath, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for text in (path.name, path.as_posix()) for pattern in patterns)


def described(paths: Sequence[str]) -> str:
    """What has changed, for the log; paths in the working folder are relative to it."""
    here = os.getcwd()
    first = min(os.path.relpath(path, here) if PurePath(path).is_relative_to(here) else path for path in paths)
    return f"{first} has changed" if len(paths) == 1 else f"{first} and {len(paths) - 1} more have changed"


@contextmanager
def watching(settings: Settings, config: str) -> Iterator[Channel | None]:
    """Watch in the block, and tell of changes by the channel; None unless ``reload`` is set.

    :param config: the file of the settings, which counts wherever it is; empty when there is none.
    """
    if not settings.reload:
        yield None
        return
    # Imported here and now, as the threads should watch before the application is read.
    import watchfiles  # noqa: F401

    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    # What a system reports may be the real path.
    folders = [os.path.realpath(folder) for folder in settings.reload_dir]
    files = Files(folders, settings.reload_include, settings.reload_exclude)
    watched: list[tuple[list[str], Callable[[str], bool], bool]] = [(folders, files.__contains__, True)]
    if config:
        config = os.path.realpath(config)
        # Its folder, as an editor may put another file in its place.
        watched.append(([os.path.dirname(config)], config.__eq__, False))
    here, there = Channel.pair()
    teller, over = Channel(there), threading.Event()
    threads = [threading.Thread(target=_watch, args=(*each, teller, over)) for each in watched]
    for thread in threads:
        thread.start()
    try:
        yield here
    finally:
        over.set()
        for thread in threads:
            thread.join()
        here.close()
        teller.close()


def _watch(
    folders: Sequence[str], counts: Callable[[str], bool], below: bool, teller: Channel, over: threading.Event
) -> None:
    from watchfiles import watch

    try:
        for changes in watch(
            *folders, watch_filter=lambda _, path: counts(path), debounce=_DEBOUNCE, step=_STEP, stop_event=over,
            recursive=below, ignore_permission_denied=True,
        ):  # fmt: skip
            teller.send({"text": described(sorted({path for _, path in changes}))})
    except Exception as error:  # noqa: BLE001 - a system has many reasons, such as too many folders
        logger.error("Changes in %s cannot be watched: %s", ", ".join(folders), error)
