"""Which reactor is used, replaced or refused.

A process has one reactor, so each case runs in an interpreter of its own, with warnings as errors. All are started
together by the first test that asks, as most of their time is spent importing Twisted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from asgiserver.errors import ReactorError
from asgiserver.loop.reactor import loop_of

PRELUDE = """
import asyncio, sys, threading
from asgiserver.errors import ReactorError
from asgiserver.loop.reactor import install_reactor, loop_of

def installed():
    return sys.modules.get("twisted.internet.reactor")

def refused(call=install_reactor):
    try:
        call()
    except ReactorError as error:
        return str(error)
    raise SystemExit("no ReactorError")

async def ask():
    return install_reactor()

async def tick(reactor, seconds=0.0):
    fired = asyncio.Event()
    reactor.callLater(seconds, fired.set)
    await asyncio.wait_for(fired.wait(), 10)

def in_thread(call):
    results = []
    def body():
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    assert results, "the thread did not end"
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]
"""

CASES: dict[str, str] = {}


def case(function: Callable[[], str]) -> Callable[[dict[str, str]], None]:
    """A test whose body, a program, the function returns; it passes when the program ends well."""
    name = function.__name__
    CASES[name] = textwrap.dedent(function())

    def test(results: dict[str, str]) -> None:
        assert results[name] == ""

    test.__name__ = name
    test.__doc__ = function.__doc__
    return test


@pytest.fixture(scope="module")
def results() -> dict[str, str]:
    """What each program of CASES complained of, by name."""
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "error"}
    waiting = list(CASES.items())
    outcome = {}
    while waiting:
        batch, waiting = waiting[:3], waiting[3:]
        children = [
            (
                name,
                subprocess.Popen(
                    [sys.executable, "-c", PRELUDE + program],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                ),
            )
            for name, program in batch
        ]
        for name, child in children:
            try:
                output, _ = child.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()
                output = "did not end\n" + child.communicate()[0]
            outcome[name] = output if output or child.returncode == 0 else f"status {child.returncode}"
    return outcome


@case
def test_importing_installs_nothing_and_makes_no_loop() -> str:
    return """
        assert installed() is None
        import importlib
        def made(*args):
            raise SystemExit("a loop was made")
        asyncio.SelectorEventLoop.__init__ = made
        importlib.reload(sys.modules["asgiserver.loop.reactor"])
        assert installed() is None
    """


@case
def test_nothing_installed_gives_a_reactor_on_the_running_loop() -> str:
    return """
        async def main():
            reactor = install_reactor()
            assert installed() is reactor
            assert loop_of(reactor) is asyncio.get_running_loop()
            await tick(reactor)
            assert install_reactor() is reactor, "asked again on the same loop"
        asyncio.run(main())
    """


@case
def test_nothing_installed_and_no_loop_gives_a_new_loop_to_run() -> str:
    return """
        reactor = install_reactor()
        assert installed() is reactor and not loop_of(reactor).is_running()
        assert install_reactor() is reactor, "idle, so it is the one"
        seen = []
        reactor.callLater(0, lambda: (seen.append(asyncio.get_running_loop() is loop_of(reactor)), reactor.stop()))
        reactor.run()
        assert seen == [True]
        loop_of(reactor).close()
    """


@case
def test_a_new_loop_is_uvloops_when_that_is_installed() -> str:
    return """
        import types
        class Loop(asyncio.SelectorEventLoop):
            pass
        sys.modules["uvloop"] = types.SimpleNamespace(new_event_loop=Loop)
        reactor = install_reactor()
        assert type(loop_of(reactor)) is Loop
        loop_of(reactor).close()
    """


@case
def test_a_new_loop_is_a_selector_loop_without_uvloop() -> str:
    return """
        sys.modules["uvloop"] = None
        reactor = install_reactor()
        assert type(loop_of(reactor)) is asyncio.SelectorEventLoop
        loop_of(reactor).close()
    """


@case
def test_an_asyncio_reactor_that_others_installed_on_this_loop_is_used() -> str:
    return """
        from twisted.internet import asyncioreactor
        async def main():
            asyncioreactor.install(asyncio.get_running_loop())
            theirs = installed()
            assert install_reactor() is theirs
        asyncio.run(main())
    """


@case
def test_an_idle_reactor_is_used_when_no_loop_runs() -> str:
    return """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs = installed()
        assert install_reactor() is theirs
        loop.close()
    """


@case
def test_a_reactor_that_is_starting_is_used_though_its_loop_does_not_spin_yet() -> str:
    return """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs, seen = installed(), []
        theirs.callWhenRunning(lambda: seen.append(install_reactor()))
        theirs.callLater(0, theirs.stop)
        theirs.run()
        assert seen == [theirs]
        loop.close()
    """


@case
def test_a_reactor_is_used_from_inside_its_own_run() -> str:
    return """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs, seen = installed(), []
        theirs.callLater(0, lambda: (seen.append(install_reactor()), theirs.stop()))
        theirs.run()
        assert seen == [theirs]
        loop.close()
    """


@case
def test_asyncio_run_works_many_times_and_keeps_no_descriptors() -> str:
    return """
        import os
        async def main():
            reactor = install_reactor()
            assert loop_of(reactor) is asyncio.get_running_loop()
            await tick(reactor)
            return reactor
        first, second = asyncio.run(main()), asyncio.run(main())
        assert first is not second and installed() is second
        import twisted.internet
        assert twisted.internet.reactor is second
        if os.path.isdir("/proc/self/fd"):
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(5):
                asyncio.run(main())
            assert len(os.listdir("/proc/self/fd")) == before
    """


@case
def test_a_second_run_after_the_first_gets_a_new_reactor_and_closes_our_old_loop() -> str:
    return """
        def serve():
            reactor = install_reactor()
            reactor.callLater(0, reactor.stop)
            reactor.run()
            return reactor
        first, second = serve(), serve()
        assert first is not second
        assert loop_of(first).is_closed() and not loop_of(second).is_closed()
        loop_of(second).close()
    """


@case
def test_an_ended_reactor_is_replaced_but_the_loop_of_others_stays_open() -> str:
    return """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs = installed()
        theirs.callLater(0, theirs.stop)
        theirs.run()
        ours = install_reactor()
        assert ours is not theirs and loop_of(ours) is not loop and not loop.is_closed()
        assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"
        loop.close()
        loop_of(ours).close()
    """


@case
def test_an_ended_reactor_is_replaced_on_its_own_loop_too() -> str:
    return """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs = installed()
        theirs.callLater(0, theirs.stop)
        theirs.run()
        async def main():
            reactor = install_reactor()
            assert reactor is not theirs and loop_of(reactor) is loop
            await tick(reactor)
        loop.run_until_complete(main())
        loop.close()
    """


@case
def test_the_idle_reactor_of_an_import_gives_way_to_the_running_loop() -> str:
    return """
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import daphne.server
        theirs = installed()
        async def main():
            reactor = install_reactor()
            assert reactor is not theirs and installed() is reactor
            assert loop_of(reactor) is asyncio.get_running_loop()
            await tick(reactor)
        asyncio.run(main())
        assert theirs.getReaders() == [], "its loop does not watch what has been closed"
        assert not daphne.server.twisted_loop.is_closed(), "it is not ours to close"
        daphne.server.twisted_loop.close()
    """


@case
def test_our_own_idle_loop_is_closed_when_it_gives_way() -> str:
    return """
        idle = install_reactor()
        assert asyncio.run(ask()) is not idle
        assert loop_of(idle).is_closed()
    """


@case
def test_a_reactor_on_a_loop_that_runs_in_another_thread_is_refused() -> str:
    return """
        async def main():
            reactor = install_reactor()
            def elsewhere():
                return [refused(), refused(lambda: asyncio.run(ask()))]
            for message in await asyncio.to_thread(in_thread, elsewhere):
                assert "another event loop" in message and "start asgiserver on that loop" in message, message
            assert installed() is reactor
            await tick(reactor)
        asyncio.run(main())
    """


@case
def test_a_started_reactor_is_refused_to_a_loop_nested_in_its_start() -> str:
    return """
        reactor, seen = install_reactor(), []
        reactor.callWhenRunning(lambda: seen.append(refused(lambda: asyncio.run(ask()))))
        reactor.callLater(0, reactor.stop)
        reactor.run()
        assert "another event loop" in seen[0] and installed() is reactor
        loop_of(reactor).close()
    """


@case
def test_another_kind_of_reactor_is_refused_by_name_with_the_cure() -> str:
    return """
        from twisted.internet import selectreactor
        selectreactor.install()
        theirs = installed()
        for message in refused(), refused(lambda: asyncio.run(ask())), refused(lambda: loop_of(theirs)):
            assert "SelectReactor" in message and "asyncioreactor.install()" in message, message
            assert "twist --reactor=asyncio" in message and "\\n" not in message
        assert installed() is theirs
    """


@case
def test_all_works_in_a_thread() -> str:
    return """
        def serve():
            reactor = install_reactor()
            reactor.callLater(0, reactor.stop)
            reactor.run(installSignalHandlers=False)
            loop_of(reactor).close()
            return reactor
        async def main():
            reactor = install_reactor()
            await tick(reactor)
            return reactor
        reactors = [in_thread(serve), in_thread(lambda: asyncio.run(main())), in_thread(serve)]
        assert len(set(map(id, reactors))) == 3
    """


@case
def test_call_from_thread_runs_on_the_loop() -> str:
    return """
        async def main():
            reactor, loop = install_reactor(), asyncio.get_running_loop()
            heard = loop.create_future()
            await asyncio.to_thread(reactor.callFromThread, heard.set_result, "heard")
            assert await asyncio.wait_for(heard, 10) == "heard"
        asyncio.run(main())
    """


@case
def test_a_private_reactor_works_and_is_not_installed() -> str:
    return """
        from asgiserver.loop.reactor import private_reactor
        import os
        descriptors = lambda: len(os.listdir("/proc/self/fd"))
        async def main():
            before = descriptors()
            with private_reactor() as one, private_reactor() as two:
                assert loop_of(one) is loop_of(two) is asyncio.get_running_loop() and one is not two
                await tick(one)
                await tick(two)
                late = one.callLater(60, print, "called")
                heard = asyncio.get_running_loop().create_future()
                await asyncio.to_thread(two.callFromThread, heard.set_result, None)
                await asyncio.wait_for(heard, 10)
            assert not late.active() and installed() is None
            assert descriptors() == before, descriptors()
        asyncio.run(main())
    """


@case
def test_a_private_reactor_leaves_the_installed_one_alone() -> str:
    return """
        from asgiserver.loop.reactor import private_reactor
        async def private():
            with private_reactor() as reactor:
                await tick(reactor)
        async def main():
            reactor = install_reactor()
            await private()
            await asyncio.to_thread(in_thread, lambda: asyncio.run(private()))
            assert installed() is reactor
            await tick(reactor)
        asyncio.run(main())
    """


@case
def test_a_forked_process_forgets_its_parents_reactor_and_does_it_no_harm() -> str:
    return """
        import gc, os
        from asgiserver.loop.reactor import forget_reactor
        async def main():
            reactor = install_reactor()
            child = os.fork()
            if not child:
                forget_reactor()
                del reactor
                gc.collect()
                os._exit(0 if installed() is None and asyncio.new_event_loop().run_until_complete(ask()) else 1)
            assert os.waitpid(child, 0)[1] == 0
            # Both wake the loop up through descriptors that the child has shared.
            heard = asyncio.get_running_loop().create_future()
            await asyncio.to_thread(reactor.callFromThread, heard.set_result, "heard")
            assert await asyncio.wait_for(heard, 10) == "heard"
        asyncio.run(main())
    """


FORKED_LOOP = """
        import os, select
        from asgiserver.loop.reactor import new_loop, separate_epoll
        try:
            loop = new_loop("%s")
        except ValueError:
            raise SystemExit  # uvloop is not installed
        if not hasattr(select, "epoll"):
            raise SystemExit
        end, other = os.pipe()
        heard = loop.create_future()
        async def main():
            loop.add_reader(end, lambda: heard.done() or heard.set_result(os.read(end, 1)))
            await asyncio.sleep(0.01)
            child = os.fork()
            if not child:
                separate_epoll(loop)
                loop.remove_reader(end)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            os.write(other, b"x")
            assert await asyncio.wait_for(heard, 10) == b"x"
            assert await asyncio.wait_for(asyncio.to_thread(int), 10) == 0
        loop.run_until_complete(main())
        loop.remove_reader(end)
        loop.close()
        separate_epoll(loop)
"""


@case
def test_what_a_forked_process_takes_out_of_its_loop_stays_in_its_parents() -> str:
    """C6: pins what asyncio calls the descriptor of its epoll."""
    return FORKED_LOOP % "asyncio"


@case
def test_what_a_forked_process_takes_out_of_its_uvloop_stays_in_its_parents() -> str:
    """C6: pins what uvloop calls the descriptor of its epoll."""
    return FORKED_LOOP % "uvloop"


REBASED = """
        import os
        from asgiserver.loop.reactor import rebase
        reactor = install_reactor("%s")
        called = []
        # Before the fork, as an application's module does.
        reactor.callLater(0.01, called.append, "early")
        reactor.callLater(600, called.append, "late")
        # Several, whose loops and wakers have nothing in common.
        children = []
        for _ in range(3):
            child = os.fork()
            if not child:
                old = loop_of(reactor)
                rebase("%s")
                assert install_reactor() is reactor and loop_of(reactor) is not old
                assert type(loop_of(reactor)) is type(old)
                from twisted.internet.threads import deferToThread
                deferToThread(os.getpid).addCallback(called.append)
                reactor.callLater(0.5, reactor.stop)
                reactor.run()
                os._exit(0 if sorted(called, key=str) == sorted(["early", os.getpid()], key=str) else 1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        loop_of(reactor).close()
"""


@case
def test_a_forked_process_moves_its_reactor_to_a_loop_of_its_own() -> str:
    """Pins the attributes of Twisted's reactor that are moved."""
    return REBASED % ("asyncio", "asyncio")


@case
def test_a_forked_process_moves_its_reactor_to_a_uvloop_of_its_own() -> str:
    return REBASED % ("auto", "auto")


@case
def test_without_a_reactor_there_is_nothing_to_move() -> str:
    return """
        from asgiserver.loop.reactor import rebase
        rebase()
        assert installed() is None
    """


@case
def test_without_a_reactor_there_is_nothing_to_forget() -> str:
    return """
        from asgiserver.loop.reactor import forget_reactor
        forget_reactor()
        assert installed() is None
    """


def test_what_is_not_an_asyncio_reactor_has_no_loop() -> None:
    with pytest.raises(ReactorError, match="Clock is installed"):
        loop_of(Clock())  # type: ignore[arg-type]
