"""Replacing the code of a running server: what one process hands to the next, and how the next tries until it serves.

The server P starts a child B, the bridge, with the same command line and the listening sockets. Once B serves with the
new code, P answers what it has begun, and then becomes the new code itself (exec): the process keeps its number, which
service managers and containers go by. Once that serves too, B answers what it has begun and ends.

P and B are joined by a pipe whose writing end P keeps through the exec. One byte in it tells B that P serves again; its
end without that byte tells B that P is dead, and so does the end of B then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import attrs

from gateways._process import HANDOVER
from gateways._process.sockets import Bound

__all__ = ["HANDOVER", "Handover", "attempt", "become", "command_line", "ended", "for_child", "taken", "working_folder"]

#: Signals that would end a process that has only just begun to exist.
HELD = (signal.SIGHUP, signal.SIGUSR1)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

#: Seconds before a start that has failed is tried again: the first and the longest pause.
_PAUSES = (1.0, 30.0)


@attrs.define
class Handover:
    """What a process gets from the one before it.

    ``ready`` is where a bridge tells that it serves. ``life`` is the pipe between the two: the bridge has the reading
    end, the other the writing end, and with it the process id of the ``bridge``.
    """

    sockets: list[Bound]
    life: int
    ready: int | None = None
    bridge: int | None = None
    #: How often the start has failed since the bridge serves.
    failures: int = 0
    #: Whether this process has come to serve.
    settled: bool = False

    @property
    def is_bridge(self) -> bool:
        """Whether this process serves only until another one does again."""
        return self.bridge is None

    def text(self) -> str:
        """For the variable HANDOVER."""
        return json.dumps(
            {
                "life": [self.life, os.fstat(self.life).st_ino],
                "ready": self.ready,
                "bridge": self.bridge,
                "failures": self.failures,
                "sockets": [[each.address, each.number, each.file] for each in self.sockets],
            }
        )

    def descriptors(self) -> list[int]:
        """Those that have to be open in the process that gets this."""
        return [
            each
            for each in [self.life, self.ready, *[b.number for b in self.sockets]]
            if each is not None and each >= 0
        ]

    def settle(self) -> None:
        """This process serves: tell those who wait for it."""
        self.settled = True
        try:
            if self.ready is not None:
                os.write(self.ready, b"1")
                os.close(self.ready)
                self.ready = None
            elif self.bridge is not None:
                os.write(self.life, b"1")
        except BrokenPipeError:
            pass  # the bridge is dead; it has done its work
        finally:
            if not self.is_bridge:
                os.close(self.life)


_taken: Handover | None = None


def taken(environ: MutableMapping[str, str] = os.environ) -> Handover | None:
    """What the process before this one handed over, if there was one. No child finds it in the environment."""
    global _taken
    text = environ.pop(HANDOVER, None)
    if text is not None:
        # These it may have held back; they are heeded again before there is anybody who would rather not be ended.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        _taken = _read(text)
    return _taken


def _read(text: str) -> Handover | None:
    try:
        found: dict[str, Any] = json.loads(text)
        life, inode = found["life"]
        # A grandchild that was given the variable by mistake has not got the descriptors.
        if os.fstat(life).st_ino != inode:
            return None
        sockets = [
            Bound(address, number, None if file is None else tuple(file), kept=True)
            for address, number, file in found["sockets"]
        ]
        handover = Handover(sockets, life, found["ready"], found["bridge"], found["failures"])
        for each in handover.descriptors():
            os.set_inheritable(each, False)
    except (ValueError, KeyError, TypeError, OSError):
        return None
    return handover


def for_child(handover: Handover, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a bridge: the service manager has nothing to do with it."""
    # LISTEN_PID and the like name another process, which is as good as not being there.
    private = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    return {name: value for name, value in environ.items() if name not in private} | {HANDOVER: handover.text()}


def command_line() -> list[str]:
    """What this process was started as, for another one that is to be the same with new code."""
    return [sys.executable, *sys.orig_argv[1:]]


def working_folder() -> str:
    """The working directory by the name it was entered with: what a link such as ``current`` points to may change."""
    here = os.getcwd()
    named = os.environ.get("PWD", here)
    with contextlib.suppress(OSError):
        if os.path.isabs(named) and os.path.samefile(named, here):
            return named
    return here


def become(command: list[str], folder: str, handover: Handover) -> None:
    """Replace the code of this process. The caller has come to the end of all that it does.

    Errors: OSError when that cannot be done.
    """
    environ = {**os.environ, HANDOVER: handover.text()}
    for each in handover.descriptors():
        os.set_inheritable(each, True)
    # One that comes while the new code has no ears yet would be deadly. It waits, and is heard then.
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    with contextlib.suppress(OSError):
        os.chdir(folder)
    os.execve(command[0], command, environ)


# --- a start that fails although the bridge has shown that it can be done


def attempt(start: Callable[[], int | None]) -> int | None:
    """Call ``start``, which serves; for a process that has just become the new code that is one of several attempts.

    While the bridge serves, a start that fails is made again after a pause, in a new image of the process; the bridge
    goes on serving. When the bridge is dead, or a signal says stop, the failure stands.
    """
    handover = taken()
    if handover is None:
        return start()
    if handover.is_bridge:
        # Whatever comes after that in a program is for the process that goes on.
        raise SystemExit(start() or 0)
    failure: BaseException | None = None
    status: int | None = None
    try:
        status = start()
    except SystemExit as error:
        failure = error
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except Exception as error:
        traceback.print_exc()
        failure, status = error, 1
    if status and not handover.settled:
        if _waited_for_next_attempt(handover):
            handover.failures += 1
            become(command_line(), working_folder(), handover)
        return status if ended(handover.bridge or 0) else _stop_bridge(handover)
    if isinstance(failure, SystemExit):
        raise failure
    return status


def _waited_for_next_attempt(handover: Handover) -> bool:
    """Wait, and tell whether to try again: not when the bridge has ended, nor upon a signal to stop."""
    first, longest = _PAUSES
    pause = min(longest, first * 2 ** min(handover.failures, 10))
    awaited = {*ENDING, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    sys.stderr.write(
        f"gateways: the new code does not start any more; process {handover.bridge}, in which it did, goes on serving; "
        f"trying again in {pause:.0f} s\n"
    )
    sys.stderr.flush()
    until = time.monotonic() + pause
    while not ended(handover.bridge or 0):
        left = until - time.monotonic()
        heard = signal.sigtimedwait(awaited, left) if left > 0 else None
        if heard is None or heard.si_signo == signal.SIGHUP:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [*ENDING, signal.SIGCHLD])
            return True
        if heard.si_signo in ENDING:
            break
    return False


def _stop_bridge(handover: Handover) -> int:
    """Have the bridge come to its end, at once upon another signal to stop."""
    os.close(handover.life)
    bridge = handover.bridge or 0
    while not ended(bridge):
        heard = signal.sigtimedwait({*ENDING, signal.SIGCHLD}, 1.0)
        if heard is not None and heard.si_signo in ENDING:
            os.kill(bridge, signal.SIGQUIT)
    return 0


def ended(child: int) -> bool:
    """Whether a child has ended; it is reaped."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def close_all(numbers: Iterable[int]) -> None:
    """Close descriptors."""
    for number in numbers:
        with contextlib.suppress(OSError):
            os.close(number)
