from __future__ import annotations

import io
import json
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogBeginner, Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.python.log import LogPublisher as LegacyPublisher

from asgiserver.errors import SettingsError
from asgiserver.log import setup as logs
from asgiserver.log.access import chosen_format
from asgiserver.log.setup import ACCESS, AccessLog, bridge_twisted, configure
from asgiserver.settings import Settings

DETAILS = {"path": "/", "status": 200, "method": "GET", "client": "1.2.3.4:5", "time_taken": 0.1, "size": 2}


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def fresh_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers as in a new process, and the test runner's own as they were afterwards."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    loggers = [logging.getLogger(name) for name in (None, "asgiserver", ACCESS, "twisted")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = []
        logger.setLevel(logging.WARNING if logger is logging.getLogger() else logging.NOTSET)
    yield
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


class Process:
    """A process whose standard streams can be read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.streams = {"stdout": io.StringIO(), "stderr": io.StringIO()}

    def configure(self, **settings: Any) -> None:
        """Set logging up, without the handlers of the test runner, which it adds when a test begins."""
        for name, stream in self.streams.items():
            self._monkeypatch.setattr(sys, name, stream)
        root = logging.getLogger()
        root.handlers[:] = [handler for handler in root.handlers if not type(handler).__module__.startswith("_pytest")]
        configure(Settings(**settings))

    @property
    def stdout(self) -> str:
        return self.streams["stdout"].getvalue()

    @property
    def stderr(self) -> str:
        return self.streams["stderr"].getvalue()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


def write_access_line(format: str = "%(status)s %(path)s", **details: Any) -> None:
    AccessLog(format)("http", "complete", {**DETAILS, **details})


class TestTheServersLog:
    @pytest.mark.parametrize(
        ("verbosity", "level"),
        [(-2, logging.CRITICAL), (-1, logging.ERROR), (0, logging.WARNING), (1, logging.INFO), (2, logging.DEBUG),
         (3, logging.DEBUG)],
    )
    def test_verbosity_is_the_level(self, process: Process, verbosity: int, level: int) -> None:
        process.configure(verbosity=verbosity)
        assert logging.getLogger().getEffectiveLevel() == level
        assert logging.getLogger("asgiserver.wire").getEffectiveLevel() == level

    def test_lines_go_to_standard_error_in_the_format(self, process: Process) -> None:
        process.configure(log_fmt="<%(levelname)s %(name)s %(message)s>")
        logging.getLogger("asgiserver").info("listening")
        logging.getLogger("asgiserver").debug("unseen")
        logging.getLogger("an.application").error("oops")
        assert process.stderr == "<INFO asgiserver listening>\n<ERROR an.application oops>\n"
        assert process.stdout == ""

    def test_errors_are_seen_at_every_verbosity(self, process: Process) -> None:
        process.configure(verbosity=0)
        logging.getLogger("asgiserver").error("the application failed")
        assert "the application failed" in process.stderr

    def test_a_second_call_writes_no_line_twice(self, process: Process) -> None:
        process.configure(verbosity=0)
        process.configure(log_fmt="%(message)s")
        process.configure(log_fmt="%(message)s")
        logging.getLogger("asgiserver").info("once")
        write_access_line()
        assert (process.stderr, process.stdout) == ("once\n", "200 /\n")

    def test_the_applications_own_handlers_are_kept_alone(self, process: Process) -> None:
        root = logging.getLogger()
        stream = io.StringIO()
        root.addHandler(logging.StreamHandler(stream))
        process.configure()
        logging.getLogger("asgiserver").info("listening")
        assert (stream.getvalue(), process.stderr) == ("listening\n", "")
        assert root.level == logging.WARNING

    def test_what_another_handler_writes_to_the_same_stream_is_written_once(self, process: Process) -> None:
        process.configure(log_fmt="<%(message)s>")
        logger, stream = logging.getLogger("site"), io.StringIO()
        errors, elsewhere = logging.StreamHandler(process.streams["stderr"]), logging.StreamHandler(stream)
        errors.setLevel(logging.WARNING)
        errors.addFilter(lambda record: record.getMessage() != "filtered")
        logger.handlers[:] = [errors, elsewhere]
        try:
            for message in ("theirs", "filtered"):
                logging.getLogger("site.request").error(message)
            logger.info("below its level")
            assert process.stderr == "theirs\n<filtered>\n<below its level>\n"
            assert stream.getvalue() == "theirs\nfiltered\nbelow its level\n"
        finally:
            logger.handlers[:] = []

    def test_json_has_also_what_another_handler_writes(self, process: Process) -> None:
        process.configure(log_format="json")
        logger = logging.getLogger("site")
        logger.handlers[:] = [logging.StreamHandler(process.streams["stderr"])]
        try:
            logger.error("oops")
        finally:
            logger.handlers[:] = []
        theirs, ours = process.stderr.splitlines()
        assert (theirs, json.loads(ours)["message"]) == ("oops", "oops")

    @pytest.mark.parametrize("pattern", ["%(nonsense)s", "%(levelno)y", "{message}", "%(message)s %", "%(name)d"])
    def test_a_wrong_format_is_an_error(self, process: Process, pattern: str) -> None:
        with pytest.raises(SettingsError, match=r"^log_fmt: ") as caught:
            process.configure(log_fmt=pattern)
        assert "\n" not in str(caught.value)


class TestJSON:
    def test_every_line_of_standard_error_is_an_object(self, process: Process) -> None:
        process.configure(log_format="json")
        logging.getLogger("asgiserver").info("listening")
        try:
            raise ValueError("oops")
        except ValueError:
            logging.getLogger("an.application").exception("failed", extra={"request_id": "9f-1"})
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        lines = [json.loads(line) for line in process.stderr.splitlines()]
        assert [(line["logger"], line["level"]) for line in lines] == [
            ("asgiserver", "INFO"), ("an.application", "ERROR"), ("py.warnings", "WARNING"),
        ]  # fmt: skip
        assert lines[1]["exception"].endswith("ValueError: oops")
        assert lines[1]["request_id"] == "9f-1"
        assert "DeprecationWarning: old" in lines[2]["message"]

    def test_the_access_log_is_json_too(self, process: Process) -> None:
        process.configure(log_format="json")
        write_access_line(chosen_format(Settings(log_format="json")), request_id="9f-1")
        assert json.loads(process.stdout)["request_id"] == "9f-1"

    def test_warnings_are_shown_as_ever_beside_lines_of_text(self, process: Process) -> None:
        show = warnings.showwarning
        process.configure(log_format="json")
        assert warnings.showwarning is not show
        process.configure()
        assert warnings.showwarning is show

    def test_a_log_config_wants_no_format_beside_it(self) -> None:
        with pytest.raises(SettingsError, match=r"^log_format and log_config: expected only one of them$"):
            Settings(log_format="json", log_config="log.json")

    def test_a_log_config_may_use_the_formatter(self, process: Process, tmp_path: Path) -> None:
        formatter = {"()": "asgiserver.log.formatters.JSONFormatter"}
        handler = {"class": "logging.StreamHandler", "formatter": "json"}
        config = {"formatters": {"json": formatter}, "handlers": {"err": handler}, "root": {"handlers": ["err"]}}
        (tmp_path / "log.json").write_text(json.dumps(config))
        process.configure(log_config=str(tmp_path / "log.json"))
        logging.getLogger("asgiserver").error("failed")
        assert json.loads(process.stderr)["message"] == "failed"


class TestTheAccessLog:
    def test_it_goes_to_standard_output(self, process: Process) -> None:
        process.configure()
        write_access_line()
        assert (process.stdout, process.stderr) == ("200 /\n", "")

    def test_at_verbosity_0_there_is_none(self, process: Process) -> None:
        process.configure(verbosity=0)
        write_access_line()
        assert (process.stdout, process.stderr) == ("", "")
        assert not AccessLog("daphne").enabled

    def test_at_verbosity_0_it_can_be_asked_for(self, process: Process) -> None:
        process.configure(verbosity=0, access_log="-")
        write_access_line()
        assert process.stdout == "200 /\n"

    def test_there_may_be_none(self, process: Process) -> None:
        process.configure(access_log="")
        write_access_line()
        assert (process.stdout, AccessLog("daphne").enabled) == ("", False)

    def test_a_file_is_appended_to_line_by_line(self, tmp_path: Path, process: Process) -> None:
        path = tmp_path / "access.log"
        path.write_text("before\n")
        process.configure(access_log=str(path))
        write_access_line()
        assert path.read_text() == "before\n200 /\n"
        assert process.stdout == ""

    @pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be moved there")
    def test_a_file_that_was_moved_away_is_opened_anew(self, process: Process, tmp_path: Path) -> None:
        path = tmp_path / "access.log"
        process.configure(access_log=str(path))
        write_access_line(path="/old")
        path.rename(tmp_path / "access.log.1")
        write_access_line(path="/new")
        assert (tmp_path / "access.log.1").read_text() == "200 /old\n"
        assert path.read_text() == "200 /new\n"

    def test_a_path_that_cannot_be_written_is_an_error(self, process: Process, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "no" / "such" / "folder"):
            with pytest.raises(SettingsError, match=r"^access_log: cannot write to .*: (Is a directory|No such file)"):
                process.configure(access_log=str(path))

    def test_handlers_of_others_are_kept_alone_unless_it_is_given(self, process: Process) -> None:
        stream = io.StringIO()
        logging.getLogger(ACCESS).addHandler(logging.StreamHandler(stream))
        process.configure()
        write_access_line(path="/1")
        process.configure(access_log="-")
        write_access_line(path="/2")
        assert (stream.getvalue(), process.stdout) == ("200 /1\n200 /2\n", "200 /2\n")

    def test_replaced_files_are_closed(self, process: Process, tmp_path: Path) -> None:
        process.configure(access_log=str(tmp_path / "access.log"))
        (handler,) = logging.getLogger(ACCESS).handlers
        assert isinstance(handler, logging.FileHandler)
        stream = handler.stream
        process.configure()
        assert stream.closed


class TestColours:
    @pytest.fixture(autouse=True)
    def terminal(self, process: Process) -> None:
        process.streams["stdout"] = Terminal()

    @pytest.mark.parametrize(("status", "colour"), [(304, 36), (404, 33), (503, 31)])
    @pytest.mark.parametrize("format", ["daphne", "common", "combined", "terminal"])
    def test_a_terminal_shows_the_statuss_class(self, process: Process, format: str, status: int, colour: int) -> None:
        process.configure(access_log_format=format)
        write_access_line(format, status=status)
        assert process.stdout.startswith(f"\x1b[{colour}m")
        assert "1.2.3.4" in process.stdout
        assert process.stdout.endswith("\x1b[0m\n")

    def test_what_went_well_has_none(self, process: Process) -> None:
        process.configure()
        write_access_line("daphne")
        assert process.stdout.startswith("1.2.3.4")

    def test_levels_have_theirs_and_the_columns_stay(self, process: Process) -> None:
        process.streams["stderr"] = Terminal()
        process.configure(log_fmt="%(levelname)-8s %(message)s")
        record = logging.getLogger("asgiserver")
        record.warning("slow")
        record.error("broken")
        record.info("listening")
        first, second, third = process.stderr.splitlines()
        assert (first, second) == ("\x1b[33mWARNING \x1b[0m slow", "\x1b[31mERROR   \x1b[0m broken")
        assert third == "INFO     listening"

    def test_a_websockets_line_has_none(self, process: Process) -> None:
        process.configure()
        AccessLog("daphne")("websocket", "connected", {"path": "/", "client": None})
        assert "\x1b" not in process.stdout
        assert "WSCONNECT" in process.stdout

    @pytest.mark.parametrize("format", ["json", "%(status)s"])
    def test_lines_for_programs_have_none(self, process: Process, format: str) -> None:
        process.configure(access_log_format=format)
        write_access_line(format)
        assert "\x1b" not in process.stdout
        assert "200" in process.stdout

    @pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_the_environment_can_forbid_them(
        self, process: Process, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(name, value)
        process.configure()
        write_access_line("daphne", status=404)
        assert process.stdout.startswith("1.2.3.4")

    def test_a_stream_that_is_no_terminal_has_none(self, process: Process) -> None:
        process.streams["stdout"] = io.StringIO()
        process.configure()
        write_access_line("daphne", status=404)
        assert process.stdout.startswith("1.2.3.4")


CONFIG = {
    "formatters": {"short": {"format": "%(levelname)s:%(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "PATH", "formatter": "short"}},
    "loggers": {"asgiserver": {"level": "INFO", "handlers": ["file"]}},
}
TOML = """
[formatters.short]
format = "%(levelname)s:%(message)s"
[handlers.file]
class = "logging.FileHandler"
filename = 'PATH'
formatter = "short"
[loggers.asgiserver]
level = "INFO"
handlers = ["file"]
"""


class TestAScriptOfOnesOwn:
    def configure(self, process: Process, stream: io.StringIO) -> None:
        process.streams["stderr"] = stream
        process.configure()
        # As in a process that has configured nothing yet.
        for name in (None, ACCESS):
            logging.getLogger(name).handlers[:] = []
        logs.configure_for_script(Settings(log_fmt="%(message)s"))

    def test_it_shows_its_address_and_requests_on_a_terminal(self, process: Process) -> None:
        self.configure(process, Terminal())
        logging.getLogger("asgiserver").info("listening")
        write_access_line()
        assert (process.stderr, process.stdout) == ("listening\n", "200 /\n")

    def test_elsewhere_it_is_quiet(self, process: Process) -> None:
        self.configure(process, io.StringIO())
        assert (logging.getLogger().handlers, logging.getLogger(ACCESS).handlers) == ([], [])

    @pytest.mark.parametrize("name", [None, "asgiserver", ACCESS])
    def test_what_is_configured_stays(self, process: Process, name: str | None) -> None:
        process.streams["stderr"] = Terminal()
        process.configure()
        logging.getLogger().handlers[:] = logging.getLogger(ACCESS).handlers[:] = []
        logging.getLogger(name).addHandler(logging.NullHandler())
        logs.configure_for_script(Settings())
        assert sum(len(logging.getLogger(each).handlers) for each in (None, "asgiserver", ACCESS)) == 1


INI = """
[loggers]
keys = root, server
[handlers]
keys = file
[formatters]
keys = short
[formatter_short]
format = %(levelname)s:%(message)s
[handler_file]
class = FileHandler
args = ('PATH',)
formatter = short
[logger_root]
handlers =
[logger_server]
qualname = asgiserver
level = INFO
handlers = file
"""
YAML = """
formatters: {short: {format: "%(levelname)s:%(message)s"}}
handlers: {file: {class: logging.FileHandler, filename: PATH, formatter: short}}
loggers: {asgiserver: {level: INFO, handlers: [file]}}
"""


class TestALogConfig:
    @pytest.mark.parametrize(("name", "text"), [
        ("log.json", json.dumps(CONFIG)), ("log.toml", TOML), ("log.TOML", "version = 1\n" + TOML),
        ("json.conf", json.dumps(CONFIG)), ("toml.conf", TOML),
        ("log.ini", INI), ("ini.conf", INI), ("log.yaml", YAML), ("log.YML", YAML),
    ])  # fmt: skip
    def test_it_is_read_as_its_name_ends(self, tmp_path: Path, process: Process, name: str, text: str) -> None:
        target = tmp_path / "server.log"
        (tmp_path / name).write_text(text.replace("PATH", str(target)))
        process.configure(log_config=str(tmp_path / name), verbosity=0)
        logging.getLogger("asgiserver").info("listening")
        write_access_line()
        assert target.read_text() == "INFO:listening\nINFO:200 /\n"
        assert (process.stdout, process.stderr) == ("", "")

    def test_an_access_log_that_is_given_goes_there(self, tmp_path: Path, process: Process) -> None:
        (tmp_path / "log.json").write_text(json.dumps(CONFIG).replace("PATH", str(tmp_path / "server.log")))
        process.configure(log_config=str(tmp_path / "log.json"), access_log="-")
        write_access_line()
        assert process.stdout == "200 /\n"
        assert (tmp_path / "server.log").read_text() == ""

    def test_loggers_that_exist_already_are_not_disabled(self, process: Process, tmp_path: Path) -> None:
        logger = logging.getLogger("asgiserver.of_this_test")
        (tmp_path / "log.json").write_text("{}")
        process.configure(log_config=str(tmp_path / "log.json"))
        assert not logger.disabled

    @pytest.mark.parametrize(("name", "text", "reason"), [
        ("log.json", "{", "line 1 column 2"),
        ("log.toml", "{}", "Invalid"),
        ("log.conf", "{", "Invalid"),
        ("log.conf", "{", "expected JSON, TOML, INI or YAML"),
        ("log.ini", "{", "no section headers"),
        ("log.ini", "[formatters]", "keys"),
        ("log.yaml", "a: [", "expected"),
        ("log.json", "[]", "expected an object"),
        ("log.json", '{"version": 2}', "version"),
        ("log.json", '{"handlers": {"x": {"class": "no.such.Handler"}}}', "No module named 'no'"),
        ("log.json", '{"handlers": {"x": {}}}', "'x'"),
        ("log.json", '{"root": {"level": "LOUD"}}', "LOUD"),
        ("log.json", '{"root": 5}', "root"),
    ])  # fmt: skip
    def test_a_wrong_one_is_an_error_on_one_line(
        self, process: Process, tmp_path: Path, name: str, text: str, reason: str
    ) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(SettingsError, match=r"^log_config: ") as caught:
            process.configure(log_config=str(tmp_path / name))
        assert name in str(caught.value)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_yaml_without_pyyaml_says_what_needs_nothing(
        self, process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "yaml", None)
        (tmp_path / "log.yaml").write_text("{}")
        with pytest.raises(SettingsError, match="YAML needs PyYAML: pip install pyyaml; JSON, TOML and INI need no"):
            process.configure(log_config=str(tmp_path / "log.yaml"))

    def test_one_that_is_not_there_is_an_error(self, process: Process, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"^log_config: cannot read .*gone\.json.*: No such file"):
            process.configure(log_config=str(tmp_path / "gone.json"))


class Bridge:
    """Twisted's logging as at the start of a process, bridged to records that are kept."""

    def __init__(self) -> None:
        self.publisher = LogPublisher()
        self.errors = io.StringIO()
        self.stdio = types.SimpleNamespace(stdout=sys.stdout, stderr=sys.stderr)
        self.beginner = LogBeginner(self.publisher, self.errors, self.stdio, types.SimpleNamespace(showwarning=None))
        self.records: list[logging.LogRecord] = []

    def logger(self, namespace: str) -> Logger:
        return Logger(namespace, observer=self.publisher)

    @property
    def found(self) -> list[tuple[str, int, str]]:
        return [(record.name, record.levelno, record.getMessage()) for record in self.records]


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    handler = logging.Handler()
    handler.emit = bridge.records.append  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield bridge
    root.removeHandler(handler)


class TestTheBridgeToTwisted:
    def test_each_level_arrives_under_the_namespace(self, bridge: Bridge) -> None:
        bridge_twisted(bridge.beginner)
        source = bridge.logger("my.protocol")
        source.debug("d {x}", x=1)
        source.info("i {x}", x=2)
        source.warn("w")
        source.error("e")
        source.critical("c")
        assert bridge.found == [
            ("my.protocol", logging.DEBUG, "d 1"),
            ("my.protocol", logging.INFO, "i 2"),
            ("my.protocol", logging.WARNING, "w"),
            ("my.protocol", logging.ERROR, "e"),
            ("my.protocol", logging.CRITICAL, "c"),
        ]

    def test_twisteds_own_information_is_only_for_debugging(self, bridge: Bridge) -> None:
        bridge_twisted(bridge.beginner)
        bridge.logger("twisted.internet.protocol").info("Starting factory {factory!r}", factory="F")
        LegacyPublisher(bridge.publisher, bridge.publisher, bridge.beginner).msg("Main loop terminated.")
        bridge.logger("twisted.web").warn("odd")
        assert bridge.found == [
            ("twisted.internet.protocol", logging.DEBUG, "Starting factory 'F'"),
            ("twisted", logging.DEBUG, "Main loop terminated."),
            ("twisted.web", logging.WARNING, "odd"),
        ]

    def test_a_failure_is_an_error_with_its_traceback(self, bridge: Bridge) -> None:
        bridge_twisted(bridge.beginner)
        try:
            raise ZeroDivisionError("the cause")
        except ZeroDivisionError:
            bridge.logger("twisted.internet.defer").failure("Unhandled error in Deferred:")
        (record,) = bridge.records
        assert (record.name, record.levelno) == ("twisted.internet.defer", logging.ERROR)
        assert record.getMessage() == "Unhandled error in Deferred:"
        text = logging.Formatter().format(record)
        assert "ZeroDivisionError: the cause" in text
        assert "test_a_failure_is_an_error_with_its_traceback" in text

    def test_a_failure_without_traceback_is_not_lost(self, bridge: Bridge) -> None:
        bridge_twisted(bridge.beginner)
        bridge.logger("x").failure("failed", Failure(ValueError("the cause")))
        assert "ValueError: the cause" in logging.Formatter().format(bridge.records[0])

    def test_percent_signs_are_no_format(self, bridge: Bridge) -> None:
        bridge_twisted(bridge.beginner)
        bridge.logger("x").error("{line}", line="100% %s")
        assert bridge.found == [("x", logging.ERROR, "100% %s")]

    def test_what_was_said_before_arrives_first(self, bridge: Bridge) -> None:
        bridge.logger("x").warn("early")
        bridge_twisted(bridge.beginner)
        bridge.logger("x").warn("late")
        assert [text for _, _, text in bridge.found] == ["early", "late"]

    def test_a_second_call_changes_nothing(self, bridge: Bridge) -> None:
        bridge_twisted(bridge.beginner)
        bridge_twisted(bridge.beginner)
        bridge.logger("x").warn("once")
        assert [text for _, _, text in bridge.found] == ["once"]

    def test_it_takes_neither_streams_nor_warnings(self, bridge: Bridge) -> None:
        shown = warnings.showwarning
        bridge_twisted(bridge.beginner)
        assert (bridge.stdio.stdout, bridge.stdio.stderr) == (sys.stdout, sys.stderr)
        assert warnings.showwarning is shown

    def test_nothing_is_formatted_when_nobody_listens(self, bridge: Bridge) -> None:
        class Unformattable:
            def __repr__(self) -> str:
                raise AssertionError("it was formatted")

        logging.getLogger().setLevel(logging.WARNING)
        bridge_twisted(bridge.beginner)
        bridge.logger("twisted.x").info("{it!r}", it=Unformattable())
        assert bridge.found == []


class TestEnabling:
    def test_loggers_that_an_application_has_disabled_speak_again(self, process: Process) -> None:
        """As ``dictConfig`` does with all that it does not name."""
        process.configure(log_fmt="%(message)s")
        ours = [logging.getLogger(name) for name in ("asgiserver", "asgiserver.wire", ACCESS)]
        other, alike = logging.getLogger("an.application"), logging.getLogger("asgiserverless")
        for logger in (*ours, other, alike):
            logger.disabled = True
        try:
            logs.enable()
            assert [logger.disabled for logger in ours] == [False] * 3
            assert other.disabled
            assert alike.disabled
            logging.getLogger("asgiserver.wire").info("seen")
            write_access_line()
        finally:
            for logger in (*ours, other, alike):
                logger.disabled = False
        assert (process.stderr, process.stdout) == ("seen\n", "200 /\n")

    def test_no_logger_is_made_for_it(self) -> None:
        before = set(logging.Logger.manager.loggerDict)
        logs.enable()
        assert set(logging.Logger.manager.loggerDict) == before


def test_the_access_log_is_reached_from_here() -> None:
    assert {"AccessLog", "ActionLogger", "ACCESS"} <= set(logs.__all__)


class TestReopening:
    def test_goes_on_in_a_new_file_after_the_old_one_was_moved(self, tmp_path: Path) -> None:
        path, moved = tmp_path / "log", tmp_path / "log.1"
        logger = logging.getLogger("asgiserver")
        logger.addHandler(logging.FileHandler(path))
        logger.warning("before")
        path.rename(moved)
        logs.reopen()
        logger.warning("after")
        assert (moved.read_text("utf-8"), path.read_text("utf-8")) == ("before\n", "after\n")

    def test_leaves_a_file_that_was_not_opened_yet_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        logging.getLogger("asgiserver").addHandler(logging.FileHandler(path, delay=True))
        logs.reopen()
        assert not path.exists()
