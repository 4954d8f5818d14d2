"""The corpus and a few hundred changed copies of it, the same each time; and that a fault is found and made short."""

from __future__ import annotations

import time

import pytest

from . import engine
from .__main__ import main
from .engine import CORPUS, Failure, Target, fuzz, load, pieces
from .targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(name: str) -> None:
    assert fuzz(TARGETS[name], load(name), 1, seconds=60, inputs=400) == 400


def test_each_target_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def test_a_fault_is_found_and_made_short() -> None:
    def check(data: bytes) -> int:
        assert b"no\xffw" not in data
        return sum(data[at] == b"no"[at] for at in range(2) if at < len(data))

    with pytest.raises(Failure) as caught:
        fuzz(Target(check, [b"w"]), [b"a corpus that says no"], 1, seconds=60)
    assert caught.value.data == b"no\xffw"
    assert isinstance(caught.value.__cause__, AssertionError)


def test_an_input_that_takes_long_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_SECONDS", 0.01)

    def check(_: bytes) -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    with pytest.raises(Failure) as caught:
        fuzz(Target(check), [b"abc"], 1, seconds=60)
    assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.alone
def test_a_process_that_grows_is_one() -> None:
    kept: list[bytearray] = []

    def check(data: bytes) -> None:
        kept.append(bytearray(b"x" * (100_000_000 if len(kept) == 600 else 1)))

    with pytest.raises(MemoryError):
        fuzz(Target(check), [b"abc"], 1, seconds=60, inputs=700)


def test_pieces_are_all_of_it_and_the_same_again() -> None:
    assert b"".join(pieces(b"abcdef")) == b"abcdef"
    assert pieces(b"abcdef") == pieces(b"abcdef")


def test_the_command_line_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proxy", "--seconds", "0.01", "--seed", "7"]) == 0
    assert capsys.readouterr().out.startswith("proxy: ")
    with pytest.raises(SystemExit):
        main(["unknown"])
