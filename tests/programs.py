"""What some tests need of the machine, such as programs outside Python."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["missing", "require"]


def missing(what: str) -> NoReturn:
    """End a test that cannot run here, for the reason ``what``.

    It is skipped, so that the suite passes on any machine; where ``CI`` is set it fails instead, so that nothing can be
    missing there unnoticed.
    """
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set")
    pytest.skip(what)


def require(name: str) -> str:
    """The path of the program ``name``; without it the test ends as ``missing`` says."""
    # Debian keeps daemons in folders that are not on an ordinary user's PATH.
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if path is None:
        missing(f"{name} is not installed")
    return path
