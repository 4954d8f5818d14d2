"""``ASGILiveServerTestCase``: Django's ``LiveServerTestCase`` for ASGI, with WebSockets, static and media files.

The server runs in a thread of the test's process. Django keeps a database connection for each thread. That is right
for a database server or file: the test's data is committed, and the server's threads see it. It does not work for an
SQLite database in memory, because its connections lock each other out. There the server gets the test's own connection,
and everything that Django and Channels run by ``sync_to_async`` runs in one thread: two requests in each other's
transactions would undo each other's work.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.signals import got_request_exception
from django.db import connections
from django.test.testcases import TransactionTestCase
from django.test.utils import modify_settings
from django.utils.functional import classproperty
from django.utils.module_loading import import_string
from django.views.static import serve

from ..testing import LiveServer

__all__ = ["ASGILiveServerTestCase"]

#: Seconds for the server's threads to close their connections at the end.
_LAST_WAIT = 5.0


class ASGILiveServerTestCase(TransactionTestCase):  # type: ignore[misc]
    """Serves the project while the tests of a class run, on a real port, for browsers and other clients.

    :cvar host: the host to listen on, and that of the URLs; ``ALLOWED_HOSTS`` allows it meanwhile.
    :cvar port: TCP port, 0 for any free one.
    :cvar serve_static: serve static files by their finders, when ``django.contrib.staticfiles`` is installed, and the
        files in ``MEDIA_ROOT``.
    :cvar raise_request_exception: raise at the end of each test the exceptions of views and consumers, as
        ``django.test.Client`` does. A test takes those that it expects out of ``self.live_server.exceptions``.
    :cvar server_settings: settings of the server, as those of :class:`asgiserver.Server`.
    :cvar live_server: the running server, a :class:`asgiserver.testing.LiveServer`.

    This is a ``TransactionTestCase``: a test's writes are committed, and the tables are emptied after the test. Before
    that, all clients are cut off, so that nothing of one test runs on into the next. With SQLite in memory all
    synchronous code runs in one thread, so that a view that sends a request to its own server waits for ever.
    """

    host = "localhost"
    port = 0
    serve_static = True
    raise_request_exception = True
    server_settings: ClassVar[Mapping[str, Any]] = {}
    live_server: ClassVar[_DjangoServer]

    @classmethod
    def get_application(cls) -> Any:
        """The application: ``ASGI_APPLICATION``, or Django's own when the project names none."""
        path = getattr(settings, "ASGI_APPLICATION", None)
        return import_string(path) if path else get_asgi_application()

    @classproperty  # type: ignore[untyped-decorator]
    def live_server_url(cls) -> str:  # noqa: N805
        """``http://HOST:PORT``, no slash at the end."""
        return cls.live_server.url

    @classproperty  # type: ignore[untyped-decorator]
    def live_server_ws_url(cls) -> str:  # noqa: N805
        """``ws://HOST:PORT``, no slash at the end."""
        return cls.live_server.ws_url

    @classproperty  # type: ignore[untyped-decorator]
    def allowed_host(cls) -> str:  # noqa: N805
        """The host that ``ALLOWED_HOSTS`` gets in addition."""
        return cls.host

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls._allow_host()
        application = cls.get_application()
        if cls.serve_static:
            application = _with_files(application)
        shared = {each.alias: each for each in connections.all() if _is_in_memory(each)}
        for connection in shared.values():
            connection.inc_thread_sharing()
            cls.addClassCleanup(connection.dec_thread_sharing)
        cls.live_server = _DjangoServer(
            application, shared, host=cls.host, port=cls.port, raise_exceptions=False, **cls.server_settings
        )
        cls.enterClassContext(cls.live_server)

    @classmethod
    def _allow_host(cls) -> None:
        hosts = settings.ALLOWED_HOSTS
        if not isinstance(hosts, list):
            cls.enterClassContext(modify_settings(ALLOWED_HOSTS={"append": cls.allowed_host}))
        elif cls.allowed_host not in hosts:
            # Into the list itself: Channels' AllowedHostsOriginValidator keeps it, if made before this class.
            hosts.append(cls.allowed_host)
            cls.addClassCleanup(hosts.remove, cls.allowed_host)

    def _post_teardown(self) -> None:
        # A consumer that still runs, or runs when a page is closed, could write into tables that are being emptied.
        self.live_server.drop_clients()
        super()._post_teardown()
        exceptions = self.live_server.exceptions
        raised = exceptions[:]
        exceptions.clear()
        if raised and self.raise_request_exception:
            raise raised[0] if len(raised) == 1 else BaseExceptionGroup("the application raised", raised)


class _DjangoServer(LiveServer):
    """A server in a thread that knows of Django's connections and of its exceptions.

    :param shared: the connections, by alias, that the server is to use in place of its own.
    """

    def __init__(self, application: Any, shared: Mapping[str, Any], **options: Any) -> None:
        super().__init__(application, **options)
        self._shared = shared

    @asynccontextmanager
    async def surroundings(self) -> AsyncIterator[None]:
        context = ThreadSensitiveContext()
        if self._shared:
            await context.__aenter__()
            await sync_to_async(self._share)()
        got_request_exception.connect(self._request_failed)
        try:
            yield
        finally:
            got_request_exception.disconnect(self._request_failed)
            closing = asyncio.ensure_future(sync_to_async(connections.close_all)())
            await asyncio.wait({closing}, timeout=_LAST_WAIT)
            # A thread that is stuck cannot be waited for.
            if self._shared and closing.done():
                await context.__aexit__(None, None, None)

    def _share(self) -> None:
        for alias, connection in self._shared.items():
            connections[alias] = connection

    def _request_failed(self, **_: Any) -> None:
        """Note a view's exception, of which Django has made a 500."""
        error = sys.exc_info()[1]
        place = self._started()
        if error is not None and place.capture.is_here():
            place.capture.failed(error)


class _MediaFiles(ASGIStaticFilesHandler):  # type: ignore[misc]
    """Serves the files in ``MEDIA_ROOT``."""

    def get_base_url(self) -> str:
        url: str = settings.MEDIA_URL
        return url

    def serve(self, request: Any) -> Any:
        return serve(request, self.file_path(request.path).replace("\\", "/"), document_root=settings.MEDIA_ROOT)


def _with_files(application: Any) -> Any:
    # With MEDIA_URL empty or "/" every path would be a media file's.
    if settings.MEDIA_ROOT and settings.MEDIA_URL not in ("", "/"):
        application = _MediaFiles(application)
    if apps.is_installed("django.contrib.staticfiles") and settings.STATIC_URL:
        application = ASGIStaticFilesHandler(application)
    return application


def _is_in_memory(connection: Any) -> bool:
    return bool(connection.vendor == "sqlite" and connection.is_in_memory_db())
