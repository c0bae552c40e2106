"""The other ends of one process: a service manager that is told how it is, and its children."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cli.program import PATIENCE, Answer, Program, ask, command, environment, poll


class Manager:
    """A socket for NOTIFY_SOCKET, and what has come there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def wait_for(self, wanted: str) -> list[str]:
        """Wait for a message with a line that begins so; all of its lines."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = self._socket.recv(65536).decode().split("\n")
            self.lines += message
            if any(line.startswith(wanted) for line in message):
                return message
        raise TimeoutError(f"nothing begins with {wanted!r} in {self.lines}")


@contextmanager
def watched(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    words: list[str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> Generator[tuple[Program, Manager], None, None]:
    """``gateways serve`` (or another command) under a service manager, once it is ready."""
    manager = Manager(cwd.resolve() / "notify")
    try:
        given = environment({**(env or {}), "NOTIFY_SOCKET": str(manager.path)})
        with Program(words or command("serve", *arguments), cwd=cwd, env=given, pass_fds=pass_fds) as program:
            manager.wait_for("READY=1")
            yield program, manager
    finally:
        manager.close()


def reload(program: Program, manager: Manager) -> None:
    """Have the code loaded anew, and wait until nobody else serves any more."""
    program.signal(signal.SIGHUP)
    reloaded(program, manager)


def reloaded(program: Program, manager: Manager) -> None:
    """Wait until a reload has come to its end."""
    message = manager.wait_for("READY=1")
    assert not any("failed" in line for line in message), message
    poll(lambda: children(program.process.pid) == [], "the bridge has ended and is reaped")


def ask_until(address: str, pid: int) -> Answer:
    """Ask until a certain process answers (with its process id as the last word): another one may accept, too."""
    deadline = time.monotonic() + PATIENCE
    while (answer := ask(address)) is None or answer.body.split()[-1] != str(pid):
        assert time.monotonic() < deadline, f"process {pid} does not answer"
    return answer


def wait_until_alone(path: Path, old: int) -> None:
    """Wait until ``old`` accepts no more at the socket ``path``: it has left only the descriptor that it hands over.

    That another process answers does not show it: who is slow to hear of the other goes on accepting meanwhile.
    """
    listening = "00010000"  # __SO_ACCEPTCON
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    [inode] = [line[6] for line in lines if line[-1] == str(path) and line[3] == listening]
    poll(lambda: descriptors(old).count(f"socket:[{inode}]") == 1, f"process {old} accepts no more")


def descriptors(pid: int) -> list[str]:
    """What the open descriptors of a process are."""
    found: list[str] = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(each.readlink()))
    return found


def children(pid: int) -> list[int]:
    """The children of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(number) for number in (task / "children").read_text().split()]
    return found


def gone(pid: int) -> bool:
    """Whether there is no such process, or only what is left of it until it is reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
