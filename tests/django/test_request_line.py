"""The lines of ``runserver``: levels, colours and words."""

from __future__ import annotations

import logging

import pytest

from asgiserver.django.request_line import request_line

DETAILS = {"method": "GET", "path": "/a?b", "status": 200, "time_taken": 0.123, "client": "127.0.0.1:5000"}


@pytest.mark.parametrize(("status", "level", "style"), [
    (101, logging.INFO, "HTTP_INFO"),
    (200, logging.INFO, "HTTP_SUCCESS"),
    (204, logging.INFO, "HTTP_SUCCESS"),
    (302, logging.INFO, "HTTP_REDIRECT"),
    (304, logging.INFO, "HTTP_NOT_MODIFIED"),
    (400, logging.WARNING, "HTTP_BAD_REQUEST"),
    (404, logging.WARNING, "HTTP_NOT_FOUND"),
    (499, logging.WARNING, "HTTP_BAD_REQUEST"),
    (500, logging.ERROR, "HTTP_SERVER_ERROR"),
    (999, logging.ERROR, "HTTP_SERVER_ERROR"),
])  # fmt: skip
def test_a_response(status: int, level: int, style: str) -> None:
    line = request_line("http", "complete", status)
    assert line is not None
    assert (line.level, line.style) == (level, style)
    assert line.text % {**DETAILS, "status": status} == f"HTTP GET /a?b {status} [0.12, 127.0.0.1:5000]"


@pytest.mark.parametrize(("action", "word"), [
    ("connecting", "HANDSHAKING"), ("connected", "CONNECT"), ("disconnected", "DISCONNECT"), ("rejected", "REJECT"),
])  # fmt: skip
def test_a_websocket(action: str, word: str) -> None:
    line = request_line("websocket", action, None)
    assert line is not None
    assert (line.level, line.style) == (logging.INFO, "")
    assert line.text % DETAILS == f"WebSocket {word} /a?b [127.0.0.1:5000]"


@pytest.mark.parametrize("what", [("http", "begun", None), ("http", "complete", None), ("websocket", "pinged", None)])
def test_what_nobody_asked_for_has_no_line(what: tuple[str, str, int | None]) -> None:
    assert request_line(*what) is None
