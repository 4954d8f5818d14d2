"""What a worker is doing: each request under way, and where each task and thread is."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

__all__ = ["awaited", "outer", "report"]


def report(requests: Iterable[object]) -> str:
    """A text of many lines about the loop that runs here; ``requests`` are named as they are."""
    lines = [f"Under way: {request}" for request in requests]
    for task in asyncio.all_tasks():
        lines += [f"Task {task.get_name()!r}:", *_frames(awaited(task.get_coro()))]
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            stack = traceback.StackSummary.extract(reversed([*outer(frame)]), lookup_lines=False)
            lines += [f"Thread {names.get(ident, ident)!r}:", *(line.rstrip() for line in stack.format())]
    return "\n".join(lines)


def awaited(coroutine: Any) -> Iterator[FrameType]:
    """The frames from a task's own to the one that waits; a task itself knows only its first."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
                break
        else:
            # A future, or something that is written in C.
            return


def outer(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    """A frame and those that it was called from, each with its line."""
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


def _frames(frames: Iterable[FrameType]) -> list[str]:
    stack = traceback.StackSummary.extract(((frame, frame.f_lineno) for frame in frames), lookup_lines=False)
    return [line.rstrip() for line in stack.format()]
