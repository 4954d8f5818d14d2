"""Async views of Django as a client sees them: the same with hooks and ends on the loop as when Django has its way."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.django.configured import MIDDLEWARE

from .server import DEADLINE, ServerProcess

APPLICATION = "tests.e2e.django_async_project:application"
Step = tuple[str, str, dict[str, Any]]


def get(target: str, **options: Any) -> Step:
    return "GET", target, options


def post(target: str, **options: Any) -> Step:
    return "POST", target, options


#: What a client with a jar of cookies asks for, one after the other. ``{token}`` is the last token that it was shown.
CONVERSATIONS: dict[str, list[Step]] = {
    "plain": [get("/plain/"), ("HEAD", "/plain/", {}), ("OPTIONS", "/plain/", {})],
    "session": [
        get("/session_read/"), get("/session_written/"), get("/session_read/"), get("/plain/"),
        get("/session_written/"), get("/session_read/"), get("/session_flushed/"), get("/session_read/"),
    ],
    "session that is unknown": [
        get("/session_read/", headers={"cookie": "sessionid=abcdefghijklmnopqrstuvwxyz012345"}),
        get("/plain/", headers={"cookie": "sessionid=abcdefghijklmnopqrstuvwxyz012345"}),
        get("/session_written/", headers={"cookie": "sessionid=short"}),
    ],
    "session that fails": [get("/session_written/"), get("/fails/500/"), get("/session_written/?hook=out")],
    "login": [get("/who/"), get("/login/"), get("/who/"), get("/plain/"), get("/logout/"), get("/who/")],
    "messages": [
        get("/messages_read/"), get("/message_added/"), get("/plain/"), get("/message_added/"), get("/messages_read/"),
        get("/messages_read/"), get("/plain/", headers={"cookie": "messages=broken"}),
        get("/messages_read/", headers={"cookie": "messages=broken"}),
    ],
    "messages too long for a cookie": [
        get("/message_added/?times=200"), get("/message_added/"), get("/plain/"), get("/messages_read/"),
        get("/messages_read/"),
    ],
    "token": [
        get("/plain/"), get("/token/"), get("/plain/"), get("/token/"),
        get("/token/", headers={"cookie": "csrftoken=bad"}),
    ],
    "form": [
        post("/form/", data={"name": "Åsa"}), get("/token/"),
        post("/form/", data={"name": "Åsa", "csrfmiddlewaretoken": "{token}"}),
        post("/form/", data={"name": "Åsa"}, headers={"x-csrftoken": "{token}"}),
        post("/form/", data={"name": "Åsa", "csrfmiddlewaretoken": "x" * 64}),
        post("/form/", data={"csrfmiddlewaretoken": "{token}"}, headers={"origin": "http://elsewhere"}),
        post("/form/", data={"csrfmiddlewaretoken": "{token}"}, files={"file": ("name", b"x" * 3_000_000)}),
    ],
    "languages": [
        get("/language/"), get("/language/", headers={"accept-language": "de"}),
        get("/language/", headers={"accept-language": "de"}),
        get("/language/", headers={"accept-language": "tlh, fr;q=0.5"}),
        get("/language/", headers={"cookie": "django_language=es"}),
        get("/language/", headers={"cookie": "django_language=ES"}),
        get("/language/", headers={"accept-language": "pt-br", "cookie": "django_language=none"}), get("/DE/"),
    ],
    "slashes": [
        get("/plain"), get("/plain?query=1"), get("/none"), post("/plain"), get("/plain", headers={"host": "known"}),
        get("/plain/", headers={"host": "unknown"}),
    ],
    "exceptions": [
        *(get(f"/fails/{how}/{query}") for how in (404, 403, 400, 500, "nothing") for query in ("", "?save")),
        *(get(f"/{name}/?hook={hook}") for name in ("plain", "session_written") for hook in ("in", "out")),
    ],
}  # fmt: skip

#: The settings that change what the hooks do.
SITES: dict[str, dict[str, Any]] = {
    "default": {},
    "secure": {"SECURE_SSL_REDIRECT": True, "SECURE_REDIRECT_EXEMPT": ["^token"]},
    "behind TLS": {
        "SECURE_PROXY_SSL_HEADER": ["HTTP_HOST", "127.0.0.1"], "SECURE_HSTS_SECONDS": 60, "SECURE_HSTS_PRELOAD": True,
        "SECURE_REFERRER_POLICY": "origin, no-referrer", "X_FRAME_OPTIONS": "sameorigin",
    },
    "www": {"PREPEND_WWW": True},
    "sessions always saved": {"SESSION_SAVE_EVERY_REQUEST": True},
    "all in sessions": {
        "CSRF_USE_SESSIONS": True, "MESSAGE_STORAGE": "django.contrib.messages.storage.session.SessionStorage",
        "SESSION_ENGINE": "django.contrib.sessions.backends.cached_db",
    },
    "all in cookies": {
        "MESSAGE_STORAGE": "django.contrib.messages.storage.cookie.CookieStorage",
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    },
    "debug": {"DEBUG": True},
    "no languages": {"USE_I18N": False},
}  # fmt: skip

#: What is random, or tells the time.
CHANCE = [
    (re.compile(r"(sessionid|csrftoken|messages)=(?!\"\"|;)[^;]+"), r"\1=random"),
    (re.compile(r"expires=\w{3}, \d\d \w{3} 20[^;]+"), "expires=later"),
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that the project has made; making it takes longer than all else."""
    path = tmp_path_factory.mktemp("database") / "db.sqlite3"
    with ServerProcess("-p", "0", APPLICATION, env={"DATABASE": str(path)}):
        return path


@contextmanager
def project(database: Path, folder: Path, way: str, site: dict[str, Any]) -> Iterator[ServerProcess]:
    folder.mkdir()
    env = {"DATABASE": str(shutil.copy(database, folder)), "SITE": json.dumps(site)}
    with ServerProcess("-p", "0", "--django", way, APPLICATION, env=env) as server:
        yield server
    assert server.returncode == 0


def fill(value: Any, token: str) -> Any:
    if isinstance(value, dict):
        return {name: fill(each, token) for name, each in value.items()}
    return value.replace("{token}", token) if isinstance(value, str) else value


def held(url: str, steps: list[Step]) -> list[Any]:
    """The responses of a conversation, without what is random in them."""
    answers = []
    token = ""
    with httpx.Client(base_url=url, timeout=DEADLINE) as client:
        for method, target, options in steps:
            response = client.request(method, target, **fill(options, token))
            text = response.text
            if target.startswith("/token/") and response.status_code == 200:
                token, text = text, f"{len(text)} characters"
            fields = [f"{name}: {value}" for name, value in response.headers.multi_items() if name != "date"]
            for pattern, replacement in CHANCE:
                fields = [pattern.sub(replacement, field) for field in fields]
            if "DEBUG = True" in text or "<h1>" in text and response.status_code >= 400:
                # The page tells of the threads and the code that the exception came through.
                text, fields = text.partition("</h1>")[0], [each for each in fields if "content-length" not in each]
            answers.append((method, target, response.status_code, fields, text.replace(url, "")))
    return answers


@pytest.mark.parametrize("site", SITES)
def test_clients_see_what_django_has_them_see(site: str, database: Path, tmp_path: Path) -> None:
    def all_held(way: str) -> dict[str, list[Any]]:
        with project(database, tmp_path / way, way, SITES[site]) as server:
            port = f":{server.port}"
            found = {name: held(server.url, steps) for name, steps in CONVERSATIONS.items()}
        return json.loads(json.dumps(found).replace(port, ":port"))  # type: ignore[no-any-return]

    with ThreadPoolExecutor(2) as pool:
        ours, djangos = pool.map(all_held, ("auto", "off"))
    for name in CONVERSATIONS:
        assert ours[name] == djangos[name], name


def test_a_view_that_runs_no_sync_code_has_no_thread(database: Path, tmp_path: Path) -> None:
    def threads(way: str, *targets: str) -> list[str]:
        site = {"MIDDLEWARE": [*MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]}
        folder = tmp_path / f"{way}{len(targets)}"
        with project(database, folder, way, site) as server, httpx.Client(timeout=DEADLINE) as client:
            for target in targets:
                assert client.get(server.url + target).status_code == 200
            found: list[str] = client.get(f"{server.url}/threads/").json()
        return found

    assert threads("auto", "/plain/", "/plain/", "/token/") == []
    assert threads("auto", "/session_written/") != []
    assert threads("off") != []
