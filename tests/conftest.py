"""What holds for all tests."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys

import hypothesis
import pytest

# A machine that has other things to do makes any example late.
hypothesis.settings.register_profile("patient", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("patient")
# The steps of traces assert as tests do.
pytest.register_assert_rewrite("tests.asgi.traces", "tests.wire.traces")


#: In the environment of such an interpreter.
_ALONE = "ASGISERVER_TEST_ALONE"


def pytest_configure() -> None:
    """Let servers that tests start have the signals that nohup or a shell's background job ignores for all it starts.

    This process goes on without them; a program that it starts has no handler, and so the default.
    """
    for name in ("SIGHUP", "SIGINT", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test on a loop of its own, and one that is marked as alone in an interpreter of its own."""
    if pyfuncitem.get_closest_marker("alone") and _ALONE not in os.environ:
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", pyfuncitem.nodeid]
        done = subprocess.run(
            command, cwd=pyfuncitem.config.rootpath, env={**os.environ, _ALONE: "1"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return True
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
