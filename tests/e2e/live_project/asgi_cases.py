"""``ASGILiveServerTestCase`` with a browser; run by tests/e2e/test_live_tests.py with manage.py's ``test``."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
from django.conf import settings
from django.db import connection
from playwright.sync_api import expect, sync_playwright
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from asgiserver.testing import ASGILiveServerTestCase

# Imported early, as many a test module does, so that the server's host is not allowed yet.
from ..server import wait_for
from .asgi import application  # noqa: F401
from .models import Line

DEADLINE = 20.0
CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

# Playwright's own loop runs in the thread of the test.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"


class BrowserTests(ASGILiveServerTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        playwright = cls.enterClassContext(sync_playwright())
        cls.browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        cls.addClassCleanup(cls.browser.close)

    def visit(self) -> Any:
        context = self.browser.new_context()
        self.addCleanup(context.close)
        page = context.new_page()
        page.goto(self.live_server_url)
        return page

    def test_two_people_chat(self) -> None:
        Line.objects.create(text="before")
        one, two = self.visit(), self.visit()
        for page in (one, two):
            expect(page.locator("li")).to_have_text(["before"])
        one.get_by_label("Line").fill("hello")
        one.get_by_role("button").click()
        for page in (one, two):
            expect(page.locator("li")).to_have_text(["before", "hello"])
        self.assertEqual([line.text for line in Line.objects.order_by("id")], ["before", "hello"])

    def test_tables_are_empty_again(self) -> None:
        self.assertEqual(Line.objects.count(), 0)
        expect(self.visit().locator("li")).to_have_count(0)


class RequestTests(ASGILiveServerTestCase):
    def test_views_and_test_see_each_others_rows(self) -> None:
        Line.objects.create(text="test's")
        self.assertEqual(httpx.post(f"{self.live_server_url}/lines/", content="view's").json(), ["test's", "view's"])
        self.assertEqual(httpx.get(f"{self.live_server_url}/async-lines/").json(), ["test's", "view's"])
        self.assertEqual([line.text for line in Line.objects.order_by("id")], ["test's", "view's"])
        with connect(f"{self.live_server_ws_url}/ws/count/", origin=self.live_server_url) as socket:
            socket.send("")
            self.assertEqual(socket.recv(DEADLINE), "2")

    def test_many_requests_at_once_keep_their_transactions_apart(self) -> None:
        with httpx.Client(base_url=self.live_server_url, timeout=DEADLINE) as client, ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda n: client.post("/lines/", content=f"{n}").status_code, range(80)))
        self.assertEqual(codes, [200] * 80)
        self.assertEqual(sorted(int(line.text) for line in Line.objects.all()), list(range(80)))

    def test_static_and_media_files(self) -> None:
        with open(os.path.join(settings.MEDIA_ROOT, "picture.txt"), "w", encoding="utf-8") as file:
            file.write("a picture")
        self.assertEqual(httpx.get(f"{self.live_server_url}/media/picture.txt").text, "a picture")
        self.assertEqual(httpx.get(f"{self.live_server_url}/media/../settings.py").status_code, 404)
        self.assertIn("new WebSocket", httpx.get(f"{self.live_server_url}/static/live_project/chat.js").text)
        self.assertEqual(httpx.get(f"{self.live_server_url}/static/nothing.js").status_code, 404)

    def test_an_expected_exception_can_be_taken_out(self) -> None:
        self.assertEqual(httpx.get(f"{self.live_server_url}/failing/").status_code, 500)
        error = self.live_server.exceptions.pop()
        self.assertIsInstance(error, LookupError)
        # A request's line follows its response.
        wait_for(lambda: "GET /failing/" in self.live_server.logs)


class FailingTests(ASGILiveServerTestCase):
    """Each of these passes by itself, and what the application raised makes it fail."""

    def test_view_fails(self) -> None:
        self.assertEqual(httpx.get(f"{self.live_server_url}/failing/").status_code, 500)

    def test_consumer_fails(self) -> None:
        with connect(f"{self.live_server_ws_url}/ws/count/", origin=self.live_server_url) as socket:
            socket.send("fail")
            with suppress(ConnectionClosed):
                socket.recv(DEADLINE)


class LastTests(ASGILiveServerTestCase):
    """Runs after the others: they have left nothing."""

    host = "127.0.0.1"

    def test_only_this_server_is_left(self) -> None:
        names = [thread.name for thread in threading.enumerate() if thread.name == "asgiserver"]
        self.assertEqual(names, ["asgiserver"])
        self.assertNotIn("localhost", settings.ALLOWED_HOSTS)
        self.assertIn("127.0.0.1", settings.ALLOWED_HOSTS)
        # This one's, and no more.
        shared = connection.is_in_memory_db()
        self.assertEqual(connection._thread_sharing_count, int(shared))
