"""What is postponed is imported when it is used, and until then nothing else can tell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asgiserver.lazy_imports import postponed, unused_by_servers

FILES = {
    "late/__init__.py": "",
    "late/heavy.py": "PI = 3\ndef double(number, *, plus=0): return 2 * number + plus\nclass Thing: pass\n",
    "late/broken.py": "import late.nonsense\n",
    "late/user.py": "from late import heavy\nimport late.heavy as same\n",
    "late/caller.py": "from late.heavy import double\n",
    "late/looks.py": "from late.heavy import Thing\n",
    "late/tries.py": "try:\n    from late import broken\nexcept ImportError:\n    broken = None\n",
    "single.py": "ONE = 1\n",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("late", "single")]:
        del sys.modules[name]


def imported_with(name: str, *, heavy: tuple[str, ...] = ()) -> Any:
    """``name``, imported while ``late.heavy`` is postponed."""
    with postponed({"late.heavy": heavy}):
        return import_module(name)


class TestPostponed:
    def test_a_module_is_imported_when_one_of_its_names_is_asked_for(self) -> None:
        user = imported_with("late.user")
        assert "late.heavy" not in sys.modules
        assert user.heavy.PI == 3
        assert "late.heavy" in sys.modules

    def test_both_ways_to_import_it_are(self) -> None:
        user = imported_with("late.user")
        assert user.same is user.heavy
        assert user.same.double(4) == 8

    def test_a_module_in_no_package_is_as_well(self) -> None:
        with postponed({"single": ()}):
            single = import_module("single")
        assert "single" not in sys.modules
        assert single.ONE == 1

    def test_what_it_answers_is_the_modules_own(self) -> None:
        user = imported_with("late.user")
        thing = user.heavy.Thing
        assert thing is import_module("late.heavy").Thing
        assert isinstance(thing(), user.heavy.Thing)

    def test_a_change_to_the_module_is_seen(self) -> None:
        user = imported_with("late.user")
        import_module("late.heavy").PI = 4  # type: ignore[attr-defined]
        assert user.heavy.PI == 4

    def test_other_imports_find_the_module_itself(self) -> None:
        user = imported_with("late.user")
        found = import_module("late.heavy")
        assert type(found) is ModuleType
        assert found is not user.heavy
        assert sys.modules["late"].heavy is found  # type: ignore[attr-defined]

    def test_a_name_that_it_has_not_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match=r"module .late\.heavy. has no attribute .nonsense."):
            imported_with("late.user").heavy.nonsense  # noqa: B018

    def test_what_is_imported_already_stays(self) -> None:
        before = import_module("late.heavy")
        assert imported_with("late.user").heavy is before
        assert sys.modules["late.heavy"] is before

    def test_what_nobody_imports_leaves_nothing(self) -> None:
        names = set(sys.modules)
        with postponed({"late.heavy": (), "no.such.module": ()}):
            pass
        assert set(sys.modules) == names

    def test_an_error_in_the_block_ends_it(self) -> None:
        with pytest.raises(ZeroDivisionError), postponed({"late.heavy": ()}):
            raise ZeroDivisionError
        assert "late.heavy" not in sys.modules


class TestLookingAtOnce:
    """Whoever needs a module while it is postponed gets it then."""

    def test_for_a_name(self) -> None:
        assert imported_with("late.looks").Thing is import_module("late.heavy").Thing

    def test_and_whoever_took_it_before_has_it_too(self) -> None:
        with postponed({"late.heavy": ()}):
            user = import_module("late.user")
            import_module("late.looks")
            assert type(sys.modules["late.heavy"]) is ModuleType
        assert user.heavy.Thing is sys.modules["late.heavy"].Thing


class TestFunctions:
    def test_one_that_is_taken_out_of_a_module_imports_it_when_called(self) -> None:
        caller = imported_with("late.caller", heavy=("double",))
        assert "late.heavy" not in sys.modules
        assert caller.double(4, plus=1) == 9
        assert "late.heavy" in sys.modules

    def test_the_module_itself_has_the_real_one(self) -> None:
        user = imported_with("late.user", heavy=("double",))
        assert user.heavy.double is import_module("late.heavy").double


class TestFailing:
    """A module that cannot be imported fails where it is used, each time."""

    def test_where_it_is_used(self) -> None:
        with postponed({"late.broken": ()}):
            tries: Any = import_module("late.tries")
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError, match=r"late\.nonsense"):
                tries.broken.PI  # noqa: B018

    def test_and_where_it_is_imported(self) -> None:
        with postponed({"late.broken": ()}):
            import_module("late.tries")
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError, match=r"late\.nonsense"):
                import_module("late.broken")


class TestUnusedByServers:
    def test_tls_is_where_pyopenssl_is_installed(self) -> None:
        assert {"twisted.protocols.tls", "twisted.internet.ssl"} < unused_by_servers().keys()

    def test_and_not_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Twisted has to see that it is missing: its reactor would offer TLS otherwise.
        monkeypatch.setitem(sys.modules, "OpenSSL", None)
        assert not {"twisted.protocols.tls", "twisted.internet.ssl"} & unused_by_servers().keys()


#: Twisted as the command line imports it, and each variable in which it keeps what was postponed.
PROGRAM = """
import sys, warnings
from asgiserver.lazy_imports import postponed, unused_by_servers

with postponed(unused_by_servers()):
    from twisted.internet import asyncioreactor, posixbase, _newtls
    from twisted.python import compat
assert not {"OpenSSL", "cryptography", *unused_by_servers()} & sys.modules.keys()

from twisted.internet.interfaces import IReactorSSL, ITLSTransport
from twisted.internet.tcp import Connection

assert IReactorSSL.implementedBy(asyncioreactor.AsyncioSelectorReactor)
assert ITLSTransport.implementedBy(Connection) and Connection.startTLS
assert posixbase.ssl.Connector.__module__ == "twisted.internet.ssl"
assert posixbase.tls.TLSMemoryBIOFactory.__module__ == "twisted.protocols.tls"
with warnings.catch_warnings(action="ignore"):
    assert compat.cookielib.CookieJar.__module__ == "http.cookiejar"

from twisted.internet.ssl import CertificateOptions

assert isinstance(_newtls.TLSMemoryBIOFactory(CertificateOptions(), True, None), posixbase.tls.TLSMemoryBIOFactory)
assert posixbase.udp.Port.__module__ == "twisted.internet.udp"
assert posixbase.unix.Port.__module__ == "twisted.internet.unix"
assert {"OpenSSL", "cryptography", *unused_by_servers()} <= sys.modules.keys()
"""


def test_twisted_has_everything_that_it_has_without_it() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
