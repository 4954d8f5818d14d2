"""Channels' own live test case on asgiserver; run by tests/e2e/test_live_tests.py with manage.py's ``test``."""

from __future__ import annotations

import os
from typing import Any

import httpx
from channels.testing import ChannelsLiveServerTestCase
from websockets.sync.client import connect

from asgiserver.testing import ServerProcess

from .models import Line

DEADLINE = 20.0


class StartedAsAsked(ServerProcess):
    start_method = os.environ.get("LIVE_START_METHOD")


class ChatTests(ChannelsLiveServerTestCase):
    ProtocolServerProcess = StartedAsAsked

    def connect(self, path: str) -> Any:
        return connect(f"{self.live_server_ws_url}{path}", origin=self.live_server_url)  # type: ignore[arg-type]

    def test_two_people_chat(self) -> None:
        Line.objects.create(text="before")
        with self.connect("/ws/chat/") as one, self.connect("/ws/chat/") as two:
            self.assertEqual([one.recv(DEADLINE), two.recv(DEADLINE)], ["before", "before"])
            one.send("hello")
            self.assertEqual([one.recv(DEADLINE), two.recv(DEADLINE)], ["hello", "hello"])
            two.send("goodbye")
            self.assertEqual([one.recv(DEADLINE), two.recv(DEADLINE)], ["goodbye", "goodbye"])
            self.assertEqual([line.text for line in Line.objects.order_by("id")], ["before", "hello", "goodbye"])

    def test_pages_and_static_files(self) -> None:
        self.assertEqual(httpx.get(f"{self.live_server_url}/lines/").json(), [])
        self.assertIn("new WebSocket", httpx.get(f"{self.live_server_url}/static/live_project/chat.js").text)


class FailingTests(ChannelsLiveServerTestCase):
    """Run by itself, with an application that cannot be imported."""

    ProtocolServerProcess = StartedAsAsked

    def test_nothing(self) -> None:
        raise AssertionError("the server has started")
