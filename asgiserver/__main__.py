"""``python -m asgiserver``: the same as the ``asgiserver`` command."""

from __future__ import annotations

from .cli import script

if __name__ == "__main__":
    script()
