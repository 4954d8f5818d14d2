"""Where the command line's settings come from, and the files that they may stand in.

A flag wins over a variable ``ASGISERVER_<NAME>``, the variable over the file, the file over the default. ``Server`` and
everything that embeds it read no file: only :mod:`.cli` calls this.

The file is TOML. A key is the setting's flag without its dashes; ``application`` names the application. Values have
TOML's own types, but for permissions, which are text, as TOML does not tell 0o640 from 416. A path is relative to the
file's folder, so that the file means the same wherever the server is started.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import SettingsError
from .foreign_flags import nearest
from .settings import RELOAD, WORKERS, Settings, checked, information, parse, spellings, type_hints, variable_of

__all__ = [
    "Configuration", "collect", "found_file", "key", "label", "listed", "read_file", "read_variables", "shown",
    "warn_of_unknown_variables",
]  # fmt: skip

logger = logging.getLogger("asgiserver")

#: Names that are looked for besides the settings' own.
APPLICATION = "application"
_CONFIG = "ASGISERVER_CONFIG"
_OWN_VARIABLES = _CONFIG, f"ASGISERVER_{APPLICATION.upper()}"

#: Settings that have no effect without one of those behind them.
_NEEDS = {
    **dict.fromkeys(("proxy_headers_host", "proxy_headers_port", "proxy_headers_proto"), ("proxy_headers",)),
    "forwarded_allow_ips": ("proxy_headers",),
    "unix_socket_mode": ("unix_socket", "endpoints"),
    **dict.fromkeys(("ssl_min_version", "ssl_ciphers", "ssl_handshake_timeout"), ("ssl_certfile",)),
    **dict.fromkeys(
        (name for name in Settings.__dataclass_fields__ if information(name).group == WORKERS
         and name not in ("workers", "pid_file")), ("workers", "reload")),
    **dict.fromkeys(
        (name for name in Settings.__dataclass_fields__ if information(name).group == RELOAD and name != "reload"),
        ("reload",)),
    "max_requests_jitter": ("max_requests",),
}  # fmt: skip
#: Of two flags the second leaves the first without effect.
_BESIDE = {"log_fmt": "log_config"}

#: Found without TOML being loaded, and without a look at what others may have got wrong in a file that is theirs.
_HEADING = re.compile(rb"^[ \t]*\[[ \t]*tool[ \t]*\.[ \t]*asgiserver[ \t]*\]", re.MULTILINE)

_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ASSIGNMENT = re.compile(
    r"""[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=(?:[ \t]+(?![ \t\#]))?
    (?:'([^']*)'|"((?:[^"\\]|\\[nrt"\\$`])*)"|((?!['"])(?:(?![ \t]+(?:\#|\n|\Z))[^\n])*))
    (?:[ \t]+\#[^\n]*|[ \t]*)(?:\n|\Z)""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class Configuration(NamedTuple):
    """All settings, and the application if one is named.

    :param origins: where the values come from, by the settings' names; a default has none.
    :param labels: how their user wrote the settings' names: a flag, a variable, or a file and a key; see :func:`label`.
    :param path: the configuration file; empty when there is none.
    """

    settings: Settings
    application: str | None
    origins: dict[str, str]
    labels: dict[str, str]
    path: str


def label(labels: Mapping[str, str], name: str) -> str:
    """How an error calls the setting ``name``; what is no setting keeps its name."""
    if name not in Settings.__dataclass_fields__:
        return name
    return labels.get(name, f"--{key(name)}")


def collect(
    given: Mapping[str, Any],
    config: str | None,
    env_file: str | None,
    environ: MutableMapping[str, str],
    written: Mapping[str, str] | None = None,
) -> Configuration:
    """Read all sources, and check the settings together.

    :param given: the values of the flags that were used, by the settings' names.
    :param config: the file's path; None to look for one, empty for none.
    :param env_file: a file of variables, see :func:`read_variables`.
    :param environ: the environment, to which the variables of ``env_file`` are added, unless it has them.
    :param written: the flags that gave ``given``.
    :raises SettingsError: a source cannot be read, or has a wrong value or an unknown key.
    """
    added = {} if env_file is None else read_variables(env_file)
    added = {name: value for name, value in added.items() if name not in environ}
    environ.update(added)
    path = environ.get(_CONFIG) if config is None else config
    path = found_file() if path is None else path
    values, origins, labels = read_file(path)
    variables = Settings.from_environment(environ)
    if f"ASGISERVER_{APPLICATION.upper()}" in environ:
        variables[APPLICATION] = environ[f"ASGISERVER_{APPLICATION.upper()}"]
    for name, value in variables.items():
        variable = f"ASGISERVER_{APPLICATION.upper()}" if name == APPLICATION else variable_of(name, environ) or ""
        values[name] = value
        origins[name] = f"{env_file}: {variable}" if variable in added else f"environment: {variable}"
        labels[name] = origins[name].removeprefix("environment: ")
    values |= given
    origins |= dict.fromkeys(given, "command line")
    labels = {name: text for name, text in labels.items() if name not in given} | dict(written or {})
    if values.get("reload") and "workers" not in given:
        # The workers of production, from a file or WEB_CONCURRENCY; the origin stays, for a line in the log.
        values.pop("workers", None)
    application = values.pop(APPLICATION, None)
    if isinstance(values.get("host"), str):
        values["host"] = values["host"].strip("[]")
    try:
        _check_use(values, written or {})
        settings = Settings(**values)
    except SettingsError as error:
        raise error.labelled(lambda name: label(labels, name)) from None
    return Configuration(settings, application, origins, labels, path)


def _check_use(values: Mapping[str, Any], written: Mapping[str, str]) -> None:
    """Raise SettingsError for a flag that would have no effect.

    A file and variables may be for starts of several kinds, such as with workers and without.
    """
    for name, needed in _NEEDS.items():
        used = name in written or name.startswith("proxy_headers_") and values.get(name)
        if used and not any(values.get(other) not in (None, False, ()) for other in needed):
            raise SettingsError(f"{name} needs {' or '.join(needed)} beside it", name, *needed)
    for name, other in _BESIDE.items():
        if name in written and other in written:
            raise SettingsError(f"{name} has no effect beside {other}", name, other)


def warn_of_unknown_variables(environ: Mapping[str, str]) -> None:
    """Log the ``ASGISERVER_…`` variables that mean nothing."""
    for name, meant in Settings.unknown_variables(environ).items():
        if name not in _OWN_VARIABLES:
            logger.warning("%s is not the variable of any setting and is ignored%s", name, meant)


def key(name: str) -> str:
    """What a setting is called in the file: as its long flag, without the two dashes."""
    return spellings(name)[0].replace("_", "-")


def _keys() -> dict[str, str]:
    """The name of each setting by its keys."""
    names = [field.name for field in dataclasses.fields(Settings) if information(field.name).command_line]
    return {spelling.replace("_", "-"): name for name in names for spelling in spellings(name)}


def read_file(path: str) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """The values of a configuration file by the settings' names, their origins and labels; empty ``path`` for none.

    :raises SettingsError: the file cannot be read, or has a wrong value or an unknown key.
    """
    if not path:
        return {}, {}, {}
    origin, table = _table(path)
    folder = os.path.dirname(os.path.abspath(path))
    keys, values, labels = _keys(), dict[str, Any](), dict[str, str]()
    for given, value in table.items():
        spelt = given.replace("_", "-")
        name = APPLICATION if spelt == APPLICATION else keys.get(spelt)
        if name is None:
            meant = nearest(spelt.removeprefix("no-"), [*keys, APPLICATION])
            raise SettingsError(f"{origin}: there is no setting {given!r}{meant}")
        if name in values:
            raise SettingsError(f"{origin}: {given}: given twice")
        labels[name] = f"{origin}: {given}"
        values[name] = _based(name, _value(name, value, labels[name]), folder)
    return values, dict.fromkeys(values, origin), labels


def found_file() -> str:
    """``asgiserver.toml`` in the working directory, else ``pyproject.toml`` there with a table for us; else empty."""
    if os.path.exists("asgiserver.toml"):
        return "asgiserver.toml"
    heading = os.path.exists("pyproject.toml") and _HEADING.search(_read("pyproject.toml"))
    return "pyproject.toml" if heading else ""


def _table(path: str) -> tuple[str, dict[str, Any]]:
    """The table of settings in a file, behind what errors call it."""
    import tomllib

    data = _read(path)
    try:
        table: Any = tomllib.loads(data.decode())
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    if os.path.basename(path) != "pyproject.toml":
        return path, table
    tools = table.get("tool")
    table = tools.get("asgiserver") if isinstance(tools, dict) else None
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: expected a table [tool.asgiserver]")
    return f"{path}: [tool.asgiserver]", table


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error


def _value(name: str, value: Any, where: str) -> Any:
    """``value`` in the setting's own type; ``where`` is the file and the key, for an error."""
    try:
        if name == APPLICATION:
            if not isinstance(value, str):
                raise ValueError(f"expected text, got {value!r}")
            return value
        if information(name).unit == "octal":
            if not isinstance(value, str):
                raise ValueError('expected an octal number in quotes, like "660"')
            value = parse(value, type_hints()[name], information(name))
        return checked(name, value)
    except ValueError as error:
        raise SettingsError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from None


def _based(name: str, value: Any, folder: str) -> Any:
    """``value`` with its paths, if it is made of paths, taken as relative to ``folder``; ``-`` is no path."""
    if name == APPLICATION or information(name).unit != "path" or value is None:
        return value
    if isinstance(value, tuple):
        return tuple(os.path.join(folder, path) for path in value)
    return value if value in ("", "-") else os.path.join(folder, value)


def read_variables(path: str) -> dict[str, str]:
    r"""The variables of a file, as a shell would read the simplest of its assignments.

    ::

        # A comment, also behind a value and a space.
        export NAME=text to the end of the line, $ and \ as they are
        NAME='anything but a quote, $ and \ as they are, over any number of lines'
        NAME="the same, but \n \r \t \" \\ \$ \` stand for one character"

    Nothing is looked up or executed. Spaces around the ``=`` and at the end of a line do not count; a line that is
    given twice counts the second time.

    :raises SettingsError: the file cannot be read, or a line is none of these.
    """
    try:
        text = _read(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: {error}") from None
    values: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _BLANK.match(text, at)
        if found is None:
            found = _ASSIGNMENT.match(text, at)
            if found is None or "\0" in found[0]:
                raise SettingsError(f"{path}: line {text.count(chr(10), 0, at) + 1}: expected NAME=VALUE")
            name, single, double, bare = found.groups()
            if double is not None:
                double = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), double)
            values[name] = next(value for value in (single, double, bare) if value is not None)
        at = found.end()
    return values


def shown(configuration: Configuration) -> str:
    """A configuration file with all settings, and with the origin of each in a comment; defaults are comments alone.

    Paths are absolute, so that the file may be kept anywhere. A password is left out.

    :raises SettingsError: a value is not Unicode, which TOML cannot write.
    """
    settings, application, origins, *_ = configuration
    lines = []
    if application is not None:
        lines.append(f"application = {_literal(APPLICATION, application)}  # {_origin(origins[APPLICATION])}")
    group = ""
    for name in dict.fromkeys(_keys().values()):
        info = information(name)
        if info.group != group:
            group = info.group
            lines += ["", f"# {group}"]
        value, origin = getattr(settings, name), origins.get(name)
        if origin is not None:
            value = _based(name, value, os.getcwd())
        if value is None and info.off:
            value = 0 if info.off == "zero" else -1
        text = key(name) if value is None or info.secret else f"{key(name)} = {_literal(name, value)}"
        comment = origin is None or value is None or info.secret
        lines.append(f"{'# ' if comment else ''}{text}  # {_origin(origin or 'default')}")
    return "\n".join(lines).strip("\n") + "\n"


def listed(configuration: Configuration) -> list[dict[str, str]]:
    """All settings: each one's ``name`` in the file, its ``value`` as TOML writes it, and its ``origin``.

    A value that is None, a password's, and one that TOML cannot write are empty.
    """
    found = []
    for name in _keys().values():
        value, info = getattr(configuration.settings, name), information(name)
        try:
            text = "" if value is None or info.secret else _literal(name, value)
        except SettingsError:
            text = ""
        origin = _origin(configuration.origins.get(name, "default"))
        found.append({"name": key(name), "value": text, "origin": origin})
    return found


def _literal(name: str, value: Any) -> str:
    """A value as TOML writes it."""
    if name != APPLICATION and information(name).unit == "octal":
        value = f"{value:o}"
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(name, each) for each in value)}]"
    if not isinstance(value, str):
        return str(value).lower()
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{name}: TOML cannot write {value!r}") from None
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _origin(text: str) -> str:
    """``text`` on one line, whatever a file is called."""
    return text if text.isprintable() else repr(text)
