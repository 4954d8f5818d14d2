"""The documents tell the truth about the settings, the commands, other servers' flags, and each other.

``python -m tests.test_readme`` writes the tables of settings into examples/README.md again.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from asgiserver.settings import Info, Settings

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
#: The guide's second page.
REFERENCE = ROOT / "examples" / "README.md"
DOCUMENTS = (
    README, REFERENCE, ROOT / "examples" / "deploy" / "README.md", ROOT / "examples" / "chat" / "README.md",
    ROOT / "tests" / "benchmarks" / "README.md",
)  # fmt: skip
MOST_LINES = 350

BEGIN = "<!-- settings: made by `python -m tests.test_readme` from asgiserver/settings.py -->\n"
END = "<!-- settings end -->\n"


def settings_tables() -> str:
    """A table for each group of settings, in their order."""
    fields = [(field, field.metadata["info"]) for field in dataclasses.fields(Settings)]
    parts = []
    for group, members in groupby(fields, key=lambda member: member[1].group):
        rows = [f"| {flags(field.name, info, field.default)} | {default(field.default, info)} | {meaning(info)} |"
                for field, info in members]  # fmt: skip
        parts.append("\n".join([f"**{group}**", "", "| | Default | |", "|---|---|---|", *rows]))
    return "\n" + "\n\n".join(parts) + "\n\n"


def flags(name: str, info: Info, value: Any) -> str:
    """The spellings of a setting: those of the command line, or the keyword alone where it has none."""
    if not info.command_line:
        return f"`{name}=`"
    spellings = list(info.flags) or ["--" + name.replace("_", "-")]
    if value is True:
        spellings = [spelling.replace("--", "--no-", 1) for spelling in spellings]
    if info.metavar:
        spellings[-1] += f" {info.metavar}"
    if name == "server_name":
        spellings.append("--no-server-name")
    text = ", ".join(f"`{spelling}`" for spelling in spellings)
    # Where no flag gives it away, the keyword, which is also the variable's name.
    told = any(name.replace("_", "-") in spelling.replace("_", "-").split()[0] for spelling in spellings)
    return text if told else f"{text}; keyword `{name}`"


def default(value: Any, info: Info) -> str:
    """A default as one would write it, with its unit."""
    if value is None or value in ((), ""):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if info.unit == "octal":
        return f"`{value:o}`"
    if isinstance(value, (int, float)):
        return f"{value:g} s" if info.unit == "s" else f"{value} {info.unit}".strip()
    return f"`{value}`"


def meaning(info: Info) -> str:
    """The sentence of a setting, with its choices and how to switch it off."""
    text = info.text
    if info.choices:
        text += " One of " + ", ".join(f"`{choice}`" for choice in info.choices) + "."
    if info.off == "zero" and not re.search(r"(?<![\w.])(?:-1|0) for ", text):
        text += " 0 for none."
    return text.replace("|", "\\|")


def with_settings(text: str) -> str:
    """The reference's text with the tables as they ought to be."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + settings_tables() + END + after


def command(name: str) -> str:
    """The one line under the marker ``<!-- command: NAME -->``."""
    found = re.search(rf"<!-- command: {name} -->\n```sh\n(.+)\n```\n", README.read_text("utf-8"))
    assert found, f"README.md has no command of one line called {name}"
    return found[1]


def example(name: str) -> str:
    """The Python under the marker ``<!-- run: NAME -->``, which stands in one document."""
    pattern = re.compile(rf"<!-- run: {name} -->\n```python\n(.*?)```\n", re.DOTALL)
    found = [text for document in DOCUMENTS for text in pattern.findall(document.read_text("utf-8"))]
    assert len(found) == 1, f"{len(found)} examples are called {name}"
    return str(found[0])


class TestSettings:
    def test_the_tables_are_those_of_the_settings(self) -> None:
        text = REFERENCE.read_text("utf-8")
        assert text == with_settings(text), "write them again: python -m tests.test_readme"

    def test_each_setting_has_one_row(self) -> None:
        rows = [line for line in settings_tables().splitlines() if line.startswith("| `")]
        assert len(rows) == len(dataclasses.fields(Settings))

    def test_the_command_line_knows_each_flag_of_the_tables(self) -> None:
        from asgiserver.cli import CommandLineInterface

        known = set(CommandLineInterface().parser._option_string_actions)
        first_cells = [line.split(" | ")[0] for line in settings_tables().splitlines()]
        shown = {flag for cell in first_cells for flag in re.findall(r"`(--?[\w-]+)", cell)}
        assert shown
        assert shown <= known

    @pytest.mark.parametrize(("info", "value", "expected"), [
        (Info("", ""), None, "none"),
        (Info("", "", unit="s"), 20.0, "20 s"),
        (Info("", "", unit="octal"), 0o660, "`660`"),
        (Info("", "", unit="bytes"), 1048576, "1048576 bytes"),
        (Info("", ""), 0, "0"),
        (Info("", ""), ("a", "b"), "`a,b`"),
        (Info("", ""), True, "on"),
    ])  # fmt: skip
    def test_a_default_is_written_with_its_unit(self, info: Info, value: Any, expected: str) -> None:
        assert default(value, info) == expected


class TestCommands:
    def test_each_makes_its_own_environment(self) -> None:
        environments = [re.match(r"python3 -m venv (\S+) && ", command(name)) for name in ("serve", "test")]
        names = {found[1] for found in environments if found}
        assert len(names) == 2

    def test_the_extras_they_install_exist(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        for name in ("serve", "test"):
            found = re.search(r"'\.\[([\w,]+)\]'", command(name))
            assert found
            assert set(found[1].split(",")) <= set(extras)

    def test_ignored_by_git_are_their_environments(self) -> None:
        assert ".venv*/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


class TestReadme:
    def test_it_is_short(self) -> None:
        assert len(README.read_text("utf-8").splitlines()) <= MOST_LINES

    def test_its_contents_name_all_sections(self) -> None:
        text = README.read_text("utf-8")
        contents = text.partition("## Contents\n")[2].partition("\nMore pages")[0]
        sections = [name for name in re.findall(r"^## (.+)$", text, re.MULTILINE) if name != "Contents"]
        assert re.findall(r"\[(.+?)\]", contents) == sections

    def test_what_it_says_of_uvicorns_flags(self) -> None:
        """Each is a flag of uvicorn's, and what is said to be the same, or in its place, is one of ours."""
        from uvicorn.main import main as uvicorn

        from asgiserver.cli import CommandLineInterface

        theirs = {flag for each in uvicorn.params for flag in (*each.opts, *each.secondary_opts)}
        ours = set(CommandLineInterface().parser._option_string_actions)
        section = README.read_text("utf-8").partition("## Coming from uvicorn\n")[2].partition("\n## ")[0]
        same = flags_in(section.partition("flags are the same:")[2].partition("These differ:")[0])
        assert len(same) > 20
        assert same <= theirs & ours
        rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
        assert rows
        for _, uvicorns, own, *_ in rows:
            assert flags_in(uvicorns) <= theirs
            assert flags_in(own) <= ours


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"`(--[\w-]+)", text))


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestLinks:
    def test_what_is_linked_to_exists(self, document: Path) -> None:
        targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8"))
        missing = []
        for target in targets:
            name, _, anchor = target.partition("#")
            if ":" in name:
                continue  # another site's
            path = (document.parent / name).resolve() if name else document
            if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
                missing.append(target)
        assert missing == []

    def test_the_flags_that_are_named_are_ours_or_others(self, document: Path) -> None:
        from asgiserver.cli import CommandLineInterface

        known = set(CommandLineInterface().parser._option_string_actions)
        # Those of other programs, and of ``runserver``.
        known |= {
            "--http", "--ws", "--uds", "--timeout-keep-alive", "--timeout-graceful-shutdown", "--no-server-header",
            "--timeout-worker-healthcheck", "--limit-max-requests", "--limit-max-requests-jitter", "--ssl-version",
            "--h11-max-incomplete-event-size", "--ws-max-size", "--ws-max-queue", "--ws-ping-interval",
            "--ws-ping-timeout", "--ws-per-message-deflate", "--noasgi", "--http_timeout", "--tls",
            "--websocket_handshake_timeout",
        }  # fmt: skip
        assert flags_in(document.read_text("utf-8")) - known == set()


if __name__ == "__main__":
    REFERENCE.write_text(with_settings(REFERENCE.read_text("utf-8")), "utf-8")
