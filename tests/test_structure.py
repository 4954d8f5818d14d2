"""The shape of the package: who may import whom, what an import does, and how long things are."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "asgiserver"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
MODULES = [
    name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for name in NAMES if not name.endswith("__main__.py")
]  # fmt: skip

#: What each room may import of the package, besides itself; the hall (files beside the rooms) may import all. Below
#: ``hub`` and ``server`` nobody knows these two, and a transport knows nothing of who listens for it or writes to it.
ROOMS = {
    "asgi": {"errors", "settings"},
    "wire": {"errors", "settings", "asgi", "transport"},
    "log": {"errors", "settings"},
    "loop": {"errors", "asgi"},
    "transport": {"errors", "asgi"},
    "listen": {"errors", "settings", "asgi", "loop", "transport", "forks"},
    "wsgi": {"errors", "asgi", "pipe", ""},
    "workers": {
        "errors", "settings", "asgi", "config", "listen", "log", "loop", "metrics", "wire", "lazy_imports", "signals",
        "cli", "running", "server",
    },
    "metrics": {"errors", "settings", "asgi", "config", "hub", "listen", "server", "workers", ""},
    "testing": {"errors", "settings", "asgi", "log", "loop", "loading", "server", "running", "django"},
    "django": {"errors", "settings", "asgi", "pipe", "testing", "management"},
    "management": {"errors", "settings", "log", "loop", "django", "server", "running", "cli", ""},
}
#: The files that everybody may import import nobody but those that import nobody at all.
GROUND = {
    "asgiserver/errors.py": set(), "asgiserver/foreign_flags.py": set(),
    "asgiserver/settings.py": {"errors", "foreign_flags"},
}  # fmt: skip

#: Where the tests of a module stand, when not in ``tests/<room>/test_<module>.py``.
TESTED_IN = {
    "asgiserver/__init__.py": "tests/test_structure.py",
    "asgiserver/__main__.py": "tests/e2e/test_command_line.py",
    "asgiserver/flags.py": "tests/test_cli.py",
    "asgiserver/pipe.py": "tests/wsgi/test_wsgi.py",
    "asgiserver/server.py": "tests/e2e/test_life_cycle.py",
    "asgiserver/asgi/fields.py": "tests/asgi/test_messages.py",
    "asgiserver/asgi/interfaces.py": "tests/wire/websocket/test_frames.py",
    "asgiserver/django/handler.py": "tests/e2e/test_django_suite.py",
    "asgiserver/django/static_files.py": "tests/e2e/test_runserver.py",
    "asgiserver/django/testing.py": "tests/e2e/test_live_tests.py",
    "asgiserver/listen/accept.py": "tests/listen/test_endpoints.py",
    "asgiserver/listen/bind.py": "tests/e2e/test_bind.py",
    "asgiserver/log/access_file.py": "tests/log/test_setup.py",
    "asgiserver/metrics/beside.py": "tests/e2e/test_metrics.py",
    "asgiserver/metrics/endpoints.py": "tests/e2e/test_metrics.py",
    "asgiserver/metrics/queues.py": "tests/e2e/test_metrics.py",
    "asgiserver/management/commands/runserver.py": "tests/django/test_runserver.py",
    "asgiserver/testing/places.py": "tests/e2e/test_live_server.py",
    "asgiserver/testing/process.py": "tests/e2e/test_server_process.py",
    "asgiserver/transport/tls_port.py": "tests/transport/test_tls.py",
    "asgiserver/transport/unix.py": "tests/e2e/test_endpoints.py",
    "asgiserver/wire/addresses.py": "tests/wire/test_connection.py",
    "asgiserver/wire/http2_plain.py": "tests/wire/test_http2_fields.py",
    "asgiserver/wire/http2_frames.py": "tests/wire/test_http2.py",
    "asgiserver/wire/http2_heads.py": "tests/wire/test_http2.py",
    "asgiserver/wire/refusing.py": "tests/wire/test_connection.py",
    "asgiserver/wire/http2_writer.py": "tests/wire/test_http2_output.py",
    "asgiserver/workers/channel.py": "tests/e2e/test_workers_parts.py",
    "asgiserver/workers/failure_page.py": "tests/e2e/test_reload.py",
    "asgiserver/workers/launch.py": "tests/e2e/test_workers_parts.py",
    "asgiserver/workers/monitor.py": "tests/e2e/test_metrics.py",
    "asgiserver/workers/monitoring.py": "tests/e2e/test_metrics.py",
    "asgiserver/workers/nursery.py": "tests/e2e/test_workers_import.py",
    "asgiserver/workers/pid_file.py": "tests/e2e/test_workers_parts.py",
    "asgiserver/workers/states.py": "tests/workers/test_generations.py",
    "asgiserver/workers/supervisor.py": "tests/e2e/test_workers.py",
    "asgiserver/workers/systemd.py": "tests/e2e/test_workers_systemd.py",
    "asgiserver/workers/worker.py": "tests/e2e/test_workers_leaving.py",
    "asgiserver/wsgi/answer.py": "tests/wsgi/test_wsgi.py",
    "asgiserver/wsgi/bridge.py": "tests/wsgi/test_wsgi.py",
    "asgiserver/wsgi/environ.py": "tests/wsgi/test_wsgi.py",
}

MOST_LINES = 450
#: An idea is not cut in two to be shorter.
LONGER = {
    "asgiserver/server.py": 500, "asgiserver/settings.py": 620, "asgiserver/wire/http1.py": 550,
    "asgiserver/wire/connection.py": 470, "asgiserver/wire/http2.py": 650,
    "asgiserver/wire/http2_stream.py": 530, "asgiserver/workers/supervisor.py": 520,
}  # fmt: skip
MOST_LINES_OF_A_FUNCTION = 60


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules and objects that a file imports, wherever in it."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            origin = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_at_once(path: Path) -> Iterator[str]:
    """The modules of the package that are imported together with a file."""
    package = path.relative_to(ROOT).parent.parts
    for node in tree(path).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            origin = ".".join([*package[: len(package) - node.level + 1], *(node.module or "").split(".")]).strip(".")
            # A part of a package needs its other parts, and not what the package is made of.
            yield from [origin] if node.module else ()
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def parts_of_the_package(path: Path) -> set[str]:
    """The rooms, and files of the hall, that a file imports; an empty name for the package's own ``__init__``."""
    parts = set()
    for name in imported(path):
        first, *rest = name.split(".")
        if first == "asgiserver":
            here = rest[0] if rest else ""
            parts.add(here if (PACKAGE / here).is_dir() or (PACKAGE / f"{here}.py").exists() else "")
    return parts


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1


class TestRooms:
    @pytest.mark.parametrize("path", FILES, ids=NAMES)
    def test_a_room_imports_only_what_it_may(self, path: Path) -> None:
        room = path.relative_to(PACKAGE).parts[0]
        if room in ROOMS:
            assert parts_of_the_package(path) <= ROOMS[room] | {room}

    def test_imports_go_round_in_no_circle(self) -> None:
        """But for those of types alone, and those that a function makes when it is called."""
        edges = {module(path): set(imported_at_once(path)) & {module(other) for other in FILES} for path in FILES}
        while leaves := {name for name, others in edges.items() if not others & edges.keys()}:
            for name in leaves:
                del edges[name]
        assert edges == {}

    @pytest.mark.parametrize("name", sorted(ROOMS.keys() - {"management"}))
    def test_a_room_opens_with_its_theory(self, name: str) -> None:
        assert len((ast.get_docstring(tree(PACKAGE / name / "__init__.py")) or "").splitlines()) >= 4

    def test_the_map_of_the_house_names_each_room_and_file_of_the_hall(self) -> None:
        text = ast.get_docstring(tree(PACKAGE / "__init__.py")) or ""
        hall = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
        named = {name.removesuffix("/") for name in re.findall(r"``(\w+/?)``", text)}
        assert hall - {"__init__", "__main__"} <= named

    @pytest.mark.parametrize("name", GROUND)
    def test_the_ground_rests_on_nothing(self, name: str) -> None:
        assert parts_of_the_package(ROOT / name) <= GROUND[name]

    @pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "asgi"], ids=lambda path: path.name)
    def test_asgi_knows_neither_twisted_nor_a_parser(self, path: Path) -> None:
        foreign = {name.split(".")[0] for name in imported(path)}
        assert not foreign & {"twisted", "autobahn", "h11", "socket", "zope"}

    def test_only_one_place_touches_the_global_reactor(self) -> None:
        """``loop/reactor.py`` looks for it in ``sys.modules`` by its name; nobody else imports or names it."""
        for name, path in zip(NAMES, FILES, strict=True):
            named = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
            assert not any(found.startswith("twisted.internet.reactor") for found in imported(path)), name
            assert ("twisted.internet.reactor" in named) == (name == "asgiserver/loop/reactor.py"), name

    def test_the_frame_engine_is_known_to_the_frames_alone(self) -> None:
        users = {path.name for path in FILES if any(name.startswith("autobahn") for name in imported(path))}
        assert users <= {"frames.py", "frame_parser.py", "deflate.py"}

    def test_the_output_knows_no_http(self) -> None:
        """Its bytes may be those of any wire."""
        known = {name for name in imported_at_once(PACKAGE / "wire" / "output.py") if name.count(".") == 2}
        assert known == {"asgiserver.asgi.interfaces", "asgiserver.transport.buffer"}

    def test_no_wire_knows_a_message_of_asgi(self) -> None:
        for path in PACKAGE.glob("wire/*.py"):
            constants = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
            texts = [text for text in constants if isinstance(text, str)]
            assert not [text for text in texts if text.startswith(("http.", "websocket."))], path


class TestImporting:
    """Importing has no effect."""

    PROGRAM = """
import json, logging, os, signal, sys, threading
environment = dict(os.environ)
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
for name in sys.argv[1:]:
    __import__(name)
import asyncio
loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
policy = asyncio.events._event_loop_policy
policy_type = type(policy).__module__.split(".")[0]
print(json.dumps({
    "reactor": "twisted.internet.reactor" in sys.modules,
    "loop": getattr(getattr(policy, "_local", None), "_loop", None) is not None,
    "policy": None if policy_type in ("builtins", "asyncio") else policy_type,
    "handlers": [log.name for log in loggers for kept in log.handlers if not isinstance(kept, logging.NullHandler)],
    "levels": [log.name for log in loggers if log.name.startswith("asgiserver") and log.level],
    "environment": dict(os.environ) != environment,
    "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != handlers,
    "threads": threading.active_count() - 1,
}))
"""
    NOTHING = {
        "reactor": False, "loop": False, "policy": None, "handlers": [], "levels": [], "environment": False,
        "signals": False, "threads": 0,
    }

    @staticmethod
    def changed_by(*modules: str) -> object:
        """What importing these has changed in a fresh interpreter."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ASGISERVER")}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", TestImporting.PROGRAM, *modules],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def test_all_together_change_nothing(self) -> None:
        assert self.changed_by(*MODULES) == self.NOTHING

    @pytest.mark.slow
    @pytest.mark.parametrize("module", MODULES)
    def test_each_alone_can_be_imported_and_changes_nothing(self, module: str) -> None:
        assert self.changed_by(module) == self.NOTHING

    def test_the_package_offers_server_and_settings(self) -> None:
        import asgiserver

        assert {"Server", "Settings"} <= set(asgiserver.__all__)
        for name in asgiserver.__all__:
            assert getattr(asgiserver, name) is not None
        with pytest.raises(AttributeError):
            asgiserver.nonsense  # noqa: B018


class TestSizes:
    @pytest.mark.parametrize("path", FILES, ids=NAMES)
    def test_no_file_is_too_long(self, path: Path) -> None:
        limit = LONGER.get(path.relative_to(ROOT).as_posix(), MOST_LINES)
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit

    def test_no_function_is_too_long_and_most_are_short(self) -> None:
        sizes = [size for path in FILES for size in functions(path)]
        assert [name for name, size in sizes if size > MOST_LINES_OF_A_FUNCTION] == []
        assert statistics.median(size for _, size in sizes) <= 10

    def test_there_is_at_least_as_much_of_tests_as_of_source(self) -> None:
        def lines(paths: Iterator[Path]) -> int:
            return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)

        assert lines((ROOT / "tests").rglob("*.py")) >= lines(iter(FILES))

    @pytest.mark.parametrize("path", FILES, ids=NAMES)
    def test_no_name_says_nothing(self, path: Path) -> None:
        words = set(path.stem.split("_"))
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                words |= {node.name.lower()}
        assert not words & {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


class TestTests:
    @pytest.mark.parametrize("name", NAMES)
    def test_each_module_has_its_tests(self, name: str) -> None:
        path = Path(name)
        if path.stem == "__init__" and name not in TESTED_IN:
            return  # the theory of a room
        room = path.parent.relative_to("asgiserver")
        tests = ROOT / TESTED_IN.get(name, f"tests/{room}/test_{path.stem}.py")
        assert tests.exists(), f"{name} has no {tests.name}"

    def test_no_exception_to_that_is_stale(self) -> None:
        assert TESTED_IN.keys() <= set(NAMES)
