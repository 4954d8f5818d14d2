from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.errors import SettingsError
from asgiserver.log.access import ACCESS, FORMATS, AccessLog, chosen_format
from asgiserver.settings import Settings

pytestmark = pytest.mark.usefixtures("berlin")

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOON = 1_751_371_200.25  # 2025-07-01 12:00:00.25 UTC

DAPHNES = {
    "path": "/a?b=c",
    "status": 404,
    "method": "GET",
    "client": "192.0.2.1:4711",
    "time_taken": 0.0123456789,
    "size": 1234,
}
DETAILS = {
    **DAPHNES,
    "http_version": "1.1",
    "request_size": 56,
    "scheme": "https",
    "headers": [
        (b"host", b"a.example"), (b"user-agent", b"curl/8"), (b"referer", b"https://b.example/"), (b"referer", b"2"),
        (b"traceparent", TRACE),
    ],
    "request_id": "9f-1",
}
DISCONNECTED = {
    "path": "/ws",
    "client": "192.0.2.1:4711",
    "http_version": "1.1",
    "scheme": "wss",
    "headers": [(b"user-agent", b"browser")],
    "code": 1001,
    "time_taken": 2.5,
    "size": 10,
    "request_size": 20,
}


class Recorder(logging.Handler):
    """Keeps the records of a logger of its own."""

    def __init__(self, level: int = logging.INFO) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.logger = logging.Logger("test", level)  # noqa: LOG001 - out of the hierarchy
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


def line(format: str, protocol: str = "http", action: str = "complete", **details: Any) -> str:
    """The one line that an action with ``details`` gives."""
    recorder = Recorder()
    AccessLog(format, recorder.logger, lambda: NOON)(protocol, action, {**DETAILS, **details})
    (text,) = recorder.lines
    return text


class TestDaphnesFormat:
    def test_a_request_is_daphnes_line_with_a_zone(self) -> None:
        assert line("daphne") == '192.0.2.1:4711 - - [01/Jul/2025:14:00:00 +0200] "GET /a?b=c" 404 1234'

    def test_the_zone_is_that_of_the_day(self) -> None:
        recorder = Recorder()
        AccessLog("%(time)s", recorder.logger, lambda: NOON + 180 * 86400)("http", "complete", DETAILS)
        assert recorder.lines == ["28/Dec/2025:13:00:00 +0100"]

    @pytest.mark.parametrize(("action", "word"), [
        ("connecting", "WSCONNECTING"), ("connected", "WSCONNECT"), ("disconnected", "WSDISCONNECT"),
        ("rejected", "WSREJECT"),
    ])  # fmt: skip
    def test_a_websocket_has_daphnes_words(self, action: str, word: str) -> None:
        expected = f'192.0.2.1:4711 - - [01/Jul/2025:14:00:00 +0200] "{word} /ws" - -'
        assert line("daphne", "websocket", action, path="/ws", status=403) == expected

    def test_a_client_on_a_unix_socket_is_a_dash(self) -> None:
        assert line("daphne", client=None).startswith("- - - [")

    def test_daphnes_own_details_are_enough_for_any_format(self) -> None:
        for name in (*FORMATS, "json", "%(protocol)s %(user_agent)s %(code)s"):
            recorder = Recorder()
            AccessLog(name, recorder.logger)("http", "complete", DAPHNES)
            assert len(recorder.lines) == 1
        assert recorder.lines == ["- - -"]


class TestCommonFormats:
    COMMON = '192.0.2.1 - - [01/Jul/2025:14:00:00 +0200] "GET /a?b=c HTTP/1.1" 404 1234'

    def test_common_is_the_ncsa_line(self) -> None:
        assert line("common") == self.COMMON

    def test_combined_adds_the_first_referer_and_the_user_agent(self) -> None:
        assert line("combined") == self.COMMON + ' "https://b.example/" "curl/8"'
        assert line("combined", headers=[]) == self.COMMON + ' "-" "-"'

    def test_a_refused_websocket_shows_its_status(self) -> None:
        assert line("common", "websocket", "rejected", status=403, size=None).endswith(
            '"WSREJECT /a?b=c HTTP/1.1" 403 -'
        )

    @pytest.mark.parametrize(("client", "host"), [
        ("2001:db8::1:80", "2001:db8::1"), ("[2001:db8::1]:80", "2001:db8::1"), ("1.2.3.4:0", "1.2.3.4"),
        ("name", "name"), (None, "-"),
    ])  # fmt: skip
    def test_the_client_has_no_port(self, client: str | None, host: str) -> None:
        assert line("common", client=client).startswith(f"{host} - - [")


class TestJSON:
    def test_a_request_is_one_object(self) -> None:
        assert json.loads(line("json")) == {
            "time": "2025-07-01T14:00:00.250+02:00",
            "event": "complete",
            "client": "192.0.2.1:4711",
            "method": "GET",
            "path": "/a?b=c",
            "protocol": "HTTP/1.1",
            "scheme": "https",
            "status": 404,
            "size": 1234,
            "request_size": 56,
            "waited": None,
            "duration": 0.012346,
            "user_agent": "curl/8",
            "referer": "https://b.example/",
            "code": None,
            "request_id": "9f-1",
            "traceparent": TRACE.decode(),
        }

    def test_a_request_that_waited_for_a_thread_says_how_long(self) -> None:
        assert json.loads(line("json", waited=1.23456789))["waited"] == 1.234568

    def test_a_websocket_has_its_close_code(self) -> None:
        recorder = Recorder()
        AccessLog("json", recorder.logger)("websocket", "disconnected", DISCONNECTED)
        found = json.loads(recorder.lines[0])
        assert (found["event"], found["method"], found["code"], found["duration"]) == (
            "disconnected", "WSDISCONNECT", 1001, 2.5,
        )  # fmt: skip
        assert (found["status"], found["referer"]) == (None, None)

    def test_fields_are_read_as_utf_8_and_bad_bytes_are_shown(self) -> None:
        found = json.loads(line("json", headers=[(b"user-agent", "bücher".encode()), (b"referer", b"\xff\x01")]))
        assert (found["user_agent"], found["referer"]) == ("bücher", "\\xff\x01")


class TestAFormatOfOnesOwn:
    def test_it_may_use_all_names(self) -> None:
        names = [
            "client", "client_host", "time", "iso_time", "method", "path", "protocol", "status", "size", "request_size",
            "waited", "duration", "duration_ms", "user_agent", "referer", "scheme", "event", "code", "request_id",
            "traceparent",
        ]  # fmt: skip
        found = line("|".join(f"%({name})s" for name in names)).split("|")
        assert dict(zip(names, found, strict=True)) == {
            "client": "192.0.2.1:4711",
            "client_host": "192.0.2.1",
            "time": "01/Jul/2025:14:00:00 +0200",
            "iso_time": "2025-07-01T14:00:00.250+02:00",
            "method": "GET",
            "path": "/a?b=c",
            "protocol": "HTTP/1.1",
            "status": "404",
            "size": "1234",
            "request_size": "56",
            "waited": "-",
            "duration": "0.012346",
            "duration_ms": "12.346",
            "user_agent": "curl/8",
            "referer": "https://b.example/",
            "scheme": "https",
            "event": "complete",
            "code": "-",
            "request_id": "9f-1",
            "traceparent": TRACE.decode(),
        }

    def test_widths_and_percent_signs_work(self) -> None:
        assert line("%(method)-5s|%(status)6s|%(path).2s|100%%") == "GET  |   404|/a|100%"

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.00001, "0.00001"), (0.0, "0"), (100.0, "100"), (86400.5, "86400.5")]
    )
    def test_durations_have_no_exponent(self, seconds: float, text: str) -> None:
        assert line("%(duration)s", time_taken=seconds) == text

    @pytest.mark.parametrize(("format", "wrong"), [
        ("%(clinet)s", "'clinet'"), ("%(status)d", "'%(status)d'"), ("%(status)s %(path", "'%(path'"),
        ("%(status)s 100%", "'%'"), ("%s", "'%s'"), ("%h %l %u", "'%h %l %u'"), ("comon", "'comon'"), ("%%", "'%%'"),
        ("", "''"),
    ])  # fmt: skip
    def test_a_wrong_one_is_an_error_at_once(self, format: str, wrong: str) -> None:
        with pytest.raises(SettingsError, match=r"^access_log_format: ") as caught:
            AccessLog(format)
        assert wrong in str(caught.value)
        assert "\n" not in str(caught.value)


class TestTheFormatThatIsChosen:
    @pytest.mark.parametrize(("on_terminal", "settings", "chosen"), [
        (False, {}, "daphne"),
        (True, {}, "terminal"),
        (True, {"access_log": "-"}, "terminal"),
        (True, {"access_log": "access.log"}, "daphne"),
        (True, {"access_log_format": "daphne"}, "daphne"),
        (True, {"log_format": "json"}, "json"),
        (False, {"log_format": "json", "access_log": "access.log"}, "json"),
        (False, {"log_format": "json", "access_log_format": "common"}, "common"),
        (None, {}, "daphne"),
    ])  # fmt: skip
    def test_it_depends_on_who_reads(
        self, monkeypatch: pytest.MonkeyPatch, on_terminal: bool | None, settings: dict[str, str], chosen: str
    ) -> None:
        stream = io.StringIO()
        stream.isatty = lambda: bool(on_terminal)  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdout", None if on_terminal is None else stream)
        assert chosen_format(Settings(**settings)) == chosen  # type: ignore[arg-type]

    def test_on_a_terminal_the_time_is_that_of_the_servers_lines(self) -> None:
        assert line("terminal") == '2025-07-01T14:00:00.250+02:00 192.0.2.1:4711 "GET /a?b=c" 404 1234'


@pytest.mark.parametrize("value", [
    TRACE.replace(b"00-", b"ff-", 1), TRACE.upper(), TRACE[:-1], TRACE + b"1", TRACE + b"\n", b"", b"0" * 55,
    b"00-" + b"0" * 32 + TRACE[35:], TRACE[:36] + b"0" * 16 + TRACE[52:],
])  # fmt: skip
def test_a_traceparent_of_another_shape_is_not_logged(value: bytes) -> None:
    assert line("%(traceparent)s", headers=[(b"traceparent", value)]) == "-"


class TestWhatThePeerSends:
    @pytest.mark.parametrize(("path", "shown"), [
        ('/"', '/\\"'), ("/\\", "/\\\\"), ("/\x1b[31m", "/\\x1b[31m"), ("/\r\nforged", "/\\x0d\\x0aforged"),
        ("/\x7f\x9b", "/\\x7f\\x9b"), ("/é", "/\\xe9"), ("/\u2028\u202e", "/\\u2028\\u202e"), ("/😀", "/\\U0001f600"),
        ("/\udc80", "/\\udc80"), ("/%s%(path)s", "/%s%(path)s"),
    ])  # fmt: skip
    def test_what_could_forge_or_hide_a_line_is_escaped(self, path: str, shown: str) -> None:
        assert line("%(path)s", path=path) == shown

    def test_bytes_of_fields_are_escaped_one_by_one(self) -> None:
        assert line("%(user_agent)s", headers=[(b"user-agent", "é".encode() + b"\x00")]) == "\\xc3\\xa9\\x00"

    @given(st.text(), st.binary(), st.sampled_from([*FORMATS, "json"]))
    def test_every_line_is_one_line_of_printable_ascii(self, path: str, agent: bytes, format: str) -> None:
        text = line(format, path=path, headers=[(b"user-agent", agent), (b"referer", agent)])
        assert text.isascii()
        assert text.isprintable()
        quotes = {"daphne": 2, "common": 2, "combined": 6, "terminal": 2}
        if format in quotes:
            assert text.replace("\\\\", "").replace('\\"', "").count('"') == quotes[format]
        else:
            assert json.loads(text)["path"] == path


class TestTheLogger:
    def test_it_is_asgiservers_unless_told_otherwise(self) -> None:
        recorder = Recorder()
        logger = logging.getLogger(ACCESS)
        logger.addHandler(recorder)
        level = logger.level
        logger.setLevel(logging.INFO)
        try:
            AccessLog("%(status)s")("http", "complete", DETAILS)
        finally:
            logger.removeHandler(recorder)
            logger.setLevel(level)
        assert recorder.lines == ["404"]

    def test_a_record_is_information_and_carries_status_event_and_request_id(self) -> None:
        recorder = Recorder()
        log = AccessLog("daphne", recorder.logger)
        log("http", "complete", DETAILS)
        log("websocket", "connected", DISCONNECTED)
        keys = "levelno", "status", "event", "request_id"
        found = [tuple(vars(record)[key] for key in keys) for record in recorder.records]
        assert found == [(logging.INFO, 404, "complete", "9f-1"), (logging.INFO, None, "connected", None)]

    def test_nothing_is_computed_when_nobody_listens(self) -> None:
        def now() -> float:
            raise AssertionError("the time was asked for")

        recorder = Recorder(logging.WARNING)
        log = AccessLog("daphne", recorder.logger, now)
        log("http", "complete", {})
        assert not log.enabled
        assert recorder.records == []
        assert AccessLog("daphne", Recorder().logger).enabled
