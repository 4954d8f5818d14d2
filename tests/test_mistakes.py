"""What the command line says to each of many mistakes; ``mistakes.txt`` has them, to be read as a whole.

``python -m tests.test_mistakes`` writes the answers anew: the difference shows what a change does to its users.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgiserver import cli
from asgiserver.cli import CommandLineInterface
from asgiserver.listen.accept import check
from asgiserver.log import setup as logs
from asgiserver.server import Server

TABLE = Path(__file__).with_name("mistakes.txt")
PREFIX = "asgiserver: error: "

FILES = {
    "app.py": """
constant = 3
class Site:
    async def __call__(self, scope, receive, send): ...
async def app(scope, receive, send): ...
def wsgi(environ, start_response): ...
def make(): return app
""",
    "log.json": "{}",
    "wrong.ini": "[handlers]",
    "wrong.toml": "head-timeout = -5",
    "typo.toml": "aplication = 'app:app'",
}


def mistakes() -> dict[str, str]:
    """Each command of the table with what it is told."""
    blocks = TABLE.read_text("utf-8").split("\n$ ")[1:]
    return {command: told.strip("\n") for command, _, told in (block.partition("\n") for block in blocks)}


class NeverServing(Server):
    """Looks at the endpoints as a server that runs would, and opens none."""

    def run(self) -> None:
        check(self.settings, object())  # type: ignore[arg-type]
        raise AssertionError("nothing was wrong")


@contextlib.contextmanager
def process(variables: dict[str, str]) -> Iterator[io.StringIO]:
    """A working folder, an environment and logging as in a new process; what it writes to its standard error."""
    loggers = [logging.getLogger(name) for name in (None, "asgiserver", "asgiserver.access")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, text in FILES.items():
            Path(folder, name).write_text(text)
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(logs, "bridge_twisted", lambda: None)
        patch.setattr(cli, "install_reactor", lambda loop: None)
        patch.setattr(CommandLineInterface, "server_class", NeverServing)
        for name in [*os.environ]:
            if name.startswith("ASGISERVER_") or name == "WEB_CONCURRENCY":
                patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        for logger in loggers:
            logger.handlers[:] = []
        try:
            with contextlib.redirect_stderr(io.StringIO()) as written:
                yield written
        finally:
            sys.modules.pop("app", None)
            for logger, handlers, level, propagate in before:
                logger.handlers[:], logger.propagate = handlers, propagate
                logger.setLevel(level)


def told(command: str) -> str:
    """What the command line says, without its prefix."""
    words = shlex.split(command)
    start = words.index("asgiserver")
    variables = dict(word.split("=", 1) for word in words[:start])
    status: Any = None
    with process(variables) as written:
        folder = os.getcwd()
        try:
            CommandLineInterface().run(words[start + 1 :])
        except SystemExit as error:
            status = error.code
    *warnings, last = written.getvalue().splitlines()
    assert (status, last.startswith(PREFIX)) == (2, True), (command, status, last)
    # Without the time.
    lines = [*(line[line.index("WARNING") :] for line in warnings), last.removeprefix(PREFIX)]
    return "\n".join(lines).replace(folder, "/site")


def test_there_are_many() -> None:
    assert len(mistakes()) >= 60


@pytest.mark.parametrize("command", mistakes())
def test_each_is_told_as_the_table_says(command: str) -> None:
    assert told(command) == mistakes()[command], "write them again: python -m tests.test_mistakes"


if __name__ == "__main__":
    start = TABLE.read_text("utf-8").split("\n$ ")[0].rstrip("\n")
    TABLE.write_text("\n\n".join([start, *(f"$ {command}\n{told(command)}" for command in mistakes())]) + "\n", "utf-8")
