"""Programs outside Python that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["require"]


def require(name: str) -> str:
    """The path of the program ``name``.

    A test without it is skipped, so that the suite passes on any machine; where ``CI`` is set it fails instead, so that
    a missing program there cannot go unnoticed.
    """
    # Debian keeps daemons in folders that are not on an ordinary user's PATH.
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if path is not None:
        return path
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed, and CI is set")
    pytest.skip(f"{name} is not installed")
