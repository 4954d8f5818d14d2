"""Postpones the import of modules that Twisted imports at once and a server hardly ever uses.

Wherever pyOpenSSL is installed, even for another program, ``twisted.internet.tcp`` imports it, and cryptography too.
Both make the start longer and the process larger, and neither plain HTTP nor our own TLS needs them.

In the block of :func:`postponed`, an import of such a module gets a placeholder. Afterwards only modules that were
imported in the block still hold placeholders: every other import gets the module itself, or the error that its import
raises, as always. When a name of a placeholder is looked up, at any time, the placeholder imports its module for it.

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
    """The modules to postpone, each with the names that Twisted imports from it and only ever calls."""
    names = "http.cookiejar", "twisted.internet.udp", "twisted.internet.unix"
    modules: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    # Without pyOpenSSL Twisted has to see that these cannot be imported, and does without them.
    if find_spec("OpenSSL") is not None:
        modules |= {"twisted.protocols.tls": ("TLSMemoryBIOFactory",), "twisted.internet.ssl": ()}
    return modules


@contextmanager
def postponed(modules: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Postpone every import of ``modules`` in the block; modules that are imported already stay as they are.

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
        """Let imports get the module itself from now on."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


def _caller(module: str, function: str) -> Callable[..., Any]:
    """A function that calls ``function`` of ``module``, and imports the module only then."""

    def call(*args: Any, **keywords: Any) -> Any:
        return getattr(import_module(module), function)(*args, **keywords)

    return call
