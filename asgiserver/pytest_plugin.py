"""The fixture ``asgi_server`` for pytest.

It is switched on in ``conftest.py``::

    pytest_plugins = ["asgiserver.pytest_plugin"]
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import LiveServer

__all__ = ["asgi_server"]

_servers = pytest.StashKey[list["LiveServer"]]()


@pytest.fixture
def asgi_server(request: pytest.FixtureRequest) -> Iterator[Callable[..., LiveServer]]:
    """Starts servers for the length of a test: ``asgi_server(application, **options)`` gives a running one.

    It takes the arguments of :class:`asgiserver.testing.LiveServer`. An exception of an application fails the test.
    """
    from .testing import LiveServer

    servers = request.node.stash[_servers] = []
    with ExitStack() as running:

        def start(application: Any, **options: Any) -> LiveServer:
            servers.append(running.enter_context(LiveServer(application, **options)))
            return servers[-1]

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Raise the exceptions in the test: at the fixture's end they would be errors of a test that has passed."""
    result = yield
    for server in item.stash.get(_servers, []):
        server.check()
    return result
