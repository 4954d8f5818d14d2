"""Applications that write into their scope, as middleware does: what the server reads of the request stays its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect as client

from .live import Receive, Send, answer, connect, serve, until, url

Scope = dict[str, Any]


def _answers_head(scope: Scope) -> None:
    scope["method"] = "GET"


def _has_no_client(scope: Scope) -> None:
    scope["client"].clear()
    scope["client"] = ()


def _takes_other_paths(scope: Scope) -> None:
    scope.update(raw_path=None, path=None, query_string="a=b", http_version=None, headers=None, type=None)


@pytest.mark.parametrize("change", [_answers_head, _has_no_client, _takes_other_paths, dict.clear])
async def test_response_is_framed_and_logged_by_the_request_whatever_becomes_of_the_scope(
    change: Callable[[Scope], None],
) -> None:
    """A body behind the answer to HEAD would be taken for the next response (RFC 9110 §9.3.2)."""
    told: list[dict[str, Any]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        change(scope)
        await answer(send, b"hello")

    def log(protocol: str, action: str, details: dict[str, Any]) -> None:
        told.append(details)

    async with serve(application, action_logger=log) as server, connect(server) as peer:
        assert (await peer.request("HEAD", "/a?b")).status == 200
        assert (await peer.request("GET", "/c")).body == b"hello"
    assert [(each["method"], each["path"], each["size"]) for each in told] == [("HEAD", "/a?b", 0), ("GET", "/c", 5)]
    assert all(each["client"].startswith("127.0.0.1:") for each in told)


@pytest.mark.parametrize("change", [dict.clear, lambda scope: scope["subprotocols"].clear()])
async def test_websocket_is_accepted_and_logged_whatever_becomes_of_the_scope(change: Callable[[Scope], None]) -> None:
    told: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        change(scope)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        assert (await receive())["type"] == "websocket.disconnect"

    def log(protocol: str, action: str, details: dict[str, Any]) -> None:
        told.append(f"{action} {details['path']}")

    async with serve(application, action_logger=log) as server:
        async with client(f"{url(server, 'ws')}/x", subprotocols=["chat"]) as websocket:  # type: ignore[list-item]
            assert websocket.subprotocol == "chat"
        await until(lambda: len(told) == 3)
    assert told == ["connecting /x", "connected /x", "disconnected /x"]
