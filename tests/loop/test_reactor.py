"""Which reactor is used, replaced or refused.

A process has one reactor, so each case runs in an interpreter of its own, with warnings as errors. All are started
together by the first test that asks, as most of their time is spent importing Twisted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
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


#: What is to hold, and a program that finds out.
CASES: dict[str, str] = {
    "importing installs nothing and makes no loop": """
        assert installed() is None
        import importlib
        def made(*args):
            raise SystemExit("a loop was made")
        asyncio.SelectorEventLoop.__init__ = made
        importlib.reload(sys.modules["asgiserver.loop.reactor"])
        assert installed() is None
    """,
    "nothing installed gives a reactor on the running loop": """
        async def main():
            reactor = install_reactor()
            assert installed() is reactor
            assert loop_of(reactor) is asyncio.get_running_loop()
            await tick(reactor)
            assert install_reactor() is reactor, "asked again on the same loop"
        asyncio.run(main())
    """,
    "nothing installed and no loop gives a new loop to run": """
        reactor = install_reactor()
        assert installed() is reactor and not loop_of(reactor).is_running()
        assert install_reactor() is reactor, "idle, so it is the one"
        seen = []
        reactor.callLater(0, lambda: (seen.append(asyncio.get_running_loop() is loop_of(reactor)), reactor.stop()))
        reactor.run()
        assert seen == [True]
        loop_of(reactor).close()
    """,
    "a new loop is uvloops when that is installed": """
        import types
        class Loop(asyncio.SelectorEventLoop):
            pass
        sys.modules["uvloop"] = types.SimpleNamespace(new_event_loop=Loop)
        reactor = install_reactor()
        assert type(loop_of(reactor)) is Loop
        loop_of(reactor).close()
    """,
    "a new loop is a selector loop without uvloop": """
        sys.modules["uvloop"] = None
        reactor = install_reactor()
        assert type(loop_of(reactor)) is asyncio.SelectorEventLoop
        loop_of(reactor).close()
    """,
    "an asyncio reactor that others installed on this loop is used": """
        from twisted.internet import asyncioreactor
        async def main():
            asyncioreactor.install(asyncio.get_running_loop())
            theirs = installed()
            assert install_reactor() is theirs
        asyncio.run(main())
    """,
    "an idle reactor is used when no loop runs": """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs = installed()
        assert install_reactor() is theirs
        loop.close()
    """,
    "a reactor that is starting is used though its loop does not spin yet": """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs, seen = installed(), []
        theirs.callWhenRunning(lambda: seen.append(install_reactor()))
        theirs.callLater(0, theirs.stop)
        theirs.run()
        assert seen == [theirs]
        loop.close()
    """,
    "a reactor is used from inside its own run": """
        from twisted.internet import asyncioreactor
        loop = asyncio.SelectorEventLoop()
        asyncioreactor.install(loop)
        theirs, seen = installed(), []
        theirs.callLater(0, lambda: (seen.append(install_reactor()), theirs.stop()))
        theirs.run()
        assert seen == [theirs]
        loop.close()
    """,
    "asyncio run works many times and keeps no descriptors": """
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
    """,
    "a second run after the first gets a new reactor and closes our old loop": """
        def serve():
            reactor = install_reactor()
            reactor.callLater(0, reactor.stop)
            reactor.run()
            return reactor
        first, second = serve(), serve()
        assert first is not second
        assert loop_of(first).is_closed() and not loop_of(second).is_closed()
        loop_of(second).close()
    """,
    "an ended reactor is replaced but the loop of others stays open": """
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
    """,
    "an ended reactor is replaced on its own loop too": """
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
    """,
    "the idle reactor of an import gives way to the running loop": """
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
    """,
    "our own idle loop is closed when it gives way": """
        idle = install_reactor()
        assert asyncio.run(ask()) is not idle
        assert loop_of(idle).is_closed()
    """,
    "a reactor on a loop that runs in another thread is refused": """
        async def main():
            reactor = install_reactor()
            def elsewhere():
                return [refused(), refused(lambda: asyncio.run(ask()))]
            for message in await asyncio.to_thread(in_thread, elsewhere):
                assert "another event loop" in message and "start asgiserver on that loop" in message, message
            assert installed() is reactor
            await tick(reactor)
        asyncio.run(main())
    """,
    "a started reactor is refused to a loop nested in its start": """
        reactor, seen = install_reactor(), []
        reactor.callWhenRunning(lambda: seen.append(refused(lambda: asyncio.run(ask()))))
        reactor.callLater(0, reactor.stop)
        reactor.run()
        assert "another event loop" in seen[0] and installed() is reactor
        loop_of(reactor).close()
    """,
    "another kind of reactor is refused by name with the cure": """
        from twisted.internet import selectreactor
        selectreactor.install()
        theirs = installed()
        for message in refused(), refused(lambda: asyncio.run(ask())), refused(lambda: loop_of(theirs)):
            assert "SelectReactor" in message and "asyncioreactor.install()" in message, message
            assert "start twist or twistd with --reactor=asyncio" in message and "\\n" not in message
        assert installed() is theirs
    """,
    "all works in a thread": """
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
    """,
    "call from thread runs on the loop": """
        async def main():
            reactor, loop = install_reactor(), asyncio.get_running_loop()
            heard = loop.create_future()
            await asyncio.to_thread(reactor.callFromThread, heard.set_result, "heard")
            assert await asyncio.wait_for(heard, 10) == "heard"
        asyncio.run(main())
    """,
    "a private reactor works and is not installed": """
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
    """,
    "a private reactor leaves the installed one alone": """
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
    """,
    "a forked process forgets its parents reactor and does it no harm": """
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
    """,
    "a forked process moves its reactor to a loop of its own": REBASED % ("asyncio", "asyncio"),
    "a forked process moves its reactor to a uvloop of its own": REBASED % ("auto", "auto"),
    "without a reactor there is nothing to move": """
        from asgiserver.loop.reactor import rebase
        rebase()
        assert installed() is None
    """,
    "without a reactor there is nothing to forget": """
        from asgiserver.loop.reactor import forget_reactor
        forget_reactor()
        assert installed() is None
    """,
    # Pins what asyncio calls the descriptor of its epoll.
    "what a forked process takes out of its loop stays in its parents": FORKED_LOOP % "asyncio",
    # Pins what uvloop calls the descriptor of its epoll.
    "what a forked process takes out of its uvloop stays in its parents": FORKED_LOOP % "uvloop",
}


@pytest.fixture(scope="module")
def results() -> dict[str, str]:
    """What each program of CASES complained of, by name."""
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "error"}
    waiting = list(CASES.items())
    outcome = {}
    while waiting:
        batch, waiting = waiting[:3], waiting[3:]
        children = {
            name: subprocess.Popen(
                [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
                env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for name, program in batch
        }  # fmt: skip
        for name, child in children.items():
            try:
                output, _ = child.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()
                output = "did not end\n" + child.communicate()[0]
            outcome[name] = output if output or child.returncode == 0 else f"status {child.returncode}"
    return outcome


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, results: dict[str, str]) -> None:
    assert results[name] == ""


def test_what_is_not_an_asyncio_reactor_has_no_loop() -> None:
    with pytest.raises(ReactorError, match="Clock is installed"):
        loop_of(Clock())  # type: ignore[arg-type]
