"""The flags of the command line: derived from :class:`Settings`, with Daphne's spellings and abbreviations.

:meth:`Parser.read` tells all mistakes of a line at once: each wrong flag with what may have been meant, and each wrong
value under the flag that stands before it.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from . import __version__
from .foreign_flags import FOREIGN_FLAGS, advice
from .settings import Info, Settings, checked, flags, information, parse, spellings, type_hints

__all__ = ["DAPHNE_FLAGS", "Parser", "expanded", "no_application", "parser"]

METAVARS = {"s": "SECONDS", "bytes": "BYTES", "octal": "MODE"}

USAGE = "%(prog)s [options] [MODULE:ATTRIBUTE]"

DESCRIPTION = """
It listens on http://127.0.0.1:8000 unless told otherwise:

  asgiserver mysite.asgi:application
  asgiserver mysite.asgi:application --host 0.0.0.0 --port 80 --workers 4
"""

EPILOG = """\
Each setting is also read from the environment, --backlog from
ASGISERVER_BACKLOG, and from the file of --config, where its key is backlog;
the command line wins, then the environment.

Exit status: 0 stopped by a signal; 1 an address could not be listened on, or
the application's module raised; 2 a mistake in the settings; 3 the
application did not start; 128 + N ended at once by signal N.

Signals: SIGINT (Ctrl-C) and SIGTERM let running requests finish, SIGQUIT
cancels them, a later one ends the process at once. With --workers SIGHUP
loads the code anew. With --ssl-certfile it reads changed certificates.

README.md, beside the source, is the documentation.
"""

#: Daphne's long flags. A prefix of exactly one of these is valid, as with Daphne, and of no other flag.
DAPHNE_FLAGS = (
    "--access-log", "--application-close-timeout", "--bind", "--endpoint", "--fd", "--help", "--http-timeout",
    "--log-fmt", "--no-server-name", "--ping-interval", "--ping-timeout", "--port", "--proxy-headers",
    "--proxy-headers-host", "--proxy-headers-port", "--root-path", "--server-name", "--unix-socket", "--verbosity",
    "--websocket-max-frame-size", "--websocket-max-message-size", "--websocket_connect_timeout",
    "--websocket_timeout",
)  # fmt: skip

#: Flags that give an empty text, with what ``--help`` says.
_EMPTYING = {"server_name": "Send no Server header.", "access_log": "Write no access log."}

_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
_APPLICATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def expanded(args: Sequence[str]) -> list[str]:
    """``args`` with the abbreviations that Daphne understands written out."""
    plain = list(args)
    end = plain.index("--") if "--" in plain else len(plain)
    return [*map(_expanded, plain[:end]), *plain[end:]]


def _expanded(arg: str) -> str:
    name, equals, value = arg.partition("=")
    if not name.startswith("--") or name in DAPHNE_FLAGS or name in FOREIGN_FLAGS:
        return arg
    meant = [flag for flag in DAPHNE_FLAGS if flag.startswith(name)]
    return f"{meant[0]}{equals}{value}" if len(meant) == 1 else arg


def no_application(given: Mapping[str, Any]) -> str:
    """What is told when no application is named; a flag may have taken its name for a value.

    :param given: the values of the flags that were used.
    """
    message = "the following arguments are required: MODULE:ATTRIBUTE"
    for name, value in given.items():
        if isinstance(value, str) and _APPLICATION.fullmatch(value):
            return f"{message}; {flags(name)[-1]} takes a value, and took {value!r} for it"
    return message


class _Setting(argparse.Action):
    """Keeps a setting's value, and the flag that it came by; a wrong value is one of the parser's mistakes."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name, flag = self.dest, option_string or ""
        info, hint = information(name), type_hints()[name]
        try:
            if self.nargs != 0:
                # A list has one value for each time that its flag is used.
                many = self.const
                value = checked(name, [values] if many else parse(values, hint, info))
                value = [*getattr(namespace, name, []), values] if many else value
            else:
                value = not flag.startswith("--no-") if hint is bool else ""
        except ValueError as error:
            parser.mistakes.append(f"{flag}: {str(error).removeprefix(f'{name}: ')}")
        else:
            setattr(namespace, name, value)
            parser.written[name] = flag


class Parser(argparse.ArgumentParser):
    """A parser that reports all errors on one line, without the usage before it."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.mistakes: list[str] = []
        #: The flag that each setting came by.
        self.written: dict[str, str] = {}

    def read(self, args: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
        """The values of ``args``, and by which flag each of them came.

        :raises SystemExit: with status 2 after a mistake, 0 for ``--help`` and the like.
        """
        self.mistakes, self.written = [], {}
        right = self._without_mistakes(expanded(args))
        told = bool(self.mistakes)
        namespace, extra = self.parse_known_args(right)
        # What follows a wrong flag may have been its value.
        if extra and not told:
            first = getattr(namespace, self._positionals._group_actions[0].dest, "")
            self.mistakes.append(f"expected one MODULE:ATTRIBUTE, got {' '.join([first, *extra])}")
        if self.mistakes:
            self.error("")
        return namespace, self.written

    def error(self, message: str) -> NoReturn:
        """Report ``message``, unless it is empty, with the mistakes that were found before."""
        lines = [*self.mistakes, message] if message else self.mistakes
        line = " ".join("; ".join(lines).split())
        self.exit(2, f"{self.prog}: error: {line} (see {self.prog} --help)\n")

    def _without_mistakes(self, args: Sequence[str]) -> list[str]:
        """``args`` without the flags that do not exist or lack their value, which are noted."""
        right, rest = list[str](), list(args)
        while rest:
            arg = rest.pop(0)
            if arg == "--":
                return [*right, arg, *rest]
            flag, equals, _ = arg.partition("=")
            if not arg.startswith("--"):
                flag = arg[:2]
            action = self._option_string_actions.get(flag)
            if _is_value(arg):
                right.append(arg)
            elif f"-{arg.partition('=')[0]}" in self._known():
                # Or -p would take "ort" for its value.
                self.mistakes.append(f"there is no {arg}; did you mean -{arg}?")
            elif action is None:
                self.mistakes.append(f"there is no {flag}{advice(flag, self._known())}")
            elif action.nargs == 0 and equals:
                self.mistakes.append(f"{flag}: expected no value after it")
            elif action.nargs is not None or equals or arg != flag:
                right.append(arg)
            elif rest and _is_value(rest[0]):
                right += [arg, rest.pop(0)]
            else:
                self.mistakes.append(f"{flag}: expected a value after it")
        return right

    def _known(self) -> list[str]:
        return [flag for flag in self._option_string_actions if flag.startswith("--") and "_" not in flag]


def _is_value(arg: str) -> bool:
    """Whether argparse takes ``arg`` for a value, not a flag."""
    return not arg.startswith("-") or arg == "-" or " " in arg or _NUMBER.fullmatch(arg) is not None


def parser(description: str) -> Parser:
    """The parser of the command line.

    :param description: one sentence; ``--help`` goes on with an example.
    """
    made = Parser(
        prog="asgiserver",
        usage=USAGE,
        description=description + "\n" + DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        # Only flags that were given stand in the namespace, so that the environment can fill the rest.
        argument_default=argparse.SUPPRESS,
        # add_argument() makes formatters, each of which asks for the terminal's size unless it is given a width.
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80),
    )
    made.add_argument(
        "application", metavar="MODULE:ATTRIBUTE", nargs="?",
        help="What to serve, like mysite.asgi:application; a module alone means its application, else its app.",
    )  # fmt: skip
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    made.add_argument(
        "--config", metavar="FILE",
        help="Settings in TOML. By default asgiserver.toml in the working directory, else [tool.asgiserver] of "
        "pyproject.toml there; empty for none.",
    )  # fmt: skip
    made.add_argument(
        "--env-file", metavar="FILE", help="Variables that the environment lacks, ASGISERVER_... among them.",
    )  # fmt: skip
    made.add_argument(
        "--show-settings", action="store_true",
        help="Print all settings as a file for --config, with where each comes from, and exit.",
    )  # fmt: skip
    made.add_argument(
        "--check", action="store_true",
        help="Import the application, and check settings, certificates and endpoints; then exit without listening. The "
        "lifespan is not run.",
    )  # fmt: skip
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        info = information(field.name)
        if info.command_line:
            if info.group not in groups:
                groups[info.group] = made.add_argument_group(info.group)
            _add(groups[info.group], field, type_hints()[field.name], info)
    made.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30)
    return made


def _add(group: Any, field: dataclasses.Field[Any], hint: Any, info: Info) -> None:
    """Add the flags of one setting; those that are not its name, or have an underscore, work without being shown."""
    names = flags(field.name)
    shown = [flag for flag in names if "_" not in flag]
    every = [*names, *("--" + spelling.replace("_", "-") for spelling in spellings(field.name))]
    options: dict[str, Any] = {"dest": field.name, "action": _Setting}
    if hint is bool:
        options["nargs"] = 0
        every = list(dict.fromkeys(every))
        every += [flag.replace("--", "--no-", 1) for flag in every]
        shown = [flag for flag in every if flag.startswith("--no-") is field.default]
    elif info.choices:
        options["metavar"] = f"{{{','.join(info.choices)}}}"
    else:
        options["metavar"] = info.metavar or METAVARS.get(info.unit, "N")
        options["const"] = isinstance(field.default, tuple) and info.metavar != "LIST"
    default = _shown(field.default, info)
    text = f"{info.text} [{default}]" if default else info.text
    group.add_argument(*shown, help=text.replace("%", "%%"), **options)
    hidden = [flag for flag in dict.fromkeys(every) if flag not in shown]
    if hidden:
        group.add_argument(*hidden, help=argparse.SUPPRESS, **options)
    if field.name in _EMPTYING:
        flag = "--no-" + field.name.replace("_", "-")
        group.add_argument(flag, dest=field.name, action=_Setting, nargs=0, help=_EMPTYING[field.name])


def _shown(default: Any, info: Info) -> str:
    """A default as ``--help`` shows it; empty for None, False, and an empty text or list."""
    if default is None or isinstance(default, bool):
        return "on" if default else ""
    if isinstance(default, tuple):
        return ",".join(default)
    if info.unit == "octal":
        return f"{default:o}"
    return f"{default:g}" if isinstance(default, float) else str(default)
