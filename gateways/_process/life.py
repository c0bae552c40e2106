"""The life of one process that serves: signals, the service manager, the heartbeat, reloads, and the end.

Signal handlers of our own rather than trio's receiver: a second signal has to end the process also when the event loop
hangs, and two that come at once are two.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import trio

from gateways._model.limits import Limits
from gateways._net.tally import Tally
from gateways._process import sd_notify
from gateways._process.heartbeat import Heartbeat, stack_of
from gateways._process.reloading import (
    ENDING,
    HELD,
    Handover,
    become,
    close_all,
    command_line,
    ended,
    for_child,
    working_folder,
)
from gateways._process.sockets import Sockets

__all__ = ["FORCED", "Life"]

#: The exit status of a process that did not come to its end by itself.
FORCED = 5

#: Seconds that the new code may take to start.
_START = 90.0
#: Seconds beyond every deadline before the end is forced.
_MARGIN = 1.0
#: Beats between two lines about us for the service manager.
_STATUS_EVERY = 10


class Life:
    """Serve, as one process: ``serving`` is ``gateways.serve`` with all arguments but ``stop`` and ``task_status``.

    ``reload`` makes SIGHUP load the code anew. ``on_start`` is called with the addresses once they are served,
    ``on_beat`` about each second, ``reopen`` upon SIGUSR1.
    """

    def __init__(
        self,
        serving: Any,
        sockets: Sockets,
        *,
        limits: Limits,
        log: logging.Logger,
        tally: Tally,
        handover: Handover | None = None,
        reload: bool = False,
        on_start: Callable[[list[str]], object] | None = None,
        on_beat: Callable[[], object] | None = None,
        reopen: Callable[[], object] | None = None,
    ) -> None:
        self._serving = serving
        self._sockets = sockets
        self._limits = limits
        self._log = log
        self._tally = tally
        self._handover = handover
        self._reload = reload
        self._on_start = on_start
        self._on_beat = on_beat
        self._reopen = reopen
        self._is_bridge = handover is not None and handover.is_bridge
        self._folder = working_folder()
        self._terminal = has_terminal()
        #: Signals that came before there was an event loop, or while it hung.
        self._heard: list[int] = []
        self._timers: list[threading.Timer] = []
        #: Signals to stop, so far.
        self._asked = 0
        self._serves = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._bridge: subprocess.Popen[bytes] | None = None
        #: The bridge that is to end, and our end of the pipe to the one that has just begun.
        self._former = None if handover is None else handover.bridge
        self._life: int | None = None

    def run(self) -> None:
        """Serve until a signal says stop, or for ever in new images of this process."""
        try:
            with self._listening_to_signals():
                try:
                    trio.run(self._main)
                finally:
                    # Whoever hears a signal from here on has nothing to do about it, and exec has the last word.
                    self._token = None
                if self._bridge is not None and self._life is not None:
                    if not self._asked:
                        self._become_new(self._bridge.pid, self._life)
                    # Told to stop while it was at it.
                    self._dismiss(self._bridge, self._life)
        finally:
            for timer in self._timers:
                timer.cancel()

    # --- in the event loop

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        self._told_to_reload = trio.Event()
        every = sd_notify.watchdog_interval()
        heartbeat = Heartbeat(
            self._limits.blocked_timeout,
            self._log,
            on_beat=self._beat,
            **({} if every is None else {"every": min(1.0, every / 3)}),
        )
        self._heartbeat = heartbeat
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(heartbeat.run)
            if self._handover is not None and self._is_bridge:
                nursery.start_soon(self._follow_parent, self._handover.life)
            elif self._reload:
                nursery.start_soon(self._reloading)
            if self._former is not None:
                nursery.start_soon(self._reap, self._former)
            for number in self._heard:
                self._obey(number)
            self._heard.clear()
            await self._serving(stop=self._stop, task_status=self)
            if self._former is not None:
                await _has_ended(self._former)
            nursery.cancel_scope.cancel()

    def started(self, addresses: list[str]) -> None:
        """Called by the server once it serves, for it takes this for a ``task_status``."""
        self._serves = True
        # Now there is somebody to hear what was held back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
        self._sockets.drop_unwanted()
        if self._handover is not None:
            self._handover.settle()
        if self._is_bridge:
            self._log.info("process %d serves with the new code while process %d loads it", os.getpid(), os.getppid())
            return
        if self._on_start is not None:
            self._on_start(addresses)
        sd_notify.ready("serving")

    def _beat(self) -> None:
        if sd_notify.watchdog_interval() is not None:
            sd_notify.watchdog()
        if self._heartbeat.beats % _STATUS_EVERY == 0 and self._serves and not self._stop.is_set():
            tally = self._tally
            sd_notify.status(
                f"serving: {tally.begun} requests so far, {tally.running} of them running, "
                f"{tally.connections} connections"
            )
        if self._on_beat is not None:
            self._on_beat()

    def _obey(self, number: int) -> None:
        """Do what a signal says; in the event loop."""
        if number == signal.SIGUSR1:
            if self._reopen is not None:
                self._reopen()
        elif number == signal.SIGHUP and not self._is_bridge and not (self._terminal and not has_terminal()):
            self._told_to_reload.set()
        elif number == signal.SIGHUP and self._is_bridge:
            pass  # it is for the other to do
        elif self._serves and self._asked <= 1 and number != signal.SIGQUIT:
            self._drain("stopping")
        else:
            self._scope.cancel()

    def _drain(self, text: str, *, files: bool | None = None) -> None:
        sd_notify.stopping(text)
        # Who comes from now on is to be refused at once, not to wait for nobody: the server's duplicates, which
        # accept what has come so far, are the last.
        self._sockets.release(files=not self._is_bridge if files is None else files)
        self._stop.set()

    # --- reloading, in the old process

    async def _reloading(self) -> None:
        while True:
            await self._told_to_reload.wait()
            self._told_to_reload = trio.Event()
            if self._stop.is_set():
                return
            self._log.info("reloading")
            sd_notify.reloading("reloading")
            if await self._build_bridge():
                sd_notify.status("reloading: answering what has begun")
                self._force_after(self._grace)
                self._stop.set()
                return
            sd_notify.ready("serving; the last reload has failed")

    async def _build_bridge(self) -> bool:
        """Start the new code in a child; whether it serves."""
        ready, tells = os.pipe()
        theirs, life = os.pipe()
        handover = Handover(self._sockets.bound, theirs, ready=tells)
        process = None
        try:
            # Not a fork of this process, with its event loop and threads: the child is a program from the start.
            process = subprocess.Popen(  # noqa: ASYNC220 - no longer than it takes to exec
                command_line(),
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                env=for_child(handover),
                pass_fds=handover.descriptors(),
            )
            close_all([theirs, tells])
            why = await _tells(process, ready)
        except OSError as error:
            why = f"cannot start it: {error.strerror}"
        except BaseException:
            _kill(process)
            close_all([life])
            raise
        finally:
            close_all([ready])
        if why:
            _kill(process)
            close_all([life])
            self._log.error("the new code does not serve (%s); the old code goes on", why)
            return False
        self._bridge, self._life = process, life
        return True

    def _become_new(self, bridge: int, life: int, *, orderly: bool = True) -> None:
        handover = Handover(self._sockets.bound, life, bridge=bridge)
        if orderly:
            _say_goodbye()
        # Signals to stop may come up to the last moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        if not self._asked:
            become(command_line(), self._folder, handover)

    def _dismiss(self, bridge: subprocess.Popen[bytes], life: int) -> None:
        """Have the bridge come to its end, too, and wait for that."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        with contextlib.suppress(BrokenPipeError):
            os.write(life, b"1")
        os.close(life)
        if self._asked > 1:
            bridge.send_signal(signal.SIGQUIT)
        bridge.wait()

    # --- reloading, in the new process

    async def _reap(self, former: int) -> None:
        await _has_ended(former)
        self._former = None

    # --- reloading, in the bridge

    async def _follow_parent(self, life: int) -> None:
        await trio.lowlevel.wait_readable(life)
        served = os.read(life, 1)
        if not served:
            self._log.warning("the process that this one stands in for is dead: stopping")
        self._force_after(self._grace)
        # The files are the other's, or else nobody's.
        self._drain("", files=not served)

    # --- signals and the end

    @contextmanager
    def _listening_to_signals(self) -> Generator[None]:
        wanted = [*ENDING, signal.SIGUSR1]
        wanted += [signal.SIGHUP] if self._reload or self._is_bridge else []
        # Whoever has made other arrangements for a signal shall have them.
        before = {
            number: signal.getsignal(number)
            for number in wanted
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
        }
        for number in before:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [*ENDING, *HELD])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between any two instructions of it."""
        if number in ENDING:
            self._asked += 1
            quick = self._asked > 1 or number == signal.SIGQUIT
            self._force_after(self._goodbye if quick else self._grace)
            other = self._former if self._bridge is None else self._bridge.pid
            if quick and other is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGQUIT)
        if self._token is None:
            self._heard.append(number)
        else:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._obey, number)

    @property
    def _goodbye(self) -> float:
        return (self._limits.goodbye_timeout or 0.0) + _MARGIN

    @property
    def _grace(self) -> float | None:
        """The requests get that long to finish, and then the application as long again to shut down."""
        grace = self._limits.shutdown_grace
        return None if grace is None else 2 * grace + self._goodbye

    def _force_after(self, seconds: float | None) -> None:
        """A handler that will not be cancelled, or that holds up the event loop, does not keep the process for ever."""
        if seconds is not None:
            timer = threading.Timer(seconds, self._force, [threading.main_thread().ident])
            timer.daemon = True
            self._timers.append(timer)
            timer.start()

    def _force(self, loop: int) -> None:
        """In a thread of its own."""
        text = "the end is forced: something does not let itself be cancelled, or holds up the event loop, which is at"
        # Whoever writes a log may hang, too.
        writing = threading.Thread(target=self._log.critical, args=[f"{text}\n%s", stack_of(loop)], daemon=True)
        writing.start()
        writing.join(_MARGIN)
        if self._bridge is not None and self._life is not None:
            with contextlib.suppress(OSError):
                self._become_new(self._bridge.pid, self._life, orderly=False)
        self._sockets.release(files=not self._is_bridge)
        os._exit(FORCED)


async def _tells(process: subprocess.Popen[bytes], ready: int) -> str:
    """Wait until a child tells that it serves: "", or why it does not."""
    why = f"not within {_START:.0f} s"
    with trio.move_on_after(_START):
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                await _has_ended(process.pid, reap=False)
                nursery.cancel_scope.cancel()

            nursery.start_soon(end)
            await trio.lowlevel.wait_readable(ready)
            if os.read(ready, 1):
                why = ""
                nursery.cancel_scope.cancel()
            else:
                await trio.sleep_forever()  # it is ending
        if why:
            why = f"exit status {process.wait()}"
    return why


async def _has_ended(child: int, *, reap: bool = True) -> None:
    """Wait for a child process to end."""
    if hasattr(os, "pidfd_open"):
        try:
            watched = os.pidfd_open(child)
        except ProcessLookupError:
            return
        try:
            await trio.lowlevel.wait_readable(watched)
        finally:
            os.close(watched)
        if reap:
            ended(child)
    else:
        while not ended(child):  # noqa: ASYNC110 - nobody announces it
            await trio.sleep(0.1)


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()


def _say_goodbye() -> None:
    """What the interpreter does at its end, which exec does not wait for."""
    import atexit

    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def has_terminal() -> bool:
    """Whether this process has a controlling terminal: SIGHUP is also what one that goes away sends."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
