from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from asgiserver import __version__, cli
from asgiserver.cli import CommandLineInterface, main
from asgiserver.errors import LifespanError, ListenError, ReactorError, SettingsError
from asgiserver.flags import DAPHNE_FLAGS, expanded
from asgiserver.settings import RELOAD, WORKERS, Settings, flags, information, spellings
from asgiserver.workers import launch
from asgiserver.workers.watch import quick

#: What each setting's flag can be given, and what must arrive; a switch has no value.
VALUES: dict[str, tuple[str | None, Any]] = {
    "django": ("off", "off"),
    "host": ("::1", "::1"),
    "port": ("8001", 8001),
    "unix_socket": ("/run/a.sock", "/run/a.sock"),
    "unix_socket_mode": ("640", 0o640),
    "file_descriptor": ("0", 0),
    "endpoints": ("tcp:80", ("tcp:80",)),
    "metrics": ("tcp:81", ("tcp:81",)),
    "backlog": ("7", 7),
    "ssl_certfile": ("c.pem", ("c.pem",)),
    "ssl_keyfile": ("k.pem", ("k.pem",)),
    "ssl_keyfile_password": ("secret", "secret"),
    "ssl_keyfile_password_file": ("p.txt", "p.txt"),
    "ssl_ca_certs": ("ca.pem", "ca.pem"),
    "ssl_cert_reqs": ("required", "required"),
    "ssl_min_version": ("TLSv1.3", "TLSv1.3"),
    "ssl_ciphers": ("ECDHE+AESGCM", "ECDHE+AESGCM"),
    "interface": ("wsgi", "wsgi"),
    "loop": ("asyncio", "asyncio"),
    "http2": ("off", "off"),
    "factory": (None, True),
    "app_dir": ("site", "site"),
    "lifespan": ("off", "off"),
    "root_path": ("/mount", "/mount"),
    "server_name": ("mine", "mine"),
    "headers": ("X-A: b", ("X-A: b",)),
    "websocket_compression": (None, True),
    "proxy_headers": (None, True),
    "forwarded_allow_ips": ("10.0.0.0/8,unix", ("10.0.0.0/8", "unix")),
    "proxy_allow_ips": ("10.0.0.7,unix", ("10.0.0.7", "unix")),
    "proxy_headers_host": ("X-Real-IP", "X-Real-IP"),
    "proxy_headers_port": ("X-Real-Port", "X-Real-Port"),
    "proxy_headers_proto": ("X-Scheme", "X-Scheme"),
    "workers": ("4", 4),
    "preload": ("off", "off"),
    "pid_file": ("asgiserver.pid", "asgiserver.pid"),
    "reload": (None, True),
    "reload_dir": ("site", ("site",)),
    "reload_include": ("*.html", ("*.html",)),
    "reload_exclude": ("media/*", ("media/*",)),
    "verbosity": ("2", 2),
    "access_log": ("-", "-"),
    "access_log_format": ("json", "json"),
    "log_format": ("json", "json"),
    "log_fmt": ("%(message)s", "%(message)s"),
    "log_config": ("log.toml", "log.toml"),
}  # fmt: skip

#: Flags that are refused without another beside them.
NEEDED = {
    "ssl_keyfile": ["--ssl-certfile", "c.pem"],
    "ssl_keyfile_password": ["--ssl-certfile", "c.pem"],
    "ssl_keyfile_password_file": ["--ssl-certfile", "c.pem"],
    "ssl_ca_certs": ["--ssl-certfile", "c.pem"],
    "ssl_cert_reqs": ["--ssl-certfile", "c.pem", "--ssl-ca-certs", "ca.pem"],
    "unix_socket_mode": ["-u", "/run/a.sock"],
    "ssl_min_version": ["--ssl-certfile", "c.pem"],
    "ssl_ciphers": ["--ssl-certfile", "c.pem"],
    "ssl_handshake_timeout": ["--ssl-certfile", "c.pem"],
    "forwarded_allow_ips": ["--proxy-headers"],
    "proxy_headers_host": ["--proxy-headers"],
    "proxy_headers_port": ["--proxy-headers"],
    "proxy_headers_proto": ["--proxy-headers"],
    "workers": [],
    "pid_file": [],
    "max_requests_jitter": ["--workers", "2", "--max-requests", "9"],
    "reload": [],
}
#: And these of whole groups.
NEEDED_BY_GROUP = {WORKERS: ["--workers", "2"], RELOAD: ["--reload"]}

#: Every spelling of Daphne's command line with the setting that it must reach.
DAPHNE = [
    (["-p", "81"], "port", 81),
    (["--port", "81"], "port", 81),
    (["--port=81"], "port", 81),
    (["-b", "0.0.0.0"], "host", "0.0.0.0"),
    (["--bind", "[::1]"], "host", "::1"),
    (["-u", "/s"], "unix_socket", "/s"),
    (["--unix-socket", "/s"], "unix_socket", "/s"),
    (["--fd", "0"], "file_descriptor", 0),
    (["-e", "tcp:80", "--endpoint", "ssl:443:privateKey=k"], "endpoints",
     ("tcp:80", "ssl:443:privateKey=k")),
    (["-v", "0"], "verbosity", 0),
    (["-v2"], "verbosity", 2),
    (["--verbosity", "3"], "verbosity", 3),
    (["-t", "9"], "http_timeout", 9.0),
    (["--http-timeout", "9"], "http_timeout", 9.0),
    (["--websocket_timeout", "-1"], "websocket_timeout", None),
    (["--websocket_timeout", "77"], "websocket_timeout", 77.0),
    (["--websocket_connect_timeout", "6"], "websocket_connect_timeout", 6.0),
    (["--websocket_connect_timeout=-1"], "websocket_connect_timeout", None),
    (["--ping-interval", "8"], "ping_interval", 8.0),
    (["--ping-timeout", "8"], "ping_timeout", 8.0),
    (["--websocket-max-message-size", "0"], "websocket_max_message_size", 0),
    (["--websocket-max-frame-size", "5"], "websocket_max_frame_size", 5),
    (["--application-close-timeout", "4"], "application_close_timeout", 4.0),
    (["--access-log", "f"], "access_log", "f"),
    (["--log-fmt", "%(message)s"], "log_fmt", "%(message)s"),
    (["--root-path", "/r"], "root_path", "/r"),
    (["--proxy-headers"], "proxy_headers", True),
    (["--proxy-headers", "--proxy-headers-host", "H"], "proxy_headers_host", "H"),
    (["--proxy-headers", "--proxy-headers-port", "P"], "proxy_headers_port", "P"),
    (["-s", "n"], "server_name", "n"),
    (["--server-name", "n"], "server_name", "n"),
    (["--no-server-name"], "server_name", ""),
]  # fmt: skip

#: Prefixes that Daphne's own parser takes; those marked would be ambiguous beside the flags that are new here.
ABBREVIATIONS = [
    (["--verb", "2"], "verbosity", 2),
    (["--ver", "2"], "verbosity", 2),  # --version
    (["--unix", "/s"], "unix_socket", "/s"),  # --unix-socket-mode
    (["--access=-"], "access_log", "-"),  # --access-log-format
    (["--log", "%(message)s"], "log_fmt", "%(message)s"),  # --log-config
    (["--app", "3"], "application_close_timeout", 3.0),  # --app-dir
    (["--no"], "server_name", ""),  # --no-factory and others
    (["--f", "3"], "file_descriptor", 3),  # --factory and others
    (["--websocket-max-m", "3"], "websocket_max_message_size", 3),
    (["--websocket_t", "3"], "websocket_timeout", 3.0),
    (["--r", "/r"], "root_path", "/r"),
]


class FakeServer:
    """Stands in for the server: remembers what it was made with, and fails when a test says so."""

    made: FakeServer | None = None
    failure: BaseException | None = None

    def __init__(self, application: Any, settings: Settings) -> None:
        type(self).made = self
        self.application = application
        self.settings = settings
        self.was_run = False

    def run(self) -> None:
        self.was_run = True
        if self.failure is not None:
            raise self.failure


async def application(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> type[FakeServer]:
    """No real server, no other process, no file, no logging set up, no variables of whoever runs the tests."""

    class Server(FakeServer):
        pass

    monkeypatch.setattr(CommandLineInterface, "server_class", Server)
    monkeypatch.setattr(cli.logs, "configure", lambda settings: None)
    monkeypatch.setattr(cli.logs, "bridge_twisted", lambda: None)
    monkeypatch.setattr(cli, "pid_file", lambda path: nullcontext())
    # The real one becomes another process, and never comes back.
    monkeypatch.setattr(launch, "supervise", lambda interface, args: None)
    for name in [name for name in os.environ if name.startswith("ASGISERVER_") or name == "WEB_CONCURRENCY"]:
        monkeypatch.delenv(name)
    return Server


class Interface(CommandLineInterface):
    """A command line whose application needs no import."""

    def load_asgi_app(self, asgi_app_path: str) -> Any:
        self.path = asgi_app_path
        return application


def settings_of(*args: str) -> Settings:
    """The settings that the server is made with for these arguments."""
    interface = Interface()
    interface.run([*args, "module:app"])
    assert isinstance(interface.server, FakeServer)
    assert interface.server.was_run
    return interface.server.settings


def refusal(capsys: pytest.CaptureFixture[str], *args: str, interface: CommandLineInterface | None = None) -> str:
    """The one line that a wrong command line ends with; its status is 2."""
    with pytest.raises(SystemExit) as caught:
        (interface or Interface()).run(args)
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert output.out == ""
    assert output.err.startswith("asgiserver: error: ")
    assert output.err.count("\n") == 1
    return output.err.removeprefix("asgiserver: error: ").strip()


def needed(name: str) -> list[str]:
    return NEEDED.get(name, NEEDED_BY_GROUP.get(information(name).group, []))


def fields() -> list[str]:
    return [field.name for field in dataclasses.fields(Settings) if information(field.name).command_line]


def spelt(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else ""


class TestFlags:
    @pytest.mark.parametrize("name", fields())
    def test_each_spelling_of_each_flag_reaches_its_own_setting_and_no_other(self, name: str) -> None:
        text, value = VALUES.get(name, ("4321", 4321))
        other = ["--" + spelling.replace("_", "-") for spelling in spellings(name)]
        for flag in dict.fromkeys([*flags(name), *other]):
            given = [flag] if text is None else [flag, text]
            beside = settings_of(*needed(name))
            changes = {name: value}
            expected = dataclasses.replace(beside, **changes)
            assert settings_of(*needed(name), *given) == (quick(expected) if name == "reload" else expected)
            if not isinstance(value, bool):
                assert beside != expected, "the table must give something else than the default"

    @pytest.mark.parametrize(("args", "name", "value"), DAPHNE, ids=spelt)
    def test_every_spelling_of_daphne_means_what_it_means_there(self, args: list[str], name: str, value: Any) -> None:
        assert getattr(settings_of(*args), name) == value

    @pytest.mark.parametrize(("args", "name", "value"), ABBREVIATIONS, ids=spelt)
    def test_an_abbreviation_that_daphne_takes_is_taken(self, args: list[str], name: str, value: Any) -> None:
        assert getattr(settings_of(*args), name) == value

    @pytest.mark.parametrize(
        ("word", "number"),
        [("critical", -2), ("error", -1), ("WARNING", 0), ("info", 1), ("debug", 2), ("trace", 3)],
    )
    def test_a_level_has_a_name(self, word: str, number: int) -> None:
        assert settings_of("--log-level", word).verbosity == settings_of("-v", str(number)).verbosity == number

    def test_there_may_be_no_access_log(self) -> None:
        assert settings_of("--no-access-log").access_log == ""
        assert Settings.from_keywords(access_log=False) == Settings(access_log="")
        assert Settings.from_keywords(access_log=True) == Settings()

    def test_the_defaults_are_those_of_settings(self) -> None:
        assert settings_of() == Settings()

    @pytest.mark.parametrize("name", [name for name in fields() if isinstance(getattr(Settings(), name), bool)])
    def test_each_switch_can_be_turned_on_and_off(self, name: str) -> None:
        dashed = name.replace("_", "-")
        assert getattr(settings_of(f"--no-{dashed}"), name) is False
        assert getattr(settings_of(f"--no-{dashed}", f"--{dashed}"), name) is True

    def test_a_repeatable_flag_keeps_the_order_and_every_character(self) -> None:
        given = settings_of("--header", "X-B: 1, 2", "--header", 'X-A: "q"', "-e", r"tcp:80:interface=\:\:1")
        assert given.headers == ("X-B: 1, 2", 'X-A: "q"')
        assert given.endpoints == (r"tcp:80:interface=\:\:1",)

    def test_flags_may_follow_the_application(self) -> None:
        interface = Interface()
        interface.run(["module:app", "-p", "9"])
        assert interface.path == "module:app"
        assert interface.settings.port == 9


class TestAbbreviations:
    def test_what_daphne_would_find_ambiguous_is_left_alone(self) -> None:
        assert expanded(["--p", "1", "--proxy", "--websocket"]) == ["--p", "1", "--proxy", "--websocket"]

    def test_a_full_flag_that_begins_a_longer_one_is_left_alone(self) -> None:
        assert expanded(["--proxy-headers", "--fd=3", "--h"]) == ["--proxy-headers", "--fd=3", "--h"]

    def test_values_short_flags_and_all_after_two_dashes_are_left_alone(self) -> None:
        args = ["-v", "2", "-vb", "verb", "--", "--verb"]
        assert expanded(args) == args

    def test_the_value_after_the_equals_sign_is_kept(self) -> None:
        assert expanded(["--root=/a=b--verb"]) == ["--root-path=/a=b--verb"]

    @pytest.mark.parametrize("flag", ["--graceful-t", "--limit"])
    def test_flags_that_daphne_lacks_are_not_shortened(self, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert refusal(capsys, flag, "3", "module:app").startswith(f"there is no {flag}")


class TestWorkers:
    """The supervisor takes the place of this process."""

    def test_one_is_made_when_workers_are_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(launch, "supervise", lambda interface, args: asked.append((type(interface), args)))
        settings_of()
        assert asked == []
        settings_of("--workers", "0")
        settings_of("--reload")
        assert asked == [(Interface, ["--workers", "0", "module:app"]), (Interface, ["--reload", "module:app"])]

    @pytest.mark.parametrize("args", [("--workers", "2"), ("--reload",)])
    def test_none_is_made_for_a_check(self, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launch, "supervise", None)
        with pytest.raises(SystemExit) as ended:
            settings_of(*args, "--check")
        assert ended.value.code == 0

    def test_an_interface_that_no_worker_can_import_is_refused(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()
        interface = Interface()
        monkeypatch.setattr(Interface, "__module__", "__main__")
        assert "has to be in a module" in refusal(capsys, "--workers", "2", "module:app", interface=interface)


class TestReload:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--reload-dir", "no/such"], "--reload-dir: 'no/such' is not a folder"),
            (["--workers", "2"], "--reload and --workers: expected only one of them"),
        ],
    )
    def test_a_mistake_is_one_line(
        self, args: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()
        assert message in refusal(capsys, "--reload", *args, "module:app")

    def test_without_watchfiles_the_extra_is_named(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()
        monkeypatch.setattr("asgiserver.workers.watch.find_spec", lambda name: None)
        assert "pip install 'asgiserver[standard]'" in refusal(capsys, "--reload", "module:app")

    @pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "ASGISERVER_WORKERS"])
    @pytest.mark.parametrize("args", [["--reload"], []])
    def test_workers_from_elsewhere_are_ignored(
        self, variable: str, args: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, "4")
        monkeypatch.setenv("ASGISERVER_RELOAD", "1")
        settings = settings_of(*args)
        assert (settings.reload, settings.workers) == (True, None)

    def test_a_worker_makes_way_at_once_and_may_stand_in_a_debugger(self) -> None:
        settings = settings_of("--reload")
        assert (settings.graceful_timeout, settings.graceful_idle, settings.drain_timeout) == (0.5, 0.05, 0)
        assert settings.worker_timeout is settings.worker_start_timeout is None
        assert settings_of("--reload", "--graceful-timeout", "-1").graceful_timeout == 0.5
        assert settings_of("--reload", "--graceful-timeout", "0.1").graceful_timeout == 0.1


class TestEnvironment:
    @pytest.mark.parametrize(
        ("variables", "args", "workers"),
        [
            ({"WEB_CONCURRENCY": "3"}, [], 3),
            ({"WEB_CONCURRENCY": ""}, [], None),
            ({"WEB_CONCURRENCY": "3", "ASGISERVER_WORKERS": "4"}, [], 4),
            ({"WEB_CONCURRENCY": "3", "ASGISERVER_WORKERS": "4"}, ["--workers", "5"], 5),
        ],
    )
    def test_web_concurrency_is_the_number_of_workers(
        self, variables: dict[str, str], args: list[str], workers: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)
        assert settings_of(*args).workers == workers

    def test_web_concurrency_that_is_no_number_is_named(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WEB_CONCURRENCY", "many")
        assert refusal(capsys, "module:app") == "WEB_CONCURRENCY: expected a whole number, got 'many'"

    @pytest.mark.parametrize("name", fields())
    def test_each_setting_is_read_from_its_variable(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        text, value = VALUES.get(name, ("4321", 4321))
        if text is None:
            text = "yes"
        elif name == "headers":
            text = f"'{text}'"  # a list is split as a shell splits it
        monkeypatch.setenv(f"ASGISERVER_{name.upper()}", text)
        assert getattr(settings_of(*needed(name)), name) == value

    def test_a_flag_wins_over_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ASGISERVER_PORT", "1")
        monkeypatch.setenv("ASGISERVER_PROXY_HEADERS", "1")
        monkeypatch.setenv("ASGISERVER_ENDPOINTS", "tcp:1 tcp:2")
        given = settings_of("-p", "2", "--no-proxy-headers", "-e", "tcp:3")
        assert (given.port, given.proxy_headers, given.endpoints) == (2, False, ("tcp:3",))

    def test_a_variable_of_the_wrong_type_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("ASGISERVER_PORT", "http")
        assert refusal(capsys, "module:app") == "ASGISERVER_PORT: expected a whole number, got 'http'"

    def test_the_brackets_of_an_address_are_taken_off_here_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ASGISERVER_HOST", "[::1]")
        assert settings_of().host == "::1"


class TestWrongUsage:
    @pytest.mark.parametrize(("args", "message"), [
        ([], "the following arguments are required: MODULE:ATTRIBUTE"),
        (["--access-log", "m:a"],
         "the following arguments are required: MODULE:ATTRIBUTE; --access-log takes a value, and took 'm:a' for it"),
        (["--bogus", "m:a"], "there is no --bogus"),
        (["--bogus", "3", "m:a"], "there is no --bogus"),
        (["m:a", "n:b"], "expected one MODULE:ATTRIBUTE, got m:a n:b"),
        (["-p", "http", "m:a"], "-p: expected a whole number, got 'http'"),
        (["-t", "soon", "m:a"], "-t: expected a number, got 'soon'"),
        (["--unix-socket-mode", "9", "m:a"], "--unix-socket-mode: expected an octal number, got '9'"),
        (["--interface", "cgi", "m:a"], "--interface: expected one of auto, asgi3, asgi2, wsgi, got 'cgi'"),
        (["m:a", "-p"], "-p: expected a value after it"),
        (["-p", "--factory", "m:a"], "-p: expected a value after it"),
        (["--factory=yes", "m:a"], "--factory: expected no value after it"),
        (["-v", "4", "m:a"], "-v: expected at most 3, got 4"),
        (["--log-level", "loud", "m:a"], "--log-level: expected a whole number or one of critical, error, warning, "),
        (["-v", "-3", "m:a"], "-v: expected at least -2, got -3"),
        (["-p", "65536", "m:a"], "-p: expected at most 65535, got 65536"),
        (["--header", "nonsense", "m:a"], "--header: expected NAME:VALUE, got 'nonsense'"),
        (["--ssl-keyfile", "k", "m:a"], "--ssl-keyfile needs --ssl-certfile beside it"),
        (["--proxy-headers-host", "X", "m:a"], "--proxy-headers-host needs --proxy-headers beside it"),
        (["--proxy-headers-port", "X", "m:a"], "--proxy-headers-port needs --proxy-headers beside it"),
    ])  # fmt: skip
    def test_it_is_told_on_one_line_with_status_2(
        self, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert refusal(capsys, *args).startswith(message)

    def test_all_mistakes_are_told_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        args = ["m:a", "--uds", "/x", "--hed-timeout=5", "-p", "http", "-k", "x", "--body-timeout", "-7", "-t"]
        assert refusal(capsys, *args) == (
            "there is no --uds: use -u/--unix-socket; there is no --hed-timeout; did you mean --head-timeout?; "
            "there is no -k: each worker runs an event loop; leave it out, or see --loop and --interface; "
            "-t: expected a value after it; -p: expected a whole number, got 'http'; "
            "--body-timeout: expected 0 for none, or a greater number, got -7.0 (see asgiserver --help)"
        )

    def test_a_line_about_the_usage_names_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert refusal(capsys, "--bogus", "m:a").endswith("(see asgiserver --help)")

    def test_nothing_is_made_then(self, server: type[FakeServer]) -> None:
        with pytest.raises(SystemExit):
            Interface().run(["-v", "4", "m:a"])
        assert server.made is None


class TestHelpAndVersion:
    def test_version_is_printed_with_status_0(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"asgiserver {__version__}\n"

    @pytest.fixture
    def text(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("COLUMNS", "80")
        return CommandLineInterface().parser.format_help()

    def test_it_fits_80_columns(self, text: str) -> None:
        assert [line for line in text.splitlines() if len(line) > 80] == []

    def test_every_setting_stands_under_its_heading_with_its_sentence(self, text: str) -> None:
        flat = " ".join(re.sub(r"-\n\s+", "-", text).split())
        for name in fields():
            info = information(name)
            assert f" {info.group}: " in flat
            shown = next(flag for flag in reversed(flags(name)) if "_" not in flag)
            if getattr(Settings(), name) is True:
                shown = shown.replace("--", "--no-")
            assert f" {shown}" in flat
            assert " ".join(info.text.split()) in flat

    @pytest.mark.parametrize(
        "default", ["[2048]", "[666]", "[60]", "[86400]", "[65536]", "[auto]", "[on]", "[127.0.0.1,::1]", "[%(asctime)"]
    )
    def test_defaults_are_shown_as_they_would_be_written(self, text: str, default: str) -> None:
        assert default in text

    def test_the_underscored_spellings_are_not_shown_twice(self, text: str) -> None:
        assert "--websocket_timeout" not in text
        assert "--websocket-timeout" in text

    def test_the_default_address_and_an_example_stand_in_its_first_lines(self, text: str) -> None:
        first = text.splitlines()[:8]
        assert any("http://127.0.0.1:8000" in line for line in first)
        assert "  asgiserver mysite.asgi:application" in first

    @pytest.mark.parametrize("word", ["header", "URL", "body", "Exit status", "SIGTERM", "README", "--log-level"])
    def test_what_is_looked_for_is_there(self, text: str, word: str) -> None:
        assert word in re.sub(r"-\n\s+", "-", text)

    def test_no_group_is_longer_than_a_screen(self) -> None:
        groups = CommandLineInterface().parser._action_groups
        assert max(sum(action.help != "==SUPPRESS==" for action in group._group_actions) for group in groups) <= 12

    def test_daphnes_flags_are_listed_whole(self) -> None:
        # The table of abbreviations is worth nothing if a flag in it does not exist.
        known = {option for action in CommandLineInterface().parser._actions for option in action.option_strings}
        assert set(DAPHNE_FLAGS) <= known


class TestFailures:
    @pytest.mark.parametrize(("failure", "status"), [
        (ListenError("cannot listen on 127.0.0.1:80: permission denied"), 1),
        (ReactorError("another reactor is installed"), 1),
        (SettingsError("ssl_certfile: cannot be read"), 2),
        (LifespanError("the application did not start: no database"), 3),
    ])  # fmt: skip
    def test_the_servers_errors_become_one_line_and_a_status(
        self, failure: Exception, status: int, server: type[FakeServer], capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.failure = failure
        with pytest.raises(SystemExit) as caught:
            Interface().run(["module:app"])
        assert caught.value.code == status
        told = str(failure).replace("ssl_certfile", "--ssl-certfile")
        assert capsys.readouterr().err == f"asgiserver: error: {told}\n"

    def test_what_the_application_raised_in_its_start_up_is_shown_above_the_line(
        self, server: type[FakeServer], capsys: pytest.CaptureFixture[str]
    ) -> None:
        def connect() -> None:
            raise ConnectionError("no database")

        try:
            connect()
        except ConnectionError as error:
            server.failure = LifespanError("the application raised ConnectionError: no database")
            server.failure.__cause__ = error
        with pytest.raises(SystemExit) as caught:
            Interface().run(["module:app"])
        assert caught.value.code == 3
        first, *_, raised, last = capsys.readouterr().err.splitlines()
        assert first == "Traceback (most recent call last):"
        assert raised == "ConnectionError: no database"
        assert last == "asgiserver: error: the application raised ConnectionError: no database"

    @pytest.mark.parametrize("error", [ListenError("in use"), SettingsError("wrong")])
    def test_no_other_cause_is_shown(
        self, error: Exception, server: type[FakeServer], capsys: pytest.CaptureFixture[str]
    ) -> None:
        error.__cause__ = OSError("in use")
        server.failure = error
        with pytest.raises(SystemExit):
            Interface().run(["module:app"])
        assert capsys.readouterr().err == f"asgiserver: error: {error}\n"

    def test_a_bad_logging_configuration_is_told_before_anything_is_imported(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def configure(settings: Settings) -> None:
            raise SettingsError("log_config: not found")

        monkeypatch.setattr(cli.logs, "configure", configure)
        assert refusal(capsys, "not_there:app", interface=CommandLineInterface()) == "--log-config: not found"

    def test_an_unexpected_error_of_the_server_is_not_hidden(self, server: type[FakeServer]) -> None:
        server.failure = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            Interface().run(["module:app"])

    def test_an_application_that_cannot_be_found_is_told_on_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.path", [])
        message = refusal(capsys, "not_there:app", "--app-dir", str(tmp_path), interface=CommandLineInterface())
        assert message.startswith("no module named 'not_there'")

    @pytest.mark.parametrize(
        ("failure", "status"), [(KeyboardInterrupt(), 130), (SystemExit(7), 7)], ids=["interrupt", "exit"]
    )
    def test_what_ends_the_process_during_the_import_ends_it_quietly(
        self, failure: BaseException, status: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Ending(CommandLineInterface):
            def load_asgi_app(self, asgi_app_path: str) -> Any:
                raise failure

        with pytest.raises(SystemExit) as caught:
            Ending().run(["module:app"])
        assert caught.value.code == status
        assert capsys.readouterr().err == ""


class TestTracebackOfTheApplication:
    def printed(self, folder: Path, source: str, capsys: pytest.CaptureFixture[str], *args: str) -> str:
        name = f"cli_{folder.name}".replace("-", "_")
        folder.joinpath(f"{name}.py").write_text(source)
        with pytest.raises(SystemExit) as caught:
            CommandLineInterface().run([*args, "--app-dir", str(folder), f"{name}:app"])
        assert caught.value.code == 1
        return capsys.readouterr().err

    @pytest.fixture(autouse=True)
    def import_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.path", list(sys.path))

    def test_it_begins_with_the_applications_own_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        error = self.printed(tmp_path, "import not_installed", capsys)
        assert error.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}')
        assert error.endswith("ModuleNotFoundError: No module named 'not_installed'\n")
        assert "importlib" not in error
        assert "asgiserver" not in error.replace(str(tmp_path), "")

    def test_a_syntax_error_shows_its_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        error = self.printed(tmp_path, "\nreturn = 3\n", capsys)
        assert re.search(r'\.py", line 2\n    return = 3\n', error)
        assert error.endswith("SyntaxError: invalid syntax\n")

    def test_a_factorys_error_shows_the_factory(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        error = self.printed(tmp_path, "def app():\n    raise OSError('no database')\n", capsys, "--factory")
        assert 'line 2, in app\n' in error
        assert error.endswith("OSError: no database\n")


class TestSubclasses:
    def test_an_own_flag_of_a_subclass_is_no_setting(self) -> None:
        class Extended(Interface):
            def __init__(self) -> None:
                super().__init__()
                self.parser.add_argument("--tenant")

        interface = Extended()
        interface.run(["--tenant", "x", "module:app"])
        assert interface.settings == Settings()

    def test_a_default_that_a_subclass_sets_is_used(self) -> None:
        interface = Interface()
        interface.parser.set_defaults(port=8443)
        interface.run(["module:app"])
        assert interface.settings.port == 8443

    def test_description_and_server_class_are_a_subclasses_own(self) -> None:
        class Other(FakeServer):
            pass

        class Branded(Interface):
            description = "Serves the shop."
            server_class = Other  # type: ignore[assignment]

        interface = Branded()
        assert "Serves the shop." in interface.parser.format_help()
        interface.run(["module:app"])
        assert type(interface.server) is Other

    def test_the_hook_sees_the_settings_and_its_application_is_served(self, server: type[FakeServer]) -> None:
        class Hooked(CommandLineInterface):
            def load_asgi_app(self, asgi_app_path: str) -> Any:
                assert (asgi_app_path, self.settings.port) == ("shop", 5)
                return application

        Hooked().run(["-p", "5", "shop"])
        assert server.made is not None
        assert server.made.application is application

    def test_the_entry_point_takes_the_arguments_of_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["anything", "-p", "5", "module:app"])
        seen: list[Any] = []
        monkeypatch.setattr(Interface, "run", lambda self, args: seen.append(args))
        Interface.entrypoint()
        assert seen == [["-p", "5", "module:app"]]


class TestMain:
    def test_it_returns_0_after_the_server_has_ended(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CommandLineInterface, "load_asgi_app", lambda self, path: application)
        assert main(["module:app"]) == 0

    def test_logging_is_set_up_before_the_application_is_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        monkeypatch.setattr(cli.logs, "configure", lambda settings: order.append("configure"))
        monkeypatch.setattr(cli.logs, "bridge_twisted", lambda: order.append("bridge"))
        monkeypatch.setattr(CommandLineInterface, "load_asgi_app", lambda self, path: order.append("load"))
        main(["module:app"])
        assert order == ["configure", "bridge", "load"]

    def test_the_servers_loggers_are_enabled_once_the_application_was_imported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []

        class Recording(CommandLineInterface):
            def load_asgi_app(self, asgi_app_path: str) -> Any:
                steps.append("import")
                return application

        monkeypatch.setattr(cli.logs, "enable", lambda: steps.append("enable"))
        Recording().run(["module:app"])
        assert steps == ["import", "enable"]

    def test_making_a_command_line_sets_up_no_logging(self) -> None:
        before = list(logging.getLogger().handlers)
        CommandLineInterface()
        assert logging.getLogger().handlers == before
