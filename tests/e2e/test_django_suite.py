"""Django's own tests, with our handler in the place of Django's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.django.suite import CACHE, HANDLER, LABELS, SourceMissingError, SuiteError, compare, django_tests, main, run
from tests.programs import missing

#: Tests of Django's that need one answer each: of ``get_asgi_application()``, for ``Client``, and for ``AsyncClient``.
ANSWERS = [
    "asgi.tests.ASGITest.test_get_asgi_application",
    "handlers.tests.HandlerRequestTests.test_suspiciousop_in_view_returns_400",
    "handlers.tests.AsyncHandlerRequestTests.test_suspiciousop_in_view_returns_400",
]

#: A handler that answers each request, wrongly.
WRONG = """\
from django.core.handlers.asgi import ASGIHandler

class Handler(ASGIHandler):
    async def handle(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
"""


@pytest.fixture(scope="module")
def tests() -> Path:
    try:
        return django_tests(CACHE)
    except SourceMissingError as error:
        missing(str(error))


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "wrong_handler.py").write_text(WRONG, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "wrong_handler:Handler"


def test_no_test_of_django_fails_with_our_handler_alone(tests: Path) -> None:
    ours, regressions = compare(tests, HANDLER, LABELS)
    assert regressions == [], ours.output
    # Static files are served by a handler of their own, and async views by Django's on a lane of ours.
    assert ours.passed_by.keys() <= {"ASGIStaticFilesHandler", "ASGIHandler"}
    assert sum(ours.served.values()) - ours.passed_by.get("ASGIHandler", 0) > 400
    assert ours.run > 1000
    # The clients of Django's tests make few of them fail with any handler; what these would find is not found.
    assert len(ours.failed) < 15, ours.output


def test_a_wrong_handler_is_found(tests: Path, wrong: str) -> None:
    ours, regressions = compare(tests, wrong, ANSWERS)
    assert regressions == sorted(ANSWERS)
    assert ours.served == {"Handler": len(ANSWERS)}


def test_the_program_fails_when_no_request_reaches_the_handler(
    tests: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    label = "signals.tests.SignalTests.test_model_pre_init_and_post_init"
    assert main(["--handler", wrong, label]) == 1
    assert "1 tests, 0 failed" in capsys.readouterr().out


def test_a_run_that_does_not_come_to_its_end_is_no_success(tests: Path) -> None:
    with pytest.raises(SuiteError, match="no_such_handler"):
        run(tests, "no_such_handler:Handler", ANSWERS)
