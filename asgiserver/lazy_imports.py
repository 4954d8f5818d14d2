"""What Twisted imports at once and a server hardly ever uses, imported when it is used.

Wherever pyOpenSSL is installed, and be it for another program, ``twisted.internet.tcp`` imports it with cryptography.
Both make the start longer and the process larger, and neither plain HTTP nor our own TLS needs them.

While :func:`postponed` is open, an import of such a module gets a placeholder. Afterwards nothing of that is left but
the variables in which those who imported it then keep it: all other imports find the module itself, or the error that
its import raises, as ever. A placeholder that is looked into, at any time, imports its module and answers for it.

This is for a process of our own, before Twisted is imported: the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["postponed", "unused_by_servers"]


def unused_by_servers() -> dict[str, tuple[str, ...]]:
    """The modules to postpone, each with those of its names that Twisted takes out of it, and only ever calls."""
    names = "http.cookiejar", "twisted.internet.udp", "twisted.internet.unix"
    modules: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    # Without pyOpenSSL Twisted has to see that these cannot be imported, and does without them.
    if find_spec("OpenSSL") is not None:
        modules |= {"twisted.protocols.tls": ("TLSMemoryBIOFactory",), "twisted.internet.ssl": ()}
    return modules


@contextmanager
def postponed(modules: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Postpone the import of ``modules`` by whatever is imported in the block; those that are imported already stay.

    :param modules: as :func:`unused_by_servers` gives them. None of them may be a package.
    """
    placeholders = {name: _Placeholder(name) for name in modules if name not in sys.modules}
    for name, module in placeholders.items():
        vars(module).update((function, _caller(name, function)) for function in modules[name])
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, module in placeholders.items():
            module.close()
            for function in modules[name]:
                vars(module).pop(function, None)


class _Placeholder(ModuleType):
    """A module that is imported when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":
            # Each import asks for it, to learn whether this is a package.
            raise AttributeError(name)
        self.close()
        return getattr(import_module(self.__name__), name)

    def close(self) -> None:
        """From now on imports get the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


def _caller(module: str, function: str) -> Callable[..., Any]:
    """Calls what ``module`` has under the name ``function``, and imports it for that."""

    def call(*args: Any, **keywords: Any) -> Any:
        return getattr(import_module(module), function)(*args, **keywords)

    return call
