"""``manage.py runserver``: Django's development server, run by asgiserver, with Daphne's options.

Under Django's autoreloader there are two processes. The first only starts the second, and starts it again when it
ends with status 3. The second watches files in its main thread, serves in another, and ends when a file has changed.
The reloader handles signals then: the exception that it raises in the main thread ends :meth:`Command.run`, which stops
the server.

To change what is served, subclass :class:`Command` in an application that stands before asgiserver in
``INSTALLED_APPS``, and override ``get_application``, ``log_action`` or ``server_cls``.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
import traceback
from datetime import datetime
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands.runserver import Command as RunserverCommand
from django.db import connections
from django.urls import set_script_prefix
from django.utils import autoreload

from ... import __version__
from ...cli import exit_status
from ...django.local_certificate import LocalCertificate, local_certificate
from ...django.project import OPTIONS, get_default_application, server_keywords, usual_application
from ...django.reloader import enter_first, in_second, watch_first
from ...django.request_line import request_line
from ...errors import ASGIServerError, LifespanError, ListenError, ReactorError, SettingsError
from ...log import setup as logs
from ...loop.reactor import install_reactor
from ...running import limit_exit
from ...server import Server
from ...settings import Settings

__all__ = ["Command", "get_default_application"]

logger = logging.getLogger("django.channels.server")

#: Seconds for running requests, and for threads at the end: a user who has pressed Ctrl-C wants the terminal back.
_GRACEFUL_TIMEOUT = 0.2
_THREAD_TIMEOUT = 0.3

#: Seconds that a reload waits for the old server's end, which includes the lifespan's shutdown.
_RELOAD_TIMEOUT = 2.0


class Command(RunserverCommand):  # type: ignore[misc]
    """The command; one object is made for each time it runs."""

    help = "Serves the project's ASGI application, WebSockets too, for development."
    protocol = "http"
    server_cls: Any = Server

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._server: Any = None
        self._ended = threading.Event()
        self._certificate: LocalCertificate | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add Daphne's options to Django's, and ``--tls``."""
        super().add_arguments(parser)
        parser.add_argument(
            "--noasgi", action="store_false", dest="use_asgi", default=True,
            help="Run Django's own WSGI server instead.",
        )  # fmt: skip
        parser.add_argument(
            "--tls", action="store_true", dest="use_tls", default=False,
            help="Serve HTTPS with a certificate for this machine, made when it is first needed.",
        )  # fmt: skip
        for name, kind, text in (
            ("http_timeout", float, "Greatest age of a request in seconds (default: no limit)."),
            ("websocket_handshake_timeout", float, "Seconds to accept a WebSocket (default: 5)."),
            ("websocket_max_message_size", int, "Bytes in a WebSocket message (default: 1048576); 0 for no limit."),
            ("websocket_max_frame_size", int, "Bytes in a WebSocket frame (default: 1048576); 0 for no limit."),
        ):
            flags = [f"--{name}", f"--{name.replace('_', '-')}"]
            parser.add_argument(*flags, dest=name, type=kind, default=None, help=text)
        if apps.is_installed("django.contrib.staticfiles"):
            parser.add_argument(
                "--nostatic", action="store_false", dest="use_static_handler",
                help="Do not serve the static files at STATIC_URL.",
            )  # fmt: skip
            parser.add_argument(
                "--insecure", action="store_true", dest="insecure_serving",
                help="Serve the static files even if DEBUG is False.",
            )  # fmt: skip

    # Before the server runs.

    def handle(self, *args: Any, **options: Any) -> None:
        """Check the options and settings, then serve until a signal.

        :raises CommandError: an option or setting is invalid, or serving failed.
        """
        if options.get("use_asgi", True):
            if not hasattr(settings, "ASGI_APPLICATION"):
                raise CommandError(
                    f"ASGI_APPLICATION is not set: add ASGI_APPLICATION = {usual_application()!r} to "
                    f"{settings.SETTINGS_MODULE}, or use --noasgi"
                )
            self._read_settings(options)
        elif options.get("use_tls"):
            raise CommandError("--tls needs ASGI: leave --noasgi out")
        super().handle(*args, **options)

    def _read_settings(self, options: dict[str, Any]) -> None:
        values = server_keywords(options)
        # Daphne's command has these attributes too, for subclasses.
        for name in OPTIONS:
            setattr(self, name, values[name])
        self._settings = {"graceful_timeout": _GRACEFUL_TIMEOUT, **values}
        try:
            self._loop = Settings.from_keywords(**self._settings).loop
        except SettingsError as error:
            raise CommandError(str(error), returncode=exit_status(error)) from error

    def run(self, **options: Any) -> None:
        """Serve, under the reloader unless ``use_reloader`` is false.

        :raises CommandError: another reactor is installed, or a certificate or event loop cannot be made.
        """
        if options.get("use_tls"):
            self._certify()
        if not options.get("use_asgi", True):
            super().run(**options)
            return
        if options["use_reloader"] and not in_second():
            enter_first()
            super().run(**options)
            return
        try:
            # In this thread, because the reloader is about to import the project's URLs in it, and views may import
            # Twisted's reactor before the server's thread gets that far.
            install_reactor(self._loop)
        except ReactorError as error:
            raise CommandError(f"{error} (in a Django project, at the top of its settings)") from error
        except SettingsError as error:
            raise CommandError(str(error), returncode=exit_status(error)) from error
        if options["use_reloader"]:
            watch_first(self._orphaned)
        try:
            super().run(**options)
        finally:
            self._stop()

    def _certify(self) -> None:
        """Use the project's own certificate, or one that is made for this machine."""
        self.protocol = "https"
        if self._settings.get("ssl_certfile") is not None:
            return
        try:
            self._certificate = local_certificate(self.addr)
        except SettingsError as error:
            raise CommandError(str(error), returncode=exit_status(error)) from error
        self._settings["ssl_certfile"] = str(self._certificate.certfile)

    def _stop(self) -> None:
        """Stop a server that runs in another thread, and wait for its end, but not for ever."""
        if self._server is not None:
            self._server.stop()
            self._ended.wait(_RELOAD_TIMEOUT)

    def _orphaned(self) -> None:
        self._stop()
        os._exit(1)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as the process's own program; the process ends soon after the server."""
        status: Any = 1
        try:
            super().run_from_argv(argv)
            status = None
        except SystemExit as error:
            status = error.code
            raise
        finally:
            used = Settings() if self._server is None else self._server.settings
            limit_exit(status, used.exit_timeout, threads=_THREAD_TIMEOUT)

    # The server.

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Check the project, then serve it; the reloader calls this in a thread.

        :raises CommandError: without the reloader: the server did not start.
        """
        if not options.get("use_asgi", True):
            self.server_cls = RunserverCommand.server_cls
            super().inner_run(*args, **options)
            return
        try:
            autoreload.raise_last_exception()
            # Django has set the prefix for the main thread only, and a relative STATIC_URL takes it at its first read.
            set_script_prefix(settings.FORCE_SCRIPT_NAME or "/")
            self._check_project(options)
            self._serve(options)
        except KeyboardInterrupt:
            if options.get("shutdown_message"):
                self.stdout.write(options["shutdown_message"])
        except ASGIServerError as error:
            self._failed(error, in_thread=options["use_reloader"])
        finally:
            self._ended.set()

    def _check_project(self, options: dict[str, Any]) -> None:
        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            # Not the keywords of Django's own runserver, which have no tags, because it runs the checks here itself.
            self.check(**super(RunserverCommand, self).get_check_kwargs(options) | {"display_num_errors": True})
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()

    def _serve(self, options: dict[str, Any]) -> None:
        keywords = {**self._settings, "host": self._address(), "port": int(self.port)}
        logs.bridge_twisted()
        application = self.get_application(options)
        # The project's logging may have disabled our loggers, and with them the traceback of a 500.
        logs.enable()
        self._server = self.server_cls(
            application=application,
            signal_handlers=not options["use_reloader"],
            action_logger=self.log_action,
            ready_callable=self._ready,
            **keywords,
        )
        self._server.run()

    def _address(self) -> str:
        """``addr``; with ``--ipv6`` and a name, the name's IPv6 address."""
        if not self.use_ipv6 or self._raw_ipv6:
            return str(self.addr)
        try:
            found = socket.getaddrinfo(self.addr, None, socket.AF_INET6, socket.SOCK_STREAM)
        except OSError as error:
            raise ListenError(f"cannot listen on {self.addr}: it has no IPv6 address") from error
        return str(found[0][4][0])

    def _ready(self) -> None:
        addresses = self._server.listening_addresses
        self.on_bind(addresses[0][1] if addresses else int(self.port))

    def on_bind(self, server_port: int) -> None:
        """Print where the server listens, once it does.

        :param server_port: the real port, also where 0 was asked for.
        """
        if self._server is None:
            super().on_bind(server_port)
            return
        host = f"[{self.addr}]" if self._raw_ipv6 else "0.0.0.0" if self.addr == "0" else self.addr
        url = f"{self.protocol}://{host}:{server_port}/"
        lines = [
            f"{datetime.now():%B %d, %Y - %X}",  # noqa: DTZ005 - the local time, as Django prints it
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}",
            f"Starting ASGI/asgiserver version {__version__} development server at {url}",
            f"Quit the server with {'CTRL-BREAK' if sys.platform == 'win32' else 'CONTROL-C'}.",
        ]
        if self._certificate is not None:
            lines.insert(3, f"Its certificate is signed by {self._certificate.authority}: have your browser trust it.")
        self.stdout.write("\n".join(lines))
        self.stdout.flush()

    def _failed(self, error: ASGIServerError, *, in_thread: bool) -> None:
        """Report on one line why the server does not run.

        An exception in the reloader's thread does not end the process. A port that is taken, or a foreign reactor, ends
        it here; after any other error the reloader waits for a change of the project, as Django's own server does.
        """
        if isinstance(error, LifespanError) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        if not in_thread:
            raise CommandError(str(error), returncode=exit_status(error)) from error
        self.stderr.write(f"Error: {error}")
        if isinstance(error, ListenError | ReactorError):
            self.stdout.flush()
            self.stderr.flush()
            os._exit(exit_status(error))

    # What subclasses override.

    def get_application(self, options: dict[str, Any]) -> Any:
        """The application to serve: the project's, behind the static files where these are wanted."""
        application = get_default_application()
        if not self._serves_static_files(options):
            return application
        from ...django.static_files import StaticFiles

        return StaticFiles(application)

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """The WSGI application for ``--noasgi``, with static files too."""
        handler = super().get_handler(*args, **options)
        if not self._serves_static_files(options):
            return handler
        from django.contrib.staticfiles.handlers import StaticFilesHandler

        return StaticFilesHandler(handler)

    def _serves_static_files(self, options: dict[str, Any]) -> bool:
        installed = apps.is_installed("django.contrib.staticfiles")
        wanted = settings.DEBUG or options.get("insecure_serving", False)
        return bool(wanted and options.get("use_static_handler", installed))

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Write a line for a request or a WebSocket, in the colours of Django's terminal palette.

        The arguments are those of :data:`asgiserver.log.access.ActionLogger`.
        """
        line = request_line(protocol, action, details.get("status"))
        if line is not None:
            text = getattr(self.style, line.style)(line.text) if line.style else line.text
            logger.log(line.level, text, details)
