"""What a project's settings mean to the server."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asgiserver.django import project
from asgiserver.errors import SettingsError
from asgiserver.settings import Settings

PLAIN = {
    "root_path": "", "http_timeout": None, "websocket_handshake_timeout": 5.0,
    "websocket_max_message_size": 1048576, "websocket_max_frame_size": 1048576,
}  # fmt: skip


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Django's settings."""
    settings = SimpleNamespace(FORCE_SCRIPT_NAME=None, SETTINGS_MODULE="mysite.settings")
    monkeypatch.setattr(project, "settings", settings)
    return settings


class TestKeywords:
    @pytest.mark.usefixtures("given")
    def test_by_default(self) -> None:
        keywords = project.server_keywords({})
        assert keywords == PLAIN
        Settings.from_keywords(**keywords)

    def test_daphnes_settings(self, given: SimpleNamespace) -> None:
        given.DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE = 10
        given.DAPHNE_WEBSOCKET_MAX_FRAME_SIZE = 0
        keywords = project.server_keywords({})
        assert keywords == {**PLAIN, "websocket_max_message_size": 10, "websocket_max_frame_size": 0}

    def test_ours_win_over_daphnes_and_options_over_both(self, given: SimpleNamespace) -> None:
        given.DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE = given.DAPHNE_WEBSOCKET_MAX_FRAME_SIZE = 10
        given.ASGISERVER_WEBSOCKET_MAX_MESSAGE_SIZE = given.ASGISERVER_WEBSOCKET_MAX_FRAME_SIZE = 20
        keywords = project.server_keywords({"websocket_max_frame_size": 0, "websocket_max_message_size": None})
        assert keywords == {**PLAIN, "websocket_max_message_size": 20, "websocket_max_frame_size": 0}

    def test_an_option_with_daphnes_name_for_a_setting(self, given: SimpleNamespace) -> None:
        given.ASGISERVER_WEBSOCKET_CONNECT_TIMEOUT = 7
        assert project.server_keywords({})["websocket_handshake_timeout"] == 7
        keywords = project.server_keywords({"websocket_handshake_timeout": 30.0})
        assert "websocket_connect_timeout" not in keywords
        # Or the smaller of the two would be taken.
        assert Settings.from_keywords(**keywords).websocket_connect_timeout == 30.0

    def test_any_other_setting(self, given: SimpleNamespace) -> None:
        given.FORCE_SCRIPT_NAME = "/below"
        given.ASGISERVER_PING_INTERVAL = 3
        given.ASGISERVER_PORT = 99
        assert project.server_keywords({}) == {**PLAIN, "root_path": "/below", "ping_interval": 3}

    def test_a_certificate_only_where_tls_is_wanted(self, given: SimpleNamespace) -> None:
        given.ASGISERVER_SSL_CERTFILE = "chain.pem"
        given.ASGISERVER_REDIRECT_TO_HTTPS = 8080
        assert project.server_keywords({}) == PLAIN
        del given.ASGISERVER_REDIRECT_TO_HTTPS
        assert project.server_keywords({"use_tls": True}) == {**PLAIN, "ssl_certfile": "chain.pem"}

    def test_names_leave_out_what_django_says_otherwise(self) -> None:
        names = project.django_names()
        assert names["ASGISERVER_KEEP_ALIVE_TIMEOUT"] == "keep_alive_timeout"
        assert not {"ASGISERVER_HOST", "ASGISERVER_ENDPOINTS", "ASGISERVER_APP_DIR", "ASGISERVER_LOG_FMT"} & set(names)
        assert set(names.values()) <= set(Settings.__dataclass_fields__)


class TestApplication:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "asgi_of_project.py").write_text("application = len\n")
        (tmp_path / "asgi_that_fails.py").write_text("import is_not_there\n")
        monkeypatch.syspath_prepend(tmp_path)
        for name in ("asgi_of_project", "asgi_that_fails"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    def test_is_what_the_setting_names(self, given: SimpleNamespace) -> None:
        given.ASGI_APPLICATION = "asgi_of_project.application"
        assert project.get_default_application() is len

    @pytest.mark.parametrize(("value", "said"), [
        (None, "expected a name like 'mysite.asgi.application', got None"),
        ("", "got ''"),
        ("application", "got 'application'"),
        ("asgi_of_project.", "got 'asgi_of_project.'"),
        (len, "got <built-in"),
        ("asgi_of_nobody.application", "but there is no module 'asgi_of_nobody'"),
        ("asgi_of_project.app", "but 'asgi_of_project' has no 'app'"),
    ])  # fmt: skip
    def test_a_name_of_nothing(self, given: SimpleNamespace, value: Any, said: str) -> None:
        given.ASGI_APPLICATION = value
        with pytest.raises(SettingsError, match=r"^ASGI_APPLICATION") as caught:
            project.get_default_application()
        assert said in str(caught.value)

    def test_what_is_missing_inside_keeps_its_own_error(self, given: SimpleNamespace) -> None:
        given.ASGI_APPLICATION = "asgi_that_fails.application"
        with pytest.raises(ModuleNotFoundError, match="is_not_there"):
            project.get_default_application()

    @pytest.mark.parametrize(("module", "usual"), [
        ("mysite.settings", "mysite.asgi.application"),
        ("config.settings.local", "config.asgi.application"),
        ("settings", "mysite.asgi.application"),
        (None, "mysite.asgi.application"),
    ])  # fmt: skip
    def test_what_it_is_usually_called(self, given: SimpleNamespace, module: str | None, usual: str) -> None:
        given.SETTINGS_MODULE = module
        assert project.usual_application() == usual
