"""``python -m tests.django.suite``: Django's own tests with our handler in the place of its ``ASGIHandler``.

The tests are those of the sdist of exactly the Django that is installed; pip gets it once, and ``--cache`` keeps them.
The clients that they use have their requests served by our handler too. What fails is run again with Django's handler:
a failure counts when that one has it not.

For another release of Django, in an environment of its own, in the root of the checkout::

    python3.13 -m venv /tmp/django6
    /tmp/django6/bin/pip install -e . 'django==6.*'
    /tmp/django6/bin/python -m tests.django.suite
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["HANDLER", "LABELS", "Outcome", "SourceMissingError", "SuiteError", "compare", "django_tests", "run"]

#: Django's own, and ours.
OWN = "django.core.handlers.asgi:ASGIHandler"
HANDLER = "tests.django.suite_handler:ShortWay"
#: The parts of Django's tests that a handler can break.
LABELS = (
    "asgi", "conditional_processing", "csrf_tests", "file_uploads", "generic_views", "handlers", "middleware",
    "middleware_exceptions", "requests_tests", "responses", "servers", "signals", "staticfiles_tests", "view_tests",
)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "asgiserver-tests")
ROOT = Path(__file__).parents[2]
#: Seconds for one run. Some of Django's tests wait; one that waits for ever must not take the whole run with it.
DEADLINE = 300
#: Seconds for pip to get the sdist.
DOWNLOAD_DEADLINE = 120


class SourceMissingError(Exception):
    """pip did not get the sdist of Django."""


class SuiteError(Exception):
    """The process that was to run Django's tests did not come to their end."""


@dataclass(frozen=True)
class Outcome:
    """What a run of Django's tests came to."""

    run: int
    #: The ids of what failed, with the labels by which Django's runner runs them again.
    failed: dict[str, str]
    #: How many requests the handler under test served, by the name of its class: tests derive from it.
    served: dict[str, int]
    #: The same of handlers that are Django's alone.
    passed_by: dict[str, int]
    output: str


def django_tests(cache: Path) -> Path:
    """The folder of the tests of the Django that is installed; ``cache`` keeps it."""
    release = version("django")
    folder = cache / f"django-{release}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            _unpack(_download(release, Path(work)), Path(work, "tests"))
            try:
                # Whole or not at all, whatever interrupts this.
                Path(work, "tests").rename(folder)
            except OSError:
                if not folder.exists():  # another process was faster
                    raise
    return folder.resolve()


def _download(release: str, folder: Path) -> Path:
    command = (
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=django", "--retries=2",
        "--timeout=20", f"--dest={folder}", f"django=={release}",
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_DEADLINE)
    except subprocess.TimeoutExpired as error:
        raise SourceMissingError(f"pip did not get the sdist of Django {release} in {DOWNLOAD_DEADLINE} s") from error
    if done.returncode != 0:
        raise SourceMissingError(f"pip did not get the sdist of Django {release}:\n{done.stderr}")
    (path,) = folder.glob("*.tar.gz")
    return path


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the folder ``tests`` of the sdist as ``folder``."""
    with tarfile.open(archive) as file:
        members = []
        for member in file:
            name = member.name.partition("/")[2]
            if name.startswith("tests/"):
                members.append(member.replace(name=name.removeprefix("tests/"), deep=False))
        file.extractall(folder, members, filter="data")


def run(tests: Path, handler: str, labels: Sequence[str]) -> Outcome:
    """Run Django's tests ``labels`` with ``handler``, ``module:Class``."""
    with tempfile.TemporaryDirectory() as work:
        report = Path(work, "report.json")
        command = (sys.executable, "-m", "tests.django.suite_process", str(report), str(tests), handler, *labels)
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", timeout=DEADLINE,
            )
        except subprocess.TimeoutExpired as error:
            output = (error.stdout or b"").decode(errors="replace")
            raise SuiteError(f"Django's tests did not end in {DEADLINE} s:\n{output}") from error
        if not report.exists():
            raise SuiteError(f"Django's tests ended with status {done.returncode}:\n{done.stdout}")
        return Outcome(**json.loads(report.read_text("utf-8")), output=done.stdout)


def compare(tests: Path, handler: str, labels: Sequence[str]) -> tuple[Outcome, list[str]]:
    """The outcome with ``handler``, and the ids of what fails with it alone."""
    ours = run(tests, handler, labels)
    if not ours.failed:
        return ours, []
    own = run(tests, OWN, sorted(set(ours.failed.values())))
    suspects = sorted(ours.failed.keys() - own.failed.keys())
    if not suspects:
        return ours, []
    # Each alone, as the view of a client that has left runs to its end, and its signals may come in the next test.
    alone = (run(tests, handler, [ours.failed[each]]) for each in suspects)
    return ours, [each for each, outcome in zip(suspects, alone, strict=True) if each in outcome.failed]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.django.suite",
        description="Runs Django's own tests with our handler in the place of its ASGIHandler.",
    )
    parser.add_argument("labels", nargs="*", metavar="LABEL", help=f"of Django's tests (default: {' '.join(LABELS)})")
    parser.add_argument("--handler", default=HANDLER, metavar="MODULE:CLASS", help=f"the handler (default: {HANDLER})")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="FOLDER", help="keeps Django's tests")
    options = parser.parse_args(arguments)
    try:
        ours, regressions = compare(django_tests(options.cache), options.handler, options.labels or LABELS)
    except (SourceMissingError, SuiteError) as error:
        sys.exit(str(error))
    sys.stdout.write(
        f"{ours.output}\nDjango {version('django')}: {ours.run} tests, {len(ours.failed)} failed, "
        f"{len(regressions)} of them not with Django's own handler: {', '.join(regressions) or '-'}.\n"
        f"Requests served: {ours.served or 'none'}; by handlers of Django's alone: {ours.passed_by or 'none'}.\n"
    )
    return 1 if regressions or not ours.served else 0


if __name__ == "__main__":
    sys.exit(main())
