"""Date, Server, and the fields that the user adds."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from asgiserver.errors import SettingsError
from asgiserver.wire.default_fields import DefaultFields
from tests.fakes import DATE, THEN, fields


def complete(made: DefaultFields, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [*headers, *made.lacking([name for name, _ in headers])]


def test_date_and_server_follow_the_applications_fields() -> None:
    made = complete(fields("asgiserver"), [(b"content-type", b"text/plain")])
    assert made == [(b"content-type", b"text/plain"), (b"date", DATE), (b"server", b"asgiserver")]


@pytest.mark.parametrize("given", [(b"date", b"today"), (b"server", b"mine"), (b"x-frame-options", b"DENY")])
def test_field_of_the_application_replaces_the_default_one(given: tuple[bytes, bytes]) -> None:
    made = complete(fields("asgiserver", "X-Frame-Options: SAMEORIGIN"), [given])
    assert [value for name, value in made if name == given[0]] == [given[1]]
    assert sorted(name for name, _ in made) == [b"date", b"server", b"x-frame-options"]


def test_empty_server_name_leaves_the_field_out() -> None:
    assert [name for name, _ in complete(fields(""), [])] == [b"date"]


def test_lines_are_added_in_order_with_lower_case_names_and_stripped_values() -> None:
    made = complete(fields("", "X-One:  1 ", "X-Two:2", "X-One:3:4"), [])
    assert made[1:] == [(b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3:4")]


def test_line_may_be_repeated_but_is_left_out_wholly_when_the_application_has_it() -> None:
    made = complete(fields("", "Link: </a>", "Link: </b>"), [(b"link", b"</c>")])
    assert made == [(b"link", b"</c>"), (b"date", DATE)]


def test_the_given_fields_are_not_changed() -> None:
    given = [(b"vary", b"accept")]
    complete(fields("asgiserver"), given)
    assert given == [(b"vary", b"accept")]


def test_date_is_formatted_once_a_second() -> None:
    now = [float(THEN)]
    made = DefaultFields("", (), now=lambda: now[0])
    first = complete(made, [])[0]
    now[0] += 0.9
    assert complete(made, [])[0] is first
    now[0] += 0.1
    assert complete(made, [])[0] == (b"date", b"Tue, 15 Nov 1994 08:12:32 GMT")


@pytest.mark.parametrize("days", [*range(13), *range(13, 400, 29), 11016, 24855])
def test_date_is_written_as_python_writes_it_in_mail(days: int) -> None:
    then = days * 86400 + days * 601
    made = DefaultFields("", (), now=lambda: then)
    assert complete(made, []) == [(b"date", formatdate(then, usegmt=True).encode())]


def test_values_may_be_latin_1_and_have_tabs() -> None:
    assert complete(fields("caf\xe9"), [])[1] == (b"server", b"caf\xe9")
    assert complete(fields("", "x: a\tb\x80"), [])[1] == (b"x", b"a\tb\x80")


@pytest.mark.parametrize("line", [": value", "two words: value", "a\r\nb: c", "x(y): z", "schl\xfcssel: x"])
def test_what_is_no_field_name_is_refused(line: str) -> None:
    with pytest.raises(SettingsError, match="headers: "):
        fields("", line)


@pytest.mark.parametrize("name", [
    "content-length", "Transfer-Encoding", "connection", "UPGRADE", "keep-alive", "Proxy-Connection", " upgrade ", "TE",
    "Sec-WebSocket-Protocol", "sec-websocket-extensions",
])  # fmt: skip
def test_what_only_the_server_can_know_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"headers: '{name.strip()}' is set by the server"):
        fields("", f"{name}: value")


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "a\x01b", "a\x1bb", "a\x0bb", "a\x7fb"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="server_name: control characters"):
        fields(text)
    with pytest.raises(SettingsError, match="headers: control characters"):
        fields("", f"x: {text}")


def test_what_latin_1_lacks_is_refused() -> None:
    with pytest.raises(SettingsError, match="server_name: only Latin-1"):
        fields("\u2603")


def test_what_is_lacking_is_what_the_application_has_no_name_of() -> None:
    made = fields("asgiserver", "X-One: 1")
    date, server, one = (b"date", DATE), (b"server", b"asgiserver"), (b"x-one", b"1")
    assert made.lacking([]) == made.lacking([b"a", b"b"]) == (date, server, one)
    assert made.lacking([b"a", b"server"]) == (date, one)
    assert made.lacking([b"date", b"x-one", b"x-one", b"server"]) == ()


def test_name_whose_lower_case_is_ascii_though_it_is_not_is_refused() -> None:
    """The Kelvin sign's lower case is a plain k."""
    with pytest.raises(SettingsError, match="headers: "):
        fields("", "\u212aeep: x")
