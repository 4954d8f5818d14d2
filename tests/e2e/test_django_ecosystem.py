"""Django's and other packages under both handlers, and where ours keeps its hands off."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .django_site.running import BOTH, HANDLERS, SMALL, Connection, Site, head, site
from .runserver_project import RunServer, write_project
from .server import DEADLINE, ROOT, environment, wait_for


@pytest.fixture(scope="module", params=BOTH)
def server(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site(request.param, MIDDLEWARE="ecosystem", DEBUG="1") as server:
        yield server


class TestMiddleware:
    def test_the_debug_toolbar_counts_queries(self, server: Site) -> None:
        page = server.get("/query/").text
        assert "djDebug" in page
        assert re.search(r"1 query in [\d.,]+ms", page.replace("\xa0", " "))
        # Its panels are kept from one request to the next.
        request_id = re.search(r'data-request-id="([^"]+)"', page)
        assert request_id is not None
        panel = server.get("/__debug__/render_panel/", params={"request_id": request_id[1], "panel_id": "SQLPanel"})
        assert "SELECT" in panel.json()["content"]

    def test_whitenoise_serves_files_and_ranges(self, server: Site) -> None:
        path = "/static/admin/css/base.css"
        whole = server.get(path, headers={"accept-encoding": "identity"})
        assert (whole.status_code, whole.headers["content-type"]) == (200, 'text/css; charset="utf-8"')
        part = server.get(path, headers={"range": "bytes=10-29", "accept-encoding": "identity"})
        assert (part.status_code, part.content) == (206, whole.content[10:30])
        assert server.get(path, headers={"if-modified-since": whole.headers["last-modified"]}).status_code == 304
        with Connection(server) as connection:
            assert connection.ask(head(path, method="HEAD")).field("content-length") == str(len(whole.content))

    @pytest.mark.parametrize("path", ["/respond/stream/", "/respond/large/", "/async/respond/stream/", "/file/zipped/"])
    def test_gzip_compresses(self, server: Site, path: str) -> None:
        zipped = server.get(path)
        assert zipped.headers["content-encoding"] == "gzip"
        assert zipped.content == server.get(path, headers={"accept-encoding": "identity"}).content

    def test_cors_answers_for_all_views(self, server: Site) -> None:
        origin = {"origin": "https://other.example"}
        for path in ("/echo/", "/async/respond/plain/", "/nowhere/"):
            assert server.get(path, headers=origin).headers["access-control-allow-origin"] == origin["origin"]
        preflight = server.client.options("/echo/", headers={**origin, "access-control-request-method": "PUT"})
        assert "PUT" in preflight.headers["access-control-allow-methods"]


class TestAPIs:
    def test_rest_framework(self, server: Site) -> None:
        client = server.client
        assert client.post("/rest/double/", json={"number": 21}).json() == {"twice": 42}
        broken = {"content-type": "application/json"}
        assert client.post("/rest/double/", content=b"{", headers=broken).status_code == 400
        assert client.post("/rest/double/", content=b"a=1").status_code == 415
        assert client.post("/rest/upload/f.bin", content=SMALL, headers={"content-type": "image/png"}).json() == {
            "name": "f.bin", "size": len(SMALL),
        }  # fmt: skip
        text = f"api {server.handler}"
        assert client.post("/rest/notes/", data={"text": text}).status_code == 201
        assert {"text": text} in client.get("/rest/notes/").json()
        assert "Django REST framework" in client.get("/rest/notes/", headers={"accept": "text/html"}).text

    def test_ninja_with_both_kinds_of_endpoint(self, server: Site) -> None:
        client = server.client
        for path in ("/ninja/words", "/ninja/async-words"):
            assert client.post(path, json={"text": "a", "number": 2}).json() == {"words": ["a", "a"], "notes": True}
            assert client.post(path, json={"number": 2}).status_code == 422
        assert client.get("/ninja/where").json() == {"on loop": True, "inside": False}
        assert client.post("/ninja/file", files={"file": ("a.bin", SMALL)}).json() == {"name": "a.bin", "size": 20000}


def test_the_admin(server: Site) -> None:
    """Log in, upload a file, see it, delete it, log out."""
    with httpx.Client(base_url=server.url, timeout=DEADLINE, follow_redirects=True) as client:

        def post(path: str, data: dict[str, Any], **more: Any) -> httpx.Response:
            page = client.get(path).text
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
            assert token is not None, page[:500]
            headers = {"referer": f"{server.url}{path}"}
            return client.post(path, data={**data, "csrfmiddlewaretoken": token[1]}, headers=headers, **more)

        failed = post("/admin/login/?next=/admin/", {"username": "root", "password": "wrong"})
        assert "correct username and password" in re.sub(r"\s+", " ", failed.text)
        logged_in = post("/admin/login/?next=/admin/", {"username": "root", "password": "secret"})
        assert "Site administration" in logged_in.text
        path = "/admin/django_site/note/"
        added = post(f"{path}add/", {"text": "a note"}, files={"file": ("note.bin", SMALL)})
        # The message comes with the page after the redirect.
        assert "was added successfully" in added.text
        [number] = set(re.findall(rf'{path}(\d+)/change/">a note<', added.text))
        [kept] = (server.folder / "media" / "notes").iterdir()
        assert kept.read_bytes() == SMALL
        assert kept.name in client.get(f"{path}{number}/change/").text
        assert client.post(f"{path}{number}/delete/", data={"post": "yes"}).status_code == 403
        assert "was deleted successfully" in post(f"{path}{number}/delete/", {"post": "yes"}).text
        assert client.get("/admin/jsi18n/").status_code == 200
        client.cookies.set("sessionid", "another")
        assert "Log in" in client.get(f"{path}add/").text


@pytest.mark.parametrize("handler", BOTH)
def test_sentry_sees_one_trace(handler: str) -> None:
    with site(handler, SENTRY="1") as server:
        server.get("/query/")
        assert server.get("/fail/error/").status_code == 500
        server.get("/async/query/")
        wait_for(lambda: len(server.said("sentry")) >= 4, message=server.output())
        start = "site sentry "
        lines = [line.removeprefix(start) for line in server.output().splitlines() if line.startswith(start)]
    events = [json.loads(line) for line in lines]
    transactions = {each["request"]["url"].rpartition(":")[2].partition("/")[2]: each
                    for each in events if each.get("type") == "transaction"}  # fmt: skip
    for path in ("query/", "async/query/"):
        event = transactions[path]
        spans = event["spans"]
        known = {event["contexts"]["trace"]["span_id"], *(span["span_id"] for span in spans)}
        assert {span["trace_id"] for span in spans} == {event["contexts"]["trace"]["trace_id"]}
        assert {span["parent_span_id"] for span in spans} <= known
        operations = {span["op"] for span in spans}
        assert {"middleware.django", "view.render", "db"} <= operations
    [failure] = [each for each in events if "exception" in each]
    assert failure["exception"]["values"][-1]["value"] == "this view fails"
    assert failure["contexts"]["trace"]["trace_id"] == transactions["fail/error/"]["contexts"]["trace"]["trace_id"]


class TestWhoGetsOurs:
    """A thread that has served before shows our handler: Django's makes one for each request."""

    @pytest.mark.parametrize("application", ["plain", "static"])
    def test_an_application_that_is_djangos(self, application: str) -> None:
        """As "http" of a ProtocolTypeRouter it is in all other tests."""
        with site("ours", application=application) as server:
            assert max(server.get("/thread/").json()["served"] for _ in range(8)) > 1
            if application == "static":
                assert server.get("/static/small.bin").content == SMALL

    @pytest.mark.parametrize("application", ["subclass", "wrapped"])
    def test_none_that_is_not(self, application: str) -> None:
        with site("ours", application=application) as server:
            assert max(server.get("/thread/").json()["served"] for _ in range(8)) == 1
            # It says once why.
            assert len(re.findall("^.*Django's own handler.*$", server.output(), re.MULTILINE)) == 1

    def test_none_with_middleware_for_coroutines_alone(self) -> None:
        with site("ours", MIDDLEWARE="async-only") as server:
            for path in ("/thread/", "/async/thread/"):
                response = server.get(path)
                assert (response.status_code, response.headers["x-async"]) == (200, "only")
            assert len(re.findall("^.*AsyncOnly.*$", server.output(), re.MULTILINE)) == 1


def test_a_project_of_coroutines_alone_makes_no_thread() -> None:
    with site("ours", MIDDLEWARE="startproject", URLCONF="tests.e2e.django_site.async_urls") as server:
        for _ in range(5):
            assert server.get("/here/").json() == {"on loop": True, "threads": 0}


CASES = """
from tests.e2e.django_site.models import Note
from asgiserver.testing import ASGILiveServerTestCase
import httpx

class Cases(ASGILiveServerTestCase):
    serve_static = False
    server_settings = {"django": HANDLER}

    def test_rows_are_shared(self):
        Note.objects.create(text="the test's")
        with httpx.Client(base_url=self.live_server_url) as client:
            self.assertEqual(client.get("/query/").text.count("1 notes"), 1)
            self.assertEqual(client.get("/write/?text=view").status_code, 200)
            self.assertEqual(client.get("/async/query/").text, "2")
            self.assertEqual(client.get("/rows/").text, "the test's False\\nview False\\n")
        self.assertEqual(Note.objects.count(), 2)

    def test_tables_are_empty_again(self):
        self.assertEqual(Note.objects.count(), 0)

    def test_a_failure_is_the_tests(self):
        self.assertEqual(httpx.get(self.live_server_url + "/fail/error/").status_code, 500)
        self.assertIsInstance(self.live_server.exceptions.pop(), ValueError)
"""


@pytest.mark.parametrize(("handler", "database"), [
    pytest.param("django", "memory", marks=pytest.mark.slow), ("ours", "memory"), ("ours", "file"),
])
def test_live_test_cases(handler: str, database: str, tmp_path: Path) -> None:
    (tmp_path / "live_cases.py").write_text(CASES.replace("HANDLER", repr(HANDLERS[handler])))
    (tmp_path / "temporary").mkdir()
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.e2e.django_site.settings", "SITE_FOLDER": str(tmp_path),
        "SITE_MIDDLEWARE": "startproject", "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "SITE_DATABASE": ":memory:" if database == "memory" else str(tmp_path / "live.sqlite3"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "live_cases"],
        cwd=ROOT, env={**environment(), **env}, capture_output=True, text=True, timeout=3 * DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr


ASGI = """
    from django.core.asgi import get_asgi_application

    application = get_asgi_application()
"""


@pytest.mark.parametrize("handler", BOTH)
def test_runserver(handler: str, tmp_path: Path) -> None:
    """Static files, the page for an exception, and a reload with a new view."""
    project = write_project(tmp_path, {"mysite/asgi.py": ASGI}, settings=f"ASGISERVER_DJANGO = {HANDLERS[handler]!r}")
    with RunServer(project, "0") as server, httpx.Client(timeout=DEADLINE) as client:

        def get(path: str) -> httpx.Response:
            return client.get(f"{server.urls[-1]}/{path}")

        assert get("static/style.css").text == "body { color: teal }"
        failed = get("fail")
        assert (failed.status_code, "the cat has left" in failed.text) == (500, True)
        assert [get("visits").text for _ in range(2)] == ["1", "1"]
        threads = {get("about").text.rpartition(" ")[2] for _ in range(3)}
        assert not any("MainThread" in name for name in threads)
        urls = project / "mysite" / "urls.py"
        urls.write_text(urls.read_text().replace("VERSION = 0", "VERSION = 1"))
        wait_for(lambda: server.serves("version", "1 "), message=server.output())
        assert get("static/style.css").status_code == 200


LIVE = """
import httpx
from asgiserver.testing import LiveServer
from tests.e2e.django_site.asgi import router

with LiveServer(router(), django=HANDLER, lifespan="off") as server, httpx.Client(base_url=server.url) as client:
    most = max(client.get("/thread/").json()["served"] for _ in range(8))
    assert client.get("/fail/error/").status_code == 500
# In one write, as the project speaks too.
print(f"served {most}\\n", end="")
"""


@pytest.mark.parametrize("handler", BOTH)
def test_a_live_server_in_a_thread(handler: str, tmp_path: Path) -> None:
    program = LIVE.replace("HANDLER", repr(HANDLERS[handler]))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment({"SITE_FOLDER": str(tmp_path)}),
        capture_output=True, text=True, timeout=3 * DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    most = re.search(r"^served (\d+)$", done.stdout, re.MULTILINE)
    assert most is not None, done.stdout
    assert (int(most[1]) > 1) == (handler == "ours")
