"""Settings: what each accepts, how texts become values, and that every error is one line that names the setting."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.errors import SettingsError
from asgiserver.settings import DAPHNE_KEYWORDS, Info, Settings, information, parse

FIELDS = dataclasses.fields(Settings)
NAMES = [field.name for field in FIELDS]
HINTS = get_type_hints(Settings)
BOUNDED = [
    (name, bound, step)
    for name in NAMES
    for bound, step in ((information(name).minimum, -1), (information(name).maximum, 1))
    if bound is not None
]
OFF = [(name, information(name).off) for name in NAMES if information(name).off]


def kept(name: str, value: Any) -> Any:
    """What becomes of ``value`` when ``name`` is set to it."""
    values: dict[str, Any] = {name: value}
    return getattr(Settings(**values), name)


def error(**values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)
    text = str(caught.value)
    assert "\n" not in text
    return text


def parsed(name: str, text: str) -> Any:
    return parse(text, HINTS[name], information(name))


class TestTable:
    """The fields' own descriptions, from which flags and the README are made."""

    @pytest.mark.parametrize("name", NAMES)
    def test_each_is_described_in_one_sentence_under_a_heading(self, name: str) -> None:
        info = information(name)
        assert info.group
        assert info.text
        assert "\n" not in info.text

    @pytest.mark.parametrize("name", NAMES)
    def test_each_default_is_valid_and_kept(self, name: str) -> None:
        default = next(field.default for field in FIELDS if field.name == name)
        assert kept(name, default) == default

    @pytest.mark.parametrize("name", NAMES)
    def test_what_can_be_off_may_be_none(self, name: str) -> None:
        assert not information(name).off or type(None) in HINTS[name].__args__

    def test_no_flag_is_used_twice(self) -> None:
        flags = [flag for name in NAMES for flag in information(name).flags or (f"--{name.replace('_', '-')}",)]
        assert len(flags) == len(set(flags))

    def test_there_is_no_information_on_what_is_no_setting(self) -> None:
        with pytest.raises(KeyError):
            information("nonsense")

    def test_daphnes_keywords_lead_to_settings(self) -> None:
        assert set(DAPHNE_KEYWORDS.values()) <= set(NAMES)
        assert not set(DAPHNE_KEYWORDS) & set(NAMES)

    def test_daphnes_defaults_are_kept(self) -> None:
        settings = Settings()
        assert settings.websocket_timeout == 86400
        assert settings.websocket_connect_timeout == 5
        assert (settings.ping_interval, settings.ping_timeout) == (20, 30)
        assert settings.application_close_timeout == 10
        assert settings.http_timeout is None
        assert settings.websocket_max_message_size == settings.websocket_max_frame_size == 2**20
        assert (settings.verbosity, settings.root_path) == (1, "")

    def test_a_buffer_may_be_as_small_as_daphnes(self) -> None:
        assert Settings(request_buffer_size=1).request_buffer_size == 1

    def test_what_none_means_to_daphne(self) -> None:
        settings = Settings.from_keywords(
            websocket_max_message_size=None, websocket_max_frame_size=None, server_name=None, http_timeout=None
        )
        assert (settings.websocket_max_message_size, settings.websocket_max_frame_size) == (0, 0)
        assert (settings.server_name, settings.http_timeout) == ("", None)

    def test_every_wait_that_a_peer_can_cause_has_an_end(self) -> None:
        settings = Settings()
        for name in ("first_byte", "head", "keep_alive", "body", "write", "websocket_connect", "ping"):
            assert getattr(settings, f"{name}_timeout"), name


class TestValues:
    def test_they_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Settings().port = 80  # type: ignore[misc]

    def test_they_are_given_by_keyword(self) -> None:
        with pytest.raises(TypeError):
            Settings("127.0.0.1")  # type: ignore[call-arg]

    @pytest.mark.parametrize(("name", "bound", "step"), BOUNDED)
    def test_a_bound_is_allowed_and_what_lies_beyond_is_named(self, name: str, bound: float, step: int) -> None:
        kind = float if "float" in str(HINTS[name]) else int
        assert kept(name, kind(bound)) == bound
        text = error(**{name: kind(bound + step)})
        assert text.startswith(f"{name}: expected at {'most' if step > 0 else 'least'} {bound}")

    @pytest.mark.parametrize(("name", "off"), OFF)
    def test_what_switches_off_is_one_number_and_other_negative_ones_are_errors(self, name: str, off: str) -> None:
        for value in {"zero": (0, None), "negative": (-1, None), "both": (0, -1, None)}[off]:
            assert kept(name, value) is None
        assert error(**{name: -5}).startswith(f"{name}: expected ")

    @pytest.mark.parametrize("name", [name for name, off in OFF if off == "negative"])
    def test_zero_may_be_a_time_of_its_own(self, name: str) -> None:
        assert kept(name, 0) == 0.0

    def test_whole_seconds_become_a_float(self) -> None:
        assert type(Settings(http_timeout=5).http_timeout) is float

    @pytest.mark.parametrize(("name", "value", "expected"), [
        ("port", "8000", "a whole number"),
        ("port", 80.0, "a whole number"),
        ("port", True, "a whole number"),
        ("backlog", None, "a whole number"),
        ("http_timeout", "5", "a number"),
        ("http_timeout", False, "a number"),
        ("close_timeout", None, "a number"),
        ("host", 5, "text"),
        ("host", b"localhost", "text"),
        ("root_path", None, "text"),
        ("factory", 1, "yes or no"),
        ("factory", "yes", "yes or no"),
        ("endpoints", 5, "a list of texts"),
        ("endpoints", [5], "a list of texts"),
        ("endpoints", None, "a list of texts"),
    ])  # fmt: skip
    def test_another_type_is_named(self, name: str, value: Any, expected: str) -> None:
        shown = tuple(value) if isinstance(value, list) else value
        assert error(**{name: value}) == f"{name}: expected {expected}, got {shown!r}"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_a_time_is_finite(self, value: float) -> None:
        assert error(http_timeout=value).startswith("http_timeout: expected a finite number")

    def test_a_choice_is_named_with_its_alternatives(self) -> None:
        assert error(lifespan="maybe") == "lifespan: expected one of auto, on, off, got 'maybe'"

    @pytest.mark.parametrize("make", [list, tuple, set, frozenset])
    def test_texts_may_come_in_any_collection(self, make: Any) -> None:
        assert Settings(endpoints=make(["tcp:80"])).endpoints == ("tcp:80",)

    def test_one_text_is_a_list_of_one_whatever_stands_in_it(self) -> None:
        assert Settings(headers="Vary: Accept, Cookie").headers == ("Vary: Accept, Cookie",)  # type: ignore[arg-type]
        assert Settings(endpoints="tcp:80:interface=a,b").endpoints == ("tcp:80:interface=a,b",)  # type: ignore[arg-type]

    @pytest.mark.parametrize("text", ["::1,10.0.0.0/8", " ::1 , 10.0.0.0/8,", "::1 10.0.0.0/8"])
    def test_one_text_of_addresses_is_split(self, text: str) -> None:
        assert Settings(forwarded_allow_ips=text).forwarded_allow_ips == ("::1", "10.0.0.0/8")  # type: ignore[arg-type]

    @pytest.mark.parametrize(("given", "root_path"), [
        ("/api", "/api"), ("/api/", "/api"), ("api", "/api"), ("api/v1//", "/api/v1"), ("//api", "/api"), ("/", ""),
        ("", ""), ("/caf\xe9", "/caf\xe9"), ("/100%", "/100%"), ("/a b", "/a b"),
    ])  # fmt: skip
    def test_a_root_path_begins_with_a_slash_and_does_not_end_with_one(self, given: str, root_path: str) -> None:
        assert Settings(root_path=given).root_path == root_path

    @pytest.mark.parametrize("given", ["/caf%C3%A9", "/a%2fb", "/\udce9"])
    def test_a_root_path_is_decoded(self, given: str) -> None:
        assert error(root_path=given) == f"root_path: expected a decoded path like '/caf\xe9', got {given!r}"

    def test_a_key_without_a_certificate_is_refused(self) -> None:
        assert error(ssl_keyfile="key.pem") == "ssl_keyfile needs ssl_certfile beside it"
        assert Settings(ssl_certfile=("both.pem",)).ssl_keyfile == ()

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"ssl_keyfile": "k"}, "ssl_keyfile needs ssl_certfile beside it"),
            ({"ssl_keyfile_password": "p"}, "ssl_keyfile_password needs ssl_certfile beside it"),
            ({"ssl_keyfile_password_file": "p"}, "ssl_keyfile_password_file needs ssl_certfile beside it"),
            ({"ssl_ca_certs": "ca"}, "ssl_ca_certs needs ssl_certfile beside it"),
            ({"ssl_certfile": ["a", "b"], "ssl_keyfile": ["k"]},
             "ssl_keyfile: expected one for each ssl_certfile, got 1 for 2"),
            ({"ssl_certfile": "a", "ssl_keyfile_password": "p", "ssl_keyfile_password_file": "f"},
             "ssl_keyfile_password and ssl_keyfile_password_file: expected only one of them"),
            ({"ssl_certfile": "a", "ssl_cert_reqs": "required"}, "ssl_cert_reqs needs ssl_ca_certs beside it"),
            ({"ssl_certfile": "a", "ssl_cert_reqs": "optional"}, "ssl_cert_reqs needs ssl_ca_certs beside it"),
        ],
    )  # fmt: skip
    def test_what_tls_needs_beside_it(self, values: dict[str, Any], message: str) -> None:
        assert error(**values) == message

    def test_none_is_no_file(self) -> None:
        nothing: Any = None
        settings = Settings(ssl_certfile=nothing, ssl_keyfile=nothing)
        assert settings == Settings()
        assert (settings.ssl_certfile, settings.ssl_keyfile) == ((), ())

    def test_no_password_is_shown(self) -> None:
        password: Any = b"hunter2"
        assert error(ssl_certfile="a", ssl_keyfile_password=password) == "ssl_keyfile_password: expected text"
        assert "hunter2" not in repr(Settings(ssl_certfile=("a",), ssl_keyfile_password="hunter2"))

    def test_a_header_needs_a_colon(self) -> None:
        assert error(headers=["X-A"]) == "headers: expected NAME:VALUE, got 'X-A'"

    def test_a_wrong_value_is_shown_on_one_line(self) -> None:
        assert error(interface="a\nb").endswith(r"got 'a\nb'")


class TestKeywords:
    def test_settings_by_their_own_names(self) -> None:
        assert Settings.from_keywords(port=80, host="localhost") == Settings(port=80, host="localhost")

    def test_daphnes_name_for_the_handshakes_time(self) -> None:
        assert Settings.from_keywords(websocket_handshake_timeout=7).websocket_connect_timeout == 7.0

    @pytest.mark.parametrize(
        ("handshake", "connect", "seconds"),
        [(7, 3, 3.0), (3, 7, 3.0), (-1, 3, 3.0), (3, -1, 3.0), (3, 0, 3.0), (None, 3, 3.0), (0, -1, None),
         (4, 4.5, 4.0)],
    )
    def test_of_daphnes_two_clocks_for_the_handshake_the_earlier_one_rings(
        self, handshake: float | None, connect: float | None, seconds: float | None
    ) -> None:
        both = {"websocket_handshake_timeout": handshake, "websocket_connect_timeout": connect}
        for keywords in (both, dict(reversed(both.items()))):
            assert Settings.from_keywords(**keywords).websocket_connect_timeout == seconds

    def test_daphnes_proxy_fields_turn_proxy_headers_on(self) -> None:
        settings = Settings.from_keywords(proxy_forwarded_address_header="X-Real-IP", proxy_forwarded_port_header=None)
        assert settings.proxy_headers
        assert (settings.proxy_headers_host, settings.proxy_headers_port) == ("X-Real-IP", None)

    def test_daphnes_proxy_fields_as_none_leave_proxy_headers_off(self) -> None:
        assert not Settings.from_keywords(proxy_forwarded_address_header=None).proxy_headers

    def test_every_spelling_of_a_setting_is_its_keyword(self) -> None:
        given = Settings.from_keywords(bind="a", fd=3, endpoint=["tcp:1"], header=["X:1"], log_level="debug")
        assert given == Settings(host="a", file_descriptor=3, endpoints=("tcp:1",), headers=("X:1",), verbosity=2)

    @pytest.mark.parametrize(
        ("keyword", "meant"),
        [("uds", ": use -u/--unix-socket"), ("hed_timeout", "; did you mean --head-timeout?"), ("zzz", "")],
    )
    def test_an_unknown_keyword_is_named(self, keyword: str, meant: str) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings.from_keywords(**{keyword: "x"})
        assert str(caught.value) == f"unknown setting {keyword!r}{meant}"


class TestParse:
    @pytest.mark.parametrize(("name", "text", "value"), [
        ("port", "8000", 8000),
        ("http_timeout", "2.5", 2.5),
        ("http_timeout", "-1", -1.0),
        ("host", "::1", "::1"),
        ("host", "", ""),
        ("unix_socket_mode", "660", 0o660),
        ("unix_socket_mode", "0o600", 0o600),
        ("endpoints", "tcp:80 'unix:/a b'", ("tcp:80", "unix:/a b")),
        ("headers", "'X-A: 1, 2' X-B:3", ("X-A: 1, 2", "X-B:3")),
        ("forwarded_allow_ips", "::1, unix,10.0.0.0/8", ("::1", "unix", "10.0.0.0/8")),
        ("forwarded_allow_ips", "", ()),
    ])  # fmt: skip
    def test_a_text_becomes_a_value(self, name: str, text: str, value: Any) -> None:
        assert parsed(name, text) == value
        assert type(parsed(name, text)) is type(value)

    @pytest.mark.parametrize("text", ["1", "yes", "TRUE", "On"])
    def test_words_for_yes(self, text: str) -> None:
        assert parsed("factory", text) is True

    @pytest.mark.parametrize("text", ["0", "no", "False", "OFF", ""])
    def test_words_for_no(self, text: str) -> None:
        assert parsed("factory", text) is False

    @pytest.mark.parametrize(("name", "text", "expected"), [
        ("port", "http", "expected a whole number, got 'http'"),
        ("port", "", "expected a whole number, got ''"),
        ("http_timeout", "5s", "expected a number, got '5s'"),
        ("factory", "maybe", "expected yes or no, got 'maybe'"),
        ("unix_socket_mode", "888", "expected an octal number, got '888'"),
        ("endpoints", "'unix:/a", "No closing quotation"),
    ])  # fmt: skip
    def test_a_wrong_text_says_what_was_expected(self, name: str, text: str, expected: str) -> None:
        with pytest.raises(ValueError) as caught:
            parsed(name, text)
        assert str(caught.value) == expected

    @given(st.sampled_from(NAMES), st.text(max_size=12))
    def test_any_text_is_taken_or_refused_in_words(self, name: str, text: str) -> None:
        complaint = ""
        try:
            kept(name, parsed(name, text))
        except ValueError as caught:
            complaint = str(caught)
        assert "\n" not in complaint


class TestEnvironment:
    def test_variables_are_found_by_their_settings_names(self) -> None:
        environ = {"ASGISERVER_PORT": "80", "ASGISERVER_PROXY_HEADERS": "yes", "PORT": "9", "ASGISERVER_X": "y"}
        assert Settings.from_environment(environ) == {"port": 80, "proxy_headers": True}

    def test_no_variables_give_nothing(self) -> None:
        assert Settings.from_environment({}) == {}

    def test_the_process_is_asked_when_nothing_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ASGISERVER_VERBOSITY", "2")
        assert Settings.from_environment()["verbosity"] == 2

    @pytest.mark.parametrize(
        ("variable", "text", "expected"),
        [("PORT", "http", "expected a whole number, got 'http'"), ("ENDPOINTS", "'a", "No closing quotation")],
    )
    def test_a_wrong_text_names_its_variable(self, variable: str, text: str, expected: str) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings.from_environment({f"ASGISERVER_{variable}": text})
        assert str(caught.value) == f"ASGISERVER_{variable}: {expected}"

    def test_a_port_that_kubernetes_sets_for_a_service_of_our_name_is_explained(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings.from_environment({"ASGISERVER_PORT": "tcp://10.0.0.1:80"})
        assert str(caught.value) == (
            "ASGISERVER_PORT: expected a whole number, got 'tcp://10.0.0.1:80'; Kubernetes sets this for a Service "
            "called asgiserver: call it something else"
        )

    def test_what_it_gives_makes_settings(self) -> None:
        values = Settings.from_environment({"ASGISERVER_WEBSOCKET_TIMEOUT": "-1", "ASGISERVER_HEADERS": "X-A:1"})
        settings = Settings(**values)
        assert settings.websocket_timeout is None
        assert settings.headers == ("X-A:1",)


def test_information_is_a_value() -> None:
    assert Info("Text.", "Group") == Info("Text.", "Group")
    assert information("port") is information("port")


class TestMistakesThatWouldPassUnseen:
    def test_empty_host_is_none_given_and_not_every_address(self) -> None:
        assert Settings(host="").host is None

    @pytest.mark.parametrize(
        ("host", "instead"),
        [("127.0.0.1:8000", "host 127.0.0.1 and port 8000"), ("[::1]:80", "host [::1] and port 80"),
         ("unix:/run/a", "unix_socket /run/a")],
    )  # fmt: skip
    def test_host_with_a_port_is_refused(self, host: str, instead: str) -> None:
        with pytest.raises(SettingsError, match="without the port") as caught:
            Settings(host=host)
        assert str(caught.value).endswith(f": give {instead}")

    def test_no_path_is_empty(self) -> None:
        assert error(unix_socket="") == "unix_socket: expected a path, got ''"
        assert Settings(access_log="", app_dir="").access_log == ""

    @pytest.mark.parametrize("host", ["::1", "[::1]", "::", "localhost", "0.0.0.0"])
    def test_host_without_a_port_is_kept(self, host: str) -> None:
        assert Settings(host=host).host == host

    def test_misspelt_variables_are_found_among_those_of_a_kubernetes_service(self) -> None:
        environ = {
            "ASGISERVER_HED_TIMEOUT": "5", "ASGISERVER_HEAD_TIMEOUT": "5", "ASGISERVER_SERVICE_HOST": "10.0.0.1",
            "ASGISERVER_PORT_80_TCP": "tcp://10.0.0.1:80", "PATH": "",
        }  # fmt: skip
        assert Settings.unknown_variables(environ) == {
            "ASGISERVER_HED_TIMEOUT": "; did you mean ASGISERVER_HEAD_TIMEOUT?"
        }
