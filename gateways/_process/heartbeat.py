"""Seeing that the event loop still turns: one task that beats, and a thread that says where the loop hangs.

A handler that computes for a minute, or waits without trio, stops everything: no other request is answered, no
deadline is watched. Nobody but another thread (or process) can say so while it lasts.
"""

import sys
import threading
import traceback

import trio

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["Heartbeat"]

_EVERY = 1.0


class Heartbeat:
    """Beats about each ``every`` seconds while the event loop of the current thread turns.

    Each beat calls ``on_beat``. When there has been none for ``blocked_after`` seconds, the stack of the loop's thread
    is logged, once for each time that it hangs, and then how long it was. With ``blocked_after`` None nobody watches,
    and no thread is started. A thread sees nothing while a C extension keeps the interpreter to itself; that is for
    another process to notice, by the beats that it misses.

    ``run`` is to be called in the process that serves, after every fork.
    """

    def __init__(
        self,
        blocked_after: "float | None",
        log: "logging.Logger",
        *,
        on_beat: "Callable[[], object] | None" = None,
        every: float = _EVERY,
    ) -> None:
        self.beats = 0
        self._blocked_after = blocked_after
        self._log = log
        self._on_beat = on_beat
        self._pause = every if blocked_after is None else min(every, blocked_after / 4)

    async def run(self) -> None:
        """Beat until cancelled."""
        ended = threading.Event()
        if self._blocked_after is not None:
            watcher = threading.Thread(
                target=self._watch,
                args=(threading.get_ident(), self._blocked_after, ended),
                name="gateways heartbeat",
                daemon=True,
            )
            watcher.start()
        try:
            while True:
                self.beats += 1
                if self._on_beat is not None:
                    self._on_beat()
                await trio.sleep(self._pause)
        finally:
            ended.set()

    def _watch(self, loop: int, blocked_after: float, ended: threading.Event) -> None:
        """In the thread. It looks at no clock but counts its own pauses: a process that was stopped for a while, or a
        machine that slept, is not a loop that hangs.
        """
        seen, quiet, told = self.beats, 0.0, False
        while not ended.wait(self._pause):
            if self.beats != seen:
                if told:
                    self._log.warning("the event loop goes on after %.1f s", quiet)
                seen, quiet, told = self.beats, 0.0, False
                continue
            quiet += self._pause
            if quiet >= blocked_after and not told:
                told = True
                self._log.error(
                    "the event loop has been blocked for %.1f s: nothing else is served meanwhile; it is at\n%s",
                    quiet,
                    stack_of(loop),
                )


def stack_of(thread: int) -> str:
    """Where a thread is, the innermost call last."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "(the thread has ended)"
    return "".join(traceback.format_stack(frame)).rstrip("\n")
