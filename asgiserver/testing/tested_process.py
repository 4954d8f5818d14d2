"""A server under test in a process of its own."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

from ..errors import StartupError
from ..loading import load_application
from ..server import Server
from ..settings import Settings
from .capture import Capture
from .places import LAST_WAIT, Place
from .process import ServerProcess, is_file, portable
from .watched import WatchedServer

__all__ = ["InProcess"]


class InProcess(Place):
    """In a process of its own, with its output in a file.

    :param start_method: one of multiprocessing's, None for its default.
    """

    def __init__(
        self, application: Any, settings: Settings, capture: Capture, start_method: str | None = None
    ) -> None:
        super().__init__(application, settings, capture)
        self._start_method = start_method
        self._read = 0
        self._ended_log = ""

    def start(self, timeout: float) -> None:
        """Start the server; blocks. On any error it has been stopped again.

        :raises StartupError: it did not start, or not within ``timeout`` seconds.
        :raises TypeError: the application cannot be pickled, and the start method needs that.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="asgiserver-")
        try:
            self._process = _Process(self.application, self.settings, Path(self._folder.name), self._start_method)
            self._process.start()
        except BaseException:
            self._folder.cleanup()
            raise
        try:
            self._wait_until_ready(time.monotonic() + timeout, timeout)
        except BaseException:
            self._end()
            raise
        self.address = (self.settings.host or "127.0.0.1", self._process.port.value)

    def stop(self) -> None:
        """Stop the server and wait for its end; blocks.

        :raises RuntimeError: it had to be killed, or ended before it was asked to.
        """
        early = self._process.exitcode
        in_time = self._end()
        if early is not None:
            raise RuntimeError(f"the server's process ended by itself with exit code {early}\n{self.log()}")
        if not in_time:
            raise RuntimeError(f"the server's process did not end and was killed\n{self.log()}")

    def log(self) -> str:
        output = _output(self._folder.name)
        return output.read_text("utf-8", "replace") if output.exists() else self._ended_log

    def collect(self) -> None:
        path = _failures(self._folder.name)
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            while len(head := file.read(8)) == 8:
                size = int.from_bytes(head)
                data = file.read(size)
                if len(data) < size:
                    return
                self._read = file.tell()
                error, text = pickle.loads(data)
                error.add_note(f"raised in the server's process:\n{text}")
                self.capture.failed(error)

    def _wait_until_ready(self, deadline: float, timeout: float) -> None:
        process = self._process
        while not process.ready.wait(0.05):
            try:
                process.is_alive()
            except StartupError as error:
                cause = self._cause()
                raise self.not_started(error.args[0].rpartition("\n")[2] if cause is None else cause) from cause
            if time.monotonic() > deadline:
                raise self.not_started(f"it took longer than {timeout:g} s")

    def _cause(self) -> BaseException | None:
        try:
            error, _ = self._process.errors.get(timeout=LAST_WAIT)
        except Empty:
            return None
        cause: BaseException = error
        return cause

    def _end(self) -> bool:
        """End the process; False when it had to be killed."""
        process = self._process
        process.terminate()
        process.join(self.stop_timeout)
        in_time = process.exitcode is not None
        if not in_time:
            process.kill()
            process.join()
        process.close()
        process.errors.close()
        self.collect()
        self._ended_log = self.log()
        self._folder.cleanup()
        return in_time


def _output(folder: str | Path) -> Path:
    return Path(folder) / "output"


def _failures(folder: str | Path) -> Path:
    return Path(folder) / "failures"


class _Process(ServerProcess):
    """Writes its output and its application's failures into files of ``folder``."""

    def __init__(self, application: Any, settings: Settings, folder: Path, start_method: str | None) -> None:
        self.start_method = start_method
        load: Any = load_application if isinstance(application, str) else _given
        super().__init__(settings.host or "", partial(load, application, settings), {"settings": settings})
        self.folder = folder

    def run(self) -> None:
        descriptor = os.open(_output(self.folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(descriptor, number)
        os.close(descriptor)
        # Under a fork these may be the objects of whoever captures the test's output.
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
        super().run()

    def set_up_logging(self) -> None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        kept = [each for each in logging.getLogger().handlers if is_file(each)]
        logging.getLogger().handlers[:] = [*kept, handler]
        logging.getLogger("asgiserver").setLevel(logging.INFO)

    def make_server(self, application: Any, **keywords: Any) -> Server:
        del keywords["host"], keywords["port"], keywords["graceful_timeout"]
        return WatchedServer(application, failed=self._failed, **keywords)

    def _failed(self, error: BaseException) -> None:
        data = pickle.dumps((portable(error), "".join(traceback.format_exception(error))))
        with _failures(self.folder).open("ab", buffering=0) as file:
            file.write(len(data).to_bytes(8) + data)


def _given(application: Any, _: Settings) -> Any:
    return application
