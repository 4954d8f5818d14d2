"""The fixture ``asgi_server`` for pytest.

It is switched on in ``conftest.py``::

    pytest_plugins = ["asgiserver.pytest_plugin"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import LiveServer

__all__ = ["asgi_server"]


@pytest.fixture
def asgi_server() -> Iterator[Callable[..., LiveServer]]:
    """Starts servers for the length of a test: ``asgi_server(application, **options)`` gives a running one.

    It takes the arguments of :class:`asgiserver.testing.LiveServer`. What an application raised is raised at the end of
    the test, by the fixture.
    """
    from .testing import LiveServer

    with ExitStack() as servers:

        def start(application: Any, **options: Any) -> LiveServer:
            return servers.enter_context(LiveServer(application, **options))

        yield start
