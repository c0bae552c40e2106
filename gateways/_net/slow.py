"""What a request is doing: the stacks of its handler, of the tasks that this has started, and of their threads."""

from __future__ import annotations

import gc
import linecache
import os
import sys
import threading
from collections.abc import Coroutine, Iterator
from types import CodeType, FrameType
from typing import Any

import trio

from gateways._model.handler import Resumed

__all__ = ["task_tree"]

#: More than these are counted, not shown: the tree is a single entry of the log.
_MAX_FRAMES = 40
_MAX_TASKS = 50

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
#: The way to the handler, which is the same for all.
_OURS = (os.path.join(_PACKAGE, "_net", ""), os.path.join(_PACKAGE, "_model", ""))
_TRIO = os.path.join(os.path.dirname(trio.__file__), "")
_RESUMED: CodeType = Resumed.__await__.__code__
_IN_THREAD: CodeType = trio.to_thread.run_sync.__code__


def task_tree(coroutine: Coroutine[Any, Any, Any], task: trio.lowlevel.Task) -> str:
    """The stacks of a request, which ``coroutine`` sees to in ``task`` and which waits.

    A frame a line, outermost first; below them the tasks that were started, each with its own. The way through the
    engine to the handler is left out.
    """
    stack = _Stack()
    frames = list(_frames(coroutine))
    # Once the handler has given its answer, ours are all there are.
    begin = next((n for n, (frame, _) in enumerate(frames) if not frame.f_code.co_filename.startswith(_OURS)), 0)
    stack.add_frames(frames[begin:], 1)
    stack.add_children(task, 1)
    if stack.left_out:
        stack.lines.append(f"  and {stack.left_out} tasks more")
    return "\n".join(stack.lines)


class _Stack:
    """The lines of a tree as they are put together."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left_out = 0
        self._tasks = 0

    def add_children(self, task: trio.lowlevel.Task, depth: int) -> None:
        """The tasks in the nurseries that a task has opened, and theirs."""
        for nursery in task.child_nurseries:
            for child in sorted(nursery.child_tasks, key=lambda each: each.name):
                self._tasks += 1
                if self._tasks > _MAX_TASKS:
                    self.left_out += 1
                    continue
                self.lines.append(f"{'  ' * depth}task {child.name}")
                self.add_frames(list(_frames(child.coro)), depth + 1)
                self.add_children(child, depth + 1)

    def add_frames(self, frames: list[tuple[FrameType, int]], depth: int) -> None:
        """A stack of frames, and that of the thread it waits for."""
        margin = "  " * depth
        for frame, number in _without_depths(frames)[-_MAX_FRAMES:]:
            self.lines.append(margin + _described(frame, number))
        for frame, _ in frames:
            if frame.f_code is _IN_THREAD:
                self.lines += _thread(frame, depth)


def _without_depths(frames: list[tuple[FrameType, int]]) -> list[tuple[FrameType, int]]:
    """A stack that ends with the function of trio's that was called: how that waits is the same everywhere."""
    end = len(frames)
    while end and frames[end - 1][0].f_code.co_filename.startswith(_TRIO):
        end -= 1
    return frames[: end + 1]


def _described(frame: FrameType, number: int) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, number, frame.f_globals).strip()
    return f"{code.co_filename}:{number} {code.co_qualname}" + (f": {source}" if source else "")


def _frames(awaited: Any) -> Iterator[tuple[FrameType, int]]:
    """The frames of a coroutine and of what it awaits, outermost first.

    As ``trio.lowlevel.Task.iter_await_frames`` does it, for something that is not the whole of a task.
    """
    while awaited is not None:
        if hasattr(awaited, "cr_frame"):
            if awaited.cr_frame is not None:
                yield awaited.cr_frame, awaited.cr_frame.f_lineno
            awaited = awaited.cr_await
        elif hasattr(awaited, "gi_frame"):
            frame = awaited.gi_frame
            if frame is not None and frame.f_code is _RESUMED:
                # It steps a coroutine by hand, which Python therefore does not know to be awaited.
                awaited = frame.f_locals["self"]._coroutine
                continue
            if frame is not None:
                yield frame, frame.f_lineno
            awaited = awaited.gi_yieldfrom
        elif hasattr(awaited, "ag_frame"):
            if awaited.ag_frame is not None:
                yield awaited.ag_frame, awaited.ag_frame.f_lineno
            awaited = awaited.ag_await
        else:
            # What steps an asynchronous generator, or wraps a coroutine, does not say which (CPython issue 76991).
            awaited = next((each for each in gc.get_referents(awaited) if _has_frames(each)), None)


def _has_frames(each: object) -> bool:
    return hasattr(each, "cr_frame") or hasattr(each, "ag_frame")


def _thread(waiting: FrameType, depth: int) -> list[str]:
    """The stack of the worker thread that a call of ``trio.to_thread.run_sync`` waits for."""
    margin = "  " * depth
    own = waiting.f_locals
    # trio gives the thread a function that is made for this call alone.
    code = getattr(own.get("worker_fn"), "__code__", None)
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, innermost in sys._current_frames().items():
        frames: list[FrameType] = []
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code is code and frame.f_locals.get("task_register") is own.get("task_register"):
                lines = [f"{margin}thread {names.get(ident, ident)}"]
                for each in reversed(frames[:_MAX_FRAMES]):
                    lines.append(f"{margin}  {_described(each, each.f_lineno)}")
                return lines
            frames.append(frame)
            frame = frame.f_back
    return [f"{margin}(in a worker thread whose stack was not found; it may wait for one that is free)"]
