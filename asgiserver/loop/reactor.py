"""The one place that installs or inspects Twisted's reactor.

Twisted has one reactor in a process: the module ``twisted.internet.reactor``. asgiserver needs it to be asyncio's, on
the loop that the application's tasks run on. Another reactor may be imported or installed already;
:func:`install_reactor` takes the first of these cases that applies:

==========================================================  ==============================
what is installed                                           what is done
==========================================================  ==============================
nothing                                                     install one
another class (epoll, select, …)                            :class:`ReactorError`
an asyncio reactor whose loop is closed, or that has ended  replace it
an asyncio reactor on the loop that runs here               use it
an asyncio reactor in use elsewhere                         :class:`ReactorError`
an idle asyncio reactor, and another loop runs here         replace it
an idle asyncio reactor, and no loop runs here              use it
==========================================================  ==============================

Replacing matters because a reactor cannot run twice, but a process may call ``asyncio.run()`` twice, and because
``import daphne.server`` leaves an idle reactor behind. A module that has said ``from twisted.internet import reactor``
before keeps the old one; asgiserver hands its reactor on as an argument for that reason.

Servers under test get :func:`private_reactor`, which is installed nowhere, so that any number of them can run beside
each other and beside whatever is installed.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import twisted.internet
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import installReactor

from ..asgi.interfaces import Clock
from ..errors import ReactorError, SettingsError

__all__ = [
    "Reactor", "forget_reactor", "install_reactor", "loop_of", "new_loop", "private_reactor", "rebase",
    "separate_epoll",
]  # fmt: skip

_MODULE = "twisted.internet.reactor"

#: Loops that nobody else closes: those that install_reactor has made itself.
_own_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
#: Reactors of the process that this one was forked from; kept so that no destructor touches what both share.
_inherited: list[object] = []


class Reactor(Clock, Protocol):
    """The part of Twisted's reactor that asgiserver uses, besides time."""

    running: bool

    def run(self, installSignalHandlers: bool = True) -> None:  # noqa: N803
        """Run the loop until :meth:`stop`; once in a reactor's life."""

    def stop(self) -> None:
        """Fire the shutdown triggers, then stop the loop. Raises ``ReactorNotRunning`` when it does not run."""

    def addSystemEventTrigger(  # noqa: N802
        self, phase: str, event: str, function: Callable[..., object], /, *args: object
    ) -> object:
        """Call ``function(*args)`` in the ``phase`` (before, during, after) of ``startup`` or ``shutdown``."""


def install_reactor(loop: str = "auto") -> Reactor:
    """Return a reactor that can be used here and now, installing one where that is needed.

    With a running loop in this thread the reactor is on that loop and starts to work at once; do not ``run()`` it.
    With none, it is on a loop that does not run yet, and the caller has to ``run()`` it. Any thread will do.

    :param loop: the kind of a new loop: ``asyncio``, ``uvloop``, or ``auto`` for uvloop where that is installed.
    :raises SettingsError: uvloop was asked for and is not installed.
    :raises ReactorError: when another kind of reactor is installed, or an asyncio reactor is in use on another loop.
    """
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    installed: Any = sys.modules.get(_MODULE)
    if installed is None:
        return _install(here or _own_loop(loop))
    _check_class(installed)
    if not _ended(installed):
        its = loop_of(installed)
        if its is here or here is None and not its.is_running():
            return cast(Reactor, installed)
        _check_idle(installed)
    _remove(installed)
    return _install(here or _own_loop(loop))


@contextmanager
def private_reactor() -> Iterator[Reactor]:
    """A reactor on the running loop that is not ``twisted.internet.reactor`` and ends with the block.

    Only code that gets it as an argument uses it: an application that imports Twisted's reactor itself does not.
    """
    reactor = _made(asyncio.get_running_loop())
    try:
        yield cast(Reactor, reactor)
    finally:
        for call in reactor.getDelayedCalls():
            call.cancel()
        reactor.removeReader(reactor.waker)
        _close_waker(reactor)


def forget_reactor() -> None:
    """In a forked process: let go of the reactor that came with it.

    The reactor is neither closed nor stopped, because parent and child share its epoll: a descriptor removed from it
    here would be removed there.
    """
    installed = sys.modules.pop(_MODULE, None)
    if installed is not None:
        _inherited.append(installed)
        del twisted.internet.reactor


def rebase(kind: str = "auto") -> None:
    """In a forked process: move the reactor that came with it, and never ran, to a new loop.

    So the modules that have imported the reactor keep one that works, with the calls that they have scheduled. The old
    loop and waker are kept, as :func:`forget_reactor` keeps the reactor.

    :param kind: see :func:`install_reactor`.
    """
    reactor: Any = sys.modules.get(_MODULE)
    if reactor is None:
        return
    _check_class(reactor)
    _inherited.extend((loop_of(reactor), reactor.waker))
    reactor._asyncioEventloop = _own_loop(kind)
    reactor._readers, reactor._writers = {}, {}
    reactor._timerHandle = reactor._scheduledAt = None
    reactor._internalReaders.discard(reactor.waker)
    reactor.waker = None
    reactor.installWaker()
    reactor._reschedule()


def separate_epoll(loop: asyncio.AbstractEventLoop) -> None:
    """In a forked process: give the loop that came with it an epoll of its own, which watches nothing.

    Parent and child share a forked epoll: what the loop's end or destructor removes from it here is removed there too,
    and then no signal or thread wakes the parent any more.
    """
    selector = getattr(loop, "_selector", None)
    descriptor = getattr(loop, "_get_backend_id", None) or getattr(selector, "fileno", None)
    if descriptor is not None and hasattr(select, "epoll") and not loop.is_closed():
        with select.epoll() as own:
            os.dup2(own.fileno(), descriptor(), inheritable=False)


def loop_of(reactor: Reactor) -> asyncio.AbstractEventLoop:
    """The loop that an asyncio reactor is on, running or not.

    :raises ReactorError: when it is another kind of reactor.
    """
    _check_class(reactor)
    return cast(asyncio.AbstractEventLoop, cast(Any, reactor)._asyncioEventloop)


def _check_class(reactor: object) -> None:
    if not isinstance(reactor, AsyncioSelectorReactor):
        raise ReactorError(
            f"Twisted's {type(reactor).__name__} is installed, but asgiserver runs on AsyncioSelectorReactor: call "
            "twisted.internet.asyncioreactor.install() before anything imports twisted.internet.reactor, or start "
            "twist or twistd with --reactor=asyncio"
        )


def _check_idle(reactor: Any) -> None:
    if reactor.running or loop_of(reactor).is_running():
        raise ReactorError(
            "Twisted's reactor is in use on another event loop, and a process has only one: start asgiserver on that "
            "loop, or in a process of its own"
        )


def _ended(reactor: Any) -> bool:
    """True when the reactor cannot work any more: its loop is closed, or it ran and was stopped."""
    # In public Twisted tells only whether a reactor runs, not that a reactor refuses to run again.
    return loop_of(reactor).is_closed() or reactor._startedBefore and not reactor.running


def _install(loop: asyncio.AbstractEventLoop) -> Reactor:
    reactor = _made(loop)
    installReactor(reactor)  # type: ignore[no-untyped-call]
    return cast(Reactor, reactor)


def _made(loop: asyncio.AbstractEventLoop) -> Any:
    if type(loop).__module__.partition(".")[0] == "uvloop":
        from .uvloop import UvloopReactor

        return UvloopReactor(loop)
    from .direct import DirectReactor

    return DirectReactor(loop)


def _remove(reactor: Any) -> None:
    """Uninstall an idle reactor, and close its pipe and a loop that was made for it."""
    del sys.modules[_MODULE]
    if getattr(twisted.internet, "reactor", None) is reactor:
        del twisted.internet.reactor
    loop = loop_of(reactor)
    if loop.is_running():
        return
    if not loop.is_closed():
        reactor.removeReader(reactor.waker)
    _close_waker(reactor)
    if loop in _own_loops:
        loop.close()


def _close_waker(reactor: Any) -> None:
    """Close the reactor's pipe: two bare descriptors, which no garbage collection closes."""
    reactor.waker.connectionLost(None)
    reactor.waker = None


def _own_loop(kind: str) -> asyncio.AbstractEventLoop:
    loop = new_loop(kind)
    _own_loops.add(loop)
    return loop


def new_loop(kind: str = "auto") -> asyncio.AbstractEventLoop:
    """A new event loop, as the setting ``loop`` says; the caller closes it.

    :raises SettingsError: uvloop was asked for and is not installed.
    """
    loop: asyncio.AbstractEventLoop
    try:
        if kind == "asyncio":
            raise ImportError
        import uvloop

        loop = uvloop.new_event_loop()
    except ImportError:
        if kind == "uvloop":
            raise SettingsError("loop: uvloop is not installed: install asgiserver[standard]") from None
        loop = asyncio.SelectorEventLoop()
    return loop
