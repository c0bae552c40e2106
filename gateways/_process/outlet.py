"""Where lines of a log go: files and stderr, written to without ever waiting for those who read them."""

from __future__ import annotations

import atexit
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Outlet", "outlet", "outlets"]

#: Bytes that wait for a reader who is slow; what comes when they are as many is lost.
_MAX_WAITING = 1_048_576
#: Seconds that a process that ends waits for such a reader.
_LAST_WORDS = 1.0


class Outlet:
    """A file or stream that lines are written to, without ever waiting for it.

    What it does not take at once is kept, up to a size, and written by a thread that only exists as long as there is
    some of that. stderr itself is never made non-blocking, because that would hold for every process that has it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        #: Lines that could not be written since the last one that could.
        self.lost = 0
        self._waiting: deque[bytes] = deque()
        self._size = 0
        #: Whether the first of those that wait was begun to be written.
        self._cut = False
        self._thread: threading.Thread | None = None
        self._fd = -1
        self._write: Callable[[bytes], int]
        self._open()

    def _open(self) -> None:
        if self.name == "-":
            self._fd, self._write = _without_waiting(2)
        else:
            # Each line is one write: with O_APPEND several processes can share the file.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
            # It may be a named pipe.
            self._fd = os.open(self.name, flags | os.O_NONBLOCK, 0o640)
            self._write = _to_file(self._fd)

    def reopen(self) -> None:
        """Go on in the file that has the name now. Raises OSError, and goes on in the old one, if it cannot be had."""
        if self.name != "-":
            with self.lock:
                self._write_waiting()
                before = self._fd
                self._open()
                os.close(before)

    def put(self, line: bytes, notice: Callable[[int], bytes]) -> None:
        """Write a line, now or later, or count it as lost. For those who have the lock."""
        if self._waiting:
            if self._size + len(line) > _MAX_WAITING:
                self.lost += 1
            else:
                self._wait_with(line)
            return
        data = line
        if self.lost:
            data = notice(self.lost) + line
        if self._cut:
            data = b"\n" + data
        try:
            written = self._write(data)
        except BlockingIOError:
            written = 0
        except OSError:
            self.lost += 1
            return
        self.lost = 0
        self._cut = False
        if written < len(data):
            self._cut = written > 0
            self._wait_with(data[written:])
            self._thread = threading.Thread(target=self._write_later, name=f"log to {self.name}", daemon=True)
            self._thread.start()

    def _wait_with(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def _write_later(self) -> None:
        while True:
            _wait_until_writable(self._fd, 1.0)
            with self.lock:
                self._write_waiting()
                if not self._waiting:
                    self._thread = None
                    return

    def _write_waiting(self) -> None:
        """Write of what waits as much as is taken."""
        while self._waiting:
            data = self._waiting[0]
            try:
                written = self._write(data)
            except BlockingIOError:
                return
            except OSError:
                self.lost += len(self._waiting)
                self._waiting.clear()
                self._size = 0
                return
            self._size -= written
            if written < len(data):
                self._waiting[0] = data[written:]
                self._cut = True
                return
            self._waiting.popleft()
            self._cut = False

    def finish(self) -> None:
        """Write what waits, for a moment."""
        until = time.monotonic() + _LAST_WORDS
        while (left := until - time.monotonic()) > 0:
            with self.lock:
                self._write_waiting()
                if not self._waiting:
                    return
            _wait_until_writable(self._fd, left)

    def forget(self) -> None:
        """After a fork: what waits is for the other process to write."""
        self._waiting.clear()
        self._size = 0
        self._cut = False
        self._thread = None
        self.lost = 0


def _wait_until_writable(fd: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(seconds * 1000)


def _to_file(fd: int) -> Callable[[bytes], int]:
    return lambda data: os.write(fd, data)


def _without_waiting(fd: int) -> tuple[int, Callable[[bytes], int]]:
    """A descriptor for what another stands for, and what writes to it without waiting: BlockingIOError instead."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind):
        return fd, _to_file(fd)
    if stat.S_ISSOCK(kind):
        # The journal of systemd, for one.
        stream = socket.socket(fileno=os.dup(fd))
        return stream.fileno(), lambda data: stream.send(data, socket.MSG_DONTWAIT)
    if sys.platform == "linux":
        # Opened anew it is another description of the same pipe or terminal, and may have flags of its own.
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            own = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            pass  # somebody else's, or a pipe that nobody reads
        else:
            return own, _to_file(own)
    return fd, _if_writable(fd)


def _if_writable(fd: int) -> Callable[[bytes], int]:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)

    def write(data: bytes) -> int:
        if not poll.poll(0):
            raise BlockingIOError
        # A pipe that can be written to at all takes as many bytes.
        return os.write(fd, data[: select.PIPE_BUF])

    return write


#: name -> the one outlet there is of it, because lines must not mix.
outlets: dict[str, Outlet] = {}


def outlet(name: str) -> Outlet:
    """The outlet of a file, or "-" for stderr. Raises OSError for a file that cannot be opened."""
    name = name if name == "-" else os.path.abspath(name)
    if name not in outlets:
        outlets[name] = Outlet(name)
    return outlets[name]


def _before_fork() -> None:
    for outlet in outlets.values():
        outlet.lock.acquire()


def _after_fork_in_parent() -> None:
    for outlet in outlets.values():
        outlet.lock.release()


def _after_fork_in_child() -> None:
    for outlet in outlets.values():
        outlet.forget()
        outlet.lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@atexit.register
def _finish() -> None:
    for outlet in outlets.values():
        outlet.finish()
