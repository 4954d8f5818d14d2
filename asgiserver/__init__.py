"""An ASGI server on Twisted: HTTP/1.1 and HTTP/2, WebSocket through Autobahn, Daphne's interface.

Most programs need only ``run``, ``Server`` and ``Settings``; :mod:`asgiserver.errors` has the exceptions that they
raise.

The map of the house, from the ground up; each room's own theory opens its ``__init__``:

==========================  =========================================================================================
``errors``, ``settings``    the exceptions, and every setting with its unit, default and bounds
``asgi/``                   what the application sees: exchanges, messages, scopes; pure
``wire/``                   what the peer sees: connections, HTTP/1.1, HTTP/2, WebSockets' frames
``loop/``, ``transport/``,  Twisted's reactor and time; sockets that are connected; sockets that listen
``listen/``
``log/``                    the access log, and what the command line does to ``logging``
``hub``, ``server``,        exchanges become tasks of the application; the server's life from start-up to drain; the
``slow``                    log of slow requests
``running``, ``signals``,   a process of its own: its reactor, its signals and what they mean, its children
``forks``
``cli``, ``flags``,         ways in: the command line, its flags and files, other servers' flags; applications by
``foreign_flags``,          name, Twisted's services and ``twist asgi``, an application below a site of
``config``, ``loading``,    ``twisted.web``
``service``, ``resource``
``workers/``                several processes: who starts, watches and replaces them
``metrics/``                what is counted, and the monitor that tells of it
``wsgi/``, ``pipe``         WSGI applications, in threads; a response's way from a thread to the event loop
``testing/``, ``django/``   what tests and Django projects get
``management/``, ``apps``,  the places where Django, pytest and Twisted look for their part
``pytest_plugin``,
``twist_plugin``
``lazy_imports``            modules that Twisted imports and a server hardly ever uses
==========================  =========================================================================================

The way of a request: ``loop.direct`` reads → ``wire.connection`` → ``wire.http1`` → ``wire.reader`` → ``hub`` (scope,
exchange, task) → the application's ``receive()``. The way of its answer: ``send()`` is ``hub.handle_reply`` →
``asgi.messages`` → ``asgi.http`` → ``asgi.response`` → ``wire.http1`` → ``wire.output``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Server", "Settings", "__version__", "run"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .running import run
    from .server import Server
    from .settings import Settings


def __getattr__(name: str) -> Any:
    # Importing a module of this package, or asking for the version, must not cost the import of Twisted.
    if name == "Server":
        from .server import Server

        return Server
    if name == "Settings":
        from .settings import Settings

        return Settings
    if name == "run":
        from .running import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
