from __future__ import annotations

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin

from asgiserver import service, twist_plugin


def test_twist_finds_a_command_whose_options_and_service_are_ours() -> None:
    plugin = twist_plugin.asgi
    assert IPlugin.providedBy(plugin)
    assert IServiceMaker.providedBy(plugin)
    assert plugin.tapname == "asgi"
    assert plugin.options is service.Options
    assert plugin.makeService is service.makeService


def test_there_is_no_other_plugin_that_could_clash_with_daphnes() -> None:
    """Daphne ships an endpoint with the prefix fd."""
    assert [value for value in vars(twist_plugin).values() if IPlugin.providedBy(value)] == [twist_plugin.asgi]
