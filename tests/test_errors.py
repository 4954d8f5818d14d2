"""The exception tree: who may catch what, and what a catcher finds in it."""

from __future__ import annotations

import re

import pytest

from asgiserver import errors
from asgiserver.errors import ApplicationError, ASGIServerError, ClientDisconnected, RequestError

TREE = [
    (errors.SettingsError, ASGIServerError, ValueError),
    (errors.ReactorError, ASGIServerError, RuntimeError),
    (errors.ListenError, ASGIServerError, OSError),
    (errors.LifespanError, ASGIServerError, Exception),
    (errors.StartupError, ASGIServerError, RuntimeError),
    (errors.RequestError, ASGIServerError, Exception),
    (errors.ApplicationError, ASGIServerError, Exception),
    (errors.MessageError, ApplicationError, ValueError),
    (errors.UnexpectedMessage, ApplicationError, RuntimeError),
]


@pytest.mark.parametrize(("error", "parent", "builtin"), TREE)
def test_each_error_can_be_caught_as_ours_and_as_a_builtin(
    error: type[Exception], parent: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, parent)
    assert issubclass(error, builtin)


def test_the_tree_lists_every_error() -> None:
    listed = {error.__name__ for error, _, _ in TREE} | {"ASGIServerError", "ClientDisconnected"}
    assert listed == set(errors.__all__)


def test_the_drawn_tree_names_every_error() -> None:
    assert set(errors.__all__) <= set(re.findall(r"\w+", errors.__doc__ or ""))


@pytest.mark.parametrize("error", [error for error, _, _ in TREE])
def test_no_mistake_is_taken_for_a_client_that_left(error: type[Exception]) -> None:
    assert not issubclass(error, ClientDisconnected)


def test_a_client_that_left_is_an_os_error_and_nobodys_mistake() -> None:
    assert issubclass(ClientDisconnected, OSError)
    assert not issubclass(ClientDisconnected, ASGIServerError)


def test_a_request_error_carries_its_answer() -> None:
    error = RequestError(426, "Use version 13.", ((b"sec-websocket-version", b"13"),))
    assert (error.status, error.reason, error.headers) == (426, "Use version 13.", ((b"sec-websocket-version", b"13"),))
    assert str(error) == "Use version 13."


def test_a_request_error_needs_no_headers() -> None:
    assert RequestError(400, "Bad Host.").headers == ()


def test_a_listen_error_shows_its_message_alone() -> None:
    assert str(errors.ListenError("127.0.0.1:80: permission denied")) == "127.0.0.1:80: permission denied"
