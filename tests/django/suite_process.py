"""One run of Django's own tests in this process, with another class in the place of Django's ``ASGIHandler``.

``suite.py`` starts it: ``python -m tests.django.suite_process REPORT TESTS HANDLER LABEL…``. TESTS is the folder of
Django's tests, HANDLER is ``module:Class``. What was found goes to REPORT, as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import sys
import unittest
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import django.contrib.staticfiles.handlers  # noqa: F401  # before the class is replaced
from django.core import asgi
from django.core.handlers import asgi as handlers
from django.test.runner import DiscoverRunner

from .suite_client import connect

__all__ = ["label", "main"]

#: What unittest calls the set-up of a class or a module that failed: ``setUpClass (asgi.tests.ASGITest)``.
SET_UP = re.compile(r"\w+ \((.+)\)")
#: And a module that could not be imported.
NOT_IMPORTED = "unittest.loader._FailedTest."


def label(test: Any) -> str:
    """What Django's runner is to be told so that it runs ``test`` again, be it a method, a part of one or a set-up."""
    # A part of a test carries its parameters behind the name of the method.
    name = str(getattr(test, "test_case", test).id()).removeprefix(NOT_IMPORTED)
    found = SET_UP.fullmatch(name)
    return found[1] if found else name


class Requests:
    """Who served the requests, by the name of the handler's class."""

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        self.passed_by: Counter[str] = Counter()


def count(owner: type, counter: Counter[str], besides: type | None = None) -> None:
    """Let ``owner.handle`` count its calls, but not those for an object of the class ``besides``."""
    handle: Callable[..., Coroutine[Any, Any, None]] = owner.handle  # type: ignore[attr-defined]

    async def counted(self: Any, *arguments: Any) -> None:
        if besides is None or not isinstance(self, besides):
            counter[type(self).__name__] += 1
        await handle(self, *arguments)

    owner.handle = counted  # type: ignore[attr-defined]


def replace(path: str) -> Requests:
    """Put the class at ``path`` where Django and its tests look for ``ASGIHandler``.

    The tests are imported later and so find it by its name. ``ASGIStaticFilesHandler`` has been imported already: it
    stays Django's, as it does in a project, and only what it wraps is ours.
    """
    module, _, name = path.partition(":")
    handler = getattr(importlib.import_module(module), name)
    requests = Requests()
    count(handlers.ASGIHandler, requests.passed_by, besides=handler)
    count(handler, requests.served)
    handlers.ASGIHandler = handler
    asgi.ASGIHandler = handler
    connect(handler)
    return requests


def main(report: str, tests: str, path: str, *labels: str) -> None:
    # As runtests.py finds them when it is started there.
    os.chdir(tests)
    sys.path.insert(0, tests)
    requests = replace(path)
    suite_result = DiscoverRunner.suite_result

    def reported(self: Any, suite: unittest.TestSuite, result: unittest.TestResult, **options: Any) -> int:
        failed = [test for test, _ in [*result.failures, *result.errors]] + result.unexpectedSuccesses
        Path(report).write_text(
            json.dumps({
                "run": result.testsRun, "failed": {test.id(): label(test) for test in failed},
                "served": requests.served, "passed_by": requests.passed_by,
            }),
            "utf-8",
        )
        return int(suite_result(self, suite, result, **options))

    DiscoverRunner.suite_result = reported
    # Not in parallel: the processes would count for themselves.
    sys.argv = ["runtests.py", "--settings=test_sqlite", "--parallel=1", "--noinput", *labels]
    runpy.run_path(str(Path(tests, "runtests.py")), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
