"""The server's settings in a Django project: its application, and every setting named ``ASGISERVER_…``."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from ..errors import SettingsError
from ..settings import BIND, LOGGING, TLS, Settings, information, spellings

__all__ = ["OPTIONS", "django_names", "get_default_application", "server_keywords", "usual_application"]

#: These settings say where the application is; in a project ``ASGI_APPLICATION`` says it.
_NOT_DJANGOS = ("app_dir", "factory")

#: Daphne's options of ``runserver``, which are keywords of its ``Server`` too, and the settings that they stand for.
OPTIONS = {
    "http_timeout": "http_timeout",
    "websocket_handshake_timeout": "websocket_connect_timeout",
    "websocket_max_message_size": "websocket_max_message_size",
    "websocket_max_frame_size": "websocket_max_frame_size",
}

_DAPHNE_NAMES = ("websocket_max_message_size", "websocket_max_frame_size")


def django_names() -> dict[str, str]:
    """Each setting that a project may have, by its name there; address and logging have other places in Django."""
    return {
        f"ASGISERVER_{spelling.upper()}": field.name
        for field in dataclasses.fields(Settings)
        for spelling in spellings(field.name)
        if information(field.name).group not in (BIND, LOGGING) and field.name not in _NOT_DJANGOS
    }


def server_keywords(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords for ``Server``, not yet checked: an option wins over ``ASGISERVER_<NAME>``, this over Daphne's setting.

    :param options: the command's; only :data:`OPTIONS` and ``use_tls`` are read, and None means not given.
    :return: always with the keywords of :data:`OPTIONS`, and ``root_path``.
    """
    names = {**{f"DAPHNE_{name.upper()}": name for name in _DAPHNE_NAMES}, **django_names()}
    values = {name: getattr(settings, given) for given, name in names.items() if hasattr(settings, given)}
    if not options.get("use_tls"):
        values = {name: value for name, value in values.items() if information(name).group != TLS}
    for option, name in OPTIONS.items():
        value = values.pop(name, Settings.__dataclass_fields__[name].default)
        values[option] = value if options.get(option) is None else options[option]
    return {"root_path": settings.FORCE_SCRIPT_NAME or "", **values}


def get_default_application() -> Any:
    """The application that ``ASGI_APPLICATION`` names.

    :raises SettingsError: it names none. An exception of the application's own module passes through.
    """
    path = getattr(settings, "ASGI_APPLICATION", None)
    module_name, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module_name or not name:
        raise SettingsError(f"ASGI_APPLICATION: expected a name like {usual_application()!r}, got {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # If the missing module is another one, the application's own import has failed.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise SettingsError(f"ASGI_APPLICATION is {path!r}, but there is no module {error.name!r}") from error
    if not hasattr(module, name):
        raise SettingsError(f"ASGI_APPLICATION is {path!r}, but {module_name!r} has no {name!r}")
    return getattr(module, name)


def usual_application() -> str:
    """The likely value of ``ASGI_APPLICATION``, from where the project's settings are."""
    package = str(settings.SETTINGS_MODULE or "").rpartition(".settings")[0]
    return f"{package or 'mysite'}.asgi.application"
