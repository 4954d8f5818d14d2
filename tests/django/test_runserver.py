"""The command ``runserver``, without a project, a reloader or a server."""

from __future__ import annotations

import io
import logging
import os
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.core.management.commands import runserver as djangos
from django.utils import autoreload

from asgiserver import Server, __version__
from asgiserver.django import project
from asgiserver.django.local_certificate import LocalCertificate
from asgiserver.errors import LifespanError, ListenError, ReactorError, SettingsError
from asgiserver.management.commands import runserver
from asgiserver.management.commands.runserver import Command
from asgiserver.settings import Settings


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What the project serves."""


class FakeServer:
    """Listens at once on port 4000, and ends."""

    made: list[FakeServer]
    settings = Settings(exit_timeout=7)
    listening_addresses = [("127.0.0.1", 4000)]
    error: BaseException | None = None

    def __init__(self, **keywords: Any) -> None:
        self.keywords = keywords
        self.stopped = False
        self.made.append(self)

    def run(self) -> None:
        if self.error is not None:
            raise self.error
        self.keywords["ready_callable"]()

    def stop(self) -> None:
        self.stopped = True


class Exited(BaseException):
    """In the place of the process's end."""


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Django's, of a project with static files."""
    given = SimpleNamespace(
        DEBUG=True, ALLOWED_HOSTS=[], FORCE_SCRIPT_NAME=None, SETTINGS_MODULE="mysite.settings",
        ASGI_APPLICATION="tests.django.test_runserver.application",
    )  # fmt: skip
    for module in (runserver, djangos, project):
        monkeypatch.setattr(module, "settings", given)
    return given


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    names: set[str] = set()
    monkeypatch.setattr(runserver, "apps", SimpleNamespace(is_installed=names.__contains__))
    return names


@pytest.fixture
def command(settings: SimpleNamespace, installed: set[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that asks neither a database nor the checks, and whose server is no server."""
    made = Command(stdout=io.StringIO(), stderr=io.StringIO(), no_color=True)
    made.server_cls = type("Fake", (FakeServer,), {"made": []})
    monkeypatch.setattr(Command, "check", lambda *_, **__: None)
    monkeypatch.setattr(Command, "check_migrations", lambda *_: None)
    monkeypatch.setattr(runserver, "connections", SimpleNamespace(all=lambda **_: []))
    monkeypatch.setattr(runserver.logs, "bridge_twisted", lambda: None)
    monkeypatch.setattr(runserver, "install_reactor", lambda loop: None)
    monkeypatch.delenv(autoreload.DJANGO_AUTORELOAD_ENV, raising=False)

    def leave(status: int) -> None:
        raise Exited(status)

    monkeypatch.setattr(os, "_exit", leave)
    return made


def options(command: Command, *args: str) -> dict[str, Any]:
    return vars(command.create_parser("manage.py", "runserver").parse_args(args))


def serve(command: Command, *args: str) -> FakeServer:
    command.handle(**options(command, *args, "--noreload"))
    server: FakeServer = command.server_cls.made[-1]
    return server


def text_of(stream: Any) -> str:
    return str(stream.getvalue())


class TestOptions:
    def test_are_daphnes(self, command: Command) -> None:
        given = options(
            command, "--noasgi", "--http_timeout", "3", "--websocket_handshake_timeout", "4",
            "--websocket-max-message-size", "5", "--websocket-max-frame-size", "6", "[::1]:80", "--nothreading",
        )  # fmt: skip
        assert given["use_asgi"] is False
        assert [given[name] for name in project.OPTIONS] == [3.0, 4.0, 5, 6]
        assert given["addrport"] == "[::1]:80"

    def test_those_of_static_files_come_with_static_files(self, command: Command, installed: set[str]) -> None:
        with pytest.raises(CommandError, match="unrecognized arguments: --nostatic"):
            options(command, "--nostatic")
        installed.add("django.contrib.staticfiles")
        assert options(command)["use_static_handler"] is True
        assert options(command, "--nostatic")["use_static_handler"] is False
        assert options(command, "--insecure")["insecure_serving"] is True

    def test_reach_the_server_by_daphnes_keywords(self, command: Command) -> None:
        server = serve(command, "8001", "--http_timeout", "3", "--websocket_handshake_timeout", "4")
        keywords = server.keywords
        assert keywords.pop("action_logger") == command.log_action
        assert keywords.pop("ready_callable") is not None
        assert keywords == {
            "application": application, "signal_handlers": True, "host": "127.0.0.1", "port": 8001, "root_path": "",
            "graceful_timeout": 0.2, "http_timeout": 3.0, "websocket_handshake_timeout": 4.0,
            "websocket_max_message_size": 1048576, "websocket_max_frame_size": 1048576,
        }  # fmt: skip
        assert (command.http_timeout, command.websocket_handshake_timeout) == (3.0, 4.0)
        Server(**keywords)

    def test_a_projects_setting_wins_over_the_commands_own(self, command: Command, settings: SimpleNamespace) -> None:
        settings.ASGISERVER_GRACEFUL_TIMEOUT = 9
        assert serve(command).keywords["graceful_timeout"] == 9

    @pytest.mark.parametrize(("args", "said", "status"), [
        (["--tls", "--noasgi"], "--tls needs ASGI", 1),
        (["--websocket-max-frame-size=-1"], "websocket_max_frame_size: expected at least 0, got -1", 2),
        (["nonsense:"], "is not a valid port number", 1),
    ])  # fmt: skip
    def test_that_cannot_be(self, command: Command, args: list[str], said: str, status: int) -> None:
        with pytest.raises(CommandError) as caught:
            serve(command, *args)
        assert said in str(caught.value)
        assert caught.value.returncode == status

    def test_no_application_is_set(self, command: Command, settings: SimpleNamespace) -> None:
        del settings.ASGI_APPLICATION
        with pytest.raises(CommandError, match=r"add ASGI_APPLICATION = 'mysite\.asgi\.application' to mysite\.settin"):
            serve(command)


class TestAddress:
    @pytest.mark.parametrize(("args", "host", "shown"), [
        ([], "127.0.0.1", "127.0.0.1"),
        (["0"], "127.0.0.1", "127.0.0.1"),
        (["-6"], "::1", "[::1]"),
        (["[::]:0"], "::", "[::]"),
        (["0:0"], "0", "0.0.0.0"),
        (["localhost:0"], "localhost", "localhost"),
    ])  # fmt: skip
    def test_of_the_command_line(self, command: Command, args: list[str], host: str, shown: str) -> None:
        assert serve(command, *args).keywords["host"] == host
        assert f"server at http://{shown}:4000/" in text_of(command.stdout)

    def test_a_name_means_its_ipv6_address_where_that_is_wanted(
        self, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def resolve(host: str, port: None, family: int, kind: int) -> list[Any]:
            assert (host, family) == ("example", socket.AF_INET6)
            return [(family, kind, 6, "", ("2001:db8::7", 0, 0, 0))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert serve(command, "-6", "example:0").keywords["host"] == "2001:db8::7"

    def test_a_name_without_one(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise socket.gaierror(-2, "unknown")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(CommandError, match=r"^cannot listen on example: it has no IPv6 address$"):
            serve(command, "-6", "example:0")


class TestBanner:
    def test_has_daphnes_lines_with_the_real_port(self, command: Command) -> None:
        serve(command, "0")
        lines = text_of(command.stdout).splitlines()
        assert lines[0] == "Performing system checks..."
        assert lines[3].startswith("Django version ")
        assert lines[3].endswith(", using settings 'mysite.settings'")
        assert lines[4:] == [
            f"Starting ASGI/asgiserver version {__version__} development server at http://127.0.0.1:4000/",
            "Quit the server with CONTROL-C.",
        ]

    def test_names_the_authority_to_trust(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        certificate = LocalCertificate(tmp_path / "certificate.pem", tmp_path / "authority.pem")
        monkeypatch.setattr(runserver, "local_certificate", lambda host: certificate)
        server = serve(command, "--tls")
        assert server.keywords["ssl_certfile"] == str(certificate.certfile)
        assert "server at https://127.0.0.1:4000/" in text_of(command.stdout)
        assert f"signed by {certificate.authority}: have your browser trust it." in text_of(command.stdout)

    def test_of_a_projects_own_certificate_names_none(self, command: Command, settings: SimpleNamespace) -> None:
        settings.ASGISERVER_SSL_CERTFILE = "chain.pem"
        assert serve(command, "--tls").keywords["ssl_certfile"] == "chain.pem"
        assert "https://" in text_of(command.stdout)
        assert "signed by" not in text_of(command.stdout)
        assert "ssl_certfile" not in serve(command).keywords

    def test_no_certificate_can_be_had(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(host: str) -> None:
            raise SettingsError("--tls needs trustme")

        monkeypatch.setattr(runserver, "local_certificate", fail)
        with pytest.raises(CommandError, match=r"^--tls needs trustme$"):
            serve(command, "--tls")


class TestStaticFiles:
    @pytest.mark.parametrize(("debug", "args", "served"), [
        (True, [], True),
        (True, ["--nostatic"], False),
        (False, [], False),
        (False, ["--insecure"], True),
        (False, ["--insecure", "--nostatic"], False),
    ])  # fmt: skip
    def test_when_they_are_served(
        self, command: Command, settings: SimpleNamespace, installed: set[str], debug: bool, args: list[str],
        served: bool,
    ) -> None:  # fmt: skip
        installed.add("django.contrib.staticfiles")
        settings.DEBUG = debug
        assert command._serves_static_files(options(command, *args)) is served

    def test_never_where_they_are_not_installed(self, command: Command) -> None:
        assert command._serves_static_files(options(command)) is False
        assert command.get_application(options(command)) is application


@pytest.mark.parametrize("served", [True, False])
def test_exit_handlers_have_the_projects_time(
    served: bool, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[Any] = []
    monkeypatch.setattr(runserver, "limit_exit", lambda status, seconds, threads: limits.append((status, seconds)))
    monkeypatch.setattr(djangos.Command, "run_from_argv", lambda self, argv: served and serve(self))
    command.run_from_argv(["manage.py", "runserver"])
    assert limits == [(None, 7 if served else Settings().exit_timeout)]


class TestFailing:
    def failing(self, command: Command, error: BaseException, *, reloader: bool) -> None:
        command.server_cls.error = error
        given = options(command, "0", *([] if reloader else ["--noreload"]))
        command._read_settings(given)
        command.addr, command.port, command.use_ipv6, command._raw_ipv6 = "127.0.0.1", "0", False, False
        command.inner_run(**given)

    @pytest.mark.parametrize(("error", "status"), [
        (ListenError("cannot listen on 127.0.0.1:0"), 1),
        (ReactorError("another reactor"), 1),
        (LifespanError("no start"), 3),
        (SettingsError("no application"), 2),
    ])  # fmt: skip
    def test_without_the_reloader_is_a_command_error(self, command: Command, error: Exception, status: int) -> None:
        with pytest.raises(CommandError) as caught:
            self.failing(command, error, reloader=False)
        assert (str(caught.value), caught.value.returncode) == (str(error), status)

    @pytest.mark.parametrize("error", [ListenError("the port is taken"), ReactorError("another reactor")])
    def test_under_the_reloader_ends_the_process_where_no_edit_helps(self, command: Command, error: Exception) -> None:
        with pytest.raises(Exited) as caught:
            self.failing(command, error, reloader=True)
        assert caught.value.args == (1,)
        assert text_of(command.stderr) == f"Error: {error}\n"

    @pytest.mark.parametrize("error", [LifespanError("no start"), SettingsError("no application")])
    def test_under_the_reloader_is_waited_for_where_an_edit_may_help(self, command: Command, error: Exception) -> None:
        self.failing(command, error, reloader=True)
        assert text_of(command.stderr) == f"Error: {error}\n"

    def test_the_cause_of_a_failed_start_is_shown(self, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
        error = LifespanError("no start")
        error.__cause__ = LookupError("the database is away")
        self.failing(command, error, reloader=True)
        assert "LookupError: the database is away" in capsys.readouterr().err

    def test_ctrl_c_is_no_failure(self, command: Command) -> None:
        command.server_cls.error = KeyboardInterrupt()
        command.handle(**options(command, "--noreload"), shutdown_message="Good bye.")
        assert text_of(command.stdout).endswith("Good bye.\n")

    def test_what_failed_at_djangos_start_is_raised(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        error = LookupError("an application of the project")
        monkeypatch.setattr(autoreload, "_exception", (LookupError, error, None))
        with pytest.raises(LookupError, match="an application of the project"):
            serve(command)

    def test_another_reactor_is_found_before_anything_runs(
        self, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(loop: str) -> None:
            raise ReactorError("another reactor")

        monkeypatch.setattr(runserver, "install_reactor", fail)
        with pytest.raises(
            CommandError, match=r"^another reactor \(in a Django project, at the top of its settings\)$"
        ):
            command.handle(**options(command, "--noreload"))
        assert not command.server_cls.made

    def test_an_event_loop_that_cannot_be_had(
        self, command: Command, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(loop: str) -> None:
            raise SettingsError(f"loop: no {loop}")

        settings.ASGISERVER_LOOP = "uvloop"
        monkeypatch.setattr(runserver, "install_reactor", fail)
        with pytest.raises(CommandError, match=r"^loop: no uvloop$") as caught:
            command.handle(**options(command, "--noreload"))
        assert caught.value.returncode == 2


class TestReloader:
    @pytest.fixture
    def reloaded(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """The calls of Django's reloader, which does nothing."""
        calls: list[dict[str, Any]] = []
        monkeypatch.setattr(autoreload, "run_with_reloader", lambda function, **given: calls.append(given))
        return calls

    def test_its_first_process_leaves_the_reactor_alone(
        self, command: Command, reloaded: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entered: list[bool] = []
        monkeypatch.setattr(runserver, "install_reactor", None)
        monkeypatch.setattr(runserver, "enter_first", lambda: entered.append(True))
        command.handle(**options(command))
        assert len(reloaded) == len(entered) == 1

    def test_its_second_process_stops_the_server_and_waits(
        self, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever ends the reloader, and the server's thread leaves the signals alone."""
        monkeypatch.setenv(autoreload.DJANGO_AUTORELOAD_ENV, "true")
        monkeypatch.setattr(runserver, "watch_first", lambda gone: None)

        def reload(function: Any, **given: Any) -> None:
            thread = threading.Thread(target=function, kwargs=given)
            thread.start()
            thread.join()
            raise SystemExit(3)

        monkeypatch.setattr(autoreload, "run_with_reloader", reload)
        with pytest.raises(SystemExit) as caught:
            command.handle(**options(command))
        assert caught.value.code == 3
        [server] = command.server_cls.made
        assert server.stopped
        assert server.keywords["signal_handlers"] is False

    def test_its_second_process_ends_without_the_first(self, command: Command) -> None:
        command._server, command._ended = FakeServer.__new__(FakeServer), threading.Event()
        command._ended.set()
        with pytest.raises(Exited):
            command._orphaned()
        assert command._server.stopped


def test_lines_go_to_daphnes_logger_in_the_commands_style(command: Command, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "django.channels.server")
    command.style.HTTP_NOT_FOUND = "<{}>".format
    details = {"method": "GET", "path": "/", "status": 404, "time_taken": 0.5, "client": "127.0.0.1:1"}
    command.log_action("http", "complete", details)
    command.log_action("websocket", "connected", {"path": "/ws", "client": "127.0.0.1:1"})
    command.log_action("websocket", "unheard of", {})
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "<HTTP GET / 404 [0.50, 127.0.0.1:1]>"),
        ("INFO", "WebSocket CONNECT /ws [127.0.0.1:1]"),
    ]
