"""Where settings come from: files, variables and flags, and what wins."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st

from asgiserver import config
from asgiserver.config import Configuration, collect, found_file, key, read_file, read_variables, shown
from asgiserver.errors import SettingsError
from asgiserver.settings import Settings, information

NAMES = [field.name for field in dataclasses.fields(Settings)]

#: A value of each kind of setting as TOML has it, and what becomes of it; other settings take a number.
VALUES: dict[str, tuple[str, Any]] = {
    "host": ('"::1"', "::1"),
    "unix_socket": ('"/run/a.sock"', "/run/a.sock"),
    "unix_socket_mode": ('"640"', 0o640),
    "endpoints": ('["tcp:80", "tcp:81"]', ("tcp:80", "tcp:81")),
    "metrics": ('["tcp:82", "unix:/m"]', ("tcp:82", "unix:/m")),
    "ssl_certfile": ('["/a.pem", "/b.pem"]', ("/a.pem", "/b.pem")),
    "ssl_keyfile": ('"/k.pem"', ("/k.pem",)),
    "ssl_keyfile_password": ('"secret"', "secret"),
    "ssl_keyfile_password_file": ('"/p"', "/p"),
    "ssl_ca_certs": ('"/ca.pem"', "/ca.pem"),
    "ssl_cert_reqs": ('"none"', "none"),
    "ssl_min_version": ('"TLSv1.3"', "TLSv1.3"),
    "ssl_ciphers": ('"ECDHE+AESGCM"', "ECDHE+AESGCM"),
    "interface": ('"wsgi"', "wsgi"),
    "workers": ("4", 4),
    "preload": ('"off"', "off"),
    "pid_file": ('"/run/a.pid"', "/run/a.pid"),
    "reload": ("true", True),
    "reload_dir": ('["/site", "/other"]', ("/site", "/other")),
    "reload_include": ('"*.html"', ("*.html",)),
    "reload_exclude": ('"media/*"', ("media/*",)),
    "factory": ("true", True),
    "app_dir": ('"/site"', "/site"),
    "lifespan": ('"off"', "off"),
    "django": ('"off"', "off"),
    "root_path": ('"mount/"', "/mount"),
    "loop": ('"asyncio"', "asyncio"),
    "http2": ('"off"', "off"),
    "server_name": ('""', ""),
    "headers": ('["X-A: b"]', ("X-A: b",)),
    "websocket_compression": ("false", False),
    "proxy_headers": ("true", True),
    "forwarded_allow_ips": ('["10.0.0.0/8", "unix"]', ("10.0.0.0/8", "unix")),
    "proxy_allow_ips": ('"10.0.0.7,unix"', ("10.0.0.7", "unix")),
    "proxy_headers_host": ('"X-Real-IP"', "X-Real-IP"),
    "proxy_headers_port": ('"X-Real-Port"', "X-Real-Port"),
    "proxy_headers_proto": ('"X-Scheme"', "X-Scheme"),
    "verbosity": ("2", 2),
    "access_log": ('"-"', "-"),
    "access_log_format": ('"json"', "json"),
    "log_format": ('"json"', "json"),
    "log_fmt": ('"%(message)s"', "%(message)s"),
    "log_config": ('"/log.toml"', "/log.toml"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text, "utf-8")
    return name


def collected(
    config: str | None = None, env_file: str | None = None, environ: dict[str, str] | None = None, **given: Any
) -> Configuration:
    return collect(given, config, env_file, {} if environ is None else environ)


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFile:
    @pytest.mark.parametrize("name", NAMES)
    def test_each_setting_is_read_from_its_key(self, name: str) -> None:
        text, value = VALUES.get(name, ("4321", 4321))
        values, origins, labels = read_file(write("a.toml", f"{key(name)} = {text}\n"))
        assert values == {name: value}
        assert labels == {name: f"a.toml: {key(name)}"}
        assert type(values[name]) in (type(value), float)
        assert origins == {name: "a.toml"}
        assert value != getattr(Settings(), name), "the table must give something else than the default"

    @pytest.mark.parametrize("name", [name for name in NAMES if "-" in key(name)])
    def test_underscores_do_for_dashes(self, name: str) -> None:
        text, value = VALUES.get(name, ("4321", 4321))
        assert read_file(write("a.toml", f"{key(name).replace('-', '_')} = {text}\n"))[0] == {name: value}

    def test_keys_are_the_flags_names(self) -> None:
        assert [key(name) for name in ("host", "file_descriptor", "endpoints", "headers", "websocket_timeout")] == [
            "host", "fd", "endpoint", "header", "websocket-timeout",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "name", "value"),
        [("bind = '::1'", "host", "::1"), ("file-descriptor = 3", "file_descriptor", 3),
         ("endpoints = ['tcp:1']", "endpoints", ("tcp:1",)), ("headers = ['X:1']", "headers", ("X:1",)),
         ("log-level = 'debug'", "verbosity", 2)],
    )  # fmt: skip
    def test_a_settings_other_names_do_as_well(self, text: str, name: str, value: Any) -> None:
        assert read_file(write("a.toml", text))[0] == {name: value}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("prot = 1", "there is no setting 'prot'; did you mean port?"),
            ("host = 'a'\nbind = 'b'", "bind: given twice"),
            ("no-factory = true", "there is no setting 'no-factory'; did you mean factory?"),
            ("aplication = 'a'", "there is no setting 'aplication'; did you mean application?"),
            ("zzz = 1", "there is no setting 'zzz'"),
            ("[tls]\nport = 1", "there is no setting 'tls'"),
            ("head-timeout = 1\nhead_timeout = 2", "head_timeout: given twice"),
            ("port = '80'", "port: expected a whole number, got '80'"),
            ("port = 65536", "port: expected at most 65535, got 65536"),
            ("factory = 1", "factory: expected yes or no, got 1"),
            ("http-timeout = nan", "http-timeout: expected a finite number, got nan"),
            ("lifespan = 'maybe'", "lifespan: expected one of auto, on, off, got 'maybe'"),
            ("bind = 'a:8'", "bind: expected an address or a name without the port, got 'a:8': give host a and port 8"),
            ("header = ['x']", "header: expected NAME:VALUE, got 'x'"),
            ("endpoint = [1]", "endpoint: expected a list of texts, got (1,)"),
            ("server-name = {a = 1}", "server-name: expected text, got {'a': 1}"),
            ("unix-socket-mode = 0o640", 'unix-socket-mode: expected an octal number in quotes, like "660"'),
            ("unix-socket-mode = '9'", "unix-socket-mode: expected an octal number, got '9'"),
            ("unix-socket-mode = '7777'", "unix-socket-mode: expected at most 511, got 4095"),
            ("application = 1", "application: expected text, got 1"),
            ("ssl-keyfile-password = 1234", "ssl-keyfile-password: expected text"),
            ("port = x", "Invalid value (at line 1, column 8)"),
        ],
    )
    def test_a_mistake_names_the_file_and_the_key(self, text: str, message: str) -> None:
        assert refusal(read_file, write("a.toml", text)) == f"a.toml: {message}"

    def test_what_is_no_text_is_refused(self, folder: Path) -> None:
        (folder / "a.toml").write_bytes(b"root-path = '\xff'")
        assert refusal(read_file, "a.toml").startswith("a.toml: 'utf-8' codec can't decode")

    def test_the_references_example_is_one(self) -> None:
        reference = (Path(__file__).parents[1] / "examples" / "README.md").read_text("utf-8")
        values, *_ = read_file(write("a.toml", reference.split("```toml\n")[1].split("```")[0]))
        assert values["application"] == "mysite.asgi:application"
        assert values["unix_socket_mode"] == 0o660

    def test_one_that_is_named_has_to_be_there(self) -> None:
        assert refusal(read_file, "a.toml") == "cannot read a.toml: No such file or directory"

    def test_paths_are_relative_to_its_folder(self, folder: Path) -> None:
        (folder / "etc").mkdir()
        text = "ssl-certfile = ['chain.pem', '/k/chain.pem']\napp-dir = '.'\naccess-log = '-'\nroot-path = 'shop'\n"
        values, *_ = read_file(write("etc/a.toml", text))
        etc = os.path.join(os.getcwd(), "etc")
        assert values == {
            "ssl_certfile": (f"{etc}/chain.pem", "/k/chain.pem"), "app_dir": f"{etc}/.", "access_log": "-",
            "root_path": "/shop",
        }  # fmt: skip


class TestWhichFile:
    OWN, PROJECT = "port = 1\n", "[project]\nname = 'site'\n\n  [ tool.asgiserver ]  # ours\nport = 2\n"

    def test_that_of_the_working_directory(self) -> None:
        write("pyproject.toml", self.PROJECT)
        values, origins, _ = read_file(found_file())
        assert values == {"port": 2}
        assert origins == {"port": "pyproject.toml: [tool.asgiserver]"}
        write("asgiserver.toml", self.OWN)
        assert read_file(found_file())[:2] == ({"port": 1}, {"port": "asgiserver.toml"})

    def test_none_is_needed(self) -> None:
        assert read_file(found_file()) == ({}, {}, {})

    def test_one_further_up_is_not_looked_for(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write("asgiserver.toml", self.OWN)
        (folder / "below").mkdir()
        monkeypatch.chdir("below")
        assert read_file(found_file()) == ({}, {}, {})

    def test_a_project_that_says_nothing_of_us_is_not_even_parsed(self) -> None:
        write("pyproject.toml", "[tool.asgiserver-plugin]\nport = 1\ndependencies = ['asgiserver'\n")
        assert read_file(found_file()) == ({}, {}, {})

    def test_a_mistake_in_a_project_names_the_table(self) -> None:
        write("pyproject.toml", "[tool.asgiserver]\nprot = 2\n")
        message = "pyproject.toml: [tool.asgiserver]: there is no setting 'prot'; did you mean port?"
        assert refusal(read_file, found_file()) == message

    @pytest.mark.parametrize("text", ["", "tool = 1", "[tool]\nasgiserver = 1"])
    def test_a_project_that_is_named_has_to_have_the_table(self, text: str) -> None:
        write("pyproject.toml", text)
        assert refusal(read_file, "./pyproject.toml") == "./pyproject.toml: expected a table [tool.asgiserver]"

    def test_an_empty_name_is_for_none(self) -> None:
        write("asgiserver.toml", self.OWN)
        assert read_file("") == ({}, {}, {})

    def test_a_variable_may_name_it(self) -> None:
        write("asgiserver.toml", self.OWN)
        write("b.toml", "port = 3")
        environ = {"ASGISERVER_CONFIG": "b.toml"}
        assert collected(environ=environ).settings.port == 3
        assert collected("asgiserver.toml", environ=environ).settings.port == 1

    def test_a_variable_that_means_nothing_is_named_with_what_may_have_been_meant(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = "ASGISERVER_CONFIG", "ASGISERVER_APPLICATION", "ASGISERVER_BIND", "ASGISERVER_PROT", "ASGISERVER_X"
        config.warn_of_unknown_variables(dict.fromkeys(names, "1"))
        assert caplog.messages == [
            "ASGISERVER_PROT is not the variable of any setting and is ignored; did you mean ASGISERVER_PORT?",
            "ASGISERVER_X is not the variable of any setting and is ignored",
        ]


class TestOrder:
    def test_flag_environment_file_default(self) -> None:
        write("asgiserver.toml", "port = 1\nverbosity = 2\nbacklog = 3\napplication = 'a'\n")
        environ = {"ASGISERVER_PORT": "11", "ASGISERVER_VERBOSITY": "3", "ASGISERVER_APPLICATION": "b"}
        found = collected(environ=environ, port=21)
        assert (found.settings.port, found.settings.verbosity, found.settings.backlog) == (21, 3, 3)
        assert found.settings == Settings(port=21, verbosity=3, backlog=3)
        assert found.application == "b"
        assert found.origins == {
            "port": "command line", "verbosity": "environment: ASGISERVER_VERBOSITY", "backlog": "asgiserver.toml",
            "application": "environment: ASGISERVER_APPLICATION",
        }  # fmt: skip
        assert collected(environ=environ, application="c").application == "c"

    def test_an_error_names_what_its_user_wrote(self) -> None:
        write("asgiserver.toml", "ssl_keyfile = 'k.pem'\n")
        with pytest.raises(SettingsError) as caught:
            collected()
        assert str(caught.value) == "asgiserver.toml: ssl_keyfile needs --ssl-certfile beside it"
        environ = {"ASGISERVER_WORKERS": "2"}
        with pytest.raises(SettingsError) as caught:
            collected("", None, environ, reload=True, workers=2)
        assert str(caught.value) == "--reload and --workers: expected only one of them"
        with pytest.raises(SettingsError) as caught:
            collect({}, "", None, environ | {"ASGISERVER_LOG_LEVEL": "9"})
        assert str(caught.value) == "ASGISERVER_LOG_LEVEL: expected at most 3, got 9"
        with pytest.raises(SettingsError) as caught:
            collect({"verbosity": 9}, "", None, environ, {"verbosity": "-v"})
        assert str(caught.value) == "-v: expected at most 3, got 9"
        found = collect({"verbosity": 0}, "", None, {"WEB_CONCURRENCY": "3"}, {"verbosity": "--log-level"})
        assert found.labels == {"workers": "WEB_CONCURRENCY", "verbosity": "--log-level"}
        assert config.label(found.labels, "file_descriptor") == "--fd"
        assert config.label(found.labels, "no module named 'x'") == "no module named 'x'"

    def test_two_variables_of_one_setting_are_refused(self) -> None:
        environ = {"ASGISERVER_HOST": "a", "ASGISERVER_BIND": "b"}
        with pytest.raises(SettingsError, match="ASGISERVER_HOST and ASGISERVER_BIND: expected only one of them"):
            collected(environ=environ)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"unix_socket_mode": 0o600}, "--unix-socket-mode needs --unix-socket or --endpoint beside it"),
            ({"max_requests": 5}, "--max-requests needs --workers or --reload beside it"),
            ({"max_requests_jitter": 5, "workers": 2}, "--max-requests-jitter needs --max-requests beside it"),
            ({"reload_dir": ("a",)}, "--reload-dir needs --reload beside it"),
            ({"forwarded_allow_ips": ("*",)}, "--forwarded-allow-ips needs --proxy-headers beside it"),
            ({"ssl_ciphers": "ALL"}, "--ssl-ciphers needs --ssl-certfile beside it"),
            ({"log_fmt": "", "log_config": "a.json"}, "--log-fmt has no effect beside --log-config"),
        ],
    )
    def test_a_flag_without_effect_is_refused_but_not_a_files_key(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError) as caught:
            collect(given, "", None, {}, {name: "--" + name.replace("_", "-") for name in given})
        assert str(caught.value) == message
        collected(**given)

    def test_a_list_takes_the_place_of_a_list(self) -> None:
        write("asgiserver.toml", "endpoint = ['tcp:1', 'tcp:2']")
        assert collected(endpoints=["tcp:3"]).settings.endpoints == ("tcp:3",)

    def test_what_needs_something_beside_it_may_get_it_elsewhere(self) -> None:
        write("asgiserver.toml", "proxy-headers-host = 'X-Real-IP'\nssl-keyfile = 'k.pem'\nssl-certfile = 'c.pem'\n")
        with pytest.raises(SettingsError, match="toml: proxy-headers-host needs --proxy-headers beside it"):
            collected()
        found = collected(environ={"ASGISERVER_PROXY_HEADERS": "1"})
        assert (found.settings.proxy_headers, found.settings.proxy_headers_host) == (True, "X-Real-IP")

    def test_the_brackets_of_an_address_are_taken_off(self) -> None:
        write("asgiserver.toml", "bind = '[::1]'")
        assert collected().settings.host == "::1"

    def test_embedding_reads_no_file(self) -> None:
        from asgiserver.server import Server

        async def application(scope: Any, receive: Any, send: Any) -> None: ...

        write("asgiserver.toml", "port = 1")
        assert Settings().port is None
        assert Server(application).settings == Settings()


class TestVariables:
    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("A=1", {"A": "1"}),
            ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
            ("\n  # A=1\n\n\tB=2\n", {"B": "2"}),
            ("export A=1\nexport\tB='2'", {"A": "1", "B": "2"}),
            ("exported=1", {"exported": "1"}),
            ("A=", {"A": ""}),
            ("A=  # none\nB=#2", {"A": "", "B": "#2"}),
            ("A= \nB=1", {"A": "", "B": "1"}),
            ("A=''\nB=\"\"", {"A": "", "B": ""}),
            ("A=b#c # d", {"A": "b#c"}),
            ("A='b # c'  # d\nB=\"b # c\" # d", {"A": "b # c", "B": "b # c"}),
            ("A=$B ${C} `d` \\n", {"A": "$B ${C} `d` \\n"}),
            ("A={\"a\": 'b'}", {"A": "{\"a\": 'b'}"}),
            ("A=it's", {"A": "it's"}),
            (r"""A='$B \n "c"'""", {"A": r'$B \n "c"'}),
            (r'''A="a\nb\t\"c\" \\ \$D \` 'e'"''', {"A": "a\nb\t\"c\" \\ $D ` 'e'"}),
            ("A='-----BEGIN\nMII=\n-----END'\nB=1", {"A": "-----BEGIN\nMII=\n-----END", "B": "1"}),
            ("A=\"one\ntwo\"", {"A": "one\ntwo"}),
            ("A=1\r\nB='2'\r\n", {"A": "1", "B": "2"}),
            ("\ufeffA=1", {"A": "1"}),
            ("A=1\nA=2", {"A": "2"}),
            ("A=\xfc=b=", {"A": "\xfc=b="}),
            ("", {}),
        ],
    )
    def test_of_a_file(self, text: str, values: dict[str, str], folder: Path) -> None:
        (folder / "env").write_bytes(text.encode())
        assert read_variables("env") == values

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("A", 1), ("A=1\n\nB C=2", 3), ("=1", 1), ("1A=2", 1), ("A='1", 1), ('A="1', 1), ("A='1'2", 1),
            ("A='1'#2", 1), (r'A="\d"', 1), ("A='1\n2'\nB", 3), ("export A", 1), ("A=1\0", 1), ("A-B=1", 1),
            ('A="1" "2"', 1),
        ],
    )  # fmt: skip
    def test_a_line_that_is_none_is_named(self, text: str, line: int) -> None:
        assert refusal(read_variables, write("env", text)) == f"env: line {line}: expected NAME=VALUE"

    def test_a_file_that_cannot_be_read_is_named(self, folder: Path) -> None:
        assert refusal(read_variables, "env") == "cannot read env: No such file or directory"
        (folder / "env").write_bytes(b"A=\xff")
        assert refusal(read_variables, "env").startswith("env: 'utf-8' codec can't decode")

    def test_the_environment_has_what_it_lacked_and_keeps_what_it_had(self) -> None:
        environ = {"A": "mine", "ASGISERVER_PORT": "1"}
        write("env", "A=1\nB=2\nASGISERVER_PORT=5\nASGISERVER_BACKLOG=6\nASGISERVER_CONFIG=c.toml\n")
        write("c.toml", "verbosity = 0\nbacklog = 9\n")
        found = collected(None, "env", environ)
        assert environ == {
            "A": "mine", "B": "2", "ASGISERVER_PORT": "1", "ASGISERVER_BACKLOG": "6", "ASGISERVER_CONFIG": "c.toml",
        }  # fmt: skip
        assert found.settings == Settings(port=1, backlog=6, verbosity=0)
        assert found.origins == {
            "port": "environment: ASGISERVER_PORT", "backlog": "env: ASGISERVER_BACKLOG", "verbosity": "c.toml",
        }  # fmt: skip

    @given_by(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
                              st.text(st.characters(exclude_characters="\0'\r", codec="utf-8"))))
    def test_any_values_in_single_quotes_come_back(self, values: dict[str, str]) -> None:
        text = "".join(f"{name}='{value}'\n" for name, value in values.items())
        assert read_variables(write("env", text)) == values


class TestShown:
    def test_what_is_given_stands_with_its_origin_and_defaults_are_comments(self) -> None:
        write("asgiserver.toml", "port = 1\nhttp-timeout = 0\n")
        environ = {"ASGISERVER_HEAD_TIMEOUT": "5"}
        text = shown(collected(environ=environ, application="a:b", lifespan_startup_timeout=-1))
        lines = text.splitlines()
        assert lines[0] == 'application = "a:b"  # command line'
        assert "port = 1  # asgiserver.toml" in lines
        assert "head-timeout = 5.0  # environment: ASGISERVER_HEAD_TIMEOUT" in lines
        assert "http-timeout = 0  # asgiserver.toml" in lines
        assert "lifespan-startup-timeout = -1  # command line" in lines
        assert "# backlog = 2048  # default" in lines
        assert '# unix-socket-mode = "666"  # default' in lines
        assert "# host  # default" in lines
        assert lines.index("# Where to listen") < lines.index("port = 1  # asgiserver.toml") < lines.index("# TLS")

    def test_each_setting_has_a_line(self) -> None:
        lines = [line.removeprefix("# ") for line in shown(collected()).splitlines()]
        assert {line.split(" ")[0] for line in lines if line.endswith("# default")} == {key(name) for name in NAMES}

    def test_a_password_is_not_shown(self) -> None:
        given = {"ssl_certfile": ("/c.pem",), "ssl_keyfile_password": "hunter2"}
        text = shown(collected(**given))
        assert "hunter2" not in text
        assert "# ssl-keyfile-password  # command line" in text.splitlines()
        assert "hunter2" not in repr(Settings(**given))

    def fed_back(self, found: Configuration) -> Configuration:
        os.makedirs("elsewhere", exist_ok=True)
        return collected(write("elsewhere/shown.toml", shown(found)))

    @pytest.mark.parametrize("name", [name for name in NAMES if not information(name).secret])
    def test_fed_back_it_gives_the_same(self, name: str) -> None:
        beside = {"proxy_headers": True, "ssl_certfile": ("/c.pem",)}
        value = VALUES.get(name, ("4321", 4321))[1]
        found = collected(application="m:a", **beside | {name: value, "ssl_keyfile": ("/k.pem",) * len(value)}
                          if name == "ssl_certfile" else beside | {name: value})
        again = self.fed_back(found)
        assert again.settings == found.settings
        assert again.settings != Settings()
        assert again.application == "m:a"

    @given_by(st.text(st.characters(codec="utf-8")), st.lists(st.text(st.characters(codec="utf-8"))))
    def test_whatever_stands_in_a_text(self, text: str, more: list[str]) -> None:
        found = collected(server_name=text, headers=tuple(f"X:{each}" for each in more))
        assert self.fed_back(found).settings == found.settings

    def test_a_relative_path_means_the_same_file_elsewhere(self) -> None:
        again = self.fed_back(collected(ssl_certfile=["c.pem"], access_log="-", unix_socket="run/s")).settings
        here = os.getcwd()
        assert (again.ssl_certfile, again.access_log) == ((f"{here}/c.pem",), "-")
        assert again.unix_socket == f"{here}/run/s"

    def test_what_is_not_unicode_is_refused(self) -> None:
        assert refusal(shown, collected(access_log="/\udcff")) == r"access_log: TOML cannot write '/\udcff'"

    def test_no_name_of_a_file_breaks_its_line(self) -> None:
        found = collected(write("a\nport = 3.toml", "port = 1"))
        assert tomllib.loads(shown(found)) == {"port": 1}
