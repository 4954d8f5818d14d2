"""The page of ``--metrics`` in a real browser, told by a scripted feed, by day and by night, on a desk and on a phone.

Screenshots are kept in the folder that the variable ``PAGE_SCREENSHOTS`` names, or in pytest's temporary folder.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from asgiserver.testing import LiveServer
from tests.e2e.chat import chromium
from tests.e2e.live import Receive, Send, answer
from tests.e2e.server import DEADLINE, ROOT
from tests.e2e.test_metrics import MONITOR, linux, url
from tests.e2e.workers import Supervised

PAGE = ROOT / "asgiserver" / "metrics" / "page.html"

#: With which the page is served.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"

Sample = dict[str, Any]

BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
MEBIBYTE = 1 << 20
MARKUP = "/<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"

SETTINGS = [
    {"name": "host", "value": '"127.0.0.1"', "origin": "default"},
    {"name": "workers", "value": "4", "origin": "flag"},
    {"name": "trusted_proxies", "value": '["10.0.0.0/8", "<b>192.0.2.1</b>"]', "origin": "asgiserver.toml"},
    {"name": "max_requests", "value": "100000", "origin": "environment: ASGISERVER_MAX_REQUESTS"},
    *({"name": f"setting_{number}", "value": str(number), "origin": "default"} for number in range(60)),
]


def first_sample() -> Sample:
    return {
        "time": 1_760_000_000, "version": "0.1.0", "python": "3.13.1", "loop": "uvloop",
        "application": "shop.asgi:application", "started": 1_760_000_000 - 273_900, "generation": 3, "state": "serving",
        "addresses": ["https://203.0.113.7:443", "unix:/run/shop/asgiserver.sock"],
        "workers": [worker(number) for number in range(4)],
        "totals": {
            "requests": {"1xx": 0, "2xx": 9_000, "3xx": 200, "4xx": 40, "5xx": 3}, "request_bytes": 0,
            "response_bytes": 0, "websockets": 50, "messages_in": 0, "messages_out": 0, "exceptions": 3, "rejected": 1,
        },
        "latency": {"bounds": BOUNDS, "counts": [1000] * (len(BOUNDS) + 1)},
        "slowest": [],
    }  # fmt: skip


def worker(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "worker": number, "pid": 41_270 + number, "generation": 3, "state": "serving", "age": 5_000.0 + number,
        "connections": 25, "websockets": 10, "requests": 2, "memory": 80 * MEBIBYTE, "loop_delay": 0.002, **changes,
    }  # fmt: skip


def steady(sample: Sample) -> Sample:
    """The sample of a second later: 100 requests, two of them failed, 40 messages, 1 KiB in and 3 MiB out."""
    later = copy.deepcopy(sample)
    later["time"] += 1
    for name, more in {"2xx": 90, "3xx": 5, "4xx": 3, "5xx": 2}.items():
        later["totals"]["requests"][name] += more
    for name, more in {"request_bytes": 1024, "response_bytes": 3 * MEBIBYTE, "messages_in": 10}.items():
        later["totals"][name] += more
    later["totals"]["messages_out"] += 30
    for bucket, more in {1: 50, 2: 45, 3: 5}.items():
        later["latency"]["counts"][bucket] += more
    return later


def follow(sample: Sample, seconds: int) -> list[Sample]:
    samples = [sample]
    for _ in range(seconds):
        samples.append(steady(samples[-1]))
    return samples


class Feed:
    """An ASGI application with the page, its settings, and ``live``: what there is, and then what is told."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.open: list[asyncio.Queue[Sample | None]] = []
        self.loop: asyncio.AbstractEventLoop
        self.closes = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        if scope["type"] == "websocket":
            await self.live(receive, send)
        elif scope["path"] == "/settings.json":
            await answer(send, json.dumps(SETTINGS).encode())
        else:
            headers = [(b"content-type", b"text/html"), (b"content-security-policy", POLICY.encode())]
            await answer(send, await asyncio.to_thread(PAGE.read_bytes), headers=headers)

    async def live(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.closes:
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        told: asyncio.Queue[Sample | None] = asyncio.Queue()
        for sample in self.samples:
            told.put_nowait(sample)
        self.open.append(told)
        while (following := await told.get()) is not None:
            await send({"type": "websocket.send", "text": json.dumps(following)})
        await send({"type": "websocket.close", "code": 1001})

    def tell(self, *samples: Sample) -> None:
        """Called by the test, in its own thread."""
        self.samples.extend(samples)
        for sample in samples:
            self._put(sample)

    def close(self, *, for_good: bool = False) -> None:
        """Close every WebSocket; and refuse the next ones."""
        self.closes = for_good
        self._put(None)
        self.open.clear()

    def _put(self, sample: Sample | None) -> None:
        for told in self.open:
            self.loop.call_soon_threadsafe(told.put_nowait, sample)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def feed() -> Feed:
    return Feed()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, feed: Feed) -> Iterator[Visit]:
    """Opens the page; whatever goes wrong there fails the test, but for connections that are refused on purpose."""
    mistakes: list[str] = []
    with LiveServer(feed) as server:
        contexts = []

        def visit(prepare: Callable[[Page], None] = lambda _: None, **options: Any) -> Page:
            contexts.append(browser.new_context(**options))
            page = contexts[-1].new_page()
            page.set_default_timeout(DEADLINE * 1000)
            page.on("pageerror", lambda error: mistakes.append(str(error)))
            page.on("console", lambda line: mistakes.append(line.text))
            prepare(page)
            page.goto(server.url)
            return page

        yield visit
        for context in contexts:
            context.close()
        feed.close()
    assert [mistake for mistake in mistakes if "WebSocket connection" not in mistake] == []


def values(page: Page, title: str) -> list[str]:
    """The legend of a chart, such as ``2xx90``."""
    return page.locator("figure", has_text=title).locator("li").all_text_contents()


class TestNumbers:
    def test_those_of_a_known_feed(self, feed: Feed, visit: Visit) -> None:
        feed.samples = follow(first_sample(), 90)
        page = visit()
        expect(page.locator("#p99")).to_have_text("45\xa0ms")
        shown = {name: page.locator(f"#{name}").text_content() for name in ("requests", "p50", "p95", "errors")}
        assert shown == {"requests": "100", "p50": "10\xa0ms", "p95": "25\xa0ms", "errors": "2"}
        expect(page.locator("#connections")).to_have_text("100")
        expect(page.locator("#websockets")).to_have_text("40")
        expect(page.locator("#requests-note")).to_have_text("8 in flight")
        expect(page.locator("#connections-note")).to_have_text("1\xa0KiB/s in, 3\xa0MiB/s out")
        expect(page.locator("#websockets-note")).to_have_text("40 messages/s")
        assert values(page, "Requests a second") == ["1xx0", "2xx90", "3xx5", "4xx3", "5xx2"]
        assert values(page, "Latency") == ["p5010\xa0ms", "p9525\xa0ms", "p9945\xa0ms"]
        assert values(page, "Loop delay") == ["largest of all workers2\xa0ms"]
        assert values(page, "messages a second") == ["in10", "out30"]
        axes = page.locator("figure", has_text="messages a second").locator("svg text").all_text_contents()
        assert axes == ["0", "10", "20", "30", "−5 min", "−4", "−3", "−2", "−1", "0"]
        expect(page.locator("#about")).to_contain_text("Up3\xa0d 4\xa0h")
        expect(page).to_have_title("Serving · shop.asgi:application")
        expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("4' fill='%232a9d73'"))

    def test_a_change_of_state_is_told(self, feed: Feed, visit: Visit) -> None:
        feed.samples = follow(first_sample(), 3)
        page = visit()
        state = page.get_by_role("status")
        expect(state).to_have_text("Serving")
        reloading = {**steady(feed.samples[-1]), "state": "reloading", "generation": 4}
        reloading["workers"] = [worker(0, state="draining"), worker(1, state="starting", memory=None)]
        feed.tell(reloading)
        expect(state).to_have_text("Reloading")
        expect(page).to_have_title("Reloading · shop.asgi:application")
        rows = page.locator("#workers tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.nth(0)).to_contain_text("Draining")
        expect(rows.nth(1).locator("[data-label=Memory]")).to_have_text("–")

    def test_the_pointer_shows_a_time_on_all_charts(self, feed: Feed, visit: Visit) -> None:
        calm = follow(first_sample(), 200)
        busy = copy.deepcopy(calm[-1])
        busy["totals"]["requests"]["2xx"] += 410
        feed.samples = [*calm, {**busy, "time": busy["time"] + 1}]
        page = visit(has_touch=True)
        expect(page.locator("figure li", has_text="2xx")).to_have_text("2xx410")
        chart = page.get_by_role("img", name="Latency")
        box = chart.bounding_box()
        assert box
        chart.hover(position={"x": box["width"] / 2, "y": 80})
        expect(page.locator("figure li", has_text="2xx")).to_have_text("2xx90")
        expect(page.locator("figure small", has_text=re.compile(r"\d:\d\d:\d\d"))).to_have_count(4)
        page.mouse.move(2, 2)
        expect(page.locator("figure small", has_text="latest")).to_have_count(4)
        for tapped in (chart, page.get_by_role("img", name="Loop delay")):
            tapped.tap(position={"x": box["width"] / 2, "y": 80})
            page.evaluate("new Promise(requestAnimationFrame)")
            expect(page.locator("figure li", has_text="2xx")).to_have_text("2xx90")
        tapped.press("Escape")
        expect(page.locator("figure li", has_text="2xx")).to_have_text("2xx410")

    def test_a_counter_that_falls_begins_anew(self, feed: Feed, visit: Visit) -> None:
        feed.samples = follow(first_sample(), 30)
        page = visit()
        expect(page.locator("#requests")).to_have_text("100")
        fresh = first_sample()
        fresh["time"] = feed.samples[-1]["time"] + 1
        fresh["totals"]["requests"]["2xx"] = 7
        feed.tell(fresh)
        expect(page.locator("#requests")).to_have_text("–")
        feed.tell(steady(fresh))
        expect(page.locator("#requests")).to_have_text("100")
        assert page.evaluate("samples.length") == 2


class TestText:
    def test_paths_and_settings_are_never_markup(self, feed: Feed, visit: Visit) -> None:
        sample = first_sample()
        sample["application"] = "<b>shop</b>"
        sample["slowest"] = [
            {"worker": 2, "method": "GET", "path": MARKUP + "x" * 3000, "age": 12.5, "id": "<i>7f3a</i>"},
            {"worker": 0, "method": "POST", "path": "/orders/", "age": 0.25, "id": None},
        ]
        feed.samples = follow(sample, 2)
        page = visit()
        first = page.locator("#slowest tbody tr").first
        expect(first.locator("th")).to_have_text(f"GET {MARKUP}{'x' * 3000}")
        expect(first.locator("th")).to_have_attribute("title", f"GET {MARKUP}{'x' * 3000}")
        expect(first).to_contain_text("12.5\xa0s")
        expect(page.locator("#chosen tbody tr")).to_have_count(3)
        expect(page.locator("#chosen")).to_contain_text("<b>192.0.2.1</b>")
        expect(page.locator("#chosen")).to_contain_text("environment: ASGISERVER_MAX_REQUESTS")
        expect(page.locator("#others summary")).to_have_text("61 at their defaults")
        expect(page.locator("h1")).to_have_text("<b>shop</b>")
        assert page.locator("table :is(img, script, b, i), h1 *").count() == 0
        assert page.title() == "Serving · <b>shop</b>"
        fits(page)


class TestConnection:
    def test_it_comes_back_by_itself(self, feed: Feed, visit: Visit) -> None:
        feed.samples = follow(first_sample(), 10)
        page = visit(prepare=lambda page: page.clock.install())
        expect(page.locator("#requests")).to_have_text("100")
        feed.close(for_good=True)
        expect(page.get_by_role("status")).to_have_text(re.compile(r"Not connected since \d+:\d\d:\d\d"))
        expect(page).to_have_title("Not connected · shop.asgi:application")
        expect(page.locator("body")).to_have_class("stale")
        expect(page.locator("#requests")).to_have_text("100")
        page.clock.fast_forward(1_000)
        page.wait_for_function("() => attempts >= 2")
        last = steady(feed.samples[-1])
        feed.samples = [{**last, "time": last["time"] + 60}]
        feed.closes = False
        page.clock.fast_forward(2_000)
        expect(page.get_by_role("status")).to_have_text("Serving")
        expect(page.locator("body")).not_to_have_class("stale")
        assert page.evaluate("attempts") == 0
        feed.tell(steady(feed.samples[-1]))
        expect(page.locator("#requests")).to_have_text("100")
        # The line does not cross the gap.
        path = page.locator("figure", has_text="Latency").locator("path.line").first.get_attribute("d")
        assert path
        assert path.count("M") == 2


    def test_a_silent_one_counts_as_lost(self, feed: Feed, visit: Visit) -> None:
        feed.samples = follow(first_sample(), 3)
        page = visit(prepare=lambda page: page.clock.install())
        expect(page.get_by_role("status")).to_have_text("Serving")
        feed.closes = True
        page.clock.fast_forward(11_000)
        expect(page.get_by_role("status")).to_contain_text("Not connected since")


@linux
def test_the_numbers_of_a_real_server(browser: Browser, tmp_path: Path) -> None:
    """With two workers, until it has stopped."""
    mistakes: list[str] = []
    with (
        Supervised(tmp_path, 2, *MONITOR, "--shutdown-delay", "1.2") as server,
        browser.new_page() as page,
        httpx.Client(base_url=server.url, verify=False, trust_env=False) as client,
        ThreadPoolExecutor() as threads,
    ):
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.goto(url(server))
        expect(page.get_by_role("status")).to_have_text("Serving")
        expect(page.locator("#workers tbody tr")).to_have_count(2)
        slow = threads.submit(client.get, "/sleep/2.5")
        for _ in range(50):
            client.get("/")
        expect(page.locator("#slowest tbody th")).to_have_text("GET /sleep/2.5")
        expect(page.locator("#slowest td").last).to_have_text(re.compile(r"^[0-9a-f]{16}-\d+$"))
        expect(page.locator("#requests-note")).to_have_text("1 in flight")
        expect(page.locator("#chosen")).to_contain_text("shutdown-delay")
        assert slow.result().status_code == 200
        page.wait_for_function("() => samples.at(-1).totals.requests['2xx'] === 51")
        assert page.evaluate("samples.at(-1).latency.counts.reduce((all, count) => all + count)") == 51
        assert page.locator("#p50").text_content() != "–"
        server.send_signal(signal.SIGTERM)
        expect(page.get_by_role("status")).to_have_text("Stopping")
        expect(page.get_by_role("status")).to_contain_text("Not connected")
        assert server.wait() == 0
    assert mistakes == []


def busy_day() -> list[Sample]:
    """Five minutes of a shop: waves of visitors, a slow database for a while, and errors with it."""
    random = Random(11)
    samples = [first_sample()]
    for second in range(300):
        later = copy.deepcopy(samples[-1])
        later["time"] += 1
        totals, counts = later["totals"], later["latency"]["counts"]
        trouble = math.exp(-(((second - 195) / 14) ** 2))
        load = 420 + 90 * math.sin(second / 38) + 40 * math.sin(second / 11) + random.gauss(0, 14)
        parts = {
            "1xx": 2, "2xx": load * (0.9 - 0.25 * trouble), "3xx": load * 0.06, "4xx": load * 0.04,
            "5xx": load * 0.14 * trouble + (random.random() < 0.03),
        }  # fmt: skip
        for name, part in parts.items():
            totals["requests"][name] += round(part)
        for _ in range(round(load / 4)):
            seconds = random.lognormvariate(math.log(0.014 + 0.06 * trouble), 0.75 + 0.25 * trouble)
            counts[sum(bound < seconds for bound in BOUNDS)] += 1
        totals["request_bytes"] += round(load * 900)
        totals["response_bytes"] += round(load * 21_000)
        totals["messages_in"] += round(60 + 20 * math.sin(second / 25) + random.gauss(0, 5))
        totals["messages_out"] += round(240 + 90 * math.sin(second / 25 + 0.4) + random.gauss(0, 16))
        totals["exceptions"] += random.random() < 0.03
        for each in later["workers"]:
            each["loop_delay"] = random.lognormvariate(math.log(0.0011 + 0.012 * trouble), 0.35)
        samples.append(later)
    last = samples[-1]
    last["workers"] = [
        worker(0, connections=212, websockets=96, requests=3, memory=91 * MEBIBYTE, loop_delay=0.00112),
        worker(1, connections=208, websockets=101, requests=5, memory=94 * MEBIBYTE, loop_delay=0.00094),
        worker(2, connections=215, websockets=97, requests=2, memory=88 * MEBIBYTE, loop_delay=0.0021),
        worker(3, connections=41, websockets=38, requests=1, memory=117 * MEBIBYTE, state="draining", generation=2),
        worker(4, connections=0, websockets=0, requests=0, memory=None, state="starting", age=1.2, loop_delay=0),
    ]
    identity = "0af7651916cd43dd8448eb211c80319c"
    last["slowest"] = [
        {"worker": 3, "method": "GET", "path": "/exports/2025/orders.csv", "age": 74.2, "id": identity},
        {"worker": 1, "method": "POST", "path": "/checkout/payments/", "age": 3.81, "id": "b7ad6b7169203331"},
        {"worker": 0, "method": "GET", "path": MARKUP, "age": 0.62, "id": None},
        {"worker": 1, "method": "GET", "path": "/search?q=" + "a+very+long+question+" * 12, "age": 0.094, "id": None},
    ]
    return samples


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("PAGE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fits(page: Page) -> None:
    """Nothing makes the page wider than the screen."""
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]


class TestLooks:
    DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
    PHONE: dict[str, Any] = {
        "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True,
    }  # fmt: skip

    def test_screenshots(self, feed: Feed, visit: Visit, screenshots: Path) -> None:
        feed.samples = busy_day()
        for place, options in (("desk", self.DESK), ("phone", self.PHONE)):
            page = visit(color_scheme="light", reduced_motion="reduce", **options)
            expect(page.locator("#slowest tbody tr")).to_have_count(4)
            expect(page.locator("#chosen tbody tr")).to_have_count(3)
            fits(page)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=screenshots / f"{place}-{scheme}.png", full_page=True)
            if place == "desk":
                page.get_by_role("img", name="Latency").hover(position={"x": 330, "y": 60})
                expect(page.locator("figure small", has_text="latest")).to_have_count(0)
                page.screenshot(path=screenshots / "pointer.png")
        page.locator("summary").click()
        for width in (360, 800, 1000):
            page.set_viewport_size({"width": width, "height": 740})
            fits(page)
        feed.close(for_good=True)
        expect(page.locator("body")).to_have_class("stale")
        page.set_viewport_size({"width": 390, "height": 844})
        page.locator("h1").scroll_into_view_if_needed()
        page.screenshot(path=screenshots / "phone-lost.png")
