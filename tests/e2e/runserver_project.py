"""A Django project in a folder of its own, and ``manage.py runserver`` in it."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .server import DEADLINE, ServerProcess, wait_for

__all__ = ["RunServer", "write_project"]

MANAGE = """
    import os
    import sys

    from django.core.management import execute_from_command_line
    from django.utils.autoreload import StatReloader

    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    # A second, otherwise.
    StatReloader.SLEEP_TIME = 0.1
    execute_from_command_line(sys.argv)
"""

SETTINGS = """
    SECRET_KEY = "of no use to anybody"
    DEBUG = True
    ALLOWED_HOSTS = ["*"]
    INSTALLED_APPS = ["asgiserver", "django.contrib.staticfiles"]
    ROOT_URLCONF = "mysite.urls"
    ASGI_APPLICATION = "mysite.asgi.application"
    WSGI_APPLICATION = "mysite.wsgi.application"
    STATIC_URL = "/static/"
    STATICFILES_DIRS = ["assets"]
    SESSION_COOKIE_SECURE = True
    SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
    USE_TZ = True
"""

URLS = """
    import os
    import threading
    import time

    from django.http import HttpResponse
    from django.urls import path, reverse
    from twisted.internet import reactor

    VERSION = 0

    def version(request):
        return HttpResponse(f"{VERSION} {os.getpid()}")

    def about(request):
        words = request.scheme, reverse("about"), type(request).__name__, threading.current_thread().name
        return HttpResponse(" ".join(words))

    def reactor_in_use(request):
        return HttpResponse(f"{type(reactor).__name__} {reactor.running}")

    def visits(request):
        request.session["visits"] = request.session.get("visits", 0) + 1
        return HttpResponse(request.session["visits"])

    def fail(request):
        raise LookupError("the cat has left")

    def sleep(request):
        print("sleeping", flush=True)
        time.sleep(60)

    urlpatterns = [
        path("version", version),
        path("about", about, name="about"),
        path("reactor", reactor_in_use),
        path("visits", visits),
        path("fail", fail),
        path("sleep", sleep),
    ]
"""

#: Lifespan and WebSocket without Channels, the rest is Django's.
ASGI = """
    from django.core.asgi import get_asgi_application

    django = get_asgi_application()

    async def application(scope, receive, send):
        if scope["type"] == "http":
            if scope["path"] == "/broken":
                raise LookupError("broken below Django")
            await django(scope, receive, send)
            return
        while True:
            kind = (message := await receive())["type"]
            if scope["type"] == "lifespan":
                print(kind, flush=True)
                await send({"type": f"{kind}.complete"})
            elif kind == "websocket.connect":
                await send({"type": "websocket.close" if scope["path"] == "/refused" else "websocket.accept"})
            elif kind == "websocket.receive":
                await send({"type": "websocket.send", "text": f"{scope['scheme']} {message['text']}"})
            if kind in ("lifespan.shutdown", "websocket.disconnect"):
                print(f"ended {kind} {message.get('code')}", flush=True)
                return
"""

WSGI = """
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()
"""


def write_project(folder: Path, files: Mapping[str, str] | None = None, settings: str = "") -> Path:
    """Write ``manage.py`` and the package ``mysite`` into ``folder``, which is returned.

    :param files: instead of the project's own, or besides them, by path.
    :param settings: lines at the end of the project's settings.
    """
    contents = {
        "manage.py": MANAGE,
        "mysite/__init__.py": "",
        "mysite/settings.py": textwrap.dedent(SETTINGS) + textwrap.dedent(settings),
        "mysite/urls.py": URLS,
        "mysite/asgi.py": ASGI,
        "mysite/wsgi.py": WSGI,
        "assets/style.css": "body { color: teal }",
        **(files or {}),
    }
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    return folder


class RunServer(ServerProcess):
    """``manage.py runserver ARGS`` in a project, with a process group of its own; used as :class:`ServerProcess` is.

    :param project: the folder of :func:`write_project`.
    :param listeners: 0 for a command that does not come to listen.
    """

    listening = re.compile(r"development server at (?P<url>(?P<scheme>https?)://\S*:(?P<port>\d+))/")

    def __init__(
        self, project: Path, *args: str, env: Mapping[str, str] | None = None, listeners: int = 1,
        options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        env = {
            # So that two writes within a second are two, and nothing is left in the project.
            "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(project / "cache"),
            **(env or {}),
        }  # fmt: skip
        super().__init__(
            *args, cwd=project, env=env, listeners=listeners, new_session=True,
            command=(sys.executable, *options, "manage.py", "runserver"),
        )  # fmt: skip

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        try:
            wait_for(lambda: not self._group_lives(), message="a process was left behind")
        except AssertionError:
            os.killpg(self.pid, signal.SIGKILL)
            raise

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def interrupt(self) -> None:
        """Ctrl-C in its terminal: every process of the group gets SIGINT."""
        os.killpg(self.pid, signal.SIGINT)

    def said(self, words: str, times: int = 1, seconds: float = DEADLINE) -> None:
        """Wait until the output has ``words`` so often, at least."""
        try:
            wait_for(lambda: self.output().count(words) >= times, seconds)
        except AssertionError:
            raise AssertionError(f"{words!r} was not said {times} times:\n{self.output()}") from None

    def serves(self, path: str, text: str) -> bool:
        """Whether ``path`` of its last address begins with ``text``; False while it does not answer."""
        try:
            # httpx would make a TLS context each time.
            with urllib.request.urlopen(f"{self.urls[-1]}/{path}", timeout=DEADLINE) as response:
                body: bytes = response.read()
        except OSError:
            return False
        return body.startswith(text.encode())
