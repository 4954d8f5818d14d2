"""The one way by which a child process hands exceptions to its parent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgiserver.testing.failures import append, read


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class VanishedError(Exception):
    pass


class PretendingError(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return int, (7,)


class StayingError(Exception):
    def __reduce__(self) -> Any:
        raise LookupError("it does not want to travel")


class WordlessError(Exception):
    def __str__(self) -> str:
        raise LookupError("it does not want to speak")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "failures"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class TestFile:
    def test_they_are_read_in_their_order(self, file: Path) -> None:
        assert read(file) == []
        for number in range(3):
            append(file, ValueError(number))
            assert [error.args for error, _ in read(file)] == [(each,) for each in range(number + 1)]

    def test_one_that_is_not_written_wholly_does_not_count_yet(self, file: Path) -> None:
        append(file, ValueError("one"))
        append(file, ValueError("two"))
        whole = file.read_bytes()
        found = list[int]()
        for size in range(len(whole) + 1):
            file.write_bytes(whole[:size])
            found.append(len(read(file)))
        assert found == sorted(found)
        assert (found[0], found[-2], found[-1]) == (0, 1, 2)

    def test_there_is_an_end_of_them(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asgiserver.testing.failures._MOST_OF_A_FILE", 10_000)
        for _ in range(1000):
            append(file, ValueError("x"))
        assert file.stat().st_size < 11_000


class TestTravelling:
    def test_an_exception_comes_with_its_traceback(self, file: Path) -> None:
        append(file, raised(ValueError("ä", 2)))
        ((error, text),) = read(file)
        assert (type(error), error.args) == (ValueError, ("ä", 2))
        assert text.startswith("Traceback (most recent call last):\n")
        assert text.endswith("ValueError: ('ä', 2)\n")

    @pytest.mark.parametrize(("error", "words"), [
        (UnpicklableError("this", "that"), "tests.testing.test_failures.UnpicklableError: this and that"),
        (ValueError(lambda: None), "ValueError: <function"),
        (ValueError("ä" * 100_000), "ValueError: ää"),
        (PretendingError("x"), "tests.testing.test_failures.PretendingError: x"),
        (StayingError("x"), "tests.testing.test_failures.StayingError: x"),
        (WordlessError(lambda: None), "tests.testing.test_failures.WordlessError: <exception str() failed>"),
    ])  # fmt: skip
    def test_what_cannot_travel_is_said_in_words(self, file: Path, error: Exception, words: str) -> None:
        append(file, error)
        ((said, text),) = read(file)
        assert type(said) is RuntimeError
        assert str(said).startswith(words)
        assert len(str(said)) < 10_000
        assert len(text) < 10_000

    def test_nor_can_one_whose_class_is_not_there(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        append(file, VanishedError("x"))
        monkeypatch.delattr(f"{__name__}.VanishedError")
        words = "tests.testing.test_failures.VanishedError: x"
        assert [repr(error) for error, _ in read(file)] == [f"RuntimeError({words!r})"]
