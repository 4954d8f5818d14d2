"""How the processes are started: each is a fresh interpreter that knows where this package is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import SettingsError
from .watch import check

if TYPE_CHECKING:
    from ..cli import CommandLineInterface

__all__ = ["HANDLED", "command", "replace", "supervise"]

#: The signals that the supervisor handles; Windows, where there is no supervisor, has few of them.
HANDLED = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU")
    if hasattr(signal, name)
)


def command(role: str, *args: str) -> list[str]:
    """The command line of a process.

    :param role: the module of this package whose ``main`` it runs.
    """
    root = str(Path(__file__).parents[2])
    # -P: no file in the working folder may stand in the way of Python's own modules.
    program = f"import sys; sys.path.append({root!r}); from asgiserver.workers.{role} import main; main()"
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *(flag for flag in flags if flag != "-P"), "-P", "-c", program, *args]


def replace(role: str, args: Sequence[str], descriptors: Sequence[int]) -> NoReturn:
    """Become another process, which keeps the number of this one and these descriptors."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with inheritable(descriptors):
        line = command(role, *args)
        os.execv(line[0], line)


@contextmanager
def inheritable(descriptors: Sequence[int]) -> Iterator[None]:
    """Let a process that is started in the block have these descriptors too."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)


def supervise(interface: CommandLineInterface, args: Sequence[str]) -> NoReturn:
    """Become the supervisor: this process has imported Twisted, which the supervisor should not carry along.

    :param interface: its class is made anew in each generation, to read ``args`` again and to load the application.
    :raises SettingsError: workers cannot be had here, or changes not be watched.
    """
    kind, setting = type(interface), "reload" if interface.settings.reload else "workers"
    if not hasattr(os, "fork"):
        raise SettingsError(f"{setting}: this system cannot fork processes")
    if kind.__module__ == "__main__":
        raise SettingsError(f"{setting}: {kind.__qualname__} has to be in a module that the workers can import")
    if interface.settings.reload:
        check(interface.settings)
    configuration = interface.configuration
    # In the specification stands what all generations have in common. The settings go another way than the command
    # line, which every user of the system can read.
    specification: Mapping[str, Any] = {
        "interface": f"{kind.__module__}:{kind.__qualname__}",
        "args": list(args),
        "prog": interface.parser.prog,
        "config": configuration.path,
        "origins": configuration.origins,
        "labels": configuration.labels,
        "path": [os.path.abspath(part) for part in sys.path],
    }
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, json.dumps(asdict(interface.settings)).encode("ascii"))
    os.close(writer)
    # A signal that comes in between waits for the supervisor's handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    replace("supervisor", [str(reader), json.dumps(specification)], [0, 1, 2, reader])
