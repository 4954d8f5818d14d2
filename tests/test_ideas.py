"""IDEAS.md has one row for each number, and what it says is tried is tried by tests that exist."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LAST = 309

ROW = re.compile(r"\| T(\d+) \|(.*)\|(.*)\|")
NAMED = re.compile(r"`([\w/]+\.py)::([\w:]+)`")


@functools.cache
def rows() -> list[tuple[int, str, str]]:
    """Number, behaviour, and what tries it, of each row that begins like one."""
    lines = [line for line in (TESTS / "IDEAS.md").read_text("utf-8").splitlines() if re.match(r"\|\s*T\d", line)]
    found = [ROW.fullmatch(line) for line in lines]
    assert None not in found, "a row has other columns than the others"
    return [(int(match[1]), match[2].strip(), match[3].strip()) for match in found if match]


@functools.cache
def names_in(file: str) -> frozenset[str]:
    """The tests in a file of this folder: ``test_name`` or ``Class::test_name``."""
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    return frozenset(
        prefix + node.name
        for prefix, body in [("", tree.body), *((f"{node.name}::", node.body) for node in classes(tree))]
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]


def test_each_number_has_one_row_in_order() -> None:
    assert [number for number, _, _ in rows()] == list(range(1, LAST + 1))


def test_each_row_names_a_behaviour_and_a_test_or_a_reason() -> None:
    wrong = [
        number for number, behaviour, tried in rows()
        if not behaviour or not (NAMED.search(tried) or re.fullmatch(r"[A-Z].+\.", tried))
    ]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("file", sorted({file for _, _, tried in rows() for file, _ in NAMED.findall(tried)}))
def test_each_test_that_is_named_exists(file: str) -> None:
    assert (TESTS / file).is_file()
    named = {name for _, _, tried in rows() for other, name in NAMED.findall(tried) if other == file}
    assert named <= names_in(file)


def test_nothing_that_looks_like_a_test_is_overlooked() -> None:
    """A misspelt name would otherwise pass for a part of a sentence."""
    for number, _, tried in rows():
        assert tried.count("::test_") == len(NAMED.findall(tried)) == tried.count(".py"), f"T{number:03}"


def test_no_test_speaks_of_a_number_that_is_not_there() -> None:
    numbers = {number for number, _, _ in rows()}
    for path in TESTS.rglob("test_*.py"):
        spoken = {int(digits) for digits in re.findall(r"\bT(\d{3})\b", path.read_text("utf-8"))}
        assert spoken <= numbers, path
