"""The example ``chat`` as people use it: in a real browser, two at a time, over a restart of the server.

Screenshots are kept in the folder that the variable ``CHAT_SCREENSHOTS`` names, or in pytest's temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.e2e.certificate import Certificate
from tests.e2e.chat import Visitor, chat_server, chromium, manage, png
from tests.e2e.server import DEADLINE, free_port


class Site:
    """The server, which may be stopped and started again on its port."""

    def __init__(self, data: Path) -> None:
        self.data, self.port = data, free_port()
        self.outputs = ""
        self.start()

    def start(self) -> None:
        self.server = chat_server(self.data, port=self.port).__enter__()

    def stop(self) -> None:
        assert self.server.stop() == 0
        self.outputs += self.server.output()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("chat"))
    yield site
    site.stop()
    assert "Traceback" not in site.outputs, site.outputs
    assert "Warning" not in site.outputs, site.outputs


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


Enter = Callable[..., Page]


@pytest.fixture
def enter(site: Site, browser: Browser) -> Iterator[Enter]:
    """Gives a page of a new visitor in a room; whatever goes wrong in its scripts fails the test."""
    contexts, mistakes = [], []

    def enter(name: str, room: str = "", **options: Any) -> Page:
        context = browser.new_context(base_url=site.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(DEADLINE * 1000)
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.on("console", lambda line: mistakes.append(line.text) if "Policy" in line.text else None)
        with Visitor(site.url, name) as visitor:
            context.add_cookies(visitor.cookies)
        page.goto(f"/rooms/{room}/" if room else "/")
        if room:
            connected(page)
        return page

    yield enter
    for context in contexts:
        context.close()
    assert mistakes == []


@pytest.fixture
def make_room(site: Site, request: pytest.FixtureRequest) -> str:
    """A room for one test."""
    slug = request.node.name.replace("_", "-").removeprefix("test-")[:40].strip("-")
    with Visitor(site.url, f"Maker {time.monotonic_ns() % 10**12}") as maker:
        form = {"csrfmiddlewaretoken": maker.token("/"), "name": slug}
        assert maker.http.post("/rooms/", data=form).url.path == f"/rooms/{slug}/"
    return slug


def connected(page: Page) -> None:
    expect(page.locator("#status")).to_have_text("Connected")


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def bubble(page: Page, text: str) -> Locator:
    """The messages with ``text`` that the server has."""
    return page.locator("#messages > li[data-id] .bubble", has_text=text)


class TestTwoPeople:
    def test_a_message_is_seen_by_the_other_in_under_a_second(self, enter: Enter, make_room: str) -> None:
        ada, grace = enter("Ada", make_room), enter("Grace", make_room)
        seconds = []
        for number in range(3):
            started = time.monotonic()
            say(ada, f"Message {number}")
            bubble(grace, f"Message {number}").wait_for()
            seconds.append(time.monotonic() - started)
        assert sorted(seconds)[1] < 1, seconds
        expect(ada.locator("#messages > li.mine")).to_have_count(3)
        expect(ada.locator(".waiting")).to_have_count(0)
        expect(grace.locator("#messages > li.follows")).to_have_count(2)

    def test_what_is_written_is_never_markup(self, enter: Enter, make_room: str) -> None:
        ada = enter("Ada <b>", make_room)
        text = "<img src=x onerror=\"document.title='gone'\"> https://example.org/?q=<script>"
        say(ada, text)
        expect(bubble(ada, text)).to_be_visible()
        assert ada.locator(".bubble img, .bubble script").count() == 0
        expect(ada.locator(".bubble a")).to_have_attribute("href", "https://example.org/?q=")
        expect(ada.locator("#people")).to_contain_text("Ada <b>")

    def test_who_is_here(self, enter: Enter, make_room: str) -> None:
        ada, grace = enter("Ada Who", make_room), enter("Grace Who", make_room)
        for page in (ada, grace):
            expect(page.locator("#people li")).to_contain_text(["Ada Who", "Grace Who"])
            expect(page.locator("nav [aria-current] .count")).to_have_text("2")
        second = grace.context.new_page()
        second.goto(f"/rooms/{make_room}/")
        connected(second)
        expect(second.locator("#people li")).to_have_count(2)
        grace.close()
        second.close()
        expect(ada.locator("#people li")).to_contain_text(["Ada Who"])
        expect(ada.locator("#people li")).to_have_count(1)

    def test_who_is_writing(self, enter: Enter, make_room: str) -> None:
        ada, grace = enter("Ada Writes", make_room), enter("Grace Reads", make_room)
        ada.get_by_label("Message", exact=True).press_sequentially("Good")
        expect(grace.locator("#typing")).to_have_text("Ada Writes is writing")
        ada.keyboard.press("Enter")
        expect(grace.locator("#typing")).to_have_text("")
        assert ada.locator("#typing").text_content() == ""

    def test_signing_out_closes_the_pages_and_frees_the_name(self, enter: Enter, make_room: str) -> None:
        ada = enter("Ada Leaves", make_room)
        other = ada.context.new_page()
        other.goto("/")
        other.get_by_role("button", name="Sign out").click()
        ada.wait_for_url("**/sign-in/**")
        ada.get_by_label("What shall we call you?").fill("Ada Leaves")
        ada.get_by_role("button", name="Come in").click()
        expect(ada.get_by_role("heading", name="Hello, Ada Leaves")).to_be_visible()


class TestRobot:
    def test_it_answers_to_all_or_to_one(self, enter: Enter, make_room: str) -> None:
        """Over the named channel ``robot``, from a worker inside the server."""
        ada, grace = enter("Ada Asks", make_room), enter("Grace Hears", make_room)
        say(ada, "/help")
        expect(ada.locator(".whisper .bubble")).to_contain_text("/roll 2d6")
        say(ada, "/dance")
        expect(ada.locator(".whisper .bubble").last).to_contain_text("I do not know /dance")
        say(ada, "/roll 3d6")
        for page in (ada, grace):
            expect(bubble(page, "Ada Asks rolls 3d6: ")).to_be_visible()
        say(grace, "/stats")
        expect(bubble(ada, "1 messages, 0 pictures, 2 here now")).to_be_visible()
        assert grace.locator(".whisper").count() == 0
        assert ada.locator(".waiting").count() == 0


class TestPictures:
    def test_an_upload_shows_its_progress_and_then_the_picture(self, enter: Enter, make_room: str) -> None:
        ada, grace = enter("Ada Shows", make_room), enter("Grace Sees", make_room)
        network = ada.context.new_cdp_session(ada)
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 300_000}
        network.send("Network.emulateNetworkConditions", slow)
        picture = {"name": "noise.png", "mimeType": "image/png", "buffer": png(300, 250)}
        seen = "() => { const bar = document.querySelector('progress'); return bar && bar.value > 0 && bar.value < 1 }"
        ada.locator("#picture").set_input_files([picture])
        ada.wait_for_function(seen, polling=10)
        for page in (ada, grace):
            shown = page.locator("#messages > li[data-id] .picture img")
            expect(shown).to_be_visible()
            page.wait_for_function("() => document.querySelector('[data-id] .picture img').naturalWidth === 300")
        expect(ada.locator("progress")).to_have_count(0)
        expect(ada.locator("#messages > li")).to_have_count(1)

    def test_one_that_broke_off_is_sent_again(self, enter: Enter, make_room: str) -> None:
        ada = enter("Ada Insists", make_room)
        ada.route("**/pictures/", lambda route: route.abort(), times=1)
        ada.locator("#picture").set_input_files([{"name": "n.png", "mimeType": "image/png", "buffer": png(30, 20)}])
        expect(ada.locator(".failed")).to_contain_text("The connection broke.")
        ada.get_by_role("button", name="Try again").click()
        expect(ada.locator("#messages > li[data-id] .picture img")).to_be_visible()
        expect(ada.locator("#messages > li")).to_have_count(1)

    def test_what_is_no_picture_is_refused_with_the_reason(self, enter: Enter, make_room: str, tmp_path: Path) -> None:
        ada = enter("Ada Errs", make_room)
        for name, kind in (("page.png", "image/png"), ("page.txt", "text/plain")):
            false = {"name": name, "mimeType": kind, "buffer": b"<script>alert(1)</script>"}
            ada.locator("#picture").set_input_files([false])
            expect(ada.locator(".failed")).to_contain_text("Only PNG, JPEG, GIF and WebP")
            ada.get_by_role("button", name="Dismiss").click()
        (tmp_path / "large.png").write_bytes(bytes((5 << 20) + 1))
        ada.locator("#picture").set_input_files(tmp_path / "large.png")
        expect(ada.locator(".failed")).to_contain_text("up to 5 MiB")

    def test_it_is_served_as_what_it_is_and_nothing_else(self, site: Site) -> None:
        with Visitor(site.url, "Uploader") as visitor:
            made = visitor.show("garden", png(4, 4), "text/html")
            assert made.status_code == 201
            address = made.json()["picture"]
            served = visitor.http.get(address)
            assert served.content == png(4, 4)
            assert served.headers["content-type"] == "image/png"
            assert served.headers["x-content-type-options"] == "nosniff"
            assert served.headers["content-security-policy"] == "default-src 'none'"
            for other in ("/pictures/../secret.key", "/pictures/%2e%2e%2fsecret.key", "/pictures/chat.sqlite3"):
                assert visitor.http.get(other).status_code == 404

    @pytest.mark.parametrize(
        ("content", "status"), [(b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422), (b"", 422), (bytes(5 << 20), 422)]
    )
    def test_the_server_does_not_trust_the_page(self, site: Site, content: bytes, status: int) -> None:
        with Visitor(site.url, f"Sly {time.monotonic_ns() % 10**9}") as visitor:
            assert visitor.show("garden", content).status_code == status

    def test_too_large_for_the_picture_and_for_the_server(self, site: Site) -> None:
        with Visitor(site.url, "Large") as visitor:
            refused = visitor.show("garden", png(1400, 1300))
            assert (refused.status_code, refused.json()["error"]) == (422, "Pictures may have up to 5 MiB.")
            assert visitor.show("garden", bytes(6_000_001)).status_code == 413

    def test_an_upload_from_elsewhere_is_refused(self, site: Site) -> None:
        with Visitor(site.url, "Forger") as visitor:
            files = {"picture": ("picture", png(4, 4), "image/png")}
            assert visitor.http.post("/rooms/garden/pictures/", files=files).status_code == 403


class TestFeed:
    def test_it_tells_what_happens_in_all_rooms(self, enter: Enter, make_room: str) -> None:
        grace = enter("Grace Watches")
        expect(grace.locator("#live")).to_have_attribute("data-state", "open")
        ada = enter("Ada Acts", make_room)
        expect(grace.locator(f".cards [data-room={make_room}]")).to_contain_text("1")
        say(ada, "News for everybody")
        first = grace.locator("#feed li").first
        expect(first).to_contain_text("News for everybody")
        expect(first).to_contain_text("Ada Acts")
        say(ada, "/roll 2d6")
        expect(first).to_contain_text("Ada Acts rolls 2d6")

    def test_it_marks_other_rooms_as_unread(self, enter: Enter, make_room: str) -> None:
        grace, ada = enter("Grace Elsewhere", "workshop"), enter("Ada There", make_room)
        expect(grace.locator(f"nav [data-room={make_room}] .count")).to_have_text("1")
        say(ada, "Over here")
        expect(grace.locator(f"nav [data-room={make_room}]")).to_have_class("unread")

    def test_it_goes_on_after_the_last_event_that_a_client_has(self, site: Site) -> None:
        with Visitor(site.url, "Listener") as visitor, Visitor(site.url, "Speaker") as speaker:
            speaker.join("garden")
            speaker.say("first")
            last = speaker.hear_text("first")["id"]
            speaker.say("second")
            speaker.hear_text("second")
            with visitor.http.stream("GET", "/feed/", headers={"last-event-id": str(last)}) as response:
                assert response.headers["content-type"] == "text/event-stream"
                data = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
                told = next(entry for entry in data if "text" in entry)
            assert (told["text"], told["room"], told["past"]) == ("second", "Garden", True)

    def test_strangers_do_not_get_it(self, site: Site) -> None:
        assert httpx.get(f"{site.url}/feed/").status_code == 401


PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "reduced_motion": "reduce",
}

#: Keeps the times, in milliseconds, at which a page tries to open a WebSocket, and the pauses that it means to make.
RECORD = """() => {
    window.attempts = [];
    window.pauses = [];
    const Real = window.WebSocket, later = window.setTimeout;
    window.setTimeout = (call, delay, ...rest) => {
        if (call.name === "connect") window.pauses.push(delay);
        return later(call, delay, ...rest);
    };
    window.WebSocket = class extends Real {
        constructor(address) {
            super(address);
            window.attempts.push(performance.now());
        }
    };
}"""

#: Shows a page that waits for its next attempt again; true when it has tried at once.
SHOW_AGAIN = """() => {
    const before = window.attempts.length;
    if (document.querySelector("#status").dataset.state !== "waiting") return false;
    document.dispatchEvent(new Event("visibilitychange"));
    return window.attempts.length === before + 1;
}"""

#: True once each of two messages that wait says so.
MARKED = """() => [...document.querySelectorAll("li.waiting")].filter(item => {
    const mark = getComputedStyle(item, "::after");
    return mark.opacity === "1" && mark.content.includes("Not sent yet");
}).length === 2"""


class TestRestart:
    def test_nothing_is_lost(self, site: Site, enter: Enter, make_room: str, screenshots: Path) -> None:
        """Typed while the server is away, said once when it is back; the pauses between the attempts grow."""
        ada, grace = enter("Ada Stays", make_room, **PHONE), enter("Grace Stays", make_room)
        say(ada, "before")
        expect(bubble(grace, "before")).to_be_visible()
        grace.evaluate(RECORD)
        bar = ada.locator(".bar").bounding_box()
        site.stop()
        expect(ada.locator("#status")).to_contain_text("Server restarts · again in")
        say(ada, "while it is away")
        say(ada, "and more")
        ada.wait_for_function(MARKED)
        assert ada.locator(".bar").bounding_box() == bar, "the room's name keeps its place"
        ada.screenshot(path=screenshots / "restart.png")
        grace.wait_for_function("() => window.attempts.length >= 3")
        attempts = grace.evaluate("() => window.attempts")
        for _ in range(3):
            grace.wait_for_function(SHOW_AGAIN)
        pauses = grace.evaluate("() => window.pauses")
        site.start()
        for page in (ada, grace):
            connected(page)
            expect(bubble(page, "and more")).to_be_visible()
            texts = page.locator("#messages > li .bubble").all_text_contents()
            assert texts == ["before", "while it is away", "and more"]
        expect(ada.locator("li.waiting")).to_have_count(0)
        expect(grace.locator("#people li")).to_have_count(2)
        # The second pause is between half a second and a second long, the third twice that.
        assert attempts[1] - attempts[0] >= 500
        assert attempts[2] - attempts[1] >= 1000
        assert all(1500 <= pause <= 3000 for pause in pauses[3:]), pauses

    def test_a_reload_loses_nothing_either(self, site: Site, enter: Enter, make_room: str) -> None:
        """What nobody has confirmed waits in the browser's storage."""
        ada = enter("Ada Reloads", make_room)
        ada.evaluate("() => { WebSocket.prototype.send = () => {} }")
        say(ada, "said to nobody")
        expect(ada.locator("li.waiting")).to_have_count(1)
        ada.reload()
        expect(bubble(ada, "said to nobody")).to_have_count(1)
        expect(ada.locator("li.waiting")).to_have_count(0)


class TestHistory:
    def test_older_messages_come_when_they_are_asked_for(self, site: Site, enter: Enter, make_room: str) -> None:
        with Visitor(site.url, "Chatterbox") as visitor:
            visitor.join(make_room)
            for number in range(60):
                visitor.say(f"line {number:02}")
            visitor.hear_text("line 59")
        ada = enter("Ada Scrolls", make_room)
        expect(bubble(ada, "line")).to_have_count(50)
        ada.get_by_role("button", name="Show older messages").click()
        expect(bubble(ada, "line")).to_have_count(60)
        assert bubble(ada, "line").all_text_contents() == [f"line {number:02}" for number in range(60)]
        expect(ada.get_by_role("button", name="Show older messages")).to_be_hidden()

    def test_what_is_sent_twice_is_stored_once(self, site: Site, make_room: str) -> None:
        with Visitor(site.url, "Stutterer") as visitor:
            visitor.join(make_room)
            key = visitor.say("once")
            first = visitor.hear_text("once")
            visitor.say("once", key)
            assert visitor.hear_text("once") == first
            visitor.say("half a character: \ud83d")
            visitor.hear_text("half a character: ?")
            assert [message["text"] for message in visitor.join(make_room)["messages"]] == [
                "once", "half a character: ?",
            ]  # fmt: skip

    def test_only_what_is_new_comes_after_a_break(self, site: Site, make_room: str) -> None:
        with Visitor(site.url, "Returner") as visitor:
            visitor.join(make_room)
            for number in range(30):
                visitor.say(f"line {number}")
            last = visitor.hear_text("line 29")["id"]
            texts = [message["text"] for message in visitor.join(make_room, f"?after={last}")["messages"]]
            assert texts == [f"line {number}" for number in range(10, 30)], "twenty are told again"
            for nonsense in ("?after=x", "?after=" + "9" * 5000, "?after=%ff"):
                visitor.join(make_room, nonsense)


class TestBorders:
    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", '{"type": "say"}', '{"type": "say", "key": "short", "text": "x"}', '{"type": "x"}', "[" * 9999],
    )
    def test_what_the_page_would_not_send_closes(self, site: Site, text: str) -> None:
        with Visitor(site.url, f"Odd {time.monotonic_ns() % 10**9}") as visitor:
            visitor.join("garden")
            visitor.websocket.send(text)
            with pytest.raises(ConnectionClosed) as caught:
                visitor.hear("nothing")
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4400

    @pytest.mark.parametrize(("room", "signed_in", "code"), [("garden", False, 4401), ("cellar", True, 4404)])
    def test_pages_that_have_no_place_here_are_told_why(
        self, site: Site, room: str, signed_in: bool, code: int
    ) -> None:
        with Visitor(site.url, f"Lost {code}") as visitor:
            headers = visitor.headers if signed_in else {}
            address = f"ws://127.0.0.1:{site.port}/ws/rooms/{room}/"
            with connect(address, additional_headers=headers, origin=Origin(site.url)) as websocket:
                with pytest.raises(ConnectionClosed) as caught:
                    websocket.recv(DEADLINE)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == code

    def test_pages_of_other_sites_get_no_websocket(self, site: Site) -> None:
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://127.0.0.1:{site.port}/ws/rooms/garden/", origin=Origin("http://example.org"))
        assert caught.value.response.status_code == 403

    @pytest.mark.parametrize(
        ("name", "mistake"),
        [
            ("robot", "has this name already"),
            ("a", "at least 2"),
            ("x\u202ey", "nobody can see"),
            ("x" * 25, "at most 24"),
        ],
    )
    def test_names_that_will_not_do(self, site: Site, name: str, mistake: str) -> None:
        with httpx.Client(base_url=site.url) as client:
            token = client.get("/sign-in/").text.partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
            page = client.post("/sign-in/", data={"csrfmiddlewaretoken": token, "name": name})
            assert page.status_code == 422
            assert mistake in page.text

    def test_what_is_not_there_has_a_page_and_a_line_in_the_log(self, site: Site) -> None:
        response = httpx.get(f"{site.url}/nowhere")
        assert (response.status_code, "There is no such page" in response.text) == (404, True)
        line = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING django\.request: Not Found: /nowhere$"
        assert re.search(line, site.server.output(), re.MULTILINE)

    def test_its_icon_is_where_browsers_look_for_it(self, site: Site) -> None:
        response = httpx.get(f"{site.url}/favicon.ico", follow_redirects=True)
        assert (response.status_code, response.headers["content-type"]) == (200, "image/svg+xml")

    def test_its_migrations_are_those_of_its_models(self, tmp_path: Path) -> None:
        done = manage(tmp_path, "makemigrations", "--check", "--dry-run")
        assert done.returncode == 0, done.stdout + done.stderr

    def test_a_folder_without_a_database_stops_a_server_that_is_not_alone(self, tmp_path: Path) -> None:
        env = {"REDIS_URL": "redis://127.0.0.1:1/0"}
        with pytest.raises(AssertionError, match=r"status 3:[^$]*the database is not ready: no such table"):
            chat_server(tmp_path, env=env).__enter__()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("CHAT_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class TestLooks:
    """Nothing sticks out on a phone, by day and by night; pictures of it for the eye."""

    WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}

    def test_screenshots(self, browser: Browser, enter: Enter, screenshots: Path) -> None:
        ada = enter("Ada Lovelace", "kitchen", **self.WIDE)
        ada.screenshot(path=screenshots / "empty.png")
        grace = enter("Grace Hopper", "kitchen", color_scheme="dark", **self.WIDE)
        edsger = enter("Edsger", "kitchen", **PHONE)
        self.talk(ada, grace, edsger, self.picture(browser))
        for page, name in ((ada, "light"), (grace, "dark"), (edsger, "phone")):
            self.fits(page)
            page.screenshot(path=screenshots / f"{name}.png")
        edsger.get_by_role("button", name="Who is here").click()
        expect(edsger.locator("#people li").first).to_be_in_viewport()
        edsger.screenshot(path=screenshots / "phone-people.png")
        for page, name in ((ada, "lobby-light"), (grace, "lobby-dark"), (edsger, "lobby-phone")):
            page.goto("/")
            expect(page.locator("#feed li").first).to_be_visible()
            self.fits(page)
            page.screenshot(path=screenshots / f"{name}.png")

    def talk(self, ada: Page, grace: Page, edsger: Page, picture: bytes) -> None:
        lines = [
            (ada, "Good morning! Who has left flour all over the engine?"),
            (grace, "That was me. The bread would not wait."),
            (grace, "It is in the oven now: https://example.org/bread"),
            (edsger, "Simplicity is a great virtue, but it takes hard work to achieve it."),
            (ada, "Dice for who does the dishes?"),
        ]
        for page, line in lines:
            say(page, line)
            expect(bubble(ada, line)).to_be_visible()
        say(ada, "/roll 2d6")
        expect(bubble(ada, "Ada Lovelace rolls 2d6")).to_be_visible()
        say(edsger, "/help")
        expect(edsger.locator(".whisper")).to_be_visible()
        grace.locator("#picture").set_input_files([{"name": "sky.png", "mimeType": "image/png", "buffer": picture}])
        for page in (ada, grace, edsger):
            page.wait_for_function("() => document.querySelector('[data-id] .picture img')?.naturalWidth")
        say(ada, "What a sky. I will bring the butter.")
        expect(bubble(edsger, "What a sky")).to_be_visible()
        grace.get_by_label("Message", exact=True).press_sequentially("Coming")
        expect(ada.locator("#typing")).to_have_text("Grace Hopper is writing")
        expect(edsger.locator("#typing")).to_have_text("Grace Hopper is writing")

    def picture(self, browser: Browser) -> bytes:
        """A landscape, painted by the browser."""
        page = browser.new_page(viewport={"width": 560, "height": 300})
        page.set_content(
            "<body style='margin:0;height:300px;background:linear-gradient(#8fc1e3,#f7d9a8 62%,#6d8f5a 62.5%,#35543a)'>"
            "<p style='position:absolute;left:380px;top:80px;margin:0;width:70px;height:70px;border-radius:50%;"
            "background:#fff3c4;box-shadow:0 0 50px #fff3c4'></p>"
        )
        try:
            return page.screenshot()
        finally:
            page.close()

    def fits(self, page: Page) -> None:
        """Nothing makes the page wider than the screen."""
        wide = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1]


class TestHTTP2:
    def test_one_connection_carries_pages_an_upload_the_feed_and_websockets(
        self, tmp_path: Path, certificate: Certificate, browser: Browser
    ) -> None:
        with chat_server(tmp_path, "--access-log", "-", "--access-log-format", "json", *certificate.args) as server:
            context = browser.new_context(base_url=server.url, ignore_https_errors=True)
            page = context.new_page()
            page.set_default_timeout(DEADLINE * 1000)
            page.goto("/")
            page.get_by_label("What shall we call you?").fill("Ada Secure")
            page.get_by_role("button", name="Come in").click()
            expect(page.locator("#live")).to_have_attribute("data-state", "open")
            page.goto("/rooms/garden/")
            connected(page)
            say(page, "Over one connection")
            expect(bubble(page, "Over one connection")).to_be_visible()
            page.locator("#picture").set_input_files([{"name": "n", "mimeType": "image/png", "buffer": png(300, 250)}])
            page.wait_for_function("() => document.querySelector('[data-id] .picture img')?.naturalWidth === 300")
            context.close()
            assert server.stop() == 0
        lines = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
        seen = {(line["method"], line["path"].partition("?")[0]) for line in lines}
        wanted = {
            ("GET", "/rooms/garden/"), ("POST", "/rooms/garden/pictures/"), ("GET", "/feed/"),
            ("WSDISCONNECT", "/ws/rooms/garden/"),
        }  # fmt: skip
        assert wanted <= seen
        assert {line["protocol"] for line in lines} == {"HTTP/2"}
        # The address of a client with its port is one connection.
        assert len({line["client"] for line in lines}) == 1
