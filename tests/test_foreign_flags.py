"""The table of other servers' flags is held against their own ``--help``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asgiserver.cli import CommandLineInterface
from asgiserver.flags import expanded
from asgiserver.foreign_flags import FOREIGN_FLAGS, advice, nearest

from .programs import missing

OURS = set(CommandLineInterface().parser._option_string_actions)
SERVERS = "uvicorn", "hypercorn", "gunicorn", "granian"


def help_of(name: str) -> str:
    """What the server says about its flags; it stands beside this Python."""
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or missing(f"{name} is not installed")
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([program, "--help"], env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize("server", SERVERS)
def test_each_flag_of_another_server_is_ours_or_in_the_table(server: str) -> None:
    text = help_of(server)
    found = set(re.findall(r"(?:(?<=[\s,(/|\[])|^)--?[A-Za-z][\w-]*", text))
    assert len(found) > 25
    # An abbreviation of one of Daphne's flags means that.
    assert {flag for flag in found if expanded([flag]) == [flag]} - OURS - FOREIGN_FLAGS.keys() == set()


def test_each_answer_that_is_a_flag_is_one_of_ours() -> None:
    named = {flag for text in FOREIGN_FLAGS.values() for flag in re.findall(r"(?<!\w)--?[a-z][a-z0-9-]*", text)}
    assert named
    assert named <= OURS


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--uds", ": use -u/--unix-socket"),
        ("--ws", ": WebSockets are always served"),
        ("--spew", ": nothing here is like it"),
        ("--keep-alive-timout", "; did you mean --keep-alive-timeout?"),
        ("--graceful-t", "; did you mean --graceful-timeout?"),
        ("--zzzz", ""),
    ],
)
def test_advice(flag: str, told: str) -> None:
    assert advice(flag, OURS) == told


def test_what_all_names_begin_with_is_not_compared() -> None:
    assert nearest("ASGISERVER_X", ["ASGISERVER_FD", "ASGISERVER_PORT"]) == ""
    assert nearest("ASGISERVER_PROT", ["ASGISERVER_FD", "ASGISERVER_PORT"]) == "; did you mean ASGISERVER_PORT?"
