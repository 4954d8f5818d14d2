"""Which files count with ``--reload``, and how a change is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgiserver.workers.watch import Files, described


@pytest.mark.parametrize(
    "path",
    [
        "manage.py", "mysite/urls.py", "mysite/__init__.py", "a/b/c/d.py", "venv_tools.py", "environment/urls.py",
        "templates/base.html", "conf/local.toml", ".env", "deep/down/.env",
    ],
)  # fmt: skip
def test_counts(path: str, tmp_path: Path) -> None:
    assert str(tmp_path / path) in files(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        # What nobody edits.
        "db.sqlite3", "db.sqlite3-journal", "db.sqlite3-wal", "mysite/__pycache__/urls.cpython-311.pyc", "README.md",
        # Editors' own files, and what is hidden.
        ".#urls.py", "~urls.py", "urls.py~", "urls.py.swp", "4913", ".git/hooks/hook.py", "mysite/.cache/made.py",
        # What belongs to others.
        "node_modules/gyp/gyp.py", "front/node_modules/a/templates/base.html", "env/lib/python3/site-packages/a.py",
        "conda/lib/a.py",
        # What is excluded, also where it is included too.
        "media/upload.py", "media/deep/upload.py", "media/.env", "mysite/generated.py",
        # Of what is included only that.
        "conf/other.toml", "local.toml", "mysite/conf/local.toml",
        # Elsewhere.
        "../urls.py", "../site-two/urls.py",
    ],
)  # fmt: skip
def test_does_not_count(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    for mark in ("env/pyvenv.cfg", "conda/conda-meta/history"):
        (folder / mark).parent.mkdir(parents=True)
        (folder / mark).touch()
    absolute = tmp_path / path[3:] if path.startswith("../") else folder / path
    assert str(absolute) not in files(folder)


def files(folder: Path) -> Files:
    return Files([str(folder)], ["*.html", "./conf/local.toml", ".env"], ["media/", "*/generated.py"])


def test_a_folder_that_is_watched_itself_counts_wherever_it_is() -> None:
    watched = Files(["/site", "/site/.venv/lib/ours"], [], [])
    assert "/site/.venv/lib/ours/a.py" in watched
    assert "/site/.venv/lib/theirs/a.py" not in watched


def test_a_wildcard_does_not_bring_back_what_imports_write() -> None:
    watched = Files(["/site"], ["*"], [])
    assert "/site/notes.txt" in watched
    assert "/site/__pycache__/a.cpython-311.pyc" not in watched
    assert "/site/.env" not in watched


def test_what_has_changed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert described([str(tmp_path / "mysite" / "urls.py")]) == "mysite/urls.py has changed"
    assert described(["/etc/b.py", "/etc/a.py", "/etc/c.py"]) == "/etc/a.py and 2 more have changed"
